"""An image as one pyramidal OME-TIFF, the form that QuPath, OMERO and Bio-Formats read best.

Pages of the finest level come one after the other, each in tiles; their coarser resolutions hang on
them as SubIFDs, as the OME-TIFF specification has it since version 6.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import (
    Level,
    MemoryArray,
    MultiscaleImage,
    PixelArray,
    halve_labels,
    halve_mean,
    pyramid_shapes,
)
from microtome.progress import Progress, silent
from microtome.storage import replace_file, verify_free

from ._images import verify_image

__all__ = ["TiffCodec", "free_tiff_place", "verify_tiff_type", "write_ome_tiff"]

TiffCodec = Literal["deflate", "zstd", "lzw", "none"]
"""How tiles are compressed, always without loss. Every reader knows `deflate` and `lzw`; `zstd` is
faster, and known to readers of the last years."""

_CODECS: dict[str, str | None] = {
    "deflate": "adobe_deflate",
    "zstd": "zstd",
    "lzw": "lzw",
    "none": None,
}
# What OME-XML has a name for.
_TYPES = frozenset(["int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64"])
_RGB = ({"red", "green", "blue"}, {"r", "g", "b"})
_TILE = 512
_THREADS = 4
# Of the annotation that the source of TIFFs knows for ours.
_NAMESPACE = "microtome"
# What is noted of an OME-Zarr image about its own levels and attributes.
_OF_ZARR = frozenset(["level_keys", "mpp_source"])


def write_ome_tiff(
    image: MultiscaleImage,
    path: str | os.PathLike[str],
    *,
    codec: TiffCodec = "deflate",
    tile_size: int = _TILE,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write an image with all its resolutions as one OME-TIFF.

    The file appears whole or not at all. It is a BigTIFF in tiles, and states pixel size, names of
    channels, the image's name, its place where that is not 0, and what microtome noted of how it was
    made; `open_image` finds all of it again. An image of red, green and blue bytes becomes a picture in colour,
    any other one page a channel. Pixels are read in strips of the height of a tile; memory does not
    depend on the height of the image.

    Parameters
    ----------
    image
        The open image, over t, c, z, y, x or fewer of them. Its coarser levels are written as they are; of
        a large one that has none they are computed by the pyramid rule, through a temporary file.
    path
        The file, ``.ome.tif`` or ``.ome.tiff``: readers go by the name.
    codec
        How tiles are compressed: ``"deflate"``, ``"zstd"``, ``"lzw"`` or ``"none"``.
    tile_size
        Pixels of a tile in both directions, a multiple of 16.
    overwrite
        Whether a file that is there is replaced.
    progress
        Called with the strips written and to write.

    Returns
    -------
    The path of the file.

    Raises
    ------
    ExistsError
        If there is something at `path`, unless it is a file and `overwrite` is true.
    InvalidInputError
        If it is no open image, the name is no OME-TIFF's, OME has no name for the type of the pixels,
        or an option is none of those that there are.
    StorageError
        If the disk refuses.

    Examples
    --------
    ::

        write_ome_tiff(microtome.open_image("prediction.ome.zarr"), "prediction.ome.tif")
    """
    target = _checked(image, Path(path), codec, tile_size, overwrite=overwrite)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        levels = _levels(image, tile_size, Path(folder))
        pages = [_Pages.of(level, tile_size, colour=_is_colour(image)) for level in levels]
        total = sum(page.strips for page in pages)
        done = 0

        def tell() -> None:
            nonlocal done
            done += 1
            progress("write", done, total)

        with replace_file(target) as temporary:
            _write(temporary, image, pages, codec, tell)
    return target


