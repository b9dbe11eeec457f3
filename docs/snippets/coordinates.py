# --8<-- [start:image]
import json
from pathlib import Path

import numpy as np

import microtome as mt

# Every pixel holds the number of its column.
_, columns = np.mgrid[0:300, 0:400]
with mt.MultiscaleImage.create(
    "ramp.ome.zarr",
    type="float32",
    level_shape=(300, 400),
    has_channel_axis=False,
    mpp=0.5,
) as image:
    image["level0"][...] = columns.astype(np.float32)
    image.build_levels()
image = mt.open_image("ramp.ome.zarr")
# --8<-- [end:image]

# --8<-- [start:boxes]
box = (10, 20, 16, 24)  # x0, y0, x1, y1 in pixels of level 0
read = image.read_spatial_region(1, box)
print(read.data.shape)
print(read.data[0])
print(read.coordinate_transform.apply([[0, 0], [3, 2]]).tolist())
# --8<-- [end:boxes]

# --8<-- [start:touch]
print(image.read_spatial_region(1, (11, 20, 15, 24)).data.shape)
# --8<-- [end:touch]

# --8<-- [start:levels]
to_level = image.get_transform_to_level(2)
print(to_level.apply_box((0, 0, 400, 300)), image.level_shape(2))
# --8<-- [end:levels]

# --8<-- [start:spaces]
# From micrometres to pixels of 0.5 um.
to_pixels = mt.UniformScaleTransform(("x", "y"), ("x", "y"), 2)
read = image.read_spatial_region(0, (5, 10, 8, 12), region_transform=to_pixels)
print(read.data.shape, read.coordinate_transform.apply([[0, 0], [1, 0]]).tolist())

padded = image.read_spatial_region(0, (-2, 0, 3, 1), pad=-1)
print(padded.data.tolist())
# --8<-- [end:spaces]

# --8<-- [start:turned]
# A space whose x axis runs down the image's rows: its box comes out upright.
turned = mt.AffineTransform(("x", "y"), ("x", "y"), [[0, -1, 200], [1, 0, 100]])
read = image.read_spatial_region(
    0, (0, 0, 4, 3), region_transform=turned, resample="linear"
)
print(read.data)
# --8<-- [end:turned]

# --8<-- [start:disk]
stored = json.loads(Path("ramp.ome.zarr/zarr.json").read_text())["attributes"]
for dataset in stored["ome"]["multiscales"][0]["datasets"]:
    scale, translation = dataset["coordinateTransformations"]
    print(dataset["path"], scale["scale"], translation["translation"])
# --8<-- [end:disk]

# --8<-- [start:resample]
line = image.read_at(mpp=0.75, region=(0, 0, 3, 0.75))
print(line[0].astype(float).round(4).tolist())
by_hand = [(0 * 1 + 1 * 0.5) / 1.5, (1 * 0.5 + 2 * 1) / 1.5]
print(np.round(by_hand, 4).tolist())
# --8<-- [end:resample]

# --8<-- [start:spacing]
# The same numbers, seen by a finer scanner: pixels of 0.3 um.
fine = mt.open_image(image.level(0)[...], axes="yx", mpp=0.3)
to_pixels = mt.UniformScaleTransform(("x", "y"), ("x", "y"), 1 / 0.3)
box = (6, 3, 16, 8)  # micrometres
half = fine.read_spatial_region(
    0, box, region_transform=to_pixels, resample="area", spacing=0.5
)
print(half.data.shape, half.coordinate_transform.apply([[0, 0], [1, 1]]).tolist())
print(np.allclose(half.data, fine.read_at(mpp=0.5, region=box)))

own = fine.read_spatial_region(0, box, region_transform=to_pixels, resample="area")
print(own.data.shape)
# --8<-- [end:spacing]

# --8<-- [start:grid]
from microtome.coordinates import MicrometreGrid

grid = MicrometreGrid.of_level(image.level(1), image.level(0))
place = grid.middles([0, 3])  # of the pixel in row 0 and column 3, (y, x)
print(place, grid.to_ngff(place), grid.to_pixels(place))
print(grid.windows(place, 3))  # the first pixel of a window of 3 x 3 around it
# --8<-- [end:grid]
