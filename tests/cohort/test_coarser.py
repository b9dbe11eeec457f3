"""A cohort read at a coarser resolution than it stores: exact means, the same in every window."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.cohort import (
    CohortLayout,
    HEImagingDataset,
    MultiplexImagingDataset,
    ingest,
    mask,
    open_tissue_image,
    open_tissue_mask,
    stats,
    tile,
)
from microtome.cohort import _images as images_module
from microtome.coordinates import Mpp, Resolution
from microtome.errors import InvalidInputError, NotFoundError
from microtome.image import image_at
from microtome.sources import image_from_array


def mean_by_hand(pixels: np.ndarray, ratio: float) -> np.ndarray:
    """Mean of what each coarser pixel covers, weighted by how much; slowly, in doubles."""

    def along(values: np.ndarray) -> np.ndarray:
        count = int(np.ceil(values.shape[-1] / ratio - 1e-9))
        out = np.empty((*values.shape[:-1], count))
        for place in range(count):
            low, high = place * ratio, min((place + 1) * ratio, values.shape[-1])
            weights = np.clip(
                np.minimum(high, np.arange(values.shape[-1]) + 1)
                - np.maximum(low, np.arange(values.shape[-1])),
                0,
                None,
            )
            out[..., place] = values @ (weights / weights.sum())
        return out

    return along(along(pixels.astype(float)).swapaxes(-1, -2)).swapaxes(-1, -2)


@pytest.mark.parametrize("ratio", [1, 1.3, 2, 3])
def test_multiplex_counts_become_exact_means(imc: Any, ratio: float) -> None:
    root, sources = imc
    dataset = MultiplexImagingDataset(
        "c", "imc", path=root, standardization="identity", resolution=ratio
    )
    for name, source in sources.items():
        found = dataset.get_tissue(name, kind="complete").image
        np.testing.assert_allclose(found, mean_by_hand(source, ratio), rtol=1e-6, atol=1e-5)


def test_colours_are_rounded_half_up(he: Any) -> None:
    root, sources = he
    image = open_tissue_image(
        CohortLayout.open(root),
        HEImagingDataset("c", path=root, resolution=0.5).modality,
        Resolution.parse(1),
        "t1",
    )
    expected = np.floor(mean_by_hand(sources["t1"], 2) + 0.5)
    np.testing.assert_array_equal(image.level(0)[...], expected.astype(np.uint8))


def test_tiles_at_a_coarser_resolution_are_crops_of_the_whole(imc: Any) -> None:
    root, _ = imc
    made = tile(root, tile_size=24, method="grid", resolution="2_0mpp", tolerance=0.9)
    assert (root / "tiling/2_0mpp/grid/24_tile_coordinates.parquet").is_file()
    stats(root, resolution=2)
    dataset = MultiplexImagingDataset(
        "c",
        "imc",
        path=root,
        standardization="quantile_clipping/uq_0.99_image",
        resolution=2.0,
        tile_size=24,
        tile_strategy="grid",
    )
    assert len(dataset) == len(made) > 8
    hanging = 0
    for number in range(len(dataset)):
        region = dataset[number]
        whole = dataset.get_tissue(region.additional_metadata["tissue_id"], kind="complete").image
        row, col = region.region_spec["coords"]
        inside = np.asarray(whole)[:, row : row + 24, col : col + 24]
        hanging += inside.shape != (3, 24, 24)
        np.testing.assert_array_equal(region.data[:, : inside.shape[1], : inside.shape[2]], inside)
        assert region.additional_metadata["mpp"] == (2.0, 2.0)
    assert hanging


def test_masks_at_a_coarser_resolution_lie_on_its_grid(imc: Any) -> None:
    root, sources = imc
    layout, two = CohortLayout.open(root), Resolution.parse(2)
    fine = open_tissue_mask(layout, Resolution.parse(1), "a").level(0)[...]
    labels = open_tissue_mask(layout, two, "a")
    height, width = (int(np.ceil(n / 2)) for n in sources["a"].shape[-2:])
    assert labels.level_shape(0) == (height, width)
    rows = np.minimum(np.arange(height) * 2 + 1, fine.shape[0] - 1)
    columns = np.minimum(np.arange(width) * 2 + 1, fine.shape[1] - 1)
    np.testing.assert_array_equal(labels.level(0)[...], fine[np.ix_(rows, columns)])
    dataset = MultiplexImagingDataset(
        "c", "imc", path=root, standardization="identity", resolution=2
    )
    assert dataset.get_tissue_mask("a").mask.shape == (height, width)


def test_a_mask_can_be_made_at_a_coarser_resolution(he: Any) -> None:
    root, _ = he
    shares = mask(root, resolution=2)
    assert set(shares) == {"t1", "t2"}
    assert all(0.2 < share < 0.7 for share in shares.values())
    assert sorted(p.name for p in (root / "segmentations/2_0mpp/tissue_masks").iterdir()) == [
        "t1.ome.zarr",
        "t2.ome.zarr",
    ]


def test_reading_at_a_coarser_resolution_writes_nothing(imc: Any, tree: Any) -> None:
    root, _ = imc
    before = tree(root)
    MultiplexImagingDataset(
        "c", "imc", path=root, standardization="identity", resolution=4
    ).get_tissue("a", kind="complete")
    assert tree(root) == before


def test_it_is_served_from_the_nearest_finer_resolution(imc: Any, monkeypatch: Any) -> None:
    root, _ = imc
    (root / "imc/1_0mpp").rename(root / "imc/0_5mpp")
    layout = CohortLayout.open(root)
    kind = layout.modalities()[0]
    for wanted, expected in [(0.5, "0_5mpp"), (1, "0_5mpp"), (3.7, "0_5mpp")]:
        found = images_module.served_from(layout, kind, Resolution.parse(wanted), "a")
        assert found is not None
        assert found.directory == expected
    assert images_module.served_from(layout, kind, Resolution.parse(0.4), "a") is None
    assert images_module.served_from(layout, kind, Resolution.parse((1, 0.4)), "a") is None
    with pytest.raises(NotFoundError, match="no finer image of tissue 'a'"):
        open_tissue_image(layout, kind, Resolution.parse(0.25), "a")


def test_a_dataset_at_a_coarser_resolution_goes_to_another_process(imc: Any) -> None:
    root, _ = imc
    dataset = MultiplexImagingDataset(
        "c", "imc", path=root, standardization="identity", resolution=2
    )
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[0].data, dataset[0].data)


def test_unequal_sides(imc: Any) -> None:
    root, sources = imc
    dataset = MultiplexImagingDataset(
        "c", "imc", path=root, standardization="identity", resolution=(2, 1)
    )
    found = np.asarray(dataset.get_tissue("a", kind="complete").image)
    expected = mean_by_hand(sources["a"], 2)[..., 0]
    assert found.shape[-2:] == (70, 171)
    np.testing.assert_allclose(
        found[..., :2].mean(-1), expected, rtol=1e-5
    )  # means of pairs of columns, of means of pairs of rows


def test_a_view_has_the_corner_of_its_image(tmp_path: Path) -> None:
    pixels = np.arange(7 * 9, dtype=np.float32).reshape(7, 9)
    image = image_from_array(pixels, axes="yx", mpp=Mpp(0.5, 0.5, "user"))
    view = image_at(image, Mpp(1.0, 1.5, "user"))
    assert view.level_shape(0) == (4, 3)
    assert view.mpp == Mpp(1.0, 1.5, "user")
    np.testing.assert_allclose(view.read(0, (0, 1), (0, 1)), pixels[:2, :3].mean()[None, None])
    np.testing.assert_allclose(view.read(0, (3, 4), (2, 3)), pixels[6:, 6:].mean()[None, None])
    # Its first pixel's centre, in the space in which the image's own is at 0.
    assert view.level(0).translation == (0.25, 0.5)
    assert view.read(0, (2, 2), (0, 3)).shape == (0, 3)


def test_only_flat_images_are_viewed() -> None:
    volume = image_from_array(np.zeros((2, 3, 4), np.uint8), axes="zyx", mpp=Mpp(1, 1, "user"))
    with pytest.raises(InvalidInputError, match="zyx"):
        image_at(volume, Mpp(2, 2, "user"))


@pytest.mark.parametrize("ratio", [2, 3.3, 4, 6.6, 8, 9.3, 17.3])
def test_colours_are_means_of_the_finest_level_whatever_others_there_are(
    tmp_path: Path, ratio: float
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1100, 900, 3), dtype=np.uint8)
    ingest(
        pixels, axes="yxc", cohort=tmp_path / "c", tissue_id="t", modality="he", mpp=1.0
    )  # fmt: skip
    dataset = HEImagingDataset("c", path=tmp_path / "c", resolution=ratio)
    layout = CohortLayout.open(tmp_path / "c")
    stored = open_tissue_image(layout, dataset.modality, Resolution.parse(1), "t")
    assert stored.level_count >= 3
    found = dataset.get_tissue("t", preprocess=False).image
    expected = mean_by_hand(np.moveaxis(pixels, -1, 0), ratio)
    off = np.abs(np.asarray(found, float) - expected)[:, :-1, :-1]
    # Of noise, where the mean of 2 x 2 pixels says nothing of its neighbours: 40 from a level of 2 um.
    assert off.max() < (1.6 if ratio < 16 else 8)
