# Pixels to learn from: the target is a blurred channel of the image.

import numpy as np
from scipy.ndimage import gaussian_filter

from microtome import open_image

rng = np.random.default_rng(0)
raw = rng.poisson(50, (2, 300, 400))
wanted = gaussian_filter(raw[0].astype(np.float32), 2)
images = [open_image(raw.astype(np.uint16), axes="cyx", mpp=0.5)]
targets = [open_image(wanted, axes="yx", mpp=0.5, kind="intensity")]

# --8<-- [start:train]
import lightning
import torch

from microtome import predict
from microtome.augmentation import DihedralAugmentation
from microtome.loading import RegionDataModule, RegionDataset
from microtome.patching import FixedRandomPatching, RandomPatching
from microtome.regions import data_shape_of


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(2, 1, 9, padding=4)

    def forward(self, batch):
        return self.layer(batch)

    def loss(self, batch, name):
        patches, target = batch  # ImageRegionData, of tensors
        loss = torch.nn.functional.mse_loss(self(patches.data), target.data)
        self.log(name, loss, batch_size=len(patches.data))
        return loss

    def training_step(self, batch, _):
        return self.loss(batch, "loss")

    def validation_step(self, batch, _):
        self.loss(batch, "val_loss")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


shapes = [data_shape_of(image) for image in images]
data = RegionDataModule(
    RegionDataset(
        images,
        RandomPatching(shapes, (64, 64), seed=0),  # other patches every epoch
        targets=targets,
        augmentations=[DihedralAugmentation()],
    ),
    RegionDataset(
        images, FixedRandomPatching(shapes, (64, 64), seed=1), targets=targets
    ),
    batch_size=8,
    normalization="mean_std",
    normalize_targets=True,
    seed=0,
)
lightning.seed_everything(0)
model = Model()
settings = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
trainer = lightning.Trainer(max_epochs=3, default_root_dir="run", **settings)
trainer.fit(model, data)
trainer.save_checkpoint("last.ckpt")
print("explains more than half:", float(trainer.callback_metrics["val_loss"]) < 0.5)
# --8<-- [end:train]

# --8<-- [start:again]
again = lightning.Trainer(max_epochs=4, default_root_dir="run", **settings)
again.fit(model, data, ckpt_path="last.ckpt")
print("epochs:", again.current_epoch)

normalization, config = RegionDataModule.from_checkpoint("last.ckpt")
answer = predict(
    model,
    images[0],
    "answer.ome.zarr",
    tile_size=128,
    overlap=16,
    preprocess=normalization.normalize,
    postprocess=normalization.denormalize,
)
error = answer.level(0)[0] - wanted
print(
    answer.level_shape(0),
    "like the target:",
    np.abs(error).mean() < wanted.std() / 2,
)
# --8<-- [end:again]

# --8<-- [start:cohort]
import microtome as mt

for tissue in ("bright", "dim"):
    mt.ingest(
        rng.poisson(60 if tissue == "bright" else 40, (2, 256, 256)).astype(
            np.uint16
        ),
        axes="cyx",
        channel_names=["DNA", "CD3"],
        mpp=1.0,
        cohort="study",
        tissue_id=tissue,
        modality="imc",
    )
mt.mask("study", method="whole")
mt.tile("study", tile_size=32, method="grid", strategy="default")
tiles = mt.MultiplexImagingDataset(
    "study", "imc", path="study", tile_size=32, standardization="identity"
)


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch, _):
        bright = [m["tissue_id"] == "bright" for m in batch.additional_metadata]
        guess = self.layer(batch.data.mean((2, 3)) / 50 - 1)
        return torch.nn.functional.cross_entropy(guess, torch.tensor(bright).long())

    def predict_step(self, batch, _):
        return self.layer(batch.data.mean((2, 3)) / 50 - 1).argmax(1)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


turned = mt.AugmentedDataset(tiles, [DihedralAugmentation()], seed=0)
data = RegionDataModule(turned, predict=tiles, batch_size=16, order="random")
classifier = Classifier()
trainer = lightning.Trainer(max_epochs=5, default_root_dir="tiles", **settings)
trainer.fit(classifier, data)
found = torch.cat(trainer.predict(classifier, data))
print(len(found), "tiles,", int(found.sum()), "of them bright")
# --8<-- [end:cohort]
