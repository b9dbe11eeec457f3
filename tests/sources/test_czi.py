"""CZI as Zeiss's library writes it, held against czifile and against what was written."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import DependencyError, FormatError, InvalidInputError, StorageError
from microtome.sources import _czi, image_names, open_image
from microtome.sources._apart import Apart

czi = pytest.importorskip("pylibCZIrw.czi", reason="the extra czi is not installed")

ALONE = Path(_czi.__file__).with_name("_czi_alone.py")
RNG = np.random.default_rng(41)


def written(
    path: Path,
    pixels: np.ndarray,
    *,
    corner: tuple[int, int] = (0, 0),
    scenes: int = 0,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write (T, C, Z, Y, X) or (T, C, Z, Y, X, 3) in tiles, as a microscope's stage gives them."""
    height, width = pixels.shape[3:5]
    with czi.create_czi(str(path)) as file:
        for scene, (t, c, z) in itertools.product(
            range(max(scenes, 1)), np.ndindex(pixels.shape[:3])
        ):
            for y, x in itertools.product(range(0, height, 40), range(0, width, 50)):
                tile = pixels[t, c, z, y : y + 40, x : x + 50]
                file.write(
                    np.ascontiguousarray(tile[..., ::-1] if pixels.ndim == 6 else tile) + scene,
                    plane={"T": t, "C": c, "Z": z},
                    location=(corner[0] + x + 1000 * scene, corner[1] + y),
                    **({"scene": scene} if scenes else {}),
                )
        file.write_metadata(
            "a document", **({"scale_x": 0.5e-6, "scale_y": 0.5e-6} if metadata is None else metadata)
        )  # fmt: skip
    return path


def panel(shape: tuple[int, int, int], dtype: str = "uint16") -> np.ndarray:
    return RNG.integers(0, 250, (*shape, 90, 110)).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 1, 1), "cyx"),
        ((1, 3, 1), "cyx"),
        ((2, 1, 1), "tcyx"),
        ((1, 2, 4), "czyx"),
        ((2, 3, 2), "tczyx"),
    ],
)
def test_pixels_of_every_shape_and_type(
    tmp_path: Path, dtype: str, shape: tuple[int, int, int], axes: str
) -> None:
    pixels = panel(shape, dtype)
    image = open_image(written(tmp_path / "a.czi", pixels))
    kept = [i for i, axis in enumerate("tczyx") if axis in axes]
    expected = pixels.reshape([pixels.shape[i] for i in kept])
    assert image.axes == axes
    assert image.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(image.level(0)[...], expected)
    start: Any = np.int64(3)
    stop: Any = np.int64(33)
    np.testing.assert_array_equal(
        image.read(0, (start, stop), (start, stop)), expected[..., 3:33, 3:33]
    )
    inside = tuple(slice(size // 2, size // 2 + 30) for size in expected.shape)
    np.testing.assert_array_equal(image.level(0)[inside], expected[inside])


def test_what_czifile_reads(tmp_path: Path, pixels_equal: Any) -> None:
    czifile = pytest.importorskip("czifile")
    path = written(tmp_path / "a.czi", panel((1, 3, 1)))
    with czifile.CziFile(path) as file:
        expected = file.asarray()[0, 0, :, 0, :, :, 0] if file.axes == "STCZYX0" else None
    assert expected is not None
    pixels_equal(open_image(path), expected)


@pytest.mark.parametrize("corner", [(0, 0), (-300, 7000)])
def test_photographs_are_red_green_and_blue(
    tmp_path: Path, pixels_equal: Any, corner: tuple[int, int]
) -> None:
    pixels = RNG.integers(0, 255, (1, 1, 1, 90, 110, 3), dtype=np.uint8)
    image = open_image(written(tmp_path / "a.czi", pixels, corner=corner))
    pixels_equal(image, np.moveaxis(pixels[0, 0, 0], -1, 0))
    assert image.channel_names == ("red", "green", "blue")


def test_sizes_names_and_facts(tmp_path: Path) -> None:
    facts = {"channel_names": {0: "DAPI", 1: "CD3"}, "scale_x": 0.25e-6, "scale_y": 0.5e-6}
    image = open_image(written(tmp_path / "a.czi", panel((1, 2, 1)), metadata=facts))
    size = image.require_mpp()
    assert (size.y, size.x, size.source) == pytest.approx((0.5, 0.25, "metadata"))
    assert image.channel_names == ("DAPI", "CD3")
    assert image.metadata["acquisition"]["document"]["Title"] == "a document"
    assert image.metadata["acquisition"]["channels"][1]["Name"] == "CD3"
    assert image.metadata["acquisition"]["image"]["SizeC"] == "2"
    bare = open_image(written(tmp_path / "b.czi", panel((1, 2, 1)), metadata={}))
    assert bare.mpp is None


def test_scenes_are_images_of_their_own(tmp_path: Path) -> None:
    pixels = panel((1, 2, 1))
    path = written(tmp_path / "a.czi", pixels, scenes=3)
    assert image_names(path) == ("scene 0", "scene 1", "scene 2")
    with pytest.raises(InvalidInputError, match="holds 3 images"):
        open_image(path)
    for number, name in enumerate(image_names(path)):
        image = open_image(path, image=name)
        np.testing.assert_array_equal(image.level(0)[...], pixels[0, :, 0] + number)
        assert image.name == f"a {name}"


def test_many_threads_read_one_file(tmp_path: Path) -> None:
    pixels = panel((1, 2, 1))
    image = open_image(written(tmp_path / "a.czi", pixels))
    corners = [(int(y), int(x)) for y, x in RNG.integers(0, (60, 80), (100, 2))]
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda at: image.read(0, (at[0], at[0] + 30), (at[1], at[1] + 30)), corners)
        )
    for (y, x), part in zip(corners, found, strict=True):
        np.testing.assert_array_equal(part, pixels[0, :, 0, y : y + 30, x : x + 30])


