"""`TestTimeAugmentation`: exact for equivariant models, symmetric for all others."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from microtome.errors import InvalidInputError
from microtome.prediction import TestTimeAugmentation, predict
from microtome.sources import open_image


@pytest.mark.parametrize(("states", "shape"), [(8, (2, 3, 6, 6)), (4, (2, 3, 5, 8))])
def test_an_equivariant_model_is_unchanged_and_any_other_becomes_symmetric(states, shape):
    batch = np.random.default_rng(0).random(shape, np.float32)
    assert np.array_equal(TestTimeAugmentation(lambda b: b, states)(batch), batch)
    slope = np.arange(shape[-1], dtype=np.float32)
    model = TestTimeAugmentation(lambda b: b * slope, states)
    assert np.allclose(model(batch[..., ::-1]), model(batch)[..., ::-1])
    assert np.allclose(model(batch[..., ::-1, :]), model(batch)[..., ::-1, :])


@pytest.mark.parametrize(("states", "turns"), [(8, (0, 1, 2, 3)), (4, (0, 2))])
def test_in_predict_a_torch_convolution_is_one_with_the_mean_of_its_turned_kernels(
    states, turns, tmp_path
):
    torch = pytest.importorskip("torch")
    pixels = np.random.default_rng(1).integers(0, 255, (1, 61, 70), np.uint8)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, padding=1, bias=False), torch.nn.Dropout())
    net.channel_names = ["edge"]
    kernel = net[0].weight.detach().numpy()[0, 0].astype(np.float64)
    symmetric = np.mean(
        [t for k in turns for t in (np.rot90(kernel, k), np.rot90(kernel, k)[:, ::-1])], axis=0
    )
    made = predict(
        TestTimeAugmentation(net, states),
        open_image(pixels, axes="cyx", mpp=0.5),
        tmp_path / "p",
        tile_size=24 if states == 8 else (20, 32),
        overlap=4,
        batch_size=3,
    )
    whole = scipy.ndimage.correlate(pixels[0].astype(np.float64), symmetric, mode="constant")
    np.testing.assert_allclose(made["level0"][...][0], whole, atol=1e-3)
    assert made.dtype == np.float32
    assert list(made.channel_names) == ["edge"]
    assert made.metadata["microtome"]["prediction"]["model"] == (
        f"TestTimeAugmentation(torch.nn.modules.container.Sequential, states={states})"
    )
    assert net.training  # as it was: dropout was off only while it ran


def test_the_answer_has_the_models_dtype_and_may_be_of_another_size():
    model = TestTimeAugmentation(lambda b: b[..., ::2, ::2].astype(np.float16) * 0 + 3)
    made = model(np.zeros((2, 1, 8, 8), np.uint8))
    assert made.dtype == np.float16
    assert np.array_equal(made, np.full((2, 1, 4, 4), 3, np.float16))


def test_what_cannot_be_is_refused():
    with pytest.raises(InvalidInputError, match="4 or 8"):
        TestTimeAugmentation(abs, 3)
    with pytest.raises(InvalidInputError, match="a callable"):
        TestTimeAugmentation("unet")
    with pytest.raises(InvalidInputError, match="square"):
        TestTimeAugmentation(abs)(np.zeros((1, 1, 4, 5), np.float32))
    with pytest.raises(InvalidInputError, match="labels"):
        TestTimeAugmentation(abs)(np.zeros((1, 1, 4, 4), np.uint8))
    with pytest.raises(InvalidInputError, match="flat tiles"):
        TestTimeAugmentation(abs)(np.zeros((1, 1, 2, 4, 4), np.float32))
    with pytest.raises(InvalidInputError, match=r"\(B, C, Y, X\)"):
        TestTimeAugmentation(lambda b: b.mean((2, 3)))(np.zeros((1, 1, 4, 4), np.float32))
    with pytest.raises(InvalidInputError, match="turned"):
        TestTimeAugmentation(lambda b: b[..., :2])(np.zeros((1, 1, 4, 4), np.float32))
