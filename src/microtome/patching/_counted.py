"""Patches that are counted off sample by sample: so many of the first, then those of the second."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._patching import Patching
from ._samples import Samples, read_patch_size

__all__ = ["CountedPatching"]


class CountedPatching(Patching):
    """Patches of one size, of every sample a number that its shape alone decides.

    Parameters
    ----------
    data_shapes, patch_size, pad
        As of `RandomPatching`, and what it raises.
    """

    def __init__(
        self, data_shapes: Sequence[Sequence[int]], patch_size: Sequence[int], *, pad: bool
    ) -> None:
        self._size = read_patch_size(patch_size)
        self._samples = Samples.of(data_shapes, len(self._size))
        if not pad:
            self._samples.verify_hold(self._size)
        self._ends: NDArray[np.int64] = np.cumsum(self._counts())

    @abstractmethod
    def _counts(self) -> NDArray[np.int64]:
        """Return the number of patches of each sample, (m,)."""

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Size of a patch along (Z)YX, in pixels."""
        return self._size

    @property
    def n_patches(self) -> int:
        """Number of patches of an epoch."""
        return int(self._ends[-1])

    def verify_shapes(self, data_shapes: Sequence[Sequence[int]], *, touching: bool = True) -> None:
        """Refuse images of other shapes; see `Patching.verify_shapes`."""
        del touching
        self._samples.verify_same(data_shapes)

    def get_patch_indices(self, data_idx: int) -> range:
        """Return the numbers of the patches that come from an image."""
        first, last = self._samples.span(data_idx)
        return range(int(self._ends[first - 1]) if first else 0, int(self._ends[last - 1]))
