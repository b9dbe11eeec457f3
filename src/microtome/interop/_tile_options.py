"""Which options of `ImageTilesDataset` go together: one that would do nothing is refused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from microtome.errors import InvalidInputError
from microtome.image import Resampling
from microtome.storage import StorageOptions

__all__ = ["verify_options"]


def verify_options(options: Mapping[str, Any]) -> None:
    """Refuse options that do not go together, before anything is opened.

    Parameters
    ----------
    options
        The arguments of `ImageTilesDataset` by name.

    Raises
    ------
    InvalidInputError
        If one needs another, or would be ignored: the caller means something by it.
    """
    output, rasterize = options["output"], options["rasterize"]
    _verify_kinds(options)
    if options["return_annotations"] is not None and options["table_name"] is None:
        msg = "return_annotations are values of a table: give table_name"
        raise InvalidInputError(msg)
    if output not in ("spatialdata", "region"):
        msg = f"output must be 'spatialdata' or 'region', got {output!r}"
        raise InvalidInputError(msg)
    if options["interpolation"] not in get_args(Resampling):
        msg = (
            f"interpolation must be one of {get_args(Resampling)}, got {options['interpolation']!r}"
        )
        raise InvalidInputError(msg)
    padding = options["padding"]
    if not (padding in ("edge", "reflect") if isinstance(padding, str) else _is_number(padding)):
        msg = f"padding must be a number, 'edge' or 'reflect', got {padding!r}"
        raise InvalidInputError(msg)
    if output != "region":
        unused = {"tile_size": None, "pixel_size": None, "padding": 0}
        given = [
            f"{name}={options[name]!r}"
            for name, default in unused.items()
            if options[name] != default
        ]
        if given:
            msg = (
                f"{', '.join(given)}: of tiles that are ImageRegionData; give output='region' as well, "
                "or size the tiles with tile_dim_in_units or tile_scale"
            )
            raise InvalidInputError(msg)
    if not rasterize and options["interpolation"] != "nearest":
        msg = (
            f"interpolation={options['interpolation']!r} says how tiles are rasterized, and rasterize "
            "is False: their pixels are as they are stored; give rasterize=True, or leave it out"
        )
        raise InvalidInputError(msg)
    size = options["rasterize_kwargs"]
    if rasterize and size and options["tile_size"] is not None:
        msg = (
            f"tile_size={options['tile_size']!r} and rasterize_kwargs={dict(size)} both say how many "
            "pixels a rasterized tile has; give one of them"
        )
        raise InvalidInputError(msg)
    if size and not rasterize:
        # As spatialdata does, whose callers may hand it along for both.
        warnings.warn(
            "rasterize_kwargs say how tiles are rasterized, and rasterize is False: they are ignored",
            UserWarning,
            stacklevel=3,
        )


def _verify_kinds(options: Mapping[str, Any]) -> None:
    transform, storage = options["transform"], options["storage_options"]
    if transform is not None and not callable(transform):
        msg = f"transform is called with each item, got {transform!r}"
        raise InvalidInputError(msg)
    if storage is not None and not isinstance(storage, StorageOptions):
        msg = f"storage_options are StorageOptions(...), got {storage!r}"
        raise InvalidInputError(msg)
    for name in ("regions_to_images", "regions_to_coordinate_systems", "regions_to_labels"):
        if options[name] is not None and not isinstance(options[name], Mapping):
            msg = f"{name} is a mapping from names of regions, got {options[name]!r}"
            raise InvalidInputError(msg)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
