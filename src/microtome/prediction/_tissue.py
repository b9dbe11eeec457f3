"""Which tiles have anything on them: those of a mask, of a rule, or of the tissue that is found."""

from __future__ import annotations

import os
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import Level, MultiscaleImage, as_array
from microtome.segmentation import detect_tissue
from microtome.sources import open_image
from microtome.tiling import TilePlan

from ._batches import planned_level, sample_count, spatial_shape

__all__ = ["masks_of", "tiles_with_tissue"]

# Tissue is looked for at about this pixel size, in micrometres (see `detect_tissue`).
_COARSE_UM = 8.0
_BAND_BYTES = 64 << 20
# Sides of a mask and of the level it is of may differ by this many mask pixels after scaling.
_ROUNDING = 1.5


def masks_of(
    image: MultiscaleImage, level: int, mask: Any, *, skip_empty: bool
) -> NDArray[np.bool_] | None:
    """Return what is tissue on a level, coarse, (samples, Y, X); None for all of it.

    Parameters
    ----------
    image, level
        What is predicted.
    mask
        An array (Y, X), or (samples, Y, X), that covers the level, not 0 on tissue; an image of
        labels or whatever `open_image` takes as one; or a callable from coarse pixels (C, Y, X) to
        such an array. None where tissue is found by itself, or all is taken.
    skip_empty
        Whether tissue is looked for where there is no mask.

    Raises
    ------
    InvalidInputError
        If the mask is none, or of another shape than the level.
    """
    if mask is None and not skip_empty:
        return None
    chosen = planned_level(image, level)
    if mask is None:
        found = [_found(image, level, sample) for sample in range(sample_count(chosen))]
    elif callable(mask):
        found = [_told(mask, image, level, sample) for sample in range(sample_count(chosen))]
    else:
        found = _given(mask)
    masks = np.stack([np.asarray(m) != 0 for m in found])
    _verify_fits(masks.shape[1:], chosen)
    if len(masks) not in (1, sample_count(chosen)):
        msg = f"{len(masks)} masks for {sample_count(chosen)} samples of {image.uri}"
        raise InvalidInputError(msg)
    return np.broadcast_to(masks, (sample_count(chosen), *masks.shape[1:]))


