"""Reading an image at a pixel size that need not be one of its levels'."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import DTypeLike, NDArray

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError

from ._channels import Channels
from ._resample import Interpolation, grid_size, interpolation_at, resample, taps

if TYPE_CHECKING:
    from ._reading import ReadableImage

__all__ = ["best_level", "grid_at", "level_for_means", "read_at", "read_grid"]

# Pixel sizes are decimal numbers, and their ratios rounded: equal to this part of one is equal.
_SAME = 1e-9
# An edge of a region within this part of a pixel of a grid line lies on it.
_ON_LINE = 1e-6
# Pixels of a level along one that is made of them, from which on it does not matter where they end.
_MANY = 8


def grid_at(image: ReadableImage, mpp: Mpp) -> tuple[int, int]:
    """Return the (height, width) of the whole image; see `MultiscaleImage.grid_at`."""
    own, base = image.require_mpp(), image.level(0)
    return grid_size(base.height, mpp.y / own.y), grid_size(base.width, mpp.x / own.x)


def best_level(image: ReadableImage, mpp: Mpp) -> int:
    """Choose the level to resample from; see `MultiscaleImage.best_level`."""
    return [0, *(index for index, _ in _fine_enough(image, mpp))][-1]


def level_for_means(image: ReadableImage, mpp: Mpp) -> int:
    """Choose the level whose means are those of the finest; of labels, the finest.

    The coarsest of whose pixels those of the grid consist, or that has at least `_MANY` of them
    along a pixel of the grid: where it has fewer, those that lie across the edge of one blur it.
    """
    if image.kind == "labels":
        return 0
    good = [
        index
        for index, ratio in _fine_enough(image, mpp)
        if min(ratio) >= _MANY or all(abs(r - round(r)) < _ON_LINE for r in ratio)
    ]
    return [0, *good][-1]


def _fine_enough(image: ReadableImage, mpp: Mpp) -> Iterator[tuple[int, tuple[float, float]]]:
    """Yield the levels that are whole and not coarser than a grid, and their pixels along one of it."""
    own, base = image.require_mpp(), image.level(0)
    for index in range(1, image.level_count):
        level = image.level(index)
        fy, fx = level.scale[-2] / base.scale[-2], level.scale[-1] / base.scale[-1]
        fine = own.y * fy <= mpp.y * (1 + _SAME) and own.x * fx <= mpp.x * (1 + _SAME)
        whole = (level.height + 1) * fy > base.height and (level.width + 1) * fx > base.width
        if fine and whole:
            yield index, (mpp.y / (own.y * fy), mpp.x / (own.x * fx))


def read_at(
    image: ReadableImage,
    mpp: float | tuple[float, float] | Mpp,
    region: Sequence[float] | None,
    *,
    channels: Channels | None,
    interpolation: Interpolation,
    dtype: DTypeLike | None,
) -> NDArray[Any]:
    """Read a box in micrometres; see `MultiscaleImage.read_at`."""
    wanted = Mpp.from_user(mpp)
    height, width = grid_at(image, wanted)
    if region is None:
        y, x = (0, height), (0, width)
    else:
        x0, y0, x1, y1 = _checked(region)
        y = _touched(y0 / wanted.y, y1 / wanted.y, height)
        x = _touched(x0 / wanted.x, x1 / wanted.x, width)
        if y[0] >= y[1] or x[0] >= x[1]:
            msg = f"{image.uri}: region {tuple(region)} um does not overlap the image"
            raise InvalidInputError(msg)
    return read_grid(
        image,
        wanted,
        y,
        x,
        channels=channels,
        interpolation=interpolation,
        dtype=dtype,
        level=None,
    )


def read_grid(
    image: ReadableImage,
    mpp: Mpp,
    y: tuple[int, int],
    x: tuple[int, int],
    *,
    channels: Channels | None,
    interpolation: Interpolation,
    dtype: DTypeLike | None,
    level: int | None,
) -> NDArray[Any]:
    """Read pixels of a grid; see `MultiscaleImage.read_grid`."""
    grid = grid_at(image, mpp)
    if not (0 <= y[0] < y[1] <= grid[0] and 0 <= x[0] < x[1] <= grid[1]):
        msg = (
            f"{image.uri}: rows {y} and columns {x} do not lie inside its grid of {grid} pixels "
            f"at {mpp}"
        )
        raise InvalidInputError(msg)
    index = image.best_level(mpp) if level is None else level
    own, source = image.level_mpp(index), image.level(index)
    ratio = mpp.y / own.y, mpp.x / own.x
    labels = image.kind == "labels"
    rows_by = interpolation_at(ratio[0], interpolation, labels=labels)
    columns_by = interpolation_at(ratio[1], interpolation, labels=labels)
    same = abs(ratio[0] - 1) < _SAME and abs(ratio[1] - 1) < _SAME
    if same and y[1] <= source.height and x[1] <= source.width:
        pixels = image.read(index, y, x, channels=channels)
        return pixels if dtype is None else pixels.astype(dtype, copy=False)
    rows = taps(source.height, ratio[0], *y, rows_by)
    columns = taps(source.width, ratio[1], *x, columns_by)
    pixels = image.read(
        index, (rows.start, rows.stop), (columns.start, columns.stop), channels=channels
    )
    return resample(pixels, rows, columns, dtype)


def _checked(region: Sequence[float]) -> tuple[float, ...]:
    box = tuple(float(value) for value in region)
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        msg = f"a region is four finite numbers (x0, y0, x1, y1), got {region!r}"
        raise InvalidInputError(msg)
    if box[2] <= box[0] or box[3] <= box[1]:
        msg = f"a region is half-open with x0 < x1 and y0 < y1, got {box}"
        raise InvalidInputError(msg)
    return box


def _touched(start: float, stop: float, size: int) -> tuple[int, int]:
    return max(math.floor(start + _ON_LINE), 0), min(math.ceil(stop - _ON_LINE), size)
