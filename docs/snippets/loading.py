# --8<-- [start:source]
import numpy as np

import microtome as mt
from microtome.loading import TileOrder
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
