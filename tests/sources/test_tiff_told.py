"""What is said of TIFFs that cannot be read, or that show their numbers in another way."""

from __future__ import annotations

import logging
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.errors import FormatError
from microtome.sources import open_image

PIXELS = np.random.default_rng(10).integers(0, 256, (24, 36), dtype=np.uint8)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"rowsperstrip": 5}, {"tile": (16, 16), "compression": "zlib"}],
)
@pytest.mark.parametrize("shape", [(24, 36), (23, 37), (3, 20, 33)])
def test_a_mask_of_bits_is_one_of_zeros_and_ones(
    tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    bits = np.random.default_rng(11).random(shape) < 0.3
    tifffile.imwrite(tmp_path / "a.tif", bits, photometric="minisblack", **options)
    image = open_image(tmp_path / "a.tif", kind="labels")
    level = image.level(0)
    assert (level.dtype, image.kind) == (np.uint8, "labels")
    np.testing.assert_array_equal(level[...], bits.astype(np.uint8))
    np.testing.assert_array_equal(level[..., 3:9, 5:33], bits[..., 3:9, 5:33].astype(np.uint8))


def test_the_file_that_is_missing_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    other, path = tmp_path / "b_0.ome.tif", tmp_path / "b_1.ome.tif"
    for number in range(2):
        planes = "".join(
            f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1">'
            f'<UUID FileName="b_{c}.ome.tif">urn:uuid:0000000{c}-1111-4111-8111-111111111111</UUID>'
            "</TiffData>"
            for c in range(2)
        )
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:0000000{number}-1111-4111-8111-111111111111"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="36" SizeY="24" '
            f'SizeC="2" SizeZ="1" SizeT="1"><Channel ID="Channel:0:0"/><Channel ID="Channel:0:1"/>'
            f"{planes}</Pixels></Image></OME>"
        )
        tifffile.imwrite((other, path)[number], PIXELS + number, description=xml, metadata=None)
    np.testing.assert_array_equal(open_image(path).level(0)[...], [PIXELS, PIXELS + 1])
    other.unlink()
    caplog.clear()
    with pytest.raises(FormatError, match=r"1 of 2 planes are missing; they are in b_0\.ome\.tif"):
        open_image(path)
    assert [r for r in caplog.records if r.levelno > logging.DEBUG] == []
    assert capfd.readouterr().err == ""
    # A file that was renamed is found by its id, and is not missing.
    path.rename(tmp_path / "c.ome.tif")
    with pytest.raises(FormatError, match=r"they are in b_0\.ome\.tif, to be put beside it"):
        open_image(tmp_path / "c.ome.tif")


def test_whoever_else_opens_tiffs_hears_of_them_as_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS)
    open_image(tmp_path / "a.tif")
    with caplog.at_level(logging.WARNING):
        logging.getLogger("tifffile").warning("of another file")
    assert "of another file" in caplog.text


def test_planes_that_nobody_can_count_are_an_error_with_words(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PIXELS, metadata={"axes": "YX"})
    data: Any = tifffile.tiffcomment(path)
    data = re.sub(r'SizeC="1"', 'SizeC="1000000"', re.sub(r'SizeZ="1"', 'SizeZ="100000"', data))
    tifffile.tiffcomment(path, data.encode())
    with pytest.raises(FormatError) as caught:
        open_image(path)
    assert re.search(r"[a-zA-Z]{3,}.*$", str(caught.value).rpartition(": ")[2])


def test_what_tifffile_stumbles_over_is_not_all_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, tile=(16, 16))
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages.first.tags["TileWidth"].valueoffset
    struct.pack_into("<H", data, at, 0)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="is a damaged TIFF: its tags cannot be"):
        open_image(path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"photometric": "minisblack"}, None),
        ({"photometric": "miniswhite"}, "MinIsWhite"),
        (
            {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
            "Palette",
        ),
    ],
)
def test_numbers_are_given_as_stored_and_how_they_are_shown_is_told(
    tmp_path: Path, options: dict[str, Any], told: str | None
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **options)
    image = open_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.level(0)[...], PIXELS)
    assert image.metadata["acquisition"].get("PhotometricInterpretation") == told
