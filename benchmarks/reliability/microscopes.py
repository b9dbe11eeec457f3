"""Small files of microscopes, how they are changed at random, and how they are read."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from microtome.errors import MicrotomeError
from microtome.sources import image_names, open_image

__all__ = [
    "CZI",
    "MCD",
    "SCN",
    "TIFF",
    "microscope_changed",
    "packed_as_jpeg_xr",
    "read_microscope",
    "write_microscope_files",
]

MCD, CZI, TIFF, SCN = "sources/a.mcd", "sources/a.czi", "sources/a.tif", "sources/a.scn"
_CHANNELS = ("Ir191", "Ir193", "Pr141")
_HEIGHT, _WIDTH = 30, 40
_TEXTS = (
    "", "0", "-1", "1", "2", "1e9", "nan", "inf", "2147483647", "2147483648", "4294967295",
    "9223372036854775807", "18446744073709551616", "-9223372036854775808", "9" * 5000, "X", "Y", "0x10",
    "../../x", "é" * 50, "Float", "Double", "1.5", " 7 ", "1_000", "٣",
)  # fmt: skip
_GRAY16, _JPEG_XR = 1, 4
_ELEMENT = re.compile(rb"<(\w+)>([^<>]*)</\1>")


def write_microscope_files(root: Path) -> None:
    """Write an MCD file, a CZI file, a TIFF whose pages are packed in many ways, and a slide of Leica."""
    (root / "sources").mkdir(parents=True, exist_ok=True)
    _write_mcd(root / MCD)
    _write_czi(root / CZI)
    _write_tiff(root / TIFF)
    _write_scn(root / SCN)


def _write_mcd(path: Path) -> None:
    import imagecodecs

    rng = np.random.default_rng(0)
    data = b""
    parts: list[str] = []
    for number in range(2):
        y, x = np.mgrid[:_HEIGHT, :_WIDTH].reshape(2, -1)
        if number:  # measured from the last row to the first
            y, x = y[::-1], x[::-1]
        columns = [x, y, np.arange(len(x)), *rng.poisson(3, (len(_CHANNELS), len(x)))]
        start = len(data)
        data += np.stack(columns, axis=1).astype("<f4").tobytes()
        facts = {
            "ID": number,
            "Description": f"ROI_{number}",
            "DataStartOffset": start,
            "DataEndOffset": len(data),
            "MaxX": _WIDTH,
            "MaxY": _HEIGHT,
            "ValueBytes": 4,
            "AblationDistanceBetweenShotsX": 1,
            "AblationDistanceBetweenShotsY": 1,
            "SegmentDataFormat": "Float",
        }
        parts.append(_element("Acquisition", facts))
        for order, metal in enumerate(["X", "Y", "Z", *_CHANNELS]):
            facts = {"ChannelName": metal, "ChannelLabel": f"a{order}", "OrderNumber": order}
            parts.append(_element("AcquisitionChannel", {**facts, "AcquisitionID": number}))
    start = len(data)
    picture = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    data += bytes(161) + imagecodecs.png_encode(picture)
    facts = {"Description": "p", "ImageStartOffset": start, "ImageEndOffset": len(data)}
    parts.append(_element("Panorama", facts))
    schema = f'<MCDSchema xmlns="http://www.fluidigm.com/x.xsd">{"".join(parts)}</MCDSchema>'
    path.write_bytes(data + schema.encode("utf-16-le"))


def _element(name: str, facts: Mapping[str, object]) -> str:
    return f"<{name}>{''.join(f'<{k}>{v}</{k}>' for k, v in facts.items())}</{name}>"


def _write_czi(path: Path) -> None:
    from pylibCZIrw import czi

    rng = np.random.default_rng(1)
    with czi.create_czi(str(path), exist_ok=True) as file:
        for scene in range(2):
            for channel in range(2):
                # Packed in different ways: each is another decoder that meets what it cannot read.
                for y, x, packed in (
                    (0, 0, "uncompressed:"),
                    (0, 50, "zstd0:"),
                    (40, 0, "zstd1:"),
                    (40, 50, "uncompressed:"),
                ):
                    file.write(
                        rng.integers(0, 900 if not y else 90, (40, 50, 1), dtype=np.uint16),
                        plane={"C": channel, "T": 0, "Z": 0},
                        location=(x + 1000 * scene, y),
                        scene=scene,
                        compression_options=packed,
                    )
        file.write_metadata("a", scale_x=5e-7, scale_y=5e-7)
    path.write_bytes(packed_as_jpeg_xr(path.read_bytes()))


def packed_as_jpeg_xr(data: bytes) -> bytes:
    """Pack those tiles of a CZI file as JPEG XR that are not packed and then take less, without loss.

    Microscopes write such tiles; Zeiss's library does not.
    """
    import imagecodecs

    found, at = bytearray(data), -1
    while (at := data.find(b"ZISRAWSUBBLOCK\0", at + 1)) >= 0:
        entry = at + 48
        about, _, size = struct.unpack_from("<iiq", data, at + 32)
        kind, place, _, packing = struct.unpack_from("<iqii", data, entry + 2)
        (dimensions,) = struct.unpack_from("<i", data, entry + 28)
        sizes = {
            data[start : start + 1]: struct.unpack_from("<i", data, start + 8)[0]
            for start in range(entry + 32, entry + 32 + 20 * dimensions, 20)
        }
        if packing or kind != _GRAY16 or place != at:
            continue
        start = entry + max(240, 32 + 20 * dimensions) + about
        pixels = np.frombuffer(data, "<u2", size // 2, start).reshape(sizes[b"Y"], sizes[b"X"])
        packed = imagecodecs.jpegxr_encode(pixels, level=1.0)
        if len(packed) > size:
            continue
        found[start : start + size] = packed.ljust(size, b"\0")
        struct.pack_into("<q", found, at + 40, len(packed))
        # It is told by the tile, and by the directory.
        entries = re.finditer(re.escape(struct.pack("<iqii", kind, place, 0, 0)), data)
        for each in entries:
            struct.pack_into("<i", found, each.start() + 16, _JPEG_XR)
    return bytes(found)


def _write_tiff(path: Path) -> None:
    import tifffile

    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 255, (100, 120, 3), dtype=np.uint8) // 8 * 8
    with tifffile.TiffWriter(path) as tiff:
        for packing in ("jpeg", "jpeg2000", "deflate", "lzw", "zstd", "packbits", None):
            tiff.write(
                pixels,
                photometric="rgb",
                tile=(64, 64),
                compression=packing,
                metadata=None,
                resolution=(20000, 20000),
                resolutionunit="CENTIMETER",
            )


def _write_scn(path: Path) -> None:
    """Write what OpenSlide takes for a slide of Leica: two levels of JPEG tiles."""
    import tifffile

    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 255, (128, 192, 3), dtype=np.uint8) // 8 * 8
    size = 'sizeX="96000" sizeY="64000"'  # in nanometres, of a slide that is a pixel larger
    text = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" '
        f'uuid="urn:uuid:1"><collection name="c" uuid="urn:uuid:2" sizeX="96500" sizeY="64500"><barcode>MTIz</barcode>'
        '<image name="i" uuid="urn:uuid:3"><creationDate>2010-10-11</creationDate>'
        '<device model="Leica SCN400" version="1"/><pixels sizeX="192" sizeY="128">'
        '<dimension sizeX="192" sizeY="128" r="0" ifd="0"/>'
        '<dimension sizeX="96" sizeY="64" r="1" ifd="1"/></pixels>'
        f'<view {size} offsetX="0" offsetY="0" spacingZ="0"/><scanSettings><objectiveSettings>'
        "<objective>20</objective></objectiveSettings><illuminationSettings>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>"
        "</image></collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number in range(2):
            tiff.write(
                pixels[:: number + 1, :: number + 1],
                photometric="rgb",
                tile=(64, 64),
                compression="jpeg",
                metadata=None,
                software=False,
                description=text if not number else None,
            )


def microscope_changed(rng: random.Random, data: bytes) -> bytes:
    """Change the text of elements where there are any, and bytes anywhere."""
    found = bytearray(data)
    if rng.random() < 0.5:
        found = _text_changed(rng, found)
    if rng.random() < 0.15:
        return bytes(found[: rng.randrange(len(found) + 1)])
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(max(len(found), 1))
        how = rng.random()
        if how < 0.5:
            found[at : at + 1] = bytes([rng.randrange(256)])
        elif how < 0.8:
            size = rng.choice([2, 4, 8])
            number = rng.choice([0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, 1 << 40])
            # On the boundaries that numbers have in most formats.
            at -= at % 4
            found[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
        elif how < 0.9:
            del found[at : at + rng.randrange(1, 40)]
        else:
            found[at:at] = found[at : at + rng.randrange(1, 40)]
    return bytes(found)


def _text_changed(rng: random.Random, data: bytearray) -> bytearray:
    wide = "<MCDSchema".encode("utf-16-le") in data
    begin = data.find("<MCDSchema".encode("utf-16-le")) if wide else data.find(b"<ImageDocument")
    if begin < 0:
        return data
    text = bytes(data[begin:])
    if wide:
        text = text.decode("utf-16-le", "replace").encode()
    elements = list(_ELEMENT.finditer(text))
    for _ in range(rng.randrange(1, 4)):
        if not elements:
            break
        element = elements.pop(rng.randrange(len(elements)))
        how, (low, high) = rng.random(), element.span(2)
        if how < 0.2:
            low, high = element.span()
            new = b"" if how < 0.1 else text[low:high] * 2
        else:
            new = rng.choice(_TEXTS).encode()
        text = text[:low] + new + text[high:]
        elements = list(_ELEMENT.finditer(text))
    if wide:
        text = text.decode("utf-8", "replace").encode("utf-16-le")
    elif len(text) != len(data) - begin:
        # What lies behind is found by where it lies.
        text = text[: len(data) - begin].ljust(len(data) - begin)
    return data[:begin] + text


def read_microscope(path: Path) -> None:
    """Open every image of a file and read of each level what a viewer would first."""
    refused: MicrotomeError | None = None
    for name in range(len(image_names(path)[:8])):
        try:
            image = open_image(path, image=name)
            _ = image.mpp, image.channel_names, image.metadata, repr(image)
            for level in range(image.level_count):
                height, width = image.level_shape(level)[-2:]
                image.read(level, (0, min(height, 40)), (0, min(width, 40)))
                image.read(level, (height - min(height, 9), height), (width - min(width, 9), width))
        except MicrotomeError as error:
            refused = error
    if refused is not None:
        raise refused
