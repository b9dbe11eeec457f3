"""Filters against numpy, SciPy and scikit-image, cell by cell, on made-up and on real images."""

from __future__ import annotations

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from skimage.measure import shannon_entropy

from microtome.errors import InvalidInputError, NoResolutionError, OutOfRangeError, UnknownNameError
from microtome.image import ArrayStack, MemoryArray, MultiscaleImage
from microtome.jobs import process_pool
from microtome.patching import (
    FilterMap,
    FixedPatching,
    MaskFilter,
    MaxFilter,
    MeanStdFilter,
    PatchFilter,
    RandomPatching,
    SequentialPatching,
    ShannonFilter,
    StratifiedPatching,
    TiledPatching,
    TissueFilter,
    filter_map,
    plot_filter_map,
)
from microtome.regions import Windows, data_shape_of
from microtome.segmentation import detect_tissue
from microtome.sources import open_image
from microtome.storage import Layout


def stack(pixels: np.ndarray, axes: str) -> ArrayStack:
    return ArrayStack(MemoryArray(pixels), axes)


def tissue_like(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Counts that lie in patches, with empty ground between them."""
    generator = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(generator.normal(size=shape), [0] + [9] * (len(shape) - 1))
    return generator.poisson(np.clip(smooth / smooth.std() * 20, 0, None)).astype(np.uint16)


def stored(path: Path, pixels: np.ndarray, **options) -> MultiscaleImage:
    with MultiscaleImage.create(
        path,
        type=pixels.dtype,
        level_shape=pixels.shape,
        layout=Layout((1, 32, 32), (1, 64, 64)),
        **options,
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    return MultiscaleImage.open(path)


def by_hand(
    found: FilterMap, pixels: dict[tuple[int, int], np.ndarray], patch_filter: PatchFilter
) -> np.ndarray:
    """The statistics of every place by other people's code; pixels are those of the level that
    patches are counted in."""
    rows = []
    for image, sample, start, stop in zip(
        found.image.tolist(), found.sample.tolist(), found.start, found.stop, strict=True
    ):
        whole = pixels[image, sample]
        box = whole[tuple(slice(max(a, 0), b) for a, b in zip(start, stop, strict=True))]
        match patch_filter:
            case MeanStdFilter():
                rows.append([box.mean(dtype=np.float64), np.std(box.astype(np.float64))])
            case ShannonFilter():
                rows.append([shannon_entropy(box)])
            case MaxFilter(threshold=threshold):
                size = [side // 2 if side > 1 else 1 for side in box.shape]
                near = ndimage.maximum_filter(box, size, mode="constant")
                rows.append([(near > threshold).sum() / near.size, box.max()])
            case _:
                rows.append([np.count_nonzero(box) / box.size])
    return np.asarray(rows)


FILTERS = [
    MeanStdFilter(8.0, 6.0),
    ShannonFilter(2.5),
    MaxFilter(40.0),
    MaxFilter(30.0, 0.9),
]
WHERE = ["stratified", "grid", "tiles", "windows"]


def patching_of(kind: str, shapes: list[tuple[int, ...]], size: tuple[int, ...]):
    match kind:
        case "stratified":
            return StratifiedPatching(shapes, size)
        case "grid":
            return SequentialPatching(shapes, size, [side // 3 for side in size], pad=True)
        case "tiles":
            return TiledPatching(shapes, size, 3)
    starts = np.random.default_rng(3).integers(-5, 60, (30, len(size)))
    return FixedPatching(Windows.of(0, starts, size))


@pytest.mark.parametrize("kind", WHERE)
@pytest.mark.parametrize("patch_filter", FILTERS, ids=["mean-std", "shannon", "max", "max-covered"])
def test_statistics_are_those_of_each_place(patch_filter: PatchFilter, kind: str) -> None:
    first, second = tissue_like((2, 110, 97)), tissue_like((3, 64, 130), 1)
    images = [stack(first, "SYX"), stack(second, "CYX")]
    shapes = [data_shape_of(image) for image in images]
    found = filter_map(images, patching_of(kind, shapes, (24, 20)), patch_filter)
    pixels = {(0, 0): first[0], (0, 1): first[1], (1, 0): second[0]}
    expected = by_hand(found, pixels, patch_filter)
    np.testing.assert_allclose(found.values, expected, rtol=1e-12, atol=1e-12)
    match patch_filter:
        case MeanStdFilter():
            kept = (expected[:, 0] >= 8) & (expected[:, 1] >= 6)
        case ShannonFilter():
            kept = expected[:, 0] >= 2.5
        case MaxFilter(coverage=coverage):
            kept = expected[:, 0] >= (coverage or 0.25)
    assert np.array_equal(found.kept, kept)
    assert 0 < kept.sum() < len(kept)
    assert set(found.levels.values()) == {0}


@pytest.mark.parametrize("patch_filter", FILTERS[:3], ids=["mean-std", "shannon", "max"])
def test_statistics_of_volumes(patch_filter: PatchFilter) -> None:
    volume = tissue_like((1, 18, 60, 50), 2)
    image = stack(volume[0], "ZYX")
    found = filter_map(image, StratifiedPatching([data_shape_of(image)], (6, 16, 12)), patch_filter)
    expected = by_hand(found, {(0, 0): volume[0]}, patch_filter)
    np.testing.assert_allclose(found.values, expected, rtol=1e-12, atol=1e-12)
    if isinstance(patch_filter, MaxFilter):
        assert np.array_equal(found.kept, expected[:, 0] >= 0.125)
    assert found.grid().shape == found.grids[0]


def test_a_mask_and_its_coverage() -> None:
    mask = tissue_like((1, 120, 90), 4)[0] > 12
    image = stack(np.zeros((120, 90), np.uint8), "YX")
    patching = StratifiedPatching([data_shape_of(image)], (16, 16))
    found = filter_map(image, patching, MaskFilter(mask))
    expected = by_hand(found, {(0, 0): mask}, MaskFilter(mask))
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    assert np.array_equal(found.kept, expected[:, 0] >= 0.25)
    assert 0 < found.kept.sum() < len(found)
    strict = filter_map(image, patching, MaskFilter(mask, 0.9))
    assert np.array_equal(strict.kept, expected[:, 0] >= 0.9)


@pytest.mark.parametrize("factor", [2, 5, 16])
def test_the_share_of_a_coarse_mask_is_its_area(factor: int) -> None:
    coarse = np.random.default_rng(1).random((13, 11)) < 0.5
    # The last pixels of the mask stand for less, as those of a halved level do.
    size = (13 * factor - factor // 3, 11 * factor - factor // 2)
    fine = np.kron(coarse, np.ones((factor, factor), np.bool_))[: size[0], : size[1]]
    image = stack(np.zeros(size, np.uint8), "YX")
    for patching in (
        StratifiedPatching([data_shape_of(image)], (7, 9)),
        TiledPatching([data_shape_of(image)], (9, 7), 2),
    ):
        found = filter_map(image, patching, TissueFilter(coarse))
        np.testing.assert_allclose(
            found.values, by_hand(found, {(0, 0): fine}, TissueFilter(fine)), atol=1e-9
        )
        assert np.array_equal(found.kept, found.values[:, 0] >= 0.5)


def test_a_flat_mask_is_that_of_every_plane() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[:, :20] = True
    image = stack(np.zeros((9, 40, 40), np.uint8), "ZYX")
    patching = SequentialPatching([data_shape_of(image)], (3, 10, 10))
    found = filter_map(image, patching, TissueFilter(mask))
    assert found.grid().shape == (3, 4, 4)
    assert np.array_equal(found.grid() == 1, np.broadcast_to([1, 1, 0, 0], (3, 4, 4)))


@pytest.mark.parametrize("patch_filter", FILTERS[:3], ids=["mean-std", "shannon", "max"])
def test_a_coarse_level_is_looked_at(tmp_path: Path, patch_filter: PatchFilter) -> None:
    pixels = tissue_like((2, 256, 320), 5)
    image = stored(tmp_path / "a", pixels, mpp=0.5)
    patching = SequentialPatching([data_shape_of(image)], (64, 64))
    found = filter_map([image], patching, patch_filter)
    assert found.levels == {0: 2}  # 64 px are 16 there, and 8 on the next one
    coarse = image.level(2)[0]
    view = FilterMap(
        **{
            name: getattr(found, name)
            for name in ("patching", "patch_filter", "image", "sample", "values", "kept", "levels")
        },
        start=found.start // 4,
        stop=found.stop // 4,
        grids=None,
    )
    expected = by_hand(view, {(0, 0): coarse}, patch_filter)
    np.testing.assert_allclose(found.values, expected, rtol=1e-12, atol=1e-12)
    assert filter_map(image, patching, patch_filter, level=0).levels == {0: 0}
    assert filter_map(image, patching, patch_filter, mpp=1.2).levels == {0: 1}
    assert filter_map(image, patching, patch_filter, mpp=0.1).levels == {0: 0}
    with pytest.raises(OutOfRangeError, match="no level 7"):
        filter_map(image, patching, patch_filter, level=7)
    with pytest.raises(InvalidInputError, match="level= or mpp="):
        filter_map(image, patching, patch_filter, level=1, mpp=1.0)


def test_patches_of_a_coarse_level_are_looked_at_on_it_or_on_coarser_ones(tmp_path: Path) -> None:
    image = stored(tmp_path / "a", tissue_like((1, 256, 320), 5), mpp=0.5)
    starts = np.random.default_rng(0).integers(0, 96, (40, 2))
    asked = MeanStdFilter(8.0)
    fine = FixedPatching(Windows.of(0, starts, (20, 24), 1))
    found = filter_map(image, fine, asked)
    assert found.levels == {0: 1}  # 20 px would be 10 on the next one
    pixels = {(0, 0): image.level(1)[0]}
    np.testing.assert_allclose(found.values, by_hand(found, pixels, asked), rtol=1e-12)
    coarse = FixedPatching(Windows.of(0, starts // 4 * 4, (32, 32), 1))
    found = filter_map(image, coarse, asked)
    assert found.levels == {0: 2}
    whole = {(0, 0): image.level(2)[0]}
    halved = FixedPatching(Windows.of(0, starts // 4 * 2, (16, 16), 2))
    there = filter_map(image, halved, asked)
    np.testing.assert_array_equal(found.values, there.values)
    np.testing.assert_allclose(there.values, by_hand(there, whole, asked), rtol=1e-12)
    # Finer than the patches are counted in, if that is asked for.
    exact = filter_map(image, fine, asked, level=0)
    doubled = filter_map(image, FixedPatching(Windows.of(0, starts * 2, (40, 48))), asked, level=0)
    np.testing.assert_array_equal(exact.values, doubled.values)


def test_a_mask_with_levels_is_looked_at_where_patches_are_large_enough(tmp_path: Path) -> None:
    labels = np.zeros((256, 256), np.uint8)
    labels[:128, :192] = 7
    with MultiscaleImage.create(
        tmp_path / "mask",
        type="uint8",
        level_shape=(256, 256),
        has_channel_axis=False,
        kind="labels",
        mpp=1.0,
        layout=Layout((32, 32), (64, 64)),
    ) as made:
        made["level0"][...] = labels
        made.build_levels()
    mask = MultiscaleImage.open(tmp_path / "mask")
    image = stack(np.zeros((1024, 1024), np.uint8), "YX")
    patching = SequentialPatching([data_shape_of(image)], (128, 128))
    found = filter_map(image, patching, TissueFilter(mask))
    assert found.levels == {0: 1}  # 128 px of the image are 32 of the mask, and 16 on its level 1
    expected = np.kron(labels > 0, np.ones((4, 4), np.bool_))
    by_numpy = expected.reshape(8, 128, 8, 128).mean(axis=(1, 3))
    np.testing.assert_array_equal(found.grid(), by_numpy)
    assert filter_map(image, patching, TissueFilter(mask), mpp=1.5).levels == {0: 0}


def test_a_selection_travels() -> None:
    image = stack(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), "YX")
    patching = TiledPatching([data_shape_of(image)], (16, 16), 4)
    chosen = filter_map(image, patching, MeanStdFilter(2000.0)).selected()
    copy = pickle.loads(pickle.dumps(chosen))
    rows = np.arange(len(chosen))[::-1]
    assert 0 < len(copy) == len(chosen) < len(patching)
    assert np.array_equal(copy.windows(rows).start, chosen.windows(rows).start)
    assert copy.get_patch_spec(0) == chosen.get_patch_spec(0)


def test_blocks_are_small_and_the_whole_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microtome.patching._measuring._BLOCK", 5000)
    pixels = tissue_like((1, 300, 400), 6)[0]
    boxes = []

    class Watched(MemoryArray):
        def read_into(self, box, out):
            boxes.append(np.prod([b - a for a, b in box]))
            return super().read_into(box, out)

    image = ArrayStack(Watched(pixels), "YX")
    patching = StratifiedPatching([data_shape_of(image)], (20, 20))
    found = filter_map(image, patching, FILTERS[0])
    np.testing.assert_allclose(
        found.values, by_hand(found, {(0, 0): pixels}, FILTERS[0]), rtol=1e-12
    )
    assert max(boxes) <= 5000
    assert len(boxes) > 20


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_in_parallel_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    monkeypatch.setattr("microtome.patching._measuring._BLOCK", 20000)
    image = stored(tmp_path / "a", tissue_like((2, 300, 300), 7), mpp=1.0)
    patching = StratifiedPatching([data_shape_of(image)], (24, 24))
    here = filter_map(image, patching, FILTERS[2], level=0)
    with ThreadPoolExecutor(3) if pool == "threads" else process_pool(1) as executor:
        there = filter_map(image, patching, FILTERS[2], level=0, executor=executor)
    assert np.array_equal(here.values, there.values)


@dataclass(frozen=True)
class Range(PatchFilter):
    """A filter of one's own: the range of values."""

    least: float
    calls = threading.local()

    @property
    def names(self) -> tuple[str, ...]:
        return ("range",)

    def measure(self, pixels, shares):
        self.calls.count = getattr(self.calls, "count", 0) + 1
        assert all(len(share) == len(pixels) for share in shares)
        return np.ptp(pixels.reshape(len(pixels), -1).astype(float), axis=1)[:, None]

    def keeps(self, values, rank):
        return values[:, 0] >= self.least


def test_statistics_are_kept_on_disk_until_something_changes(tmp_path: Path) -> None:
    pixels = tissue_like((1, 100, 100), 8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels[0])
    patching = StratifiedPatching([(1, 1, 100, 100)], (20, 20))
    asked, cache = Range(20), tmp_path / "kept"

    def measured(patching=patching, asked=asked, image=None) -> tuple[int, FilterMap]:
        Range.calls.count = 0
        found = filter_map(image or open_image(path), patching, asked, cache=cache)
        return Range.calls.count, found

    count, first = measured()
    assert count > 0
    count, again = measured()
    assert count == 0
    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.kept, again.kept)
    (file,) = cache.iterdir()
    # Other places, another filter: measured.
    assert measured(patching=StratifiedPatching([(1, 1, 100, 100)], (25, 20)))[0] > 0
    assert measured(asked=Range(30))[0] > 0
    # What is damaged is measured anew, and is right.
    file.write_bytes(file.read_bytes()[:100])
    count, repaired = measured()
    assert count > 0
    assert np.array_equal(repaired.values, first.values)
    assert measured()[0] == 0
    # Other pixels under the same name.
    tifffile.imwrite(path, pixels[0] + 1)
    os.utime(path, ns=(1, 1))
    assert measured()[0] > 0
    # In memory pixels are looked at themselves.
    held = stack(pixels[0], "YX")
    assert measured(image=held)[0] > 0
    assert measured(image=stack(pixels[0].copy(), "YX"))[0] == 0
    assert measured(image=stack(pixels[0] * 2, "YX"))[0] > 0


