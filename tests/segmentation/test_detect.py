"""Tissue masks of made slides, whose tissue is known, and of real ones, by what is on them."""

import numpy as np
import pytest
from scipy import ndimage

from microtome.errors import InvalidInputError
from microtome.segmentation import detect_tissue

GLASS = (243, 242, 244)
EOSIN = (225, 160, 195)
NUCLEI = (110, 70, 150)


def blob(shape, share, seed=0):
    """An irregular outline that covers a share of the field."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 12)
    return field > np.quantile(field, 1 - share)


def stained(tissue, seed=1, colour=EOSIN):
    """An H&E image of it: eosin with dark nuclei on glass, and the noise of a camera."""
    rng = np.random.default_rng(seed)
    image = np.where(tissue[..., None], colour, GLASS).astype(float)
    image[tissue & (rng.random(tissue.shape) < 0.3)] = NUCLEI
    return (image + 2 * rng.standard_normal(image.shape)).clip(0, 255).astype(np.uint8)


def fluorescent(tissue, channels=4, seed=2):
    """Channels with cells of very different brightness on a dark offset."""
    rng = np.random.default_rng(seed)
    planes = []
    for _ in range(channels):
        cells = np.exp(ndimage.gaussian_filter(rng.standard_normal(tissue.shape), 1) * 3)
        planes.append(100 + tissue * 40 * cells + 3 * rng.standard_normal(tissue.shape))
    return np.array(planes).clip(0).astype(np.uint16)


def wrong(mask, tissue, blurred=2):
    """Share of the pixels that differ, leaving out so many along the outline, which is blurred."""
    rim = ndimage.binary_dilation(tissue, iterations=blurred) & ~ndimage.binary_erosion(
        tissue, iterations=blurred, border_value=1
    )
    return (mask != tissue)[~rim].mean()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
@pytest.mark.parametrize("first", [True, False])
def test_stained_tissue_on_glass(share, first):
    tissue = blob((160, 200), share)
    image = stained(tissue)
    mask = detect_tissue(np.moveaxis(image, -1, 0) if first else image, mpp=8.0)
    assert mask.shape == tissue.shape
    assert mask.dtype == np.bool_
    assert wrong(mask, tissue) < 0.01


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_bright_tissue_on_a_dark_slide(share):
    tissue = blob((160, 200), share)
    mask = detect_tissue(fluorescent(tissue), mpp=(8.0, 8.0))
    assert wrong(mask, tissue) < 0.01


@pytest.mark.parametrize("colour", [GLASS, (255, 255, 255), (236, 240, 222), (0, 0, 0)])
def test_glass_alone_has_no_tissue(colour):
    noise = 2 * np.random.default_rng(0).standard_normal((90, 90, 3))
    image = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
    assert not detect_tissue(image, mpp=8.0).any()
    assert not detect_tissue(np.full((90, 90, 3), colour, np.uint8), mpp=8.0).any()


@pytest.mark.parametrize(
    "field",
    [
        lambda rng: 100 + 5 * rng.standard_normal((3, 90, 90)),
        lambda rng: rng.poisson(0.05, (10, 90, 90)),
        lambda rng: np.zeros((2, 90, 90)),
        lambda rng: np.full((2, 90, 90), 7, np.uint16),
        # Light falls off towards the corners of an empty field.
        lambda rng: (
            1000 - 0.005 * (np.indices((90, 90)) - 45.0)[None, 0] ** 2 + rng.random((1, 90, 90))
        ),
    ],
    ids=["camera", "ions", "zeros", "constant", "vignette"],
)
def test_an_empty_field_has_no_tissue(field):
    image = np.asarray(field(np.random.default_rng(0)))
    assert not detect_tissue(image, mpp=8.0).any()


def test_tissue_alone_is_not_cut_in_two():
    everywhere = np.ones((120, 120), bool)
    assert detect_tissue(stained(everywhere), mpp=8.0).all()
    assert detect_tissue(fluorescent(everywhere), mpp=8.0).all()


def test_dense_and_pale_tissue_without_glass_is_all_tissue():
    """Otsu's threshold by itself lies between the two stains."""
    pale = stained(blob((120, 120), 0.5), colour=(150, 80, 150)).astype(float)
    pale[(pale > 235).all(axis=-1)] = (205, 200, 215)
    assert detect_tissue(pale.astype(np.uint8), mpp=8.0).all()


