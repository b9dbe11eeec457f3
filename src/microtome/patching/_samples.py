"""The samples that patches are cut from: every one of every image, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import index

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.regions import Windows

__all__ = ["Samples", "checked_rows", "counted", "read_patch_size", "read_shapes"]

_SHOWN = 4


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Every sample of every image, image by image.

    Parameters
    ----------
    image
        Number of each sample's image, (m,).
    sample
        Number of each sample in its image, (m,).
    size
        Size of each along (Z)YX, (m, d).
    """

    image: NDArray[np.int64]
    sample: NDArray[np.int64]
    size: NDArray[np.int64]

    @classmethod
    def of(cls, data_shapes: Sequence[Sequence[int]], rank: int) -> Samples:
        """Read shapes in SC(Z)YX, which `microtome.regions.data_shape_of` gives.

        Raises
        ------
        InvalidInputError
            If there is none, or one has not `rank` spatial axes. One plane is flat enough for a
            flat patch.
        """
        given = read_shapes(data_shapes)
        if not given:
            msg = "there are no images to cut patches from"
            raise InvalidInputError(msg)
        counts: list[int] = []
        sizes: list[tuple[int, ...]] = []
        for place, shape in enumerate(given):
            if len(shape) not in {4, 5} or min(shape) < 1:
                msg = f"image {place} has shape {shape}; shapes are SC(Z)YX, each at least 1"
                raise InvalidInputError(msg)
            spatial = shape[2:]
            if rank == 2 and len(spatial) == 3 and spatial[0] == 1:
                spatial = spatial[1:]
            if len(spatial) != rank:
                msg = (
                    f"image {place} has {len(spatial)} spatial axes (shape {shape}), "
                    f"the patch {rank}"
                )
                raise InvalidInputError(msg)
            counts.append(shape[0])
            sizes.append(spatial)
        number = np.asarray(counts, np.int64)
        image = np.repeat(np.arange(number.size), number)
        first = np.cumsum(number) - number
        sample = np.arange(image.size) - first[image]
        return cls(image, sample, np.asarray(sizes, np.int64)[image])

    def __len__(self) -> int:
        return len(self.image)

    def verify_same(self, data_shapes: Sequence[Sequence[int]]) -> None:
        """Refuse images of other shapes than these, whatever their channels.

        Raises
        ------
        InvalidInputError
            If there is one; names it.
        """
        other = Samples.of(data_shapes, self.size.shape[1])
        remedy = (
            "make the patching of [data_shape_of(image, level=level) for image in images], of the "
            "images and of the level that are read"
        )
        if np.array_equal(self.image, other.image) and np.array_equal(self.size, other.size):
            return
        images = int(self.image[-1]) + 1
        if len(data_shapes) != images:
            msg = f"the patching is of {images} images, there are {len(data_shapes)}; {remedy}"
            raise InvalidInputError(msg)
        for image in range(images):
            mine, theirs = (found.size[slice(*found.span(image))] for found in (self, other))
            if not np.array_equal(mine, theirs):
                msg = (
                    f"image {image} is {_told(theirs)}, the patching is of {_told(mine)} in its "
                    f"place; {remedy}"
                )
                raise InvalidInputError(msg)

    def places(self, windows: Windows) -> NDArray[np.int64]:
        """Return which of the samples each window lies in, (n,).

        Raises
        ------
        InvalidInputError
            If there is no such image or sample.
        """
        counts = np.bincount(self.image)
        number = np.zeros_like(windows.image) if windows.sample is None else windows.sample
        wrong = (windows.image < 0) | (windows.image >= len(counts))
        wrong[~wrong] = (number[~wrong] < 0) | (number[~wrong] >= counts[windows.image[~wrong]])
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            msg = (
                f"window {row} lies in sample {number[row]} of image {windows.image[row]}, there "
                f"are {len(counts)} images of {counts[:_SHOWN].tolist()} samples"
            )
            raise InvalidInputError(msg)
        return np.searchsorted(self.image, windows.image) + number

    def verify_hold(self, patch_size: tuple[int, ...]) -> None:
        """Refuse samples that are smaller than a patch.

        Raises
        ------
        InvalidInputError
            If there is one; names the images.
        """
        small = np.flatnonzero((self.size < patch_size).any(axis=1))
        if small.size:
            images = np.unique(self.image[small])
            first = small[0]
            msg = (
                f"{images.size} images are smaller than a patch of {patch_size}: "
                f"{images[:_SHOWN].tolist()}, the first {tuple(self.size[first].tolist())}; leave "
                "them out, use smaller patches, or let patches hang over with pad=True"
            )
            raise InvalidInputError(msg)

    def by_size(self) -> Iterator[tuple[tuple[int, ...], NDArray[np.int64]]]:
        """Yield each size that occurs, and which samples have it: images of a study are alike."""
        sizes, place = np.unique(self.size, axis=0, return_inverse=True)
        order = np.argsort(place.reshape(-1), kind="stable")
        ends = np.cumsum(np.bincount(place.reshape(-1), minlength=len(sizes)))
        for size, rows in zip(sizes.tolist(), np.split(order, ends[:-1]), strict=True):
            yield tuple(size), rows

    def span(self, data_idx: int) -> tuple[int, int]:
        """Return the half-open interval of an image's samples.

        Raises
        ------
        OutOfRangeError
            If there is no such image.
        """
        count = int(self.image[-1]) + 1
        if not 0 <= data_idx < count:
            msg = f"no image {data_idx}, there are {count}"
            raise OutOfRangeError(msg)
        first, last = np.searchsorted(self.image, [data_idx, data_idx + 1])
        return int(first), int(last)


