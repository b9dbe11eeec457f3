# --8<-- [start:source]
import numpy as np

import microtome as mt
from microtome.loading import BlockOrder, DrawnOrder, TileOrder
from microtome.regions import Windows, region_batch

pixels = np.arange(512 * 512, dtype=np.float32).reshape(1, 512, 512)
slide = mt.open_image(pixels, axes="cyx")
corners = np.stack(np.mgrid[0:512:64, 0:512:64], axis=-1).reshape(-1, 2)


class Grid:
    """Whatever has a length and a `read_batch` can be loaded."""

    def __len__(self):
        return len(corners)

    def read_batch(self, rows):
        windows = Windows.of(0, corners[rows], size=64)
        return region_batch([slide], windows, mt.read_regions([slide], windows))


loader = mt.TileLoader(Grid(), batch_size=10, order="random", seed=7)
print(len(loader), "batches")
for batch in loader:
    print(tuple(batch.data.shape), batch.region_spec["coords"][0].tolist())
# --8<-- [end:source]

# --8<-- [start:seed]
first = [batch.region_spec["coords"] for batch in loader]
slow = mt.TileLoader(Grid(), batch_size=10, order="random", seed=7, prefetch=0)
second = [batch.region_spec["coords"] for batch in slow]
print(np.array_equal(np.concatenate(first), np.concatenate(second)))
loader.set_epoch(1)
print(next(iter(loader)).region_spec["coords"][0].tolist())
# --8<-- [end:seed]

# --8<-- [start:order]
print(TileOrder(10, "random", seed=7).rows(0, 10).tolist())
print(TileOrder(12, "blocked", seed=7, block=3, group=2).rows(0, 12).tolist())
print(TileOrder(10**8, "random", seed=7).rows(10**8 - 2, 10**8).tolist())
# --8<-- [end:order]

# --8<-- [start:distance]
tiles = 50 * 400 * 16  # 50 slides of 400 blocks of 16 tiles
block = np.arange(tiles) // 16
owner = block // 400
for name, order in {
    "uniform": TileOrder(tiles, "random", seed=1),
    "blocked, mixed=256": BlockOrder(block, seed=1, mixed=256),
    "blocked, mixed=1024": BlockOrder(block, seed=1, mixed=1024),
    "sequential": TileOrder(tiles, "sequential"),
}.items():
    batches = owner[order.rows(0, tiles)].reshape(-1, 64)
    same = np.mean([np.bincount(batch)[batch].mean() / 64 for batch in batches])
    print(f"{name:20} {same:.3f} of a batch is of one tile's slide")
# --8<-- [end:distance]

# --8<-- [start:balance]
kinds = np.asarray(["tumour"] * 6 + ["stroma"] * 48 + ["fat"] * 10)
balanced = DrawnOrder.by(kinds, replacement=True, epoch_length=60, seed=7)
print(balanced.shares)
tempered = DrawnOrder.by(kinds, alpha=0.5, epoch_length=40, seed=7)
print(tempered.shares)
weighted = DrawnOrder.by(
    kinds, weights={"tumour": 1, "stroma": 3, "fat": 0}, seed=7
)
print(weighted.shares)
first = next(iter(mt.TileLoader(Grid(), batch_size=10, order=balanced)))
print(kinds[[8 * (y // 64) + x // 64 for y, x in first.region_spec["coords"]]])
# --8<-- [end:balance]


# --8<-- [start:skip]
class Damaged(Grid):
    """Two tiles of it cannot be read."""

    def read_batch(self, rows):
        bad = [row for row in rows.tolist() if row in (5, 40)]
        if bad:
            raise mt.errors.FormatError(f"chunk of tile {bad[0]} is damaged")
        return super().read_batch(rows)


loader = mt.TileLoader(Damaged(), batch_size=10, seed=7, on_error="skip")
print(sum(len(batch.data) for batch in loader), "tiles")
for tile in loader.skipped:
    print(tile)
figures = loader.stats()
print(figures.batches, figures.tiles, figures.skipped, figures.bytes)
# --8<-- [end:skip]

# --8<-- [start:resume]
loader = mt.TileLoader(Grid(), batch_size=10, seed=7)
batches = iter(loader)
for _ in range(3):
    next(batches)
state = loader.state_dict()
print(state["epoch"], state["batch"], "of", state["batches"])

later = mt.TileLoader(Grid(), batch_size=10, seed=7)
later.load_state_dict(state)
print(np.array_equal(next(iter(later)).data, next(batches).data))
# --8<-- [end:resume]

# --8<-- [start:ranks]
seen = []
for rank in range(3):
    part = mt.TileLoader(Grid(), batch_size=10, seed=7, rank=rank, world_size=3)
    batches = [part.batch_rows(number).tolist() for number in range(len(part))]
    print("rank", rank, "has batches of", [len(rows) for rows in batches])
    seen += [row for rows in batches for row in rows]
print(sorted(seen) == list(range(64)))
# --8<-- [end:ranks]
