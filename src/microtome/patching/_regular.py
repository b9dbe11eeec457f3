"""Patches in rows: a grid, whole images, tiles that are stitched back, and tables of tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.regions import Windows
from microtome.tiling import PlannedTiles, TilePlan, TileTable, plan_tiles

from ._counted import CountedPatching
from ._patching import Patching
from ._samples import Samples, checked_rows, counted, read_shapes

__all__ = ["SequentialPatching", "TablePatching", "TiledPatching", "WholePatching"]


class SequentialPatching(CountedPatching):
    """A grid over every sample, row by row; the last of a row is moved back to end with it.

    Parameters
    ----------
    data_shapes
        Shape of each image in SC(Z)YX.
    patch_size
        (height, width) or (depth, height, width), in pixels.
    overlap
        Pixels that neighbours share, one number for every axis or one each; below the patch.
    pad
        Whether an image may be smaller than a patch, which then hangs over its far edge.

    Raises
    ------
    InvalidInputError
        If an image has other axes than the patch, or is smaller and `pad` is False, or the overlap
        is not below the patch.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        overlap: int | Sequence[int] = 0,
        *,
        pad: bool = False,
    ) -> None:
        self._overlap = overlap
        # One plan a size, not a sample: a study has thousands of images and a few sizes.
        self._plans: list[TilePlan] = []
        super().__init__(data_shapes, patch_size, pad=pad)

    def _counts(self) -> NDArray[np.int64]:
        counts = np.zeros(len(self._samples), np.int64)
        self._plan_of = np.zeros(len(self._samples), np.int64)
        for size, rows in self._samples.by_size():
            plan = plan_tiles(size, self._size, self._overlap)
            self._plan_of[rows] = len(self._plans)
            counts[rows] = len(plan)
            self._plans.append(plan)
        return counts

    @property
    def grid(self) -> tuple[tuple[int, ...], ...]:
        """Number of patches along each axis of each sample."""
        return tuple(self._plans[plan].grid for plan in self._plan_of.tolist())

    def windows(self, rows: ArrayLike, *, epoch: int = 0) -> Windows:
        """Return where patches lie; see `Patching.windows`."""
        del epoch
        at, tiles = self._tiles(rows)
        return Windows(
            self._samples.image[at], tiles.coords, self._size, sample=self._samples.sample[at]
        )

    def _tiles(self, rows: ArrayLike) -> tuple[NDArray[np.int64], PlannedTiles]:
        """Return the sample of each row, and its tile."""
        at, local = counted(checked_rows(rows, self.n_patches), self._ends)
        plan_of = self._plan_of[at]
        used = np.unique(plan_of)
        if used.size == 1:
            return at, self._plans[int(used[0])].take(local)
        shape = (len(at), len(self._size))
        found = PlannedTiles(*(np.empty(shape, np.int64) for _ in range(4)))
        for number in used.tolist():
            mine = plan_of == number
            part = self._plans[number].take(local[mine])
            found.coords[mine], found.stitch[mine] = part.coords, part.stitch
            found.crop[mine], found.crop_size[mine] = part.crop, part.crop_size
        return at, found


