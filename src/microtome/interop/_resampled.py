"""Fixed-size tiles: windows of a level's pixel grid, or grids along a coordinate system's axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import AffineTransform
from microtome.image import Resampling
from microtome.regions import ImageRegionData, Padding, Windows, read_regions, region_batch

from ._plan import Pair, TilePlan

__all__ = ["GridReader", "resampled"]

# Of a pixel: a grid this close to whole pixels of a level is those pixels.
_SAME = 1e-6


def resampled(
    pair: Pair,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    method: Resampling,
    padding: Padding,
) -> NDArray[Any]:
    """Resample a box of a coordinate system onto `size` pixels, from the level that suits them."""
    level = pair.level_for(min((box[3] - box[1]) / size[0], (box[2] - box[0]) / size[1]))
    read = pair.picture.image.read_spatial_region(
        level,
        box,
        region_transform=AffineTransform(("x", "y"), ("x", "y"), pair.to_pixels),
        resample=method,
        grid_shape=size,
        pad=padding,
    )
    return read.data


@dataclass(frozen=True, slots=True)
class GridReader:
    """Reads tiles of one size, many at once.

    Parameters
    ----------
    size
        Pixels (y, x) of every tile.
    rasterize
        Whether tiles are resampled into the coordinate system; else they are windows around the
        centres on the pixel grid of the level that suits `pixel`.
    method, padding
        How they are resampled, and what stands outside the image.
    pixel
        Pixel size that was asked for, in units of the coordinate system; None for the finest level.
    """

    size: tuple[int, int]
    rasterize: bool
    method: Resampling
    padding: Padding
    pixel: float | None

    def read(
        self,
        plan: TilePlan,
        pairs: Sequence[Pair],
        rows: NDArray[np.int64],
        facts: Sequence[dict[str, Any]],
    ) -> ImageRegionData[Any]:
        """Read tiles into one collated batch of the stored type.

        Parameters
        ----------
        plan, pairs
            The tiles, and what each region's are read from.
        rows
            Which tiles, in the order wanted.
        facts
            What else is known of each of them.
        """
        levels, starts, whole = self._windows(plan, pairs, rows)
        images = [pair.picture.image for pair in pairs]
        numbers = plan.region[rows].astype(np.int64)
        depth = _depth(pairs, numbers)
        size = (*depth, *self.size)
        starts = np.concatenate([np.zeros((len(rows), len(depth)), np.int64), starts], axis=1)
        lead = images[int(numbers[0])].nchannels
        out = np.empty((len(rows), lead, *size), images[int(numbers[0])].dtype)
        told: list[ImageRegionData[Any]] = []
        order: list[NDArray[np.intp]] = []
        for level in np.unique(levels).tolist():
            mine = np.flatnonzero(levels == level)
            windows = Windows.of(numbers[mine], starts[mine], size, level)
            if whole[mine].all():
                # One request for all of them, straight into the batch where it is theirs alone.
                if len(mine) == len(rows):
                    read_regions(images, windows, out=out, padding=self.padding)
                else:
                    out[mine] = read_regions(images, windows, padding=self.padding)
            else:
                for at in mine.tolist():
                    row = int(rows[at])
                    pair = pairs[int(plan.region[row])]
                    out[at] = resampled(pair, plan.box(row), self.size, self.method, self.padding)
            told.append(
                region_batch(
                    images, windows, out[mine], metadata=[facts[at] for at in mine.tolist()]
                )
            )
            order.append(mine)
        if len(told) == 1:
            return told[0]._replace(data=out)
        from microtome.regions import collate_regions, decollate_regions

        regions = [region for batch in told for region in decollate_regions(batch)]
        back = np.argsort(np.concatenate(order))
        return collate_regions([regions[at] for at in back.tolist()])

    def _windows(
        self, plan: TilePlan, pairs: Sequence[Pair], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return each tile's level, first pixel (y, x) in it, and whether it is those pixels."""
        levels = np.zeros(len(rows), np.int64)
        starts = np.zeros((len(rows), 2), np.int64)
        whole = np.ones(len(rows), np.bool_)
        if not self.rasterize:
            for number in np.unique(plan.region[rows]).tolist():
                pair, mine = pairs[number], np.flatnonzero(plan.region[rows] == number)
                level = 0 if self.pixel is None else pair.level_for(self.pixel)
                matrix = pair.to_level(level)
                middle = plan.centres[rows[mine]] @ matrix[:2, :2].T + matrix[:2, 2]
                levels[mine] = level
                starts[mine] = np.floor(middle[:, ::-1] - np.asarray(self.size) / 2 + 0.5)
            return levels, starts, whole
        for at, row in enumerate(rows.tolist()):
            pair, box = pairs[int(plan.region[row])], plan.box(row)
            step = np.array([(box[2] - box[0]) / self.size[1], (box[3] - box[1]) / self.size[0]])
            levels[at] = pair.level_for(float(step.min()))
            matrix = pair.to_level(int(levels[at]))
            grid = matrix[:2, :2] * step
            first = matrix[:2, :2] @ np.asarray(box[:2]) + matrix[:2, 2]
            near = np.floor(first + 0.5 + _SAME)
            shifted = float(np.abs(first - near).max()) > _SAME
            drift = float(np.abs(grid - np.eye(2)).max()) * max(self.size)
            # The nearest pixel of a shifted grid is the same for all; in between it is none.
            whole[at] = drift < _SAME and (self.method == "nearest" or not shifted)
            starts[at] = near[::-1]
        return levels, starts, whole


def _depth(pairs: Sequence[Pair], numbers: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the planes of the images, of which a tile has all; () for flat images."""
    image = pairs[int(numbers[0])].picture.image
    return (image.level(0).shape[image.axes.index("z")],) if "z" in image.axes else ()
