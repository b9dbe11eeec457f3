"""A slide at a size that fits a page, and other images brought onto the same pixels.

Everything is placed by micrometres: the pixel size and the translation that an image states, never
its number of pixels. A prediction may be coarser than the slide and cover a part of it only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError
from microtome.image import Channels, MultiscaleImage, channel_indices

from ._nuclei import nuclear_channels

__all__ = [
    "Frame",
    "ShownChannel",
    "Thumbnail",
    "detail",
    "frame_of",
    "read_frame",
    "sample",
    "thumbnail",
]

# Source pixels in memory at a time: a slide without coarser levels is read in bands.
_BAND = 1 << 25
# Colours that people with any colour vision tell apart when added up on black; the first is for
# nuclei, which the field shows in blue, and the last choice where there are none.
_COLOURS = ("#4a7dff", "#ffb000", "#ff3fb4", "#35d461", "#23d5e8", "#ff5a45")
_LOW, _HIGH = 0.01, 0.995
_RGB = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """A pixel grid in space, micrometres from the origin that an image's translation refers to."""

    height: int
    width: int
    top: float
    """Upper edge of the first row."""
    left: float
    """Left edge of the first column."""
    step_y: float
    """Height of a pixel."""
    step_x: float
    """Width of a pixel."""

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Edges as matplotlib takes them: left, right, bottom, top."""
        right, bottom = self.left + self.width * self.step_x, self.top + self.height * self.step_y
        return self.left, right, bottom, self.top


@dataclass(frozen=True, slots=True)
class ShownChannel:
    """How a channel was turned into light."""

    name: str
    colour: str
    """Hexadecimal, ``"#rrggbb"``."""
    low: float
    """Shown as black."""
    high: float
    """Shown at full brightness."""


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """A slide as people look at it."""

    pixels: NDArray[np.uint8]
    """(height, width, 3)."""
    frame: Frame
    channels: tuple[ShownChannel, ...]
    """Colours of a composite; empty for true colour."""
    channel_count: int
    """Channels of the image, shown or not."""
    base: Frame
    """Pixel grid of the image's finest level, which tiles are counted on."""


def frame_of(image: MultiscaleImage, size: int | None = None) -> Frame:
    """Return the grid of an image's finest level, or one that covers it in at most `size` pixels.

    Parameters
    ----------
    image
        The image, over c, y, x or y, x.
    size
        Most pixels along the longer side; None for the finest level.

    Raises
    ------
    NoResolutionError
        If the image does not state its pixel size.
    InvalidInputError
        If it has other axes, or `size` is below 1.
    """
    if image.axes not in {"cyx", "yx"}:
        msg = (
            f"{image.uri}: a picture can be shown of c, y, x or y, x; this image has {image.axes!r}"
        )
        raise InvalidInputError(msg)
    if size is not None and size < 1:
        msg = f"size must be at least 1 pixel, got {size}"
        raise InvalidInputError(msg)
    own, base = image.require_mpp(), image.level(0)
    ratio = 1.0 if size is None else max(1.0, base.height / size, base.width / size)
    # Whole pixels that end where the image ends; they may be out of square by a part of one.
    height, width = max(1, round(base.height / ratio)), max(1, round(base.width / ratio))
    return Frame(
        height=height,
        width=width,
        # A translation speaks of the centre of the first pixel, a frame of its edge.
        top=base.translation[-2] - own.y / 2,
        left=base.translation[-1] - own.x / 2,
        step_y=own.y * base.height / height,
        step_x=own.x * base.width / width,
    )


def read_frame(
    image: MultiscaleImage, frame: Frame, *, channels: Channels | None = None
) -> NDArray[Any]:
    """Read an image on a grid of `frame_of` the same image.

    Parameters
    ----------
    image
        The image.
    frame
        The grid.
    channels
        Channels by number or name; None for all.

    Returns
    -------
    (C, height, width) in the image's dtype; coarser pixels are means, or, of labels, the label
    under their centre.
    """
    mpp = Mpp(frame.step_y, frame.step_x, image.require_mpp().source)
    return _read_window(image, mpp, (0, frame.height), (0, frame.width), channels)


