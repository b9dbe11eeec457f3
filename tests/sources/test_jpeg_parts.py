"""Part of a JPEG tile has the pixels of the tile decoded whole, bit for bit."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtome.errors import FormatError
from microtome.regions import Windows, read_regions
from microtome.sources import _jpeg_parts, open_image
from microtome.sources._jpeg_frame import frame_of, header_size
from microtome.sources._jpeg_parts import KERNELS, NOTES, JpegParts, compiled_walk
from microtome.sources._tiff_array import TiffArray
from microtome.storage import Compiled, Compiler

SAMPLINGS = ("444", "422", "420", "440", "411")
Span = tuple[int, int]


@pytest.fixture(scope="module", name="compiled")
def compiled_fixture() -> Any:
    pytest.importorskip("numba")
    call = Compiler(compiled_walk).load()
    assert call is not None
    return call.kernel


@pytest.fixture(name="forced")
def forced_fixture(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parts of tiles are cut out from the first on."""
    monkeypatch.setattr(KERNELS, "_found", Compiled(compiled, np.empty(0, np.int64)))
    monkeypatch.setattr(_jpeg_parts, "_LEAST_PIXELS", 1)
    return compiled


def picture(height: int, width: int, seed: int, noise: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = 128 + 100 * np.sin([y / 19 + x / 7, x / 23, y / 11 - x / 31])
    pixels = smooth.transpose(1, 2, 0) + rng.normal(0, noise, (height, width, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, sampling: str, level: int = 80) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, level=level, subsampling=sampling))


def cut_in_two(data: bytes) -> tuple[bytes, bytes]:
    """The tables of a JPEG, and the rest: as TIFF stores them."""
    tables, rest, at = b"\xff\xd8", b"\xff\xd8", 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] in {0xC4, 0xDB}:
            tables += data[at:end]
        else:
            rest += data[at:end]
        at = end
    return tables + b"\xff\xd9", rest + data[at:]


def part(
    parts: JpegParts, data: bytes, rows: Span, columns: Span, kernels: Any, **more: Any
) -> np.ndarray | None:
    key = more.get("key", (-2, 0, 0))
    return parts.part(key, data, more.get("tables"), rows, columns, kernels=kernels)


def spans(size: int) -> st.SearchStrategy[Span]:
    return st.tuples(st.integers(0, size - 1), st.integers(1, size)).map(
        lambda pair: (pair[0], min(max(pair[1], pair[0] + 1), size))
    )


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.tuples(st.integers(8, 150), st.integers(8, 150)),
    sampling=st.sampled_from(SAMPLINGS),
    level=st.sampled_from([5, 30, 80, 95, 100]),
    noise=st.sampled_from([0, 10, 200]),
    shared=st.booleans(),
    data=st.data(),
)
def test_any_part_of_any_tile_has_the_pixels_of_the_whole(
    compiled: Any, size: Span, sampling: str, level: int, noise: int, shared: bool, data: Any
) -> None:
    tile = encoded(picture(*size, seed=level, noise=noise), sampling, level)
    whole = imagecodecs.jpeg8_decode(tile, outcolorspace=2)
    tables, rest = cut_in_two(tile) if shared else (None, tile)
    NOTES.forget(-2)
    parts = JpegParts(size, None)
    # Several of one tile: those that follow go on from where the first noted its codes.
    for _ in range(3):
        rows, columns = data.draw(spans(size[0])), data.draw(spans(size[1]))
        found = part(parts, rest, rows, columns, compiled, tables=tables)
        assert found is not None
        np.testing.assert_array_equal(found, whole[slice(*rows), slice(*columns)])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sampling=st.sampled_from(SAMPLINGS),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=3),
    shorter=st.integers(0, 400),
    rows=spans(96),
    columns=spans(96),
)
def test_a_damaged_tile_gives_the_pixels_of_its_whole_or_is_left_to_the_decoder(
    compiled: Any, sampling: str, changes: list[Span], shorter: int, rows: Span, columns: Span
) -> None:
    tile = bytearray(encoded(picture(96, 96, 3), sampling))
    for place, byte in changes:
        tile[place % len(tile)] = byte
    damaged = bytes(tile[: len(tile) - shorter] if shorter > 200 else tile)
    NOTES.forget(-2)
    found = part(JpegParts((96, 96), None), damaged, rows, columns, compiled)
    try:
        whole = imagecodecs.jpeg8_decode(damaged, outcolorspace=2)
    except imagecodecs.Jpeg8Error:
        return
    if found is not None and whole.shape == (96, 96, 3):
        np.testing.assert_array_equal(found, whole[slice(*rows), slice(*columns)])


