"""A part of a collated batch: what was read at once is handed out batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from microtome.regions import ImageRegionData

__all__ = ["cut"]


def cut(batch: Any, start: int, stop: int) -> Any:
    """Return tiles ``start ... stop - 1`` of a collated batch; their pixels are views.

    Parameters
    ----------
    batch
        An `ImageRegionData`, or a tuple of several of equal length.
    start, stop
        Which tiles.
    """
    if not isinstance(batch, ImageRegionData):
        parts = [cut(part, start, stop) for part in cast("tuple[Any, ...]", batch)]
        return getattr(type(batch), "_make", tuple)(parts)
    whole = cast("ImageRegionData[Any]", batch)
    part = slice(start, stop)
    specs = cast("Mapping[str, Any]", whole.region_spec)
    return whole._replace(
        data=whole.data[part],
        source=whole.source[part],
        data_shape=[sizes[part] for sizes in whole.data_shape],
        dtype=whole.dtype[part],
        axes=whole.axes[part],
        original_data_shape=[sizes[part] for sizes in whole.original_data_shape],
        region_spec=cast("Any", {name: values[part] for name, values in specs.items()}),
        additional_metadata=cast("Any", whole.additional_metadata)[part],
    )
