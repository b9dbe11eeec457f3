"""The kept part of every tile back to its place: into a new image, or into an array."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.progress import Progress, silent
from microtome.regions import ImageRegionData
from microtome.storage import Layout
from microtome.tiling import TilePlan

from ._batches import TileReading, level_index, planned_level, sample_count, spatial_shape
from ._blend import Blend, checked_blend
from ._canvas import Canvas, Made
from ._in_memory import stitched
from ._record import record_of, with_record
from ._space import (
    ArrayTarget,
    OutputSpace,
    checked_fill,
    checked_names,
    free_place,
    target_of,
)
from ._unfinished import Unfinished

__all__ = ["Stitcher", "stitch_tiles"]


class Stitcher(Unfinished):
    """A new image, put together from the tiles of another one.

    It lies where the level lies that the tiles were cut from: the same rows and columns, scale and
    translation. It appears at `out`, whole, with `finish`; leaving the `with` block without that
    removes what was written. Every shard is written once, when its last tile has come, whatever
    the order of the tiles.

    Parameters
    ----------
    out
        Directory of the new OME-Zarr image.
    image
        The image that the tiles were cut from.
    plan
        The tiles.
    level
        Index of the level of `image` that the plan speaks of.
    blend
        What is done where tiles overlap: ``"crop"``, ``"linear"``, ``"gaussian"`` or ``"none"``.
    tiles
        Which tiles come, (samples, tiles) or (tiles,) booleans; None for all. What only others
        cover gets `fill`.
    fill
        Value of pixels that no tile has a share of.
    channel_names
        One a channel of the new image; ``"channel 0"``, ... by default.
    overwrite
        Whether an image at `out` is replaced, when the new one is complete.
    allow_nan
        Whether NaN and infinity may be written.
    metadata
        Further attributes of the image. What was cut how is added under
        ``["microtome"]["prediction"]``.
    model
        Name of the model, for the attributes.
    layout
        Chunks, shards and codec; the default of intensity images by default.

    Raises
    ------
    ExistsError
        If there is something at `out`.
    InvalidInputError
        If image and plan do not fit each other, or `out` is the image itself.
    NoResolutionError
        If the image does not state its pixel size.

    Examples
    --------
    ::

        plan = plan_tiles(image.level_shape(0)[-2:], tile_size=512, overlap=64)
        with Stitcher("out.ome.zarr", image, plan) as stitcher:
            for batch in iter_tile_batches(image, plan):
                stitcher.add(batch._replace(data=model(batch.data)))
            result = stitcher.finish()
    """

    def __init__(  # noqa: PLR0913 - what a new image needs to know, all but three optional
        self,
        out: str | os.PathLike[str],
        image: MultiscaleImage,
        plan: TilePlan,
        *,
        level: int = 0,
        blend: Blend = "crop",
        tiles: ArrayLike | None = None,
        fill: float = 0,
        channel_names: Sequence[str] | None = None,
        overwrite: bool = False,
        allow_nan: bool = False,
        metadata: Mapping[str, Any] | None = None,
        model: str | None = None,
        layout: Layout | None = None,
    ) -> None:
        chosen = planned_level(image, level, plan)
        self._space = OutputSpace.of(image, level)
        super().__init__(free_place(out, image, overwrite=overwrite))
        self._overwrite = overwrite
        self._names = channel_names
        self._layout = layout
        self._blend: Blend = checked_blend(blend)
        self._fill = fill
        reading = TileReading.of(image, plan, level, None, 1)
        kept = None if tiles is None else reading.mask_of(tiles)
        record = record_of(image, level_index(image, level), plan, blend=blend, model=model)
        if kept is not None:
            record["skipped_tiles"] = int((~kept).sum())
            record["fill"] = fill
        self._metadata = with_record(metadata, record)
        self._image: MultiscaleImage | None = None
        self._canvas = Canvas(
            str(self._out),
            plan,
            sample_count(chosen),
            spatial_shape(chosen),
            self._begin,
            blend=self._blend,
            kept=kept,
            fill=fill,
            allow_nan=allow_nan,
        )

    @property
    def tiles_done(self) -> int:
        """Number of tiles that have come."""
        return self._canvas.tiles_done

    def add(self, batch: ImageRegionData[Any]) -> None:
        """Put the tiles of a batch in their places.

        Parameters
        ----------
        batch
            A batch of `iter_tile_batches` whose data are the model's output, (B, C', (Z), Y, X): a
            numpy array or a torch tensor, with the tiles' own Y and X or a whole number of times
            as large or as small. The first batch decides the number of channels, the scale and the
            dtype of the image.

        Raises
        ------
        InvalidInputError
            If the output has another shape, or other channels or another dtype than before, or NaN
            in a kept part; or if a tile is not of the plan, or came before. The message names the
            tile.
        """
        self._check_open()
        self._canvas.add(batch)

    def finish(self, *, progress: Progress = silent) -> MultiscaleImage:
        """Build the pyramid, make the image appear at its place, and open it.

        Parameters
        ----------
        progress
            Called with the blocks of the pyramid done and to do.

        Raises
        ------
        InvalidInputError
            If tiles are missing.
        """
        self._check_open()
        try:
            missing = self._canvas.missing()
            if missing is not None or self._image is None:
                left, at = missing or (0, ())
                msg = f"{self._out}: {left} of {self._canvas.tiles_planned} tiles are missing, the first at (row, col) {at}"
                raise InvalidInputError(msg)
            self._canvas.settle()
            self._image.build_levels(progress=progress)
            self._image.close()
            self._closed = True
        finally:
            self.discard()
        return MultiscaleImage.open(self._out)

    def discard(self) -> None:
        """Remove what was written, unless it is finished."""
        self._canvas.close()
        if not self._closed and self._image is not None:
            self._image.discard()
        self._closed = True

    def _begin(self, made: Made) -> ArrayTarget:
        checked_fill(self._fill, made, adding=self._blend in {"linear", "gaussian"})
        self._image = self._space.begin(
            self._out,
            made,
            channel_names=checked_names(self._names, made.channels),
            overwrite=self._overwrite,
            metadata=self._metadata,
            layout=self._layout,
        )
        return target_of(self._image, self._space.rank)


def stitch_tiles(
    batches: Iterable[ImageRegionData[Any]],
    *,
    plan: TilePlan | None = None,
    blend: Blend = "crop",
) -> NDArray[Any]:
    """Put the tiles of one image together in memory.

    Parameters
    ----------
    batches
        Batches of tiles, in any order, whose data are a model's output, (B, C', (Z), Y, X), with
        the tiles' own size or a whole number of times as large or as small.
    plan
        The plan that the tiles are of; needed for blends other than ``"crop"``.
    blend
        What is done where tiles overlap: ``"crop"``, ``"linear"``, ``"gaussian"`` or ``"none"``.

    Returns
    -------
    (C', (Z), Y, X) of the level that the tiles were cut from, in the dtype of the first batch;
    (S, C', (Z), Y, X) where the image has several samples.

    Raises
    ------
    InvalidInputError
        If there is none, tiles are missing, come twice or belong to several images, or batches
        differ in channels, scale or dtype.
    """
    if plan is None and checked_blend(blend) != "crop":
        msg = f"blend={blend!r} needs the plan of the tiles; give plan="
        raise InvalidInputError(msg)
    return stitched(batches, plan, checked_blend(blend))
