"""How each image of a tissue lies in the tissue: transforms to one frame, in a table."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from microtome.coordinates import AffineTransform, CoordinateTransform
from microtome.errors import FormatError, InvalidInputError, MicrotomeError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.storage import locked

from ._layout import CohortLayout
from ._modality import Modality, parse_modality
from ._tables import read_parquet, tissue_row, write_parquet

__all__ = [
    "Alignments",
    "as_frame_transform",
    "read_alignments",
    "set_alignment",
    "tell_aligned",
]

_log = logging.getLogger(__name__)

Alignments = Mapping[tuple[str, str], AffineTransform]
"""Transform by (tissue id, modality): from micrometres of the image to those of the tissue."""

_AXES = ("x", "y")
# Of any number of tissues these are named.
_NAMED = 3
# x' = x_x x + x_y y + x_0, and y' likewise.
_ENTRIES = ("x_x", "x_y", "x_0", "y_x", "y_y", "y_0")
_SCHEMA = pa.schema(
    [
        ("tissue_id", pa.string()),
        ("modality", pa.string()),
        *((name, pa.float64()) for name in _ENTRIES),
        ("method", pa.string()),
    ]
)


def as_frame_transform(transform: CoordinateTransform | ArrayLike) -> AffineTransform:
    """Return an affine transform of the plane that has an inverse.

    Parameters
    ----------
    transform
        Over axes (x, y), or a matrix (2, 3) or (3, 3) whose last row is (0, 0, 1).

    Raises
    ------
    InvalidInputError
        If it is no such transform, not finite, or has no inverse.
    """
    if isinstance(transform, CoordinateTransform):
        if transform.input_axes != _AXES or transform.output_axes != _AXES:
            msg = f"an alignment leads from (x, y) to (x, y), got {transform!r}"
            raise InvalidInputError(msg)
        matrix = transform.augmented_matrix
    else:
        try:
            given = np.asarray(transform, np.float64)
        except (TypeError, ValueError):
            msg = f"an alignment is a transform or a matrix (2, 3) of numbers, got {transform!r}"
            raise InvalidInputError(msg) from None
        if given.shape == (2, 3):
            given = np.vstack([given, [0.0, 0.0, 1.0]])
        if given.shape != (3, 3) or not np.array_equal(given[2], [0, 0, 1]):
            msg = f"an alignment is a matrix (2, 3), or (3, 3) with last row 0 0 1, got {given.tolist()}"
            raise InvalidInputError(msg)
        matrix = given
    found = AffineTransform(_AXES, _AXES, matrix)
    found.inverse_transform()  # raises where there is none
    return found


def set_alignment(
    cohort: str | os.PathLike[str],
    tissue_id: str,
    modality: str | Modality,
    transform: CoordinateTransform | ArrayLike | None,
    *,
    method: str = "affine",
) -> None:
    """Note how an image lies in its tissue.

    All images of a tissue share the tissue's frame, in which tiles are counted. An image without
    an alignment has the frame's origin at the top-left corner of its first pixel.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    tissue_id, modality
        Which image.
    transform
        From micrometres of the image, (x, y) from the top-left corner of its first pixel, to
        micrometres of the tissue's frame; None removes what was noted.
    method
        How it was found, for people: ``"rigid"``, ``"landmarks"``...

    Raises
    ------
    UnknownNameError
        If the cohort has no such image.
    InvalidInputError
        If the transform is none of the plane, has no inverse, or puts the image where no other
        image of the tissue is, nor itself without a transform: in another unit, say.
    """
    layout = CohortLayout.open(cohort)
    kind = parse_modality(modality)
    if tissue_row(layout, tissue_id, kind) is None:
        msg = f"{layout.tissues} has no tissue {tissue_id!r} imaged as {kind}"
        raise UnknownNameError(msg)
    entries: Sequence[float] | None = None
    if transform is not None:
        found = as_frame_transform(transform)
        _verify_meets(layout, tissue_id, kind, found)
        entries = found.augmented_matrix[:2].ravel().tolist()
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        rows = _rows(layout)
        rows = [r for r in rows if (r["tissue_id"], r["modality"]) != (tissue_id, kind.name)]
        if entries is not None:
            numbers = dict(zip(_ENTRIES, entries, strict=True))
            rows.append(
                {"tissue_id": tissue_id, "modality": kind.name, **numbers, "method": method}
            )
        write_parquet(pa.Table.from_pylist(rows, schema=_SCHEMA), layout.alignments)


def _verify_meets(
    layout: CohortLayout, tissue_id: str, modality: Modality, transform: AffineTransform
) -> None:
    """Refuse a transform that takes an image off all of its tissue."""
    own = _extent(layout, tissue_id, modality)
    if own is None:
        return
    known = read_alignments(layout)
    frames: list[tuple[float, ...]] = [(0.0, 0.0, *own)]
    for other in layout.modalities():
        extent = None if other == modality else _extent(layout, tissue_id, other)
        if extent is not None:
            there = known.get((tissue_id, other.name))
            box = (0.0, 0.0, *extent)
            frames.append(box if there is None else there.apply_box(box))
    moved = transform.apply_box((0.0, 0.0, *own))
    x0, y0, x1, y1 = moved[0], moved[1], moved[2], moved[3]
    if not any(x0 < c and a < x1 and y0 < d and b < y1 for a, b, c, d in frames):
        msg = (
            f"{modality} of tissue {tissue_id!r}, {own[0]:g} x {own[1]:g} um, would lie at x {x0:g} to "
            f"{x1:g} and y {y0:g} to {y1:g} um, where nothing of the tissue is. Are these pixels, or "
            "nanometres? An alignment is in micrometres"
        )
        raise InvalidInputError(msg)


def _extent(layout: CohortLayout, tissue_id: str, modality: Modality) -> tuple[float, float] | None:
    """Return the (width, height) of an image in micrometres; None where there is none."""
    for resolution in layout.resolutions(modality):
        path = layout.image(modality, resolution, tissue_id)
        if MultiscaleImage.exists(path):
            shape, mpp = MultiscaleImage.open(path).level_shape(0), resolution.mpp
            return shape[-1] * mpp[1], shape[-2] * mpp[0]
    return None


def read_alignments(layout: CohortLayout) -> Alignments:
    """Return the alignments of a cohort; none where it has no table of them.

    Raises
    ------
    FormatError
        If the table is damaged, names an image twice, or has a transform without an inverse.
    """
    found: dict[tuple[str, str], AffineTransform] = {}
    for row in _rows(layout):
        key = str(row["tissue_id"]), str(row["modality"])
        if key in found:
            msg = f"{layout.alignments}: tissue {key[0]!r} imaged as {key[1]} is there twice"
            raise FormatError(msg)
        try:
            numbers = np.asarray([row[name] for name in _ENTRIES], np.float64)
            found[key] = as_frame_transform(numbers.reshape(2, 3))
        except (TypeError, ValueError, MicrotomeError) as error:
            msg = f"{layout.alignments}: tissue {key[0]!r} imaged as {key[1]}: {error}"
            raise FormatError(msg) from error
    return found


def tell_aligned(
    layout: CohortLayout, modality: Modality, tissue_ids: Iterable[str], *, who: str, advice: str
) -> None:
    """Warn where tiles are read on the own grid of images that lie elsewhere in their tissues.

    Parameters
    ----------
    layout, modality, tissue_ids
        Which images.
    who
        What reads them.
    advice
        What reads them where they lie.
    """
    known = read_alignments(layout)
    turned = [tissue for tissue in tissue_ids if (tissue, modality.name) in known]
    if turned:
        more = f" and {len(turned) - _NAMED} more" if len(turned) > _NAMED else ""
        _log.warning(
            "%s: images of %s%s as %s lie in their tissues by an alignment, in whose frame tiles are "
            "counted, and tiles are read on the images' own grids, as if there were none; %s",
            who,
            ", ".join(turned[:_NAMED]),
            more,
            modality,
            advice,
        )


def _rows(layout: CohortLayout) -> list[dict[str, Any]]:
    if not layout.alignments.is_file():
        return []
    return read_parquet(layout.alignments, ["tissue_id", "modality", *_ENTRIES]).to_pylist()
