"""`pack`: the same cohort, the same pixels, in chunks that fit its tiles."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.cohort import CohortLayout, Modality, open_tiles, parse_modality, size_name
from microtome.coordinates import Resolution
from microtome.errors import ExistsError, InvalidInputError, NotFoundError, StorageError
from microtome.image import Level, MultiscaleImage
from microtome.jobs import run_each
from microtome.progress import Progress, silent
from microtome.storage import Codec, Layout, locked, order_chunks, storage_errors
from microtome.tiling import TileTable

__all__ = ["PackOrder", "PackedImage", "pack"]

# Tiles at any place touch 1.6 times their 224 pixels in chunks of 64, and 2.5 times in those of 128.
_ANY_PLACE = 64
_SHARD_BYTES = 64 << 20
# Tiles in an order are read from all shards of all images in turn: of fewer files, then.
_ORDERED_SHARD_BYTES = 256 << 20
_NEVER = np.iinfo(np.int64).max


class PackOrder(Protocol):
    """An order of the rows of a table, such as `TileOrder`: a permutation of them."""

    @property
    def count(self) -> int:
        """How many positions it has."""
        ...

    @property
    def over(self) -> int:
        """How many rows it is of."""
        ...

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows that stand at positions ``start ... stop - 1``."""
        ...


@dataclass(frozen=True, slots=True)
class PackedImage:
    """What became of one image."""

    modality: str
    tissue_id: str
    chunk: tuple[int, ...]
    """Of the packed image."""
    bytes_before: int
    bytes_after: int
    """On disk; before, all levels of the image."""


@dataclass(frozen=True, slots=True)
class _Task:
    """One image to rewrite."""

    source: Path
    target: Path
    modality: str
    tissue_id: str
    rgb: bool
    tile_size: tuple[int, int]
    corners: NDArray[np.int64]
    only_tiles: bool
    codec: Codec
    visits: NDArray[np.int64] | None
    """When each tile is read, (tiles,); None for no order."""


