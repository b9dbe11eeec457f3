# --8<-- [start:mask]
import json
from pathlib import Path

import numpy as np

import microtome as mt
from microtome.tiling import get_cell_tiles, get_fewest_tiles

# A round piece of tissue, 600 px across, in a picture of 1000 x 1200.
rows, columns = np.ogrid[0:1000, 0:1200]
tissue = (rows - 450) ** 2 + (columns - 500) ** 2 < 300**2
# --8<-- [end:mask]

# --8<-- [start:cover]
tiles, stats, covered = mt.best_mask_tiling_try_to_stop(
    tissue,
    tile_size=224,
    stride=112,
    tolerance=0.85,
    coverage_goal=1.0,
    min_gain_ratio=0.05,
)
print(len(tiles), "tiles cover", stats["coverage_ratio"], stats["stop_reason"])
print(tiles[0])
print(tiles[-1])
# --8<-- [end:cover]

# --8<-- [start:grid]
grid, grid_stats = mt.get_grid_tile(tissue, tile_size=224, tolerance=0.85)
print(len(grid), "tiles of", grid_stats["grid_candidate_count"], "are kept")
print("they cover", grid_stats["coverage_ratio"])
# --8<-- [end:grid]

# --8<-- [start:strips]
strips, strip_stats = mt.get_strip_tiles(tissue, tile_size=224, coverage_goal=0.99)
print(len(strips), "tiles cover", round(strip_stats["coverage_ratio"], 4))
print("no tiling has fewer than", strip_stats["tile_bound"])
# --8<-- [end:strips]

# --8<-- [start:fewest]
in_strips, _ = mt.get_strip_tiles(tissue, tile_size=128, coverage_goal=0.99)
fewest, fewest_stats = get_fewest_tiles(tissue, tile_size=128, coverage_goal=0.99)
print(len(fewest), "tiles, and", len(in_strips), "in strips")
print("no tiling has fewer than", fewest_stats["tile_bound"])
print(fewest_stats["overlap_valid_pixels"], "pixels of tissue lie in two tiles")
# --8<-- [end:fewest]

# --8<-- [start:cells]
centroids = [[200.0, 250.0], [240.0, 300.0], [90.0, 250.0]]  # micrometres, y and x
around, _ = get_cell_tiles(
    centroids, tile_size=64, mpp=0.5, mask=tissue, cell_ids=[4, 11, 23]
)
for tile, cell in zip(around, around.cell_id, strict=True):
    print("cell", cell, "tile at", tile.row, tile.col, "tissue", tile.tissue_frac)
# --8<-- [end:cells]

# --8<-- [start:table]
table = mt.TileTable.from_tiles(
    "t1", tiles, strategy="default", resolution="0_5mpp"
)
print(table)
print(table.table.schema.names)
table.write("224_tile_coordinates.parquet")
again = mt.TileTable.read("224_tile_coordinates.parquet")
print(again.window(0) == tiles[0], again.for_tissue("t1").tile_size)
# --8<-- [end:table]

# --8<-- [start:strategies]
picture = np.full((1000, 1200, 3), 240, np.uint8)  # glass
picture[tissue] = (180, 90, 150)
mt.ingest(
    picture,
    axes="yxc",
    mpp=0.5,
    cohort="study",
    tissue_id="t1",
    modality="he",
    resolution=0.5,
)
mt.mask("study")
mt.tile("study", tile_size=224)
mt.tile("study", tile_size=224, method="grid")
mt.tile("study", tile_size=224, method="grid", stride=112, strategy="dense")

options = {"path": "study", "resolution": 0.5, "tile_size": 224}
for strategy in ("default", "grid", "dense"):
    dataset = mt.HEImagingDataset("study", tile_strategy=strategy, **options)
    print(strategy, len(dataset), "tiles")
# --8<-- [end:strategies]

# --8<-- [start:areas]
corners = [[200, 150], [500, 150], [500, 750], [200, 750], [200, 150]]
feature = {
    "type": "Feature",
    "geometry": {"type": "Polygon", "coordinates": [corners]},
    "properties": {"classification": {"name": "Tumor"}},
}
Path("areas").mkdir()
Path("areas/t1.geojson").write_text(json.dumps([feature]))

tumor = mt.tile(
    "study",
    tile_size=112,
    method="fewest",
    annotations="areas",
    classes=["Tumor"],
    strategy="tumor",
)
print(len(tumor), "tiles, the leftmost at column", min(tumor.rows().col))
# --8<-- [end:areas]
