"""Images, labels, tiles and cells into a SpatialData object, and images back."""

# spatialdata wants an older dask than other readers in the environment of the checks; see `make spatialdata`.
# pyright: reportMissingImports=false

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError
from microtome.image import Level, MultiscaleImage
from microtome.sources import open_image
from microtome.tiling import TileTable

from ._elements import flat_matrix
from ._items import imported_spatialdata
from ._object import ObjectElements
from ._pairing import verify_system
from ._spatial_tables import cell_table, tile_shapes, tile_table
from ._store import StoreElements

__all__ = ["from_spatialdata", "to_spatialdata", "write_object"]

_TABLE, _TILES = "table", "tiles"


def to_spatialdata(
    images: Mapping[str, Any],
    *,
    labels: Mapping[str, Any] | None = None,
    cells: Any = None,
    cells_of: str | None = None,
    tiles: TileTable | None = None,
    tiles_level: int | str = 0,
    system: str = "global",
    from_edge: bool = False,
) -> Any:
    """Make a SpatialData object of images and labels; their pixels are read when it asks for them.

    What `tiles_from_spatialdata`, `cells_from_spatialdata` and `from_spatialdata` make of it is what
    went in.

    Parameters
    ----------
    images, labels
        By name: images of any kind that `open_image` takes. Where they state pixel sizes, `system`
        is in micrometres and each lies in it by its pixel size and its place; where none does, it is
        in pixels. Coordinates of ours are of the centres of pixels, those of SpatialData begin at
        their edges: an image whose first centre is at 0 begins at minus half a pixel there.
    cells
        A pandas DataFrame with a column `cell_id`, the value in the labels; it becomes ``obs`` of
        the table `table`. Or an AnnData with such an ``obs``.
    cells_of
        Name of the labels that it describes; may be left out where there is only one, or a column
        `region` of the cells names those of each.
    tiles
        Tiles, whose tissues are the names of images. Those of `a` become the shapes `a_tiles`, and
        their other columns the table `tiles`.
    tiles_level
        The level of the images, by number or key, whose pixels the tiles count.
    system
        Name of the coordinate system.
    from_edge
        Whether micrometres in `system` are those of tables, from the upper left edge of each image:
        it begins at 0, wherever its file says that it lies. For images and labels that begin together,
        or have nothing to do with each other.

    Returns
    -------
    A `spatialdata.SpatialData`; its `write` makes a store that `ImageTilesDataset` reads.

    Raises
    ------
    InvalidInputError
        If an image has a time axis, labels have channels, some state a pixel size and others do not,
        the cells do not say whose they are, or two elements would have one name.
    UnknownNameError
        If there is no image of a tissue, or no such level.
    DependencyError
        If spatialdata is not there.
    """
    spatialdata = imported_spatialdata()
    pictures = {name: open_image(source) for name, source in images.items()}
    named = {name: open_image(source) for name, source in (labels or {}).items()}
    _verify_one_space({**pictures, **named}, system)
    tables = {} if cells is None else {_TABLE: cell_table(cells, cells_of, named)}
    shapes: dict[str, Any] = {}
    if tiles is not None:
        shapes = tile_shapes(
            tiles,
            {
                name: {system: _level_transform(image, tiles_level, from_edge)}
                for name, image in pictures.items()
                if name in tiles.tissue_ids
            },
        )
        tables[_TILES] = tile_table(tiles)
    twice = sorted(pictures.keys() & named.keys() | shapes.keys() & {*pictures, *named})
    if twice:
        msg = f"elements of a SpatialData object have names of their own, got {twice} twice"
        raise InvalidInputError(msg)
    return spatialdata.SpatialData(
        images={
            name: _element(image, name, {system: _transform(image, from_edge)}, labels=False)
            for name, image in pictures.items()
        },
        labels={
            name: _element(image, name, {system: _transform(image, from_edge)}, labels=True)
            for name, image in named.items()
        },
        shapes=shapes,
        tables=tables,
    )


