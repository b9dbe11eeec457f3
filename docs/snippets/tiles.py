# --8<-- [start:mask]
import numpy as np

import microtome as mt

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
