"""`ingest`: the stored pixels against exact arithmetic, and everything that must be refused."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.cohort import CohortLayout, ingest
from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    NoResolutionError,
    NotFoundError,
    UnknownNameError,
)
from microtome.image import MultiscaleImage
from microtome.sources import open_image

RNG = np.random.default_rng(12)


def exact_mean(
    plane: NDArray[Any], ratio: tuple[Fraction, Fraction], row: int, col: int
) -> Fraction:
    """Mean over the source area that pixel (row, col) of the coarser grid covers, without rounding."""
    spans = []
    for place, step, size in ((row, ratio[0], plane.shape[0]), (col, ratio[1], plane.shape[1])):
        low, high = place * step, min((place + 1) * step, Fraction(size))
        spans.append(
            [
                (i, min(Fraction(i + 1), high) - max(Fraction(i), low))
                for i in range(math.floor(low), math.ceil(high))
            ]
        )
    total = sum(int(plane[i, j]) * wy * wx for i, wy in spans[0] for j, wx in spans[1])
    return total / (sum(w for _, w in spans[0]) * sum(w for _, w in spans[1]))


def assert_resampled(
    stored: NDArray[Any], source: NDArray[Any], own: tuple[str, str], target: str, samples: int = 60
) -> None:
    """Compare random pixels, all corners and edges included, with the exact mean, half up."""
    ratio = (Fraction(target) / Fraction(own[0]), Fraction(target) / Fraction(own[1]))
    height, width = (math.ceil(n / r) for n, r in zip(source.shape[-2:], ratio, strict=True))
    assert stored.shape == (len(source), height, width)
    rng = np.random.default_rng(1)
    places = [(r, c) for r in (0, height // 2, height - 1) for c in (0, width // 2, width - 1)]
    places += list(
        zip(rng.integers(0, height, samples), rng.integers(0, width, samples), strict=True)
    )
    for row, col in places:
        for channel in range(len(source)):
            expected = exact_mean(source[channel], ratio, int(row), int(col))
            found = int(stored[channel, row, col])
            if abs(expected - math.floor(expected) - Fraction(1, 2)) > Fraction(1, 10**7):
                assert found == math.floor(expected + Fraction(1, 2)), (row, col, channel)
            else:
                assert abs(found - expected) <= Fraction(1, 2) + Fraction(1, 10**7)


@pytest.mark.parametrize(
    ("own", "target"),
    [
        (("0.5", "0.5"), "1.0"),
        (("0.5", "0.5"), "0.65"),
        (("0.499", "0.499"), "0.5"),
        (("0.25", "0.3"), "1.0"),
        (("0.32", "0.32"), "2"),
        (("0.1", "0.1"), "0.7"),
    ],
)
def test_coarser_pixels_are_means_of_what_they_cover(
    tmp_path: Path, own: tuple[str, str], target: str
) -> None:
    source = RNG.integers(0, 256, (131, 97, 3), dtype=np.uint8)
    image = ingest(
        source,
        axes="yxc",
        cohort=tmp_path,
        tissue_id="t",
        modality="he",
        mpp=(float(own[0]), float(own[1])),
        resolution=target,
    )
    assert_resampled(image.level(0)[...], np.moveaxis(source, -1, 0), own, target)
    assert (image.require_mpp().y, image.require_mpp().x) == (float(target), float(target))


def test_the_real_slide(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "wsi/cmu-1-small-region.svs"
    image = ingest(path, cohort=tmp_path, tissue_id="t", modality="he", resolution="1.0")
    source = np.moveaxis(tifffile.imread(path), -1, 0)
    assert_resampled(image.level(0)[...], source, ("0.499", "0.499"), "1.0", samples=150)
    assert image.channel_names == ("red", "green", "blue")
    assert image.require_mpp().source == "metadata"


def test_blocks_have_no_seams(tmp_path: Path) -> None:
    # Wider than a block of 2048 stored pixels on both axes.
    source = RNG.integers(0, 256, (2700, 2600, 3), dtype=np.uint8)
    image = ingest(
        source,
        axes="yxc",
        cohort=tmp_path,
        tissue_id="t",
        modality="he",
        mpp=0.8,
        resolution=1.0,
    )
    stored = image.level(0)[...]
    ratio = (Fraction(5, 4), Fraction(5, 4))
    assert stored.shape == (3, 2160, 2080)
    for row in (2046, 2047, 2048, 2049, 2159):
        for col in (0, 2046, 2047, 2048, 2049, 2079):
            expected = exact_mean(source[..., 1], ratio, row, col)
            assert abs(int(stored[1, row, col]) - expected) <= Fraction(1, 2)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 300), width=st.integers(1, 300), channels=st.integers(1, 4))
def test_the_same_resolution_changes_no_pixel(
    tmp_path_factory: Any, height: int, width: int, channels: int
) -> None:
    source = RNG.integers(0, 65536, (channels, height, width)).astype(np.uint16)
    image = ingest(
        source,
        axes="cyx",
        cohort=tmp_path_factory.mktemp("cohort"),
        tissue_id="t",
        modality="imc",
        mpp=1.0,
        channel_names=[f"m{i}" for i in range(channels)],
    )
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.level(0)[...], source)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_counts_are_not_rounded_away(tmp_path: Path, dtype: str) -> None:
    # A marker of few counts: rounded means would be 0 almost everywhere.
    source = RNG.poisson(0.1, (2, 40, 50)).astype(dtype)
    options: dict[str, Any] = {"axes": "cyx", "cohort": tmp_path, "modality": "imc"}
    options["channel_names"] = ["a", "b"]
    same = ingest(source, tissue_id="same", mpp=1.0, **options)
    assert same.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(same.level(0)[...], source)
    half = ingest(source, tissue_id="half", mpp=0.5, **options)
    means = source.astype(np.float64).reshape(2, 20, 2, 25, 2).mean((2, 4))
    assert half.dtype == (
        "float64" if np.dtype(dtype).itemsize > 4 or dtype == "int32" else "float32"
    )
    np.testing.assert_array_equal(half.level(0)[...], means.astype(half.dtype))
    assert half.level(0)[...].mean() == pytest.approx(source.mean())


def test_multiplex_is_resampled_from_its_finest_level(tmp_path: Path) -> None:
    path = tmp_path / "thinned.ome.zarr"
    source = RNG.poisson(0.5, (1, 400, 400)).astype(np.uint16)
    with MultiscaleImage.create(
        path, type="uint16", level_shape=source.shape, mpp=0.25, channel_names=["CD3"]
    ) as image:
        image["level0"][...] = source
        image.build_levels()  # rounds
    made = ingest(path, cohort=tmp_path / "c", tissue_id="t", modality="codex", resolution=1.0)
    means = source.astype(np.float64).reshape(1, 100, 4, 100, 4).mean((2, 4))
    np.testing.assert_array_equal(made.level(0)[...], means.astype(np.float32))


def test_fluorescence_is_no_brightfield_and_colours_are_no_markers(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 255, (3, 40, 50)).astype(np.uint8)
    options: dict[str, Any] = {
        "axes": "cyx",
        "cohort": tmp_path / "c",
        "tissue_id": "t",
        "mpp": 1.0,
    }
    with pytest.raises(InvalidInputError, match="DAPI"):
        ingest(pixels, modality="he", channel_names=["DAPI", "FITC", "Cy3"], **options)
    with pytest.raises(InvalidInputError, match="colour photograph"):
        ingest(pixels, modality="imc", **options)
    assert not (tmp_path / "c").exists()
    ingest(pixels, modality="imc", channel_names=["a", "b", "c"], **options)


def test_finer_pixels_are_interpolated_where_that_is_allowed(tmp_path: Path) -> None:
    source = RNG.random((2, 40, 50)).astype(np.float32)
    options: dict[str, Any] = {"axes": "cyx", "tissue_id": "t", "modality": "imc", "mpp": 2.0}
    options["channel_names"] = ["a", "b"]
    with pytest.raises(InvalidInputError, match=r"2 um/px.*--upsample"):
        ingest(source, cohort=tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()
    image = ingest(source, cohort=tmp_path / "c", upsample=True, **options)
    centres = np.mgrid[:80, :100] / 2 + 0.25 - 0.5
    expected = [
        scipy.ndimage.map_coordinates(plane.astype(np.float64), centres, order=1, mode="nearest")
        for plane in source
    ]
    np.testing.assert_allclose(image.level(0)[...], expected, rtol=1e-6, atol=1e-7)


def test_a_hair_coarser_counts_as_the_same(tmp_path: Path) -> None:
    source = RNG.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    options: dict[str, Any] = {"axes": "yxc", "modality": "he", "resolution": 0.5}
    ingest(source, cohort=tmp_path, tissue_id="t", mpp=0.505, **options)
    with pytest.raises(InvalidInputError, match="--upsample"):
        ingest(source, cohort=tmp_path, tissue_id="u", mpp=(0.5, 0.55), **options)


def test_a_pyramid_is_read_at_its_nearest_finer_level(tmp_path: Path) -> None:
    # Level 1 is no mean of level 0 here, so that it shows which one was read.
    fine = np.zeros((200, 160, 3), np.uint8)
    coarse = RNG.integers(0, 256, (100, 80, 3), dtype=np.uint8)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(fine, subifds=1, photometric="rgb", tile=(64, 64), metadata=None)
        tiff.write(coarse, subfiletype=1, photometric="rgb", tile=(64, 64), metadata=None)
    options: dict[str, Any] = {"tissue_id": "t", "modality": "he", "mpp": 0.5}
    whole = ingest(path, cohort=tmp_path / "one", resolution=1.0, **options)
    np.testing.assert_array_equal(whole.level(0)[...], np.moveaxis(coarse, -1, 0))
    between = ingest(path, cohort=tmp_path / "two", resolution=0.75, **options)
    assert (between.level(0)[...] == 0).all()


# -- where pixels came from


def test_a_tile_is_traced_back_to_the_pixels_of_the_source(tmp_path: Path) -> None:
    # The source is a ramp: the value of a pixel says where it is.
    source = np.broadcast_to(np.arange(3000, dtype=np.float32), (1, 40, 3000)).copy()
    image = ingest(
        source,
        axes="cyx",
        cohort=tmp_path,
        tissue_id="t",
        modality="imc",
        mpp=(0.25, 0.3),
        resolution=1.2,
        channel_names=["ramp"],
    )
    made = MultiscaleImage.open(image.uri).metadata["microtome"]["source"]
    assert made["uri"] == "array"
    sx, sy = made["scale"]
    assert (sx, sy) == pytest.approx((1.2 / 0.3, 1.2 / 0.25))
    for col, width in ((0, 10), (100, 224), (741, 9)):
        tile = image.read(0, (0, 5), (col, col + width))
        low, high = col * sx, (col + width) * sx
        # The mean of a ramp over [low, high) is its middle, less half a pixel for the centres.
        assert tile.mean() == pytest.approx((low + high - 1) / 2, abs=1e-3)


def test_transforms_on_disk_say_the_same(tmp_path: Path) -> None:
    source = RNG.integers(0, 256, (301, 277, 3), dtype=np.uint8)
    image = ingest(
        source,
        axes="yxc",
        cohort=tmp_path,
        tissue_id="t",
        modality="he",
        mpp=0.5,
        resolution=0.65,
    )
    for index in range(image.level_count):
        level = image.level(index)
        assert level.scale[-2:] == pytest.approx((0.65 * 2**index,) * 2)
        assert level.translation[-2:] == pytest.approx((0.65 * (2**index - 1) / 2,) * 2)


# -- again


def one(root: Path, **options: Any) -> MultiscaleImage:
    source = np.random.default_rng(3).integers(0, 256, (90, 80, 3), dtype=np.uint8)
    options = {"tissue_id": "t", "modality": "he", "mpp": 0.5, "resolution": 0.5, **options}
    return ingest(options.pop("source", source), axes="yxc", cohort=root, **options)


def test_the_same_again_changes_nothing(tmp_path: Path, tree: Any) -> None:
    one(tmp_path, patient_id="p")
    before = tree(tmp_path)
    one(tmp_path, patient_id="p")
    one(tmp_path)
    one(tmp_path, overwrite=True)
    assert tree(tmp_path) == before


def test_two_runs_write_the_same_bytes(tmp_path: Path, tree: Any) -> None:
    one(tmp_path / "a" / "cohort")
    one(tmp_path / "b" / "cohort")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"source": np.zeros((90, 80, 3), np.uint8)},
            r"from another source \(its bytes differ: sha256 \w{12} then, \w{12} now\); replace",
        ),
        ({"mpp": 0.4}, r"with other settings \(mpp: \[.*\] then, \[0.4, 0.4\] now\); replace"),
        ({"codec": "small"}, r"made with other settings \(codec: \w+ then, small now\); replace"),
        (
            {"codec": "small", "source": np.zeros((90, 80, 3), np.uint8)},
            r"from another source \(its .*\) and with other settings \(codec: \w+ then, small now\);",
        ),
    ],
    ids=["source", "mpp", "codec", "both"],
)
def test_something_else_under_the_same_name_is_refused(
    tmp_path: Path, tree: Any, change: dict[str, Any], told: str
) -> None:
    one(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(ExistsError, match=f"{told}.*--overwrite"):
        one(tmp_path, **change)
    with pytest.raises(FileExistsError):
        one(tmp_path, **change)
    assert tree(tmp_path) == before
    one(tmp_path, overwrite=True, **change)
    assert tree(tmp_path) != before
    one(tmp_path, overwrite=True)
    assert tree(tmp_path) == before


def test_an_image_of_other_channels_or_of_nobody_says_so(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (6, 50, 40), dtype=np.uint16)
    names = ["DNA", "a", "b", "c", "d", "e"]
    options: dict[str, Any] = {"cohort": tmp_path, "tissue_id": "t", "modality": "imc"}
    source = open_image(pixels, axes="cyx", mpp=1.0, channel_names=names)
    ingest(source, **options)
    fewer = open_image(pixels[:2], axes="cyx", mpp=1.0, channel_names=["DNA", "CD3"])
    told = r"channels: a, b, c and 2 more only then, CD3 only now\)"
    with pytest.raises(ExistsError, match=told):
        ingest(fewer, **options)
    place = tmp_path / "he/1_0mpp/images/t.ome.zarr"
    place.parent.mkdir(parents=True)
    with MultiscaleImage.create(place, type="uint8", level_shape=(3, 9, 9), mpp=1.0) as image:
        image.level(0)[...] = 7
    slide = open_image(pixels[:3].astype(np.uint8), axes="cyx", mpp=1.0)
    with pytest.raises(ExistsError, match=r"does not say what it was made from; replace"):
        ingest(slide, **(options | {"modality": "he"}))


def test_the_same_file_elsewhere_is_the_same_source(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (50, 40, 3), dtype=np.uint8)
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb")
    options: dict[str, Any] = {"cohort": tmp_path / "c", "tissue_id": "t", "modality": "he"}
    ingest(tmp_path / "a.tif", mpp=1.0, **options)
    ingest(tmp_path / "b.tif", mpp=1.0, **options)
    np.testing.assert_array_equal(
        MultiscaleImage.open(tmp_path / "c/he/1_0mpp/images/t.ome.zarr").level(0)[...],
        np.moveaxis(pixels, -1, 0),
    )


def test_an_open_image_is_a_source(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (50, 40, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    opened = open_image(tmp_path / "a.tif", mpp=1.0)
    for source in (opened, open_image(pixels, axes="yxc", mpp=1.0)):
        name = "t" if source is opened else "u"
        image = ingest(source, cohort=tmp_path / "c", tissue_id=name, modality="he")
        np.testing.assert_array_equal(image.level(0)[...], np.moveaxis(pixels, -1, 0))
    # The path and the open image are one source.
    ingest(tmp_path / "a.tif", mpp=1.0, cohort=tmp_path / "c", tissue_id="t", modality="he")


def test_an_image_of_a_cohort_goes_into_another_and_over_itself(tmp_path: Path) -> None:
    first = one(tmp_path / "a")
    second = ingest(first.uri, cohort=tmp_path / "b", tissue_id="x", modality="he", resolution=0.5)
    np.testing.assert_array_equal(second.level(0)[...], first.level(0)[...])
    again = ingest(
        first.uri,
        cohort=tmp_path / "a",
        tissue_id="t",
        modality="he",
        resolution=0.5,
        overwrite=True,
    )
    np.testing.assert_array_equal(again.level(0)[...], second.level(0)[...])


# -- bad input writes nothing


def test_missing_damaged_and_foreign_sources(tmp_path: Path) -> None:
    (tmp_path / "text.svs").write_text("no slide")
    (tmp_path / "folder").mkdir()
    options: dict[str, Any] = {"cohort": tmp_path / "c", "tissue_id": "t", "modality": "he"}
    with pytest.raises(NotFoundError):
        ingest(tmp_path / "missing.svs", **options)
    with pytest.raises(FormatError):
        ingest(tmp_path / "text.svs", **options)
    with pytest.raises(FormatError):
        ingest(tmp_path / "folder", **options)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mpp": None}, NoResolutionError, "--mpp"),
        ({"mpp": -1}, InvalidInputError, "pixel size"),
        ({"modality": "xray"}, UnknownNameError, "xray"),
        ({"tissue_id": "a/b"}, InvalidInputError, "path"),
        ({"resolution": "fine"}, InvalidInputError, "fine"),
        ({"resolution": 0}, InvalidInputError, "0"),
        ({"source": np.zeros((9, 9, 4), np.uint8)}, InvalidInputError, "red, green and blue"),
        ({"source": np.zeros((9, 9, 3), np.uint16)}, InvalidInputError, "8 bits"),
        ({"codec": "zip"}, InvalidInputError, "codec"),
    ],
    ids=["no mpp", "mpp", "modality", "tissue", "text", "zero", "alpha", "deep", "codec"],
)
def test_wrong_arguments(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        one(tmp_path / "c", **change)
    assert not (tmp_path / "c").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=words):
        one(tmp_path / "empty", **change)
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_wrong_ingest_leaves_a_cohort_as_it_is(tmp_path: Path, tree: Any) -> None:
    CohortLayout.open_or_create(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(InvalidInputError):
        one(tmp_path, codec="zip")
    assert {k: v for k, v in tree(tmp_path).items() if v != "directory"} == before


def test_pixels_of_a_type_that_no_image_holds(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="bool"):
        ingest(
            np.zeros((1, 9, 9), bool),
            axes="cyx",
            mpp=1.0,
            cohort=tmp_path / "c",
            tissue_id="t",
            modality="imc",
            channel_names=["a"],
        )
    assert not (tmp_path / "c").exists()


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    one(tmp_path, progress=lambda job, done, total: told.append((job, done, total)))
    jobs = {job for job, _, _ in told}
    assert "ingest" in jobs
    for job in jobs:
        steps = [(done, total) for name, done, total in told if name == job]
        assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
        assert steps[-1][0] == steps[-1][1]
