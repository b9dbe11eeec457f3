"""`ImageTilesDataset`: tiles around the regions of a SpatialData object."""

from __future__ import annotations

import operator
import os
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from microtome.errors import DependencyError, InvalidInputError, ModeError, OutOfRangeError
from microtome.image import Resampling
from microtome.regions import ImageRegionData, Padding, columns_fingerprint
from microtome.storage import StorageOptions

from ._annotations import annotation_values, tables_of_tiles
from ._elements import Elements
from ._grid_batches import GridBatches, grid_readers
from ._items import ItemMaker, imported_spatialdata
from ._object import ObjectElements
from ._pairing import Names, paired_regions, verify_system
from ._plan import Pair, fixed_size, plan_tiles, raster_size
from ._resampled import GridReader
from ._store import StoreElements
from ._tile_options import verify_options

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ImageTilesDataset"]

# A tile of cells decodes ten times the pixels that it shows, and its neighbours want the same ones.
# 5 channels of 8192 x 8192 uint16 fit: with 256 MiB random tiles took 7.1 ms of processor, not 0.5.
_KEPT = 1 << 30


class ImageTilesDataset:
    """Tiles of images around the cells, spots or shapes of a SpatialData object.

    A map-style dataset for torch, and a source for `TileLoader`. An item is a SpatialData object
    of the tile and its row of the table; with `return_annotations` the tuple (tile, values); with
    ``output="region"`` an `ImageRegionData` of fixed size.

    Parameters
    ----------
    sdata
        The SpatialData object, or the path of its store, which is then read without dask.
    regions_to_images
        For each region (labels, shapes, points) the image that its tiles are cut from, or several.
    regions_to_coordinate_systems
        For each region the coordinate system in which its tiles are squares.
    tile_scale
        Side of a tile in diameters of the circle that has the instance's area in that system.
    tile_dim_in_units
        Side of all tiles in units of the system; then `tile_scale` is ignored.
    rasterize
        Whether tiles are resampled along the axes of the system. Else they are whole pixels: those
        whose centres lie in the bounding box of the tile on the image's pixel grid.
    return_annotations
        Names in the table; see `microtome.interop` for layers and obsm.
    table_name
        The table; every instance must have a row in it. Or several: every region must be annotated
        by one of them, or more, and its instances have a row in each of those.
    transform
        Called with the item; what it returns is the item.
    rasterize_kwargs
        For ``rasterize=True``: one of `target_unit_to_pixels`, `target_width`, `target_height`.
    regions_to_labels
        For some regions labels that are cut along with the images. Of several images and labels an
        item has each by its name; as regions they are a tuple, images first.
    output
        ``"spatialdata"``, or ``"region"``: an `ImageRegionData` that can be collated.
    tile_size
        Pixels a side (or (y, x)) of an `ImageRegionData`; by default what `rasterize_kwargs` says.
    pixel_size
        For regions that are not rasterized: pixel size wanted, in units of the system. The coarsest
        level is read that is not coarser.
    interpolation
        How tiles are rasterized: ``"nearest"`` as in SpatialData, ``"linear"``, or ``"area"`` for
        the mean of what a pixel covers.
    padding
        What stands outside the image in tiles of fixed size.
    storage_options
        What is kept in memory of stored images. By default up to 1 GiB of decoded chunks a process:
        tiles of neighbouring cells show the same ones. ``StorageOptions()`` keeps nothing.

    Raises
    ------
    InvalidInputError
        If arguments do not fit each other or the elements, one of them would be ignored, or an
        instance has no row in the table.
    UnknownNameError
        If there is no such element, table or column.
    FormatError
        If an element cannot be read.
    """

    INSTANCE_KEY = "instance_id"
    CS_KEY = "cs"
    REGION_KEY = "region"
    IMAGE_KEY = "image"

    def __init__(  # noqa: PLR0913, PLR0917 - the seed's arguments, and keyword-only what it cannot state
        self,
        sdata: Any,
        regions_to_images: Mapping[str, Names],
        regions_to_coordinate_systems: Mapping[str, str],
        tile_scale: float = 1.0,
        tile_dim_in_units: float | None = None,
        rasterize: bool = False,  # noqa: FBT001, FBT002 - the seed's
        return_annotations: str | Sequence[str] | None = None,
        table_name: str | Sequence[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
        rasterize_kwargs: Mapping[str, Any] | None = MappingProxyType({}),
        *,
        regions_to_labels: Mapping[str, Names] | None = None,
        output: Literal["spatialdata", "region"] = "spatialdata",
        tile_size: int | tuple[int, int] | None = None,
        pixel_size: float | None = None,
        interpolation: Resampling = "nearest",
        padding: Padding = 0,
        storage_options: StorageOptions | None = None,
    ) -> None:
        verify_options(
            {
                "regions_to_images": regions_to_images,
                "regions_to_coordinate_systems": regions_to_coordinate_systems,
                "regions_to_labels": regions_to_labels,
                "transform": transform,
                "storage_options": storage_options,
                "output": output,
                "rasterize": rasterize,
                "rasterize_kwargs": rasterize_kwargs,
                "return_annotations": return_annotations,
                "table_name": table_name,
                "tile_size": tile_size,
                "pixel_size": pixel_size,
                "interpolation": interpolation,
                "padding": padding,
            }
        )
        options = StorageOptions(cache_bytes=_KEPT) if storage_options is None else storage_options
        stored = isinstance(sdata, str | os.PathLike)
        if not stored and not hasattr(sdata, "images"):
            msg = f"sdata is a SpatialData object or the path of its store, got {sdata!r}"
            raise InvalidInputError(msg)
        self._path = Path(sdata) if stored else None
        self._sdata = None if stored else sdata
        elements: Elements = (
            StoreElements(Path(sdata), options) if stored else ObjectElements(sdata, options)
        )
        # For each region what its tiles are cut from; the first of them says where.
        self._cut = paired_regions(
            elements, regions_to_images, regions_to_labels or {}, regions_to_coordinate_systems
        )
        self._pairs = [pairs[0] for pairs in self._cut]
        regions = [elements.region(pair.region) for pair in self._pairs]
        for pair, region in zip(self._pairs, regions, strict=True):
            verify_system(pair.system, region.to_systems, pair.region)
        self._plan = plan_tiles(
            regions, self._pairs, tile_scale=tile_scale, tile_dim_in_units=tile_dim_in_units
        )
        raster = dict(rasterize_kwargs or {}) if rasterize else None
        if raster is not None and tile_size is None:
            raster_size(raster, self._plan.side(0))
        self._readers: list[GridReader] = []
        if output == "region":
            size = fixed_size(tile_size, pixel_size, raster, self._plan)
            self._readers = grid_readers(
                self._plan,
                self._cut,
                size,
                rasterize=raster is not None,
                interpolation=interpolation,
                padding=padding,
                pixel_size=pixel_size,
            )
        self._single = isinstance(table_name, str)
        self._tables = (
            []
            if table_name is None
            else tables_of_tiles(elements, table_name, self._plan, self._pairs)
        )
        self._values: NDArray[Any] | None = None
        self._names: tuple[str, ...] = ()
        if return_annotations is not None:
            single = isinstance(return_annotations, str)
            self._names = (return_annotations,) if single else tuple(return_annotations)
            self._values = annotation_values(self._tables, self._names, self._plan, self._pairs)
        self._grids = GridBatches(self._plan, self._pairs, self._readers, self._values, self._names)
        self._items = ItemMaker(
            self._plan,
            self._cut,
            raster=raster,
            method=interpolation,
            tables=self._tables,
            values=self._values,
        )
        self.transform = transform
        self._warned = False

    # -- items

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> Any:
        """Return tile `index`, counted from the end where it is negative.

        Raises
        ------
        OutOfRangeError
            If there is no such tile.
        InvalidInputError
            If the tile lies outside the image and nothing pads it.
        """
        row = self._row(index)
        item = self._grids.items([row])[0] if self._readers else self._items.item(row)
        return item if self.transform is None else self.transform(item)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return tiles, read together; torch asks for a batch like this."""
        if not self._readers:
            return [self[index] for index in indices]
        items = self._grids.items([self._row(index) for index in indices])
        return items if self.transform is None else [self.transform(item) for item in items]

    def read_batch(
        self, rows: NDArray[np.int64]
    ) -> ImageRegionData[Any] | tuple[ImageRegionData[Any], ...]:
        """Read tiles into one batch, as `TileLoader` does; `transform` is not called.

        Parameters
        ----------
        rows
            Numbers of tiles, (n,).

        Returns
        -------
        The tiles, collated; `data` is float32 (n, C, (Z), Y, X), of labels int64. A tuple of such
        where a region has several images or labels. `additional_metadata` has `instance_id`,
        `region`, `cs`, `image`, `box` (min x, min y, max x, max y), and `annotations` with
        `annotation_names`.

        Raises
        ------
        ModeError
            If the dataset does not give regions.
        InvalidInputError
            If tiles are not asked for by number.
        """
        if not self._readers:
            msg = "only tiles of one size make a batch: give output='region' and tile_size"
            raise ModeError(msg)
        numbers = np.asarray(rows)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            msg = (
                f"tiles are asked for by their numbers, (n,), got {numbers.dtype} {numbers.shape}; of a "
                "mask, np.flatnonzero(mask)"
            )
            raise InvalidInputError(msg)
        if self.transform is not None and not self._warned:
            self._warned = True
            warnings.warn(
                "transform is called with items, and batches are read without it: change whole batches "
                "where they are used, or use torch's DataLoader",
                UserWarning,
                stacklevel=2,
            )
        found = self._grids.batches([self._row(row) for row in numbers.tolist()], convert=True)
        return found[0] if len(found) == 1 else tuple(found)

    def _row(self, index: Any) -> int:
        try:
            row = operator.index(index)
        except TypeError as error:
            msg = f"a tile is asked for by its number, got {index!r}"
            raise InvalidInputError(msg) from error
        if not -len(self) <= row < len(self):
            msg = f"there is no tile {row}; the dataset has {len(self)}"
            raise OutOfRangeError(msg)
        return row % len(self)

    # -- what there is

    @property
    def rows_fingerprint(self) -> str:
        """Sixteen letters that tell these tiles from others of the same number: a loader resumes by it."""
        plan = self._plan
        pictures = [
            (pair.region, pair.system, pair.picture.name, pair.picture.image.level(0).shape)
            for pairs in self._cut
            for pair in pairs
        ]
        how = [(grid.size, grid.rasterize, grid.method, grid.pixel) for grid in self._readers]
        sides = np.broadcast_to(plan.extent, len(plan)).astype(np.float64)
        ids = plan.ids
        if ids.dtype.kind not in "iu":
            ids = np.asarray([zlib.crc32(repr(name).encode()) for name in ids.tolist()], np.int64)
        places = np.ascontiguousarray(plan.centres, np.float64).view(np.int64)
        return columns_fingerprint((pictures, how), plan.region, ids, places, sides.view(np.int64))

    @property
    def sdata(self) -> Any:
        """The SpatialData object; of a store, read when first asked for.

        Raises
        ------
        ModeError
            In another process than the one that was given an object: it does not travel.
        """
        if self._sdata is None:
            if self._path is None:
                msg = "the SpatialData object stayed in the process that made the dataset"
                raise ModeError(msg)
            self._sdata = imported_spatialdata().read_zarr(self._path)
        return self._sdata

    @property
    def regions(self) -> list[str]:
        """Names of the regions, in the order of the tiles."""
        return [pair.region for pair in self._pairs]

    @property
    def coordinate_systems(self) -> list[str]:
        """Names of the coordinate systems."""
        return list(dict.fromkeys(pair.system for pair in self._pairs))

    @property
    def dims(self) -> list[str]:
        """Axes of the tiles' squares."""
        return ["x", "y"]

    @property
    def dataset_index(self) -> pd.DataFrame:
        """What each tile is of: columns `instance_id`, `cs`, `region`, `image`."""
        pandas, number = _imported_pandas(), self._plan.region
        told = {
            self.CS_KEY: [pair.system for pair in self._pairs],
            self.REGION_KEY: [pair.region for pair in self._pairs],
            self.IMAGE_KEY: [_images_of(pairs) for pairs in self._cut],
        }
        columns = {key: [names[i] for i in number.tolist()] for key, names in told.items()}
        return pandas.DataFrame({self.INSTANCE_KEY: self._plan.ids, **columns})

    @property
    def tiles_coords(self) -> pd.DataFrame:
        """Where each tile lies: columns `x`, `y`, `extent`, `minx`, `miny`, `maxx`, `maxy`."""
        centres = self._plan.centres
        extent = np.broadcast_to(self._plan.extent, len(self))[:, None]
        columns = [centres, extent, centres - extent / 2, centres + extent / 2]
        names = ["x", "y", "extent", "minx", "miny", "maxx", "maxy"]
        return _imported_pandas().DataFrame(np.hstack(columns), columns=names)

    @property
    def dataset_table(self) -> Any:
        """The rows of the table, one a tile in their order; an AnnData.

        Of several tables a mapping by name; each has rows of the tiles that it annotates.

        Raises
        ------
        ModeError
            If no table was named.
        """
        if not self._tables:
            msg = "the dataset has no table: give table_name"
            raise ModeError(msg)
        if self._single:
            return self._tables[0].table
        return {own.name: own.table for own in self._tables}

    def __getstate__(self) -> dict[str, Any]:
        # The object would take all its elements along, and some of them cannot be pickled.
        return {**self.__dict__, "_sdata": None}

    def __repr__(self) -> str:
        pairs = ", ".join(
            f"{p.region!r} of {p.picture.name!r} in {p.system!r}" for p in self._pairs
        )
        return f"ImageTilesDataset({len(self)} tiles: {pairs})"


def _images_of(pairs: Sequence[Pair]) -> str | tuple[str, ...]:
    names = tuple(pair.picture.name for pair in pairs if pair.picture.image.kind != "labels")
    return names[0] if len(names) == 1 else names


def _imported_pandas() -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        msg = "tables of tiles need pandas: pip install 'microtome[spatialdata]'"
        raise DependencyError(msg) from error
    return pd
