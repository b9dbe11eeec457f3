"""Tables of both levels in one directory are of the same images, whichever `stats` is asked for."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from microtome.cohort import MultiplexImagingDataset, ingest, stats, validate
from microtome.errors import ExistsError, InvalidInputError
from microtome.standardize import StandardizationSpec, StatisticsTables, _tables

PIXELS: dict[str, Any] = {
    name: np.random.default_rng(place).gamma(0.8, 60.0 * (place + 1), (2, 60, 50)).astype(dtype)
    for place, (name, dtype) in enumerate(
        {"a": np.float32, "b": np.float32, "c": np.float32, "d": np.float32}.items()
    )
}
METHODS = {
    "zscore": "zscore",
    "arcsinh": "arcsinh/cofactor_5.0",
    "quantile_clipping": "quantile_clipping/uq_0.99_image",
    "quantile_clipping_log1p/uq_0.99_lq_0.01_global": "quantile_clipping_log1p/uq_0.99_lq_0.01_global",
}
LEVELS: list[tuple[Any, Any]] = [("global", "image"), ("image", "global")]


def add(root: Path, write: Any, name: str, **more: Any) -> None:
    ingest(
        PIXELS[name],
        axes="cyx",
        mpp=1.0,
        channel_names=["X", "Y"],
        cohort=root,
        tissue_id=name,
        modality="imc",
        **more,
    )
    write(root, name, np.ones((60, 50), bool))


@pytest.fixture
def cohort(tmp_path: Path, write: Any) -> Path:
    root = tmp_path / "cohort"
    for name in "ab":
        add(root, write, name)
    return root


def by_hand(path: str, level: str, names: str, tissue: str) -> np.ndarray:
    """A tissue standardized by numpy on all pixels of these tissues."""
    spec = StandardizationSpec.parse(path)
    pixels = {name: PIXELS[name].reshape(2, -1).astype(float) for name in names}
    everything = np.concatenate(list(pixels.values()), axis=1)
    values = {}
    for name, own in pixels.items():
        of = own if spec.quantile_level == "image" else everything
        high = np.quantile(of, spec.upper_quantile or 1, axis=1)[:, None]
        low = np.quantile(of, spec.lower_quantile or 0, axis=1)[:, None]
        low = low if spec.lower_quantile else np.zeros((2, 1))
        values[name] = own.copy()
        spec.transform(values[name], low, high)
    of = values[tissue] if level == "image" else np.concatenate(list(values.values()), axis=1)
    z = (values[tissue] - of.mean(1)[:, None]) / (of.std(1)[:, None] + 1e-8)
    return z.reshape(PIXELS[tissue].shape)


def given(root: Path, path: str, level: Any, tissue: str) -> np.ndarray:
    dataset = MultiplexImagingDataset(
        "c", "imc", path=root, standardization=path, stats_level=level, disable_quantile_mask=True
    )
    return np.asarray(dataset.get_tissue(tissue, kind="complete").image)


def assert_both(root: Path, path: str, names: str) -> None:
    assert [f for f in validate(root) if f.kind.startswith(("statistics", "stale"))] == []
    for level in ("image", "global"):
        for tissue in names:
            found = given(root, path, level, tissue)
            np.testing.assert_allclose(found, by_hand(path, level, names, tissue), atol=6e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("first", "second"), LEVELS)
def test_whichever_is_asked_for_renews_both(
    cohort: Path, write: Any, tree: Any, method: str, first: Any, second: Any
) -> None:
    path = METHODS[method]
    place = cohort / "imc/1_0mpp/standardization" / path
    for level in (first, second):
        # The second stands beside the first without being forced to, whatever the method.
        assert stats(cohort, method=method, stats_level=level) == [place]
    assert_both(cohort, path, "ab")
    before = tree(cohort)
    for level in (first, second):
        assert stats(cohort, method=method, stats_level=level) == [place]
    assert tree(cohort) == before, "there is nothing to do"
    add(cohort, write, "c")
    assert stats(cohort, method=method, stats_level=second) == [place]
    assert_both(cohort, path, "abc")
    add(cohort, write, "d")
    assert stats(cohort, method=method, stats_level=first) == [place]
    assert_both(cohort, path, "abcd")
    after = tree(cohort)
    assert stats(cohort, method=method, stats_level=second) == [place]
    assert tree(cohort) == after


def test_each_level_keeps_its_settings(cohort: Path, write: Any) -> None:
    add(cohort, write, "c", split="train")
    (place,) = stats(cohort, method="zscore", stats_level="global", exact=True)
    stats(cohort, method="zscore", stats_level="image", split="all")
    expected: list[tuple[Any, Any, bool]] = [("global", "train", True), ("image", None, False)]
    for level, split, exact in expected:
        said, whole = StatisticsTables.manifest(place, stats_level=level)
        assert whole
        assert (said["stats_level"], said["split"]) == (level, split)
        assert (said["relative_error"] == 0) == exact
    text = json.loads((place / "manifest.json").read_text())
    assert (text["stats_level"], text["other_level"]["stats_level"]) == ("image", "global")
    assert "other_level" not in text["other_level"]
    # What is renewed beside the other is fitted as before: on one split, to the last bit.
    add(cohort, write, "d", split="train")
    stats(cohort, method="zscore", stats_level="image", split="all")
    said, whole = StatisticsTables.manifest(place, stats_level="global")
    assert whole
    assert (said["split"], said["relative_error"]) == ("train", 0.0)
    inside = np.concatenate([PIXELS[name].reshape(2, -1) for name in "cd"], 1)
    means = StatisticsTables.read(place, stats_level="global").means
    assert means is not None
    np.testing.assert_allclose(means.values[0], inside.mean(1, dtype=float), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("first", "second"), LEVELS)
def test_what_an_older_version_left_is_renewed(
    cohort: Path, write: Any, method: str, first: Any, second: Any
) -> None:
    """It kept one level in the manifest, and made the other anew beside a stale one."""
    path = METHODS[method]
    (place,) = stats(cohort, method=method, stats_level=first)
    old = {f.name: f.read_bytes() for f in place.glob(f"{first}_level_*s.parquet")}
    add(cohort, write, "c")
    stats(cohort, method=method, stats_level=first)
    stats(cohort, method=method, stats_level=second)
    for name in (f"{first}_level_means.parquet", f"{first}_level_stds.parquet"):
        (place / name).write_bytes(old[name])
    text = json.loads((place / "manifest.json").read_text())
    assert text["stats_level"] == second
    del text["other_level"]
    (place / "manifest.json").write_text(json.dumps(text))
    for level in (first, second):
        before = {f.name: f.read_bytes() for f in place.iterdir()}
        stats(cohort, method=method, stats_level=level)
        assert_both(cohort, path, "abc")
        for name, found in before.items():
            (place / name).write_bytes(found)


@pytest.mark.parametrize("method", ["zscore", "quantile_clipping"])
@pytest.mark.parametrize("stop", range(1, 8))
def test_killed_between_the_levels_either_renews_both(
    cohort: Path, write: Any, monkeypatch: pytest.MonkeyPatch, method: str, stop: int
) -> None:
    for level in ("image", "global"):
        stats(cohort, method=method, stats_level=level)
    add(cohort, write, "c")
    real, done = _tables.write_table, []

    def killed(table: Any, path: Path) -> None:
        if len(done) == stop:
            raise KeyboardInterrupt
        done.append(path)
        real(table, path)

    monkeypatch.setattr(_tables, "write_table", killed)
    try:
        stats(cohort, method=method, stats_level="global")
    except KeyboardInterrupt:
        assert len(done) == stop
    else:
        assert len(done) == (4 if method == "zscore" else 6) <= stop
    monkeypatch.undo()
    stats(cohort, method=method, stats_level="image" if stop % 2 else "global")
    assert_both(cohort, METHODS[method], "abc")


def test_quantiles_of_another_split_are_not_replaced_unasked(cohort: Path, write: Any) -> None:
    add(cohort, write, "c", split="train")
    options: dict[str, Any] = {"quantile_level": "global"}
    (place,) = stats(cohort, stats_level="global", **options)
    why = r"uq_0.99_global exists.*fitted on split 'train', while all tissues is asked for now"
    with pytest.raises(ExistsError, match=why):
        stats(cohort, stats_level="image", split="all", **options)
    # Asked to, both follow: they stand on the same quantiles.
    stats(cohort, stats_level="image", split="all", overwrite=True, **options)
    for level in ("image", "global"):
        read = StatisticsTables.read(place, stats_level=level)
        assert (read.split, read.fitted_on) == (None, ("a", "b", "c"))
    assert_both(cohort, "quantile_clipping/uq_0.99_global", "abc")


def test_quantiles_of_all_do_not_depend_on_what_is_counted_besides(
    cohort: Path, write: Any
) -> None:
    """Means of each tissue are of tissues of other types of pixels too."""
    pixels = PIXELS["c"].astype(np.uint16)
    add(cohort, write, "d")
    for name in ("t", "u"):
        ingest(
            pixels + 1000,
            axes="cyx",
            mpp=1.0,
            cohort=cohort,
            tissue_id=name,
            modality="imc",
            channel_names=["X", "Y"],
            split="train",
        )
        write(cohort, name, np.ones((60, 50), bool))
    (place,) = stats(cohort, quantile_level="global", stats_level="global")
    stats(cohort, quantile_level="global", stats_level="image")
    for level in ("image", "global"):
        StatisticsTables.read(place, stats_level=level)
        assert StatisticsTables.manifest(place, stats_level=level)[1]


def test_a_split_that_is_gone_is_told(cohort: Path, write: Any, tree: Any) -> None:
    add(cohort, write, "c", split="train")
    stats(cohort, method="zscore", stats_level="global")
    table = pq.read_table(cohort / "metadata/tissues.parquet")
    pq.write_table(table.drop_columns(["split"]), cohort / "metadata/tissues.parquet")
    before = tree(cohort)
    with pytest.raises(
        InvalidInputError, match=r"'train' any more.*--stats-level global --overwrite"
    ):
        stats(cohort, method="zscore", stats_level="image")
    assert tree(cohort) == before
    stats(cohort, method="zscore", stats_level="global", overwrite=True)
    stats(cohort, method="zscore", stats_level="image")
    assert_both(cohort, "zscore", "abc")


def test_tables_of_somebody_else_are_left_alone(cohort: Path) -> None:
    """Of means that stand on no quantiles: nothing that is made beside them changes them."""
    (place,) = stats(cohort, method="zscore", stats_level="global")
    for path in place.glob("global*.parquet"):
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    (place / "manifest.json").unlink()
    before = {path: path.read_bytes() for path in place.iterdir()}
    stats(cohort, method="zscore", stats_level="image")
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(ExistsError, match="nothing beside it says what it was made with"):
        stats(cohort, method="zscore", stats_level="global")


@pytest.mark.parametrize("method", ["zscore", "quantile_clipping/uq_0.9_lq_0.1_global"])
def test_after_any_steps_both_levels_are_those_made_from_nothing(
    cohort: Path, write: Any, method: str
) -> None:
    """Whatever was asked for in whatever order, and however what is there was fitted."""
    draw, compared = random.Random(method), 0
    for step in range(8):
        if step in {2, 5}:
            add(cohort, write, "cd"[step // 3], split=draw.choice(["train", "test"]))
        asked: dict[str, Any] = {
            "method": method,
            "stats_level": draw.choice(["image", "global"]),
            "split": draw.choice([None, "all"]),
            "overwrite": draw.random() < 0.3,
        }
        try:
            (place,) = stats(cohort, **asked)
        except ExistsError:
            assert not asked["overwrite"]
            continue
        for path in sorted(place.glob("*_level_means.parquet")):
            level: Any = path.name.partition("_")[0]
            said, whole = StatisticsTables.manifest(place, stats_level=level)
            assert whole
            found = StatisticsTables.read(place, stats_level=level)
            assert found.split == said["split"]
            anew = cohort.parent / "anew"
            shutil.copytree(cohort, anew)
            shutil.rmtree(anew / "imc/1_0mpp/standardization")
            options: dict[str, Any] = {
                **asked,
                "stats_level": level,
                "split": said["split"] or "all",
            }
            expected = StatisticsTables.read(stats(anew, **options)[0])
            shutil.rmtree(anew)
            assert (found.fitted_on, found.split) == (expected.fitted_on, expected.split)
            for name in ("upper", "lower", "means", "stds"):
                one, other = getattr(found, name), getattr(expected, name)
                assert (one is None) == (other is None)
                if one is not None:
                    assert one.tissue_ids == other.tissue_ids
                    np.testing.assert_array_equal(one.values, other.values)
            compared += 1
    assert compared > 4
