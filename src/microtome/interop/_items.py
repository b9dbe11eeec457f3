"""Tiles as what SpatialData's users expect: DataArrays with transforms, and small SpatialData."""

# spatialdata wants an older dask than other readers in the environment of the checks; see `make spatialdata`.
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import DependencyError

from ._elements import Picture

__all__ = ["imported_spatialdata", "spatial_item", "tile_array"]


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


def tile_array(
    picture: Picture, pixels: NDArray[Any], to_systems: Mapping[str, NDArray[np.float64]]
) -> Any:
    """Return pixels as a DataArray with the transforms of where they lie.

    Parameters
    ----------
    picture
        The image that they are of.
    pixels
        (c, (z), y, x).
    to_systems
        From pixels of the tile, pixel 0 covering [0, 1), to coordinate systems; augmented matrices
        over (x, y) or (x, y, z).
    """
    imported_spatialdata()
    from spatialdata.transformations import Affine, Identity
    from xarray import DataArray

    dims = tuple(picture.image.axes)
    coords: dict[str, Any] = {
        dim: np.arange(size) + 0.5
        for dim, size in zip(dims, pixels.shape, strict=True)
        if dim != "c"
    }
    if picture.channels is not None:
        coords["c"] = list(picture.channels)
    transforms: dict[str, Any] = {}
    for system, matrix in to_systems.items():
        axes = ("x", "y", "z")[: len(matrix) - 1]
        same = np.array_equal(matrix, np.eye(len(matrix)))
        transforms[system] = Identity() if same else Affine(matrix, axes, axes)
    return DataArray(
        pixels, dims=dims, coords=coords, name="image", attrs={"transform": transforms}
    )


def spatial_item(name: str, tile: Any, table_name: str | None, row: Any) -> Any:
    """Return a tile and its row of the table as a SpatialData object."""
    spatialdata = imported_spatialdata()
    import dask.array as da

    # Its models ask for dask; the pixels are in memory already.
    lazy = tile.copy(data=da.from_array(tile.data, chunks=tile.shape, name=False))
    if table_name is None:
        return spatialdata.SpatialData(images={name: lazy})
    # One row without its annotation target: that element is not part of the item.
    row.uns.pop("spatialdata_attrs", None)
    return spatialdata.SpatialData(images={name: lazy}, tables={table_name: row})
