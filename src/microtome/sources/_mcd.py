"""Imaging mass cytometry as Standard BioTools' instruments write it: MCD, one file a slide.

The file holds the counts of each acquisition as 32-bit floats, pixel by pixel in the order of
measurement, each with its x, y and number, and at its end XML that says where they lie. A read takes
the rows that it needs.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import FormatError
from microtome.image import MultiscaleImage
from microtome.storage import Box

from ._array import image_from_array, image_from_levels
from ._choice import chosen, distinct
from ._fetched import FetchedArray
from ._raster import decoded
from ._shared_file import SharedFile

__all__ = ["mcd_images", "open_mcd"]

_BEGIN, _END = ("<MCDSchema".encode("utf-16-le"), "</MCDSchema>".encode("utf-16-le"))

# A slide with hundreds of regions describes itself in a few MB.
_LARGEST_SCHEMA = 1 << 28

# Columns before the channels of every pixel: x, y, and its number.
_PLACES = 3

# What the instrument writes before a picture of the slide.
_PICTURE_HEAD = 161

_POSITIONS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class _Region:
    """An acquisition, or a picture of the slide, in the words of the schema."""

    name: str
    facts: Mapping[str, str]
    channels: tuple[Mapping[str, str], ...]
    """Facts of the channels in the order of the data; of a picture there are none."""


def mcd_images(path: Path) -> tuple[str, ...]:
    """Return the names of the acquisitions of an MCD file, then those of the pictures of the slide."""
    return tuple(region.name for region in _regions(path))


def open_mcd(path: Path, *, mpp: Mpp | None, image: str | int | None) -> MultiscaleImage:
    """Open an acquisition of an MCD file.

    Channels are called by their labels, or by their metals where they have none; both are in the
    metadata, with what the file says of the acquisition.

    Parameters
    ----------
    path
        The file.
    mpp
        Pixel size instead of the distance between shots.
    image
        Name or number of the acquisition; needed where there are several.

    Raises
    ------
    FormatError
        If the file is damaged or cut short, or the acquisition was broken off.
    """
    regions = _regions(path)
    measured = [region for region in regions if region.channels]
    wanted = regions if image is not None else measured
    region = wanted[chosen([region.name for region in wanted], image, where=path)]
    if not region.channels:
        return _picture(path, region, mpp)
    pixels, names = _Pixels(path, region), _channel_names(region)
    return image_from_levels(
        [
            FetchedArray(
                pixels.shape, np.float32, (pixels.shape[0], 1, pixels.shape[2]), pixels.fetch
            )
        ],
        "cyx",
        mpp=mpp or _pixel_size(region.facts),
        channel_names=names,
        uri=str(path),
        name=f"{path.name.split('.')[0]} {region.name}",
        metadata={
            "acquisition": dict(region.facts),
            "channels": [
                # "Ag(107)": the bracket says nothing.
                {"name": name, "metal": re.sub(r"[()]", "", c.get("ChannelName", ""))}
                for name, c in zip(names, region.channels, strict=True)
            ],
            "associated_images": [r.name for r in regions if not r.channels],
        },
    )


def _pixel_size(facts: Mapping[str, str]) -> Mpp | None:
    distances = [facts.get(f"AblationDistanceBetweenShots{axis}") for axis in "YX"]
    try:
        y, x = (float(distance or 0) for distance in distances)
    except ValueError:
        return None
    return Mpp(y, x, "metadata") if min(y, x) > 0 else None


def _channel_names(region: _Region) -> tuple[str, ...]:
    labels = [c.get("ChannelLabel") or c.get("ChannelName") or "" for c in region.channels]
    return distinct([label.strip() for label in labels])


def _picture(path: Path, region: _Region, mpp: Mpp | None) -> MultiscaleImage:
    start, stop = (_number(path, region.facts, f"Image{end}Offset") for end in ("Start", "End"))
    file = SharedFile(path)
    data = file.read(start + _PICTURE_HEAD, max(stop - start - _PICTURE_HEAD, 0))
    pixels, axes = decoded(data, f"{path}: {region.name}")
    return image_from_array(
        pixels, axes=axes, mpp=mpp, uri=str(path), name=f"{path.name.split('.')[0]} {region.name}"
    )


def _number(path: Path, facts: Mapping[str, str], name: str) -> int:
    try:
        found = int(facts.get(name, ""))
    except ValueError as error:
        msg = f"{path}: its schema has no number {name}: {facts.get(name)!r}"
        raise FormatError(msg) from error
    if found < 0:
        msg = f"{path}: {name} of {found} cannot be"
        raise FormatError(msg)
    return found


# ---------------------------------------------------------------- the schema


def _regions(path: Path) -> list[_Region]:
    root = _schema(path)
    channels: dict[str | None, list[dict[str, str]]] = {}
    for element in root.iterfind("{*}AcquisitionChannel"):
        facts = _facts(element)
        channels.setdefault(facts.get("AcquisitionID"), []).append(facts)
    acquisitions = [_facts(element) for element in root.iterfind("{*}Acquisition")]
    pictures = [_facts(element) for element in root.iterfind("{*}Panorama")]
    # A panorama that was only planned has a place and no picture.
    pictures = [p for p in pictures if p.get("ImageEndOffset", "0") > "0"]
    names = distinct(
        [
            *(facts.get("Description", "") for facts in acquisitions),
            *(f"panorama {p.get('Description', '')}".strip() for p in pictures),
        ]
    )
    found: list[_Region] = []
    for name, facts in zip(names, [*acquisitions, *pictures], strict=True):
        own = channels.get(facts.get("ID"), []) if "DataStartOffset" in facts else []
        found.append(_Region(name, facts, _measured(path, own)))
    return found


def _measured(path: Path, channels: list[dict[str, str]]) -> tuple[dict[str, str], ...]:
    """Return the channels in the order of the data, without the three that are places."""
    ordered = sorted(channels, key=lambda facts: _number(path, facts, "OrderNumber"))
    places = [facts.get("ChannelName") for facts in ordered[:_PLACES]]
    if ordered and places != ["X", "Y", "Z"]:
        msg = f"{path}: the data should begin with X, Y and Z, they begin with {places}"
        raise FormatError(msg)
    return tuple(ordered[_PLACES:])


def _facts(element: Any) -> dict[str, str]:
    return {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in element}


def _schema(path: Path) -> Any:
    """Return the root of the XML at the end of the file."""
    file, size = SharedFile(path), path.stat().st_size
    taken, text = 0, b""
    while taken < min(size, _LARGEST_SCHEMA):
        taken = min(max(4 * taken, 1 << 18), size)
        text = file.read(size - taken, taken)
        begin = text.rfind(_BEGIN)
        if begin >= 0:
            break
    else:
        msg = f"{path} is damaged or cut short: there is no MCD schema at its end"
        raise FormatError(msg)
    end = text.find(_END, begin)
    if end < 0:
        msg = f"{path} is cut short within its MCD schema"
        raise FormatError(msg)
    try:
        return ElementTree.fromstring(text[begin : end + len(_END)].decode("utf-16-le"))
    except (ElementTree.ParseError, DefusedXmlException, UnicodeError, ValueError) as error:
        msg = f"{path}: its MCD schema cannot be read: {error}"
        raise FormatError(msg) from error


# ---------------------------------------------------------------- the data


class _Pixels:
    """The counts of an acquisition."""

    def __init__(self, path: Path, region: _Region) -> None:
        self._file, self._where = SharedFile(path), f"{path}: {region.name}"
        facts = region.facts
        if (facts.get("ValueBytes", "4"), facts.get("SegmentDataFormat", "Float")) != (
            "4",
            "Float",
        ):
            msg = f"{self._where} holds values of {facts.get('ValueBytes')} bytes, only floats of 4 are read"
            raise FormatError(msg)
        self._start = _number(path, facts, "DataStartOffset")
        size = _number(path, facts, "DataEndOffset") - self._start
        self._columns = _PLACES + len(region.channels)
        # Of some files the last byte is not counted in.
        self._count = (size + 1) // (4 * self._columns)
        if self._count < 1:
            msg = f"{self._where} is empty: nothing was measured"
            raise FormatError(msg)
        if self._start + self._count * 4 * self._columns > path.stat().st_size:
            msg = f"{self._where} is cut short: its data end after the file"
            raise FormatError(msg)
        self._guard = threading.Lock()
        self._order: NDArray[np.int64] | None = None
        height, width = (_number(path, facts, f"Max{axis}") for axis in "YX")
        if height * width != self._count:
            # A shape that was planned and not kept to; the pixels themselves say where they are.
            x, y = self._positions()
            width, height = int(x.max()) + 1, int(y.max()) + 1
        self.shape = (len(region.channels), height, width)
        if height * width != self._count:
            msg = (
                f"{self._where} was broken off: {self._count} of {height} x {width} pixels were "
                "measured"
            )
            raise FormatError(msg)

    def fetch(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        channels, (y0, y1), (x0, x1) = box
        width = self.shape[2]
        if self._order is None:
            rows = self._records(y0 * width, y1 * width)
            placed = rows[:, :2] == np.stack(
                [
                    np.arange(y0 * width, y1 * width) % width,
                    np.arange(y0 * width, y1 * width) // width,
                ],
                axis=1,
            )
            if placed.all():
                found = rows.reshape(y1 - y0, width, self._columns)[:, x0:x1]
                return found[..., _PLACES + channels[0] : _PLACES + channels[1]].transpose(2, 0, 1)
        # Measured in another order than row by row.
        numbers = self._places().reshape(self.shape[1:])[y0:y1, x0:x1]
        first, last = int(numbers.min()), int(numbers.max()) + 1
        found = self._records(first, last)[numbers - first]
        return found[..., _PLACES + channels[0] : _PLACES + channels[1]].transpose(2, 0, 1)

    def _records(self, first: int, last: int) -> NDArray[np.float32]:
        """Return what was measured, (pixels, columns)."""
        size = 4 * self._columns
        data = self._file.read(self._start + first * size, (last - first) * size)
        return np.frombuffer(data, "<f4").reshape(-1, self._columns)

    def _positions(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return x and y of all pixels in the order of measurement."""
        found = np.empty((2, self._count), np.int64)
        for first in range(0, self._count, _POSITIONS_AT_ONCE):
            last = min(first + _POSITIONS_AT_ONCE, self._count)
            places = self._records(first, last)[:, :2].T
            if not ((places >= 0) & (places < 2**24) & (places == np.floor(places))).all():
                msg = f"{self._where} is damaged: some of its pixels are nowhere"
                raise FormatError(msg)
            found[:, first:last] = places
        return found[0], found[1]

    def _places(self) -> NDArray[np.int64]:
        """Return for each pixel of the picture, row by row, when it was measured."""
        with self._guard:
            if self._order is None:
                x, y = self._positions()
                _, height, width = self.shape
                inside = x.max() < width and y.max() < height
                order = np.full(self._count, -1, np.int64)
                if inside:
                    order[y * width + x] = np.arange(self._count)
                if not inside or (order < 0).any():
                    msg = f"{self._where} is damaged: its pixels do not fill {height} x {width}"
                    raise FormatError(msg)
                self._order = order
            return self._order
