# --8<-- [start:cohort]
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import microtome as mt

rng = np.random.default_rng(0)
height, width = 260, 300  # micrometres: every image below has 1 um a pixel
slide = rng.integers(120, 240, (height, width, 3), dtype=np.uint8)
spots = rng.poisson(3, (3, height, width)).astype(np.float32)
for tissue_id, split in [("t1", "train"), ("t2", "test")]:
    row = {"tissue_id": tissue_id, "split": split, "patient_id": f"p-{tissue_id}"}
    mt.ingest(slide, axes="yxc", mpp=1.0, cohort="study", modality="he", **row)
    mt.ingest(
        spots,
        axes="cyx",
        mpp=1.0,
        channel_names=["CD3", "CD8", "DNA"],
        cohort="study",
        modality="imc",
        **row,
    )
mt.mask("study", modality="he")
mt.tile("study", tile_size=128, method="grid", strategy="default")
# --8<-- [end:cohort]

# --8<-- [start:one]
he = mt.HEImagingDataset("study", path="study", tile_size=128)
print(he)
tile = he.get_tile("t1", 0)
print(tile)
print(tile.region.region_spec["coords"], tile.region.additional_metadata["mpp"])
last = he.get_tile("t1", 0, image_mode="HWC", preprocess=False)
print(tuple(last.image.shape), float(last.image.max()))
# --8<-- [end:one]

# --8<-- [start:coarser]
coarse = mt.HEImagingDataset("study", path="study", resolution=2.0)
print(he.image("t1").level_shape(0), coarse.image("t1").level_shape(0))
# --8<-- [end:coarser]

# --8<-- [start:labels]
table = pq.read_table("study/metadata/tissues.parquet")
grades = ["low" if t == "t1" else "high" for t in table["tissue_id"].to_pylist()]
pq.write_table(
    table.append_column("grade", pa.array(grades)), "study/metadata/tissues.parquet"
)
train = mt.HEImagingDataset(
    "study", path="study", tile_size=128, split="train", label="grade"
)
print(train.label_encoder)
told = train[0].additional_metadata
print(told["label"], told["label_code"])
# --8<-- [end:labels]

# --8<-- [start:masks]
bare = mt.MultiplexImagingDataset(
    "study", "imc", path="study", tile_size=128, standardization="identity"
)
with_mask = bare.get_tile("t1", 0, with_masks=True)
print(with_mask.tissue_mask.shape, with_mask.cell_mask, with_mask.cells)
# --8<-- [end:masks]

# --8<-- [start:filters]
blurred = mt.MultiplexImagingDataset(
    "study",
    "imc",
    path="study",
    tile_size=128,
    standardization="identity",
    filter_list=["median_filter", "gaussian_blur"],
)
whole = blurred.get_tissue("t1").image
row, col = blurred.tile_coordinates["t1"][1]
crop = whole[:, row : row + 128, col : col + 128]
same = blurred.get_tile_by_coordinates("t1", row, col).image[..., : crop.shape[-1]]
print(bool((crop == same[:, : crop.shape[1]]).all()))
# --8<-- [end:filters]

# --8<-- [start:composed]
both = mt.ComposedImagingDataset(
    "study",
    ["he", "imc"],
    path="study",
    tile_size=128,
    modality_kwargs={"imc": {"standardization": "identity"}},
)
print(both)
for name, found in both.get_composed_tile("t1", 0).modalities.items():
    print(name, found)
# --8<-- [end:composed]

# --8<-- [start:align]
angle = np.deg2rad(5)
turn = [
    [np.cos(angle), -np.sin(angle), 12.0],
    [np.sin(angle), np.cos(angle), -4.0],
]
mt.set_alignment("study", "t1", "imc", turn, method="landmarks")
both = mt.ComposedImagingDataset(
    "study",
    ["he", "imc"],
    path="study",
    tile_size=128,
    modality_kwargs={"imc": {"standardization": "identity"}},
)
print(both.get_composed_tile("t1", 0).modalities["imc"])
# --8<-- [end:align]