def test_images_are_one_job_and_kept_one_by_one(tmp_path: Path) -> None:
    whole = [tissue_like((1, 60 + i, 80), i)[0] for i in range(6)]
    images = [stack(pixels, "YX") for pixels in whole]
    patching = StratifiedPatching([data_shape_of(image) for image in images], (16, 16))
    together = threading.Barrier(3, timeout=30)

    @dataclass(frozen=True)
    class Waiting(Range):
        def measure(self, pixels, shares):
            # Three images are measured at once, or none.
            if self.calls.__dict__.setdefault("met", False) is False:
                together.wait()
                self.calls.met = True
            return super().measure(pixels, shares)

    with ThreadPoolExecutor(3) as pool:
        found = filter_map(images, patching, Waiting(20), executor=pool, cache=tmp_path)
    expected = [
        np.ptp(whole[i][tuple(slice(a, b) for a, b in zip(start, stop, strict=True))].astype(float))
        for i, start, stop in zip(found.image, found.start, found.stop, strict=True)
    ]
    assert np.array_equal(found.values[:, 0], expected)
    assert len(list(tmp_path.iterdir())) == 6
    # An image more is measured alone.
    more = [*images, stack(whole[0] + 1, "YX")]
    longer = StratifiedPatching([data_shape_of(image) for image in more], (16, 16))
    Waiting.calls.count = 0
    Waiting.calls.met = True
    again = filter_map(more, longer, Waiting(20), cache=tmp_path)
    mine = again.image == 6
    sizes = np.unique(again.stop[mine] - again.start[mine], axis=0)
    assert Waiting.calls.count == len(sizes)  # a measurement a size of cell
    assert np.array_equal(again.values[: len(found)], found.values)
    assert len(list(tmp_path.iterdir())) == 7


