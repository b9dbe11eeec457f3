"""`iter_tile_batches`: every tile of the plan once, its pixels as numpy cuts them, its place told."""

from __future__ import annotations

import threading
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import FormatError, InvalidInputError, OutOfRangeError
from microtome.image import MultiscaleImage
from microtome.prediction import _batches, _order, iter_tile_batches
from microtome.regions import collate_regions, decollate_regions
from microtome.sources import open_image
from microtome.tiling import plan_tiles


def window(pixels, start, size):
    """Cut a window that may hang over the far edge, zeros outside."""
    out = np.zeros((len(pixels), *size), pixels.dtype)
    part = pixels[:, start[0] : start[0] + size[0], start[1] : start[1] + size[1]]
    out[:, : part.shape[1], : part.shape[2]] = part
    return out


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 120), st.integers(1, 120)),
    tile=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    overlap=st.integers(0, 1),
    batch_size=st.integers(1, 11),
    block_bytes=st.sampled_from([1, 3000, 10**9]),
)
def test_every_tile_comes_once_with_its_pixels(shape, tile, overlap, batch_size, block_bytes):
    pixels = np.random.default_rng(0).integers(0, 2**16, shape, np.uint16)
    image = open_image(pixels, axes="cyx", mpp=0.5)
    plan = plan_tiles(shape[1:], tile, overlap)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_order, "_BLOCKS", (64, 32, 16))
        patch.setattr(_order, "_BLOCK_BYTES", block_bytes)
        batches = list(iter_tile_batches(image, plan, batch_size=batch_size))
    sizes = [len(batch.source) for batch in batches]
    assert sizes[:-1] == [batch_size] * (len(batches) - 1)
    assert sum(sizes) == len(plan)
    seen = []
    for batch in batches:
        spec = batch.region_spec
        for row, start in enumerate(spec["coords"]):
            np.testing.assert_array_equal(batch.data[row], window(pixels, start, tile))
            keys = ("coords", "stitch_coords", "crop_coords", "crop_size")
            seen.append(tuple(int(value) for key in keys for value in spec[key][row]))
        assert spec["total_tiles"].tolist() == [len(plan)] * len(batch.source)
        assert spec["patch_size"].tolist() == [list(tile)] * len(batch.source)
    columns = np.hstack([plan.coords, plan.stitch, plan.crop, plan.crop_size])
    assert sorted(seen) == sorted(map(tuple, columns.tolist()))


def test_batches_are_the_collated_form_and_belong_to_the_caller(stored):
    image = stored(shape=(3, 70, 51), channel_names=["a", "b", "c"])
    plan = plan_tiles((70, 51), 32, 6)
    batches = list(iter_tile_batches(image, plan, channels=["c", "a"], batch_size=4))
    first = batches[0]
    assert first.source == [image.uri] * 4
    assert first.data_shape == [(1,) * 4, (2,) * 4, (70,) * 4, (51,) * 4]
    assert first.additional_metadata[0]["channel_names"] == ("c", "a")
    assert first.additional_metadata[0]["level"] == 0
    again = collate_regions(decollate_regions(first))
    assert again.source == first.source
    np.testing.assert_array_equal(again.data, first.data)
    assert not any(np.shares_memory(first.data, other.data) for other in batches[1:])


def test_a_coarser_level_is_read_from_that_level(stored):
    image = stored(shape=(2, 301, 200))
    level = image.level(-1)
    plan = plan_tiles(level.shape[1:], 64, 9)
    for batch in iter_tile_batches(image, plan, level=-1):
        for data, start in zip(batch.data, batch.region_spec["coords"], strict=True):
            np.testing.assert_array_equal(data, window(level[...], start, (64, 64)))
        assert batch.additional_metadata[0]["level"] == image.level_count - 1


@pytest.mark.parametrize("shape", [(6000, 4600), (4600, 6000), (2000, 9000)])
def test_tiles_come_shard_by_shard_four_of_a_level_after_another(shape):
    image = open_image(np.broadcast_to(np.uint8(0), shape), mpp=0.5)
    plan = plan_tiles(shape, 512, 64)
    starts = np.concatenate(
        [batch.region_spec["stitch_coords"] for batch in iter_tile_batches(image, plan)]
    )
    for level in range(4):
        shards = [key for key, _ in groupby(map(tuple, (starts // (2048 << level)).tolist()))]
        # None is come back to, whichever level it is of.
        assert len(shards) == len(set(shards))
        assert len(shards) == np.prod([-(-size // (2048 << level)) for size in shape])


def test_memory_grows_with_the_block_and_not_with_the_image(monkeypatch):
    """The reads, recorded: none is longer than a block and a tile."""
    sizes = []
    original = _batches.read_regions

    def read(images, windows, **options):
        sizes.append(windows.size)
        return original(images, windows, **options)

    monkeypatch.setattr(_batches, "read_regions", read)
    for channels, edge in ((1, 2048), (9, 1024)):
        pixels = np.broadcast_to(np.uint8(0), (channels, 3000, 9000))
        image = open_image(pixels, axes="cyx", mpp=0.5)
        sizes.clear()
        for _ in iter_tile_batches(image, plan_tiles((3000, 9000), 256, 32)):
            pass
        assert max(max(size) for size in sizes) <= edge + 256
        # In pixels read for pixels there are: chunks are decoded little more than once.
        assert sum(h * w for h, w in sizes) <= 1.35 * 3000 * 9000


def test_a_caller_that_stops_leaves_no_thread(stored):
    image = stored()
    batches = iter_tile_batches(image, plan_tiles((70, 51), 16, 4), batch_size=1)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("microtome-read")]


def test_a_damaged_chunk_is_an_error_of_the_caller_that_names_the_image(stored):
    image = stored(shape=(1, 300, 300))
    for chunk in (path for path in (image.level(0).array.path / "c").rglob("*") if path.is_file()):
        chunk.write_bytes(chunk.read_bytes()[:-10])
    again = MultiscaleImage.open(image.uri)
    with pytest.raises(FormatError, match=r"image\.ome\.zarr"):
        list(iter_tile_batches(again, plan_tiles((300, 300), 64, 8)))


def test_a_wrong_request_is_refused_at_once(stored):
    image = stored()
    plan = plan_tiles((70, 51), 16, 4)
    # Up to a tile more than the level is padding; less, or another level's, is not.
    for shape in ((69, 51), (70, 67)):
        with pytest.raises(InvalidInputError, match=rf"covers \({shape[0]}, {shape[1]}\)"):
            iter_tile_batches(image, plan_tiles(shape, 16, 4))
    with pytest.raises(InvalidInputError, match="batch_size"):
        iter_tile_batches(image, plan, batch_size=0)
    with pytest.raises(InvalidInputError, match="leaves none"):
        iter_tile_batches(image, plan, channels=slice(3, 3))
    with pytest.raises(OutOfRangeError):
        iter_tile_batches(image, plan, level=3)
