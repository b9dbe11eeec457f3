"""From the frame of a tissue, in which its tiles and masks are counted, to pixels of one of its images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.cohort import Alignments, read_alignments
from microtome.errors import InvalidInputError

from ._cohort_tiles import TissueImages
from ._qupath import Polygons, QuPathObject

__all__ = ["moved_objects", "onto_image", "verify_upright"]

# Of a pixel: a tile that comes back is told from one that was drawn on other pixels by a millionth.
_DECIMALS = 8


def onto_image(
    images: TissueImages, tissue: str, scale: tuple[float, float], known: Alignments
) -> NDArray[np.float64] | None:
    """Return what takes pixels of a slide, as those of the frame are scaled to, to where they lie on it.

    Parameters
    ----------
    images, tissue
        Which image.
    scale
        Pixels of the slide in one of the resolution, (y, x).
    known
        How the cohort's images lie, as `read_alignments` of its layout says it.

    Returns
    -------
    (3, 3), of (x, y, 1); None where the image begins at the frame's origin, as all do of which nobody
    says how they lie.
    """
    found = known.get((tissue, images.modality.name))
    if found is None:
        return None
    y, x = (float(s) / mpp for s, mpp in zip(scale, images.resolution.mpp, strict=True))
    size = np.diag([x, y, 1.0])
    return size @ np.linalg.inv(found.augmented_matrix) @ np.linalg.inv(size)


def moved_objects(
    objects: Iterable[QuPathObject], matrix: NDArray[np.float64] | None
) -> Iterator[QuPathObject]:
    """Yield objects where a matrix of `onto_image` takes them; None leaves them."""
    if matrix is None:
        yield from objects
        return
    for each in objects:
        nucleus = None if each.nucleus is None else _moved(each.nucleus, matrix)
        yield replace(each, polygons=_moved(each.polygons, matrix), nucleus=nucleus)


def verify_upright(images: TissueImages, what: str) -> None:
    """Refuse images that lie in their tissues by an alignment, of which some files can say nothing.

    Raises
    ------
    InvalidInputError
        If one does.
    """
    known = read_alignments(images.layout)
    turned = [tissue for tissue in images if (tissue, images.modality.name) in known]
    if turned:
        msg = (
            f"the images of {', '.join(turned[:3])} as {images.modality} lie in their tissues by an "
            f"alignment, and {what} are counted in pixels of the tissue's first image; take the images "
            "without an alignment with --modality (modality=), or QuPath's GeoJSON, which can be turned"
        )
        raise InvalidInputError(msg)


def _moved(polygons: Polygons, matrix: NDArray[np.float64]) -> Polygons:
    return tuple(tuple(_ring(ring, matrix) for ring in part) for part in polygons)


def _ring(ring: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = np.asarray(ring, np.float64).T
    # Each corner by the same sums, so that the last one stays the first.
    moved = [row[0] * x + row[1] * y + row[2] for row in matrix[:2]]
    return np.asarray(np.round(np.stack(moved, axis=1), _DECIMALS), np.float64)
