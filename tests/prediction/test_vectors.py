"""Vectors of cells: crops around them, means inside them, and what single-cell tools read."""

from __future__ import annotations

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import (
    DependencyError,
    ExistsError,
    FormatError,
    InvalidInputError,
    NoResolutionError,
    OutOfRangeError,
)
from microtome.prediction import (
    CellCrops,
    _vectors_pool,
    embed_tiles,
    pool_labels,
    vectors_to_anndata,
)
from microtome.sources import open_image


def picture(shape=(3, 90, 70), dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(0, 60_000, shape).astype(dtype)


def objects(shape=(90, 70), count=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, count + 1, shape).astype(np.uint32) * 7


def mean(batch):
    return batch.mean((2, 3))


# ------------------------------------------------------------------ means inside objects


@settings(max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    count=st.integers(1, 300),
    block=st.integers(8, 5000),
    dtype=st.sampled_from(["uint8", "uint16", "float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_means_are_those_of_scipy_on_the_whole(tmp_path_factory, shape, count, block, dtype, seed):
    labels, pixels = objects(shape, count, seed), picture((2, *shape), dtype, seed)
    labels[0, 0] = 3  # at least one object
    image = open_image(pixels, axes="cyx", mpp=(0.5, 0.25))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_vectors_pool, "_BLOCK_BYTES", block)
        path = pool_labels(
            image,
            open_image(labels, axes="yx", mpp=(0.5, 0.25)),
            tmp_path_factory.mktemp("pool") / "v.parquet",
            tissue_id="t",
        )
    table = pq.read_table(path)
    ids = np.unique(labels[labels > 0])
    assert table["cell_id"].to_pylist() == ids.tolist()
    assert set(table["tissue_id"].to_pylist()) == {"t"}
    np.testing.assert_array_equal(table["area"], np.bincount(labels.ravel())[ids])
    for channel, plane in enumerate(pixels):
        expected = scipy.ndimage.mean(plane, labels, ids)
        found = np.array(table["embedding"].to_pylist())[:, channel]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    middles = np.array(scipy.ndimage.center_of_mass(np.ones(shape), labels, ids))
    centres = (middles + 0.5) * (0.5, 0.25)
    np.testing.assert_allclose(np.stack([table["centroid_y"], table["centroid_x"]], 1), centres)


def test_blocks_of_a_stored_image_are_read_once(stored, tmp_path, monkeypatch):
    image = stored(shape=(3, 600, 520), mpp=0.5, translation=(10.0, 20.0))
    labels = objects((600, 520), 500)
    monkeypatch.setattr(_vectors_pool, "_BLOCK_BYTES", 1 << 20)
    calls = []
    path = pool_labels(
        image,
        open_image(labels, axes="yx", mpp=0.5),
        tmp_path / "v.parquet",
        channels=["channel 2", "channel 0"],
        progress=lambda *what: calls.append(what),
    )
    table = pq.read_table(path)
    pixels = image.level(0)[...]
    ids = np.unique(labels[labels > 0])
    found = np.array(table["embedding"].to_pylist())
    for at, channel in enumerate((2, 0)):
        np.testing.assert_allclose(
            found[:, at], scipy.ndimage.mean(pixels[channel], labels, ids), rtol=1e-6
        )
    assert calls[-1][1] == calls[-1][2] == len(calls) > 1
    note = json.loads(pq.read_schema(path).metadata[b"microtome"])
    assert note["channels"] == ["channel 2", "channel 0"]
    assert note["version"] == 2
    assert note["micrometres_from"] == "upper left edge of the image"
    # Wherever the image lies.
    first = (np.argwhere(labels == ids[0]).mean(0) + 0.5) * 0.5
    np.testing.assert_allclose(
        [table["centroid_y"][0].as_py(), table["centroid_x"][0].as_py()], first
    )
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "images"] == ["v.parquet"]


def test_what_cannot_be_pooled_is_refused(tmp_path):
    image = open_image(picture(), axes="cyx", mpp=1)
    labels = objects()
    hole = picture(dtype="float32")
    hole[1, labels == 14] = np.nan
    for pixels, marked, told in (
        (image, labels[:80], "has .* pixels and"),
        (image, labels.astype(np.float32), "labels are integers"),
        (image, -labels.astype(np.int64), "got -"),
        (image, labels * 0, "holds no object"),
        (open_image(hole, axes="cyx", mpp=1), labels, "NaN in object 14"),
        (open_image(picture((2, 3, 90, 70)), axes="czyx", mpp=1), labels, "in one plane"),
    ):
        with pytest.raises(InvalidInputError, match=told):
            pool_labels(pixels, open_image(marked, axes="yx", mpp=1), tmp_path / "v.parquet")
    with pytest.raises(InvalidInputError, match="leaves none"):
        pool_labels(image, open_image(labels, axes="yx"), tmp_path / "v.parquet", channels=[])
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ crops around cells


@pytest.mark.parametrize("size", [1, 8, 9, (6, 11)])
def test_crops_are_centred_on_cells(tmp_path, size):
    pixels = picture()
    image = open_image(pixels, axes="cyx", mpp=(0.5, 0.25))
    height, width = np.broadcast_to(size, 2).tolist()
    rng = np.random.default_rng(1)
    cells = rng.integers((0, 0), (90, 70), (30, 2))
    places = (cells + 0.5) * (0.5, 0.25)
    crops = CellCrops(image, places, size=size, cell_ids=[f"c{n}" for n in range(30)])
    padded = np.pad(pixels, ((0, 0), (20, 20), (20, 20)))
    rows = np.array([3, 29, 0])
    batch = crops.read_batch(rows)
    for row, crop in zip(rows, batch.data, strict=True):
        y, x = cells[row] + 20
        top, left = y - height // 2 + (1 - height % 2), x - width // 2 + (1 - width % 2)
        # An even crop has its centre between two pixels: the cell's is one of them.
        top, left = (min(top, y), min(left, x))
        low = crops.starts[row] + 20
        assert low[0] <= y < low[0] + height
        assert low[1] <= x < low[1] + width
        assert abs(low[0] + (height - 1) / 2 - y) <= 0.5
        assert abs(low[1] + (width - 1) / 2 - x) <= 0.5
        np.testing.assert_array_equal(
            crop, padded[:, low[0] : low[0] + height, low[1] : low[1] + width]
        )
    path = embed_tiles(mean, crops, tmp_path / "v.parquet", batch_size=7)
    table = pq.read_table(path)
    assert table.column_names[:2] == ["tissue_id", "cell_id"]
    assert table["cell_id"].to_pylist() == [f"c{n}" for n in range(30)]
    np.testing.assert_array_equal(np.stack([table["centroid_y"], table["centroid_x"]], 1), places)


def test_crops_of_a_coarser_level_and_some_channels(stored):
    image = stored(shape=(3, 300, 280))
    crops = CellCrops(image, [[75.0, 70.0]], size=10, level=1, channels=[1], tissue_id="t")
    batch = crops.read_batch(np.array([0]))
    start = crops.starts[0]
    assert abs(start[0] + 4.5 - 75) <= 0.5 + 0.25
    np.testing.assert_array_equal(
        batch.data[0, 0], image.level(1)[1, start[0] : start[0] + 10, start[1] : start[1] + 10]
    )
    assert batch.additional_metadata[0]["tissue_id"] == "t"


def test_cells_that_cannot_be_are_refused():
    image = open_image(picture(), axes="cyx", mpp=0.5)
    for centroids, options, told in (
        ([1.0, 2.0], {}, "centroids are"),
        ([[1.0, np.nan]], {}, "finite"),
        ([[1.0, 2.0]], {"cell_ids": [1, 2]}, "2 names for 1 cells"),
        ([[1.0, 2.0]], {"size": 0}, "crops of"),
    ):
        with pytest.raises(InvalidInputError, match=told):
            CellCrops(image, centroids, **{"size": 4, **options})
    with pytest.raises(NoResolutionError):
        CellCrops(open_image(picture(), axes="cyx"), [[1.0, 2.0]], size=4)
    with pytest.raises(OutOfRangeError, match="cell 1 of 1"):
        CellCrops(image, [[1.0, 2.0]], size=4).read_batch(np.array([1]))


# ------------------------------------------------------------------ AnnData


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.parametrize("ids", ["numbers", "names"])
def test_anndata_has_vectors_places_and_where_they_are_from(tmp_path, form, ids):
    anndata = pytest.importorskip("anndata")
    image = open_image(picture(), axes="cyx", mpp=0.5)
    centroids = np.random.default_rng(0).uniform(0, 30, (12, 2))
    names = [f"c{n}" for n in range(12)] if ids == "names" else None
    crops = CellCrops(image, centroids, names, size=8, tissue_id="t1")
    table = embed_tiles(mean, crops, tmp_path / "v.parquet")
    out = tmp_path / f"v.{form}"
    made = vectors_to_anndata(table, out)
    again = getattr(anndata, f"read_{form}")(out)
    expected = pq.read_table(table)
    for found in (made, again):
        assert found.shape == (12, 0)
        np.testing.assert_array_equal(
            found.obsm["X_embedding"], np.array(expected["embedding"].to_pylist(), np.float32)
        )
        np.testing.assert_allclose(
            found.obsm["spatial"], np.stack([expected["centroid_x"], expected["centroid_y"]], 1)
        )
        assert found.obs["cell_id"].tolist() == expected["cell_id"].to_pylist()
        assert found.obs["tissue_id"].tolist() == ["t1"] * 12
        assert found.obs_names[3] == f"t1_{expected['cell_id'][3].as_py()}"
        assert found.uns["microtome"]["model"] == f"{__name__}.mean"
    with pytest.raises(ExistsError):
        vectors_to_anndata(table, out)
    vectors_to_anndata(table, out, overwrite=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["v.parquet", out.name])


def test_pooled_objects_and_places_that_nobody_knows(tmp_path):
    pytest.importorskip("anndata")
    table = pool_labels(
        open_image(picture(), axes="cyx"),
        open_image(objects(), axes="yx"),
        tmp_path / "v.parquet",
        tissue_id="t",
    )
    made = vectors_to_anndata(pq.read_table(table))
    assert "spatial" not in made.obsm
    assert made.obs["area"].sum() == (objects() > 0).sum()
    assert made.obsm["X_embedding"].shape == (len(made), 3)
    assert made.var_names.tolist() == ["channel 0", "channel 1", "channel 2"]
    np.testing.assert_array_equal(made.X, made.obsm["X_embedding"])


def test_markers_are_the_variables_of_what_was_measured(tmp_path):
    anndata = pytest.importorskip("anndata")
    image = open_image(picture(), axes="cyx", mpp=0.5, channel_names=["DNA", "CD3", "CD8"])
    labels = open_image(objects(), axes="yx", mpp=0.5)
    table = pool_labels(image, labels, tmp_path / "v.parquet", channels=["CD8", "DNA"])
    vectors_to_anndata(table, tmp_path / "v.h5ad")
    again = anndata.read_h5ad(tmp_path / "v.h5ad")
    inside = labels.level(0)[...] == again.obs["cell_id"].iloc[4]
    np.testing.assert_allclose(again[:, "CD8"].X[4, 0], image.level(0)[2][inside].mean(), rtol=1e-6)
    alike = open_image(picture((2, 90, 70)), axes="cyx", channel_names=["CD3", "CD3"])
    table = pool_labels(alike, labels, tmp_path / "alike.parquet")
    assert vectors_to_anndata(table).shape[1] == 0


def test_what_is_no_table_of_vectors_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("anndata")
    with pytest.raises(FormatError, match="holds no vectors"):
        vectors_to_anndata(pa.table({"tissue_id": ["a"], "embedding": [[1.0]]}))
    ragged = pa.table({"tissue_id": ["a"], "cell_id": [1], "embedding": [[1.0]]})
    with pytest.raises(FormatError, match="not lists of one length"):
        vectors_to_anndata(ragged)
    fine = ragged.set_column(
        2, "embedding", ragged["embedding"].cast(pa.list_(pa.float32(), 1)).combine_chunks()
    )
    assert vectors_to_anndata(fine).shape == (1, 0)
    with pytest.raises(InvalidInputError, match=r"\.h5ad or \.zarr"):
        vectors_to_anndata(fine, tmp_path / "v.parquet")
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(DependencyError, match=r"microtome\[anndata\]"):
        vectors_to_anndata(fine)