@pytest.mark.parametrize("content", [b"ZISRAWFILE", b"ZISRAWFILE" + b"\0" * 2000])
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.czi").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.czi is damaged"):
        open_image(tmp_path / "a.czi")


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pylibCZIrw").mkdir()
    (tmp_path / "pylibCZIrw" / "__init__.py").write_text("raise ImportError('not for this one')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_czi, "_APART", Apart(ALONE))
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")
    with pytest.raises(DependencyError, match=r"\(not for this one\); install microtome\[czi\]"):
        open_image(tmp_path / "a.czi")


def ended(number: str) -> str:
    """A script that answers as Zeiss's library does, and does something to itself when asked for pixels."""
    return f"""
import runpy, os, signal, time
found = runpy.run_path({str(ALONE)!r})
answer = found["_answer"]
def other(asked):
    if asked["what"] == "pixels":
        {number}
    return answer(asked)
found["_main"].__globals__.update(_answer=other, _LONGEST_S=1)
found["_main"]()
"""


@pytest.mark.skipif(os.name != "posix", reason="ends processes with signals")
@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended its process with SIGSEGV"),
        ("os.abort()", "ended its process with SIGABRT"),
        ("os._exit(7)", "took too long, or ended its process"),
        ("time.sleep(100)", "took too long, or ended its process"),
        ("bytearray(5 << 30)", "MemoryError"),
        ("return {'shape': [1], 'dtype': 'uint8'}, None", "pixels of"),
    ],
)
def test_a_library_that_dies_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels_equal: Any, does: str, words: str
) -> None:
    pixels = panel((1, 2, 1))
    path = written(tmp_path / "a.czi", pixels)
    script = tmp_path / "alone.py"
    script.write_text(ended(does))
    monkeypatch.setattr(_czi, "_APART", Apart(script))
    image = open_image(path)
    for _ in range(2):
        with pytest.raises(FormatError, match=rf"a\.czi is damaged or .*{words}"):
            image.read(0, (0, 9), (0, 9))
    # The next one is read.
    script.write_text(ended("pass"))
    monkeypatch.setattr(_czi, "_APART", Apart(script))
    pixels_equal(image, pixels[0, :, 0])