def sample(
    image: MultiscaleImage, frame: Frame, *, channel: int | str = 0, dtype: Any = np.float32
) -> NDArray[Any]:
    """Bring a channel of another image onto a grid, each pixel to its own place in space.

    Parameters
    ----------
    image
        The other image, of any pixel size and translation, in the same space.
    frame
        The grid.
    channel
        Which channel.
    dtype
        Of the values, a float; 32 bits tell labels apart up to 2 ** 24.

    Returns
    -------
    (height, width), NaN where a pixel's centre lies outside the image. Where the image is finer,
    the mean over about a pixel; where it is coarser, linear between its centres; labels as they
    are.
    """
    own, base = image.require_mpp(), frame_of(image)
    # As fine as the grid needs, not finer: a pixel is a mean of what it covers.
    mpp = Mpp(max(own.y, frame.step_y), max(own.x, frame.step_x), own.source)
    height, width = image.grid_at(mpp)
    nearest = image.kind == "labels"
    rows = _Places.of(
        frame.top, frame.step_y, frame.height, base.top, mpp.y, height, nearest=nearest
    )
    columns = _Places.of(
        frame.left, frame.step_x, frame.width, base.left, mpp.x, width, nearest=nearest
    )
    rows.cut(base.height * base.step_y / mpp.y)
    columns.cut(base.width * base.step_x / mpp.x)
    out = np.full((frame.height, frame.width), np.nan, dtype)
    if not rows.inside.any() or not columns.inside.any():
        return out
    pixels = _read_window(image, mpp, rows.span, columns.span, channel)[0].astype(np.float64)
    along = rows.mix(pixels, axis=0)
    found = columns.mix(along, axis=1)
    out[np.ix_(rows.inside, columns.inside)] = found
    return out


def thumbnail(
    image: MultiscaleImage,
    *,
    size: int = 1000,
    channels: Sequence[int] | Sequence[str] | None = None,
    rgb: bool | None = None,
    nuclei: bool | None = None,
) -> Thumbnail:
    """Make a picture of an image.

    Parameters
    ----------
    image
        The image, over c, y, x or y, x.
    size
        Most pixels along the longer side; a smaller image is not enlarged.
    channels
        Channels of the composite, by number or name, at most six; by default the first six. Red,
        green and blue need none.
    rgb
        Whether the channels are red, green and blue of 8 bits; by default where they are called
        so.
    nuclei
        Whether the first channel shows nuclei and is blue; by default where it is called like it.

    Raises
    ------
    NoResolutionError
        If the image does not state its pixel size.
    InvalidInputError
        If it has other axes than c, y, x, is not RGB though `rgb` says so, or too many channels
        are asked for.
    UnknownNameError, OutOfRangeError
        If there is no such channel.
    """
    frame = frame_of(image, size)
    true_colour = _is_rgb(image) if rgb is None and channels is None else bool(rgb)
    if true_colour:
        if image.nchannels != _RGB or image.dtype != np.uint8:
            msg = f"{image.uri} is not red, green and blue of 8 bits: it has {image.nchannels} channels of {image.dtype}"
            raise InvalidInputError(msg)
        pixels = np.ascontiguousarray(np.moveaxis(read_frame(image, frame), 0, -1))
        return Thumbnail(pixels, frame, (), _RGB, frame_of(image))
    wanted = list(range(min(image.nchannels, len(_COLOURS)))) if channels is None else channels
    picked = channel_indices(wanted, image.channel_names, image.nchannels)
    if not 1 <= len(picked) <= len(_COLOURS):
        msg = f"a composite takes 1 to {len(_COLOURS)} channels, got {len(picked)}"
        raise InvalidInputError(msg)
    planes = read_frame(image, frame, channels=picked).astype(np.float32)
    names = image.channel_names or ("intensity",)
    if nuclei is None:
        nuclei = nuclear_channels([names[picked[0]]], [False])[0]
    order = _COLOURS if nuclei else (*_COLOURS[1:], _COLOURS[0])
    colours = order[: len(picked)] if len(picked) > 1 else ("#ffffff",)
    shown = tuple(
        ShownChannel(names[index], colour, *_contrast(plane))
        for index, colour, plane in zip(picked, colours, planes, strict=True)
    )
    return Thumbnail(_composite(planes, shown), frame, shown, image.nchannels, frame_of(image))


def detail(image: MultiscaleImage, slide: Thumbnail, frame: Frame) -> NDArray[np.uint8]:
    """Show a part of an image in the colours and the contrast of its picture.

    Parameters
    ----------
    image, slide
        The image, and a `thumbnail` of it.
    frame
        The part, as pixels of its own.

    Returns
    -------
    (height, width, 3).
    """
    if not slide.channels:
        planes = [sample(image, frame, channel=index) for index in range(_RGB)]
        return np.rint(np.nan_to_num(np.stack(planes, -1))).astype(np.uint8)
    names = [channel.name for channel in slide.channels] if image.channel_names else [0]
    planes = np.stack([sample(image, frame, channel=name) for name in names])
    return _composite(planes, slide.channels)


