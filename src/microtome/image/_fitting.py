"""Whether a level fits among others: its shape, its factor, its place and its path."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import count

from microtome.errors import ExistsError, InvalidInputError
from microtome.storage import ImageStore, is_inside

from ._level import Level, as_index

__all__ = ["checked_factors", "checked_shape", "free_path", "path_inside", "place_of_level"]


def checked_shape(
    uri: str, key: object, shape: Sequence[int], axes: str, base: Sequence[int]
) -> tuple[int, ...]:
    """Return the shape of a level that fits the reference level.

    Parameters
    ----------
    uri
        The image, for messages.
    key, shape
        Name and shape of the level.
    axes, base
        Axes and shape of the reference level.

    Raises
    ------
    InvalidInputError
        If the level has another number of axes, other channels or times, or is larger.
    """
    if not isinstance(key, str) or not key:
        msg = f"{uri}: a level is named by a text, got {key!r}"
        raise InvalidInputError(msg)
    sizes = [as_index(size) for size in shape]
    wanted = tuple(size for size in sizes if size is not None)
    if len(wanted) != len(base) or len(sizes) != len(base) or min(wanted) < 1:
        msg = (
            f"{uri}: level {key!r} of shape {tuple(shape)} does not fit the axes {tuple(axes)} of "
            f"{tuple(base)}"
        )
        raise InvalidInputError(msg)
    for axis, size, whole in zip(axes, wanted, base, strict=True):
        if size > whole or (size < whole and axis in "tc"):
            rule = "channels and times are the same on all" if axis in "tc" else "it is largest"
            msg = (
                f"{uri}: level {key!r} of shape {wanted} does not fit the reference level "
                f"{tuple(base)} along {axis!r}: {rule}"
            )
            raise InvalidInputError(msg)
    return wanted


def checked_factors(
    uri: str, key: str, shape: Sequence[int], scale: Sequence[float] | None, base: Level
) -> list[float]:
    """Return how many pixels of the reference level a pixel covers, an entry an axis of the array.

    Parameters
    ----------
    uri
        The image, for messages.
    key, shape
        Name and shape of the level.
    scale
        What the caller says, along (x, y) or (x, y, z); None for what the shapes say.
    base
        The reference level.

    Raises
    ------
    InvalidInputError
        If the level would end before the reference level does, or begin a pixel after it.
    """
    axes = [axis for axis in "xyz" if axis in base.axes]
    if scale is not None and len(scale) != len(axes):
        msg = f"{uri}: scale is a number along each of {tuple(axes)}, got {tuple(scale)}"
        raise InvalidInputError(msg)
    given = dict(zip(axes, scale or (), strict=False))
    factors: list[float] = []
    for axis, size, whole in zip(base.axes, shape, base.shape, strict=True):
        factor = float(given.get(axis, _whole_factor(whole, size)))
        if not (math.isfinite(factor) and factor >= 1 and (size - 1) * factor < whole):
            msg = (
                f"{uri}: {size} pixels of level {key!r} cannot cover {factor} pixels each of the "
                f"{whole} of the reference level along {axis!r}"
            )
            raise InvalidInputError(msg)
        factors.append(factor)
    return factors


def _whole_factor(base: int, size: int) -> float:
    """Return how many pixels one covers where `base` of them became `size`, rounded up or not."""
    whole = round(base / size)
    return float(whole) if -(-base // whole) == size else base / size


def place_of_level(uri: str, key: str, shape: Sequence[int], levels: Sequence[Level]) -> int:
    """Return the number that a level has among others, after those of its own size.

    Raises
    ------
    ExistsError
        If there is a level of that name.
    InvalidInputError
        If it is larger than one of them in one direction and smaller in another.
    """
    if any(level.key == key for level in levels):
        msg = f"{uri} has a level {key!r} already"
        raise ExistsError(msg)
    index = sum(all(a >= b for a, b in zip(level.shape, shape, strict=True)) for level in levels)
    for level in levels[index:]:
        if any(a > b for a, b in zip(level.shape, shape, strict=True)):
            msg = (
                f"{uri}: level {key!r} of shape {tuple(shape)} is neither larger nor smaller than "
                f"{level.key!r} of {level.shape}: levels are ordered by size"
            )
            raise InvalidInputError(msg)
    return index


def path_inside(image: str, uri: str | os.PathLike[str]) -> str:
    """Return where a level lies inside its image, given that path or the whole one.

    Raises
    ------
    InvalidInputError
        If it lies elsewhere, or among the labels.
    """
    path = os.fspath(uri).removeprefix(f"{image}/")
    if not is_inside(path) or path.split("/")[0] == "labels":
        msg = f"{image}: a level lies inside its image, and not in labels/; got {os.fspath(uri)!r}"
        raise InvalidInputError(msg)
    return path


def free_path(store: ImageStore, levels: Sequence[Level]) -> str:
    """Return the first number that is no path of a level, and holds nothing else."""
    taken = {level.path for level in levels}
    return next(path for path in map(str, count()) if path not in taken and not store.holds(path))
