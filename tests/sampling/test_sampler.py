"""The draws themselves: exact quotas, one stream however it is cut, and as random as they claim."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.loading import BatchPlan
from microtome.sampling import CohortSampler, RowGroups, SamplingRule

# Small enough that a fair draw fails one test in a thousand; the seeds are fixed, so none does.
CHANCE = 1e-3


@st.composite
def groups(draw):
    """Runs of rows with gaps between them, of a few patients, in any order."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=7))
    gaps = draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    start, at = [], 0
    for length, gap in zip(lengths, gaps, strict=True):
        start.append(at + gap)
        at += gap + length
    patients = draw(st.lists(st.integers(-2, 3), min_size=len(lengths), max_size=len(lengths)))
    order = draw(st.permutations(range(len(lengths))))
    return RowGroups(
        [start[i] for i in order], [lengths[i] for i in order], [patients[i] for i in order]
    )


COHORTS = st.lists(groups(), min_size=1, max_size=4).filter(lambda found: any(map(len, found)))


def whole(sampler):
    cohort, row = sampler.rows(0, len(sampler))
    return list(zip(cohort.tolist(), row.tolist(), strict=True))


def patient_of(cohorts):
    """The patient of every row that may be drawn, by brute force."""
    return {
        (number, row): patient
        for number, rows in enumerate(cohorts)
        for start, length, patient in zip(rows.start, rows.length, rows.group, strict=True)
        for row in range(int(start), int(start + length))
    }


# ------------------------------------------------------------------ what an epoch holds


