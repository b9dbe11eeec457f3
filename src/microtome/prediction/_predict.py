"""An image through a model, tile by tile, into a new image at the same place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast, overload

from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import Channels, MultiscaleImage
from microtome.progress import Progress, silent
from microtome.sources import open_image
from microtome.storage import Place, StorageOptions

from ._blend import Blend, checked_blend
from ._devices import checked_devices
from ._job import Job
from ._many import predict_each
from ._model import Preprocess, verify_function
from ._staging import Target, target_of_prediction
from ._tiff import is_tiff, predict_tiff

__all__ = ["predict"]


class Options(TypedDict, total=False):
    """Keywords of `predict`, for its overloads; what they mean is told there."""

    tile_size: int | Sequence[int] | None
    overlap: int | Sequence[int]
    batch_size: int
    blend: Blend
    multiple_of: int
    level: int
    channels: Channels | None
    preprocess: Preprocess | None
    postprocess: Callable[[Any], Any] | None
    channel_names: Sequence[str] | None
    mask: Any
    skip_empty: bool
    fill: float
    devices: Sequence[Any] | None
    executor: Executor | None
    resume: bool
    overwrite: bool
    allow_nan: bool
    metadata: Mapping[str, Any] | None
    storage_options: StorageOptions | None
    progress: Progress


@overload
def predict(  # pyright: ignore[reportOverlappingOverload] - an image is a mapping of its levels, and one image
    model: Any,
    images: MultiscaleImage | str | os.PathLike[str] | NDArray[Any],
    out: Target,
    **options: Unpack[Options],
) -> MultiscaleImage: ...
@overload
def predict(  # pyright: ignore[reportOverlappingOverload] - what is left is one image
    model: Any,
    images: Mapping[str, Any] | list[Any] | tuple[Any, ...],
    out: Target,
    **options: Unpack[Options],
) -> dict[str, MultiscaleImage]: ...
@overload
def predict(
    model: Any, images: Any, out: str | os.PathLike[str], **options: Unpack[Options]
) -> MultiscaleImage: ...
def predict(  # noqa: PLR0913 - a job with its options, all but three keyword-only and optional
    model: Any,
    images: Any,
    out: Target,
    *,
    tile_size: int | Sequence[int] | None = 512,
    overlap: int | Sequence[int] = 64,
    batch_size: int = 8,
    blend: Blend = "crop",
    multiple_of: int = 1,
    level: int = 0,
    channels: Channels | None = None,
    preprocess: Preprocess | None = None,
    postprocess: Callable[[Any], Any] | None = None,
    channel_names: Sequence[str] | None = None,
    mask: Any = None,
    skip_empty: bool = False,
    fill: float = 0,
    devices: Sequence[Any] | None = None,
    executor: Executor | None = None,
    resume: bool = True,
    overwrite: bool = False,
    allow_nan: bool = False,
    metadata: Mapping[str, Any] | None = None,
    storage_options: StorageOptions | None = None,
    progress: Progress = silent,
) -> MultiscaleImage | dict[str, MultiscaleImage]:
    """Run a model over a level of an image and write what it returns as a new image.

    The new image has the level's rows, columns, scale and translation, and a pyramid. It appears
    at `out` whole, or, after an exception or the end of the process, not at all.

    A run that was killed is gone on with by the same call: finished shards are kept in a hidden
    directory beside `out`, and only the tiles of the others are predicted again.

    Neighbouring tiles share `overlap` pixels. With `blend="crop"` each keeps the part that is
    nearest to it: a model that looks no further than ``overlap // 2`` pixels gives the same as on
    the whole image. An image smaller than a tile is padded with 0.

    Memory does not depend on the size of the image. It holds at most two blocks of the input
    ((2048 + tile)^2 pixels each, smaller blocks where 2048^2 pixels exceed 32 MiB), a batch in and
    out, a few shards of the output (all channels of 2048^2 pixels, 1024^2 above eight channels), and
    one of each coarser level, and 32 MiB of the strip of tiles that waits for the next row of shards,
    the rest of which waits in a file: predicting the strip again instead would run the model 1.5
    times on average.

    Parameters
    ----------
    model
        A torch module, or any callable from (B, C, (Z), Y, X) to (B, C', (Z), Y, X), with as many
        rows and columns or a whole number of times as many or as few. A torch module is run in
        evaluation and inference mode on its own parameters' device.
    images
        The image: whatever `microtome.open_image` takes. Every time point is predicted by itself;
        tiles of an image with planes have three sizes. Or several images, a list or a mapping by
        name.
    out
        Directory of the new OME-Zarr image, over c, y, x and the image's t and z. Its dtype is the
        one that the model returns (booleans as uint8, bfloat16 as float32), so that a model that
        returns its input gives back the level, byte for byte. A name that ends in ``.ome.tif`` or
        ``.ome.tiff``: one OME-TIFF instead, by way of a hidden OME-Zarr beside it, with the same
        pixel size, place, channels and record. Of several images, the directory of their
        predictions, ``<name>.ome.zarr``: those that are there, of the same images with the same
        settings, are kept. All images are opened before the first is predicted. Either OME-Zarr may
        go to the address of a store, ``s3://bucket/prediction.ome.zarr``: it is made in the directory
        for temporary files and put there whole.
    tile_size
        Pixels; one number, (height, width), or (depth, height, width) where the image has planes.
        None predicts the whole level at once.
    overlap
        Pixels that neighbours share, below the tile size; one number or (y, x). May be odd.
    batch_size
        Tiles that go through the model at once.
    blend
        What is done where tiles overlap. ``"crop"``: a pixel is the tile's whose border is farther
        away. ``"linear"``, ``"gaussian"``: the mean of all tiles, weighted by a ramp or a bell; of
        integers only where they are of the image's own dtype, and rounded.
        ``"none"``: the last tile's in the order of the plan.
    multiple_of
        What rows and columns must be a multiple of for the model: tiles are, and a whole level is
        padded with 0.
    level
        Index of the level; negative counts from the coarsest.
    channels
        Channels that the model sees, by number or name; None for all.
    preprocess
        What makes the model's input of a batch (B, C, Y, X) of stored pixels, an array or a
        tensor. Without it a callable gets the batch as it is, a torch module the same values as
        float32.
    postprocess
        What makes the values to keep of the model's output, for example the inverse of a
        normalization.
    channel_names
        One a channel of the new image; the model's own `channel_names` where it has them, else
        ``"channel 0"``, ...
    mask
        Where tissue is: an array (Y, X) that covers the level at any resolution, an image of labels,
        or a callable from coarse pixels (C, Y, X) to such an array; of several images, a mapping by
        name. Tiles without are left out, and the image says how many.
    skip_empty
        Whether tissue is looked for (`microtome.segmentation.detect_tissue`) where there is no mask.
    fill
        Value of the pixels that only tiles without tissue cover.
    devices
        Torch devices that copies of a torch module, or of a `TestTimeAugmentation` of one, go to,
        for example ``["cuda:0", "cuda:1"]``: batches of one image take turns, with two a device in
        memory, and of several images each device predicts one at a time. The result is the one of
        a single device. Functions of yours are called from several threads at once. None leaves
        the model where it is.
    executor
        Where several images are predicted: any `concurrent.futures.Executor`; here, one after the
        other, by default. Model and images must be picklable for one of processes.
    resume
        Whether to go on with what a killed run left; False starts over.
    overwrite
        Whether an image at `out` is replaced, when the new one is complete.
    allow_nan
        Whether NaN and infinity may be written.
    metadata
        Further attributes of the image. Source, level, tiles, model and version are added under
        ``["microtome"]["prediction"]``.
    storage_options
        How a store at `out` is reached.
    progress
        Called with the tiles done and to do, then with the blocks of the pyramid, then, of an
        OME-TIFF, with its strips, and of one into a store with the files that are put there.

    Returns
    -------
    The new `MultiscaleImage`, open for reading; of several images, a dict of them by name.

    Raises
    ------
    ExistsError
        If there is something at `out`, or a run with other settings was left and `resume` is true. The
        message says how the settings of what is there differ.
    BusyError
        If another process is predicting to `out`.
    ModeError
        If `out` is in a store that is only read.
    StorageError
        If the disk or a store refuses, or the store cannot be reached.
    InvalidInputError
        If the overlap is not below the tile size, the image has other axes, no channel is left,
        or the model returns another shape, changing channels, NaN or infinity; the message names the tile.
        If there are both devices and an executor, the model is no torch module or torch refuses a
        device. If integers that are no pixels of the image, or booleans, are to be blended by means. If
        `out` has the suffix of another format. If an OME-TIFF is called otherwise or asked for of several images or with metadata, or the
        model returns a type that OME has no name for.
    ModelError
        If the model fails on a batch, of channels that it does not take for example; what it raised is
        the cause, and the message says what it was shown.
    NoResolutionError
        If the image does not state its pixel size.
    UnknownNameError, OutOfRangeError
        If there is no such level or channel.
    """
    if multiple_of < 1:
        msg = f"multiple_of must be at least 1, got {multiple_of}"
        raise InvalidInputError(msg)
    place = target_of_prediction(out, storage_options)
    # Before images are opened, tissue is looked for and the first tiles are read.
    verify_function(preprocess, "preprocess", "normalize")
    verify_function(postprocess, "postprocess", "denormalize")
    job = Job(
        model=model,
        tile_size=tile_size,
        overlap=overlap,
        batch_size=batch_size,
        blend=checked_blend(blend),
        multiple_of=multiple_of,
        level=level,
        channels=channels,
        preprocess=preprocess,
        postprocess=postprocess,
        channel_names=channel_names,
        skip_empty=skip_empty,
        fill=fill,
        resume=resume,
        overwrite=overwrite,
        allow_nan=allow_nan,
        metadata=metadata,
        devices=checked_devices(devices),
    )
    if devices is not None and executor is not None:
        msg = f"devices={devices!r} are of this process, executor= is for others; give one of them"
        raise InvalidInputError(msg)
    # An image is a mapping, too: of its levels.
    if isinstance(images, Mapping | list | tuple) and not isinstance(images, MultiscaleImage):
        several = cast("Mapping[str, Any] | Sequence[Any]", images)
        return predict_each(job, several, place, mask=mask, executor=executor, progress=progress)
    named = Path(place.uri if isinstance(place, Place) else place)
    # Not of `run_v1.2`, whose end is no format.
    if named.suffix[1:2].isalpha() and named.suffix.lower() != ".zarr" and not is_tiff(named):
        msg = f"{place} is written as OME-Zarr or OME-TIFF; call it {named.name}.ome.zarr, or .ome.tif"
        raise InvalidInputError(msg)
    if not is_tiff(named):
        return job.run(open_image(images), place, mask, progress)
    if isinstance(place, Place):
        msg = f"{place}: an OME-TIFF is written to a disk here; write it here and copy it there, or predict into .ome.zarr"
        raise InvalidInputError(msg)
    return predict_tiff(job, open_image(images), place, mask, progress)
