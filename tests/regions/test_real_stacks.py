"""Real files read as stacks: a region is what numpy cuts of the whole, which others decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.io import imread

from microtome.regions import Windows, data_shape_of, read_regions, region_batch
from microtome.sources import open_stacks

# Pages of a TIFF, in its own order; a colour picture has its samples last.
FILES = {
    "wsi/cmu-1-small-region.svs": "YXC",
    "wsi/vectra.qptiff": "CYX",
    "mibi/fov8_RowNumber0_Depth_Profile0-MassCorrected-Filtered.tiff": "CYX",
    "mibi/fov8_whole_cell_mask.tiff": "YX",
    "imc/img/20210305_NE_mockData1_001.tiff": "CYX",
    "imc/masks/20210305_NE_mockData2_002.tiff": "YX",
    "ihc_mif/Lung1.png": "YXC",
}


def whole(path: Path, axes: str) -> np.ndarray:
    """All pixels in CYX."""
    if path.suffix == ".png":
        pixels = imread(path)[..., :3]
    else:
        with tifffile.TiffFile(path) as file:
            pixels = file.series[0].asarray()
    pixels = pixels[None] if axes == "YX" else pixels
    return np.moveaxis(pixels, -1, 0) if axes == "YXC" else pixels


def drawn(shape: tuple[int, ...], size: tuple[int, int], count: int) -> np.ndarray:
    """First pixels of windows over all edges and inside, and one of a window that lies outside."""
    generator = np.random.default_rng(sum(shape))
    high = np.asarray(shape[-2:]) + 5
    starts = generator.integers([-n - 5 for n in size], high, (count, 2))
    starts[0] = np.asarray(shape[-2:]) + 3
    return starts


def padded(pixels: np.ndarray, start: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """A window of the whole by numpy: each pixel looked up where it lies, or stands for."""
    at = []
    for first, count, length in zip(start.tolist(), size, pixels.shape[-2:], strict=True):
        places = np.arange(first, first + count)
        at.append(np.clip(places, 0, length - 1))
    window = pixels[:, at[0][:, None], at[1]]
    if mode == "edge":
        return window
    rows, columns = (
        (np.arange(first, first + count) == clipped)
        for first, count, clipped in zip(start.tolist(), size, at, strict=True)
    )
    return np.where(rows[:, None] & columns, window, 0)


@pytest.mark.parametrize("name", FILES)
def test_regions_of_a_real_file(shared_data: Path, name: str) -> None:
    path = shared_data / name
    pixels = whole(path, FILES[name])
    [stack] = open_stacks(path, FILES[name])
    assert data_shape_of(stack) == (1, *pixels.shape)
    size = (61, 47)
    starts = drawn(pixels.shape, size, 24)
    channels = sorted({len(pixels) - 1, 0}, reverse=True)
    windows = Windows.of(0, starts, size)
    for padding in (0, "edge"):
        batch = read_regions([stack], windows, channels=channels, padding=padding)
        assert batch.dtype == pixels.dtype.newbyteorder("=")
        for read, start in zip(batch, starts, strict=True):
            expected = padded(pixels[channels], start, size, str(padding))
            np.testing.assert_array_equal(read, expected)
    told = region_batch([stack], windows, batch, channels=channels)
    assert told.source == [str(path)] * len(starts)
    assert told.data_shape[1:] == [(n,) * len(starts) for n in (len(channels), *pixels.shape[1:])]


def test_a_folder_of_real_regions_and_their_masks(shared_data: Path) -> None:
    images = open_stacks(shared_data / "imc" / "img", suffix=".tiff", mpp=1.0)
    masks = open_stacks(str(shared_data / "imc" / "masks" / "*.tiff"), mpp=1.0)
    paths = sorted((shared_data / "imc" / "img").glob("*.tiff"))
    assert [image.uri for image in images] == [str(path) for path in paths]
    assert len(images) == len(masks) == 9
    size = (24, 30)
    windows = Windows.of(range(9), [drawn((60, 60), size, 9)[i] for i in range(9)], size)
    batch, labels = read_regions(images, windows), read_regions(masks, windows)
    assert labels.dtype.kind in "iu"
    for row, path in enumerate(paths):
        start = windows.start[row]
        np.testing.assert_array_equal(batch[row], padded(whole(path, "CYX"), start, size, "0"))
        mask = whole(path.parents[1] / "masks" / path.name, "YX")
        np.testing.assert_array_equal(labels[row], padded(mask, start, size, "0"))


def test_channels_of_a_real_file_as_samples_of_one_channel(shared_data: Path) -> None:
    path = shared_data / "mibi" / "fov8_RowNumber0_Depth_Profile0-MassCorrected-Filtered.tiff"
    pixels = whole(path, "CYX")
    with tifffile.TiffFile(path) as file:
        unnamed = not set(file.series[0].axes) & set("CTZ")
    if not unnamed:
        pytest.skip(f"{path.name} names its axes {file.series[0].axes}")
    [stack] = open_stacks(path, "SYX")
    assert data_shape_of(stack) == (22, 1, 1024, 1024)
    windows = Windows.of(0, [[-9, 1000], [500, 501]], (64, 64), sample=[21, 3])
    batch = read_regions([stack], windows)
    np.testing.assert_array_equal(batch[0], padded(pixels[21:], windows.start[0], (64, 64), "0"))
    np.testing.assert_array_equal(batch[1, 0], pixels[3, 500:564, 501:565])
