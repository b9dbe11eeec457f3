"""What a loader reads from: anything that turns row numbers into a batch."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from microtome.regions import ImageRegionData

__all__ = ["Batch", "EpochTileSource", "TileSource"]

Batch: TypeAlias = ImageRegionData[Any] | tuple[ImageRegionData[Any], ...]
"""One collated `ImageRegionData`; or a tuple of several of equal length, such as (input, target)."""


@runtime_checkable
class TileSource(Protocol):
    """Tiles that can be read by row number; every dataset of a cohort is one.

    `read_batch` is called from several threads at once, with rows in any order.
    """

    def __len__(self) -> int:
        """Number of tiles."""
        ...

    def read_batch(self, rows: NDArray[np.int64]) -> Batch:
        """Read tiles into one batch.

        Parameters
        ----------
        rows
            Row numbers, (n,), each in ``[0, len(self))``.

        Returns
        -------
        The tiles in that order, collated; `data` is a float32 array (n, C, (Z), Y, X) that nobody
        else writes to afterwards. Or a tuple of such batches, an input and its target say.
        """
        ...


@runtime_checkable
class EpochTileSource(Protocol):
    """Tiles that are other ones in every epoch: random windows, or draws of a sampler.

    What a row shows must be a function of (row, epoch), not of who asks when.
    """

    takes_epoch: Literal[True]
    """Says that `read_batch` is to be told the epoch."""

    def __len__(self) -> int:
        """Number of tiles of an epoch, the same in each."""
        ...

    def read_batch(self, rows: NDArray[np.int64], *, epoch: int) -> Batch:
        """Read tiles of an epoch into one batch, as `TileSource.read_batch` does."""
        ...
