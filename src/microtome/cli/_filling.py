"""Verbs that fill a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from microtome.errors import InvalidInputError

from ._console import progress, say, say_paths, shape_text
from ._ingesting import ingest_table
from ._options import Flag, OneTissue, ResolutionOption, TileSize, Tissues, parse_mpp
from ._workers import DaskOption, WorkersOption, executor_of

__all__ = ["ingest", "mask", "pack", "stats"]


def ingest(
    source: Path | None = None,
    *,
    cohort: Path,
    tissue: Annotated[str | None, OneTissue] = None,
    modality: str | None = None,
    image: str | None = None,
    manifest: Path | None = None,
    mpp: str | None = None,
    resolution: str = "1.0",
    channel: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    patient: str | None = None,
    specimen: str | None = None,
    split: str | None = None,
    codec: Literal["train", "panel", "fast", "small"] = "train",
    upsample: Annotated[bool, Flag] = False,
    overwrite: Annotated[bool, Flag] = False,
    on_error: Literal["stop", "continue"] = "stop",
    report: Path | None = None,
    workers: WorkersOption = 1,
    dask: DaskOption = None,
) -> None:
    """Write a microscope file, or all files of a table, into a cohort as multiscale OME-Zarr images.

    Parameters
    ----------
    source
        SVS, OME-TIFF, QPTIFF, TIFF, PNG, JPEG or OME-Zarr; needs --tissue and --modality.
    cohort
        Directory of the cohort; begun where there is nothing.
    tissue
        Tissue id: letters, digits, '.', '_' and '-'.
    modality
        he, ihc_MARKER, imc, codex, cycif, mibi or stains.
    image
        Name of one of the images in a file, where it holds several, such as the regions of an MCD.
    manifest
        Instead of a source, a CSV, TSV or parquet table with tissue_id, path and modality, and where
        known image, mpp, patient_id, specimen_id, split, channel_names (a|b|c) and clinical data.
    mpp
        Micrometres per pixel where the file states none or wrong ones; y,x if not square.
    resolution
        Micrometres per pixel in the cohort.
    channel
        Names of the channels in order, instead of those that the file states.
    patient
        Patient id.
    specimen
        Specimen id.
    split
        Split, for example train or test.
    codec
        train, for reading often; panel, for reading all channels often; fast, to write; or small.
    upsample
        Allow a source that is coarser than the resolution.
    overwrite
        Replace an image made from something else.
    on_error
        Of a manifest: stop at the first row that fails, or continue and tell at the end.
    report
        Of a manifest: file, .csv, .tsv or .parquet, that says what became of each row. With
        --on-error continue there is one always, beside the manifest: tissues.ingest.csv of
        tissues.csv.
    workers
        Processes on this machine that share the rows of a manifest; 1 does them here.
    dask
        Address of a dask scheduler whose workers share them, for example tcp://host:8786.
    """
    if manifest is not None:
        single = {
            "SOURCE": source,
            "--tissue": tissue,
            "--modality": modality,
            "--image": image,
            "--mpp": mpp,
            "--channel": channel,
            "--patient": patient,
            "--specimen": specimen,
            "--split": split,
        }
        given = [name for name, value in single.items() if value is not None]
        if given:
            msg = f"{', '.join(given)} and --manifest exclude each other: the table says it of each row"
            raise InvalidInputError(msg)
        ingest_table(
            manifest,
            cohort,
            report=report,
            resolution=resolution,
            codec=codec,
            upsample=upsample,
            overwrite=overwrite,
            on_error=on_error,
            workers=workers,
            dask=dask,
        )
        return
    if report is not None:
        msg = "--report is of a manifest; give --manifest"
        raise InvalidInputError(msg)
    if source is None or tissue is None or modality is None:
        msg = "give SOURCE with --tissue and --modality, or many of them with --manifest"
        raise InvalidInputError(msg)
    from microtome.cohort import ingest as do

    with progress() as show:
        made = do(
            source,
            cohort=cohort,
            tissue_id=tissue,
            modality=modality,
            mpp=parse_mpp(mpp),
            resolution=resolution,
            channel_names=channel,
            image=image,
            patient_id=patient,
            specimen_id=specimen,
            split=split,
            codec=codec,
            upsample=upsample,
            overwrite=overwrite,
            progress=show,
        )
    say(f"{made.uri}: {shape_text(made.level_shape(0))}, {made.mpp}, {made.level_count} levels")


def mask(
    cohort: Path,
    *,
    tissue: Tissues = None,
    modality: str | None = None,
    resolution: ResolutionOption = None,
    method: Literal["otsu", "whole"] = "otsu",
    overwrite: Annotated[bool, Flag] = False,
    workers: WorkersOption = 1,
    dask: DaskOption = None,
) -> None:
    """Find the tissue on every slide and store it as labels.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    tissue
        Only this tissue; may be given several times.
    modality
        Which image to look at; H&E where there is one.
    resolution
        Which resolution, where the cohort has several.
    method
        otsu finds tissue by its colour or signal; whole takes all of a region that was chosen to be
        tissue.
    overwrite
        Replace masks that are there; those of images that were replaced are made anew in any case.
    workers
        Processes on this machine that share the tissues; 1 does them here, one after the other.
    dask
        Address of a dask scheduler whose workers share the tissues, for example tcp://host:8786.
    """
    from microtome.cohort import mask as do

    with executor_of(workers, dask) as executor, progress() as show:
        shares = do(
            cohort,
            tissues=tissue,
            modality=modality,
            resolution=resolution,
            method=method,
            overwrite=overwrite,
            executor=executor,
            progress=show,
        )
    for tissue_id, share in shares.items():
        say(f"{tissue_id}: {share:.1%} tissue")


def stats(
    cohort: Path,
    *,
    modality: str | None = None,
    method: str = "quantile_clipping",
    quantile: float | None = None,
    lower_quantile: float | None = None,
    quantile_level: Literal["image", "global"] | None = None,
    stats_level: Literal["image", "global"] = "global",
    split: str | None = None,
    resolution: ResolutionOption = None,
    exact: Annotated[bool, Flag] = False,
    overwrite: Annotated[bool, Flag] = False,
    workers: WorkersOption = 1,
    dask: DaskOption = None,
) -> None:
    """Compute standardization tables of the multiplex modalities.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    modality
        Only this one; all whose tables are missing or out of date by default. Brightfield needs none.
    method
        quantile_clipping, quantile_clipping_log1p, arcsinh, minmax or zscore; or a whole
        standardization as it is written, such as arcsinh/cofactor_10.0.
    quantile
        Upper quantile at which intensities are clipped, where the method does: 0.99 by default.
    lower_quantile
        Lower one; intensities are clipped at 0 by default.
    quantile_level
        image: quantiles of each image by itself, the default. global: of all together.
    stats_level
        image: mean and standard deviation of each image. global: of all together. Both may stand
        side by side; whichever is computed, the other is renewed with it where it is out of date.
    split
        Tissues to fit on; train where there is such a split, else all.
    resolution
        Which resolution, where the cohort has several.
    exact
        Count pixels of more than 16 bits to the last bit, in several passes; by default within
        0.05 %, in one.
    overwrite
        Replace tables that were made with other settings; only tissues that changed are read again.
    workers
        Processes on this machine that share the tissues; 1 does them here, one after the other.
    dask
        Address of a dask scheduler whose workers share the tissues, for example tcp://host:8786.
    """
    from microtome.cohort import stats as do

    with executor_of(workers, dask) as executor, progress() as show:
        written = do(
            cohort,
            modality=modality,
            method=method,
            quantile=quantile,
            lower_quantile=lower_quantile,
            quantile_level=quantile_level,
            stats_level=stats_level,
            split=split,
            resolution=resolution,
            exact=exact,
            overwrite=overwrite,
            executor=executor,
            progress=show,
        )
    say_paths(written)
    if not written:
        say(
            "nothing to compute: no multiplex modality; brightfield is standardized by fixed numbers"
        )


def pack(
    cohort: Path,
    output: Path,
    *,
    size: TileSize = 224,
    strategy: str = "default",
    modality: Annotated[list[str] | None, Parameter(negative=())] = None,
    resolution: ResolutionOption = None,
    only_tiles: Annotated[bool, Flag] = False,
    codec: Literal["fast", "small"] = "fast",
    order: Literal["table", "random"] = "table",
    seed: int | None = None,
    epoch: int | None = None,
    workers: WorkersOption = 1,
    dask: DaskOption = None,
) -> None:
    """Rewrite a cohort into the layout from which its tiles are read fastest; the old one stays.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    output
        Directory of the packed one, an ordinary cohort without coarser levels.
    size
        Side of the tiles in pixels.
    strategy
        How they were made.
    modality
        Only this modality; may be given several times.
    resolution
        Which resolution, where the cohort has several.
    only_tiles
        Leave out what no tile shows.
    codec
        fast to read, or small.
    order
        In which the tiles will be read: as the table has them, or a shuffled epoch, which a loader
        in the order "sequential" then reads from the beginning of each file to its end. It is an
        order of all tiles of the table: those of tissues without a --modality that is packed count,
        so that it is another than a loader's of that modality alone.
    seed
        Of the shuffled epoch; 0 by default.
    epoch
        Its number; 0 by default.
    workers
        Processes on this machine that share the images; 1 does them here, one after the other.
    dask
        Address of a dask scheduler whose workers share the images, for example tcp://host:8786.
    """
    from microtome.errors import InvalidInputError
    from microtome.packing import PackOrder
    from microtome.packing import pack as do

    if order == "table" and (seed is not None or epoch is not None):
        msg = "--seed and --epoch are of a shuffled epoch: give --order random, or leave them out"
        raise InvalidInputError(msg)

    def shuffled(count: int) -> PackOrder:
        from microtome.loading import TileOrder

        return TileOrder(count, "random", seed or 0, epoch or 0)

    with executor_of(workers, dask) as executor, progress() as show:
        packed = do(
            cohort,
            output,
            tile_size=size,
            tile_strategy=strategy,
            modalities=modality,
            resolution=resolution,
            only_tiles=only_tiles,
            codec=codec,
            order=shuffled if order == "random" else None,
            executor=executor,
            progress=show,
        )
    for image in packed:
        say(
            f"{image.modality} {image.tissue_id}: chunks {shape_text(image.chunk)}, "
            f"{image.bytes_after / 1e6:.1f} MB of {image.bytes_before / 1e6:.1f}"
        )
