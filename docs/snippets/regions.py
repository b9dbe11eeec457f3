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
