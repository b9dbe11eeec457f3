"""A cohort grows: vectors of tissues that came later are added, those that are there stay."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

import microtome as mt
from microtome.errors import ExistsError
from microtome.prediction import _embed_more, predict_cohort, vectors_to_anndata
from microtome.view import embedding_map

SEEN: list[int] = []


class Vectors:
    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, batch):
        return np.asarray(batch, np.float32)

    def embed(self, batch):
        SEEN.append(len(batch))
        return np.asarray(batch, np.float32).mean((2, 3)) * self.factor


def add(root, tissue, seed, modality="he", shape=(150, 200)):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(10, 250, (3, *shape), np.uint8)
    mt.ingest(
        pixels,
        axes="cyx",
        cohort=root,
        tissue_id=tissue,
        modality=modality,
        mpp=1.0,
        resolution=1.0,
    )


def run(root, name="m", model=None, **options):
    SEEN.clear()
    mt.mask(root, method="whole")
    mt.tile(root, tile_size=32)
    *_, table = predict_cohort(model or Vectors(), root, name=name, tile_size=256, **options)
    return table


@pytest.fixture
def small_groups(monkeypatch):
    """Row groups end within tissues."""
    monkeypatch.setattr(_embed_more, "_GROUP", 7)


@pytest.mark.parametrize("later", ["c", "a", "0"])
def test_one_slide_more_is_added_in_its_place(tmp_path, small_groups, later):
    root = tmp_path / "c"
    for seed, tissue in enumerate(t for t in ("b", "d") if t != later):
        add(root, tissue, seed)
    table = run(root)
    first = pq.read_table(table)
    add(root, later, 9)
    run(root)
    found = pq.read_table(table)
    # Only the new ones were shown to the model, and all stand as if made together.
    assert sum(SEEN) == found.num_rows - first.num_rows > 0
    together = pq.read_table(run(root, name="all"))
    assert found.equals(together)
    ours, theirs = (json.loads(t.schema.metadata[b"microtome"]) for t in (found, together))
    assert ours == theirs
    assert found.schema.metadata == together.schema.metadata
    assert not [p for p in table.parent.iterdir() if p.name.startswith(".")]
    assert len(embedding_map(table).points) == found.num_rows
    run(root)
    assert SEEN == [], "nothing is left to do"


def test_a_tissue_of_two_modalities_keeps_its_vectors_apart(tmp_path, small_groups):
    root = tmp_path / "c"
    add(root, "a", 1)
    add(root, "a", 2, "ihc_CD3")
    add(root, "z", 3, "ihc_CD3")
    run(root)
    add(root, "b", 4, "ihc_CD3")
    add(root, "c", 5)
    table = run(root)
    assert pq.read_table(table).equals(pq.read_table(run(root, name="all")))


def test_a_killed_run_adds_the_rest_later(tmp_path):
    root = tmp_path / "c"
    add(root, "a", 1)
    table = run(root)
    before = table.read_bytes()
    add(root, "b", 2)

    class Killed(Vectors):
        def embed(self, batch):
            raise KeyboardInterrupt

    Killed.__qualname__, Killed.__module__ = Vectors.__qualname__, Vectors.__module__
    with pytest.raises(KeyboardInterrupt):
        run(root, model=Killed())
    assert table.read_bytes() == before
    run(root)
    assert set(pq.read_table(table)["tissue_id"].to_pylist()) == {"a", "b"}


def test_what_is_another_table_is_refused_in_words(tmp_path):
    root = tmp_path / "c"
    add(root, "a", 1)
    add(root, "b", 2)
    table = run(root)
    before = table.read_bytes()
    add(root, "c", 3)
    for tissue in "ab":
        shutil.rmtree(table.parent / f"{tissue}.ome.zarr")
    with pytest.raises(ExistsError, match="he of c was not there then; model: other") as caught:
        run(root, model=Vectors(2.0))
    noted = json.loads(pq.read_schema(table).metadata[b"microtome"])["settings"]
    assert not [
        v for v in noted.values() if isinstance(v, str) and len(v) > 20 and v in str(caught)
    ]
    assert "(tiles" not in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert table.read_bytes() == before


def keys(table):
    rows = pq.read_table(table).select(["tissue_id", "modality", "tile_id"]).to_pylist()
    return [tuple(row.values()) for row in rows]


def test_a_tile_of_each_image_of_a_tissue_is_one_row(tmp_path):
    root = tmp_path / "c"
    add(root, "a", 1)
    add(root, "a", 2, "ihc_CD3")
    add(root, "z", 3, "ihc_CD3")
    table = run(root)
    found = keys(table)
    assert len(set(found)) == len(found)
    assert {(tissue, kind) for tissue, kind, _ in found} == {
        ("a", "he"),
        ("a", "ihc_CD3"),
        ("z", "ihc_CD3"),
    }
    made = vectors_to_anndata(table)
    assert made.obs_names.is_unique
    assert "a_ihc_CD3_0" in made.obs_names


def test_only_the_tissues_that_are_asked_for_are_embedded_and_looked_at(tmp_path, small_groups):
    root = tmp_path / "c"
    for seed, tissue in enumerate("abc"):
        add(root, tissue, seed)
    table = run(root, tissues=["b"])
    assert {tissue for tissue, _, _ in keys(table)} == {"b"}
    b_alone = pq.read_table(table)
    # Another image of b is no matter of a run that is of c.
    add_again(root, "b", 77)
    run(root, tissues=["c"])
    assert {tissue for tissue, _, _ in keys(table)} == {"b", "c"}
    rows = pq.read_table(table)
    assert rows.slice(0, b_alone.num_rows).equals(b_alone)
    with pytest.raises(ExistsError, match="he of b has other image now"):
        run(root, tissues=["b", "c"])
    run(root, tissues=["b"], overwrite=True)
    assert sum(SEEN) == b_alone.num_rows
    run(root)
    together = pq.read_table(run(root, name="all"))
    found = pq.read_table(table)
    assert found.equals(together)
    assert found.schema.metadata == together.schema.metadata


def add_again(root, tissue, seed):
    pixels = np.random.default_rng(seed).integers(10, 250, (3, 150, 200), np.uint8)
    mt.ingest(
        pixels,
        axes="cyx",
        cohort=root,
        tissue_id=tissue,
        modality="he",
        mpp=1.0,
        resolution=1.0,
        overwrite=True,
    )


def test_a_table_of_an_earlier_microtome_gets_the_column_with_the_next_slide(tmp_path):
    root = tmp_path / "c"
    add(root, "a", 1)
    table = run(root)
    old = pq.read_table(table)
    pq.write_table(old.drop(["modality"]), table)
    add(root, "b", 2)
    run(root)
    assert pq.read_table(table).equals(pq.read_table(run(root, name="all")))