def write_object(made: Any, place: Path) -> None:
    """Write a SpatialData object, with the names of channels that its own writer leaves out.

    Versions 0.7 and 0.8 drop them where an image has one level alone, and find none to overwrite.
    """
    import anndata
    import zarr

    # No shards in tables, which are small; unset, it is warned of once an array.
    wanted = {"auto_shard_zarr_v3": False}
    known = {name: value for name, value in wanted.items() if hasattr(anndata.settings, name)}
    with anndata.settings.override(**known):
        made.write(place)
    changed = False
    for name, element in made.images.items():
        if hasattr(element, "children"):  # a tree of levels
            continue
        group: Any = zarr.open_group(place / "images" / name, mode="r+", use_consolidated=False)
        channels = [{"label": str(label)} for label in element.coords["c"].values.tolist()]
        # Zarr v3 has one place for all of OME-Zarr, v2 none.
        inside = "ome" in group.attrs
        attributes = dict(group.attrs["ome"]) if inside else group.attrs.asdict()
        if attributes.get("omero", {}).get("channels"):
            continue
        attributes["omero"] = {**attributes.get("omero", {}), "channels": channels}
        group.attrs.update({"ome": attributes} if inside else attributes)
        changed = True
    if changed and made.has_consolidated_metadata():
        made.write_consolidated_metadata()


def from_spatialdata(sdata: Any, name: str, *, system: str | None = None) -> MultiscaleImage:
    """View an image or labels of a SpatialData object as an image.

    Parameters
    ----------
    sdata
        The object, or the path of its store, which is then read without spatialdata.
    name
        Name of the element.
    system
        A coordinate system whose unit is the micrometre: the image then has the pixel size and the
        place that it has there. Without it the image states no pixel size.

    Returns
    -------
    The image; pixels are read when asked for.

    Raises
    ------
    InvalidInputError
        If it is turned, sheared or mirrored in that system: then no pixel size describes it.
    UnknownNameError
        If there is no such element.
    NotFoundError, FormatError
        If there is no such store, or it is none of SpatialData.
    """
    stored = isinstance(sdata, str | os.PathLike)
    elements = StoreElements(Path(sdata)) if stored else ObjectElements(sdata)
    if elements.kind(name) not in {"images", "labels"}:
        msg = (
            f"{name!r} is one of the {elements.kind(name)} of {elements.where}, no image or labels"
        )
        raise InvalidInputError(msg)
    picture = elements.picture(name)
    image = picture.image
    if system is None:
        return image
    verify_system(system, picture.to_systems, name)
    full = picture.to_systems[system]
    flat_matrix(full, f"the transform of {name!r} to {system!r}")
    factors = np.diag(full)[:-1]
    if (full[:-1, :-1] != np.diag(factors)).any() or (factors <= 0).any():
        msg = (
            f"{name!r} is turned, sheared or mirrored in {system!r}: {full[:-1].tolist()}; resample "
            "it there with ImageTilesDataset, or name another system"
        )
        raise InvalidInputError(msg)
    size = dict(zip("xyz", factors.tolist(), strict=False))
    corner = dict(zip("xyz", full[:-1, -1].tolist(), strict=False))
    levels = [
        Level(
            level.key,
            level.path,
            level.array,
            level.axes,
            tuple(
                scale * size.get(axis, 1.0)
                for axis, scale in zip(level.axes, level.scale, strict=True)
            ),
            tuple(
                # Of the centre of its first pixel; that of the element's is half a pixel in.
                (shift + 0.5) * size[axis] + corner[axis] if axis in size else 0.0
                for axis, shift in zip(level.axes, level.translation, strict=True)
            ),
        )
        for level in map(image.level, range(image.level_count))
    ]
    return MultiscaleImage(
        levels,
        uri=image.uri,
        channel_names=image.channel_names,
        mpp=Mpp(size["y"], size["x"], "metadata"),
        kind=image.kind,
        name=name,
    )


def _verify_one_space(pictures: Mapping[str, MultiscaleImage], system: str) -> None:
    """Refuse images in micrometres beside others in pixels: they would lie elsewhere than they do."""
    sized = {name: image.mpp for name, image in pictures.items() if image.mpp is not None}
    unsized = sorted(pictures.keys() - sized.keys())
    if sized and unsized:
        one = next(iter(sized.values()))
        msg = (
            f"{unsized} state no pixel size and {sorted(sized)} do: in {system!r} they would not lie on "
            f"each other; say what it is, for example open_image(..., mpp=({one.y:g}, {one.x:g}))"
        )
        raise InvalidInputError(msg)


