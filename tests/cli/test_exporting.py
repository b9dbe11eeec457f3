"""`microtome export`: each format holds what the cohort says, read with another reader than ours."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
import warnings
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from shapely.geometry import shape

import microtome as mt
from microtome.cohort import CohortLayout, open_tiles
from microtome.interop import CohortTiles, _cohort_coco

SIZE = 32
# Tiles at 1 um on a slide of 0.5 um per pixel.
SCALE = 2


def labels(height: int, width: int) -> Any:
    drawn = np.zeros((height, width), np.uint16)
    drawn[120:140, 100:130] = 1
    drawn[125:130, 105:110] = 0
    drawn[150:160, 140:180] = 2
    return drawn


@pytest.fixture(scope="session")
def made(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of two tissues of one slide under two names, coarser than it, with tiles and cells."""
    folder = tmp_path_factory.mktemp("exports")
    root = folder / "study"
    for tissue, split in (("a", "train"), ("b", "test")):
        source = shutil.copy(slide, folder / f"slide {tissue}.tif")
        image = mt.ingest(
            source, cohort=root, tissue_id=tissue, modality="he", resolution=1.0, split=split
        )
        height, width = image.level_shape(0)[-2:]
        mt.add_cell_masks(root, tissue, labels(height, width))
        cells = pa.table({"cell_id": [1, 2], "kind": ["T cell", "other"], "CD3": [7.5, 0.25]})
        mt.add_cells(root, cells.to_pandas(), tissue_id=tissue)
    mt.mask(root)
    mt.tile(root, tile_size=SIZE, method="grid", tolerance=0.5)
    return root


def table(root: Path) -> Any:
    layout = CohortLayout.open(root)
    return open_tiles(layout, layout.resolution(None), "grid", SIZE)


def pixels(root: Path, tissue: str) -> Any:
    """The stored pixels, padded as far as a tile may hang over."""
    image = mt.open_image(root / f"he/1_0mpp/images/{tissue}.ome.zarr")
    return np.pad(image.level(0)[...], ((0, 0), (0, SIZE), (0, SIZE)))


def tile_of(padded: Any, row: int, col: int) -> Any:
    return padded[:, row : row + SIZE, col : col + SIZE]


def done(run: Any, *arguments: object) -> list[Path]:
    found = run("export", *arguments)
    assert found.code == 0, found.err
    return [Path(line) for line in found.out.splitlines()]


def test_an_image_as_ome_tiff_by_both_names(run: Any, slide: Path, tmp_path: Path) -> None:
    for number, words in enumerate(((), ("ome-tiff",))):
        (path,) = done(run, *words, slide, tmp_path / f"{number}.ome.tif")
        np.testing.assert_array_equal(tifffile.imread(path), tifffile.imread(slide))


def test_a_format_that_there_is_none_of_is_told(run: Any, made: Path, slide: Path) -> None:
    for arguments, code, words in (
        (("qupath-tile", made, "x"), 1, "did you mean qupath-tiles?"),
        (("qupath-tile", made, "x", "--size", "32"), 1, "did you mean qupath-tiles?"),
        (("hdf", made), 1, "nor a format; formats are ome-tiff, qupath-tiles"),
        ((slide, "x.ome.tif", "y"), 2, "an image becomes one file, OUTPUT; got 'y' as well"),
        ((slide, "x.ome.tif", "--size", "3"), 2, "got '--size 3' as well"),
        ((made, "x.ome.tif"), 2, "is a cohort: name one of its images, such as"),
    ):
        found = run("export", *arguments)
        assert (found.code, found.out, words in found.err) == (code, "", True), found.err
    assert not any(Path(name).exists() for name in ("x", "x.ome.tif"))


def test_qupath_tiles(run: Any, made: Path, tmp_path: Path) -> None:
    paths = done(run, "qupath-tiles", made, tmp_path / "o")
    assert [path.name for path in paths] == ["a.geojson", "b.geojson"]
    tiles = table(made)
    for path in paths:
        features = json.loads(path.read_text())["features"]
        rows = tiles.for_tissue(path.stem).rows()
        assert len(features) == len(rows.row) > 20
        for feature, row, col in zip(features, rows.row, rows.col, strict=True):
            expected = tuple(SCALE * n for n in (col, row, col + SIZE, row + SIZE))
            geometry = shape(feature["geometry"])
            assert geometry.bounds == expected
            assert geometry.area == (SCALE * SIZE) ** 2
            assert feature["properties"]["objectType"] == "tile"
    # A slide that was scanned finer than the cohort knows.
    (finer,) = done(
        run, "qupath-tiles", made, tmp_path / "p", "--tissue", "a", "--source-mpp", "0.25"
    )
    first = shape(json.loads(finer.read_text())["features"][0]["geometry"])
    assert first.area == (4 * SIZE) ** 2


