"""What normalizations do to a batch, and how they are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.errors import FormatError, InvalidInputError, NotFoundError
from microtome.normalization import (
    MeanStdNormalization,
    MinMaxNormalization,
    NoNormalization,
    Normalization,
    QuantileNormalization,
    load_normalization,
    normalization_from_dict,
    save_normalization,
)

EVERY = (
    MeanStdNormalization((3.5, 200.25), (2.0, 7.5), target=NoNormalization()),
    MeanStdNormalization(12.0, 3.0, fitted_on={"images": ["a.zarr"], "pixels": 5}),
    MinMaxNormalization((0.0, 1.0), (9.0, 300.0)),
    QuantileNormalization((1.0, 2.0), (6.0, 70.0), (0.05, 0.9), target=MinMaxNormalization(0, 1)),
    NoNormalization(MeanStdNormalization([1.0], [2.0])),
)


def named(normalization: Any) -> str:
    return f"{normalization.kind}-{len(normalization.to_dict())}"


@pytest.mark.parametrize("normalization", EVERY[:4], ids=["mean", "pooled", "min_max", "quantile"])
@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int16", "uint16", "uint32", "int64", "float64"]
)
def test_a_batch_is_what_float64_gives(normalization: Any, dtype: str) -> None:
    batch = np.random.default_rng(0).integers(0, 2, (3, 2, 9, 11)) * 250
    batch = batch.astype(dtype)
    first, second = (
        np.resize(getattr(normalization, name), 2).reshape(1, 2, 1, 1)
        for name in normalization.statistics
    )
    spread = second if normalization.kind == "mean_std" else second - first
    wanted = (batch.astype(np.float64) - first) / (spread + normalization.eps)
    np.testing.assert_allclose(normalization.normalize(batch), wanted, rtol=3e-7, atol=1e-7)
    out = np.full(batch.shape, np.nan, np.float32)
    assert normalization.normalize(batch, out=out) is out
    np.testing.assert_array_equal(out, normalization.normalize(batch))


def test_a_batch_may_have_planes_and_be_normalized_in_place() -> None:
    normalization = MeanStdNormalization((4.0, 5.0), (2.0, 3.0), eps=0)
    batch = np.random.default_rng(1).normal(0, 9, (2, 2, 3, 8, 8)).astype(np.float32)
    wanted = normalization.normalize(batch)
    assert normalization.normalize(batch, out=batch) is batch
    np.testing.assert_array_equal(batch, wanted)


@pytest.mark.parametrize("mean", [1e4, 65000.3, 1e6 + 0.1, 16_000_000.7])
def test_a_mean_far_above_the_spread_keeps_the_digits(mean: float) -> None:
    # A float32 mean is off by up to half a unit at 16 million: more than this spread.
    spread = 0.4
    normalization = MeanStdNormalization([mean], [spread], eps=0)
    values = np.round(mean) + np.arange(-3.0, 4.0)
    batch = values.astype(np.float32).reshape(1, 1, 1, -1)
    assert (batch.reshape(-1) == values).all()
    wanted = (values - mean) / spread
    np.testing.assert_allclose(normalization.normalize(batch).reshape(-1), wanted, rtol=2e-6)
    whole = values.astype(np.int64).reshape(1, 1, 1, -1)
    np.testing.assert_allclose(normalization.normalize(whole).reshape(-1), wanted, rtol=1e-7)


def test_whole_numbers_beyond_float32_are_told_apart() -> None:
    normalization = MeanStdNormalization([2.0**24], [1.0], eps=0)
    batch = np.array([2**24, 2**24 + 1, 2**24 + 3], np.uint32).reshape(1, 1, 1, 3)
    np.testing.assert_array_equal(normalization.normalize(batch).reshape(-1), [0, 1, 3])


@pytest.mark.parametrize("normalization", EVERY[:3], ids=["mean", "pooled", "min_max"])
def test_denormalize_takes_back(normalization: Any) -> None:
    batch = np.random.default_rng(2).integers(0, 4000, (2, 2, 8, 8)).astype(np.float32)
    if normalization.target is not None:
        normalization = MeanStdNormalization(normalization.means, normalization.stds)
    back = normalization.denormalize(normalization.normalize(batch))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, batch, rtol=1e-5, atol=1e-3)


def test_a_tensor_stays_a_tensor() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    normalization = MinMaxNormalization((1.0, 2.0), (3.0, 9.0))
    answer = np.random.default_rng(3).normal(size=(2, 2, 4, 4)).astype(np.float32)
    made = normalization.denormalize(torch.from_numpy(answer))
    assert isinstance(made, torch.Tensor)
    assert made.dtype == torch.float32
    np.testing.assert_allclose(made.numpy(), normalization.denormalize(answer), rtol=1e-6)


def test_denormalize_is_the_targets_where_it_has_statistics() -> None:
    target = MeanStdNormalization([100.0], [10.0], eps=0)
    for own in (
        MeanStdNormalization((1.0, 2.0), (1.0, 1.0), target=target),
        NoNormalization(target),
    ):
        np.testing.assert_array_equal(own.denormalize(np.ones((1, 1, 2, 2), np.float32)), 110)


@pytest.mark.parametrize(
    "normalization", EVERY, ids=["mean", "pooled", "min_max", "quantile", "none"]
)
def test_a_dictionary_and_a_file_hold_all(normalization: Normalization, tmp_path: Path) -> None:
    made = json.loads(json.dumps(normalization.to_dict()))
    again = normalization_from_dict(made)
    assert again == normalization
    assert again.to_dict() == normalization.to_dict()
    assert type(normalization).from_dict(made) == normalization  # type: ignore[attr-defined]
    save_normalization(normalization, tmp_path / "a" / "n.json")
    assert load_normalization(tmp_path / "a" / "n.json") == normalization
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["n.json"]


def test_what_is_no_normalization_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        load_normalization(tmp_path / "n.json")
    for text in ("{", "[1]", "{}", '{"format": "microtome-normalization", "version": 1}'):
        (tmp_path / "n.json").write_text(text)
        with pytest.raises(FormatError, match="is not a normalization"):
            load_normalization(tmp_path / "n.json")
    made = EVERY[2].to_dict()
    del made["maxima"]
    with pytest.raises(InvalidInputError, match="a min_max normalization has minima, maxima, eps"):
        normalization_from_dict(made)
    with pytest.raises(InvalidInputError, match="a none normalization was expected"):
        NoNormalization.from_dict(made)
    with pytest.raises(InvalidInputError, match="version 1"):
        normalization_from_dict({**EVERY[0].to_dict(), "version": 2})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanStdNormalization([1.0], [-1.0]), "must be above 0"),
        (lambda: MeanStdNormalization([1.0, 2.0], [1.0]), "as many finite numbers"),
        (lambda: MeanStdNormalization([], []), "as many finite numbers"),
        (lambda: MeanStdNormalization([np.nan], [1.0]), "as many finite numbers"),
        (lambda: MinMaxNormalization([2.0], [1.0]), "min_max: channel 0"),
        (lambda: QuantileNormalization([1.0], [2.0], (0.5, 0.5)), "a lower and an upper one"),
    ],
    ids=["negative", "uneven", "none", "nan", "reversed", "quantiles"],
)
def test_impossible_statistics_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_a_batch_that_does_not_fit_is_refused() -> None:
    normalization = EVERY[0]
    with pytest.raises(InvalidInputError, match="2 channels were normalized, the batch has 3"):
        normalization.normalize(np.zeros((1, 3, 4, 4), np.uint8))
    with pytest.raises(InvalidInputError, match="2 channels were normalized, the batch has 3"):
        MinMaxNormalization((1, 2), (2, 3)).denormalize(np.zeros((1, 3, 4, 4), np.float32))
    with pytest.raises(InvalidInputError, match="out must be"):
        normalization.normalize(
            np.zeros((1, 2, 4, 4), np.uint8), np.zeros((1, 2, 4, 4), np.float64)
        )
    with pytest.raises(InvalidInputError, match="a batch is"):
        normalization.normalize(np.zeros((2, 4, 4), np.uint8))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(2, 2, 9, 7), (2, 2, 3, 9, 7)], ids=["flat", "deep"])
def test_a_tensor_is_normalized_to_the_bits_of_an_array(dtype: str, shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    batch = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    tensor = torch.from_numpy(batch)
    for normalization in (
        MeanStdNormalization([100.123456789, 7.0], [11.3, 0.1]),
        MinMaxNormalization(3.0, 250.0),
        NoNormalization(),
    ):
        made = normalization.normalize(tensor)
        assert made.dtype == torch.float32
        assert np.array_equal(made.numpy(), normalization.normalize(batch))
    with pytest.raises(InvalidInputError, match="out= is for arrays"):
        NoNormalization().normalize(tensor, np.empty(shape, np.float32))


def test_a_single_patch_is_a_batch_of_one() -> None:
    patch = np.ones((2, 9, 7), np.uint16)
    normalization = MeanStdNormalization([1.0, 0.0], [1.0, 1.0], eps=0)
    for act in (normalization.normalize, normalization.denormalize):
        with pytest.raises(InvalidInputError, match=r"of a single patch give patch\[None\]"):
            act(patch)
    assert normalization.normalize(patch[None]).shape == (1, *patch.shape)
