"""Tiles with the rows of several tables of a SpatialData object; what is expected is counted by hand."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

import microtome as mt
from microtome.interop import ImageTilesDataset

with warnings.catch_warnings():
    # What it imports warns of its own future, and of a config file that is not there.
    warnings.simplefilter("ignore")
    spatialdata = pytest.importorskip(
        "spatialdata", reason="needs a spatialdata that can be imported", exc_type=ImportError
    )
    ad = pytest.importorskip("anndata")
    pd = pytest.importorskip("pandas")
    from spatialdata.models import Image2DModel, ShapesModel, TableModel

# Its own calls of what it is built on, not ours.
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

SPOTS, CELLS = [7, 3, 5], ["b", "a"]
IMAGES = {"spots": "he", "cells": "he"}
SYSTEMS = {"spots": "global", "cells": "global"}


def annotating(region, ids, names, **obs):
    """Make a table of `ids`, whose first variable is ten times their place, the next a hundred times."""
    places = np.arange(1, len(ids) + 1, dtype=np.float32)
    table = ad.AnnData(np.stack([places * 10**power for power in range(1, len(names) + 1)], axis=1))
    table.var_names = names
    table.obs["region"] = pd.Categorical([region] * len(ids))
    table.obs["instance"] = list(ids)
    for name, values in obs.items():
        table.obs[name] = values
    return TableModel.parse(table, region=region, region_key="region", instance_key="instance")


@pytest.fixture(scope="module", params=["object", "store"])
def sample(request, tmp_path_factory):
    rng = np.random.default_rng(3)
    sdata = spatialdata.SpatialData(
        images={"he": Image2DModel.parse(rng.random((3, 40, 40)), dims=("c", "y", "x"))},
        shapes={
            name: ShapesModel.parse(
                rng.uniform(8, 32, (len(ids), 2)), geometry=0, radius=2.0, index=ids
            )
            for name, ids in (("spots", SPOTS), ("cells", CELLS))
        },
        tables={
            "rna": annotating("spots", sorted(SPOTS), ["CD3", "CD8"], depth=[0.5, 1.5, 2.5]),
            "protein": annotating("spots", SPOTS, ["KRAS"], depth=[4, 5, 6]),
            "kinds": annotating("cells", CELLS, ["CD3", "MYC"], kind=["T", "B"]),
        },
    )
    if request.param == "object":
        return sdata
    path = tmp_path_factory.mktemp("several") / "a.zarr"
    sdata.write(path)
    return path


def dataset(sample, tables, names=None, regions=("spots", "cells"), **options):
    return ImageTilesDataset(
        sample,
        {region: IMAGES[region] for region in regions},
        {region: SYSTEMS[region] for region in regions},
        tile_dim_in_units=8,
        table_name=tables,
        return_annotations=names,
        **options,
    )


def test_every_region_has_a_table_of_its_own(sample):
    tiles = dataset(sample, ["kinds", "rna"], ["CD3"])
    # Spots 7, 3 and 5 are rows 3, 1 and 2 of their table; cells are in their table's order.
    assert [tiles[row][1].tolist() for row in range(5)] == [[[30]], [[10]], [[20]], [[10]], [[20]]]
    assert tiles.dataset_table.keys() == {"kinds", "rna"}
    assert tiles.dataset_table["rna"].obs["instance"].tolist() == SPOTS
    assert tiles.dataset_table["kinds"].obs["instance"].tolist() == CELLS
    for table in tiles.dataset_table.values():
        TableModel().validate(table)


def test_a_region_has_several_tables(sample):
    names = ["KRAS", "rna/depth", "protein/depth", "protein/X/KRAS", "rna/X/CD8"]
    tiles = dataset(sample, ["rna", "protein"], names, regions=["spots"])
    found = [tiles[row][1].tolist() for row in range(3)]
    assert found == [
        [[10, 2.5, 4, 10, 300]], [[20, 0.5, 5, 20, 100]], [[30, 1.5, 6, 30, 200]]
    ]  # fmt: skip


def test_an_item_has_a_row_of_each_table_that_annotates_it(sample):
    tiles = dataset(sample, ["rna", "kinds", "protein"])
    rows = [{name: tiles[row][name] for name in tiles[row].tables} for row in range(5)]
    assert [set(row) for row in rows] == [{"rna", "protein"}] * 3 + [{"kinds"}] * 2
    for row, instance in zip(rows, SPOTS + CELLS, strict=True):
        assert all(own.obs["instance"].tolist() == [instance] for own in row.values())


def test_regions_in_batches(sample):
    tiles = dataset(sample, ["rna", "kinds"], "CD3", output="region", tile_size=8)
    again = pickle.loads(pickle.dumps(tiles))
    told = again.read_batch(np.array([4, 0])).additional_metadata
    assert [(one["instance_id"], one["annotations"]) for one in told] == [("a", [20]), (7, [30])]


def test_one_table_of_a_list_is_that_table(sample):
    alone = dataset(sample, "rna", ["CD3", "depth"], regions=["spots"])
    listed = dataset(sample, ["rna"], ["CD3", "rna/depth"], regions=["spots"])
    for row in range(3):
        np.testing.assert_array_equal(alone[row][1], listed[row][1])
    assert listed.dataset_table["rna"].obs.equals(alone.dataset_table.obs)


@pytest.mark.parametrize(
    ("tables", "names", "error", "told"),
    [
        (["rna", "protein"], None, RuntimeError, r"no table of \['rna', 'protein'\] annotates \['cells'\]"),
        (["rna", "nothing"], None, KeyError, "has no table 'nothing'"),
        (["rna", "rna"], None, ValueError, "several that differ"),
        ([], None, ValueError, "several that differ"),
        (["rna", "protein", "kinds"], "depth", ValueError, "all have 'depth': say which, as in 'rna/depth'"),
        (["rna", "kinds"], "MYC", KeyError, "no table of 'spots' has 'MYC'"),
        (["rna", "kinds"], "kinds/CD3", KeyError, "no table of 'spots' has 'kinds/CD3'"),
        ("rna", None, RuntimeError, "2 of 2 instances of 'cells' have no row"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(sample, tables, names, error, told):
    with pytest.raises(error, match=told) as caught:
        dataset(sample, tables, names)
    assert isinstance(caught.value, mt.MicrotomeError)


def test_a_table_of_other_regions_is_refused(sample):
    with pytest.raises(ValueError, match=r"'kinds' annotates \['cells'\], none of the regions"):
        dataset(sample, ["rna", "kinds"], regions=["spots"])
