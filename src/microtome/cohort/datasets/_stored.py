"""Datasets of one modality that know where their tiles are stored, and what is known of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.errors import UnknownNameError
from microtome.regions import columns_fingerprint

from ._dataset import ModalityDataset

__all__ = ["StoredDataset"]

# A block is so many tiles wide, at least: at its edges chunks are shared with the next one.
_TILES_WIDE = 4


class StoredDataset(ModalityDataset):
    """Tells an order of tiles what it may go by: places in the storage, and columns of tables."""

    def storage_blocks(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the storage block that each tile lies in, (n,).

        A block is a square of whole chunks, at least four tiles wide; a tile lies in that of its
        upper left corner, so that it touches chunks of its block and of those to the right and below,
        and none on the other sides. Chunks are those of the first tissue's image: a cohort has mostly one layout, and
        another costs time, not pixels.

        Parameters
        ----------
        rows
            Numbers of tiles, (n,), each in `[0, len(self))`.

        Raises
        ------
        InvalidInputError
            If the dataset has no tile size.
        """
        tiles = self._with_tiles("storage_blocks")
        found = tiles.rows(self._table_rows(rows))
        chunks = self._images[0].level(0).array.chunks[-2:]
        # 31 bits of a column's number and of a row's would be an image of 10^12 pixels a side.
        number = self._image_of[found.tissue]
        for corner, size, chunk in zip(
            (found.row, found.col), tiles.tile_size, chunks, strict=True
        ):
            side = -(-_TILES_WIDE * size // chunk) * chunk
            place = np.maximum(corner, 0) // side
            number = number * (int(place.max(initial=0)) + 1) + place
        return number

    @property
    def tile_bytes(self) -> int:
        """About how many bytes a tile has as a batch holds it: float32 of all its channels.

        Raises
        ------
        InvalidInputError
            If the dataset has no tile size.
        """
        height, width = self._with_tiles("tile_bytes").tile_size
        return self._images[0].nchannels * height * width * np.dtype(np.float32).itemsize

    @property
    def rows_fingerprint(self) -> str:
        """Sixteen letters that tell these tiles from others of the same number, for loaders that resume.

        Raises
        ------
        InvalidInputError
            If the dataset has no tile size.
        """
        tiles = self._with_tiles("rows_fingerprint")
        found = tiles.rows(self._table_rows(np.arange(len(self))))
        about = (*tiles.tile_size, *self._tissue_ids)
        return columns_fingerprint(about, self._image_of[found.tissue], found.row, found.col)

    def tile_column(self, name: str) -> NDArray[Any]:
        """Return what a column says of each tile, (len(self),): for orders and weights.

        Parameters
        ----------
        name
            ``"label"``, where the dataset has labels; or a column of the table of tiles, such as
            ``"tissue_frac"``; or one of the table of tissues, such as ``"patient_id"``.

        Raises
        ------
        UnknownNameError
            If there is no such column.
        InvalidInputError
            If the dataset has no tile size.
        """
        tiles = self._with_tiles("tile_column")
        rows = self._table_rows(np.arange(len(self)))
        if name in tiles.table.column_names and name != "tissue_id":
            return tiles.table[name].take(pa.array(rows)).to_numpy(zero_copy_only=False)
        known = self._tissue_values(name)
        return known[self._image_of[tiles.rows(rows).tissue]]

    def _tissue_values(self, name: str) -> NDArray[Any]:
        """Return a value for each tissue of the dataset, by its number."""
        if name == "tissue_id":
            return np.asarray(self._tissue_ids)
        labels = self.records.labels
        if name == "label" and labels is not None:
            return np.asarray([labels.values[tissue] for tissue in self._tissue_ids])
        table = self.tissue_modality_metadata
        if name not in table.column_names:
            msg = (
                f"nothing says {name!r} of a tile: it is no column of the tiles "
                f"({', '.join(self._with_tiles('tile_column').table.column_names)}) nor of the tissues "
                f"({', '.join(table.column_names)})"
            )
            raise UnknownNameError(msg)
        return table[name].to_numpy(zero_copy_only=False)

    def _table_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows if self._rows is None else self._rows[rows]
