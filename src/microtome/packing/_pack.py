"""`pack`: the same cohort, the same pixels, in chunks that fit its tiles."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.cohort import (
    CohortLayout,
    Modality,
    PackedFrom,
    open_tiles,
    packing_inputs,
    parse_modality,
    size_name,
    write_file_list,
)
from microtome.coordinates import Resolution
from microtome.errors import ExistsError, InvalidInputError, NotFoundError, StorageError
from microtome.jobs import run_each
from microtome.progress import Progress, silent
from microtome.storage import FILE_LIST, Codec, locked, storage_errors
from microtome.tiling import TileTable

from ._image import PackedImage, Task, rewritten

__all__ = ["PackOrder", "pack"]

_log = logging.getLogger(__name__)
# Of any number of things that changed, these are told of.
_NAMED = 5
_DIGITS = 16


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
    order: PackOrder | Callable[[int], PackOrder] | None = None,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> list[PackedImage]:
    """Rewrite a cohort into the layout from which the tiles of a table are read fastest.

    The packed cohort is an ordinary one: the same tables, masks, statistics and tiles, and images of
    the same pixels on the same grid, without coarser levels. All channels of a place lie in one
    chunk. Where the tiles lie on a grid of their own size a chunk is a tile; else it has 64 pixels.
    What is not rewritten is copied. `out` appears when everything is in it. Where it is already, of
    the same cohort as it is now and with the same settings, there is nothing to do.

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
        file is read from its beginning to its end. In any other order they can be read as well. Or
        what makes an order of the number of tiles, where that is not known before. None leaves the table as it is, and chunks where they are in the image.
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
        If there is something else at `out`, or a cohort that was packed with other settings or of
        which something has changed since; the message says what.
    BusyError
        If another process packs to `out`.
    NotFoundError
        If there is no image to rewrite.
    InvalidInputError
        If there is no such modality, resolution or tiling, an image has more axes than channels, y
        and x, or the order is no permutation of the table's rows.
    """
    layout, target = CohortLayout.open(cohort), Path(out)
    if target.resolve().is_relative_to(layout.root.resolve()):
        msg = f"{target} lies inside the cohort {layout.root} itself; give a place beside it"
        raise InvalidInputError(msg)
    there, made = _found(target)
    where = layout.resolution(resolution)
    tiles = open_tiles(layout, where, tile_strategy, tile_size)
    ordered = order(len(tiles)) if callable(order) else order
    rows = None if ordered is None else _permutation(ordered, tiles)
    chosen = [parse_modality(m) for m in modalities] if modalities is not None else None
    kinds = chosen if chosen is not None else layout.modalities()
    tasks = list(_tasks(layout, _hidden(target), kinds, where, tiles, only_tiles, codec, rows))
    if not tasks:
        msg = f"{layout.root} has no images of {', '.join(map(str, kinds))} at {where} with tiles"
        raise NotFoundError(msg)
    settings = {
        "tile_size": list(tiles.tile_size),
        "tile_strategy": tile_strategy,
        "modalities": sorted(kind.name for kind in kinds),
        "resolution": where.directory,
        "only_tiles": only_tiles,
        "codec": codec,
        "order": None if rows is None else _told(rows),
    }
    # Before anything is copied: what changes meanwhile is told as changed.
    names = [task.source.relative_to(layout.root).as_posix() for task in tasks]
    images, files = packing_inputs(layout.root, names)
    origin = str(layout.root.resolve())
    if there is not None:
        _verify_same(there, settings, target, there.changed_since(images, files))
        _log.info("%s is there already", target)
        return made
    with _begun(target) as begun:
        sources = {task.source for task in tasks}

        def others(directory: str, names: list[str]) -> list[str]:
            return [name for name in names if Path(directory) / name in sources]

        _copy_files(layout.root, begun, others)
        if rows is not None:
            table = layout.tile_coordinates(where, tile_strategy, size_name(tile_size))
            _reorder(tiles, rows, begun / table.relative_to(layout.root))
        done: list[PackedImage] = []
        for found in run_each(rewritten, tasks, executor):
            done.append(found)
            progress("pack", len(done), len(tasks))
        PackedFrom(origin, settings, images, files, [asdict(each) for each in done]).write(begun)
        if (begun / FILE_LIST).exists():
            write_file_list(begun)  # the copied one is of the files of the other
        begun.rename(target)
    return done


def _found(target: Path) -> tuple[PackedFrom | None, list[PackedImage]]:
    """Return what the cohort that was packed to a place says of itself; nothing where none is.

    Raises
    ------
    ExistsError
        If there is something that does not say it.
    """
    if not target.exists():
        return None, []
    found = PackedFrom.read(target)
    with contextlib.suppress(TypeError, KeyError):  # of a note that somebody has edited
        if found is not None:
            kept: list[dict[str, Any]] = [
                {**each, "chunk": tuple(each["chunk"])} for each in found.made
            ]
            return found, [PackedImage(**each) for each in kept]
    msg = f"{target} exists, and does not say what it was packed from; give another place for the packed cohort, or remove it"
    raise ExistsError(msg)


def _verify_same(
    there: PackedFrom, settings: Mapping[str, Any], target: Path, changed: Sequence[str]
) -> None:
    """Refuse a packed cohort of other settings, or of what has changed since.

    Raises
    ------
    ExistsError
        If it is one; it says in what they differ.
    """
    advice = "give another place for the packed cohort, or remove it"
    other = [
        f"{name}: {there.settings.get(name)!r} then, {value!r} now"
        for name, value in settings.items()
        if there.settings.get(name) != value
    ]
    if other:
        msg = f"{target} exists already and was packed with other settings ({'; '.join(other)}); {advice}"
        raise ExistsError(msg)
    if changed:
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        msg = (
            f"{target} exists already and was packed from {there.origin} as it was then: now "
            f"{', '.join(changed[:_NAMED])}{more}; {advice}"
        )
        raise ExistsError(msg)


def _told(rows: NDArray[np.int64]) -> str:
    """Return what tells an order of tiles from any other."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<i8").data).hexdigest()[:_DIGITS]


def _hidden(target: Path) -> Path:
    """Return where a cohort is packed until it is whole: beside its place, to take it in one step."""
    return target.parent / f".{target.name}.packing"


@contextlib.contextmanager
def _begun(target: Path) -> Generator[Path]:
    """Give a directory to pack into, and remove it, and whatever a run that died left in it."""
    begun = _hidden(target)
    lock = begun.with_name(f"{begun.name}.lock")
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
) -> Iterator[Task]:
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
            yield Task(
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