def test_qupath_cells(run: Any, made: Path, tmp_path: Path) -> None:
    paths = done(run, "qupath-cells", made, tmp_path / "o", "--classes", "kind", "--kind", "cell")
    assert [path.name for path in paths] == ["a.geojson", "b.geojson"]
    for path in paths:
        first, second = json.loads(path.read_text())["features"]
        assert shape(first["geometry"]).area == (20 * 30 - 25) * SCALE**2
        assert shape(first["geometry"]).bounds == (200, 240, 260, 280)
        assert shape(second["geometry"]).area == 400 * SCALE**2
        assert first["properties"]["objectType"] == "cell"
        assert first["properties"]["classification"]["name"] == "T cell"
        assert first["properties"]["measurements"]["CD3"] == 7.5


def test_trident(run: Any, made: Path, tmp_path: Path) -> None:
    paths = done(run, "trident", made, tmp_path / "job", "--magnification", "20")
    assert paths == [tmp_path / f"job/patches/slide {name}_patches.h5" for name in "ab"]
    rows = table(made).for_tissue("a").rows()
    with h5py.File(paths[0]) as file:
        coords, stated = file["coords"][:], dict(file["coords"].attrs)
    np.testing.assert_array_equal(coords, SCALE * np.stack([rows.col, rows.row], axis=1))
    # What TRIDENT computes a patch's side on the slide from.
    side = stated["patch_size"] * stated["level0_magnification"] / stated["target_magnification"]
    assert side == stated["patch_size_level0"] == SIZE * SCALE
    assert (stated["level0_width"], stated["level0_height"]) == (541, 613)


def test_patches_over_the_edge_of_a_slide_can_be_left_out(
    run: Any, made: Path, tmp_path: Path
) -> None:
    for verb, options in {"trident": ("--magnification", "20"), "clam": ()}.items():
        whole = done(run, verb, made, tmp_path / f"{verb}-all", *options)
        inside = done(run, verb, made, tmp_path / verb, *options, "--edge", "drop")
        for one, other in zip(whole, inside, strict=True):
            with h5py.File(one) as a, h5py.File(other) as b:
                coords, kept = a["coords"][:], b["coords"][:]
            expected = coords[(coords + SIZE * SCALE < np.array([541, 613]) + 2).all(axis=1)]
            assert 0 < len(kept) <= len(coords)
            np.testing.assert_array_equal(kept, expected)


def test_images_of_one_file_are_no_slides(run: Any, shared_data: Path, tmp_path: Path) -> None:
    root, mcd = tmp_path / "c", shared_data / "imc/raw/20210305_NE_mockData2.mcd"
    options = ("--cohort", root, "--tissue", "t", "--modality", "imc", "--image", "ROI_002")
    assert run("ingest", mcd, *options).code == 0
    assert run("mask", root, "--method", "whole").code == 0
    assert run("tile", root, "--size", "32").code == 0
    labels = np.ones(mt.open_image(root / "imc/1_0mpp/images/t.ome.zarr").level_shape(0)[-2:], int)
    mt.add_cell_masks(root, "t", labels.astype(np.uint16))
    for verb, words in {
        ("trident", "--magnification", "20"): "made from one of the images of",
        ("clam",): "made from one of the images of",
        ("coco",): "COCO cannot show it",
    }.items():
        found = run("export", verb[0], root, tmp_path / "out", *verb[1:])
        assert (found.code, found.out) == (2, ""), found.err
        assert words in found.err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "vectra.qptiff"])
def test_label_macro_and_thumbnail_are_no_slides(
    run: Any, shared_data: Path, tmp_path: Path, name: str
) -> None:
    root, source = tmp_path / "c", shared_data / "wsi" / name
    kind = "he" if name.endswith("svs") else "codex"
    mt.ingest(source, cohort=root, tissue_id="t", modality=kind, resolution=1.0)
    mt.mask(root, method="whole")
    mt.tile(root, tile_size=64, method="grid")
    opened = mt.open_image(source)
    rows = open_tiles(CohortLayout.open(root), mt.Resolution.parse("1_0mpp"), "grid", 64).rows()
    expected = np.rint(np.stack([rows.col / opened.mpp.x, rows.row / opened.mpp.y], axis=1))
    for verb in (("trident", "--magnification", "20"), ("clam",)):
        (path,) = done(run, verb[0], root, tmp_path / verb[0], *verb[1:])
        with h5py.File(path) as file:
            coords, stated = file["coords"][:], dict(file["coords"].attrs)
        np.testing.assert_array_equal(coords, expected)
        assert stated["name"] == source.stem
        side = stated.get("patch_size_level0", stated["patch_size"])
        assert side == round(64 / opened.mpp.x)
    # A tissue of the picture beside the slide is none of it.
    beside = (
        "--image",
        "Thumbnail",
        "--mpp",
        "8",
        "--resolution",
        "8",
        "--cohort",
        tmp_path / "d",
        "--modality",
        "he",
    )
    assert run("ingest", source, "--tissue", "t", *beside).code == 0
    assert run("mask", tmp_path / "d", "--method", "whole").code == 0
    assert run("tile", tmp_path / "d", "--size", "16").code == 0
    refused = run("export", "clam", tmp_path / "d", tmp_path / "out")
    assert (refused.code, "it is another image of that file" in refused.err) == (2, True)


