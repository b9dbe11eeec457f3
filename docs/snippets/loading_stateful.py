import warnings

import numpy as np

import microtome as mt
from microtome.regions import Windows, region_batch

# torchdata 0.11 warns beside torch 2.13 that `set_vital` is deprecated.
warnings.filterwarnings("ignore", category=DeprecationWarning)

pixels = np.arange(512 * 512, dtype=np.float32).reshape(1, 512, 512)
slide = mt.open_image(pixels, axes="cyx")
corners = np.stack(np.mgrid[0:512:64, 0:512:64], axis=-1).reshape(-1, 2)


class Grid:
    def __len__(self):
        return len(corners)

    def read_batch(self, rows):
        windows = Windows.of(0, corners[rows], size=64)
        return region_batch([slide], windows, mt.read_regions([slide], windows))


# --8<-- [start:goes_on]
from torchdata.stateful_dataloader import StatefulDataLoader


def stateful():
    tiles = mt.TileLoader(Grid(), batch_size=16, order="random", seed=7)
    return StatefulDataLoader(mt.loading.iterable_dataset(tiles), batch_size=None)


def corners_of(batches):
    return [np.asarray(batch.region_spec["coords"]).tolist() for batch in batches]


whole = corners_of(stateful())
first = stateful()
batches = iter(first)
next(batches)
state = first.state_dict()  # after one of four batches

again = stateful()
again.load_state_dict(state)
print("the other three:", corners_of(again) == whole[1:])
# --8<-- [end:goes_on]
