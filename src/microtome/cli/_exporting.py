"""The verb that writes what other programs read: images, and tiles and cells of a cohort."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from microtome.errors import InvalidInputError

from ._console import progress, say, say_paths
from ._options import Flag, ResolutionOption, Tissues, parse_mpp
from ._workers import DaskOption, WorkersOption, executor_of

if TYPE_CHECKING:
    from microtome.interop import CohortTiles

__all__ = ["export_app"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Which tiles of a cohort.

    Parameters
    ----------
    modality
        Which images; by default the one that all tissues with tiles have first, H&E before IHC
        before multiplex.
    size
        Side of the tiles in pixels; may be left out where only one tiling fits.
    strategy
        Name of the tiling; may be left out where only one fits.
    resolution
        Which resolution, where the cohort has several.
    tissue
        Only this tissue; may be given several times.
    split
        Only tissues of this split.
    """

    modality: str | None = None
    size: Annotated[int | None, Parameter(name=["--size", "--tile-size"])] = None
    strategy: str | None = None
    resolution: str | None = None
    tissue: Tissues = None
    split: str | None = None

    def of(self, cohort: Path) -> CohortTiles:
        """Open them."""
        from microtome.interop import CohortTiles

        return CohortTiles.open(
            cohort,
            modality=self.modality,
            tile_size=self.size,
            tile_strategy=self.strategy,
            resolution=self.resolution,
            tissues=self.tissue,
            split=self.split,
        )


_ALL = Tiling()


