"""What is drawn, what it does to pixels, and the way back."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from microtome.augmentation import (
    ChannelDropout,
    CustomAugmentation,
    DihedralAugmentation,
    Draws,
    IntensityJitter,
    undo,
    verified_augmentations,
)
from microtome.errors import InvalidInputError
from microtome.regions import ImageRegionData, collate_regions

ROWS = np.arange(20_000)


def a_region(data: Any, record: Any) -> ImageRegionData[Any]:
    size = data.shape[1:]
    return ImageRegionData(
        data=data,
        source="array",
        data_shape=(1, *data.shape),
        dtype="float32",
        axes="CYX",
        original_data_shape=data.shape,
        region_spec={
            "data_idx": 0,
            "sample_idx": 0,
            "coords": (0,) * len(size),
            "patch_size": size,
        },
        additional_metadata={"level": 0, "augmentation": record},
    )


# -- draws


@given(
    rows=st.lists(st.integers(0, 2**40), min_size=1, max_size=20),
    seed=st.integers(0, 2**70),
    epoch=st.integers(0, 2**31),
)
def test_a_draw_depends_on_seed_epoch_and_row_alone(rows: list[int], seed: int, epoch: int) -> None:
    draws = Draws(seed, epoch, 1)
    together = draws.uniform(rows, 5)
    for row, numbers in zip(rows, together, strict=True):
        np.testing.assert_array_equal(Draws(seed, epoch, 1).uniform([row], 3)[0], numbers[:3])
    assert ((together >= 0) & (together < 1)).all()
    for other in (Draws(seed + 1, epoch, 1), Draws(seed, epoch + 1, 1), Draws(seed, epoch, 2)):
        assert (other.uniform(rows, 5) != together).any()
    assert draws.generator(rows[0]).random() == Draws(seed, epoch, 1).generator(rows[0]).random()


def test_draws_are_uniform_and_streams_independent() -> None:
    one, other = (Draws(0, 0, number).uniform(ROWS, 2) for number in (0, 1))
    for column in (*one.T, *other.T):
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    pairs = [one[:, 0], one[:, 1], other[:, 0], np.roll(one[:, 0], 1)]
    for a, b in itertools.combinations(pairs, 2):
        assert stats.pearsonr(a, b).pvalue > 1e-3


# -- turns and mirror images


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_all_eight_states_are_equally_likely(epoch: int) -> None:
    states = DihedralAugmentation().draw(ROWS, Draws(42, epoch, 0), (1, 8, 8))
    counts = np.bincount(states, minlength=8)
    assert counts.size == 8
    assert stats.chisquare(counts).pvalue > 1e-3
    # And after any state any other: two draws of one stream would follow each other.
    following = np.asarray(states[:-1]) * 8 + np.asarray(states[1:])
    assert stats.chisquare(np.bincount(following, minlength=64)).pvalue > 1e-3


def test_eight_states_are_eight_pictures() -> None:
    patch = np.arange(9.0).reshape(1, 3, 3)
    made = {DihedralAugmentation().apply(patch, k).tobytes() for k in range(8)}
    assert len(made) == 8
    for k in range(8):
        mirrored = patch[..., ::-1] if k >= 4 else patch
        wanted = np.rot90(mirrored, k % 4, axes=(1, 2))
        np.testing.assert_array_equal(DihedralAugmentation().apply(patch, k), wanted)


def test_patches_that_are_not_square_keep_their_shape() -> None:
    states = DihedralAugmentation().draw(ROWS, Draws(0, 0, 0), (2, 8, 6))
    assert stats.chisquare(np.bincount(states, minlength=8)[[0, 2, 4, 6]]).pvalue > 1e-3
    assert set(states) == {0, 2, 4, 6}
    patch = np.zeros((2, 8, 6))
    assert all(DihedralAugmentation().apply(patch, k).shape == patch.shape for k in set(states))
    with pytest.raises(InvalidInputError, match="do not keep the shape of a patch of 8 x 6"):
        DihedralAugmentation([1, 3]).draw(ROWS, Draws(0, 0, 0), (2, 8, 6))


@pytest.mark.parametrize("shape", [(2, 5, 5), (1, 3, 4, 4)], ids=["flat", "deep"])
@pytest.mark.parametrize("state", range(8))
def test_turning_back_restores_a_patch(shape: tuple[int, ...], state: int) -> None:
    patch = np.random.default_rng(0).normal(size=shape)
    turned = DihedralAugmentation().apply(patch, state)
    np.testing.assert_array_equal(DihedralAugmentation().undo(turned, state), patch)
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    back = DihedralAugmentation().undo(torch.from_numpy(turned.copy()), state)
    assert isinstance(back, torch.Tensor)
    np.testing.assert_array_equal(back.numpy(), patch)


@pytest.mark.parametrize("states", [(), (8,), (1, 1), (-1,)])
def test_impossible_states_are_refused(states: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="different numbers from 0 to 7"):
        DihedralAugmentation(states)


# -- intensity


def test_jitter_is_what_it_records() -> None:
    jitter = IntensityJitter(gain=0.3, offset=(-0.2, 0.5), gamma=0.4)
    rng = np.random.default_rng(1)
    records = jitter.draw(ROWS[:50], Draws(0, 0, 0), (3, 8, 8))
    for record in records:
        patch = rng.normal(size=(3, 8, 8)).astype(np.float32)
        gain, offset, gamma = (
            np.asarray(record[name])[:, None, None] for name in ("gain", "offset", "gamma")
        )
        wanted = gain * np.sign(patch) * np.abs(patch.astype(np.float64)) ** gamma + offset
        made = jitter.apply(patch.copy(), record)
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(jitter.undo(made, record), patch, rtol=1e-4, atol=1e-5)


def test_jitter_is_uniform_between_its_bounds() -> None:
    records = IntensityJitter(gain=0.3, offset=(-0.2, 0.5), gamma=0.4).draw(
        ROWS, Draws(3, 1, 0), (2, 8, 8)
    )
    for name, low, high in (("gain", 0.7, 1.3), ("offset", -0.2, 0.5), ("gamma", 0.6, 1.4)):
        for channel in range(2):
            values = [record[name][channel] for record in records]
            assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


def test_channels_may_be_changed_alike() -> None:
    jitter = IntensityJitter(per_channel=False)
    [record] = jitter.draw(ROWS[:1], Draws(0, 0, 0), (3, 4, 4))
    made = jitter.apply(np.ones((3, 4, 4), np.float32), record)
    assert len(np.unique(made)) == 1
    np.testing.assert_allclose(jitter.undo(made, record), 1, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments", [{"gain": 1.0}, {"gamma": (0.0, 1.0)}, {"offset": (1.0, -1.0)}, {"gain": np.inf}]
)
def test_impossible_bounds_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="is a lower and an upper bound"):
        IntensityJitter(**arguments)


def test_channels_are_left_out_as_often_as_asked_and_never_all() -> None:
    dropout = ChannelDropout(0.3)
    records = dropout.draw(ROWS, Draws(5, 0, 0), (3, 4, 4))
    sets = [tuple(record) for record in records]
    assert (0, 1, 2) not in sets
    p = 0.3
    # All three: the one with the largest number stays, so its share falls to the pairs.
    wanted = {(): (1 - p) ** 3, **{(c,): p * (1 - p) ** 2 for c in range(3)}}
    wanted |= dict.fromkeys(((0, 1), (0, 2), (1, 2)), p * p * (1 - p) + p**3 / 3)
    counts = [sets.count(which) for which in wanted]
    assert stats.chisquare(counts, np.array(list(wanted.values())) * len(ROWS)).pvalue > 1e-3


def test_a_channel_that_is_left_out_has_one_value() -> None:
    patch = np.ones((3, 4, 4), np.float32)
    made = ChannelDropout(0.5, value=-2.0).apply(patch, [0, 2])
    assert [np.unique(channel).tolist() for channel in made] == [[-2], [1], [-2]]
    with pytest.raises(InvalidInputError, match="from 0 to below 1"):
        ChannelDropout(1.0)


# -- functions, names, undo


def add_noise(patch: Any, rng: np.random.Generator) -> Any:
    return patch + rng.normal(size=patch.shape).astype(np.float32)


def take_noise(patch: Any, rng: np.random.Generator) -> Any:
    return patch - rng.normal(size=patch.shape).astype(np.float32)


def test_a_function_gets_numbers_of_its_patch() -> None:
    noise = CustomAugmentation("noise", add_noise, inverse=take_noise)
    draws = Draws(1, 2, 3)
    records = noise.draw(ROWS[:3], draws, (1, 4, 4))
    patch = np.zeros((1, 4, 4), np.float32)
    made = [noise.apply(patch.copy(), record) for record in records]
    wanted = draws.generator(2).normal(size=patch.shape).astype(np.float32)
    np.testing.assert_array_equal(made[2], wanted)
    assert (made[0] != made[1]).all()
    np.testing.assert_allclose(noise.undo(made[0], records[0]), patch, atol=1e-6)
    with pytest.raises(InvalidInputError, match=r"return a patch of \(1, 4, 4\), got \(4, 4\)"):
        CustomAugmentation("flat", lambda x, _: x[0]).apply(patch, records[0])
    with pytest.raises(InvalidInputError, match="'noise' has no inverse"):
        CustomAugmentation("noise", add_noise).undo(patch, records[0])


def test_undo_takes_all_back_in_reverse() -> None:
    rng = np.random.default_rng(4)
    steps = (
        DihedralAugmentation(),
        IntensityJitter(gain=0.2, gamma=0.2),
        CustomAugmentation("noise", add_noise, inverse=take_noise),
    )
    patches = rng.normal(size=(6, 2, 8, 8)).astype(np.float32)
    regions: list[ImageRegionData[Any]] = []
    records = [step.draw(ROWS[:6], Draws(9, 0, n), (2, 8, 8)) for n, step in enumerate(steps)]
    for number, patch in enumerate(patches):
        data: Any = patch.copy()
        for step, drawn in zip(steps, records, strict=True):
            data = step.apply(data, drawn[number])  # type: ignore[attr-defined]
        record = {s.name: drawn[number] for s, drawn in zip(steps, records, strict=True)}
        regions.append(a_region(np.ascontiguousarray(data), record))
    batch = undo(collate_regions(regions), augmentations=steps[2:])
    np.testing.assert_allclose(batch.data, patches, rtol=1e-3, atol=1e-4)
    assert [m["augmentation"] for m in batch.additional_metadata] == [{}] * 6  # type: ignore[index]
    one = undo(regions[3], augmentations=steps[2:])
    np.testing.assert_array_equal(one.data, batch.data[3])
    with pytest.raises(InvalidInputError, match="changed by 'noise', which is not known"):
        undo(regions[3])


def test_a_models_answer_is_turned_back_only() -> None:
    record = {
        "dihedral": 7,
        "intensity_jitter": {"gain": [2.0] * 2, "offset": [1.0] * 2, "gamma": [1.0] * 2},
    }
    labels = np.random.default_rng(5).integers(0, 9, (1, 16, 16))
    answer = ImageRegionData.from_model_output(
        a_region(np.zeros((2, 8, 8), np.float32), record),
        DihedralAugmentation().apply(labels, 7),
    )
    back = undo(answer, geometry_only=True)
    np.testing.assert_array_equal(back.data, labels)
    assert back.additional_metadata["augmentation"] == {
        "intensity_jitter": record["intensity_jitter"]
    }  # type: ignore[call-overload]
    with pytest.raises(InvalidInputError, match="geometry_only=True"):
        undo(answer._replace(data=np.zeros((1, 8, 8), np.float32)))


def test_names_differ_and_functions_are_wrapped() -> None:
    with pytest.raises(InvalidInputError, match="names differ"):
        verified_augmentations([ChannelDropout(), ChannelDropout()])
    with pytest.raises(InvalidInputError, match="CustomAugmentation"):
        verified_augmentations([add_noise])  # type: ignore[list-item]
    assert verified_augmentations([ChannelDropout()]) == (ChannelDropout(),)


def raised(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return patch + rng.normal()


def lowered(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return patch - rng.normal()


def test_a_tensor_is_undone_as_a_tensor_and_stays_as_it_is() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    patch = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    rows, own = np.arange(1), CustomAugmentation("raised", raised, inverse=lowered)
    for step in (IntensityJitter(gamma=0.3), own, ChannelDropout(), DihedralAugmentation()):
        record = step.draw(rows, Draws(0, 0, 0), patch.shape)[0]
        changed = np.ascontiguousarray(step.apply(patch.copy(), record))
        given = torch.from_numpy(changed)
        back = step.undo(given, record)
        assert isinstance(back, torch.Tensor)
        assert back.dtype == torch.float32
        np.testing.assert_allclose(
            back.numpy(), np.asarray(step.undo(changed.copy(), record)), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_array_equal(given.numpy(), step.apply(patch.copy(), record))
