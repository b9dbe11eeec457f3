"""The map of embeddings keeps what two dimensions can keep, and refuses what is no table of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.errors import FormatError
from microtome.view import _embeddings, embedding_map, plot_embeddings


def write(path, vectors, tissues=None, **options):
    lists = pa.array([list(map(float, vector)) for vector in vectors], pa.list_(pa.float32()))
    names = tissues or ["t"] * len(vectors)
    pq.write_table(pa.table({"tissue_id": names, "embedding": lists}), path, **options)
    return path


def test_components_are_those_of_the_covariance(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 6)).astype(np.float32) * [5, 1, 3, 0.2, 1, 1]
    found = embedding_map(write(tmp_path / "e.parquet", vectors))
    vectors = vectors.astype(np.float32).astype(np.float64)
    values, directions = np.linalg.eigh(np.cov(vectors.T))
    expected = (vectors - vectors.mean(axis=0)) @ directions[:, [-1, -2]]
    assert np.allclose(np.abs(found.points), np.abs(expected), atol=1e-6)
    assert found.explained == pytest.approx(tuple(values[[-1, -2]] / values.sum()))
    assert (found.tiles, found.dimension) == (60, 6)


@pytest.mark.parametrize("seed", range(6))
def test_the_strongest_number_points_to_the_right_and_up(tmp_path, seed):
    # The sign of a component is arbitrary; without a rule, half of these would fail.
    vectors = np.random.default_rng(seed).normal(size=(30, 3)) * [4, 2, 1]
    found = embedding_map(write(tmp_path / "e.parquet", vectors))
    for axis in range(2):
        correlation = (vectors - vectors.mean(axis=0)).T @ found.points[:, axis]
        assert correlation[np.abs(correlation).argmax()] > 0


def test_a_long_table_is_thinned_evenly_whatever_is_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(_embeddings, "_ROWS", 37)
    vectors = np.stack([np.arange(1000), np.zeros(1000)], axis=1)
    tissues = [f"t{i}" for i in range(1000)]
    path = write(tmp_path / "e.parquet", vectors, tissues, row_group_size=61)
    found = embedding_map(path, most=150)
    assert found.tissue_ids == tuple(f"t{i}" for i in range(0, 1000, 7))
    taken = np.arange(0, 1000, 7)
    assert np.allclose(found.points[:, 0], taken - taken.mean())
    assert found.tiles == 1000


@pytest.mark.parametrize("vectors", [[[1.0, 2.0, 3.0]], [[5.0], [7.0]], [[1.0, 1.0]] * 4])
def test_too_little_for_two_components_is_still_a_map(tmp_path, vectors):
    found = embedding_map(write(tmp_path / "e.parquet", vectors))
    assert np.isfinite(found.points).all()
    assert found.points.shape == (len(vectors), 2)


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        ([[1.0, 2.0], [3.0]], "differ in length"),
        ([[1.0, 2.0, 3.0], [4.0]], "differ in length"),
        ([[1.0, float("nan")]], "finite"),
        ([], "finite vectors"),
    ],
)
def test_vectors_that_make_no_map_are_refused(tmp_path, vectors, reason):
    with pytest.raises(FormatError, match=reason):
        embedding_map(write(tmp_path / "e.parquet", vectors))


def test_a_file_that_is_no_table_is_refused(tmp_path):
    path = tmp_path / "e.parquet"
    path.write_bytes(b"not a table")
    with pytest.raises(FormatError, match="no table of embeddings"):
        embedding_map(path)
    pq.write_table(pa.table({"tissue_id": ["a"]}), path)
    with pytest.raises(FormatError, match="no table of embeddings"):
        embedding_map(path)
    pq.write_table(pa.table({"tissue_id": ["a"], "embedding": ["text"]}), path)
    with pytest.raises(FormatError, match="no table of embeddings"):
        embedding_map(path)


def test_points_of_a_tissue_share_a_colour(tmp_path):
    names = ["a", "b", "a", *(f"other{i}" for i in range(9))]
    vectors = np.random.default_rng(2).normal(size=(len(names), 3))
    found = embedding_map(write(tmp_path / "e.parquet", vectors, names))
    (points,) = plot_embeddings(found).collections
    colours = [tuple(colour) for colour in points.get_facecolors().tolist()]
    assert colours[0] == colours[2] != colours[1]
    # Six tissues have colours of their own, the others share grey.
    assert len(set(colours)) == 7
    assert np.allclose(points.get_offsets(), found.points)