def _element(image: MultiscaleImage, name: str, lies: Mapping[str, Any], *, labels: bool) -> Any:
    """Return an image as an element: a DataArray, or a DataTree of several levels."""
    import dask.array as da
    from spatialdata.models import (
        Image2DModel,
        Image3DModel,
        Labels2DModel,
        Labels3DModel,
    )
    from spatialdata.transformations import set_transformation
    from xarray import DataArray, Dataset, DataTree

    axes = image.axes
    wanted = ("yx", "zyx") if labels else ("cyx", "czyx")
    if axes not in wanted:
        msg = f"{name!r} has axes {axes!r}; {'labels' if labels else 'an image'} of SpatialData: {wanted}"
        raise InvalidInputError(msg)
    volume = "z" in axes
    model: Any = (
        (Labels3DModel if volume else Labels2DModel)
        if labels
        else (Image3DModel if volume else Image2DModel)
    )
    base = image.level(0)
    arrays: list[Any] = []
    for level in map(image.level, range(image.level_count)):
        coords: dict[str, Any] = {
            axis: (np.arange(size) + 0.5) * (whole / size)
            for axis, size, whole in zip(axes, level.shape, base.shape, strict=True)
            if axis != "c"
        }
        if image.channel_names is not None:
            coords["c"] = list(image.channel_names)
        chunks: Any = tuple(
            min(max(chunk, 512) if axis in "yx" else chunk, size)
            for axis, chunk, size in zip(axes, level.array.chunks, level.shape, strict=True)
        )
        pixels = da.from_array(_Readable(level), chunks=chunks, name=False, asarray=True)
        arrays.append(DataArray(pixels, dims=tuple(axes), coords=coords, name="image"))
    if len(arrays) == 1:
        c_coords = {} if labels else {"c_coords": list(image.channel_names or ())}
        element: Any = model.parse(arrays[0].data, dims=tuple(axes), **c_coords)
        set_transformation(element, dict(lies), set_all=True)
        return element
    from spatialdata.transformations import Scale, Sequence

    nodes: dict[str, Any] = {}
    for index, array in enumerate(arrays):
        factors = [a / b for a, b in zip(base.shape, array.shape, strict=True)]
        spatial = [axis for axis in axes if axis != "c"]
        scale = Scale(factors[-len(spatial) :], axes=tuple(spatial))
        array.attrs["transform"] = {
            system: Sequence([scale, own]) if index else own for system, own in lies.items()
        }
        nodes[f"scale{index}"] = Dataset({"image": array})
    tree = DataTree.from_dict(nodes)
    model().validate(tree)
    return tree


class _Readable:
    """A level as dask slices it.

    Parameters
    ----------
    level
        The level.
    """

    def __init__(self, level: Level) -> None:
        self._level = level
        self.shape, self.dtype, self.ndim = level.shape, level.dtype, level.ndim

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return self._level[index]


def _transform(image: MultiscaleImage, from_edge: bool) -> Any:  # noqa: FBT001 - ours
    from spatialdata.transformations import Affine, Identity

    axes = tuple(axis for axis in "xyz" if axis in image.axes)
    matrix = np.eye(len(axes) + 1)
    if image.mpp is not None:
        base = image.level(0)
        for place, axis in enumerate(axes):
            at = base.axes.index(axis)
            matrix[place, place] = base.scale[at]
            if not from_edge:
                # Coordinates of a file are of centres, those of SpatialData begin at the edge.
                matrix[place, -1] = base.translation[at] - base.scale[at] / 2
    return Identity() if np.array_equal(matrix, np.eye(len(matrix))) else Affine(matrix, axes, axes)


def _level_transform(image: MultiscaleImage, level: int | str, from_edge: bool) -> Any:  # noqa: FBT001 - ours
    """Return where pixels (x, y) of a level lie: it covers what the finest one covers."""
    from spatialdata.transformations import Affine

    matrix = _transform(image, from_edge).to_affine_matrix(("x", "y"), ("x", "y"))
    own, base = image.level(level).shape[-2:], image.level(0).shape[-2:]
    factors = [base[1] / own[1], base[0] / own[0], 1.0]
    return Affine(matrix @ np.diag(factors), ("x", "y"), ("x", "y"))
