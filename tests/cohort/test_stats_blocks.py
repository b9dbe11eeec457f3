"""The blocks that statistics are counted in hold every pixel inside a mask once, whatever the chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtome.cohort.statistics import _chunked
from microtome.cohort.statistics._chunked import chunked_blocks
from microtome.errors import FormatError
from microtome.image import MultiscaleImage
from microtome.sources import open_image
from microtome.storage import StoredArray


def written(
    path: Path,
    pixels: np.ndarray,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None = None,
    compressor: Any = "auto",
) -> MultiscaleImage:
    """An OME-Zarr image of zarr-python's, whose first row of chunks is left out where it is zero."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    array = group.create_array(
        "0",
        shape=pixels.shape,
        dtype=pixels.dtype,
        chunks=chunks,
        shards=shards,
        compressors=compressor,
        fill_value=0,
    )
    array[...] = pixels
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    if pixels.ndim == 3:
        axes.insert(0, {"name": "c", "type": "channel"})
    scale = {"type": "scale", "scale": [1.0] * pixels.ndim}
    level = {"path": "0", "coordinateTransformations": [scale]}
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": "t", "axes": axes, "datasets": [level]}],
    }
    return open_image(path, mpp=1.0)


def gathered(image: MultiscaleImage, mask: MultiscaleImage) -> list[np.ndarray]:
    """The pixels of each channel inside the mask, sorted."""
    blocks = chunked_blocks(image, mask)
    assert blocks is not None
    found: list[list[np.ndarray]] = [[] for _ in range(image.nchannels)]
    for block in blocks:
        by_runs = np.zeros(block.inside.size, bool)
        for first, last in block.runs.tolist():
            by_runs[first:last] = True
        np.testing.assert_array_equal(by_runs, block.inside)
        for channel, row in zip(
            range(image.nchannels)[block.planes], block.pixels[:, block.inside], strict=True
        ):
            found[channel].append(row.copy())
    return [np.sort(np.concatenate([*parts, np.zeros(0, image.dtype)])) for parts in found]


def verify(image: MultiscaleImage, mask: MultiscaleImage, pixels: np.ndarray, where: Any) -> None:
    for mine, channel in zip(gathered(image, mask), pixels, strict=True):
        np.testing.assert_array_equal(mine, np.sort(channel[where]))


def masked(shape: tuple[int, int], seed: int, share: float) -> np.ndarray:
    """Rectangles, some pixels apart, and nothing on the left."""
    rng = np.random.default_rng(seed)
    where = rng.random(shape) < share / 10
    for _ in range(3):
        top, left = (rng.integers(0, size) for size in shape)
        where[top : top + rng.integers(1, 40), left : left + rng.integers(1, 40)] = share > 0
    where[:, : shape[1] // 4] = False
    return where


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.tuples(
        st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(1, 70)),
        st.tuples(st.integers(1, 5), st.integers(1, 32), st.integers(1, 32)),
        st.one_of(st.none(), st.tuples(*[st.integers(1, 3)] * 3)),
    ),
    dtype=st.sampled_from(["uint16", "float32"]),
    compressor=st.sampled_from(["auto", None]),
    most=st.sampled_from([1, 1 << 10, 1 << 14]),
    share=st.sampled_from([0.0, 0.3, 10.0]),
    seed=st.integers(0, 1 << 30),
)
def test_every_pixel_inside_once(
    tmp_path_factory: Any,
    sizes: tuple[Any, Any, Any],
    dtype: str,
    compressor: Any,
    most: int,
    share: float,
    seed: int,
) -> None:
    shape, chunk, times = sizes
    path = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 500, shape).astype(dtype)
    pixels[:, : shape[1] // 3] = 0
    shards = None if times is None else tuple(c * n for c, n in zip(chunk, times, strict=True))
    image = written(path / "i.zarr", pixels, chunk, shards, compressor)
    where = masked(shape[1:], seed, share)
    mask = written(path / "m.zarr", where.astype(np.uint8), (16, 16))
    with pytest.MonkeyPatch.context() as patch:
        # Small pieces, of parts of a few chunks; a chunk is one in any case.
        bytes_each = int(np.prod(chunk)) * pixels.itemsize
        for name in ("_BYTES", "_BYTES_OF_MANY"):
            patch.setattr(_chunked, name, max(most, bytes_each))
        patch.setattr(_chunked, "_SIDE", 40)
        verify(image, mask, pixels, where)


def image_of(path: Path, seed: int = 0) -> tuple[MultiscaleImage, MultiscaleImage, Any, Any]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 500, (3, 60, 70)).astype(np.uint16)
    where = masked((60, 70), seed, 3.0)
    image = written(path / "i.zarr", pixels, (1, 16, 16), (3, 32, 32))
    return image, written(path / "m.zarr", where.astype(np.uint8), (16, 16)), pixels, where


def test_chunks_that_only_the_engine_reads(tmp_path: Path, monkeypatch: Any) -> None:
    """What the quick reader gives up on midway is read all the same."""
    image, mask, pixels, where = image_of(tmp_path)
    quick, calls = StoredArray.read_boxes, []

    def sometimes(self: StoredArray, boxes: Any) -> bool:
        calls.append(len(boxes.low))
        return quick(self, boxes) and len(calls) == 1

    monkeypatch.setattr(StoredArray, "read_boxes", sometimes)
    verify(image, mask, pixels, where)
    assert len(calls) > 1


def test_arrays_that_only_the_engine_reads_are_read_as_before(
    tmp_path: Path, monkeypatch: Any
) -> None:
    image, mask, _, _ = image_of(tmp_path)
    monkeypatch.setattr(StoredArray, "read_boxes", lambda _, __: False)
    assert chunked_blocks(image, mask) is None


def test_a_damaged_chunk_is_told(tmp_path: Path) -> None:
    image, mask, _, where = image_of(tmp_path)
    assert where[32:, 32:64].any()
    file = tmp_path / "i.zarr" / "0" / "c" / "0" / "1" / "1"
    whole = bytearray(file.read_bytes())
    whole[: len(whole) // 2] = b"\xff" * (len(whole) // 2)
    file.write_bytes(whole)
    with pytest.raises(FormatError, match=r"i\.zarr"):
        list(chunked_blocks(image, mask) or ())


def test_chunks_outside_the_mask_are_not_read(tmp_path: Path) -> None:
    """A chunk without a pixel inside may be damaged, or on a disk that is slow: nobody asks for it."""
    image, _, _, _ = image_of(tmp_path)
    where = np.zeros((60, 70), np.uint8)
    where[20:30, 20:30] = 1
    mask = written(tmp_path / "m.zarr", where, (16, 16))
    blocks = [block.pixels.shape for block in chunked_blocks(image, mask) or ()]
    assert blocks == [(3, 16 * 16)]
