"""Channels that nobody measured where statistics were fitted: told as such, and never NaN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.cohort import MultiplexImagingDataset, ingest, stats, tile, validate
from microtome.errors import InvalidInputError

SPEC = "quantile_clipping/uq_0.99_image"
WORDS = r"fitted on split 'train' \(a, b\), where nobody measured them; .*--split NAME.*--stats-level image"


@pytest.fixture
def cohort(imc: Any, write: Any) -> Path:
    """Two tissues of the training split with CD3, DNA and Ki67, and one of the test split."""
    root, _ = imc
    for name, channels in (("d", ["DNA", "CD8"]), ("e", ["CD8", "PD1"])):
        pixels = np.random.default_rng(len(name)).integers(1, 500, (2, 60, 70)).astype(np.uint16)
        ingest(
            pixels,
            axes="cyx",
            mpp=1.0,
            cohort=root,
            tissue_id=name,
            modality="imc",
            channel_names=channels,
            split="test",
        )
        write(root, name, np.ones((60, 70), bool))
    tile(root, tile_size=32, method="grid", strategy="default")
    return root


def dataset(root: Path, spec: str = SPEC, **options: Any) -> MultiplexImagingDataset:
    return MultiplexImagingDataset("c", "imc", path=root, standardization=spec, **options)


@pytest.mark.parametrize("level", ["image", "global"])
def test_whoever_computes_them_is_told(cohort: Path, caplog: Any, level: Any) -> None:
    stats(cohort, quantile_level=level)
    (told,) = {r.getMessage().split(". ")[1] for r in caplog.records if "CD8" in r.getMessage()}
    assert told.startswith("CD8, PD1: statistics were fitted on split 'train' (a, b), where nobody")
    assert "imc: 2 channels have no means" in caplog.text


@pytest.mark.parametrize("mask_off", [False, True])
def test_they_are_left_out_with_the_reason_and_nothing_is_nan(
    cohort: Path, caplog: Any, mask_off: bool
) -> None:
    stats(cohort)
    caplog.clear()
    found = dataset(cohort, tile_size=32, disable_quantile_mask=mask_off)
    tissue = found.get_tissue("d", kind="complete")
    assert tissue.channel_names.tolist() == ["DNA"]
    assert np.isfinite(np.asarray(tissue.image)).all()
    (warned,) = [r.getMessage() for r in caplog.records]
    assert "channels of tissue d are left out. CD8: statistics were" in warned
    assert "degenerate" not in warned
    # The command as it can be copied.
    assert f"`microtome stats {cohort} --method" in warned
    with pytest.raises(InvalidInputError, match=r"no channel of tissue 'e'.*" + WORDS):
        found.get_tissue("e", kind="complete")


def test_what_the_message_advises_helps(cohort: Path) -> None:
    (there,) = stats(cohort, split="all")
    assert {f.name for f in there.iterdir()} >= {"global_level_means.parquet"}
    assert dataset(cohort).get_tissue("e", kind="complete").channel_names.tolist() == ["CD8", "PD1"]
    stats(cohort, stats_level="image", overwrite=True)
    by_tissue = dataset(cohort, stats_level="image").get_tissue("e", kind="complete")
    assert by_tissue.channel_names.tolist() == ["CD8", "PD1"]
    assert np.isfinite(np.asarray(by_tissue.image)).all()


def test_validate_says_the_same(cohort: Path) -> None:
    stats(cohort)
    found = [f for f in validate(cohort) if f.kind.startswith("statistics")]
    assert {f.kind for f in found} == {"statistics-unfitted"}
    assert {f.severity for f in found} == {"warning"}
    assert {Path(f.place).name for f in found} == {
        "global_level_means.parquet",
        "global_level_stds.parquet",
    }
    assert "no number of CD8, PD1: they were fitted on split 'train' (a, b)" in found[0].what
    assert "--stats-level image" in found[0].advice


def test_a_tissue_without_tissue_has_another_reason(imc: Any, write: Any) -> None:
    root, sources = imc
    write(root, "b", np.zeros(sources["b"].shape[-2:], bool))
    stats(root)
    with pytest.raises(InvalidInputError, match="CD3, DNA, Ki67: no pixel of them lay inside"):
        dataset(root).get_tissue("b", kind="complete")