def test_clam(run: Any, made: Path, slide: Path, tmp_path: Path) -> None:
    paths = done(run, "clam", made, tmp_path / "job", "--tissue", "b")
    assert paths == [tmp_path / "job/patches/slide b.h5"]
    rows = table(made).for_tissue("b").rows()
    whole = np.moveaxis(tifffile.imread(slide), -1, 0).astype(int)
    stored = pixels(made, "b").astype(int)
    with h5py.File(paths[0]) as file:
        coords, stated = file["coords"][:], file["coords"].attrs
        side = int(stated["patch_size"])
        assert (stated["patch_level"], side) == (0, SIZE * SCALE)
        for (x, y), row, col in zip(coords, rows.row, rows.col, strict=True):
            patch = whole[:, y : y + side, x : x + side]
            if patch.shape[1:] == (side, side):
                # The same tissue: a pixel of the cohort is the mean of these four of the slide.
                mean = patch.reshape(3, SIZE, 2, SIZE, 2).mean(axis=(2, 4))
                assert np.abs(mean - tile_of(stored, row, col)).max() <= 1
    assert "level" in run("export", "clam", made, tmp_path / "x", "--level", "9").err


def test_a_slide_is_called_as_its_file_without_the_last_ending(
    run: Any, slide: Path, tmp_path: Path
) -> None:
    # As TCGA calls them; TRIDENT and CLAM look for the whole of it.
    name = "TCGA-AA-0001-01Z-00-DX1.3e0a1f"
    source, root = tmp_path / f"{name}.tif", tmp_path / "study"
    shutil.copy(slide, source)
    mt.ingest(source, cohort=root, tissue_id="t", modality="he", resolution=1.0)
    mt.mask(root, method="whole")
    mt.tile(root, tile_size=SIZE, method="grid")
    (first,) = done(run, "trident", root, tmp_path / "job", "--magnification", "20")
    (second,) = done(run, "clam", root, tmp_path / "job")
    assert (first.name, second.name) == (f"{name}_patches.h5", f"{name}.h5")
    for path in (first, second):
        with h5py.File(path) as file:
            assert file["coords"].attrs["name"] == name


def test_webdataset(run: Any, made: Path, tmp_path: Path) -> None:
    tiles, keep = table(made), {name: pixels(made, name) for name in "ab"}
    paths = done(run, "webdataset", made, tmp_path / "s", "--shard-size", "30", "--shuffle", "4")
    seen = []
    for path in paths:
        with tarfile.open(path) as archive:
            files = {each.name: archive.extractfile(each).read() for each in archive}
        for key in sorted({name.split(".")[0] for name in files}):
            facts = json.loads(files[f"{key}.json"])
            array = np.load(io.BytesIO(files[f"{key}.npy"]))
            row, col = facts["region_spec"]["coords"]
            assert array.dtype == np.uint8
            np.testing.assert_array_equal(array, tile_of(keep[facts["tissue_id"]], row, col))
            seen.append((facts["tissue_id"], facts["tile_id"]))
    names = tiles.table["tissue_id"].to_pylist()
    there = list(zip(names, tiles.rows().tile_id.tolist(), strict=True))
    assert seen != there
    assert sorted(seen) == sorted(there)
    # Run again it has nothing to do, and another order is another job.
    before = [path.stat().st_mtime_ns for path in paths]
    again = ("webdataset", made, tmp_path / "s", "--shard-size", "30", "--shuffle")
    assert done(run, *again, "4") == paths
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert run("export", *again, "5").code == 1


def test_a_tiling_with_its_images_is_a_source_of_tiles_that_travels(made: Path) -> None:
    tiles = CohortTiles.open(made, split="test")
    assert list(tiles.images) == ["b"]
    stored, rows = pixels(made, "b"), tiles.tiles.rows()
    tiles.read_batch([0])  # what is open does not travel
    there = pickle.loads(pickle.dumps(tiles))
    assert there.images == tiles.images
    seen = 0
    for batch in mt.TileLoader(there, batch_size=8, seed=0, as_torch=False):
        for data, facts in zip(batch.data, batch.additional_metadata, strict=True):
            at = int(np.flatnonzero(rows.tile_id == facts["tile_id"])[0])
            np.testing.assert_array_equal(data, tile_of(stored, rows.row[at], rows.col[at]))
            seen += 1
    assert seen == len(tiles)


def test_coco(run: Any, made: Path, tmp_path: Path) -> None:
    paths = done(run, "coco", made, tmp_path / "o", "--classes", "kind", "--split", "test")
    assert paths == [tmp_path / "o/b/annotations.json"]
    about, rows = json.loads(paths[0].read_text()), table(made).for_tissue("b").rows()
    drawn = np.pad(labels(*pixels(made, "b").shape[1:]), ((0, SIZE), (0, SIZE)))
    shown = {
        number: drawn[row : row + SIZE, col : col + SIZE]
        for number, (row, col) in enumerate(zip(rows.row, rows.col, strict=True), 1)
    }
    expected = {
        (number, label, int((part == label).sum()))
        for number, part in shown.items()
        for label in (1, 2)
        if (part == label).any()
    }
    assert {(a["image_id"], a["label"], a["area"]) for a in about["annotations"]} == expected
    names = {each["id"]: each["name"] for each in about["categories"]}
    assert {(a["label"], names[a["category_id"]]) for a in about["annotations"]} == {
        (1, "T cell"),
        (2, "other"),
    }


