"""OME-Zarr in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from microtome.coordinates import Mpp
from microtome.errors import FormatError
from microtome.image import Level, MultiscaleImage, PixelArray, read_metadata
from microtome.storage import Place, StorageOptions

from ._lazy import is_from, lazy_array

__all__ = ["open_zarr", "open_zarr_group"]


def open_zarr(
    path: Path | Place, *, mpp: Mpp | None, context: StorageOptions | None = None
) -> MultiscaleImage:
    """Open an OME-Zarr image; `mpp` overrides its scale, `context` says how to read it."""
    image = MultiscaleImage.open(path, context=context)
    return image if mpp is None else _with_mpp(image, mpp, context)


def open_zarr_group(group: Any, *, mpp: Mpp | None) -> MultiscaleImage:
    """View an OME-Zarr image that zarr-python has open; `mpp` overrides its scale.

    A group in a local directory is read by our own engine; of any other store, pixels come through
    zarr-python.
    """
    if is_from(group.store, "zarr", "LocalStore"):
        return open_zarr(Path(group.store.root) / group.path, mpp=mpp)
    where = f"{group.store_path}"
    found = read_metadata(dict(group.attrs), where=where)
    levels = [
        Level(
            f"level{index}",
            entry.path,
            _array(group, entry.path, found.axes, where),
            found.axes,
            entry.scale,
            entry.translation,
        )
        for index, entry in enumerate(found.datasets)
    ]
    scale = levels[0].scale
    names = found.channel_names
    if "c" in found.axes and names is None:
        names = tuple(f"channel {i}" for i in range(levels[0].shape[found.axes.index("c")]))
    image = MultiscaleImage(
        levels,
        uri=where,
        channel_names=names,
        mpp=Mpp(scale[-2], scale[-1], "metadata") if found.has_unit else None,
        kind=found.kind,
        name=found.name or where.rsplit("/", 1)[-1],
        metadata=found.attributes,
    )
    return image if mpp is None else _with_mpp(image, mpp, None)


def _array(group: Any, path: str, axes: str, where: str) -> PixelArray:
    array = group.get(path)
    if array is None or len(getattr(array, "shape", ())) != len(axes):
        msg = f"{where}: there is no array over {axes!r} at {path!r}"
        raise FormatError(msg)
    return lazy_array(array, range(len(axes)))


def _with_mpp(image: MultiscaleImage, mpp: Mpp, context: StorageOptions | None) -> MultiscaleImage:
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
