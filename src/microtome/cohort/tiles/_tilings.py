"""Tables of tiles that are in a cohort, and what becomes of them when some tissues are tiled again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from microtome.cohort._layout import CohortLayout, size_name
from microtome.cohort._made_of import Inputs, note_inputs, noted_inputs
from microtome.cohort._tables import read_parquet
from microtome.coordinates import Resolution
from microtome.errors import FormatError, InvalidInputError
from microtome.tiling import TileStats, TileTable

__all__ = ["TilesBefore", "TilesMade", "open_tiles", "tile_statistics"]


@dataclass(frozen=True, slots=True)
class TilesMade:
    """Tiles of some tissues."""

    tables: Sequence[TileTable]
    stats: Mapping[str, TileStats]
    inputs: Mapping[str, Inputs]
    """What the tiles of each tissue were made of."""

    def table(self) -> TileTable:
        """Return them as one table, which says what it was made of."""
        joined = TileTable.concat(self.tables)
        noted = note_inputs(joined.table.schema.metadata, self.inputs)
        return TileTable(
            joined.table.replace_schema_metadata(noted),
            joined.tile_size,
            joined.strategy,
            joined.resolution,
        )


@dataclass(frozen=True, slots=True)
class TilesBefore:
    """A tiling that is there, with its statistics."""

    tiles: TileTable
    stats: dict[str, TileStats]

    @classmethod
    def read(
        cls, layout: CohortLayout, resolution: Resolution, strategy: str, size: tuple[int, int]
    ) -> TilesBefore:
        """Read it.

        Raises
        ------
        FormatError
            If a table is damaged.
        """
        text = size_name(size)
        stats: dict[str, TileStats] = {}
        if layout.tile_stats(resolution, strategy, text).is_file():
            for row in tile_statistics(layout, resolution, strategy, text):
                tissue_id = str(row.pop("tissue_id"))
                stats[tissue_id] = cast("TileStats", row)
        return cls(open_tiles(layout, resolution, strategy, size), stats)

    @property
    def tissues(self) -> set[str]:
        """Those that have been tiled, with or without a tile."""
        return {*self.stats, *self.tiles.tissue_ids}

    @property
    def inputs(self) -> dict[str, Inputs]:
        """What the tiles of each tissue were made of, where the table says it."""
        return noted_inputs(self.tiles.table.schema.metadata)

    def updated(self, made: TilesMade, tissues: Sequence[str] | None) -> TilesMade:
        """Return this tiling with those of some tissues made anew.

        Parameters
        ----------
        made
            The new ones.
        tissues
            All tissues that there shall be, in order; None leaves all that are there where they are,
            and puts those that are new last.
        """
        kept = self._without(made.inputs)
        stats = {t: s for t, s in self.stats.items() if t not in made.inputs} | dict(made.stats)
        inputs = self.inputs | dict(made.inputs)
        if tissues is None:
            tissues = list(dict.fromkeys([*self.stats, *self.tiles.tissue_ids, *made.stats]))
        new = {tissue_id: table for table in made.tables for tissue_id in table.tissue_ids}
        old = set(kept.tissue_ids)
        tables = [
            new[t] if t in new else kept.for_tissue(t) for t in tissues if t in new or t in old
        ]
        return TilesMade(
            tables or [*made.tables, kept][:1],
            {t: stats[t] for t in tissues if t in stats},
            {t: inputs[t] for t in tissues if t in inputs},
        )

    def _without(self, tissues: Iterable[str]) -> TileTable:
        """Return the tiles of all other tissues."""
        column = self.tiles.table["tissue_id"].cast(pa.string())
        others = pc.invert(pc.is_in(column, value_set=pa.array(list(tissues), pa.string())))
        return TileTable(
            self.tiles.table.filter(others),
            self.tiles.tile_size,
            self.tiles.strategy,
            self.tiles.resolution,
        )


def open_tiles(
    layout: CohortLayout,
    resolution: Resolution,
    strategy: str,
    tile_size: int | tuple[int, int],
    *,
    indexed: bool = False,
) -> TileTable:
    """Open a table of tiles, ours or spora_io's.

    Parameters
    ----------
    layout, resolution, strategy, tile_size
        Which.
    indexed
        Whether to take its index where there is one, which has only the columns that place a tile.

    Raises
    ------
    InvalidInputError
        If there is none; the message says which there are.
    """
    text = size_name(tile_size)
    path = layout.tile_coordinates(resolution, strategy, text)
    if not path.is_file():
        there = ", ".join(f"{s} {t}" for s, t in layout.tilings(resolution)) or "none"
        msg = f"{layout.root} has no tiles {strategy} {text} at {resolution} um per pixel; it has {there}. Make some with `microtome tile`"
        raise InvalidInputError(msg)
    size = tile_size if isinstance(tile_size, tuple) else (tile_size, tile_size)
    table = (TileTable.open if indexed else TileTable.read)(path, tile_size=size)
    if table.resolution not in {None, resolution.directory}:
        msg = f"{path} speaks of tiles at {table.resolution}"
        raise FormatError(msg)
    if indexed:
        return table  # as it lies: whatever is made of it would be checked row by row
    return TileTable(table.table, table.tile_size, strategy, resolution.directory)


def tile_statistics(
    layout: CohortLayout, resolution: Resolution, strategy: str, size: str
) -> list[dict[str, Any]]:
    """Return the rows of a tile statistics table."""
    table = read_parquet(layout.tile_stats(resolution, strategy, size), [])
    return cast("list[dict[str, Any]]", table.to_pylist())
