"""Files changed at random, thousands of times each: read in a process that is watched.

What is looked for: an error that is not ours, a process that dies or hangs, memory that grows with
what a file claims, and a pickle that is opened.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import multiprocessing
import os
import random
import resource
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from microtome.cohort import (
    CohortLayout,
    HEImagingDataset,
    MultiplexImagingDataset,
    ingest,
    mask,
    read_tissue_mask,
    read_tissues,
    stats,
    tile,
    validate,
)
from microtome.errors import MicrotomeError
from microtome.sources import open_image

from .microscopes import (
    CZI,
    MCD,
    SCN,
    TIFF,
    microscope_changed,
    read_microscope,
    write_microscope_files,
)

__all__ = ["TARGETS", "Mutated", "Target", "mutate_at_random", "write_cohort"]

_SIDE = 100
_TILE = 32
# A file of some kilobytes is read: this is far more than any such takes, and far less than a bomb.
_MOST_MEMORY = 512 << 20
_LONGEST = 30.0
_PICKLED = "pickle.find_class"


@dataclass(slots=True)
class Mutated:
    """What became of the mutations of one kind of file."""

    target: str
    mutations: int = 0
    refused: int = 0
    """With an error of ours; the others were read."""
    slowest: float = 0.0
    """Seconds."""
    grown: int = 0
    """Bytes of memory more than before the first."""
    ended: int = 0
    """How often the process ended, which a library in C may bring about."""
    broken: list[str] = field(default_factory=list)
    """What went wrong otherwise; empty is good."""


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of file.

    Parameters
    ----------
    name
        What the table calls it.
    path
        Where it is in the cohort.
    mutate
        Returns other bytes.
    read
        Does with the cohort what reads the file.
    """

    name: str
    path: str
    mutate: Callable[[random.Random, bytes], bytes]
    read: Callable[[Path], None]


def write_cohort(root: Path) -> None:
    """Write a small cohort with all kinds of files that are read, masks as archives of numpy."""
    rng = np.random.default_rng(0)
    for tissue in "ab":
        slide = rng.integers(236, 250, (3, _SIDE, _SIDE), dtype=np.uint8)
        colour = np.array([150, 60, 140])[:, None, None]
        slide[:, 20:80, 20:80] = colour + rng.integers(-40, 40, (3, 60, 60))
        counts = rng.integers(0, 900, (2, _SIDE, _SIDE), dtype=np.uint16)
        for kind, pixels, names in (("he", slide, None), ("codex", counts, ["A", "B"])):
            ingest(
                pixels,
                axes="cyx",
                mpp=1.0,
                channel_names=names,
                cohort=root,
                tissue_id=tissue,
                modality=kind,
            ).close()
    mask(root)
    tile(root, tile_size=_TILE)
    stats(root)
    labels = np.zeros((_SIDE, _SIDE), np.uint32)
    labels[30:60, 30:60] = np.arange(900).reshape(30, 30) // 100 + 1
    place = root / "segmentations" / "1_0mpp"
    np.savez(place / "tissue_masks" / "c.npz", mask=labels > 0)
    (place / "cell_masks" / "instances").mkdir(parents=True)
    np.savez_compressed(place / "cell_masks" / "instances" / "a.npz", mask=labels)
    write_microscope_files(root)


# -- what reads


def _read_image(root: Path) -> None:
    with open_image(root / "codex/1_0mpp/images/a.ome.zarr") as image:
        _ = image.mpp, image.channel_names, image.metadata, repr(image)
        for level in range(image.level_count):
            height, width = image.level_shape(level)[-2:]
            image.read(level, (0, min(height, 40)), (0, min(width, 40)))


def _read_tables(root: Path) -> None:
    read_tissues(CohortLayout.open(root))
    _read_tiles(root)


def _read_tiles(root: Path) -> None:
    dataset = HEImagingDataset("c", path=root, resolution=1.0, tile_size=_TILE)
    dataset.get_tile("a", 0)


def _read_statistics(root: Path) -> None:
    MultiplexImagingDataset(
        "c",
        path=root,
        modality="codex",
        resolution=1.0,
        tile_size=_TILE,
        standardization="quantile_clipping/uq_0.99_image",
    ).get_tile("a", 0)


def _validate(root: Path) -> None:
    validate(root)


def _read_mask(root: Path) -> None:
    layout = CohortLayout.open(root)
    read_tissue_mask(layout, layout.resolution(None), "c", (_SIDE, _SIDE))


