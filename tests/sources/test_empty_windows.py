"""Windows without pixels: an array of none, whatever the pixels are in."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome import MultiscaleImage
from microtome.errors import InvalidInputError
from microtome.image import ArrayStack
from microtome.sources import open_image, open_stacks

PLANES = np.random.default_rng(8).integers(0, 65536, (3, 40, 50), dtype=np.uint16)
COLOURS = (PLANES.transpose(1, 2, 0) >> 8).astype(np.uint8)


def _tiff(pixels: NDArray[Any], **options: Any) -> Callable[[Path], Any]:
    def write(folder: Path) -> Path:
        path = folder / "a.tif"
        tifffile.imwrite(path, pixels, **options)
        return path

    return write


def _npy(folder: Path) -> Path:
    np.save(folder / "a.npy", PLANES[0])
    return folder / "a.npy"


def _zarr_array(folder: Path) -> Any:
    del folder
    array = zarr.create_array({}, shape=(40, 50), chunks=(16, 16), dtype=np.uint16)
    array[:] = PLANES[0]
    return array


def _ome_zarr(folder: Path) -> Path:
    path = folder / "a.ome.zarr"
    with MultiscaleImage.create(
        path, type="uint16", level_shape=PLANES.shape, mpp=0.5, has_channel_axis=True
    ) as image:
        image.level(0)[...] = PLANES
    return path


SOURCES: dict[str, Callable[[Path], Any]] = {
    "strips": _tiff(PLANES, photometric="minisblack"),
    "strips, many": _tiff(PLANES, photometric="minisblack", rowsperstrip=7),
    "strips, zlib": _tiff(PLANES, photometric="minisblack", compression="zlib", rowsperstrip=7),
    "strips, zstd": _tiff(PLANES.astype(np.float32), photometric="minisblack", compression="zstd"),
    "strips, big-endian": _tiff(PLANES, photometric="minisblack", byteorder=">"),
    "tiles": _tiff(PLANES, photometric="minisblack", tile=(16, 32)),
    "tiles, lzw": _tiff(PLANES, photometric="minisblack", tile=(16, 32), compression="lzw"),
    "tiles, JPEG": _tiff(COLOURS, photometric="rgb", tile=(16, 32), compression="jpeg"),
    "colours, strips": _tiff(COLOURS, photometric="rgb"),
    "colours, apart": _tiff(PLANES, photometric="rgb", planarconfig="separate"),
    "one plane": _tiff(PLANES[0], photometric="minisblack"),
    "npy": _npy,
    "Zarr array": _zarr_array,
    "OME-Zarr": _ome_zarr,
    "memory": lambda _: PLANES[0],
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], MultiscaleImage]:
    @cache
    def open_one(name: str) -> MultiscaleImage:
        return open_image(SOURCES[name](tmp_path_factory.mktemp("source")))

    return open_one


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=30)
@given(
    y=st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted).map(tuple),
    x=st.integers(0, 50).map(lambda at: (at, at)),
    turned=st.booleans(),
    some=st.booleans(),
)
def test_an_empty_window_has_no_pixels(
    opened: Callable[[str], MultiscaleImage],
    name: str,
    y: tuple[int, int],
    x: tuple[int, int],
    *,
    turned: bool,
    some: bool,
) -> None:
    image = opened(name)
    if turned:
        y, x = (x[0] % 41, x[0] % 41), y
    lead = image.level(0).shape[:-2]
    channels = [2, 0] if some and lead else None
    found = image.read(0, y, x, channels=channels)
    expected = ((2,) if channels else lead) + (y[1] - y[0], x[1] - x[0])
    assert (found.shape, found.dtype) == (expected, image.dtype)
    assert image.level(0)[..., slice(*y), slice(*x)].shape == lead + expected[-2:]


@pytest.mark.parametrize("name", [name for name in SOURCES if "one" not in name])
def test_no_channels_have_no_pixels(opened: Callable[[str], MultiscaleImage], name: str) -> None:
    image = opened(name)
    if image.has_channel_axis:
        assert image.read(0, (0, 5), (2, 9), channels=[]).shape == (0, 5, 7)
        assert image.level(0)[1:1].shape == (0, 40, 50)
        read = image.read_spatial_region(0, (0, 0, 9, 5), channel_coords=[])
        assert read.data.shape == (0, 5, 9)
    else:
        with pytest.raises(InvalidInputError, match=r"no axis of channels, got channels=\[\]"):
            image.read(0, (0, 5), (2, 9), channels=[])


def test_axes_named_otherwise_have_empty_windows_as_well(tmp_path: Path) -> None:
    [stack] = open_stacks(_tiff(PLANES, photometric="minisblack")(tmp_path), "SYX")
    assert isinstance(stack, ArrayStack)
    assert stack.array.read(((0, 3), (4, 4), (0, 9))).shape == (3, 0, 9)


@pytest.mark.parametrize("name", ["strips", "tiles", "strips, zlib", "OME-Zarr", "npy"])
@pytest.mark.parametrize(
    ("y", "x"), [(None, (0, 5)), ((0, 5), 3), ((1, 2, 3), (4,)), ((0, 5.5), (0, 5)), ("ab", (0, 5))]
)
def test_what_is_no_interval_is_refused_in_words(
    opened: Callable[[str], MultiscaleImage], name: str, y: Any, x: Any
) -> None:
    with pytest.raises(InvalidInputError, match=r"two whole numbers each.*\(0, 40\) and \(0, 50\)"):
        opened(name).read(0, y, x)


def test_reversed_rows_are_told_apart_from_those_outside(
    opened: Callable[[str], MultiscaleImage],
) -> None:
    with pytest.raises(InvalidInputError, match=r"first before the last, got \(9, 5\)"):
        opened("tiles").read(0, (9, 5), (0, 5))
    with pytest.raises(InvalidInputError, match="do not lie inside"):
        opened("tiles").read(0, (5, 41), (0, 5))


def test_more_than_memory_is_refused_in_words(opened: Callable[[str], MultiscaleImage]) -> None:
    far = 1_000_000
    with pytest.raises(InvalidInputError, match="GiB of pixels were asked for"):
        opened("tiles").read_spatial_region(0, (-far, -far, far, far), pad=0)
