"""Labels that were made tile by tile, and cut where tiles meet, as labels of the whole image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.progress import Progress, silent
from microtome.sources import open_image
from microtome.tiling import TilePlan, plan_tiles

from ._batches import planned_level, sample_count, spatial_shape
from ._instances import checked_share
from ._instances_pieces import Objects
from ._instances_spool import Spool
from ._instances_write import free_labels_place, write_objects
from ._merge import local_labels
from ._record import library_version, with_record
from ._space import OutputSpace

__all__ = ["merge_labels"]


def merge_labels(
    labels: Any,
    out: str | os.PathLike[str],
    *,
    tile_size: int | Sequence[int] | TilePlan,
    min_share: float = 0.5,
    overwrite: bool = False,
    metadata: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> MultiscaleImage:
    """Join the objects of labels that were made tile by tile, without overlap, where tiles meet.

    Two objects on either side of a seam are one where they touch along at least `min_share` of the
    pixels that the shorter of the two has at the seam. An object is taken for what it is inside its
    tile alone: two tiles may use the same number. Where tiles still overlap, `predict_instances` and
    `InstanceStitcher` know better, because they compare what both tiles saw.

    Memory does not depend on the size of the image but for about 40 bytes an object of a tile.

    Parameters
    ----------
    labels
        The labels, ((T), (Z), Y, X) of integers: whatever `microtome.open_image` takes.
    out
        Directory of the new OME-Zarr image of labels, at the place of the given ones; as for
        `predict_instances`.
    tile_size
        How large tiles were, from the first pixel on: one number or one an axis. Or the plan of
        tiles whose kept parts were written.
    min_share
        Share of pixels at the seam, above 0 and at most 1; a small one joins all that touches.
    overwrite
        Whether an image at `out` is replaced, when the new one is complete.
    metadata
        Further attributes of the image.
    progress
        Called with the tiles read and to read, then with the shards, then with the blocks of the
        pyramid.

    Returns
    -------
    The new `MultiscaleImage`, open for reading. Ids go from 1 on in the order of an object's first
    pixel, row by row.

    Raises
    ------
    ExistsError
        If there is something at `out`.
    InvalidInputError
        If the labels have channels, are no integers or below 0, or the plan is of something else.
    NoResolutionError
        If the labels do not state their pixel size.
    """
    image = open_image(labels)
    _verify_labels(image)
    level = planned_level(image, 0, tile_size if isinstance(tile_size, TilePlan) else None)
    shape = spatial_shape(level)
    path = free_labels_place(out, image, overwrite=overwrite)
    space = OutputSpace.of(image, 0)
    share = checked_share(min_share)
    if isinstance(tile_size, TilePlan):
        starts = tile_size.stitch
        stops = np.minimum(starts + tile_size.crop_size, shape)
    else:
        starts, stops = _grid(shape, tile_size)
    spool = Spool.temporary(Path(out))
    try:
        rows = _read(image, spool, (starts, stops), progress)
        objects = Objects.of(spool, rows, (sample_count(level), *shape), share, touching=True)
        record = {
            "source": image.uri,
            "tile_size": [int(size) for size in (stops - starts).max(axis=0)],
            "min_share": share,
            "version": library_version(),
        }
        write_objects(
            objects,
            path,
            space,
            overwrite=overwrite,
            metadata=with_record(metadata, record),
            progress=progress,
        )
    finally:
        spool.close()
    return MultiscaleImage.open(path)


def _verify_labels(image: MultiscaleImage) -> None:
    level = image.level(0)
    sizes = dict(zip(level.axes, level.shape, strict=True))
    if sizes.get("c", 1) > 1 or level.dtype.kind not in "iu":
        msg = f"labels are integers without channels, {image.uri} has the axes {level.axes!r} of {level.shape} {level.dtype}"
        raise InvalidInputError(msg)


def _grid(
    shape: Sequence[int], size: int | Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where tiles side by side start and stop."""
    # Checked, and told, as everywhere else.
    checked = plan_tiles(shape, size, 0).tile_size
    edges = [range(0, length, step) for length, step in zip(shape, checked, strict=True)]
    starts = np.array(list(product(*edges)), np.int64)
    return starts, np.minimum(starts + checked, shape)


def _read(
    image: MultiscaleImage,
    spool: Spool,
    tiles: tuple[NDArray[np.int64], NDArray[np.int64]],
    progress: Progress,
) -> list[NDArray[np.int64]]:
    """Read every tile once, and return what is known of it."""
    level = image.level(0)
    samples, rank = sample_count(level), tiles[0].shape[1]
    rows: list[NDArray[np.int64]] = []
    total = samples * len(tiles[0])
    for sample in range(samples):
        for start, stop in zip(*tiles, strict=True):
            spans = dict(
                zip("zyx"[-rank:], zip(start.tolist(), stop.tolist(), strict=True), strict=True)
            )
            spans = {"t": (sample, sample + 1), "c": (0, 1), "z": (0, 1), **spans}
            pixels = level.array.read(tuple(spans[axis] for axis in level.axes))
            pixels = pixels.reshape((stop - start).tolist())
            if pixels.dtype.kind == "i" and pixels.min() < 0:
                msg = f"labels are 0 for background and positive for objects, got {pixels.min()} in {image.uri} between {start.tolist()} and {stop.tolist()}"
                raise InvalidInputError(msg)
            own, count = local_labels(pixels)
            facts = np.concatenate([[sample], start, start, stop, start, stop, [count]])
            spool.append(facts, own)
            rows.append(facts)
            progress("read", len(rows), total)
    return rows
