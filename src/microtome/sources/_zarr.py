"""OME-Zarr in place."""

from __future__ import annotations

from pathlib import Path

from microtome.coordinates import Mpp
from microtome.image import Level, MultiscaleImage
from microtome.storage import Place, StorageOptions

__all__ = ["open_zarr"]


def open_zarr(
    path: Path | Place, *, mpp: Mpp | None, context: StorageOptions | None = None
) -> MultiscaleImage:
    """Open an OME-Zarr image; `mpp` overrides its scale, `context` says how to read it."""
    image = MultiscaleImage.open(path, context=context)
    if mpp is None:
        return image
    levels = [image.level(i) for i in range(image.level_count)]
    base = levels[0].scale
    factors = (mpp.y / base[-2], mpp.x / base[-1])
    return MultiscaleImage(
        [
            Level(
                level.key,
                level.path,
                level.array,
                level.axes,
                (*level.scale[:-2], level.scale[-2] * factors[0], level.scale[-1] * factors[1]),
                (
                    *level.translation[:-2],
                    level.translation[-2] * factors[0],
                    level.translation[-1] * factors[1],
                ),
            )
            for level in levels
        ],
        uri=image.uri,
        channel_names=image.channel_names,
        mpp=mpp,
        kind=image.kind,
        name=image.name,
        metadata=image.metadata,
        context=context,
    )
