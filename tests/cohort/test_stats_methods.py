"""Every method, level and type of pixels in `stats` against numpy, and loaded by the datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.cohort import CohortLayout, MultiplexImagingDataset, ingest, read_tissue_mask, stats
from microtome.coordinates import Resolution
from microtome.standardize import StatisticsTables

ONE = Resolution.parse(1.0)
CHANNELS = ["CD3", "DNA", "Ki67"]


def inside(root: Path, sources: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pixels of every tissue inside its mask, (C, n)."""
    layout = CohortLayout.open(root)
    return {
        name: pixels[:, read_tissue_mask(layout, ONE, name, pixels.shape[-2:])]
        for name, pixels in sources.items()
    }


def transformed(method: str, pixels: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """The seed's formulas, in doubles."""
    values = np.clip(pixels.astype(np.float64), np.c_[low], np.c_[high])
    if method == "quantile_clipping":
        return (values - np.c_[low]) / (np.c_[high] - np.c_[low] + 1e-8)
    return np.log1p(values)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("quantile_level", ["image", "global"])
@pytest.mark.parametrize("stats_level", ["image", "global"])
def test_wide_pixels_are_numpys_within_the_stated_error(
    tmp_path: Path, write: Any, dtype: Any, exact: bool, quantile_level: Any, stats_level: Any
) -> None:
    rng = np.random.default_rng(21)
    pixels: dict[str, np.ndarray] = {}
    for name, size in (("a", (40, 61)), ("b", (33, 30))):
        pixels[name] = (rng.lognormal(3, 2, (2, *size)) * (rng.random((2, *size)) < 0.4)).astype(
            dtype
        )
        ingest(
            pixels[name],
            axes="cyx",
            mpp=1.0,
            cohort=tmp_path,
            tissue_id=name,
            modality="imc",
            channel_names=["p", "q"],
        )
        write(tmp_path, name, rng.random(size) < 0.7)
    (directory,) = stats(
        tmp_path,
        lower_quantile=0.7,
        quantile_level=quantile_level,
        stats_level=stats_level,
        exact=exact,
    )
    tables = StatisticsTables.read(directory)
    assert tables.upper is not None
    assert tables.lower is not None
    assert tables.means is not None
    assert tables.stds is not None
    found = inside(tmp_path, pixels)
    together = np.concatenate(list(found.values()), axis=1)
    error = json.loads((directory / "manifest.json").read_text())["relative_error"]
    assert (error == 0) == (exact or dtype == np.uint16)
    assert error < 2.0**-11 + 2.0**-22
    values = {}
    for name, mine in found.items():
        fitted = (mine if quantile_level == "image" else together).astype(np.float64)
        low, high = np.quantile(fitted, [0.7, 0.99], axis=1)
        tolerance = max(error, 1e-7)  # that of float32, in which tables are
        np.testing.assert_allclose(tables.upper.row(name, ["p", "q"]), high, rtol=tolerance)
        np.testing.assert_allclose(tables.lower.row(name, ["p", "q"]), low, rtol=tolerance)
        values[name] = transformed("quantile_clipping", mine, low, high)
    for name, mine in values.items():
        fitted = mine if stats_level == "image" else np.concatenate(list(values.values()), axis=1)
        tolerance = 3 * error + 2e-6
        np.testing.assert_allclose(
            tables.means.row(name, ["p", "q"]), fitted.mean(1), rtol=tolerance
        )
        np.testing.assert_allclose(tables.stds.row(name, ["p", "q"]), fitted.std(1), rtol=tolerance)


@pytest.mark.parametrize("stats_level", ["image", "global"])
@pytest.mark.parametrize(
    ("options", "path", "formula"),
    [
        ({"method": "arcsinh"}, "arcsinh/cofactor_5.0", lambda x: np.arcsinh(x / 5)),
        (
            {"method": "arcsinh/cofactor_150.0"},
            "arcsinh/cofactor_150.0",
            lambda x: np.arcsinh(x / 150),
        ),
        ({"method": "zscore"}, "zscore", lambda x: x),
    ],
    ids=["arcsinh", "cofactor", "zscore"],
)
def test_methods_without_quantiles(
    imc: Any, options: Any, path: str, formula: Any, stats_level: Any
) -> None:
    root, sources = imc
    (directory,) = stats(root, stats_level=stats_level, **options)
    assert directory == root / "imc/1_0mpp/standardization" / path
    assert {file.name.split("_")[-1] for file in directory.iterdir()} == {
        "means.parquet",
        "stds.parquet",
        "manifest.json",
    }
    values = {n: formula(p.astype(np.float64)) for n, p in inside(root, sources).items()}
    together = np.concatenate([values["a"], values["b"]], axis=1)
    tables = StatisticsTables.read(directory)
    assert tables.means is not None
    assert tables.stds is not None
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization=path)
    for name, mine in values.items():
        fitted = mine if stats_level == "image" else together
        mean, std = fitted.mean(1), fitted.std(1)
        np.testing.assert_allclose(tables.means.row(name, CHANNELS), mean, rtol=2e-6)
        np.testing.assert_allclose(tables.stds.row(name, CHANNELS), std, rtol=2e-6)
        expected = (formula(sources[name].astype(float)) - mean[:, None, None]) / std[:, None, None]
        image = np.asarray(dataset.get_tissue(name, "complete").image)
        np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-4)
    assert stats(root, stats_level=stats_level, **options) == [directory]


