"""Patches by number: what is read, what is done to it, and that nothing else decides it."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtome as mt
from microtome.augmentation import (
    ChannelDropout,
    CustomAugmentation,
    DihedralAugmentation,
    IntensityJitter,
    undo,
)
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.loading import RegionDataset, TileLoader
from microtome.normalization import MeanStdNormalization, NoNormalization, fit_normalization
from microtome.patching import (
    FixedPatching,
    RandomPatching,
    TiledPatching,
    WholePatching,
)
from microtome.regions import Windows, data_shape_of
from microtome.sources import open_stacks

SIZES = ((60, 70), (50, 90))
EVERY = (DihedralAugmentation(), IntensityJitter(gain=0.2, gamma=0.1), ChannelDropout(0.3))
NORMALIZATION = MeanStdNormalization([100.0, 200.0, 300.0], [10.0, 20.0, 30.0], eps=0)


def pixels_of(seed: int = 0, channels: int = 3, dtype: str = "uint16") -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 900, (channels, *size)).astype(dtype) for size in SIZES]


def shapes() -> list[tuple[int, ...]]:
    return [(1, 3, *size) for size in SIZES]


def a_dataset(patching: Any = None, **options: Any) -> RegionDataset:
    given = RandomPatching(shapes(), (16, 16), seed=1) if patching is None else patching
    return RegionDataset(open_stacks(pixels_of(), "CYX"), given, **options)


def cut(pixels: list[np.ndarray], spec: Any) -> np.ndarray:
    """The pixels that a specification names, zero outside."""
    image = pixels[spec["data_idx"]]
    reach = 64
    padded = np.pad(image, [(0, 0), (reach, reach), (reach, reach)])
    y, x = (start + reach for start in spec["coords"])
    h, w = spec["patch_size"]
    return padded[:, y : y + h, x : x + w]


def test_a_patch_is_the_pixels_that_its_specification_names() -> None:
    dataset = a_dataset()
    pixels = pixels_of()
    assert len(dataset) == 4 * 5 + 4 * 6
    for row in (0, 7, 20, len(dataset) - 1):
        (region,) = dataset[row]
        assert region.data.dtype == np.float32
        np.testing.assert_array_equal(region.data, cut(pixels, region.region_spec))
        assert region.region_spec == dataset.patching.get_patch_spec(row)
        assert region.data_shape == shapes()[region.region_spec["data_idx"]]
        assert region.dtype == "uint16"
    np.testing.assert_array_equal(dataset[-1][0].data, dataset[len(dataset) - 1][0].data)


def test_normalization_channels_and_record() -> None:
    dataset = a_dataset(normalization=NORMALIZATION)
    some = a_dataset(
        normalization=MeanStdNormalization([300.0, 100.0], [30.0, 10.0], eps=0), channels=[2, 0]
    )
    (region,) = dataset[5]
    wanted = NORMALIZATION.normalize(cut(pixels_of(), region.region_spec)[None])[0]
    np.testing.assert_array_equal(region.data, wanted)
    np.testing.assert_array_equal(some[5][0].data, wanted[[2, 0]])
    told: Any = region.additional_metadata
    assert told["normalization"]["kind"] == "mean_std"
    assert told["normalization"]["means"] == [100.0, 200.0, 300.0]
    assert told["augmentation"] == {}


@pytest.mark.parametrize("epoch", [0, 3])
def test_augmentation_is_the_same_however_patches_are_asked_for(epoch: int) -> None:
    dataset = a_dataset(normalization=NORMALIZATION, augmentations=EVERY, seed=5)
    dataset.set_epoch(epoch)
    whole: Any = dataset.read_batch(np.arange(len(dataset)))
    order = np.random.default_rng(0).permutation(len(dataset))
    with ThreadPoolExecutor(3) as pool:
        parts: list[Any] = list(pool.map(dataset.read_batch, np.array_split(order, 7)))
    np.testing.assert_array_equal(np.concatenate([p.data for p in parts]), whole.data[order])
    for row in (0, 11):
        (one,) = dataset[row]
        np.testing.assert_array_equal(one.data, whole.data[row])
        assert one.additional_metadata == whole.additional_metadata[row]


def test_epochs_and_seeds_differ() -> None:
    dataset = a_dataset(normalization=NORMALIZATION, augmentations=EVERY, seed=5)
    other = a_dataset(normalization=NORMALIZATION, augmentations=EVERY, seed=6)
    rows = np.arange(10)
    first: Any = dataset.read_batch(rows, epoch=0)
    second: Any = dataset.read_batch(rows, epoch=1)
    assert (first.region_spec["coords"] != second.region_spec["coords"]).any()
    records = [[m["augmentation"] for m in b.additional_metadata] for b in (first, second)]
    assert records[0] != records[1]
    seeded: Any = other.read_batch(rows, epoch=0)
    np.testing.assert_array_equal(seeded.region_spec["coords"], first.region_spec["coords"])
    assert [m["augmentation"] for m in seeded.additional_metadata] != records[0]


def test_what_was_done_is_recorded_and_can_be_undone() -> None:
    steps = EVERY[:2]
    plain: Any = a_dataset(normalization=NORMALIZATION).read_batch(range(12))
    batch: Any = a_dataset(normalization=NORMALIZATION, augmentations=steps).read_batch(range(12))
    back = undo(batch)
    np.testing.assert_allclose(back.data, plain.data, rtol=1e-3, atol=1e-3)
    states = {m["augmentation"]["dihedral"] for m in batch.additional_metadata}
    assert len(states) > 3
    raw = NORMALIZATION.denormalize(np.ascontiguousarray(back.data))
    pixels = pixels_of()
    for row in range(12):
        spec = a_dataset().patching.get_patch_spec(row)
        np.testing.assert_allclose(raw[row], cut(pixels, spec), atol=0.1)


def add_noise(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return patch + rng.normal(size=patch.shape).astype(np.float32)


class OfOnesOwn:
    """A normalization that does not say what it does in steps: it is done after reading."""

    def __init__(self, inner: MeanStdNormalization) -> None:
        self.kind, self.target, self.inner = inner.kind, None, inner

    def normalize(self, batch: Any, out: Any = None) -> Any:
        return self.inner.normalize(batch, out)

    def denormalize(self, batch: Any) -> Any:
        return self.inner.denormalize(batch)

    def to_dict(self) -> dict[str, Any]:
        return self.inner.to_dict()


@pytest.mark.parametrize("mean", [100.0, 100.123456789, 65535.7])
def test_normalizing_while_reading_gives_the_bits_of_doing_it_after(mean: float) -> None:
    normalization = MeanStdNormalization([mean] * 3, [0.3, 20.0, 30.0])
    given = {"augmentations": EVERY, "seed": 2, "padding": -3.5}
    windows = Windows.of([0, 0, 1, 1], [[-4, -3], [50, 62], [10, 85], [7, 9]], (16, 16))
    patching = FixedPatching(windows.take(np.arange(40) % 4))
    one = a_dataset(patching, normalization=normalization, **given)
    own: Any = OfOnesOwn(normalization)
    other = a_dataset(patching, normalization=own, **given)
    first, second = (dataset.read_batch(np.arange(40)) for dataset in (one, other))
    assert first.data.tobytes() == second.data.tobytes()  # type: ignore[union-attr]


def test_steps_are_done_in_their_order() -> None:
    steps = (CustomAugmentation("noise", add_noise), DihedralAugmentation())
    dataset = a_dataset(augmentations=steps)
    (region,) = dataset[4]
    record: Any = region.additional_metadata["augmentation"]  # type: ignore[call-overload]
    wanted: Any = cut(pixels_of(), region.region_spec).astype(np.float32)
    for step in steps:
        wanted = step.apply(wanted, record[step.name])
    np.testing.assert_array_equal(region.data, wanted)


# -- targets


def test_a_target_is_turned_like_its_input_and_keeps_its_labels() -> None:
    # Labels beyond 2^24, which float32 does not tell apart.
    places = [np.arange(h * w, dtype=np.uint32).reshape(h, w) + 2**25 for h, w in SIZES]
    inputs = [np.stack([p - 2**25] * 3).astype(np.int32) for p in places]
    dataset = RegionDataset(
        open_stacks(inputs, "CYX"),
        RandomPatching(shapes(), (16, 16)),
        targets=open_stacks(places, "YX"),
        augmentations=(DihedralAugmentation(),),
    )
    batch: Any = dataset.read_batch(range(30))
    assert isinstance(batch, tuple)
    assert batch[1].data.dtype == np.uint32
    assert batch[1].data.shape == (30, 1, 16, 16)
    np.testing.assert_array_equal(batch[0].data[:, 0], (batch[1].data[:, 0] - 2**25))
    # Input-only steps are not recorded for the target.
    both = RegionDataset(
        open_stacks(inputs, "CYX"),
        RandomPatching(shapes(), (16, 16)),
        targets=open_stacks(places, "YX"),
        augmentations=(DihedralAugmentation(), IntensityJitter()),
    )
    one, target = both[3]
    first, second = one.additional_metadata, target.additional_metadata
    assert set(first["augmentation"]) == {"dihedral", "intensity_jitter"}  # type: ignore[call-overload]
    assert second["augmentation"] == {"dihedral": first["augmentation"]["dihedral"]}  # type: ignore[call-overload]


def test_targets_have_the_normalization_that_was_fitted_on_them() -> None:
    images, targets = open_stacks(pixels_of(), "CYX"), open_stacks(pixels_of(1, 1), "CYX")
    fitted = fit_normalization("mean_std", images, targets=targets)
    patching = RandomPatching(shapes(), (16, 16))
    _, target = RegionDataset(images, patching, targets=targets, normalization=fitted)[0]
    plain = RegionDataset(images, patching, targets=targets)[0][1]
    assert plain.data.dtype == np.uint16
    assert fitted.target is not None
    np.testing.assert_array_equal(target.data, fitted.target.normalize(plain.data[None])[0])
    own = RegionDataset(
        images,
        patching,
        targets=targets,
        normalization=fitted,
        target_normalization=NoNormalization(),
    )
    np.testing.assert_array_equal(own[0][1].data, plain.data.astype(np.float32))


def test_a_target_of_another_size_is_refused() -> None:
    small = open_stacks([p[:, :-1] for p in pixels_of()], "CYX")
    with pytest.raises(InvalidInputError, match="a target has one pixel for each of its image"):
        a_dataset(targets=small)


# -- patchings


def test_every_patching_and_what_it_adds_to_the_specification() -> None:
    pixels = pixels_of()
    tiled = TiledPatching(shapes(), (32, 32), (8, 8))
    dataset = a_dataset(tiled)
    for row in (0, 5, len(dataset) - 1):
        (region,) = dataset[row]
        assert region.region_spec == tiled.get_patch_spec(row)
        assert "stitch_coords" in region.region_spec
        np.testing.assert_array_equal(region.data, cut(pixels, region.region_spec))
    whole = RegionDataset(open_stacks(pixels[0], "CYX"), WholePatching(shapes()[:1]))
    np.testing.assert_array_equal(whole[0][0].data, pixels[0])


def test_samples_and_planes() -> None:
    pixels = np.random.default_rng(3).integers(0, 99, (2, 2, 9, 20, 20), dtype=np.uint8)
    stacks = open_stacks(pixels, "SCZYX")
    patching = RandomPatching([data_shape_of(s) for s in stacks], (4, 8, 8), seed=3)
    dataset = RegionDataset(stacks, patching, augmentations=(DihedralAugmentation(),))
    plain = RegionDataset(stacks, patching)
    for row in (0, len(dataset) // 2, len(dataset) - 1):
        (region,), (bare,) = dataset[row], plain[row]
        spec = bare.region_spec
        z, y, x = spec["coords"]
        wanted = pixels[spec["sample_idx"], :, z : z + 4, y : y + 8, x : x + 8]
        np.testing.assert_array_equal(bare.data, wanted)
        np.testing.assert_array_equal(undo(region).data, wanted)


@pytest.mark.parametrize("padding", [0, -1.5, "edge", "reflect"])
def test_what_lies_outside_is_a_value_after_normalization(padding: Any) -> None:
    windows = Windows.of([0, 0, 1], [[-4, -3], [50, 62], [10, 85]], (16, 16))
    dataset = a_dataset(
        FixedPatching(windows),
        normalization=NORMALIZATION,
        augmentations=(DihedralAugmentation(),),
        padding=padding,
    )
    batch: Any = undo(dataset.read_batch([0, 1, 2]))
    pixels = pixels_of()
    for row in range(3):
        image = pixels[int(windows.image[row])]
        (y, x), (height, width) = windows.start[row].tolist(), image.shape[1:]
        if isinstance(padding, str):
            around = [(0, 0), (16, 16), (16, 16)]
            padded = np.pad(image, around, mode=padding)
            wanted = NORMALIZATION.normalize(padded[None])[0]
        else:
            normal = NORMALIZATION.normalize(image[None])[0]
            wanted = np.full((3, height + 32, width + 32), padding, np.float32)
            wanted[:, 16:-16, 16:-16] = normal
        np.testing.assert_array_equal(batch.data[row], wanted[:, y + 16 : y + 32, x + 16 : x + 32])


def test_rows_by_place_are_all_patches_and_neighbours() -> None:
    patching = RandomPatching([(1, 3, 640, 640)], (16, 16), seed=2)
    image = np.zeros((3, 640, 640), np.uint8)
    [stack] = open_stacks(image, "CYX")
    placed = RegionDataset([stack], patching, by_place=True)
    for epoch in (0, 1, 2, 0):
        batch: Any = placed.read_batch(np.arange(len(placed)), epoch=epoch)
        coords = batch.region_spec["coords"]
        given = patching.windows(np.arange(len(placed)), epoch=epoch).start
        assert sorted(map(tuple, coords.tolist())) == sorted(map(tuple, given.tolist()))
        assert not np.array_equal(coords, given)

        def spread(places: np.ndarray) -> float:
            blocks = [places[i : i + 32] for i in range(0, len(places), 32)]
            return float(np.mean([np.ptp(block, axis=0).prod() for block in blocks]))

        assert spread(coords) < spread(given) / 10


# -- loaders


def test_a_loader_reads_batches_of_any_epoch_and_resumes() -> None:
    dataset = a_dataset(
        normalization=NORMALIZATION,
        augmentations=EVERY,
        targets=open_stacks(pixels_of(2, 1), "CYX"),
    )
    loader = TileLoader(dataset, 8, order="random", seed=3, as_torch=False)
    loader.set_epoch(2)
    batches: list[Any] = list(loader)
    rows = np.concatenate([loader.batch_rows(n) for n in range(len(loader))])
    whole: Any = dataset.read_batch(rows, epoch=2)
    for side in (0, 1):
        np.testing.assert_array_equal(
            np.concatenate([b[side].data for b in batches]), whole[side].data
        )
    again = TileLoader(dataset, 8, order="random", seed=3, as_torch=False, prefetch=0)
    first = iter(loader)
    next(first)
    state = loader.state_dict()
    again.load_state_dict(state)
    rest: list[Any] = list(again)
    assert len(rest) == len(batches) - 1
    np.testing.assert_array_equal(rest[0][0].data, batches[1][0].data)


def test_a_dataset_travels_small_and_gives_the_same(tmp_path: Path) -> None:
    dataset = stored_dataset(
        tmp_path, augmentations=EVERY, normalization=NORMALIZATION, by_place=True
    )
    wanted: Any = dataset.read_batch([3, 1])
    text = pickle.dumps(dataset)
    assert len(text) < 20_000
    again: Any = pickle.loads(text).read_batch([3, 1])
    np.testing.assert_array_equal(again.data, wanted.data)


def stored_dataset(folder: Path, **options: Any) -> RegionDataset:
    pixels = pixels_of()[0]
    with MultiscaleImage.create(
        folder / "a.ome.zarr", type="uint16", level_shape=pixels.shape, mpp=0.5
    ) as image:
        image["level0"][...] = pixels
    opened = mt.open_image(folder / "a.ome.zarr")
    return RegionDataset([opened], RandomPatching(shapes()[:1], (16, 16)), **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_loader_gives_the_same_batches(tmp_path: Path, workers: int) -> None:
    data = pytest.importorskip("torch.utils.data", reason="needs the extra torch")
    dataset = stored_dataset(tmp_path, augmentations=EVERY, normalization=NORMALIZATION)
    dataset.set_epoch(4)
    context = "spawn" if workers else None
    loader = data.DataLoader(
        dataset,
        batch_size=7,
        num_workers=workers,
        multiprocessing_context=context,
        collate_fn=RegionDataset.collate,
    )
    batches = list(loader)
    found = np.concatenate([batch.data.numpy() for batch in batches])
    wanted: Any = dataset.read_batch(np.arange(len(dataset)), epoch=4)
    # Whoever reads it, each patch is another one: workers do not replay one stream.
    np.testing.assert_array_equal(found, wanted.data)
    assert len({patch.tobytes() for patch in found}) == len(dataset)


@pytest.mark.parametrize("workers", [0, 1])
def test_torchs_own_collate_is_refused_with_the_way_out(tmp_path: Path, workers: int) -> None:
    data = pytest.importorskip("torch.utils.data", reason="needs the extra torch")
    context = "spawn" if workers else None
    loader = data.DataLoader(
        stored_dataset(tmp_path),
        batch_size=3,
        num_workers=workers,
        multiprocessing_context=context,
    )
    with pytest.raises(InvalidInputError, match=r"collate_fn=RegionDataset\.collate"):
        next(iter(loader))


def test_a_fork_is_refused_with_a_clear_word(tmp_path: Path) -> None:
    data = pytest.importorskip("torch.utils.data", reason="needs the extra torch")
    dataset = stored_dataset(tmp_path)
    assert dataset[0]
    loader = data.DataLoader(
        dataset, num_workers=1, multiprocessing_context="fork", collate_fn=RegionDataset.collate
    )
    with pytest.raises(Exception, match="fork"):
        next(iter(loader))
