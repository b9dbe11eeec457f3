"""Slides through OpenSlide hold what our own reader reads of the same files."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from microtome.errors import DependencyError, FormatError
from microtome.sources import image_names, open_image
from microtome.sources._openslide import _files, _over

openslide = pytest.importorskip("openslide", reason="the extra wsi is not installed")

RNG = np.random.default_rng(31)


def test_a_real_slide_pixel_for_pixel(shared_data: Path, pixels_equal: Any) -> None:
    path = shared_data / "wsi/cmu-1-small-region.svs"
    ours, theirs = open_image(path), open_image(path, format="OpenSlide")
    pixels_equal(theirs, ours.level(0)[...])
    assert ours.require_mpp() == theirs.require_mpp()
    assert ours.channel_names == theirs.channel_names == ("red", "green", "blue")
    assert theirs.level(0).array.chunks == (3, 240, 240)
    assert theirs.metadata["acquisition"]["aperio.AppMag"] == ours.metadata["acquisition"]["AppMag"]
    assert image_names(path, format="OpenSlide") == ("slide", "label", "macro", "thumbnail")
    for name in ("Label", "Macro", "Thumbnail"):
        found = open_image(path, format="openslide", image=name.lower())
        pixels_equal(found, open_image(path, image=name).level(0)[...], windows=2)


def test_the_files_of_slides_that_have_several(tmp_path: Path) -> None:
    """No file of these can be had: this is how their formats say which others there are."""
    (tmp_path / "a").mkdir()
    for name in ("a/Slidedat.ini", "a/Data0000.dat", "a.mrxs", "b.mrxs", "1.jpg", "2.jpg", "3.jpg"):
        (tmp_path / name).write_bytes(b"")
    lines = [
        "[Virtual Microscope Specimen]",
        "ImageFile=1.jpg",
        r"ImageFile(1,0)=2.jpg",
        "MacroImage=x",
    ]
    (tmp_path / "c.VMS").write_text("\n".join(lines))

    def found(name: str) -> list[str]:
        return [str(file.relative_to(tmp_path)) for file in _files(tmp_path / name)]

    assert found("a.mrxs") == ["a/Data0000.dat", "a/Slidedat.ini", "a.mrxs"]
    assert found("b.mrxs") == ["b.mrxs"]
    assert found("c.VMS") == ["1.jpg", "2.jpg", "c.VMS"]
    assert found("d.ndpi") == []


def pyramid(path: Path, **options: Any) -> np.ndarray:
    pixels = RNG.integers(0, 255, (512, 768, 3), dtype=np.uint8)
    options = {"photometric": "rgb", "tile": (128, 128), "metadata": None} | options
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, resolution=(20000, 20000), resolutionunit="CENTIMETER", **options)
        tiff.write(pixels[::2, ::2], subfiletype=1, **options)
        tiff.write(pixels[::4, ::4], subfiletype=1, **options)
    return pixels


@pytest.mark.parametrize("compression", [None, "lzw", "jpeg"])
def test_every_level_of_a_plain_pyramid(
    tmp_path: Path, pixels_equal: Any, compression: str | None
) -> None:
    path = tmp_path / "a.tif"
    pyramid(path, compression=compression)
    image = open_image(path, format="OpenSlide")
    assert image.level_count == 3
    with tifffile.TiffFile(path) as tiff:
        for level, page in enumerate(tiff.pages):
            pixels_equal(image, np.moveaxis(page.asarray(), -1, 0), level=level)
            assert image.level_mpp(level) is not None


def test_many_threads_read_one_slide(tmp_path: Path) -> None:
    pixels = np.moveaxis(pyramid(tmp_path / "a.tif"), -1, 0)
    image = open_image(tmp_path / "a.tif", format="OpenSlide")
    corners = [(int(y), int(x)) for y, x in RNG.integers(0, (400, 600), (100, 2))]
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda at: image.read(0, (at[0], at[0] + 99), (at[1], at[1] + 99)), corners)
        )
    for (y, x), part in zip(corners, found, strict=True):
        np.testing.assert_array_equal(part, pixels[:, y : y + 99, x : x + 99])


def test_what_was_not_scanned_has_the_background_colour() -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    rgba[0, 1] = (10, 20, 30, 0)
    rgba[1, 0] = (100, 100, 100, 128)
    white = _over(rgba, None)
    np.testing.assert_array_equal(white[0], [[10, 20, 30], [255, 255, 255]])
    np.testing.assert_array_equal(white[1, 0], [177, 177, 177])
    np.testing.assert_array_equal(_over(rgba, "0a0b0c")[1, 1], [10, 11, 12])
    np.testing.assert_array_equal(_over(rgba, "no colour")[1, 1], [255, 255, 255])


@pytest.mark.parametrize("suffix", [".mrxs", ".ndpi", ".scn", ".bif", ".vms", ".svslide"])
@pytest.mark.parametrize("content", [b"", b"II*\0", b"\xff\xd8\xff\xe0", b"SQLite format 3\0" * 9])
def test_a_slide_that_is_none(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"a{suffix} is damaged or of a kind that OpenSlide"):
        open_image(path)


def test_a_damaged_tile_is_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pyramid(path, compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        at, size = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    image = open_image(path, format="OpenSlide")
    with pytest.raises(FormatError, match=r"a\.tif"):
        image.read(0, (0, 10), (0, 10))


def test_without_openslide_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DependencyError, match=r"install microtome\[wsi\]"):
        open_image(tmp_path / "a.mrxs")


def aperio_j2k(path: Path, tiles: Any, compression: str) -> Path:
    text = "Aperio Image Library v11\r\n384x256 (128x128) J2K|AppMag = 20|MPP = 0.5"
    tifffile.imwrite(
        path, tiles, shape=(256, 384, 3), dtype=np.uint8, photometric="rgb", tile=(128, 128),
        compression=compression, metadata=None, description=text,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("compression", ["APERIO_JP2000_RGB", "APERIO_JP2000_YCBC"])
def test_aperio_in_jpeg_2000(tmp_path: Path, pixels_equal: Any, compression: str) -> None:
    # In the older of the two, 33003, the codestream holds luma and colour differences unsaid.
    turned = compression.endswith("RGB")
    tiles = [
        imagecodecs.jpeg2k_encode(
            RNG.integers(0, 255, (128, 128, 3), dtype=np.uint8),
            codecformat="j2k", mct=turned, reversible=True, level=0,
        )
        for _ in range(6)
    ]  # fmt: skip
    path = aperio_j2k(tmp_path / "a.svs", iter(tiles), compression)
    theirs = open_image(path, format="OpenSlide")
    assert theirs.metadata["acquisition"]["openslide.vendor"] == "aperio"
    pixels_equal(open_image(path), theirs.level(0)[...])


def test_colours_survive_the_way_through_luma(tmp_path: Path) -> None:
    # By the definition of JFIF, to its rounding.
    rgb = RNG.integers(0, 255, (256, 384, 3)).astype(float)
    rows = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    ycc = (rgb @ np.transpose(rows) + [0, 128, 128]).round().clip(0, 255).astype(np.uint8)
    tiles = [
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(ycc[y : y + 128, x : x + 128]),
            codecformat="j2k", mct=False, reversible=True, level=0,
        )
        for y in (0, 128)
        for x in (0, 128, 256)
    ]  # fmt: skip
    path = aperio_j2k(tmp_path / "a.svs", iter(tiles), "APERIO_JP2000_YCBC")
    found = open_image(path).level(0)[...].astype(float)
    assert np.abs(found - np.moveaxis(rgb, -1, 0)).max() <= 2