def test_thresholds_that_only_decide_need_no_new_look(tmp_path: Path) -> None:
    image = stack(tissue_like((1, 100, 100), 9)[0], "YX")
    patching = StratifiedPatching([data_shape_of(image)], (20, 20))
    kept = {}
    for mean in (1.0, 5.0, 10.0):
        kept[mean] = filter_map(image, patching, MeanStdFilter(mean), cache=tmp_path).kept.sum()
    assert len(list(tmp_path.iterdir())) == 1
    assert kept[1.0] > kept[5.0] > kept[10.0]
    filter_map(image, patching, MaxFilter(10.0), cache=tmp_path)
    filter_map(image, patching, MaxFilter(20.0), cache=tmp_path)  # counts other pixels
    assert len(list(tmp_path.iterdir())) == 3


def test_background_is_drawn_more_rarely_or_never() -> None:
    pixels = np.zeros((200, 200), np.uint8)
    pixels[:, 100:] = np.random.default_rng(0).integers(1, 99, (200, 100))
    image = stack(pixels, "YX")
    patching = StratifiedPatching([data_shape_of(image)], (10, 10), seed=3)
    found = filter_map(image, patching, MeanStdFilter(1.0))
    assert np.array_equal(found.kept, found.stop[:, 1] > 100)
    rarely = found.weighted()
    assert np.array_equal(rarely.probabilities, np.where(found.kept, 1.0, 0.1))
    assert len(rarely) == np.ceil(found.kept.sum() + 0.1 * (~found.kept).sum())
    # A second filter is multiplied onto the first.
    twice = filter_map(image, rarely, MeanStdFilter(1.0)).weighted(0.5)
    assert np.array_equal(twice.probabilities, np.where(found.kept, 1.0, 0.05))
    never = found.selected()
    for epoch in range(20):
        start = never.windows(np.arange(len(never)), epoch=epoch).start
        assert (start[:, 1] + 20 > 100).all()


