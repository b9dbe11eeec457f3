"""Tiles as WebDataset has them: tar files one after the other, a few files a sample.

The form is that of `webdataset` 0.2 to 1: the files of a sample follow each other in the archive,
share their name up to the first dot, and say by what follows it how they are decoded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import ExistsError, InvalidInputError, OutOfRangeError
from microtome.jobs import run_each
from microtome.loading import TileSource
from microtome.progress import Progress, silent
from microtome.storage import replace_file

from ._exported_from import differences, read_record, write_record

__all__ = ["write_webdataset"]

_JOB = "shards.json"
_FORMAT = "microtome-webdataset"
_FIRST = "first_tile_sha256"
_WORDS = {
    "rows_sha256": "which tiles, or their order (rows=, --shuffle)",
    "places": "tiles at other places",
}


def write_webdataset(
    tiles: TileSource,
    out: str | os.PathLike[str],
    *,
    rows: ArrayLike | None = None,
    shard_size: int = 1024,
    batch_size: int = 32,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write tiles as shards for WebDataset.

    Sample number k is `<k>.npy`, its pixels as `tiles` gives them, and `<k>.json`: `source`,
    `region_spec` and all that is known of it, `tissue_id` and `tile_id` among it. Of a source of
    pairs the pixels are `<k>.0.npy` and `<k>.1.npy`. A shard appears whole or not at all. A job that
    was stopped goes on where it was: shards that are there are not written again.

    Parameters
    ----------
    tiles
        Tiles that can be read by number: a dataset of a cohort, or `CellCrops`.
    out
        Directory of the shards, ``shard-000000.tar`` and so on, and of ``shards.json``, which says
        what they are of.
    rows
        Which tiles, in the order in which they are to be, (n,): those of a split, or as a sampler
        draws them. All by default.
    shard_size
        Tiles of a shard; the last may have fewer.
    batch_size
        Tiles that are read at once.
    overwrite
        Whether shards of another job, other tiles or images say, are removed and written anew; those
        of this job stay.
    executor
        Where shards are written: any `concurrent.futures.Executor`; by default here, one after the
        other.
    progress
        Called with the shards done and to do.

    Returns
    -------
    The paths of the shards, in order.

    Raises
    ------
    InvalidInputError
        If there is no tile, or a size is not positive.
    OutOfRangeError
        If a row is none of the tiles.
    ExistsError
        If `out` holds shards of another job, and `overwrite` is false, or shards of which nothing
        says what they are.
    FormatError
        If what `out` says of its shards is damaged.
    StorageError
        If the disk refuses.

    Examples
    --------
    ::

        write_webdataset(dataset, "shards", rows=np.flatnonzero(split == "train"))
        # elsewhere, with webdataset installed
        wds.WebDataset("shards/shard-{000000..000041}.tar", shardshuffle=False).decode()
    """
    chosen = _checked(len(tiles), rows, shard_size, batch_size)
    folder = Path(out)
    count = -(-len(chosen) // shard_size)
    paths = [folder / f"shard-{number:06d}.tar" for number in range(count)]
    _begin(folder, _job(tiles, chosen, shard_size), overwrite=overwrite)
    missing = [number for number, path in enumerate(paths) if not path.is_file()]
    tasks = [
        _Shard(
            tiles,
            chosen[number * shard_size : (number + 1) * shard_size],
            number * shard_size,
            paths[number],
            batch_size,
        )
        for number in missing
    ]
    done = count - len(missing)
    progress("write", done, count)
    for _ in run_each(_write, tasks, executor):
        done += 1
        progress("write", done, count)
    return paths


@dataclass(frozen=True, slots=True)
class _Shard:
    """What one shard is made of."""

    tiles: TileSource
    rows: NDArray[np.int64]
    first: int
    """Number of its first sample."""
    path: Path
    batch_size: int


def _write(shard: _Shard) -> None:
    with replace_file(shard.path) as temporary, tarfile.open(temporary, "w") as archive:
        for start in range(0, len(shard.rows), shard.batch_size):
            batch = shard.tiles.read_batch(shard.rows[start : start + shard.batch_size])
            for at, sample in enumerate(_samples(batch)):
                key = f"{shard.first + start + at:09d}"
                for ending, content in sample.items():
                    _add(archive, f"{key}.{ending}", content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    # Neither time nor user: the same tiles are the same bytes.
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _samples(batch: Any) -> Iterable[dict[str, bytes]]:
    """Return the files of every sample of a batch by what their names end in."""
    # An `ImageRegionData` is a tuple, too, but none of regions.
    regions: tuple[Any, ...] = (batch,) if hasattr(batch, "region_spec") else tuple(batch)
    pixels = [np.asarray(region.data) for region in regions]
    first = regions[0]
    for at, facts in enumerate(cast("Sequence[Mapping[str, Any]]", first.additional_metadata)):
        files = {
            "npy" if len(pixels) == 1 else f"{number}.npy": _npy(data[at])
            for number, data in enumerate(pixels)
        }
        spec = {key: values[at] for key, values in first.region_spec.items()}
        told = {"source": first.source[at], "region_spec": spec, **facts}
        yield files | {"json": json.dumps(told, default=_plain).encode()}


def _npy(pixels: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """Return what JSON has instead of a value that it has not."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    if isinstance(value, Iterable):
        return list(cast("Iterable[Any]", value))
    msg = f"what is known of a tile must be texts, numbers or lists of them, got {value!r}"
    raise InvalidInputError(msg)


def _checked(
    length: int, rows: ArrayLike | None, shard_size: int, batch_size: int
) -> NDArray[np.int64]:
    chosen = np.arange(length) if rows is None else np.asarray(rows)
    if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
        msg = f"rows are (n,) numbers of tiles, at least one, got {chosen.shape} {chosen.dtype}"
        raise InvalidInputError(msg)
    if shard_size < 1 or batch_size < 1:
        msg = f"shard_size and batch_size must be at least 1, got {shard_size} and {batch_size}"
        raise InvalidInputError(msg)
    wrong = chosen[(chosen < 0) | (chosen >= length)]
    if wrong.size:
        msg = f"row {wrong[0]} of {length} tiles"
        raise OutOfRangeError(msg)
    return chosen.astype(np.int64)


def _job(tiles: TileSource, rows: NDArray[np.int64], shard_size: int) -> dict[str, Any]:
    """Return what the shards are of: other tiles, another order or size are another job."""
    (first,) = _samples(tiles.read_batch(rows[:1]))
    # Those of a cohort say of which images they are; of others, the first tile is looked at.
    made_of = getattr(tiles, "made_of", None)
    return {
        "format": _FORMAT,
        "tiles": len(rows),
        "shard_size": shard_size,
        "rows_sha256": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
        _FIRST: hashlib.sha256(b"".join(first.values())).hexdigest(),
        "made_of": cast("dict[str, str]", made_of()) if callable(made_of) else {},
    }


def _begin(folder: Path, job: Mapping[str, Any], *, overwrite: bool) -> None:
    place = folder / _JOB
    shards = sorted(folder.glob("shard-*.tar"))
    there = read_record(place)
    if there is None and shards:
        msg = f"{folder} holds {shards[0].name} and nothing that says what it is of; choose another place"
        raise ExistsError(msg)
    if there == job:
        return
    if there is not None:
        if not overwrite:
            msg = (
                f"{folder} holds shards of another job, which differs in: {_told(there, job)}; write "
                "them anew with --overwrite (overwrite=True), or choose another place"
            )
            raise ExistsError(msg)
        # What is stale goes first: a job that is stopped leaves nothing that passes as new.
        for path in shards:
            path.unlink()
    write_record(place, job)


def _told(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in what two jobs differ; that the first tile does only where nothing else says why."""
    then, new = (
        {name: value for name, value in each.items() if name != _FIRST} for each in (before, now)
    )
    return differences(then, new, _WORDS) or "the pixels of the first tile, or what is known of it"
