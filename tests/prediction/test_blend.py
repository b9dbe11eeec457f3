"""Blends, scales, planes and time points: what a plan promises holds for every one of them."""

from __future__ import annotations

import shutil
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.prediction import Stitcher, iter_tile_batches, predict, stitch_tiles
from microtome.prediction._blend import shares_of
from microtome.sources import open_image
from microtome.tiling import plan_tiles

BLENDS = ["crop", "linear", "gaussian", "none"]


def unchanged(batch):
    return batch


def drawn(rng, rank):
    """A random shape, tile and overlap."""
    shape = tuple(rng.integers(1, (40, 40, 9)[:rank][::-1] if rank == 3 else 60, rank).tolist())
    tile = tuple(rng.integers(1, 24, rank).tolist())
    overlap = tuple(int(rng.integers(0, max(1, (size + 1) // 2))) for size in tile)
    return shape, tile, overlap


def tiles_in_memory(pixels, shape, tile, overlap, size):
    image = open_image(pixels, axes="cyx" if len(shape) == 2 else "czyx", mpp=1.0)
    plan = plan_tiles(shape, tile, overlap)
    return plan, iter_tile_batches(image, plan, batch_size=size)


def test_the_identity_equals_the_input_for_ten_thousand_plans():
    """Of a few tiles an axis each, of any size, overlap and number in a batch, odd ones included."""
    for seed in range(10_000):
        rng = np.random.default_rng(seed)
        rank = 2 + seed % 2
        tile = rng.integers(1, (24, 24, 6)[:rank][::-1])
        overlap = rng.integers(0, tile)
        # Shorter than a tile, and up to two steps more.
        shape = rng.integers(1, tile + 2 * (tile - overlap) + 2)
        if rank == 3:
            shape[0] = max(2, shape[0])
        pixels = rng.integers(0, 2**16, (2, *shape), np.uint16)
        _, batches = tiles_in_memory(
            pixels, tuple(shape), tuple(tile), tuple(overlap), int(rng.integers(1, 12))
        )
        made = stitch_tiles(batches)
        assert made.dtype == pixels.dtype
        assert np.array_equal(made, pixels), (seed, shape, tile, overlap)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    rank=st.sampled_from([2, 3]),
    blend=st.sampled_from(BLENDS),
    factor=st.sampled_from([1, 2, 3]),
)
def test_shares_sum_to_one_everywhere(seed, rank, blend, factor):
    shape, tile, overlap = drawn(np.random.default_rng(seed), rank)
    plan = plan_tiles(shape, tile, overlap)
    scale = (Fraction(factor),) * rank
    made = tuple(size * factor for size in shape)
    for shares, length in zip(shares_of(plan, blend, scale, made), made, strict=True):
        total = np.zeros(length)
        for i, (start, low, high) in enumerate(
            zip(shares.starts, shares.low, shares.high, strict=True)
        ):
            whole = np.ones(high - start) if shares.weights is None else shares.weights[i]
            assert (whole > 0).all()
            total[low:high] += whole[low - start : high - start]
        np.testing.assert_allclose(total, 1, rtol=0, atol=1e-15)


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6), rank=st.sampled_from([2, 3]), blend=st.sampled_from(BLENDS))
def test_every_blend_of_the_identity_is_the_input(seed, rank, blend):
    rng = np.random.default_rng(seed)
    shape, tile, overlap = drawn(rng, rank)
    shape = (max(2, shape[0]), *shape[1:])
    pixels = rng.integers(0, 2**16, (2, *shape), np.uint16)
    plan, batches = tiles_in_memory(pixels, shape, tile, overlap, 7)
    np.testing.assert_array_equal(stitch_tiles(batches, plan=plan, blend=blend), pixels)


@pytest.mark.parametrize("blend", ["linear", "gaussian"])
def test_a_blend_is_the_weighted_mean_of_the_tiles(blend):
    """Against a plain sum over the whole picture, divided by the sum of the weights."""
    shape, tile, overlap = (90, 71), (32, 24), (9, 12)
    rng = np.random.default_rng(3)
    pixels = rng.random((2, *shape), np.float32)
    plan, batches = tiles_in_memory(pixels, shape, tile, overlap, 5)
    answers = rng.random((len(plan), 2, *tile)).astype(np.float32)

    def profile(size, shared):
        at = np.arange(size)
        if blend == "linear":
            return np.minimum(np.minimum(at + 1, size - at), shared)
        return np.exp(-0.5 * ((at - (size - 1) / 2) / (size / 8)) ** 2)

    weight = np.multiply.outer(*[profile(s, o) for s, o in zip(tile, overlap, strict=True)])
    total, weights = np.zeros((2, *shape)), np.zeros(shape)
    at = {tuple(coords): i for i, coords in enumerate(plan.coords.tolist())}
    given = []
    for batch in batches:
        rows = [at[tuple(coords)] for coords in batch.region_spec["coords"].tolist()]
        given.append(batch._replace(data=answers[rows]))
        for row in rows:
            y, x = plan.coords[row]
            total[:, y : y + 32, x : x + 24] += answers[row] * weight
            weights[y : y + 32, x : x + 24] += weight
    made = stitch_tiles(given, plan=plan, blend=blend)
    np.testing.assert_allclose(made, total / weights, atol=1e-6)


def test_none_takes_the_last_tile_in_the_order_of_the_plan():
    pixels = np.zeros((1, 60, 50), np.int32)
    plan, batches = tiles_in_memory(pixels, (60, 50), 20, 7, 3)
    at = {tuple(coords): i for i, coords in enumerate(plan.coords.tolist())}
    numbered, expected = [], np.zeros((1, 60, 50), np.int32)
    for batch in batches:
        rows = np.array([at[tuple(c)] for c in batch.region_spec["coords"].tolist()], np.int32)
        numbered.append(batch._replace(data=batch.data + rows[:, None, None, None]))
    for i, (y, x) in enumerate(plan.coords.tolist()):
        expected[:, y : y + 20, x : x + 20] = i
    np.testing.assert_array_equal(stitch_tiles(numbered, plan=plan, blend="none"), expected)
    with pytest.raises(InvalidInputError, match="needs the plan"):
        stitch_tiles(numbered, blend="none")
    with pytest.raises(InvalidInputError, match="blend must be one of crop"):
        stitch_tiles(numbered, plan=plan, blend="mean")


# ------------------------------------------------------------------ scales


@pytest.mark.parametrize("blend", BLENDS)
def test_a_model_that_doubles_equals_nearest_upsampling(stored, tmp_path, blend):
    image = stored(shape=(3, 131, 97), mpp=0.5, translation=(7.0, -2.0))
    made = predict(
        lambda batch: batch.repeat(2, -1).repeat(2, -2),
        image,
        tmp_path / "p",
        tile_size=32,
        overlap=9,
        blend=blend,
    )
    pixels = image["level0"][...]
    np.testing.assert_array_equal(made["level0"][...], pixels.repeat(2, 1).repeat(2, 2))
    assert made.mpp == Mpp(0.25, 0.25, image.mpp.source)
    # The centre of the first pixel lies a quarter of an old pixel before the old one's.
    assert made.level(0).translation == (0.0, 7.0 - 0.125, -2.0 - 0.125)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("shape", [(131, 97), (64, 32), (5, 200)])
def test_a_model_of_one_value_a_patch_equals_the_means_of_the_padded_image(
    stored, tmp_path, blend, shape
):
    image = stored(shape=(2, *shape), mpp=0.5)

    def patch_means(batch):
        b, c, y, x = batch.shape
        return batch.reshape(b, c, y // 8, 8, x // 8, 8).mean((3, 5), dtype=np.float32)

    made = predict(patch_means, image, tmp_path / "p", tile_size=32, overlap=6, blend=blend)
    padded = np.pad(image["level0"][...], [(0, 0), *((0, -size % 8) for size in shape)])
    np.testing.assert_allclose(made["level0"][...], patch_means(padded[None])[0], rtol=1e-6)
    assert made.mpp.y == 4.0
    assert made.level(0).translation == (0.0, 1.75, 1.75)
    assert made.metadata["microtome"]["prediction"]["overlap"] == [16, 16]


def test_a_scale_that_is_none_or_changes_is_refused(stored, tmp_path):
    image = stored(shape=(1, 140, 80))
    for wrong in (lambda b: b[..., 2:-2, 2:-2], lambda b: b[..., ::2], lambda b: b[..., :0]):
        with pytest.raises(InvalidInputError, match="the same whole number of times as many"):
            predict(wrong, image, tmp_path / "p", tile_size=32, overlap=4)
    with pytest.raises(InvalidInputError, match=r"must return \(7, C, 64, 64\)"):
        predict(
            lambda b: b.repeat(2, -1).repeat(2, -2) if len(b) == 8 else b,
            image,
            tmp_path / "p",
            tile_size=32,
            overlap=4,
        )


def test_a_whole_level_is_padded_to_what_the_model_needs(stored, tmp_path):
    image = stored(shape=(2, 70, 51))
    seen = []
    made = predict(
        lambda b: (seen.append(b.shape), b)[1],
        image,
        tmp_path / "p",
        tile_size=None,
        multiple_of=16,
    )
    assert seen == [(1, 2, 80, 64)]
    np.testing.assert_array_equal(made["level0"][...], image["level0"][...])
    with pytest.raises(InvalidInputError, match="multiple of multiple_of=16"):
        predict(unchanged, image, tmp_path / "q", tile_size=40, overlap=8, multiple_of=16)


# ------------------------------------------------------------------ planes and time points


@pytest.mark.parametrize("blend", BLENDS)
def test_planes_and_time_points_go_through(tmp_path, blend):
    pixels = np.random.default_rng(0).integers(0, 2**16, (3, 2, 7, 45, 38), np.uint16)
    image = open_image(pixels, axes="tczyx", mpp=0.5)
    made = predict(
        unchanged, image, tmp_path / "p", tile_size=(4, 16, 20), overlap=(1, 5, 7), blend=blend
    )
    assert made.axes == "tczyx"
    np.testing.assert_array_equal(made["level0"][...], pixels)


def test_time_points_are_pictures_of_their_own(tmp_path):
    """Series that the peer loses, or writes no file of (its defect no. 4)."""
    pixels = np.random.default_rng(0).integers(0, 2**16, (5, 41, 33), np.uint16)
    image = open_image(pixels, axes="tyx", mpp=0.5)
    made = predict(unchanged, image, tmp_path / "p", tile_size=16, overlap=5, batch_size=4)
    assert made.axes == "tcyx"
    np.testing.assert_array_equal(made["level0"][...][:, 0], pixels)
    whole = predict(unchanged, image, tmp_path / "w", tile_size=None)
    np.testing.assert_array_equal(whole["level0"][...][:, 0], pixels)


def test_labels_keep_every_bit(tmp_path):
    """Not float32, in which 2^24 + 1 becomes 2^24 (the peer's defect no. 12)."""
    labels = np.arange(2**24 - 50, 2**24 + 50 * 49, dtype=np.uint32).reshape(1, 50, 50)
    image = open_image(labels, axes="cyx", mpp=0.5)
    for blend in BLENDS:
        made = predict(unchanged, image, tmp_path / blend, tile_size=16, overlap=5, blend=blend)
        assert made.dtype == np.uint32
        np.testing.assert_array_equal(made["level0"][...], labels)


# ------------------------------------------------------------------ several images


def test_images_of_one_name_do_not_meet(stored, tmp_path):
    """a/0 and b/0, which overwrite each other in the peer (its defects no. 1 and 9)."""
    paths = []
    for number, folder in enumerate("ab"):
        path = tmp_path / folder / "0.ome.zarr"
        source = stored(shape=(1, 40 + number, 30), seed=number)
        with MultiscaleImage.create(
            path, type="uint8", level_shape=(1, 40 + number, 30), mpp=0.5
        ) as image:
            image["level0"][...] = source["level0"][...]
        paths.append(path)
        source.close()
        shutil.rmtree(tmp_path / "images")
    made = predict(unchanged, paths, tmp_path / "out", tile_size=16, overlap=4)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0-2.ome.zarr",
        "0.ome.zarr",
    ]
    for path, result in zip(paths, made.values(), strict=True):
        expected = MultiscaleImage.open(path)["level0"][...]
        np.testing.assert_array_equal(result["level0"][...], expected)
        # Nothing is written beside the source.
        assert [file.name for file in path.parent.iterdir()] == ["0.ome.zarr"]


# The device's, not the model's: what a model holds decides which run may go on.
ANSWERED = []


def failing_once(batch):
    ANSWERED.append(len(batch))
    if len(ANSWERED) == 4:
        raise RuntimeError("out of memory")
    return batch


def test_images_that_are_done_are_kept(stored, tmp_path):
    ANSWERED.clear()
    images = {name: stored(name=name, seed=seed) for seed, name in enumerate("xyz")}
    options = {"tile_size": 64, "overlap": 4, "batch_size": 1}
    with pytest.raises(RuntimeError):
        predict(failing_once, images, tmp_path / "out", **options)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.ome.zarr"]
    made = predict(failing_once, images, tmp_path / "out", **options)
    # Two tiles an image: the first was done, the others are.
    assert sum(ANSWERED[4:]) == 4
    assert list(made) == ["x", "y", "z"]
    for name, image in images.items():
        np.testing.assert_array_equal(made[name]["level0"][...], image["level0"][...])


def test_wrong_names_are_refused(stored, tmp_path):
    image = stored()
    with pytest.raises(InvalidInputError, match="no image to predict"):
        predict(unchanged, [], tmp_path / "out")
    with pytest.raises(InvalidInputError, match=r"without a directory, got '\.\./x'"):
        predict(unchanged, {"../x": image}, tmp_path / "out")
    with pytest.raises(InvalidInputError, match="which are no images"):
        predict(unchanged, {"x": image}, tmp_path / "out", mask={"y": np.ones((2, 2))})


# ------------------------------------------------------------------ tissue


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("fill", [0, 9])
def test_tiles_off_the_mask_are_not_predicted(stored, tmp_path, blend, fill):
    image = stored(shape=(2, 200, 150))
    mask = np.zeros((100, 75), bool)
    mask[30:50, 10:30] = True
    seen = []
    options = {"tile_size": 32, "overlap": 8, "blend": blend}
    made = predict(
        lambda b: (seen.append(len(b)), b)[1],
        image,
        tmp_path / "p",
        mask=mask,
        fill=fill,
        **options,
    )
    plan = plan_tiles((200, 150), 32, 8)
    kept = [
        mask[y // 2 : -(-(y + 32) // 2), x // 2 : -(-(x + 32) // 2)].any()
        for y, x in plan.coords.tolist()
    ]
    assert sum(seen) == sum(kept) < len(plan)
    record = made.metadata["microtome"]["prediction"]
    assert (record["skipped_tiles"], record["fill"]) == (len(plan) - sum(kept), fill)
    # A tile that is left out is as if the model had answered it with the fill value.
    with Stitcher(tmp_path / "s", image, plan, blend=blend) as stitcher:
        at = {tuple(coords): kept[i] for i, coords in enumerate(plan.coords.tolist())}
        for batch in iter_tile_batches(image, plan):
            for row, coords in enumerate(batch.region_spec["coords"].tolist()):
                if not at[tuple(coords)]:
                    batch.data[row] = fill
            stitcher.add(batch)
        expected = stitcher.finish()
    np.testing.assert_array_equal(made["level0"][...], expected["level0"][...])


def test_tissue_is_found_where_it_is(tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.full((3, 1500, 1300), 244, np.uint8)
    stain = np.array([150, 60, 140])[:, None, None]
    pixels[:, 300:800, 200:900] = stain + rng.integers(-20, 20, (3, 500, 700))
    slide = open_image(pixels, axes="cyx", mpp=1.0)
    made = predict(
        unchanged, slide, tmp_path / "p", tile_size=128, overlap=16, skip_empty=True, fill=244
    )
    # 500 x 700 of tiles that step by 112 are at most 7 x 9 of the 14 x 12.
    assert 14 * 12 - 7 * 9 <= made.metadata["microtome"]["prediction"]["skipped_tiles"] < 14 * 12
    np.testing.assert_array_equal(made["level0"][...], pixels)


def test_a_mask_that_does_not_fit_is_refused(stored, tmp_path):
    image = stored(shape=(2, 200, 150))
    with pytest.raises(InvalidInputError, match="does not cover"):
        predict(unchanged, image, tmp_path / "p", mask=np.ones((20, 100)))
    with pytest.raises(InvalidInputError, match="mask= must return an array"):
        predict(unchanged, image, tmp_path / "p", mask=lambda pixels: pixels)
    with pytest.raises(InvalidInputError, match=r"no tile of .* has tissue"):
        predict(unchanged, image, tmp_path / "p", mask=np.zeros((20, 15)))
    with pytest.raises(InvalidInputError, match="fill=-1 is no value of uint8"):
        predict(unchanged, image, tmp_path / "p", mask=lambda p: p[0] > 0, fill=-1)
