"""Orders by what a column says: exact shares, nothing twice where that is promised, any stretch alike."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError, OutOfRangeError, UnknownNameError
from microtome.loading import DrawnOrder, TileLoader, WeightedOrder

LABELS = np.asarray(["tumour"] * 10 + ["stroma"] * 70 + ["fat"] * 20)
RNG = np.random.default_rng(0)
LABELS = LABELS[RNG.permutation(LABELS.size)]


def drawn(order):
    return LABELS[order.rows(0, order.count)].tolist()


def test_classes_are_balanced_without_a_row_twice():
    order = DrawnOrder.by(LABELS, seed=4)
    assert Counter(drawn(order)) == {"tumour": 10, "stroma": 10, "fat": 10}
    assert order.shares == {"fat": 10, "stroma": 10, "tumour": 10}
    rows = order.rows(0, order.count)
    assert len(set(rows.tolist())) == order.count == 30
    assert order.over == 100


def test_over_epochs_all_rows_of_a_class_have_their_turn():
    order = DrawnOrder.by(LABELS, seed=4)
    seen = Counter()
    for epoch in range(7):
        seen.update(order.at(4, epoch).rows(0, 30).tolist())
    stroma = np.flatnonzero(LABELS == "stroma").tolist()
    assert [seen[row] for row in stroma] == [1] * 70


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"alpha": 1}, {"tumour": 10, "stroma": 70, "fat": 20}),
        ({"weights": {"tumour": 1, "fat": 1, "stroma": 0}}, {"tumour": 10, "fat": 10}),
        (
            {"weights": {"tumour": 1, "stroma": 3, "fat": 0}, "epoch_length": 40},
            {"tumour": 10, "stroma": 30},
        ),
        ({"replacement": True, "epoch_length": 300}, {"tumour": 100, "stroma": 100, "fat": 100}),
    ],
    ids=["as they are", "two alone", "weights", "replacement"],
)
def test_shares_are_those_of_the_rule(options, expected):
    assert Counter(drawn(DrawnOrder.by(LABELS, **options))) == expected


def test_temperature_lies_between():
    order = DrawnOrder.by(LABELS, alpha=0.5, epoch_length=60, replacement=True)
    found = Counter(drawn(order))
    weights = {name: count**0.5 for name, count in Counter(LABELS.tolist()).items()}
    for name, weight in weights.items():
        assert found[name] == pytest.approx(60 * weight / sum(weights.values()), abs=1)


def test_nobody_is_seen_more_often_than_the_quota_allows():
    patients = np.arange(100) % 9
    order = DrawnOrder.by(LABELS, alpha=1, patients=patients, patient_quota=2, seed=1)
    rows = order.rows(0, order.count)
    for label in np.unique(LABELS):
        own = rows[LABELS[rows] == label]
        assert max(Counter(patients[own].tolist()).values()) <= 2
    assert len(set(rows.tolist())) == rows.size


def test_any_stretch_is_a_part_of_the_whole():
    for order in (DrawnOrder.by(LABELS, seed=2), WeightedOrder(np.arange(100), seed=2)):
        whole = order.rows(0, order.count)
        assert np.array_equal(order.rows(7, 21), whole[7:21])
        assert not np.array_equal(order.at(2, 1).rows(0, order.count), whole)
        assert not np.array_equal(order.at(3, 0).rows(0, order.count), whole)
        assert np.array_equal(order.at(3, 0).at(2, 0).rows(0, order.count), whole)


def test_rows_come_as_often_as_they_weigh():
    weights = np.asarray([0, 1, 0, 2, 5, 0])
    found = np.bincount(WeightedOrder(weights, epoch_length=80_000).rows(0, 80_000), minlength=6)
    assert found[[0, 2, 5]].tolist() == [0, 0, 0]
    assert found[[1, 3, 4]] / 80_000 == pytest.approx(np.asarray([1, 2, 5]) / 8, abs=0.01)


def test_the_last_row_with_a_weight_is_the_last_that_is_drawn():
    # Numbers as unlike as these make the product round up to the sum.
    order = WeightedOrder([5e-324, 1e-300, 0, 0], epoch_length=5000)
    assert set(order.rows(0, 5000).tolist()) <= {0, 1}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_loader_follows_them(source_of, world_size):
    order = DrawnOrder.by(LABELS, seed=6, epoch=2, replacement=True, epoch_length=47)
    seen = []
    for rank in range(world_size):
        loader = TileLoader(source_of(100), 5, order=order, rank=rank, world_size=world_size)
        seen += [row for batch in loader for row in batch.region_spec["data_idx"].tolist()]
    assert sorted(seen) == sorted(order.rows(0, 47).tolist())
    loader.set_epoch(3)
    assert loader.batch_rows(0).tolist() == order.at(6, 3).rows(*span(loader, world_size)).tolist()


def span(loader, world_size):
    start = (world_size - 1) * loader.batch_size
    return start, start + loader.batch_size


WITH_GAPS = {
    "none": (["a", None, "b", "a", None, "b"], {"a": 2, "b": 2}),
    "nan": ([1.0, np.nan, 2.0, 1.0, np.nan, 2.0], {1.0: 2, 2.0: 2}),
    "both": (np.asarray(["a", float("nan"), "b", "a", None, "b"], object), {"a": 2, "b": 2}),
    "arrow": (pa.array(["a", None, "b", "a", None, "b"]), {"a": 2, "b": 2}),
    "dates": (
        np.asarray(["2020", "NaT", "2021", "2020", "NaT", "2021"], "M8[Y]").astype("M8[ns]"),
        None,
    ),
}


@pytest.mark.parametrize("kind", WITH_GAPS)
def test_rows_without_a_value_are_refused_or_left_out(source_of, kind):
    column, shares = WITH_GAPS[kind]
    with pytest.raises(InvalidInputError, match=r"2 of 6 rows have no value.*row 1 is.*'drop'"):
        DrawnOrder.by(column)
    order = DrawnOrder.by(column, missing="drop", seed=1)
    assert shares is None or order.shares == shares
    assert order.over == 6
    rows = [
        row
        for batch in TileLoader(source_of(6), 3, order=order)
        for row in batch.region_spec["data_idx"].tolist()
    ]
    assert sorted(rows) == [0, 2, 3, 5]


@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=40).filter(any),
    st.integers(0, 5),
)
def test_leaving_rows_out_draws_what_a_table_without_them_would(column, seed):
    there = [row for row, value in enumerate(column) if value is not None]
    whole = DrawnOrder.by(column, missing="drop", alpha=1, seed=seed)
    short = DrawnOrder.by([column[row] for row in there], alpha=1, seed=seed)
    assert whole.rows(0, whole.count).tolist() == [there[r] for r in short.rows(0, short.count)]


def test_rows_of_nobody_known_are_refused_or_left_out():
    patients = np.asarray(["p", None, "q", "p"], object)
    with pytest.raises(InvalidInputError, match="1 of 4 rows have no patient"):
        DrawnOrder.by([1, 1, 1, 1], patients=patients, patient_quota=1)
    order = DrawnOrder.by([1, 1, 1, 1], alpha=1, patients=patients, patient_quota=1, missing="drop")
    assert order.count == 2
    assert 1 not in order.rows(0, 2)


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (lambda: DrawnOrder.by([]), InvalidInputError, "one value a row"),
        (lambda: DrawnOrder.by(LABELS, alpha=2), InvalidInputError, "alpha must be"),
        (lambda: DrawnOrder.by(LABELS, weights={"bone": 1}), UnknownNameError, "bone"),
        (lambda: DrawnOrder.by(["a", "b"], weights={"a": 1}), InvalidInputError, r"\['b'\]; give"),
        (
            lambda: DrawnOrder.by(["a"], weights={"a": 1}, alpha=0.5),
            InvalidInputError,
            "values are weighted",
        ),
        (lambda: DrawnOrder.by(LABELS, epoch_length=101), InvalidInputError, "100 can be drawn"),
        (
            lambda: DrawnOrder.by(np.asarray(["a", 1.5], object), missing="drop"),
            InvalidInputError,
            "float, str",
        ),
        (lambda: DrawnOrder.by([None, None], missing="drop"), InvalidInputError, "nothing to draw"),
        (lambda: DrawnOrder.by(["a"], missing="keep"), InvalidInputError, "missing must be"),
        (lambda: DrawnOrder.by(LABELS, patients=[1]), InvalidInputError, "patients has one"),
        (lambda: WeightedOrder([1, -1]), InvalidInputError, "at least 0, got -1"),
        (lambda: WeightedOrder([1, np.nan, 1, None]), InvalidInputError, "nan in row 1.* 2 of 4"),
        (lambda: WeightedOrder(["a"]), InvalidInputError, "weights are numbers"),
        (lambda: WeightedOrder([0, 0]), InvalidInputError, "not all of them 0"),
        (lambda: WeightedOrder([[1]]), InvalidInputError, "one a row"),
        (lambda: WeightedOrder([1], 0), InvalidInputError, "epoch_length"),
        (lambda: WeightedOrder([1], seed=-1), InvalidInputError, "seed must"),
        (lambda: WeightedOrder([1]).rows(0, 2), OutOfRangeError, "not among the 1"),
    ],
    ids=[
        "empty",
        "alpha",
        "unknown",
        "silent",
        "twice said",
        "length",
        "types",
        "nothing",
        "missing",
        "patients",
        "negative",
        "nan",
        "text",
        "none",
        "shape",
        "draws",
        "seed",
        "outside",
    ],
)
def test_what_cannot_be_drawn_is_refused(make, error, named):
    with pytest.raises(error, match=named):
        make()
