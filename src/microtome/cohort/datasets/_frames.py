"""A square of a tissue's frame, made of an image that lies in the frame in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.cohort._images import served_from, stored_type
from microtome.coordinates import AffineTransform, CoordinateTransform, Mpp, ScaleTransform
from microtome.image import Channels, MultiscaleImage, image_at, level_for_means

from ._shelf import OpenImage

__all__ = ["FrameBox", "FramePlace", "pixel_start", "read_framed"]

_AXES = ("x", "y")
# A corner within this part of a pixel of a grid line lies on it.
_ON_LINE = 1e-6


@dataclass(frozen=True, slots=True)
class FrameBox:
    """A box of a tissue's frame, in micrometres.

    Parameters
    ----------
    y, x
        Upper-left corner.
    height, width
        Size.
    """

    y: float
    x: float
    height: float
    width: float

    def pixels(self, mpp: tuple[float, float]) -> tuple[int, int]:
        """Return how many pixels of a size make the box, at least one along each axis."""
        return max(1, round(self.height / mpp[0])), max(1, round(self.width / mpp[1]))

    def grown(self, by: int, mpp: tuple[float, float]) -> FrameBox:
        """Return the box with some pixels more on every side."""
        y, x = by * mpp[0], by * mpp[1]
        return FrameBox(self.y - y, self.x - x, self.height + 2 * y, self.width + 2 * x)


@dataclass(frozen=True, slots=True)
class FramePlace:
    """A tile, or any other box, of a tissue's frame."""

    tissue_id: str
    box: FrameBox
    tile_id: int | None = None


def pixel_start(box: FrameBox, mpp: tuple[float, float]) -> tuple[int, int] | None:
    """Return the first pixel of a box on the grid of a pixel size; None if it lies off the grid."""
    sides = ((box.y, box.height, mpp[0]), (box.x, box.width, mpp[1]))
    found: list[int] = []
    for start, length, size in sides:
        first, count = start / size, length / size
        if abs(first - round(first)) > _ON_LINE or abs(count - round(count)) > _ON_LINE:
            return None
        found.append(round(first))
    return found[0], found[1]


def read_framed(
    images: OpenImage,
    tissue_id: str,
    box: FrameBox,
    to_frame: AffineTransform | None,
    channels: Channels | None,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Resample a box of a tissue's frame from the stored image, once.

    Parameters
    ----------
    images
        The modality, and the pixel size of the result.
    tissue_id
        Which.
    box
        Where.
    to_frame
        From micrometres of the image to those of the frame; None where they are the same.
    channels
        Channels by number; None for all.

    Returns
    -------
    pixels
        (C, H, W): area-weighted means towards coarser pixels, else interpolated linearly. Counts
        of a multiplex image are floats. Outside the image is its nearest pixel.
    inside
        Whether the centre of each pixel lies in the image, (H, W).
    """
    stored = served_from(images.layout, images.modality, images.resolution, tissue_id)
    place = images.layout.image(images.modality, stored or images.resolution, tissue_id)
    image = MultiscaleImage.open(place)
    own = image.require_mpp()
    shape = box.pixels(images.resolution.mpp)
    to_image: CoordinateTransform = ScaleTransform(_AXES, _AXES, [1 / own.x, 1 / own.y])
    if to_frame is not None:
        to_image = to_image @ to_frame.inverse_transform()
    # Pixels of the finest level that a pixel of the result measures, along its two sides.
    step = box.width / shape[1], box.height / shape[0]
    sides = np.linalg.norm(to_image.linear * step, axis=0)
    coarser = float(sides.max()) > 1 + _ON_LINE
    level = 0
    if images.modality.kind == "multiplex":
        image = image_at(image, own, dtype=stored_type(image.dtype), level=0)
    elif coarser:
        finest = float(sides.min())
        level = level_for_means(image, Mpp(own.y * finest, own.x * finest, own.source))
    read = image.read_spatial_region(
        level,
        (box.x, box.y, box.x + box.width, box.y + box.height),
        channel_coords=channels,
        region_transform=to_image,
        pad="edge",
        resample="area" if coarser else "linear",
        grid_shape=shape,
    )
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    centres = np.stack([box.x + columns * step[0], box.y + rows * step[1]], axis=-1)
    at = to_image.apply(centres.reshape(-1, 2))
    height, width = image.level_shape(0)[-2:]
    inside: NDArray[np.bool_] = np.all((at >= -_ON_LINE) & (at < [width, height]), axis=1)
    pixels = np.asarray(read.data)
    return pixels.reshape(-1, *shape), inside.reshape(shape)