def test_tiles_without_tissue_are_left_out_of_any_patching() -> None:
    mask = np.zeros((100, 100), np.bool_)
    mask[:50, :50] = True
    image = stack(np.zeros((100, 100), np.uint8), "YX")
    tiles = TiledPatching([data_shape_of(image)], (32, 32), 8)
    found = filter_map(image, tiles, TissueFilter(mask, 0.001))
    chosen = found.selected()
    rows = np.arange(len(chosen))
    expected = np.flatnonzero((tiles.windows(np.arange(len(tiles))).start < 50).all(axis=1))
    assert 0 < len(expected) < len(tiles)
    assert np.array_equal(chosen.windows(rows).start, tiles.windows(expected).start)
    columns, of_all = chosen.columns(rows), tiles.columns(expected)
    for name in ("crop_coords", "crop_size", "stitch_coords"):
        assert np.array_equal(columns[name], of_all[name])
    assert (columns["total_tiles"] == len(expected)).all()
    assert chosen.get_patch_spec(1)["coords"] == tuple(tiles.windows(expected).start[1].tolist())
    assert chosen.get_patch_indices(0).tolist() == rows.tolist()
    assert chosen.patch_size == (32, 32)
    with pytest.raises(InvalidInputError, match=r"no probabilities .* selected\(\)"):
        found.weighted()
    nothing = filter_map(image, tiles, TissueFilter(np.zeros((10, 10), np.bool_)))
    with pytest.raises(InvalidInputError, match="keeps none of"):
        nothing.selected()


