"""`PredictionWriter`: a real Trainer's predictions become images, whatever the order of tiles."""

from __future__ import annotations

import inspect
import sys

import numpy as np
import pytest

from microtome.errors import DependencyError, ExistsError, InvalidInputError
from microtome.image import MultiscaleImage
from microtome.prediction import PredictionWriter, _lightning, iter_tile_batches, predict
from microtome.regions import collate_regions, decollate_regions
from microtome.sources import open_image
from microtome.tiling import plan_tiles

lightning = pytest.importorskip("lightning")
torch = pytest.importorskip("torch")

TILE, OVERLAP = 32, 7


class Module(lightning.LightningModule):
    """Adds one to what it sees, as floats; or tells objects by their values."""

    def __init__(self, *, objects=False, fails_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.objects = objects
        self.fails_at = fails_at

    def predict_step(self, batch, batch_idx):
        if batch_idx == self.fails_at:
            raise RuntimeError("out of memory")
        pixels = torch.as_tensor(batch.data)
        if self.objects:
            return batch._replace(data=(pixels[:, 0] // 50).to(torch.int32))
        return batch._replace(data=pixels.float() + self.weight)


def trainer(tmp_path, *writers):
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=list(writers),
    )


class Batches(torch.utils.data.IterableDataset):
    """Batches that are there already, as an iterable of theirs."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def loader(batches):
    return torch.utils.data.DataLoader(Batches(batches), batch_size=None)


def images():
    rng = np.random.default_rng(0)
    return {
        name: open_image(rng.integers(0, 255, shape, np.uint8), axes="cyx", mpp=0.5)
        for name, shape in (("a", (2, 90, 70)), ("b", (2, 40, 101)))
    }


def mixed(given, batch_size=5, seed=0):
    """The tiles of several images in batches of both, in any order."""
    tiles = []
    for number, image in enumerate(given.values()):
        plan = plan_tiles(image.level_shape(0)[-2:], TILE, OVERLAP)
        for batch in iter_tile_batches(image, plan):
            spec = {**batch.region_spec, "data_idx": np.full(len(batch.source), number)}
            tiles += decollate_regions(batch._replace(region_spec=spec))
    order = np.random.default_rng(seed).permutation(len(tiles))
    parts = np.array_split(order, -(-len(order) // batch_size))
    return [collate_regions([tiles[at] for at in part]) for part in parts]


# Lightning asks torch for what torch will drop.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:GPU available but not used")
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:.*IterableDataset:UserWarning")
class TestTrainer:
    """What is tested with Lightning's own Trainer."""

    def test_tiles_of_several_images_come_in_any_order(self, tmp_path):
        given = images()
        writer = PredictionWriter(tmp_path / "out", given, tile_size=TILE, overlap=OVERLAP)
        run = trainer(tmp_path, writer)
        run.predict(Module(), loader(mixed(given)), return_predictions=False)
        assert sorted(writer.written) == ["a", "b"]
        for name, image in given.items():
            made = MultiscaleImage.open(tmp_path / "out" / f"{name}.ome.zarr")
            whole = predict(
                lambda pixels: pixels.astype(np.float32) + 1,
                image,
                tmp_path / name,
                tile_size=TILE,
                overlap=OVERLAP,
            )
            np.testing.assert_array_equal(made.level(0)[...], whole.level(0)[...])
            assert made.mpp == image.mpp

    def test_labels_are_joined(self, tmp_path):
        pixels = np.kron(np.arange(1, 26).reshape(5, 5) * 10, np.ones((14, 14))).astype(np.uint8)
        image = open_image(pixels[None], axes="cyx", mpp=0.5)
        given = {"cells": image}
        writer = PredictionWriter(
            tmp_path / "out", given, tile_size=TILE, overlap=OVERLAP, instances=True
        )
        run = trainer(tmp_path, writer)
        run.predict(Module(objects=True), loader(mixed(given)), return_predictions=False)
        made = writer.written["cells"]
        assert made.kind == "labels"
        found = made.level(0)[...]
        pairs = np.unique(np.stack([found.ravel(), pixels.ravel() // 50]), axis=1)
        # Every object is of one value, and background is where the value is 0.
        assert len(np.unique(found)) == pairs.shape[1]
        np.testing.assert_array_equal(found == 0, pixels < 50)

    def test_what_is_not_complete_does_not_appear(self, tmp_path):
        given = images()
        writer = PredictionWriter(tmp_path / "out", given, tile_size=TILE, overlap=OVERLAP)
        run = trainer(tmp_path, writer)
        batches = mixed(given)
        with pytest.raises(InvalidInputError, match=r"tiles are missing.*\d of [ab]"):
            run.predict(Module(), loader(batches[:-1]), return_predictions=False)
        with pytest.raises(RuntimeError, match="out of memory"):
            trainer(tmp_path, writer).predict(
                Module(fails_at=3), loader(batches), return_predictions=False
            )
        left = [path.name for path in (tmp_path / "out").iterdir()]
        assert {*left} <= {"a.ome.zarr", "b.ome.zarr"}
        assert len(left) < 2

    def test_what_is_returned_without_its_tiles_is_refused(self, tmp_path):
        class Bare(Module):
            def predict_step(self, batch, batch_idx):
                return batch.data

        given = images()
        writer = PredictionWriter(tmp_path / "out", given, tile_size=TILE, overlap=OVERLAP)
        with pytest.raises(InvalidInputError, match=r"batch\._replace"):
            trainer(tmp_path, writer).predict(
                Bare(), loader(mixed(given)), return_predictions=False
            )


def test_images_are_told_by_where_they_lie(tmp_path, stored):
    given = [stored(shape=(1, 40, 50), name="one"), stored(shape=(1, 50, 40), name="two", seed=1)]
    writer = PredictionWriter(
        tmp_path / "out", given, tile_size=TILE, overlap=OVERLAP, blend="none"
    )
    for image in given:
        # Each by itself, so that every tile is of the image with the number 0.
        plan = plan_tiles(image.level_shape(0)[-2:], TILE, OVERLAP)
        for batch in iter_tile_batches(image, plan, batch_size=3):
            writer.add(batch)
    for image in given:
        made = writer.written[image.name]
        np.testing.assert_array_equal(made.level(0)[...], image.level(0)[...])
    with pytest.raises(InvalidInputError, match="written already"):
        writer.add(batch)
    other = stored(shape=(1, 40, 50), name="three")
    (first, *_) = iter_tile_batches(other, plan_tiles((40, 50), TILE, OVERLAP), batch_size=1)
    with pytest.raises(InvalidInputError, match="which is none of"):
        writer.add(first)
    again = PredictionWriter(tmp_path / "out", given, tile_size=TILE, overlap=OVERLAP)
    with pytest.raises(ExistsError):
        again.add(batch)


def test_its_arguments_are_shown():
    shown = inspect.signature(PredictionWriter)
    assert list(shown.parameters)[:4] == ["out", "images", "tile_size", "overlap"]
    assert (shown.parameters["level"].default, shown.parameters["instances"].default) == (0, False)


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    image = next(iter(images().values()))
    for given, told in (
        ({}, "one or more"),
        ([image, image], "name of its own"),
        (image, "one image"),
    ):
        with pytest.raises(InvalidInputError, match=told):
            PredictionWriter(tmp_path, given, tile_size=TILE, overlap=OVERLAP)
    writer = PredictionWriter(tmp_path, [image], tile_size=TILE, overlap=OVERLAP)

    class Several:
        world_size = 2

    with pytest.raises(InvalidInputError, match="devices=1"):
        writer.on_predict_start(Several(), None)
    _lightning._for_lightning.cache_clear()
    monkeypatch.setitem(sys.modules, "lightning.pytorch.callbacks", None)
    with pytest.raises(DependencyError, match=r"microtome\[lightning\]"):
        PredictionWriter(tmp_path, [image], tile_size=TILE, overlap=OVERLAP)