@pytest.mark.parametrize("level", ["image", "global"])
def test_minmax(imc: Any, level: Any) -> None:
    root, sources = imc
    (directory,) = stats(root, method="minmax", quantile_level=level)
    assert directory == root / "imc/1_0mpp/standardization/minmax" / level
    tables = StatisticsTables.read(directory)
    assert tables.means is None
    assert tables.upper is not None
    assert tables.lower is not None
    pixels = inside(root, sources)
    together = np.concatenate([pixels["a"], pixels["b"]], axis=1)
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization=f"minmax/{level}")
    for name, mine in pixels.items():
        fitted = mine if level == "image" else together
        low, high = fitted.min(1), fitted.max(1)
        np.testing.assert_array_equal(tables.lower.row(name, CHANNELS), low)
        np.testing.assert_array_equal(tables.upper.row(name, CHANNELS), high)
        span = (high - low)[:, None, None].astype(float)
        expected = ((sources[name] - low[:, None, None].astype(float)) / span).clip(0, 1)
        image = np.asarray(dataset.get_tissue(name, "complete").image)
        np.testing.assert_allclose(image, expected, atol=1e-6)


@pytest.mark.parametrize("quantile_level", ["image", "global"])
@pytest.mark.parametrize("stats_level", ["image", "global"])
@pytest.mark.parametrize("lower", [None, 0.05])
def test_every_combination_of_levels_can_be_loaded(
    imc: Any, quantile_level: Any, stats_level: Any, lower: float | None
) -> None:
    """In spora_io neither level can be chosen where a dataset is made, so only one combination can.

    (reference, defect 1)
    """
    root, sources = imc
    levels = {"quantile_level": quantile_level, "stats_level": stats_level}
    (directory,) = stats(root, lower_quantile=lower, **levels)
    spec = "/".join(directory.parts[-2:])
    dataset = MultiplexImagingDataset(
        "c", "imc", path=root, standardization=spec, stats_level=stats_level
    )
    row = StatisticsTables.read(directory).for_tissue("b", CHANNELS)
    low = np.zeros(3) if row.lower is None else row.lower
    assert (row.lower is None) == (lower is None)
    values = transformed("quantile_clipping", sources["b"].reshape(3, -1), low, row.upper)
    assert row.mean is not None
    assert row.std is not None
    expected = (values - row.mean[:, None]) / (row.std[:, None] + 1e-8)
    image = np.asarray(dataset.get_tissue("b", "complete").image).reshape(3, -1)
    np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-4)


def test_tissues_that_store_different_types(tmp_path: Path, write: Any) -> None:
    rng = np.random.default_rng(22)
    pixels = {
        "a": rng.integers(0, 4000, (1, 40, 40)).astype(np.uint16),
        "b": rng.gamma(1, 300, (1, 50, 40)).astype(np.float32),
    }
    for name, source in pixels.items():
        ingest(
            source,
            axes="cyx",
            mpp=1.0,
            cohort=tmp_path,
            tissue_id=name,
            modality="imc",
            channel_names=["p"],
        )
        write(tmp_path, name, np.ones(source.shape[-2:], bool))
    together = np.concatenate([source.ravel().astype(float) for source in pixels.values()])
    for exact, tolerance in ((False, 2.0**-11), (True, 1e-7)):
        (directory,) = stats(tmp_path, quantile_level="global", exact=exact, overwrite=True)
        upper = StatisticsTables.read(directory).upper
        assert upper is not None
        assert upper.row(None, ["p"])[0] == pytest.approx(
            np.quantile(together, 0.99), rel=tolerance
        )
