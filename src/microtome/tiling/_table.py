"""A table of tiles: one row a tile, in Arrow on disk and in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from microtome.errors import (
    FormatError,
    InvalidInputError,
    OutOfRangeError,
    UnknownNameError,
)
from microtome.storage import path_to_read

from ._columns import (
    TileRows,
    as_array,
    canonical_table,
    count_within,
    repeated,
    tile_columns,
    tissue_names,
)
from ._files import Stated, read_stated, read_table, write_arrow, write_parquet
from ._html import tiles_html
from ._index import read_index, write_index
from ._tile import Tile, TileSelection, read_size

__all__ = ["TileRows", "TileTable"]

_ORDER = ("tissue_id", "tile_id", "row", "col", "tissue_frac", "gain")


@dataclass(frozen=True, slots=True, repr=False)
class TileTable:
    """Tiles of any number of tissues, in the order in which they are to be read.

    The columns are `tissue_id` (a dictionary of strings), `tile_id` (unique in its tissue), `row`
    and `col` (top-left pixel; all int64), where known `tissue_frac` (float32, share of the tile
    that is tissue) and `gain` (tissue pixels that no tile before it covers), and any others. No
    row is ever a Python object: a table of 10^8 tiles opens memory-mapped.

    Parameters
    ----------
    table
        The columns; types are narrowed to those above.
    tile_size
        (height, width) in pixels of the level that the tiles lie on; one int for a square.
    strategy
        Name of the way in which the tiles were chosen; a directory on disk.
    resolution
        Name of the resolution they lie on, as on disk (`"1_0mpp"`); None if it is not known.

    Raises
    ------
    InvalidInputError
        If a column is missing, has another type or a null, or a tile id occurs twice in a tissue.
    """

    table: pa.Table
    tile_size: tuple[int, int]
    strategy: str
    resolution: str | None = None
    _rows: TileRows = field(init=False, compare=False)
    _places: dict[str, int] = field(init=False, compare=False)
    _offsets: NDArray[np.int64] = field(init=False, compare=False)
    _order: NDArray[np.int64] | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        size = read_size(self.tile_size, "tile_size")
        table = canonical_table(self.table)
        rows = tile_columns(table)
        names = tissue_names(table)
        order = None
        grouped = rows.tissue
        if not bool(np.all(grouped[1:] >= grouped[:-1])):
            order = np.argsort(rows.tissue, kind="stable")
            grouped = rows.tissue[order]
        offsets = np.searchsorted(grouped, np.arange(len(names) + 1))
        # What pandas noted about its index is no longer true of these columns.
        metadata = {k: v for k, v in (table.schema.metadata or {}).items() if k != b"pandas"}
        metadata |= Stated(size, self.strategy, self.resolution).note()
        for name, value in {
            "table": table.replace_schema_metadata(metadata),
            "tile_size": size,
            "_rows": rows,
            "_places": {name: place for place, name in enumerate(names)},
            "_offsets": offsets,
            "_order": order,
        }.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, ArrayLike | pa.Array[Any]],
        *,
        tile_size: int | Sequence[int],
        strategy: str,
        resolution: str | None = None,
    ) -> Self:
        """Make a table from columns.

        Parameters
        ----------
        columns
            `row` and `col` (n,), `tissue_id` (n,) strings or one string for all, and where known
            `tile_id` (by default 0, 1, ... in every tissue), `tissue_frac`, `gain` and others.
        tile_size, strategy, resolution
            As of `TileTable`.

        Raises
        ------
        InvalidInputError
            If the columns do not make a tile table.

        Examples
        --------
        >>> tiles = TileTable.from_columns(
        ...     {"tissue_id": "t1", "row": [0, 0], "col": [0, 224]}, tile_size=224, strategy="grid"
        ... )
        >>> tiles
        TileTable(2 tiles of 224x224 in 1 tissues, strategy='grid', resolution=None)
        >>> tiles.window(1)
        Tile(row=0, col=224, height=224, width=224, tissue_frac=None, gain=None)
        """
        missing = [name for name in ("tissue_id", "row", "col") if name not in columns]
        if missing:
            raise InvalidInputError(
                f"no column {', '.join(map(repr, missing))}; got {', '.join(columns) or 'none'}"
            )
        try:
            given = {
                name: as_array(values)
                for name, values in columns.items()
                if not isinstance(values, str)
            }
            if isinstance(columns["tissue_id"], str):
                given["tissue_id"] = repeated(columns["tissue_id"], len(given["row"]))
            table = pa.table(given)
        except (pa.ArrowException, TypeError, ValueError, KeyError) as error:
            raise InvalidInputError(f"the columns do not make a table: {error}") from error
        if "tile_id" not in given:
            table = table.append_column("tile_id", as_array(count_within(table["tissue_id"])))
        first = [name for name in _ORDER if name in table.column_names]
        rest = [name for name in table.column_names if name not in _ORDER]
        return cls(
            table.select(first + rest), read_size(tile_size, "tile_size"), strategy, resolution
        )

    @classmethod
    def from_tiles(
        cls,
        tissue_id: str,
        tiles: TileSelection,
        *,
        strategy: str,
        resolution: str | None = None,
    ) -> Self:
        """Make a table of the tiles chosen on one tissue, numbered in that order."""
        return cls.from_columns(
            {
                "tissue_id": tissue_id,
                "row": tiles.row,
                "col": tiles.col,
                "tissue_frac": tiles.tissue_frac,
                "gain": tiles.gain,
            },
            tile_size=tiles.tile_size,
            strategy=strategy,
            resolution=resolution,
        )

    @classmethod
    def concat(cls, tables: Sequence[TileTable]) -> Self:
        """One table after the other; a column that only some have is empty for the rest.

        Raises
        ------
        InvalidInputError
            If there is no table, they differ in tile size, strategy or resolution, or a tile id
            occurs twice in a tissue.
        """
        if not tables:
            raise InvalidInputError("no tile tables to put together")
        first = tables[0]
        for other in tables[1:]:
            for name in ("tile_size", "strategy", "resolution"):
                if getattr(other, name) != getattr(first, name):
                    raise InvalidInputError(
                        f"tile tables of different {name} do not go together: "
                        f"{getattr(first, name)!r} and {getattr(other, name)!r}"
                    )
        try:
            joined = pa.concat_tables(
                [table.table for table in tables], promote_options="permissive"
            )
        except (pa.ArrowException, TypeError) as error:
            raise InvalidInputError(f"the tile tables' columns differ in type: {error}") from error
        return cls(joined, first.tile_size, first.strategy, first.resolution)

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        *,
        tile_size: int | Sequence[int] | None = None,
        strategy: str | None = None,
        resolution: str | None = None,
    ) -> Self:
        """Open a table, memory-mapped: `.arrow` files without a copy, parquet files decoded.

        Parameters
        ----------
        path
            A `.parquet` file, ours or of a SPORA dataset, or an `.arrow` file.
        tile_size, strategy, resolution
            What the file does not state; SPORA's state none of them, and the tile size must then
            be given (it is in the file's name). The strategy is `"unknown"` if nobody says.

        Raises
        ------
        NotFoundError
            If there is no such file.
        FormatError
            If it is damaged or its columns do not make a tile table; names column and row.
        InvalidInputError
            If nobody states the tile size, or the file states another value than the caller.
        """
        size = None if tile_size is None else read_size(tile_size, "tile_size")
        place = path_to_read(path)
        table, stated = read_table(place)
        stated = stated.merge(Stated(size, strategy, resolution), place)
        if stated.tile_size is None:
            raise InvalidInputError(
                f"{path} does not state its tile size; pass tile_size (SPORA has it in the "
                "file's name: 224_tile_coordinates.parquet)"
            )
        try:
            return cls(table, stated.tile_size, stated.strategy or "unknown", stated.resolution)
        except InvalidInputError as error:
            raise FormatError(f"{path}: {error}") from error

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        tile_size: int | Sequence[int] | None = None,
        strategy: str | None = None,
        resolution: str | None = None,
        validate: bool = False,
    ) -> Self:
        """Open a parquet file through its index, at once whatever its length; else as `read`.

        Of an index the table has the columns that place a tile, and no others. It is used where
        `build_index` made one of the file as it is now, which its size, time and footer tell.

        Parameters
        ----------
        path, tile_size, strategy, resolution
            As of `read`.
        validate
            Check every row of the index again, as `read` does of a file.

        Raises
        ------
        NotFoundError, FormatError, InvalidInputError
            As of `read`; of an index that nobody validates, only what is seen without its rows.
        """
        place = path_to_read(path)
        found = read_index(place, validate=validate) if place.suffix == ".parquet" else None
        if found is None:
            return cls.read(path, tile_size=tile_size, strategy=strategy, resolution=resolution)
        size = None if tile_size is None else read_size(tile_size, "tile_size")
        stated = found.stated.merge(Stated(size, strategy, resolution), place)
        made = object.__new__(cls)
        for name, value in {
            "table": found.table,
            "tile_size": stated.tile_size,
            "strategy": stated.strategy or "unknown",
            "resolution": stated.resolution,
            "_rows": found.rows,
            "_places": {name: place for place, name in enumerate(found.tissue_ids)},
            "_offsets": found.offsets,
            "_order": None,
        }.items():
            object.__setattr__(made, name, value)
        return made

    @staticmethod
    def build_index(
        path: str | os.PathLike[str],
        *,
        tile_size: int | Sequence[int] | None = None,
        strategy: str | None = None,
        resolution: str | None = None,
    ) -> Path:
        """Check a parquet file once, in bounded memory, and write the index that `open` uses.

        Parameters
        ----------
        path, tile_size, strategy, resolution
            As of `read`; the tiles lie tissue after tissue.

        Returns
        -------
        Where the index is: beside the file, with the ending ``.arrow``.

        Raises
        ------
        NotFoundError, FormatError
            As of `read`.
        InvalidInputError
            If tiles of a tissue lie in two places, there are none, or nobody states the tile size.
        ConflictError
            If the file is replaced meanwhile.
        """
        place = Path(path)
        size = None if tile_size is None else read_size(tile_size, "tile_size")
        stated = read_stated(place).merge(Stated(size, strategy, resolution), place)
        if stated.tile_size is None:
            raise InvalidInputError(f"{path} does not state its tile size; pass tile_size")
        return write_index(place, stated)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table in one step, replacing the file that is there.

        Parameters
        ----------
        path
            `.parquet` for exchange (SPORA datasets, pandas), `.arrow` to be opened without a copy.

        Raises
        ------
        InvalidInputError
            If the name ends in neither.
        StorageError
            If the disk refuses.
        """
        kind = Path(path).suffix
        if kind == ".arrow":
            write_arrow(self.table, path)
        elif kind == ".parquet":
            # Plain strings: pandas would take a dictionary for a categorical.
            place = self.table.column_names.index("tissue_id")
            plain = self.table["tissue_id"].cast(pa.string())
            write_parquet(self.table.set_column(place, "tissue_id", plain), path)
        else:
            raise InvalidInputError(f"{path} must end in .parquet or .arrow")

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        height, width = self.tile_size
        return (
            f"TileTable({len(self)} tiles of {height}x{width} in {len(self._places)} tissues, "
            f"strategy={self.strategy!r}, resolution={self.resolution!r})"
        )

    def _repr_html_(self) -> str:
        return tiles_html(self)

    @property
    def tissue_ids(self) -> tuple[str, ...]:
        """Tissues that have tiles, in order of their first one."""
        return tuple(self._places)

    @property
    def tissue_offsets(self) -> NDArray[np.int64]:
        """Where each tissue's tiles begin when they lie tissue after tissue, (tissues + 1,)."""
        return self._offsets

    def in_order(self, places: ArrayLike) -> NDArray[np.int64]:
        """Return the rows at places of that order, (n,); the same numbers where the table has it."""
        at = np.asarray(places, np.int64)
        return at if self._order is None else self._order[at]

    def rows(self, indices: slice | ArrayLike = slice(None)) -> TileRows:
        """Columns of some rows; of a slice, views.

        Raises
        ------
        OutOfRangeError
            If an index is outside the table.
        """
        part = indices if isinstance(indices, slice) else self._check(np.asarray(indices))
        rows = self._rows
        return TileRows(rows.tissue[part], rows.tile_id[part], rows.row[part], rows.col[part])

    def column(self, name: str) -> NDArray[Any]:
        """Any column as an array; where a number is missing it is NaN.

        Raises
        ------
        UnknownNameError
            If there is no such column.
        """
        if name not in self.table.column_names:
            raise UnknownNameError(
                f"no column {name!r} in this tile table; it has "
                f"{', '.join(self.table.column_names)}"
            )
        return self.table[name].to_numpy()

    def positions(self, tissue_id: str) -> NDArray[np.int64]:
        """Rows of one tissue, ascending.

        Raises
        ------
        UnknownNameError
            If the tissue has no tiles.
        """
        place = self._places.get(tissue_id)
        if place is None:
            raise UnknownNameError(
                f"tissue {tissue_id!r} has no tiles in this table of {len(self._places)} tissues"
            )
        start, stop = int(self._offsets[place]), int(self._offsets[place + 1])
        return np.arange(start, stop) if self._order is None else self._order[start:stop]

    def for_tissue(self, tissue_id: str) -> TileTable:
        """Tiles of one tissue, in the same order.

        Raises
        ------
        UnknownNameError
            If the tissue has no tiles.
        """
        positions = self.positions(tissue_id)
        if self._order is None:
            part = self.table.slice(int(positions[0]), positions.size)
        else:
            part = self.table.take(as_array(positions))
        # A dictionary of this tissue alone; the slice would carry the names of all of them.
        part = part.set_column(
            part.column_names.index("tissue_id"), "tissue_id", repeated(tissue_id, len(part))
        )
        return TileTable(part, self.tile_size, self.strategy, self.resolution)

    def window(self, index: int) -> Tile:
        """One row as a `Tile`.

        Raises
        ------
        OutOfRangeError
            If the index is outside the table.
        """
        self._check(np.asarray([index]))
        known = {
            name: self.table[name][index].as_py()
            for name in ("tissue_frac", "gain")
            if name in self.table.column_names
        }
        return Tile(
            int(self._rows.row[index]), int(self._rows.col[index]), *self.tile_size, **known
        )

    def _check(self, indices: NDArray[Any]) -> NDArray[Any]:
        if indices.size and indices.dtype.kind not in "iu":
            raise InvalidInputError(f"row numbers must be integers, got {indices.dtype}")
        wrong = indices[(indices < 0) | (indices >= len(self))]
        if wrong.size:
            raise OutOfRangeError(f"row {wrong[0]} of a table of {len(self)} tiles")
        return indices.astype(np.int64, copy=False)