@pytest.mark.parametrize("name", ["gray", "progressive", "restarts", "size"])
def test_tiles_of_other_kinds_are_left_to_the_decoder(compiled: Any, name: str) -> None:
    pixels = picture(64, 64, 1)
    tile = encoded(pixels, "444")
    if name == "gray":
        tile = bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels[..., 0])))
    if name == "progressive":
        tile = tile.replace(b"\xff\xc0", b"\xff\xc2", 1)
    if name == "restarts":
        tile = tile[:2] + b"\xff\xdd\0\4\0\4" + tile[2:]
    shape = (64, 72) if name == "size" else (64, 64)
    assert part(JpegParts(shape, None), tile, (0, 9), (0, 9), compiled) is None


def test_a_file_whose_tiles_have_tables_of_their_own_is_decoded_whole(compiled: Any) -> None:
    parts = JpegParts((64, 64), None)
    tiles = [encoded(picture(64, 64, level), "444", level) for level in range(40, 70)]
    found = [
        part(parts, tile, (0, 9), (0, 9), compiled, key=(-2, 0, i)) for i, tile in enumerate(tiles)
    ]
    known = sum(one is not None for one in found)
    assert 0 < known < len(tiles)
    NOTES.forget(-2)


def test_codes_that_can_be_none_are_refused() -> None:
    tile = encoded(picture(32, 32, 1), "420")
    frame = frame_of(None, tile[: header_size(tile)])
    assert frame is not None
    assert (frame.height, frame.width, frame.unit, frame.margin) == (32, 32, (16, 16), (1, 1))
    assert frame.blocks[:, 0].tolist() == [0, 0, 0, 0, 1, 2]
    at = tile.index(b"\xff\xc4") + 5
    # More codes of one bit than there are.
    many = tile[:at] + b"\x03" + tile[at + 1 :]
    assert frame_of(None, many[: header_size(many)]) is None
    assert frame_of(None, b"\xff\xd8\xff\xd9") is None


# ------------------------------------------------------------------ files


