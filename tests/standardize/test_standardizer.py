"""Specs, and what standardization makes of pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from microtome.errors import InvalidInputError
from microtome.standardize import (
    ChannelStatistics,
    RgbStandardizer,
    StandardizationSpec,
    Standardizer,
    StatisticsTable,
    StatisticsTables,
    build_standardizer,
    fill_outside,
    register_mean_std,
    register_standardizer,
    registered_standardizers,
)

NAMES = ("CD3", "CD8", "DNA1")
CLIP = "quantile_clipping/uq_0.99_image"
LOG = "quantile_clipping_log1p/uq_0.99_image"


def statistics(**changes):
    values = {
        "upper": [80.0, 9.0, 500.0],
        "lower": [2.0, 0.5, 10.0],
        "mean": [0.3, 0.1, 0.7],
        "std": [0.2, 0.05, 0.4],
    }
    return ChannelStatistics(NAMES, **(values | changes))


def formula(image, method, s, use_mean_std):
    """SPORA's formulas in float64, one channel at a time."""
    out = np.empty(image.shape)
    for c in range(3):
        low = 0.0 if s.lower is None else float(s.lower[c])
        x = np.minimum(np.maximum(image[..., c, :, :].astype(float), low), float(s.upper[c]))
        y = np.log1p(x) if "log1p" in method else (x - low) / (float(s.upper[c]) - low + 1e-8)
        if use_mean_std:
            y = (y - float(s.mean[c])) / (float(s.std[c]) + 1e-8)
        out[..., c, :, :] = y
    return out


@pytest.mark.parametrize(
    ("text", "fields", "parts"),
    [
        ("identity", ("identity", None, None, None), ()),
        (
            "quantile_clipping/uq_0.99_image",
            ("quantile_clipping", 0.99, None, "image"),
            ("quantile_clipping", "uq_0.99_image"),
        ),
        (
            "quantile_clipping_log1p/uq_0.999_lq_0.01_global",
            ("quantile_clipping_log1p", 0.999, 0.01, "global"),
            ("quantile_clipping_log1p", "uq_0.999_lq_0.01_global"),
        ),
        (
            "quantile_clipping/uq_1.0_lq_0.0_global",
            ("quantile_clipping", 1.0, 0.0, "global"),
            ("quantile_clipping", "uq_1.0_lq_0.0_global"),
        ),
        (
            "arcsinh/cofactor_5.0",
            ("arcsinh", None, None, None, {"cofactor": 5}),
            ("arcsinh", "cofactor_5.0"),
        ),
        ("arcsinh/cofactor_1e-05", ("arcsinh", None, None, None, {"cofactor": 1e-5}), None),
        ("minmax/image", ("minmax", 1, 0, "image"), ("minmax", "image")),
        ("minmax/global", ("minmax", None, None, "global"), ("minmax", "global")),
        ("zscore", ("zscore",), ("zscore",)),
    ],
)
def test_specs_are_paths(text, fields, parts):
    spec = StandardizationSpec.parse(text)
    assert spec == StandardizationSpec(*fields)
    assert str(spec) == text
    assert spec.parts == (parts if parts is not None else tuple(text.split("/")))
    assert hash(spec) == hash(StandardizationSpec(*fields))
    assert spec.needs_statistics == (text != "identity")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no standardization.*Write 'identity'"),
        ("quantile_clipping", "is no standardization"),
        ("quantile_clipping/uq_0.99", "is no standardization"),
        ("identity/uq_0.99_image", "identity has no quantiles"),
        (
            "zscores/uq_0.99_image",
            "no standardization method 'zscores'; there are arcsinh, identity",
        ),
        ("zscore/uq_0.99_image", "zscore has no quantiles"),
        ("zscore/cofactor_5.0", "zscore has no parameter 'cofactor'; it has none"),
        ("zscore/", "must be written 'zscore'"),
        ("arcsinh", "must be written 'arcsinh/cofactor_5.0'"),
        ("arcsinh/cofactor_5", "must be written 'arcsinh/cofactor_5.0'"),
        ("arcsinh/cofactor_0.0", "cofactor of arcsinh must be above 0"),
        ("arcsinh/cofactor_5.0_image", "arcsinh has no quantiles"),
        ("arcsinh/cofactor_5.0_cofactor_6.0", "must be written 'arcsinh/cofactor_6.0'"),
        ("arcsinh/scale_5.0", "no parameter 'scale'; it has cofactor"),
        ("arcsinh/cofactor_", "must be, for example"),
        ("minmax", "quantile_level must be"),
        ("minmax/uq_0.99_image", "takes the least and the greatest value"),
        ("minmax/uq_1.0_lq_0.0_image", "must be written 'minmax/image'"),
        ("quantile_clipping/image", "0 <= lower < upper <= 1"),
        ("quantile_clipping/uq_0.990_image", "must be written 'quantile_clipping/uq_0.99_image'"),
        ("quantile_clipping/uq_1.1_image", "0 <= lower < upper <= 1"),
        ("quantile_clipping/uq_0.0_image", "0 <= lower < upper <= 1"),
        ("quantile_clipping/uq_0.5_lq_0.5_image", "0 <= lower < upper <= 1"),
        ("quantile_clipping/uq_0.9.9_image", "'0.9.9' is no number"),
        ("../quantile_clipping/uq_0.99_image", "is no standardization"),
    ],
)
def test_wrong_specs_are_refused(text, message):
    with pytest.raises(InvalidInputError, match=message):
        StandardizationSpec.parse(text)


