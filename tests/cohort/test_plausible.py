"""Pixel sizes that no microscope has are refused, and unlikely ones told, with the unit that was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.cohort import ingest
from microtome.errors import NoResolutionError

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)


def add(root: Path, mpp: Any, resolution: Any = 1.0) -> None:
    where: dict[str, Any] = {"cohort": root, "tissue_id": "t", "modality": "he"}
    ingest(PIXELS, axes="yxc", mpp=mpp, resolution=resolution, upsample=True, **where)


@pytest.mark.parametrize(
    ("mpp", "words"),
    [
        (
            0.0005,
            r"0\.0005 um was given, which no microscope has \(is it 0\.0005 mm, which is 0\.5 um",
        ),
        (1000.0, r"1000 nm, which is 1 um"),
        (5e-7, "not a possible pixel size"),
        (5000.0, "not a possible pixel size"),
        ((0.5, 0.0005), r"0\.5 x 0\.0005 um was given, which no microscope has; give"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, mpp: Any, words: str) -> None:
    with pytest.raises(NoResolutionError, match=words):
        add(tmp_path / "c", mpp)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("mpp", "words"),
    [
        (0.002, "0.002 um was given; most images of tissue have 0.02 to 20 um (is it 0.002 mm"),
        (500.0, "(is it 500 nm, which is 0.5 um?)"),
    ],
)
def test_what_is_unlikely_is_told(
    tmp_path: Path, mpp: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path / "c", mpp, mpp)
    (told,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert words in told


@pytest.mark.parametrize("mpp", [0.02, 0.25, 1.0, 20.0])
def test_what_microscopes_have_is_not_told(
    tmp_path: Path, mpp: Any, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path / "c", mpp, mpp)
    assert not caplog.records
