# --8<-- [start:identity]
import numpy as np
import torch
from torch import nn

import microtome as mt
from microtome.prediction import Stitcher, iter_tile_batches
from microtome.tiling import plan_tiles

rng = np.random.default_rng(0)
pixels = rng.integers(0, 256, (3, 301, 467), np.uint8)
slide = mt.open_image(pixels, axes="cyx", mpp=0.5)


def identity(batch):
    return batch


same = mt.predict(identity, slide, "same.ome.zarr", tile_size=128, overlap=32)
print(np.array_equal(same.level(0)[...], pixels))
# --8<-- [end:identity]

# --8<-- [start:plan]
plan = plan_tiles((301, 467), tile_size=128, overlap=32)
print(plan.grid, len(plan))
print("starts", plan.coords[:5, 1].tolist())
print("kept from", plan.stitch[:5, 1].tolist())
print("kept columns", plan.crop_size[:5, 1].tolist())
# --8<-- [end:plan]


# --8<-- [start:model]
class Blur(nn.Module):
    """Averages over 5 x 5 pixels: it looks 2 pixels far."""

    channel_names = ("blurred",)

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Conv2d(3, 1, 5, padding=2, bias=False)
        nn.init.constant_(self.mean.weight, 1 / 75)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.mean(batch)  # float32, as stored: 0 to 255


tiled = mt.predict(Blur(), slide, "tiled.ome.zarr", tile_size=64, overlap=8)
whole = mt.predict(Blur(), slide, "whole.ome.zarr", tile_size=512, overlap=0)
print(tiled.channel_names, tiled.dtype, tiled.mpp)
print(np.allclose(tiled.level(0)[...], whole.level(0)[...], atol=1e-3))
# --8<-- [end:model]

# --8<-- [start:loop]
with Stitcher("inverted.ome.zarr", slide, plan) as stitcher:
    for batch in iter_tile_batches(slide, plan, batch_size=4):
        stitcher.add(batch._replace(data=255 - batch.data))
    inverted = stitcher.finish()
print(np.array_equal(inverted.level(0)[...], 255 - pixels))
# --8<-- [end:loop]


# --8<-- [start:wrong]
def cropped(batch):
    return batch[:, :, 2:-2, 2:-2]


try:
    mt.predict(cropped, slide, "small.ome.zarr", tile_size=128)
except mt.MicrotomeError as error:
    print(f"{type(error).__name__}: {error}")
# --8<-- [end:wrong]


# --8<-- [start:blend]
smooth = mt.predict(
    identity, slide, "smooth.ome.zarr", tile_size=128, overlap=32, blend="linear"
)
print(np.array_equal(smooth.level(0)[...], pixels))
# --8<-- [end:blend]


# --8<-- [start:scale]
def patch_means(batch):
    b, c, y, x = batch.shape
    return batch.reshape(b, c, y // 16, 16, x // 16, 16).mean(
        (3, 5), dtype=np.float32
    )


coarse = mt.predict(
    patch_means, slide, "coarse.ome.zarr", tile_size=128, overlap=32
)
print(coarse.level_shape(0), coarse.mpp)
print("centre of the first pixel at", coarse.level(0).translation[1:], "um")
# --8<-- [end:scale]

# --8<-- [start:mask]
mask = np.zeros((301, 467), bool)
mask[:100, :150] = True
part = mt.predict(
    identity, slide, "part.ome.zarr", tile_size=128, overlap=32, mask=mask
)
record = part.metadata["microtome"]["prediction"]
print(
    record["skipped_tiles"],
    "of",
    len(plan),
    "tiles were left out and hold",
    record["fill"],
)
# --8<-- [end:mask]

# --8<-- [start:many]
several = {"first": slide, "second": slide}
made = mt.predict(identity, several, "results", tile_size=128, overlap=32)
print({name: image.level_shape(0) for name, image in made.items()})
# --8<-- [end:many]

# --8<-- [start:augmented]
from microtome.prediction import TestTimeAugmentation

model = TestTimeAugmentation(Blur(), states=8)  # 4 where tiles are not square
turned = mt.predict(model, slide, "turned.ome.zarr", tile_size=64, overlap=8)
print(turned.metadata["microtome"]["prediction"]["model"])
# This model turns with its input: the mean is what it says once.
print(np.allclose(turned.level(0)[...], tiled.level(0)[...], atol=1e-3))
# --8<-- [end:augmented]

# --8<-- [start:finished]
try:
    mt.predict(Blur(), slide, "tiled.ome.zarr", tile_size=128, overlap=8)
except mt.MicrotomeError as error:
    print(f"{type(error).__name__}: {error}")
# --8<-- [end:finished]

# --8<-- [start:cohort]
mt.ingest(
    pixels,
    axes="cyx",
    cohort="study",
    tissue_id="t1",
    modality="he",
    mpp=0.5,
    resolution=0.5,
)


class Trained(nn.Identity):
    """It was trained on batches of `HEImagingDataset`, which are these by default."""

    standardization = "imagenet"


paths = mt.predict_cohort(Trained(), "study", name="trained", blend="linear")
dataset = mt.HEImagingDataset("study", path="study", resolution=0.5)
shown = mt.open_image(paths[0]).level(0)[...]
print(np.allclose(shown, dataset.get_tissue("t1").image, atol=1e-5))
# --8<-- [end:cohort]
