"""H&E and IHC datasets against crops of the stored pixels, standardized by hand."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cohort import (
    BaseImagingDataset,
    DatasetOptions,
    HEImagingDataset,
    SingleIHCImagingDataset,
    ingest,
    mask,
    tile,
)
from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    OutOfRangeError,
    UnknownNameError,
)
from microtome.image import MultiscaleImage

MEAN_STD = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "hibou": ([0.7068, 0.5755, 0.722], [0.195, 0.2316, 0.1816]),
    "identity": ([0, 0, 0], [1, 1, 1]),
    "raw": ([0, 0, 0], [1 / 255] * 3),
}


def by_hand(
    pixels: np.ndarray, row: int, col: int, size: tuple[int, int], preset: str = "imagenet"
) -> np.ndarray:
    """Crop, standardize in doubles, and only then fill with 0 what lies outside."""
    mean, std = (np.asarray(v).reshape(3, 1, 1) for v in MEAN_STD[preset])
    out = np.zeros((3, *size))
    for y in range(size[0]):
        for x in range(size[1]):
            if 0 <= row + y < pixels.shape[1] and 0 <= col + x < pixels.shape[2]:
                out[:, y, x] = pixels[:, row + y, col + x]
    inside = np.zeros(size, bool)
    rows = slice(max(-row, 0), max(min(size[0], pixels.shape[1] - row), 0))
    columns = slice(max(-col, 0), max(min(size[1], pixels.shape[2] - col), 0))
    inside[rows, columns] = True
    return np.where(inside, (out / 255 - mean) / std, 0)


def same(found: Any, expected: np.ndarray) -> None:
    found = np.asarray(found)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.fixture
def tiled(he: Any) -> tuple[Path, dict[str, np.ndarray]]:
    root, pixels = he
    mask(root)
    tile(root, tile_size=64, method="grid", strategy="default", tolerance=0.9)
    return root, pixels


def rows_of(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "tiling/0_5mpp/default/64_tile_coordinates.parquet").to_pylist()


@pytest.mark.parametrize("preset", MEAN_STD)
def test_tiles_equal_crops(tiled: Any, preset: str) -> None:
    root, pixels = tiled
    dataset = HEImagingDataset("c", path=root, resolution=0.5, tile_size=64, mean_std_type=preset)
    rows = rows_of(root)
    assert len(dataset) == len(rows) > 10
    hanging = 0
    for number, row in enumerate(rows):
        where = row["row"], row["col"], (64, 64)
        expected = by_hand(pixels[row["tissue_id"]], *where, preset)
        found = dataset.get_tile(row["tissue_id"], row["tile_id"])
        same(found.image, expected)
        same(dataset[number].data, expected)
        for region in (found.region, dataset[number]):
            assert region.additional_metadata["tile_id"] == row["tile_id"]
            assert region.additional_metadata["tissue_id"] == row["tissue_id"]
        assert (found.tissue_id, found.kind, found.channels) == (row["tissue_id"], "tile", "RGB")
        height, width = pixels[row["tissue_id"]].shape[-2:]
        hanging += row["row"] + 64 > height or row["col"] + 64 > width
        spec = dataset[number].region_spec
        assert tuple(spec["coords"]) == (row["row"], row["col"])
        assert tuple(spec["patch_size"]) == (64, 64)
        told = dataset[number].additional_metadata
        assert told["tissue_id"] == row["tissue_id"]
        assert told["tile_id"] == row["tile_id"]
        assert told["mpp"] == (0.5, 0.5)
        assert told["channel_names"] == ("red", "green", "blue")
    assert hanging > 2, "the test wants tiles that hang over the edge"


def test_a_tile_is_found_by_its_key_wherever_its_row_is(tiled: Any) -> None:
    root, pixels = tiled
    path = root / "tiling/0_5mpp/default/64_tile_coordinates.parquet"
    table = pq.read_table(path)
    order = np.random.default_rng(0).permutation(table.num_rows)
    keys = table["tile_id"].to_numpy() * 7 + 3
    shuffled = table.set_column(table.column_names.index("tile_id"), "tile_id", [keys]).take(order)
    pq.write_table(shuffled, path)
    dataset = HEImagingDataset("c", path=root, resolution=0.5, tile_size=64)
    for number, row in enumerate(shuffled.to_pylist()):
        expected = by_hand(pixels[row["tissue_id"]], row["row"], row["col"], (64, 64))
        same(dataset.get_tile(row["tissue_id"], row["tile_id"]).image, expected)
        same(dataset[number].data, expected)
    with pytest.raises(UnknownNameError, match="no tile 1;"):
        dataset.get_tile("t1", 1)
    with pytest.raises(KeyError):
        dataset.get_tile("t1", -1)


@pytest.mark.parametrize(
    ("row", "col"), [(0, 0), (5, 9), (-10, -20), (280, 250), (-63, 0), (300, 276)]
)
def test_tiles_by_coordinates(tiled: Any, row: int, col: int) -> None:
    root, pixels = tiled
    dataset = HEImagingDataset("c", path=root, resolution=0.5, tile_size=64)
    found = dataset.get_tile_by_coordinates("t1", row, col)
    same(found.image, by_hand(pixels["t1"], row, col, (64, 64)))
    turned = dataset.get_tile_by_coordinates("t1", row, col, image_mode="HWC")
    assert turned.image.shape == (64, 64, 3)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(turned.image), -1, 0), found.image)


@pytest.mark.parametrize(("row", "col"), [(-64, 0), (301, 0), (0, 277), (1000, -900)])
def test_a_tile_that_shows_nothing_is_refused(tiled: Any, row: int, col: int) -> None:
    root, _ = tiled
    dataset = HEImagingDataset("c", path=root, resolution=0.5, tile_size=64)
    with pytest.raises(OutOfRangeError, match=r"outside tissue 't1', whose image has \(301, 277\)"):
        dataset.get_tile_by_coordinates("t1", row, col)
    path = root / "tiling/0_5mpp/default/64_tile_coordinates.parquet"
    table = pq.read_table(path).to_pylist()
    table[3] |= {"row": row, "col": col}
    pq.write_table(pa.Table.from_pylist(table), path)
    dataset = HEImagingDataset("c", path=root, resolution=0.5, tile_size=64)
    key = table[3]["tissue_id"], table[3]["tile_id"]
    with pytest.raises(OutOfRangeError, match=f"tile {key[1]} at "):
        dataset.get_tile(*key)
    with pytest.raises(OutOfRangeError, match=f"tile {key[1]} at "):
        dataset.read_batch(np.arange(6))


@pytest.mark.parametrize("wrong", ["0", 1.5, None])
def test_a_tile_id_is_a_number(tiled: Any, wrong: Any) -> None:
    dataset = HEImagingDataset("c", path=tiled[0], resolution=0.5, tile_size=64)
    with pytest.raises(InvalidInputError, match="whole number"):
        dataset.get_tile("t1", wrong)


def test_whole_tissues(he: Any) -> None:
    root, pixels = he
    dataset = HEImagingDataset("c", path=root, resolution=0.5)
    assert len(dataset) == 2
    assert dataset.get_tissue_ids().tolist() == ["t1", "t2"]
    for number, (name, source) in enumerate(pixels.items()):
        expected = by_hand(source, 0, 0, source.shape[-2:])
        found = dataset.get_tissue(name)
        assert found.kind == "tissue"
        same(found.image, expected)
        same(dataset[number].data, expected)
        turned = np.asarray(dataset.get_tissue(name, image_mode="HWC").image)
        same(np.moveaxis(turned, -1, 0), expected)
    same(dataset[-1].data, by_hand(pixels["t2"], 0, 0, pixels["t2"].shape[-2:]))
    with pytest.raises(InvalidInputError, match="tile_size"):
        dataset.read_batch([0])
    with pytest.raises(InvalidInputError, match="tile_size"):
        dataset.get_tile("t1", 0)
    with pytest.raises(InvalidInputError, match="tile_size"):
        dataset.get_tile_by_coordinates("t1", 0, 0)
    with pytest.raises(OutOfRangeError):
        dataset[2]
    with pytest.raises(InvalidInputError, match="image_mode"):
        dataset.get_tissue("t1", image_mode="WHC")  # type: ignore[arg-type]


def test_results_are_tensors(tiled: Any) -> None:
    torch = pytest.importorskip("torch")
    dataset = HEImagingDataset("c", path=tiled[0], resolution=0.5, tile_size=64)
    image = dataset.get_tile("t1", 0).image
    assert isinstance(image, torch.Tensor)
    assert image.dtype == torch.float32
    assert dataset.get_tissue("t2", image_mode="HWC").image.shape == (190, 333, 3)


def test_batches_hold_what_single_tiles_hold(tiled: Any) -> None:
    root, _ = tiled
    dataset = HEImagingDataset("c", path=root, resolution=0.5, tile_size=64)
    numbers = np.random.default_rng(1).permutation(len(dataset))[:12]
    batch = dataset.read_batch(numbers)
    assert batch.data.shape == (12, 3, 64, 64)
    assert batch.data.dtype == np.float32
    for place, number in enumerate(numbers.tolist()):
        one = dataset[number]
        np.testing.assert_array_equal(batch.data[place], one.data)
        assert batch.source[place] == one.source
        assert tuple(batch.region_spec["coords"][place]) == tuple(one.region_spec["coords"])
        assert batch.additional_metadata[place] == one.additional_metadata
    np.testing.assert_array_equal(dataset.read_batch([-1]).data[0], dataset[len(dataset) - 1].data)
    listed = dataset.__getitems__(numbers.tolist())
    assert [tuple(r.region_spec["coords"]) for r in listed] == [
        tuple(c) for c in batch.region_spec["coords"]
    ]
    assert dataset.read_batch([]).data.shape[0] == 0
    for number in (len(dataset), -len(dataset) - 1):
        with pytest.raises(OutOfRangeError, match="outside"):
            dataset[number]
        with pytest.raises(IndexError):
            dataset.read_batch([0, number])


def test_a_split_keeps_its_tissues_and_their_tiles(tiled: Any) -> None:
    root, pixels = tiled
    rows = rows_of(root)
    for split, name in (("train", "t1"), ("test", "t2")):
        dataset = HEImagingDataset("c", path=root, resolution=0.5, tile_size=64, split=split)
        mine = [row for row in rows if row["tissue_id"] == name]
        assert len(dataset) == len(mine) > 0
        assert dataset.get_tissue_ids().tolist() == [name]
        assert dataset.tissue_modality_metadata["tissue_id"].to_pylist() == [name]
        for number, row in enumerate(mine):
            expected = by_hand(pixels[name], row["row"], row["col"], (64, 64))
            same(dataset[number].data, expected)
        other = "t2" if name == "t1" else "t1"
        with pytest.raises(UnknownNameError, match=f"{other!r}.*split {split!r}"):
            dataset.get_tile(other, 0)
    with pytest.raises(InvalidInputError, match=r"'valid'; there are \['test', 'train'\]"):
        HEImagingDataset("c", path=root, resolution=0.5, split="valid")
    path = root / "metadata/tissues.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["split"]), path)
    with pytest.raises(InvalidInputError, match="no column 'split'"):
        HEImagingDataset("c", path=root, resolution=0.5, split="train")


def test_a_split_is_that_of_the_modality(he: Any) -> None:
    # t1 trains as H&E and is held out as IHC.
    root, pixels = he
    ingest(
        np.moveaxis(pixels["t1"], 0, -1),
        axes="yxc",
        mpp=0.5,
        resolution=0.5,
        cohort=root,
        tissue_id="t1",
        modality="ihc_CD3",
        split="test",
    )
    stained = HEImagingDataset("c", path=root, resolution=0.5, split="test")
    assert stained.get_tissue_ids().tolist() == ["t2"]
    marked = SingleIHCImagingDataset("c", "CD3", path=root, resolution=0.5, split="test")
    assert marked.get_tissue_ids().tolist() == ["t1"]


def test_tiles_of_tissues_that_the_dataset_has_not(tiled: Any) -> None:
    # A tissue of another modality shares the table of tiles.
    root, pixels = tiled
    ingest(
        np.moveaxis(pixels["t1"], 0, -1),
        axes="yxc",
        mpp=0.5,
        resolution=0.5,
        cohort=root,
        tissue_id="t2",
        modality="ihc_CD3",
        overwrite=True,
    )
    dataset = SingleIHCImagingDataset("c", "CD3", path=root, resolution=0.5, tile_size=64)
    mine = [row for row in rows_of(root) if row["tissue_id"] == "t2"]
    assert len(dataset) == len(mine)
    assert dataset[0].additional_metadata["tissue_id"] == "t2"


def test_ihc(he: Any) -> None:
    root, pixels = he
    for name, source in pixels.items():
        ingest(
            np.moveaxis(source, 0, -1),
            axes="yxc",
            mpp=0.5,
            resolution=0.5,
            cohort=root,
            tissue_id=name,
            modality="ihc_PD-L1",
        )
    mask(root)
    tile(root, tile_size=64)
    for marker in ("PD-L1", "ihc_PD-L1"):
        dataset = SingleIHCImagingDataset("c", marker, path=root, resolution="0.5", tile_size=64)
        row = pq.read_table(root / "tiling/0_5mpp/default/64_tile_coordinates.parquet").to_pylist()[
            3
        ]
        found = dataset.get_tile(row["tissue_id"], row["tile_id"])
        same(found.image, by_hand(pixels[row["tissue_id"]], row["row"], row["col"], (64, 64)))
        assert found.channels == "PD-L1"
        assert dataset.get_tissue("t1").channels == "PD-L1"
        by_place = dataset.get_tile_by_coordinates(row["tissue_id"], row["row"], row["col"])
        np.testing.assert_array_equal(by_place.image, found.image)
    with pytest.raises(UnknownNameError, match="ihc_CD8"):
        SingleIHCImagingDataset("c", "CD8", path=root, resolution=0.5)


def test_masks_of_tissues(tiled: Any) -> None:
    root, pixels = tiled
    dataset = HEImagingDataset("c", path=root, resolution=0.5)
    found = dataset.get_tissue_mask("t2")
    stored = MultiscaleImage.open(root / "segmentations/0_5mpp/tissue_masks/t2.ome.zarr")
    assert found.tissue_id == "t2"
    assert found.mask.dtype == np.bool_
    np.testing.assert_array_equal(found.mask, stored.level(0)[...] != 0)
    assert found.mask.shape == pixels["t2"].shape[-2:]


# -- what is missing


def test_what_is_missing_is_named(he: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _ = he
    options: dict[str, Any] = {"path": root, "resolution": 0.5}
    dataset = HEImagingDataset("c", **options)
    with pytest.raises(NotFoundError, match="no tissue mask"):
        dataset.get_tissue_mask("t1")
    with pytest.raises(UnknownNameError, match="'t3'"):
        dataset.get_tissue("t3")
    with pytest.raises(InvalidInputError, match="microtome tile"):
        HEImagingDataset("c", tile_size=64, **options)
    with pytest.raises(InvalidInputError, match="needs a tile_size"):
        HEImagingDataset("c", tile_strategy="default", **options)
    with pytest.raises(InvalidInputError, match="0_5mpp"):
        HEImagingDataset("c", path=root, resolution=0.25)
    assert str(HEImagingDataset("c", path=root).resolution) == "0.5"  # the only one
    with pytest.raises(InvalidInputError, match="imagenet"):
        HEImagingDataset("c", mean_std_type="zscore", **options)
    with pytest.raises(NotFoundError, match="no cohort"):
        HEImagingDataset("c", path=tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(FormatError, match="no cohort"):
        HEImagingDataset("c", path=tmp_path / "other")
    monkeypatch.delenv("SPORA_DATASETS_DIR", raising=False)
    with pytest.raises(NotFoundError, match="SPORA_DATASETS_DIR"):
        HEImagingDataset("c", resolution=0.5)
    monkeypatch.setenv("SPORA_DATASETS_DIR", str(root.parent))
    assert len(HEImagingDataset(root.name, resolution=0.5)) == 2


def test_a_damaged_chunk_names_image_and_window(tiled: Any) -> None:
    root, _ = tiled
    (chunk,) = (root / "he/0_5mpp/images/t1.ome.zarr/0/c").rglob("0/0/0")
    data = bytearray(chunk.read_bytes())
    data[100:4000] = b"\xff" * 3900
    chunk.write_bytes(data)
    dataset = HEImagingDataset("c", path=root, resolution=0.5, tile_size=64)
    with pytest.raises(FormatError, match=r"t1\.ome\.zarr.*window at \["):
        dataset.read_batch(np.arange(len(dataset)))


def test_reading_changes_nothing(tiled: Any, tree: Any) -> None:
    root, _ = tiled
    before = tree(root)
    dataset = HEImagingDataset("c", path=root, resolution=0.5, tile_size=64)
    dataset.read_batch(np.arange(len(dataset)))
    dataset.get_tissue("t1")
    dataset.get_tissue_mask("t1")
    assert len(dataset.tissue_metadata) == 2
    assert "2 tissues" in repr(dataset)
    assert tree(root) == before


def test_the_seeds_arguments_go_by_their_names() -> None:
    names = list(inspect.signature(HEImagingDataset).parameters)
    assert names[0] == "name"
    options = {*names, *DatasetOptions.__annotations__}
    assert {"resolution", "path", "tile_size", "tile_strategy", "split", "mean_std_type"} < options
    # Every option that the type names, the dataset takes, and no other.
    taken = set(inspect.signature(BaseImagingDataset).parameters) - {"name", "modality"}
    assert taken == set(DatasetOptions.__annotations__)
    with pytest.raises(
        InvalidInputError, match=r"HEImagingDataset has no option 'tile_sise'; .*tile_size"
    ):
        HEImagingDataset("c", tile_sise=3)
