"""Tiles of fixed size around regions, read together: a batch for each image that they are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import Resampling
from microtome.regions import ImageRegionData, Padding, decollate_regions

from ._plan import Pair, TilePlan
from ._resampled import GridReader

__all__ = ["GridBatches", "grid_readers"]


def grid_readers(
    plan: TilePlan,
    cut: Sequence[Sequence[Pair]],
    size: tuple[int, int],
    *,
    rasterize: bool,
    interpolation: Resampling,
    padding: Padding,
    pixel_size: float | None,
) -> list[GridReader]:
    """Return what reads the tiles of each image, or labels, that regions are cut from.

    Parameters
    ----------
    plan
        The tiles.
    cut
        For each region what its tiles are cut from.
    size
        Pixels of a tile.
    rasterize, interpolation, padding, pixel_size
        As of `ImageTilesDataset`.

    Raises
    ------
    InvalidInputError
        If regions differ in how many images they have.
    """
    counts = {pair[0].region: len(pair) for pair in cut}
    if len(set(counts.values())) > 1:
        msg = f"batches have the same images for every region, got {counts} of them"
        raise InvalidInputError(msg)
    return [
        GridReader(plan, column, size, rasterize, *how, pixel_size)
        for column in zip(*cut, strict=True)
        for how in [_of(column[0], interpolation, padding)]
    ]


class GridBatches:
    """Batches of tiles with what is known of each.

    Parameters
    ----------
    plan
        The tiles.
    pairs
        Of each region its first image.
    readers
        What reads each of the images.
    values, names
        Annotations, (n, names); None where none are asked for.
    """

    def __init__(
        self,
        plan: TilePlan,
        pairs: Sequence[Pair],
        readers: Sequence[GridReader],
        values: NDArray[Any] | None,
        names: tuple[str, ...],
    ) -> None:
        self._plan, self._pairs, self._readers = plan, pairs, readers
        self._values, self._names = values, names

    def items(self, rows: list[int]) -> list[Any]:
        """Return tiles one by one; of several images a tuple of each."""
        if not rows:
            return []
        columns = [
            # torch's default_collate takes no None: what nobody knows is not there.
            [
                region._replace(additional_metadata=_known(region.additional_metadata))
                for region in decollate_regions(batch)
            ]
            for batch in self.batches(rows, convert=False)
        ]
        return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))

    def batches(self, rows: list[int], *, convert: bool) -> list[ImageRegionData[Any]]:
        """Return a batch for each image or labels that tiles are cut from.

        Parameters
        ----------
        rows
            Numbers of tiles.
        convert
            Whether images become float32 and labels int64.

        Raises
        ------
        InvalidInputError
            If no tile is asked for.
        """
        if not rows:
            msg = "a batch of no tiles cannot be read"
            raise InvalidInputError(msg)
        numbers = np.asarray(rows, np.int64)
        found: list[ImageRegionData[Any]] = []
        for grid in self._readers:
            names = [pair.picture.name for pair in grid.pairs]
            facts = [self._facts(row, names) for row in rows]
            if not convert:
                found.append(grid.read(numbers, facts))
                continue
            kind = grid.pairs[0].picture.image.kind
            found.append(grid.read_as(numbers, facts, np.dtype("i8" if kind == "labels" else "f4")))
        return found

    def _facts(self, row: int, images: Sequence[str]) -> dict[str, Any]:
        number = int(self._plan.region[row])
        pair = self._pairs[number]
        facts: dict[str, Any] = {
            "instance_id": self._plan.instance(row),
            "region": pair.region,
            "cs": pair.system,
            "image": images[number],
            "box": self._plan.box(row),
        }
        if self._values is not None:
            facts["annotations"] = self._values[row].tolist()
            facts["annotation_names"] = self._names
        return facts


def _known(facts: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def _of(pair: Pair, interpolation: Resampling, padding: Padding) -> tuple[Resampling, Padding]:
    """Return how an image is resampled and padded; labels are never mixed, nor made up."""
    return ("nearest", 0) if pair.picture.image.kind == "labels" else (interpolation, padding)
