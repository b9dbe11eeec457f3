"""The main job on real slides and odd sizes: pixels come back exactly, and lie where they should."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import tifffile
from numpy.typing import NDArray

from microtome.cli import main
from microtome.cohort import CohortLayout, HEImagingDataset, ingest, read_tissue_mask
from microtome.coordinates import Resolution
from microtome.image import MultiscaleImage

HALF = Resolution.parse(0.5)

Tree = dict[str, tuple[str, int]]


def tree(directory: Path) -> Tree:
    """Every file with the hash of its content and the time of its last change."""
    return {
        path.relative_to(directory).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def do(*arguments: object) -> None:
    assert main(["-q", *(str(a) for a in arguments)]) == 0, arguments


@pytest.fixture(scope="module", autouse=True)
def logging_restored() -> Iterator[None]:
    """Undo what the command line sets for the process it is in."""
    logger = logging.getLogger("microtome")
    before = logger.level, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of models that the command line can be given by name."""
    module = ModuleType("models_of_the_main_job")
    module.identity = lambda batch: batch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


# -- the identity gives back the level


def same_bytes(found: MultiscaleImage, expected: MultiscaleImage) -> None:
    assert found.dtype == expected.dtype
    assert found.level_count == expected.level_count
    for index in range(expected.level_count):
        one, other = found.level(index), expected.level(index)
        assert one[...].tobytes() == other[...].tobytes()
        assert (one.scale[-2:], one.translation[-2:]) == (other.scale[-2:], other.translation[-2:])


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 300), (211, 1), (97, 131), (128, 128), (129, 257), (255, 511), (613, 541)],
)
@pytest.mark.parametrize(("tile_size", "overlap"), [(128, 32), (100, 33), (64, 0), (700, 128)])
def test_identity_on_sizes_that_are_multiples_of_nothing(
    tmp_path: Path, models: str, height: int, width: int, tile_size: int, overlap: int
) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = ingest(
        pixels,
        axes="yxc",
        mpp=0.5,
        resolution=0.5,
        cohort=tmp_path,
        tissue_id="t",
        modality="he",
    )
    options = ("--tile-size", tile_size, "--overlap", overlap, "--batch-size", 3)
    do("predict", tmp_path, "--model", f"{models}:identity", "--name", "same", *options)
    same_bytes(MultiscaleImage.open(tmp_path / "predictions/0_5mpp/same/t.ome.zarr"), image)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_identity_on_many_channels(tmp_path: Path, models: str, dtype: str) -> None:
    pixels = (np.random.default_rng(0).normal(0, 900, (9, 301, 277))).astype(dtype)
    image = ingest(
        pixels,
        axes="cyx",
        mpp=1.0,
        cohort=tmp_path,
        tissue_id="t",
        modality="codex",
        channel_names=[f"m{i}" for i in range(9)],
    )
    out = tmp_path / "out.ome.zarr"
    do("predict", image.uri, "--out", out, "--model", f"{models}:identity", "--tile-size", 96)
    same_bytes(MultiscaleImage.open(out), image)


def test_identity_on_the_slide(shared_data: Path, tmp_path: Path, models: str) -> None:
    slide = shared_data / "wsi/cmu-1-small-region.svs"
    options = ("--tissue", "t", "--modality", "he", "--resolution", "0.5")
    do("ingest", slide, "--cohort", tmp_path, *options)
    do("predict", tmp_path, "--model", f"{models}:identity", "--name", "same", "--tile-size", "500")
    stored = MultiscaleImage.open(tmp_path / "he/0_5mpp/images/t.ome.zarr")
    assert stored.level_shape(0) == (3, 2962, 2216)
    same_bytes(MultiscaleImage.open(tmp_path / "predictions/0_5mpp/same/t.ome.zarr"), stored)


def test_identity_on_the_slide_as_it_is(shared_data: Path, tmp_path: Path, models: str) -> None:
    # Without a cohort, from the SVS in place: the very pixels of the file.
    slide = shared_data / "wsi/cmu-1-small-region.svs"
    out = tmp_path / "same.ome.zarr"
    do("predict", slide, "--out", out, "--model", f"{models}:identity", "--tile-size", "512")
    found = MultiscaleImage.open(out)
    expected = np.moveaxis(tifffile.imread(slide), -1, 0)
    assert found.level(0)[...].tobytes() == np.ascontiguousarray(expected).tobytes()
    assert found.require_mpp().y == 0.499


