# --8<-- [start:random]
import numpy as np

from microtome import open_image
from microtome.patching import (
    RandomPatching,
    StratifiedPatching,
    TiledPatching,
    validation_split,
)
from microtome.regions import data_shape_of, read_regions

pixels = np.random.default_rng(0).poisson(20, (2, 500, 400)).astype(np.uint16)
images = [open_image(pixels, axes="cyx", mpp=0.5)]
shapes = [data_shape_of(image) for image in images]
print(shapes)

patching = RandomPatching(shapes, (64, 96), seed=7)
print(len(patching), "patches an epoch")
windows = patching.windows([0, 1, 2], epoch=4)
print(windows.start.tolist())
print(read_regions(images, windows).shape)
# --8<-- [end:random]

# --8<-- [start:spec]
print(patching.get_patch_spec(2, epoch=4))
# --8<-- [end:spec]

# --8<-- [start:stratified]
stratified = StratifiedPatching(shapes, (64, 64))
cells = stratified.cells
print(cells.grid, len(stratified))

left = cells.start[:, 1] < 200
rarely = stratified.with_probabilities(np.where(left, 0.1, 1.0))
print(len(rarely))
# --8<-- [end:stratified]

# --8<-- [start:split]
training, validation = validation_split(shapes, (64, 64), 5, seed=1)
print(len(training), len(validation))
# --8<-- [end:split]

# --8<-- [start:tiled]
tiles = TiledPatching(shapes, (256, 256), overlap=64)
columns = tiles.columns(range(len(tiles)))
for name, values in columns.items():
    print(name, values[-1])
# --8<-- [end:tiled]

# --8<-- [start:filter]
from microtome.patching import MeanStdFilter, filter_map

slide = pixels.copy()
slide[:, :, :150] //= 10  # a dark third, with hardly anything in it
image = open_image(slide, axes="cyx", mpp=0.5, channel_names=["DNA", "CD3"])
found = filter_map(image, stratified, MeanStdFilter(15, channel="DNA"))
print(found.names, int(found.kept.sum()), "of", len(found), "kept")
print(found.grid().round(1)[0].tolist())
# --8<-- [end:filter]

# --8<-- [start:weighted]
weighted = found.weighted(filtered_patch_prob=0.1)
print(len(stratified), len(weighted))
# --8<-- [end:weighted]

# --8<-- [start:tissue]
from microtome.patching import TissueFilter

tissue = np.zeros((125, 100), bool)  # of a quarter of the image's pixels each way
tissue[:, 40:] = True
tiles = TiledPatching(shapes, (128, 128), overlap=32)
chosen = filter_map(image, tiles, TissueFilter(tissue, 0.1)).selected()
print(len(tiles), len(chosen), chosen.columns([0])["total_tiles"].tolist())
# --8<-- [end:tissue]