def test_pale_tissue_counts_where_it_touches_stained_tissue_only():
    image = np.full((120, 120, 3), 243, np.uint8)
    image[20:60, 20:60] = (190, 110, 160)
    image[60:100, 20:60] = (212, 208, 212)  # loose stroma
    image[20:100, 80:110] = (200, 200, 200)  # the shadow of a bubble
    mask = detect_tissue(image, mpp=8.0)
    assert mask[25:95, 25:55].all()
    assert not mask[:, 75:].any()


def test_black_parts_that_were_not_scanned_are_no_tissue():
    image = stained(blob((120, 160), 0.3))
    image[:, 130:] = 0
    mask = detect_tissue(image, mpp=8.0)
    assert mask[:, :125].any()
    assert not mask[:, 133:].any()


def test_size_is_counted_in_micrometres():
    """Pieces and a hole of 90 um and 150 um, at 2 and at 8 um per pixel."""
    for mpp in (2.0, 8.0):
        side = round(2400 / mpp)
        image = np.full((side, side, 3), 243, np.uint8)

        def square(y, x, size, colour, image=image, mpp=mpp):
            corner = [round(v / mpp) for v in (y, x)]
            image[
                corner[0] : corner[0] + round(size / mpp), corner[1] : corner[1] + round(size / mpp)
            ] = colour

        square(300, 300, 1200, (190, 110, 160))
        square(500, 500, 60, 243)
        square(900, 900, 250, 243)
        square(1800, 300, 60, (190, 110, 160))
        square(1800, 1200, 300, (190, 110, 160))

        def at(mask, y, x, mpp=mpp):
            return mask[round(y / mpp), round(x / mpp)]

        mask = detect_tissue(image, mpp=mpp)
        assert at(mask, 530, 530)
        assert not at(mask, 1025, 1025)
        assert not at(mask, 1830, 330)
        assert at(mask, 1950, 1350)
        kept = detect_tissue(image, mpp=mpp, min_object_um2=0, max_hole_um2=0)
        assert at(kept, 1830, 330)
        assert not at(kept, 530, 530)
        strict = detect_tissue(image, mpp=mpp, min_object_um2=250_000, max_hole_um2=250_000)
        assert at(strict, 1025, 1025)
        assert not at(strict, 1950, 1350)


def test_a_region_smaller_than_the_smallest_object_is_not_emptied():
    """A region of 60 x 60 um is less than 10,000 um2 as a whole."""
    tissue = blob((60, 60), 0.5)
    image = np.full((60, 60, 3), 243, np.uint8)
    image[tissue] = (190, 110, 160)
    mask = detect_tissue(image, mpp=1.0)
    assert 0.4 < mask.mean() < 0.8
    assert wrong(mask, tissue, blurred=8) < 0.01


def test_pixels_that_are_not_square():
    tissue = blob((160, 200), 0.3)
    mask = detect_tissue(stained(tissue)[::2], mpp=(16.0, 8.0))
    assert wrong(mask, tissue[::2]) < 0.01


def test_the_kind_can_be_said():
    channels = fluorescent(blob((90, 90), 0.4), channels=3)
    small = (channels / channels.max() * 255).astype(np.uint8)
    mask = detect_tissue(small, mpp=8.0, kind="multiplex")
    assert wrong(mask, blob((90, 90), 0.4)) < 0.01


def test_the_image_is_left_as_it_was():
    for image in (stained(blob((60, 60), 0.5)), fluorescent(blob((60, 60), 0.5)).astype(float)):
        before = image.copy()
        detect_tissue(image, mpp=8.0)
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "method must be one of otsu, whole, got 'magic'"),
        ({"mpp": 0.0}, "mpp must be above 0"),
        ({"mpp": float("nan")}, "mpp must be above 0"),
        ({"mpp": (1.0, 2.0, 3.0)}, r"mpp must be a number or \(y, x\)"),
        ({"min_object_um2": -1.0}, "min_object_um2 must be at least 0"),
        ({"max_hole_um2": float("nan")}, "max_hole_um2 must be at least 0"),
        ({"kind": "he"}, "kind must be one of brightfield, multiplex"),
        ({"image": np.ones((4, 4))}, r"got shape \(4, 4\)"),
        ({"image": np.ones((3, 0, 4))}, r"got shape \(3, 0, 4\)"),
        ({"image": np.ones((3, 4, 4), complex)}, "complex128"),
        ({"image": np.full((2, 4, 4), np.nan)}, "NaN or infinite"),
        ({"image": np.ones((4, 4, 4), np.uint8), "kind": "brightfield"}, "uint8 with 3 colours"),
    ],
)
def test_wrong_requests_are_refused(changes, message):
    arguments = {"image": np.ones((3, 9, 9), np.uint8), "mpp": 8.0} | changes
    with pytest.raises(InvalidInputError, match=message):
        detect_tissue(arguments.pop("image"), **arguments)