class TiledPatching(SequentialPatching):
    """Tiles that overlap and are stitched back: `plan_tiles` over every sample of every image.

    Parameters
    ----------
    data_shapes
        Shape of each image in SC(Z)YX.
    patch_size
        Size of a tile, (height, width) or (depth, height, width), in pixels.
    overlap
        Pixels that neighbours share, one number for every axis or one each; below the tile. May be
        odd.

    Raises
    ------
    InvalidInputError
        If an image has other axes than the tile, or the overlap is not below the tile. An image
        that is smaller has one tile, which hangs over its far edge.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        overlap: int | Sequence[int] = 0,
    ) -> None:
        super().__init__(data_shapes, patch_size, overlap, pad=True)
        counts = np.diff(self._ends, prepend=0)
        self._total = np.bincount(self._samples.image, counts).astype(np.int64)

    def columns(self, rows: ArrayLike, *, epoch: int = 0) -> Mapping[str, NDArray[np.int64]]:
        """Return what a `TileSpecs` holds beyond a window, each of length n."""
        del epoch
        at, tiles = self._tiles(rows)
        return {
            "crop_coords": tiles.crop,
            "crop_size": tiles.crop_size,
            "stitch_coords": tiles.stitch,
            "total_tiles": self._total[self._samples.image[at]],
        }


class WholePatching(Patching):
    """Every sample as it is.

    Parameters
    ----------
    data_shapes
        Shape of each image in SC(Z)YX.

    Raises
    ------
    InvalidInputError
        If there is no image, or images differ in the number of their axes.
    """

    def __init__(self, data_shapes: Sequence[Sequence[int]]) -> None:
        shapes = read_shapes(data_shapes)
        self._samples = Samples.of(shapes, len(shapes[0]) - 2 if shapes else 2)

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Size of every sample along (Z)YX.

        Raises
        ------
        InvalidInputError
            If samples differ.
        """
        return self._one_size(np.arange(len(self._samples)))

    @property
    def n_patches(self) -> int:
        """Number of samples."""
        return len(self._samples)

    def windows(self, rows: ArrayLike, *, epoch: int = 0) -> Windows:
        """Return where samples lie, which must be of one size; see `Patching.windows`.

        Raises
        ------
        InvalidInputError
            If they differ in size: a batch holds one.
        """
        del epoch
        chosen = checked_rows(rows, self.n_patches)
        start = np.zeros((len(chosen), self._samples.size.shape[1]), np.int64)
        return Windows(
            self._samples.image[chosen],
            start,
            self._one_size(chosen),
            sample=self._samples.sample[chosen],
        )

    def verify_shapes(self, data_shapes: Sequence[Sequence[int]], *, touching: bool = True) -> None:
        """Refuse images of other shapes; see `Patching.verify_shapes`."""
        del touching
        self._samples.verify_same(data_shapes)

    def get_patch_indices(self, data_idx: int) -> range:
        """Return the numbers of an image's samples."""
        return range(*self._samples.span(data_idx))

    def __repr__(self) -> str:
        return f"WholePatching({self.n_patches} samples)"

    def _one_size(self, chosen: NDArray[np.int64]) -> tuple[int, ...]:
        sizes = np.unique(self._samples.size[chosen] if chosen.size else self._samples.size, axis=0)
        if len(sizes) > 1:
            msg = (
                f"whole images of one batch have one size, got {sizes[:4].tolist()}; take them one "
                "by one (batch_size=1), or tile them"
            )
            raise InvalidInputError(msg)
        return tuple(sizes[0].tolist())


class TablePatching(Patching):
    """The tiles of a table.

    Parameters
    ----------
    table
        The tiles, on the level that is read.
    data_idx
        Number of each tissue's image.
    level
        Index of the level that the tiles lie on.

    Raises
    ------
    UnknownNameError
        If a tissue of the table has no image.
    """

    def __init__(self, table: TileTable, data_idx: Mapping[str, int], *, level: int = 0) -> None:
        missing = [name for name in table.tissue_ids if name not in data_idx]
        if missing:
            msg = (
                f"{len(missing)} of {len(table.tissue_ids)} tissues of the table have no image: "
                f"{missing[:4]}"
            )
            raise UnknownNameError(msg)
        self._table = table
        self._level = level
        self._image = np.asarray([data_idx[name] for name in table.tissue_ids], np.int64)

    @property
    def patch_size(self) -> tuple[int, ...]:
        """(height, width) of a tile, in pixels."""
        return self._table.tile_size

    @property
    def n_patches(self) -> int:
        """Number of tiles."""
        return len(self._table)

    def windows(self, rows: ArrayLike, *, epoch: int = 0) -> Windows:
        """Return where tiles lie; see `Patching.windows`."""
        del epoch
        found = self._table.rows(checked_rows(rows, self.n_patches))
        start = np.stack([found.row, found.col], axis=-1)
        return Windows(self._image[found.tissue], start, self.patch_size, self._level)

    def get_patch_indices(self, data_idx: int) -> NDArray[np.int64]:
        """Return the rows of the tissues whose image it is."""
        tissues = [
            name
            for name, image in zip(self._table.tissue_ids, self._image, strict=True)
            if image == data_idx
        ]
        found = [self._table.positions(name) for name in tissues]
        return np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)
