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

# --8<-- [start:manifest]
from pathlib import Path

import tifffile

for name in ("a", "b", "c"):
    tifffile.imwrite(f"{name}.tif", cells(2), photometric="minisblack")
Path("tissues.csv").write_text("""\
tissue_id,path,modality,mpp,channel_names,patient_id,split,age
a,a.tif,imc,1.0,DNA|CD3,007,train,61
b,b.tif,imc,1.0,CD8|DNA,008,train,58
c,c.tif,imc,1.0,DNA|CD3,009,test,
""")
for image in mt.cohort.ingest_manifest("tissues.csv", "many"):
    print(image, mt.MultiscaleImage.open(image).channel_names)
# --8<-- [end:manifest]

# --8<-- [start:problems]
Path("wrong.csv").write_text("""\
tissue_id,path,modality,mpp,channel_names,patient_id,split
a,a.tif,imc,1.0,DNA|CD3,007,train
a,a.tif,imc,1.0,DNA|CD3,007,train
b,missing.tif,imc,1.0,CD8|DNA,007,test
../c,c.tif,xray,1.0,DNA|CD3,009,test
""")
try:
    mt.cohort.ingest_manifest("wrong.csv", "many")
except mt.MicrotomeError as error:
    print(error)
# --8<-- [end:problems]

# --8<-- [start:clinical]
Path("clinical.csv").write_text("tissue_id,stage,batch\na,II,03\nb,,04\n")
mt.cohort.add_metadata("many", "clinical.csv")
shown = ["tissue_id", "patient_id", "age", "stage", "batch"]
for row in pq.read_table("many/metadata/tissues.parquet").select(shown).to_pylist():
    print(row)
try:
    mt.cohort.add_metadata("many", {"tissue_id": ["a"], "stage": ["III"]})
except mt.MicrotomeError as error:
    print(f"{type(error).__name__}: {error}")
# --8<-- [end:clinical]

# --8<-- [start:cells]
rows, columns = np.mgrid[0:512, 0:512]
numbers = 1 + (rows // 16) * 16 + columns // 16
round_ones = (np.hypot(rows % 16 - 8, columns % 16 - 8) < 5) & (columns < 256)
labels = np.where(round_ones, numbers, 0)
print(mt.cohort.add_cell_masks("many", "a", labels))
types = np.where(round_ones, 1 + (rows > 256), 0)
print(
    mt.cohort.add_cell_masks(
        "many", "a", types, kind="cell_type", labels={1: "tumour", 2: "stroma"}
    )
)
ids = np.unique(labels)[1:]
added = mt.cohort.add_cells(
    "many",
    {
        "Object": ids,
        "centroid-0": 16 * ((ids - 1) // 16) + 8.0,
        "centroid-1": 16 * ((ids - 1) % 16) + 8.0,
    },
    tissue_id="a",
)
print(added, pq.read_table("many/metadata/cells.parquet").slice(0, 1).to_pylist())
# --8<-- [end:cells]

# --8<-- [start:validate]
for finding in mt.cohort.validate("many", cells=True):
    print(finding)
mt.cohort.add_metadata(
    "many", {"tissue_id": ["c"], "patient_id": ["007"]}, overwrite=True
)
Path("many/imc/1_0mpp/images/b.ome.zarr/zarr.json").write_text("{}")
print("and now")
for finding in mt.cohort.validate("many"):
    if finding.severity == "error":
        print(finding)
# --8<-- [end:validate]
