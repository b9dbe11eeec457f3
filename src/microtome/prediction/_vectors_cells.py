"""A crop around every cell, for models that describe one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.coordinates import MicrometreGrid
from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.image import Channels, MultiscaleImage, channel_indices
from microtome.regions import ImageRegionData, Windows, read_regions, region_batch

__all__ = ["CellCrops"]


class CellCrops:
    """Windows centred on cells, to be read by number: what `embed_tiles` and `TileLoader` take.

    Parameters
    ----------
    image
        The image.
    centroids
        Where the cells are, (n, 2) of (y, x) in micrometres from the upper left edge of the image:
        the columns `centroid_y` and `centroid_x` of a table of cells.
    cell_ids
        What they are called, (n,); 0, 1, ... by default.
    size
        Pixels of a crop: one number or (height, width).
    tissue_id
        What the picture is called; the name of the image by default.
    level
        Index of the level that crops are cut from.
    channels
        Channels by number or name; None for all.

    Raises
    ------
    InvalidInputError
        If there are not as many names as places, a place is not finite, or a size is not positive.
    NoResolutionError
        If the image does not state its pixel size.

    Examples
    --------
    ::

        cells = pyarrow.parquet.read_table("cells.parquet")
        centroids = np.stack([cells["centroid_y"], cells["centroid_x"]], axis=1)
        crops = CellCrops(image, centroids, cells["cell_id"].to_pylist(), size=64)
        embed_tiles(model, crops, "vectors.parquet")
    """

    def __init__(
        self,
        image: MultiscaleImage,
        centroids: ArrayLike,
        cell_ids: Sequence[int | str] | None = None,
        *,
        size: int | Sequence[int],
        tissue_id: str | None = None,
        level: int = 0,
        channels: Channels | None = None,
    ) -> None:
        image.require_mpp()
        places = np.asarray(centroids, np.float64)
        sides = np.broadcast_to(np.asarray(size), (2,))
        if places.ndim != 2 or places.shape[1] != 2 or not np.isfinite(places).all():
            msg = f"centroids are (n, 2) finite numbers (y, x) in micrometres, got {places.shape}"
            raise InvalidInputError(msg)
        self._ids = list(range(len(places)) if cell_ids is None else cell_ids)
        if len(self._ids) != len(places) or sides.dtype.kind not in "iu" or sides.min() < 1:
            msg = (
                f"{len(self._ids)} names for {len(places)} cells, crops of {sides.tolist()} pixels"
            )
            raise InvalidInputError(msg)
        self._image = image
        self._tissue = image.name if tissue_id is None else tissue_id
        self._level = level % image.level_count
        self._channels = channel_indices(channels, image.channel_names, image.nchannels)
        self._size = sides.astype(np.int64)
        chosen = image.level(level)
        # A centre between two pixels, of a crop of even size, is where the cell is, to half a pixel.
        grid = MicrometreGrid.of_level(chosen, image.level(0))
        self._starts = grid.windows(places, self._size)
        self._places = places

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def starts(self) -> NDArray[np.int64]:
        """First pixel of every crop, (n, 2) of (row, col); may lie outside the image."""
        return self._starts

    def read_batch(self, rows: NDArray[np.int64], /) -> ImageRegionData[Any]:
        """Read crops as a collated batch; what hangs over the image's edge is 0.

        `additional_metadata` of each has `tissue_id`, `cell_id` and `centroid`, (y, x) as given.

        Parameters
        ----------
        rows
            Numbers of the cells.

        Raises
        ------
        OutOfRangeError
            If there is no such cell.
        """
        wrong = [int(row) for row in rows if not 0 <= row < len(self)]
        if wrong:
            msg = f"cell {wrong[0]} of {len(self)}"
            raise OutOfRangeError(msg)
        windows = Windows.of(0, self._starts[rows], tuple(self._size.tolist()), self._level)
        pixels = read_regions([self._image], windows, channels=self._channels)
        facts = [
            {
                "tissue_id": self._tissue,
                "cell_id": self._ids[row],
                "centroid": tuple(self._places[row].tolist()),
            }
            for row in rows
        ]
        return region_batch([self._image], windows, pixels, channels=self._channels, metadata=facts)
