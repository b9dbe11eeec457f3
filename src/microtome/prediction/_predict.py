"""An image through a model, tile by tile, into a new image at the same place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from microtome.image import Channels, MultiscaleImage
from microtome.progress import Progress, silent
from microtome.regions import ImageRegionData, TileSpecs
from microtome.sources import open_image
from microtome.tiling import plan_tiles

from ._batches import iter_tile_batches, plane_level
from ._model import Preprocess, model_name, running
from ._output import place_of
from ._stitch import Stitcher

__all__ = ["predict"]


def predict(  # noqa: PLR0913 - a job with its options, all but three keyword-only and optional
    model: Any,
    image: Any,
    out: str | os.PathLike[str],
    *,
    tile_size: int | Sequence[int] = 512,
    overlap: int | Sequence[int] = 64,
    batch_size: int = 8,
    level: int = 0,
    channels: Channels | None = None,
    preprocess: Preprocess | None = None,
    channel_names: Sequence[str] | None = None,
    overwrite: bool = False,
    allow_nan: bool = False,
    metadata: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> MultiscaleImage:
    """Run a model over a level of an image and write what it returns as a new image.

    The new image has the level's rows, columns, scale and translation, and a pyramid. It appears
    at `out` whole, or, after an exception or the end of the process, not at all.

    Neighbouring tiles share `overlap` pixels and each keeps the part that is nearest to it: a
    model that looks no further than ``overlap // 2`` pixels gives the same as on the whole image.
    An image smaller than a tile is padded with 0.

    Memory does not depend on the length of the image. It holds at most two blocks of the input
    ((2048 + tile)^2 pixels each, smaller blocks where 2048^2 pixels exceed 32 MiB), a batch in and out,
    two shards of the output (all channels of 2048^2 pixels, 1024^2 above eight channels), and one
    strip of output, a tile high and as long as the shorter side of the level, that waits for the
    next row of shards: predicting the strip again instead would run the model 1.5 times on average.

    Parameters
    ----------
    model
        A torch module, or any callable from (B, C, Y, X) to (B, C', Y, X). A torch module is run
        in evaluation and inference mode on its own parameters' device.
    image
        The image, over c, y, x or y, x: whatever `microtome.open_image` takes.
    out
        Directory of the new OME-Zarr image, over c, y, x. Its dtype is the one that the model
        returns (booleans as uint8, bfloat16 as float32), so that a model that returns its
        input gives back the level, byte for byte.
    tile_size
        Pixels; one number or (height, width).
    overlap
        Pixels that neighbours share, below the tile size; one number or (y, x). May be odd.
    batch_size
        Tiles that go through the model at once.
    level
        Index of the level; negative counts from the coarsest.
    channels
        Channels that the model sees, by number or name; None for all.
    preprocess
        What makes the model's input of a batch (B, C, Y, X) of stored pixels, an array or a
        tensor. Without it a callable gets the batch as it is, a torch module the same values as
        float32.
    channel_names
        One a channel of the new image; the model's own `channel_names` where it has them, else
        ``"channel 0"``, ...
    overwrite
        Whether an image at `out` is replaced, when the new one is complete.
    allow_nan
        Whether NaN may be written.
    metadata
        Further attributes of the image. Source, level, tiles, model and version are added under
        ``["microtome"]["prediction"]``.
    progress
        Called with the tiles done and to do, then with the blocks of the pyramid.

    Returns
    -------
    The new image, open for reading.

    Raises
    ------
    ExistsError
        If there is something at `out`.
    InvalidInputError
        If the overlap is not below the tile size, the image has other axes, no channel is left,
        or the model returns another shape, changing channels or NaN; the message names the tile.
    NoResolutionError
        If the image does not state its pixel size.
    UnknownNameError, OutOfRangeError
        If there is no such level or channel.
    """
    source = open_image(image)
    plan = plan_tiles(plane_level(source, level).shape[-2:], tile_size, overlap)
    names = getattr(model, "channel_names", None) if channel_names is None else channel_names
    batches = iter_tile_batches(source, plan, level=level, channels=channels, batch_size=batch_size)
    # The reading thread ends with the generator, so that is closed here, not by the collector.
    with (
        closing(batches),
        running(model, preprocess) as run,
        Stitcher(
            out,
            source,
            plan,
            level=level,
            channel_names=names,
            overwrite=overwrite,
            allow_nan=allow_nan,
            metadata=metadata,
            model=model_name(model),
        ) as stitcher,
    ):
        done = 0
        for batch in batches:
            stitcher.add(_answered(run, batch))
            done += len(batch.source)
            progress("predict", done, len(plan))
            del batch  # before the next one is read
        return stitcher.finish(progress=progress)


def _answered(
    run: Callable[[Any], Any], batch: ImageRegionData[TileSpecs]
) -> ImageRegionData[TileSpecs]:
    try:
        return batch._replace(data=run(batch.data))
    except Exception as error:
        error.add_note(f"while predicting a batch from {place_of(batch, 0)}")
        raise
