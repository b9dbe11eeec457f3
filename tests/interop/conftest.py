"""Images as we write them, with what every reader must find in them, and the check that it only reads.

What is expected never comes from the code under test: pixels are made or read here, and pyramids
are computed anew with plain numpy and loops.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import microtome as mt


@dataclass(frozen=True, slots=True)
class Written:
    """An image on disk and what must be found in it."""

    path: Path
    """Directory of the image."""
    shelf: Path
    """Folder above it that holds nothing else; nothing in it may change by a read."""
    name: str
    axes: str
    levels: tuple[NDArray[Any], ...]
    """Pixels of every level, finest first."""
    mpp: tuple[float, float]
    """Micrometres per pixel of the finest level, (y, x)."""
    channel_names: tuple[str, ...] | None = None
    """None without a channel axis."""
    is_labels: bool = False
    step: float | None = None
    """Micrometres from plane to plane; None without planes, or where nobody measured it."""

    def scale(self, level: int) -> tuple[float, ...]:
        """Return the pixel size of a level, an entry an axis: it doubles from level to level."""
        return self._along(lambda size: size * 2**level, 1.0, self.step or 1.0)

    def translation(self, level: int) -> tuple[float, ...]:
        """Return the centre of pixel 0 of a level: that of the block of pixels it stands for."""
        return self._along(lambda size: size * (2**level - 1) / 2, 0.0, 0.0)

    def _along(
        self, plane: Callable[[float], float], other: float, depth: float
    ) -> tuple[float, ...]:
        sizes = {axis: plane(size) for axis, size in zip("yx", self.mpp, strict=True)}
        return tuple({"z": depth, **sizes}.get(axis, other) for axis in self.axes)


def directory_digest(root: Path) -> str:
    """Return a SHA-256 over the names and contents of everything below a directory."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
        content = path.read_bytes() if path.is_file() else b""
        kind = "file" if path.is_file() else "directory"
        digest.update(f"{path.relative_to(root).as_posix()}\0{kind}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


@pytest.fixture
def digest() -> Callable[[Path], str]:
    return directory_digest


# ---------------------------------------------------------------- what a pyramid must be


def mean_pyramid(pixels: NDArray[Any], smallest: int) -> tuple[NDArray[Any], ...]:
    """Halve y and x until the larger is at most `smallest`: means, of integers rounded half up."""
    levels = [pixels]
    while max(levels[-1].shape[-2:]) > smallest:
        fine = levels[-1]
        wide = fine.astype(np.float64 if fine.dtype.kind == "f" else np.int64)
        counts = np.ones(fine.shape[-2:], wide.dtype)
        for axis in (-2, -1):
            starts = np.arange(0, fine.shape[axis], 2)
            wide = np.add.reduceat(wide, starts, axis=axis)
            counts = np.add.reduceat(counts, starts, axis=axis)
        mean = wide / counts if fine.dtype.kind == "f" else (2 * wide + counts) // (2 * counts)
        levels.append(mean.astype(fine.dtype))
    return tuple(levels)


def mode_pyramid(labels: NDArray[Any], smallest: int) -> tuple[NDArray[Any], ...]:
    """Halve y and x: the most frequent label, of a tie the smallest that is not background."""
    levels = [labels]
    while max(levels[-1].shape) > smallest:
        fine = levels[-1]
        coarse = fine[::2, ::2].copy()
        for row, column in np.ndindex(coarse.shape):
            block = fine[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            if (block != coarse[row, column]).any():
                votes = Counter(block.ravel().tolist())
                most = max(votes.values())
                tied = sorted(label for label, count in votes.items() if count == most)
                coarse[row, column] = next((label for label in tied if label), 0)
        levels.append(coarse)
    return tuple(levels)


# ---------------------------------------------------------------- the images


def _create(
    shelf: Path,
    pixels: NDArray[Any],
    axes: str,
    mpp: tuple[float, float],
    channel_names: Sequence[str] | None = None,
    *,
    is_labels: bool = False,
) -> Written:
    name = shelf.name
    # Three folders down: a reader that looks for a parent image finds only what is ours to check.
    path = shelf / "a" / "b" / f"{name}.ome.zarr"
    with mt.MultiscaleImage.create(
        path,
        type=pixels.dtype,
        level_shape=pixels.shape,
        data_axis_order=tuple(axes),
        has_channel_axis="c" in axes,
        channel_names=channel_names,
        mpp=mpp,
        kind="labels" if is_labels else "intensity",
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    levels = mode_pyramid(pixels, 256) if is_labels else mean_pyramid(pixels, 128)
    names = tuple(channel_names) if channel_names is not None else None
    return Written(path, shelf, name, axes, levels, mpp, names, is_labels)


def he_made(shelf: Path) -> Written:
    # Blocks of 2 x 2 equal pixels, so that halving the resolution must give exactly these.
    small = np.random.default_rng(1).integers(0, 256, (301, 217, 3), dtype=np.uint8)
    photograph = small.repeat(2, axis=0).repeat(2, axis=1)
    mt.ingest(
        photograph, cohort=shelf, tissue_id="t1", modality="he", axes="yxc", mpp=0.5, resolution=1.0
    )
    path = shelf / "he" / "1_0mpp" / "images" / "t1.ome.zarr"
    levels = mean_pyramid(small.transpose(2, 0, 1), 128)
    return Written(path, shelf, "t1", "cyx", levels, (1.0, 1.0), ("red", "green", "blue"))


def he_slide(shelf: Path, shared: Path) -> Written:
    import tifffile

    slide = shared / "wsi" / "cmu-1-small-region.svs"
    # At the slide's own resolution nothing is resampled, and tifffile says what every pixel is.
    mt.ingest(slide, cohort=shelf, tissue_id="cmu", modality="he", resolution=0.499)
    path = shelf / "he" / "0_499mpp" / "images" / "cmu.ome.zarr"
    levels = mean_pyramid(tifffile.imread(slide).transpose(2, 0, 1), 128)
    return Written(path, shelf, "cmu", "cyx", levels, (0.499, 0.499), ("red", "green", "blue"))


def mibi(shelf: Path, shared: Path) -> Written:
    import tifffile

    with tifffile.TiffFile(next((shared / "mibi").glob("fov8_RowNumber0*.tiff"))) as file:
        names = [str(page.tags["PageName"].value) for page in file.pages]
        pixels = np.stack([page.asarray() for page in file.pages])
    return _create(shelf, pixels[:, :601, :397], "cyx", (0.390625, 0.390625), names)


def mibi_cells(shelf: Path, shared: Path) -> Written:
    import tifffile

    cells = tifffile.imread(shared / "mibi" / "fov8_whole_cell_mask.tiff")
    labels = cells.reshape(cells.shape[-2:])[:999, :701].astype(np.uint32)
    return _create(shelf, labels, "yx", (0.390625, 0.390625), is_labels=True)


def multiplex(shelf: Path) -> Written:
    # More rows than a shard of this many channels holds, names as panels have them.
    pixels = np.random.default_rng(2).integers(0, 65536, (22, 1037, 261), dtype=np.uint16)
    names = ["CD3", "β-catenin", "HLA-DR, DP", "Cytoker_651((3356))Pr141", "H&E", "a/b"]
    names += [f"marker {index}" for index in range(len(names), 22)]
    return _create(shelf, pixels, "cyx", (0.377, 0.4), names)


def heat_map(shelf: Path) -> Written:
    pixels = np.random.default_rng(3).normal(size=(333, 257)).astype(np.float32)
    pixels[:3, :4] = np.nan  # where a model said nothing
    return _create(shelf, pixels, "yx", (0.5, 0.5))


def stack(shelf: Path) -> Written:
    pixels = np.random.default_rng(4).integers(0, 4096, (2, 5, 130, 201), dtype=np.uint16)
    return _create(shelf, pixels, "czyx", (0.25, 0.25), ["DAPI", "CD8"])


def tissue_mask(shelf: Path) -> Written:
    rows, columns = np.indices((601, 300))
    inside = np.hypot(rows - 290, columns - 140) < 133
    return _create(shelf, inside.astype(np.uint8), "yx", (1.0, 1.0), is_labels=True)


def cells(shelf: Path) -> Written:
    # Identifiers that do not fit 16 bits, in patches that no coarser pixel grid aligns with.
    identifiers = np.random.default_rng(5).integers(0, 2**32, (87, 100), dtype=np.uint32)
    identifiers[0, 0] = 2**32 - 1
    labels = identifiers.repeat(7, axis=0).repeat(3, axis=1)
    return _create(shelf, labels, "yx", (0.5, 0.5), is_labels=True)


def built_in_place(shelf: Path) -> Written:
    # Two and a half times a chunk, odd; the pyramid comes into an image that is there.
    pixels = np.random.default_rng(6).integers(0, 4096, (2, 3, 331, 203), dtype=np.uint16)
    path = shelf / "a" / "b" / f"{shelf.name}.ome.zarr"
    with mt.MultiscaleImage.create(
        path,
        type="uint16",
        level_shape=pixels.shape,
        coordinate_space=("x", "y", "z"),
        channel_names=["DAPI", "CD8"],
        mpp=0.25,
        z_spacing=1.5,
    ) as image:
        image["level0"][...] = pixels
    image.reopen("w").build_levels()
    image.close()
    levels = mean_pyramid(pixels, 128)
    return Written(path, shelf, shelf.name, "czyx", levels, (0.25, 0.25), ("DAPI", "CD8"), step=1.5)


def levels_added(shelf: Path) -> Written:
    pixels = np.random.default_rng(7).normal(size=(4, 257, 145)).astype(np.float32)
    levels = mean_pyramid(pixels, 128)
    path = shelf / "a" / "b" / f"{shelf.name}.ome.zarr"
    with mt.MultiscaleImage.create(
        path, type="float32", level_shape=pixels.shape, coordinate_space=("x", "y", "z"),
        has_channel_axis=False, mpp=(0.5, 0.25), z_spacing=2.0,
    ) as image:  # fmt: skip
        image["level0"].write((), pixels)
        image.add_new_level("half", shape=levels[1].shape).write((), levels[1])
    with mt.MultiscaleImage.open(path, "w") as image:
        image["quarter"] = levels[2]
        image["gone"] = levels[2][:, :3, :3].copy()
        del image["gone"]
        image.metadata["note"] = "levels added by hand"
    return Written(path, shelf, shelf.name, "zyx", levels, (0.5, 0.25), step=2.0)


_MADE = {
    make.__name__: make
    for make in (
        he_made, multiplex, heat_map, stack, tissue_mask, cells, built_in_place, levels_added,
    )
}  # fmt: skip
_REAL = {make.__name__: make for make in (he_slide, mibi, mibi_cells)}
NAMES = (*_MADE, *_REAL)
LABELS = ("tissue_mask", "cells", "mibi_cells")
IMAGES = tuple(name for name in NAMES if name not in LABELS)


@pytest.fixture(scope="session")
def write_image(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str], Written]:
    """Write an image by its name, once: every reader opens the same bytes."""

    @cache
    def write(name: str) -> Written:
        shared = request.getfixturevalue("shared_data") if name in _REAL else None
        shelf = tmp_path_factory.mktemp("written") / name
        return _MADE[name](shelf) if shared is None else _REAL[name](shelf, shared)

    return write


def _guarded(write: Callable[[str], Written], name: str) -> Iterator[Written]:
    written = write(name)
    before = directory_digest(written.shelf)
    yield written
    assert directory_digest(written.shelf) == before, f"a read changed {written.shelf}"


@pytest.fixture(params=NAMES)
def written(request: pytest.FixtureRequest, write_image: Callable[[str], Written]) -> Any:
    """Every image and label mask; the test fails if it leaves any of their bytes changed."""
    yield from _guarded(write_image, request.param)


@pytest.fixture(params=IMAGES)
def written_image(request: pytest.FixtureRequest, write_image: Callable[[str], Written]) -> Any:
    """Every image of intensities; guarded like `written`."""
    yield from _guarded(write_image, request.param)


@pytest.fixture(params=LABELS)
def written_labels(request: pytest.FixtureRequest, write_image: Callable[[str], Written]) -> Any:
    """Every label mask; guarded like `written`."""
    yield from _guarded(write_image, request.param)
