"""The images of a known size that loaders are compared on, made once a run and in several layouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

import microtome as mt
from microtome.storage import Codec, Layout, image_layout

from .images import fluorescence_pixels

__all__ = ["Picture", "brightfield", "ingested", "multiplex", "panel", "slide"]

SIZE = 8192
PANEL, PANEL_SIZE = 40, 4096
SLIDE = 16_384
_ROWS = 2048
_JPEG_TILE = 256


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as `ingest` stores it, and the same pixels uncompressed.

    Parameters
    ----------
    path
        The OME-Zarr.
    flat
        The .npy file, (c, y, x).
    about
        What it is.
    """

    path: Path
    flat: Path
    about: str

    @property
    def pixels(self) -> NDArray[Any]:
        """The pixels, memory-mapped."""
        return np.load(self.flat, mmap_mode="r")

    @property
    def side(self) -> int:
        """Its height and width."""
        return self.pixels.shape[-1]

    def again(self, name: str, layout: Layout) -> Path:
        """Return the image in another layout, written where it is not there yet."""
        path = self.path.with_name(f"{self.path.name.partition('.')[0]}-{name}.ome.zarr")
        if not path.exists():
            _write(path, self.pixels, layout)
        return path

    def like_ingest(self, codec: Codec) -> Layout:
        """Return what `ingest` would store it as with another codec."""
        return image_layout("cyx", self.pixels.shape, codec=codec)


def multiplex(shared: Path) -> Picture:
    """Return 5 x 8192 x 8192 uint16: blurred spots in a field that varies slowly, and photon noise."""
    about = f"5 x {SIZE} x {SIZE} uint16, blurred spots and photon noise"
    return _made(shared, "multiplex", about, lambda: fluorescence_pixels(5, SIZE))


def panel(shared: Path) -> Picture:
    """Return 40 x 4096 x 4096 uint16, the like of `multiplex`.

    Five channels are made; the others are these, moved by some rows and columns, which chunks of a
    channel each know nothing of.
    """

    def pixels() -> NDArray[np.uint16]:
        made = fluorescence_pixels(5, PANEL_SIZE)
        return np.stack(
            [np.roll(made[n % 5], (331 * (n // 5), 197 * (n // 5)), (0, 1)) for n in range(PANEL)]
        )

    about = f"{PANEL} x {PANEL_SIZE} x {PANEL_SIZE} uint16, blurred spots and photon noise"
    return _made(shared, "panel", about, pixels)


def brightfield(shared: Path) -> Picture:
    """Return 3 x 16384 x 16384 uint8: a small real picture of stained tissue, mirrored again and again."""
    about = f"3 x {SLIDE} x {SLIDE} uint8, a small real picture of tissue (IHC), mirrored"
    return _made(shared, "brightfield", about, lambda: np.moveaxis(_tissue(), -1, 0))


def ingested(picture: Picture, cohort: Path) -> None:
    """Put a picture into a new cohort as its tissue t1, imaged by CODEX, all of which is tissue."""
    mt.ingest(
        picture.path,
        cohort=cohort,
        tissue_id="t1",
        modality="codex",
        resolution=0.5,
        channel_names=[f"C{number}" for number in range(len(picture.pixels))],
    ).close()
    mt.mask(cohort, method="whole")


def slide(shared: Path) -> Path:
    """Return the picture of `brightfield` as an SVS, JPEG of quality 80, 4:2:0, as scanners write them."""
    path = shared / "slide.svs"
    if path.exists():
        return path
    pixels = _tissue()
    options: dict[str, Any] = {
        "photometric": "ycbcr",
        "tile": (_JPEG_TILE, _JPEG_TILE),
        "compression": "jpeg",
        "compressionargs": {"level": 80},
        "subsampling": (2, 2),
        "metadata": None,
    }
    beside = path.with_suffix(".part")
    with tifffile.TiffWriter(beside) as tiff:
        for step in (1, 4, 16):
            text = f"Aperio Image Library v12\r\n{SLIDE}x{SLIDE} (256x256) JPEG/YCC Q=80|MPP = 0.25"
            tiff.write(pixels[::step, ::step], description=text, **options)
    return beside.rename(path)


def _tissue() -> NDArray[np.uint8]:
    from skimage.data import immunohistochemistry

    picture = immunohistochemistry()
    missing = [(0, SLIDE - size) for size in picture.shape[:2]]
    return np.pad(picture, [*missing, (0, 0)], mode="symmetric")


def _made(shared: Path, name: str, about: str, make: Any) -> Picture:
    found = Picture(shared / f"{name}.ome.zarr", shared / f"{name}.npy", about)
    if not found.flat.exists():
        beside = shared / f"{name}.part.npy"
        np.save(beside, make())
        beside.rename(found.flat)
    if not found.path.exists():
        _write(found.path, found.pixels, found.like_ingest("train"))
    return found


def _write(path: Path, pixels: NDArray[Any], layout: Layout) -> None:
    """Write an image without coarser levels, and name it when it is complete."""
    beside = path.with_name(f"part-{path.name}")
    with mt.MultiscaleImage.create(
        beside, type=pixels.dtype, level_shape=pixels.shape, mpp=0.5, layout=layout
    ) as image:
        for rows in _stretches(pixels.shape[1], layout):
            image["level0"][:, rows] = pixels[:, rows]
    beside.rename(path)


def _stretches(height: int, layout: Layout) -> Iterator[slice]:
    # Whole shards, each written once.
    unit = (layout.shard or layout.chunk)[1]
    step = -(-_ROWS // unit) * unit
    for row in range(0, height, step):
        yield slice(row, row + step)
