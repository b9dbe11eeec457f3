"""The page of a cohort that lies in a store, written here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.cohort import ingest, mask, stats, tile
from microtome.errors import InvalidInputError
from microtome.storage import StorageOptions
from microtome.view import report


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report") / "study"
    rng = np.random.default_rng(4)
    for number in range(2):
        y, x = np.mgrid[:300, :260]
        glass = rng.integers(238, 250, (300, 260, 3), dtype=np.uint8)
        inside = (y - 150) ** 2 + (x - 130) ** 2 < 110**2
        glass[inside] = np.asarray([150, 60, 140]) + rng.integers(-40, 40, (int(inside.sum()), 3))
        counts = rng.gamma(0.7, 60, (2, 300, 260)).astype(np.uint16)
        given: dict[str, Any] = {"cohort": root, "tissue_id": f"t{number}", "mpp": 1.0}
        ingest(glass, modality="he", axes="yxc", **given)
        ingest(counts, modality="imc", axes="cyx", channel_names=["DNA", "CD3"], **given)
    mask(root)
    tile(root, tile_size=64)
    stats(root, modality="imc", method="quantile_clipping", quantile=0.99, quantile_level="image")
    return root


def test_it_is_the_page_of_the_cohort_here(here: Path, s3_holding: Any, tmp_path: Path) -> None:
    with s3_holding(here, "reports", "all/study") as server:
        options = StorageOptions(endpoint=f"http://{server}", region="us-east-1")
        address = "s3://reports/all/study"
        far = report(
            address, tmp_path / "far.html", storage_options=options, throughput=False
        ).read_text()
        with pytest.raises(InvalidInputError, match=r"s3://reports/all/r\.html is an address"):
            report(address, "s3://reports/all/r.html", storage_options=options)
    near = report(here, tmp_path / "near.html", throughput=False).read_text()
    pictures = re.compile(r'src="(data:image[^"]*)"')
    assert len(pictures.findall(far)) > 5
    lost = len(pictures.findall(near)) - len(pictures.findall(far))
    assert lost == 0
    assert pictures.findall(far) == pictures.findall(near)
    assert f"<code>{address}</code>" in far
    # How much lies on the disk is not known of a store, and not made up.
    assert "on disk" in near
    assert "on disk" not in far


def test_an_address_that_was_made_a_path_is_told_as_one(here: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"^s3://bucket/key/study is an address"):
        mask(Path("s3://bucket/key/study"))
    assert here.is_dir()
