"""The images that are measured on: a real one, and one made to be as hard to compress as real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import microtome as mt

__all__ = [
    "brightfield_image",
    "copy_flat",
    "fluorescence_image",
    "fluorescence_pixels",
    "real_image",
]

# Height and width of the demo's slide.
_SLIDE = (2967, 2220)
_BLOCK = 2048


def real_image(given: Path | None, work: Path) -> mt.MultiscaleImage:
    """Open the image to measure on as an OME-Zarr in our own layout.

    Parameters
    ----------
    given
        An OME-Zarr, taken as it is, or any other file that microtome opens, copied into one. None
        for the demo's slide where `make demo` was run, else for a picture from scikit-image.
    work
        Where a copy goes.
    """
    if given is None:
        ingested = sorted(Path("microtome-demo/cohort/he").glob("*/images/*.ome.zarr"))
        if not ingested:
            return brightfield_image(work / "immunohistochemistry.ome.zarr")
        given = ingested[0]
    if mt.MultiscaleImage.exists(given):
        return mt.MultiscaleImage.open(given)
    source = mt.open_image(given)
    path = work / f"{given.stem}.ome.zarr"
    with mt.MultiscaleImage.create(
        path,
        type=source.dtype,
        level_shape=source.level_shape(0),
        data_axis_order=source.data_axis_order,
        channel_names=source.channel_names,
        mpp=source.require_mpp(),
    ) as copy:
        for at in _blocks(source):
            copy["level0"][at] = source.level(0)[at]
    return mt.MultiscaleImage.open(path)


def brightfield_image(path: Path, size: tuple[int, int] = _SLIDE) -> mt.MultiscaleImage:
    """Make an RGB image, by default of the size of the demo's slide, of a small real one, mirrored."""
    from skimage.data import immunohistochemistry

    picture = np.moveaxis(immunohistochemistry(), -1, 0)
    missing = [(0, n - size) for n, size in zip(size, picture.shape[1:], strict=True)]
    return _written(path, np.pad(picture, [(0, 0), *missing], mode="symmetric"))


def fluorescence_image(path: Path, channels: int = 5, size: int = 4096) -> mt.MultiscaleImage:
    """Make a multiplex image: blurred spots in a field that varies slowly, and photon noise.

    The noise is what makes it hard to compress: zstd takes it to a bit more than half, as it does
    real immunofluorescence.
    """
    return _written(path, fluorescence_pixels(channels, size))


def fluorescence_pixels(channels: int, size: int) -> NDArray[np.uint16]:
    """Make the pixels of `fluorescence_image`, (c, y, x)."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    pixels = np.empty((channels, size, size), np.uint16)
    for channel in pixels:
        spots = np.zeros((size, size), np.float32)
        places = rng.integers(0, size, (2, size * size // 600))
        np.add.at(spots, tuple(places), rng.gamma(2, 40_000, places.shape[1]).astype(np.float32))
        field = ndimage.zoom(rng.random((9, 9), np.float32), size / 9, order=1)[:size, :size]
        expected = ndimage.gaussian_filter(spots, 5) * field + 40
        channel[...] = rng.poisson(expected).clip(0, 65_535)
    return pixels


def copy_flat(image: mt.MultiscaleImage, path: Path) -> Path:
    """Write the finest level as an uncompressed .npy file, block by block, and return its path."""
    level = image.level(0)
    flat = np.lib.format.open_memmap(path, mode="w+", dtype=level.dtype, shape=level.shape)
    for at in _blocks(image):
        flat[at] = level[at]
    flat.flush()
    return path


def _blocks(image: mt.MultiscaleImage) -> Iterator[tuple[Any, ...]]:
    level = image.level(0)
    for row in range(0, level.height, _BLOCK):
        for col in range(0, level.width, _BLOCK):
            yield ..., slice(row, row + _BLOCK), slice(col, col + _BLOCK)


def _written(path: Path, pixels: NDArray[np.generic]) -> mt.MultiscaleImage:
    with mt.MultiscaleImage.create(
        path, type=pixels.dtype, level_shape=pixels.shape, mpp=0.5
    ) as image:
        image["level0"][...] = pixels
    return mt.MultiscaleImage.open(path)
