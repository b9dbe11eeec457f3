"""Damaged and hostile files: an error of ours that names the file, never a crash, never a guess."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.errors import (
    FormatError,
    InvalidInputError,
    MicrotomeError,
    NotFoundError,
)
from microtome.sources import open_image

PLANES = np.random.default_rng(5).integers(0, 65536, (4, 70, 60), dtype=np.uint16)


def slide(path: Path) -> Path:
    rgb = np.random.default_rng(6).integers(0, 256, (200, 150, 3), dtype=np.uint8)
    text = "Aperio Image Library v11\r\n150x200 (64x64)|MPP = 0.5"
    tifffile.imwrite(
        path,
        rgb,
        photometric="rgb",
        tile=(64, 64),
        compression="zlib",
        description=text,
        metadata=None,
    )
    return path


def written(path: Path, kind: str) -> Path:
    if kind == "svs":
        return slide(path)
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (32, 32)}
    if kind == "imagej":
        options = {"imagej": True}
    if kind == "compressed":
        options["compression"] = "zlib"
    tifffile.imwrite(path, PLANES, ome=kind == "ome", bigtiff=kind == "bigtiff", **options)
    return path


@pytest.mark.parametrize("kind", ["svs", "ome", "planes", "compressed", "imagej", "bigtiff"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "a.tif", kind)
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        pages = [page.aspage() for page in tiff.pages]
        data_end = max(
            max(o + c for o, c in zip(p.dataoffsets, p.databytecounts, strict=True)) for p in pages
        )
        links = [page.offset for page in pages]
    # Everywhere on the way, and just before and inside every page's list of tags.
    lengths = {int(part * data_end) for part in np.linspace(0.001, 0.999, 23)}
    lengths |= {offset + step for offset in links for step in (-1, 1, 9)}
    for length in sorted(n for n in lengths if 0 < n < max(data_end, links[-1] + 10)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"a\.tif"):
            open_image(path)


def test_the_real_slide_cut_short_is_refused(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "wsi/cmu-1-small-region.svs").read_bytes()
    path = tmp_path / "cut.svs"
    # The last page, a picture of the glass, begins at 99.9 %.
    for part in (0.00001, 0.001, 0.1, 0.5, 0.6, 0.7, 0.9, 0.99, 0.9990):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(FormatError, match=r"cut\.svs"):
            open_image(path)


def flipped(data: bytes, rng: np.random.Generator, tags: list[int]) -> bytes:
    """Flip one to three bits, most of them where they hurt: in the header and the tags."""
    damaged = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        places = [
            int(rng.integers(len(data))),
            int(rng.integers(16)),
            tags[int(rng.integers(len(tags)))] + int(rng.integers(12)),
            tags[int(rng.integers(len(tags)))] + int(rng.integers(12)),
        ]
        at = min(places[int(rng.integers(4))], len(data) - 1)
        damaged[at] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def survive(data: bytes, path: Path, *, rounds: int, seed: int) -> dict[str, int]:
    """Open damaged copies of a file; count what came of it."""
    rng = np.random.default_rng(seed)
    path.write_bytes(data)
    with tifffile.TiffFile(path) as tiff:
        pages = [page.aspage() for page in tiff.pages]
        tags = [place for page in pages for t in page.tags for place in (t.offset, t.valueoffset)]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(rounds):
        path.write_bytes(flipped(data, rng, tags))
        try:
            image = open_image(path)
            height, width = image.level_shape(0)[-2:]
            y, x = int(rng.integers(max(height - 64, 1))), int(rng.integers(max(width - 64, 1)))
            y1, x1 = min(y + 64, height), min(x + 64, width)
            found = image.read(0, (y, y1), (x, x1))
        except MicrotomeError as error:
            refusal = str(error)
        else:
            refusal = ""
        if refusal:
            assert str(path) in refusal
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        assert found.shape[-2:] == (y1 - y, x1 - x)
        if height * width * image.nchannels > 30_000_000:
            continue  # a side with a flipped high bit: tifffile would fill the memory
        expected = decoded_by_tifffile(path)
        if expected is not None:
            expected = np.moveaxis(expected, -1, 0) if photograph(path) else expected
            np.testing.assert_array_equal(found, expected[..., y:y1, x:x1])
    return outcomes


def photograph(path: Path) -> bool:
    with tifffile.TiffFile(path) as tiff:
        return tiff.series[0].axes == "YXS"


def decoded_by_tifffile(path: Path) -> Any:
    try:
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
            if any(0 in page.databytecounts for page in series.pages):
                return None  # it puts the segments after an empty one in the wrong places
            # Page by page: a stack of ImageJ's it would read on from the first, whatever pages say.
            planes = [page.asarray() for page in series.pages]
            return planes[0] if len(planes) == 1 else np.stack(planes)
    except Exception:  # noqa: BLE001 - it may stumble elsewhere than in our window, over anything
        return None


@pytest.mark.slow
def test_bits_flipped_in_a_real_slide(shared_data: Path, tmp_path: Path) -> None:
    data = (shared_data / "wsi/cmu-1-small-region.svs").read_bytes()
    outcomes = survive(data, tmp_path / "a.svs", rounds=100, seed=2024)
    assert min(outcomes.values()) > 10, "the damage should sometimes hurt and sometimes not"


@pytest.mark.parametrize("kind", ["svs", "ome", "compressed", "imagej", "bigtiff"])
def test_bits_flipped_in_small_files(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path / "a.tif", kind).read_bytes()
    outcomes = survive(data, tmp_path / "b.tif", rounds=150, seed=len(kind))
    assert min(outcomes.values()) > 10


def test_a_damaged_tile_is_named(tmp_path: Path) -> None:
    path = slide(tmp_path / "a.svs")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages.first.dataoffsets[4]
        size = tiff.pages.first.databytecounts[4]
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = b"\xff" * size
    path.write_bytes(data)
    image = open_image(path)
    assert image.read(0, (0, 64), (0, 64)).shape == (3, 64, 64)
    with pytest.raises(FormatError, match=r"a\.svs.*segment 4"):
        image.read(0, (64, 100), (64, 100))


def test_a_file_that_disappears_while_open(tmp_path: Path) -> None:
    path = slide(tmp_path / "a.svs")
    image = open_image(path)
    os.truncate(path, 100)
    with pytest.raises(MicrotomeError, match=r"a\.svs"):
        image.read(0, (0, 200), (0, 150))


# -- what is no image


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.svs", b"not a slide\n" * 50, "named like TIFF"),
        ("empty.svs", b"", "it is empty"),
        ("empty.png", b"", "it is empty"),
        ("page.html", b"<html></html>", "no format that can be read"),
        ("head.tif", b"II*\0", r"head\.tif"),
        ("head.tif", b"MM\0*\0\0\0\x08", r"head\.tif"),
        ("loop.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", r"loop\.tif"),
        ("big.tif", b"II+\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f", r"big\.tif"),
        ("head.png", b"\x89PNG\r\n\x1a\n", r"head\.png"),
        ("head.jpg", b"\xff\xd8\xff", r"head\.jpg"),
        ("head.jpg", b"\xff\xd8" + b"\xff" * 500, r"head\.jpg"),
    ],
)
def test_no_image(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=words):
        open_image(tmp_path / name)


def test_a_directory_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="directory but no OME-Zarr"):
        open_image(tmp_path)


@pytest.mark.parametrize("name", ["missing.svs", "missing/a.svs", "file.txt/a.svs"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(NotFoundError, match="does not exist"):
        open_image(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / name)


def test_a_dangling_link_is_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "a.svs").symlink_to(tmp_path / "gone.svs")
    with pytest.raises(NotFoundError):
        open_image(tmp_path / "a.svs")


@pytest.mark.parametrize("name", ["x" * 400 + ".svs", "loop"])
def test_paths_that_the_system_refuses(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(MicrotomeError):
        open_image(tmp_path / name)


def test_a_path_with_a_nul_is_an_argument_that_is_wrong() -> None:
    with pytest.raises(InvalidInputError):
        open_image("a\0.svs")


def test_a_pipe_is_refused_and_not_waited_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.svs")
    with pytest.raises(FormatError, match="neither a file nor a directory"):
        open_image(tmp_path / "a.svs")


def test_a_link_to_a_slide_is_a_slide(tmp_path: Path) -> None:
    path = slide(tmp_path / "real.svs")
    (tmp_path / "link.svs").symlink_to(path)
    assert open_image(tmp_path / "link.svs").level_shape(0) == (3, 200, 150)
    shutil.move(path, tmp_path / "no-suffix-at-all")
    assert open_image(tmp_path / "no-suffix-at-all").level_shape(0) == (3, 200, 150)