def slide(path: Path, photometric: str, subsampling: Span, size: Span = (500, 700)) -> np.ndarray:
    options: dict[str, Any] = {"subsampling": subsampling} if photometric == "ycbcr" else {}
    compression: dict[str, Any] = {"level": 85}
    if photometric == "rgb":
        compression["outcolorspace"] = "rgb"
    tifffile.imwrite(
        path,
        picture(*size, seed=5),
        photometric=photometric,
        tile=(128, 112),
        compression="jpeg",
        compressionargs=compression,
        metadata=None,
        **options,
    )
    return tifffile.imread(path).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("photometric", "subsampling"),
    [("rgb", (1, 1)), ("ycbcr", (1, 1)), ("ycbcr", (2, 1)), ("ycbcr", (2, 2))],
)
def test_windows_of_a_slide_are_those_of_tifffile(
    tmp_path: Path,
    forced: Any,
    photometric: str,
    subsampling: Span,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = slide(tmp_path / "a.tif", photometric, subsampling)
    found = counted_parts(monkeypatch)
    image = open_image(tmp_path / "a.tif", mpp=0.5)
    rng = np.random.default_rng(1)
    for _ in range(80):
        h, w = rng.integers(1, 140, 2)
        y, x = (
            int(rng.integers(0, n - s)) for n, s in zip(expected.shape[1:], (h, w), strict=True)
        )
        read = image.read(0, (y, y + int(h)), (x, x + int(w)))
        np.testing.assert_array_equal(read, expected[:, y : y + h, x : x + w])
    assert sum(found) > 20
    starts = rng.integers(-60, 640, (64, 2))
    batch = read_regions([image], Windows.of(0, starts, 96))
    padded = np.pad(expected, [(0, 0), (200, 400), (200, 400)])
    for window, (y, x) in zip(batch, starts + 200, strict=True):
        np.testing.assert_array_equal(window, padded[:, y : y + 96, x : x + 96])


def counted_parts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    found: list[bool] = []
    whole = JpegParts.part

    def counted(self: JpegParts, *args: Any, **kwargs: Any) -> Any:
        pixels = whole(self, *args, **kwargs)
        found.append(pixels is not None)
        return pixels

    monkeypatch.setattr(JpegParts, "part", counted)
    return found


def test_a_real_slide_gives_the_same_in_parts(
    shared_data: Path, forced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared_data / "wsi" / "cmu-1-small-region.svs"
    expected = tifffile.imread(path).transpose(2, 0, 1)
    found = counted_parts(monkeypatch)
    image = open_image(path)
    rng = np.random.default_rng(1)
    starts = rng.integers(0, (2967 - 224, 2220 - 224), (48, 2))
    batch = read_regions([image], Windows.of(0, starts, 224))
    for window, (y, x) in zip(batch, starts, strict=True):
        np.testing.assert_array_equal(window, expected[:, y : y + 224, x : x + 224])
    assert sum(found) > 20


def test_a_tile_that_several_windows_show_is_decoded_once_whole(
    tmp_path: Path, forced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = slide(tmp_path / "a.tif", "rgb", (1, 1))
    decoded: list[int] = []
    decode = TiffArray._decode

    def counted(self: TiffArray, page: int, segment: int) -> object:
        decoded.append(segment)
        return decode(self, page, segment)

    monkeypatch.setattr(TiffArray, "_decode", counted)
    image = open_image(tmp_path / "a.tif", mpp=0.5)
    # The corners of the first tile, each a small part of it.
    starts = np.array([[0, 0], [0, 80], [100, 0], [100, 80]])
    batch = read_regions([image], Windows.of(0, starts, 24))
    assert decoded == [0]
    for window, (y, x) in zip(batch, starts, strict=True):
        np.testing.assert_array_equal(window, expected[:, y : y + 24, x : x + 24])


def test_a_damaged_tile_fails_the_windows_that_show_it(tmp_path: Path) -> None:
    expected = slide(tmp_path / "a.tif", "rgb", (1, 1))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        start = tiff.pages[0].dataoffsets[8]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[start : start + 4] = bytes(4)
    (tmp_path / "a.tif").write_bytes(bytes(data))
    array = open_image(tmp_path / "a.tif", mpp=0.5).level(0).array
    boxes = [((0, 3), (y, y + 20), (x, x + 20)) for y, x in ((0, 0), (130, 120), (400, 500))]
    outs = [np.zeros((3, 20, 20), np.uint8) for _ in boxes]
    reads = [array.read_into(box, out) for box, out in zip(boxes, outs, strict=True)]
    assert not any(out.any() for out in outs)
    for number, read in enumerate(reads):
        if number == 1:
            with pytest.raises(FormatError, match="segment 8 of plane 0 is damaged"):
                read.result()
        else:
            read.result()
            (_, y, x) = boxes[number]
            np.testing.assert_array_equal(outs[number], expected[:, slice(*y), slice(*x)])


def test_notes_go_with_the_file(tmp_path: Path, forced: Any) -> None:
    slide(tmp_path / "a.tif", "rgb", (1, 1))
    image = open_image(tmp_path / "a.tif", mpp=0.5)
    owner = image.level(0).array._array._owner  # type: ignore[attr-defined]
    image.read(0, (120, 140), (100, 130))
    assert sum(key[0] == owner for key in NOTES._kept) == 4
    del image
    gc.collect()
    assert not any(key[0] == owner for key in NOTES._kept)


def test_numba_is_loaded_when_enough_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = Compiler(compiled_walk, KERNELS._worth)
    monkeypatch.setattr(Compiler, "_work", lambda self: setattr(self, "_found", "calls"))
    assert kernels.after(1 << 25) is None
    assert kernels.after(1 << 25) is None
    kernels.after(1)
    assert kernels.load() == "calls"
    assert kernels.after(1) == "calls"


def test_without_compilation_tiles_are_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    numba: Any = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert Compiler(compiled_walk).load() is None
