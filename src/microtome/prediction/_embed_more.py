"""Vectors of tissues that came later: those that are there are kept, and only the others made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.coordinates import counts_from_edge
from microtome.errors import FormatError
from microtome.progress import Progress
from microtome.regions import ImageRegionData
from microtome.storage import replace_file

from ._embed import TileBatches, embed_tiles, embedding_settings, noted_settings, table_note
from ._model import Preprocess, model_name

__all__ = ["PartedTiles", "add_vectors", "lacking_parts"]

_GROUP = 4096
_OF_BATCHES = "batch_size"
_MODALITY = "modality"


class PartedTiles(TileBatches, Protocol):
    """Tiles of several images, of which each is a part by name."""

    def parts(self) -> tuple[list[str], NDArray[np.int64]]:
        """Return the names of the parts, ``"he of a"``, and which part each tile is of."""
        ...

    def made_of(self) -> Mapping[str, str]:
        """Return what tells each part's image and tiles from others, by two names of the part."""
        ...


class _Rows:
    """Some of the tiles."""

    def __init__(self, tiles: PartedTiles, rows: NDArray[np.int64]) -> None:
        self._tiles, self._rows = tiles, rows

    def __len__(self) -> int:
        return self._rows.size

    def read_batch(self, rows: NDArray[np.int64], /) -> ImageRegionData[Any]:
        return self._tiles.read_batch(self._rows[rows])


def lacking_parts(
    model: Any,
    tiles: PartedTiles,
    table: Path,
    *,
    batch_size: int,
    preprocess: Preprocess | None,
) -> list[str]:
    """Return the parts of which a table has no vectors, where it differs in nothing else.

    Parameters
    ----------
    model, tiles, batch_size, preprocess
        What vectors are asked for.
    table
        The file that is there.

    Returns
    -------
    Names of the parts; none where the table is of all, or of anything else than is asked for.
    """
    found = noted_settings(table)
    # Of an earlier microtome, whose centroids count from elsewhere, a table is not gone on with.
    if found is None or not counts_from_edge(pq.read_schema(table).metadata or {}):
        return []
    wanted = embedding_settings(model, tiles, batch_size=batch_size, preprocess=preprocess)
    names, _ = tiles.parts()
    # Where the answer depends on the batch, vectors of other batches are others.
    if _OF_BATCHES in wanted:
        return []
    new = [name for name in names if name not in found]
    added = {key for name in new for key in _keys(name)} | {"tiles"}
    same = {key: value for key, value in wanted.items() if key not in added}
    return new if same == {key: value for key, value in found.items() if key != "tiles"} else []


def add_vectors(
    model: Any,
    tiles: PartedTiles,
    table: Path,
    new: Sequence[str],
    *,
    batch_size: int,
    preprocess: Preprocess | None,
    resume: bool,
    progress: Progress,
) -> Path:
    """Make the vectors of some parts, and write a table of all in the place of that of the others.

    The table has the order of the tiles, as if all had been made together; it is replaced whole, and
    what is in memory is a row group of it.

    Parameters
    ----------
    model, tiles, batch_size, preprocess, resume, progress
        As for `embed_tiles`.
    table
        The file that is there.
    new
        The parts that it lacks, as `lacking_parts` says.

    Raises
    ------
    FormatError
        If the table has not the rows that it says it has.
    """
    names, part_of = tiles.parts()
    wanted = np.flatnonzero(np.isin(part_of, [names.index(name) for name in new]))
    beside = table.with_name(f".{table.name}.added")
    try:
        embed_tiles(
            model,
            _Rows(tiles, wanted),
            beside,
            batch_size=batch_size,
            preprocess=preprocess,
            resume=resume,
            progress=progress,
        )
        settings = embedding_settings(model, tiles, batch_size=batch_size, preprocess=preprocess)
        # Of each tile, in which file its vector is and in which row.
        source, place = np.zeros(part_of.size, np.int64), np.zeros(part_of.size, np.int64)
        source[wanted], place[wanted] = 1, np.arange(wanted.size)
        _place_old(table, names, part_of, new, place)
        with table.open("rb") as old, beside.open("rb") as added:
            files = [pq.ParquetFile(old), pq.ParquetFile(added)]
            told = table_note(model_name(model), settings, tiles)
            # Of an earlier microtome, which did not say how a tissue was imaged.
            schema = files[1].schema_arrow.with_metadata(told)
            modalities = np.asarray([name.split(" of ", 1)[0] for name in names], object)[part_of]
            with (
                replace_file(table) as temporary,
                pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
            ):
                for rows in _merged([_File(file) for file in files], source, place, modalities):
                    writer.write_table(rows.cast(schema), row_group_size=_GROUP)
    finally:
        beside.unlink(missing_ok=True)
    return table


