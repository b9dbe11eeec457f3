"""Beginning a new image: what is stated is checked, then the first level is there to be filled."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from microtome.coordinates import CoordinateSpace, Mpp
from microtome.errors import InvalidInputError
from microtome.storage import (
    Codec,
    ImageStore,
    Layout,
    StorageOptions,
    WritableArray,
    begin_store,
    default_layout,
)

from ._attributes import OURS, as_json, set_windows
from ._fitting import path_inside
from ._image import MultiscaleImage
from ._level import Level
from ._ngff import DatasetEntry, Kind, write_metadata
from ._pyramid import blocks_of

__all__ = ["begin_image", "order_of_axes", "state_windows"]

_NGFF_ORDER = "tczyx"
_SPATIAL = ("x", "y", "z")
_WRITABLE = frozenset("iuf")
# The names that the pyramid gives.
_COARSER = re.compile(r"level[1-9][0-9]*")


def begin_image(  # noqa: PLR0913 - what an image on disk states, all but the first keyword-only
    uri: str | os.PathLike[str],
    *,
    dtype: DTypeLike,
    shape: Sequence[int],
    axes: str,
    channel_names: Sequence[str] | None,
    mpp: Mpp | None,
    key: str = "level0",
    path: str | None = None,
    kind: Kind = "intensity",
    layout: Layout | Codec | None = None,
    overwrite: bool = False,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    translation: tuple[float, float] = (0.0, 0.0),
    z_spacing: float | None = None,
    rgb: bool = False,
    versioned: bool = False,
    context: StorageOptions | None = None,
) -> MultiscaleImage:
    """Begin a new image; it appears at `uri`, whole, when it is closed without an error.

    Parameters
    ----------
    uri
        Directory of the OME-Zarr image, or ``memory://`` and a name.
    dtype
        Type of a pixel.
    shape
        Shape of the finest level, in the order of `axes`.
    axes
        Names of the axes, one letter each, in the order t, c, z, y, x.
    channel_names
        One a channel; ``"channel 0"``, ... by default.
    mpp
        Micrometres per pixel of the finest level; None where nobody measured it.
    key, path
        Name of the finest level, and path of its array inside the image.
    kind
        ``"intensity"`` or ``"labels"``.
    layout
        Chunks, shards and codec (`microtome.storage.Layout`), or the name of a codec alone; the
        measured default of the kind by default.
    overwrite
        Whether an image that is there may be replaced, in one step, when this one is complete.
    name
        Name of the image; the file name up to its first dot by default.
    metadata
        Further attributes.
    translation
        Centre of pixel (0, 0) in micrometres, (y, x).
    z_spacing
        Micrometres from one plane to the next; None where nobody measured it.
    rgb
        Whether the channels are red, green and blue.
    versioned
        Whether the image keeps its history (the `versioned` extra); others than microtome read it
        through Icechunk only.
    context
        How stores are reached, and what is kept in memory.

    Raises
    ------
    ExistsError
        If there is an image at `uri` and `overwrite` is false.
    InvalidInputError
        If axes, shape, names or type do not fit each other.
    """
    names = _checked(uri, shape, axes, channel_names, kind, rgb=rgb)
    if isinstance(layout, str):
        layout = replace(default_layout(kind, axes, shape), codec=layout)
    pixel = _pixel_type(uri, dtype, kind)
    at = path_inside(str(uri), "0" if path is None else path)
    if not isinstance(key, str) or not key:  # pyright: ignore[reportUnnecessaryIsInstance] - whatever the caller gave
        msg = f"{uri}: a level is named by a text, got {key!r}"
        raise InvalidInputError(msg)
    if _COARSER.fullmatch(key):
        msg = f"{uri}: the finest level cannot be called {key!r}, as a coarser one will be"
        raise InvalidInputError(msg)
    scale, origin, measured = _placed(uri, axes, mpp, translation, z_spacing)
    title = name or Path(uri).name.split(".")[0]
    extra = as_json(dict(metadata or {}), f"{uri}: metadata")
    if not isinstance(extra.get(OURS, {}), dict):
        msg = f"{uri}: metadata cannot set {OURS!r}, which microtome keeps; got {extra[OURS]!r}"
        raise InvalidInputError(msg)
    ours = {**extra.get(OURS, {}), "level_keys": [key]}
    if mpp is not None:
        ours["mpp_source"] = mpp.source
    stated = write_metadata(
        axes=axes,
        datasets=[DatasetEntry(at, scale, origin)],
        channel_names=names,
        kind=kind,
        name=title,
        rgb=rgb,
        measured=measured,
        extra={**extra, OURS: ours},
    )
    store = begin_store(uri, overwrite=overwrite, versioned=versioned, context=context)
    try:
        array = store.create_array(
            at,
            shape=shape,
            dtype=pixel,
            layout=layout or default_layout(kind, axes, shape),
            axes=axes,
        )
        with store.changing(adding=[at]) as attributes:
            attributes.update(stated)
        return MultiscaleImage(
            [Level(key, at, array, axes, scale, origin)],
            uri=str(uri),
            channel_names=names,
            mpp=mpp,
            kind=kind,
            name=title,
            metadata=stated,
            store=store,
            mode="w",
            layout=layout,
            context=context,
            new=True,
        )
    except BaseException:
        store.discard()
        raise


def order_of_axes(
    uri: str | os.PathLike[str],
    space: Sequence[str] | CoordinateSpace | None,
    order: Sequence[str] | None,
    *,
    channels: bool,
) -> str:
    """Return the axes of an array, given its spatial axes, its order, or both.

    Raises
    ------
    InvalidInputError
        If the two do not fit each other or OME-NGFF.
    """
    if isinstance(space, CoordinateSpace):
        units = [axis.unit for axis in space.axes if axis.unit is not None]
        if units:
            msg = f"{uri}: pixels have no unit {units[0]!r}; state their size with mpp="
            raise InvalidInputError(msg)
        space = space.axis_names
    spatial = tuple(space) if space is not None else None
    if order is None:
        names = ("x", "y") if spatial is None else spatial
        if names not in (_SPATIAL[:2], _SPATIAL):
            msg = f"{uri}: the spatial axes are ('x', 'y') or ('x', 'y', 'z'), got {names}"
            raise InvalidInputError(msg)
        return "".join((*("c" if channels else ""), *reversed(names)))
    axes = "".join(order)
    if set(axes) <= set(_NGFF_ORDER) and ("c" in axes) != channels:
        msg = (
            f"{uri}: data_axis_order {tuple(order)} has {'a' if 'c' in axes else 'no'} channel "
            f"axis, yet has_channel_axis is {channels}"
        )
        raise InvalidInputError(msg)
    if spatial is not None and set(spatial) != set(axes) & set(_SPATIAL):
        msg = f"{uri}: data_axis_order {tuple(order)} does not fit the spatial axes {spatial}"
        raise InvalidInputError(msg)
    return axes


def state_windows(store: ImageStore, coarsest: Level) -> None:
    """State the display range of each channel, for viewers, from the coarsest level."""
    windows = _display_windows(coarsest)
    stated = store.attributes()
    set_windows(stated, windows)
    if stated != store.attributes():
        with store.changing() as attributes:
            set_windows(attributes, windows)


def _checked(
    uri: str | os.PathLike[str],
    shape: Sequence[int],
    axes: str,
    channel_names: Sequence[str] | None,
    kind: Kind,
    *,
    rgb: bool,
) -> tuple[str, ...] | None:
    """Return the names of the channels of an image that can be."""
    if kind not in ("intensity", "labels"):
        msg = f"{uri}: kind must be 'intensity' or 'labels', got {kind!r}"
        raise InvalidInputError(msg)
    order = [_NGFF_ORDER.find(axis) for axis in axes]
    if -1 in order or order != sorted(set(order)) or not axes.endswith("yx"):
        msg = f"{uri}: axes must be of t, c, z, y, x, in this order and with y and x, got {axes!r}"
        raise InvalidInputError(msg)
    if len(shape) != len(axes) or min(shape, default=0) < 1:
        msg = f"{uri}: shape {tuple(shape)} does not fit axes {axes!r}"
        raise InvalidInputError(msg)
    count = dict(zip(axes, shape, strict=True)).get("c")
    if isinstance(channel_names, str):
        msg = f"{uri}: channel_names is a list of names, got the text {channel_names!r}"
        raise InvalidInputError(msg)
    names = channel_names if channel_names is None else tuple(str(n) for n in channel_names)
    if names is not None and len(names) != (count or 0):
        msg = f"{uri}: {len(names)} channel names {names} for {count or 'no'} channels"
        raise InvalidInputError(msg)
    if rgb and (count != 3 or kind == "labels"):
        msg = (
            f"{uri}: a photograph has three channels of intensities, got {count or 'no'} of {kind}"
        )
        raise InvalidInputError(msg)
    if names is None and count is not None:
        return tuple(f"channel {i}" for i in range(count))
    return names


def _placed(
    uri: str | os.PathLike[str],
    axes: str,
    mpp: Mpp | None,
    translation: tuple[float, float],
    z_spacing: float | None,
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Return scale and translation of the finest level, and the axes along which they are measured."""
    if len(translation) != 2 or not all(math.isfinite(value) for value in translation):
        msg = f"{uri}: a translation is two finite numbers (y, x), got {translation}"
        raise InvalidInputError(msg)
    if mpp is None and any(translation):
        msg = f"{uri}: a translation of {translation} um needs a pixel size; give mpp="
        raise InvalidInputError(msg)
    if z_spacing is not None and not ("z" in axes and 0 < z_spacing < math.inf):
        msg = f"{uri}: z_spacing is a positive number for an image with planes, got {z_spacing}"
        raise InvalidInputError(msg)
    sizes = {} if mpp is None else {"y": mpp.y, "x": mpp.x}
    origin = dict(zip("yx", translation, strict=True))
    if z_spacing is not None:
        sizes["z"] = float(z_spacing)
    return (
        tuple(sizes.get(axis, 1.0) for axis in axes),
        tuple(origin.get(axis, 0.0) for axis in axes),
        "".join(sizes),
    )


