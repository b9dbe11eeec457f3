"""Real files with bytes changed and ends cut off: an error of ours that names the file, or pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtome.image import MultiscaleImage

REAL = (
    "wsi/vectra.qptiff",
    "mibi/fov8_whole_cell_mask.tiff",
    "imc/img/20210305_NE_mockData1_002.tiff",
    "imc/raw/20210305_NE_mockData1_ROI_001_1.txt",
)
DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4)


def damaged(data: bytes, changes: list[tuple[float, int]], reach: int, cut: int) -> bytes:
    """Change bytes, within the last or first so many: where files keep what they say of themselves."""
    found = bytearray(data)
    for place, value in changes:
        at = int(place * min(reach, len(data) - 1))
        found[at if value % 2 else len(data) - 1 - at] = value
    return bytes(found[: len(found) - cut])


@pytest.mark.parametrize("name", REAL)
@settings(max_examples=25, suppress_health_check=[HealthCheck.differing_executors])
@given(changes=DAMAGE, cut=st.sampled_from([0, 0, 0, 1, 100, 5000]))
def test_real_files(
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    read_or_refused: Any,
    name: str,
    changes: list[tuple[float, int]],
    cut: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged{Path(name).suffix}"
    path.write_bytes(damaged((shared_data / name).read_bytes(), changes, 3000, cut))
    refusal = read_or_refused(path)
    assert not refusal or str(path) in refusal


def png_of(shape: tuple[int, ...]) -> bytes:
    import imagecodecs

    pixels = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    return imagecodecs.png_encode(pixels)


def jpeg_of(shape: tuple[int, ...]) -> bytes:
    import imagecodecs

    return imagecodecs.jpeg8_encode(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("kind", ["png", "jpg"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.differing_executors])
@given(changes=DAMAGE, cut=st.integers(0, 40))
def test_pictures(
    tmp_path_factory: pytest.TempPathFactory,
    read_or_refused: Any,
    kind: str,
    changes: list[tuple[float, int]],
    cut: int,
) -> None:
    data = (png_of if kind == "png" else jpeg_of)((30, 40, 3))
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(damaged(data, changes, 200, cut))
    refusal = read_or_refused(path)
    assert not refusal or str(path) in refusal


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["path", "axes", "scale", "type", "name", "wells", "images"]), inner
        )
    ),
    max_leaves=6,
)


@settings(max_examples=80)
@given(data=st.data(), value=JSON)
def test_metadata_of_zarr(
    tmp_path_factory: pytest.TempPathFactory, read_or_refused: Any, data: st.DataObject, value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.zarr"
    if not path.exists():
        with MultiscaleImage.create(path, type="uint8", level_shape=(2, 40, 50), mpp=1) as image:
            image.level(0)[...] = 7
        (path.parent / "whole.json").write_bytes((path / "zarr.json").read_bytes())
    whole = json.loads((path.parent / "whole.json").read_text())
    # Something else in the place of any part of the document.
    parent: Any = whole
    key: Any = "attributes"
    for _ in range(data.draw(st.integers(0, 6))):
        inside = parent[key]
        if not isinstance(inside, dict | list) or not inside:
            break
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        parent, key = inside, data.draw(st.sampled_from(keys))
    parent[key] = value
    (path / "zarr.json").write_text(json.dumps(whole))
    refusal = read_or_refused(path)
    assert not refusal or str(path) in refusal
