"""Many regions into one batch, and back, exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, overload

import numpy as np

from microtome.errors import InvalidInputError
from microtome.image import Channels, MultiscaleImage

from ._region import ImageRegionData, PatchSpecs
from ._stacks import Stack, pixels_of
from ._windows import Windows

__all__ = ["collate_regions", "decollate_regions", "region_batch"]

# Stands for "this image has fewer axes" in a collated shape; no size is negative.
_NO_AXIS = -1


@overload
def collate_regions(regions: Sequence[ImageRegionData[Any]]) -> ImageRegionData[Any]: ...


@overload
def collate_regions(
    regions: Sequence[tuple[ImageRegionData[Any], ...]],
) -> tuple[ImageRegionData[Any], ...]: ...


def collate_regions(
    regions: Sequence[ImageRegionData[Any]] | Sequence[tuple[ImageRegionData[Any], ...]],
) -> ImageRegionData[Any] | tuple[ImageRegionData[Any], ...]:
    """Stack regions into one batch.

    Parameters
    ----------
    regions
        Regions whose data have one shape and dtype; sources may differ in everything else. Or
        tuples of them, of several images or of an image and its labels: a batch of each is made.

    Returns
    -------
    One `ImageRegionData`, or a tuple of them: data (B, C, (Z), Y, X), shapes one tuple of length B a dimension,
    `region_spec` a dict of sequences of length B, other fields lists of length B. Where stored
    arrays differ in rank, `original_data_shape` has -1 for the axes that one lacks.

    Raises
    ------
    InvalidInputError
        If there is none, or data or specifications do not fit each other.
    """
    if not regions:
        msg = "cannot collate no regions"
        raise InvalidInputError(msg)
    if isinstance(regions[0], ImageRegionData):
        return _collated(cast("Sequence[ImageRegionData[Any]]", regions))
    sides = cast("Sequence[tuple[ImageRegionData[Any], ...]]", regions)
    counts = sorted({len(side) for side in sides})
    if len(counts) > 1:
        msg = f"tuples of one batch have as many regions each, got {counts}"
        raise InvalidInputError(msg)
    return tuple(_collated(side) for side in zip(*sides, strict=True))


def _collated(regions: Sequence[ImageRegionData[Any]]) -> ImageRegionData[Any]:
    first = regions[0]
    # Stacking would cast one type to another without a word.
    forms = {(tuple(region.data.shape), region.data.dtype) for region in regions}
    if len(forms) > 1:
        shown = sorted((shape, str(dtype)) for shape, dtype in forms)
        msg = f"regions of one batch have one shape and dtype, got {shown[:4]}"
        raise InvalidInputError(msg)
    kinds = {tuple(region.region_spec) for region in regions}
    if len({frozenset(kind) for kind in kinds}) > 1:
        shown = sorted({tuple(sorted(kind)) for kind in kinds})
        msg = f"regions of one batch have one kind of specification, got {shown}"
        raise InvalidInputError(msg)
    return ImageRegionData(
        data=_stacked([region.data for region in regions]),
        source=[str(region.source) for region in regions],
        data_shape=_transposed([region.data_shape for region in regions]),
        dtype=[str(region.dtype) for region in regions],
        axes=[str(region.axes) for region in regions],
        original_data_shape=_transposed([region.original_data_shape for region in regions]),
        region_spec={
            key: _column([region.region_spec[key] for region in regions])
            for key in first.region_spec
        },
        additional_metadata=[
            cast("Mapping[str, Any]", region.additional_metadata) for region in regions
        ],
    )


def decollate_regions(batch: ImageRegionData[Any]) -> list[ImageRegionData[Any]]:
    """Undo `collate_regions`.

    Parameters
    ----------
    batch
        A collated batch; its data may have been replaced by a model's output of the same length.

    Returns
    -------
    One region a sample; data are views of the batch.

    Raises
    ------
    InvalidInputError
        If the data and the other fields differ in length.
    """
    count = len(batch.source)
    if isinstance(batch.source, str) or len(batch.data) != count:
        msg = f"not a collated batch: data of length {len(batch.data)}, source {batch.source!r}"
        raise InvalidInputError(msg)
    spec = cast("Mapping[str, Any]", batch.region_spec)
    columns = [_scalars(values) for values in spec.values()]
    rows = zip(*columns, strict=True) if columns else [()] * count
    names = tuple(spec)
    # Field by field, not region by region: a batch is taken apart in less time than its pixels
    # are stacked.
    fields = (
        list(batch.data),
        batch.source,
        _rows(batch.data_shape),
        batch.dtype,
        batch.axes,
        _rows(batch.original_data_shape),
        [dict(zip(names, row, strict=True)) for row in rows],
        batch.additional_metadata,
    )
    return [ImageRegionData(*region) for region in zip(*fields, strict=True)]


def region_batch(
    images: Sequence[Stack],
    windows: Windows,
    data: Any,
    *,
    channels: Channels | Mapping[int, Channels] | None = None,
    specs: Mapping[str, Any] | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
) -> ImageRegionData[Any]:
    """Describe a batch that `read_regions` filled, in collated form.

    Parameters
    ----------
    images, windows, channels
        What was read.
    data
        The batch, (n, C, (Z), Y, X).
    specs
        Further columns of the specification, each of length n (those of `TileSpecs`).
    metadata
        Further facts a window, each added to what is known of its image.
    """
    facts = {
        int(i): _facts(
            images[int(i)],
            windows.level,
            channels[int(i)] if isinstance(channels, Mapping) else channels,
        )
        for i in np.unique(windows.image)
    }
    own = [facts[int(i)] for i in windows.image]
    spec: PatchSpecs = {
        "data_idx": cast("Any", windows.image),
        "sample_idx": cast(
            "Any", np.zeros(len(windows), np.int64) if windows.sample is None else windows.sample
        ),
        "coords": cast("Any", windows.start),
        "patch_size": cast("Any", np.tile(np.asarray(windows.size, np.int64), (len(windows), 1))),
    }
    return ImageRegionData(
        data=data,
        source=[fact["source"] for fact in own],
        data_shape=_transposed([fact["data_shape"] for fact in own]),
        dtype=[fact["dtype"] for fact in own],
        axes=[fact["axes"] for fact in own],
        original_data_shape=_transposed([fact["original_data_shape"] for fact in own]),
        region_spec=cast("Any", {**spec, **(specs or {})}),
        additional_metadata=[
            {**fact["metadata"], **extra}
            for fact, extra in zip(own, metadata or [{}] * len(own), strict=True)
        ],
    )


def _facts(image: Stack, level: int, channels: Channels | None) -> dict[str, Any]:
    pixels = pixels_of(image, level)
    picked = pixels.picked(channels)
    if isinstance(image, MultiscaleImage):
        mpp = image.level_mpp(level) if image.mpp is not None else None
        where = _where(image, level) if mpp else {}
    else:
        mpp = getattr(image, "mpp", None)
        where = {}
    names, stored = pixels.channel_names, pixels.array
    shape = stored.shape if stored is not None else cast("Any", image).original_data_shape
    return {
        "source": pixels.source,
        "data_shape": (pixels.shape[0], len(picked), *pixels.shape[2:]),
        "dtype": str(pixels.dtype),
        "axes": pixels.axes.upper(),
        "original_data_shape": tuple(shape),
        "metadata": {
            "level": level,
            "mpp": (mpp.y, mpp.x) if mpp else None,
            "channel_names": tuple(names[i] for i in picked) if names else None,
            "chunks": getattr(stored, "chunks", None),
            "shards": getattr(stored, "shards", None),
            **where,
        },
    }


def _where(image: MultiscaleImage, level: int) -> dict[str, Any]:
    """Return what an image says of its place beyond its pixel size, as far as it says it."""
    base, chosen = image.level(0), image.level(level)
    axes = [axis for axis in "zyx" if axis in base.axes]
    at = [base.axes.index(axis) for axis in axes]
    # Of the corner of the first pixel, which all levels share; a translation is that of its centre.
    found: dict[str, Any] = {"origin": tuple(base.translation[i] - base.scale[i] / 2 for i in at)}
    if "z" in axes:
        found["z_spacing"] = chosen.scale[chosen.axes.index("z")]
    return found


def _stacked(data: Sequence[Any]) -> Any:
    if all(isinstance(pixels, np.ndarray) for pixels in data):
        return np.stack(data)
    import torch

    if not all(isinstance(pixels, torch.Tensor) for pixels in data):
        kinds = sorted({type(pixels).__name__ for pixels in data})
        msg = f"regions of one batch are arrays or tensors, not {kinds}"
        raise InvalidInputError(msg)
    return torch.stack(list(data))


def _column(values: list[Any]) -> Any:
    """Return values of a specification as an array where they are integers, else as they are."""
    try:
        array = np.asarray(values)
    except ValueError:  # sequences of several lengths
        return values
    # Anything else would come back changed: a number beside a text as a text.
    return array if array.dtype.kind in "iu" else values


def _transposed(shapes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [tuple(shape) + (_NO_AXIS,) * (rank - len(shape)) for shape in shapes]
    return [tuple(sizes) for sizes in zip(*padded, strict=True)]


def _rows(columns: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the shape of each region; those of fewer axes end where they have no more."""
    rows = list(zip(*columns, strict=True))
    if any(_NO_AXIS in column for column in columns):
        return [tuple(size for size in row if size != _NO_AXIS) for row in rows]
    return rows


def _scalars(values: Any) -> list[Any]:
    if not hasattr(values, "tolist"):
        return list(values)
    rows: list[Any] = values.tolist()
    if rows and isinstance(rows[0], list):
        return list(map(tuple, cast("list[list[Any]]", rows)))
    return rows
