# --8<-- [start:create]
import numpy as np

import microtome as mt

with mt.MultiscaleImage.create(
    "field", type="uint16", level_shape=(2, 300, 400), mpp=0.5, versioned=True
) as image:
    image["level0"][...] = np.random.default_rng(0).integers(
        0, 500, (2, 300, 400), np.uint16
    )
    image.build_levels()
    image.commit("as acquired")
    image.tag("raw")
# --8<-- [end:create]

# --8<-- [start:change]
image = mt.MultiscaleImage.open("field", "w")
image["level0"][0, :50] = 0
image.metadata["corrected"] = "rows 0 to 50"
before = mt.MultiscaleImage.open("field")  # sees nothing of it yet
image.commit("a flare cut out")
image.close()
print("corrected" in before.metadata, int(before["level0"][0, :50].max()))
# --8<-- [end:change]

# --8<-- [start:look]
image = mt.MultiscaleImage.open("field")
for snapshot in image.history():
    print(snapshot.message, snapshot.tags)
raw = mt.MultiscaleImage.open("field", at="raw")
print(int(raw["level0"][0, :50].max()), int(image["level0"][0, :50].max()))
# --8<-- [end:look]

# --8<-- [start:freeze]
image.freeze("raw", "raw.ome.zarr")
frozen = mt.open_image("raw.ome.zarr")
print(frozen, bool((frozen["level0"][...] == raw["level0"][...]).all()))
# --8<-- [end:freeze]