@pytest.mark.skipif(os.name != "posix", reason="ends processes with signals")
def test_a_process_that_was_ended_by_others_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels_equal: Any
) -> None:
    pixels = panel((1, 2, 1))
    apart = Apart(ALONE)
    monkeypatch.setattr(_czi, "_APART", apart)
    image = open_image(written(tmp_path / "a.czi", pixels))
    for process in apart._idle:  # pyright: ignore[reportPrivateUsage]
        process._process.kill()  # pyright: ignore[reportPrivateUsage]
        process._process.wait()  # pyright: ignore[reportPrivateUsage]
    pixels_equal(image, pixels[0, :, 0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_asks_processes_of_its_own(tmp_path: Path) -> None:
    pixels = panel((1, 2, 1))
    image = open_image(written(tmp_path / "a.czi", pixels))
    child = os.fork()
    if not child:
        same = np.array_equal(image.level(0)[...], pixels[0, :, 0])
        os._exit(0 if same else 1)
    for _ in range(20):
        np.testing.assert_array_equal(image.level(0)[...], pixels[0, :, 0])
    assert os.waitpid(child, 0)[1] == 0


def test_a_file_that_was_changed_is_not_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.czi", panel((1, 2, 1)))
    image = open_image(path)
    monkeypatch.setattr(_czi, "_APART", Apart(ALONE))  # none has it open
    path.unlink()
    written(path, panel((1, 2, 1)))
    os.utime(path, ns=(5, 5))
    with pytest.raises(FormatError, match=r"a\.czi .* changed after it was opened"):
        image.read(0, (0, 9), (0, 9))
    path.unlink()
    with pytest.raises(StorageError, match=r"a\.czi cannot be read"):
        image.read(0, (0, 9), (0, 9))


def test_a_large_box_is_asked_for_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels_equal: Any
) -> None:
    monkeypatch.setattr(_czi, "_MOST_SIDE", 32)
    pixels = panel((1, 2, 1))
    pixels_equal(open_image(written(tmp_path / "a.czi", pixels)), pixels[0, :, 0], windows=3)
    colours = RNG.integers(0, 255, (1, 1, 1, 90, 110, 3), dtype=np.uint8)
    image = open_image(written(tmp_path / "b.czi", colours))
    pixels_equal(image, np.moveaxis(colours[0, 0, 0], -1, 0), windows=3)


def test_the_main_script_is_not_run_again(tmp_path: Path) -> None:
    """A script without `if __name__ == "__main__"` opens a file like any other."""
    written(tmp_path / "a.czi", panel((1, 2, 1)))
    (tmp_path / "main.py").write_text(
        "import microtome as mt\nprint('once', mt.open_image('a.czi').level(0)[...].shape)"
    )
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("once (2, 90, 110)\n", "")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_processes_end_with_the_one_that_asks(tmp_path: Path) -> None:
    """However it ends: here, without a chance to say goodbye."""
    written(tmp_path / "a.czi", panel((1, 2, 1)))
    script = (
        "import microtome as mt, time\nfrom microtome.sources import _czi\n"
        "image = mt.open_image('a.czi')\n"
        "print(_czi._APART._idle[0]._process.pid, flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as asking:
        assert asking.stdout is not None
        place = Path("/proc", asking.stdout.readline().strip(), "stat")
        assert place.exists()
        asking.kill()
    until = time.monotonic() + 60
    # One that has ended is Z until whoever inherited it looks.
    while place.exists() and place.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("compression", ["zstd0:", "zstd1:"])
def test_compressed_tiles(tmp_path: Path, pixels_equal: Any, compression: str) -> None:
    pixels = panel((1, 1, 1))[0, 0, 0]
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path), compression_options=compression) as file:
        file.write(pixels[..., None], plane={"C": 0, "T": 0, "Z": 0})
        file.write_metadata("a", scale_x=5e-7, scale_y=5e-7)
    pixels_equal(open_image(path), pixels[None])


def test_tiles_in_jpeg_xr(
    tmp_path: Path, pixels_equal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    packed_as_jpeg_xr = importlib.import_module(
        "benchmarks.reliability.microscopes"
    ).packed_as_jpeg_xr
    czifile = pytest.importorskip("czifile")
    pixels = panel((1, 2, 1)) // 20
    path = written(tmp_path / "a.czi", pixels)
    path.write_bytes(packed_as_jpeg_xr(path.read_bytes()))
    pixels_equal(open_image(path), pixels[0, :, 0])
    with czifile.CziFile(path) as file:
        assert 4 in {entry.compression for entry in file.filtered_subblock_directory}


@settings(max_examples=50)
@given(at=st.floats(0, 1), value=st.integers(0, 255), kept=st.floats(0.1, 1), cut=st.booleans())
def test_damage_is_ours_to_tell(
    tmp_path_factory: pytest.TempPathFactory,
    read_or_refused: Any,
    at: float,
    value: int,
    kept: float,
    cut: bool,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = folder / "whole.czi"
    if not whole.exists():
        written(whole, panel((1, 2, 1)))
    data = bytearray(whole.read_bytes())
    data[int(at * (len(data) - 1))] = value
    path = folder / "damaged.czi"
    path.write_bytes(data[: int(kept * len(data))] if cut else data)
    refusal = read_or_refused(path)
    assert not refusal or str(path) in refusal


def test_more_planes_than_the_file_can_hold_are_refused(
    tmp_path: Path, read_or_refused: Any
) -> None:
    """One byte of the directory that is changed would ask for terabytes."""
    path = written(tmp_path / "a.czi", panel((1, 3, 1)))
    data = bytearray(path.read_bytes())
    # Of each entry: the letter of the dimension in four bytes, where it starts and its size.
    places = [found.start() for found in re.finditer(b"C\0\0\0", data)]
    refused = []
    for at in places:
        broken = bytearray(data)
        broken[at + 6] = 0x22
        path.write_bytes(broken)
        refused.append(read_or_refused(path))
    told = [text for text in refused if "does not fit into the file" in text]
    assert told
    assert all(str(path) in text for text in told)
