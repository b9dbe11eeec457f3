"""What a TIFF says of its acquisition, as JSON: for people, and for what we do not read."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from ._tiff_metadata import ome_image

__all__ = ["acquisition"]

# Of the tags that say something of an acquisition, and are short.
_TAGS = ("Artist", "DateTime", "HostComputer", "Make", "Model", "Software")

_AS_STORED = 1

# How whoever shows a picture turns its numbers into light, where that is not the usual way.
_SHOWN = {0: "MinIsWhite", 3: "Palette"}

_LONGEST = 10_000


def acquisition(tiff: Any, number: int) -> dict[str, Any]:
    """Return what a file says of a picture, in the words of its maker.

    Parameters
    ----------
    tiff
        The open `tifffile.TiffFile`.
    number
        Which of its series.

    Returns
    -------
    Values that JSON knows. Of Aperio what stands between bars in the description, of OME-XML the
    attributes of the image's elements, of Akoya's XML its short elements, of ImageJ and MIBI what
    they wrote; of all files the tags that name people, times and instruments. `Orientation` is
    there where it is not the usual one, and so is `PhotometricInterpretation` where the smallest
    number is white or numbers stand for colours of a palette: pixels are given as they are stored.
    """
    page = tiff.series[number].keyframe
    found: dict[str, Any] = {}
    for name in _TAGS:
        tag = page.tags.get(name)
        if tag is not None and isinstance(tag.value, str) and tag.value.strip():
            found[name] = tag.value.strip()[:_LONGEST]
    turned = page.tags.get("Orientation")
    if turned is not None and turned.value != _AS_STORED:
        found["Orientation"] = _plain(turned.value)
    shown = _SHOWN.get(int(page.photometric))
    if shown is not None:
        found["PhotometricInterpretation"] = shown
    text = str(page.description)
    if tiff.is_svs:
        found |= _bars(text)
    elif tiff.is_ome:
        image = ome_image(tiff, number)
        found |= _attributes(image) if image is not None else {}
    elif tiff.is_imagej:
        known = cast("dict[str, Any]", tiff.imagej_metadata or {})
        found |= {
            key: _plain(value) for key, value in known.items() if key not in {"Overlays", "ROI"}
        }
    elif tiff.is_qpi:
        found |= _elements(text)
    elif text.startswith("{"):
        found |= _json(text)
    return found


def _bars(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split("|")[1:])
    return {key.strip(): value.strip() for key, sign, value in pairs if sign}


def _attributes(image: Any) -> dict[str, Any]:
    """Return attributes of an image's elements by their names; of those that repeat, a list."""
    found: dict[str, Any] = {"Image": dict(image.attrib)}
    for element in image.iter():
        name = element.tag.rpartition("}")[2]
        if name in {"Image", "TiffData", "UUID", "Plane", "BinData"} or not element.attrib:
            continue
        found.setdefault(name, []).append(dict(element.attrib))
    for name in found.keys() - {"Image", "Channel"}:
        if len(found[name]) == 1:
            found[name] = found[name][0]
    return found


def _elements(text: str) -> dict[str, str]:
    try:
        root = ElementTree.fromstring(re.sub(r"^<\?xml[^>]*\?>", "", text))
    except (ElementTree.ParseError, DefusedXmlException, ValueError):
        return {}
    short = ((e.tag, (e.text or "").strip()) for e in root if len(e) == 0)
    return {tag: value for tag, value in short if value and len(value) <= _LONGEST}


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    """Return a value that JSON knows."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in cast("list[Any]", value)]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
