"""Scanners' own formats, whose files nobody lends: written by tifffile as OpenSlide knows them, and compared."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.sources import image_files, image_names, open_image

openslide = pytest.importorskip("openslide", reason="the extra wsi is not installed")

HEIGHT, WIDTH = 512, 768
RNG = np.random.default_rng(61)
PIXELS = RNG.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
MACRO = RNG.integers(0, 255, (96, 240, 3), dtype=np.uint8)
TILED: dict[str, Any] = {
    "photometric": "rgb",
    "tile": (256, 256),
    "compression": "jpeg",
    "metadata": None,
    "software": False,
    "resolution": (20000, 20000),
    "resolutionunit": "CENTIMETER",
}


def decoded(path: Path) -> list[np.ndarray]:
    """What tifffile decodes of each page, (C, Y, X); without its name it takes none for NDPI."""
    with tifffile.TiffFile(io.BytesIO(path.read_bytes())) as tiff:
        return [np.moveaxis(page.asarray(), -1, 0) for page in tiff.pages]


def leica(path: Path) -> None:
    """A macro, and a region of two levels that does not begin where the slide does."""
    step = 500  # nanometres
    slide = f'sizeX="{2 * WIDTH * step}" sizeY="{2 * HEIGHT * step}"'

    def image(name: str, places: list[tuple[int, int, int]], view: str, power: float) -> str:
        levels = "".join(
            f'<dimension sizeX="{w}" sizeY="{h}" r="{r}" ifd="{ifd}"/>'
            for r, (w, h, ifd) in enumerate(places)
        )
        width, height, _ = places[0]
        return (
            f'<image name="{name}" uuid="urn:uuid:{name}"><creationDate>2010-10-11</creationDate>'
            f'<device model="Leica SCN400" version="1"/><pixels sizeX="{width}" sizeY="{height}">'
            f'{levels}</pixels><view {view} spacingZ="0"/><scanSettings><objectiveSettings>'
            f"<objective>{power}</objective></objectiveSettings><illuminationSettings>"
            "<illuminationSource>brightfield</illuminationSource></illuminationSettings>"
            "</scanSettings></image>"
        )

    own = (
        f'sizeX="{WIDTH * step}" sizeY="{HEIGHT * step}" '
        f'offsetX="{WIDTH // 2 * step}" offsetY="{HEIGHT // 2 * step}"'
    )
    text = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" '
        f'uuid="urn:uuid:1"><collection name="c" uuid="urn:uuid:2" {slide}><barcode>MTIz</barcode>'
        + image("macro", [(240, 96, 0)], f'{slide} offsetX="0" offsetY="0"', 0.6)
        + image("i0", [(WIDTH, HEIGHT, 1), (WIDTH // 2, HEIGHT // 2, 2)], own, 20)
        + "</collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(MACRO, description=text, **TILED)
        tiff.write(PIXELS, **TILED)
        tiff.write(PIXELS[::2, ::2], **TILED)


def test_a_slide_of_leica(tmp_path: Path, pixels_equal: Any) -> None:
    path = tmp_path / "a.scn"
    leica(path)
    macro, *levels = decoded(path)
    assert image_names(path) == ("slide", "macro")
    image = open_image(path)
    assert image.require_mpp().y == pytest.approx(0.5)
    assert image.metadata["acquisition"]["openslide.vendor"] == "leica"
    for level, expected in enumerate(levels):
        _, height, width = expected.shape
        # What was not scanned has no colour, and is white.
        whole = np.full((3, 2 * height, 2 * width), 255, np.uint8)
        y, x = height // 2, width // 2
        whole[:, y : y + height, x : x + width] = expected
        pixels_equal(image, whole, level=level)
    pixels_equal(open_image(path, image="macro"), macro, windows=2)
    assert image_files(image) == (path,)


def test_a_slide_of_hamamatsu(tmp_path: Path, pixels_equal: Any) -> None:
    path = tmp_path / "a.ndpi"
    with tifffile.TiffWriter(path, byteorder="<") as tiff:
        for pixels, lens in ((PIXELS, 20.0), (PIXELS[::2, ::2], 10.0), (MACRO, -1.0)):
            about = [(271, 2, 0, "Hamamatsu", True), (65420, "I", 1, 1, True)]
            about += [(65421, "f", 1, lens, True)]
            about += [(tag, "i", 1, 0, True) for tag in (65422, 65423, 65424)]
            height = pixels.shape[0]
            # A level is one JPEG.
            options: dict[str, Any] = {
                **TILED,
                "tile": None,
                "rowsperstrip": height,
                "extratags": about,
            }
            tiff.write(pixels, **options)
    *levels, macro = decoded(path)
    image = open_image(path)
    assert image.require_mpp().y == pytest.approx(0.5)
    assert image.metadata["acquisition"]["openslide.vendor"] == "hamamatsu"
    for level, expected in enumerate(levels):
        pixels_equal(image, expected, level=level)
    # OpenSlide makes coarser ones of the JPEG itself.
    assert image.level_count > 2
    pixels_equal(open_image(path, image="macro"), macro, windows=2)


def philips(path: Path) -> None:
    def attribute(name: str, value: object, kind: str) -> str:
        return (
            f'<Attribute Name="{name}" Group="0x1" Element="0x1" PMSVR="{kind}">{value}</Attribute>'
        )

    def spacing(mpp: float) -> str:
        text = f"&quot;{mpp / 1000}&quot; &quot;{mpp / 1000}&quot;"
        return attribute("DICOM_PIXEL_SPACING", text, "IDoubleArray")

    levels = "".join(
        '<DataObject ObjectType="PixelDataRepresentation">'
        + spacing(0.5 * 2**level)
        + attribute("PIIM_PIXEL_DATA_REPRESENTATION_NUMBER", level, "IUInt16")
        + "</DataObject>"
        for level in range(2)
    )
    sequence = attribute(
        "PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", f"<Array>{levels}</Array>", "IDataObjectArray"
    )
    scanned = (
        '<DataObject ObjectType="DPScannedImage">'
        + attribute("PIM_DP_IMAGE_TYPE", "WSI", "IString")
        + spacing(0.5)
        + sequence
        + "</DataObject>"
    )
    text = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        + attribute("DICOM_MANUFACTURER", "PHILIPS", "IString")
        + attribute("PIM_DP_SCANNED_IMAGES", f"<Array>{scanned}</Array>", "IDataObjectArray")
        + "</DataObject>"
    )
    options: dict[str, Any] = {**TILED, "software": "Philips DP v1.0"}
    del options["resolution"], options["resolutionunit"]
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, description=text, **options)
        tiff.write(PIXELS[::2, ::2], subfiletype=1, **options)


def trestle(path: Path) -> None:
    # Its resolution is micrometres per pixel.
    options: dict[str, Any] = {**TILED, "software": "MedScan", "resolution": (0.5, 0.5)}
    about = "Background Color=FFFFFF;White Balance=1;Objective Power=20;OverlapsXY= 0 0 0 0;"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, description=about, **options)
        tiff.write(PIXELS[::2, ::2], **options)


@pytest.mark.parametrize("write", [philips, trestle])
def test_tiffs_of_scanners_by_name_of_the_format(
    tmp_path: Path, pixels_equal: Any, write: Any
) -> None:
    path = tmp_path / "a.tif"
    write(path)
    theirs = open_image(path, format="OpenSlide")
    assert theirs.metadata["acquisition"]["openslide.vendor"] == write.__name__
    levels = decoded(path)
    assert theirs.level_count == len(levels) == 2
    for level, expected in enumerate(levels):
        pixels_equal(theirs, expected, level=level)
    # They are TIFFs, and read as such where nobody says otherwise.
    pixels_equal(open_image(path), levels[0])
    assert theirs.require_mpp().y == pytest.approx(0.5)
