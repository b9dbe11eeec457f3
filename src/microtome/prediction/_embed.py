"""One vector a tile, as a table on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.coordinates import FROM_EDGE, MicrometreGrid
from microtome.errors import InvalidInputError
from microtome.progress import Progress, silent
from microtome.regions import ImageRegionData
from microtome.storage import replace_file

from ._model import model_name, running
from ._output import as_array
from ._record import library_version

__all__ = ["TileBatches", "embed_tiles", "vectors_column"]

# Rows that are written at once: a row group of a batch would be too small to compress or skip.
_GROUP = 4096
_VERSION = 2


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
        The tiles; `additional_metadata[i]` of a batch has ``"tissue_id"`` and ``"tile_id"``, or
        ``"cell_id"`` where each is around a cell, as of `CellCrops`.
    out
        Path of the parquet file: `tissue_id`, `tile_id` or `cell_id`, `row`, `col` (top-left pixel),
        `centroid_y`, `centroid_x` (micrometres from the upper left edge of the image, null where
        nobody knows the pixel size: the tile's centre, of `CellCrops` the cell's) and `embedding`, a
        list of D float32.
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
            "micrometres_from": FROM_EDGE,
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
                error.add_note(f"while embedding a batch from {ids[0]}")
                raise
            vectors = _vectors(output, ids, length)
            length = vectors.shape[1]
            yield _table(ids, vectors)
            progress("embed", stop, len(tiles))


@dataclass(frozen=True, slots=True)
class _Ids:
    """What a tile is called, and where it lies."""

    tissue_id: str
    key: str
    name: int | str
    row: int
    col: int
    centre: tuple[float | None, float | None]

    def __str__(self) -> str:
        what = self.key.removesuffix("_id")
        return (
            f"{what} {self.name} of tissue {self.tissue_id} at (row, col) ({self.row}, {self.col})"
        )


def _ids(batch: ImageRegionData[Any], start: int) -> list[_Ids]:
    """Return what the tiles of a batch are called."""
    spec = cast("dict[str, Any]", batch.region_spec)
    coords, sizes = (np.asarray(spec[key])[:, -2:].tolist() for key in ("coords", "patch_size"))
    found: list[_Ids] = []
    for at, (facts, place, size) in enumerate(
        zip(cast("list[dict[str, Any]]", batch.additional_metadata), coords, sizes, strict=True)
    ):
        key = next((key for key in ("cell_id", "tile_id") if key in facts), None)
        if "tissue_id" not in facts or key is None:
            msg = f"tile {start + at} has no tissue_id and tile_id in its metadata, only {sorted(facts)}"
            raise InvalidInputError(msg)
        name = facts[key]
        name = int(name) if isinstance(name, int | np.integer) else str(name)
        centre = _centre(facts, place, size)
        found.append(_Ids(str(facts["tissue_id"]), key, name, int(place[0]), int(place[1]), centre))
    return found


def _centre(
    facts: Mapping[str, Any], place: Sequence[int], size: Sequence[int]
) -> tuple[float | None, float | None]:
    """Return the centre in micrometres, (y, x); None where nobody knows the pixel size."""
    mpp, known = facts.get("mpp"), facts.get("centroid")
    if known is not None:
        # That of a cell, of which the crop's is up to half a pixel away.
        y, x = known
        return float(y), float(x)
    if mpp is None:
        return None, None
    middle = np.asarray(place) + np.asarray(size) / 2
    y, x = MicrometreGrid.from_mpp(mpp).from_pixels(middle).tolist()
    return y, x


def _vectors(output: Any, ids: list[_Ids], length: int) -> NDArray[np.float32]:
    vectors = as_array(output)
    if vectors.ndim != 2 or len(vectors) != len(ids) or not vectors.shape[1]:
        msg = (
            f"the model must return ({len(ids)}, D), a vector a tile, got {vectors.shape}, for a "
            f"batch from {ids[0]}"
        )
        raise InvalidInputError(msg)
    if length and vectors.shape[1] != length:
        msg = f"the model returned {vectors.shape[1]} numbers for {ids[0]}, before that {length}"
        raise InvalidInputError(msg)
    wrong = np.flatnonzero(np.isnan(vectors).any(axis=1))
    if wrong.size:
        msg = f"the model returned NaN for {ids[wrong[0]]}"
        raise InvalidInputError(msg)
    return np.ascontiguousarray(vectors, np.float32)


def _table(ids: list[_Ids], vectors: NDArray[np.float32]) -> pa.Table:
    kind = pa.int64() if isinstance(ids[0].name, int) else pa.string()
    return pa.table(
        {
            "tissue_id": pa.array([one.tissue_id for one in ids], pa.string()),
            ids[0].key: pa.array([one.name for one in ids], kind),
            "row": pa.array([one.row for one in ids], pa.int64()),
            "col": pa.array([one.col for one in ids], pa.int64()),
            "centroid_y": pa.array([one.centre[0] for one in ids], pa.float64()),
            "centroid_x": pa.array([one.centre[1] for one in ids], pa.float64()),
            "embedding": vectors_column(vectors),
        }
    )


def vectors_column(vectors: NDArray[Any]) -> pa.FixedSizeListArray:
    """Return vectors, (n, D), as a column of lists of float32."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel(), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
