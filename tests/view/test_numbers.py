"""What the page says about tiles is what counting their pixels one by one gives."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from microtome.tiling import TileTable
from microtome.view._inventory import Tiling, take_inventory
from microtome.view._numbers import tile_numbers

RESOLUTION = "0_5mpp"


@pytest.mark.parametrize("tissue_id", ["one", "two"])
@pytest.mark.parametrize(("strategy", "size"), [("default", 64), ("grid", 96)])
def test_numbers_are_those_of_the_pixels(cohort, tissue_id, strategy, size):
    inventory = take_inventory(cohort.root)
    (tilings,) = inventory.tilings.values()
    (tiling,) = [tiling for tiling in tilings if tiling.strategy == strategy]
    found = tile_numbers(tiling, tissue_id)

    folder = cohort.root / "tiling" / RESOLUTION / strategy
    rows = pq.read_table(folder / f"{size}_tile_coordinates.parquet").to_pylist()
    masks = cohort.root / "segmentations" / RESOLUTION / "tissue_masks"
    tissue = np.load(masks / f"{tissue_id}.npz")["mask"]
    # Room for tiles that hang over the far edges; what is there is background.
    times = np.zeros(np.add(tissue.shape, size), int)
    padded = np.zeros(times.shape, bool)
    padded[: tissue.shape[0], : tissue.shape[1]] = tissue
    mine = [row for row in rows if row["tissue_id"] == tissue_id]
    for row in mine:
        times[row["row"] : row["row"] + size, row["col"] : row["col"] + size] += 1
    held = (times * padded).sum()
    assert found.tiles == len(mine) > 3
    assert found.coverage == pytest.approx((times > 0)[padded].mean())
    assert found.overlap == pytest.approx((held - (padded & (times > 0)).sum()) / held, abs=1e-6)
    assert found.tissue == pytest.approx(held / times.sum(), abs=1e-6)
    assert found.waste == pytest.approx(1 - held / times.sum(), abs=1e-6)
    if strategy == "grid":
        assert found.overlap == pytest.approx(0, abs=1e-6)


def test_what_tables_do_not_say_is_not_made_up():
    # As SPORA writes them: no share of tissue, and here no statistics either.
    table = TileTable.from_columns(
        {"tissue_id": "a", "row": [0, 8], "col": [0, 0]}, tile_size=16, strategy="default"
    )
    tiling = Tiling("default", "16", 2, {}, table)
    found = tile_numbers(tiling, "a")
    assert (found.tiles, found.coverage, found.overlap) == (2, None, None)
    assert (found.tissue, found.waste) == (None, None)


def test_a_tissue_without_tiles_has_none():
    table = TileTable.from_columns(
        {"tissue_id": "a", "row": [0], "col": [0]}, tile_size=16, strategy="default"
    )
    tiling = Tiling("default", "16", 1, {"b": {"coverage_ratio": 1.0}}, table)
    assert tile_numbers(tiling, "b").tiles == 0
    assert tile_numbers(tiling, "b").coverage == 1.0
    assert tile_numbers(tiling, "c").coverage is None
