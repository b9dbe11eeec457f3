"""What `predict_cohort` shows a model: the pixels that the cohort's dataset gives, or what is asked for."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import microtome as mt
from microtome.cohort import CohortLayout, ingest
from microtome.coordinates import Resolution
from microtome.errors import ExistsError, InvalidInputError, NotFoundError
from microtome.normalization import fit_normalization, save_normalization
from microtome.prediction import TestTimeAugmentation, predict, predict_cohort
from microtome.standardize import RgbStandardizer

RNG = np.random.default_rng(0)
SHAPES = {"a": (90, 80), "b": (70, 101)}
OPTIONS = {"name": "m", "tile_size": 64, "overlap": 16}


def same(batch):
    return np.asarray(batch, np.float32)


def level(root, tissue, name="m"):
    path = CohortLayout.open(root).predictions(Resolution.parse(1.0), name)
    return mt.open_image(path / f"{tissue}.ome.zarr").level(0)[...]


def write_mask(root, tissue, inside):
    place = CohortLayout.open(root).tissue_mask(Resolution.parse(1.0), tissue)
    with mt.MultiscaleImage.create(
        place,
        type="uint8",
        level_shape=inside.shape,
        has_channel_axis=False,
        mpp=1.0,
        kind="labels",
    ) as made:
        made["level0"][...] = inside.astype(np.uint8)
        made.build_levels()


@pytest.fixture
def he(tmp_path):
    root = tmp_path / "study"
    for tissue, shape in SHAPES.items():
        pixels = RNG.integers(0, 255, (*shape, 3), dtype=np.uint8)
        ingest(
            pixels, axes="yxc", cohort=root, tissue_id=tissue, modality="he", mpp=1, resolution=1
        )
    return root


@pytest.fixture
def imc(tmp_path):
    """Two tissues of three channels, of which one has no signal in the second."""
    root = tmp_path / "study"
    for tissue, shape in SHAPES.items():
        pixels = RNG.gamma(0.7, 60, (3, *shape)).astype(np.uint16)
        if tissue == "b":
            pixels[1] = 0
        ingest(
            pixels,
            axes="cyx",
            cohort=root,
            tissue_id=tissue,
            modality="imc",
            mpp=1,
            resolution=1,
            channel_names=["CD3", "DNA", "Ki67"],
        )
        write_mask(root, tissue, np.ones(shape, np.bool_))
    mt.stats(root, modality="imc", quantile_level="image")
    return root


def of_dataset(root, tissue, **options):
    dataset = mt.MultiplexImagingDataset("study", "imc", path=root, resolution=1.0, **options)
    found = dataset.get_tissue(tissue, kind="complete")
    return np.asarray(found.image), found.channel_names.tolist()


@pytest.mark.parametrize("preset", ["imagenet", "hibou", "identity", "raw"])
def test_brightfield_is_what_its_dataset_gives(he, preset):
    predict_cohort(same, he, standardization=preset, **OPTIONS)
    dataset = mt.HEImagingDataset("study", path=he, resolution=1.0, mean_std_type=preset)
    for tissue in SHAPES:
        np.testing.assert_array_equal(
            level(he, tissue), np.asarray(dataset.get_tissue(tissue).image)
        )


def test_multiplex_is_what_its_dataset_gives(imc):
    name = "quantile_clipping/uq_0.99_image"
    channels = ["Ki67", "CD3"]
    predict_cohort(same, imc, standardization=name, channels=channels, **OPTIONS)
    for tissue in SHAPES:
        expected, names = of_dataset(imc, tissue, standardization=name, channels=channels)
        dataset = mt.MultiplexImagingDataset(
            "study", "imc", path=imc, resolution=1.0, standardization=name, channels=channels
        )
        standardizer = dataset.get_standardizer(tissue)
        assert standardizer.channel_names == ("Ki67", "CD3")
        stored = dataset.image(tissue).level(0)[...]
        order = [dataset.channel_list.index(each) for each in channels]
        np.testing.assert_array_equal(level(imc, tissue), standardizer(stored[order]))
        shown = dict(zip(names, expected, strict=True))
        np.testing.assert_allclose(
            level(imc, tissue), [shown[each] for each in channels], rtol=1e-6, atol=1e-6
        )
    # Without a choice of channels, those are left out that have no statistics: no signal in "b".
    predict_cohort(same, imc, standardization=name, tissues=["b"], **{**OPTIONS, "name": "b"})
    expected, names = of_dataset(imc, "b", standardization=name)
    assert names == ["CD3", "Ki67"]
    np.testing.assert_allclose(level(imc, "b", "b"), expected, rtol=1e-6, atol=1e-6)
    predict_cohort(same, imc, standardization="identity", **{**OPTIONS, "name": "i"})
    stored = mt.open_image(imc / "imc/1_0mpp/images/a.ome.zarr").level(0)[...]
    np.testing.assert_array_equal(level(imc, "a", "i"), stored.astype(np.float32))


def test_a_stored_normalization_is_that_of_training(he, tmp_path):
    images = sorted((he / "he/1_0mpp/images").iterdir())
    fitted = fit_normalization("mean_std", [mt.open_image(path) for path in images])
    save_normalization(fitted, tmp_path / "n.json")
    for number, given in enumerate((tmp_path / "n.json", str(tmp_path / "n.json"), fitted)):
        name = f"m{number}"
        predict_cohort(same, he, standardization=given, **{**OPTIONS, "name": name})
        stored = mt.open_image(images[0]).level(0)[...]
        expected = fitted.normalize(stored[None])[0]
        np.testing.assert_array_equal(level(he, "a", name), expected)
    # One of other numbers is another prediction, though it is called the same.
    other = fit_normalization("mean_std", [mt.open_image(images[0])])
    with pytest.raises(ExistsError, match="preprocess: other weights, numbers or code"):
        predict_cohort(same, he, standardization=other, **{**OPTIONS, "name": "m0"})


def test_all_that_predict_takes_is_handed_on(he):
    def half(batch):
        return batch.astype(np.float32) / 2

    def plus_one(answer):
        return answer + 1

    masks = {name: RNG.random(shape) < 0.5 for name, shape in SHAPES.items()}
    masks["a"][:, 40:] = False
    options = {
        "blend": "linear",
        "preprocess": half,
        "postprocess": plus_one,
        "channel_names": ["x"],
        "fill": 7.0,
        "metadata": {"by": "us"},
        "tile_size": 32,
        "overlap": 8,
        "batch_size": 3,
    }
    predict_cohort(one, he, name="m", mask=masks, channels=["green"], **options)
    for tissue in SHAPES:
        image = mt.open_image(he / f"he/1_0mpp/images/{tissue}.ome.zarr")
        alone = predict(
            one, image, he / f"{tissue}.ome.zarr", mask=masks[tissue], channels=["green"], **options
        )
        np.testing.assert_array_equal(level(he, tissue), alone.level(0)[...])
        assert alone.channel_names == ("x",)
        place = CohortLayout.open(he).predictions(Resolution.parse(1.0), "m")
        made = mt.open_image(place / f"{tissue}.ome.zarr")
        assert made.metadata["by"] == "us"
        assert made.channel_names == ("x",)
    assert (level(he, "a")[0, :, -8:] == 7).all()
    turned = TestTimeAugmentation(same, 4)
    predict_cohort(turned, he, standardization="identity", **{**OPTIONS, "name": "t"})
    np.testing.assert_allclose(level(he, "a", "t"), level_of(he, "a") / 255, rtol=1e-6)


def one(batch):
    return np.asarray(batch, np.float32)[:, :1]


def level_of(root, tissue):
    return mt.open_image(root / f"he/1_0mpp/images/{tissue}.ome.zarr").level(0)[...]


def test_the_cohorts_tissue_masks(he):
    with pytest.raises(NotFoundError, match="tissue mask"):
        predict_cohort(same, he, mask="tissue", **OPTIONS)
    assert not (he / "predictions").exists()
    for tissue, shape in SHAPES.items():
        inside = np.zeros(shape, np.bool_)
        inside[:20, :20] = True
        write_mask(he, tissue, inside)
    predict_cohort(same, he, mask="tissue", name="m", tile_size=32, overlap=0, fill=-1.0)
    stored = level_of(he, "a")
    np.testing.assert_array_equal(level(he, "a")[:, :32, :32], stored[:, :32, :32])
    assert (level(he, "a")[:, 32:] == -1).all()


def test_embeddings_see_the_same(he):
    torch = pytest.importorskip("torch")

    class Describing(torch.nn.Module):
        standardization = "imagenet"

        def forward(self, batch):
            return batch

        def embed(self, batch):
            return batch.mean((2, 3))

    for tissue, shape in SHAPES.items():
        write_mask(he, tissue, np.ones(shape, np.bool_))
    mt.tile(he, tile_size=32)
    *_, table = predict_cohort(Describing(), he, **OPTIONS)
    rows = pq.read_table(table).to_pylist()
    standardizer = RgbStandardizer.preset("imagenet")
    images = {tissue: level_of(he, tissue) for tissue in SHAPES}
    assert rows
    for row in rows:
        window = images[row["tissue_id"]][
            :, row["row"] : row["row"] + 32, row["col"] : row["col"] + 32
        ]
        if window.shape == (3, 32, 32):
            np.testing.assert_allclose(
                row["embedding"], standardizer(window).mean((1, 2)), rtol=1e-4, atol=1e-5
            )
    np.testing.assert_allclose(level(he, "a"), standardizer(images["a"]), rtol=1e-5, atol=1e-5)
    *_, table = predict_cohort(
        Describing(),
        he,
        preprocess=lambda batch: np.asarray(batch, np.float32) * 2,
        **{**OPTIONS, "name": "d"},
    )
    row = pq.read_table(table).slice(0, 1).to_pylist()[0]
    window = images[row["tissue_id"]][:, row["row"] : row["row"] + 32, row["col"] : row["col"] + 32]
    np.testing.assert_allclose(row["embedding"], 2.0 * window.mean((1, 2)), rtol=1e-4)


class Vectors:
    def __call__(self, batch):
        return np.asarray(batch, np.float32)

    def embed(self, batch):
        return np.asarray(batch, np.float32).mean((2, 3))


class Others(Vectors):
    def embed(self, batch):
        return np.asarray(batch, np.float32).max((2, 3))


def test_vectors_that_are_there_are_compared_with_what_is_asked_for(he):
    for tissue, shape in SHAPES.items():
        write_mask(he, tissue, np.ones(shape, np.bool_))
    mt.tile(he, tile_size=32)
    *_, table = predict_cohort(Vectors(), he, **OPTIONS)
    before = table.stat().st_mtime_ns
    assert predict_cohort(Vectors(), he, **OPTIONS)[-1] == table
    assert table.stat().st_mtime_ns == before
    # As many tiles, one of which lies elsewhere.
    place = he / "tiling/1_0mpp/default/32_tile_coordinates.parquet"
    tiles = pq.read_table(place)
    rows = tiles["row"].to_numpy().copy()
    rows[0] += 1
    changed = tiles.set_column(
        tiles.column_names.index("row"), "row", pa.array(rows, tiles["row"].type)
    )
    pq.write_table(changed, place)
    tissue = tiles["tissue_id"][0].as_py()
    with pytest.raises(ExistsError, match=rf"\(he of {tissue} has other tiles now\)"):
        predict_cohort(Vectors(), he, **OPTIONS)
    pq.write_table(tiles, place)
    predict_cohort(Vectors(), he, **OPTIONS)
    assert table.stat().st_mtime_ns == before
    predict_cohort(Others(), he, overwrite=True, **OPTIONS)
    with pytest.raises(ExistsError, match="model"):
        predict_cohort(Vectors(), he, **OPTIONS)


def test_vectors_of_an_earlier_microtome_stay_and_are_told_of(he, caplog):
    for tissue, shape in SHAPES.items():
        write_mask(he, tissue, np.ones(shape, np.bool_))
    mt.tile(he, tile_size=32)
    *_, table = predict_cohort(Vectors(), he, **OPTIONS)
    rows = pq.read_table(table)
    note = json.loads(rows.schema.metadata[b"microtome"])
    old = {key: note[key] for key in ("format", "model", "library_version")}
    pq.write_table(rows.replace_schema_metadata({b"microtome": json.dumps(old).encode()}), table)
    content = table.read_bytes()
    predict_cohort(Vectors(), he, **OPTIONS)
    assert "count from the middle of the image's first pixel" in caplog.text
    assert table.read_bytes() == content


def test_a_network_that_says_nothing_is_told_of(he, caplog):
    torch = pytest.importorskip("torch")
    caplog.set_level(logging.WARNING, "microtome")
    network = torch.nn.Identity()
    predict_cohort(network, he, **OPTIONS)
    (message,) = caplog.messages
    assert "sees pixels as they are stored" in message
    assert "standardization='imagenet'" in message
    caplog.clear()
    predict_cohort(network, he, standardization="stored", **OPTIONS)
    predict_cohort(same, he, **{**OPTIONS, "name": "s"})
    assert not caplog.messages
    network.standardization = "imagenet"
    predict_cohort(network, he, standardization="hibou", **{**OPTIONS, "name": "h"})
    (message,) = caplog.messages
    assert (
        "trained with the standardization 'imagenet', and is shown pixels with 'hibou'" in message
    )


def test_what_cannot_be_is_refused_before_anything_is_made(he):
    for options, told in (
        ({"standardization": "imagnet"}, "he has the standardizations stored, imagenet"),
        (
            {"standardization": "quantile_clipping/uq_0.99_image"},
            "he has the standardizations stored, imagenet",
        ),
        ({"standardization": "hibou", "preprocess": np.negative}, "give one of them"),
        ({"preprocess": "hibou"}, "preprocess must be a function"),
    ):
        with pytest.raises(InvalidInputError, match=told):
            predict_cohort(same, he, **OPTIONS, **options)
    with pytest.raises(NotFoundError, match=r"none\.json"):
        predict_cohort(same, he, standardization=he / "none.json", **OPTIONS)
    with pytest.raises(TypeError, match="tile_sise"):
        predict_cohort(same, he, tile_sise=3, **OPTIONS)
    assert not (he / "predictions").exists()


def test_statistics_that_are_not_there_are_told(imc):
    with pytest.raises(NotFoundError, match="microtome stats"):
        predict_cohort(same, imc, standardization="quantile_clipping/uq_0.5_image", **OPTIONS)
    assert not (imc / "predictions").exists()


# ------------------------------------------------------------------ statistics that were replaced

BY_IMAGE = "quantile_clipping/uq_0.99_image"


def stale(root):
    return [each for each in mt.cohort.validate(root) if each.kind == "stale"]


def of_predictions(root):
    return [each for each in stale(root) if each.place.startswith("predictions/")]


def replace_mask(root, tissue="a"):
    """Count fewer pixels of one tissue: its own quantiles change, and the means of all."""
    inside = np.zeros(SHAPES[tissue], np.bool_)
    inside[:30, :30] = True
    shutil.rmtree(CohortLayout.open(root).tissue_mask(Resolution.parse(1.0), tissue))
    write_mask(root, tissue, inside)


@pytest.mark.parametrize("stats_level", ["image", "global"])
def test_predictions_that_outlived_their_statistics_are_told(tmp_path, imc, stats_level):
    mt.stats(imc, modality="imc", stats_level=stats_level, quantile=0.95)
    name = "quantile_clipping/uq_0.95_image"
    paths = predict_cohort(same, imc, standardization=name, **OPTIONS)
    noted = mt.open_image(paths[1]).metadata["microtome"]["predicted_from"]
    assert (noted["modality"], noted["standardization"]) == ("imc", name)
    # That of the second tissue has no signal, and is not shown.
    assert noted["channels"] == ["CD3", "Ki67"]
    assert stale(imc) == []
    # Computed again to the same numbers they are the same.
    mt.stats(imc, modality="imc", stats_level=stats_level, quantile=0.95, overwrite=True)
    assert stale(imc) == []
    replace_mask(imc)
    mt.stats(imc, modality="imc", stats_level=stats_level, quantile=0.95, overwrite=True)
    (found,) = of_predictions(imc)
    told = "a" if stats_level == "image" else "a, b"
    assert found.place == "predictions/1_0mpp/m"
    assert f"predictions 'm' were made of other statistics of {told}, which" in found.what
    assert "--overwrite" in found.advice
    with pytest.raises(ExistsError) as caught:
        predict_cohort(same, imc, standardization=name, **OPTIONS)
    said = str(caught.value)
    assert "was made of statistics that were replaced since" in said
    assert "settings" not in said
    assert said.startswith(f"{len(told.split())} of 2 tissues are not predicted")
    predict_cohort(same, imc, standardization=name, overwrite=True, **OPTIONS)
    assert of_predictions(imc) == []


def test_other_statistics_are_no_newer_ones(imc):
    predict_cohort(same, imc, standardization=BY_IMAGE, **OPTIONS)
    mt.stats(imc, modality="imc", quantile=0.9)
    assert stale(imc) == []
    other = "quantile_clipping/uq_0.9_image"
    with pytest.raises(ExistsError, match=r"other settings \(.*preprocess: other") as caught:
        predict_cohort(same, imc, standardization=other, **OPTIONS)
    assert "replaced since" not in str(caught.value)


def test_of_statistics_that_are_gone_or_of_none_nothing_is_said(he, imc):
    predict_cohort(same, imc, standardization=BY_IMAGE, modality="imc", **OPTIONS)
    for each in (imc / "imc/1_0mpp/standardization").rglob("*.parquet"):
        each.unlink()
    assert of_predictions(imc) == []
    options = {**OPTIONS, "modality": "imc"}
    for name, given in {
        "stored": {"standardization": "stored"},
        "none": {"standardization": "identity"},
        "own": {"preprocess": same},
    }.items():
        (path, _) = predict_cohort(same, imc, **{**options, "name": name}, **given)
        noted = mt.open_image(path).metadata["microtome"]["predicted_from"]
        assert noted.keys() == {"modality", "image"}
    (path, _) = predict_cohort(
        same, he, standardization="imagenet", **{**options, "modality": "he", "name": "he"}
    )
    noted = mt.open_image(path).metadata["microtome"]["predicted_from"]
    assert noted.keys() == {"modality", "image"}


@pytest.mark.parametrize(
    "noted",
    [
        {"statistics": "1"},
        {"statistics": "1", "standardization": "no/such", "channels": ["CD3"]},
        {"statistics": "1", "standardization": BY_IMAGE, "channels": ["none"]},
        {"statistics": "1", "standardization": BY_IMAGE, "channels": 7},
        {"statistics": 1, "standardization": 1, "channels": None},
    ],
)
def test_what_is_noted_may_be_damaged(imc, noted):
    path, _ = predict_cohort(same, imc, standardization=BY_IMAGE, **OPTIONS)
    document = json.loads((path / "zarr.json").read_text())
    ours = document["attributes"]["microtome"]
    ours["predicted_from"] = {"modality": "imc", **noted}
    (path / "zarr.json").write_text(json.dumps(document))
    assert stale(imc) == []
    predict_cohort(same, imc, standardization=BY_IMAGE, **OPTIONS)
