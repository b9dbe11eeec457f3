"""`tile`: tissue masks become tables of tiles."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np

from microtome.cohort._images import tissues_with_images
from microtome.cohort._layout import CohortLayout, size_name
from microtome.cohort._made_of import Inputs
from microtome.cohort._modality import Modality
from microtome.cohort._partial import sweep
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError
from microtome.jobs import run_each
from microtome.progress import Progress, silent
from microtome.storage import locked
from microtome.tiling import (
    EdgePolicy,
    MaskTiling,
    TileStats,
    TileTable,
    get_cell_tiles,
    write_tile_stats,
)

from ._inputs import inputs_of, settings_of, still_to_do, verify_measured
from ._tilings import TilesBefore, TilesMade, open_tiles, tile_statistics
from ._tissue import (
    Annotations,
    CellTiling,
    Chosen,
    TissueTask,
    cells_of,
    choose_tiles,
    source_mpp,
)

__all__ = ["TilingMethod", "open_tiles", "tile", "tile_statistics"]

_log = logging.getLogger(__name__)

TilingMethod = Literal["cover", "grid", "strips", "fewest", "cells"]
"""`cover`: `best_mask_tiling_try_to_stop`, the seed's greedy cover. `grid`: `get_grid_tile`.
`strips`: `get_strip_tiles`. `fewest`: `get_fewest_tiles`, which needs the fewest tiles. `cells`:
`get_cell_tiles`, one on each cell."""

_STRATEGIES = {
    "cover": "default",
    "grid": "grid",
    "strips": "strips",
    "fewest": "fewest",
    "cells": "cells",
}

# What is of some methods only: its default, and which.
_OF_METHODS = {
    "edge": ("overhang", ("cells",)),
    "coverage_goal": (1.0, ("cover", "strips", "fewest")),
    "min_gain_ratio": (0.05, ("cover", "strips", "fewest")),
}


def tile(  # noqa: PLR0913 - the seed's parameters, and what restricts them
    cohort: str | os.PathLike[str],
    *,
    tile_size: int | tuple[int, int] = 224,
    method: TilingMethod = "cover",
    strategy: str | None = None,
    stride: int | tuple[int, int] | None = None,
    tolerance: float | None = None,
    coverage_goal: float = 1.0,
    min_gain_ratio: float = 0.05,
    align: Literal["chunks"] | None = None,
    edge: EdgePolicy = "overhang",
    annotations: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    annotation_mpp: float | None = None,
    tissues: Sequence[str] | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> TileTable:
    """Choose tiles on every tissue mask and write the table with its statistics.

    The table says of which image and mask the tiles of each tissue were made. `tile` again with the
    same settings makes those of tissues that have none yet, or whose image, mask, annotations or
    cells are others by now, and leaves the rest; where that is nothing, it changes nothing.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    tile_size
        Pixels of the cohort's resolution: one int for a square, or (height, width).
    method
        ``"cover"``, ``"grid"``, ``"strips"``, ``"fewest"`` or ``"cells"``.
    strategy
        Name of the directory; ``"default"`` for the cover, else the method.
    stride
        Pixels between candidates; half the tile for the cover, the tile for the grid, a 28th of
        the tile for strips, about a 14th for the fewest, a 28th on small masks. Not for cells.
    tolerance
        Largest share of a tile that may be background, in [0, 1). By default 0.85; tiles on cells
        are then all kept.
    coverage_goal, min_gain_ratio
        When the cover stops, see `best_mask_tiling_try_to_stop`; how much strips and the fewest
        cover, see `get_strip_tiles` and `get_fewest_tiles`. The defaults are those of the seed's
        script, not of its function.
    align
        ``"chunks"``: tiles begin where a chunk of the tissue's image does; those that are smaller
        than a chunk each lie inside one, with cover and grid. Few chunks are then decoded for a
        tile; the statistics count them either way. None for places that only the tissue decides.
    edge
        Of tiles on cells: what becomes of one that would hang over the edge, see `get_cell_tiles`.
    annotations
        Only tissue inside these areas counts, and only cells whose centre lies in one: a GeoJSON
        file of one tissue, or a directory with ``<tissue id>.geojson`` for each; see `read_areas`.
    classes
        Only areas of these classes; None for all. A tissue may lack some; one that has none of
        them has no tiles, which is told.
    annotation_mpp
        Micrometres of one unit of the areas' coordinates: 1 where they are micrometres. By default
        they are pixels of the finest level of the tissue's source, as QuPath has them.
    tissues
        Which tissues; None for all. What a table that is there says of others stays.
    resolution
        Which resolution; may be left out where the cohort has one.
    overwrite
        Replace a table that was made with other settings, or what it says of the tissues given.
    executor
        Where the tissues are tiled: any `concurrent.futures` executor, such as that of
        `microtome.jobs.process_pool`; by default here, one after the other. The table is the same.
    progress
        Called with the tissues done and to do.

    Returns
    -------
    The table, tissue after tissue.

    Raises
    ------
    ExistsError
        If the table is there, with other settings or by a microtome that did not note them, and
        `overwrite` is false.
    NotFoundError
        If a tissue has no mask, or no annotations or cells where they are asked for.
    FormatError
        If annotations are no valid polygons, a mask has another shape than its image, or cells were
        measured in a cell mask that has been replaced since.
    UnknownNameError
        If no tissue has an area of one of the classes.
    InvalidInputError
        If a parameter is outside its range or says nothing to the method, or annotations reach
        out of the image.
    """
    layout = CohortLayout.open(cohort)
    target = layout.resolution(resolution)
    size = tile_size if isinstance(tile_size, tuple) else (tile_size, tile_size)
    _verify_meant(
        method, align, edge=edge, coverage_goal=coverage_goal, min_gain_ratio=min_gain_ratio
    )
    name = _STRATEGIES[method] if strategy is None else strategy
    text = size_name(size)
    path = layout.tile_coordinates(target, name, text)
    chosen = tissues_with_images(layout, target, tissues=tissues)
    tiling: MaskTiling | CellTiling
    if method == "cells":
        tiling = _cell_tiling(size, edge, tolerance, stride=stride, align=align)
    else:
        step = (stride, stride) if isinstance(stride, int) else stride
        share = 0.85 if tolerance is None else tolerance
        tiling = MaskTiling(method, size, step, share, coverage_goal, min_gain_ratio)
    areas = _annotations(layout, chosen, annotations, classes, annotation_mpp)
    cells = cells_of(layout, list(chosen)) if method == "cells" else {}
    now = inputs_of(layout, target, chosen, areas, cells if method == "cells" else None)
    settings = settings_of(tiling, align=align, areas=areas, mpp=annotation_mpp)
    inputs = {tissue_id: {**each, "settings": settings} for tissue_id, each in now.items()}
    todo = set(chosen)
    if path.exists() and not overwrite:
        before = TilesBefore.read(layout, target, name, size)
        todo = still_to_do(before.tissues, before.inputs, inputs, path)
        gone = tissues is None and not before.tissues <= chosen.keys()
        if not todo and not gone:
            _log.info("%s is there already, made of the same with the same settings", path)
            return before.tiles
    if method == "cells":
        verify_measured(layout, todo)
    tasks = [
        TissueTask(
            layout,
            target,
            tissue_id,
            modalities[0],
            tiling,
            align is not None,
            areas,
            cells.get(tissue_id),
        )
        for tissue_id, modalities in chosen.items()
        if tissue_id in todo
    ]
    made, seen = _choose(tasks, name, target, inputs, executor, progress)
    if areas is not None and todo == set(chosen):
        areas.verify_seen(seen)
    if todo == set(chosen) and not any(map(len, made.tables)):
        _log.warning("no tissue has a tile: the tiling %s %s has none of them", name, text)
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        if path.exists() and (tissues is not None or todo != set(chosen)):
            # Only these were done: what the table says of others stays.
            before = TilesBefore.read(layout, target, name, size)
            made = before.updated(made, None if tissues is not None else list(chosen))
        table = made.table()
        told = layout.tile_stats(target, name, text)
        for each in (told, path):
            sweep(each)
        # The statistics first: a table that is there has them.
        write_tile_stats(told, made.stats)
        table.write(path)
    return table


def _verify_meant(method: TilingMethod, align: str | None, **given: object) -> None:
    """Refuse a method that is none, and what says nothing to it; what is so by default is not said."""
    if method not in _STRATEGIES:
        msg = f"method must be one of {', '.join(map(repr, _STRATEGIES))}, got {method!r}"
        raise InvalidInputError(msg)
    if align not in {None, "chunks"}:
        msg = f"align must be 'chunks' or None, got {align!r}"
        raise InvalidInputError(msg)
    for name, value in given.items():
        default, methods = _OF_METHODS[name]
        if value != default and method not in methods:
            msg = f"{name}={value!r} says nothing to the method {method!r}; it is of {', '.join(map(repr, methods))}"
            raise InvalidInputError(msg)


def _choose(
    tasks: Sequence[TissueTask],
    strategy: str,
    resolution: Resolution,
    inputs: Mapping[str, Inputs],
    executor: Executor | None,
    progress: Progress,
) -> tuple[TilesMade, set[str]]:
    """Tile tissues; returns the tiles, and the classes of areas that were seen."""
    tables: list[TileTable] = []
    stats: dict[str, TileStats] = {}
    seen: set[str] = set()
    for done, (task, found) in enumerate(
        zip(tasks, run_each(choose_tiles, tasks, executor), strict=True), start=1
    ):
        stats[found.tissue_id] = found.stats
        seen |= found.classes
        tables.append(_table(found, strategy, resolution))
        if len(found.tiles) == 0:
            tiling = task.tiling
            _log.warning("%s", _no_tiles(found, tiling.tile_size, tiling.tolerance))
        progress("tile", done, len(tasks))
    return TilesMade(tables, stats, {t: inputs[t] for t in stats}), seen


def _annotations(
    layout: CohortLayout,
    chosen: dict[str, list[Modality]],
    path: str | os.PathLike[str] | None,
    classes: Sequence[str] | None,
    mpp: float | None,
) -> Annotations | None:
    if path is None:
        if classes is not None or mpp is not None:
            msg = "classes and annotation_mpp are of annotations, and none are given"
            raise InvalidInputError(msg)
        return None
    if mpp is not None and not (isinstance(mpp, Real) and np.isfinite(mpp) and mpp > 0):
        msg = f"annotation_mpp must be a number above 0, got {mpp!r}"
        raise InvalidInputError(msg)
    if isinstance(classes, str):
        msg = f"classes is a list of names, got the text {classes!r}; for one class [{classes!r}]"
        raise InvalidInputError(msg)
    only = None if classes is None else tuple(classes)
    found = Annotations(Path(path), only, 1.0 if mpp is None else mpp)
    found.verify(list(chosen))
    if mpp is not None:
        return found
    sizes = source_mpp(layout, {tissue_id: kinds[0] for tissue_id, kinds in chosen.items()})
    return replace(found, mpp=sizes)


def _cell_tiling(
    size: tuple[int, int],
    edge: EdgePolicy,
    tolerance: float | None,
    *,
    stride: object,
    align: object,
) -> CellTiling:
    if stride is not None or align is not None:
        msg = "tiles on cells lie where the cells do: method 'cells' takes no stride and no align"
        raise InvalidInputError(msg)
    # Checked here, before the first tissue is opened.
    get_cell_tiles(
        np.zeros((0, 2)),
        size,
        mpp=1.0,
        mask=np.zeros((1, 1), np.bool_),
        edge=edge,
        tolerance=tolerance,
    )
    return CellTiling(size, edge, tolerance)


def _table(found: Chosen, strategy: str, resolution: Resolution) -> TileTable:
    tiles = found.tiles
    columns: dict[str, Any] = {
        "tissue_id": found.tissue_id,
        "row": tiles.row,
        "col": tiles.col,
        "tissue_frac": tiles.tissue_frac,
        "gain": tiles.gain,
        "tissue_frac_inside": tiles.tissue_frac_inside,
    }
    if tiles.cell_id is not None:
        columns["cell_id"] = tiles.cell_id
    return TileTable.from_columns(
        columns, tile_size=tiles.tile_size, strategy=strategy, resolution=resolution.directory
    )


def _no_tiles(found: Chosen, size: tuple[int, int], tolerance: float | None) -> str:
    """Say why a tissue has no tiles; not an error, but nothing that anybody wants."""
    stats = found.stats
    height, width = stats["mask_height"], stats["mask_width"]
    told = f"{found.tissue_id}: no tile of {size[0]} x {size[1]} pixels"
    if stats["tiling_method"] == "cells" and not stats["candidate_count"]:
        return f"{told}: it has no cells"
    if not stats["total_valid_pixels"]:
        return f"{told}: its mask is empty, or no tissue of it lies inside the annotations"
    small = height < size[0] or width < size[1]
    why = f"its image has {height} x {width}; use smaller tiles" if small else "its tissue is thin"
    share = 1 - (0.85 if tolerance is None else tolerance)
    return f"{told} is tissue to more than {share:.0%}: {why}, or allow more background"
