"""Tiles of several modalities drawn by what tables say of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cohort import CohortLayout, ComposedImagingDataset, ingest, mask, tile
from microtome.errors import InvalidInputError, UnknownNameError
from microtome.loading import DrawnOrder, TileLoader

SIZE = 32


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Tissues t0 (imc and he), t1 (he) and t2 (imc), of 16, 4 and 16 tiles."""
    root = tmp_path_factory.mktemp("composed") / "cohort"
    rng = np.random.default_rng(1)
    for tissue, kinds, side in (
        ("t0", ("imc", "he"), 128),
        ("t1", ("he",), 64),
        ("t2", ("imc",), 128),
    ):
        for kind in kinds:
            channels = 2 if kind == "imc" else 3
            pixels = rng.integers(0, 255, (channels, side, side)).astype(
                np.uint16 if kind == "imc" else np.uint8
            )
            named = {"channel_names": ["CD3", "DNA"]} if kind == "imc" else {}
            ingest(
                pixels,
                axes="cyx",
                cohort=root,
                tissue_id=tissue,
                patient_id=f"p{tissue[1]}",
                modality=kind,
                mpp=1.0,
                **named,
            )
    mask(root, method="whole")
    tile(root, tile_size=SIZE, method="grid", strategy="default", tolerance=0.1)
    path = CohortLayout.open(root).tissues
    table = pq.read_table(path)
    rows = table.to_pylist()
    stage = [{"t0": "I", "t1": "II", "t2": None}[row["tissue_id"]] for row in rows]
    age = [{"t0": 60.5, "t1": 71.0, "t2": None}[row["tissue_id"]] for row in rows]
    by = [row["modality"] for row in rows]
    for name, values in (("stage", stage), ("age", age), ("stain", by)):
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)
    return root


def opened(root, **options):
    kwargs = {"imc": {"standardization": "identity"}}
    return ComposedImagingDataset(
        "c", path=root, modality_kwargs=kwargs, **{"tile_size": SIZE, **options}
    )


def test_columns_of_tiles_and_of_tissues_whatever_their_modality(root):
    made = opened(root)
    tissues = [sample.tissue_id for sample in made.__getitems__(range(len(made)))]
    assert Counter(tissues) == {"t0": 16, "t1": 4, "t2": 16}
    assert made.tile_column("tissue_id").tolist() == tissues
    assert made.tile_column("patient_id").tolist() == [f"p{t[1]}" for t in tissues]
    stage = {"t0": "I", "t1": "II", "t2": None}
    assert made.tile_column("stage").tolist() == [stage[t] for t in tissues]
    ages = made.tile_column("age")
    assert ages.dtype == np.float64
    assert np.isnan(ages).tolist() == [t == "t2" for t in tissues]
    assert made.tile_column("tissue_frac").tolist() == [1.0] * 36


def test_some_modalities_and_whole_tissues(root):
    he = opened(root, modalities=["he"])
    tissues = [sample.tissue_id for sample in he.__getitems__(range(len(he)))]
    assert he.tile_column("tissue_id").tolist() == tissues
    assert set(tissues) == {"t0", "t1"}
    assert len(he.tile_column("tissue_frac")) == len(he) == 20
    whole = opened(root, tile_size=None)
    assert whole.tile_column("stage").tolist() == ["I", "II", None]


def test_classes_of_composed_tiles_are_balanced(root):
    made = opened(root)
    stage = made.tile_column("stage")
    order = DrawnOrder.by(stage, missing="drop", seed=1)
    assert order.shares == {"I": 4, "II": 4}
    seen = [sample.tissue_id for batch in TileLoader(made, 4, order=order) for sample in batch]
    assert Counter(seen) == {"t0": 4, "t1": 4}


def test_labels_of_a_modality_are_a_column(root):
    kwargs = {"he": {"label": "stage"}, "imc": {"standardization": "identity"}}
    made = ComposedImagingDataset("c", path=root, tile_size=SIZE, modality_kwargs=kwargs)
    assert Counter(made.tile_column("label").tolist()) == {"I": 16, "II": 4, None: 16}


def test_what_is_no_column_of_a_tissue_is_told(root):
    with pytest.raises(UnknownNameError, match=r"nothing says 'grade'.*tissue_frac.*stage"):
        opened(root).tile_column("grade")
    with pytest.raises(UnknownNameError, match="nothing says 'label'"):
        opened(root).tile_column("label")
    with pytest.raises(InvalidInputError, match="says 'he' of tissue 't0' as he and 'imc' as imc"):
        opened(root).tile_column("stain")
