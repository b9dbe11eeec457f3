# --8<-- [start:two]
import numpy as np
import pyarrow.parquet as pq

import microtome as mt

rng = np.random.default_rng(0)


def cells(channels):
    """A made-up picture: rows of cells on the left half, noise elsewhere."""
    rows, columns = np.mgrid[0:512, 0:512]
    cell = (np.hypot(rows % 16 - 8, columns % 16 - 8) < 5) & (columns < 256)
    return rng.poisson(2 + 60 * cell, (channels, 512, 512)).astype(np.uint16)


for tissue_id, split, channels in (
    ("t1", "train", ["DNA", "CD3", "CD8"]),
    ("t2", "test", ["DNA", "CD8"]),  # this one did not measure CD3
):
    mt.ingest(
        cells(len(channels)),
        axes="cyx",
        channel_names=channels,
        mpp=1.0,
        cohort="study",
        tissue_id=tissue_id,
        patient_id=f"patient of {tissue_id}",
        modality="imc",
        split=split,
    )
# --8<-- [end:two]

# --8<-- [start:tables]
tissues = pq.read_table("study/metadata/tissues.parquet")
shown = ["tissue_id", "modality", "split", "mpp", "mpp_source"]
for row in tissues.select(shown).to_pylist():
    print(row)
print(pq.read_table("study/imc/channels.parquet")["channel_name"].to_pylist())
for row in pq.read_table("study/imc/channels_per_tissue.parquet").to_pylist():
    print(row)
# --8<-- [end:tables]

# --8<-- [start:road]
mt.mask("study")
mt.tile("study", tile_size=128)
mt.stats("study")
# --8<-- [end:road]

# --8<-- [start:kinds]
options = {
    "path": "study",
    "tile_size": 128,
    "standardization": "quantile_clipping/uq_0.99_image",
}
dataset = mt.MultiplexImagingDataset("study", "imc", **options)
print(dataset)
for tissue_id in dataset.get_tissue_ids():
    tile = dataset.get_tile(tissue_id, 0, kind="complete")
    print(tissue_id, tile.channel_names.tolist(), tile.measured_mask.tolist())
# --8<-- [end:kinds]

# --8<-- [start:common]
try:
    batches = list(mt.TileLoader(dataset, batch_size=4, order="random", seed=0))
except mt.MicrotomeError as error:
    print(f"{type(error).__name__}: {error}")

common = mt.MultiplexImagingDataset(
    "study", "imc", channels=["DNA", "CD8"], **options
)
for batch in mt.TileLoader(common, batch_size=8, order="random", seed=0):
    tissues = {facts["tissue_id"] for facts in batch.additional_metadata}
    print(tuple(batch.data.shape), sorted(tissues))
    break
# --8<-- [end:common]

# --8<-- [start:split]
train = mt.MultiplexImagingDataset("study", "imc", split="train", **options)
print(train.get_tissue_ids().tolist(), len(train), "of", len(dataset), "tiles")
# --8<-- [end:split]

# --8<-- [start:id]
try:
    mt.ingest("slide.svs", cohort="study", tissue_id="../t1", modality="he")
except mt.MicrotomeError as error:
    print(f"{type(error).__name__}: {error}")
# --8<-- [end:id]
