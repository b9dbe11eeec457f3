"""Objects of a whole image as an OME-Zarr image of labels, whole shards at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from filelock import FileLock
from numpy.typing import ArrayLike

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage, begin_image, blocks_of
from microtome.progress import Progress, silent
from microtome.regions import ImageRegionData
from microtome.storage import (
    Layout,
    StoredArray,
    is_group,
    label_layout,
    read_group,
    write_group,
)
from microtome.tiling import TilePlan

from ._batches import TileReading, level_index, planned_level, sample_count, spatial_shape
from ._instances import checked_share
from ._instances_pieces import Objects, Pieces
from ._instances_spool import Spool
from ._merge import label_type
from ._record import record_of, with_record
from ._space import OutputSpace, free_place
from ._unfinished import Unfinished

__all__ = ["InstanceStitcher", "free_labels_place", "write_objects"]

_LABELS = "labels"


class InstanceStitcher(Unfinished):
    """A new image of labels, put together from the labels of an image's tiles.

    What is one object is decided as by `stitch_instances`, and so is its number. Labels of tiles
    wait, compressed, in a file beside `out`; in memory are a row of tiles, and of every object a
    few numbers. The image appears at `out`, whole, with `finish`; leaving the `with` block without
    that removes what was written.

    Parameters
    ----------
    out
        Directory of the new OME-Zarr image; one in the folder ``labels`` of an OME-Zarr 0.5 image
        is listed there.
    image, plan, level
        As for `Stitcher`.
    min_share
        Share of pixels that makes two objects one; see `stitch_instances`.
    tiles
        Which tiles come, (samples, tiles) or (tiles,) booleans; None for all. What only others keep
        is background.
    overwrite, metadata, model
        As for `Stitcher`.
    layout
        Chunks, shards and codec; the default of labels by default.

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
        with InstanceStitcher("cells.ome.zarr", image, plan) as stitcher:
            for batch in iter_tile_batches(image, plan):
                stitcher.add(batch._replace(data=segment(batch.data)))
            cells = stitcher.finish()
    """

    def __init__(  # noqa: PLR0913 - what a new image needs to know, all but three optional
        self,
        out: str | os.PathLike[str],
        image: MultiscaleImage,
        plan: TilePlan,
        *,
        level: int = 0,
        min_share: float = 0.5,
        tiles: ArrayLike | None = None,
        overwrite: bool = False,
        metadata: Mapping[str, Any] | None = None,
        model: str | None = None,
        layout: Layout | None = None,
    ) -> None:
        chosen = planned_level(image, level, plan)
        self._space = OutputSpace.of(image, level)
        super().__init__(free_labels_place(out, image, overwrite=overwrite))
        self._share = checked_share(min_share)
        self._options: dict[str, Any] = {"overwrite": overwrite, "layout": layout}
        reading = TileReading.of(image, plan, level, None, 1)
        self._shape = (sample_count(chosen), *spatial_shape(chosen))
        self._expected = self._shape[0] * len(plan)
        record = record_of(image, level_index(image, level), plan, blend="instances", model=model)
        if tiles is not None:
            kept = reading.mask_of(tiles)
            self._expected = int(kept.sum())
            record["skipped_tiles"] = int((~kept).sum())
        self._options["metadata"] = with_record(metadata, record)
        self._spool = Spool.temporary(self._out)
        self._pieces = Pieces(self._spool)

    @property
    def tiles_done(self) -> int:
        """Number of tiles that have come."""
        return len(self._pieces)

    def add(self, batch: ImageRegionData[Any]) -> None:
        """Take the tiles of a batch, in any order.

        Parameters
        ----------
        batch
            A batch of `iter_tile_batches` whose data are labels, (B, (Z), Y, X) or
            (B, 1, (Z), Y, X) of integers: an array or a tensor.

        Raises
        ------
        InvalidInputError
            If the data are no labels, a tile is not of this image, or came before.
        """
        self._check_open()
        self._pieces.add(batch)
        if self._pieces.shape != self._shape:
            msg = f"tiles of {self._pieces.shape} pixels (samples first) came for {self._out}, which has {self._shape}"
            raise InvalidInputError(msg)

    def finish(self, *, progress: Progress = silent) -> MultiscaleImage:
        """Unite the objects, write the image and its pyramid, and open it.

        Parameters
        ----------
        progress
            Called with the shards done and to do, then with the blocks of the pyramid.

        Raises
        ------
        InvalidInputError
            If tiles are missing.
        """
        self._check_open()
        try:
            self._pieces.verify_complete(self._expected)
            objects = self._pieces.objects(self._shape, self._share)
            write_objects(objects, self._out, self._space, progress=progress, **self._options)
        finally:
            self.discard()
        return MultiscaleImage.open(self._out)

    def discard(self) -> None:
        """Remove what was written, unless it is finished."""
        self._spool.close()
        self._closed = True


def write_objects(
    objects: Objects,
    out: Path,
    space: OutputSpace,
    *,
    overwrite: bool,
    metadata: Mapping[str, Any],
    layout: Layout | None = None,
    progress: Progress = silent,
) -> None:
    """Write objects as an image of labels where their level lies, shard by shard, with a pyramid.

    Parameters
    ----------
    objects
        The objects.
    out
        Directory of the image.
    space
        Where the level lies.
    overwrite
        Whether an image that is there is replaced.
    metadata
        Attributes.
    layout
        Chunks, shards and codec; the default of labels by default.
    progress
        Called with the shards done and to do, then with the blocks of the pyramid.
    """
    level = space.level
    sizes = dict(zip(level.axes, level.shape, strict=True))
    scale = dict(zip(level.axes, level.scale, strict=True))
    axes = level.axes.replace("c", "")
    shape = tuple(sizes[axis] for axis in axes)
    y, x = level.translation[-2:]
    dtype = label_type(objects.count)
    layout = layout or label_layout(axes, shape)
    image = begin_image(
        out,
        dtype=dtype,
        shape=shape,
        axes=axes,
        channel_names=None,
        mpp=space.mpp,
        translation=(y, x),
        # 1 is what a level says that nobody measured.
        z_spacing=scale["z"] if scale.get("z", 1) != 1 else None,
        kind="labels",
        layout=layout,
        overwrite=overwrite,
        metadata=metadata,
    )
    try:
        array = cast("StoredArray", image.level(0).array)
        # One plane after the other at a place: their tiles are the same.
        unit = dict(zip(axes, array.write_unit, strict=True))
        order = [axis for axis in "tyxz" if axis in axes]
        boxes = list(blocks_of([sizes[axis] for axis in order], [unit[axis] for axis in order]))
        for done, box in enumerate(boxes, 1):
            spans = dict(zip(order, box, strict=True))
            array.write(tuple(spans[axis] for axis in axes), _painted(objects, axes, spans, dtype))
            progress("stitch", done, len(boxes))
        image.build_levels(progress=progress)
        image.close()
    finally:
        image.discard()
    _list_labels(out)


def _painted(
    objects: Objects, axes: str, spans: Mapping[str, tuple[int, int]], dtype: np.dtype[Any]
) -> Any:
    """Return the labels of a box along the axes of an image."""
    pixels = np.zeros([spans[axis][1] - spans[axis][0] for axis in axes], dtype)
    planes = "zyx"[-objects.start.shape[1] :]
    start = [spans[axis][0] for axis in planes]
    first = spans.get("t", (0, 0))[0]
    # Of one plane, along what the tiles have; of several time points, each.
    pictures = pixels.reshape(-1, *(spans[axis][1] - spans[axis][0] for axis in planes))
    for sample, picture in enumerate(pictures, first):
        objects.paint(sample, start, picture)
    return pixels


# ------------------------------------------------------------------ labels of an image


def free_labels_place(
    out: str | os.PathLike[str], image: MultiscaleImage, *, overwrite: bool
) -> Path:
    """Refuse before the first tile what would be refused after the last.

    Raises
    ------
    ExistsError
        If there is something at `out`.
    InvalidInputError
        If `out` is the image itself, or in the labels of one that is not OME-Zarr 0.5.
    """
    path = free_place(out, image, overwrite=overwrite)
    if _image_above(path) is not None and not (path.parent.parent / "zarr.json").is_file():
        msg = f"{path} is in an image of Zarr v2, which labels of v3 cannot lie in; choose another place"
        raise InvalidInputError(msg)
    return path


def _image_above(out: Path) -> Path | None:
    """Return the image whose labels something is one of."""
    above = out.parent.parent
    return above if out.parent.name == _LABELS and MultiscaleImage.exists(above) else None


def _list_labels(out: Path) -> None:
    """Name an image of labels where readers look for those of an image."""
    if _image_above(out) is None:
        return
    group = out.parent
    # Not inside the group: readers tell what they do not know there.
    lock = FileLock(group.parent.parent / f".{group.parent.name}.{_LABELS}.lock")
    with lock:
        attributes = read_group(group) if is_group(group) else {}
        ome = {"version": "0.5", **attributes.get("ome", {})}
        names = [name for name in ome.get(_LABELS, []) if name != out.name]
        attributes["ome"] = {**ome, _LABELS: [*names, out.name]}
        write_group(group, attributes)
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
