"""`microtome export`: the tiles of a cohort, for programs that train on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from microtome.errors import InvalidInputError

from ._console import progress, say, say_paths
from ._export_tiling import ALL_TILES, Tiling
from ._options import Flag
from ._workers import DaskOption, WorkersOption, executor_of

__all__ = ["clam", "coco", "parquet", "spatialdata", "trident", "webdataset"]


def trident(
    cohort: Path,
    output: Path,
    *,
    magnification: float,
    slides: Path | None = None,
    edge: Literal["overhang", "drop"] = "overhang",
    tiling: Tiling = ALL_TILES,
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
    tiling: Tiling = ALL_TILES,
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
        Index of the level of the slides that patches are read from, in whole pixels of it.
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
    tiling: Tiling = ALL_TILES,
    overwrite: Annotated[bool, Flag] = False,
    workers: WorkersOption = 1,
    dask: DaskOption = None,
) -> None:
    """Write the tiles of a cohort, with the stored pixels, as tar files for WebDataset.

    Run again after it was stopped, it goes on with the files that are missing. Where images or tiles
    are others since, it is refused.

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
    overwrite
        Remove files of other tiles, images or options that are there, and write them anew.
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
            chosen,
            output,
            rows=rows,
            shard_size=shard_size,
            overwrite=overwrite,
            executor=executor,
            progress=show,
        )
    say_paths(written)


def coco(
    cohort: Path,
    output: Path,
    *,
    classes: str | None = None,
    tiling: Tiling = ALL_TILES,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write the tiles of a cohort as PNG and the cells in them as COCO has them, tissue by tissue.

    Run again after it was stopped, it goes on with the tissues that are missing. Where the image, the
    cell mask, the classes or the tiles of one are others since, it is refused.

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
    overwrite
        Write tissues anew that are there as something else; those that would be the same stay.
    """
    from microtome.interop import export_coco

    chosen = tiling.of(cohort)
    with progress() as show:
        written = export_coco(chosen, output, classes=classes, overwrite=overwrite, progress=show)
    say_paths(written)


def parquet(
    cohort: Path,
    output: Path,
    *,
    codec: Literal["png", "raw"] | None = None,
    tiling: Tiling = ALL_TILES,
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
    tiling: Tiling = ALL_TILES,
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
