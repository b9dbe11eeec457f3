# --8<-- [start:read]
import numpy as np

import microtome as mt
from microtome.regions import Windows, region_batch, valid_windows

plane = np.arange(100 * 80, dtype=np.uint16).reshape(1, 100, 80)
slides = [
    mt.open_image(plane, axes="cyx", mpp=0.5, channel_names=["DNA"]),
    mt.open_image(plane[:, ::-1], axes="cyx", mpp=0.5, channel_names=["DNA"]),
]

# Three windows of 32 x 32 in two images; the second hangs over a corner.
windows = Windows.of(image=[0, 0, 1], start=[[8, 8], [-4, 60], [40, 40]], size=32)
pixels = mt.read_regions(slides, windows, padding=0)
print(pixels.shape, pixels.dtype)
# --8<-- [end:read]

# --8<-- [start:convert]
from microtome.storage import Conversion

scaled = Conversion.of([("clip", [0], [4000]), ("divide", [4000])])
floats = mt.read_regions(slides, windows, convert=scaled)
print(floats.dtype, floats.max())
print(
    np.array_equal(
        floats, np.clip(pixels, 0, 4000).astype(np.float32) / np.float32(4000)
    )
)
# --8<-- [end:convert]

# --8<-- [start:valid]
print(valid_windows(slides, windows)[1].tolist())
print(int(pixels[1, 0, 3, 0]), int(pixels[1, 0, 4, 0]))
# --8<-- [end:valid]

# --8<-- [start:batch]
batch = region_batch(slides, windows, pixels)
print(batch.data.shape)
print(batch.region_spec["data_idx"].tolist(), batch.region_spec["coords"].tolist())
print(batch.data_shape)
print(batch.additional_metadata[1])
# --8<-- [end:batch]

# --8<-- [start:one]
regions = mt.decollate_regions(batch)
region = regions[1]
print(region.data.shape, region.data_shape, region.dtype, region.axes)
print(region.region_spec)
# --8<-- [end:one]

# --8<-- [start:round]
again = mt.collate_regions(regions)
print(np.array_equal(again.data, batch.data), again.source == batch.source)
# --8<-- [end:round]

# --8<-- [start:stacks]
from microtome.sources import open_stacks

movie = np.arange(64 * 48 * 3 * 2, dtype=np.uint32).reshape(64, 48, 3, 2)
stacks = open_stacks(movie, "YXTC")
print(stacks[0].data_shape)
moments = Windows.of(image=0, start=[[0, 0], [60, 40]], size=16, sample=[2, 0])
pixels = mt.read_regions(stacks, moments, channels=[1])
print(pixels.shape, np.array_equal(pixels[0, 0], movie[:16, :16, 2, 1]))
# --8<-- [end:stacks]


# --8<-- [start:own]
class Ramp:
    """A format of your own: pixels count along x, in the second sample from 1000."""

    source, original_axes, data_dtype = "ramp", "SYX", "uint32"
    original_data_shape, data_shape = (2, 90, 90), (2, 1, 90, 90)

    def extract_patch(self, sample_idx, channels, coords, patch_size):
        row = np.arange(coords[1], coords[1] + patch_size[1], dtype=np.uint32)
        return np.broadcast_to(
            row + 1000 * sample_idx, (len(channels), *patch_size)
        )


mixed = Windows.of(image=[0, 1], start=[[0, 0], [5, 84]], size=8, sample=[1, 1])
pixels = mt.read_regions([stacks[0], Ramp()], mixed, channels=[0])
print(pixels[1, 0, 0].tolist())
# --8<-- [end:own]

# --8<-- [start:bounds]
from microtome.regions import data_shape_of, region_bounds, region_transform

print(region_bounds(batch).tolist())
x0, y0, x1, y1 = region_bounds(regions[0])
same = slides[0].read_at(mpp=0.5, region=(x0, y0, x1, y1))
print(np.array_equal(same, regions[0].data))
# --8<-- [end:bounds]

# --8<-- [start:turned]
told = {**regions[0].additional_metadata, "augmentation": {"dihedral": 1}}
turned = regions[0]._replace(
    data=np.rot90(regions[0].data, axes=(-2, -1)), additional_metadata=told
)
place = region_transform(turned)
row, column = 3, 10
x, y = place.apply([row + 0.5, column + 0.5])
print(float(x), float(y), int(turned.data[0, row, column]))
print(int(plane[0, int(y / 0.5), int(x / 0.5)]))
print(place.inverse_transform().apply([x, y]).tolist())
# --8<-- [end:turned]

# --8<-- [start:told]
import tempfile
from pathlib import Path

import tifffile

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "movie.tif"
    tifffile.imwrite(
        path, movie[..., 0, 0].reshape(4, 16, 48), photometric="minisblack"
    )
    for stack in open_stacks(path) + open_stacks(path, "SYX"):
        print(data_shape_of(stack))
# --8<-- [end:told]
