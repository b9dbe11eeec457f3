"""Tissue or background, for every pixel of a coarse image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._brightfield import brightfield_tissue
from ._multiplex import multiplex_tissue

__all__ = ["Kind", "Method", "detect_tissue"]

Method = Literal["otsu", "whole"]
Kind = Literal["brightfield", "multiplex"]

# Debris is smaller than a square of 100 um, and a gap that small still belongs to its tissue.
_SMALLEST_UM2 = 10_000.0
_LARGEST_SHARE = 0.05


def detect_tissue(
    image: NDArray[Any],
    *,
    mpp: float | Sequence[float],
    method: str = "otsu",
    kind: Kind | None = None,
    min_object_um2: float = _SMALLEST_UM2,
    max_hole_um2: float = _SMALLEST_UM2,
) -> NDArray[np.bool_]:
    """Find the tissue in an image, best of about 8 um per pixel.

    Brightfield (H&E, IHC): Otsu's threshold on the saturation of the colours finds stained tissue,
    from where the mask grows over all that absorbs more light than glass does. Multiplex: Otsu's
    threshold on the mean of the channels, each between its own dark and bright, on a log scale.

    Otsu's threshold always cuts an image in two, so both are asked first whether there are two
    things to tell apart: an image of background alone gives an empty mask, and one of tissue alone
    a full one. The rules are with `brightfield_tissue` and `multiplex_tissue` in the source.

    A multiplex image that is no larger than a square of 100 um shows a few cells, and what lies
    between them is no background: where there is signal at all, all of it is tissue.

    A region that was chosen to be tissue, as most of imaging mass cytometry are, need not be looked
    at: `"whole"` takes all of it.

    Objects and holes are removed by their size in um^2, so the result depends little on the
    resolution of the image.

    Parameters
    ----------
    image
        Colours (3, H, W) or (H, W, 3) uint8, or channels (C, H, W) of real numbers.
    mpp
        Micrometres per pixel; one number or (y, x).
    method
        `"otsu"`, or `"whole"`: every pixel is tissue.
    kind
        `"brightfield"` or `"multiplex"`; by default brightfield for uint8 with three colours.
    min_object_um2
        Tissue smaller than this is removed; in an image so small that this would be more than a
        twentieth of it, tissue smaller than a twentieth. 0 keeps all.
    max_hole_um2
        Holes in the tissue up to this size are filled, within the same limit. 0 keeps all.

    Returns
    -------
    mask
        (H, W) True on tissue.

    Raises
    ------
    InvalidInputError
        If the image is no such image, has values that are not finite, or a parameter is wrong.
    """
    if method not in get_args(Method):
        raise InvalidInputError(
            f"method must be one of {', '.join(get_args(Method))}, got {method!r}"
        )
    scale = _read_mpp(mpp)
    for name, size in (("min_object_um2", min_object_um2), ("max_hole_um2", max_hole_um2)):
        if not size >= 0:
            raise InvalidInputError(f"{name} must be at least 0, got {size}")
    read = _read_kind(image, kind)
    if method == "whole":
        spatial = _colours_last(image).shape[:2] if read == "brightfield" else image.shape[-2:]
        return np.ones(spatial, np.bool_)
    if read == "brightfield":
        mask = brightfield_tissue(_colours_last(image), scale)
    else:
        mask = multiplex_tissue(image, scale)
        if mask.any() and mask.size * scale[0] * scale[1] <= _SMALLEST_UM2:
            return np.ones(mask.shape, np.bool_)
    return _clean(mask, scale, min_object_um2, max_hole_um2)


def _read_mpp(mpp: float | Sequence[float]) -> tuple[float, float]:
    try:
        y, x = mpp if isinstance(mpp, Sequence) else (mpp, mpp)
        scale = float(y), float(x)
    except (TypeError, ValueError):
        raise InvalidInputError(f"mpp must be a number or (y, x), got {mpp!r}") from None
    if not all(np.isfinite(side) and side > 0 for side in scale):
        raise InvalidInputError(f"mpp must be above 0, got {mpp!r}")
    return scale


def _read_kind(image: NDArray[Any], kind: Kind | None) -> Kind:
    if image.ndim != 3 or image.size == 0 or image.dtype.kind not in "buif":
        raise InvalidInputError(
            f"an image must be (C, H, W) or (H, W, 3) real numbers, got shape {image.shape} of "
            f"{image.dtype}"
        )
    if kind is not None and kind not in get_args(Kind):
        raise InvalidInputError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    colours = image.dtype == np.uint8 and 3 in {image.shape[0], image.shape[-1]}
    if kind == "brightfield" and not colours:
        raise InvalidInputError(
            f"a brightfield image must be uint8 with 3 colours, got shape {image.shape} of "
            f"{image.dtype}"
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise InvalidInputError("the image has values that are NaN or infinite")
    return kind or ("brightfield" if colours else "multiplex")


def _colours_last(image: NDArray[Any]) -> NDArray[np.uint8]:
    return np.moveaxis(image, 0, -1) if image.shape[0] == 3 else image


def _clean(
    mask: NDArray[np.bool_], mpp: tuple[float, float], object_um2: float, hole_um2: float
) -> NDArray[np.bool_]:
    """Remove small objects, then fill small holes."""
    from skimage.morphology import remove_small_holes, remove_small_objects

    def pixels(area: float) -> int:
        # "Up to this many pixels" is what scikit-image removes; keep what is as large as asked.
        return int(np.ceil(min(area / (mpp[0] * mpp[1]), _LARGEST_SHARE * mask.size))) - 1

    if pixels(object_um2) > 0:
        mask = remove_small_objects(mask, max_size=pixels(object_um2))
    if pixels(hole_um2) > 0:
        mask = remove_small_holes(mask, max_size=pixels(hole_um2))
    return mask