@pytest.mark.parametrize("method", [CLIP, LOG])
@pytest.mark.parametrize("use_mean_std", [True, False])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 3, 5, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.float64])
def test_formulas(method, use_mean_std, lower, shape, dtype):
    image = np.random.default_rng(1).gamma(0.7, 60, shape).astype(dtype)
    before = image.copy()
    s = statistics() if lower else statistics(lower=None)
    standardizer = Standardizer(StandardizationSpec.parse(method), s, use_mean_std)
    result = standardizer(image)
    assert result.dtype == np.float32
    expected = formula(image, method, s, use_mean_std)
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(image, before)


def test_in_place_and_into_a_buffer():
    image = np.random.default_rng(2).random((3, 4, 4), np.float32) * 100
    standardizer = Standardizer(StandardizationSpec.parse(CLIP), statistics())
    expected = standardizer(image)
    buffer = np.full((2, 3, 4, 4), np.nan, np.float32)
    assert standardizer(image, out=buffer[1]) is not None
    np.testing.assert_array_equal(buffer[1], expected)
    assert standardizer(image, out=image) is image
    np.testing.assert_array_equal(image, expected)


def test_identity_only_converts():
    image = np.arange(12, dtype=np.uint16).reshape(3, 2, 2)
    standardizer = build_standardizer("identity", NAMES)
    result = standardizer(image)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, image)
    assert standardizer.keep.tolist() == [True] * 3


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, [True, True, True]),
        ({"upper": [np.nan, 1, 1]}, [False, True, True]),
        ({"upper": [1, np.inf, 1]}, [True, False, True]),
        ({"upper": [1, 0, -1]}, [True, False, False]),
        ({"mean": [np.nan, 0, 0]}, [False, True, True]),
        ({"std": [1, np.inf, 1]}, [True, False, True]),
        ({"std": [0, 1, -1]}, [False, True, False]),
    ],
)
def test_degenerate_channels_are_not_kept(changes, kept):
    spec = StandardizationSpec.parse(CLIP)
    assert Standardizer(spec, statistics(**changes)).keep.tolist() == kept
    assert Standardizer(spec, statistics(**changes), quantile_mask=False).keep.all()
    # Without mean and deviation only the quantiles count.
    plain = Standardizer(spec, statistics(**changes), use_mean_std=False)
    assert plain.keep.tolist() == (kept if "upper" in changes else [True] * 3)