@dataclass(frozen=True, slots=True)
class _Pages:
    """A level as pages of tiles.

    Parameters
    ----------
    array
        Its pixels.
    axes
        Its axes.
    tile
        Pixels of a tile in both directions.
    colour
        Whether channels are samples of a pixel.
    """

    array: PixelArray
    axes: str
    tile: int
    colour: bool

    @classmethod
    def of(cls, level: Level, tile: int, *, colour: bool) -> _Pages:
        return cls(level.array, level.axes, tile, colour)

    @property
    def order(self) -> str:
        """Axes of the file, in its order."""
        return self.axes.replace("c", "") + "c" if self.colour else self.axes

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the order of the file."""
        sizes = dict(zip(self.axes, self.array.shape, strict=True))
        return tuple(sizes[axis] for axis in self.order)

    @property
    def strips(self) -> int:
        """Rows of tiles of all pages."""
        lead = [n for axis, n in zip(self.order, self.shape, strict=True) if axis not in "yx"]
        pages = int(np.prod(lead)) // (lead[-1] if self.colour else 1)
        return pages * -(-self._sizes()["y"] // self.tile)

    def tiles(self, tell: Callable[[], None]) -> Iterator[NDArray[Any]]:
        """Yield every tile, row by row of page by page, at its full size."""
        sizes = self._sizes()
        paged = [axis for axis in self.axes if axis not in ("yxc" if self.colour else "yx")]
        for place in product(*(range(sizes[axis]) for axis in paged)):
            spans = {axis: (0, sizes[axis]) for axis in self.axes}
            spans |= {axis: (at, at + 1) for axis, at in zip(paged, place, strict=True)}
            for top in range(0, sizes["y"], self.tile):
                spans["y"] = top, min(top + self.tile, sizes["y"])
                strip = self.array.read(tuple(spans[axis] for axis in self.axes))
                tell()  # now: who has the last tile does not come back
                yield from self._strip(strip)

    def _strip(self, pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
        height, width = pixels.shape[-2:]
        # Of one page: all axes but these are of length 1, unless channels are samples.
        rows = pixels.reshape(-1, height, width)
        whole = -(-width // self.tile) * self.tile
        padded = np.zeros((len(rows), self.tile, whole), pixels.dtype)
        padded[:, :height, :width] = rows
        for left in range(0, whole, self.tile):
            tile = padded[:, :, left : left + self.tile]
            yield np.ascontiguousarray(np.moveaxis(tile, 0, -1) if self.colour else tile[0])

    def _sizes(self) -> dict[str, int]:
        return dict(zip(self.axes, self.array.shape, strict=True))


def _write(
    path: Path,
    image: MultiscaleImage,
    levels: Sequence[_Pages],
    codec: TiffCodec,
    tell: Callable[[], None],
) -> None:
    base = levels[0]
    options: dict[str, Any] = {
        "dtype": image.dtype,
        "tile": (base.tile, base.tile),
        "compression": _CODECS[codec],
        "photometric": "rgb" if base.colour else "minisblack",
        "maxworkers": min(os.cpu_count() or 1, _THREADS),
    }
    # Differences of floating numbers are no smaller than they are.
    if _CODECS[codec] and image.dtype.kind != "f":
        options["predictor"] = True
    if base.colour:
        options["planarconfig"] = "contig"
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as writer:
        for number, level in enumerate(levels):
            # Of each level its own: the size of a pixel in the tags, for readers of plain TIFF.
            factor = base.shape[base.order.index("x")] / level.shape[level.order.index("x")]
            placed: dict[str, Any] = {}
            if image.mpp is not None:
                placed["resolution"] = tuple(1e4 / (m * factor) for m in (image.mpp.x, image.mpp.y))
                placed["resolutionunit"] = "CENTIMETER"
            if number:
                placed["subfiletype"] = 1
            else:
                placed |= {"subifds": len(levels) - 1, "metadata": _metadata(image, base)}
            writer.write(level.tiles(tell), shape=level.shape, **placed, **options)


def _metadata(image: MultiscaleImage, base: _Pages) -> dict[str, Any]:
    """Return what tifffile makes OME-XML of."""
    axes = base.order[:-1].upper() + "S" if base.colour else base.order.upper()
    found: dict[str, Any] = {"axes": axes, "Name": image.name}
    if image.mpp is not None:
        for axis, size in (("X", image.mpp.x), ("Y", image.mpp.y)):
            found |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    level = image.level(0)
    depth = dict(zip(level.axes, level.scale, strict=True)).get("z", 1)
    if depth != 1:  # 1 is what a level says that nobody measured
        found |= {"PhysicalSizeZ": depth, "PhysicalSizeZUnit": "µm"}
    if image.channel_names and not base.colour:
        found["Channel"] = {"Name": list(image.channel_names)}
    place = {
        axis: float(at)
        for axis, at in zip(level.axes, level.translation, strict=True)
        if axis in "zyx"
    }
    noted: dict[str, str] = {}
    if image.mpp is not None and any(place.values()):
        pages = prod(n for axis, n in zip(base.order, base.shape, strict=True) if axis not in "yx")
        planes = pages // (base.shape[-1] if base.colour else 1)
        found["Plane"] = {}
        for axis in "XY":
            found["Plane"] |= {
                f"Position{axis}": [place[axis.lower()]] * planes,
                f"Position{axis}Unit": ["µm"] * planes,
            }
        # Positions of others are those of a stage; that these are the image's place, we say here.
        noted["place"] = json.dumps(place)
    ours = image.metadata.get("microtome")
    if isinstance(ours, Mapping):
        record = {name: value for name, value in ours.items() if name not in _OF_ZARR}
        if record:
            noted["record"] = json.dumps(record)
    if noted:
        found["MapAnnotation"] = {"Namespace": _NAMESPACE, **noted}
    return found


def _levels(image: MultiscaleImage, tile: int, folder: Path) -> list[Level]:
    """Return the image's levels; of a large image that has none, computed ones in a folder."""
    levels = [image.level(index) for index in range(image.level_count)]
    base = levels[0]
    if len(levels) > 1:
        return levels
    for number, shape in enumerate(pyramid_shapes(base.shape, 2 * tile)[1:], 1):
        finer = levels[-1].array
        made = np.memmap(folder / f"{number}", base.dtype, "w+", shape=shape)
        halve = halve_labels if image.kind == "labels" else halve_mean
        lead = [(0, n) for n in shape[:-2]]
        for top in range(0, shape[-2], tile):
            rows = 2 * top, min(2 * (top + tile), finer.shape[-2])
            made[..., top : top + tile, :] = halve(finer.read((*lead, rows, (0, finer.shape[-1]))))
        levels.append(
            Level(f"level{number}", str(number), MemoryArray(made), base.axes, base.scale, base.translation)
        )  # fmt: skip
    return levels


