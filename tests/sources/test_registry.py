"""One registry finds the format of a path; arrays and open images go the same way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.coordinates import Mpp
from microtome.errors import FormatError, InvalidInputError, NoResolutionError
from microtome.image import MultiscaleImage
from microtome.sources import (
    SourceFormat,
    _registry,
    image_from_array,
    open_image,
    register_source,
    source_formats,
)

RNG = np.random.default_rng(11)


def opened_by_test(path: Path, *, mpp: Mpp | None) -> MultiscaleImage:
    """The opener of the format that the tests register."""
    pixels = np.frombuffer(path.read_bytes()[4:], np.uint8).reshape(2, 3)
    return image_from_array(pixels, axes="yx", mpp=mpp, uri=str(path), name="test")


@pytest.fixture
def registry_restored() -> Iterator[None]:
    before = list(_registry._FORMATS)
    yield
    _registry._FORMATS[:] = before


@pytest.mark.usefixtures("registry_restored")
def test_a_format_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("format_of_the_test")
    module.opened_by_test = opened_by_test  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "format_of_the_test", module)
    path = tmp_path / "a.own"
    path.write_bytes(b"OWN!" + bytes(range(6)))
    with pytest.raises(FormatError, match="no format that can be read"):
        open_image(path)
    register_source(
        SourceFormat(
            "our own",
            lambda _, head: head.startswith(b"OWN!"),
            "format_of_the_test:opened_by_test",
            (".own",),
        )
    )
    assert source_formats()[0].name == "our own"
    image = open_image(path, mpp=0.7)
    np.testing.assert_array_equal(image.level(0)[...], [[0, 1, 2], [3, 4, 5]])
    assert image.require_mpp() == Mpp(0.7, 0.7, "user")
    path.write_bytes(b"broken")
    with pytest.raises(FormatError, match=r"named like our own.*cut short"):
        open_image(path)


@pytest.mark.parametrize("axes", ["yxc", "cyx", "ycx", "xyc"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "bool", ">u2"])
def test_arrays_in_any_order_of_axes(axes: str, dtype: str, pixels_equal: Any) -> None:
    sizes = {"c": 4, "y": 31, "x": 23}
    array = RNG.integers(0, 200, [sizes[a] for a in axes]).astype(dtype)
    image = open_image(array, axes=axes, mpp=0.5)
    expected = array.transpose([axes.index(a) for a in "cyx"])
    assert image.axes == "cyx"
    assert image.level_shape(0) == (4, 31, 23)
    np.testing.assert_array_equal(image.level(0)[...], expected)
    np.testing.assert_array_equal(image.read(0, (3, 9), (4, 20)), expected[:, 3:9, 4:20])
    assert image.uri == "array"


def test_an_array_is_viewed_and_never_written() -> None:
    array = np.zeros((5, 6), np.uint8)
    image = open_image(array)
    array[2, 3] = 7
    assert image.level(0)[2, 3] == 7
    with pytest.raises(PermissionError):
        image.level(0)[...] = 1
    found = image.level(0)[...]
    found[...] = 99
    assert array[2, 3] == 7


def test_tensors_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)
    image = open_image(tensor, axes="cyx", mpp=1.0, channel_names=["a", "b"])
    np.testing.assert_array_equal(image.level(0)[...], np.arange(24).reshape(2, 3, 4))
    assert image.channel_names == ("a", "b")


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((3, 4, 5), None),
        ((3, 4), "yxc"),
        ((3, 4), "yy"),
        ((3, 4), "cx"),
        ((3, 4, 5), "yxq"),
        ((5,), "x"),
        ((), None),
    ],
)
def test_axes_that_do_not_fit(shape: tuple[int, ...], axes: str | None) -> None:
    with pytest.raises(InvalidInputError, match="axes="):
        open_image(np.zeros(shape), axes=axes)


@pytest.mark.parametrize("source", [np.array(["a"]), object(), np.zeros((3, 3), complex), None])
def test_what_is_no_picture(source: Any) -> None:
    with pytest.raises(InvalidInputError, match="an image holds numbers"):
        open_image(source)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0,), (3, 0, 4)])
def test_an_array_without_pixels(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="no pixels"):
        open_image(np.zeros(shape), axes="cyx"[-len(shape) :])


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf"), 1e9, "x", (1, 2, 3), (0.5, 0)])
def test_impossible_pixel_sizes(mpp: Any) -> None:
    with pytest.raises(InvalidInputError):
        open_image(np.zeros((3, 3)), mpp=mpp)


def test_an_array_without_a_pixel_size_has_none() -> None:
    image = open_image(np.zeros((3, 3)))
    assert image.mpp is None
    with pytest.raises(NoResolutionError):
        image.grid_at(Mpp(1.0, 1.0, "user"))


def test_an_open_image_is_returned_as_it_is() -> None:
    image = open_image(np.zeros((3, 3)))
    assert open_image(image) is image
    for options in ({"mpp": 1.0}, {"axes": "yx"}, {"channel_names": ["a"]}):
        with pytest.raises(InvalidInputError, match="open image"):
            open_image(image, **options)


def test_axes_are_for_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    stored(path)
    with pytest.raises(InvalidInputError, match="arrays only"):
        open_image(path, axes="yx")


def stored(path: Path) -> np.ndarray:
    pixels = RNG.integers(0, 65536, (2, 600, 500), dtype=np.uint16)
    with MultiscaleImage.create(
        path, type="uint16", level_shape=pixels.shape, mpp=0.5, channel_names=["a", "b"]
    ) as image:
        image.level(0)[...] = pixels
        image.build_levels()
    return pixels


def test_ome_zarr_in_place(tmp_path: Path, pixels_equal: Any) -> None:
    pixels = stored(tmp_path / "a.ome.zarr")
    image = open_image(str(tmp_path / "a.ome.zarr"))
    pixels_equal(image, pixels)
    assert image.channel_names == ("a", "b")
    assert image.require_mpp().y == 0.5


def test_the_users_word_goes_before_the_zarrs_at_every_level(tmp_path: Path) -> None:
    pixels = stored(tmp_path / "a.ome.zarr")
    own = MultiscaleImage.open(tmp_path / "a.ome.zarr")
    image = open_image(tmp_path / "a.ome.zarr", mpp=(0.3, 0.2))
    assert image.level_count == own.level_count > 1
    np.testing.assert_array_equal(image.level(0)[...], pixels)
    for index in range(image.level_count):
        mpp = image.level_mpp(index)
        assert (mpp.y, mpp.x) == pytest.approx((0.3 * 2**index, 0.2 * 2**index))
        level, before = image.level(index), own.level(index)
        ratios = [b / a for a, b in zip(before.scale[-2:], level.scale[-2:], strict=True)]
        expected = [t * r for t, r in zip(before.translation[-2:], ratios, strict=True)]
        assert list(level.translation[-2:]) == pytest.approx(expected)


def test_a_zarr_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(FormatError):
        open_image(tmp_path)
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(FormatError):
        open_image(tmp_path)