def _read_cells(root: Path) -> None:
    dataset = HEImagingDataset("c", path=root, resolution=1.0, tile_size=_TILE)
    dataset.get_cell_instance_mask("a")


def _each(*reads: Callable[[Path], None]) -> Callable[[Path], None]:
    """Do one after the other, whichever are refused."""

    def read(root: Path) -> None:
        refused: MicrotomeError | None = None
        for each in reads:
            try:
                each(root)
            except MicrotomeError as error:
                refused = error
        if refused is not None:
            raise refused

    return read


# -- what changes


_NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
)
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 31, 1 << 40, 1 << 63, 1 << 200, 0.5, 1e308, float("nan"), float("inf"),
    "", "0", "../../../../etc", "/etc/passwd", "\x00", "é" * 300, "float64", "object", "|O", "r16",
    [], {}, [[]], [None], [0] * 5, [1 << 40] * 3, {"name": "blosc"}, {"name": "pickle"},
    {"name": "sharding_indexed", "configuration": {}}, {"a": {"a": {"a": []}}},
)  # fmt: skip


def _bytes_changed(rng: random.Random, data: bytes) -> bytes:
    """Change, cut out, repeat or cut off bytes, more often near the end, where tables of contents are."""
    found = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        reach = rng.choice([len(found), min(len(found), 400), min(len(found), 64)])
        at = len(found) - 1 - rng.randrange(max(reach, 1)) if rng.random() < 0.7 else 0
        at = max(0, at + (0 if at else rng.randrange(max(reach, 1))))
        how = rng.random()
        if how < 0.35:
            found[at : at + 1] = bytes([rng.randrange(256)])
        elif how < 0.55:
            found[at : at + 1] = bytes([found[at] ^ (1 << rng.randrange(8))]) if found else b""
        elif how < 0.75:
            size = rng.choice([2, 4, 8])
            number = rng.choice(_NUMBERS) % (1 << 8 * size)
            found[at : at + size] = number.to_bytes(size, rng.choice(["little", "big"]))
        elif how < 0.85:
            del found[at : at + rng.randrange(1, 40)]
        elif how < 0.95:
            found[at:at] = found[at : at + rng.randrange(1, 40)]
        else:
            del found[rng.randrange(len(found) + 1) :]
    return bytes(found)


