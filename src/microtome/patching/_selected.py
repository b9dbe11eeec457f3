"""Some patches of a patching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.regions import Windows

from ._patching import Patching
from ._samples import checked_rows

__all__ = ["SelectedPatching"]


class SelectedPatching(Patching):
    """Some of the patches of a patching, numbered in the order given.

    Parameters
    ----------
    patching
        What they are chosen from.
    rows
        Their numbers in it, (n,).

    Raises
    ------
    InvalidInputError
        If there is none.
    OutOfRangeError
        If there is no such patch.
    """

    def __init__(self, patching: Patching, rows: ArrayLike) -> None:
        self._of = patching
        self._rows = checked_rows(rows, len(patching))
        if not self._rows.size:
            msg = "no patch is selected"
            raise InvalidInputError(msg)
        self._image = patching.windows(self._rows).image

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Size of a patch along (Z)YX, in pixels."""
        return self._of.patch_size

    @property
    def n_patches(self) -> int:
        """Number of patches."""
        return len(self._rows)

    def windows(self, rows: ArrayLike, *, epoch: int = 0) -> Windows:
        """Return where patches lie; see `Patching.windows`."""
        return self._of.windows(self._rows[checked_rows(rows, len(self._rows))], epoch=epoch)

    def columns(self, rows: ArrayLike, *, epoch: int = 0) -> Mapping[str, NDArray[np.int64]]:
        """Return what a specification holds beyond a window; a tile counts those selected."""
        chosen = checked_rows(rows, len(self._rows))
        found = dict(self._of.columns(self._rows[chosen], epoch=epoch))
        if "total_tiles" in found:
            # Who waits for so many tiles before an image is whole would wait forever.
            found["total_tiles"] = np.bincount(self._image)[self._image[chosen]]
        return found

    def verify_shapes(self, data_shapes: Sequence[Sequence[int]], *, touching: bool = True) -> None:
        """Refuse images of other shapes; see `Patching.verify_shapes`."""
        self._of.verify_shapes(data_shapes, touching=touching)

    def get_patch_indices(self, data_idx: int) -> NDArray[np.int64]:
        """Return the numbers of the patches that come from an image; none of one without."""
        return np.flatnonzero(self._image == data_idx)
