"""`Stitcher` and `stitch_tiles`: any order of tiles gives the picture, each shard written once."""

from __future__ import annotations

import random
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import ExistsError, InvalidInputError, ModeError
from microtome.prediction import Stitcher, _mosaic, iter_tile_batches, stitch_tiles
from microtome.prediction._space import ArrayTarget
from microtome.sources import open_image
from microtome.storage import Layout
from microtome.tiling import plan_tiles

SMALL = Layout((1, 16, 16), (3, 32, 48), "fast")


def batches_of(image, plan, **options):
    return list(iter_tile_batches(image, plan, **options))


@settings(max_examples=80)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 60), st.integers(1, 60)),
    unit=st.tuples(st.integers(1, 25), st.integers(1, 25)),
    cuts=st.tuples(
        st.sets(st.integers(1, 59), max_size=6), st.sets(st.integers(1, 59), max_size=6)
    ),
    order=st.randoms(use_true_random=False),
    in_memory=st.sampled_from([0, 500, 10**9]),
)
def test_pieces_in_any_order_make_whole_units(shape, unit, cuts, order, in_memory):
    pixels = np.random.default_rng(0).integers(0, 255, (2, *shape), np.uint8)
    spans = [
        list(pairwise([0, *sorted(cut for cut in own if cut < size), size]))
        for own, size in zip(cuts, shape[1:], strict=True)
    ]
    pieces = [
        (sample, (y, x), pixels[sample, :, y:y1, x:x1])
        for sample in (0, 1)
        for y, y1 in spans[0]
        for x, x1 in spans[1]
    ]
    order.shuffle(pieces)
    out = np.full(pixels.shape, 77, np.uint8)
    written = np.zeros(pixels.shape, int)

    def expected(key):
        return np.prod(
            [
                sum(low < (number + 1) * step and high > number * step for low, high in along)
                for along, number, step in zip(spans, key[1:], unit, strict=True)
            ]
        )

    def write(key, box, values):
        (_, channels), (y0, y1), (x0, x1) = box
        assert channels == shape[0]
        assert (y0, x0) == (key[1] * unit[0], key[2] * unit[1])
        assert y1 == min(y0 + unit[0], shape[1])
        assert x1 == min(x0 + unit[1], shape[2])
        out[key[0], :, y0:y1, x0:x1] = values
        written[key[0], :, y0:y1, x0:x1] += 1
        mosaic.reuse(values)

    with pytest.MonkeyPatch.context() as patch:
        # What does not fit into this waits in a file.
        patch.setattr(_mosaic, "_WAITING_BYTES", in_memory)
        mosaic = _mosaic.Mosaic(shape, unit, expected, write, dtype=np.uint8)
        for piece in pieces:
            mosaic.paste(*piece)
    mosaic.close()
    np.testing.assert_array_equal(out, pixels)
    assert (written == 1).all()


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    tile=st.integers(4, 50),
    overlap=st.integers(0, 49),
    seed=st.integers(0, 1000),
)
def test_a_loop_of_ones_own_gives_the_picture(shape, tile, overlap, seed):
    pixels = np.random.default_rng(seed).integers(0, 2**16, (3, *shape), np.uint16)
    image = open_image(pixels, axes="cyx", mpp=0.5)
    plan = plan_tiles(shape, tile, min(overlap, tile - 1))
    batches = batches_of(image, plan, batch_size=5)
    random.Random(seed).shuffle(batches)
    writes = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        put = ArrayTarget.put
        patch.setattr(
            ArrayTarget,
            "put",
            lambda self, *a: (writes.append(a[0]), put(self, *a))[1],
        )
        with Stitcher(Path(folder) / "p", image, plan, layout=SMALL) as stitcher:
            for batch in batches:
                stitcher.add(batch._replace(data=batch.data.astype(np.float32) * 2))
            assert stitcher.tiles_done == len(plan)
            made = stitcher.finish()
        np.testing.assert_array_equal(made["level0"][...], pixels.astype(np.float32) * 2)
    # A shard is no longer than the chunks that the picture fills.
    unit = [min(s, -(-n // 16) * 16) for s, n in zip((32, 48), shape, strict=True)]
    assert (
        len(writes)
        == len(set(writes))
        == np.prod([-(-n // u) for n, u in zip(shape, unit, strict=True)])
    )
    np.testing.assert_array_equal(stitch_tiles(batches), pixels)


def test_tensors_are_taken_as_they_come(stored, tmp_path):
    torch = pytest.importorskip("torch")
    image = stored()
    plan = plan_tiles((70, 51), 32, 8)
    with Stitcher(tmp_path / "p", image, plan) as stitcher:
        for batch in iter_tile_batches(image, plan):
            answer = torch.from_numpy(batch.data).to(torch.bfloat16).requires_grad_()
            stitcher.add(batch._replace(data=answer))
        made = stitcher.finish()
    assert made.dtype == np.float32
    # bfloat16 holds 8 bits of every integer up to 256.
    np.testing.assert_array_equal(made["level0"][...], image["level0"][...])


def test_missing_tiles_are_an_error_and_nothing_is_written(stored, tmp_path):
    image = stored()
    plan = plan_tiles((70, 51), 32, 8)
    batches = batches_of(image, plan, batch_size=1)
    gone = batches.pop(4)
    stitcher = Stitcher(tmp_path / "p", image, plan)
    for batch in batches:
        stitcher.add(batch)
    place = tuple(int(v) for v in gone.region_spec["coords"][0])
    with pytest.raises(
        InvalidInputError,
        match=rf"1 of 6 tiles.*the first at \(row, col\) \({place[0]}, {place[1]}\)",
    ):
        stitcher.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    with pytest.raises(InvalidInputError, match="6 of 6 tiles are missing"):
        Stitcher(tmp_path / "p", image, plan).finish()
    with pytest.raises(InvalidInputError, match=r"tiles are missing: [0-9]+ of 3570"):
        stitch_tiles(batches)
    with pytest.raises(InvalidInputError, match="missing"):
        stitch_tiles([])


def test_leaving_the_block_without_finishing_removes_what_was_written(stored, tmp_path):
    image = stored()
    plan = plan_tiles((70, 51), 32, 8)
    with Stitcher(tmp_path / "p", image, plan) as stitcher:
        for batch in iter_tile_batches(image, plan):
            stitcher.add(batch)
        assert [path for path in tmp_path.iterdir() if "partial" in path.name]
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    with pytest.raises(ModeError, match="finished or discarded"):
        stitcher.add(batch)


def test_a_finished_stitcher_takes_nothing_more(stored, tmp_path):
    image = stored()
    plan = plan_tiles((70, 51), 80, 8)
    with Stitcher(tmp_path / "p", image, plan) as stitcher:
        (batch,) = iter_tile_batches(image, plan)
        stitcher.add(batch)
        stitcher.finish()
        with pytest.raises(ModeError):
            stitcher.finish()
        with pytest.raises(ModeError):
            stitcher.add(batch)
    with pytest.raises(ExistsError, match="choose another place or allow overwriting"):
        Stitcher(tmp_path / "p", image, plan)


def test_a_tile_that_comes_twice_is_refused(stored, tmp_path):
    image = stored()
    plan = plan_tiles((70, 51), 32, 8)
    first, *_ = batches_of(image, plan, batch_size=2)
    with Stitcher(tmp_path / "p", image, plan) as stitcher:
        stitcher.add(first)
        with pytest.raises(InvalidInputError, match=r"tile at \(row, col\) \(0, 0\) .* came twice"):
            stitcher.add(first)
    with pytest.raises(InvalidInputError, match="another tile has covered"):
        stitch_tiles([first, first])


def test_a_tile_of_another_plan_is_refused(stored, tmp_path):
    image = stored()
    (batch, *_) = batches_of(image, plan_tiles((70, 51), 32, 9), batch_size=1)
    stitcher = Stitcher(tmp_path / "p", image, plan_tiles((70, 51), 32, 16))
    with stitcher, pytest.raises(InvalidInputError, match="not a tile of the plan"):
        stitcher.add(batch)
    assert not (tmp_path / "p").exists()
    with pytest.raises(InvalidInputError, match=r"covers \(10, 10\)"):
        Stitcher(tmp_path / "p", image, plan_tiles((10, 10), 4, 0))


def test_two_images_are_not_stitched_into_one(stored):
    one, two = stored(name="one"), stored(name="two")
    plan = plan_tiles((70, 51), 40, 8)
    mixed = [*batches_of(one, plan, batch_size=1)[:2], *batches_of(two, plan, batch_size=1)[2:]]
    with pytest.raises(InvalidInputError, match="tiles of one image"):
        stitch_tiles(mixed)


def test_what_is_no_batch_of_tiles_is_refused(stored):
    image = stored()
    (batch,) = iter_tile_batches(image, plan_tiles((70, 51), 80, 8))
    spec = {key: batch.region_spec[key] for key in ("data_idx", "coords", "patch_size")}
    with pytest.raises(InvalidInputError, match=r"not a collated batch of tiles.*crop_coords"):
        stitch_tiles([batch._replace(region_spec=spec)])
