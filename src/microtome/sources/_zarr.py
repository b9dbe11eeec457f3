"""OME-Zarr in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

from microtome.coordinates import Mpp
from microtome.errors import FormatError, InvalidInputError, NotFoundError
from microtome.image import ImageMetadata, Level, MultiscaleImage, PixelArray, read_metadata
from microtome.storage import Place, StorageOptions, open_store, read_group

from ._choice import chosen
from ._lazy import is_from, lazy_array
from ._zarr_stores import WHOLE, contained_images, is_spatialdata, zarr_images

__all__ = ["open_zarr", "open_zarr_group"]


def open_zarr(
    path: Path | Place,
    *,
    mpp: Mpp | None,
    context: StorageOptions | None = None,
    image: str | int | None = None,
) -> MultiscaleImage:
    """Open an OME-Zarr image, or one of those in a plate, a series or a store of SpatialData.

    Parameters
    ----------
    path
        The directory, or the place in a store.
    mpp
        Pixel size instead of its scale.
    context
        How to read it.
    image
        Path of the image in the directory, or its number: see `zarr_images`. Not needed where
        there is one, or the directory is one itself.
    """
    found = _opened(path, context, image)
    return found if mpp is None else _with_mpp(found, mpp, context)


def _opened(
    path: Path | Place, context: StorageOptions | None, image: str | int | None
) -> MultiscaleImage:
    if image is None:
        try:
            return MultiscaleImage.open(path, context=context)
        except NotFoundError as error:
            if isinstance(path, Place) and is_zipfile(path.uri):
                raise FormatError(_zipped_otherwise(path.uri)) from error
            if isinstance(path, Place):
                # A store that has no such bucket says no more than one that has no such key.
                msg = f"{error}; nothing lies there, or something else: is the address right?"
                raise NotFoundError(msg) from error
            raise
        except FormatError:
            if isinstance(path, Place):
                raise
            if is_spatialdata(read_group(path)):
                return _element(path, context)
            names = contained_images(path)
            if not names:
                raise
    elif isinstance(path, Place):
        msg = f"{path.uri} is an address; add {image!r} to it"
        raise InvalidInputError(msg)
    else:
        names = zarr_images(path)
    name = names[chosen(names, image, where=path)]
    if name == WHOLE:
        return MultiscaleImage.open(path, context=context)
    if is_spatialdata(read_group(path / name)):
        return _element(path / name, context)
    return MultiscaleImage.open(path / name, context=context)


def _zipped_otherwise(path: str) -> str:
    """Say what is wrong with a zip file that holds no image at its root."""
    with ZipFile(path) as file:
        deeper = [name for name in file.namelist() if name.endswith(("/zarr.json", "/.zgroup"))]
    if not deeper:
        return f"{path} is a zip file, but holds no OME-Zarr image: there is no zarr.json in it"
    folder = min(deeper, key=lambda name: (name.count("/"), name)).rpartition("/")[0]
    return (
        f"{path} holds no OME-Zarr image at its root, where it must lie, but one in its folder "
        f"{folder!r}; unpack it, and zip what is in that folder, without the folder"
    )


def _element(path: Path, context: StorageOptions | None) -> MultiscaleImage:
    """Open an image or labels of SpatialData: its levels as they are, without a pixel size.

    Its transforms lead to coordinate systems, in no unit, and may turn; OME-Zarr would apply them.
    """
    store = open_store(path, writable=False, context=context)
    attributes = store.attributes()
    ome = dict(attributes.get("ome") or {})
    scales = [dict(scale) for scale in ome.get("multiscales") or ()]
    for scale in scales:
        scale.pop("coordinateTransformations", None)
    found = read_metadata({**attributes, "ome": {**ome, "multiscales": scales}}, where=store.uri)
    return _image_of(found, store.open_array, store.uri, path.name, attributes)


def open_zarr_group(group: Any, *, mpp: Mpp | None) -> MultiscaleImage:
    """View an OME-Zarr image that zarr-python has open; `mpp` overrides its scale.

    A group in a local directory is read by our own engine; of any other store, pixels come through
    zarr-python.
    """
    if is_from(group.store, "zarr", "LocalStore"):
        return open_zarr(Path(group.store.root) / group.path, mpp=mpp)
    where = f"{group.store_path}"
    found = read_metadata(dict(group.attrs), where=where)
    image = _image_of(
        found,
        lambda path: _array(group, path, found.axes, where),
        where,
        found.name or where.rsplit("/", 1)[-1],
        found.attributes,
    )
    return image if mpp is None else _with_mpp(image, mpp, None)


def _image_of(
    found: ImageMetadata,
    open_array: Callable[[str], PixelArray],
    where: str,
    name: str,
    metadata: Mapping[str, Any],
) -> MultiscaleImage:
    levels = [
        Level(
            f"level{index}",
            entry.path,
            open_array(entry.path),
            found.axes,
            entry.scale,
            entry.translation,
        )
        for index, entry in enumerate(found.datasets)
    ]
    wrong = [level.path for level in levels if len(level.shape) != len(found.axes)]
    if wrong:
        msg = f"{where}: levels {wrong} have other axes than {found.axes!r}"
        raise FormatError(msg)
    scale = levels[0].scale
    names = found.channel_names
    if "c" in found.axes and names is None:
        names = tuple(f"channel {i}" for i in range(levels[0].shape[found.axes.index("c")]))
    return MultiscaleImage(
        levels,
        uri=where,
        channel_names=names,
        mpp=Mpp(scale[-2], scale[-1], "metadata") if found.has_unit else None,
        kind=found.kind,
        name=name,
        metadata=metadata,
    )


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