def ome_tiff(
    source: Path,
    output: Path,
    *,
    image: str | None = None,
    codec: Literal["deflate", "zstd", "lzw", "none"] = "deflate",
    mpp: str | None = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write an image as a pyramidal OME-TIFF, which QuPath and Bio-Formats read.

    Without the name of a format, `microtome export SOURCE OUTPUT` does this.

    Parameters
    ----------
    source
        An image in any format that can be read.
    output
        The file, .ome.tif or .ome.tiff.
    image
        Name of one of the images in a file, where it holds several.
    codec
        How its tiles are compressed.
    mpp
        Micrometres per pixel of an image that states none.
    overwrite
        Replace a file that is there.
    """
    from microtome.export import write_ome_tiff
    from microtome.sources import open_image

    with progress() as show:
        written = write_ome_tiff(
            open_image(source, mpp=parse_mpp(mpp), image=image),
            output,
            codec=codec,
            overwrite=overwrite,
            progress=show,
        )
    say(str(written))


def soma(source: Path, output: Path, *, image: str | None = None, mpp: str | None = None) -> None:
    """Write an image as a SOMA MultiscaleImage, which tiledbsoma reads.

    Parameters
    ----------
    source
        An image in any format that can be read.
    output
        Directory of the image; there must be none.
    image
        Name of one of the images in a file, where it holds several.
    mpp
        Micrometres per pixel of an image that states none.
    """
    from microtome.interop import to_soma
    from microtome.sources import open_image

    with progress() as show:
        written = to_soma(
            open_image(source, mpp=parse_mpp(mpp), image=image), output, progress=show
        )
    say(written)


def anndata(table: Path, output: Path, *, overwrite: Annotated[bool, Flag] = False) -> None:
    """Write vectors of tiles or cells as AnnData, which single-cell tools read.

    Parameters
    ----------
    table
        A table of embeddings that predict made, or of pooled labels.
    output
        The file, .h5ad, or a store, .zarr.
    overwrite
        Replace what is there.
    """
    from microtome.prediction import vectors_to_anndata

    vectors_to_anndata(table, output, overwrite=overwrite)
    say(str(output))


def qupath_tiles(
    cohort: Path,
    output: Path,
    *,
    classes: str | None = None,
    source_mpp: float | None = None,
    tiling: Tiling = _ALL,
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
    """Write the outlines of the cells of a cohort as GeoJSON for QuPath: a file a tissue.

    Parameters
    ----------
    cohort
        Directory of the cohort, with cell masks.
    output
        Directory of the files, TISSUE.geojson.
    kind
        What QuPath takes them for; detections are what it shows fastest.
    classes
        Column of the table of cells that holds their classes.
    source_mpp
        Micrometres per pixel of the slides; by default as the cohort knows it.
    modality
        As which the slide was imaged that the cells are drawn on; by default the one that all
        tissues have first, H&E before IHC before multiplex.
    resolution
        Which resolution, where the cohort has several.
    tissue
        Only this tissue; may be given several times.
    overwrite
        Replace files that are there.
    """
    from microtome.interop import TissueImages, export_qupath_cells

    chosen = TissueImages.of_cohort(
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


def trident(
    cohort: Path,
    output: Path,
    *,
    magnification: float,
    slides: Path | None = None,
    edge: Literal["overhang", "drop"] = "overhang",
    tiling: Tiling = _ALL,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write the tiles of a cohort as the coordinates from which TRIDENT extracts features.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    output
        Directory of TRIDENT's job; files go to patches/SLIDE_patches.h5.
    magnification
        Magnification of the slides' finest level, as TRIDENT takes it to be.
    slides
        Directory of the slides, where they are no longer where they were ingested from.
    edge
        Tiles that hang over the edge of their slide: overhang writes them, and what is outside is
        read as black; drop leaves them out.
    tiling
        Which tiles.
    overwrite
        Replace files that are there.
    """
    from microtome.interop import export_trident

    chosen = tiling.of(cohort)
    with progress() as show:
        written = export_trident(
            chosen,
            output,
            magnification=magnification,
            slides=slides,
            edge=edge,
            overwrite=overwrite,
            progress=show,
        )
    say_paths(written)


def clam(
    cohort: Path,
    output: Path,
    *,
    level: int = 0,
    slides: Path | None = None,
    edge: Literal["overhang", "drop"] = "overhang",
    tiling: Tiling = _ALL,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write the tiles of a cohort as the coordinates that CLAM reads patches by.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    output
        Directory of CLAM's job; files go to patches/SLIDE.h5.
    level
        Index of the level of the slides that patches are read from; tiles are rounded to its pixels.
    slides
        Directory of the slides, where they are no longer where they were ingested from.
    edge
        Tiles that hang over the edge of their slide: overhang writes them, and what is outside is
        read as black; drop leaves them out.
    tiling
        Which tiles.
    overwrite
        Replace files that are there.
    """
    from microtome.interop import export_clam

    chosen = tiling.of(cohort)
    with progress() as show:
        written = export_clam(
            chosen,
            output,
            level=level,
            slides=slides,
            edge=edge,
            overwrite=overwrite,
            progress=show,
        )
    say_paths(written)


def webdataset(
    cohort: Path,
    output: Path,
    *,
    shard_size: int = 1024,
    shuffle: int | None = None,
    channel: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    tiling: Tiling = _ALL,
    workers: WorkersOption = 1,
    dask: DaskOption = None,
) -> None:
    """Write the tiles of a cohort, with the stored pixels, as tar files for WebDataset.

    Run again after it was stopped, it goes on with the files that are missing.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    output
        Directory of the files, shard-000000.tar and so on.
    shard_size
        Tiles of a file.
    shuffle
        Seed of an order by chance; without it that of the table.
    channel
        Only these channels, by name, in this order: for tissues that measured different ones.
    tiling
        Which tiles.
    workers
        Processes on this machine that share the files; 1 writes them here, one after the other.
    dask
        Address of a dask scheduler whose workers share the files, for example tcp://host:8786.
    """
    import numpy as np

    from microtome.interop import write_webdataset

    chosen = tiling.of(cohort)
    if shuffle is not None and shuffle < 0:
        msg = f"--shuffle is a seed, not negative, got {shuffle}"
        raise InvalidInputError(msg)
    if channel is not None:
        chosen = replace(chosen, channels=tuple(channel))
    rows = None if shuffle is None else np.random.default_rng(shuffle).permutation(len(chosen))
    with executor_of(workers, dask) as executor, progress() as show:
        written = write_webdataset(
            chosen, output, rows=rows, shard_size=shard_size, executor=executor, progress=show
        )
    say_paths(written)


def coco(
    cohort: Path,
    output: Path,
    *,
    classes: str | None = None,
    tiling: Tiling = _ALL,
) -> None:
    """Write the tiles of a cohort as PNG and the cells in them as COCO has them, tissue by tissue.

    Parameters
    ----------
    cohort
        Directory of the cohort, with cell masks.
    output
        Directory; each tissue has one in it.
    classes
        Column of the table of cells that holds their classes; without it all are of one.
    tiling
        Which tiles.
    """
    from microtome.interop import export_coco

    chosen = tiling.of(cohort)
    with progress() as show:
        written = export_coco(chosen, output, classes=classes, progress=show)
    say_paths(written)


def parquet(
    cohort: Path,
    output: Path,
    *,
    codec: Literal["png", "raw"] | None = None,
    tiling: Tiling = _ALL,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write the tiles of a cohort with their pixels as one Parquet file, which datasets reads.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    output
        The file, .parquet.
    codec
        How pixels are kept; by default as PNG where the first image is a picture that has one.
    tiling
        Which tiles.
    overwrite
        Replace a file that is there.
    """
    from microtome.interop import write_tiles_parquet

    chosen = tiling.of(cohort)
    with progress() as show:
        written = write_tiles_parquet(
            chosen.images, chosen.tiles, output, codec=codec, overwrite=overwrite, progress=show
        )
    say(str(written))


def spatialdata(
    cohort: Path,
    output: Path,
    *,
    tiling: Tiling = _ALL,
) -> None:
    """Write images, cell masks and tiles of a cohort as one SpatialData store.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    output
        Directory of the store, .zarr; there must be none.
    tiling
        Which tiles.
    """
    from microtome.interop import export_spatialdata

    chosen = tiling.of(cohort)
    say(str(export_spatialdata(chosen, output)))


export_app = App(
    name="export",
    help="Write what other programs read: an image as OME-TIFF, or in the format that is named.",
)
export_app.default(ome_tiff)
for _place, (_verb, _name) in enumerate(
    (
        (ome_tiff, "ome-tiff"),
        (qupath_tiles, "qupath-tiles"),
        (qupath_cells, "qupath-cells"),
        (trident, "trident"),
        (clam, "clam"),
        (webdataset, "webdataset"),
        (coco, "coco"),
        (parquet, "parquet"),
        (spatialdata, "spatialdata"),
        (anndata, "anndata"),
        (soma, "soma"),
    )
):
    export_app.command(_verb, name=_name, sort_key=_place)
