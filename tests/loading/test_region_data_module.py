"""Real training runs: statistics in the checkpoint, epochs that differ, and a run that goes on."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.augmentation import DihedralAugmentation
from microtome.cohort import MultiplexImagingDataset, SporaDataset, ingest, mask, tile
from microtome.errors import FormatError, InvalidInputError, NotFoundError
from microtome.loading import DrawnOrder, RegionDataModule, RegionDataset, TileLoader
from microtome.normalization import MeanStdNormalization, fit_normalization
from microtome.patching import FixedRandomPatching, RandomPatching
from microtome.sources import open_stacks

lightning = pytest.importorskip("lightning", reason="needs the extra lightning")
torch = pytest.importorskip("torch", reason="needs the extra torch")

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:GPU available but not used",
    "ignore:The number of training batches",
    "ignore:Be aware that when using `ckpt_path`",
    "ignore:You passed in a `val_dataloader` but have no `validation_step`",
)
SHAPE = (2, 64, 80)


def stacks(seed: int = 0, channels: int = 2) -> list[Any]:
    pixels = np.random.default_rng(seed).integers(0, 500, (channels, *SHAPE[1:]))
    return open_stacks(pixels.astype(np.uint16), "CYX")


def dataset(kind: Any = RandomPatching, **options: Any) -> RegionDataset:
    patching = kind([(1, *SHAPE)], (16, 16), seed=1)
    return RegionDataset(stacks(), patching, targets=stacks(1, 1), **options)


def a_module(**options: Any) -> Any:
    given = {
        "train": dataset(augmentations=[DihedralAugmentation()], by_place=True),
        "val": dataset(FixedRandomPatching),
        "batch_size": 4,
        "normalization": "mean_std",
        "normalize_targets": True,
        "seed": 3,
    }
    return RegionDataModule(**{**given, **options})


class Tiny(lightning.LightningModule):  # type: ignore[name-defined,misc]
    """One convolution; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(2, 1, 3, padding=1)
        self.seen: list[tuple[int, np.ndarray]] = []

    def training_step(self, batch: Any, index: int) -> Any:
        patches, target = batch
        self.seen.append((self.current_epoch, patches.data.numpy().copy()))
        return torch.nn.functional.mse_loss(self.layer(patches.data), target.data)

    def validation_step(self, batch: Any, index: int) -> None:
        patches, target = batch
        loss = torch.nn.functional.mse_loss(self.layer(patches.data), target.data)
        self.log("val_loss", loss, batch_size=len(patches.data))

    def predict_step(self, batch: Any, index: int) -> Any:
        return self.layer(batch.data)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def trainer(folder: Path, **options: Any) -> Any:
    given = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
        "num_sanity_val_steps": 0,
    }
    return lightning.Trainer(**{**given, **options})


def test_two_epochs_are_fitted_and_the_statistics_are_in_the_checkpoint(tmp_path: Path) -> None:
    data, model, run = a_module(), Tiny(), trainer(tmp_path)
    before = [p.detach().clone() for p in model.parameters()]
    run.fit(model, datamodule=data)
    assert any((a != b).any() for a, b in zip(before, model.parameters(), strict=True))
    assert np.isfinite(run.callback_metrics["val_loss"].item())
    wanted = fit_normalization("mean_std", stacks(), targets=stacks(1, 1))
    assert data.normalization == wanted
    epochs = {epoch for epoch, _ in model.seen}
    assert epochs == {0, 1}
    # Each epoch reads the patches of that epoch, as the dataset alone gives them.
    plain = data.dataset("train")
    for epoch in (0, 1):
        seen = {p.tobytes() for number, batch in model.seen if number == epoch for p in batch}
        whole = plain.read_batch(np.arange(len(plain)), epoch=epoch)[0].data
        assert seen == {patch.tobytes() for patch in whole}
    run.save_checkpoint(tmp_path / "a.ckpt")
    found, config = RegionDataModule.from_checkpoint(tmp_path / "a.ckpt")
    assert found == wanted
    assert config["patch_size"] == [16, 16]
    assert config["batch_size"] == 4
    assert config["augmentations"] == [repr(DihedralAugmentation())]


