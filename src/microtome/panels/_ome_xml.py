"""Panels in OME-XML: a file of its own, or the first page of an OME-TIFF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from microtome.errors import FormatError

from ._names import metal_tag
from ._panel import Panel, panel_of_rows

__all__ = ["read_ome_xml"]

# Attributes of a Channel (OME schema 2016-06) that say what is seen, and our columns for them.
_COLUMNS = {
    "ExcitationWavelength": "excitation_wavelength",
    "EmissionWavelength": "emission_wavelength",
    "AcquisitionMode": "acquisition_mode",
}
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_ome_xml(path: Path) -> Panel:
    """Read the channels of an OME-XML file or of an OME-TIFF.

    Raises
    ------
    FormatError
        If there is no OME-XML in it, it is damaged or defines entities, its images differ in their
        channels, or a channel has neither name nor fluorophore.
    """
    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    with path.open("rb") as file:
        is_tiff = file.read(4) in _TIFF_MAGIC
    text: str | bytes = _of_tiff(path) if is_tiff else path.read_bytes()
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, DefusedXmlException, ValueError, LookupError) as error:
        msg = f"{path}: its OME-XML cannot be read: {error}"
        raise FormatError(msg) from error
    images = root.findall("{*}Image/{*}Pixels")
    panels = [_rows(pixels, path) for pixels in images]
    if not panels or not panels[0]:
        msg = f"{path} has no OME-XML image with channels"
        raise FormatError(msg)
    names = [[row["channel_name"] for row in rows] for rows in panels]
    for number, others in enumerate(names[1:], start=1):
        if others and others != names[0]:
            msg = (
                f"{path}: its images differ in their channels: image 0 has {names[0]}, image {number} "
                f"has {others}; a panel holds for all"
            )
            raise FormatError(msg)
    return panel_of_rows(panels[0], path)


def _of_tiff(path: Path) -> str:
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tiff:
            text = tiff.ome_metadata
    except Exception as error:
        # A damaged tag can be of any type and size, and so is what tifffile stumbles over then.
        msg = f"{path} is named like TIFF but cannot be read: {error}"
        raise FormatError(msg) from error
    if text is None:
        msg = (
            f"{path} is a TIFF without OME-XML; if open_image knows its channels' names, make a panel of "
            "them with Panel.from_names(image.channel_names)"
        )
        raise FormatError(msg)
    return str(text)


def _rows(pixels: Any, path: Path) -> list[dict[str, Any]]:
    exposures = _exposures(pixels, path)
    rows: list[dict[str, Any]] = []
    for place, channel in enumerate(pixels.findall("{*}Channel")):
        name, fluor = channel.get("Name"), channel.get("Fluor")
        if not (name or fluor):
            msg = f"{path}: channel {place} ({channel.get('ID')}) has neither Name nor Fluor"
            raise FormatError(msg)
        row: dict[str, Any] = {"channel_name": name or fluor}
        if fluor:
            row["tag"] = metal_tag(fluor) or fluor
        row |= {column: channel.get(key) for key, column in _COLUMNS.items() if channel.get(key)}
        rows.append(row | exposures.get(place, {}))
    return rows


def _exposures(pixels: Any, path: Path) -> dict[int, dict[str, Any]]:
    """Return the exposure of each channel's first plane, and its unit, which is seconds by default."""
    found: dict[int, dict[str, Any]] = {}
    for plane in pixels.findall("{*}Plane"):
        if plane.get("ExposureTime") is None:
            continue
        try:
            channel, exposure = int(plane.get("TheC", "")), float(plane.get("ExposureTime"))
        except ValueError as error:
            msg = f"{path}: a Plane of its OME-XML has wrong numbers, {dict(plane.attrib)}"
            raise FormatError(msg) from error
        unit = plane.get("ExposureTimeUnit", "s")
        found.setdefault(channel, {"exposure": exposure, "exposure_unit": unit})
    return found
