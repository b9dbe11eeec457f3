# --8<-- [start:predict]
import numpy as np
from scipy import ndimage

import microtome as mt
from microtome.prediction import predict_instances

# 400 cells that fill a slide in rows of 20, bright inside and dark between.
rows = np.minimum.reduce([np.arange(600) % 30, 29 - np.arange(600) % 30])
cells = np.minimum(rows[:, None], rows[None, :])
slide = mt.open_image((cells * 10).astype(np.uint8)[None], axes="cyx", mpp=0.5)


def segment(batch):
    """Number the bright objects of every tile, each tile from 1."""
    return np.stack([ndimage.label(tile[0] > 20)[0] for tile in batch])


found = predict_instances(
    segment, slide, "cells.ome.zarr", tile_size=128, overlap=64
)
labels = found.level(0)[...]
print(found.kind, found.dtype, found.level_count)
print(labels.max(), np.array_equal(labels, segment(slide.level(0)[...][None])[0]))
# --8<-- [end:predict]

# --8<-- [start:inside]
with mt.MultiscaleImage.create(
    "slide.ome.zarr", type="uint8", level_shape=(1, 600, 600), mpp=0.5
) as image:
    image["level0"][...] = slide.level(0)[...]
predict_instances(
    segment,
    "slide.ome.zarr",
    "slide.ome.zarr/labels/cells",
    tile_size=128,
    overlap=64,
)
print(mt.open_image("slide.ome.zarr/labels/cells").kind)
# --8<-- [end:inside]

# --8<-- [start:loop]
from microtome.prediction import InstanceStitcher, iter_tile_batches
from microtome.tiling import plan_tiles

plan = plan_tiles((600, 600), tile_size=128, overlap=64)
with InstanceStitcher("again.ome.zarr", slide, plan) as stitcher:
    for batch in iter_tile_batches(slide, plan, batch_size=4):
        stitcher.add(batch._replace(data=segment(batch.data)))
    again = stitcher.finish()
print(np.array_equal(again.level(0)[...], labels))
# --8<-- [end:loop]

# --8<-- [start:lightning]
import lightning
import torch

from microtome.prediction import PredictionWriter


class Segmenter(lightning.LightningModule):
    def predict_step(self, batch):
        return batch._replace(data=segment(batch.data))


writer = PredictionWriter(
    "lightning", {"cells": slide}, tile_size=128, overlap=64, instances=True
)
trainer = lightning.Trainer(
    callbacks=[writer], accelerator="cpu", logger=False, enable_progress_bar=False
)
# They are batches already, and stay what they are.
loader = torch.utils.data.DataLoader(
    list(iter_tile_batches(slide, plan, batch_size=4)),
    batch_size=None,
    collate_fn=lambda batch: batch,
)
trainer.predict(Segmenter(), loader, return_predictions=False)
print(np.array_equal(writer.written["cells"].level(0)[...], labels))
# --8<-- [end:lightning]

# --8<-- [start:merge]
from microtome.prediction import merge_labels

tiles = np.zeros((600, 600), np.int32)
for top in range(0, 600, 200):
    for left in range(0, 600, 200):
        window = np.s_[top : top + 200, left : left + 200]
        tiles[window] = ndimage.label(cells[window] > 2)[0]
cut = mt.open_image(tiles, axes="yx", mpp=0.5)
print(len(np.unique(tiles)) - 1, "numbers, some of them used nine times")
whole = merge_labels(cut, "merged.ome.zarr", tile_size=200)
print(np.array_equal(whole.level(0)[...], labels))
# --8<-- [end:merge]

# --8<-- [start:vectors]
import pyarrow.parquet as pq

from microtome.prediction import CellCrops, embed_tiles, pool_labels

means = pq.read_table(pool_labels(slide, found, "means.parquet", tissue_id="t1"))
print(means.column_names)
print(means["area"][0], round(means["embedding"][0].as_py()[0], 2))

centroids = np.stack([means["centroid_y"], means["centroid_x"]], axis=1)
crops = CellCrops(slide, centroids, means["cell_id"].to_pylist(), size=24)
vectors = embed_tiles(lambda batch: batch.mean((2, 3)), crops, "vectors.parquet")
print(pq.read_table(vectors).num_rows)
# --8<-- [end:vectors]

# --8<-- [start:anndata]
from microtome.prediction import vectors_to_anndata

cells_table = vectors_to_anndata(vectors, "vectors.h5ad")
print(cells_table.obsm["X_embedding"].shape, cells_table.obsm["spatial"][0])
measured = vectors_to_anndata(means)
print(measured.shape, list(measured.var_names))
# --8<-- [end:anndata]

# --8<-- [start:tiff]
from microtome.export import write_ome_tiff

print(write_ome_tiff(found, "cells.ome.tif"))
print(mt.open_image("cells.ome.tif").mpp)
# --8<-- [end:tiff]
