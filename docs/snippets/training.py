# --8<-- [start:data]
import tempfile
from pathlib import Path

import numpy as np

from microtome import open_image
from microtome.normalization import (
    fit_normalization,
    load_normalization,
    save_normalization,
)

rng = np.random.default_rng(0)
pixels = rng.poisson((300, 40), (600, 500, 2)).transpose(2, 0, 1).astype(np.uint16)
cells = rng.integers(0, 5, (600, 500), dtype=np.uint32)
images = [open_image(pixels, axes="cyx", mpp=0.5)]
targets = [open_image(cells, axes="yx", mpp=0.5)]
# --8<-- [end:data]

# --8<-- [start:fit]
normalization = fit_normalization("mean_std", images)
print([round(mean, 3) for mean in normalization.means])
print([round(std, 3) for std in normalization.stds])
for name, value in normalization.fitted_on.items():
    print(f"{name}: {value}")
# --8<-- [end:fit]

# --8<-- [start:keep]
folder = Path(tempfile.mkdtemp())
save_normalization(normalization, folder / "normalization.json")
assert load_normalization(folder / "normalization.json") == normalization
# --8<-- [end:keep]

# --8<-- [start:normalize]
batch = pixels[None, :, :64, :64]  # what a model is given has a first axis more
normalized = normalization.normalize(batch)
print(normalized.shape, normalized.dtype, normalized.mean(axis=(0, 2, 3)).round(2))
back = normalization.denormalize(normalized)
print(float(np.abs(back - batch).max()) < 0.01)
# --8<-- [end:normalize]

# --8<-- [start:dataset]
from microtome.augmentation import (
    ChannelDropout,
    DihedralAugmentation,
    IntensityJitter,
    undo,
)
from microtome.loading import RegionDataset
from microtome.patching import StratifiedPatching
from microtome.regions import data_shape_of

patching = StratifiedPatching(
    [data_shape_of(image) for image in images], (64, 64), seed=0
)
dataset = RegionDataset(
    images,
    patching,
    targets=targets,
    normalization=normalization,
    augmentations=[DihedralAugmentation(), IntensityJitter(), ChannelDropout(0.2)],
    seed=0,
)
print(dataset)
patch, target = dataset[3]
print(patch.data.shape, patch.data.dtype, target.data.shape, target.data.dtype)
print(patch.region_spec)
# --8<-- [end:dataset]

# --8<-- [start:record]
record = patch.additional_metadata["augmentation"]
print(list(record), record["dihedral"], record["channel_dropout"])
jitter = record["intensity_jitter"]
print({name: np.round(values, 3).tolist() for name, values in jitter.items()})
upright = undo(target)
row, col = target.region_spec["coords"]
assert (upright.data[0] == cells[row : row + 64, col : col + 64]).all()
# --8<-- [end:record]

# --8<-- [start:loader]
from microtome.loading import TileLoader

loader = TileLoader(dataset, batch_size=16, order="blocked", seed=0, as_torch=False)
for epoch in range(2):
    loader.set_epoch(epoch)
    seen = [(len(patches.data), labels.data.dtype) for patches, labels in loader]
    print(epoch, len(seen), seen[0])
# --8<-- [end:loader]

# --8<-- [start:answer]
import torch

from microtome.regions import ImageRegionData

model = torch.nn.Conv2d(2, 1, 3, padding=1)
patches, labels = next(iter(TileLoader(dataset, batch_size=4, as_torch=True)))
wanted = labels.data.long()  # torch does not compare uint32
with torch.inference_mode():
    answer = ImageRegionData.from_model_output(patches, model(patches.data))
upright = undo(answer, geometry_only=True)
print(tuple(upright.data.shape), (wanted > 0).sum().item() > 0)
print(upright.region_spec["coords"][0].tolist())
# --8<-- [end:answer]

# --8<-- [start:predict]
from microtome import predict

result = predict(
    model,
    images[0],
    folder / "answer.ome.zarr",
    tile_size=128,
    overlap=16,
    preprocess=normalization.normalize,
)
# --8<-- [end:predict]


# --8<-- [start:said]
class Trained(torch.nn.Conv2d):
    standardization = "imagenet"  # what microtome predict shows it


# --8<-- [end:said]
