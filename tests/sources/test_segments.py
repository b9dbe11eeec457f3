"""Decoded segments are shared by windows, bounded for the process, and never another file's."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import FormatError
from microtome.sources import open_image
from microtome.sources._segments import SEGMENTS, Segments
from microtome.sources._tiff_array import TiffArray, _check_inside
from microtome.sources._tiff_pages import Plane

RNG = np.random.default_rng(2)


def kept(owner: int, number: int, size: int = 100) -> tuple[tuple[int, int, int], np.ndarray]:
    return (owner, 0, number), np.full(size, number, np.uint8)


def test_those_used_longest_ago_go_first() -> None:
    segments = Segments(1000)
    for number in range(10):
        segments.keep(*kept(1, number))
    assert segments.get((1, 0, 0)) is not None
    segments.keep(*kept(1, 10))
    assert segments.get((1, 0, 1)) is None
    assert segments.get((1, 0, 0)) is not None
    assert segments.taken == 1000


def test_one_that_would_push_out_all_others_is_not_kept() -> None:
    segments = Segments(1000)
    segments.keep(*kept(1, 0, 126))
    assert segments.taken == 0


def test_what_nobody_has_any_more_is_forgotten() -> None:
    segments = Segments(1000)
    for owner in (1, 2):
        for number in range(3):
            segments.keep(*kept(owner, number))
    segments.forget(1)
    assert segments.taken == 300
    assert segments.get((1, 0, 0)) is None
    assert segments.get((2, 0, 0)) is not None


def slide(path: Path, seed: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 255, (200, 300), dtype=np.uint8)
    tifffile.imwrite(path, pixels, tile=(64, 64), compression="zlib")
    return pixels


def test_a_segment_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = slide(tmp_path / "a.tif", 1)
    decoded: list[int] = []
    decode = TiffArray._decode

    def counted(self: TiffArray, page: int, segment: int) -> object:
        decoded.append(segment)
        return decode(self, page, segment)

    monkeypatch.setattr(TiffArray, "_decode", counted)
    image = open_image(tmp_path / "a.tif")
    for _ in range(3):
        np.testing.assert_array_equal(image.read(0, (60, 70), (60, 70)), pixels[60:70, 60:70])
    assert sorted(decoded) == [0, 1, 5, 6]


def test_what_a_reader_does_to_its_pixels_is_its_own(tmp_path: Path) -> None:
    pixels = slide(tmp_path / "a.tif", 1)
    image = open_image(tmp_path / "a.tif")
    for _ in range(2):
        found = image.read(0, (0, 64), (0, 64))
        np.testing.assert_array_equal(found, pixels[:64, :64])
        found[...] = 0


def test_a_closed_file_leaves_nothing_behind(tmp_path: Path) -> None:
    slide(tmp_path / "a.tif", 1)
    image = open_image(tmp_path / "a.tif")
    image.read(0, (0, 200), (0, 300))
    owner = image.level(0).array._array._owner  # type: ignore[attr-defined]
    assert sum(key[0] == owner for key in SEGMENTS._kept) == 20
    del image
    gc.collect()
    assert not any(key[0] == owner for key in SEGMENTS._kept)


def test_another_file_of_the_same_name_is_read_anew(tmp_path: Path) -> None:
    for seed in range(3):
        pixels = slide(tmp_path / "a.tif", seed)
        image = open_image(tmp_path / "a.tif")
        np.testing.assert_array_equal(image.level(0)[...], pixels)


def test_threads_that_share_segments(tmp_path: Path) -> None:
    pixels = slide(tmp_path / "a.tif", 4)
    image = open_image(tmp_path / "a.tif")
    corners = [(int(y), int(x)) for y, x in RNG.integers(0, (150, 250), (300, 2))]
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda at: image.read(0, (at[0], at[0] + 50), (at[1], at[1] + 50)), corners)
        )
    for (y, x), part in zip(corners, found, strict=True):
        np.testing.assert_array_equal(part, pixels[y : y + 50, x : x + 50])


NUMBERS = st.one_of(st.integers(-3, 130), st.sampled_from([2**63 - 1, 2**63, 2**64, -(2**63)]))


@given(segments=st.lists(st.tuples(NUMBERS, NUMBERS), max_size=4))
def test_segments_that_are_not_in_the_file_are_refused(segments: list[tuple[int, int]]) -> None:
    plane = Plane(Path("a.tif"), [o for o, _ in segments], [c for _, c in segments], None)
    if all(min(offset, count) >= 0 and offset + count <= 100 for offset, count in segments):
        _check_inside(plane, 100)
    else:
        with pytest.raises(FormatError, match=r"cannot be|cut short"):
            _check_inside(plane, 100)
