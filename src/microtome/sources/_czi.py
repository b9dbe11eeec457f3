"""Zeiss CZI through Zeiss's own library: a scene at a time, at full resolution."""

from __future__ import annotations

import math
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import FormatError, InvalidInputError
from microtome.image import MultiscaleImage
from microtome.storage import Box

from ._array import image_from_levels
from ._choice import chosen, distinct
from ._fetched import FetchedArray
from ._foreign import foreign_errors, imported

__all__ = ["czi_images", "open_czi"]

# Samples of a pixel, their type, in the words of the library. Colours are blue, green, red.
_TYPES = {
    "Gray8": (1, np.uint8),
    "Gray16": (1, np.uint16),
    "Gray32Float": (1, np.float32),
    "Bgr24": (3, np.uint8),
    "Bgr48": (3, np.uint16),
    "Bgr96Float": (3, np.float32),
}
_ORDER = "tczyx"
_METRE_UM = 1e6
# Of a plane the file's directory has one entry at least, and each takes more than this.
_ENTRY_BYTES = 32
# Of the format, ZISRAW: where the header of a file says where its directory is; the head of a
# segment, which ends with how much of it is used; what lies before the entries; a dimension of one.
_DIRECTORY_AT, _SEGMENT, _COUNT_ROOM, _DIMENSION_BYTES = 84, 32, 128, 20
_MOST_DIMENSIONS = 40

# Cameras have tiles of about this size; the library does not tell.
_TILE = 1024


def czi_images(path: Path) -> tuple[str, ...]:
    """Return the names of the scenes of a CZI file."""
    file = _File(path)
    return _names(file)


def open_czi(path: Path, *, mpp: Mpp | None, image: str | int | None) -> MultiscaleImage:
    """Open a scene of a CZI file. What no tile covers is 0.

    Parameters
    ----------
    path
        The file.
    mpp
        Pixel size instead of what the file states.
    image
        Name or number of the scene; needed where there are several.

    Raises
    ------
    DependencyError
        If pylibCZIrw is not installed.
    FormatError
        If the file is damaged, or its channels differ in their type.
    """
    file = _File(path)
    names = _names(file)
    number = chosen(names, image, where=path)
    scene = sorted(file.scenes)[number] if file.scenes else None
    pixels = _Pixels(file, scene)
    channels = file.root.findall("Metadata/Information/Image/Dimensions/Channels/Channel")
    stated = [channel.get("Name") for channel in channels]
    count = pixels.shape[pixels.axes.index("c")] if "c" in pixels.axes else 0
    known = pixels.samples == 1 and len(stated) == count and all(stated)
    return image_from_levels(
        [FetchedArray(pixels.shape, pixels.dtype, pixels.chunks, pixels.fetch)],
        pixels.axes,
        mpp=mpp or _pixel_size(file.root),
        channel_names=distinct([str(name) for name in stated]) if known else None,
        uri=str(path),
        name=path.name.split(".")[0] + (f" {names[number]}" if len(names) > 1 else ""),
        metadata={
            "acquisition": {
                "document": _texts(file.root, "Metadata/Information/Document"),
                "image": _texts(file.root, "Metadata/Information/Image"),
                "channels": [
                    {**channel.attrib, **{e.tag: e.text for e in channel if e.text and not len(e)}}
                    for channel in channels
                ],
            }
        },
    )


def _names(file: _File) -> tuple[str, ...]:
    stated = file.root.findall("Metadata/Information/Image/Dimensions/S/Scenes/Scene")
    by_number = {scene.get("Index"): scene.get("Name") for scene in stated}
    if not file.scenes:
        return ("image",)
    return distinct([by_number.get(str(n)) or f"scene {n}" for n in sorted(file.scenes)])


def _texts(root: Any, place: str) -> dict[str, str]:
    found = root.find(place)
    elements = found if found is not None else ()
    return {e.tag: e.text.strip() for e in elements if e.text and e.text.strip() and not len(e)}


def _pixel_size(root: Any) -> Mpp | None:
    metres = {
        distance.get("Id"): distance.findtext("Value")
        for distance in root.findall("Metadata/Scaling/Items/Distance")
    }
    try:
        y, x = (float(metres.get(axis) or 0) * _METRE_UM for axis in "YX")
    except ValueError:
        return None
    return Mpp(y, x, "metadata") if min(y, x) > 0 else None


def _verify_directory(path: Path) -> None:
    """Refuse entries of the directory of more dimensions than there are: the library dies of them.

    What else is wrong with the file is the library's to say.
    """
    with path.open("rb") as file:
        head = file.read(_DIRECTORY_AT + 8)
        if len(head) < _DIRECTORY_AT + 8 or not head.startswith(b"ZISRAWFILE"):
            return
        (at,) = struct.unpack_from("<q", head, _DIRECTORY_AT)
        if not 0 < at < path.stat().st_size:
            return
        file.seek(at)
        segment = file.read(_SEGMENT + _COUNT_ROOM)
        if len(segment) < _SEGMENT + _COUNT_ROOM or not segment.startswith(b"ZISRAWDIRECTORY"):
            return
        used, count = struct.unpack_from("<qi", segment, _SEGMENT - 8)
        entries = file.read(min(max(used - _COUNT_ROOM, 0), path.stat().st_size))
    place = 0
    for _ in range(count):
        if place + _ENTRY_BYTES > len(entries) or entries[place : place + 2] != b"DV":
            return
        (dimensions,) = struct.unpack_from("<i", entries, place + _ENTRY_BYTES - 4)
        if not 0 <= dimensions <= _MOST_DIMENSIONS:
            msg = f"{path} is damaged: its directory has a tile of {dimensions} dimensions"
            raise FormatError(msg)
        place += _ENTRY_BYTES + _DIMENSION_BYTES * dimensions


