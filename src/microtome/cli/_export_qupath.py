"""`microtome export`: tiles and outlines of cells as GeoJSON for QuPath."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ._console import progress, say_paths
from ._export_tiling import ALL_TILES, Tiling
from ._options import Flag, ResolutionOption, Tissues

__all__ = ["qupath_cells", "qupath_tiles"]


def qupath_tiles(
    cohort: Path,
    output: Path,
    *,
    classes: str | None = None,
    source_mpp: float | None = None,
    tiling: Tiling = ALL_TILES,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write the tiles of a cohort as GeoJSON for QuPath: a file a tissue, in pixels of its slide.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    output
        Directory of the files, TISSUE.geojson.
    classes
        Column of the tiles that holds their classes.
    source_mpp
        Micrometres per pixel of the slides; by default as the cohort knows it.
    tiling
        Which tiles.
    overwrite
        Replace files that are there.
    """
    from microtome.interop import export_qupath_tiles

    chosen = tiling.of(cohort)
    with progress() as show:
        written = export_qupath_tiles(
            chosen,
            output,
            classes=classes,
            source_mpp=source_mpp,
            overwrite=overwrite,
            progress=show,
        )
    say_paths(written)


def qupath_cells(
    cohort: Path,
    output: Path,
    *,
    kind: Literal["detection", "cell"] = "detection",
    classes: str | None = None,
    source_mpp: float | None = None,
    modality: str | None = None,
    resolution: ResolutionOption = None,
    tissue: Tissues = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write the outlines of the cells of a cohort as GeoJSON for QuPath: a file an image.

    Parameters
    ----------
    cohort
        Directory of the cohort, with cell masks.
    output
        Directory of the files, TISSUE.geojson; where tissues are imaged in several ways and
        --modality does not say as which, MODALITY/TISSUE.geojson of each.
    kind
        What QuPath takes them for; detections are what it shows fastest.
    classes
        Column of the table of cells that holds their classes.
    source_mpp
        Micrometres per pixel of the slides, of one modality; by default as the cohort knows it.
    modality
        As which the slide was imaged that the cells are drawn on; all by default.
    resolution
        Which resolution, where the cohort has several.
    tissue
        Only this tissue; may be given several times.
    overwrite
        Replace files that are there.
    """
    from microtome.interop import TissueImages, export_qupath_cells

    chosen = TissueImages.of_each_modality(
        cohort, modality=modality, resolution=resolution, tissues=tissue
    )
    with progress() as show:
        written = export_qupath_cells(
            chosen,
            output,
            kind=kind,
            classes=classes,
            source_mpp=source_mpp,
            overwrite=overwrite,
            progress=show,
        )
    say_paths(written)
