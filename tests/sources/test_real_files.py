"""Real acquisitions, read in place, hold what tifffile decodes and state what their makers wrote."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.errors import FormatError, NoResolutionError
from microtome.regions import Windows, read_regions
from microtome.sources import open_image

IMC = [
    f"20210305_NE_mockData{slide}_00{region}.tiff" for slide in (1, 2, 3) for region in (1, 2, 3)
]


def channel_first(pixels: Any, *, photograph: bool) -> Any:
    return np.moveaxis(pixels, -1, 0) if photograph else pixels


@pytest.mark.parametrize(
    ("name", "photograph"),
    [
        ("wsi/cmu-1-small-region.svs", True),
        ("wsi/vectra.qptiff", False),
        ("mibi/fov8_RowNumber0_Depth_Profile0-MassCorrected-Filtered.tiff", False),
        ("mibi/fov8_whole_cell_mask.tiff", False),
        *[(f"imc/{folder}/{name}", False) for folder in ("img", "masks") for name in IMC],
    ],
)
def test_pixels_are_those_that_tifffile_decodes(
    shared_data: Path, pixels_equal: Any, name: str, photograph: bool
) -> None:
    with tifffile.TiffFile(shared_data / name) as tiff:
        expected = channel_first(tiff.series[0].asarray(), photograph=photograph)
    image = open_image(shared_data / name)
    assert image.mode == "r"
    pixels_equal(image, expected)


def test_aperio_states_its_pixel_size_in_its_description(shared_data: Path) -> None:
    image = open_image(shared_data / "wsi/cmu-1-small-region.svs")
    assert image.mpp is not None
    assert (image.mpp.y, image.mpp.x, image.mpp.source) == (0.499, 0.499, "metadata")
    assert image.channel_names == ("red", "green", "blue")
    assert image.metadata["associated_images"] == ["Thumbnail", "Label", "Macro"]
    assert image.metadata["description"].startswith("Aperio")


def test_vectra_pixel_size_is_the_tag_and_not_the_objective(shared_data: Path) -> None:
    # The objective says 10x, which would be 1 um; the resolution tags say 0.4965 um.
    path = shared_data / "wsi/vectra.qptiff"
    with tifffile.TiffFile(path) as tiff:
        numerator, denominator = tiff.pages.first.tags["XResolution"].value
        assert "<Objective>10x" in tiff.pages.first.description
    image = open_image(path)
    assert image.mpp is not None
    assert image.mpp.source == "tag"
    assert image.mpp.x == pytest.approx(1e4 * denominator / numerator)
    assert image.mpp.x == pytest.approx(0.4965, abs=1e-4)
    assert image.channel_names == ("DAPI", "FITC", "Cy3")


def test_mibi_channels_are_named_page_by_page(shared_data: Path) -> None:
    path = shared_data / "mibi/fov8_RowNumber0_Depth_Profile0-MassCorrected-Filtered.tiff"
    with tifffile.TiffFile(path) as tiff:
        expected = [page.aspage().tags["PageName"].value for page in tiff.pages]
    image = open_image(path)
    assert list(image.channel_names or ()) == expected
    assert image.channel_names is not None
    assert len(set(image.channel_names)) == 22
    assert image.mpp is not None
    assert (image.mpp.y, image.mpp.x, image.mpp.source) == (0.390625, 0.390625, "tag")


def test_imc_tiff_states_nothing_and_nothing_is_made_up(shared_data: Path) -> None:
    image = open_image(shared_data / "imc/img" / IMC[0])
    assert image.mpp is None
    assert image.channel_names == tuple(f"channel {i}" for i in range(5))
    with pytest.raises(NoResolutionError, match="--mpp"):
        image.require_mpp()
    assert open_image(shared_data / "imc/img" / IMC[0], mpp=1.0).require_mpp().source == "user"


def test_the_broken_slide_is_refused(shared_data: Path) -> None:
    with pytest.raises(FormatError, match=r"broken\.svs"):
        open_image(shared_data / "wsi/broken.svs")


def test_lung_panel_is_a_png_without_resolution(shared_data: Path, pixels_equal: Any) -> None:
    from skimage.io import imread

    path = shared_data / "ihc_mif/Lung1.png"
    expected = np.moveaxis(imread(path)[..., :3], -1, 0)
    image = open_image(path)
    pixels_equal(image, expected)
    assert image.mpp is None


def test_threads_read_what_one_thread_reads(shared_data: Path) -> None:
    path = shared_data / "wsi/cmu-1-small-region.svs"
    expected = np.moveaxis(tifffile.imread(path), -1, 0)
    image = open_image(path)
    rng = np.random.default_rng(7)
    corners = np.stack([rng.integers(0, 2967 - 300, 160), rng.integers(0, 2220 - 300, 160)], axis=1)

    def matches(corner: Any) -> bool:
        y, x = (int(v) for v in corner)
        # Large ones go through the pool inside as well, small ones do not.
        side = 40 if (x + y) % 2 else 300
        found = image.read(0, (y, y + side), (x, x + side))
        return bool((found == expected[:, y : y + side, x : x + side]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(matches, corners))


def test_regions_of_a_slide_read_in_place_hang_over_its_edge(shared_data: Path) -> None:
    path = shared_data / "wsi/cmu-1-small-region.svs"
    expected = np.moveaxis(tifffile.imread(path), -1, 0)
    image = open_image(path)
    batch = read_regions(
        [image], Windows.of([0, 0], [[-10, -20], [2900, 2200]], 100), padding=7, channels=[2, 0]
    )
    first = np.full((2, 100, 100), 7, np.uint8)
    first[:, 10:, 20:] = expected[[2, 0], :90, :80]
    second = np.full((2, 100, 100), 7, np.uint8)
    second[:, :67, :20] = expected[[2, 0], 2900:, 2200:]
    np.testing.assert_array_equal(batch, np.stack([first, second]))
