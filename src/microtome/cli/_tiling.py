"""The verb that chooses tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ._console import progress, say
from ._options import Flag, ResolutionOption, TileSize, Tissues
from ._workers import DaskOption, WorkersOption, executor_of

__all__ = ["tile"]


def tile(
    cohort: Path,
    *,
    size: TileSize = 224,
    method: Literal["cover", "grid", "strips", "fewest", "cells"] = "cover",
    strategy: str | None = None,
    stride: int | None = None,
    tolerance: float | None = None,
    coverage_goal: float = 1.0,
    min_gain_ratio: float = 0.05,
    align: Literal["chunks"] | None = None,
    edge: Literal["overhang", "move", "drop"] = "overhang",
    annotations: Path | None = None,
    classes: str | None = None,
    annotation_mpp: float | None = None,
    tissue: Tissues = None,
    resolution: ResolutionOption = None,
    overwrite: Annotated[bool, Flag] = False,
    workers: WorkersOption = 1,
    dask: DaskOption = None,
) -> None:
    """Choose tiles on the tissue masks and write their table.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    size
        Side of a tile in pixels of the cohort's resolution.
    method
        cover: greedy cover of the mask. grid: a fixed grid. strips: few tiles in strips. fewest:
        the fewest tiles. cells: one on each cell of the table of cells.
    strategy
        Name of the tiling; default for the cover, else the method.
    stride
        Pixels between candidates: half the tile for the cover, the tile for the grid, a 28th of it
        for strips, about a 14th for the fewest, a 28th on small masks, by default.
    tolerance
        Largest share of a tile that may be background: 0.85 by default; tiles on cells are then
        all kept.
    coverage_goal
        Share of the tissue to cover.
    min_gain_ratio
        Stop when the best tile adds less than this share of its area.
    align
        chunks: tiles begin where a chunk of the image does, or lie inside one.
    edge
        Of tiles on cells that would hang over the edge: overhang, move them inside, or drop them.
    annotations
        Only inside these areas: a GeoJSON file of one tissue, or a directory with a file for each,
        called as the tissue.
    classes
        Only areas of these classes, separated by commas: Tumor,Stroma.
    annotation_mpp
        Micrometres of one unit of the areas' coordinates; by default they are pixels of the
        finest level of the tissue's source, as QuPath has them.
    tissue
        Only this tissue; may be given several times.
    resolution
        Which resolution, where the cohort has several.
    overwrite
        Replace a table that was made with other settings.
    workers
        Processes on this machine that share the tissues; 1 does them here, one after the other.
    dask
        Address of a dask scheduler whose workers share the tissues, for example tcp://host:8786.
    """
    from microtome.cohort import tile as do

    with executor_of(workers, dask) as executor, progress() as show:
        table = do(
            cohort,
            tile_size=size,
            method=method,
            strategy=strategy,
            stride=stride,
            tolerance=tolerance,
            coverage_goal=coverage_goal,
            min_gain_ratio=min_gain_ratio,
            align=align,
            edge=edge,
            annotations=annotations,
            classes=None if classes is None else [name.strip() for name in classes.split(",")],
            annotation_mpp=annotation_mpp,
            tissues=tissue,
            resolution=resolution,
            overwrite=overwrite,
            executor=executor,
            progress=show,
        )
    for tissue_id in table.tissue_ids:
        say(f"{tissue_id}: {table.positions(tissue_id).size} tiles of {size} px")
