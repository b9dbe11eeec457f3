# --8<-- [start:setup]
import numpy as np
import pyarrow as pa

import microtome as mt
from microtome.interop import (
    cell_objects,
    read_h5_coordinates,
    read_qupath,
    tile_objects,
    tiles_of_objects,
    write_clam_coordinates,
    write_coco,
    write_qupath,
    write_tiles_parquet,
    write_trident_coordinates,
    write_webdataset,
)

# A slide at 0.25 um/px, and tiles that were chosen at 1 um/px.
slide = mt.open_image(np.zeros((4096, 4096), np.uint8), axes="yx", mpp=0.25)
tiles = mt.TileTable.from_columns(
    {
        "tissue_id": "t1",
        "row": [0, 0, 224],
        "col": [0, 224, 112],
        "tissue_frac": [0.5, 1.0, 0.75],
        "grade": ["low", "high", "high"],
    },
    tile_size=224,
    strategy="grid",
    resolution="1_0mpp",
)
# --8<-- [end:setup]

# --8<-- [start:tiles]
drawn = tile_objects(
    tiles, slide=slide, classes="grade", colors={"high": (200, 0, 0)}
)
write_qupath(drawn, "tiles.geojson")
first, second, third = read_qupath("tiles.geojson")
print(second.kind, second.classification, second.color, dict(second.measurements))
print(second.polygons[0][0].tolist())
# --8<-- [end:tiles]

# --8<-- [start:back]
back = tiles_of_objects(
    read_qupath("tiles.geojson", kinds=["tile"]), tissue_id="t1", scale=4
)
print(back)
print(back.column("row"), back.column("class"))
# --8<-- [end:back]

# --8<-- [start:cells]
labels = np.zeros((1024, 1024), np.uint32)
labels[100:120, 100:130] = 1
labels[105:110, 105:110] = 0  # a hole
labels[300:310, 40:60] = 2
cells = pa.table(
    {"cell_id": [1, 2], "CD3": [0.5, 7.25], "type": ["other", "T cell"]}
)

outlined = cell_objects(
    mt.open_image(labels, axes="yx", mpp=1.0), cells=cells, scale=4, classes="type"
)
write_qupath(outlined, "cells.geojson")
for cell in read_qupath("cells.geojson"):
    rings = [len(ring) - 1 for ring in cell.polygons[0]]
    print(
        cell.name, cell.classification, cell.measurements["CD3"], "corners:", rings
    )
# --8<-- [end:cells]

# --8<-- [start:trident]
write_trident_coordinates(
    tiles, "patches/t1_patches.h5", magnification=40, slide=slide
)
print(read_h5_coordinates("patches/t1_patches.h5", tissue_id="t1"))
finest = read_h5_coordinates("patches/t1_patches.h5", tissue_id="t1", scale=1)
print(finest.tile_size, finest.column("col"))
# --8<-- [end:trident]

# --8<-- [start:clam]
write_clam_coordinates(tiles, "patches/t1.h5", slide=slide, level=0)
print(read_h5_coordinates("patches/t1.h5").strategy)
# --8<-- [end:clam]

# --8<-- [start:webdataset]
import tarfile

from microtome.prediction import CellCrops

stain = mt.open_image(np.ones((3, 1024, 1024), np.uint8), axes="cyx", mpp=1.0)
crops = CellCrops(stain, [[110, 115], [305, 50], [500, 500]], [1, 2, 3], size=32)
shards = write_webdataset(crops, "shards", rows=[2, 0, 1], shard_size=2)
print([path.name for path in shards])
with tarfile.open(shards[1]) as archive:
    print(archive.getnames())
# --8<-- [end:webdataset]

# --8<-- [start:coco]
import json

at_1um = mt.TileTable.from_columns(
    {"tissue_id": "t1", "row": [90, 290], "col": [90, 0]},
    tile_size=64,
    strategy="mine",
)
masks = mt.open_image(labels, axes="yx", mpp=1.0)
about = write_coco(stain, masks, at_1um, "coco", cells=cells, classes="type")
for found in json.loads(about.read_text())["annotations"]:
    print(found["image_id"], found["category_id"], found["bbox"], found["area"])
# --8<-- [end:coco]

# --8<-- [start:parquet]
import pyarrow.parquet as pq

colours = np.random.default_rng(0).integers(0, 256, (3, 512, 512), np.uint8)
picture = mt.open_image(colours, axes="cyx", mpp=0.5)
written = write_tiles_parquet({"t1": picture}, at_1um, "tiles.parquet")
rows = pq.read_table(written)
print(rows.drop(["image"]).slice(1).to_pylist()[0])
print(rows["image"][1]["path"], rows["image"][1]["bytes"].as_py()[1:4])
# --8<-- [end:parquet]

# --8<-- [start:anndata]
from microtome.interop import cells_to_anndata, tiles_to_anndata

at = pa.table({"centroid_x": [115.0, 50.0], "centroid_y": [110.0, 305.0]})
known = cells.append_column("tissue_id", pa.array(["t1", "t1"]))
for name in at.column_names:
    known = known.append_column(name, at[name])
adata = cells_to_anndata(known, variables=["CD3"])
print(adata.obs_names.tolist(), adata.var_names.tolist(), adata.X.tolist())
print(adata.obsm["spatial"].tolist())
print(tiles_to_anndata(at_1um, mpp=1.0).obsm["spatial"].tolist())
# --8<-- [end:anndata]

# --8<-- [start:napari]
from microtome.interop import napari_layers, napari_tiles

signal = np.random.default_rng(0).normal(3, 1, (2, 512, 512)).clip(0, 6)
panel = mt.open_image(
    signal.astype(np.float32), axes="cyx", mpp=1.0, channel_names=["DNA", "CD3"]
)
for data, options, kind in napari_layers(panel):
    low, high = options["contrast_limits"]
    shown = f"{low:.1f} to {high:.1f}"
    print(kind, options["name"], data.shape, options["scale"], shown)
shapes, options, kind = napari_tiles(tiles, image=panel)
print(kind, options["name"], len(shapes), list(options["features"]))
# --8<-- [end:napari]


# --8<-- [start:cohort]
from microtome.interop import CohortTiles, add_tiles, export_qupath_tiles

pixels = np.random.default_rng(0).integers(120, 240, (512, 512, 3), np.uint8)
for tissue_id in ("t1", "t2"):
    mt.ingest(
        pixels,
        axes="yxc",
        mpp=0.25,
        cohort="study",
        tissue_id=tissue_id,
        modality="he",
        resolution=0.5,
    )
mt.mask("study", method="whole")
mt.tile("study", tile_size=64, method="grid")
chosen = CohortTiles.open("study", tissues=["t2"])
print(chosen.tiles)
files = export_qupath_tiles(chosen, "geojson")
print(files[0].as_posix(), read_qupath(files[0])[1].polygons[0][0][2].tolist())
back = add_tiles("study", files[0], tissue_id="t2")
print(back)
# --8<-- [end:cohort]
