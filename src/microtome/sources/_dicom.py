"""Whole slides in DICOM through wsidicom: the files of a series, one for each level, label, overview."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import FormatError, InvalidInputError
from microtome.image import MultiscaleImage
from microtome.storage import Box

from ._array import image_from_array, image_from_levels
from ._choice import chosen, distinct
from ._fetched import FetchedArray
from ._foreign import foreign_errors, imported
from ._listing import is_dicom_file

__all__ = ["dicom_images", "open_dicom"]

_SLIDE = "slide"

# What says whether a file is of the same slide, and what people ask for.
_SERIES = "SeriesInstanceUID"
_FACTS = (
    "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "AcquisitionDateTime",
    "StudyInstanceUID", "SeriesInstanceUID", "ContainerIdentifier", "LossyImageCompression",
    "PhotometricInterpretation", "DimensionOrganizationType", "TotalPixelMatrixFocalPlanes",
)  # fmt: skip


def dicom_images(path: Path) -> tuple[str, ...]:
    """Return ``slide``, then ``label`` and ``overview`` where there are such."""
    return tuple(_names(_Slide(path)))


def open_dicom(path: Path, *, mpp: Mpp | None, image: str | int | None) -> MultiscaleImage:
    """Open a slide with its levels, or its label or overview.

    Parameters
    ----------
    path
        The folder of a series, or a file of it: the others lie beside it.
    mpp
        Pixel size instead of what the files state.
    image
        Name or number of an associated image; the slide by default.

    Raises
    ------
    DependencyError
        If wsidicom is not installed.
    FormatError
        If the files are damaged, of several series, or no whole slide.
    """
    slide = _Slide(path)
    names = _names(slide)
    number = chosen(list(names), 0 if image is None else image, where=path)
    name = path.name.split(".")[0]
    if number:
        with foreign_errors(path, "wsidicom"):
            pixels = np.asarray(names[list(names)[number]]())
        return image_from_array(
            pixels,
            axes="yxc" if pixels.ndim == 3 else "yx",
            mpp=mpp,
            uri=str(path),
            name=f"{name} {list(names)[number]}",
        )
    with foreign_errors(path, "wsidicom"):
        levels = list(slide.reader.levels)
        # In the order of the file: wsidicom keeps them as a set.
        known = set(levels[0].optical_paths)
        paths = [path for path in slide.paths if path in known]
        arrays = [_level(slide, level, paths) for level in levels]
        spacing = levels[0].mpp
        size = mpp or Mpp(float(spacing.height), float(spacing.width), "metadata")
    return image_from_levels(
        arrays,
        "cyx",
        mpp=size,
        channel_names=None
        if slide.samples > 1
        else distinct([slide.paths[path] for path in paths]),
        uri=str(path),
        name=name,
        metadata={"acquisition": slide.facts, "associated_images": list(names)[1:]},
    )


def _names(slide: _Slide) -> dict[str, Any]:
    """Return the names of the images, and for each but the first the function that reads it."""
    found: dict[str, Any] = {_SLIDE: None}
    for name, images in (("label", slide.reader.labels), ("overview", slide.reader.overviews)):
        if list(images or ()):
            found[name] = getattr(slide.reader, f"read_{name}")
    return found


def _level(slide: _Slide, level: Any, paths: Sequence[str]) -> FetchedArray:
    height, width = int(level.size.height), int(level.size.width)
    number, side = int(level.level), level.tile_size
    count = slide.samples if slide.samples > 1 else len(paths)

    def fetch(box: Box) -> NDArray[Any]:
        channels, (y0, y1), (x0, x1) = box
        place, size = (x0, y0), (x1 - x0, y1 - y0)
        with foreign_errors(slide.path, "wsidicom"):
            if slide.samples > 1:
                found = slide.reader.read_region(place, number, size, as_array=True)
                return np.asarray(found)[..., slice(*channels)].transpose(2, 0, 1)
            planes = [
                slide.reader.read_region(place, number, size, path=path, as_array=True)
                for path in paths[slice(*channels)]
            ]
        return np.stack([np.asarray(plane).reshape(size[1], size[0]) for plane in planes])

    tiles = (slide.samples, int(side.height), int(side.width))
    return FetchedArray((count, height, width), slide.dtype, tiles, fetch, slide.files)


class _Slide:
    """The open files of a series."""

    def __init__(self, path: Path) -> None:
        self.path = path
        library = imported("wsidicom", path, "dicom")
        with foreign_errors(path, "wsidicom"):
            files, head = _series(path)
            self.files = tuple(files)
            self.samples = int(head.get("SamplesPerPixel", 1))
            bits = int(head.get("BitsAllocated", 8))
            if bits not in {8, 16} or head.get("PixelRepresentation", 0):
                msg = f"{path}: signed pixels, or of {bits} bits, cannot be read; 8 and 16 unsigned can"
                raise FormatError(msg)
            self.dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
            self.paths = {
                str(item.get("OpticalPathIdentifier")): str(
                    item.get("OpticalPathDescription") or f"path {number}"
                )
                for number, item in enumerate(head.get("OpticalPathSequence", ()))
            }
            self.reader: Any = library.WsiDicom.open(files)
            if not list(self.reader.levels):
                msg = f"{path} is DICOM but no whole slide: it has no levels"
                raise FormatError(msg)
        self.facts = {key: str(head[key].value) for key in _FACTS if key in head}

    def __del__(self) -> None:
        if getattr(self, "reader", None) is not None:
            self.reader.close()

    def __reduce__(self) -> tuple[Any, ...]:
        msg = f"{self.path}: open the slide in the other process instead of sending it there"
        raise InvalidInputError(msg)


def _series(path: Path) -> tuple[list[Path], Any]:
    """Return the files of a series, and the head of one that holds a level."""
    pydicom = imported("pydicom", path, "dicom")
    folder = path if path.is_dir() else path.parent
    heads: dict[Path, Any] = {}
    for file in sorted(folder.iterdir()):
        if is_dicom_file(file):
            heads[file] = pydicom.dcmread(file, stop_before_pixels=True)
    if path.is_dir():
        series = {str(head.get(_SERIES)) for head in heads.values()}
        if len(series) > 1:
            msg = f"{path} holds {len(series)} series; open a file of one: {', '.join(sorted(file.name for file in heads)[:5])}"
            raise FormatError(msg)
        wanted = next(iter(series))
    else:
        wanted = str(heads[path].get(_SERIES))
    files = {file: head for file, head in heads.items() if str(head.get(_SERIES)) == wanted}
    volumes = [h for h in files.values() if "VOLUME" in [str(v) for v in h.get("ImageType", ())]]
    if not volumes:
        msg = f"{path} is DICOM but no whole slide: none of its {len(files)} files is a VOLUME"
        raise FormatError(msg)
    return list(files), max(volumes, key=lambda head: int(head.get("TotalPixelMatrixColumns", 0)))