def pack(  # noqa: PLR0913 - what to pack, how, and where the work is done
    cohort: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tile_size: int | tuple[int, int],
    tile_strategy: str = "default",
    modalities: Sequence[str | Modality] | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    only_tiles: bool = False,
    codec: Codec = "fast",
    order: PackOrder | None = None,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> list[PackedImage]:
    """Rewrite a cohort into the layout from which the tiles of a table are read fastest.

    The packed cohort is an ordinary one: the same tables, masks, statistics and tiles, and images of
    the same pixels on the same grid, without coarser levels. All channels of a place lie in one
    chunk. Where the tiles lie on a grid of their own size a chunk is a tile; else it has 64 pixels.
    What is not rewritten is copied. `out` appears when everything is in it.

    Parameters
    ----------
    cohort
        Directory of the cohort; it stays as it is.
    out
        Where the packed one goes.
    tile_size, tile_strategy
        The table of tiles.
    modalities
        Whose images are rewritten; None for all.
    resolution
        Which resolution; may be left out where the cohort has one.
    only_tiles
        Whether to leave out chunks that no tile shows: they read as 0. The images say so in their
        attributes (`packed`), and are then good for these tiles alone.
    codec
        Of the chunks, lossless: ``"fast"`` to read, ``"small"`` for a fifth less on disk.
    order
        In which the tiles will be read, for instance ``TileOrder(len(table), "random", seed, epoch)``:
        the packed table has its rows in this order, and the chunks lie in this order in their files.
        Loaded with ``order="sequential"`` the packed tiles are then this shuffled epoch, and every
        file is read from its beginning to its end. In any other order they can be read as well. None
        leaves the table as it is, and chunks where they are in the image.
    executor
        Where images are rewritten: any `concurrent.futures` executor; by default here.
    progress
        Called with the images done and to do.

    Returns
    -------
    What became of each image.

    Raises
    ------
    ExistsError
        If there is something at `out`.
    BusyError
        If another process packs to `out`.
    NotFoundError
        If there is no image to rewrite.
    InvalidInputError
        If there is no such modality, resolution or tiling, an image has more axes than channels, y
        and x, or the order is no permutation of the table's rows.
    """
    layout, target = CohortLayout.open(cohort), Path(out)
    if target.exists():
        msg = f"{target} exists; give another place for the packed cohort, or remove it"
        raise ExistsError(msg)
    if target.resolve().is_relative_to(layout.root.resolve()):
        msg = f"{target} lies inside the cohort {layout.root} itself; give a place beside it"
        raise InvalidInputError(msg)
    where = layout.resolution(resolution)
    tiles = open_tiles(layout, where, tile_strategy, tile_size)
    rows = None if order is None else _permutation(order, tiles)
    chosen = [parse_modality(m) for m in modalities] if modalities is not None else None
    kinds = chosen if chosen is not None else layout.modalities()
    with _begun(target) as begun:
        tasks = list(_tasks(layout, begun, kinds, where, tiles, only_tiles, codec, rows))
        if not tasks:
            msg = (
                f"{layout.root} has no images of {', '.join(map(str, kinds))} at {where} with tiles"
            )
            raise NotFoundError(msg)
        rewritten = {task.source for task in tasks}

        def others(directory: str, names: list[str]) -> list[str]:
            return [name for name in names if Path(directory) / name in rewritten]

        _copy_files(layout.root, begun, others)
        if rows is not None:
            table = layout.tile_coordinates(where, tile_strategy, size_name(tile_size))
            _reorder(tiles, rows, begun / table.relative_to(layout.root))
        done: list[PackedImage] = []
        for found in run_each(_rewritten, tasks, executor):
            done.append(found)
            progress("pack", len(done), len(tasks))
        begun.rename(target)
    return done


@contextlib.contextmanager
def _begun(target: Path) -> Generator[Path]:
    """Give a directory to pack into, and remove it, and whatever a run that died left in it.

    It lies beside the target, so that it can take its place in one step, hidden until then.
    """
    lock = target.parent / f".{target.name}.packing.lock"
    begun = lock.with_suffix("")
    with storage_errors(target), locked(lock, what=f"what is packed to {target}", timeout=0.0):
        # One at a time has the lock, and the dead have none: what is there is nobody's.
        shutil.rmtree(begun, ignore_errors=True)
        if target.exists():
            msg = f"{target} exists; another process packed to it meanwhile"
            raise ExistsError(msg)
        begun.mkdir()
        try:
            yield begun
        finally:
            shutil.rmtree(begun, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _copy_files(source: Path, target: Path, others: Callable[[str, list[str]], list[str]]) -> None:
    """Copy a directory but for some of what is in it.

    Raises
    ------
    OSError
        The first that there was: `copytree` goes on after it, and tells all of them as texts.
    """
    failed: list[OSError] = []

    def copy(one: str, other: str) -> str:
        try:
            return shutil.copy2(one, other)
        except OSError as error:
            failed.append(error)
            raise

    try:
        shutil.copytree(source, target, ignore=others, copy_function=copy, dirs_exist_ok=True)
    except shutil.Error as error:
        if failed:
            raise failed[0] from error
        msg = f"cannot copy {source} to {target}: {error}"
        raise StorageError(msg) from error


def _tasks(
    layout: CohortLayout,
    begun: Path,
    kinds: Sequence[Modality],
    where: Resolution,
    tiles: TileTable,
    only_tiles: bool,  # noqa: FBT001 - passed on
    codec: Codec,
    order: NDArray[np.int64] | None,
) -> Iterator[_Task]:
    position = None
    if order is not None:
        position = np.empty(len(order), np.int64)
        position[order] = np.arange(len(order))
    for kind in kinds:
        for tissue in tiles.tissue_ids:
            source = layout.image(kind, where, tissue)
            if not source.is_dir():
                continue
            places = tiles.positions(tissue)
            rows = tiles.rows(places)
            yield _Task(
                source,
                begun / source.relative_to(layout.root),
                kind.name,
                tissue,
                kind.kind == "brightfield",
                tiles.tile_size,
                np.stack([rows.row, rows.col], axis=1),
                only_tiles,
                codec,
                None if position is None else position[places],
            )


def _permutation(order: PackOrder, tiles: TileTable) -> NDArray[np.int64]:
    """Return the rows of a table in an order that has each of them once."""
    count = len(tiles)
    if order.over != count or order.count != count:
        msg = f"the order has {order.count} positions over {order.over} tiles, the table has {count} tiles"
        raise InvalidInputError(msg)
    rows = order.rows(0, count)
    if (np.bincount(rows, minlength=count) != 1).any():
        msg = "the order has some tiles twice and others not at all; pack one that has each once, as TileOrder does"
        raise InvalidInputError(msg)
    return rows


def _reorder(tiles: TileTable, rows: NDArray[np.int64], path: Path) -> None:
    """Write a table with its rows in an order."""
    table = tiles.table.take(pa.array(rows))
    TileTable(table, tiles.tile_size, tiles.strategy, tiles.resolution).write(path)
    # It is of the table as it was.
    path.with_suffix(".arrow").unlink(missing_ok=True)


def _rewritten(task: _Task) -> PackedImage:
    with MultiscaleImage.open(task.source) as image:
        level = image.level(0)
        if "".join(level.axes).lower() != "cyx":
            msg = f"{task.source} has the axes {level.axes}; images of channels, y and x are packed"
            raise InvalidInputError(msg)
        layout = _layout(task, level.shape, level.dtype.itemsize)
        wanted = _wanted(task, level.shape, layout.chunk)
        note = {"tile_size": list(task.tile_size), "only_tiles": task.only_tiles}
        with MultiscaleImage.create(
            task.target,
            type=level.dtype,
            level_shape=level.shape,
            channel_names=image.channel_names,
            mpp=image.mpp,
            rgb=task.rgb,
            layout=layout,
            # The same pixels: what was made of the one holds for the other.
            metadata={"packed": note, "microtome": {"packed_from": _ingested(image)}},
        ) as made:
            _copy(level, made.level(0), layout, wanted)
        if task.visits is not None:
            with MultiscaleImage.open(task.target) as packed:
                place = Path(packed.level_uri(0))
            order_chunks(place, _visits(task, level.shape, layout.chunk)[None])
    return PackedImage(
        task.modality, task.tissue_id, layout.chunk, _size(task.source), _size(task.target)
    )


def _ingested(image: MultiscaleImage) -> dict[str, Any]:
    """Return what an image was ingested from, whether or not it has been packed since."""
    ours = image.metadata.get("microtome", {})
    return ours.get("packed_from") or ours.get("ingest") or {}


def _layout(task: _Task, shape: Sequence[int], itemsize: int) -> Layout:
    """Return chunks that are tiles where those lie on a grid, in shards of at most 64 MiB."""
    on_grid = len(task.corners) and not (task.corners % np.asarray(task.tile_size)).any()
    height, width = task.tile_size if on_grid else (_ANY_PLACE, _ANY_PLACE)
    chunk = (shape[0], height, width)
    held = _SHARD_BYTES if task.visits is None else _ORDERED_SHARD_BYTES
    most = max(1, held // (int(np.prod(chunk)) * itemsize))
    # As square as the image is: few files, and each of them of one neighbourhood.
    rows, cols = -(-shape[1] // height), -(-shape[2] // width)
    wide = min(cols, max(1, int(most**0.5)))
    high = min(rows, max(1, most // wide))
    return Layout(chunk, (shape[0], height * high, width * wide), task.codec)


def _wanted(task: _Task, shape: Sequence[int], chunk: Sequence[int]) -> NDArray[np.bool_]:
    """Return which chunks are kept, (rows of chunks, columns of chunks)."""
    wanted = np.full(_grid(shape, chunk), not task.only_tiles)
    if task.only_tiles:
        for part in _parts(task, shape, chunk):
            wanted[part] = True
    return wanted


def _visits(task: _Task, shape: Sequence[int], chunk: Sequence[int]) -> NDArray[np.int64]:
    """Return when each chunk is read first, (rows of chunks, columns of chunks)."""
    found = np.full(_grid(shape, chunk), _NEVER)
    parts, when = _parts(task, shape, chunk), task.visits
    if when is not None:
        # The first to come has the last word.
        for number in np.argsort(when)[::-1].tolist():
            found[parts[number]] = when[number]
    return found


def _grid(shape: Sequence[int], chunk: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-size // part) for size, part in zip(shape[1:], chunk[1:], strict=True))


def _parts(task: _Task, shape: Sequence[int], chunk: Sequence[int]) -> list[tuple[slice, slice]]:
    """Return which chunks each tile shows."""
    low = np.maximum(task.corners, 0) // np.asarray(chunk[1:])
    high = np.minimum(task.corners + task.tile_size, np.asarray(shape[1:])) - 1
    high = high // np.asarray(chunk[1:])
    return [
        (slice(first[0], last[0] + 1), slice(first[1], last[1] + 1))
        for first, last in zip(low.tolist(), high.tolist(), strict=True)
    ]


def _copy(source: Level, target: Level, layout: Layout, wanted: NDArray[np.bool_]) -> None:
    """Copy pixels shard by shard: each is written once, and no more than one is in memory."""
    shard, chunk = layout.shard or layout.chunk, layout.chunk
    _, height, width = source.shape
    for row, col in product(range(0, height, shard[1]), range(0, width, shard[2])):
        rows, cols = slice(row, min(row + shard[1], height)), slice(col, min(col + shard[2], width))
        keep = wanted[
            row // chunk[1] : -(-rows.stop // chunk[1]), col // chunk[2] : -(-cols.stop // chunk[2])
        ]
        if not keep.any():
            continue
        pixels = np.array(source[:, rows, cols])
        if not keep.all():
            # A chunk of zeros is not stored at all.
            shown = keep.repeat(chunk[1], 0).repeat(chunk[2], 1)
            pixels[:, ~shown[: pixels.shape[1], : pixels.shape[2]]] = 0
        target[:, rows, cols] = pixels


def _size(path: Path) -> int:
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
