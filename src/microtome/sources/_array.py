"""Arrays as images: in memory, or computed when they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError
from microtome.image import Kind, Level, MemoryArray, MultiscaleImage, PixelArray, as_array

from ._lazy import is_lazy, lazy_array

__all__ = ["Placement", "image_from_array", "image_from_levels", "ordered_axes", "pixel_array"]

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
    """View an array as an image of one level; nothing is copied or computed.

    Parameters
    ----------
    array
        Anything numpy can view, torch tensors included; or an array of dask or zarr-python, of
        which a read computes what it touches.
    axes
        Names of the axes in the array's order; by default those that a Zarr array states, and
        (Y, X) for two of them.
    mpp
        Pixel size, or None.
    channel_names
        One a channel.
    uri, name
        What the image is called.
    """
    if is_lazy(array):
        letters, known = axes or _stated_axes(array), lazy_array
    else:
        array, letters, known = _numbers(array), axes, _in_memory
    ordered, order = ordered_axes(letters, array.shape)
    return image_from_levels(
        [known(array, order)],
        ordered,
        mpp=mpp,
        channel_names=channel_names,
        uri=uri,
        name=name,
    )


def pixel_array(array: Any) -> tuple[PixelArray, str | None]:
    """Return an array as it lies, and the axes that it states of itself; nothing is copied.

    Parameters
    ----------
    array
        What `image_from_array` takes.

    Raises
    ------
    InvalidInputError
        If it holds no numbers, or no pixels.
    """
    if is_lazy(array):
        return lazy_array(array, range(len(array.shape))), _stated_axes(array)
    pixels = _numbers(array)
    return MemoryArray(pixels), None


def ordered_axes(axes: str | None, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """Return the axes of an array in the order of images, and for each which of the array's it is.

    Parameters
    ----------
    axes
        One letter an axis of the array; (Y, X) by default for two of them.
    shape
        Shape of the array, for its number of axes and the message.

    Raises
    ------
    InvalidInputError
        If they do not fit the array or are no axes of an image.
    """
    letters = "".join(axes or ("yx" if len(shape) == 2 else "")).lower()
    if (
        len(letters) != len(shape)
        or len(set(letters)) != len(letters)
        or not set("yx") <= set(letters) <= set(_ORDER)
    ):
        msg = f"an array of shape {tuple(shape)} needs axes= with one letter of t, c, z, y, x each, got {axes!r}"
        raise InvalidInputError(msg)
    ordered = "".join(axis for axis in _ORDER if axis in letters)
    return ordered, tuple(letters.index(axis) for axis in ordered)


def _numbers(array: Any) -> NDArray[Any]:
    what = f"an array of type {type(array).__name__}"
    pixels = as_array(array, what)
    if pixels.dtype.kind not in "biuf":
        msg = f"an image holds numbers, got {pixels.dtype} of type {type(array).__name__}"
        raise InvalidInputError(msg)
    if pixels.size == 0:
        msg = f"an array of shape {pixels.shape} has no pixels"
        raise InvalidInputError(msg)
    return pixels


def _in_memory(pixels: NDArray[Any], order: Sequence[int]) -> PixelArray:
    return MemoryArray(pixels.transpose(order))


def _stated_axes(array: Any) -> str | None:
    """Return the names that a Zarr array gives its dimensions, if each is one letter."""
    names = getattr(getattr(array, "metadata", None), "dimension_names", None)
    if not names or any(not isinstance(name, str) or len(name) != 1 for name in names):
        return None
    return "".join(names)


class Placement(NamedTuple):
    """Where a level lies in the finest one, in pixels of that, between edges.

    Parameters
    ----------
    factors
        How many of its pixels one of the level covers, by axis.
    shift
        Where the level's first pixel begins.
    """

    factors: Mapping[str, float]
    shift: Mapping[str, float]


def image_from_levels(  # noqa: PLR0913 - what an image is made of
    arrays: Sequence[Any],
    axes: str,
    *,
    mpp: Mpp | None,
    channel_names: Sequence[str] | None,
    uri: str,
    name: str,
    kind: Kind = "intensity",
    metadata: dict[str, Any] | None = None,
    placements: Sequence[Placement] | None = None,
    z_spacing: float | None = None,
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
    placements
        Where the levels lie; by default as their shapes say.
    z_spacing
        How far planes of the first are apart, in micrometres; 1 where nobody says.
    """
    base = arrays[0]
    if "c" in axes:
        count = base.shape[axes.index("c")]
        if channel_names is None:
            rgb = count == len(_RGB) and base.dtype == np.uint8
            channel_names = _RGB if rgb else [f"channel {i}" for i in range(count)]
    else:
        channel_names = None
    size = {"z": z_spacing or 1.0, "y": mpp.y if mpp else 1.0, "x": mpp.x if mpp else 1.0}
    levels: list[Level] = []
    for index, array in enumerate(arrays):
        factors, shift = placements[index] if placements else _by_shape(base, array, axes)
        levels.append(
            Level(
                f"level{index}",
                f"level{index}",
                array,
                axes,
                tuple(size[a] * factors[a] if a in size else 1.0 for a in axes),
                # Of its centre: the first pixel begins at the shift.
                tuple(
                    size[a] * (shift[a] + (factors[a] - 1) / 2) if a in size else 0.0 for a in axes
                ),
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


def _by_shape(base: PixelArray, level: PixelArray, axes: str) -> Placement:
    spatial = [(axis, place) for place, axis in enumerate(axes) if axis in "zyx"]
    factors = {axis: _factor(base.shape[place], level.shape[place]) for axis, place in spatial}
    return Placement(factors, dict.fromkeys(factors, 0.0))


def _factor(base: int, level: int) -> float:
    """Return how many pixels of the finest level one of a coarser level covers."""
    ratio = base / level
    whole = round(ratio)
    # Scanners halve and drop or pad the odd edge: 2967 -> 741 rows is a factor of 4, not 4.004.
    return float(whole) if abs(level * whole - base) < whole else ratio
