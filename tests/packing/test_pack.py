"""A packed cohort is the same cohort: the same batches, bit for bit, from other chunks."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest

from microtome.cohort import (
    HEImagingDataset,
    MultiplexImagingDataset,
    ingest,
    mask,
    open_tiles,
    stats,
    tile,
    validate,
    write_file_list,
)
from microtome.errors import ExistsError, FormatError, InvalidInputError, NotFoundError
from microtome.image import MultiscaleImage
from microtome.loading import TileLoader, TileOrder, WeightedOrder
from microtome.packing import pack
from microtome.storage._chunks import ChunkReader
from microtome.tiling import TileTable

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

    monkeypatch.setattr("microtome.packing._pack.rewritten", broken)
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


# ------------------------------------------------------------------ again


@pytest.fixture
def own(cohort, tmp_path):
    """A cohort that may be changed, and the place beside it."""
    shutil.copytree(cohort, tmp_path / "cohort")
    return tmp_path / "cohort", tmp_path / "packed"


def files_of(root):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("order", [None, "random"])
def test_what_is_there_already_is_not_packed_again(own, order):
    root, out = own
    count = len(imc(root))
    options = {"tile_size": SIZE, "order": order and TileOrder(count, order, seed=4)}
    done = pack(root, out, **options)
    held = files_of(out)
    assert pack(root, out, **options) == done
    # All modalities that there are, by name.
    assert pack(root, out, modalities=["imc", "he"], resolution=1.0, **options) == done
    # A cohort that was moved is the same one.
    root.rename(root.with_name("moved"))
    assert pack(root.with_name("moved"), out, **options) == done
    assert files_of(out) == held


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"codec": "small"}, "codec: 'fast' then, 'small' now"),
        ({"only_tiles": True}, "only_tiles: False then, True now"),
        ({"modalities": ["imc"]}, r"modalities: \['he', 'imc'\] then, \['imc'\] now"),
        (
            {"tile_size": 40, "tile_strategy": "dense"},
            r"tile_size: \[48, 48\] then, \[40, 40\] now; tile_strategy: 'default' then, 'dense' now",
        ),
        ({"order": 1}, "order: None then, '[0-9a-f]{16}' now"),
    ],
)
def test_what_was_packed_with_other_settings_is_refused(own, other, told):
    root, out = own
    pack(root, out, tile_size=SIZE)
    held = files_of(out)
    if "order" in other:
        other = {"order": TileOrder(len(imc(root)), "random", seed=1)}
    with pytest.raises(ExistsError, match=rf"other settings \({told}\)"):
        pack(root, out, **{"tile_size": SIZE, **other})
    assert files_of(out) == held


def test_another_order_is_refused(own):
    root, out = own
    count = len(imc(root))
    pack(root, out, tile_size=SIZE, order=TileOrder(count, "random", seed=1, epoch=0))
    for order in (None, TileOrder(count, "random", seed=1, epoch=1)):
        with pytest.raises(ExistsError, match="order: "):
            pack(root, out, tile_size=SIZE, order=order)


def image_replaced(root):
    pixels = np.full((3, 200, 300), 7, np.uint16)
    told = {"axes": "cyx", "tissue_id": "a", "mpp": 1.0, "channel_names": ["CD3", "CD8", "DNA"]}
    ingest(pixels, cohort=root, modality="imc", overwrite=True, **told)


def mask_replaced(root):
    mask(root, method="otsu", modality="imc", overwrite=True)


def tiles_replaced(root):
    tile(root, tile_size=SIZE, method="grid", strategy="default", tolerance=0.5, overwrite=True)


def statistics_added(root):
    stats(root, method="zscore")


def image_removed(root):
    shutil.rmtree(root / "he/1_0mpp/images/b.ome.zarr")


CHANGES = [
    (image_replaced, "imc/1_0mpp/images/a.ome.zarr is another"),
    (mask_replaced, "segmentations/1_0mpp/tissue_masks/a.ome.zarr is another"),
    (tiles_replaced, f"tiling/1_0mpp/default/{SIZE}_tile_coordinates.parquet is another"),
    (statistics_added, "imc/1_0mpp/standardization/zscore/.* is new"),
    (image_removed, "he/1_0mpp/images/b.ome.zarr is gone"),
]


@pytest.mark.parametrize(("change", "told"), CHANGES)
def test_what_was_packed_from_something_else_is_refused(own, change, told):
    root, out = own
    pack(root, out, tile_size=SIZE)
    held = files_of(out)
    change(root)
    with pytest.raises(ExistsError, match=rf"packed from .*cohort as it was then: now .*{told}"):
        pack(root, out, tile_size=SIZE)
    assert files_of(out) == held


def origins_told(root):
    return [each for each in validate(root) if each.place == "packed.json"]


@pytest.mark.parametrize(("change", "told"), CHANGES)
def test_a_packed_cohort_says_that_its_origin_changed(own, change, told):
    root, out = own
    pack(root, out, tile_size=SIZE, modalities=["imc"])
    assert origins_told(out) == []
    # What is added to the packed one is its own affair, and predictions are made of a cohort.
    stats(out, method="minmax")
    path = root / "predictions/1_0mpp/m/table.parquet"
    path.parent.mkdir(parents=True)
    path.touch()
    assert origins_told(out) == []
    change(root)
    (found,) = origins_told(out)
    assert (found.severity, found.kind) == ("warning", "stale")
    assert str(root) in found.what
    assert re.search(told, found.what)
    assert f"microtome pack {root}" in found.advice
    # A copy of it says so too, until there is nothing to compare with.
    shutil.copytree(out, out.with_name("copy"))
    assert origins_told(out.with_name("copy")) == [found]
    shutil.rmtree(root)
    assert origins_told(out) == []
    root.mkdir()
    assert origins_told(out) == []


def test_a_list_of_the_files_is_of_those_of_the_packed_cohort(own):
    root, out = own
    write_file_list(root)
    pack(root, out, tile_size=SIZE)
    listed = pq.read_table(out / "metadata/files.parquet").column("path").to_pylist()
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(listed) < there
    assert "packed.json" in listed
    assert "imc/1_0mpp/images/a.ome.zarr/0/zarr.json" in listed
    write_file_list(out)
    assert pq.read_table(out / "metadata/files.parquet").column("path").to_pylist() == listed


def test_an_image_that_says_nothing_of_itself_is_known_by_its_files(own):
    root, out = own
    path = root / "imc/1_0mpp/images/a.ome.zarr"
    with MultiscaleImage.open(path) as image:
        pixels, names = image.level(0)[...], image.channel_names
    shutil.rmtree(path)
    for value in (None, 5):
        shutil.rmtree(path, ignore_errors=True)
        if value is not None:
            pixels[:, 3, 3] = value
        with MultiscaleImage.create(
            path, type="uint16", level_shape=pixels.shape, channel_names=names, mpp=1.0
        ) as made:
            made.level(0)[...] = pixels
        if value is None:
            done = pack(root, out, tile_size=SIZE)
            assert pack(root, out, tile_size=SIZE) == done
    with pytest.raises(ExistsError, match=r"imc/1_0mpp/images/a\.ome\.zarr is another"):
        pack(root, out, tile_size=SIZE)


WITHOUT_IMAGES = (
    '{"version": 1, "origin": "o", "settings": {}, "images": {}, "files": {}, "made": [{}]}'
)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"version": 2}', "[" * 100_000, WITHOUT_IMAGES])
def test_a_note_that_is_damaged_is_none(own, text):
    root, out = own
    pack(root, out, tile_size=SIZE)
    (out / "packed.json").write_text(text)
    with pytest.raises(ExistsError, match="does not say what it was packed from"):
        pack(root, out, tile_size=SIZE)


def test_a_packed_cohort_that_is_packed_says_of_which_it_was_packed(own, tmp_path):
    root, out = own
    pack(root, out, tile_size=SIZE)
    done = pack(out, tmp_path / "twice", tile_size=SIZE, codec="small")
    assert pack(out, tmp_path / "twice", tile_size=SIZE, codec="small") == done
    with pytest.raises(ExistsError, match=r"other settings \(codec"):
        pack(root, tmp_path / "twice", tile_size=SIZE)


# ------------------------------------------------------------------ in an order


def offsets_of(root, tissue, modality="imc"):
    """Return where each chunk of an image lies in its file, on the grid of chunks; -1 for none."""
    with MultiscaleImage.open(root / f"{modality}/1_0mpp/images/{tissue}.ome.zarr") as image:
        array = image.level(0).array
    reader = ChunkReader.of(str(array.path), array.document)
    assert reader.shape[-2] <= reader.shard[-2]
    assert reader.shape[-1] <= reader.shard[-1]
    return reader.shard_at([0, 0, 0]).entries[0, ..., 0]


@pytest.mark.parametrize(("size", "strategy"), [(SIZE, "default"), (40, "dense")])
@pytest.mark.parametrize("only_tiles", [False, True])
def test_packed_in_an_order_the_sequence_is_the_shuffled_epoch(
    cohort, tmp_path, size, strategy, only_tiles
):
    count = len(imc(cohort, size, strategy))
    order = TileOrder(count, "random", seed=7, epoch=3)
    out = tmp_path / "packed"
    pack(cohort, out, tile_size=size, tile_strategy=strategy, only_tiles=only_tiles, order=order)
    source, packed = imc(cohort, size, strategy), imc(out, size, strategy)
    shuffled = list(TileLoader(source, 7, order=order, as_torch=False))
    streamed = list(TileLoader(packed, 7, order="sequential", as_torch=False))
    for one, other in zip(shuffled, streamed, strict=True):
        assert np.array_equal(one.data, other.data)
        for told, again in zip(one.additional_metadata, other.additional_metadata, strict=True):
            assert (told["tissue_id"], told["tile_id"]) == (again["tissue_id"], again["tile_id"])
    # In the files each chunk lies behind those that are read before it.
    end = dict.fromkeys("ab", -1)
    seen = set()
    side = chunks_of(out)[-1]
    for batch in streamed:
        places = np.asarray(batch.region_spec["coords"]).tolist()
        for told, (row, col) in zip(batch.additional_metadata, places, strict=True):
            tissue = told["tissue_id"]
            offsets = offsets_of(out, tissue)
            new = [
                int(offsets[y, x])
                for y in range(row // side, min(-(-(row + size) // side), offsets.shape[0]))
                for x in range(col // side, min(-(-(col + size) // side), offsets.shape[1]))
                if (tissue, y, x) not in seen and offsets[y, x] >= 0
            ]
            seen |= {
                (tissue, y, x)
                for y in range(row // side, -(-(row + size) // side))
                for x in range(col // side, -(-(col + size) // side))
            }
            if new:
                assert min(new) > end[tissue]
                end[tissue] = max(new)
    assert min(end.values()) > 0
    # It is an ordinary cohort, which can be read in any order.
    again = TileOrder(count, "random", seed=9)
    rows = order.rows(0, count)[again.rows(0, count)]
    found = np.concatenate([b.data for b in TileLoader(packed, 7, order=again, as_torch=False)])
    assert np.array_equal(found, source.read_batch(rows).data)
    assert [f for f in validate(out) if f.severity == "error"] == []


def test_other_readers_read_what_was_put_into_an_order(cohort, tmp_path):
    zarr = pytest.importorskip("zarr")
    order = TileOrder(len(imc(cohort)), "random", seed=1)
    out = tmp_path / "packed"
    pack(cohort, out, tile_size=SIZE, order=order)
    for modality in ("imc", "he"):
        for tissue in "ab":
            place = f"{modality}/1_0mpp/images/{tissue}.ome.zarr"
            with MultiscaleImage.open(cohort / place) as image:
                expected = image.level(0)[...]
            found = zarr.open_group(out / place, mode="r")["0"][...]
            assert np.array_equal(found, expected)
            with MultiscaleImage.open(out / place) as image:
                assert np.array_equal(image.level(0)[...], expected)


def test_an_order_may_be_made_of_the_number_of_tiles(cohort, tmp_path, monkeypatch):
    opened = []

    def counted(*args):
        opened.append(args)
        return open_tiles(*args)

    monkeypatch.setattr("microtome.packing._pack.open_tiles", counted)
    count = len(imc(cohort))
    options = {"tile_size": SIZE, "modalities": ["imc"]}
    done = pack(cohort, tmp_path / "p", order=lambda n: TileOrder(n, "random", seed=3), **options)
    assert len(opened) == 1
    # The same one, given as it is.
    given = TileOrder(count, "random", seed=3)
    assert pack(cohort, tmp_path / "p", order=given, **options) == done
    rows = given.rows(0, count)
    assert np.array_equal(batches(imc(tmp_path / "p")), batches(imc(cohort))[rows])


def test_an_order_that_is_no_permutation_of_the_table_is_refused(cohort, tmp_path):
    count = len(imc(cohort))
    with pytest.raises(InvalidInputError, match=f"{count + 1} positions over {count + 1} tiles"):
        pack(cohort, tmp_path / "packed", tile_size=SIZE, order=TileOrder(count + 1))
    twice = WeightedOrder(np.ones(count), epoch_length=count, seed=1)
    with pytest.raises(InvalidInputError, match="some tiles twice and others not at all"):
        pack(cohort, tmp_path / "packed", tile_size=SIZE, order=twice)
    assert list(tmp_path.iterdir()) == []


def test_an_index_of_the_table_as_it_was_does_not_come_along(cohort, tmp_path):
    copied, out = tmp_path / "cohort", tmp_path / "packed"
    shutil.copytree(cohort, copied)
    tiling = f"tiling/1_0mpp/default/{SIZE}_tile_coordinates"
    TileTable.build_index(copied / f"{tiling}.parquet", tile_size=SIZE)
    count = len(imc(copied))
    pack(copied, out, tile_size=SIZE, order=TileOrder(count, "random", seed=2))
    assert (copied / f"{tiling}.arrow").is_file()
    assert not (out / f"{tiling}.arrow").exists()