def _keys(name: str) -> tuple[str, str]:
    return name, f"tiles of {name}"


def _place_old(
    table: Path,
    names: Sequence[str],
    part_of: NDArray[np.int64],
    new: Sequence[str],
    place: NDArray[np.int64],
) -> None:
    """Note of every tile whose vector is there in which row it is.

    A tissue may be there as several modalities, whose rows have the same names: these follow each
    other as the table says that it was made.
    """
    noted = [key for key in noted_settings(table) or {} if key in names and key not in new]
    by_tissue: dict[str, list[str]] = {}
    for name in noted:
        by_tissue.setdefault(name.split(" of ", 1)[1], []).append(name)
    with table.open("rb") as opened:
        column = pq.ParquetFile(opened).read(columns=["tissue_id"])["tissue_id"]
    codes = column.combine_chunks().dictionary_encode()
    there: dict[str, int] = {name: i for i, name in enumerate(codes.dictionary.to_pylist())}
    numbers = codes.indices.to_numpy()
    for tissue, parts in by_tissue.items():
        rows = np.flatnonzero(numbers == there.get(tissue, -1))
        mine = [np.flatnonzero(part_of == names.index(part)) for part in parts]
        if rows.size != sum(part.size for part in mine):
            msg = f"{table} has {rows.size} vectors of {tissue!r}, and says that it was made of {sum(part.size for part in mine)} tiles; make it anew with --overwrite (overwrite=True)"
            raise FormatError(msg)
        place[np.concatenate(mine)] = rows


class _File:
    """Rows of a table, of which one row group is in memory."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._ends = np.cumsum(sizes)
        self._held: tuple[int, pa.Table | None] = -1, None

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        groups = np.searchsorted(self._ends, rows, side="right")
        cuts = np.flatnonzero(np.diff(groups)) + 1
        pieces: list[pa.Table] = []
        for mine, group in zip(np.split(rows, cuts), groups[np.r_[0, cuts]], strict=True):
            begin = int(self._ends[group - 1]) if group else 0
            pieces.append(self._group(int(group)).take(pa.array(mine - begin)))
        return pa.concat_tables(pieces)

    def _group(self, number: int) -> pa.Table:
        if self._held[0] != number or self._held[1] is None:
            self._held = number, self._file.read_row_group(number)
        return self._held[1]


def _merged(
    files: Sequence[_File],
    source: NDArray[np.int64],
    place: NDArray[np.int64],
    modalities: NDArray[Any],
) -> Iterator[pa.Table]:
    """Yield the rows in the order of the tiles, a row group at a time."""
    for start in range(0, source.size, _GROUP):
        sources, places = source[start : start + _GROUP], place[start : start + _GROUP]
        cuts = np.flatnonzero(np.diff(sources)) + 1
        pieces: list[pa.Table] = []
        for rows, which in zip(np.split(places, cuts), sources[np.r_[0, cuts]], strict=True):
            taken = files[int(which)].take(rows).replace_schema_metadata()
            there = [name for name in taken.column_names if name != _MODALITY]
            pieces.append(taken.select(there))
        whole = pa.concat_tables(pieces).combine_chunks()
        column = pa.array(modalities[start : start + _GROUP].tolist(), pa.string())
        yield whole.add_column(1, _MODALITY, column)
