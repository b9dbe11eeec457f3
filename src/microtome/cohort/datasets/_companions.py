"""What goes along with a tile: the crops of its tissue's masks, and its cells."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microtome.cohort.cells import INSTANCES, CellTable
from microtome.regions import Windows, read_regions

from ._shelf import ImageShelf, OpenCellMask, OpenImage, OpenTissueMask

__all__ = ["Companions"]


class Companions:
    """Masks and cells of the tissues of a dataset.

    Parameters
    ----------
    images
        Opens the images that the masks must fit.
    tissue_ids
        The tissues, in the order in which windows count them.
    load_cells
        Whether to read the table of cells, which must then be there.
    """

    def __init__(self, images: OpenImage, tissue_ids: Sequence[str], *, load_cells: bool) -> None:
        self._layout, self._resolution = images.layout, images.resolution
        self._tissue_ids = tissue_ids
        self._tissue_masks = ImageShelf(OpenTissueMask(images), tissue_ids)
        self._cell_masks = ImageShelf(OpenCellMask(images, INSTANCES), tissue_ids)
        self._cells = CellTable.read(images.layout, tissue_ids) if load_cells else None

    @cached_property
    def _has_cell_masks(self) -> bool:
        # Looked up when masks are first asked for: most datasets never do.
        return any(
            INSTANCES in self._layout.cell_mask_kinds(r)
            for r in self._layout.resolutions()
            if r.serves(self._resolution)
        )

    @property
    def cell_table(self) -> pa.Table | None:
        """The table of cells, where it was read."""
        return None if self._cells is None else self._cells.table

    def cells_of(self, tissue_id: str) -> pa.Table:
        """Return the cells of a tissue; the table is read where it was not."""
        if self._cells is None:
            self._cells = CellTable.read(self._layout, self._tissue_ids)
        return self._cells.for_tissue(tissue_id)

    def tell(
        self, told: Sequence[dict[str, Any]], windows: Windows, *, masks: bool, cells: bool
    ) -> None:
        """Add to what is known of each window.

        Parameters
        ----------
        told
            A dictionary a window, which gains `tissue_mask`, `cell_mask` and `cells`.
        windows
            The windows.
        masks, cells
            Which of them.
        """
        if masks:
            for place, crop in enumerate(_crops(self._tissue_masks, windows)):
                told[place]["tissue_mask"] = crop != 0
        crops: list[NDArray[Any]] | None = None
        if self._has_cell_masks and (masks or (cells and not self._places_known())):
            crops = _crops(self._cell_masks, windows)
        if masks and crops is not None:
            for place, crop in enumerate(crops):
                told[place]["cell_mask"] = crop
        if cells:
            for place, known in enumerate(told):
                crop = None if crops is None else crops[place]
                known["cells"] = self._cells_in(windows, place, crop)

    def _places_known(self) -> bool:
        return self._cells is not None and self._cells.centroids is not None

    def _cells_in(self, windows: Windows, place: int, crop: NDArray[Any] | None) -> pa.Table:
        tissue_id = self._tissue_ids[int(windows.image[place])]
        everyone = self.cells_of(tissue_id)  # reads the table where it was not
        table = self._cells
        if table is not None and (crop is None or table.centroids is not None):
            scale = np.asarray(self._resolution.mpp)
            low = windows.start[place] * scale
            high = (windows.start[place] + windows.size) * scale
            return table.inside(tissue_id, tuple(low.tolist()), tuple(high.tolist()))
        ids = pa.array(np.unique(crop if crop is not None else []).astype(np.int64))
        return everyone.filter(pc.is_in(everyone["cell_id"].cast(pa.int64()), value_set=ids))


def _crops(shelf: ImageShelf, windows: Windows) -> list[NDArray[Any]]:
    """Read windows of labels, (H, W) each, of their own type; 0 outside the image."""
    found: dict[int, NDArray[Any]] = {}
    for image in np.unique(windows.image):
        # One image after the other: masks of one kind may differ in type.
        rows = np.flatnonzero(windows.image == image)
        batch = read_regions(shelf, windows.take(rows))
        found.update(zip(rows.tolist(), batch[:, 0], strict=True))
    return [found[place] for place in range(len(windows))]
