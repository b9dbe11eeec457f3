"""The verb that brings tiles of other programs into a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ._console import say
from ._options import Flag, OneTissue, ResolutionOption

__all__ = ["add_tiles"]


def add_tiles(
    path: Path,
    source: Path,
    *,
    tissue_id: Annotated[str, OneTissue],
    strategy: str | None = None,
    modality: str | None = None,
    resolution: ResolutionOption = None,
    source_mpp: float | None = None,
    kind: Literal["tile", "annotation", "detection", "cell"] = "tile",
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Add tiles that QuPath, TRIDENT or CLAM has of a slide, as a tiling of its own.

    Parameters
    ----------
    path
        Directory of the cohort.
    source
        GeoJSON with tiles of QuPath, or HDF5 with coordinates of TRIDENT or CLAM, in pixels of the
        slide that the tissue was made from.
    tissue_id
        Which tissue.
    strategy
        Name of the tiling; qupath, trident or clam by default.
    modality
        As which the slide was imaged; by default the tissue's first, H&E before IHC before multiplex.
    resolution
        Whose pixels the tiles shall count, where the cohort has several.
    source_mpp
        Micrometres per pixel of the slide; by default as the cohort knows it.
    kind
        Which objects of QuPath are the tiles: annotation for rectangles that were drawn.
    overwrite
        Replace tiles that the tissue has in the tiling.
    """
    from microtome.interop import add_tiles as do

    table = do(
        path,
        source,
        tissue_id=tissue_id,
        strategy=strategy,
        modality=modality,
        resolution=resolution,
        source_mpp=source_mpp,
        kind=kind,
        overwrite=overwrite,
    )
    height, width = table.tile_size
    count = table.positions(tissue_id).size
    say(f"{tissue_id}: {count} tiles of {height} x {width} px, tiling {table.strategy}")