def _is_colour(image: MultiscaleImage) -> bool:
    names = image.channel_names or ()
    return (
        image.dtype == np.uint8
        and len(names) == len(_RGB[0])
        and {name.lower() for name in names} in _RGB
    )


def _checked(
    image: MultiscaleImage, path: Path, codec: str, tile_size: int, *, overwrite: bool
) -> Path:
    """Refuse what cannot be written before the first pixel is read."""
    verify_image(image, "image")
    if codec not in _CODECS:
        msg = f"codec must be one of {sorted(_CODECS)}, got {codec!r}"
        raise InvalidInputError(msg)
    if tile_size < 16 or tile_size % 16:
        msg = f"tile_size must be a multiple of 16, got {tile_size}"
        raise InvalidInputError(msg)
    verify_tiff_type(image.dtype, image.uri)
    return free_tiff_place(path, overwrite=overwrite)


def verify_tiff_type(dtype: np.dtype[Any], uri: str) -> None:
    """Refuse pixels of a type that OME has no name for.

    Parameters
    ----------
    dtype
        The type.
    uri
        What is of this type, for the message.

    Raises
    ------
    InvalidInputError
        If it is none of OME's.
    """
    if dtype.name not in _TYPES:
        msg = f"OME-TIFF has no name for {dtype}, the type of {uri}; it has {sorted(_TYPES)}"
        raise InvalidInputError(msg)


def free_tiff_place(path: Path, *, overwrite: bool) -> Path:
    """Return the path of a new OME-TIFF, its directory made.

    Parameters
    ----------
    path
        The file.
    overwrite
        Whether a file that is there is replaced.

    Raises
    ------
    ExistsError
        If there is something at `path`, unless it is a file and `overwrite` is true.
    InvalidInputError
        If the name is no OME-TIFF's.
    """
    if not path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        msg = (
            f"{path} would not be taken for an OME-TIFF; call it {path.name.split('.')[0]}.ome.tif"
        )
        raise InvalidInputError(msg)
    verify_free(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
