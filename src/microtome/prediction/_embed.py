"""One vector a tile, as a table on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.progress import Progress, silent
from microtome.regions import ImageRegionData
from microtome.storage import replace_file

from ._model import model_name, running
from ._output import as_array
from ._record import library_version

__all__ = ["TileBatches", "embed_tiles"]

# Rows that are written at once: a row group of a batch would be too small to compress or skip.
_GROUP = 4096
_VERSION = 1


class TileBatches(Protocol):
    """Tiles that can be read by number, as the datasets of a cohort can."""

    def __len__(self) -> int:
        """Number of tiles."""
        ...

    def read_batch(self, rows: NDArray[np.int64], /) -> ImageRegionData[Any]:
        """Read tiles as a collated batch whose `additional_metadata` has tissue and tile ids."""
        ...


def embed_tiles(
    model: Any,
    tiles: TileBatches,
    out: str | os.PathLike[str],
    *,
    batch_size: int = 64,
    progress: Progress = silent,
) -> Path:
    """Describe every tile by a vector and write the table.

    The file appears whole or not at all, and replaces one that is there. Rows are in the order of
    the tiles; what is in memory is a batch and one row group.

    Parameters
    ----------
    model
        A torch module or any callable from (B, C, Y, X) to (B, D). Where it has a method `embed`,
        that is called instead.
    tiles
        The tiles; `additional_metadata[i]` of a batch has ``"tissue_id"`` and ``"tile_id"``.
    out
        Path of the parquet file: `tissue_id`, `tile_id`, `row`, `col` (top-left pixel) and
        `embedding`, a list of D float32.
    batch_size
        Tiles that go through the model at once.
    progress
        Called with the tiles done and to do.

    Returns
    -------
    The path of the file.

    Raises
    ------
    InvalidInputError
        If there is no tile, `batch_size` is not positive, a tile has no ids, or the model returns
        another shape, vectors of changing length, or NaN; the message names the tile.
    StorageError
        If the disk refuses.
    """
    if not len(tiles) or batch_size < 1:
        msg = f"{len(tiles)} tiles in batches of {batch_size} cannot be embedded; give at least 1"
        raise InvalidInputError(msg)
    path = Path(out)
    with replace_file(path) as temporary:
        tables = _tables(model, tiles, batch_size, progress)
        table = next(tables)
        note = {
            "format": "tile-embeddings",
            "version": _VERSION,
            "model": model_name(model),
            "library_version": library_version(),
        }
        schema = table.schema.with_metadata({b"microtome": json.dumps(note).encode()})
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            held = [table]
            for table in tables:
                if sum(part.num_rows for part in held) + table.num_rows > _GROUP:
                    _write(writer, held, schema)
                    held = []
                held.append(table)
            _write(writer, held, schema)
    return path


def _write(writer: Any, tables: list[pa.Table], schema: pa.Schema) -> None:
    if tables:
        writer.write_table(pa.concat_tables(tables).replace_schema_metadata(schema.metadata))


def _tables(
    model: Any, tiles: TileBatches, batch_size: int, progress: Progress
) -> Iterator[pa.Table]:
    length = 0
    with running(model, method="embed") as run:
        for start in range(0, len(tiles), batch_size):
            stop = min(start + batch_size, len(tiles))
            batch = tiles.read_batch(np.arange(start, stop))
            ids = _ids(batch, start)
            try:
                output = run(batch.data)
            except Exception as error:
                error.add_note(f"while embedding a batch from {_named(ids[0])}")
                raise
            vectors = _vectors(output, ids, length)
            length = vectors.shape[1]
            yield _table(ids, vectors)
            progress("embed", stop, len(tiles))


Ids = tuple[str, int | str, int, int]


def _ids(batch: ImageRegionData[Any], start: int) -> list[Ids]:
    """Tissue, tile, row and column of each tile of a batch."""
    coords = np.asarray(cast("dict[str, Any]", batch.region_spec)["coords"]).tolist()
    found: list[Ids] = []
    for at, (facts, place) in enumerate(
        zip(cast("list[dict[str, Any]]", batch.additional_metadata), coords, strict=True)
    ):
        if "tissue_id" not in facts or "tile_id" not in facts:
            msg = f"tile {start + at} has no tissue_id and tile_id in its metadata, only {sorted(facts)}"
            raise InvalidInputError(msg)
        tile = facts["tile_id"]
        name = int(tile) if isinstance(tile, int | np.integer) else str(tile)
        found.append((str(facts["tissue_id"]), name, int(place[-2]), int(place[-1])))
    return found


def _named(ids: Ids) -> str:
    tissue, tile, row, col = ids
    return f"tile {tile} of tissue {tissue} at (row, col) ({row}, {col})"


def _vectors(output: Any, ids: list[Ids], length: int) -> NDArray[np.float32]:
    vectors = as_array(output)
    if vectors.ndim != 2 or len(vectors) != len(ids) or not vectors.shape[1]:
        msg = (
            f"the model must return ({len(ids)}, D), a vector a tile, got {vectors.shape}, for a "
            f"batch from {_named(ids[0])}"
        )
        raise InvalidInputError(msg)
    if length and vectors.shape[1] != length:
        msg = f"the model returned {vectors.shape[1]} numbers for {_named(ids[0])}, before that {length}"
        raise InvalidInputError(msg)
    wrong = np.flatnonzero(np.isnan(vectors).any(axis=1))
    if wrong.size:
        msg = f"the model returned NaN for {_named(ids[wrong[0]])}"
        raise InvalidInputError(msg)
    return np.ascontiguousarray(vectors, np.float32)


def _table(ids: list[Ids], vectors: NDArray[np.float32]) -> pa.Table:
    tissue, tile, row, col = zip(*ids, strict=True)
    kind = pa.int64() if isinstance(tile[0], int) else pa.string()
    return pa.table(
        {
            "tissue_id": pa.array(tissue, pa.string()),
            "tile_id": pa.array(tile, kind),
            "row": pa.array(row, pa.int64()),
            "col": pa.array(col, pa.int64()),
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.ravel(), pa.float32()), vectors.shape[1]
            ),
        }
    )