def _json_changed(rng: random.Random, data: bytes) -> bytes:
    """Put something else in the place of parts of a document, or take them out."""
    if rng.random() < 0.3:
        return _bytes_changed(rng, data)
    try:
        document = json.loads(data)
    except ValueError:  # changed before
        return _bytes_changed(rng, data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        parent: Any = document
        while True:
            keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            if not keys:
                break
            key = rng.choice(keys)
            child = parent[key]
            if isinstance(child, dict | list) and child and rng.random() < 0.85:
                parent = child
                continue
            if rng.random() < 0.2:
                del parent[key]
            elif rng.random() < 0.1 and isinstance(parent, list):
                parent.insert(key, copy.deepcopy(child))
            else:
                parent[key] = copy.deepcopy(_other(rng, child))
            break
    if rng.random() < 0.01:
        return b"[" * 100_000
    return json.dumps(document).encode()


def _other(rng: random.Random, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or rng.random() < 0.5:
        return rng.choice(_VALUES)
    return rng.choice(
        [-value, value + 1, value - 1, value * 2, value * 1000, value / 3, str(value)]
    )


def _parquet_changed(rng: random.Random, data: bytes) -> bytes:
    """Change bytes, or write a whole table of other columns, types and values."""
    if rng.random() < 0.5:
        return _bytes_changed(rng, data)
    table = pq.read_table(io.BytesIO(data))
    for _ in range(rng.randrange(1, 3)):
        table = _table_changed(rng, table)
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _table_changed(rng: random.Random, table: pa.Table) -> pa.Table:  # noqa: PLR0911 - one for each change
    if not table.num_columns:
        return table
    at = rng.randrange(table.num_columns)
    name, column = table.column_names[at], table.column(at)
    count = len(column)
    columns: list[Callable[[], pa.Array]] = [
        lambda: pa.nulls(count),
        lambda: pa.nulls(count, column.type),
        lambda: pa.array([rng.choice([-1, 0, 1 << 40, -(1 << 63), (1 << 63) - 1])] * count, pa.int64()),
        lambda: pa.array([float(rng.choice(["nan", "inf", "-1", "1e300"]))] * count),
        lambda: pa.array([rng.choice(["", "a", "../../x", "\x00", "/etc/passwd"])] * count, pa.string()),
        lambda: pa.array([[1]] * count),
        lambda: pa.array([{"a": 1}] * count),
        lambda: pa.array([b"\xff"] * count),
        lambda: pa.array([None if rng.random() < 0.5 else v for v in column.to_pylist()], column.type),
        lambda: pa.array([f"{n}" for n in range(count)]).dictionary_encode(),
    ]  # fmt: skip
    how = rng.random()
    if how < 0.6:
        return table.set_column(at, name, rng.choice(columns)())
    if how < 0.7:
        return table.remove_column(at)
    if how < 0.75:
        return table.append_column(name, column)
    if how < 0.8:
        return table.rename_columns(
            [rng.choice(["", name + "x", name]) for name in table.column_names]
        )
    if how < 0.9:
        rows = [rng.randrange(count) for _ in range(rng.randrange(2 * count + 1))] if count else []
        return table.take(pa.array(rows, pa.int64()))
    noted = {
        key: _json_changed(rng, value) if value[:1] in b"{[" else _bytes_changed(rng, value)
        for key, value in (table.schema.metadata or {}).items()
    }
    return table.replace_schema_metadata(rng.choice([None, noted]))


def _archive_changed(rng: random.Random, data: bytes) -> bytes:
    """Change bytes of an archive, or of the array in it, in an archive that is whole."""
    if rng.random() < 0.4:
        return _bytes_changed(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        array = archive.read("mask.npy")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            rng.choice(["mask.npy"] * 20 + ["mask", "../mask.npy"]), _array_changed(rng, array)
        )
    return out.getvalue()


def _array_changed(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.3:
        return _bytes_changed(rng, data[:200]) + data[200:]
    if rng.random() < 0.1:
        made = io.BytesIO()
        np.save(made, np.array([[_Pickled(), 1]], object), allow_pickle=True)
        return made.getvalue()
    side = rng.choice([0, 1, _SIDE, 1 << 20, 1 << 31, 1 << 40, 1 << 62, -1])
    shape = rng.choice(
        [f"({side}, {side})", f"({side},)", "()", f"({_SIDE}, {_SIDE}, 1)", f"{side}", "'a'"]
    )
    kind = rng.choice(
        ["'|b1'", "'<u4'", "'<f8'", "'|O'", "'<U9'", "'|V8'", "[('a', '|O')]", "'<M8[s]'", "None"]
    )
    order = rng.choice(["False", "True", "2"])
    text = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text = text.ljust(118 - 10 - 1 + 10) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data[128:]


class _Pickled:
    """An object whose pickle names a function to call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getenv, ("HOME",)


_STATISTICS = "codex/1_0mpp/standardization/quantile_clipping/uq_0.99_image"
TARGETS = {
    target.name: target
    for target in (
        Target(
            "document of an image",
            "codex/1_0mpp/images/a.ome.zarr/zarr.json",
            _json_changed,
            _each(_read_image, _read_statistics),
        ),
        Target(
            "document of an array",
            "codex/1_0mpp/images/a.ome.zarr/0/zarr.json",
            _json_changed,
            _each(_read_image, _read_statistics),
        ),
        Target(
            "file of pixels",
            "codex/1_0mpp/images/a.ome.zarr/0/c/0/0/0",
            _bytes_changed,
            _each(_read_image, _read_statistics),
        ),
        Target("cohort.json", "cohort.json", _json_changed, _each(_read_tables, _validate)),
        Target(
            "table of tissues",
            "metadata/tissues.parquet",
            _parquet_changed,
            _each(_read_tables, _validate),
        ),
        Target(
            "table of tiles",
            f"tiling/1_0mpp/default/{_TILE}_tile_coordinates.parquet",
            _parquet_changed,
            _each(_read_tiles, _validate),
        ),
        Target(
            "table of statistics",
            f"{_STATISTICS}/image_level_upper_quantiles.parquet",
            _parquet_changed,
            _each(_read_statistics, _validate),
        ),
        Target(
            "table of channels",
            "codex/channels.parquet",
            _parquet_changed,
            _each(_read_statistics, _validate),
        ),
        Target(
            "archive of a tissue mask",
            "segmentations/1_0mpp/tissue_masks/c.npz",
            _archive_changed,
            _read_mask,
        ),
        Target(
            "archive of a cell mask",
            "segmentations/1_0mpp/cell_masks/instances/a.npz",
            _archive_changed,
            _read_cells,
        ),
        Target("MCD file", MCD, microscope_changed, lambda root: read_microscope(root / MCD)),
        Target("CZI file", CZI, microscope_changed, lambda root: read_microscope(root / CZI)),
        Target("TIFF file", TIFF, microscope_changed, lambda root: read_microscope(root / TIFF)),
        Target("SCN file", SCN, microscope_changed, lambda root: read_microscope(root / SCN)),
    )
}


# -- who watches


def mutate_at_random(cohort: Path, target: Target, mutations: int, seed: int) -> Mutated:
    """Read a cohort again and again, one of its files changed each time.

    Parameters
    ----------
    cohort
        Of `write_cohort`. The file is as it was when this returns.
    target
        Which file.
    mutations
        How many, each of the whole file.
    seed
        Of the changes: mutation n is the same whatever came before it.
    """
    found = Mutated(target.name)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.reliability.mutations"])
    path = cohort / target.path
    whole = path.read_bytes()
    try:
        while found.mutations < mutations:
            ours, theirs = context.Pipe()
            arguments = (target.name, cohort, whole, (found.mutations, mutations), seed, theirs)
            process = context.Process(target=_work, args=arguments)
            process.start()
            theirs.close()
            # What is whole is read first: it is no mutation that ends that.
            if not ours.poll(_LONGEST) or not ours.recv():
                msg = f"{target.name}: the cohort cannot be read with the file as it is"
                raise RuntimeError(msg)
            _watch(ours, found)
            # Where it ended before its time, the next one goes on behind what ended it.
            process.kill()
            process.join()
    finally:
        path.write_bytes(whole)
    return found


def _watch(pipe: Any, found: Mutated) -> None:
    """Take what a process tells until it ends, however it does."""
    while True:
        try:
            if not pipe.poll(_LONGEST):
                found.broken.append(f"mutation {found.mutations} hangs")
                found.mutations += 1
                return
            told = pipe.recv()
        except EOFError:
            found.ended += 1
            found.broken.append(f"mutation {found.mutations} ended the process")
            found.mutations += 1
            return
        if told is None:
            return
        number, seconds, refused, error, grown = told
        found.mutations = number + 1
        found.refused += refused
        found.slowest = max(found.slowest, seconds)
        found.grown = max(found.grown, grown)
        if error:
            found.broken.append(f"mutation {number}: {error}")


def _work(
    name: str, cohort: Path, whole: bytes, numbers: tuple[int, int], seed: int, pipe: Any
) -> None:
    target = TARGETS[name]
    path = cohort / target.path
    pickled: list[str] = []

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == _PICKLED and not _in_numba():
            pickled.append(".".join(map(str, arguments)))

    path.write_bytes(whole)
    try:
        target.read(cohort)
    except BaseException:
        pipe.send(False)
        raise
    pipe.send(True)
    sys.addaudithook(look)
    before = _peak()
    for number in range(*numbers):
        rng = random.Random(f"{seed} {name} {number}")  # noqa: S311 - changes, no secrets
        data = target.mutate(rng, whole)
        path.write_bytes(data)
        # Who remembers a file knows it by this, and two may come within one tick of the clock.
        os.utime(path, ns=(number, number + 1))
        pickled.clear()
        began = time.perf_counter()
        refused, error = _read(target, cohort)
        seconds = time.perf_counter() - began
        grown = _peak() - before
        if pickled:
            error = f"opens a pickle: {pickled}"
        elif grown > _MOST_MEMORY:
            error = f"takes {grown >> 20} MiB"
            before = _peak()
        pipe.send((number, seconds, refused, error, grown))
    pipe.send(None)


def _read(target: Target, cohort: Path) -> tuple[bool, str]:
    """Return whether it was refused, and an error that is not ours."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            target.read(cohort)
    except MicrotomeError as error:
        return True, "" if str(error) else f"{type(error).__name__} says nothing"
    except Exception as error:  # noqa: BLE001 - whichever there is
        at = traceback.extract_tb(error.__traceback__)
        ours = next((f for f in reversed(at) if "microtome" in f.filename), at[-1])
        place = f"{Path(ours.filename).name}:{ours.lineno}"
        return True, f"{type(error).__name__} at {place}: {str(error)[:200]}"
    return False, ""


def _in_numba() -> bool:
    """Whether it is numba that asks, which keeps what it compiled as pickles in a directory of its own."""
    return any(
        str(frame.f_globals.get("__name__")).startswith("numba.")
        for frame, _ in traceback.walk_stack(None)
    )


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
