"""Patches of an epoch in the order in which they lie: neighbours are read one after the other."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.patching import Patching

__all__ = ["PlacedRows"]

# Orders that are kept: that of the epoch that is being read, and of the one that follows it.
_KEPT = 2
# Bits of a coordinate, counted in patches.
_BITS = 20
# Neighbours that count as lying together: a square of about six patches.
_TOGETHER = 32


class PlacedRows:
    """The patches of an epoch along a curve that goes through each image block by block.

    Rows ``0, 1, 2 ...`` are neighbours in the image (in Morton order of squares of a patch), so that
    an order of blocks reads each part of an image once, however the patches are numbered.

    Parameters
    ----------
    patching
        Which patches there are.
    """

    def __init__(self, patching: Patching) -> None:
        self._patching = patching
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def patches(self, rows: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Return which patches of the patching stand at these rows of an epoch."""
        return self._ordered(epoch)[rows]

    def blocks(self, rows: NDArray[np.int64], *, placed: bool) -> NDArray[np.int64]:
        """Return in which block rows lie, (n,): those of one lie together.

        Parameters
        ----------
        rows
            Numbers of patches.
        placed
            Whether they are numbered by place, which holds in every epoch. As the patching numbers
            them, a patch is taken to be where it is in epoch 0.
        """
        if placed:
            return rows // _TOGETHER
        order = self._ordered(0)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return rank[rows] // _TOGETHER

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        with self._lock:
            order = self._orders.get(epoch)
            if order is None:
                while len(self._orders) >= _KEPT:
                    del self._orders[next(iter(self._orders))]
                order = self._orders[epoch] = self._order(epoch)
        return order

    def _order(self, epoch: int) -> NDArray[np.int64]:
        windows = self._patching.windows(np.arange(self._patching.n_patches), epoch=epoch)
        square = np.maximum(windows.start, 0) // np.asarray(windows.size)
        code = np.zeros(len(windows), np.int64)
        axes = square.shape[1]
        for bit in range(_BITS):
            for axis in range(axes):
                code |= (square[:, axis] >> bit & 1) << (bit * axes + axes - 1 - axis)
        sample = np.zeros_like(windows.image) if windows.sample is None else windows.sample
        return np.lexsort((code, sample, windows.image))

    def __getstate__(self) -> dict[str, Any]:
        return {"_patching": self._patching}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_patching"])
