"""Every dialect of TIFF that tifffile can write, read back through windows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import FormatError
from microtome.sources import open_image

RNG = np.random.default_rng(20)
RGB = RNG.integers(0, 256, (101, 67, 3), dtype=np.uint8)
PLANES = RNG.integers(0, 65536, (5, 83, 70), dtype=np.uint16)
GRAY = RNG.integers(0, 65536, (83, 70), dtype=np.uint16)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits"])
@pytest.mark.parametrize("layout", [{"tile": (32, 48)}, {"rowsperstrip": 7}, {}], ids=str)
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_rgb(
    tmp_path: Path, pixels_equal: Any, compression: str | None, layout: dict[str, Any], planar: str
) -> None:
    path = tmp_path / "a.tif"
    pixels = RGB if planar == "contig" else np.moveaxis(RGB, -1, 0)
    tifffile.imwrite(
        path, pixels, photometric="rgb", planarconfig=planar, compression=compression, **layout
    )
    image = open_image(path)
    pixels_equal(image, np.moveaxis(RGB, -1, 0))
    assert image.axes == "cyx"
    assert image.channel_names == ("red", "green", "blue")


@pytest.mark.parametrize(
    ("compression", "predictor"), [(None, False), ("zlib", False), ("zlib", True), ("lzw", True)]
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
def test_planes_of_every_type_and_byte_order(
    tmp_path: Path,
    pixels_equal: Any,
    compression: str | None,
    predictor: bool,
    byteorder: str,
    bigtiff: bool,
    dtype: str,
) -> None:
    path = tmp_path / "a.tif"
    pixels = (PLANES * 0.7 - 100).astype(dtype)
    tifffile.imwrite(
        path,
        pixels,
        photometric="minisblack",
        byteorder=byteorder,
        bigtiff=bigtiff,
        compression=compression,
        predictor=predictor,
        tile=(32, 32),
    )
    image = open_image(path)
    pixels_equal(image, pixels, windows=4)
    assert image.dtype.isnative
    assert image.axes == "cyx"


@pytest.mark.parametrize(("axes", "ours"), [("ZYX", "zyx"), ("TYX", "tyx"), ("CYX", "cyx")])
def test_the_leading_axis_keeps_its_meaning(
    tmp_path: Path, pixels_equal: Any, axes: str, ours: str
) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PLANES, metadata={"axes": axes}, photometric="minisblack", tile=(16, 16))
    image = open_image(path)
    assert image.axes == ours
    pixels_equal(image, PLANES)
    assert image.has_channel_axis == (ours == "cyx")


def test_one_plane(tmp_path: Path, pixels_equal: Any) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GRAY, tile=(16, 32))
    image = open_image(path)
    assert image.axes == "yx"
    assert image.channel_names is None
    pixels_equal(image, GRAY)


def test_jpeg_tiles_decode_as_tifffile_decodes_them(tmp_path: Path, pixels_equal: Any) -> None:
    path = tmp_path / "a.tif"
    smooth = np.add.outer(np.arange(200), np.arange(150))[..., None] % [256, 200, 100]
    tifffile.imwrite(
        path,
        smooth.astype(np.uint8),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 80},
        tile=(64, 64),
    )
    decoded = tifffile.imread(path)
    assert (decoded != smooth).any(), "the test wants a lossy file"
    pixels_equal(open_image(path), np.moveaxis(decoded, -1, 0))


def test_alpha_is_a_fourth_sample(tmp_path: Path, pixels_equal: Any) -> None:
    path = tmp_path / "a.tif"
    rgba = np.concatenate([RGB, RGB[..., :1]], axis=2)
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32))
    pixels_equal(open_image(path), np.moveaxis(rgba, -1, 0))


def test_segments_that_were_never_written_are_zero(tmp_path: Path, pixels_equal: Any) -> None:
    path = tmp_path / "a.tif"
    sparse = np.zeros((96, 96), np.uint16)
    sparse[:32, :32] = 5

    def tiles() -> Any:
        for y in range(0, 96, 32):
            for x in range(0, 96, 32):
                tile = sparse[y : y + 32, x : x + 32]
                yield tile if tile.any() else None

    tifffile.imwrite(path, tiles(), shape=(96, 96), dtype=np.uint16, tile=(32, 32))
    pixels_equal(open_image(path), sparse)


@pytest.mark.parametrize("rows", [8, 83])
@pytest.mark.parametrize("imagej", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_stack_of_which_only_the_first_plane_is_described(
    tmp_path: Path, pixels_equal: Any, imagej: bool, rows: int, byteorder: str
) -> None:
    # What ImageJ writes past 4 GB: reading the described plane alone would lose the others.
    path = tmp_path / "a.tif"
    options = {"imagej": imagej, "rowsperstrip": rows, "byteorder": byteorder}
    tifffile.imwrite(path, PLANES, photometric="minisblack", truncate=True, **options)
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1, "the test wants one page for all planes"
    pixels_equal(open_image(path), PLANES)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match="cut short"):
        open_image(path)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_channels_as_samples(tmp_path: Path, pixels_equal: Any, planar: str) -> None:
    path = tmp_path / "a.tif"
    pixels = PLANES if planar == "separate" else np.moveaxis(PLANES, 0, -1)
    tifffile.imwrite(
        path, pixels, photometric="minisblack", planarconfig=planar, tile=(32, 16), metadata=None
    )
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages.first.samplesperpixel == 5
    pixels_equal(open_image(path), PLANES)


@settings(max_examples=25)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.sampled_from([None, (16, 16), (32, 16), (64, 48)]),
    rows=st.integers(1, 80),
    how=st.sampled_from([None, "zlib", "big endian"]),
    data=st.data(),
)
def test_any_window_of_any_size(
    tmp_path_factory: Any,
    height: int,
    width: int,
    tile: Any,
    rows: int,
    how: str | None,
    data: st.DataObject,
) -> None:
    pixels = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    tifffile.imwrite(
        path,
        pixels,
        tile=tile,
        byteorder=">" if how == "big endian" else "<",
        compression="zlib" if how == "zlib" else None,
        **({} if tile else {"rowsperstrip": rows}),
    )
    y0 = data.draw(st.integers(0, height - 1))
    y1 = data.draw(st.integers(y0 + 1, height))
    x0 = data.draw(st.integers(0, width - 1))
    x1 = data.draw(st.integers(x0 + 1, width))
    found = open_image(path).read(0, (y0, y1), (x0, x1))
    np.testing.assert_array_equal(found, pixels[y0:y1, x0:x1])


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all that is read of the pixels of TIFF files from now on."""
    sizes: list[int] = []

    def pread(file: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return os_pread(file, size, offset)

    def preadv(file: int, buffers: list[memoryview], offset: int) -> int:
        sizes.append(sum(buffer.nbytes for buffer in buffers))
        return os_preadv(file, buffers, offset)

    os_pread, os_preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(os, "preadv", preadv)
    return sizes


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["planes", "separate", "contig"])
def test_a_small_read_takes_the_tiles_that_it_touches(
    tmp_path: Path, bytes_read: list[int], kind: str, compression: str | None
) -> None:
    pixels = RNG.integers(0, 60000, (3, 300, 410), dtype=np.uint16)
    stored = np.moveaxis(pixels, 0, -1) if kind == "contig" else pixels
    options = {} if kind == "planes" else {"planarconfig": kind}
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="minisblack", tile=(64, 48),
        compression=compression, metadata=None, **options,
    )  # fmt: skip
    image = open_image(tmp_path / "a.tif")
    assert bytes_read == []
    found = image.read(0, (60, 70), (100, 101))
    np.testing.assert_array_equal(found, pixels[:, 60:70, 100:101])
    # Two tiles above each other; random numbers get no smaller by compression.
    tile = 64 * 48 * 2 * (3 if kind == "contig" else 1)
    if compression is None:
        assert sum(bytes_read) == 3 * 10 * 1 * 2
    else:
        assert len(bytes_read) == (2 if kind == "contig" else 6)
        assert max(bytes_read) < 1.1 * tile
    bytes_read.clear()
    np.testing.assert_array_equal(image.read(0, (0, 5), (0, 5), channels=[1]), pixels[1:2, :5, :5])
    assert len(bytes_read) == (1 if compression else 5)


