"""Statistics of all pixels, held to numpy on the whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

import microtome as mt
from microtome.errors import FormatError, InvalidInputError
from microtome.normalization import (
    MeanStdNormalization,
    MinMaxNormalization,
    NoNormalization,
    QuantileNormalization,
    fit_normalization,
)
from microtome.sources import open_stacks

KINDS = ("mean_std", "quantile", "min_max")


def on_the_whole(kind: str, values: np.ndarray[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of (C, N) by numpy."""
    wide = values.astype(np.float64)
    if kind == "mean_std":
        return wide.mean(axis=1), wide.std(axis=1)
    if kind == "min_max":
        return wide.min(axis=1), wide.max(axis=1)
    low, high = np.quantile(wide, [0.01, 0.99], axis=1)
    return low, high


def statistics_of(normalization: Any) -> tuple[list[float], list[float]]:
    first, second = normalization.statistics
    return list(getattr(normalization, first)), list(getattr(normalization, second))


def verify(kind: str, found: Any, values: np.ndarray[Any, Any]) -> None:
    for mine, numpys in zip(statistics_of(found), on_the_whole(kind, values), strict=True):
        if kind == "mean_std":
            np.testing.assert_allclose(mine, numpys, rtol=1e-11, atol=1e-11)
        else:
            np.testing.assert_array_equal(mine, numpys)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_statistics_are_those_of_numpy_on_the_whole(kind: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    images = [rng.gamma(2.0, 30.0, (3, *size)).astype(dtype) for size in ((67, 130), (41, 59))]
    stacks = open_stacks(images, "CYX")
    found = fit_normalization(kind, stacks)  # type: ignore[arg-type]
    whole = np.concatenate([image.reshape(3, -1) for image in images], axis=1)
    verify(kind, found, whole)
    assert found.fitted_on["pixels"] == whole.shape[1]
    pooled = fit_normalization(kind, stacks, per_channel=False)  # type: ignore[arg-type]
    verify(kind, pooled, whole.reshape(1, -1))
    assert pooled.fitted_on["pixels"] == whole.shape[1]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shape_of_chunks_counts_every_pixel_once(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, 70)) for _ in range(2))
    samples, planes = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([0, 1, 4]))
    spatial = (planes, *shape) if planes else shape
    pixels = np.random.default_rng(1).integers(0, 2**16, (samples, 2, *spatial), dtype=np.uint16)
    stack = open_stacks(pixels, "SCZYX" if planes else "SCYX")
    found = fit_normalization("mean_std", stack)
    verify("mean_std", found, np.moveaxis(pixels, 1, 0).reshape(2, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_stored_images_masks_and_levels(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 4000, (3, 300, 520), dtype=np.uint16)
    with mt.MultiscaleImage.create(
        tmp_path / "a.ome.zarr", type="uint16", level_shape=pixels.shape, mpp=0.5
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    mask = np.zeros((300, 520), np.uint8)
    mask[40:170, 33:500] = rng.integers(0, 2, (130, 467))
    with mt.open_image(tmp_path / "a.ome.zarr") as image:
        masks = open_stacks(mask, "YX")
        found = fit_normalization(kind, [image], masks=masks)  # type: ignore[arg-type]
        verify(kind, found, pixels[:, mask != 0])
        assert found.fitted_on["pixels"] == np.count_nonzero(mask)
        assert found.fitted_on["masked"]
        some = fit_normalization(kind, [image], channels=[2, 0], masks=masks)  # type: ignore[arg-type]
        verify(kind, some, pixels[[2, 0]][:, mask != 0])
        coarse = fit_normalization(kind, [image], level=1)  # type: ignore[arg-type]
        verify(kind, coarse, np.asarray(image.level(1)).reshape(3, -1))
        pooled = fit_normalization(kind, [image], masks=masks, per_channel=False)  # type: ignore[arg-type]
        verify(kind, pooled, pixels[:, mask != 0].reshape(1, -1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_an_executor_changes_nothing(kind: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    stacks = open_stacks([rng.gamma(2, 9, (2, 90, 80)).astype(dtype) for _ in range(5)], "CYX")
    with ThreadPoolExecutor(3) as pool:
        told: list[tuple[int, int]] = []
        spread = fit_normalization(
            kind,  # type: ignore[arg-type]
            stacks,
            executor=pool,
            progress=lambda job, done, total: told.append((done, total)),
        )
    assert spread == fit_normalization(kind, stacks)  # type: ignore[arg-type]
    assert told[-1] == (5, 5)


def test_processes_count_the_same(tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).integers(0, 999, (2, 200, 200), dtype=np.uint16)
    with mt.MultiscaleImage.create(
        tmp_path / "a.ome.zarr", type="uint16", level_shape=pixels.shape, mpp=1.0
    ) as image:
        image["level0"][...] = pixels
    with mt.open_image(tmp_path / "a.ome.zarr") as image, mt.process_pool(1) as pool:
        stacks = [image, *open_stacks(pixels, "CYX")]
        assert fit_normalization("quantile", stacks, executor=pool) == fit_normalization(
            "quantile", stacks
        )


def test_one_pass_is_within_its_error() -> None:
    values = np.random.default_rng(5).lognormal(3, 2, (1, 400, 400)).astype(np.float32)
    [stack] = open_stacks(values, "CYX")
    found = fit_normalization("quantile", [stack], exact=False)
    assert isinstance(found, QuantileNormalization)
    assert found.fitted_on["exact"] is False
    for mine, numpys in zip(
        statistics_of(found), on_the_whole("quantile", values.reshape(1, -1)), strict=True
    ):
        np.testing.assert_allclose(mine, numpys, rtol=2**-11)


def test_targets_have_statistics_of_their_own() -> None:
    rng = np.random.default_rng(6)
    images = open_stacks(rng.integers(0, 99, (3, 40, 40), dtype=np.uint8), "CYX")
    targets = open_stacks(rng.normal(5, 2, (1, 40, 40)).astype(np.float32), "CYX")
    found = fit_normalization("mean_std", images, targets=targets)
    assert isinstance(found, MeanStdNormalization)
    assert found.target == fit_normalization("mean_std", targets)
    answer = np.ones((2, 1, 8, 8), np.float32)
    assert found.target is not None
    np.testing.assert_array_equal(found.denormalize(answer), found.target.denormalize(answer))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "zscore"}, "kind must be one of"),
        ({"quantiles": (0.9, 0.1)}, "a lower and an upper one"),
        ({"masks": []}, "a mask each"),
        ({"images": []}, "there are no images"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    images = open_stacks(np.zeros((1, 8, 8), np.uint8), "CYX")
    given = {"kind": "mean_std", "images": images, **arguments}
    with pytest.raises(InvalidInputError, match=message):
        fit_normalization(given.pop("kind"), given.pop("images"), **given)


def test_images_that_differ_or_masks_that_do_not_fit_are_refused() -> None:
    one = open_stacks(np.ones((2, 8, 8), np.uint8), "CYX")
    other = open_stacks(np.ones((3, 8, 8), np.uint8), "CYX")
    with pytest.raises(InvalidInputError, match="image 0 has 2 of uint8, image 1 3 of uint8"):
        fit_normalization("mean_std", one + other)
    with pytest.raises(InvalidInputError, match=r"mask of image 0 has shape \(1, 1, 8, 9\)"):
        fit_normalization("mean_std", one, masks=open_stacks(np.ones((8, 9), np.uint8)))
    with pytest.raises(InvalidInputError, match="masks are empty"):
        fit_normalization("mean_std", one, masks=open_stacks(np.zeros((8, 8), np.uint8)))


@pytest.mark.parametrize("kind", KINDS)
def test_nan_is_refused_with_its_image(kind: str) -> None:
    pixels = np.zeros((1, 8, 8), np.float32)
    pixels[0, 2, 3] = np.nan
    with pytest.raises(FormatError, match="image 0, sample 0: channel 0 is nan"):
        fit_normalization(kind, open_stacks(pixels, "CYX"))  # type: ignore[arg-type]


def test_a_channel_of_one_value_becomes_zero() -> None:
    stacks = open_stacks(np.full((1, 8, 8), 40001, np.uint16), "CYX")
    for kind in KINDS:
        found = fit_normalization(kind, stacks)  # type: ignore[arg-type]
        batch = np.full((1, 1, 4, 4), 40001, np.uint16)
        np.testing.assert_array_equal(found.normalize(batch), 0)


def test_none_is_fitted_on_nothing() -> None:
    stacks = open_stacks(np.full((1, 8, 8), 7, np.uint16), "CYX")
    assert fit_normalization("none", stacks) == NoNormalization()
    assert isinstance(fit_normalization("min_max", stacks), MinMaxNormalization)


def test_one_image_an_array_and_paths_are_opened(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 900, (2, 40, 30)).astype(np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "CYX"})
    [stack] = open_stacks(pixels, "CYX")
    wanted = fit_normalization("min_max", [stack])
    inside = pixels[0] > 300
    for source in (stack, str(path), [path]):
        assert fit_normalization("min_max", source) == wanted
        masked: Any = fit_normalization("min_max", source, targets=source, masks=inside)
        assert masked.minima == masked.target.minima == tuple(pixels[:, inside].min(axis=1))


@pytest.mark.parametrize("kind", ["mean_std", "quantile", "min_max"])
def test_a_nan_is_told_by_its_row_and_column_where_it_counts(kind: Any) -> None:
    pixels = np.ones((2, 3, 60, 70), np.float32)
    pixels[1, 2, 33, 44] = np.nan
    pixels[0, 0, 0, 0] = np.nan
    [stack] = open_stacks(pixels, "CZYX")
    mask = np.ones((3, 60, 70), np.bool_)
    mask[0, 0, 0] = False
    [inside] = open_stacks(mask, "ZYX")
    wanted = "channel 1 is nan at plane 2, row 33, column 44 of level 0; 1 such"
    with pytest.raises(FormatError, match=wanted):
        fit_normalization(kind, stack, masks=inside)
