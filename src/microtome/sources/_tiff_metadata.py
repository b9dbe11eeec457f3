"""What a TIFF says about itself: pixel size and channel names, in the dialects of its makers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from microtome.coordinates import Mpp, MppSource
from microtome.errors import FormatError

__all__ = [
    "absent_files",
    "channel_names",
    "noted_by_us",
    "ome_image",
    "pixel_size",
    "verify_description",
    "z_step",
]

# Of the annotation by which an OME-TIFF of ours, see `write_ome_tiff`, says where its image lies and
# how it was made.
_NAMESPACE = "microtome"

_CENTIMETER, _INCH = 3, 2
_TAG_UNITS = {_CENTIMETER: 1e4, _INCH: 25400.0}

# 1200 dots per inch, the finest of print, is 21 um: a tag coarser than that speaks of paper
# (72, 96 and 300 dpi are what image libraries write when they know nothing).
_PRINT_UM = 21.0

# In them ImageJ repeats those tags; what somebody calibrated it has in smaller ones.
_OF_PRINT = ("inch", "in", "cm")

_LENGTHS = {
    "": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "\\u00b5m": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "dm": 1e5,
    "pm": 1e-6,
    "Å": 1e-4,
    "thou": 25.4,
    "in": 25400.0,
    "inch": 25400.0,
}


# More planes than any file of ours has pages, far fewer than would fill the memory.
_MOST_PLANES = 1_000_000
_PLANE_COUNTS = ("PlaneCount", "NumPlanes", "FirstC", "FirstZ", "FirstT", "IFD")


def verify_description(tiff: Any) -> None:
    """Refuse OME-XML that would harm whoever parses it or believes its numbers.

    Parameters
    ----------
    tiff
        The open `tifffile.TiffFile`, its series not yet asked for.

    Raises
    ------
    FormatError
        If the XML is damaged, defines entities, speaks of millions of planes, of which tifffile
        makes a list of as many, or of files outside its own directory, which tifffile opens.
    """
    if not tiff.is_ome:
        return
    for data in _ome_root(tiff).iterfind("{*}Image/{*}Pixels/{*}TiffData"):
        counts = [int(data.get(name, 0)) for name in _PLANE_COUNTS]
        if not 0 <= min(counts) <= max(counts) <= _MOST_PLANES:
            msg = f"{tiff.filehandle.path}: its OME-XML speaks of {max(counts)} planes"
            raise FormatError(msg)
        for other in data.iterfind("{*}UUID"):
            name = other.get("FileName", "")
            if name != name.replace("\\", "/").rpartition("/")[2] or name == "..":
                msg = f"{tiff.filehandle.path}: its OME-XML speaks of a file elsewhere, {name!r}"
                raise FormatError(msg)


def absent_files(tiff: Any) -> list[str]:
    """Return the names of the files in which OME-XML says that planes are, and which are not there."""
    if not tiff.is_ome:
        return []
    root = _ome_root(tiff)
    # A file may have been renamed since; by its id it is still found.
    others = (
        other.get("FileName", "")
        for other in root.iterfind("{*}Image/{*}Pixels/{*}TiffData/{*}UUID")
        if other.text != root.get("UUID")
    )
    folder = Path(tiff.filehandle.path).parent
    return sorted({name for name in others if name and not (folder / name).exists()})


def pixel_size(tiff: Any, number: int) -> Mpp | None:
    """Return the pixel size that a TIFF states, or None.

    What the maker wrote as such (Aperio's MPP, OME's PhysicalSize, ImageJ's unit) goes before the
    resolution tags; the objective's magnification is never turned into a pixel size.

    Parameters
    ----------
    tiff
        The open `tifffile.TiffFile`.
    number
        Which of its series.
    """
    page = tiff.series[number].keyframe
    if tiff.is_svs:
        if number:
            # The thumbnail repeats the description of the slide; label and macro say nothing.
            return None
        found = re.search(r"(?:^|\|)\s*MPP\s*=\s*([0-9.eE+-]+)", page.description)
        return _mpp(found.group(1), found.group(1), (1.0, 1.0), "metadata") if found else None
    if tiff.is_ome:
        image = ome_image(tiff, number)
        pixels = image.find("{*}Pixels") if image is not None else None
        facts = dict(pixels.attrib) if pixels is not None else {}
        x, y = facts.get("PhysicalSizeX"), facts.get("PhysicalSizeY")
        if x is not None and y is not None:
            # Either axis has a unit of its own.
            units = [_LENGTHS.get(facts.get(f"PhysicalSize{a}Unit", "µm")) for a in "YX"]
            return _mpp(y, x, units, "metadata")
    if tiff.is_imagej:
        name = str((tiff.imagej_metadata or {}).get("unit", "none")).lower()
        unit = _LENGTHS.get(name)
        below = _PRINT_UM if name in _OF_PRINT else math.inf
        return _from_tags(page, unit, "metadata", below=below) if unit else None
    unit_tag = page.tags.get("ResolutionUnit")
    unit = _TAG_UNITS.get(int(unit_tag.value)) if unit_tag is not None else _TAG_UNITS[_INCH]
    return _from_tags(page, unit, "tag", below=_PRINT_UM) if unit else None


def z_step(tiff: Any, number: int) -> float | None:
    """Return how far the planes of a TIFF are apart, in micrometres; None where it does not say.

    OME-XML has it in `PhysicalSizeZ`, ImageJ in `spacing`, either in a unit of its own.

    Parameters
    ----------
    tiff
        The open `tifffile.TiffFile`.
    number
        Which of its series.
    """
    if tiff.is_ome:
        image = ome_image(tiff, number)
        pixels = image.find("{*}Pixels") if image is not None else None
        facts = dict(pixels.attrib) if pixels is not None else {}
        step, unit = facts.get("PhysicalSizeZ"), facts.get("PhysicalSizeZUnit", "µm")
    elif tiff.is_imagej:
        known = tiff.imagej_metadata or {}
        step, unit = (
            known.get("spacing"),
            str(known.get("zunit", known.get("unit", "none"))).lower(),
        )
    else:
        return None
    try:
        # ImageJ counts downwards where its stack was turned about; a step has no direction here.
        found = abs(float(step or 0)) * _LENGTHS.get(unit, 0.0)
    except (TypeError, ValueError):
        return None
    return found if 0 < found < math.inf else None


def noted_by_us(tiff: Any, number: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return where an image lies by axis, in micrometres, and what was noted of how it was made.

    Both are empty of files that `write_ome_tiff` did not write, or that were changed since.

    Parameters
    ----------
    tiff
        The open `tifffile.TiffFile`.
    number
        Which of its series.
    """
    image = ome_image(tiff, number) if tiff.is_ome else None
    if image is None:
        return {}, {}
    mine = {ref.get("ID") for ref in image.iterfind("{*}AnnotationRef")}
    noted: dict[str, Any] = {}
    for each in _ome_root(tiff).iterfind("{*}StructuredAnnotations/{*}MapAnnotation"):
        if each.get("Namespace") == _NAMESPACE and each.get("ID") in mine:
            for entry in each.iterfind("{*}Value/{*}M"):
                noted[str(entry.get("K"))] = _json(entry.text or "")
    place, record = noted.get("place"), noted.get("record")
    found = {
        axis: float(at)
        for axis, at in (place.items() if isinstance(place, dict) else ())
        if axis in set("zyx") and isinstance(at, int | float) and math.isfinite(at)
    }
    return found, record if isinstance(record, dict) else {}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def channel_names(tiff: Any, number: int, pages: list[Any], count: int) -> tuple[str, ...] | None:
    """Return the names of the channels, or None where the file has none.

    Parameters
    ----------
    tiff
        The open `tifffile.TiffFile`.
    number
        Which of its series.
    pages
        Pages of the finest level, one a channel.
    count
        Number of channels.
    """
    names: list[str | None] = []
    if tiff.is_ome:
        image = ome_image(tiff, number)
        found = image.findall("{*}Pixels/{*}Channel") if image is not None else []
        names = [channel.get("Name") for channel in found]
    elif tiff.is_qpi:
        names = [_xml_text(page.description, "Name") for page in pages]
    elif tiff.is_imagej:
        labels = (tiff.imagej_metadata or {}).get("Labels")
        names = [str(label) for label in labels] if isinstance(labels, list | tuple) else []
        # One a plane: those of a channel begin like its first.
        names = names if len(names) == count else []
    if not names:
        names = _page_names(pages)
    if len(names) != count or any(not name for name in names):
        return None
    return tuple(str(name) for name in names)


def _page_names(pages: list[Any]) -> list[str | None]:
    """Return what pages are called: by the tag PageName, or by MIBI's JSON in the description."""
    names: list[str | None] = []
    for page in pages:
        # Only the first of many like pages is parsed whole; the others are asked to be now.
        whole = page.aspage()
        tag = whole.tags.get("PageName")
        names.append(str(tag.value) if tag is not None else _target(str(whole.description)))
    return names


def _target(description: str) -> str | None:
    if not description.startswith("{") or "channel.target" not in description:
        return None
    try:
        found = json.loads(description)
    except (ValueError, RecursionError):
        return None
    target = found.get("channel.target") if isinstance(found, dict) else None
    return str(target) if target else None


def _from_tags(page: Any, unit: float, source: MppSource, *, below: float = math.inf) -> Mpp | None:
    """Return the pixel size of the resolution tags, None where it is not below a limit."""
    x, y = page.tags.get("XResolution"), page.tags.get("YResolution")
    if x is None or y is None or 0 in (*x.value, *y.value):
        return None
    sizes = y.value[1] / y.value[0], x.value[1] / x.value[0]
    return _mpp(*sizes, (unit, unit), source) if max(sizes) * unit < below else None


def _mpp(y: Any, x: Any, units: Sequence[float | None], source: MppSource) -> Mpp | None:
    """Return a pixel size of numbers in units of so many micrometres; None for what is no length."""
    try:
        sizes = float(y) * (units[0] or 0.0), float(x) * (units[1] or 0.0)
    except ValueError:
        return None
    return Mpp(*sizes, source) if min(sizes) > 0 else None


def _ome_root(tiff: Any) -> Any:
    try:
        return ElementTree.fromstring(tiff.ome_metadata)
    except (ElementTree.ParseError, DefusedXmlException, ValueError) as error:
        msg = f"{tiff.filehandle.path}: its OME-XML cannot be read: {error}"
        raise FormatError(msg) from error


def ome_image(tiff: Any, number: int) -> Any:
    """Return the element of OME-XML that speaks of a series, or None.

    tifffile leaves out images of which nothing is there; then only the first is sure.
    """
    images = _ome_root(tiff).findall("{*}Image")
    if number and len(images) != len(tiff.series):
        return None
    return images[number] if number < len(images) else None


def _xml_text(text: str, tag: str) -> str | None:
    try:
        # The declaration says utf-16, the text was decoded long ago.
        return ElementTree.fromstring(re.sub(r"^<\?xml[^>]*\?>", "", text)).findtext(tag)
    except (ElementTree.ParseError, DefusedXmlException, ValueError):
        return None
