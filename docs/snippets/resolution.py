# --8<-- [start:missing]
import numpy as np

import microtome as mt

picture = np.zeros((300, 400, 3), np.uint8)
image = mt.open_image(picture, axes="yxc")
print(image.mpp)
try:
    mt.ingest(image, cohort="study", tissue_id="t1", modality="he")
except mt.MicrotomeError as error:
    print(f"{type(error).__name__}: {error}")
# --8<-- [end:missing]

# --8<-- [start:given]
image = mt.open_image(picture, axes="yxc", mpp=0.5)
print(image.mpp, "|", image.mpp.source)
print(mt.Mpp(0.5, 0.6, "user"))
# --8<-- [end:given]

# --8<-- [start:impossible]
try:
    mt.open_image(picture, axes="yxc", mpp=2835)  # a density
except mt.MicrotomeError as error:
    print(f"{type(error).__name__}: {error}")
# --8<-- [end:impossible]

# --8<-- [start:resolution]
same = {mt.Resolution.parse(text) for text in (1, 1.0, "1.0", "1_0mpp")}
print(len(same), [resolution.directory for resolution in same])
for value in (0.65, (0.5, 0.6)):
    print(mt.Resolution.parse(value).directory)
# --8<-- [end:resolution]
