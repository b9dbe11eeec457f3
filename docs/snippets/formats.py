# --8<-- [start:write]
import zipfile
from pathlib import Path

import numpy as np
import tifffile
from imagecodecs import png_encode

import microtome as mt
from microtome.sources import source_formats

pixels = np.arange(2 * 300 * 400, dtype=np.uint16).reshape(2, 300, 400)
tifffile.imwrite(
    "panel.ome.tif",
    pixels,
    metadata={
        "axes": "CYX",
        "Channel": {"Name": ["DNA", "CD3"]},
        "PhysicalSizeX": 0.65,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.65,
        "PhysicalSizeYUnit": "µm",
    },
)
Path("picture.png").write_bytes(png_encode(np.zeros((300, 400, 3), np.uint8)))
Path("notes.svs").write_text("this is no slide")
# --8<-- [end:write]

# --8<-- [start:info]
print(mt.info("panel.ome.tif"))
print(mt.info("picture.png"))
# --8<-- [end:info]

# --8<-- [start:array]
image = mt.open_image(pixels, axes="cyx", mpp=0.65, channel_names=["DNA", "CD3"])
panel = mt.open_image("panel.ome.tif")
print(np.array_equal(image.level(0)[...], panel.level(0)[...]))
# --8<-- [end:array]

# --8<-- [start:wrong]
try:
    mt.open_image("notes.svs")
except mt.MicrotomeError as error:
    print(f"{type(error).__name__}: {error}")
# --8<-- [end:wrong]

# --8<-- [start:list]
for source in source_formats():
    print(source.name, source.suffixes)
# --8<-- [end:list]

# --8<-- [start:zip]
with mt.MultiscaleImage.create(
    "cells.ome.zarr", type="uint16", level_shape=pixels.shape, mpp=0.65
) as written:
    written["level0"][...] = pixels
    written.build_levels()

# The image lies at the root of the zip, and is not compressed a second time.
with zipfile.ZipFile("cells.ozx", "w", zipfile.ZIP_STORED) as archive:
    for path in sorted(Path("cells.ome.zarr").rglob("*")):
        if path.is_file():
            archive.write(path, path.relative_to("cells.ome.zarr"))
zipped = mt.open_image("cells.ozx")
print(zipped.mpp, np.array_equal(zipped.level(0)[...], pixels))
# --8<-- [end:zip]

# --8<-- [start:several]
from microtome.sources import image_names

with tifffile.TiffWriter("two.ome.tif", ome=True) as tiff:
    tiff.write(
        pixels, photometric="minisblack", metadata={"axes": "CYX", "Name": "left"}
    )
    tiff.write(
        pixels[:, :90],
        photometric="minisblack",
        metadata={"axes": "CYX", "Name": "right"},
    )
print(image_names("two.ome.tif"))
print(mt.open_image("two.ome.tif", image="right").level_shape(0))
# --8<-- [end:several]

# --8<-- [start:labels]
np.save("cells.npy", np.arange(300 * 400, dtype=np.uint32).reshape(300, 400))
print(
    mt.open_image("cells.npy").kind, mt.open_image("cells.npy", kind="labels").kind
)
# --8<-- [end:labels]

# --8<-- [start:own]
from microtome.sources import SourceFormat, image_from_array


def open_text(path, *, mpp):
    numbers = np.loadtxt(path, delimiter=";", skiprows=1)
    return image_from_array(
        numbers, axes="yx", mpp=mpp, uri=str(path), name=path.stem
    )


TEXT = SourceFormat(
    name="text of a line camera",
    matches=lambda _path, head: head.startswith(b"LINESCAN"),
    opener=f"{__name__}:open_text",
    suffixes=(".lsc",),
)
# --8<-- [end:own]
