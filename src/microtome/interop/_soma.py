"""Images into tiledbsoma's `MultiscaleImage`, and back.

SOMA keeps arrays, their axes and their order, and names neither channels nor sizes in micrometres.
What an image states beyond that is kept beside it, in the group's metadata under ``"microtome"``, as
JSON; other readers pass it by.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa

from microtome.coordinates import MPP_SOURCES, Mpp
from microtome.errors import FormatError, InvalidInputError
from microtome.image import Level, MultiscaleImage
from microtome.progress import Progress, silent
from microtome.sources import image_from_levels, open_image
from microtome.storage import Box, Draft, storage_errors

from ._soma_arrays import SomaArray, SomaGroup, imported_tiledbsoma, inclusive, soma_errors

__all__ = ["from_soma", "to_soma"]

_NOTE, _FORMAT = "microtome", "microtome-image"
_CHANNEL = "soma_channel"
_TYPES = frozenset(
    [*(f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)), "float32", "float64"]
)
# Every write makes files of its own, which each read then asks: few and large ones.
_WRITE_BYTES = 128 << 20


def to_soma(
    image: Any,
    uri: str | os.PathLike[str],
    *,
    tile_size: int = 256,
    progress: Progress = silent,
) -> str:
    """Write an image with all its levels as a SOMA `MultiscaleImage`, which appears whole.

    tiledbsoma reads it as one of its own. What SOMA has no place for (names of channels, pixel
    size, where each level lies) is kept beside it, and `from_soma` gives it back.

    Parameters
    ----------
    image
        Whatever `microtome.open_image` takes, over (c), y, x.
    uri
        Directory of the image; there must be none.
    tile_size
        Side of a TileDB tile in pixels; a tile is of one channel.
    progress
        Called with the strips written and to write.

    Returns
    -------
    The directory.

    Raises
    ------
    ExistsError
        If there is something at `uri`.
    InvalidInputError
        If the image has planes or times, a type that SOMA has none for, or levels that SOMA would
        put into another order; or `uri` is an address and no directory.
    DependencyError
        If tiledbsoma is not installed.
    StorageError
        If the disk refuses.
    """
    soma = imported_tiledbsoma()
    opened = open_image(image)
    target = os.fspath(uri)
    levels = _checked(opened, target, tile_size)
    total = sum(len(_strips(level, tile_size)) for level in levels)
    done = 0
    with Draft(target) as draft:
        with (
            storage_errors(draft.target),
            soma_errors(target, writing=True),
            _begun(soma, draft.path, opened, levels[0], tile_size) as made,
        ):
            for number, level in enumerate(levels):
                config = _config(level, tile_size)
                array = (
                    made.add_new_level(level.key, shape=level.shape, platform_config=config)
                    if number
                    else made[level.key]
                )
                for box in _strips(level, tile_size):
                    pixels = np.ascontiguousarray(level.array.read(box))
                    array.write(inclusive(box), pa.Tensor.from_numpy(pixels))
                    done += 1
                    progress("write", done, total)
            made.metadata[_NOTE] = json.dumps(_note(opened))
        draft.publish()
    return target


def from_soma(
    uri: str | os.PathLike[str], *, mpp: float | tuple[float, float] | None = None
) -> MultiscaleImage:
    """View a SOMA `MultiscaleImage` as an image; pixels are read when asked for.

    Parameters
    ----------
    uri
        Where it is: a directory, or an address that TileDB takes.
    mpp
        Micrometres per pixel of the finest level, one number or (y, x), of an image that `to_soma`
        has not written. Without it such an image states no pixel size; its levels lie as their
        shapes say.

    Returns
    -------
    The image. Pixels that nobody wrote are what TileDB fills them with, not 0: the largest number
    of an unsigned type, NaN of floats.

    Raises
    ------
    NotFoundError
        If there is no SOMA `MultiscaleImage`.
    FormatError
        If it is damaged, or what it says of itself does not fit its arrays.
    InvalidInputError
        If it has other axes than channels, y and x, or a pixel size is given to an image that
        states its own.
    DependencyError
        If tiledbsoma is not installed.
    """
    imported_tiledbsoma()
    place = os.fspath(uri)
    group = SomaGroup(place)
    with soma_errors(place):
        opened = group.opened()
        axes = [axis if axis != _CHANNEL else "c" for axis in opened.data_axis_order]
        keys = list(opened.levels())
        note = opened.metadata.get(_NOTE)
    kept = "cyx" if "c" in axes else "yx"
    if sorted(axes) != sorted(kept):
        msg = f"{place} has the axes {tuple(axes)}; channels, y and x are read"
        raise InvalidInputError(msg)
    with soma_errors(place):
        order = tuple(axes.index(axis) for axis in kept)
        arrays = [SomaArray.of(group, key, order) for key in keys]
    name = place.rstrip("/").rsplit("/", 1)[-1].split(".")[0]
    if note is None:
        size = None if mpp is None else Mpp.from_user(mpp)
        return image_from_levels(arrays, kept, mpp=size, channel_names=None, uri=place, name=name)
    if mpp is not None:
        msg = f"{place} states its own pixel size; leave out mpp"
        raise InvalidInputError(msg)
    return _stated(place, note, dict(zip(keys, arrays, strict=True)), kept)


# ------------------------------------------------------------------ what is stated


def _note(image: MultiscaleImage) -> dict[str, Any]:
    mpp = image.mpp
    return {
        "format": _FORMAT,
        "version": 1,
        "name": image.name,
        "kind": image.kind,
        "channel_names": image.channel_names,
        "mpp": None if mpp is None else [mpp.y, mpp.x],
        "mpp_source": None if mpp is None else mpp.source,
        "levels": [
            {"key": level.key, "scale": level.scale, "translation": level.translation}
            for level in image.values()
        ],
    }


def _stated(place: str, text: Any, arrays: dict[str, SomaArray], axes: str) -> MultiscaleImage:
    """Make the image that a note of `to_soma` describes."""
    try:
        note: Any = json.loads(text)
        if note["format"] != _FORMAT or note["version"] != 1:
            msg = (
                f"{place}: images of format {note['format']!r} {note['version']!r} are unknown here"
            )
            raise FormatError(msg)
        levels = [
            Level(
                one["key"],
                one["key"],
                arrays[one["key"]],
                axes,
                _numbers(one["scale"], axes),
                _numbers(one["translation"], axes),
            )
            for one in note["levels"]
        ]
        size, source = note["mpp"], note["mpp_source"]
        if size is not None and (len(size) != 2 or source not in MPP_SOURCES):
            raise ValueError((size, source))
        mpp = None if size is None else Mpp(float(size[0]), float(size[1]), source)
        if len(levels) != len(arrays) or note["kind"] not in {"intensity", "labels"}:
            raise ValueError((len(levels), len(arrays), note["kind"]))
        return MultiscaleImage(
            levels,
            uri=place,
            channel_names=note["channel_names"],
            mpp=mpp,
            kind=note["kind"],
            name=str(note["name"]),
        )
    except FormatError:
        raise
    except (ValueError, TypeError, KeyError, IndexError) as error:
        msg = f"{place}: what it says of itself does not fit its arrays {list(arrays)}: {error!r}"
        raise FormatError(msg) from error


def _numbers(given: Sequence[Any], axes: str) -> tuple[float, ...]:
    found = tuple(float(value) for value in given)
    if len(found) != len(axes) or not np.isfinite(found).all():
        raise ValueError(given)
    return found


# ------------------------------------------------------------------ writing


def _checked(image: MultiscaleImage, target: str, tile_size: int) -> list[Level]:
    levels = list(image.values())
    if "://" in target:
        msg = (
            f"an image is written to a directory of this machine, got {target}; copy it from there"
        )
        raise InvalidInputError(msg)
    if tile_size < 1:
        msg = f"tile_size must be at least 1, got {tile_size}"
        raise InvalidInputError(msg)
    if image.axes not in {"cyx", "yx"}:
        msg = f"{image.uri} has the axes {image.axes}; tiledbsoma reads images over (c), y, x"
        raise InvalidInputError(msg)
    if image.dtype.name not in _TYPES:
        msg = f"{image.uri} holds {image.dtype}; SOMA has {', '.join(sorted(_TYPES))}"
        raise InvalidInputError(msg)
    # SOMA's finest level is the largest, whichever was written first.
    order = sorted(levels, key=lambda level: ([-size for size in level.shape], level.key))
    if [level.key for level in order] != [level.key for level in levels]:
        shapes = {level.key: level.shape for level in levels}
        msg = f"{image.uri}: SOMA orders levels by size, which is not the order of {shapes}"
        raise InvalidInputError(msg)
    return levels


def _begun(soma: Any, path: Any, image: MultiscaleImage, level: Level, tile: int) -> Any:
    with warnings.catch_warnings():
        # That images in SOMA are experimental is said on our page.
        warnings.simplefilter("ignore", UserWarning)
        return soma.MultiscaleImage.create(
            str(path),
            type=pa.from_numpy_dtype(image.dtype),
            level_shape=level.shape,
            level_key=level.key,
            coordinate_space=("x", "y"),
            has_channel_axis=image.has_channel_axis,
            platform_config=_config(level, tile),
        )


def _config(level: Level, tile: int) -> dict[str, Any]:
    # The default, 128 an axis whatever the shape, pads five channels to 128.
    sides = [*[1] * (level.ndim - 2), *(min(tile, size) for size in level.shape[-2:])]
    return {
        "tiledb": {
            "create": {
                "dims": {f"soma_dim_{axis}": {"tile": side} for axis, side in enumerate(sides)},
                "attrs": {"soma_data": {"filters": [{"_type": "ZstdFilter", "level": 3}]}},
            }
        }
    }


def _strips(level: Level, tile: int) -> list[Box]:
    """Cut a level into strips of whole rows of tiles; wide ones of many channels, into channels."""
    *lead, height, width = level.shape
    row = width * level.dtype.itemsize * tile
    channels = max(1, _WRITE_BYTES // row)
    rows = max(1, _WRITE_BYTES // (row * min(channels, int(np.prod(lead))))) * tile
    cuts = [
        *([(at, min(at + channels, size)) for at in range(0, size, channels)] for size in lead),
        [(at, min(at + rows, height)) for at in range(0, height, rows)],
        [(0, width)],
    ]
    return list(product(*cuts))
