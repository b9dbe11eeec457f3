"""One vector a tile, as a table on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.cohort import Inputs, note_inputs
from microtome.coordinates import FROM_EDGE, MicrometreGrid, counts_from_edge
from microtome.errors import ExistsError, InvalidInputError
from microtome.progress import Progress, silent
from microtome.regions import ImageRegionData
from microtome.storage import Place, StorageOptions, StorePath, replace_file, upload_file

from . import _embed_parts
from ._embed_parts import Parts, checksums, sampled_rows
from ._failure import telling_failures
from ._fingerprint import model_fingerprint, sees_batches
from ._model import Preprocess, model_name, running
from ._output import as_array
from ._record import library_version
from ._resuming import differences
from ._staging import Target, split_place, staged, target_of_prediction

__all__ = [
    "TileBatches",
    "embed_tiles",
    "embedding_settings",
    "noted_settings",
    "table_note",
    "vectors_column",
    "verify_finished",
]

_log = logging.getLogger(__name__)

# Rows that are written at once: a row group of a batch would be too small to compress or skip.
_GROUP = 4096
_VERSION = 2
_TILES_OF = "tiles of "
# Of any number of tissues that differ, these are told of.
_NAMED = 5


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
    out: Target,
    *,
    batch_size: int = 64,
    preprocess: Preprocess | None = None,
    resume: bool = True,
    storage_options: StorageOptions | None = None,
    progress: Progress = silent,
) -> Path:
    """Describe every tile by a vector and write the table.

    The file appears whole or not at all, and replaces one that is there. Rows are in the order of
    the tiles; what is in memory is a batch and one row group. A run that was killed is gone on with by
    the same call, and ends with the same bytes: vectors of finished blocks of 1024 tiles are kept in a
    hidden directory beside `out`. Of each such block eight tiles are read again, to see whether they are
    still the same.

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
        list of D float32. Or its address, ``s3://bucket/vectors.parquet``: it is made in the
        directory for temporary files and put there in one request.
    batch_size
        Tiles that go through the model at once; no batch reaches over the end of a block. A run is gone
        on with in batches of any size, unless the model is a callable that holds a torch module in
        training mode, whose answer depends on the batch.
    preprocess
        What makes the model's input of a batch as the tiles give it, as for `predict`.
    resume
        Whether to go on with what a killed run left; False starts over.
    storage_options
        How a store at `out` is reached.
    progress
        Called with the tiles done and to do.

    Returns
    -------
    The path of the file; of one in a store a `StorePath`.

    Raises
    ------
    InvalidInputError
        If there is no tile, `batch_size` is not positive, a tile has no ids, or the model returns
        another shape, vectors of changing length, or NaN; the message names the tile.
    ExistsError
        If a run with another model or other tiles was left, and `resume` is true.
    BusyError
        If another process makes the same table.
    ModeError
        If `out` is in a store that is only read.
    ModelError
        If the model fails on a batch; what it raised is the cause.
    StorageError
        If the disk or a store refuses.
    """
    if not len(tiles) or batch_size < 1:
        msg = f"{len(tiles)} tiles in batches of {batch_size} cannot be embedded; give at least 1"
        raise InvalidInputError(msg)
    target = target_of_prediction(out, storage_options)
    how: dict[str, Any] = {"batch_size": batch_size, "preprocess": preprocess, "resume": resume}
    if not isinstance(target, Place):
        _embed_here(model, tiles, target, **how, progress=progress)
        return target
    above, name = split_place(target)
    _, stamp = above.read_stamped(name)
    with staged(target, name, resume=resume) as path:
        _embed_here(model, tiles, path, **how, progress=progress)
        upload_file(path, above, name, stamp)
    # To those who read it is a path.
    return cast("Path", StorePath.opened(above) / name)


def _embed_here(
    model: Any,
    tiles: TileBatches,
    path: Path,
    *,
    batch_size: int,
    preprocess: Preprocess | None,
    resume: bool,
    progress: Progress,
) -> None:
    settings = embedding_settings(model, tiles, batch_size=batch_size, preprocess=preprocess)
    # Before anything is written.
    with running(model, preprocess, method="embed") as run:
        parts = Parts(path, settings, resume=resume)
        keep = True
        try:
            _embed(run, (model, preprocess), tiles, parts, batch_size, progress)
            _publish(path, parts, table_note(model_name(model), settings, tiles))
            keep = False
        except InvalidInputError:
            # The model's answer was wrong: what there is of it is not gone on with.
            keep = False
            raise
        finally:
            parts.close(keep=keep)


def embedding_settings(
    model: Any, tiles: TileBatches, *, batch_size: int, preprocess: Preprocess | None
) -> dict[str, Any]:
    """Return what vectors depend on, as JSON holds it."""
    found: dict[str, Any] = {
        "tiles": len(tiles),
        "block": _embed_parts.BLOCK,
        "model": model_name(model),
        "model_state": model_fingerprint(model),
    }
    # Those of a cohort say it of each tissue.
    made_of = getattr(tiles, "made_of", None)
    if callable(made_of):
        found |= cast("Mapping[str, str]", made_of())
    if preprocess is not None:
        found |= {
            "preprocess": model_name(preprocess),
            "preprocess_state": model_fingerprint(preprocess),
        }
    if sees_batches(model) or sees_batches(preprocess):
        found["batch_size"] = batch_size
    return found


def verify_finished(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a table of vectors that is there and of another model, other tiles or settings.

    One of an earlier microtome does not say of which it is, and stays.

    Raises
    ------
    ExistsError
        If it is; the message says what differs.
    """
    noted: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    found = noted_settings(path)
    other = "" if found is None else _others(found, settings)
    if other:
        msg = f"{path} exists already and has vectors of other settings ({other}); choose another place, or replace it with --overwrite (overwrite=True)"
        raise ExistsError(msg)
    if not counts_from_edge(noted):
        _log.warning(
            "%s was written by an earlier microtome and stays: its centroids count from the middle of "
            "the image's first pixel, not from the edge; overwrite it for those of today",
            path,
        )


