"""Images and labels of SpatialData and xarray: read in place, computed only where they are read.

SpatialData keeps an element as an `xarray.DataArray`, or as a `DataTree` of one for each level, with
its transforms among the attributes. Its coordinates are those of our boxes: pixel 0 covers [0, 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import (
    AffineTransform,
    CoordinateTransform,
    IdentityTransform,
    Mpp,
    ScaleTransform,
    TranslationTransform,
)
from microtome.errors import InvalidInputError, UnknownNameError
from microtome.image import MultiscaleImage

from ._array import Placement, image_from_levels, ordered_axes
from ._lazy import is_from, lazy_array

__all__ = ["element_transform", "is_xarray", "open_xarray"]

_TRANSFORMS = "transform"
_LETTERS = {"channel": "c", "channels": "c", "time": "t"}


def is_xarray(source: object) -> bool:
    """Whether something is a DataArray or a DataTree."""
    return is_from(source, "xarray", "DataArray") or is_from(source, "xarray", "DataTree")


def open_xarray(
    source: Any, *, axes: str | None, mpp: Mpp | None, channel_names: Sequence[str] | None
) -> MultiscaleImage:
    """View a DataArray, a DataTree of levels, or an element of SpatialData as an image.

    Parameters
    ----------
    source
        The element. One of SpatialData that has no channels is labels.
    axes
        Names of its axes; those of its dimensions by default.
    mpp
        Pixel size. SpatialData states no units, so that without it there is none.
    channel_names
        Names of the channels, instead of those that the coordinate ``c`` has.

    Raises
    ------
    InvalidInputError
        If its dimensions are no axes of an image, or its levels none of one image.
    """
    arrays = _levels(source)
    base = arrays[0]
    dims = tuple(str(dim) for dim in base.dims)
    if any(tuple(map(str, array.dims)) != dims for array in arrays):
        msg = f"levels of one image have the same dimensions, got {[a.dims for a in arrays]}"
        raise InvalidInputError(msg)
    letters = axes or "".join(_LETTERS.get(dim.lower(), dim.lower()) for dim in dims)
    if axes is None and len(letters) != len(dims):
        msg = f"dimensions {dims} are no axes of an image: give axes= with one letter of t, c, z, y, x each"
        raise InvalidInputError(msg)
    ordered, order = ordered_axes(letters, base.shape)
    is_element = bool(_transforms(base))
    name = str(base.name or getattr(source, "name", None) or "array")
    return image_from_levels(
        [lazy_array(array, order) for array in arrays],
        ordered,
        mpp=mpp,
        channel_names=channel_names or _channel_names(base, letters, dims),
        uri=name,
        name=name,
        kind="labels" if is_element and "c" not in ordered else "intensity",
        placements=_placements(arrays, ordered) if is_element else None,
    )


def element_transform(element: Any, system: str | None = None) -> CoordinateTransform:
    """Return where the pixels of an element of SpatialData lie in a coordinate system.

    Its inverse is the `region_transform` with which `MultiscaleImage.read_spatial_region` reads a
    box of that system.

    Parameters
    ----------
    element
        An image or labels of SpatialData: a DataArray or a DataTree with transforms.
    system
        Name of the coordinate system; may be left out where the element is in only one.

    Returns
    -------
    From pixels of the finest level, (x, y) or (x, y, z), pixel 0 covering [0, 1), to the system.

    Raises
    ------
    InvalidInputError
        If it has no transforms, or is in several systems and none is named.
    UnknownNameError
        If it is not in that system.
    """
    base = _levels(element)[0] if is_xarray(element) else None
    known = _transforms(base) if base is not None else {}
    if not known:
        msg = f"a {type(element).__name__} without transforms is no element of SpatialData"
        raise InvalidInputError(msg)
    if system is None and len(known) > 1:
        msg = f"the element is in several coordinate systems, name one: {sorted(known)}"
        raise InvalidInputError(msg)
    chosen = next(iter(known)) if system is None else system
    if chosen not in known:
        msg = f"the element is not in coordinate system {chosen!r}, but in {sorted(known)}"
        raise UnknownNameError(msg)
    axes = tuple(axis for axis in "xyz" if axis in cast("Any", base).dims)
    return _simplest(axes, _matrix(known[chosen], axes))


def _levels(source: Any) -> list[Any]:
    """Return the DataArrays of an element, finest first."""
    if is_from(source, "xarray", "DataArray"):
        return [source]
    arrays: list[Any] = []
    for node in source.children.values():
        variables = list(node.data_vars.values())
        if len(variables) != 1:
            msg = f"a level is one array, got {[str(v.name) for v in variables]} in {node.name!r}"
            raise InvalidInputError(msg)
        arrays += variables
    if not arrays:
        msg = "a DataTree without levels is no image"
        raise InvalidInputError(msg)
    return sorted(arrays, key=lambda array: -array.size)


def _channel_names(base: Any, letters: str, dims: tuple[str, ...]) -> list[str] | None:
    if "c" not in letters:
        return None
    dim = dims[letters.index("c")]
    if dim not in base.coords:
        return None
    names = base.coords[dim].to_numpy().tolist()
    # Numbers from 0 are what is there when nobody named anything.
    return None if names == list(range(len(names))) else [str(name) for name in names]


def _transforms(array: Any) -> Mapping[str, Any]:
    """Return the transforms of a level of an element, by coordinate system."""
    found = array.attrs.get(_TRANSFORMS)
    if not isinstance(found, Mapping):
        return {}
    known = cast("Mapping[str, Any]", found)
    return known if all(hasattr(t, "to_affine_matrix") for t in known.values()) else {}


def _matrix(transform: Any, axes: tuple[str, ...]) -> NDArray[np.float64]:
    return np.asarray(transform.to_affine_matrix(input_axes=axes, output_axes=axes), np.float64)


def _placements(arrays: Sequence[Any], axes: str) -> list[Placement]:
    """Return where the levels lie in the finest one, as their transforms say."""
    spatial = tuple(axis for axis in axes if axis in "zyx")
    system, first = next(iter(_transforms(arrays[0]).items()))
    to_base = np.linalg.inv(_matrix(first, spatial))
    placements: list[Placement] = []
    for array in arrays:
        known = _transforms(array)
        if system not in known:
            msg = f"a level of shape {array.shape} is not in coordinate system {system!r}, as the finest is"
            raise InvalidInputError(msg)
        # Twice the finest level's matrix is not to become 1.9999999999999998.
        relative = np.round(to_base @ _matrix(known[system], spatial), 12)
        factors, shift = np.diag(relative)[:-1], relative[:-1, -1]
        if np.any(relative[:-1, :-1] != np.diag(factors)) or np.any(factors <= 0):
            msg = f"a level of shape {array.shape} is turned or sheared against the finest: {relative.tolist()}"
            raise InvalidInputError(msg)
        placements.append(
            Placement(
                dict(zip(spatial, factors.tolist(), strict=True)),
                dict(zip(spatial, shift.tolist(), strict=True)),
            )
        )
    return placements


def _simplest(axes: tuple[str, ...], matrix: NDArray[np.float64]) -> CoordinateTransform:
    linear, shift = matrix[:-1, :-1], matrix[:-1, -1]
    factors = np.diag(linear)
    if np.array_equal(linear, np.eye(len(axes))):
        return (
            TranslationTransform(axes, axes, shift)
            if shift.any()
            else IdentityTransform(axes, axes)
        )
    if not shift.any() and np.array_equal(linear, np.diag(factors)):
        return ScaleTransform(axes, axes, factors)
    return AffineTransform(axes, axes, matrix)