@given(COHORTS, st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_without_replacement_no_row_comes_twice(cohorts, alpha, seed, epoch):
    sampler = CohortSampler(cohorts, SamplingRule(alpha=alpha), seed=seed, epoch=epoch)
    found = whole(sampler)
    assert len(set(found)) == len(found) == len(sampler)
    assert set(found) <= set(patient_of(cohorts))
    if alpha == 1:
        assert set(found) == set(patient_of(cohorts))


@given(COHORTS, st.integers(1, 40), st.integers(1, 6), st.integers(0, 99), st.data())
def test_quotas_are_kept_in_every_epoch(cohorts, length, patients, seed, data):
    owner = patient_of(cohorts)
    sizes = Counter((number, patient) for (number, _), patient in owner.items())
    room = sum(min(patients, size) for size in sizes.values())
    rule = SamplingRule(
        alpha=data.draw(st.sampled_from([0.0, 0.7, 1.0])),
        patient_quota=patients,
        epoch_length=min(length, room),
    )
    sampler = CohortSampler(cohorts, rule, seed=seed)
    for epoch in range(6):
        found = whole(sampler.at_epoch(epoch))
        assert len(set(found)) == len(found) == min(length, room)
        drawn = Counter((number, owner[number, row]) for number, row in found)
        assert max(drawn.values()) <= patients
        by_cohort = Counter(number for number, _ in found)
        for number, share in enumerate(sampler.at_epoch(epoch).shares.tolist()):
            assert by_cohort[number] == share


@given(COHORTS, st.integers(1, 5), st.integers(0, 99))
def test_with_replacement_patients_have_their_quota_too(cohorts, patients, seed):
    owner = patient_of(cohorts)
    rule = SamplingRule(replacement=True, patient_quota=patients)
    for epoch in range(3):
        found = whole(CohortSampler(cohorts, rule, seed=seed, epoch=epoch))
        drawn = Counter((number, owner[number, row]) for number, row in found)
        # All of them have their turns in an epoch that is as long as it can be.
        assert set(drawn.values()) == {patients}


# ------------------------------------------------------------------ from epoch to epoch


@given(COHORTS, st.integers(1, 30), st.integers(0, 99))
def test_all_rows_are_visited_before_any_is_again(cohorts, length, seed):
    owner = patient_of(cohorts)
    rule = SamplingRule(epoch_length=min(length, len(owner)))
    sampler, seen = CohortSampler(cohorts, rule, seed=seed), Counter()
    for epoch in range(12):
        seen.update(whole(sampler.at_epoch(epoch)))
        for number in range(len(cohorts)):
            counts = [seen[key] for key in owner if key[0] == number]
            if counts:
                assert max(counts) - min(counts) <= 1


@given(COHORTS, st.integers(1, 30), st.integers(1, 4), st.integers(0, 99))
def test_a_patients_rows_are_visited_in_turn(cohorts, length, patients, seed):
    owner = patient_of(cohorts)
    sizes = Counter((number, patient) for (number, _), patient in owner.items())
    room = sum(min(patients, size) for size in sizes.values())
    rule = SamplingRule(epoch_length=min(length, room), patient_quota=patients)
    sampler, seen = CohortSampler(cohorts, rule, seed=seed), Counter()
    for epoch in range(12):
        seen.update(whole(sampler.at_epoch(epoch)))
        for person in sizes:
            counts = [seen[key] for key in owner if (key[0], owner[key]) == person]
            assert max(counts) - min(counts) <= 1
    # Patients of a cohort with as many turns have had them equally often.
    for number in range(len(cohorts)):
        for turns in range(1, patients + 1):
            had = [
                sum(seen[key] for key in owner if (key[0], owner[key]) == person)
                for person, size in sizes.items()
                if person[0] == number and min(size, patients) == turns
            ]
            if had:
                assert max(had) - min(had) <= turns


def test_rounds_differ_in_order_where_they_may():
    # Ten epochs of 10 rows are one round of 100: the next has the same rows in other epochs.
    sampler = CohortSampler([100], SamplingRule(epoch_length=10), seed=4)
    first = [{row for _, row in whole(sampler.at_epoch(e))} for e in range(20)]
    assert set().union(*first[:10]) == set().union(*first[10:]) == set(range(100))
    assert not any(one == two for one in first[:10] for two in first[10:])


# ------------------------------------------------------------------ one stream


SAMPLERS = st.builds(
    CohortSampler,
    COHORTS,
    st.builds(
        SamplingRule,
        alpha=st.sampled_from([0.0, 0.5, 1.0]),
        patient_quota=st.sampled_from([None, 1, 3]),
        replacement=st.booleans(),
    ),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
)


@given(SAMPLERS, st.data())
def test_any_part_of_an_epoch_is_that_part(sampler, data):
    found = whole(sampler)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sampler)), max_size=5)))
    edges = [0, *cuts, len(sampler)]
    parts = [sampler.rows(a, b) for a, b in pairwise(edges)]
    cohort, row = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    assert list(zip(cohort.tolist(), row.tolist(), strict=True)) == found
    order = np.asarray(data.draw(st.permutations(range(len(sampler)))), np.int64)
    cohort, row = sampler.at(order)
    assert list(zip(cohort.tolist(), row.tolist(), strict=True)) == [found[i] for i in order]


@given(SAMPLERS, st.integers(1, 9), st.integers(1, 4))
def test_ranks_together_draw_the_epoch(sampler, batch, world):
    try:
        plans = [BatchPlan(len(sampler), batch, rank, world) for rank in range(world)]
    except InvalidInputError:  # too few rows for so many ranks
        return
    seen = [None] * len(sampler)
    for plan in plans:
        for step in range(len(plan)):
            start, stop = plan.span(step)
            cohort, row = sampler.rows(start, stop)
            seen[start:stop] = zip(cohort.tolist(), row.tolist(), strict=True)
    assert seen == whole(sampler)


@given(SAMPLERS, st.integers(0, 2**32 - 1))
def test_another_epoch_is_as_if_made_anew(sampler, epoch):
    anew = CohortSampler(sampler.counts, sampler.rule, seed=sampler.seed, epoch=epoch)
    assert whole(sampler.at_epoch(epoch)) == whole(anew)


