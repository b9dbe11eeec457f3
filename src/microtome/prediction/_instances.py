"""Labels of tiles that overlap as labels of the whole image: an object that was cut has one id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.regions import ImageRegionData

from ._instances_pieces import Pieces

__all__ = ["checked_share", "stitch_instances"]


def stitch_instances(
    batches: Iterable[ImageRegionData[Any]], *, min_share: float = 0.5
) -> NDArray[np.int32]:
    """Put the labels of an image's tiles together in memory; `InstanceStitcher` does it on disk.

    A pixel is what the tile says that keeps it (its ``crop_coords``), as of `stitch_tiles`. Two
    objects of two tiles are one where, in the two lines of pixels at which what the tiles keep
    meets, they share at least `min_share` of the pixels of the smaller of the two there; one that
    matches none there is compared in all that both tiles show, but for the outer half, where either
    may see half an object. So is whatever is one with one of them. Objects that touch but lie on
    different pixels stay apart. The order of tiles changes nothing. Tiles that share no pixel have
    no object in common: plan an overlap, or use `merge_labels`.

    Parameters
    ----------
    batches
        Batches of `iter_tile_batches`, in any order, whose data are labels, (B, (Z), Y, X) or
        (B, 1, (Z), Y, X) of integers: 0 is background, and what an id means is the tile's own.
    min_share
        Share of pixels, above 0 and at most 1.

    Returns
    -------
    ((Z), Y, X) of int32; (S, (Z), Y, X) where the image has several samples. 0 is background, ids
    go from 1 on in the order of the first pixel of an object, row by row.

    Raises
    ------
    InvalidInputError
        If there are no tiles, or tiles are missing, come twice or belong to several images; or if
        the data are no labels of whole tiles.
    """
    share = checked_share(min_share)
    pieces = Pieces()
    for batch in batches:
        pieces.add(batch)
    pieces.verify_complete()
    objects = pieces.objects(pieces.shape, share)
    whole = np.zeros(pieces.shape, np.int32)
    for sample, picture in enumerate(whole):
        objects.paint(sample, (0,) * picture.ndim, picture)
    return whole if len(whole) > 1 else whole[0]


def checked_share(min_share: float) -> float:
    """Refuse what is no share."""
    if not 0 < min_share <= 1:
        msg = f"min_share must be above 0 and at most 1, got {min_share}"
        raise InvalidInputError(msg)
    return min_share