def tiles_with_tissue(
    plan: TilePlan, masks: NDArray[np.bool_], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Return which tiles have a pixel of a mask in them, (samples, tiles).

    Parameters
    ----------
    plan
        The tiles.
    masks
        (samples, Y, X), of any resolution.
    shape
        Of the level that they cover, its last two axes (Y, X).
    """
    size = np.asarray(masks.shape[1:])
    factor = np.asarray(shape[-2:]) / size
    # Of a level that was halved and halved the last pixel stands for less than the others.
    whole = np.ceil(factor)
    factor = np.where(np.ceil(np.asarray(shape[-2:]) / whole) == size, whole, factor)
    first = plan.coords[:, -2:]
    low = np.floor(first / factor).astype(np.int64)
    high = np.ceil((first + plan.tile_size[-2:]) / factor).astype(np.int64)
    low = np.minimum(low, np.asarray(masks.shape[1:]) - 1)
    high = np.clip(high, low + 1, masks.shape[1:])
    kept: list[NDArray[np.bool_]] = []
    for mask in masks:
        # Sums over all boxes from the corner: a tile is four look-ups, however large.
        sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
        np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1, out=sums[1:, 1:])
        count = (
            sums[high[:, 0], high[:, 1]]
            - sums[low[:, 0], high[:, 1]]
            - sums[high[:, 0], low[:, 1]]
            + sums[low[:, 0], low[:, 1]]
        )
        kept.append(count > 0)
    return np.stack(kept)


def _given(mask: Any) -> list[NDArray[Any]]:
    if isinstance(mask, str | os.PathLike | MultiscaleImage):
        image = open_image(mask)
        fitting = next(
            (at for at in range(image.level_count) if max(image.level_shape(at)[-2:]) <= 8192),
            image.level_count - 1,
        )
        pixels = np.asarray(image.level(fitting)[...])
        flat = pixels.reshape(-1, *pixels.shape[-2:])
        return [np.asarray(flat != 0).max(axis=0)]
    pixels = as_array(mask, "mask")
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "biuf" or not pixels.size:
        msg = f"a mask is an array (Y, X) or (samples, Y, X), an image, or a callable, got {pixels.shape} {pixels.dtype}"
        raise InvalidInputError(msg)
    return list(pixels.reshape(-1, *pixels.shape[-2:]))


def _verify_fits(shape: tuple[int, ...], level: Level) -> None:
    height, width = spatial_shape(level)[-2:]
    by_rows, by_columns = shape[0] / height, shape[1] / width
    off = abs(by_rows - by_columns) * max(height, width)
    if off > _ROUNDING * max(1.0, by_rows, by_columns):
        msg = (
            f"a mask of {shape} pixels does not cover a level of {(height, width)}: their sides "
            "have other proportions"
        )
        raise InvalidInputError(msg)


def _told(rule: Any, image: MultiscaleImage, level: int, sample: int) -> NDArray[Any]:
    pixels, _ = _coarse(image, level, sample)
    answer: NDArray[Any] = np.asarray(rule(pixels))
    if answer.shape != pixels.shape[-2:] or answer.dtype.kind not in "biuf":
        msg = (
            f"mask= must return an array {pixels.shape[-2:]} for pixels {pixels.shape}, got "
            f"{answer.shape} {answer.dtype}"
        )
        raise InvalidInputError(msg)
    return answer


def _found(image: MultiscaleImage, level: int, sample: int) -> NDArray[Any]:
    pixels, mpp = _coarse(image, level, sample)
    return detect_tissue(pixels, mpp=mpp)


def _coarse(
    image: MultiscaleImage, level: int, sample: int
) -> tuple[NDArray[Any], tuple[float, float]]:
    """Read a level, or a coarser one, at about 8 micrometres a pixel: (C, Y, X)."""
    levels = [image.level(at) for at in range(level % image.level_count, image.level_count)]
    scaled = image.mpp is not None
    fine = [v for v in levels if scaled and v.scale[-1] <= _COARSE_UM]
    chosen = fine[-1] if fine else levels[0]
    factor = max(1, int(_COARSE_UM / chosen.scale[-1])) if scaled else 1
    height, width = chosen.shape[-2:]
    at = {"t": (sample, sample + 1)}
    lead = tuple(
        at.get(axis, (0, size))
        for axis, size in zip(chosen.axes[:-2], chosen.shape[:-2], strict=True)
    )
    planes = int(np.prod([stop - start for start, stop in lead], dtype=np.int64))
    rows = max(1, _BAND_BYTES // max(1, planes * width * chosen.dtype.itemsize * factor)) * factor
    bands: list[NDArray[Any]] = []
    for top in range(0, height, rows):
        box = (*lead, (top, min(top + rows, height)), (0, width))
        pixels = chosen.array.read(box).reshape(
            *_leading(chosen.axes, lead), box[-2][1] - top, width
        )
        bands.append(_pooled(pixels, factor))
    mpp = (chosen.scale[-2] * factor, chosen.scale[-1] * factor)
    return np.concatenate(bands, axis=-2), mpp


def _leading(axes: str, lead: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Return (channels, planes) of a box of one time point."""
    sizes = {axis: stop - start for axis, (start, stop) in zip(axes[:-2], lead, strict=True)}
    return sizes.get("c", 1), sizes.get("z", 1)


def _pooled(pixels: NDArray[Any], factor: int) -> NDArray[Any]:
    """Average squares of (C, Z, Y, X), an edge of what is there, and take the brightest plane."""
    flat = pixels.max(axis=1)
    if factor == 1:
        return flat
    ys, xs = (np.arange(0, size, factor) for size in flat.shape[-2:])
    sums = np.add.reduceat(np.add.reduceat(flat, ys, axis=-2, dtype=np.float64), xs, axis=-1)
    sizes = [
        np.diff(np.append(at, size)) for at, size in zip((ys, xs), flat.shape[-2:], strict=True)
    ]
    means = sums / np.multiply.outer(sizes[0], sizes[1])
    return cast("NDArray[Any]", np.rint(means) if flat.dtype.kind in "iu" else means).astype(
        flat.dtype
    )
