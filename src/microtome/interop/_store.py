"""A SpatialData store on disk, as the elements of a dataset: read without spatialdata or dask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.errors import (
    DependencyError,
    FormatError,
    NotFoundError,
)
from microtome.storage import StorageOptions, is_group, open_array, read_group

from ._dialect import matrices_of
from ._elements import (
    KINDS,
    Elements,
    Picture,
    Region,
    image_of_levels,
    unknown_element,
    unknown_table,
)
from ._instances import Instances, imported_shapely, instances_of_geometries

__all__ = ["StoreElements"]

# A point of two numbers, in either byte order: order, type, x, y. With a third number 8 more.
_WKB_POINT = {21: 2, 29: 3}


class StoreElements(Elements):
    """The elements of a SpatialData store.

    Parameters
    ----------
    path
        Directory of the store.
    options
        What is kept in memory of its images.

    Raises
    ------
    NotFoundError
        If there is none.
    FormatError
        If it is no store of SpatialData.
    """

    def __init__(self, path: Path, options: StorageOptions | None = None) -> None:
        self._path = path
        super().__init__(options)
        if not path.exists():
            msg = f"{path} does not exist"
            raise NotFoundError(msg)
        attributes = read_group(path)
        if "spatialdata_attrs" not in attributes:
            msg = f"{path} is a Zarr group but no SpatialData store: it has no 'spatialdata_attrs'"
            raise FormatError(msg)

    @property
    def where(self) -> str:
        """Path of the store."""
        return str(self._path)

    def kind(self, name: str) -> str:
        """Return which group an element is in."""
        # A path component, so that no name leads out of the store.
        known = {kind: self._names(kind) for kind in KINDS}
        for kind, names in known.items():
            if name in names:
                return kind
        raise unknown_element(self.where, name, [n for names in known.values() for n in names])

    def _picture(self, name: str, options: StorageOptions | None) -> Picture:
        place = self._path / self.kind(name) / name
        attributes = read_group(place)
        try:
            ome = cast("Mapping[str, Any]", attributes.get("ome", attributes))
            stated = ome["multiscales"][0]
            axes = "".join(str(axis["name"]) for axis in stated["axes"])
            paths = [str(entry["path"]) for entry in stated["datasets"]]
            labels = [entry.get("label") for entry in (ome.get("omero") or {}).get("channels", [])]
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            msg = f"{place}: metadata is incomplete ({type(error).__name__}: {error})"
            raise FormatError(msg) from error
        if axes not in {"cyx", "czyx", "yx", "zyx"} or not paths:
            msg = f"{place} has axes {axes!r} and {len(paths)} levels; an image of SpatialData has (c, (z), y, x)"
            raise FormatError(msg)
        if any(Path(path).is_absolute() or ".." in Path(path).parts for path in paths):
            msg = f"{place}: levels {paths} do not all lie in the image"
            raise FormatError(msg)
        arrays = [open_array(place / path, options=options) for path in paths]
        channels: tuple[Any, ...] | None = None
        if "c" in axes:
            count = arrays[0].shape[0]
            channels = tuple(labels) if len(labels) == count else tuple(range(count))
        return Picture(
            name,
            image_of_levels(
                arrays,
                axes,
                name=name,
                uri=str(place),
                channel_names=None if channels is None else [str(channel) for channel in channels],
            ),
            matrices_of(
                stated.get("coordinateTransformations"),
                tuple(axis for axis in "xyz" if axis in axes),
                where=str(place),
            ),
            channels,
        )

    def _places(self, kind: str, name: str) -> Region:
        place = self._path / kind / name
        transforms = read_group(place).get("coordinateTransformations")
        matrices = matrices_of(transforms, ("x", "y"), where=str(place))
        instances = _points(place) if kind == "points" else _shapes(place)
        return Region(instances, matrices)

    def table(self, name: str) -> Any:
        """Return a table, read with anndata."""
        known = self._names("tables")
        if name not in known:
            raise unknown_table(self.where, name, known)
        try:
            from anndata.io import read_zarr
        except ImportError as error:
            msg = "tables are read with anndata: pip install 'microtome[anndata]'"
            raise DependencyError(msg) from error
        return read_zarr(str(self._path / "tables" / name))

    def _names(self, kind: str) -> list[str]:
        folder = self._path / kind
        if not folder.is_dir():
            return []
        return [entry.name for entry in folder.iterdir() if entry.is_dir() and is_group(entry)]


def _shapes(place: Path) -> Instances:
    path = place / "shapes.parquet"
    table = _read(path)
    metadata = table.schema.metadata or {}
    geo = json.loads(metadata.get(b"geo", b"{}"))
    column = str(geo.get("primary_column", "geometry"))
    if column not in table.column_names:
        msg = f"{path} has no column of geometries {column!r}, but {table.column_names}"
        raise FormatError(msg)
    radii = table["radius"].to_numpy() if "radius" in table.column_names else None
    return instances_of_geometries(_index(table), _geometries(table[column], path), radii)


def _geometries(column: pa.ChunkedArray, path: Path) -> NDArray[Any]:
    """Return shapely's geometries, or the numbers of points where there are only points."""
    kind = column.type
    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
    if pa.types.is_struct(kind):
        return np.stack([whole.field(axis).to_numpy() for axis in ("x", "y")], axis=1)
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) or whole.null_count:
        msg = (
            f"{path} holds geometries as {kind}; well-known binary without gaps is read. Open it "
            "with spatialdata.read_zarr, and give the object"
        )
        raise FormatError(msg)
    points = _points_of_wkb(whole)
    return (
        imported_shapely().from_wkb(whole.to_numpy(zero_copy_only=False))
        if points is None
        else points
    )


