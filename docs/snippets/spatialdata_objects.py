import numpy as np
import pandas as pd

import microtome as mt

rng = np.random.default_rng(0)
pixels = rng.integers(0, 999, (2, 200, 300), np.uint16)
labels = np.zeros((200, 300), np.int32)
labels[40:60, 50:70], labels[100:130, 200:220] = 1, 2

# --8<-- [start:into]
from microtome.interop import (
    cells_from_spatialdata,
    from_spatialdata,
    tiles_from_spatialdata,
    to_spatialdata,
)
from microtome.tiling import TileTable

image = mt.open_image(pixels, axes="cyx", mpp=0.5)
cells = mt.open_image(labels, axes="yx", mpp=0.5)  # states it too: one space
tiles = TileTable.from_columns(
    {
        "tissue_id": "he",
        "row": [0, 64],
        "col": [0, 128],
        "tissue_frac": [0.25, 1.0],
    },
    tile_size=64,
    strategy="grid",
)
sdata = to_spatialdata(
    {"he": image},
    labels={"cells": cells},
    cells=pd.DataFrame({"cell_id": [1, 2], "type": ["T", "B"], "CD3": [3.5, 0.0]}),
    tiles=tiles,
)
sdata.write("mine.zarr")
# --8<-- [end:into]

# --8<-- [start:back]
image = from_spatialdata("mine.zarr", "he", system="global")  # or the object
print(image.mpp, image.level(0).translation)
print(cells_from_spatialdata("mine.zarr"))
print(tiles_from_spatialdata("mine.zarr").table.to_pydict()["tissue_frac"])
# --8<-- [end:back]

assert (image.mpp.y, image.mpp.x) == (0.5, 0.5)
np.testing.assert_array_equal(image.level(0)[...], pixels)
assert cells_from_spatialdata("mine.zarr")["CD3"].tolist() == [3.5, 0.0]
assert tiles_from_spatialdata("mine.zarr").table.to_pydict()["tissue_frac"] == [
    0.25,
    1.0,
]

# --8<-- [start:answers]
import torch
from spatialdata import read_zarr

dataset = mt.ImageTilesDataset(
    "mine.zarr",
    {"cells": "he"},
    {"cells": "global"},
    tile_dim_in_units=12,
    table_name="table",
    output="region",
    tile_size=24,
)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(1))
batches = np.split(np.arange(len(dataset)), range(32, len(dataset), 32))
with torch.inference_mode():
    scores = [
        model(torch.from_numpy(dataset.read_batch(rows).data)) for rows in batches
    ]

table = dataset.dataset_table  # a row a tile, in their order
table.obs["score"] = torch.cat(scores).numpy()[:, 0]
sdata = read_zarr("mine.zarr")
sdata["scored"] = table
sdata["map"] = to_spatialdata({"map": image})["map"]  # or what predict made
for name in ("scored", "map"):
    sdata.write_element(name)
print(cells_from_spatialdata("mine.zarr", "scored").columns.tolist())
# --8<-- [end:answers]
