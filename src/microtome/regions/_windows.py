"""Which windows to read, as columns: millions of them are arrays, not objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
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
        If shapes do not fit each other or a size is not positive.
    """

    image: NDArray[np.int64]
    start: NDArray[np.int64]
    size: tuple[int, ...]
    level: int = 0

    def __post_init__(self) -> None:
        rank = len(self.size)
        if (
            rank not in {2, 3}
            or min(self.size) < 1
            or self.start.shape != (len(self.image), rank)
        ):
            msg = f"windows of size {self.size} need start (n, {rank}) for {len(self.image)} images, got {self.start.shape}"
            raise InvalidInputError(msg)

    @classmethod
    def of(
        cls, image: ArrayLike, start: ArrayLike, size: Sequence[int] | int, level: int = 0
    ) -> Windows:
        """Build windows from anything array-like; one integer `size` means a square."""
        first = np.asarray(start, np.int64)
        first = first.reshape(-1, first.shape[-1] if first.ndim else 2)
        sizes = (int(size),) * first.shape[1] if isinstance(size, int) else tuple(int(s) for s in size)
        index = np.broadcast_to(np.asarray(image, np.int64), (len(first),))
        return cls(index, first, sizes, level)

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: ArrayLike) -> Windows:
        """Return some of the windows, in the order asked for."""
        at = np.asarray(rows)
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
    """
    rank = len(windows.size)
    # Only the images of these windows: a cohort's other thousands stay closed.
    used, place = np.unique(windows.image, return_inverse=True)
    shapes = [images[int(i)].level_shape(windows.level)[-rank:] for i in used]
    limit = np.asarray(shapes, np.int64).reshape(-1, rank)[place]
    low = np.clip(-windows.start, 0, windows.size)
    high = np.clip(limit - windows.start, 0, windows.size)
    return np.stack([np.minimum(low, high), high], axis=-1)
