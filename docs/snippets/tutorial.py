# --8<-- [start:picture]
from pathlib import Path

import numpy as np
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry

import microtome as mt
from microtome.prediction import load_model

# Colon, stained for FHL2 (brown) and for nuclei (blue), and empty glass around.
margin = ((256, 256), (256, 256), (0, 0))
picture = np.pad(immunohistochemistry(), margin, constant_values=245)
print(picture.shape, picture.dtype)
# --8<-- [end:picture]

# --8<-- [start:ingest]
slide = mt.ingest(
    picture,
    axes="yxc",
    mpp=0.5,
    cohort="study",
    tissue_id="colon",
    modality="ihc_FHL2",
    resolution=0.5,
)
print(slide.uri)
print(slide.axes, slide.dtype, slide.mpp)
print([slide.level_shape(level) for level in range(slide.level_count)])
# --8<-- [end:ingest]

# --8<-- [start:stains]
densities = rgb2hed(picture)[..., [0, 2]]  # haematoxylin and DAB
mt.ingest(
    np.rint(1000 * densities.clip(min=0)).astype(np.uint16),
    axes="yxc",
    channel_names=["hematoxylin", "DAB"],
    mpp=0.5,
    cohort="study",
    tissue_id="colon",
    modality="stains",
    resolution=0.5,
)
# --8<-- [end:stains]

# --8<-- [start:mask]
shares = mt.mask("study")
print({tissue: f"{share:.0%} tissue" for tissue, share in shares.items()})
# --8<-- [end:mask]

# --8<-- [start:tile]
tiles = mt.tile("study", tile_size=128)
print(tiles)
print(tiles.window(0))
# --8<-- [end:tile]

# --8<-- [start:stats]
for directory in mt.stats("study"):
    print(directory)
# --8<-- [end:stats]

# --8<-- [start:load]
dataset = mt.SingleIHCImagingDataset(
    "study",
    "FHL2",
    path="study",
    resolution=0.5,
    tile_size=128,
    mean_std_type="imagenet",
)
loader = mt.TileLoader(dataset, batch_size=8, order="random", seed=0)
for batch in loader:
    ids = [facts["tile_id"] for facts in batch.additional_metadata]
    print(type(batch.data).__name__, tuple(batch.data.shape), ids)
# --8<-- [end:load]

# --8<-- [start:multiplex]
stains = mt.MultiplexImagingDataset(
    "study",
    "stains",
    path="study",
    resolution=0.5,
    tile_size=128,
    standardization="quantile_clipping/uq_0.99_image",
)
tile = stains.get_tile("colon", 0)
print(tile.channel_names.tolist(), tuple(tile.image.shape))
print(tile.region.region_spec)
print(dataset.get_tile("colon", 0).region.region_spec)
# --8<-- [end:multiplex]

# --8<-- [start:predict]
model = load_model("demo")  # or any torch module of yours
for path in mt.predict_cohort(model, "study", name="demo", modality="ihc_FHL2"):
    print(path)

prediction = mt.open_image("study/predictions/0_5mpp/demo/colon.ome.zarr")
print(prediction.channel_names, prediction.level_shape(0), prediction.mpp)
density = prediction.read_at(mpp=8.0, channels=["nuclear_density"])
print(density.shape, f"nuclei fill at most {density.max():.0%} of 8 x 8 um")
# --8<-- [end:predict]

# --8<-- [start:report]
page = mt.report("study", "report.html", throughput=False)
print(page)
# --8<-- [end:report]

# --8<-- [start:disk]
for path in sorted(Path("study").rglob("*")):
    if path.is_file() and ".ome.zarr" not in path.as_posix():
        print(path)
for path in sorted(Path("study").rglob("*.ome.zarr")):
    print(path)
# --8<-- [end:disk]

# --8<-- [start:info]
print(mt.info("study"))
# --8<-- [end:info]