def test_a_coco_job_goes_on_where_it_stopped(
    run: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o"
    whole = done(run, "coco", made, tmp_path / "whole")
    write, seen = _cohort_coco.write_coco, []

    def stopped(*arguments: Any, tissue_id: str, **more: Any) -> Any:
        seen.append(tissue_id)
        if tissue_id == "b" and seen.count("b") == 1:
            raise KeyboardInterrupt
        return write(*arguments, tissue_id=tissue_id, **more)

    monkeypatch.setattr(_cohort_coco, "write_coco", stopped)
    assert run("export", "coco", made, out).code == 130
    assert (out / "a/annotations.json").is_file()
    assert not (out / "b/annotations.json").exists()
    again = done(run, "coco", made, out)
    assert seen == ["a", "b", "b"]
    assert [path.read_text() for path in again] == [path.read_text() for path in whole]
    assert done(run, "coco", made, out) == again, "there is nothing left to do"
    assert seen == ["a", "b", "b"]
    other = run("export", "coco", made, out, "--classes", "kind")
    assert (other.code, "differs in: classes (none then, kind now)" in other.err) == (1, True)
    (out / "a/tiles.json").write_text("{")
    assert "is damaged" in run("export", "coco", made, out).err
    (out / "a/tiles.json").unlink()
    assert run("export", "coco", made, out).code == 1, "nobody knows what these are of"


@pytest.fixture
def changing(made: Path, tmp_path: Path) -> Path:
    """A copy of the cohort, to be changed."""
    shutil.copytree(made, tmp_path / "changing")
    return tmp_path / "changing"


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_an_export_is_no_longer_of_what_was_replaced_since(
    run: Any, changing: Path, tmp_path: Path
) -> None:
    coco = ("coco", changing, tmp_path / "coco", "--classes", "kind")
    shards = ("webdataset", changing, tmp_path / "shards", "--shard-size", "5")
    for job in (coco, shards):
        done(run, *job)
    inverted = 255 - mt.open_image(changing / "he/1_0mpp/images/b.ome.zarr").level(0)[...]
    height, width = inverted.shape[1:]

    def classes() -> None:
        known = pq.read_table(changing / "metadata/cells.parquet").to_pandas()
        known["kind"] = known["kind"].replace({"other": "stroma"})
        mt.add_cells(changing, pa.Table.from_pandas(known, preserve_index=False), overwrite=True)

    def mask() -> None:
        other = np.roll(labels(height, width), 3, axis=0)
        mt.add_cell_masks(changing, "b", other, overwrite=True)

    def image() -> None:
        options = {"axes": "cyx", "mpp": 1.0, "channel_names": ["red", "green", "blue"]}
        mt.ingest(
            inverted, cohort=changing, tissue_id="b", modality="he", overwrite=True, **options
        )

    for change, words, jobs in (
        (classes, "other classes of cells", [coco]),
        (mask, "another cell mask", [coco]),
        (image, "another image", [coco, shards]),
    ):
        change()
        for job in jobs:
            before = contents(job[2])
            refused = run("export", *job)
            assert (refused.code, words in refused.err) == (1, True), refused.err
            assert "--overwrite" in refused.err
            assert contents(job[2]) == before
            done(run, *job, "--overwrite")
            done(run, *job)  # it is that of the cohort again
            fresh = tmp_path / f"{job[0]}-{change.__name__}"
            done(run, job[0], changing, fresh, *job[3:])
            assert contents(job[2]) == contents(fresh)


def test_tissues_that_measured_different_channels(run: Any, tmp_path: Path) -> None:
    root, keep = tmp_path / "study", {}
    rng = np.random.default_rng(0)
    for tissue, names in (("a", ["DNA", "CD3", "CD8"]), ("b", ["DNA", "CD8"])):
        keep[tissue] = rng.integers(0, 60000, (len(names), 64, 64)).astype(np.uint16)
        mt.ingest(
            keep[tissue],
            axes="cyx",
            mpp=1.0,
            channel_names=names,
            cohort=root,
            tissue_id=tissue,
            modality="imc",
        )
    mt.mask(root, method="whole")
    mt.tile(root, tile_size=SIZE, method="grid")
    refused = run("export", "webdataset", root, tmp_path / "s")
    assert (refused.code, "--channel" in refused.err) == (2, True)
    (path,) = done(run, "webdataset", root, tmp_path / "t", "--channel", "CD8", "DNA")
    with tarfile.open(path) as archive:
        files = {each.name: archive.extractfile(each).read() for each in archive}
    assert len(files) == 16
    for name in [name for name in files if name.endswith("npy")]:
        facts = json.loads(files[name.replace("npy", "json")])
        assert facts["channel_names"] == ["CD8", "DNA"]
        row, col = facts["region_spec"]["coords"]
        whole = keep[facts["tissue_id"]][[-1, 0]]
        np.testing.assert_array_equal(
            np.load(io.BytesIO(files[name])), whole[:, row : row + SIZE, col : col + SIZE]
        )
    missing = run("export", "webdataset", root, tmp_path / "u", "--channel", "CD3")
    assert (missing.code, "'CD3'" in missing.err) == (2, True)


def test_parquet(run: Any, made: Path, tmp_path: Path) -> None:
    (path,) = done(run, "parquet", made, tmp_path / "t.parquet")
    rows, tiles = pq.read_table(path).to_pylist(), table(made)
    assert len(rows) == len(tiles)
    keep = {name: pixels(made, name) for name in "ab"}
    for row in rows[::7]:
        decoded = np.moveaxis(imagecodecs.png_decode(row["image"]["bytes"]), -1, 0)
        np.testing.assert_array_equal(
            decoded, tile_of(keep[row["tissue_id"]], row["row"], row["col"])
        )
        assert (row["x"], row["mpp_x"], row["level"]) == (float(row["col"]), 1.0, 0)
    assert run("export", "parquet", made, path).code == 1
    (train,) = done(run, "parquet", made, path, "--split", "train", "--overwrite")
    assert set(pq.read_table(train)["tissue_id"].to_pylist()) == {"a"}


def test_anndata(run: Any, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    vectors = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    given = pa.table(
        {
            "tissue_id": ["t", "t"],
            "tile_id": [0, 5],
            "centroid_y": [10.0, 20.0],
            "centroid_x": [1.0, 2.0],
            "embedding": vectors,
        }
    )
    pq.write_table(given, tmp_path / "v.parquet")
    (path,) = done(run, "anndata", tmp_path / "v.parquet", tmp_path / "v.h5ad")
    found = anndata.read_h5ad(path)
    np.testing.assert_array_equal(found.obsm["X_embedding"], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(found.obsm["spatial"], [[1, 10], [2, 20]])
    assert list(found.obs["tile_id"]) == [0, 5]
    refused = run(
        "export", "anndata", tmp_path / "v.parquet", tmp_path / "o.h5ad", "--variable", "a"
    )
    assert (refused.code, "--variable" in refused.err) == (2, True)


def test_the_cells_of_a_cohort_as_anndata(run: Any, tmp_path: Path) -> None:
    """The whole way: masks, the verb that measures them, the verb that exports what it measured."""
    anndata = pytest.importorskip("anndata")
    root, rng = tmp_path / "study", np.random.default_rng(0)
    pixels = rng.integers(0, 900, (2, 64, 64), np.uint16)
    for tissue, channels in (("a", 2), ("b", 1)):
        mt.ingest(
            pixels[:channels],
            axes="cyx",
            channel_names=["DNA", "CD3"][:channels],
            cohort=root,
            tissue_id=tissue,
            modality="imc",
            mpp=1.0,
            resolution=1.0,
        )
    refused = run("export", "anndata", root, tmp_path / "none.h5ad")
    assert (refused.code, "microtome cohort cells" in refused.err) == (1, True)
    mask = np.zeros((64, 64), np.uint16)
    mask[4:10, 8:20], mask[30:40, 30:31] = 1, 2
    for tissue in "ab":
        mt.add_cell_masks(root, tissue, mask)
    assert run("cohort", "cells", root, "--modality", "imc").code == 0
    kinds = pa.table({"cell_id": [1, 2], "checked": [True, None], "kind": ["T", None]})
    mt.add_cells(root, kinds, tissue_id="a")
    for source in (root, CohortLayout.open(root).cells):
        path = tmp_path / "c.h5ad"
        warned = run("export", "anndata", source, path, "--overwrite").err
        found = anndata.read_h5ad(path)
        assert list(found.obs_names) == ["a_1", "a_2", "b_1", "b_2"]
        assert set(found.var_names) == {"mean_DNA", "mean_CD3"}
        inside = [pixels[:, mask == cell].mean(1) for cell in (1, 2)]
        values = found[:, ["mean_DNA", "mean_CD3"]].X
        np.testing.assert_allclose(values[:2], inside, rtol=1e-6)
        # What was not measured is not 0.
        assert np.isnan(values[2:, 1]).all()
        # From the edge: the middle of the pixels 8 to 19 is 14.
        np.testing.assert_allclose(found.obsm["spatial"][0], [14.0, 7.0])
        assert found.obs["checked"].isna().tolist() == [False, True, True, True]
    assert "1 of 2 variables, mean_CD3 say" in warned
    assert "25 % of X is NaN" in warned
    (path,) = done(run, "anndata", root, tmp_path / "b.h5ad", "--tissue", "b")
    found = anndata.read_h5ad(path)
    assert (list(found.obs_names), list(found.var_names)) == (["b_1", "b_2"], ["mean_DNA"])
    assert np.isfinite(found.X).all()
    assert "mean_CD3" not in found.obs.columns
    assert found.obs["kind"].isna().all()
    other = run("export", "anndata", root, tmp_path / "c2.h5ad", "--tissue", "c")
    assert (other.code, "no cells of tissues ['c']" in other.err) == (2, True)
    wanted = ("--variable", "area_um2", "mean_DNA")
    (path,) = done(run, "anndata", root, tmp_path / "v.h5ad", *wanted)
    found = anndata.read_h5ad(path)
    assert list(found.var_names) == ["area_um2", "mean_DNA"]
    np.testing.assert_array_equal(found.X[:2, 0], [72, 10])


def test_cells_of_one_modality_as_anndata(run: Any, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    root, rng = tmp_path / "study", np.random.default_rng(0)
    mask = np.zeros((64, 64), np.uint16)
    mask[4:10, 8:20], mask[30:40, 30:31] = 1, 2
    for tissue, kind, names in (("a", "imc", ["DNA", "CD3"]), ("b", "mibi", ["DNA", "CD8", "CD4"])):
        mt.ingest(
            rng.integers(0, 900, (len(names), 64, 64), np.uint16),
            axes="cyx",
            channel_names=names,
            cohort=root,
            tissue_id=tissue,
            modality=kind,
            mpp=1.0,
            resolution=1.0,
        )
        mt.add_cell_masks(root, tissue, mask)
        assert run("cohort", "cells", root, "--modality", kind).code == 0
    for kind, tissue, names in (
        ("imc", "a", ["mean_DNA", "mean_CD3"]),
        ("mibi", "b", ["mean_DNA", "mean_CD8", "mean_CD4"]),
    ):
        path = tmp_path / f"{kind}.h5ad"
        found = run("export", "anndata", root, path, "--modality", kind)
        assert (found.code, "NaN" in found.err) == (0, False)
        made = anndata.read_h5ad(path)
        assert list(made.obs_names) == [f"{tissue}_1", f"{tissue}_2"]
        assert sorted(made.var_names) == sorted(names)
        assert np.isfinite(made.X).all()
        assert not [name for name in made.obs.columns if name.startswith("mean_")]
    for words, options in {
        "no cells of tissues imaged as cycif": (root, "--modality", "cycif"),
        "choose a modality of a cohort": (CohortLayout.open(root).cells, "--modality", "imc"),
    }.items():
        refused = run("export", "anndata", options[0], tmp_path / "x.h5ad", *options[1:])
        assert (refused.code, words in refused.err) == (2, True), refused.err


def test_a_tiling_as_anndata(run: Any, made: Path, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    layout = CohortLayout.open(made)
    place = layout.tile_coordinates(layout.resolution(None), "grid", str(SIZE))
    (path,) = done(run, "anndata", place, tmp_path / "t.h5ad", "--variable", "tissue_frac")
    found, rows = anndata.read_h5ad(path), table(made).rows()
    assert list(found.var_names) == ["tissue_frac"]
    expected = np.stack([rows.col + SIZE / 2, rows.row + SIZE / 2], axis=1)
    np.testing.assert_array_equal(found.obsm["spatial"], expected)
    refused = run("export", "anndata", place, tmp_path / "u.h5ad", "--tissue", "a")
    assert (refused.code, "is no table of cells" in refused.err) == (2, True)


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")  # what spatialdata says of its own dependencies
def test_a_store_of_spatialdata_is_written_without_a_warning_an_array(
    run: Any, made: Path, tmp_path: Path
) -> None:
    pytest.importorskip("spatialdata", reason="make spatialdata tests it")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        done(run, "spatialdata", made, tmp_path / "s.zarr", "--tissue", "a")
    assert [str(each.message) for each in told if "autosharding" in str(each.message)] == []


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")  # what spatialdata says of its own dependencies
def test_spatialdata(run: Any, made: Path, tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata", reason="make spatialdata tests it")
    (path,) = done(run, "spatialdata", made, tmp_path / "s.zarr", "--tissue", "a")
    found = spatialdata.read_zarr(path)
    assert set(found.images) == {"a"}
    assert set(found.labels) == {"a_cells"}
    padded = pixels(made, "a")
    picture = np.asarray(found.images["a"]["scale0"].image)
    np.testing.assert_array_equal(picture, padded[:, :-SIZE, :-SIZE])
    assert list(found.tables["table"].obs["cell_id"]) == [1, 2]
    assert len(found.shapes["a_tiles"]) == len(table(made).for_tissue("a"))
    refused = run("export", "spatialdata", made, path)
    assert refused.code == 1
    both = spatialdata.read_zarr(done(run, "spatialdata", made, tmp_path / "both.zarr")[0])
    assert set(both.images) == {"a", "b"}
    cells = both.tables["table"]
    assert cells.uns["spatialdata_attrs"]["region"] == ["a_cells", "b_cells"]
    assert list(zip(cells.obs["region"], cells.obs["cell_id"], strict=True)) == [
        *(("a_cells", 1), ("a_cells", 2)),
        *(("b_cells", 1), ("b_cells", 2)),
    ]
    for name in ("a_cells", "b_cells"):
        of_one = spatialdata.match_table_to_element(both, name, "table")
        assert of_one.obs["kind"].tolist() == ["T cell", "other"]


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")  # what spatialdata says of its own dependencies
def test_spatialdata_takes_names_of_measured_channels(run: Any, tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata", reason="make spatialdata tests it")
    root, names = tmp_path / "c", ["CD8 (158)", "cd8 [158]"]
    pixels = np.stack([np.full((40, 50), value, np.float32) for value in (2, 5)])
    mt.ingest(
        pixels, axes="cyx", mpp=1.0, channel_names=names, cohort=root, tissue_id="t", modality="imc"
    )
    mt.mask(root, method="whole")
    mt.tile(root, tile_size=16)
    labels = np.zeros((40, 50), np.uint16)
    labels[4:9, 6:12] = 1
    np.save(tmp_path / "cells.npy", labels)
    mt.add_cell_masks(root, "t", tmp_path / "cells.npy")
    assert mt.measure_cells(root, modality="imc") == 1
    (path,) = done(run, "spatialdata", root, tmp_path / "s.zarr")
    obs = spatialdata.read_zarr(path).tables["table"].obs
    assert obs["mean_CD8__158_"].tolist() == [2]
    assert obs["mean_cd8__158__2"].tolist() == [5]
    assert (obs["centroid_y"].item(), obs["centroid_x"].item()) == (6.5, 9.0)


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")  # what spatialdata says of its own dependencies
def test_spatialdata_keeps_the_channels_of_an_image_of_one_level(run: Any, tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata", reason="make spatialdata tests it")
    root, names = tmp_path / "c", ["CD3", "Ki-67"]
    mt.ingest(
        np.ones((2, 40, 50), np.float32),
        axes="cyx",
        mpp=1.0,
        channel_names=names,
        cohort=root,
        tissue_id="t",
        modality="imc",
    )
    mt.mask(root, method="whole")
    mt.tile(root, tile_size=16)
    (path,) = done(run, "spatialdata", root, tmp_path / "s.zarr")
    found = spatialdata.read_zarr(path).images["t"]
    assert found.shape == (2, 40, 50)
    assert found.coords["c"].values.tolist() == names
    assert mt.interop.from_spatialdata(path, "t").channel_names == tuple(names)


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore:Support for spatial types is experimental")
def test_soma(run: Any, slide: Path, tmp_path: Path) -> None:
    tiledbsoma = pytest.importorskip("tiledbsoma", reason="make soma tests it")
    (path,) = done(run, "soma", slide, tmp_path / "s.soma")
    with tiledbsoma.MultiscaleImage.open(str(path)) as image:
        found = image.read_spatial_region(0).data.to_numpy()
    np.testing.assert_array_equal(found, np.moveaxis(tifffile.imread(slide), -1, 0))


def test_what_is_not_there_is_told_and_nothing_is_written(
    run: Any, made: Path, tmp_path: Path
) -> None:
    def refused(code: int, words: str, *arguments: object) -> None:
        found = run("export", *arguments)
        assert (found.code, found.out) == (code, ""), found.err
        assert words in found.err
        assert "Traceback" not in found.err
        assert list(tmp_path.iterdir()) == []

    out = tmp_path / "o"
    refused(2, "no tiling fits", "parquet", made, tmp_path / "o.parquet", "--size", "64")
    refused(2, "which has grid 32", "qupath-tiles", made, out, "--strategy", "cover")
    refused(2, "no tissues ['c']", "coco", made, out, "--tissue", "c")
    refused(2, "in split 'val'", "trident", made, out, "--split", "val", "--magnification", "20")
    refused(2, "no column 'nothing'", "qupath-cells", made, out, "--classes", "nothing")
    refused(1, "is not there; say in which directory", "clam", made, out, "--slides", tmp_path)
    refused(2, "must be positive", "qupath-tiles", made, out, "--source-mpp", "0")
    refused(2, "not negative", "webdataset", made, out, "--shuffle", "-1")
    refused(2, "must end in .parquet", "parquet", made, out)
    refused(1, "no cohort", "parquet", tmp_path / "none", tmp_path / "o.parquet")


def test_several_tilings_or_one_slide_for_two_tissues(
    run: Any, made: Path, slide: Path, tmp_path: Path
) -> None:
    root = tmp_path / "study"
    shutil.copytree(made, root)
    mt.tile(root, tile_size=64, method="grid", tolerance=0.5)
    found = run("export", "qupath-tiles", root, tmp_path / "o")
    assert found.code == 2
    assert "several tilings fit" in found.err
    assert "grid 32, grid 64" in found.err
    assert done(run, "qupath-tiles", root, tmp_path / "o", "--size", "64")
    # Of one size there is one that is meant: what came from elsewhere is named.
    mt.tile(root, tile_size=64)
    assert CohortTiles.open(root, tile_size=64).tiles.strategy == "default"
    assert CohortTiles.open(root, tile_size=64, tile_strategy="grid").tiles.strategy == "grid"
    with pytest.raises(mt.errors.InvalidInputError, match="several tilings fit"):
        CohortTiles.open(root)
    before = (tmp_path / "o/b.geojson").read_bytes()
    (tmp_path / "o/a.geojson").unlink()
    found = run("export", "qupath-tiles", root, tmp_path / "o", "--size", "32")
    assert found.code == 1
    # One is in the way, so that none is written.
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["b.geojson"]
    assert (tmp_path / "o/b.geojson").read_bytes() == before
    mt.ingest(slide, cohort=root, tissue_id="a", modality="he", resolution=1.0, overwrite=True)
    mt.ingest(slide, cohort=root, tissue_id="b", modality="he", resolution=1.0, overwrite=True)
    found = run("export", "trident", root, tmp_path / "j", "--size", "32", "--magnification", "20")
    assert found.code == 2
    assert "several tissues are of a slide called 'slide'" in found.err


def test_what_was_exported_comes_back_as_a_tiling(run: Any, made: Path, tmp_path: Path) -> None:
    root = tmp_path / "study"
    shutil.copytree(made, root)
    there = done(run, "qupath-tiles", root, tmp_path / "o")
    h5 = done(run, "trident", root, tmp_path / "job", "--magnification", "20")
    clam = done(run, "clam", root, tmp_path / "job")
    tiles, layout = table(root), CohortLayout.open(root)

    def add(path: Path, tissue: str, *more: str) -> Any:
        return run("cohort", "add-tiles", root, path, "--tissue-id", tissue, *more)

    for name, files in (("qupath", there), ("trident", h5), ("clam", clam)):
        for tissue, path in zip("ab", files, strict=True):
            found = add(path, tissue)
            assert found.code == 0, found.err
            count = len(tiles.for_tissue(tissue))
            assert found.out == f"{tissue}: {count} tiles of 32 x 32 px, tiling {name}\n"
        back = open_tiles(layout, layout.resolution(None), name, SIZE)
        for tissue in "ab":
            ours, theirs = (each.for_tissue(tissue).rows() for each in (tiles, back))
            np.testing.assert_array_equal(theirs.row, ours.row)
            np.testing.assert_array_equal(theirs.col, ours.col)
    # A dataset reads it as any tiling.
    dataset = mt.HEImagingDataset("study", path=root, tile_size=SIZE, tile_strategy="clam")
    assert len(dataset) == len(tiles)
    assert run("cohort", "validate", root).code == 0

    # Rectangles that were drawn are annotations.
    drawn = tmp_path / "drawn.geojson"
    drawn.write_text(there[0].read_text().replace('"tile"', '"annotation"'))
    count = len(tiles.for_tissue("a"))
    refused = add(drawn, "a", "--strategy", "drawn")
    assert refused.code == 2
    assert f"drawn.geojson holds no tile, but {count} of kind annotation; " in refused.err
    assert "--kind" in refused.err
    assert add(drawn, "a", "--strategy", "drawn", "--kind", "annotation").code == 0
    mine = open_tiles(layout, layout.resolution(None), "drawn", SIZE).rows()
    np.testing.assert_array_equal(mine.row, tiles.for_tissue("a").rows().row)

    before = {path: path.read_bytes() for path in (root / "tiling").rglob("*.parquet")}
    again = add(there[0], "a")
    assert (again.code, "--overwrite" in again.err) == (1, True)
    assert add(there[0], "a", "--strategy", "grid").code == 1, "one of `tile` stays as it is"
    assert add(there[0], "c").code == 2
    assert add(tmp_path / "none.geojson", "a", "--overwrite").code == 1
    assert "neither GeoJSON" in add(root / "cohort.json.txt", "a").err
    wrong = add(there[0], "a", "--overwrite", "--source-mpp", "0.3")
    assert (wrong.code, "no rectangle on whole pixels" in wrong.err) == (2, True)
    far = json.loads(there[0].read_text())
    for feature in far["features"]:
        feature["geometry"]["coordinates"] = [
            [[x + 5000, y] for x, y in ring] for ring in feature["geometry"]["coordinates"]
        ]
    (tmp_path / "far.geojson").write_text(json.dumps(far))
    outside = add(tmp_path / "far.geojson", "a", "--overwrite")
    assert (outside.code, "shows nothing of the" in outside.err) == (2, True)
    assert {path: path.read_bytes() for path in (root / "tiling").rglob("*.parquet")} == before

    few = json.loads(there[0].read_text())
    few["features"] = few["features"][:3]
    (tmp_path / "few.geojson").write_text(json.dumps(few))
    assert add(tmp_path / "few.geojson", "a", "--overwrite").code == 0
    back = open_tiles(layout, layout.resolution(None), "qupath", SIZE)
    assert len(back.for_tissue("a")) == 3
    assert len(back.for_tissue("b")) == len(tiles.for_tissue("b"))
