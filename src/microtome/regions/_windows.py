"""Which windows to read, as columns: millions of them are arrays, not objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError, OutOfRangeError

from ._stacks import Pixels, Stack, pixels_of

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
    sample
        Number of each window's sample, (n,): time points and samples are one axis, samples outside.
        None for images that have one.

    Raises
    ------
    InvalidInputError
        If shapes do not fit each other, a size is not positive, or a number is not whole.
    """

    image: NDArray[np.int64]
    start: NDArray[np.int64]
    size: tuple[int, ...]
    level: int = 0
    sample: NDArray[np.int64] | None = None

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
        if self.sample is not None:
            object.__setattr__(self, "sample", _whole(self.sample, "numbers of samples"))
            if self.sample.shape != self.image.shape:
                msg = f"{len(self.image)} windows need a sample each, got {self.sample.shape}"
                raise InvalidInputError(msg)

    @classmethod
    def of(
        cls,
        image: ArrayLike,
        start: ArrayLike,
        size: Sequence[int] | int,
        level: int = 0,
        sample: ArrayLike | None = None,
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
        index = _one_each(image, len(first), "numbers of images")
        at = None if sample is None else _one_each(sample, len(first), "numbers of samples")
        return cls(index, first, sizes, level, at)

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: ArrayLike) -> Windows:
        """Return some of the windows, in the order asked for."""
        at = np.asarray(rows)
        at = at if at.size else at.astype(np.intp)
        sample = None if self.sample is None else self.sample[at]
        return Windows(self.image[at], self.start[at], self.size, self.level, sample)


def valid_windows(images: Sequence[Stack], windows: Windows) -> NDArray[np.int64]:
    """Return which part of each window lies inside its image.

    Parameters
    ----------
    images
        The images or stacks that the windows count.
    windows
        The windows.

    Returns
    -------
    (n, d, 2): first valid pixel and one past the last, relative to the window; equal where a
    window lies outside altogether.

    Raises
    ------
    InvalidInputError
        If an image has another number of spatial axes than the windows, or several samples of which
        the windows name none.
    OutOfRangeError
        If a window's image, its level or its sample does not exist.
    """
    low = np.clip(-windows.start, 0, windows.size)
    high = np.clip(limits(images, windows)[0] - windows.start, 0, windows.size)
    return np.stack([np.minimum(low, high), high], axis=-1)


def limits(
    images: Sequence[Stack], windows: Windows
) -> tuple[NDArray[np.int64], dict[int, Pixels]]:
    """Return the size along (Z)YX of what each window lies in, (n, d), and the images that are used."""
    rank = len(windows.size)
    # Only the images of these windows: a cohort's other thousands stay closed.
    used, place = np.unique(windows.image, return_inverse=True)
    if used.size and not 0 <= int(used[0]) <= int(used[-1]) < len(images):
        msg = f"windows speak of images {used[0]} to {used[-1]}, there are {len(images)}"
        raise OutOfRangeError(msg)
    found = {i: pixels_of(images[i], windows.level) for i in used.tolist()}
    sizes = [_spatial_size(pixels, rank) for pixels in found.values()]
    samples = np.asarray([pixels.shape[0] for pixels in found.values()], np.int64)[place]
    _verify_samples(windows, samples, found)
    return np.asarray(sizes, np.int64).reshape(-1, rank)[place], found


def _verify_samples(windows: Windows, samples: NDArray[np.int64], found: dict[int, Pixels]) -> None:
    if windows.sample is None:
        for pixels in found.values():
            if pixels.shape[0] > 1:
                what = "samples" if "s" in pixels.axes else "time points"
                msg = (
                    f"{pixels.source} has {pixels.shape[0]} {what}; regions are read from one, "
                    "which sample= of the windows names"
                )
                raise InvalidInputError(msg)
        return
    wrong = np.flatnonzero((windows.sample < 0) | (windows.sample >= samples))
    if wrong.size:
        row = int(wrong[0])
        msg = (
            f"{found[int(windows.image[row])].source} has {samples[row]} samples, "
            f"no sample {windows.sample[row]}"
        )
        raise OutOfRangeError(msg)


def _spatial_size(pixels: Pixels, rank: int) -> tuple[int, ...]:
    spatial = pixels.shape[2:]
    # One plane is depth enough for a flat window, but flat pixels have no depth to cut.
    if rank == 3 and len(spatial) == 2:
        msg = f"{pixels.source} has axes {pixels.axes!r}: windows need two sizes, not three"
        raise InvalidInputError(msg)
    if rank == 2 and len(spatial) == 3 and spatial[0] > 1:
        msg = f"{pixels.source} has {spatial[0]} planes: windows need three sizes, not two"
        raise InvalidInputError(msg)
    return spatial[-rank:]


def _one_each(numbers: ArrayLike, count: int, what: str) -> NDArray[np.int64]:
    """Return one whole number a window; a single one is that of every window."""
    found = _whole(np.asarray(numbers), what)
    return np.broadcast_to(found, (count,)) if found.shape in {(), (1,)} else found


def _whole(numbers: NDArray[Any], what: str) -> NDArray[np.int64]:
    if numbers.size and numbers.dtype.kind not in "iu":
        msg = f"{what} are whole numbers, got {numbers.dtype}"
        raise InvalidInputError(msg)
    return numbers.astype(np.int64, copy=False)