def shrink(image, factor):
    height, width = (side // factor for side in image.shape[:2])
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    means = blocks.mean(axis=(1, 3))
    return means if image.dtype.kind == "f" else means.round().astype(image.dtype)


@pytest.mark.parametrize("factor", [4, 16])
def test_a_real_section_that_is_nearly_all_tissue(factor):
    from skimage.data import immunohistochemistry

    image = shrink(immunohistochemistry(), factor)
    assert detect_tissue(image, mpp=0.5 * factor).mean() > 0.95


def test_a_real_slide(shared_data):
    """The section stands in the middle, from top to bottom, between empty glass on both sides."""
    import tifffile

    slide = tifffile.imread(shared_data / "wsi" / "cmu-1-small-region.svs")
    fine, coarse = (detect_tissue(shrink(slide, n), mpp=0.499 * n) for n in (8, 16))
    for mask in (fine, coarse):
        height, width = mask.shape
        assert 0.36 < mask.mean() < 0.46
        assert mask[height // 2, int(0.45 * width)]
        assert mask[int(0.95 * height), int(0.5 * width)]
        assert not mask[int(0.5 * height) :, : int(0.15 * width)].any()
        assert not mask[:, int(0.92 * width) :].any()
    matched = fine[: 2 * coarse.shape[0] : 2, : 2 * coarse.shape[1] : 2]
    assert wrong(matched, coarse) < 0.01


def test_a_real_core_of_fluorescence(shared_data):
    """One round core on the left half of a dark field."""
    import tifffile

    with tifffile.TiffFile(shared_data / "wsi" / "vectra.qptiff") as file:
        image = file.series[0].asarray()
    mask = detect_tissue(np.moveaxis(shrink(np.moveaxis(image, 0, -1), 16), -1, 0), mpp=7.94)
    height, width = mask.shape
    assert 0.42 < mask.mean() < 0.55
    assert mask[height // 2, width // 4]
    assert not mask[:, int(0.75 * width) :].any()


def test_real_tissue_that_fills_its_field(shared_data):
    import tifffile

    image = tifffile.imread(
        shared_data / "mibi" / "fov8_RowNumber0_Depth_Profile0-MassCorrected-Filtered.tiff"
    )
    coarse = np.moveaxis(shrink(np.moveaxis(image, 0, -1).astype(np.float32), 8), -1, 0)
    assert detect_tissue(coarse, mpp=8 * 0.390625).all()


def test_a_few_cells_are_not_cut_from_what_lies_between_them(shared_data):
    """Otsu's threshold took half of some of these fields of 60 um and all of others."""
    import tifffile

    for path in sorted((shared_data / "imc" / "img").glob("*.tiff")):
        image = tifffile.imread(path).astype(np.float32)
        assert detect_tissue(image, mpp=1.0, kind="multiplex").all(), path
    cell = np.zeros((2, 60, 60)) + np.random.default_rng(0).poisson(1, (2, 60, 60))
    cell[:, 20:40, 20:40] += 200
    assert detect_tissue(cell, mpp=1.0, kind="multiplex").all()
    assert detect_tissue(np.tile(cell, (1, 2, 2)), mpp=1.0, kind="multiplex").mean() < 0.5
    assert not detect_tissue(np.zeros((2, 60, 60)), mpp=1.0, kind="multiplex").any()


@pytest.mark.parametrize("shape", [(3, 40, 50), (40, 50, 3)])
def test_the_whole_of_a_region_may_be_tissue(shape):
    image = np.full(shape, 255, np.uint8)
    found = detect_tissue(image, mpp=1.0, method="whole")
    assert found.shape == (40, 50)
    assert found.all()
    empty = np.zeros((7, 40, 50), np.float32)
    assert detect_tissue(empty, mpp=1.0, method="whole").all()
    with pytest.raises(InvalidInputError, match="otsu, whole"):
        detect_tissue(image, mpp=1.0, method="all")
