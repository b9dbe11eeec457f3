"""Plans of patches: pure functions of (seed, epoch, number), over shapes alone."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from microtome.errors import InvalidInputError, OutOfRangeError, UnknownNameError
from microtome.patching import (
    FixedPatching,
    FixedRandomPatching,
    Patching,
    RandomPatching,
    SelectedPatching,
    SequentialPatching,
    StratifiedPatching,
    TablePatching,
    TiledPatching,
    WholePatching,
    validation_split,
)
from microtome.regions import Windows
from microtome.tiling import TileTable, plan_tiles

SHAPES = [(2, 3, 100, 90), (1, 3, 64, 200), (3, 3, 64, 64)]
CUBES = [(1, 2, 20, 50, 40), (2, 2, 9, 33, 32)]

MAKERS: dict[str, Callable[..., Patching]] = {
    "random": lambda seed=0: RandomPatching(SHAPES, (32, 24), seed=seed),
    "fixed random": lambda seed=0: FixedRandomPatching(SHAPES, (32, 24), seed=seed),
    "stratified": lambda seed=0: StratifiedPatching(SHAPES, (32, 24), seed=seed),
    "sequential": lambda seed=0: SequentialPatching(SHAPES, (32, 24), (5, 3)),
    "tiled": lambda seed=0: TiledPatching(SHAPES, (32, 24), 7),
    "random 3D": lambda seed=0: RandomPatching(CUBES, (5, 16, 8), seed=seed),
    "stratified 3D": lambda seed=0: StratifiedPatching(CUBES, (5, 16, 8), seed=seed),
    "tiled 3D": lambda seed=0: TiledPatching(CUBES, (5, 16, 8), (1, 3, 2)),
}


def columns(patching: Patching, rows: np.ndarray, epoch: int = 0) -> np.ndarray:
    at = patching.windows(rows, epoch=epoch)
    assert at.sample is not None
    return np.column_stack([at.image, at.sample, at.start])


@pytest.mark.parametrize("name", MAKERS)
def test_a_patch_is_what_it_is_whoever_asks(name: str) -> None:
    patching = MAKERS[name]()
    rows = np.arange(len(patching))
    whole = columns(patching, rows, epoch=3)
    order = np.random.default_rng(0).permutation(rows)
    assert np.array_equal(columns(patching, order, epoch=3), whole[order])
    # What a worker gets: a copy, asked for its share in batches, forgets nothing of the rest.
    copy = pickle.loads(pickle.dumps(patching))
    for part in np.array_split(rows, 4)[::-1]:
        assert np.array_equal(columns(copy, part, epoch=3), whole[part])
    for row in rows[:: max(len(rows) // 7, 1)].tolist():
        spec = patching.get_patch_spec(row, epoch=3)
        assert [spec["data_idx"], spec["sample_idx"], *spec["coords"]] == whole[row].tolist()
        assert spec["patch_size"] == patching.patch_size


@pytest.mark.parametrize("name", MAKERS)
def test_patches_lie_in_their_samples(name: str) -> None:
    patching = MAKERS[name]()
    shapes = CUBES if "3D" in name else SHAPES
    for epoch in range(3):
        at = patching.windows(np.arange(len(patching)), epoch=epoch)
        assert at.sample is not None
        size = np.asarray([shape[2:] for shape in shapes])[at.image]
        assert (at.start >= 0).all()
        assert (at.start + patching.patch_size <= size).all()
        assert (at.sample < np.asarray([shape[0] for shape in shapes])[at.image]).all()


@pytest.mark.parametrize("name", MAKERS)
def test_indices_of_an_image_are_those_whose_windows_lie_in_it(name: str) -> None:
    patching = MAKERS[name]()
    images = patching.windows(np.arange(len(patching))).image
    for image in np.unique(images).tolist():
        assert list(patching.get_patch_indices(image)) == np.flatnonzero(images == image).tolist()


@pytest.mark.parametrize("name", ["random", "stratified", "random 3D"])
def test_epochs_and_seeds_draw_other_patches(name: str) -> None:
    rows = np.arange(len(MAKERS[name]()))
    first = columns(MAKERS[name](), rows)
    for other in (
        columns(MAKERS[name](), rows, epoch=1),
        columns(MAKERS[name](seed=1), rows),
    ):
        assert (first[:, 2:] != other[:, 2:]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("name", ["fixed random", "sequential", "tiled"])
def test_what_is_not_drawn_is_the_same_each_epoch(name: str) -> None:
    rows = np.arange(len(MAKERS[name]()))
    assert np.array_equal(columns(MAKERS[name](), rows), columns(MAKERS[name](), rows, epoch=5))


def test_random_patches_of_an_epoch_are_distinct_draws() -> None:
    # The peer's workers replay one stream: 64 patches have 16 places with four of them.
    patching = RandomPatching([(1, 1, 4000, 4000)], (500, 500))
    at = columns(patching, np.arange(64))
    assert len(np.unique(at, axis=0)) == 64


@pytest.mark.parametrize("make", [RandomPatching, StratifiedPatching])
def test_every_place_is_equally_likely(make: type[RandomPatching]) -> None:
    patching = make([(1, 1, 40, 31)], (16, 16), seed=5)
    rows = np.arange(len(patching))
    starts = np.concatenate([patching.windows(rows, epoch=e).start for e in range(1500)])
    counts = np.zeros((25, 16), np.int64)
    np.add.at(counts, (starts[:, 0], starts[:, 1]), 1)
    # Cells of a stratified plan differ by a place at most, so places do by 1 in 12.
    if make is StratifiedPatching:
        assert counts.min() > 0
        for half, places in ((counts[:12], 12 * 16), (counts[12:], 13 * 16)):
            assert half.sum() == pytest.approx(1500)
            assert stats.chisquare(half.ravel(), np.full(places, half.sum() / places)).pvalue > 0.01
    else:
        assert stats.chisquare(counts.ravel()).pvalue > 0.01


def test_random_numbers_of_patches_are_as_many_as_would_tile_the_samples() -> None:
    patching = RandomPatching(SHAPES, (32, 24))
    counts = [len(patching.get_patch_indices(i)) for i in range(3)]
    assert counts == [2 * 4 * 4, 2 * 9, 3 * 2 * 3]
    assert len(patching) == sum(counts)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(4, 60), st.integers(4, 60)), min_size=1, max_size=4
    ),
    st.tuples(st.integers(2, 20), st.integers(2, 20)),
    st.integers(0, 30),
)
def test_tiles_are_those_of_each_samples_own_plan(
    sizes: list[tuple[int, int, int]], tile: tuple[int, int], overlap: int
) -> None:
    shared = overlap % min(tile)
    shapes = [(s, 2, y, x) for s, y, x in sizes]
    patching = TiledPatching(shapes, tile, shared)
    rows = np.arange(len(patching))
    at, more = patching.windows(rows), patching.columns(rows)
    assert at.sample is not None
    row = 0
    for image, (samples, height, width) in enumerate(sizes):
        plan = plan_tiles((height, width), tile, shared)
        for sample in range(samples):
            part = slice(row, row + len(plan))
            assert (at.image[part] == image).all()
            assert (at.sample[part] == sample).all()
            assert np.array_equal(at.start[part], plan.coords)
            assert np.array_equal(more["stitch_coords"][part], plan.stitch)
            assert np.array_equal(more["crop_coords"][part], plan.crop)
            assert np.array_equal(more["crop_size"][part], plan.crop_size)
            assert (more["total_tiles"][part] == samples * len(plan)).all()
            row += len(plan)
    assert row == len(patching)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(8, 70), st.integers(8, 70)),
    st.tuples(st.integers(2, 8), st.integers(2, 8)),
    st.lists(st.tuples(st.integers(-5, 70), st.integers(-5, 70)), max_size=4),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_what_is_left_of_the_cells_is_every_place_that_touches_no_excluded_window(
    size: tuple[int, int],
    patch: tuple[int, int],
    holes: list[tuple[int, int]],
    hole: tuple[int, int],
) -> None:
    allowed = np.ones((size[0] - patch[0] + 1, size[1] - patch[1] + 1), np.bool_)
    for y, x in product(range(allowed.shape[0]), range(allowed.shape[1])):
        allowed[y, x] = not any(
            y < a + hole[0] and a < y + patch[0] and x < b + hole[1] and b < x + patch[1]
            for a, b in holes
        )
    exclude = Windows.of(0, np.asarray(holes, np.int64).reshape(-1, 2), hole)
    if not allowed.any():
        with pytest.raises(InvalidInputError, match="is left"):
            StratifiedPatching([(1, 1, *size)], patch, exclude=exclude)
        return
    patching = StratifiedPatching([(1, 1, *size)], patch, exclude=exclude)
    seen = np.zeros(allowed.shape, np.int64)
    strata = patching._strata
    for low, high in zip(strata.low, strata.high, strict=True):
        seen[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] += 1
    assert np.array_equal(seen, allowed.astype(np.int64))
    for epoch in range(3):
        start = patching.windows(np.arange(len(patching)), epoch=epoch).start
        assert allowed[start[:, 0], start[:, 1]].all()


def test_cells_are_drawn_from_in_proportion_to_their_probabilities() -> None:
    plain = StratifiedPatching([(1, 1, 230, 230)], (23, 23), seed=2)
    cells = plain.cells
    assert cells.grid == ((10, 10),)
    probabilities = np.where(cells.start[:, 0] < 100, 0.1, 1.0)
    patching = plain.with_probabilities(probabilities)
    assert len(patching) == np.ceil(probabilities.sum())
    counts = np.zeros(len(cells), np.int64)
    epochs = 400
    for epoch in range(epochs):
        start = patching.windows(np.arange(len(patching)), epoch=epoch).start
        inside = (start[:, None] >= cells.start) & (start[:, None] + 23 <= cells.stop)
        cell = inside.all(axis=2)
        assert (cell.sum(axis=1) == 1).all()
        counts += cell.sum(axis=0)
    expected = probabilities * len(patching) / probabilities.sum() * epochs
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected.max())
    assert counts[probabilities < 1].mean() == pytest.approx(expected[0], rel=0.05)


def test_a_stratified_epoch_meets_every_cell_once() -> None:
    patching = StratifiedPatching(SHAPES, (32, 24), seed=9)
    cells = patching.cells
    assert len(patching) == len(cells)
    for epoch in range(4):
        at = patching.windows(np.arange(len(patching)), epoch=epoch)
        assert np.array_equal(at.image, cells.image)
        assert (at.start >= cells.start).all()
        assert (at.start + patching.patch_size <= cells.stop).all()


@pytest.mark.parametrize("shapes", [SHAPES, CUBES], ids=["flat", "deep"])
def test_no_training_patch_touches_the_validation(shapes: list[tuple[int, ...]]) -> None:
    size = (16, 12) if shapes is SHAPES else (4, 8, 8)
    training, validation = validation_split(shapes, size, 9, seed=3)
    aside = validation.windows(np.arange(len(validation)))
    assert len(validation) == 9
    places = np.column_stack([aside.image, aside.sample, aside.start])
    assert len(np.unique(places, axis=0)) == 9
    for epoch in range(5):
        at = training.windows(np.arange(len(training)), epoch=epoch)
        same = (at.image[:, None] == aside.image) & (at.sample[:, None] == aside.sample)
        near = (np.abs(at.start[:, None] - aside.start) < size).all(axis=2)
        assert not (same & near).any()


def test_a_thousand_of_a_quarter_of_a_million_cells_set_aside_at_once() -> None:
    shapes = [(1, 1, 32768, 32768)]
    begin = time.process_time()
    training, validation = validation_split(shapes, (64, 64), 1000)
    assert time.process_time() - begin < 1  # 15 s when every cell was asked about every window
    assert len(validation) == 1000
    assert len(training.cells) == 512**2
    packed = pickle.dumps(training)
    assert len(packed) < 50_000  # of what it was made of; its boxes are 26 MiB
    rows = np.arange(0, len(training), 997)
    assert np.array_equal(columns(pickle.loads(packed), rows, 3), columns(training, rows, 3))


@pytest.mark.parametrize("kinds", [1, 2, 400], ids=lambda kinds: f"{kinds}-values")
def test_probabilities_travel_with_a_plan(kinds: int) -> None:
    plain = StratifiedPatching([(1, 1, 500, 500)], (10, 10), seed=4)
    values = np.random.default_rng(0).uniform(0.01, 0.9, kinds)
    patching = plain.with_probabilities(values[np.arange(len(plain.cells)) % kinds])
    copy = pickle.loads(pickle.dumps(patching))
    rows = np.arange(len(patching))
    assert len(copy) == len(patching) < len(plain)
    assert np.array_equal(columns(copy, rows, epoch=2), columns(patching, rows, epoch=2))


def test_a_validation_is_spread_in_proportion() -> None:
    shapes = [(1, 1, 400, 400), (1, 1, 200, 400), (1, 1, 100, 100)]
    _, validation = validation_split(shapes, (20, 20), 65)
    counts = np.bincount(validation.windows(np.arange(65)).image, minlength=3)
    assert np.abs(counts - 65 * np.asarray([400, 200, 25]) / 625).max() < 1


def test_a_split_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"no patch of .* is left"):
        validation_split([(1, 1, 32, 32)], (16, 16), 4)
    with pytest.raises(InvalidInputError, match="from 1 to 4"):
        validation_split([(1, 1, 32, 32)], (16, 16), 5)


@pytest.mark.parametrize("make", [RandomPatching, StratifiedPatching, SequentialPatching])
def test_an_image_smaller_than_a_patch_is_refused_or_hangs_over(make: type[RandomPatching]) -> None:
    shapes = [(1, 1, 50, 50), (1, 1, 10, 50)]
    with pytest.raises(InvalidInputError, match=r"smaller than a patch.*\[1\].*pad=True"):
        make(shapes, (16, 16))
    patching = make(shapes, (16, 16), pad=True)
    at = patching.windows(np.arange(len(patching)))
    small = at.start[at.image == 1]
    # Every patch holds the whole of the short axis.
    assert len(small)
    assert (small[:, 0] <= 0).all()
    assert (small[:, 0] + 16 >= 10).all()


def test_whole_samples_of_one_size_make_a_batch() -> None:
    patching = WholePatching(SHAPES)
    assert len(patching) == 6
    at = patching.windows([3, 4, 5])
    assert at.size == (64, 64)
    assert at.image.tolist() == [2, 2, 2]
    assert at.sample is not None
    assert at.sample.tolist() == [0, 1, 2]
    assert patching.get_patch_spec(2)["patch_size"] == (64, 200)
    with pytest.raises(InvalidInputError, match="one size"):
        patching.windows([0, 3])


def test_a_table_is_a_patching() -> None:
    table = TileTable.from_columns(
        {"tissue_id": ["b", "a", "b"], "row": [0, 5, 9], "col": [1, 2, 3]},
        tile_size=8,
        strategy="mine",
    )
    patching = TablePatching(table, {"a": 0, "b": 4})
    at = patching.windows([2, 1])
    assert at.image.tolist() == [4, 0]
    assert at.start.tolist() == [[9, 3], [5, 2]]
    assert list(patching.get_patch_indices(4)) == [0, 2]
    with pytest.raises(UnknownNameError, match=r"1 of 2 tissues.*'b'"):
        TablePatching(table, {"a": 0})


def test_fixed_patches_are_those_given() -> None:
    windows = Windows.of([0, 1], [[1, 2], [3, 4]], 8)
    patching = FixedPatching(windows)
    assert patching.windows([1]).start.tolist() == [[3, 4]]
    assert patching.get_patch_spec(1)["data_idx"] == 1


def test_few_fixed_patches_are_spread_over_the_samples() -> None:
    patching = FixedRandomPatching([(1, 1, 300, 300), (1, 1, 100, 300)], (10, 10), n_patches=12)
    assert np.bincount(patching.windows(np.arange(12)).image).tolist() == [9, 3]
    with pytest.raises(InvalidInputError, match="n_patches"):
        FixedRandomPatching([(1, 1, 30, 30)], (10, 10), n_patches=10)


def test_a_million_tiles_are_no_objects() -> None:
    patching = TiledPatching([(1, 1, 32768, 32768)], (64, 64), 32)
    assert len(patching) == 1023**2
    assert len(pickle.dumps(patching)) < 100_000
    at = patching.windows([len(patching) - 1])
    assert at.start.tolist() == [[32704, 32704]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: RandomPatching([], (8, 8)), "no images", id="no-images"),
        pytest.param(lambda: RandomPatching([(1, 9, 9)], (8, 8)), "SC", id="three-axes"),
        pytest.param(
            lambda: RandomPatching([(1, 1, 4, 9, 9)], (8, 8)), "3 spatial axes", id="deep"
        ),
        pytest.param(lambda: RandomPatching([(1, 1, 9, 9)], (0, 8)), "patch_size", id="zero"),
        pytest.param(lambda: RandomPatching([(1, 1, 9, 9)], (8, 8), seed=-1), "seed", id="seed"),
        pytest.param(
            lambda: SequentialPatching([(1, 1, 9, 9)], (8, 8), 8), "overlap", id="overlap"
        ),
        pytest.param(
            lambda: StratifiedPatching([(1, 1, 9, 9)], (8, 8), probabilities=[0.5, 1.5]),
            "probabilit",
            id="shape-of-probabilities",
        ),
        pytest.param(
            lambda: StratifiedPatching([(1, 1, 9, 9)], (8, 8), probabilities=[0]),
            "probability 0",
            id="nothing-left",
        ),
        pytest.param(
            lambda: StratifiedPatching([(1, 1, 9, 9)], (8, 8), exclude=Windows.of(1, [[0, 0]], 4)),
            "image 1, there are 1 images",
            id="excluded-elsewhere",
        ),
    ],
)
def test_bad_input_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_a_patch_that_does_not_exist_is_refused() -> None:
    patching = RandomPatching(SHAPES, (32, 24))
    with pytest.raises(OutOfRangeError, match="no patch"):
        patching.windows([len(patching)])
    with pytest.raises(OutOfRangeError, match="no image 3"):
        patching.get_patch_indices(3)


@pytest.mark.parametrize(
    "make",
    [
        lambda shapes: RandomPatching(shapes, (8, 8)),
        lambda shapes: FixedRandomPatching(shapes, (8, 8)),
        lambda shapes: StratifiedPatching(shapes, (8, 8)),
        lambda shapes: SequentialPatching(shapes, (8, 8)),
        lambda shapes: TiledPatching(shapes, (8, 8), 2),
        WholePatching,
        lambda shapes: SelectedPatching(SequentialPatching(shapes, (8, 8)), [0, 2]),
        lambda shapes: validation_split(shapes, (8, 8), 1)[0],
        lambda shapes: validation_split(shapes, (8, 8), 1)[1],
    ],
    ids=["random", "drawn", "strata", "grid", "tiles", "whole", "some", "training", "validation"],
)
def test_a_patching_wants_the_shapes_that_it_is_made_of(make: Callable[[Any], Patching]) -> None:
    patching = make([(1, 2, 40, 40), (3, 2, 40, 40)])
    patching.verify_shapes([(1, 7, 40, 40), (3, 7, 40, 40)])
    with pytest.raises(InvalidInputError, match="image 0 is 20 x 20, the patching is of 40 x 40"):
        patching.verify_shapes([(1, 2, 20, 20), (3, 2, 40, 40)])
    with pytest.raises(InvalidInputError, match=r"1 is 40 x 40, .* of 3 samples of 40 x 40"):
        patching.verify_shapes([(1, 2, 40, 40), (1, 2, 40, 40)])
    with pytest.raises(InvalidInputError, match="of 2 images, there are 3"):
        patching.verify_shapes([(1, 2, 40, 40), (3, 2, 40, 40), (1, 2, 40, 40)])


def test_windows_that_are_given_touch_their_images() -> None:
    patching = FixedPatching(Windows.of(0, [[0, 0], [-7, 30], [40, 2]], 8))
    patching.verify_shapes([(1, 1, 41, 41)])
    with pytest.raises(InvalidInputError, match=r"patch 2 begins at \(40, 2\), outside of image 0"):
        patching.verify_shapes([(1, 1, 40, 40)])


@pytest.mark.parametrize(
    "make",
    [
        lambda shape: RandomPatching(shape, (8, 8)),
        lambda shape: StratifiedPatching(shape, (8, 8)),
        WholePatching,
    ],
    ids=["random", "strata", "whole"],
)
def test_one_shape_is_no_list_of_shapes(make: Callable[[Any], Patching]) -> None:
    with pytest.raises(InvalidInputError, match="data_shapes are a list"):
        make((1, 1, 40, 40))


def test_a_patching_says_what_it_is() -> None:
    shapes = [(1, 1, 16, 24)]
    assert repr(TiledPatching(shapes, (8, 8))) == "TiledPatching(6 patches of 8 x 8)"
    assert repr(WholePatching([*shapes, (2, 1, 9, 9)])) == "WholePatching(3 samples)"
