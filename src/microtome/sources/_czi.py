"""Zeiss CZI through Zeiss's own library: a scene at a time, at full resolution."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import FormatError, StorageError
from microtome.image import MultiscaleImage
from microtome.storage import Box

from ._apart import Apart
from ._array import image_from_levels
from ._choice import chosen, distinct
from ._fetched import FetchedArray
from ._foreign import foreign_errors, missing

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
# Cameras have tiles of about this size; the library does not tell.
_TILE = 1024
# What is asked for at a time, a side: what the process that reads may take is limited.
_MOST_SIDE = 4096
_APART = Apart(Path(__file__).with_name("_czi_alone.py"))


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
        z_spacing=_distances(file.root).get("Z"),
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
    found = _distances(root)
    return Mpp(found["Y"], found["X"], "metadata") if found.keys() >= {"Y", "X"} else None


def _distances(root: Any) -> dict[str, float]:
    """Return how far pixels and planes are apart by axis, in micrometres, where the file says."""
    found: dict[str, float] = {}
    for distance in root.findall("Metadata/Scaling/Items/Distance"):
        with suppress(ValueError):
            size = float(distance.findtext("Value") or 0) * _METRE_UM
            if 0 < size < math.inf:
                found[str(distance.get("Id"))] = size
    return found


class _File:
    """A file that is read in processes of their own: it may end the library, and with it the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = path.stat()
        except OSError as error:
            msg = f"{path} cannot be read: {error.strerror}"
            raise StorageError(msg) from error
        self._asked: dict[str, Any] = {
            "path": str(path.absolute()),
            "state": [found.st_ino, found.st_size, found.st_mtime_ns],
        }
        layout = self._ask("layout")
        self.scenes: dict[int, list[int]] = {int(n): box for n, box in layout["scenes"].items()}
        self.whole: list[int] = layout["whole"]
        self.box: dict[str, list[int]] = layout["box"]
        self._verify_planes(found.st_size)
        facts = self._ask("facts")
        self.types: set[str] = set(facts["types"])
        try:
            self.root: Any = ElementTree.fromstring(facts["metadata"])
        except (ElementTree.ParseError, DefusedXmlException, ValueError) as error:
            msg = f"{path}: its metadata cannot be read: {error}"
            raise FormatError(msg) from error

    def _verify_planes(self, size: int) -> None:
        """Refuse more planes than can be: the library itself counts through them for hours."""
        planes = math.prod(
            last - first for axis, (first, last) in self.box.items() if axis in "TCZ"
        )
        if planes > size // _ENTRY_BYTES:
            msg = (
                f"{self.path} is damaged: it states {planes} planes, and a directory of them "
                "does not fit into the file"
            )
            raise FormatError(msg)

    def read(
        self,
        scene: int | None,
        roi: tuple[int, int, int, int],
        plane: dict[str, int],
        out: NDArray[Any],
    ) -> None:
        """Fill (rows, columns, samples)."""
        self._ask("pixels", out, scene=scene, roi=roi, plane=plane)

    def _ask(self, what: str, out: NDArray[Any] | None = None, **more: Any) -> Any:
        question = {**self._asked, "what": what, **more}
        with foreign_errors(self.path, "pylibCZIrw"):
            answer = _APART.ask(question, self._asked["path"], out)
            if "missing" in answer:
                raise missing("pylibCZIrw", self.path, "czi", answer["missing"])
            if answer.get("errno") is not None:
                raise OSError(answer["errno"], os.strerror(answer["errno"]))
            if "error" in answer:
                raise RuntimeError(answer["error"])
        return answer


class _Pixels:
    """A scene."""

    def __init__(self, file: _File, scene: int | None) -> None:
        self._file, self._scene = file, scene
        if len(file.types) != 1 or not file.types <= _TYPES.keys():
            msg = f"{file.path}: pixels of type {sorted(file.types)} cannot be read; one of {list(_TYPES)} can"
            raise FormatError(msg)
        self.samples, self.dtype = _TYPES[next(iter(file.types))]
        rectangle = file.whole if scene is None else file.scenes[scene]
        left, top, width, height = rectangle
        self._corner = left, top
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
        sizes |= {"y": height, "x": width}
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
        box = tuple((int(start), int(stop)) for start, stop in box)  # of numpy's, too
        out = np.empty([stop - start for start, stop in box], self.dtype)
        colours = self.axes.index("c") if self.samples > 1 else None
        leads = [place for place in range(len(box) - 2) if place != colours]
        turned = out.transpose(*leads, *(p for p in range(len(box)) if p not in leads))
        for at in np.ndindex(turned.shape[: len(leads)]):
            plane = dict(self._first)
            for place, step in zip(leads, at, strict=True):
                plane[self.axes[place].upper()] += box[place][0] + step
            for y, x in _blocks(out.shape[-2:]):
                found = self._block(plane, box, y, x)
                if colours is None:
                    turned[at][y, x] = found[..., 0]
                else:
                    # Blue comes first.
                    chosen = found[..., ::-1][..., slice(*box[colours])]
                    turned[at][:, y, x] = chosen.transpose(2, 0, 1)
        return out

    def _block(self, plane: dict[str, int], box: Box, y: slice, x: slice) -> NDArray[Any]:
        height, width = y.stop - y.start, x.stop - x.start
        left, top = self._corner[0] + box[-1][0] + x.start, self._corner[1] + box[-2][0] + y.start
        found = np.empty((height, width, self.samples), self.dtype)
        self._file.read(self._scene, (left, top, width, height), plane, found)
        return found


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    for y, x in product(*(range(0, size, _MOST_SIDE) for size in shape)):
        yield slice(y, min(y + _MOST_SIDE, shape[0])), slice(x, min(x + _MOST_SIDE, shape[1]))
