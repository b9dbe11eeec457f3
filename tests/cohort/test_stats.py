"""`stats` against numpy on all the pixels inside the masks together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from microtome.cohort import CohortLayout, MultiplexImagingDataset, ingest, read_tissue_mask, stats
from microtome.coordinates import Resolution
from microtome.errors import ExistsError, FormatError, InvalidInputError, NotFoundError
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


@pytest.mark.parametrize("method", ["quantile_clipping", "quantile_clipping_log1p"])
@pytest.mark.parametrize("quantile_level", ["image", "global"])
@pytest.mark.parametrize("stats_level", ["image", "global"])
@pytest.mark.parametrize("lower", [None, 0.05])
def test_tables_equal_numpy(
    imc: Any, method: str, quantile_level: Any, stats_level: Any, lower: float | None
) -> None:
    root, sources = imc
    (directory,) = stats(
        root,
        method=method,
        quantile=0.95,
        lower_quantile=lower,
        quantile_level=quantile_level,
        stats_level=stats_level,
    )
    suffix = "uq_0.95" + (f"_lq_{lower}" if lower else "") + f"_{quantile_level}"
    assert directory == root / "imc/1_0mpp/standardization" / method / suffix
    pixels = inside(root, sources)
    together = np.concatenate([pixels["a"], pixels["b"]], axis=1)  # c is in split "test"
    tables = StatisticsTables.read(directory)
    assert tables.split == "train"
    assert tables.fitted_on == ("a", "b")
    highs, values = {}, {}
    for name, mine in pixels.items():
        fitted = mine if quantile_level == "image" else together
        high = np.quantile(fitted, 0.95, axis=1).astype(np.float32)
        low = np.quantile(fitted, lower or 0, axis=1).astype(np.float32) if lower else np.zeros(3)
        highs[name] = high
        values[name] = transformed(method, mine, low, high)
        np.testing.assert_array_equal(tables.upper.row(name, CHANNELS), high)
        if lower:
            assert tables.lower is not None
            np.testing.assert_array_equal(tables.lower.row(name, CHANNELS), low)
        else:
            assert tables.lower is None
    assert tables.means is not None
    assert tables.stds is not None
    for name in pixels:
        fitted = (
            values[name]
            if stats_level == "image"
            else np.concatenate([values["a"], values["b"]], axis=1)
        )
        np.testing.assert_allclose(tables.means.row(name, CHANNELS), fitted.mean(1), rtol=2e-6)
        np.testing.assert_allclose(tables.stds.row(name, CHANNELS), fitted.std(1), rtol=2e-6)


def test_the_split_may_be_chosen(imc: Any) -> None:
    root, sources = imc
    pixels = inside(root, sources)
    (directory,) = stats(root, split="test", quantile_level="global")
    tables = StatisticsTables.read(directory)
    assert (tables.split, tables.fitted_on) == ("test", ("c",))
    expected = np.quantile(pixels["c"], 0.99, axis=1).astype(np.float32)
    np.testing.assert_array_equal(tables.upper.row(None, CHANNELS), expected)
    with pytest.raises(InvalidInputError, match=r"'valid'.*\['test', 'train'\]"):
        stats(root, split="valid", overwrite=True)


def test_without_a_training_split_all_are_fitted_on(tmp_path: Path, imc: Any) -> None:
    root, sources = imc
    path = root / "metadata/tissues.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["split"]), path)
    (directory,) = stats(root, quantile_level="global")
    tables = StatisticsTables.read(directory)
    assert tables.split is None
    assert tables.fitted_on == ("a", "b", "c")
    together = np.concatenate(list(inside(root, sources).values()), axis=1)
    np.testing.assert_array_equal(
        tables.upper.row(None, CHANNELS), np.quantile(together, 0.99, axis=1).astype(np.float32)
    )


def test_channels_that_a_tissue_did_not_measure_are_nan(imc: Any, write: Any) -> None:
    root, sources = imc
    extra = np.random.default_rng(9).integers(0, 500, (2, 60, 70)).astype(np.uint16)
    ingest(
        extra,
        axes="cyx",
        mpp=1.0,
        cohort=root,
        tissue_id="d",
        modality="imc",
        channel_names=["DNA", "CD8"],
        split="train",
    )
    write(root, "d", np.ones((60, 70), bool))
    (directory,) = stats(root, quantile_level="image", stats_level="global")
    tables = StatisticsTables.read(directory)
    order = [*CHANNELS, "CD8"]
    pixels = inside(root, sources)
    np.testing.assert_array_equal(np.isnan(tables.upper.row("a", order)), [0, 0, 0, 1])
    np.testing.assert_array_equal(np.isnan(tables.upper.row("d", order)), [1, 0, 1, 0])
    flat = extra.reshape(2, -1)
    np.testing.assert_array_equal(
        tables.upper.row("d", ["DNA", "CD8"]), np.quantile(flat, 0.99, axis=1).astype(np.float32)
    )
    # DNA is fitted on three tissues, CD8 on one.
    quantile = {n: np.quantile(p, 0.99, axis=1).astype(np.float32) for n, p in pixels.items()}
    dna = np.concatenate(
        [
            transformed("quantile_clipping", pixels[n][1:2], [0], quantile[n][1:2])[0]
            for n in ("a", "b")
        ]
        + [transformed("quantile_clipping", flat[:1], [0], tables.upper.row("d", ["DNA"]))[0]]
    )
    cd8 = transformed("quantile_clipping", flat[1:], [0], tables.upper.row("d", ["CD8"]))[0]
    assert tables.means is not None
    np.testing.assert_allclose(tables.means.row(None, ["DNA"]), dna.mean(), rtol=2e-6)
    np.testing.assert_allclose(tables.means.row(None, ["CD8"]), cd8.mean(), rtol=2e-6)


def test_a_tissue_without_tissue_adds_nothing(imc: Any, write: Any) -> None:
    root, sources = imc
    write(root, "b", np.zeros(sources["b"].shape[-2:], bool))
    (directory,) = stats(root)
    tables = StatisticsTables.read(directory)
    assert np.isnan(tables.upper.row("b", CHANNELS)).all()
    mine = inside(root, sources)["a"]
    high = np.quantile(mine, 0.99, axis=1).astype(np.float32)
    values = transformed("quantile_clipping", mine, np.zeros(3), high)
    assert tables.means is not None
    np.testing.assert_allclose(tables.means.row(None, CHANNELS), values.mean(1), rtol=2e-6)


def test_tables_are_not_replaced_unasked(imc: Any, tree: Any) -> None:
    root, _ = imc
    stats(root)
    before = tree(root)
    (place,) = stats(root)
    assert tree(root) == before, "the same settings leave nothing to do"
    (place / "manifest.json").unlink()
    unknown = tree(root)
    with pytest.raises(ExistsError, match="--overwrite"):
        stats(root)
    assert tree(root) == unknown
    stats(root, overwrite=True)
    assert tree(root) == before


def test_both_levels_of_means_can_stand_side_by_side(imc: Any) -> None:
    root, _ = imc
    stats(root, stats_level="global")
    stats(root, stats_level="image", overwrite=True)
    options: dict[str, Any] = {"path": root, "standardization": "quantile_clipping/uq_0.99_image"}
    with pytest.raises(InvalidInputError, match="stats_level"):
        MultiplexImagingDataset("c", "imc", **options)
    found = {
        level: MultiplexImagingDataset("c", "imc", stats_level=level, **options)[0].data
        for level in ("image", "global")
    }
    assert not np.allclose(found["image"], found["global"])
    assert found["image"].shape == found["global"].shape


def test_brightfield_needs_none(he: Any, tree: Any) -> None:
    root, _ = he
    before = tree(root)
    assert stats(root) == []
    for modality in ("he", "ihc_CD3"):
        with pytest.raises(InvalidInputError, match="fixed numbers"):
            stats(root, modality=modality)
    assert tree(root) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "zscores"}, "no standardization method 'zscores'; there are"),
        (
            {"method": "zscore", "quantile": 0.9, "quantile_level": "image"},
            "^zscore has no quantiles; leave out quantile=0.9, quantile_level='image'$",
        ),
        ({"method": "minmax", "lower_quantile": 0.1}, "no quantiles"),
        (
            {"method": "minmax/image", "quantile_level": "image"},
            "level, got quantile_level='image'$",
        ),
        ({"method": "identity"}, "identity"),
        ({"quantile": 1.5}, "quantile"),
        ({"quantile": "0.9"}, "^quantile must be a number from 0 to 1, got '0.9'$"),
        ({"method": "minmax", "lower_quantile": True}, "lower_quantile .* number .*True"),
        ({"quantile": 0.5, "lower_quantile": 0.6}, "quantile"),
        ({"quantile_level": "slide"}, "slide"),
        ({"stats_level": "slide"}, "slide"),
        ({"resolution": 0.5}, "1_0mpp"),
    ],
    ids=[
        "method",
        "without",
        "range",
        "twice",
        "identity",
        "quantile",
        "text",
        "bool",
        "order",
        "level",
        "stats level",
        "resolution",
    ],
)
def test_wrong_arguments(imc: Any, tree: Any, options: dict[str, Any], words: str) -> None:
    root, _ = imc
    before = tree(root)
    with pytest.raises(InvalidInputError, match=words):
        stats(root, **options)
    assert tree(root) == before


@pytest.mark.parametrize("method", ["zscore", "quantile_clipping"])
def test_a_level_that_there_is_not_is_told_by_the_dataset_too(imc: Any, method: str) -> None:
    root, _ = imc
    (place,) = stats(root, method=method)
    spec = place.relative_to(root / "imc/1_0mpp/standardization").as_posix()
    with pytest.raises(
        InvalidInputError, match=r"stats_level must be 'image' or 'global'.*'slide'"
    ):
        MultiplexImagingDataset(
            "c",
            "imc",
            path=root,
            standardization=spec,
            stats_level="slide",  # pyright: ignore[reportArgumentType]
        )


def test_a_missing_mask(imc: Any) -> None:
    import shutil

    root, _ = imc
    shutil.rmtree(root / "segmentations/1_0mpp/tissue_masks/b.ome.zarr")
    with pytest.raises(NotFoundError, match="'b' has no tissue mask"):
        stats(root)
    assert not (root / "imc/1_0mpp/standardization").exists()


def test_pixels_that_are_no_numbers(tmp_path: Path, write: Any) -> None:
    pixels = np.ones((1, 30, 30), np.float32)
    pixels[0, 3, 4] = np.nan
    ingest(
        pixels,
        axes="cyx",
        mpp=1.0,
        cohort=tmp_path,
        tissue_id="t",
        modality="imc",
        channel_names=["a"],
    )
    write(tmp_path, "t", np.ones((30, 30), bool))
    with pytest.raises(FormatError, match="tissue 't'"):
        stats(tmp_path)


def test_all_modalities_at_once_or_one(imc: Any, write: Any, tree: Any) -> None:
    root, sources = imc
    for name, pixels in sources.items():
        ingest(
            pixels[:1],
            axes="cyx",
            mpp=1.0,
            cohort=root,
            tissue_id=name,
            modality="codex",
            channel_names=["DAPI"],
            split="test" if name == "c" else "train",
        )
        write(root, name, np.ones(pixels.shape[-2:], bool))
    assert [path.parents[3].name for path in stats(root, modality="codex")] == ["codex"]
    # What is there stays; what is missing is made.
    before = tree(root / "codex")
    assert [path.parents[3].name for path in stats(root)] == ["imc"]
    assert tree(root / "codex") == before
    there = tree(root)
    assert [path.parents[3].name for path in stats(root)] == ["codex", "imc"]
    assert tree(root) == there, "nothing to do"
    with pytest.raises(ExistsError, match=r"codex.*'train'.*all tissues.*imc.*--overwrite"):
        stats(root, split="all")
    both = stats(root, overwrite=True)
    assert [path.parents[3].name for path in both] == ["codex", "imc"]