def test_a_small_read_of_one_large_strip_takes_its_rows(
    tmp_path: Path, bytes_read: list[int]
) -> None:
    # As most programs write: no compression, one strip a page.
    pixels = RNG.integers(0, 60000, (4, 500, 3000), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", rowsperstrip=500)
    image = open_image(tmp_path / "a.tif")
    assert image.level(0).array.chunks == (1, 32, 3000)
    for columns in ((7, 19), (7, 2990)):
        bytes_read.clear()
        found = image.read(0, (480, 500), columns)
        np.testing.assert_array_equal(found, pixels[:, 480:, slice(*columns)])
        assert sum(bytes_read) <= 4 * 20 * (12 if columns[1] == 19 else 3000) * 2


def test_every_level_is_read_by_tile(tmp_path: Path, bytes_read: list[int]) -> None:
    levels = pyramid(tmp_path / "a.tif", kind="subifds")
    image = open_image(tmp_path / "a.tif", mpp=1.0)
    for index, expected in enumerate(levels):
        bytes_read.clear()
        np.testing.assert_array_equal(image.read(index, (3, 9), (5, 20)), expected[:, 3:9, 5:20])
        assert len(bytes_read) == 1


def pyramid(path: Path, *, kind: str) -> list[np.ndarray]:
    """Write an RGB pyramid of four levels and return it channel first."""
    base = RNG.integers(0, 256, (517, 391, 3), dtype=np.uint8)
    # tifffile takes subIFDs for levels by their sizes, and a step of 4 for another picture.
    last = 8 if kind == "subifds" else 16
    levels = [base, base[::2, ::2], base[::4, ::4], base[::last, ::last]]
    options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=kind == "ome") as tiff:
        if kind in {"subifds", "ome"}:
            about = {"axes": "YXS"} if kind == "ome" else None
            tiff.write(levels[0], subifds=3, metadata=about, software=False, **options)
            for level in levels[1:]:
                tiff.write(level, subfiletype=1, metadata=None, **options)
        else:
            # Aperio: baseline, thumbnail (strips), then the reduced levels, all top pages.
            text = "Aperio Image Library v11.2.1\r\n391x517 (64x64) |AppMag = 20|MPP = 0.25"
            tiff.write(levels[0], description=text, metadata=None, software=False, **options)
            thumbnail = {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 16}
            tiff.write(base[::8, ::8], description=text, metadata=None, **thumbnail)
            for level in levels[1:]:
                tiff.write(level, description=text, metadata=None, **options)
    return [np.moveaxis(level, -1, 0) for level in levels]