# -- reading changes nothing


@pytest.fixture(scope="module")
def job(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole job on the real slide, through the command line."""
    root = tmp_path_factory.mktemp("job") / "cohort"
    slide = shared_data / "wsi/cmu-1-small-region.svs"
    options = ("--tissue", "t", "--modality", "he", "--resolution", "0.5")
    do("ingest", slide, "--cohort", root, *options)
    image = root / "he/0_5mpp/images/t.ome.zarr"
    before = tree(image)
    steps: list[tuple[object, ...]] = [
        ("mask", root),
        ("tile", root, "--size", 224),
        ("stats", root),
        ("predict", root),
        ("info", root, "--json"),
        ("info", image),
        ("report", root, "-o", root.parent / "report.html"),
        ("ingest", slide, "--cohort", root, *options),
    ]
    for step in steps:
        do(*step)
        assert tree(image) == before, f"{step[0]} changed the image"
    return root


def readers(root: Path) -> dict[str, Callable[[], object]]:
    from microtome.loading import TileLoader

    dataset = HEImagingDataset("c", path=root, resolution=0.5, tile_size=224)
    return {
        "tiles": lambda: dataset.read_batch(np.arange(len(dataset))),
        "tissue": lambda: dataset.get_tissue("t"),
        "mask": lambda: dataset.get_tissue_mask("t"),
        "loader": lambda: list(TileLoader(dataset, batch_size=16, order="random", seed=3)),
        "prediction": lambda: MultiscaleImage.open(
            root / "predictions/0_5mpp/demo/t.ome.zarr"
        ).level(0)[...],
    }


@pytest.mark.parametrize("reader", ["tiles", "tissue", "mask", "loader", "prediction"])
def test_a_read_changes_nothing_anywhere(job: Path, reader: str) -> None:
    before = tree(job)
    assert len(before) > 20
    readers(job)[reader]()
    assert tree(job) == before


# -- everything lies where it should


def stored_slide(job: Path) -> NDArray[np.uint8]:
    return MultiscaleImage.open(job / "he/0_5mpp/images/t.ome.zarr").level(0)[...]


def test_tiles_lie_on_tissue(job: Path) -> None:
    dataset = HEImagingDataset("c", path=job, resolution=0.5, tile_size=224, mean_std_type="raw")
    slide = stored_slide(job)
    tissue = read_tissue_mask(CohortLayout.open(job), HALF, "t", slide.shape[-2:])
    covered = np.zeros_like(tissue)
    shares, brightness = [], []
    for number in range(len(dataset)):
        region = dataset[number]
        row, col = region.region_spec["coords"]
        window = np.s_[max(row, 0) : row + 224, max(col, 0) : col + 224]
        shares.append(tissue[window].sum() / 224**2)
        brightness.append(slide[(slice(None), *window)].mean())
        covered[window] = True
    assert len(shares) > 40
    assert min(shares) >= 0.15, "the default tolerance"
    assert np.mean(shares) > tissue.mean()
    assert covered[tissue].mean() > 0.95
    assert np.mean(brightness) < slide[:, ~tissue].mean(), "glass is brighter"


def best_shift(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[int, int]:
    """By how many pixels the second must move to fit the first best, by phase correlation."""
    spectra = np.fft.rfft2(one - one.mean()) * np.conj(np.fft.rfft2(other - other.mean()))
    peak = np.argmax(np.fft.irfft2(spectra / (np.abs(spectra) + 1e-9), one.shape))
    place = np.unravel_index(peak, one.shape)
    y, x = ((int(p) + n // 2) % n - n // 2 for p, n in zip(place, one.shape, strict=True))
    return y, x


def hematoxylin(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Of (Y, X, 3), as scikit-image takes stains apart."""
    from skimage.color import rgb2hed

    return np.asarray(rgb2hed(rgb)[..., 0], np.float64)


def raw_window(raw: NDArray[np.uint8], row: int, col: int, size: int) -> NDArray[np.uint8]:
    """A window of the slide in the file, interpolated at the centres of pixels of 0.5 um."""
    places = [(np.arange(start, start + size) + 0.5) * 0.5 / 0.499 - 0.5 for start in (row, col)]
    grid = np.meshgrid(*places, indexing="ij")
    planes = [
        scipy.ndimage.map_coordinates(raw[..., c].astype(np.float64), grid, order=1, mode="nearest")
        for c in range(3)
    ]
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)


