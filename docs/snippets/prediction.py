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
def halved(batch):
    return batch[:, :, ::2, ::2]


try:
    mt.predict(halved, slide, "small.ome.zarr", tile_size=128)
except mt.MicrotomeError as error:
    print(f"{type(error).__name__}: {error}")
# --8<-- [end:wrong]
