"""PNG and JPEG: one level, decoded whole, no resolution that can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import imagecodecs
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import FormatError
from microtome.image import MultiscaleImage

from ._array import image_from_array
from ._restated import restated

__all__ = ["decoded", "open_raster"]

# What a decoder may allocate: a small file can claim a huge picture (a decompression bomb).
_LARGEST = 2**31

_SCAN, _END = 0xDA, b"\xff\xd9"
# Of what cameras note, a TIFF without pictures: where a JPEG has it, a PNG, and the tag in it.
_APP1, _EXIF, _PNG_EXIF = 0xE1, b"Exif\0\0", b"eXIf"
_ORIENTATION, _AS_STORED = 0x0112, 1


def open_raster(path: Path, *, mpp: Mpp | None) -> MultiscaleImage:
    """Open a PNG or JPEG file.

    Its density tag, if any, speaks of print and is ignored: without `mpp` the image has none. That
    a camera was turned (Exif's `Orientation`) is told among its metadata, and not applied.

    Raises
    ------
    FormatError
        If the file is damaged or would be larger than 2 GiB in memory.
    """
    data = path.read_bytes()
    pixels, axes = decoded(data, str(path))
    opened = image_from_array(
        pixels, axes=axes, mpp=mpp, uri=str(path), name=path.name.split(".")[0]
    )
    turned = _orientation(data)
    facts = {} if turned in {None, _AS_STORED} else {"Orientation": turned}
    return restated(opened, metadata={"acquisition": facts, "associated_images": []})


def decoded(data: bytes, where: str) -> tuple[NDArray[Any], str]:
    """Return the pixels of a PNG or JPEG and what their axes are.

    Parameters
    ----------
    data
        The file, or the picture inside another.
    where
        What it is called, for messages.

    Raises
    ------
    FormatError
        If it is damaged or would be larger than 2 GiB in memory.
    """
    try:
        if _claimed_bytes(data) > _LARGEST:
            msg = (
                f"{where} claims to be larger than {_LARGEST >> 30} GiB; convert it to a tiled TIFF"
            )
            raise FormatError(msg)
        png = data.startswith(b"\x89PNG")
        if not png and _is_cut_short(data):
            msg = f"{where} is cut short: it has no end"
            raise FormatError(msg)
        decode = imagecodecs.png_decode if png else imagecodecs.jpeg_decode
        pixels = decode(data)
    except FormatError:
        raise
    except (RuntimeError, ValueError) as error:
        msg = f"{where} is damaged: {error}"
        raise FormatError(msg) from error
    if pixels.size == 0:
        msg = f"{where} is damaged: it has {pixels.shape[0]} rows of {pixels.shape[1]} pixels"
        raise FormatError(msg)
    if pixels.ndim == 2:
        return pixels, "yx"
    # Transparency is no stain.
    pixels = pixels[:, :, :-1] if pixels.shape[2] in {2, 4} else pixels
    return (pixels[:, :, 0], "yx") if pixels.shape[2] == 1 else (pixels, "yxc")


def _claimed_bytes(data: bytes) -> int:
    """Return how much memory the header says the picture needs."""
    if data.startswith(b"\x89PNG"):
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        return width * height * 8
    # A JPEG side has 16 bits, so that a picture has at most 12 GiB; its header says how many.
    for marker, at in _jpeg_markers(data):
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            return height * int.from_bytes(data[at + 7 : at + 9], "big") * 3
    return 0


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG file ends within its picture, which decoders fill up with grey."""
    start = next((at for marker, at in _jpeg_markers(data) if marker == _SCAN), None)
    # Within a scan no other byte than 0 and restart markers follow 0xFF.
    return start is not None and data.find(_END, start) < 0


def _orientation(data: bytes) -> int | None:
    """Return how a picture was turned, 1 to 8 as in TIFF; None where nobody says."""
    exif = b""
    if data.startswith(b"\x89PNG"):
        at = 8
        while at + 8 <= len(data) and not exif:
            length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            exif = data[at + 8 : at + 8 + length] if name == _PNG_EXIF else b""
            at += length + 12
    else:
        parts = (data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
                 for marker, at in _jpeg_markers(data) if marker == _APP1)  # fmt: skip
        exif = next((part[len(_EXIF) :] for part in parts if part.startswith(_EXIF)), b"")
    order: Literal["little", "big"] = "little" if exif.startswith(b"II") else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], order)

    first = number(4, 4)
    for at in range(first + 2, min(first + 2 + 12 * number(first, 2), len(exif)), 12):
        if number(at, 2) == _ORIENTATION:
            found = number(at + 8, 2)
            return found if 1 <= found <= 8 else None
    return None


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers of a JPEG file and where they are, up to the first scan."""
    at, marker = 2, 0
    while marker != _SCAN and at + 9 < len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # any number of these may stand before a marker
            at += 1
            continue
        marker = data[at + 1]
        yield marker, at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
