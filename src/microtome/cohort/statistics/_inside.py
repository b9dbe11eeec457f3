"""The pixels of a tissue inside its mask, block by block: the next is decoded while one is counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.cohort._images import open_tissue_image, open_tissue_mask
from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality
from microtome.cohort._panels import verify_planes
from microtome.coordinates import Resolution
from microtome.errors import FormatError
from microtome.image import MultiscaleImage, blocks_of
from microtome.jobs import read_ahead
from microtome.standardize import runs_inside

from ._chunked import PixelBlock, chunked_blocks

__all__ = ["PixelBlock", "TissuePixels"]

# A block is at most this wide and high, and has at most so many bytes: few enough that memory is
# used again instead of touched for the first time, and that pixels are counted out of the cache.
_SIDE = 2048
_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class TissuePixels:
    """The pixels of one tissue, as they travel to a worker.

    Parameters
    ----------
    layout, modality, resolution, tissue_id
        Which.
    channels
        The panel: what the numbers of channels refer to.
    measured
        The channels of the image's planes.
    """

    layout: CohortLayout
    modality: Modality
    resolution: Resolution
    tissue_id: str
    channels: tuple[str, ...]
    measured: tuple[str, ...]

    @property
    def where(self) -> str:
        """What an error says."""
        return f"tissue {self.tissue_id!r} imaged as {self.modality}"

    def places(self) -> list[int]:
        """Return the place in the panel of each of the image's planes."""
        known = {name: place for place, name in enumerate(self.channels)}
        return [known[name] for name in self.measured]

    def dtype(self) -> np.dtype[Any]:
        """Return the type of the pixels."""
        image = open_tissue_image(self.layout, self.modality, self.resolution, self.tissue_id)
        return image.dtype

    def pixels_inside(self) -> int:
        """Return the number of pixels inside the mask."""
        mask = open_tissue_mask(self.layout, self.resolution, self.tissue_id)
        shape = mask.level_shape(0)[-2:]
        boxes = blocks_of(shape, (_SIDE, _SIDE))
        return sum(int(np.count_nonzero(mask.read(0, y, x))) for y, x in boxes)

    def blocks(self) -> Iterator[PixelBlock]:
        """Yield the blocks that have pixels inside the mask, each until the next is asked for.

        Raises
        ------
        FormatError
            If the mask has another shape than the image, or the image another number of channels
            than its tables say.
        """
        image = open_tissue_image(self.layout, self.modality, self.resolution, self.tissue_id)
        mask = open_tissue_mask(self.layout, self.resolution, self.tissue_id)
        self._verify(image, mask)
        chunked = chunked_blocks(image, mask)
        if chunked is not None:
            yield from chunked
            return
        boxes = blocks_of(image.level(0).shape[-2:], _sides(image))
        # One thread: the engine that it calls decodes in threads of its own.
        with closing(read_ahead(lambda box: _read(image, mask, *box), boxes)) as blocks:
            for block in blocks:
                if block is not None:
                    yield block

    def _verify(self, image: MultiscaleImage, mask: MultiscaleImage) -> None:
        shape, covered = image.level_shape(0)[-2:], mask.level_shape(0)[-2:]
        if covered != shape:
            msg = f"{mask.uri} has {covered} pixels, {image.uri} has {shape}"
            raise FormatError(msg)
        verify_planes(image, self.measured, said_by="the cohort's panel")


def _sides(image: MultiscaleImage) -> tuple[int, int]:
    """Height and width of a block: whole chunks, so that none is decoded twice."""
    level = image.level(0)
    chunk = level.array.chunks[-2:]
    bytes_each = level.dtype.itemsize * math.prod(level.shape[:-2])
    height, width = (max(side, _SIDE // side * side) for side in chunk)
    while height * min(width, level.width) * bytes_each > _BYTES and height > chunk[0]:
        height = max(chunk[0], height // 2 // chunk[0] * chunk[0])
    while height * min(width, level.width) * bytes_each > _BYTES and width > chunk[1]:
        width = max(chunk[1], width // 2 // chunk[1] * chunk[1])
    return height, width


def _read(
    image: MultiscaleImage, mask: MultiscaleImage, y: tuple[int, int], x: tuple[int, int]
) -> PixelBlock | None:
    """Read what a block has inside the mask, and no more than surrounds it; None if nothing is."""
    inside = mask.read(0, y, x).reshape(y[1] - y[0], x[1] - x[0]) != 0
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    pixels = image.read(0, (y[0] + top, y[0] + bottom), (x[0] + left, x[0] + right))
    inside = inside[top:bottom, left:right].reshape(-1)
    rows = pixels.reshape(-1, inside.size)
    return PixelBlock(rows, inside, runs_inside(inside), slice(0, len(rows)))