@pytest.mark.parametrize("upper", [np.nan, 0.0, -5.0])
@pytest.mark.parametrize("method", [CLIP, LOG])
def test_degenerate_channels_without_the_mask_raise_no_warning(method, upper):
    s = statistics(upper=[upper, 9, 500], lower=None)
    standardizer = Standardizer(StandardizationSpec.parse(method), s, quantile_mask=False)
    result = standardizer(np.ones((3, 2, 2), np.float32))
    expected = Standardizer(StandardizationSpec.parse(method), statistics(lower=None))(
        np.ones((3, 2, 2), np.float32)
    )
    np.testing.assert_array_equal(result[1:], expected[1:])


def test_kept_channels_are_standardized_alone():
    image = np.random.default_rng(3).random((3, 4, 4), np.float32) * 100
    whole = Standardizer(StandardizationSpec.parse(LOG), statistics(upper=[80, np.nan, 500]))
    part = whole.select(whole.keep)
    assert part.channel_names == ("CD3", "DNA1")
    np.testing.assert_array_equal(part(image[[0, 2]]), whole(image)[[0, 2]])
    assert whole.select([2, 0]).channel_names == ("DNA1", "CD3")


def test_what_lies_outside_the_image_is_zero_after_standardization():
    standardizer = Standardizer(StandardizationSpec.parse(CLIP), statistics())
    image = np.zeros((2, 3, 6, 8), np.float32)
    valid = np.array([[0, 0, 6, 8], [1, 2, 4, 3]])
    expected = standardizer(image)
    assert (expected != 0).all()
    result = standardizer(image, valid=valid)
    inside = np.zeros((6, 8), bool)
    inside[1:5, 2:5] = True
    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_array_equal(result[1], np.where(inside, expected[1], 0))
    np.testing.assert_array_equal(standardizer(image, valid=valid, fill=None), expected)
    single = standardizer(image[1], valid=valid[1], fill=-7)
    np.testing.assert_array_equal(single, np.where(inside, expected[1], -7))


@given(hnp.arrays(np.float32, (5, 6), elements=st.just(1.0)), st.data())
def test_every_pixel_outside_the_window_is_filled(pixels, data):
    row, col = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 6))
    height, width = data.draw(st.integers(0, 5 - row)), data.draw(st.integers(0, 6 - col))
    fill_outside(pixels, (row, col, height, width), 0)
    for y in range(5):
        for x in range(6):
            inside = row <= y < row + height and col <= x < col + width
            assert pixels[y, x] == inside


@pytest.mark.parametrize(
    ("valid", "message"),
    [
        ((0, 0, 6, 5), r"\(0, 0, 6, 5\) reaches out of a tile of 5x6"),
        ((-1, 0, 2, 2), "reaches out"),
        ((0, 4, 2, 3), "reaches out"),
        ((0, 0, 2), r"got shape \(1, 3\)"),
        ((0.0, 0.0, 2.0, 2.0), "float64"),
        (((0, 0, 2, 2), (0, 0, 2, 2)), "of every tile"),
    ],
)
def test_wrong_windows_are_refused(valid, message):
    with pytest.raises(InvalidInputError, match=message):
        fill_outside(np.ones((1, 5, 6)), valid, 0)


def test_a_new_method_is_a_function_and_a_name():
    def halves(values, lower, upper):
        np.clip(values, lower, upper, out=values)
        values /= 2

    register_standardizer("test_halves", halves)
    assert "test_halves" in registered_standardizers()
    spec = StandardizationSpec.parse("test_halves/uq_0.9_global")
    standardizer = Standardizer(spec, statistics(), use_mean_std=False)
    image = np.full((3, 1, 1), 1000, np.float32)
    assert standardizer(image).ravel().tolist() == [40.0, 4.5, 250.0]
    with pytest.raises(InvalidInputError, match="'test_halves' already"):
        register_standardizer("test_halves", halves)
    with pytest.raises(InvalidInputError, match="'identity' already"):
        register_standardizer("identity", halves)
    with pytest.raises(InvalidInputError, match=r"got '\.\./x'"):
        register_standardizer("../x", halves)


