"""`tiles_to_anndata` and `cells_to_anndata`: rows, places and vectors, written and read by anndata."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import microtome as mt
from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)
from microtome.interop import cells_to_anndata, tiles_to_anndata

TILES = mt.TileTable.from_columns(
    {
        "tissue_id": ["b", "a", "b"],
        "tile_id": [7, 7, 2],
        "row": [0, 10, -4],
        "col": [8, 0, 20],
        "tissue_frac": [0.5, 1.0, 0.25],
        "grade": ["low", "high", None],
    },
    tile_size=(16, 8),
    strategy="grid",
    resolution="0_5mpp",
)
CELLS = pa.table(
    {
        "tissue_id": ["a", "a", "b"],
        "cell_id": [1, 9, 1],
        "centroid_y": [1.0, 2.5, 3.0],
        "centroid_x": [10.0, 20.0, 30.5],
        "CD3": [0.5, 7.0, 2.0],
        "CD8": [1, 0, 4],
        "type": ["T", "B", "T"],
    }
)


def embedded(key, rows, width=3):
    """A table of vectors in another order: those of (tissue, number) are [number, 10 * number, ...]."""
    vectors = [[float(number) * 10**power for power in range(width)] for _, number in rows]
    return pa.table(
        {
            "tissue_id": [tissue for tissue, _ in rows],
            key: [number for _, number in rows],
            "embedding": pa.array(vectors, pa.list_(pa.float32(), width)),
        }
    )


def test_tiles_with_their_vectors_and_centres(tmp_path):
    vectors = embedded("tile_id", [("a", 7), ("b", 2), ("c", 1), ("b", 7)])
    pq.write_table(vectors, tmp_path / "v.parquet")
    made = tiles_to_anndata(
        TILES, tmp_path / "t.h5ad", vectors=tmp_path / "v.parquet", variables=["tissue_frac"]
    )
    for found in (made, anndata.read_h5ad(tmp_path / "t.h5ad")):
        assert found.obs_names.tolist() == ["b_7", "a_7", "b_2"]
        # Centres of 16 x 8 pixels of half a micrometre, (x, y).
        np.testing.assert_array_equal(found.obsm["spatial"], [[6, 4], [2, 9], [12, 2]])
        np.testing.assert_array_equal(
            found.obsm["X_embedding"], [[7, 70, 700], [7, 70, 700], [2, 20, 200]]
        )
        assert found.var_names.tolist() == ["tissue_frac"]
        np.testing.assert_array_equal(found.X.ravel(), [0.5, 1.0, 0.25])
        assert found.obs["grade"].astype(object).fillna("-").tolist() == ["low", "high", "-"]
        assert found.obs["row"].tolist() == [0, 10, -4]
        assert found.uns["microtome"]["strategy"] == "grid"
    assert "X_embedding" not in tiles_to_anndata(TILES).obsm


def test_the_pixel_size_of_tiles_is_stated_or_asked_for():
    bare = mt.TileTable(TILES.table, TILES.tile_size, "grid")
    with pytest.raises(InvalidInputError, match="give mpp="):
        tiles_to_anndata(bare)
    made = tiles_to_anndata(bare, mpp=(2.0, 1.0))
    np.testing.assert_array_equal(made.obsm["spatial"][0], [12, 16])


def test_cells_with_markers_as_variables(tmp_path):
    pq.write_table(CELLS, tmp_path / "cells.parquet")
    vectors = embedded("cell_id", [("b", 1), ("a", 9), ("a", 1)])
    made = cells_to_anndata(
        tmp_path / "cells.parquet",
        tmp_path / "c.h5ad",
        vectors=vectors,
        variables=["CD8", "CD3"],
    )
    found = anndata.read_h5ad(tmp_path / "c.h5ad")
    assert found.obs_names.tolist() == made.obs_names.tolist() == ["a_1", "a_9", "b_1"]
    assert found.var_names.tolist() == ["CD8", "CD3"]
    np.testing.assert_array_equal(found.X, [[1, 0.5], [0, 7], [4, 2]])
    np.testing.assert_array_equal(found.obsm["spatial"], [[10, 1], [20, 2.5], [30.5, 3]])
    np.testing.assert_array_equal(found.obsm["X_embedding"][:, 0], [1, 9, 1])
    assert found.obs["type"].tolist() == ["T", "B", "T"]


def test_places_that_nobody_knows_are_none():
    assert "spatial" not in cells_to_anndata(CELLS.drop(["centroid_x"])).obsm
    lost = CELLS.set_column(2, "centroid_y", pa.array([1.0, None, 2.0]))
    assert "spatial" not in cells_to_anndata(lost).obsm


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="none of b_2"):
        tiles_to_anndata(TILES, vectors=embedded("tile_id", [("a", 7), ("b", 7)]))
    with pytest.raises(UnknownNameError, match="tile_id"):
        tiles_to_anndata(TILES, vectors=embedded("cell_id", [("a", 7), ("b", 7), ("b", 2)]))
    with pytest.raises(UnknownNameError, match="no column 'CD4'"):
        cells_to_anndata(CELLS, variables=["CD4"])
    with pytest.raises(InvalidInputError, match="must hold numbers"):
        cells_to_anndata(CELLS, variables=["type"])
    with pytest.raises(InvalidInputError, match="got the text"):
        cells_to_anndata(CELLS, variables="CD3")
    with pytest.raises(FormatError, match="tissue_id and cell_id"):
        cells_to_anndata(CELLS.drop(["cell_id"]))
    with pytest.raises(NotFoundError):
        cells_to_anndata(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(FormatError, match=r"bad\.parquet"):
        cells_to_anndata(tmp_path / "bad.parquet")
    with pytest.raises(InvalidInputError, match=r"c\.h5ad"):
        cells_to_anndata(CELLS, tmp_path / "c.h5")
    cells_to_anndata(CELLS, tmp_path / "c.h5ad")
    with pytest.raises(ExistsError):
        cells_to_anndata(CELLS, tmp_path / "c.h5ad")
    cells_to_anndata(CELLS, tmp_path / "c.h5ad", overwrite=True)


def test_columns_that_files_of_anndata_cannot_hold_as_they_are(tmp_path):
    seen = pa.array([0, None, 86_400], pa.timestamp("s"))
    odd = CELLS.append_column("seen", seen).append_column("ok", pa.array([True, None, False]))
    found = anndata.read_h5ad(_written(odd, tmp_path / "odd.h5ad"))
    assert found.obs["seen"].dropna().tolist() == ["1970-01-01 00:00:00", "1970-01-02 00:00:00"]
    assert found.obs["ok"].isna().tolist() == [False, True, False]
    assert found.obs["ok"].dropna().tolist() == [True, False]
    lists = CELLS.append_column("near", pa.array([[1], [2, 3], []]))
    with pytest.raises(InvalidInputError, match=r"'near' holds list.*leave it out"):
        cells_to_anndata(lists)


def _written(cells, path):
    cells_to_anndata(cells, path)
    return path


def test_the_cells_of_a_cohort_that_has_none(tmp_path):
    mt.create_cohort(tmp_path / "study")
    with pytest.raises(NotFoundError, match="microtome cohort cells"):
        cells_to_anndata(tmp_path / "study")


def test_vectors_in_a_table_of_cells_are_matrices(tmp_path):
    table = pa.table(
        {
            "tissue_id": ["a", "a", "b"],
            "cell_id": [1, 2, 1],
            "embedding": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float32(), 2)),
            "pca": pa.array([[1], [2], [3]], pa.list_(pa.int16(), 1)),
        }
    )
    cells_to_anndata(table, tmp_path / "c.h5ad")
    made = anndata.read_h5ad(tmp_path / "c.h5ad")
    assert made.obsm["X_embedding"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert made.obsm["pca"].tolist() == [[1], [2], [3]]
    assert list(made.obs.columns) == ["tissue_id", "cell_id"]
    ragged = table.set_column(3, "pca", pa.array([[1], [2, 3], None]))
    with pytest.raises(InvalidInputError, match="column 'pca' holds list"):
        cells_to_anndata(ragged)


def placed(
    tiles,
    vectors,
    mpp=0.5,
    shift=(0, 0),
    size=None,
    columns=("row", "col", "centroid_y", "centroid_x"),
):
    """The table of vectors as `embed_tiles` writes it: with corners and centres, counted from the edge."""
    corners = np.stack([tiles.column("row"), tiles.column("col")], axis=1) + np.array(shift)
    centres = (corners + np.array(size or tiles.tile_size) / 2) * mpp
    known = {
        "row": corners[:, 0],
        "col": corners[:, 1],
        "centroid_y": centres[:, 0],
        "centroid_x": centres[:, 1],
    }
    for name in columns:
        vectors = vectors.append_column(name, pa.array(known[name]))
    note = {"format": "tile-embeddings", "micrometres_from": "upper left edge of the image"}
    return vectors.replace_schema_metadata({b"microtome": json.dumps(note).encode()})


@pytest.mark.parametrize(
    "other",
    [
        {"shift": (0, 1)},
        {"shift": (16, 0)},
        {"size": (32, 16)},
        {"shift": (0, 1), "columns": ("row", "col")},
        {"shift": (-1, 0), "columns": ("centroid_y", "centroid_x")},
        {"size": (18, 8), "columns": ("centroid_y", "centroid_x")},
    ],
    ids=str,
)
def test_vectors_of_tiles_at_other_places_are_refused(other):
    # The numbers are the same: those of every tiling begin with 0.
    vectors = embedded("tile_id", [("b", 7), ("a", 7), ("b", 2)])
    same = {name: value for name, value in other.items() if name == "columns"}
    assert "X_embedding" in tiles_to_anndata(TILES, vectors=placed(TILES, vectors, **same)).obsm
    with pytest.raises(
        InvalidInputError, match=r"of other tiles: b_7 lies at .*3 of 3 differ; pass"
    ):
        tiles_to_anndata(TILES, vectors=placed(TILES, vectors, **other))


def test_vectors_of_images_that_state_their_pixel_size_more_exactly_go_with_their_tiles():
    far = mt.TileTable.from_columns(
        {"tissue_id": "a", "row": [0, 40_000], "col": [7, 90_000]},
        tile_size=64,
        strategy="grid",
        resolution="0_5mpp",
    )
    vectors = placed(far, embedded("tile_id", [("a", 0), ("a", 1)]), mpp=0.4991)
    assert tiles_to_anndata(far, vectors=vectors).obsm["X_embedding"].shape == (2, 3)


def test_centres_that_nobody_knows_or_that_count_otherwise_tell_nothing():
    vectors = embedded("tile_id", [("b", 7), ("a", 7), ("b", 2)])
    unknown = vectors
    for name in ("centroid_y", "centroid_x"):
        unknown = unknown.append_column(name, pa.nulls(3, pa.float64()))
    assert "X_embedding" in tiles_to_anndata(TILES, vectors=unknown).obsm
    # An earlier microtome counted from the image's translation, which may be anything.
    formerly = placed(TILES, vectors, shift=(100, 0), columns=("centroid_y", "centroid_x"))
    note = json.dumps({"format": "tile-embeddings"}).encode()
    formerly = formerly.replace_schema_metadata({b"microtome": note})
    assert "X_embedding" in tiles_to_anndata(TILES, vectors=formerly).obsm


def test_vectors_go_by_tissue_and_cell_and_not_by_what_both_are_called_together():
    # "a" and "1_2", and "a_1" and "2", are one text if they are put together.
    cells = pa.table({"tissue_id": ["a_1", "a"], "cell_id": ["2", "1_2"]})
    vectors = pa.table(
        {
            "tissue_id": ["a", "a_1"],
            "cell_id": ["1_2", "2"],
            "embedding": pa.array([[1.0], [2.0]], pa.list_(pa.float32(), 1)),
        }
    )
    with pytest.warns(UserWarning, match="not unique"):
        made = cells_to_anndata(cells, vectors=vectors)
    assert made.obsm["X_embedding"].ravel().tolist() == [2.0, 1.0]
    with (
        pytest.raises(UnknownNameError, match="lack 1 of 2 cells"),
        pytest.warns(UserWarning, match="not unique"),
    ):
        cells_to_anndata(cells, vectors=vectors.slice(0, 1))


def test_a_tile_with_vectors_of_several_images_takes_those_that_are_asked_for():
    rows = [("a", 7), ("b", 7), ("b", 2)]
    one = embedded("tile_id", rows, 1)
    other = one.set_column(
        2, "embedding", pa.array([[-1.0], [-2.0], [-3.0]], pa.list_(pa.float32(), 1))
    )
    both = pa.concat_tables([one, other])
    named = both.append_column("modality", pa.array(["he"] * 3 + ["ihc_CD3"] * 3))
    with pytest.raises(
        InvalidInputError, match=r"3 of 3 tiles.*tile 7 of tissue 'b' has 2, of he, ihc_CD3; say of"
    ):
        tiles_to_anndata(TILES, vectors=named)
    with pytest.raises(InvalidInputError, match="do not say of which image each is"):
        tiles_to_anndata(TILES, vectors=both, modality="he")
    he = tiles_to_anndata(TILES, vectors=named, modality="he")
    assert he.obsm["X_embedding"].ravel().tolist() == [7, 7, 2]
    ihc = tiles_to_anndata(TILES, vectors=named, modality="ihc_CD3")
    assert ihc.obsm["X_embedding"].ravel().tolist() == [-2, -1, -3]
    with pytest.raises(UnknownNameError, match="no vectors of ihc_CD8, only of he, ihc_CD3"):
        tiles_to_anndata(TILES, vectors=named, modality="ihc_CD8")


def test_a_cell_that_is_there_twice_gets_no_vector():
    vectors = embedded("cell_id", [("a", 1), ("a", 9), ("b", 1)])
    twice = pa.concat_tables([CELLS, CELLS.slice(1, 1)])
    with (
        pytest.raises(InvalidInputError, match="cell 9 of tissue 'a' is there more than once"),
        pytest.warns(UserWarning, match="not unique"),
    ):
        cells_to_anndata(twice, vectors=vectors)
    again = pa.concat_tables([vectors, vectors.slice(2, 1)])
    with pytest.raises(InvalidInputError, match="1 of 3 cells have several vectors: cell 1"):
        cells_to_anndata(CELLS, vectors=again)


def test_vectors_of_cells_of_another_mask_are_refused():
    vectors = embedded("cell_id", [("a", 1), ("a", 9), ("b", 1)])
    note = {"format": "pooled-labels", "micrometres_from": "upper left edge of the image"}
    told = {b"microtome": json.dumps(note).encode()}

    def placed_at(y, x):
        made = vectors.append_column("centroid_y", pa.array(y)).append_column(
            "centroid_x", pa.array(x)
        )
        return made.replace_schema_metadata(told)

    y, x = CELLS["centroid_y"].to_pylist(), CELLS["centroid_x"].to_pylist()
    near = placed_at([each + 2.0 for each in y], [each - 2.0 for each in x])
    assert cells_to_anndata(CELLS, vectors=near).obsm["X_embedding"].shape == (3, 3)
    with pytest.raises(
        InvalidInputError,
        match=r"other cells: a_9 lies at \[2\.5, 26\.0\] .* but at \[2\.5, 20\.0\].* 1 of 3 are",
    ):
        cells_to_anndata(CELLS, vectors=placed_at(y, [10.0, 26.0, 30.5]))
    # Places that nobody knows, or that count from elsewhere, tell nothing.
    lost = placed_at([None, *y[1:]], [0.0, 0.0, 0.0])
    former = placed_at(y, [0.0, 0.0, 0.0]).replace_schema_metadata(
        {b"microtome": b'{"format": "pooled-labels"}'}
    )
    for table in (lost, former):
        assert "X_embedding" in cells_to_anndata(CELLS, vectors=table).obsm
