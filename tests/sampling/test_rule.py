"""How much of an epoch each cohort has: shares, quotas, and what happens with the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError
from microtome.sampling import CohortSampler, RowGroups, SamplingRule
from microtome.sampling._rule import UNITS, targets
from microtome.sampling._turns import _floor_sum, shares_of_epoch

SIZES = st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any)


def shares(sizes, epoch=0, seed=0, **rule):
    return CohortSampler(sizes, SamplingRule(**rule), seed=seed, epoch=epoch).shares.tolist()


# ------------------------------------------------------------------ the length of an epoch


def test_by_size_an_epoch_is_all_rows():
    assert shares([5, 0, 300, 1]) == [5, 0, 300, 1]


def test_equal_cohorts_end_with_the_smallest():
    assert shares([5, 40, 300], alpha=0) == [5, 5, 5]


def test_between_the_two_shares_are_in_proportion():
    # 10 : 20 : 40 for sizes 100 : 400 : 1600, until one of them has given all.
    assert shares([100, 400, 1600], alpha=0.5) == [100, 200, 400]


def test_weights_of_the_user_go_before_sizes():
    assert shares([100, 400, 1600], weights=[2, 1, 0]) == [100, 50, 0]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"cohort_quota": 7}, [5, 7, 7]),
        ({"cohort_quota": 7, "alpha": 0}, [5, 5, 5]),
        ({"cohort_quota": 3, "alpha": 0}, [3, 3, 3]),
        ({"cohort_quota": [0, 40, 2]}, [0, 40, 2]),
    ],
    ids=["at_most", "at_most_and_equal", "at_most_below_all", "exactly"],
)
def test_a_quota_for_cohorts(rule, expected):
    assert shares([5, 40, 300], **rule) == expected


def test_what_a_cohort_cannot_give_the_others_give_in_proportion():
    # Equal cohorts of an epoch of 45: 15 each, but the first has 5; the rest is 20 each.
    assert shares([5, 40, 300], alpha=0, epoch_length=45) == [5, 20, 20]
    # Weights 1 : 3 of the 40 that are left.
    assert shares([5, 400, 400], weights=[9, 1, 3], epoch_length=45) == [5, 10, 30]


def test_with_replacement_a_cohort_gives_more_than_it_has():
    assert shares([5, 40, 300], alpha=0, replacement=True) == [115, 115, 115]
    assert shares([5, 40], alpha=0, replacement=True, epoch_length=200) == [100, 100]
    assert shares([5, 40], replacement=True, cohort_quota=[60, 2]) == [60, 2]


def test_patients_bound_what_a_cohort_is_worth():
    # Patients of 1, 2 and 50 rows, at most 2 each: five rows an epoch; the other cohort has ten.
    cohorts = [RowGroups([0, 1, 3], [1, 2, 50]), RowGroups.all_of(10), RowGroups([4] * 1, [10])]
    assert shares(cohorts, patient_quota=2) == [5, 2, 2]
    assert shares(cohorts[:1], patient_quota=2, replacement=True) == [6]


# ------------------------------------------------------------------ rounding


@given(
    SIZES,
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.integers(1, 80),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
def test_every_epoch_has_its_length_and_every_cohort_its_share(sizes, alpha, length, epoch, seed):
    length = min(length, sum(sizes))
    found = shares(sizes, epoch, seed, alpha=alpha, epoch_length=length)
    assert sum(found) == length
    exact = by_bisection(length, [s**alpha if s else 0 for s in sizes], sizes)
    for share, size, aim in zip(found, sizes, exact, strict=True):
        assert 0 <= share <= size
        assert np.floor(aim - 1e-6) <= share <= np.ceil(aim + 1e-6)


def by_bisection(length, weights, caps):
    """The level at which a common factor of the weights, each up to its cap, makes the length."""
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        filled = sum(min(cap, middle * w) for cap, w in zip(caps, weights, strict=True))
        low, high = (middle, high) if filled < length else (low, middle)
    return [min(cap, high * w) for cap, w in zip(caps, weights, strict=True)]


@given(
    st.lists(st.integers(0, 5 * UNITS), min_size=1, max_size=5),
    st.integers(0, UNITS - 1),
    st.integers(0, 300),
)
def test_turns_before_an_epoch_are_those_of_the_epochs_before_it(parts, begin, epoch):
    parts.append(-sum(parts) % UNITS)
    by_epoch = [shares_of_epoch(parts, e, begin)[0] for e in range(epoch)]
    total = np.sum(by_epoch, axis=0, dtype=np.int64) if by_epoch else np.zeros(len(parts), np.int64)
    assert shares_of_epoch(parts, epoch, begin)[1] == total.tolist()


@given(st.integers(0, 60), st.integers(-(2**34), 2**34), st.integers(-(2**34), 2**34))
def test_a_sum_of_quotients(count, slope, begin):
    assert _floor_sum(count, slope, begin) == sum(
        (slope * i + begin) // UNITS for i in range(count)
    )


def test_no_cohort_is_too_small_to_be_drawn():
    # A share of 1/101 row: rounding to the nearest would leave it out for ever.
    sampler = CohortSampler([100, 10_000], SamplingRule(epoch_length=1), seed=3)
    given_ = np.array([sampler.at_epoch(e).shares for e in range(1010)])
    assert (given_.sum(axis=1) == 1).all()
    assert abs(given_[:, 0].sum() - 10) <= 2


@given(SIZES, st.integers(1, 50), st.integers(0, 3000))
def test_over_epochs_a_cohort_has_its_share_to_within_few_rows(sizes, length, epochs):
    length = min(length, sum(sizes))
    aims = targets(SamplingRule(epoch_length=length), sizes)
    _, before = shares_of_epoch(aims, epochs, 12345)
    for had, aim in zip(before, aims, strict=True):
        # Multiples of the golden ratio: a count is off by the logarithm of their number at most.
        assert abs(had - epochs * aim / UNITS) < 3 + np.log(1 + epochs)


# ------------------------------------------------------------------ the border


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"alpha": 1.5}, "alpha must be from 0 .* got 1.5"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"alpha": 0.5, "weights": [1, 2]}, "both say how cohorts are weighted"),
        ({"weights": [1, -1]}, "at least 0, got -1"),
        ({"weights": [1, float("inf")]}, "finite"),
        ({"weights": [0, 0]}, "not all of them 0"),
        ({"epoch_length": 0}, "epoch_length must be at least 1, got 0"),
        ({"epoch_length": 2.5}, "epoch_length must be a whole number, got 2.5"),
        ({"patient_quota": 0}, "patient_quota must be at least 1"),
        ({"cohort_quota": 0}, "cohort_quota must be at least 1"),
        ({"cohort_quota": [0, 0]}, "above 0 for one"),
        ({"cohort_quota": [1, 2], "epoch_length": 3}, "leave out alpha, weights and epoch_length"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(rule, message):
    with pytest.raises(InvalidInputError, match=message):
        SamplingRule(**rule)


@pytest.mark.parametrize(
    ("sizes", "rule", "message"),
    [
        ([], {}, "no cohorts"),
        ([0, 0], {}, "no rows to draw from"),
        ([3, 4], {"epoch_length": 8}, "an epoch of 8 rows, and 7 can be drawn for it; .*replace"),
        (
            [3, 4],
            {"epoch_length": 5, "cohort_quota": 2},
            "4 can be drawn for it; ask for fewer or raise the",
        ),
        ([3, 4], {"cohort_quota": [1, 5]}, "cohort 1 can give 4 rows an epoch, and .* is 5"),
        ([3, 4], {"cohort_quota": [1]}, "cohort_quota has 1 values for 2 cohorts"),
        ([3, 4], {"weights": [1, 2, 3]}, "weights has 3 values for 2 cohorts"),
        ([3, 0], {"weights": [1, 2]}, "cohort 1 has no rows to draw and weight 2"),
        ([3, 0], {"weights": [0, 1], "replacement": True}, "cohort 1 has no rows"),
        ([3, -1], {}, "cohort 1 has -1"),
        ([3], {"patient_quota": 2}, "whose rows are whose"),
    ],
)
def test_an_epoch_that_cannot_be_is_refused(sizes, rule, message):
    with pytest.raises(InvalidInputError, match=message):
        CohortSampler(sizes, SamplingRule(**rule))


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (([0, 4], [5, 2]), "row 4 lies in two runs"),
        (([0], [-1]), "at least 0"),
        (([0, 4], [1]), "one start, length and group each, got 2, 1 and 2"),
        (([0.5], [1]), "start must be integers"),
    ],
)
def test_runs_that_are_none_are_refused(runs, message):
    with pytest.raises(InvalidInputError, match=message):
        RowGroups(*runs)