def _points_of_wkb(whole: pa.Array) -> NDArray[np.float64] | None:
    """Return the numbers of points, without an object for each; None if there is anything else."""
    width = np.dtype(np.int64 if pa.types.is_large_binary(whole.type) else np.int32)
    _, offsets, values = whole.buffers()
    if not len(whole) or offsets is None or values is None:
        return None
    ends = np.frombuffer(offsets, width)[whole.offset : whole.offset + len(whole) + 1]
    sizes = np.unique(np.diff(ends))
    if len(sizes) != 1 or int(sizes[0]) not in _WKB_POINT:
        return None
    size = int(sizes[0])
    rows = np.frombuffer(values, np.uint8)[ends[0] : ends[-1]].reshape(-1, size)
    kinds = rows[:, 1:5].copy().view("<u4").ravel()
    # 1 is a point, 1001 and 0x80000001 one with z. The other byte order is left to shapely.
    if (rows[:, 0] != 1).any() or not np.isin(kinds, (1, 1001, 0x80000001)).all():
        return None
    return rows[:, 5:].copy().view("<f8")


def _points(place: Path) -> Instances:
    path = place / "points.parquet"
    table = _read(path, ["x", "y"])
    centres = np.stack([table[axis].to_numpy() for axis in ("x", "y")], axis=1)
    return Instances(_index(table), centres.astype(np.float64), None)


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    if not path.exists():
        msg = f"{path} does not exist"
        raise NotFoundError(msg)
    try:
        if columns is None:
            return pq.read_table(path)
        index = [name for name in pq.ParquetDataset(path).schema.names if name.startswith("__")]
        return pq.read_table(path, columns=[*columns, *index])
    except (pa.ArrowInvalid, OSError) as error:
        msg = f"{path} cannot be read: {error}"
        raise FormatError(msg) from error


def _index(table: pa.Table) -> NDArray[Any]:
    """Return the index that pandas keeps with a table."""
    stated = (table.schema.metadata or {}).get(b"pandas")
    columns = json.loads(stated)["index_columns"] if stated else []
    if len(columns) == 1 and isinstance(columns[0], str) and columns[0] in table.column_names:
        return table[columns[0]].to_numpy()
    if len(columns) == 1 and isinstance(columns[0], dict):
        span = cast("dict[str, int]", columns[0])
        return np.arange(span["start"], span["stop"], span["step"])
    return np.arange(table.num_rows)
