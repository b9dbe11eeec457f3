"""Images and tiles as layers of napari, which is not imported: it asks for data and keywords.

`napari.yaml` beside this module is the manifest by which napari (npe2) finds the reader.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import MicrometreGrid, Mpp, Resolution
from microtome.errors import InvalidInputError, MicrotomeError
from microtome.image import Level, MultiscaleImage
from microtome.sources import open_image
from microtome.tiling import TileTable

from ._qupath_tables import tiles_of_one

__all__ = ["LayerData", "napari_get_reader", "napari_layers", "napari_tiles"]

LayerData = tuple[Any, dict[str, Any], str]
"""Data, keywords of the layer, and its kind: what a reader of napari returns."""

_log = logging.getLogger(__name__)
_BYTES = (0, 255)
_RANGES = {np.dtype(np.uint8): _BYTES, np.dtype(np.uint16): (0, 65535)}
# Side of what is looked at to choose a contrast.
_LOOKED_AT = 2048
_COLOURS = ("red", "green", "blue")
_MAPS = ("gray", "magenta", "cyan", "yellow", "red", "green", "blue")


def napari_get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return napari's way to read a path; None where it is no image that microtome opens.

    Napari asks other readers then and says nothing of reasons, so the log does. A file that microtome
    opens once more is said of it, which of its images is meant for example, is read with an error that
    says so.

    Parameters
    ----------
    path
        A file or directory; several together are left to other readers.
    """
    if not isinstance(path, str | os.PathLike):
        return None
    try:
        open_image(path)
    except InvalidInputError:
        return _read
    except (MicrotomeError, OSError) as error:
        _log.warning("microtome leaves %s to other readers: %s", path, error)
        return None
    return _read


def _read(path: str) -> list[LayerData]:
    try:
        return napari_layers(open_image(path))
    except InvalidInputError as error:
        msg = (
            f"{error}. Napari cannot ask for that: in its console, take each of "
            "microtome.interop.napari_layers(microtome.open_image(path, ...)), as its help shows"
        )
        raise InvalidInputError(msg) from error


def napari_layers(image: MultiscaleImage) -> list[LayerData]:
    """Return the layers of an image: one in colour, one of labels, or one a channel.

    Pixels are read when they are shown. All levels are given where there are several. Scale and
    place are micrometres, of an image that does not state its pixel size they are pixels. Contrast
    begins with the range of bytes and words, of other types with what the coarsest level has, of which
    at most 2048 x 2048 pixels in the middle are read.

    Parameters
    ----------
    image
        The image.

    Examples
    --------
    ::

        for data, options, kind in napari_layers(microtome.open_image("slide.svs")):
            getattr(viewer, f"add_{kind}")(data, **options)
    """
    levels = [image.level(number) for number in range(image.level_count)]
    base = levels[0]
    names = list(image.channel_names or ())
    common: dict[str, Any] = {"multiscale": len(levels) > 1}
    axes = base.axes.replace("c", "")
    places = [base.axes.index(axis) for axis in axes]
    common["scale"] = [float(base.scale[place]) for place in places]
    common["translate"] = [float(base.translation[place]) for place in places]
    if image.mpp is not None:
        common["units"] = ["micrometer" if axis in "zyx" else "second" for axis in axes]
    if image.kind == "labels":
        return [(_shown(levels, axes, 0), common | {"name": image.name}, "labels")]
    if base.dtype == np.uint8 and [name.lower() for name in names] == list(_COLOURS):
        return [
            (
                _shown(levels, f"{axes}c", None),
                common | {"name": image.name, "rgb": True, "contrast_limits": _BYTES},
                "image",
            )
        ]
    return [
        (
            _shown(levels, axes, number),
            common
            | _contrast(levels[-1], axes, number)
            | {
                "name": f"{image.name}: {names[number]}" if names else image.name,
                "colormap": _MAPS[number % len(_MAPS)] if image.nchannels > 1 else "gray",
                "blending": "additive",
            },
            "image",
        )
        for number in range(image.nchannels)
    ]


