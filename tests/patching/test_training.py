"""Plans, filters and places together with the dataset that models are trained on."""

from __future__ import annotations

import numpy as np

from microtome.augmentation import DihedralAugmentation
from microtome.image import MultiscaleImage
from microtome.loading import RegionDataset
from microtome.patching import MeanStdFilter, StratifiedPatching, filter_map
from microtome.regions import data_shape_of, decollate_regions, region_bounds, region_transform
from microtome.storage import Layout


def test_every_pixel_of_a_training_batch_lies_where_its_region_says(tmp_path) -> None:
    # Each pixel has its own number, which float32 holds exactly; half of the image is empty.
    pixels = np.arange(200 * 150, dtype=np.uint16).reshape(1, 200, 150) + 1
    pixels[:, :, 75:] = 0
    with MultiscaleImage.create(
        tmp_path / "a",
        type="uint16",
        level_shape=pixels.shape,
        mpp=(0.5, 0.25),
        translation=(40.0, -10.0),
        layout=Layout((1, 32, 32), (1, 64, 64)),
    ) as made:
        made["level0"][...] = pixels
    image = MultiscaleImage.open(tmp_path / "a")
    found = filter_map(
        image, StratifiedPatching([data_shape_of(image)], (16, 16)), MeanStdFilter(1)
    )
    dataset = RegionDataset(image, found.selected(), augmentations=[DihedralAugmentation()], seed=3)
    states: set[int] = set()
    for epoch in range(3):
        batch = dataset.read_batch(np.arange(len(dataset)), epoch=epoch)
        boxes = region_bounds(batch)
        for region, box in zip(decollate_regions(batch), boxes, strict=True):
            states.add(region.additional_metadata["augmentation"]["dihedral"])
            height, width = region.data.shape[1:]
            rows, columns = np.mgrid[:height, :width] + 0.5
            at = region_transform(region).apply(np.stack([rows, columns], -1))
            x, y = at[..., 0] / 0.25, at[..., 1] / 0.5
            expected = pixels[0, np.floor(y).astype(int), np.floor(x).astype(int)]
            np.testing.assert_array_equal(region.data[0], expected)
            assert box[0] / 0.25 < 75  # nothing is drawn from a cell that lies in the empty half
            world = region_transform(region, space="world").apply([0.5, 0.5])
            np.testing.assert_allclose(world - at[0, 0], [-10.125, 39.75])
    assert states == set(range(8))
