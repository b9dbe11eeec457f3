"""PNG and JPEG: decoded whole, transparency dropped, print density ignored, bombs refused."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from microtome.errors import FormatError, MicrotomeError
from microtome.sources import open_image

RNG = np.random.default_rng(8)
GRAY = RNG.integers(0, 256, (61, 47), dtype=np.uint8)
RGB = RNG.integers(0, 256, (61, 47, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (61, 47), dtype=np.uint16)
DEEP_RGB = RNG.integers(0, 65536, (61, 47, 3), dtype=np.uint16)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def palette() -> tuple[Image.Image, np.ndarray]:
    image = Image.fromarray(RGB).quantize(16)
    return image, np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)


def png_cases() -> dict[str, tuple[Image.Image | np.ndarray, np.ndarray]]:
    alpha = RNG.integers(0, 256, (61, 47), dtype=np.uint8)
    return {
        "gray": (Image.fromarray(GRAY), GRAY),
        "rgb": (Image.fromarray(RGB), np.moveaxis(RGB, -1, 0)),
        "rgba": (Image.fromarray(np.dstack([RGB, alpha])), np.moveaxis(RGB, -1, 0)),
        "gray and alpha": (Image.fromarray(np.dstack([GRAY, alpha]), "LA"), GRAY),
        "palette": palette(),
        "16 bits": (DEEP, DEEP),
        "16 bits rgb": (DEEP_RGB, np.moveaxis(DEEP_RGB, -1, 0)),
        "one bit": (Image.fromarray(GRAY > 100), np.where(GRAY > 100, 255, 0).astype(np.uint8)),
    }


@pytest.mark.filterwarnings("ignore:.*'mode' parameter.*:DeprecationWarning")
@pytest.mark.parametrize("case", png_cases())
def test_png(tmp_path: Path, pixels_equal: Any, case: str) -> None:
    image, expected = png_cases()[case]
    path = tmp_path / "a.png"
    if isinstance(image, Image.Image):
        saved(path, image)
    else:
        path.write_bytes(imagecodecs.png_encode(image))
    opened = open_image(path, mpp=0.5)
    pixels_equal(opened, expected)
    assert opened.axes == ("yx" if expected.ndim == 2 else "cyx")
    if expected.ndim == 3 and expected.dtype == np.uint8:
        assert opened.channel_names == ("red", "green", "blue")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg(tmp_path: Path, pixels_equal: Any, mode: str, progressive: bool) -> None:
    path = saved(
        tmp_path / "a.jpg", Image.fromarray(RGB).convert(mode), quality=90, progressive=progressive
    )
    decoded = np.asarray(Image.open(path))
    pixels_equal(open_image(path), decoded if mode == "L" else np.moveaxis(decoded, -1, 0))


def test_inks_of_print_are_not_taken_for_red_green_blue_and_transparency(tmp_path: Path) -> None:
    flat = np.empty((32, 32, 3), np.uint8)
    flat[:] = 200, 60, 120
    path = saved(tmp_path / "a.jpg", Image.fromarray(flat).convert("CMYK"), quality=100)
    found = open_image(path).level(0)[...]
    assert found.shape == (3, 32, 32)
    assert abs(found.astype(int) - np.array([200, 60, 120]).reshape(3, 1, 1)).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("dpi", [72, 300, 25400])
def test_density_is_no_pixel_size(tmp_path: Path, suffix: str, dpi: int) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(RGB), dpi=(dpi, dpi))
    assert open_image(path).mpp is None
    assert open_image(path, mpp=(0.5, 0.25)).require_mpp().x == 0.25


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "really-png.jpg", Image.fromarray(RGB), format="PNG")
    np.testing.assert_array_equal(open_image(path).level(0)[...], np.moveaxis(RGB, -1, 0))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_png_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    # 100 kB of deflated zeros that would be 30 GB of pixels.
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100_000_000), 9)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", body)
        + png_chunk(b"IEND", b"")
    )
    with pytest.raises(FormatError, match="larger than 2 GiB"):
        open_image(path)


@pytest.mark.parametrize("filler", [b"", b"\xff" * 20])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_bomb_is_refused_by_its_header(
    tmp_path: Path, filler: bytes, progressive: bool
) -> None:
    content = bytearray(
        saved(
            tmp_path / "a.jpg", Image.fromarray(RGB), progressive=progressive, exif=b"Exif\0\0abc"
        ).read_bytes()
    )
    at = content.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    (tmp_path / "bomb.jpg").write_bytes(content[:2] + filler + content[2:])
    with pytest.raises(FormatError, match="larger than 2 GiB"):
        open_image(tmp_path / "bomb.jpg")


@pytest.mark.parametrize("kind", ["png", "jpg", "progressive"])
def test_a_picture_cut_short_is_refused_or_whole(tmp_path: Path, kind: str) -> None:
    options = {"progressive": True} if kind == "progressive" else {}
    path = saved(tmp_path / f"a.{kind[:3].replace('pro', 'jpg')}", Image.fromarray(RGB), **options)
    whole = path.read_bytes()
    expected = open_image(path).level(0)[...]
    refused = 0
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        try:
            found = open_image(path).level(0)[...]
        except FormatError:
            refused += 1
            continue
        # The end mark of a PNG may be missing; a picture filled up with grey is none.
        np.testing.assert_array_equal(found, expected)
    assert refused >= len(whole) // 97 - 1


def test_a_thumbnail_inside_does_not_pass_for_the_end(tmp_path: Path) -> None:
    small = BytesIO()
    Image.fromarray(RGB[:8, :8]).save(small, format="JPEG")
    path = saved(
        tmp_path / "a.jpg", Image.fromarray(RGB), exif=b"Exif\0\0" + small.getvalue(), quality=95
    )
    assert open_image(path).level_shape(0) == (3, 61, 47)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(FormatError, match="cut short"):
        open_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_bits_flipped(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(RGB))
    whole = path.read_bytes()
    rng = np.random.default_rng(9)
    for _ in range(200):
        damaged = bytearray(whole)
        at = int(rng.integers(8, min(len(whole), 800)))
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            image = open_image(path)
        except MicrotomeError:
            continue
        assert image.level(0)[...].shape == image.level_shape(0)


@pytest.mark.parametrize("turned", [None, 1, 3, 6, 8])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_how_a_camera_was_turned_is_told_and_not_applied(
    tmp_path: Path, suffix: str, order: Any, turned: int | None
) -> None:
    mark = "<" if order == "little" else ">"
    entries = [(0x010F, 2, 4, b"abc\0")]  # who made it, which stands before
    if turned is not None:
        entries.append((0x0112, 3, 1, struct.pack(f"{mark}HH", turned, 0)))
    exif = b"Exif\0\0" + (b"II" if order == "little" else b"MM")
    exif += struct.pack(f"{mark}HIH", 42, 8, len(entries))
    exif += b"".join(struct.pack(f"{mark}HHI", *entry[:3]) + entry[3] for entry in entries) + bytes(
        4
    )
    path = tmp_path / f"a{suffix}"
    saved(path, Image.fromarray(RGB), exif=exif)
    with Image.open(path) as peer:
        assert peer.getexif().get(0x0112) == turned
        stored = np.asarray(peer)
    opened = open_image(path)
    facts = {} if turned in {None, 1} else {"Orientation": turned}
    assert dict(opened.metadata) == {"acquisition": facts, "associated_images": []}
    np.testing.assert_array_equal(opened.level(0)[...], np.moveaxis(stored, -1, 0))


@pytest.mark.parametrize(
    "exif", [b"", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff\x12\x01", b"MM\0*\0\0\0\0"]
)
def test_damaged_notes_of_a_camera_are_none(tmp_path: Path, exif: bytes) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(RGB), exif=b"Exif\0\0" + exif)
    assert open_image(path).metadata["acquisition"] == {}
