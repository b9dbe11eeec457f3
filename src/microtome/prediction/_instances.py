"""Labels of tiles that overlap as labels of the whole image: an object that was cut has one id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from microtome.errors import InvalidInputError
from microtome.regions import ImageRegionData

from ._output import as_array, place_of

__all__ = ["stitch_instances"]


def stitch_instances(
    batches: Iterable[ImageRegionData[Any]], *, min_share: float = 0.5
) -> NDArray[np.int32]:
    """Put the labels of an image's tiles together in memory.

    Two objects of two tiles are one where, in the pixels that both tiles show, they share at least
    `min_share` of the pixels of the smaller of the two there; so is whatever is one with one of
    them. Objects that touch but lie on different pixels stay apart. A pixel that tiles disagree on
    is what the tile says that keeps it (its ``crop_coords``), as of `stitch_tiles`. The order of
    tiles changes nothing. Tiles that share no pixel have no object in common: plan an overlap.

    Parameters
    ----------
    batches
        Batches of `iter_tile_batches`, in any order, whose data are labels, (B, Y, X) or
        (B, 1, Y, X) of integers: 0 is background, and what an id means is the tile's own.
    min_share
        Share of pixels, above 0 and at most 1.

    Returns
    -------
    (Y, X) of int32: 0 is background, ids go from 1 on in the order of the first pixel of an
    object, row by row.

    Raises
    ------
    InvalidInputError
        If there are no tiles, or tiles are missing, come twice or belong to several images or time
        points; or if the data are no labels of whole tiles.
    """
    if not 0 < min_share <= 1:
        msg = f"min_share must be above 0 and at most 1, got {min_share}"
        raise InvalidInputError(msg)
    joined = _Joined()
    for batch in batches:
        joined.add(batch)
    return joined.finish(min_share)


class _Joined:
    """What has come: labels with ids that are unique, and where they lie."""

    def __init__(self) -> None:
        self._shape: tuple[int, int] | None = None
        self._of: Any = None
        self._total = 0
        self._ids = 0
        self._tiles: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._kept: list[tuple[tuple[int, int], list[int], list[int], list[int]]] = []

    def add(self, batch: ImageRegionData[Any]) -> None:
        spec = cast("dict[str, Any]", batch.region_spec)
        labels = self._checked(batch, spec)
        for row, tile in enumerate(labels):
            of = batch.source[row], int(spec["data_idx"][row]), int(spec["sample_idx"][row])
            if self._of is None:
                self._of, self._total = of, int(spec["total_tiles"][row])
                sizes = [int(axis[row]) for axis in batch.data_shape]
                self._shape = sizes[-2], sizes[-1]
            start = cast("tuple[int, int]", tuple(int(at) for at in spec["coords"][row]))
            if of != self._of or start in self._tiles:
                what = "came before" if of == self._of else f"is not of {self._of}, as the others"
                msg = f"{place_of(batch, row)} {what}; the tiles of one picture are stitched, once"
                raise InvalidInputError(msg)
            # Tiles may use any numbers: ids become 1, 2, ... of all tiles.
            there, numbers = np.unique(tile, return_inverse=True)
            own = np.zeros(len(there), np.int64)
            objects = there != 0
            own[objects] = np.arange(1, objects.sum() + 1) + self._ids
            self._ids += int(objects.sum())
            self._tiles[start] = own[numbers.reshape(tile.shape)]
            stitch, crop, size = (
                [int(value) for value in spec[key][row]]
                for key in ("stitch_coords", "crop_coords", "crop_size")
            )
            self._kept.append((start, stitch, crop, size))

    def finish(self, min_share: float) -> NDArray[np.int32]:
        if self._shape is None or len(self._tiles) != self._total:
            msg = f"{len(self._tiles)} of {self._total} tiles came: stitching needs every one"
            raise InvalidInputError(msg)
        one = self._united(min_share)
        whole = np.zeros(self._shape, np.int64)
        for place, stitch, crop, size in self._kept:
            stop = [min(a + s, n) for a, s, n in zip(stitch, size, self._shape, strict=True)]
            tile = self._tiles[place]
            rows, cols = (slice(c, c + b - a) for c, a, b in zip(crop, stitch, stop, strict=True))
            whole[stitch[0] : stop[0], stitch[1] : stop[1]] = one[tile[rows, cols]]
        return _in_raster_order(whole)

    def _united(self, min_share: float) -> NDArray[np.int64]:
        """Return one id for each id of a tile; 0 for 0."""
        pairs: list[NDArray[np.int64]] = [np.zeros((0, 2), np.int64)]
        places = sorted(self._tiles)
        tallest = max(len(tile) for tile in self._tiles.values())
        for at, low in enumerate(places):
            first = self._tiles[low]
            for high in places[at + 1 :]:
                if high[0] >= low[0] + tallest:
                    break  # sorted by row: none below reaches it
                shared = _shared(low, first, high, self._tiles[high])
                if shared is not None:
                    pairs.append(_matches(*shared, min_share))
        edges = np.concatenate(pairs)
        graph = coo_array(
            (np.ones(len(edges), np.int32), (edges[:, 0], edges[:, 1])),
            shape=(self._ids + 1, self._ids + 1),
        )
        _, one = connected_components(graph, directed=False)
        # Nothing is joined to 0, so that what has its number is background alone.
        made = one.astype(np.int64) + 1
        made[0] = 0
        return made

    def _checked(self, batch: ImageRegionData[Any], spec: dict[str, Any]) -> NDArray[Any]:
        needed = {"coords", "stitch_coords", "crop_coords", "crop_size", "total_tiles"}
        if isinstance(batch.source, str) or needed - spec.keys():
            msg = f"not a collated batch of tiles: its specification lacks {sorted(needed - spec.keys()) or 'a batch axis'}"
            raise InvalidInputError(msg)
        labels = as_array(batch.data)
        labels = labels[:, 0] if labels.ndim == 4 and labels.shape[1] == 1 else labels
        wanted = (len(batch.source), *(int(size) for size in spec["patch_size"][0]))
        if len(wanted) != 3 or labels.shape != wanted or labels.dtype.kind not in "iu":
            msg = (
                f"labels of flat tiles are integers (B, Y, X) or (B, 1, Y, X), here {wanted}; got "
                f"{as_array(batch.data).shape} {labels.dtype} from {place_of(batch, 0)}"
            )
            raise InvalidInputError(msg)
        return labels


def _shared(
    low: tuple[int, int], first: NDArray[Any], high: tuple[int, int], second: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return the pixels that two tiles both show, as each shows them."""
    start = [max(a, b) for a, b in zip(low, high, strict=True)]
    stop = [
        min(a + n, b + m) for a, n, b, m in zip(low, first.shape, high, second.shape, strict=True)
    ]
    if start[0] >= stop[0] or start[1] >= stop[1]:
        return None
    views = [
        tile[start[0] - at[0] : stop[0] - at[0], start[1] - at[1] : stop[1] - at[1]]
        for at, tile in ((low, first), (high, second))
    ]
    return views[0], views[1]


def _matches(first: NDArray[Any], second: NDArray[Any], min_share: float) -> NDArray[np.int64]:
    """Return pairs of ids that share enough of the smaller one, (n, 2)."""
    both = (first != 0) & (second != 0)
    pairs, shared = np.unique(
        np.stack([first[both], second[both]], axis=1), axis=0, return_counts=True
    )
    if not len(pairs):
        return pairs
    smaller = np.minimum(_sizes(first, pairs[:, 0]), _sizes(second, pairs[:, 1]))
    return pairs[shared >= min_share * smaller]


def _sizes(labels: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.int64]:
    there, counts = np.unique(labels, return_counts=True)
    return counts[np.searchsorted(there, ids)]


def _in_raster_order(labels: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number objects 1, 2, ... by their first pixel, row by row."""
    there, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    objects = np.flatnonzero(there)
    renamed = np.zeros(len(there), np.int32)
    renamed[objects[np.argsort(first[objects])]] = np.arange(1, len(objects) + 1)
    return renamed[numbers.reshape(labels.shape)]
