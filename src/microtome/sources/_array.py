"""Arrays in memory as images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError
from microtome.image import Kind, Level, MemoryArray, MultiscaleImage

__all__ = ["image_from_array", "image_from_levels"]

_ORDER = "tczyx"
_RGB = ("red", "green", "blue")


def image_from_array(
    array: Any,
    *,
    axes: str | None,
    mpp: Mpp | None,
    channel_names: Sequence[str] | None = None,
    uri: str = "array",
    name: str = "array",
) -> MultiscaleImage:
    """View an array as an image of one level; nothing is copied.

    Parameters
    ----------
    array
        Anything numpy can view, torch tensors included.
    axes
        Names of the axes in the array's order; (Y, X) by default for two of them.
    mpp
        Pixel size, or None.
    channel_names
        One a channel.
    uri, name
        What the image is called.
    """
    pixels: NDArray[Any] = np.asarray(array)
    if pixels.dtype.kind not in "biuf":
        msg = f"an image holds numbers, got {pixels.dtype} of type {type(array).__name__}"
        raise InvalidInputError(msg)
    if pixels.size == 0:
        msg = f"an array of shape {pixels.shape} has no pixels"
        raise InvalidInputError(msg)
    letters = (axes or ("yx" if pixels.ndim == 2 else "")).lower()
    if (
        len(letters) != pixels.ndim
        or len(set(letters)) != len(letters)
        or not set("yx") <= set(letters) <= set(_ORDER)
    ):
        msg = f"an array of shape {pixels.shape} needs axes= with one letter of t, c, z, y, x each, got {axes!r}"
        raise InvalidInputError(msg)
    ordered = "".join(axis for axis in _ORDER if axis in letters)
    view = pixels.transpose([letters.index(axis) for axis in ordered])
    return image_from_levels(
        [MemoryArray(view)], ordered, mpp=mpp, channel_names=channel_names, uri=uri, name=name
    )


def image_from_levels(
    arrays: Sequence[Any],
    axes: str,
    *,
    mpp: Mpp | None,
    channel_names: Sequence[str] | None,
    uri: str,
    name: str,
    kind: Kind = "intensity",
    metadata: dict[str, Any] | None = None,
) -> MultiscaleImage:
    """Make an image of `PixelArray`s that share their axes, finest first.

    Parameters
    ----------
    arrays
        The levels.
    axes
        Names of their axes.
    mpp
        Pixel size of the first, or None: then scales count its pixels.
    channel_names
        One a channel; numbered by default, or red, green, blue for three channels of 8 bits.
    uri, name, kind, metadata
        Passed on.
    """
    base = arrays[0]
    if "c" in axes:
        count = base.shape[axes.index("c")]
        if channel_names is None:
            rgb = count == len(_RGB) and base.dtype == np.uint8
            channel_names = _RGB if rgb else [f"channel {i}" for i in range(count)]
    else:
        channel_names = None
    size = {"y": mpp.y if mpp else 1.0, "x": mpp.x if mpp else 1.0}
    levels: list[Level] = []
    for index, array in enumerate(arrays):
        factor = {
            axis: _factor(base.shape[axes.index(axis)], array.shape[axes.index(axis)])
            for axis in "yx"
        }
        levels.append(
            Level(
                f"level{index}",
                f"level{index}",
                array,
                axes,
                tuple(size[a] * factor[a] if a in size else 1.0 for a in axes),
                tuple(size[a] * (factor[a] - 1) / 2 if a in size else 0.0 for a in axes),
            )
        )
    return MultiscaleImage(
        levels,
        uri=uri,
        channel_names=channel_names,
        mpp=mpp,
        kind=kind,
        name=name,
        metadata=metadata,
    )


def _factor(base: int, level: int) -> float:
    """Return how many pixels of the finest level one of a coarser level covers."""
    ratio = base / level
    whole = round(ratio)
    # Scanners halve and drop or pad the odd edge: 2967 -> 741 rows is a factor of 4, not 4.004.
    return float(whole) if abs(level * whole - base) < whole else ratio