def test_a_run_that_goes_on_sees_what_it_would_have_seen(tmp_path: Path) -> None:
    whole = Tiny()
    trainer(tmp_path, max_epochs=3).fit(whole, datamodule=a_module())
    first = Tiny()
    run = trainer(tmp_path, max_epochs=1)
    run.fit(first, datamodule=a_module())
    run.save_checkpoint(tmp_path / "a.ckpt")
    second = Tiny()
    # Other statistics than those of the checkpoint would be fitted here.
    data = a_module(normalization="min_max")
    trainer(tmp_path, max_epochs=3).fit(second, datamodule=data, ckpt_path=tmp_path / "a.ckpt")
    assert isinstance(data.normalization, MeanStdNormalization)
    seen = [*first.seen, *second.seen]
    assert [epoch for epoch, _ in seen] == [epoch for epoch, _ in whole.seen]
    for (_, one), (_, other) in zip(seen, whole.seen, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(second.parameters(), whole.parameters(), strict=True):
        np.testing.assert_array_equal(one.detach(), other.detach())


def test_a_run_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    keeping = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=7, save_top_k=-1
    )
    whole = Tiny()
    trainer(tmp_path, enable_checkpointing=True, callbacks=[keeping]).fit(
        whole, datamodule=a_module()
    )
    second = Tiny()
    trainer(tmp_path).fit(second, datamodule=a_module(), ckpt_path=tmp_path / "step=7.ckpt")
    assert len(whole.seen) == 10
    assert [epoch for epoch, _ in second.seen] == [1, 1, 1]
    for (_, one), (_, other) in zip(second.seen, whole.seen[7:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_prediction_uses_the_statistics_of_the_checkpoint(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=1)
    model = Tiny()
    run.fit(model, datamodule=a_module())
    run.save_checkpoint(tmp_path / "a.ckpt")
    normalization, _ = RegionDataModule.from_checkpoint(tmp_path / "a.ckpt")
    patching = FixedRandomPatching([(1, *SHAPE)], (16, 16), seed=9)
    new = RegionDataset(stacks(7), patching)
    answers = trainer(tmp_path).predict(
        model, datamodule=RegionDataModule(predict=new, normalization=normalization, batch_size=4)
    )
    assert normalization is not None
    raw: Any = new.read_batch(np.arange(len(new)))
    with torch.no_grad():
        wanted = model.layer(torch.from_numpy(normalization.normalize(raw.data)))
    np.testing.assert_allclose(torch.cat(answers), wanted, rtol=1e-5, atol=1e-6)


def test_statistics_are_fitted_once_and_travel_in_the_state() -> None:
    data = a_module()
    assert data.state_dict()["normalization"] is None
    assert data.normalization is data.normalization
    other = RegionDataModule(predict=dataset(), normalization="quantile")
    with pytest.raises(InvalidInputError, match="fitted on the images of train, which is None"):
        other.predict_dataloader()
    other.load_state_dict(data.state_dict())
    assert other.normalization == data.normalization
    assert other.dataset("predict").normalization == data.normalization
    with pytest.raises(InvalidInputError, match="is no RegionDataModule"):
        other.load_state_dict({"format": "x"})


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no dataset"):
        RegionDataModule()
    with pytest.raises(InvalidInputError, match="normalization is one of"):
        RegionDataModule(dataset(), normalization="zscore")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"no dataset 'val', only \['train'\]"):
        RegionDataModule(dataset()).dataset("val")
    with pytest.raises(NotFoundError, match="does not exist"):
        RegionDataModule.from_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "a.ckpt").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="is no checkpoint"):
        RegionDataModule.from_checkpoint(tmp_path / "a.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "b.ckpt")
    with pytest.raises(FormatError, match="without a RegionDataModule"):
        RegionDataModule.from_checkpoint(tmp_path / "b.ckpt")


def test_what_it_is_made_with_can_be_read() -> None:
    class Own(RegionDataModule):
        def __init__(self, folder: str, size: int = 3) -> None:
            super().__init__(dataset())

    shown = inspect.signature(RegionDataModule).parameters
    assert list(shown)[:3] == ["train", "val", "predict"]
    assert shown["batch_size"].default == 32
    assert list(inspect.signature(Own).parameters) == ["folder", "size"]
    assert inspect.signature(type(a_module())).parameters == shown


class Watching(lightning.LightningModule):  # type: ignore[name-defined,misc]
    """Remembers the tiles of a cohort that it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(2, 1, 1)
        self.seen: list[tuple[int, list[tuple[str, int]]]] = []

    def training_step(self, batch: Any, index: int) -> Any:
        known = batch.region if hasattr(batch, "region") else batch
        told = [(m["tissue_id"], m["tile_id"]) for m in known.additional_metadata]
        self.seen.append((self.current_epoch, told))
        return self.layer(known.data).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-9)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tissues of 16 tiles."""
    root = tmp_path_factory.mktemp("lightning") / "cohort"
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 900, (2, 128, 128)).astype(np.uint16)
        ingest(
            pixels,
            axes="cyx",
            cohort=root,
            tissue_id=f"t{number}",
            modality="imc",
            mpp=1.0,
            channel_names=["CD3", "DNA"],
        )
    mask(root, method="whole")
    tile(root, tile_size=32, method="grid", strategy="default", tolerance=0.1)
    return root


