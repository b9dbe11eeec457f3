"""Patches anywhere: drawn anew each epoch, drawn once, or given."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.regions import Windows

from ._counted import CountedPatching
from ._patching import Patching, uniform
from ._samples import Samples, checked_rows, counted

__all__ = ["FixedPatching", "FixedRandomPatching", "RandomPatching", "checked_seed"]


class RandomPatching(CountedPatching):
    """Patches anywhere in the images, others each epoch.

    A sample of size n is asked for the product of ``ceil(n / patch)`` patches, as many as would
    tile it (CAREamics' rule); every place where a patch fits is equally likely.

    Parameters
    ----------
    data_shapes
        Shape of each image in SC(Z)YX.
    patch_size
        (height, width) or (depth, height, width), in pixels.
    seed
        Chooses the draw, at least 0.
    pad
        Whether an image may be smaller than a patch, which then hangs over: any place that holds
        the whole axis is equally likely.

    Raises
    ------
    InvalidInputError
        If an image has other axes than the patch, or is smaller and `pad` is False.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        *,
        seed: int = 0,
        pad: bool = False,
    ) -> None:
        super().__init__(data_shapes, patch_size, pad=pad)
        self._seed = checked_seed(seed)

    def _counts(self) -> NDArray[np.int64]:
        return np.prod(-(-self._samples.size // self._size), axis=1)

    def windows(self, rows: ArrayLike, *, epoch: int = 0) -> Windows:
        """Return where patches lie; see `Patching.windows`."""
        chosen = checked_rows(rows, self.n_patches)
        at, _ = counted(chosen, self._ends)
        room = self._samples.size[at] - self._size
        start = uniform(
            chosen,
            np.minimum(room, 0),
            np.maximum(room, 0) + 1,
            seed=self._seed,
            epoch=checked_seed(epoch, "epoch"),
        )
        return Windows(self._samples.image[at], start, self._size, sample=self._samples.sample[at])


class FixedPatching(Patching):
    """Patches that are given, the same each epoch.

    Parameters
    ----------
    windows
        Where they lie, in the order in which they are numbered.
    data_shapes
        Shape of each image that they were chosen in, in SC(Z)YX: images of other shapes are refused.
        By default a window only has to touch its image.

    Raises
    ------
    InvalidInputError
        If a shape has other axes than the windows.
    """

    def __init__(
        self, windows: Windows, *, data_shapes: Sequence[Sequence[int]] | None = None
    ) -> None:
        self._windows = windows
        self._samples = None if data_shapes is None else Samples.of(data_shapes, len(windows.size))

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Size of a patch along (Z)YX, in pixels."""
        return self._windows.size

    @property
    def n_patches(self) -> int:
        """Number of patches of an epoch."""
        return len(self._windows)

    def windows(self, rows: ArrayLike, *, epoch: int = 0) -> Windows:
        """Return where patches lie; see `Patching.windows`."""
        del epoch
        return self._windows.take(checked_rows(rows, len(self._windows)))

    def verify_shapes(self, data_shapes: Sequence[Sequence[int]], *, touching: bool = True) -> None:
        """Refuse images of other shapes; see `Patching.verify_shapes`."""
        if self._samples is None:
            super().verify_shapes(data_shapes, touching=touching)
        else:
            self._samples.verify_same(data_shapes)

    def get_patch_indices(self, data_idx: int) -> NDArray[np.int64]:
        """Return the numbers of the patches that come from an image; none of one without."""
        return np.flatnonzero(self._windows.image == data_idx)


class FixedRandomPatching(FixedPatching):
    """Patches anywhere, drawn once: what a model is validated on.

    Parameters
    ----------
    data_shapes, patch_size, seed, pad
        As of `RandomPatching`.
    n_patches
        How many, spread over the samples in proportion to their patches; as many as
        `RandomPatching` draws by default.

    Raises
    ------
    InvalidInputError
        As of `RandomPatching`; if `n_patches` is not from 1 to that number.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        *,
        seed: int = 0,
        pad: bool = False,
        n_patches: int | None = None,
    ) -> None:
        drawn = RandomPatching(data_shapes, patch_size, seed=seed, pad=pad)
        most = drawn.n_patches
        count = most if n_patches is None else index(n_patches)
        if not 1 <= count <= most:
            msg = f"n_patches must be from 1 to {most}, got {n_patches}"
            raise InvalidInputError(msg)
        # Evenly spread numbers fall to each sample in proportion to what it has.
        rows = (np.arange(count) * most + most // 2) // count
        super().__init__(drawn.windows(rows), data_shapes=data_shapes)


def checked_seed(value: int, name: str = "seed") -> int:
    """Return a seed or an epoch, a whole number of at least 0.

    Raises
    ------
    InvalidInputError
        If it is none.
    """
    try:
        number = index(value)
    except TypeError:
        number = -1
    if number < 0:
        msg = f"{name} must be a whole number of at least 0, got {value!r}"
        raise InvalidInputError(msg)
    return number