def test_a_method_may_have_parameters_beside_quantiles():
    def clipped_power(values, lower, upper, *, exponent, scale):
        np.clip(values, lower, upper, out=values)
        values **= exponent
        values *= scale

    numbers = {"exponent": 2.0, "scale": 1.0}
    register_standardizer("test_power", clipped_power, parameters=numbers, moments="never")
    text = "test_power/exponent_2.0_scale_0.5_uq_0.9_lq_0.1_global"
    spec = StandardizationSpec.parse(text)
    assert str(spec) == text
    assert spec.parameters == (("exponent", 2.0), ("scale", 0.5))
    image = np.full((3, 1, 1), 1000, np.float32)
    assert Standardizer(spec, statistics())(image).ravel().tolist() == [3200.0, 40.5, 125_000.0]
    with pytest.raises(InvalidInputError, match="needs the lower and upper quantiles"):
        spec.transform(image)
    for wrong in ({"needs": "nothin"}, {"moments": "no"}, {"parameters": {"lq": 1.0}}):
        with pytest.raises(InvalidInputError):
            register_standardizer("test_wrong", clipped_power, **wrong)
    assert "test_wrong" not in registered_standardizers()


def test_arcsinh_is_the_inverse_of_sinh_over_the_cofactor():
    image = np.float32([-3.0, 0.0, 2.5, 400.0]).reshape(1, 2, 2).repeat(3, 0)
    made = build_standardizer("arcsinh/cofactor_2.5", NAMES, use_mean_std=False)(image)
    np.testing.assert_allclose(np.sinh(made.astype(float)) * 2.5, image, rtol=1e-6)
    s = statistics(upper=None, lower=None)
    after = Standardizer(StandardizationSpec.parse("arcsinh/cofactor_2.5"), s)(image)
    expected = (np.arcsinh(image / 2.5) - s.mean[:, None, None]) / s.std[:, None, None]
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(InvalidInputError, match="needs statistics"):
        build_standardizer("arcsinh/cofactor_2.5", NAMES)


def test_minmax_maps_the_range_to_0_and_1_and_nothing_follows():
    spec = StandardizationSpec.parse("minmax/image")
    s = statistics(upper=[80.0, -1.0, 3.0], lower=[-20.0, -9.0, 3.0])
    standardizer = Standardizer(spec, s)  # means are there, and not used
    image = np.float32([[-20, 30, 80, 99], [-9, -5, -1, 7], [3, 3, 3, 3]])[:, None]
    expected = [[0, 0.5, 1, 1], [0, 0.5, 1, 1], [0, 0, 0, 0]]
    np.testing.assert_array_equal(standardizer(image)[:, 0], np.float32(expected))
    # A channel of one value has no range; one below zero has.
    assert standardizer.keep.tolist() == [True, True, False]
    with pytest.raises(InvalidInputError, match="needs the upper quantiles"):
        Standardizer(spec, statistics(upper=None))


