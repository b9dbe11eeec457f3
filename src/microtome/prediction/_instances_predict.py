"""An image through a model of instances, tile by tile, into labels at the same place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import Channels, MultiscaleImage
from microtome.progress import Progress, silent
from microtome.sources import open_image
from microtome.storage import Place, StorageOptions
from microtome.tiling import plan_tiles

from ._batches import TileReading, level_index, planned_level, sample_count, spatial_shape
from ._failure import telling_failures
from ._input import verify_kind
from ._instances import checked_share
from ._instances_pieces import Pieces
from ._instances_spool import InstanceWorkplace
from ._instances_write import free_labels_place, write_objects
from ._model import Preprocess, model_name, running
from ._output import place_of
from ._record import record_of, with_record
from ._resuming import settings_of
from ._space import OutputSpace
from ._staging import Target, put_labels, target_of_prediction
from ._tissue import masks_of, tiles_with_tissue

__all__ = ["predict_instances"]


def predict_instances(  # noqa: PLR0913 - a job with its options, all but three keyword-only and optional
    model: Any,
    image: Any,
    out: Target,
    *,
    tile_size: int | Sequence[int] = 512,
    overlap: int | Sequence[int] = 64,
    batch_size: int = 8,
    min_share: float = 0.5,
    level: int = 0,
    channels: Channels | None = None,
    preprocess: Preprocess | None = None,
    postprocess: Callable[[Any], Any] | None = None,
    mask: Any = None,
    skip_empty: bool = False,
    resume: bool = True,
    overwrite: bool = False,
    metadata: Mapping[str, Any] | None = None,
    storage_options: StorageOptions | None = None,
    progress: Progress = silent,
) -> MultiscaleImage:
    """Run a model that finds objects over a level of an image, and write them as labels.

    An object that tiles cut has one id, as of `stitch_instances`: a segmentation in which no pixel's
    object depends on more than ``overlap // 2 - 1`` pixels around gives the same objects as on the
    whole image. Ids go from 1 on in the order of an object's first pixel, row by row, whatever the
    order of the tiles. The labels have the level's rows, columns, scale and translation, and a
    pyramid. They appear at `out` whole, or not at all.

    A run that was killed is gone on with by the same call: the labels of every tile that was done
    are kept, compressed, in a hidden file beside `out`.

    In memory are two blocks of the input, as of `predict`, a batch in and out, a shard of labels,
    192 MiB of tiles, and about 40 bytes an object of a tile.

    Parameters
    ----------
    model
        A torch module, or any callable from (B, C, (Z), Y, X) to labels, (B, (Z), Y, X) or
        (B, 1, (Z), Y, X) of integers: 0 is background, and what an id means is the tile's own.
    image
        The image: whatever `microtome.open_image` takes. Every time point is segmented by itself;
        tiles of an image with planes have three sizes.
    out
        Directory of the new OME-Zarr image of labels, uint32 (uint64 above 4 billion objects). One
        in the folder ``labels`` of an OME-Zarr 0.5 image, ``slide.ome.zarr/labels/cells``, is listed
        there. Or the address of one that is not in such a folder, ``s3://bucket/cells.ome.zarr``: it
        is made in the directory for temporary files and put there whole.
    tile_size
        Pixels; one number, (height, width), or (depth, height, width) where the image has planes.
    overlap
        Pixels that neighbours share, below the tile size; one number or one an axis. Take twice what
        an object and its surroundings measure; without one, no object is joined.
    batch_size
        Tiles that go through the model at once.
    min_share
        Share of pixels that makes objects of two tiles one, above 0 and at most 1.
    level, channels, preprocess
        As for `predict`.
    postprocess
        What makes labels of the model's output.
    mask, skip_empty
        Where tissue is, as for `predict`; what only tiles without keep is background.
    resume
        Whether to go on with what a killed run left; False starts over.
    overwrite
        Whether an image at `out` is replaced, when the new one is complete.
    metadata
        Further attributes of the image. Source, level, tiles, model and version are added under
        ``["microtome"]["prediction"]``.
    storage_options
        How a store at `out` is reached.
    progress
        Called with the tiles done and to do, then with the shards, then with the blocks of the
        pyramid.

    Returns
    -------
    The new `MultiscaleImage` of labels, open for reading.

    Raises
    ------
    ExistsError
        If there is something at `out`, or a run with other settings was left and `resume` is true.
    BusyError
        If another process is predicting to `out`.
    ModeError
        If `out` is in a store that is only read.
    InvalidInputError
        If the overlap is not below the tile size, the image has other axes, no channel is left, or
        the model returns something else than labels; the message names the tile.
    ModelError
        If the model fails on a batch; what it raised is the cause.
    NoResolutionError
        If the image does not state its pixel size.
    UnknownNameError, OutOfRangeError
        If there is no such level or channel.
    """
    opened = open_image(image)
    target = target_of_prediction(out, storage_options)
    if isinstance(target, Place):

        def make(path: Path) -> MultiscaleImage:
            return predict_instances(
                model,
                opened,
                path,
                tile_size=tile_size,
                overlap=overlap,
                batch_size=batch_size,
                min_share=min_share,
                level=level,
                channels=channels,
                preprocess=preprocess,
                postprocess=postprocess,
                mask=mask,
                skip_empty=skip_empty,
                resume=resume,
                # Labels do not say of which settings they are: what was left whole is made again.
                overwrite=True,
                metadata=metadata,
                progress=progress,
            )

        return put_labels(
            make, opened, target, overwrite=overwrite, resume=resume, progress=progress
        )
    chosen = planned_level(opened, level)
    plan = plan_tiles(spatial_shape(chosen), tile_size, overlap)
    reading = TileReading.of(opened, plan, level, channels, batch_size)
    verify_kind(model, opened, channels)
    space = OutputSpace.of(opened, level)
    masks = masks_of(opened, level, mask, skip_empty=skip_empty)
    settings = {
        **settings_of(
            opened,
            reading.level,
            channels,
            plan,
            batch_size=batch_size,
            model=model,
            preprocess=preprocess,
            postprocess=postprocess,
            masks=masks,
        ),
        "min_share": checked_share(min_share),
    }
    path = target
    place = InstanceWorkplace(path, settings, resume=resume)
    keep = True
    try:
        if _is_published(path, place.run):
            keep = False
            return MultiscaleImage.open(path)
        free_labels_place(path, opened, overwrite=overwrite)
        shape = (sample_count(chosen), *spatial_shape(chosen))
        kept = None if masks is None else tiles_with_tissue(plan, masks, shape[1:])
        pieces = _pieces(place)
        with running(model, preprocess) as run:
            _fill(pieces, reading, kept, run, (model, preprocess), postprocess, progress)
        record = record_of(
            opened, level_index(opened, level), plan, blend="instances", model=model_name(model)
        )
        record["run"] = place.run
        record["min_share"] = min_share
        if kept is not None:
            record["skipped_tiles"] = int((~kept).sum())
        write_objects(
            pieces.objects(shape, min_share),
            path,
            space,
            overwrite=overwrite,
            metadata=with_record(metadata, record),
            progress=progress,
        )
        keep = False
    except InvalidInputError:
        # The model's answer was wrong: what there is of it is not gone on with.
        keep = False
        raise
    finally:
        place.close(keep=keep)
    return MultiscaleImage.open(path)


def _pieces(place: InstanceWorkplace) -> Pieces:
    """Return the pieces that an earlier run has left."""
    pieces = Pieces(place.spool)
    for facts in place.found:
        pieces.take_up(facts)
    return pieces


def _fill(
    pieces: Pieces,
    reading: TileReading,
    kept: NDArray[np.bool_] | None,
    run: Callable[[Any], Any],
    asked: tuple[Any, Preprocess | None],
    postprocess: Callable[[Any], Any] | None,
    progress: Progress,
) -> None:
    """Run the tiles that are missing; what is asked is the model and what is done before it."""
    plan, samples = reading.plan, reading.samples
    wanted = np.ones((samples, len(plan)), np.bool_) if kept is None else kept
    total = int(wanted.sum())
    if not total:
        msg = f"no tile of {reading.image.uri} has tissue: there is nothing to predict"
        raise InvalidInputError(msg)
    needed = wanted.copy()
    if len(pieces):
        for sample in range(samples):
            there = [pieces.has(sample, start) for start in plan.coords.tolist()]
            needed[sample] &= ~np.asarray(there)
    with closing(reading.batches(kept, needed)) as batches:
        for batch in batches:
            note = f"while segmenting a batch from {place_of(batch, 0)}"
            with telling_failures(*asked, batch.data, note):
                data = run(batch.data)
            try:
                labels = data if postprocess is None else postprocess(data)
            except Exception as error:
                error.add_note(note)
                raise
            # The batches of every run are the same: of one that was cut short, some tiles are there.
            pieces.add(batch._replace(data=labels), skip_known=True)
            progress("predict", len(pieces), total)


def _is_published(out: Path, run: str) -> bool:
    """Whether the run that was left had come to its end, but for tidying up."""
    if not MultiscaleImage.exists(out):
        return False
    ours: Any = MultiscaleImage.open(out).metadata.get("microtome", {})
    return ours.get("prediction", {}).get("run") == run