def imc(cohort: Path) -> MultiplexImagingDataset:
    return MultiplexImagingDataset(
        "c", "imc", path=cohort, tile_size=32, standardization="identity"
    )


@pytest.mark.parametrize("collate", [None, "panel"])
def test_tiles_of_a_cohort_are_fitted_kept_and_gone_on_with(
    cohort: Path, tmp_path: Path, collate: Any
) -> None:
    def data() -> Any:
        tiles = imc(cohort)
        return RegionDataModule(tiles, batch_size=8, order="random", seed=3, collate=collate)

    keeping = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1
    )
    whole, later = Watching(), Watching()
    run = trainer(tmp_path, enable_checkpointing=True, callbacks=[keeping])
    run.fit(whole, datamodule=data())
    assert len(whole.seen) == 8
    tiles = [
        {tile for number, told in whole.seen if number == epoch for tile in told}
        for epoch in (0, 1)
    ]
    assert tiles[0] == tiles[1]
    assert len(tiles[0]) == 32
    assert whole.seen[0][1] != whole.seen[4][1]
    for epoch in (0, 1):
        alone = TileLoader(imc(cohort), 8, seed=3, epoch=epoch)
        rows = [
            [(m["tissue_id"], m["tile_id"]) for m in batch.additional_metadata] for batch in alone
        ]
        assert [told for number, told in whole.seen if number == epoch] == rows
    trainer(tmp_path).fit(later, datamodule=data(), ckpt_path=tmp_path / "step=6.ckpt")
    assert later.seen == whole.seen[6:]
    normalization, config = RegionDataModule.from_checkpoint(tmp_path / "step=6.ckpt")
    assert normalization is None
    assert config["dataset"] == "MultiplexImagingDataset"
    assert config["rows_fingerprint"] == imc(cohort).rows_fingerprint
    assert config["standardization"] == "identity"


def test_an_order_of_ones_own_takes_the_seed_of_the_module(cohort: Path) -> None:
    tiles = imc(cohort)
    order = DrawnOrder.by(tiles.tile_column("tissue_id"), epoch_length=8)
    data = RegionDataModule(tiles, batch_size=4, order=order, seed=5)
    assert data.train_dataloader().batch_rows(0).tolist() == order.at(5, 0).rows(0, 4).tolist()
    assert data.config()["order"] == "drawn"


def test_a_module_refuses_what_it_cannot_read_or_normalize(cohort: Path) -> None:
    tiles = imc(cohort)
    with pytest.raises(InvalidInputError, match=r"RegionDatasets, and val is a Multiplex.*leave"):
        RegionDataModule(dataset(), tiles, normalization="mean_std")
    with pytest.raises(InvalidInputError, match="train: a source has __len__"):
        RegionDataModule(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"predict: .*collate must be one of"):
        RegionDataModule(predict=tiles, collate="pile")  # type: ignore[arg-type]


def test_samples_of_several_modalities_move_to_a_device(cohort: Path) -> None:
    name = cohort.name
    spora = SporaDataset(
        [name],
        datasets_dir=cohort.parent,
        tile_size=32,
        modality_kwargs={"imc": {"standardization": "identity"}},
    )
    device = torch.device("meta")
    for collate in ("list", "panel"):
        data = RegionDataModule(spora, batch_size=4, collate=collate)
        batch = next(iter(data.train_dataloader()))
        there = data.transfer_batch_to_device(batch, device, 0)
        if collate == "list":
            assert {s["modalities"]["imc"].image.device for s in there} == {device}
            assert there[0]["tissue_id"] == batch[0]["tissue_id"]
        else:
            part = there.modalities["imc"]
            assert part.region.data.device == part.present.device == device
            assert there.samples == batch.samples


def test_a_normalization_that_is_none_is_refused_when_it_is_made() -> None:
    with pytest.raises(InvalidInputError, match=r"normalization is a Normalization, .* got 3"):
        a_module(normalization=3)


def test_loaders_keep_chunks_where_asked() -> None:
    def loader(**options: Any) -> Any:
        return a_module(**options).train_dataloader()

    plain, keeping = loader(), loader(cache_bytes=1 << 20)
    for one, other in zip(plain, keeping, strict=True):
        np.testing.assert_array_equal(one[0].data, other[0].data)
    assert plain.batch_sampler.sampler.stats().cache_hits is None
    assert keeping.batch_sampler.sampler.stats().cache_hits is not None
    with pytest.raises(InvalidInputError, match="cache_bytes"):
        loader(cache_bytes=-1)
