"""Tiles as what SpatialData's users expect: DataArrays with transforms, and small SpatialData."""

# spatialdata wants an older dask than other readers in the environment of the checks; see `make spatialdata`.
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from microtome.errors import DependencyError
from microtome.image import Resampling

from ._annotations import TilesTable
from ._elements import Picture
from ._plan import Pair, TilePlan, raster_size
from ._resampled import rasterized
from ._rows import TableRows

__all__ = ["ItemMaker", "imported_spatialdata"]

# Tiles that hang over an edge have shapes of their own; so many are kept.
_TEMPLATES = 64


def imported_spatialdata() -> Any:
    """Return spatialdata.

    Raises
    ------
    DependencyError
        If it is not installed, or cannot be imported.
    """
    try:
        import spatialdata
    except ImportError as error:
        msg = (
            f"SpatialData objects need spatialdata ({error}): pip install 'microtome[spatialdata]'; "
            "a store on disk is read without it with output='region'"
        )
        raise DependencyError(msg) from error
    return spatialdata


class ItemMaker:
    """Makes items as spatialdata has them.

    Parameters
    ----------
    plan
        The tiles.
    pairs
        For each region what its tiles are cut from.
    raster
        How many pixels tiles are rasterized to, in the words of `spatialdata.rasterize`; None for
        tiles that are cut from the pixel grid.
    method
        How they are rasterized; labels always by the nearest pixel.
    tables
        Whose rows go along with tiles.
    values
        What goes along instead, (n, k).
    """

    def __init__(
        self,
        plan: TilePlan,
        pairs: Sequence[Sequence[Pair]],
        *,
        raster: Mapping[str, Any] | None,
        method: Resampling,
        tables: Sequence[TilesTable],
        values: NDArray[Any] | None,
    ) -> None:
        self._plan = plan
        self._pairs = pairs
        self._raster = raster
        self._method: Resampling = method
        self._rows = [] if values is not None else [(own, TableRows(own.table)) for own in tables]
        self._values = values
        # The coordinates of a shape are made once: for them xarray takes longer than a read does.
        self._templates: dict[tuple[str, tuple[int, ...]], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_templates": {}}

    def item(self, row: int) -> Any:
        """Return a SpatialData object, or the tuple of the tile and its values.

        Of several images the tiles are a mapping by name.
        """
        number = int(self._plan.region[row])
        pairs = self._pairs[number]
        tiles = {pair.picture.name: self._tile(row, pair) for pair in pairs}
        if self._values is not None:
            values = self._values[row : row + 1]
            return (tiles if len(tiles) > 1 else next(iter(tiles.values()))), values
        rows = {
            own.name: parts.row(at)
            for own, parts in self._rows
            if (at := own.row_of(row, number)) is not None
        }
        return _spatial_item(tiles, rows)

    def _tile(self, row: int, pair: Pair) -> Any:
        picture, plan = pair.picture, self._plan
        if self._raster is not None:
            size = raster_size(self._raster, plan.side(row))
            method = self._method if "c" in picture.image.axes else "nearest"
            pixels = rasterized(plan, pair, row, (size, size), method)
            place = np.eye(len(pair.depth) + 3)
            place[0, 0] = place[1, 1] = plan.side(row) / size
            place[:2, -1] = plan.box(row)[:2]
            return self._array(picture, pixels, {pair.system: place})
        y, x = plan.window(row, pair)
        level = picture.image.level(0)
        pixels = level.array.read((*((0, size) for size in level.shape[:-2]), y, x))
        shift = np.eye(len(pair.depth) + 3)
        shift[:2, -1] = x[0], y[0]
        return self._array(picture, pixels, {s: m @ shift for s, m in picture.to_systems.items()})

    def _array(
        self, picture: Picture, pixels: NDArray[Any], to_systems: Mapping[str, NDArray[np.float64]]
    ) -> Any:
        """Return pixels as a DataArray with the transforms of where they lie.

        Parameters
        ----------
        picture
            The image or labels that they are of.
        pixels
            (c, (z), y, x), of labels without c.
        to_systems
            From pixels of the tile, pixel 0 covering [0, 1), to coordinate systems; augmented
            matrices over (x, y) or (x, y, z).
        """
        imported_spatialdata()
        from spatialdata.transformations import Affine, Identity

        key = picture.name, pixels.shape
        template = self._templates.get(key)
        if template is None:
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            template = self._templates[key] = _template(picture, pixels)
        tile = template.copy(deep=False, data=pixels)
        transforms: dict[str, Any] = {}
        for system, matrix in to_systems.items():
            axes = ("x", "y", "z")[: len(matrix) - 1]
            same = np.array_equal(matrix, np.eye(len(matrix)))
            transforms[system] = Identity() if same else Affine(matrix, axes, axes)
        tile.attrs = {"transform": transforms}
        return tile


def _template(picture: Picture, pixels: NDArray[Any]) -> Any:
    from xarray import DataArray

    dims = tuple(picture.image.axes)
    coords: dict[str, Any] = {
        dim: np.arange(size) + 0.5
        for dim, size in zip(dims, pixels.shape, strict=True)
        if dim != "c"
    }
    if picture.channels is not None:
        coords["c"] = list(picture.channels)
    nothing = np.broadcast_to(np.zeros((), pixels.dtype), pixels.shape)
    return DataArray(nothing, dims=dims, coords=coords, name="image")


def _spatial_item(tiles: Mapping[str, Any], tables: Mapping[Any, Any]) -> Any:
    spatialdata = imported_spatialdata()
    # Its models ask for dask; the pixels are in memory already.
    lazy = {name: tile.copy(deep=False, data=_lazy(tile.data)) for name, tile in tiles.items()}
    return spatialdata.SpatialData(
        images={name: tile for name, tile in lazy.items() if "c" in tile.dims},
        labels={name: tile for name, tile in lazy.items() if "c" not in tile.dims},
        tables=tables,
    )


def _lazy(pixels: NDArray[Any]) -> Any:
    """Return pixels as an array of dask, of one chunk."""
    key = f"microtome-tile-{uuid4().hex}"  # no other in any process: arrays may be stacked
    array = _held()(
        {(key, *[0] * pixels.ndim): pixels},
        key,
        tuple((size,) for size in pixels.shape),
        dtype=pixels.dtype,
    )
    array.pixels = pixels
    return array


@cache
def _held() -> Any:
    """Return the type of an array of dask whose pixels are there.

    To ask for them then takes no scheduler, which needs longer than a tile takes to read, and whose
    threads a forked process waits for in vain. Whatever is computed of it is dask's as usual.
    """
    import dask.array as da

    class Held(da.Array):
        pixels: NDArray[Any]

        def __array__(
            self,
            dtype: Any = None,
            copy: bool | None = None,  # noqa: FBT001 - numpy's
            **_: Any,
        ) -> NDArray[Any]:
            pixels = self.pixels
            if dtype is not None and pixels.dtype != dtype:
                return pixels.astype(dtype)
            return pixels.copy() if copy else pixels

    return Held