def _pixel_type(uri: str | os.PathLike[str], dtype: DTypeLike, kind: Kind) -> np.dtype[Any]:
    try:
        pixel = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        msg = f"{uri}: {dtype!r} is no type of a pixel"
        raise InvalidInputError(msg) from error
    if pixel.kind not in _WRITABLE or (kind == "labels" and pixel.kind == "f"):
        wanted = "integer" if kind == "labels" else "integer or floating"
        msg = f"{uri}: {kind} cannot be {pixel}; use an {wanted} type"
        raise InvalidInputError(msg)
    return pixel


def _display_windows(level: Level) -> list[tuple[float, float]]:
    """Return the display range of each channel, from the coarsest level, in bounded memory."""
    axis = level.axes.find("c")
    count = level.shape[axis] if axis >= 0 else 1
    if level.dtype == np.uint8:
        return [(0.0, 255.0)] * count
    low, high = np.zeros(count), np.full(count, -np.inf)
    array: WritableArray = level.array  # pyright: ignore[reportAssignmentType] - it was written
    for block in blocks_of(level.shape, array.write_unit):
        pixels = (
            np.moveaxis(level.array.read(block), axis, 0)
            if axis >= 0
            else level.array.read(block)[None]
        )
        first = block[axis][0] if axis >= 0 else 0
        for channel, plane in enumerate(pixels, first):
            finite = plane[np.isfinite(plane)]
            if finite.size:
                low[channel] = min(low[channel], float(finite.min()))
                high[channel] = max(high[channel], float(finite.max()))
    # A range has to have a width, also for a channel of zeros or of nothing finite.
    return [(a, b if b > a else a + 1.0) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
