"""CZI as Zeiss's library writes it, held against czifile and against what was written."""

from __future__ import annotations

import itertools
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import DependencyError, FormatError, InvalidInputError
from microtome.sources import image_names, open_image

czi = pytest.importorskip("pylibCZIrw.czi", reason="the extra czi is not installed")

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
    monkeypatch.setitem(sys.modules, "pylibCZIrw.czi", None)
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")
    with pytest.raises(DependencyError, match=r"install microtome\[czi\]"):
        open_image(tmp_path / "a.czi")


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
