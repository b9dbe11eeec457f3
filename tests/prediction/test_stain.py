"""`StainDensityModel`: the stains of skimage, nuclei where nuclei are, tiles as the whole image."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.color
import skimage.data
from scipy import ndimage

from microtome.errors import InvalidInputError
from microtome.prediction import StainDensityModel, load_model, predict
from microtome.sources import open_image

torch = pytest.importorskip("torch")


def batch_of(picture):
    """(Y, X, 3) to (1, 3, Y, X)."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)[None]))


@pytest.fixture(scope="module")
def ihc():
    return skimage.data.immunohistochemistry()


def test_stains_are_those_of_skimage(ihc):
    picture = np.maximum(ihc, 1)  # skimage takes 0 for a millionth, we for one grey level
    ours, inside = StainDensityModel().stains(batch_of(picture))
    # skimage takes logarithms to the base of a millionth, six decades; we take decades.
    theirs = 6 * skimage.color.rgb2hed(picture)
    np.testing.assert_allclose(ours[0].numpy(), theirs.transpose(2, 0, 1), atol=2e-5)
    assert bool((inside == 1).all())
    maps = StainDensityModel()(batch_of(picture))
    np.testing.assert_allclose(maps[0, :2].numpy(), theirs.transpose(2, 0, 1)[:2], atol=2e-5)


def test_the_type_of_the_pixels_does_not_matter(ihc):
    model = StainDensityModel()
    whole = model(batch_of(ihc[:64, :64]))
    assert whole.dtype == torch.float32
    assert torch.equal(whole, model(batch_of(ihc[:64, :64].astype(np.float32))))
    assert torch.equal(whole, model(batch_of(ihc[:64, :64].astype(np.int32))))


def test_white_has_no_stain_and_black_is_outside():
    model = StainDensityModel()
    for value in (0, 255):
        picture = torch.full((1, 3, 40, 40), value, dtype=torch.uint8)
        assert float(model(picture).abs().max()) == 0
    assert model.embed(torch.zeros(2, 3, 16, 16)).tolist() == [[0.0] * 22] * 2


def nuclei_picture(size=200, radius=8):
    """White glass with five disks of pure hematoxylin, and where they are."""
    y, x = np.mgrid[:size, :size]
    disks = np.zeros((size, size), bool)
    for row, col in ((50, 50), (50, 80), (75, 60), (150, 150), (197, 100)):
        disks |= (y - row) ** 2 + (x - col) ** 2 <= radius**2
    density = np.where(disks[..., None], 0.9 * np.array([0.65, 0.70, 0.29]), 0)
    return np.rint(255 * 10.0**-density).astype(np.uint8), disks


def test_density_is_the_share_of_the_window_that_nuclei_fill():
    picture, disks = nuclei_picture()
    density = StainDensityModel()(batch_of(picture))[0, 2].numpy()
    # Independently: the hard mask, smoothed by scipy and normalized for the border of the image.
    expected = ndimage.gaussian_filter(disks.astype(float), 5, mode="constant", truncate=3)
    expected /= ndimage.gaussian_filter(np.ones(disks.shape), 5, mode="constant", truncate=3)
    # Smoothing moves the rim of a disk by less than a pixel.
    np.testing.assert_allclose(density, expected, atol=0.12)
    assert density[60, 62] > 3 * density[100, 100]
    assert density.min() >= 0
    assert density.max() <= 1


def test_margin_is_how_far_a_pixel_looks(ihc):
    model = StainDensityModel()
    assert model.margin == 30
    assert model.margin <= 64 // 2
    picture = ihc[:101, :101].copy()
    before = model(batch_of(picture))
    picture[50, 50] = (60, 40, 120)
    changed = (model(batch_of(picture)) != before)[0].any(0).numpy()
    rows, columns = np.nonzero(changed)
    reach = max(np.abs(rows - 50).max(), np.abs(columns - 50).max())
    assert 20 <= reach <= model.margin
    assert StainDensityModel(window=2.0, surround=0.1).margin == 6 + 3