STREAMS = [
    [(0, 1), (0, 7), (1, 0), (0, 5), (0, 3), (1, 1), (0, 2), (0, 8)],
    [(1, 0), (0, 2), (1, 1), (0, 0), (0, 7), (0, 5)],
    [(0, 3), (0, 8), (0, 2), (0, 3), (0, 0), (0, 0), (1, 1), (1, 1)],
]


def test_the_streams_of_this_version_are_those_of_every_version():
    # A checkpoint of a training run is worth nothing once these change.
    cohorts = [RowGroups([0, 5], [5, 4], [1, 2]), RowGroups([0], [3])]
    one = CohortSampler(cohorts, SamplingRule(epoch_length=8), seed=0)
    two = CohortSampler(cohorts, SamplingRule(patient_quota=2), seed=7, epoch=3)
    three = CohortSampler(cohorts, SamplingRule(replacement=True, epoch_length=8), seed=2**40)
    assert [whole(one), whole(two), whole(three)] == STREAMS


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"seed": 2**32}, {"epoch": 2**31}])
@pytest.mark.parametrize("replacement", [False, True])
def test_seeds_and_epochs_have_nothing_in_common(replacement, other):
    rule = SamplingRule(replacement=replacement)
    one = whole(CohortSampler([2000, 3000], rule))
    two = whole(CohortSampler([2000, 3000], rule, **other))
    # One pair in 2000 or 3000 agrees by chance.
    assert sum(a == b for a, b in zip(one, two, strict=True)) < 12


def test_numpy_and_its_generators_are_left_alone():
    np.random.seed(5)  # noqa: NPY002 - the global one is what must not be touched
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    whole(CohortSampler([50, 60], SamplingRule(replacement=True)))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


# ------------------------------------------------------------------ as random as they claim


