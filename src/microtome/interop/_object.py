"""A SpatialData object in memory, as the elements of a dataset; nothing of it is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError
from microtome.image import PixelArray
from microtome.sources import open_image
from microtome.storage import READ, Box, Pending, StorageOptions, open_array

from ._elements import (
    KINDS,
    Elements,
    Picture,
    Region,
    image_of_levels,
    unknown_element,
    unknown_table,
)
from ._instances import Instances, instances_of_geometries

__all__ = ["ObjectElements"]

_TRANSFORMS = "transform"


class ObjectElements(Elements):
    """The elements of a SpatialData object.

    Pixels that it has not read yet are read from its store by our own engine, without dask.

    Parameters
    ----------
    sdata
        The object.
    options
        What is kept in memory of the stores that its images lie in.
    """

    def __init__(self, sdata: Any, options: StorageOptions | None = None) -> None:
        self._sdata = sdata
        super().__init__(options)

    @property
    def where(self) -> str:
        """What the object is called."""
        return "the SpatialData object"

    def kind(self, name: str) -> str:
        """Return which group an element is in."""
        known: list[str] = []
        for kind in KINDS:
            group = getattr(self._sdata, kind)
            if name in group:
                return kind
            known += group
        raise unknown_element(self.where, name, known)

    def _picture(self, name: str, options: StorageOptions | None) -> Picture:
        element = getattr(self._sdata, self.kind(name))[name]
        levels = _levels(element)
        base = levels[0]
        axes = "".join(str(dim) for dim in base.dims)
        if axes not in {"cyx", "czyx", "yx", "zyx"}:
            msg = f"{name!r} has dimensions {base.dims}; an image of SpatialData has (c, (z), y, x)"
            raise FormatError(msg)
        channels = tuple(base.coords["c"].to_numpy().tolist()) if "c" in base.coords else None
        if "c" in axes and channels is None:
            channels = tuple(range(base.sizes["c"]))
        stored = [_stored(level, options) for level in levels]
        arrays = cast("list[PixelArray]", stored)
        if any(array is None for array in stored):
            # Views of the levels one by one: where they lie is worked out in one place for all.
            arrays = [
                _Computed(level.data)
                if hasattr(level.data, "dask")
                else open_image(level, axes=axes).level(0).array
                for level in levels
            ]
        spatial = tuple(axis for axis in "xyz" if axis in axes)
        return Picture(
            name,
            image_of_levels(
                arrays,
                axes,
                name=name,
                uri=name,
                channel_names=None if channels is None else [str(channel) for channel in channels],
            ),
            _matrices(base.attrs, spatial, name),
            channels,
        )

    def _places(self, kind: str, name: str) -> Region:
        element = getattr(self._sdata, kind)[name]
        matrices = _matrices(element.attrs, ("x", "y"), name)
        if kind == "points":
            frame = element[["x", "y"]].compute()
            ids = frame.index.to_numpy()
            return Region(Instances(ids, frame.to_numpy(np.float64), None), matrices)
        radii = element["radius"].to_numpy() if "radius" in element.columns else None
        shapes = np.asarray(element.geometry.to_numpy(), object)
        return Region(instances_of_geometries(element.index.to_numpy(), shapes, radii), matrices)

    def table(self, name: str) -> Any:
        """Return a table."""
        tables = self._sdata.tables
        if name not in tables:
            raise unknown_table(self.where, name, tables)
        return tables[name]


class _Computed:
    """An array of dask as pixels, computed in the thread that asks for them.

    Threads of dask's own are missing in a forked process, which would wait for them for ever.

    Parameters
    ----------
    array
        The array.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = np.dtype(array.dtype).newbyteorder("=")
        self.chunks: tuple[int, ...] = tuple(max(sizes) for sizes in array.chunks)

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        # A copy: what is computed may be a view of pixels that are not ours.
        return np.array(self._part(box), self.dtype)

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Read a box into a buffer."""
        out[...] = self._part(box)
        return READ

    def _part(self, box: Box) -> Any:
        part = self._array[tuple(slice(start, stop) for start, stop in box)]
        return part.compute(scheduler="synchronous")


def _levels(element: Any) -> Sequence[Any]:
    """Return the DataArrays of a raster, finest first."""
    if not hasattr(element, "children"):
        return [element]
    arrays = [next(iter(node.data_vars.values())) for node in element.children.values()]
    if not arrays:
        msg = "an image of several scales has none"
        raise FormatError(msg)
    return arrays


def _matrices(
    attributes: Mapping[str, Any], axes: tuple[str, ...], name: str
) -> dict[str, NDArray[np.float64]]:
    found = cast("Mapping[str, Any]", attributes.get(_TRANSFORMS) or {})
    return {
        system: _matrix(transform, axes, f"{name!r} in {system!r}")
        for system, transform in found.items()
    }


def _matrix(transform: Any, axes: tuple[str, ...], what: str) -> NDArray[np.float64]:
    try:
        matrix = transform.to_affine_matrix(input_axes=axes, output_axes=axes)
    except (ValueError, KeyError) as error:
        msg = f"the transform of {what} is none over {axes}: {error}"
        raise FormatError(msg) from error
    return np.asarray(matrix, np.float64)


def _stored(level: Any, options: StorageOptions | None) -> PixelArray | None:
    """Return the array on disk that a level shows as it is; None where it was computed."""
    graph = getattr(level.data, "dask", None)
    layers = getattr(graph, "layers", None)
    if layers is None or not all("from-zarr-" in key for key in layers):
        return None
    sources = [
        value
        for layer in layers.values()
        for value in getattr(layer, "mapping", {}).values()
        if type(value).__module__.startswith("zarr.") and hasattr(value, "store_path")
    ]
    if len(sources) != 1:
        return None
    (source,) = sources
    root = getattr(source.store_path.store, "root", None)
    if root is None or source.shape != level.shape or source.dtype != level.dtype:
        return None
    return open_array(Path(root) / source.path, options=options)