def test_tiles_give_what_the_whole_image_gives(ihc, tmp_path):
    picture = ihc[:331, :450]
    model = load_model("demo")
    image = open_image(picture, axes="yxc", mpp=1.0)
    made = predict(model, image, tmp_path / "p", tile_size=128, overlap=2 * model.margin)
    assert made.channel_names == ("hematoxylin", "eosin", "nuclear_density")
    whole = model(batch_of(picture))[0].detach().numpy()
    np.testing.assert_allclose(made["level0"][...], whole, atol=1e-5)
    # An image smaller than its only tile: what it is padded with is no tissue.
    small = open_image(picture[:90, :70], axes="yxc", mpp=1.0)
    made = predict(model, small, tmp_path / "q", tile_size=128, overlap=64)
    whole = model(batch_of(picture[:90, :70]))[0].detach().numpy()
    np.testing.assert_allclose(made["level0"][...], whole, atol=1e-5)


def test_an_embedding_is_what_numpy_says_of_the_stains(ihc):
    model = StainDensityModel()
    pictures = torch.cat([batch_of(ihc[:100, :81]), batch_of(ihc[200:300, 300:381])])
    vectors = model.embed(pictures)
    assert vectors.shape == (2, len(model.feature_names))
    assert len(set(model.feature_names)) == 22
    stains = model.stains(pictures)[0].numpy().astype(np.float64)
    for row, vector in enumerate(vectors.numpy()):
        values = dict(zip(model.feature_names, vector, strict=True))
        for name, plane in zip(("hematoxylin", "eosin", "dab"), stains[row], strict=True):
            assert values[f"{name}_mean"] == pytest.approx(plane.mean(), rel=1e-4, abs=1e-6)
            assert values[f"{name}_std"] == pytest.approx(plane.std(), rel=1e-4, abs=1e-6)
            for share in (5, 25, 50, 75, 95):
                nearest = np.quantile(plane, share / 100, method="closest_observation")
                around = np.quantile(plane, [share / 100 - 1e-3, share / 100 + 1e-3])
                value = values[f"{name}_q{share:02d}"]
                assert around[0] - 1e-6 <= value <= around[1] + 1e-6, (name, share, nearest)
    assert not torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors, StainDensityModel().embed(pictures))


def test_black_pixels_do_not_count_in_an_embedding(ihc):
    model = StainDensityModel()
    alone = batch_of(np.maximum(ihc[:60, :60], 1))
    padded = torch.zeros(1, 3, 90, 100, dtype=torch.uint8)
    padded[:, :, :60, :60] = alone
    torch.testing.assert_close(model.embed(padded), model.embed(alone), rtol=1e-4, atol=1e-5)


def test_the_nuclear_fraction_counts_nuclei():
    picture, disks = nuclei_picture()
    values = dict(
        zip(
            StainDensityModel.feature_names,
            StainDensityModel().embed(batch_of(picture))[0].tolist(),
            strict=True,
        )
    )
    assert values["nuclear_fraction"] == pytest.approx(disks.mean(), rel=0.25)


def test_what_is_not_rgb_is_refused():
    model = StainDensityModel()
    for shape in ((1, 4, 8, 8), (3, 8, 8)):
        with pytest.raises(InvalidInputError, match="RGB"):
            model(torch.zeros(shape))
    for options in (
        {"softness": 0},
        {"window": -1.0},
        {"surround": 0.0},
        {"threshold": float("nan")},
    ):
        with pytest.raises(InvalidInputError, match="must be positive"):
            StainDensityModel(**options)


def test_real_nuclei_are_found(shared_data):
    """DeepLIIF's panels: IHC, hematoxylin, DAPI, Lap2, marker, segmentation, side by side."""
    import skimage.io

    panels = skimage.io.imread(shared_data / "ihc_mif" / "Lung1.png")[..., :3]
    picture, dapi = panels[:, :512], panels[:, 1024:1536].astype(float).sum(-1)
    density = StainDensityModel()(batch_of(picture))[0, 2].numpy()
    smooth = ndimage.gaussian_filter(dapi, 8)
    # DAPI is another dye, imaged another way: where it says there are nuclei, so should we.
    assert np.corrcoef(density.ravel(), smooth.ravel())[0, 1] > 0.7