CORNERS = [(0, 0), (1200, 900), (2400, 1650)]


def test_the_stored_slide_is_the_right_way_up_and_in_place(shared_data: Path, job: Path) -> None:
    raw = tifffile.imread(shared_data / "wsi/cmu-1-small-region.svs")
    stored = np.moveaxis(stored_slide(job), 0, -1)
    for row, col in CORNERS:
        ours = stored[row : row + 512, col : col + 512].mean(-1)
        theirs = raw_window(raw, row, col, 512).mean(-1)
        assert best_shift(ours, theirs) == (0, 0)
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99


def test_the_heat_map_lies_on_the_nuclei(shared_data: Path, job: Path) -> None:
    raw = tifffile.imread(shared_data / "wsi/cmu-1-small-region.svs")
    prediction = MultiscaleImage.open(job / "predictions/0_5mpp/demo/t.ome.zarr")
    names = list(prediction.channel_names or ())
    heat = prediction.level(0)[...].astype(np.float64)
    slide = stored_slide(job)
    assert heat.shape[-2:] == slide.shape[-2:]
    blue = heat[names.index("hematoxylin")]
    # On the cohort's own grid, pixel for pixel.
    own = hematoxylin(np.moveaxis(slide, 0, -1))
    assert np.corrcoef(blue.ravel(), own.ravel())[0, 1] > 0.9
    assert best_shift(own, blue) == (0, 0)
    # Against the slide in the file.
    for row, col in CORNERS:
        theirs = hematoxylin(raw_window(raw, row, col, 512))
        ours = blue[row : row + 512, col : col + 512]
        assert best_shift(theirs, ours) == (0, 0)
        assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.9
    # Where nuclei are dense there is more hematoxylin, and the mirrored map fits worse.
    density = heat[names.index("nuclear_density")]
    dense = density > np.quantile(density, 0.9)
    assert own[dense].mean() > own[~dense].mean() + 2 * own.std() / np.sqrt(dense.sum())
    straight = np.corrcoef(density.ravel(), own.ravel())[0, 1]
    for turned in (own[::-1], own[:, ::-1], own[::-1, ::-1]):
        assert np.corrcoef(density.ravel(), turned.ravel())[0, 1] < straight - 0.1


def test_embeddings_go_with_their_tiles(job: Path) -> None:
    import pyarrow.parquet as pq

    tiles = pq.read_table(job / "tiling/0_5mpp/default/224_tile_coordinates.parquet").to_pylist()
    rows = pq.read_table(job / "predictions/0_5mpp/demo/224_tile_embeddings.parquet").to_pylist()
    assert len(rows) == len(tiles)
    assert [(r["tissue_id"], r["tile_id"]) for r in rows] == [
        (t["tissue_id"], t["tile_id"]) for t in tiles
    ]


def test_a_batch_of_the_loader_holds_the_pixels_of_the_slide(job: Path) -> None:
    from microtome.loading import TileLoader

    slide = stored_slide(job)
    dataset = HEImagingDataset("c", path=job, resolution=0.5, tile_size=224)
    mean = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    seen: set[Any] = set()
    for batch in TileLoader(dataset, batch_size=8, order="random", seed=1):
        data: Any = np.asarray(batch.data)
        for place, told in enumerate(batch.additional_metadata):
            row, col = (int(v) for v in batch.region_spec["coords"][place])
            y = slice(max(-row, 0), min(224, slide.shape[1] - row))
            x = slice(max(-col, 0), min(224, slide.shape[2] - col))
            inside = slide[:, row + y.start : row + y.stop, col + x.start : col + x.stop]
            found = data[place]
            np.testing.assert_allclose(found[:, y, x], (inside / 255 - mean) / std, atol=2e-5)
            outside = np.ones((224, 224), bool)
            outside[y, x] = False
            assert (found[:, outside] == 0).all()
            seen.add((told["tissue_id"], told["tile_id"]))
    assert len(seen) == len(dataset)
