"""Any window of a level, over its edges too, with the channels that are wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.storage import Pending

from ._level import Level

__all__ = ["Padding", "allocated", "checked_padding", "checked_size", "fill_value", "read_window"]

Padding = float | Literal["edge", "reflect"]
"""What stands outside the image: a number, the nearest pixel, or the mirror image; False for
nothing, so that what is read ends where the image does."""

# More pixels than a machine's memory can address: two numbers of a region are mistaken.
_MOST_PIXELS = 2**44


def checked_padding(padding: object, dtype: np.dtype[Any]) -> Padding:
    """Return what stands outside an image.

    Parameters
    ----------
    padding
        False, ``"edge"``, ``"reflect"`` or a number.
    dtype
        Type of the pixels, which the number must fit.

    Raises
    ------
    InvalidInputError
        If it is none of these, or the number would become another one.
    """
    if padding is False:
        return False
    if isinstance(padding, str) and padding in ("edge", "reflect"):
        return padding
    value: NDArray[Any] = np.asarray(padding)
    if padding is True or value.ndim or value.dtype.kind not in "iuf":
        msg = f"pad must be False, 'edge', 'reflect' or a number, got {padding!r}"
        raise InvalidInputError(msg)
    with np.errstate(invalid="ignore", over="ignore"):
        cast = value.astype(dtype)
    # A float has fewer digits than the number typed, never another value.
    same = np.isfinite(value) == np.isfinite(cast) if dtype.kind == "f" else cast == value
    if not same:
        msg = f"pad={padding!r} is no value of the image's pixels, which are {dtype}"
        raise InvalidInputError(msg)
    return value.item()


def fill_value(padding: Padding) -> float:
    """Return the value of a pixel that no pixel of the image stands for."""
    return 0 if isinstance(padding, str) else padding


def checked_size(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a result.

    Raises
    ------
    InvalidInputError
        If no memory holds it.
    """
    if math.prod(shape) > _MOST_PIXELS:
        msg = (
            f"{math.prod(shape):.3g} pixels were asked for; give a smaller region or a larger "
            "spacing"
        )
        raise InvalidInputError(msg)
    return tuple(shape)


def allocated(shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return memory for a result, not filled.

    Raises
    ------
    InvalidInputError
        If this machine has not as much.
    """
    try:
        return np.empty(shape, dtype)
    except MemoryError as error:
        msg = (
            f"{math.prod(shape) * dtype.itemsize / 2**30:.1f} GiB of pixels were asked for, more "
            f"than this machine has memory: {tuple(shape)} of {dtype}; give a smaller region, or a "
            "coarser level"
        )
        raise InvalidInputError(msg) from error


def read_window(
    level: Level,
    box: Sequence[tuple[int, int]],
    channels: Sequence[int] | None,
    padding: Padding,
) -> NDArray[Any]:
    """Read a window of a level.

    Parameters
    ----------
    level
        The level; its last axes are those of the window.
    box
        Half-open interval an axis, (Z)YX; must lie inside the level where `padding` is False.
    channels
        Channels by number, in any order; None for all.
    padding
        What stands outside the level.

    Returns
    -------
    Pixels in the order of the level's axes.
    """
    sizes = level.shape[-len(box) :]
    shape = _shape(level, box, channels)
    if 0 in shape:
        return allocated(shape, level.dtype)
    if isinstance(padding, str):
        places = [_continued(*part, size, padding) for part, size in zip(box, sizes, strict=True)]
        inner = [(int(place.min()), int(place.max()) + 1) for place in places]
        data = allocated(_shape(level, inner, channels), level.dtype)
        _read_into(level, inner, channels, data)
        for axis, (place, part) in enumerate(zip(places, inner, strict=True)):
            if part != tuple(box[axis]):
                data = np.take(data, place - part[0], axis=axis - len(box))
        return data
    inner = [
        (min(max(start, 0), size), min(max(stop, 0), size))
        for (start, stop), size in zip(box, sizes, strict=True)
    ]
    if inner == [tuple(part) for part in box]:
        data = allocated(shape, level.dtype)
        _read_into(level, inner, channels, data)
        return data
    data = allocated(shape, level.dtype)
    data[...] = fill_value(padding)
    if all(start < stop for start, stop in inner):
        within = [
            slice(start - origin, stop - origin)
            for (start, stop), (origin, _) in zip(inner, box, strict=True)
        ]
        _read_into(level, inner, channels, data[(..., *within)])
    return data


def _shape(
    level: Level, box: Sequence[tuple[int, int]], channels: Sequence[int] | None
) -> tuple[int, ...]:
    lead = list(level.shape[: -len(box)])
    if channels is not None:
        lead[level.axes.index("c")] = len(channels)
    return checked_size([*lead, *(stop - start for start, stop in box)])


def _read_into(
    level: Level,
    box: Sequence[tuple[int, int]],
    channels: Sequence[int] | None,
    out: NDArray[Any],
) -> None:
    whole = [(0, size) for size in level.shape[: -len(box)]] + list(box)
    if not out.size:
        return
    if channels is None:
        level.array.read_into(tuple(whole), out).result()
        return
    axis = level.axes.index("c")
    reads: list[Pending] = []
    # One read for each run of neighbours, all under way before the first is waited for.
    breaks = np.flatnonzero(np.diff(np.asarray(channels, np.int64)) != 1) + 1
    for start, stop in zip([0, *breaks.tolist()], [*breaks.tolist(), len(channels)], strict=True):
        if start < stop:
            whole[axis] = (channels[start], channels[stop - 1] + 1)
            part = out[(slice(None),) * axis + (slice(start, stop),)]
            reads.append(level.array.read_into(tuple(whole), part))
    for read in reads:
        read.result()


def _continued(
    start: int, stop: int, size: int, padding: Literal["edge", "reflect"]
) -> NDArray[np.int64]:
    """Return which pixel of an axis stands at each place of an interval that leaves it."""
    places = np.arange(start, stop)
    if padding == "edge" or size == 1:
        return np.clip(places, 0, size - 1)
    # Like a wave with the period of there and back, which meets either end once.
    places %= 2 * (size - 1)
    return np.minimum(places, 2 * (size - 1) - places)