def napari_tiles(
    tiles: TileTable,
    *,
    mpp: float | Mpp | None = None,
    tissue_id: str | None = None,
    image: MultiscaleImage | None = None,
) -> LayerData:
    """Return the tiles of a tissue as a layer of rectangles, their columns as features.

    Parameters
    ----------
    tiles
        The table.
    mpp
        Micrometres in a pixel of the table; by default those of the table's resolution if an image is
        given, else tiles are in pixels.
    tissue_id
        The tissue; may be left out where the table has one alone.
    image
        The image whose layers the tiles lie on: they are counted from its upper left edge, wherever
        that lies and whatever its pixels are. By default an image of as large pixels, without a
        translation.

    Raises
    ------
    UnknownNameError
        If the tissue has no tiles.
    InvalidInputError
        If the table has several tissues and nobody says which, or nothing says how large its pixels
        are.
    NoResolutionError
        If the image states no pixel size.
    """
    chosen = tiles_of_one(tiles, tissue_id)
    rows = chosen.rows()
    height, width = chosen.tile_size
    corners = np.array([[0, 0], [0, width], [height, width], [height, 0]], np.float64)
    starts = np.stack([rows.row, rows.col], axis=1).astype(np.float64)
    scale = _pixel_size(chosen, mpp, image)
    # Napari has the centre of a pixel at whole numbers, its edge half a pixel before.
    shapes = starts[:, None] + corners - 0.5
    translate = (0.0, 0.0)
    if image is not None:
        image.require_mpp()
        base = image.level(0)
        first = MicrometreGrid.of_level(base, base).to_ngff(np.asarray(scale) / 2)
        translate = (float(first[0]), float(first[1]))
    features = {
        name: chosen.table[name].to_pylist()
        for name in chosen.table.column_names
        if name not in {"row", "col"}
    }
    options = {
        "name": f"tiles: {chosen.strategy}",
        "shape_type": "rectangle",
        "features": features,
        "scale": scale,
        "translate": translate,
        "face_color": "transparent",
        "edge_color": "yellow",
        "edge_width": max(1.0, min(height, width) / 64),
    }
    return list(shapes), options, "shapes"


def _pixel_size(
    tiles: TileTable, mpp: float | Mpp | None, image: MultiscaleImage | None
) -> tuple[float, float]:
    if isinstance(mpp, Mpp):
        return mpp.y, mpp.x
    if mpp is not None:
        return float(mpp), float(mpp)
    if image is None:
        return 1.0, 1.0
    if tiles.resolution is None:
        msg = "the table does not say at which resolution its tiles lie; give mpp="
        raise InvalidInputError(msg)
    return Resolution.parse(tiles.resolution).mpp


@dataclass(frozen=True, slots=True, eq=False)
class LazyPixels:
    """A level as an array that is read where it is indexed.

    Parameters
    ----------
    level
        The level.
    axes
        Its axes in the order in which they are shown.
    channel
        The channel that is shown, where `axes` has no `c`.
    """

    level: Level
    axes: str
    channel: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the order of `axes`."""
        sizes = dict(zip(self.level.axes, self.level.shape, strict=True))
        return tuple(sizes[axis] for axis in self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self.level.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        given = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in [each for each in given if not isinstance(each, np.ndarray)]:
            at = given.index(Ellipsis)
            given[at : at + 1] = [slice(None)] * (self.ndim - len(given) + 1)
        given += [slice(None)] * (self.ndim - len(given))
        spans: dict[str, tuple[int, int]] = {}
        inner: list[Any] = []
        for axis, length, each in zip(self.axes, self.shape, given, strict=True):
            if isinstance(each, slice):
                chosen = range(length)[each]
                ends = sorted((chosen[0], chosen[-1])) if chosen else [0, -1]
                low, high = ends[0], ends[1] + 1
                start = chosen.start - low if chosen else 0
                steps = np.arange(start, start + len(chosen) * chosen.step, chosen.step)
                inner.append(slice(None) if chosen.step == 1 else steps)
            else:
                low = range(length)[int(each)]
                high = low + 1
                inner.append(0)
            spans[axis] = (low, high)
        if self.channel is not None and "c" in self.level.axes:
            spans["c"] = (self.channel, self.channel + 1)
        pixels = self.level.array.read(tuple(spans[axis] for axis in self.level.axes))
        kept = [axis for axis in self.level.axes if axis in self.axes]
        if len(kept) < pixels.ndim:
            pixels = pixels.take(0, axis=self.level.axes.index("c"))
        pixels = pixels.transpose([kept.index(axis) for axis in self.axes])
        # One axis after the other: lists of places would be taken together.
        for place, each in reversed(list(enumerate(inner))):
            pixels = pixels[(slice(None),) * place + (each,)]
        return pixels

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        pixels = self[...]
        return pixels if dtype is None else pixels.astype(dtype)


def _shown(levels: Sequence[Level], axes: str, channel: int | None) -> Any:
    pyramid = [LazyPixels(level, axes, channel) for level in levels]
    return pyramid if len(pyramid) > 1 else pyramid[0]


def _contrast(level: Level, axes: str, channel: int) -> dict[str, Any]:
    """Return the range in which a channel is shown: of bytes and words theirs, else what is seen."""
    stored = _RANGES.get(level.dtype)
    if stored is not None:
        return {"contrast_limits": stored}
    pixels = LazyPixels(level, axes, channel)
    middle: list[Any] = []
    for axis, size in zip(axes, pixels.shape, strict=True):
        first = max(0, (size - _LOOKED_AT) // 2)
        middle.append(slice(first, first + _LOOKED_AT) if axis in "yx" else size // 2)
    values = pixels[tuple(middle)]
    seen = values[np.isfinite(values)]
    if not seen.size:
        return {}
    low, high = float(seen.min()), float(seen.max())
    return {"contrast_limits": (low, high if high > low else low + 1.0)}