@pytest.mark.parametrize("kind", ["subifds", "ome", "svs"])
def test_pyramids(tmp_path: Path, pixels_equal: Any, kind: str) -> None:
    path = tmp_path / ("a.svs" if kind == "svs" else "a.tif")
    levels = pyramid(path, kind=kind)
    image = open_image(path, mpp=None if kind == "svs" else 0.25)
    assert image.level_count == 4
    for index, expected in enumerate(levels):
        pixels_equal(image, expected, level=index, windows=3)
    # 517 -> 33 rows is a factor of 16, although 517 / 33 is 15.7.
    sizes = [0.25, 0.5, 1.0, 2.0 if kind == "subifds" else 4.0]
    assert [image.level_mpp(i).y for i in range(4)] == sizes
    assert [image.level_mpp(i).x for i in range(4)] == sizes
    if kind == "svs":
        assert image.require_mpp().source == "metadata"


def test_a_window_of_a_coarse_level_lies_where_it_should(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    levels = pyramid(path, kind="subifds")
    image = open_image(path, mpp=0.25)
    read = image.read_spatial_region(2, (40, 80, 120, 200))
    np.testing.assert_array_equal(read.data, levels[2][:, 20:50, 10:30])
    corner = read.coordinate_transform.apply([[0.0, 0.0], [20.0, 30.0]])
    np.testing.assert_allclose(corner, [[40, 80], [120, 200]])


# -- what cannot be read is said


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((20, 20), np.complex64))
    with pytest.raises(FormatError, match="complex64"):
        open_image(path)


def test_reading_never_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GRAY, tile=(16, 16))
    path.chmod(0o444)
    before = path.read_bytes(), path.stat().st_mtime_ns
    image = open_image(path)
    image.read(0, (3, 40), (5, 50))
    with pytest.raises(PermissionError):
        image.level(0)[...] = 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
