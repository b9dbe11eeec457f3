"""A packed cohort is the same cohort: the same batches, bit for bit, from other chunks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from microtome.cohort import (
    HEImagingDataset,
    MultiplexImagingDataset,
    ingest,
    mask,
    stats,
    tile,
    validate,
)
from microtome.errors import ExistsError, FormatError, InvalidInputError, NotFoundError
from microtome.image import MultiscaleImage
from microtome.loading import TileLoader
from microtome.packing import pack

SIZE = 48
SPEC = "quantile_clipping/uq_0.99_image"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two tissues as IMC and H&E, their tiles on a grid that hangs over the edges and elsewhere."""
    root = tmp_path_factory.mktemp("pack") / "cohort"
    rng = np.random.default_rng(3)
    for tissue, size in {"a": (200, 300), "b": (170, 190)}.items():
        told = {"axes": "cyx", "cohort": root, "tissue_id": tissue, "mpp": 1.0}
        pixels = rng.integers(1, 900, (3, *size), dtype=np.uint16)
        ingest(pixels, modality="imc", channel_names=["CD3", "CD8", "DNA"], **told)
        ingest(rng.integers(1, 255, (3, *size), dtype=np.uint8), modality="he", **told)
    mask(root, method="whole", modality="imc")
    tile(root, tile_size=SIZE, method="grid", strategy="default", tolerance=0.9)
    tile(root, tile_size=40, method="grid", strategy="dense", stride=25, tolerance=0.1)
    stats(root)
    return root


def imc(root, size=SIZE, strategy="default"):
    return MultiplexImagingDataset(
        "c", "imc", path=root, tile_size=size, tile_strategy=strategy, standardization=SPEC
    )


def batches(dataset):
    loader = TileLoader(dataset, 16, order="sequential", as_torch=False)
    return np.concatenate([batch.data for batch in loader])


def chunks_of(root, tissue="a", modality="imc"):
    with MultiscaleImage.open(root / modality / f"1_0mpp/images/{tissue}.ome.zarr") as image:
        return image.level(0).array.chunks


@pytest.mark.parametrize("only_tiles", [False, True])
@pytest.mark.parametrize("codec", ["fast", "small"])
def test_the_same_batches_come_from_chunks_that_are_tiles(cohort, tmp_path, only_tiles, codec):
    out = tmp_path / "packed"
    done = pack(cohort, out, tile_size=SIZE, only_tiles=only_tiles, codec=codec)
    assert {(one.modality, one.tissue_id) for one in done} == {
        (modality, tissue) for modality in ("he", "imc") for tissue in "ab"
    }
    assert chunks_of(out) == chunks_of(out, modality="he") == (3, SIZE, SIZE)
    assert np.array_equal(batches(imc(out)), batches(imc(cohort)))
    slides = [HEImagingDataset("c", path=root, tile_size=SIZE) for root in (out, cohort)]
    assert np.array_equal(batches(slides[0]), batches(slides[1]))
    assert [f for f in validate(out) if f.severity == "error"] == []
    for one in done:
        assert one.chunk == (3, SIZE, SIZE)
        assert one.bytes_after > 0
    assert not list(tmp_path.glob(".packed*"))


def test_whole_images_are_kept_pixel_for_pixel(cohort, tmp_path):
    pack(cohort, tmp_path / "packed", tile_size=SIZE)
    for tissue in "ab":
        pixels = []
        for root in (cohort, tmp_path / "packed"):
            with MultiscaleImage.open(root / f"imc/1_0mpp/images/{tissue}.ome.zarr") as image:
                pixels.append(image.level(0)[...])
                assert image.channel_names == ("CD3", "CD8", "DNA")
                assert image.mpp.y == 1.0
        assert np.array_equal(*pixels)


def test_tiles_at_any_place_get_small_chunks(cohort, tmp_path):
    pack(cohort, tmp_path / "packed", tile_size=40, tile_strategy="dense", modalities=["imc"])
    assert chunks_of(tmp_path / "packed") == (3, 64, 64)
    found = batches(imc(tmp_path / "packed", 40, "dense"))
    assert np.array_equal(found, batches(imc(cohort, 40, "dense")))
    # What was not asked for is copied as it is.
    assert chunks_of(tmp_path / "packed", modality="he") == chunks_of(cohort, modality="he")


def test_what_no_tile_shows_is_not_stored(tmp_path):
    root = tmp_path / "cohort"
    pixels = np.random.default_rng(0).integers(1, 900, (1, 480, 480), np.uint16)
    told = {"axes": "cyx", "cohort": root, "mpp": 1.0, "modality": "imc"}
    ingest(pixels, tissue_id="a", channel_names=["DNA"], **told)
    mask(root, method="whole")
    table = tile(root, tile_size=SIZE, method="grid", strategy="default", tolerance=0.1)
    few = type(table)(table.table.slice(0, 7), table.tile_size, "few", table.resolution)
    path = root / f"tiling/1_0mpp/few/{SIZE}_tile_coordinates.parquet"
    path.parent.mkdir()
    few.write(path)
    (one,) = pack(root, tmp_path / "few", tile_size=SIZE, tile_strategy="few", only_tiles=True)
    (all_of_it,) = pack(root, tmp_path / "all", tile_size=SIZE)
    assert one.bytes_after < all_of_it.bytes_after / 5
    with MultiscaleImage.open(tmp_path / "few/imc/1_0mpp/images/a.ome.zarr") as image:
        found = image.level(0)[...]
    shown = np.zeros((480, 480), bool)
    for row, col in zip(few.rows().row, few.rows().col, strict=True):
        shown[row : row + SIZE, col : col + SIZE] = True
    assert np.array_equal(found[0], np.where(shown, pixels[0], 0))


def test_in_parallel_it_is_the_same(cohort, tmp_path):
    seen = []
    with ThreadPoolExecutor(2) as executor:
        done = pack(
            cohort,
            tmp_path / "packed",
            tile_size=SIZE,
            executor=executor,
            progress=lambda *told: seen.append(told),
        )
    assert seen == [("pack", i, 4) for i in range(1, 5)]
    assert len(done) == 4
    assert np.array_equal(batches(imc(tmp_path / "packed")), batches(imc(cohort)))


def test_a_job_that_fails_leaves_nothing(cohort, tmp_path, monkeypatch):
    def broken(task):
        raise FormatError(task.tissue_id)

    monkeypatch.setattr("microtome.packing._pack._rewritten", broken)
    with pytest.raises(FormatError):
        pack(cohort, tmp_path / "packed", tile_size=SIZE)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_packed_is_refused(cohort, tmp_path):
    with pytest.raises(ExistsError, match="exists"):
        pack(cohort, tmp_path, tile_size=SIZE)
    with pytest.raises(InvalidInputError, match="inside the cohort"):
        pack(cohort, cohort / "packed", tile_size=SIZE)
    with pytest.raises(InvalidInputError, match="has no tiles default 777"):
        pack(cohort, tmp_path / "packed", tile_size=777)
    with pytest.raises(NotFoundError, match="no images of codex"):
        pack(cohort, tmp_path / "packed", tile_size=SIZE, modalities=["codex"])
    assert list(tmp_path.iterdir()) == []