def test_zscore_is_nothing_but_mean_and_deviation():
    spec = StandardizationSpec.parse("zscore")
    s = statistics(upper=None, lower=None, std=[0.5, 0.0, 2.0])
    standardizer = Standardizer(spec, s)
    image = np.float32([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(standardizer(image).ravel()[[0, 2]], [1.4, 1.15], rtol=1e-6)
    assert standardizer.keep.tolist() == [True, False, True]
    with pytest.raises(InvalidInputError, match="zscore is nothing without means"):
        Standardizer(spec, s, use_mean_std=False)
    with pytest.raises(InvalidInputError, match="no means and standard deviations"):
        Standardizer(spec, statistics(mean=None, std=None))


def test_a_standardizer_is_built_from_tables():
    upper = StatisticsTable(NAMES, [[80, 9, 500]], ("t",))
    means, stds = StatisticsTable(NAMES, [[0.3, 0.1, 0.7]]), StatisticsTable(NAMES, [[1, 2, 3]])
    tables = StatisticsTables(upper, None, means, stds)
    standardizer = build_standardizer(CLIP, ("DNA1", "CD3"), tables=tables, tissue_id="t")
    assert standardizer.channel_names == ("DNA1", "CD3")
    assert standardizer.statistics.upper.tolist() == [500, 80]
    assert standardizer.statistics.std.tolist() == [3, 1]
    with pytest.raises(InvalidInputError, match="needs statistics; compute them"):
        build_standardizer(CLIP, NAMES)
    with pytest.raises(InvalidInputError, match="no means and standard deviations"):
        build_standardizer(CLIP, NAMES, tables=StatisticsTables(upper), tissue_id="t")
    plain = build_standardizer(
        CLIP, NAMES, tables=StatisticsTables(upper), tissue_id="t", use_mean_std=False
    )
    assert plain.statistics.mean is None
    with pytest.raises(InvalidInputError, match="needs the upper quantiles"):
        Standardizer(StandardizationSpec.parse(CLIP), ChannelStatistics(NAMES))


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.ones((2, 4, 4)), {}, "with 3 channels"),
        (np.ones((4, 4)), {}, "with 3 channels"),
        (np.ones((3, 4, 4), complex), {}, "real numbers"),
        (np.ones((3, 4, 4)), {"out": np.ones((3, 4, 4))}, "out must be float32"),
        (np.ones((3, 4, 4)), {"out": np.ones((3, 4, 5), np.float32)}, "out must be float32"),
    ],
)
def test_wrong_images_are_refused(image, options, message):
    standardizer = Standardizer(StandardizationSpec.parse(CLIP), statistics())
    with pytest.raises(InvalidInputError, match=message):
        standardizer(image, **options)
    with pytest.raises(InvalidInputError, match="one number per channel"):
        ChannelStatistics(NAMES, upper=[1.0, 2.0])


PRESETS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "hibou": ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)),
    "identity": ((0, 0, 0), (1, 1, 1)),
    "raw": ((0, 0, 0), (1 / 255, 1 / 255, 1 / 255)),
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_colours_of_both_modes(name, batch):
    image = np.random.default_rng(4).integers(0, 256, (*batch, 3, 5, 7), np.uint8)
    mean, std = PRESETS[name]
    expected = np.stack([(image[..., c, :, :] / 255 - mean[c]) / std[c] for c in range(3)], axis=-3)
    standardizer = RgbStandardizer.preset(name)
    first = standardizer(image)
    assert first.dtype == np.float32
    np.testing.assert_allclose(first, expected, rtol=1e-6, atol=1e-6)
    last = standardizer(np.moveaxis(image, -3, -1), image_mode="HWC")
    np.testing.assert_array_equal(np.moveaxis(last, -1, -3), first)
    floats = image.astype(np.float32)
    assert standardizer(floats, out=floats) is floats
    np.testing.assert_array_equal(floats, first)


