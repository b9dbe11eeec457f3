"""What stops one tissue of a cohort stops no other: not its prediction, nor the vectors of its tiles."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

import microtome as mt
from microtome.cohort import CohortLayout, ingest, mask, tile
from microtome.coordinates import Resolution
from microtome.errors import (
    FormatError,
    InvalidInputError,
    MicrotomeError,
    NotFoundError,
    UnknownNameError,
)
from microtome.image import MultiscaleImage
from microtome.jobs import process_pool
from microtome.prediction import predict_cohort

OPTIONS = {"name": "m", "tile_size": 64, "overlap": 16}
TABLE = "32_tile_embeddings.parquet"


class Model:
    def __call__(self, batch):
        return np.asarray(batch)[:, :1]

    def embed(self, batch):
        return np.asarray(batch, np.float32).mean((2, 3))


@pytest.fixture
def cohort(tmp_path):
    root = tmp_path / "study"
    rng = np.random.default_rng(0)
    for number, tissue in enumerate("abc"):
        slide = rng.integers(0, 255, (90 + 10 * number, 80, 3), np.uint8)
        ingest(slide, axes="yxc", cohort=root, tissue_id=tissue, modality="he", mpp=1.0)
    mask(root, method="whole")
    tile(root, tile_size=32)
    return root


def break_image(root, tissue):
    document = root / f"he/1_0mpp/images/{tissue}.ome.zarr/zarr.json"
    whole = document.read_text()
    document.write_text("{")
    return lambda: document.write_text(whole)


def made(root):
    return sorted(path.name for path in (root / "predictions/1_0mpp/m").iterdir())


def embedded(root):
    return set(pq.read_table(root / "predictions/1_0mpp/m" / TABLE)["tissue_id"].to_pylist())


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_does_not_open(cohort, workers):
    repair = break_image(cohort, "b")
    executor = process_pool(workers) if workers else None
    with pytest.raises(FormatError, match=r"^1 of 3 tissues are not predicted: b: .*b\.ome\.zarr"):
        predict_cohort(Model(), cohort, executor=executor, **OPTIONS)
    if executor is not None:
        executor.shutdown()
    assert made(cohort) == [TABLE, "a.ome.zarr", "c.ome.zarr"]
    assert embedded(cohort) == {"a", "c"}
    repair()
    predict_cohort(Model(), cohort, **OPTIONS)
    assert made(cohort) == [TABLE, "a.ome.zarr", "b.ome.zarr", "c.ome.zarr"]
    assert embedded(cohort) == {"a", "b", "c"}
    table = (cohort / "predictions/1_0mpp/m" / TABLE).read_bytes()
    predict_cohort(Model(), cohort, overwrite=True, **OPTIONS)
    again = cohort / "predictions/1_0mpp/m" / TABLE
    (cohort / "one.parquet").write_bytes(table)
    assert pq.read_table(cohort / "one.parquet").equals(pq.read_table(again))


def test_vectors_that_are_there_stay_when_an_image_breaks(cohort, caplog):
    predict_cohort(Model(), cohort, **OPTIONS)
    break_image(cohort, "b")
    with pytest.raises(FormatError, match=r"^1 of 3 tissues are not predicted: b: "):
        predict_cohort(Model(), cohort, **OPTIONS)
    assert embedded(cohort) == {"a", "b", "c"}
    assert "stays as it is: b cannot be read now" in caplog.text


def test_a_tissue_without_a_mask(cohort):
    layout = CohortLayout.open(cohort)
    import shutil

    shutil.rmtree(layout.tissue_mask(Resolution.parse(1.0), "a"))
    with pytest.raises(NotFoundError, match=r"^1 of 3 tissues are not predicted: a: .*tissue mask"):
        predict_cohort(Model(), cohort, mask="tissue", **OPTIONS)
    assert made(cohort) == [TABLE, "b.ome.zarr", "c.ome.zarr"]


def test_a_mask_that_is_refused_or_has_no_tissue(cohort):
    masks = {"a": np.ones((9, 8), bool), "b": np.zeros((9, 8), bool), "c": np.ones((2, 3, 4), bool)}
    with pytest.raises(InvalidInputError) as caught:
        predict_cohort(Model(), cohort, mask=masks, **OPTIONS)
    said = str(caught.value)
    assert said.startswith("2 of 3 tissues are not predicted: b: no tile of ")
    assert "; c: " in said
    assert "a.ome.zarr" in made(cohort)
    assert "b.ome.zarr" not in made(cohort)


def test_a_tissue_that_did_not_measure_a_channel(tmp_path):
    root = tmp_path / "study"
    rng = np.random.default_rng(0)
    for tissue, names in {"a": ["DNA", "CD3"], "b": ["DNA"], "c": ["DNA", "CD3"]}.items():
        counts = rng.gamma(0.7, 60, (len(names), 90, 80)).astype(np.uint16)
        place = {"cohort": root, "tissue_id": tissue, "modality": "imc", "mpp": 1.0}
        ingest(counts, axes="cyx", channel_names=names, **place)
    mask(root, method="whole")
    mt.stats(root, modality="imc", quantile_level="image")
    for name, given in {"m": "stored", "n": "quantile_clipping/uq_0.99_image"}.items():
        with pytest.raises(UnknownNameError, match=r"^1 of 3 tissues are not predicted: b: .*CD3"):
            predict_cohort(
                np.positive,
                root,
                channels=["CD3"],
                standardization=given,
                **{**OPTIONS, "name": name},
            )
        found = sorted(path.name for path in (root / f"predictions/1_0mpp/{name}").iterdir())
        assert found == ["a.ome.zarr", "c.ome.zarr"]


def test_several_causes_are_told_as_what_they_have_in_common(cohort):
    break_image(cohort, "b")
    with pytest.raises(MicrotomeError) as caught:
        predict_cohort(Model(), cohort, mask={"a": np.zeros((9, 8), bool)}, **OPTIONS)
    assert str(caught.value).startswith("2 of 3 tissues are not predicted: a: no tile of ")
    assert "; b: " in str(caught.value)
    assert made(cohort) == [TABLE, "c.ome.zarr"]
    assert embedded(cohort) == {"c"}


def test_what_is_no_fault_of_a_tissue_ends_the_job(cohort):
    def postprocess(output):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        predict_cohort(Model(), cohort, postprocess=postprocess, **OPTIONS)
    assert not MultiscaleImage.exists(cohort / "predictions/1_0mpp/m/a.ome.zarr")