def noted_settings(path: Path) -> dict[str, Any] | None:
    """Return what a table of vectors says that they depend on; None where it does not."""
    noted: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    found: Any = json.loads(noted.get(b"microtome", b"{}")).get("settings")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _others(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Say in which settings two tables differ; of checksums of tissues what they mean."""
    tissues = {
        key.removeprefix(_TILES_OF)
        for key in (*found, *wanted)
        if key.startswith(_TILES_OF) or f"{_TILES_OF}{key}" in {**found, **wanted}
    }
    told: list[str] = []
    for what in sorted(tissues):
        then, now = ((s.get(what), s.get(f"{_TILES_OF}{what}")) for s in (found, wanted))
        if then == now:
            continue
        if then == (None, None):
            told.append(f"{what} was not there then")
        elif now == (None, None):
            told.append(f"{what} is not there now")
        else:
            parts = [w for w, a, b in zip(("image", "tiles"), then, now, strict=True) if a != b]
            told.append(f"{what} has other {' and '.join(parts)} now")
    hidden = {key for what in tissues for key in (what, f"{_TILES_OF}{what}")}
    if told:
        hidden.add("tiles")  # Their number follows from it.
        more = f", and so on for {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        told = ["; ".join(told[:_NAMED]) + more]
    rest = differences(found, wanted, ignored=hidden)
    return "; ".join([*told, rest] if rest else told)


def _embed(
    run: Callable[[Any], Any],
    asked: tuple[Any, Preprocess | None],
    tiles: TileBatches,
    parts: Parts,
    batch_size: int,
    progress: Progress,
) -> None:
    """Make the vectors of the blocks that are not there, of what is asked: the model and its input."""
    size, total = _embed_parts.BLOCK, len(tiles)
    there = parts.there
    length = 0
    for number in there:
        start = number * size
        batch = tiles.read_batch(start + sampled_rows(min(size, total - start)))
        parts.verify(number, _places(_ids(batch, start)), list(checksums(batch.data)))
        length = parts.read(number).schema.field("embedding").type.list_size
    for number in sorted(set(range(-(-total // size))) - set(there)):
        begin = number * size
        end = min(begin + size, total)
        looked_at = set((begin + sampled_rows(end - begin)).tolist())
        tables: list[pa.Table] = []
        pixels: list[int] = []
        # Batches end with the block, so that they are the same whatever was there.
        for start in range(begin, end, batch_size):
            rows = np.arange(start, min(start + batch_size, end))
            batch = tiles.read_batch(rows)
            ids = _ids(batch, start)
            chosen = [at for at, row in enumerate(rows.tolist()) if row in looked_at]
            if chosen:
                pixels += checksums(as_array(batch.data)[chosen])
            with telling_failures(*asked, batch.data, f"while embedding a batch from {ids[0]}"):
                output = run(batch.data)
            vectors = _vectors(output, ids, length)
            length = vectors.shape[1]
            tables.append(_table(ids, vectors))
            progress("embed", int(rows[-1]) + 1, total)
        parts.write(number, pa.concat_tables(tables).combine_chunks(), pixels)
    progress("embed", total, total)


def table_note(model: str, settings: Mapping[str, Any], tiles: TileBatches) -> dict[bytes, bytes]:
    """Return what a table of vectors says of itself."""
    note = {
        "format": "tile-embeddings",
        "version": _VERSION,
        "micrometres_from": FROM_EDGE,
        "model": model,
        "library_version": library_version(),
        "settings": dict(settings),
    }
    told = {b"microtome": json.dumps(note).encode()}
    # Those of a cohort say it of each tissue, for who looks whether vectors are stale.
    inputs = getattr(tiles, "inputs", None)
    made_of = cast("Mapping[str, Inputs]", inputs()) if callable(inputs) else {}
    return note_inputs(told, made_of) if made_of else told


def _publish(path: Path, parts: Parts, told: dict[bytes, bytes]) -> None:
    """Put the blocks together, some at a time."""
    numbers = parts.there
    schema = parts.read(numbers[0]).schema.with_metadata(told)
    with (
        replace_file(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        held: list[pa.Table] = []
        for number in numbers:
            held.append(parts.read(number).replace_schema_metadata(schema.metadata))
            if sum(part.num_rows for part in held) >= _GROUP or number == numbers[-1]:
                rows = pa.concat_tables(held).combine_chunks()
                writer.write_table(rows, row_group_size=_GROUP)
                held = []


@dataclass(frozen=True, slots=True)
class _Ids:
    """What a tile is called, and where it lies."""

    tissue_id: str
    key: str
    name: int | str
    row: int
    col: int
    centre: tuple[float | None, float | None]
    modality: str | None = None
    """How it was imaged, where a table may have tiles of several images of a tissue."""

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
            msg = (
                f"tile {start + at} has no tissue_id and tile_id in its metadata, only {sorted(facts)}: "
                "vectors are kept by them; take tiles of a cohort (ingest, tile), or cells (CellCrops)"
            )
            raise InvalidInputError(msg)
        name = facts[key]
        name = int(name) if isinstance(name, int | np.integer) else str(name)
        centre = _centre(facts, place, size)
        found.append(
            _Ids(
                str(facts["tissue_id"]),
                key,
                name,
                int(place[0]),
                int(place[1]),
                centre,
                facts.get("modality"),
            )
        )
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
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if wrong.size:
        what = "NaN" if np.isnan(vectors[wrong[0]]).any() else "infinity"
        msg = f"the model returned {what} for {ids[wrong[0]]}"
        raise InvalidInputError(msg)
    return np.ascontiguousarray(vectors, np.float32)


def _table(ids: list[_Ids], vectors: NDArray[np.float32]) -> pa.Table:
    return _places(ids).append_column("embedding", vectors_column(vectors))


def _places(ids: list[_Ids]) -> pa.Table:
    kind = pa.int64() if isinstance(ids[0].name, int) else pa.string()
    return pa.table(
        {
            "tissue_id": pa.array([one.tissue_id for one in ids], pa.string()),
            **(
                {}
                if ids[0].modality is None
                else {"modality": pa.array([one.modality for one in ids], pa.string())}
            ),
            ids[0].key: pa.array([one.name for one in ids], kind),
            "row": pa.array([one.row for one in ids], pa.int64()),
            "col": pa.array([one.col for one in ids], pa.int64()),
            "centroid_y": pa.array([one.centre[0] for one in ids], pa.float64()),
            "centroid_x": pa.array([one.centre[1] for one in ids], pa.float64()),
        }
    )


def vectors_column(vectors: NDArray[Any]) -> pa.FixedSizeListArray:
    """Return vectors, (n, D), as a column of lists of float32."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel(), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