def test_what_lies_outside_its_image_is_not_kept() -> None:
    image = stack(np.ones((20, 20), np.uint8), "YX")
    patching = FixedPatching(Windows.of(0, [[-9, -9], [5, 5], [-3, 18]], (8, 8)))
    found = filter_map(image, patching, MeanStdFilter(0.5))
    assert np.isnan(found.values[0]).all()
    assert found.kept.tolist() == [False, True, True]


def test_bad_input_is_refused() -> None:
    image = stack(np.ones((64, 48), np.uint8), "YX")
    shapes = [data_shape_of(image)]
    patching = StratifiedPatching(shapes, (16, 16))
    one = MeanStdFilter(1.0)
    with pytest.raises(InvalidInputError, match="others each epoch; filter StratifiedPatching"):
        filter_map(image, RandomPatching(shapes, (16, 16)), one)
    with pytest.raises(InvalidInputError, match="patching is of 2 images, there are 1"):
        filter_map(image, StratifiedPatching(shapes * 2, (16, 16)), one)
    with pytest.raises(InvalidInputError, match="1 images have a mask each, got 2"):
        filter_map(image, patching, MaskFilter([np.ones((64, 48), np.bool_)] * 2))
    with pytest.raises(InvalidInputError, match=r"mask of \(48, 64\).*does not cover"):
        filter_map(image, patching, MaskFilter(np.ones((48, 64), np.bool_)))
    with pytest.raises(InvalidInputError, match="a mask is an array"):
        MaskFilter(np.ones((64, 48), np.float32))
    with pytest.raises(InvalidInputError, match=r"from 0 to 1, got 1\.5"):
        TissueFilter(np.ones((64, 48), np.bool_), 1.5)
    found = filter_map(image, patching, one)
    with pytest.raises(InvalidInputError, match="from 0 to 1, got -1"):
        found.weighted(-1)
    with pytest.raises(UnknownNameError, match="'median'"):
        found.grid(statistic="median")
    with pytest.raises(InvalidInputError, match="no sample 3"):
        found.grid(0, 3)

    class Wrong(Range):
        def measure(self, pixels, shares):
            return np.zeros(3)

    with pytest.raises(InvalidInputError, match=r"Wrong\.measure has to return"):
        filter_map(image, patching, Wrong(1))


