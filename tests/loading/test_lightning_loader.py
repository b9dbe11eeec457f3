"""A loader that is given to Lightning as it is: epochs that differ, and runs that go on."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.loading import TileLoader

lightning = pytest.importorskip("lightning", reason="needs the extra lightning")
torch = pytest.importorskip("torch", reason="needs the extra torch")

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:GPU available but not used",
    "ignore:The number of training batches",
    "ignore:Be aware that when using `ckpt_path`",
)


class Watching(lightning.LightningModule):  # type: ignore[name-defined,misc]
    """One convolution; remembers which rows it was shown in which epoch."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(2, 1, 1)
        self.seen = []

    def training_step(self, batch, index):
        self.seen.append((self.current_epoch, batch.region_spec["data_idx"].tolist()))
        return self.layer(batch.data).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def trainer(folder, **options):
    given = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
    }
    return lightning.Trainer(**{**given, **options})


@pytest.mark.parametrize("order", ["random", "blocked"])
def test_every_epoch_has_its_own_order(source_of, tmp_path, order):
    model = Watching()
    trainer(tmp_path).fit(
        model, train_dataloaders=TileLoader(source_of(20), 6, order=order, seed=1)
    )
    for epoch in range(3):
        alone = TileLoader(source_of(20), 6, order=order, seed=1, epoch=epoch)
        wanted = [(epoch, batch.region_spec["data_idx"].tolist()) for batch in alone]
        assert [each for each in model.seen if each[0] == epoch] == wanted


@pytest.mark.parametrize("stop", [1, 3, 4, 6, 8, 11])
def test_a_run_goes_on_where_it_was_stopped(source_of, tmp_path, stop):
    def loader():
        return TileLoader(source_of(20), 6, seed=1)

    keeping = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=stop, save_top_k=-1
    )
    whole, later = Watching(), Watching()
    trainer(tmp_path, enable_checkpointing=True, callbacks=[keeping]).fit(
        whole, train_dataloaders=loader()
    )
    assert len(whole.seen) == 12
    trainer(tmp_path).fit(
        later, train_dataloaders=loader(), ckpt_path=tmp_path / f"step={stop}.ckpt"
    )
    assert later.seen == whole.seen[stop:]


def test_the_epoch_that_is_begun_is_the_one_of_the_first_batch(source_of):
    loader = TileLoader(source_of(20), 6, seed=1)
    batches = iter(loader)
    loader.set_epoch(2)
    first = next(batches).region_spec["data_idx"]
    assert np.array_equal(first, TileLoader(source_of(20), 6, seed=1, epoch=2).batch_rows(0))
    batches.close()
