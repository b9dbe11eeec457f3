"""Writing an image: level 0 by the caller, the pyramid by us, then all of it at once."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError
from microtome.progress import Progress
from microtome.storage import (
    Box,
    Draft,
    Layout,
    StoredArray,
    create_array,
    image_layout,
    label_layout,
)

from ._image import MultiscaleImage
from ._level import Level
from ._ngff import DatasetEntry, Kind, write_metadata
from ._pyramid import blocks_of, halve, pyramid_shapes

__all__ = ["ImageWriter", "begin_image"]

_NGFF_ORDER = "tczyx"
_WRITABLE = frozenset("iuf")
# The names that the pyramid gives.
_COARSER = re.compile(r"level[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class ImageWriter:
    """What an image that is being written needs besides its levels.

    Parameters
    ----------
    draft
        The directory under its temporary name.
    layout
        Chunks, shards and codec of every level.
    mpp
        Pixel size of level 0.
    kind
        Decides how levels are halved.
    rgb
        Whether the channels are a photograph's.
    translation
        Centre of pixel (0, 0) of level 0 in micrometres, (y, x).
    """

    draft: Draft
    layout: Layout
    mpp: Mpp
    kind: Kind
    rgb: bool
    translation: tuple[float, float]

    def build_levels(self, base: Level, *, progress: Progress) -> list[Level]:
        """Write all coarser levels and return them.

        Raises
        ------
        ExistsError
            If they are written already.
        """
        shapes = pyramid_shapes(base.shape, max(self.layout.chunk[-2:]))[1:]
        levels: list[Level] = []
        source, done = base, 0
        jobs = sum(len(list(blocks_of(s, self.layout.fitted(s).write_unit))) for s in shapes)
        for index, shape in enumerate(shapes, start=1):
            level = self.new_level(index, f"level{index}", shape, base.dtype, base.axes)
            for block in blocks_of(shape, level_array(level).write_unit):
                _halve_block(source, level, block, labels=self.kind == "labels")
                done += 1
                progress("pyramid", done, jobs)
            levels.append(level)
            source = level
        return levels

    def publish(self, image: MultiscaleImage) -> None:
        """Write the metadata and make the image appear at its place."""
        levels = [image.level(i) for i in range(image.level_count)]
        attributes = write_metadata(
            axes=image.axes,
            datasets=[DatasetEntry(v.path, v.scale, v.translation) for v in levels],
            channel_names=image.channel_names,
            kind=self.kind,
            name=image.name,
            windows=_display_windows(levels[-1]) if self.kind == "intensity" else None,
            rgb=self.rgb,
            extra={
                **image.metadata,
                "microtome": {
                    **image.metadata.get("microtome", {}),
                    "level_keys": [v.key for v in levels],
                    "mpp_source": self.mpp.source,
                },
            },
        )
        self.draft.write_root(attributes)
        self.draft.publish()

    def release(self, levels: Sequence[Level]) -> None:
        """Let go of the arrays and remove what was not published."""
        for level in levels:
            level_array(level).close()
        self.draft.discard()

    def new_level(
        self, index: int, key: str, shape: Sequence[int], dtype: DTypeLike, axes: str
    ) -> Level:
        """Create the array of a level.

        Parameters
        ----------
        index
            Number of the level; it is `2 ** index` times as coarse as the finest.
        key
            Its name.
        shape, dtype, axes
            Of the array.
        """
        path = str(index)
        array = create_array(
            self.draft.path / path, shape=shape, dtype=dtype, layout=self.layout, axes=axes
        )
        factor = 2**index
        sizes = {"y": self.mpp.y, "x": self.mpp.x}
        origin = dict(zip("yx", self.translation, strict=True))
        # The centre of a block of `factor` pixels lies (factor - 1) / 2 pixels past the first's.
        return Level(
            key,
            path,
            array,
            axes,
            tuple(sizes[a] * factor if a in sizes else 1.0 for a in axes),
            tuple(origin[a] + sizes[a] * (factor - 1) / 2 if a in sizes else 0.0 for a in axes),
        )


def begin_image(  # noqa: PLR0913 - what an image on disk states, all but the first keyword-only
    uri: str | os.PathLike[str],
    *,
    dtype: DTypeLike,
    shape: Sequence[int],
    axes: str,
    channel_names: Sequence[str] | None,
    mpp: Mpp,
    key: str = "level0",
    kind: Kind = "intensity",
    layout: Layout | None = None,
    overwrite: bool = False,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    translation: tuple[float, float] = (0.0, 0.0),
    rgb: bool = False,
) -> MultiscaleImage:
    """Begin a new image; it appears at `uri`, whole, when it is closed without an error.

    Parameters
    ----------
    uri
        Directory of the OME-Zarr image.
    dtype
        Type of a pixel.
    shape
        Shape of the finest level, in the order of `axes`.
    axes
        Names of the axes, one letter each, in the order t, c, z, y, x.
    channel_names
        One a channel; ``"channel 0"``, ... by default.
    mpp
        Micrometres per pixel of the finest level.
    key
        Name of the finest level.
    kind
        ``"intensity"`` or ``"labels"``.
    layout
        Chunks, shards and codec; the measured default of the kind by default.
    overwrite
        Whether an image that is there may be replaced, in one step, when this one is complete.
    name
        Name of the image; the file name up to its first dot by default.
    metadata
        Further attributes.
    translation
        Centre of pixel (0, 0) in micrometres, (y, x).
    rgb
        Whether the channels are red, green and blue.

    Raises
    ------
    ExistsError
        If there is an image at `uri` and `overwrite` is false.
    InvalidInputError
        If axes, shape, names or type do not fit each other.
    """
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
    pixel = _pixel_type(uri, dtype, kind)
    count = dict(zip(axes, shape, strict=True)).get("c")
    names = channel_names if channel_names is None else tuple(str(n) for n in channel_names)
    if names is not None and len(names) != (count or 0):
        msg = f"{uri}: {len(names)} channel names {names} for {count or 'no'} channels"
        raise InvalidInputError(msg)
    if names is None and count is not None:
        names = tuple(f"channel {i}" for i in range(count))
    if rgb and (count != 3 or kind == "labels"):
        msg = (
            f"{uri}: a photograph has three channels of intensities, got {count or 'no'} of {kind}"
        )
        raise InvalidInputError(msg)
    if _COARSER.fullmatch(key):
        msg = f"{uri}: the finest level cannot be called {key!r}, as a coarser one will be"
        raise InvalidInputError(msg)
    if len(translation) != 2 or not all(math.isfinite(value) for value in translation):
        msg = f"{uri}: a translation is two finite numbers (y, x), got {translation}"
        raise InvalidInputError(msg)
    _verify_json(uri, metadata)
    default = label_layout if kind == "labels" else image_layout
    draft = Draft(uri, overwrite=overwrite)
    try:
        writer = ImageWriter(draft, layout or default(axes, shape), mpp, kind, rgb, translation)
        level = writer.new_level(0, key, shape, pixel, axes)
        return MultiscaleImage(
            [level],
            uri=str(uri),
            channel_names=names,
            mpp=mpp,
            kind=kind,
            name=name or Path(uri).name.split(".")[0],
            metadata=metadata,
            writer=writer,
        )
    except BaseException:
        draft.discard()
        raise


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


def _verify_json(uri: str | os.PathLike[str], metadata: Mapping[str, Any] | None) -> None:
    # Now, not when a whole slide has been written and is to be published.
    try:
        json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"{uri}: metadata must be JSON: {error}"
        raise InvalidInputError(msg) from error


def level_array(level: Level) -> StoredArray:
    """Return the stored array of a level that is being written."""
    if not isinstance(level.array, StoredArray):
        msg = f"level {level.key!r} is not stored"
        raise InvalidInputError(msg)
    return level.array


def _halve_block(source: Level, target: Level, block: Box, *, labels: bool) -> None:
    """Fill one write unit of `target` from `source`, a plane at a time to bound the memory."""
    out = np.empty(tuple(stop - start for start, stop in block), target.dtype)
    edges = [
        (2 * start, min(2 * stop, size))
        for (start, stop), size in zip(block[-2:], source.shape[-2:], strict=True)
    ]
    for plane in np.ndindex(out.shape[:-2]):
        at = tuple(
            (start + i, start + i + 1) for (start, _), i in zip(block[:-2], plane, strict=True)
        )
        out[plane] = halve(source.array.read((*at, *edges)), labels=labels)[(0,) * len(plane)]
    level_array(target).write(block, out)


def _display_windows(level: Level) -> list[tuple[float, float]]:
    """Return the display range of each channel, from the coarsest level, in bounded memory."""
    axis = level.axes.find("c")
    count = level.shape[axis] if axis >= 0 else 1
    if level.dtype == np.uint8:
        return [(0.0, 255.0)] * count
    low, high = np.zeros(count), np.full(count, -np.inf)
    for block in blocks_of(level.shape, level_array(level).write_unit):
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