def test_a_pixel_size_that_nothing_states_is_told(tmp_path: Path) -> None:
    image = stored(tmp_path / "a", np.ones((1, 100, 100), np.uint8))
    with pytest.raises(NoResolutionError):
        filter_map(image, StratifiedPatching([data_shape_of(image)], (16, 16)), Range(1), mpp=2.0)


# ------------------------------------------------------------------ pictures


@pytest.mark.parametrize("kind", ["stratified", "grid"])
@pytest.mark.parametrize("deep", [False, True], ids=["flat", "deep"])
def test_a_map_can_be_looked_at(kind: str, deep: bool) -> None:
    pytest.importorskip("matplotlib")
    pixels = tissue_like((2, 20, 90, 110), 3) if deep else tissue_like((2, 90, 110), 3)
    image = stack(pixels, "SZYX" if deep else "SYX")
    size = (6, 16, 20) if deep else (16, 20)
    found = filter_map(image, patching_of(kind, [data_shape_of(image)], size), FILTERS[0])
    ax = plot_filter_map(found, sample=1, statistic="std")
    (mesh,) = ax.collections
    grid = found.grid(0, 1, statistic="std")
    kept = found.kept[found.sample == 1].reshape(grid.shape)
    if deep:
        grid, kept = grid[len(grid) // 2], kept[len(kept) // 2]
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(grid.shape), grid)
    (crosses,) = [line for line in ax.lines if line.get_gid() == "background"]
    assert len(crosses.get_xdata()) == (~kept).sum()
    # Every cross stands on the cell that it crosses out.
    corners = mesh.get_coordinates()
    row = np.searchsorted(corners[:, 0, 1], crosses.get_ydata()) - 1
    column = np.searchsorted(corners[0, :, 0], crosses.get_xdata()) - 1
    assert not kept[row, column].any()
    assert ax.get_xlim() == (0, 110)
    assert ax.get_ylim() == (90, 0)
    with pytest.raises(InvalidInputError, match="no sample 2"):
        plot_filter_map(found, sample=2)
    if deep:
        with pytest.raises(InvalidInputError, match="no plane 9"):
            plot_filter_map(found, plane=9)