class _File:
    """An open file, one read at a time: the library does not say that more are safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        library = imported("pylibCZIrw.czi", path, "czi")
        _verify_directory(path)
        with foreign_errors(path, "pylibCZIrw"):
            self._reader: Any = library.CziReader(str(path))
            self.scenes: dict[int, Any] = dict(self._reader.scenes_bounding_rectangle)
            self.whole: Any = self._reader.total_bounding_rectangle
            self.box: dict[str, tuple[int, int]] = dict(self._reader.total_bounding_box)
            self._verify_planes()
            self.types: set[str] = set(self._reader.pixel_types.values())
            text: str = self._reader.raw_metadata
        try:
            self.root: Any = ElementTree.fromstring(text)
        except (ElementTree.ParseError, DefusedXmlException, ValueError) as error:
            msg = f"{path}: its metadata cannot be read: {error}"
            raise FormatError(msg) from error

    def _verify_planes(self) -> None:
        """Refuse more planes than can be: the library itself counts through them for hours."""
        planes = math.prod(
            last - first for axis, (first, last) in self.box.items() if axis in "TCZ"
        )
        if planes > self.path.stat().st_size // _ENTRY_BYTES:
            msg = (
                f"{self.path} is damaged: it states {planes} planes, and a directory of them "
                "does not fit into the file"
            )
            raise FormatError(msg)

    def read(self, scene: int | None, roi: tuple[int, int, int, int], plane: dict[str, int]) -> Any:
        """Return (rows, columns, samples)."""
        with self._guard, foreign_errors(self.path, "pylibCZIrw"):
            return self._reader.read(roi=roi, plane=plane, scene=scene)

    def __del__(self) -> None:
        if getattr(self, "_reader", None) is not None:
            self._reader.close()

    def __reduce__(self) -> tuple[Any, ...]:
        msg = f"{self.path}: open the file in the other process instead of sending it there"
        raise InvalidInputError(msg)


class _Pixels:
    """A scene."""

    def __init__(self, file: _File, scene: int | None) -> None:
        self._file, self._scene = file, scene
        if len(file.types) != 1 or not file.types <= _TYPES.keys():
            msg = f"{file.path}: pixels of type {sorted(file.types)} cannot be read; one of {list(_TYPES)} can"
            raise FormatError(msg)
        self.samples, self.dtype = _TYPES[next(iter(file.types))]
        rectangle = file.whole if scene is None else file.scenes[scene]
        self._corner = (int(rectangle.x), int(rectangle.y))
        spans = {axis.lower(): file.box[axis] for axis in "TCZ" if axis in file.box}
        sizes = {axis: last - first for axis, (first, last) in spans.items() if last - first > 1}
        self._first = {axis.upper(): first for axis, (first, _) in spans.items()}
        if self.samples > 1:
            if "c" in sizes:
                msg = f"{file.path} has {sizes['c']} channels of {self.samples} colours each, one can be read"
                raise FormatError(msg)
            sizes["c"] = self.samples
        elif "c" in spans:
            sizes["c"] = spans["c"][1] - spans["c"][0]
        sizes |= {"y": int(rectangle.h), "x": int(rectangle.w)}
        self.axes = "".join(axis for axis in _ORDER if axis in sizes)
        self.shape = tuple(sizes[axis] for axis in self.axes)
        if min(self.shape) < 1:
            msg = f"{file.path}: a scene of {self.shape} pixels is empty"
            raise FormatError(msg)
        together = max(1, self.samples)
        lead = [together if axis == "c" else 1 for axis in self.axes[:-2]]
        self.chunks = (*lead, _TILE, _TILE)

    def fetch(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        (y0, y1), (x0, x1) = box[-2:]
        roi = (self._corner[0] + x0, self._corner[1] + y0, x1 - x0, y1 - y0)
        out = np.empty([stop - start for start, stop in box], self.dtype)
        colours = self.axes.index("c") if self.samples > 1 else None
        leads = [place for place in range(len(box) - 2) if place != colours]
        turned = out.transpose(*leads, *(p for p in range(len(box)) if p not in leads))
        for at in np.ndindex(turned.shape[: len(leads)]):
            plane = dict(self._first)
            for place, step in zip(leads, at, strict=True):
                plane[self.axes[place].upper()] += box[place][0] + step
            found = np.asarray(self._file.read(self._scene, roi, plane))
            if colours is None:
                turned[at] = found[..., 0]
            else:
                # Blue comes first.
                turned[at] = found[..., ::-1][..., slice(*box[colours])].transpose(2, 0, 1)
        return out
