"""What was counted of every tissue, kept beside the tables so that `stats` reads none twice."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.cohort._images import is_there, served_from
from microtome.cohort._partial import sweep_all
from microtome.errors import NotFoundError
from microtome.standardize import QuantileSketch, ValueCounts
from microtome.storage import locked, replace_file

from ._inside import TissuePixels

__all__ = ["CountedTissue", "count_tissue", "forget_others", "is_counted"]

_log = logging.getLogger(__name__)

_KEY = b"microtome"
_VERSION = 1
# Hidden: not a method of standardization.
_FOLDER = ".counted"


@dataclass(frozen=True, slots=True, eq=False)
class CountedTissue:
    """The pixels of a tissue inside its mask, counted."""

    sketch: QuantileSketch
    """Channels of the panel."""
    digest: str
    """Of what was counted: the same for the same pixels, wherever they lie."""

    @property
    def pixels(self) -> int:
        """Number of pixels inside the mask."""
        return int(self.sketch.count.max())


def count_tissue(source: TissuePixels) -> CountedTissue:
    """Count the pixels of a tissue, unless that was done and neither image nor mask changed.

    Raises
    ------
    NotFoundError
        If the tissue has no mask.
    FormatError
        If pixels are NaN, or a mask does not fit its image.
    """
    path = _file(source)
    identity = _identity(source)
    found = _load(path, source, identity)
    if found is None:
        sketch: QuantileSketch | None = None
        places = source.places()
        for block in source.blocks():
            if sketch is None:
                sketch = QuantileSketch(block.pixels.dtype, len(source.channels))
            sketch.update(
                block.pixels,
                channels=places[block.planes],
                mask=block.inside,
                runs=block.runs,
                where=source.where,
            )
        if sketch is None:
            sketch = QuantileSketch(source.dtype(), len(source.channels))
        found = CountedTissue(sketch, _save(path, source, sketch, identity))
    return found


def is_counted(source: TissuePixels) -> bool:
    """Whether a tissue was counted, and its files are still those that were."""
    try:
        metadata = pq.read_schema(_file(source)).metadata or {}
        noted = json.loads(metadata.get(_KEY, b"{}")).get("identity")
    except (pa.ArrowException, OSError, ValueError, AttributeError):
        return False
    return noted == _identity(source)


def forget_others(sources: list[TissuePixels]) -> None:
    """Remove what was counted of tissues that are in the cohort no more, and what killed writers left."""
    if not sources:
        return
    kept = {_file(source).name for source in sources}
    folder = _file(sources[0]).parent
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.suffix == ".parquet" and entry.name not in kept:
            entry.unlink(missing_ok=True)
    with _writing(sources[0]):
        sweep_all(folder)


def _writing(source: TissuePixels) -> AbstractContextManager[None]:
    """Hold the cohort, as each does who writes what was counted: what lies half-written then is dead."""
    layout = source.layout
    return locked(layout.lock, what=f"the cohort {layout.root}")


def _file(source: TissuePixels) -> Path:
    folder = source.layout.standardization(source.modality, source.resolution) / _FOLDER
    return folder / f"{source.tissue_id}.parquet"


def _identity(source: TissuePixels) -> dict[str, Any]:
    """What tells whether an image or a mask is another than the one that was counted.

    Names, sizes and times of files, and the metadata: to hash the pixels would be to read them.
    """
    layout, resolution, tissue_id = source.layout, source.resolution, source.tissue_id
    served = served_from(layout, source.modality, resolution, tissue_id)
    if served is None:
        msg = f"{layout.image(source.modality, resolution, tissue_id)} is missing"
        raise NotFoundError(msg)
    masks = [
        path
        for each in sorted({resolution, *layout.resolutions()}, key=str)
        if is_there(path := layout.tissue_mask(each, tissue_id))
    ]
    return {
        "version": _VERSION,
        "image": [served.directory, _stamp(layout.image(source.modality, served, tissue_id))],
        "masks": [[path.parents[1].name, _stamp(path)] for path in masks],
        "measured": list(source.measured),
    }


def _stamp(path: Path) -> str:
    digest = hashlib.sha256()
    place = os.fspath(path.parent)
    files = [path.name] if path.is_file() else _files_below(place, path.name)
    # As their parts are sorted, which is how it was always done.
    for name in sorted(files, key=lambda each: each.replace(os.sep, "\0")):
        file = os.path.join(place, name)  # noqa: PTH118 - a Path for each costs more than the rest
        status = os.stat(file)  # noqa: PTH116 - as above
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        if name.endswith((f"{os.sep}zarr.json", f"{os.sep}.zarray", f"{os.sep}.zattrs")):
            digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _files_below(place: str, folder: str) -> list[str]:
    found: list[str] = []
    waiting = [folder]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(place, below)) as entries:  # noqa: PTH118 - as above
            for entry in entries:
                name = f"{below}{os.sep}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                elif entry.is_file():
                    found.append(name)
    return found


def _save(
    path: Path, source: TissuePixels, sketch: QuantileSketch, identity: dict[str, Any]
) -> str:
    """Keep what was counted, and return its digest."""
    places = source.places()
    known = sketch.counts
    counted = [known[place] for place in places]
    rows = [each.bins.size for each in counted]
    columns = {
        "channel": np.repeat(np.arange(len(places), dtype=np.int16), rows),
        "bin": _chained([each.bins for each in counted], np.uint32),
        "count": _chained([each.counts for each in counted], np.int64),
    }
    if not sketch.exact:
        columns["place"] = _chained([each.places for each in counted], np.int64)
    digest = hashlib.sha256(json.dumps([str(sketch.dtype), identity["measured"]]).encode())
    for column in columns.values():
        digest.update(column.tobytes())
    found = digest.hexdigest()
    note = {"identity": identity, "dtype": str(sketch.dtype), "digest": found}
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(note).encode()})
    with _writing(source), replace_file(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=False,
            column_encoding=dict.fromkeys(columns, "DELTA_BINARY_PACKED"),
            write_statistics=False,
        )
    return found


def _load(path: Path, source: TissuePixels, identity: dict[str, Any]) -> CountedTissue | None:
    """Return what was counted; None if that is missing, damaged or of something else."""
    try:
        with pq.ParquetFile(path) as file:
            note = json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"{}"))
            if note.get("identity") != identity:
                return None
            table = file.read()
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
        sketch = _sketch(columns, note["dtype"], source)
        return CountedTissue(sketch, note["digest"])
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
        _log.warning("%s is damaged and counted anew: %s", path, error)
        return None


def _sketch(columns: dict[str, NDArray[Any]], dtype: str, source: TissuePixels) -> QuantileSketch:
    places = source.places()
    ends = np.searchsorted(columns["channel"], np.arange(len(places) + 1))
    nothing = ValueCounts(np.zeros(0, np.uint32), np.zeros(0, np.int64))
    found = [nothing] * len(source.channels)
    for place, start, stop in zip(places, ends[:-1], ends[1:], strict=True):
        found[place] = ValueCounts(
            columns["bin"][start:stop],
            columns["count"][start:stop],
            columns["place"][start:stop] if "place" in columns else None,
        )
    return QuantileSketch.of_counts(dtype, found)


def _chained(parts: list[NDArray[Any] | None], dtype: Any) -> NDArray[Any]:
    there = [part.astype(dtype) for part in parts if part is not None]
    return np.concatenate([np.zeros(0, dtype), *there])