def _is_rgb(image: MultiscaleImage) -> bool:
    names = tuple(name.lower() for name in image.channel_names or ())
    return image.dtype == np.uint8 and names in {("red", "green", "blue"), ("r", "g", "b")}


def _contrast(plane: NDArray[np.float32]) -> tuple[float, float]:
    finite = plane[np.isfinite(plane)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(finite, [_LOW, _HIGH]))
    # A sparse marker is 0 almost everywhere: what it has must not vanish with the quantile.
    high = high if high > low else float(finite.max())
    return low, high if high > low else low + 1.0


def _composite(planes: NDArray[np.float32], shown: Sequence[ShownChannel]) -> NDArray[np.uint8]:
    total = np.zeros((*planes.shape[1:], 3), np.float32)
    for plane, channel in zip(planes, shown, strict=True):
        light = np.clip((plane - channel.low) / (channel.high - channel.low), 0, 1)
        colour = [int(channel.colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        total += np.nan_to_num(light)[..., None] * np.asarray(colour, np.float32)
    return np.rint(np.clip(total, 0, 1) * 255).astype(np.uint8)


@dataclass(slots=True)
class _Places:
    """Where the pixels of a grid lie on another one, along one axis."""

    position: NDArray[np.float64]
    """(n,) in pixels of the other grid, edges counted: the centre of its first is 0.5."""
    inside: NDArray[np.bool_]
    """(n,)."""
    length: int
    nearest: bool

    @classmethod
    def of(
        cls,
        start: float,
        step: float,
        count: int,
        other_start: float,
        other_step: float,
        length: int,
        *,
        nearest: bool,
    ) -> _Places:
        centers = start + (np.arange(count, dtype=np.float64) + 0.5) * step
        position = (centers - other_start) / other_step
        return cls(position, np.ones(count, np.bool_), length, nearest)

    def cut(self, end: float) -> None:
        """Leave out what lies before the first or past the last pixel, which may be cut short."""
        self.inside = (self.position >= 0) & (self.position < end)

    @property
    def span(self) -> tuple[int, int]:
        """Pixels of the other grid that are needed."""
        low, high, _ = self._neighbours()
        return int(low.min()), int(high.max()) + 1

    def mix(self, pixels: NDArray[np.float64], *, axis: int) -> NDArray[np.float64]:
        """Interpolate along an axis of the pixels of `span`."""
        low, high, weight = self._neighbours()
        first = self.span[0]
        below, above = np.take(pixels, low - first, axis), np.take(pixels, high - first, axis)
        weight = weight.reshape([-1 if i == axis else 1 for i in range(pixels.ndim)])
        # Not below * (1 - w) + above * w: a NaN beyond the last pixel that counts must not leak.
        return np.where(weight == 0, below, below + (above - below) * weight)

    def _neighbours(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        position = self.position[self.inside]
        if self.nearest:
            index = np.clip(np.floor(position).astype(np.intp), 0, self.length - 1)
            return index, index, np.zeros(index.size)
        place = np.clip(position - 0.5, 0, self.length - 1)
        # Grids that agree but for rounding are read as they are.
        whole = np.rint(place)
        place = np.where(np.abs(place - whole) < 1e-6, whole, place)
        low = np.floor(place).astype(np.intp)
        return low, np.minimum(low + 1, self.length - 1), np.subtract(place, low)


def _read_window(
    image: MultiscaleImage,
    mpp: Mpp,
    y: tuple[int, int],
    x: tuple[int, int],
    channels: Channels | None,
) -> NDArray[Any]:
    """Read (C, rows, columns) of the grid with a pixel size, in bands that bound the memory."""
    own = image.level_mpp(image.best_level(mpp))
    picked = channel_indices(channels, image.channel_names, image.nchannels)
    row = len(picked) * (x[1] - x[0]) * max(1.0, mpp.x / own.x) * max(1.0, mpp.y / own.y)
    step = max(1, math.floor(_BAND / row))
    bands: list[NDArray[Any]] = []
    for start in range(y[0], y[1], step):
        band = image.read_grid(mpp, (start, min(start + step, y[1])), x, channels=picked)
        bands.append(band.reshape(len(picked), *band.shape[-2:]))
    return np.concatenate(bands, axis=1)