def test_patches_in_no_grid_have_no_picture() -> None:
    image = stack(np.ones((70, 70), np.uint8), "YX")
    found = filter_map(image, patching_of("windows", [], (5, 5)), MeanStdFilter(1))
    with pytest.raises(InvalidInputError, match="FixedPatching lie in no grid"):
        plot_filter_map(found)


# ------------------------------------------------------------------ real images


def real(shared: Path, name: str) -> tuple[MultiscaleImage, np.ndarray]:
    """A real image and one of its channels, read by tifffile."""
    path = {
        "mibi": lambda: next((shared / "mibi").glob("fov8_RowNumber0*.tiff")),
        "svs": lambda: shared / "wsi" / "cmu-1-small-region.svs",
        "imc": lambda: min((shared / "imc" / "img").glob("*.tiff")),
    }[name]()
    whole = tifffile.imread(path, **({"key": 0} if name == "svs" else {"series": 0}))
    if name == "mibi":
        with tifffile.TiffFile(path) as file:
            whole = np.stack([page.asarray() for page in file.pages])
    options = {"mpp": 1.0} if name == "imc" else {}
    return open_image(path, **options), whole[..., 1] if name == "svs" else whole[1]


@pytest.mark.parametrize("name", ["mibi", "svs", "imc"])
def test_real_images(shared_data: Path, name: str) -> None:
    image, channel = real(shared_data, name)
    patch = {"imc": (16, 16), "mibi": (96, 64), "svs": (224, 256)}[name]
    # Cells of a stratified plan overlap, so that a slide would be looked at four times.
    make = SequentialPatching if name == "svs" else StratifiedPatching
    patching = make([data_shape_of(image)], patch)
    bright = float(np.percentile(channel, 99.9))
    for asked in (
        MeanStdFilter(float(channel.mean()), channel=1),
        ShannonFilter(3.0, channel=1),
        MaxFilter(0.4 * bright, channel=1),  # what CSBDeep takes
    ):
        found = filter_map(image, patching, asked)
        expected = by_hand(found, {(0, 0): channel}, asked)
        # Averages of float32 pixels depend on the order in which they are added, in the last digit.
        np.testing.assert_allclose(found.values, expected, rtol=1e-6, atol=1e-6)


def test_tissue_of_a_real_slide(shared_data: Path) -> None:
    image, _ = real(shared_data, "svs")
    pixels = np.asarray(image.level(0)[...])
    coarse = pixels[:, : 2960 // 16 * 16, : 2208 // 16 * 16].reshape(3, 185, 16, 138, 16)
    tissue = detect_tissue(np.rint(coarse.mean(axis=(2, 4))).astype(np.uint8), mpp=0.499 * 16)
    inside = image.level_shape(0)[1:]
    fine = np.kron(tissue, np.ones((16, 16), np.bool_))
    whole = np.zeros(inside, np.bool_)
    whole[: fine.shape[0], : fine.shape[1]] = fine
    patching = StratifiedPatching([data_shape_of(image)], (224, 224))
    # The mask in all its pixels, and at a sixteenth of them with a last row and column.
    ragged = whole[::16, ::16]
    exact = filter_map(image, patching, TissueFilter(whole))
    small = filter_map(image, patching, TissueFilter(ragged))
    expected = by_hand(exact, {(0, 0): whole}, TissueFilter(whole))
    np.testing.assert_allclose(exact.values, expected, atol=1e-9)
    np.testing.assert_allclose(small.values, expected, atol=1e-9)
    assert 0 < exact.kept.sum() < len(exact)
    rarely = exact.weighted(0.1)
    drawn = np.concatenate(
        [rarely.windows(np.arange(len(rarely)), epoch=e).start for e in range(30)]
    )
    share = np.mean([whole[y : y + 224, x : x + 224].mean() for y, x in drawn.tolist()])
    plain = np.mean([whole[y : y + 224, x : x + 224].mean() for y, x in exact.start.tolist()])
    assert share > plain