def test_every_cohort_is_as_likely_at_every_position():
    sampler = CohortSampler([30, 60, 10], SamplingRule(), seed=2)
    table = np.zeros((10, 3))
    for epoch in range(300):
        cohort, _ = sampler.at_epoch(epoch).rows(0, 100)
        np.add.at(table, (np.arange(100) // 10, cohort), 1)
    expected = np.outer(np.full(10, 300 * 10), [0.3, 0.6, 0.1])
    # Rows and columns have fixed sums: 9 x 2 of the 30 numbers are free.
    assert stats.chi2.sf(((table - expected) ** 2 / expected).sum(), 18) > CHANCE


def test_all_orders_of_few_rows_are_equally_frequent():
    sampler = CohortSampler([2, 2], SamplingRule(), seed=9)
    seen = Counter(tuple(whole(sampler.at_epoch(e))) for e in range(4800))
    rows = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert stats.chisquare([seen[p] for p in permutations(rows)]).pvalue > CHANCE


def test_draws_with_replacement_are_uniform_and_independent():
    sampler = CohortSampler([40, 7], SamplingRule(replacement=True, epoch_length=47_000), seed=1)
    cohort, row = sampler.rows(0, len(sampler))
    assert np.bincount(cohort).tolist() == [40_000, 7000]
    for number, count in enumerate((40, 7)):
        found = row[cohort == number]
        assert stats.chisquare(np.bincount(found, minlength=count)).pvalue > CHANCE
        # What follows a row says nothing about it.
        pairs = np.bincount(found[:-1] * count + found[1:], minlength=count**2)
        assert stats.chisquare(pairs).pvalue > CHANCE
    # A row is drawn as often as in a urn with the ball put back: Poisson, not once each.
    large = CohortSampler([10_000], SamplingRule(replacement=True), seed=1)
    times = np.bincount(np.bincount(large.rows(0, 10_000)[1], minlength=10_000), minlength=6)
    expected = 10_000 * stats.poisson.pmf(np.arange(6), 1)
    expected[5] = 10_000 - expected[:5].sum()
    grouped = np.append(times[:5], times[5:].sum())
    assert stats.chisquare(grouped, expected).pvalue > CHANCE


def test_part_of_a_cohort_is_any_part_of_it():
    first = Counter()
    for seed in range(900):
        first.update(whole(CohortSampler([30], SamplingRule(epoch_length=10), seed=seed)))
    # Ten of thirty without replacement: counts vary less than those of independent draws.
    observed = np.array([first[0, row] for row in range(30)])
    statistic = ((observed - 300) ** 2 / 300).sum() / (1 - 10 / 30) * 29 / 30
    assert stats.chi2.sf(statistic, 29) > CHANCE


def test_who_of_the_patients_is_drawn_is_chance():
    rows = RowGroups([0, 4, 8, 12, 16, 20], [4] * 6)
    seen = np.zeros(24)
    for seed in range(1200):
        sampler = CohortSampler([rows], SamplingRule(patient_quota=2, epoch_length=3), seed=seed)
        seen[sampler.rows(0, 3)[1]] += 1
    # Three of six patients have a turn, with any of four rows: 150 a row. The counts of patients
    # vary half as much as independent ones.
    patients = seen.reshape(6, 4).sum(axis=1)
    assert stats.chi2.sf(((patients - 600) ** 2 / 600).sum() / (1 - 3 / 6) * 5 / 6, 5) > CHANCE
    assert stats.chi2.sf(((seen - 150) ** 2 / 150).sum(), 23) > CHANCE


# ------------------------------------------------------------------ scale, and the border


def test_a_hundred_million_rows_of_a_hundred_cohorts_cost_nothing():
    sizes = np.random.default_rng(0).multinomial(10**8 - 100 * 300, np.full(100, 0.01)) + 300
    cohorts = [
        RowGroups(np.arange(100) * (n // 100), np.full(100, n // 100), np.arange(100) // 2)
        for n in sizes.tolist()
    ]
    tracemalloc.start()
    began = time.perf_counter()
    sampler = CohortSampler(cohorts, SamplingRule(alpha=0.5, patient_quota=10**5), seed=1)
    took = time.perf_counter() - began
    cohort, row = sampler.at_epoch(77).rows(10**6, 10**6 + 512)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 1  # 0.03 s on an idle machine, 0.2 the aim
    assert peak < 10 * 2**20
    assert len({*zip(cohort.tolist(), row.tolist(), strict=True)}) == 512


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"alpha": 0.3},
        {"replacement": True, "epoch_length": 2**61},
        {"epoch_length": 2**59, "weights": [1, 0, 5]},
    ],
    ids=["by_size", "tempered", "replacement", "weights"],
)
def test_the_largest_numbers_there_are(rule):
    sizes = [2**60, 3, 2**59]
    sampler = CohortSampler(sizes, SamplingRule(**rule), seed=2**64 - 1, epoch=2**32 - 1)
    for start in (0, len(sampler) // 2, len(sampler) - min(40, len(sampler))):
        cohort, row = sampler.rows(start, min(start + 40, len(sampler)))
        assert (row >= 0).all()
        assert (row < np.array(sizes)[cohort]).all()
        assert len(set(zip(cohort.tolist(), row.tolist(), strict=True))) == len(row)


@pytest.mark.parametrize("span", [(-1, 2), (0, 12), (5, 4)])
def test_positions_outside_an_epoch_are_refused(span):
    with pytest.raises(OutOfRangeError, match="11 of an epoch"):
        CohortSampler([5, 6]).rows(*span)


def test_a_position_outside_an_epoch_is_named():
    with pytest.raises(OutOfRangeError, match="position 11 is not among the 11"):
        CohortSampler([5, 6]).at(np.array([3, 11]))


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 2**64}, {"epoch": -1}, {"epoch": 2**32}])
def test_seeds_and_epochs_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(InvalidInputError, match=f"{name} must be from 0 to"):
        CohortSampler([5], **wrong)
    if name == "epoch":
        with pytest.raises(InvalidInputError, match="epoch must be from 0 to"):
            CohortSampler([5]).at_epoch(wrong["epoch"])
