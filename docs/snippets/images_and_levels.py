# --8<-- [start:write]
import numpy as np

import microtome as mt

rng = np.random.default_rng(0)
pixels = rng.integers(0, 1000, (2, 301, 500), dtype=np.uint16)

with mt.MultiscaleImage.create(
    "cells.ome.zarr",
    type="uint16",
    level_shape=(2, 301, 500),
    channel_names=["DNA", "CD3"],
    mpp=0.5,
) as image:
    image["level0"][...] = pixels
    image.build_levels()
# --8<-- [end:write]

# --8<-- [start:stack]
with mt.MultiscaleImage.create(
    "stack.ome.zarr",
    type="uint8",
    level_shape=(7, 200, 100),
    coordinate_space=("x", "y", "z"),
    has_channel_axis=False,
    mpp=0.5,
    z_spacing=2.0,
) as stack:
    stack["level0"][3] = 200
stack = mt.open_image("stack.ome.zarr")
print(stack.axes, stack.level(0).scale)
slab = stack.read_spatial_region(0, (10, 20, 2, 14, 26, 5))  # planes 2 to 4
print(slab.data.shape, slab.data[:, 0, 0])
# --8<-- [end:stack]

# --8<-- [start:look]
image = mt.open_image("cells.ome.zarr")
print(image.axes, image.dtype, image.mpp, image.channel_names)
for index in range(image.level_count):
    print(index, image.level_shape(index), image.level_mpp(index))
# --8<-- [end:look]

# --8<-- [start:read]
whole = image.level(1)[...]
window = image.read(0, y=(100, 164), x=(200, 264), channels=["CD3"])
coarse = image.read_at(mpp=2.0, region=(0, 0, 100, 50))
print(whole.shape, window.shape, coarse.shape)
# --8<-- [end:read]

# --8<-- [start:rule]
# An even block is the mean of four, rounded half up.
block = pixels[0, 0:2, 0:2].astype(float)
print(block.tolist(), "->", int(whole[0, 0, 0]))
# The last of 301 rows has no partner: two pixels.
edge = pixels[0, 300, 0:2].astype(float)
print(edge.tolist(), "->", int(whole[0, 150, 0]))
# --8<-- [end:rule]

# --8<-- [start:change]
with mt.MultiscaleImage.open("cells.ome.zarr", "w") as image:
    image.metadata["stain"] = "DAPI and CD3"
    image["level0"][0, 10:20, 10:20] = 0  # a speck of dust
    image.build_levels(overwrite=True)
    overview = image.add_new_level("overview", shape=(2, 31, 50))
    overview.write((), image["level1"][...][:, ::5, ::5])

image = mt.open_image("cells.ome.zarr")
print(image.metadata["stain"])
for key, (uri, shape) in image.levels().items():
    print(key, uri, shape)
print(image.get_transform_from_level("overview").scale_factors)
# --8<-- [end:change]

# --8<-- [start:remove]
image.reopen("d").pop("overview")
print(list(image.reopen("r")))
# --8<-- [end:remove]
