"""What a loader reads from: anything that turns row numbers into a batch."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from microtome.regions import ImageRegionData

__all__ = ["TileSource"]


@runtime_checkable
class TileSource(Protocol):
    """Tiles that can be read by row number; every dataset of a cohort is one.

    `read_batch` is called from several threads at once, with rows in any order.
    """

    def __len__(self) -> int:
        """Number of tiles."""
        ...

    def read_batch(self, rows: NDArray[np.int64]) -> ImageRegionData[Any]:
        """Read tiles into one batch.

        Parameters
        ----------
        rows
            Row numbers, (n,), each in ``[0, len(self))``.

        Returns
        -------
        The tiles in that order, collated; `data` is a float32 array (n, C, (Z), Y, X) that nobody
        else writes to afterwards.
        """
        ...
