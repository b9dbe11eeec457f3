# A small store as spatialdata writes it: an image, its cells as labels, and a table of them.
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from anndata.io import write_zarr

from microtome.storage import create_array, image_layout, label_layout, write_group

STORE = Path("sample.zarr")
VERSION = {"version": "0.2"}


def place(axes: str, units: float) -> list[dict[str, object]]:
    """Where an element lies: pixels of so many units."""
    named = [{"name": axis, "type": "space", "unit": "unit"} for axis in axes]
    scale = [1.0 if axis == "c" else units for axis in axes]
    ends = {
        "input": {"name": axes, "axes": named},
        "output": {"name": "global", "axes": named},
    }
    return [{"type": "scale", "scale": scale, **ends}]


def write(kind: str, name: str, pixels: np.ndarray, units: float) -> None:
    axes = "cyx"[-pixels.ndim :]
    folder = STORE / kind / name
    layout = (
        image_layout(axes, pixels.shape)
        if kind == "images"
        else label_layout(axes, pixels.shape)
    )
    multiscale = {
        "axes": [{"name": axis, "type": "space"} for axis in axes],
        "datasets": [{"path": "s0"}],
        "coordinateTransformations": place(axes, units),
    }
    write_group(
        folder,
        {"ome": {"version": "0.5-dev-spatialdata", "multiscales": [multiscale]}},
    )
    array = create_array(
        folder / "s0",
        shape=pixels.shape,
        dtype=pixels.dtype,
        layout=layout,
        axes=axes,
    )
    array.write(tuple((0, size) for size in pixels.shape), pixels)


y, x = np.mgrid[0:200, 0:200]
labels = np.zeros((200, 200), np.int32)
for cell, (row, column) in enumerate(
    [(40, 50), (90, 120), (150, 60), (192, 190)], start=1
):
    labels[(y - row) ** 2 + (x - column) ** 2 <= 6**2] = cell
pixels = np.stack([(labels > 0) * 900 + x, (labels == 2) * 500 + y]).astype(
    np.uint16
)

write_group(STORE, {"spatialdata_attrs": VERSION})
write("images", "he", pixels, 0.5)
write("labels", "cells", labels, 0.5)
ad.settings.zarr_write_format = 3
table = ad.AnnData(np.array([[3.0, 0], [0, 8], [5, 1], [2, 2]], np.float32))
table.var_names = ["CD3", "CD8"]
table.obs["region"] = pd.Categorical(["cells"] * 4)
table.obs["cell_id"] = [1, 2, 3, 4]
table.obs["type"] = pd.Categorical(["T", "B", "T", "T"])
table.uns["spatialdata_attrs"] = {
    "region": "cells",
    "region_key": "region",
    "instance_key": "cell_id",
}
write_zarr(STORE / "tables" / "table", table)

# --8<-- [start:tiles]
import microtome as mt

dataset = mt.ImageTilesDataset(
    "sample.zarr",  # or a SpatialData object
    {"cells": "he"},
    {"cells": "global"},
    tile_dim_in_units=16,
    table_name="table",
    return_annotations=["CD3", "CD8"],
    output="region",
    tile_size=32,
)
tile = dataset[1]
print(dataset)
print(tile.data.shape, tile.data.dtype)
print(
    tile.additional_metadata["instance_id"], tile.additional_metadata["annotations"]
)
# --8<-- [end:tiles]

# --8<-- [start:where]
print(dataset.tiles_coords[["x", "y", "extent"]])
# --8<-- [end:where]

# --8<-- [start:several]
both = mt.ImageTilesDataset(
    "sample.zarr",
    {"cells": "he"},
    {"cells": "global"},
    tile_scale=2,
    rasterize=True,
    interpolation="area",
    regions_to_labels={"cells": "cells"},
    output="region",
    tile_size=16,
)
for image, cells in mt.TileLoader(
    both, batch_size=4, order="sequential", as_torch=False
):
    print(image.data.shape, image.data.dtype, cells.data.shape, cells.data.dtype)
    print([np.unique(mask[mask > 0]).tolist() for mask in cells.data])
# --8<-- [end:several]
