"""Which windows to read, as columns: millions of them are arrays, not objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.image import MultiscaleImage

__all__ = ["Windows", "valid_windows"]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows of one size in one level, over any number of images.

    Parameters
    ----------
    image
        Index of each window's image, (n,).
    start
        First pixel of each window along (Z)YX, (n, d); may lie outside the image.
    size
        Size along (Z)YX, d positive integers.
    level
        Index of the level that the windows are counted in.

    Raises
    ------
    InvalidInputError
        If shapes do not fit each other, a size is not positive, or a number is not whole.
    """

    image: NDArray[np.int64]
    start: NDArray[np.int64]
    size: tuple[int, ...]
    level: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", _whole(self.image, "numbers of images"))
        object.__setattr__(self, "start", _whole(self.start, "first pixels"))
        rank = len(self.size)
        if (
            rank not in {2, 3}
            or min(self.size) < 1
            or self.image.ndim != 1
            or self.start.shape != (len(self.image), rank)
        ):
            msg = (
                f"windows of size {self.size} need start (n, {rank}) for {len(self.image)} images, "
                f"got {self.start.shape}"
            )
            raise InvalidInputError(msg)

    @classmethod
    def of(
        cls, image: ArrayLike, start: ArrayLike, size: Sequence[int] | int, level: int = 0
    ) -> Windows:
        """Build windows from anything array-like; one integer `size` means a square."""
        first = _whole(np.asarray(start), "first pixels")
        if first.size == 0:  # no windows: nothing says how many axes they would have
            rank = 2 if isinstance(size, int | np.integer) else len(size)
            first = first.reshape(0, rank)
        elif first.ndim == 1:
            first = first[None]
        sizes = (
            (int(size),) * first.shape[-1] if isinstance(size, int | np.integer) else tuple(size)
        )
        index = _whole(np.asarray(image), "numbers of images")
        if index.shape in {(), (1,)}:
            index = np.broadcast_to(index, (len(first),))
        return cls(index, first, sizes, level)

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: ArrayLike) -> Windows:
        """Return some of the windows, in the order asked for."""
        at = np.asarray(rows)
        at = at if at.size else at.astype(np.intp)
        return Windows(self.image[at], self.start[at], self.size, self.level)


def valid_windows(images: Sequence[MultiscaleImage], windows: Windows) -> NDArray[np.int64]:
    """Return which part of each window lies inside its image.

    Parameters
    ----------
    images
        The images that the windows count.
    windows
        The windows.

    Returns
    -------
    (n, d, 2): first valid pixel and one past the last, relative to the window; equal where a
    window lies outside altogether.

    Raises
    ------
    InvalidInputError
        If an image has another number of spatial axes than the windows.
    OutOfRangeError
        If a window's image, or its level, does not exist.
    """
    low = np.clip(-windows.start, 0, windows.size)
    high = np.clip(limits(images, windows) - windows.start, 0, windows.size)
    return np.stack([np.minimum(low, high), high], axis=-1)


def limits(images: Sequence[MultiscaleImage], windows: Windows) -> NDArray[np.int64]:
    """Return the size along (Z)YX of the level that each window lies in, (n, d)."""
    rank = len(windows.size)
    # Only the images of these windows: a cohort's other thousands stay closed.
    used, place = np.unique(windows.image, return_inverse=True)
    if used.size and not 0 <= int(used[0]) <= int(used[-1]) < len(images):
        msg = f"windows speak of images {used[0]} to {used[-1]}, there are {len(images)}"
        raise OutOfRangeError(msg)
    sizes = [_spatial_size(images[int(i)], windows.level, rank) for i in used]
    return np.asarray(sizes, np.int64).reshape(-1, rank)[place]


def _spatial_size(image: MultiscaleImage, level: int, rank: int) -> tuple[int, ...]:
    chosen = image.level(level)
    sizes = dict(zip(chosen.axes, chosen.shape, strict=True))
    if sizes.get("t", 1) > 1:
        msg = f"{image.uri} has {sizes['t']} time points; regions are read from one"
        raise InvalidInputError(msg)
    # One plane is depth enough for a flat window, but flat pixels have no depth to cut.
    if rank == 3 and "z" not in sizes:
        msg = f"{image.uri} has axes {chosen.axes!r}: windows need two sizes, not three"
        raise InvalidInputError(msg)
    if rank == 2 and sizes.get("z", 1) > 1:
        msg = f"{image.uri} has {sizes['z']} planes: windows need three sizes, not two"
        raise InvalidInputError(msg)
    return tuple(sizes[axis] for axis in "zyx"[-rank:])


def _whole(numbers: NDArray[Any], what: str) -> NDArray[np.int64]:
    if numbers.size and numbers.dtype.kind not in "iu":
        msg = f"{what} are whole numbers, got {numbers.dtype}"
        raise InvalidInputError(msg)
    return numbers.astype(np.int64, copy=False)