def _told(size: NDArray[np.int64]) -> str:
    """Say how large the samples of an image are, which are all of one size."""
    shape = " x ".join(map(str, size[0].tolist()))
    return shape if len(size) == 1 else f"{len(size)} samples of {shape}"


def read_shapes(data_shapes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the shapes of images.

    Raises
    ------
    InvalidInputError
        If they are no list of shapes.
    """
    try:
        return [tuple(map(index, shape)) for shape in data_shapes]
    except TypeError:
        msg = (
            "data_shapes are a list, the shape of each image in SC(Z)YX: "
            f"[data_shape_of(image) for image in images]; got {data_shapes!r}"
        )
        raise InvalidInputError(msg) from None


def read_patch_size(patch_size: Sequence[int]) -> tuple[int, ...]:
    """Return the size of a patch along (Z)YX.

    Raises
    ------
    InvalidInputError
        If it is not two or three positive integers.
    """
    try:
        size = tuple(map(index, patch_size))
    except TypeError:
        size = ()
    if len(size) not in {2, 3} or min(size) < 1:
        msg = (
            f"patch_size is (height, width) or (depth, height, width) in pixels, got {patch_size!r}"
        )
        raise InvalidInputError(msg)
    return size


def checked_rows(rows: ArrayLike, count: int) -> NDArray[np.int64]:
    """Return numbers of patches, (n,); a single one becomes an array of one.

    Raises
    ------
    InvalidInputError
        If they are not whole numbers.
    OutOfRangeError
        If there is no such patch.
    """
    given = np.atleast_1d(np.asarray(rows))
    if given.size and (given.dtype.kind not in "iu" or given.ndim != 1):
        msg = f"patches are asked for by number, got {given.dtype} of shape {given.shape}"
        raise InvalidInputError(msg)
    chosen = given.astype(np.int64)
    wrong = chosen[(chosen < 0) | (chosen >= count)]
    if wrong.size:
        msg = f"no patch {wrong[0]}, there are {count}"
        raise OutOfRangeError(msg)
    return chosen


def counted(rows: NDArray[np.int64], ends: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Say which sample each row falls to, and which of that sample's rows it is.

    Parameters
    ----------
    rows
        Numbers of patches, (n,).
    ends
        One past the last row of each sample, (m,).
    """
    at = np.searchsorted(ends, rows, side="right")
    return at, rows - np.where(at > 0, ends[at - 1], 0)