def test_raw_colours_are_those_stored_exactly():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    result = RgbStandardizer.preset("raw")(image, image_mode="HWC")
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize("mode", ["CHW", "HWC"])
def test_colours_outside_the_image_are_zero(mode):
    image = np.zeros((2, 3, 4, 5) if mode == "CHW" else (2, 4, 5, 3), np.uint8)
    result = RgbStandardizer.preset("imagenet")(
        image, image_mode=mode, valid=[[0, 0, 4, 5], [1, 0, 3, 2]]
    )
    planes = result if mode == "CHW" else np.moveaxis(result, -1, -3)
    assert (planes[0] != 0).all()
    assert (planes[1, :, 1:, :2] != 0).all()
    assert np.count_nonzero(planes[1]) == 3 * 3 * 2


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.ones((5, 7, 3), np.uint8), {}, "must be CHW with 3 colours"),
        (np.ones((3, 5, 7), np.uint8), {"image_mode": "HWC"}, "must be HWC with 3 colours"),
        (np.ones((3, 5, 7), np.uint8), {"image_mode": "chw"}, "'CHW' or 'HWC'"),
        (np.ones((3, 5, 7), np.uint16), {}, "uint8, or floats"),
        (np.ones((3, 5, 7), np.uint8), {"out": np.ones((3, 5, 7))}, "out must be float32"),
    ],
)
def test_wrong_colour_images_are_refused(image, options, message):
    with pytest.raises(InvalidInputError, match=message):
        RgbStandardizer.preset("hibou")(image, **options)


def test_wrong_presets_are_refused():
    with pytest.raises(
        InvalidInputError, match="one of imagenet, hibou, identity, raw, got 'resnet'"
    ):
        RgbStandardizer.preset("resnet")
    register_mean_std("test_half", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    white = np.full((3, 1, 1), 255, np.uint8)
    assert RgbStandardizer.preset("test_half")(white).ravel().tolist() == [1.0, 1.0, 1.0]
    for name in ("test_half", "imagenet", ""):
        with pytest.raises(InvalidInputError, match="needs a name that is none of imagenet"):
            register_mean_std(name, (0, 0, 0), (1, 1, 1))
    with pytest.raises(InvalidInputError, match="std above 0"):
        register_mean_std("test_nan", (0, 0, 0), (1, np.nan, 1))
    with pytest.raises(InvalidInputError, match="std above 0"):
        RgbStandardizer((0, 0, 0), (1, 0, 1))


@pytest.mark.parametrize(
    "spec",
    [
        "identity",
        "zscore",
        "minmax/image",
        "quantile_clipping/uq_0.99_image",
        "quantile_clipping/uq_0.99_lq_0.01_image",
    ],
)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_what_a_read_does_has_the_same_bytes(spec, dtype):
    rng = np.random.default_rng(0)
    pixels = (rng.normal(40, 60, (4, 5, 9, 11)).clip(0)).astype(dtype)
    numbers = [rng.gamma(2, 20, 5).astype(np.float32) for _ in range(4)]
    parsed = StandardizationSpec.parse(spec)
    statistics = ChannelStatistics(
        tuple("abcde"), upper=numbers[0] + 30, lower=numbers[1] / 9, mean=numbers[2] / 99,
        std=numbers[3] / 50,
    )  # fmt: skip
    for use in {True, spec == "zscore"}:
        standardizer = Standardizer(parsed, statistics, use)
        conversion = standardizer.conversion
        assert conversion is not None
        found = conversion.apply(pixels.astype(np.float32), axis=1)
        np.testing.assert_array_equal(found.view("u4"), standardizer(pixels).view("u4"))


def test_more_than_steps_and_numbers_that_are_none_are_not_for_a_read():
    numbers = np.ones(2, np.float32)
    fine = ChannelStatistics(("a", "b"), upper=numbers, mean=numbers, std=numbers)
    log = StandardizationSpec.parse("quantile_clipping_log1p/uq_0.99_image")
    assert Standardizer(log, fine).conversion is None
    assert (
        Standardizer(
            StandardizationSpec.parse("arcsinh/cofactor_5.0"), fine, use_mean_std=False
        ).conversion
        is None
    )
    lost = ChannelStatistics(("a", "b"), upper=np.array([1, np.nan], np.float32))
    clip = StandardizationSpec.parse("quantile_clipping/uq_0.99_image")
    assert Standardizer(clip, lost, use_mean_std=False).conversion is None
