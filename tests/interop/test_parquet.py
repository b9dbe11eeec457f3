"""`write_tiles_parquet`: rows of pixels and places, read by pyarrow and by Hugging Face's `datasets`."""

from __future__ import annotations

import json

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import ExistsError, InvalidInputError, UnknownNameError
from microtome.interop import write_tiles_parquet
from microtome.sources import open_image
from microtome.tiling import TileTable

RNG = np.random.default_rng(0)
COLOURS = {name: RNG.integers(0, 256, (3, 90, 110), np.uint8) for name in ("t1", "t2")}
TILES = TileTable.from_columns(
    {
        # Tissues by turns: the order of the table is that of the rows.
        "tissue_id": ["t1", "t2", "t1", "t1"],
        "tile_id": [3, 3, 8, 9],
        "row": [0, 33, -7, 70],
        "col": [0, 41, 90, -12],
        "tissue_frac": [0.5, 1.0, None, 0.25],
        "grade": ["low", "high", None, "low"],
    },
    tile_size=(32, 24),
    strategy="grid",
    resolution="0_5mpp",
)


def opened(pixels, mpp=(0.5, 0.25), names=None):
    axes = "yx" if pixels.ndim == 2 else "cyx"
    return open_image(pixels, axes=axes, mpp=mpp, channel_names=names)


def window(pixels, row, col, height=32, width=24):
    wide = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + [(50, 50), (50, 50)])
    return wide[..., row + 50 : row + 50 + height, col + 50 : col + 50 + width]


def pictures():
    return {name: opened(pixels, names=["r", "g", "b"]) for name, pixels in COLOURS.items()}


def test_a_row_is_a_picture_and_its_place(tmp_path):
    told = []
    path = write_tiles_parquet(
        pictures(), TILES, tmp_path / "a.parquet", progress=lambda *what: told.append(what)
    )
    assert path == tmp_path / "a.parquet"
    assert told[-1] == ("write", 4, 4)
    table = pq.read_table(path)
    columns = table.drop(["image"]).to_pydict()
    assert columns == {
        "tissue_id": ["t1", "t2", "t1", "t1"],
        "tile_id": [3, 3, 8, 9],
        "row": [0, 33, -7, 70],
        "col": [0, 41, 90, -12],
        "height": [32] * 4,
        "width": [24] * 4,
        "level": [0] * 4,
        "x": [0.0, 41 * 0.25, 22.5, -3.0],
        "y": [0.0, 16.5, -3.5, 35.0],
        "mpp_x": [0.25] * 4,
        "mpp_y": [0.5] * 4,
        "channel_names": [["r", "g", "b"]] * 4,
        "tissue_frac": [0.5, 1.0, None, 0.25],
        "grade": ["low", "high", None, "low"],
    }
    for row in table.to_pylist():
        found = np.moveaxis(imagecodecs.png_decode(row["image"]["bytes"]), -1, 0)
        expected = window(COLOURS[row["tissue_id"]], row["row"], row["col"])
        np.testing.assert_array_equal(found, expected)
        assert row["image"]["path"] == f"{row['tissue_id']}_{row['tile_id']}.png"
    about = {key.decode(): json.loads(value) for key, value in table.schema.metadata.items()}
    assert about["microtome"]["resolution"] == "0_5mpp"
    assert about["huggingface"]["info"]["features"]["image"] == {"_type": "Image"}


@settings(max_examples=15)
@given(data=st.data())
def test_raw_bytes_are_the_pixels_of_any_type(tmp_path_factory, data):
    dtype = np.dtype(data.draw(st.sampled_from(["u1", "u2", "i2", "f4", "f8"])))
    panels = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    pixels = {
        f"t{n}": RNG.integers(0, 200, (channels, 60, 70)).astype(dtype)
        for n, channels in enumerate(panels)
    }
    owners = data.draw(st.lists(st.sampled_from(sorted(pixels)), min_size=1, max_size=40))
    starts = RNG.integers(-10, 55, (len(owners), 2))
    tiles = TileTable.from_columns(
        {"tissue_id": owners, "row": starts[:, 0], "col": starts[:, 1]},
        tile_size=(20, 16),
        strategy="random",
    )
    images = {name: opened(array, mpp=None) for name, array in pixels.items()}
    path = tmp_path_factory.mktemp("raw") / "b.parquet"
    write_tiles_parquet(images, tiles, path, codec="raw")
    rows = pq.read_table(path).to_pylist()
    assert [row["tissue_id"] for row in rows] == owners
    for row, (top, left) in zip(rows, starts, strict=True):
        assert (row["x"], row["mpp_y"]) == (None, None)
        kept = np.frombuffer(row["pixels"], np.dtype(row["dtype"]).newbyteorder("<"))
        expected = window(pixels[row["tissue_id"]], top, left, 20, 16)
        assert row["dtype"] == dtype.name
        np.testing.assert_array_equal(kept.reshape(row["shape"]), expected)


def test_what_no_picture_holds_is_raw_by_default(tmp_path):
    five = opened(np.ones((5, 90, 110), np.uint16))
    path = write_tiles_parquet({"t1": five, "t2": five}, TILES, tmp_path / "a.parquet")
    assert set(pq.read_schema(path).names) >= {"pixels", "shape", "dtype"}
    # Ragged panels: what was measured differs, and each row says what it has.
    assert pq.read_table(path)["shape"].to_pylist() == [[5, 32, 24]] * 4


def test_a_coarser_level_and_16_bit(tmp_path):
    fine = RNG.integers(0, 60000, (90, 110), np.uint16)
    image = open_image(fine, axes="yx", mpp=0.5)
    path = write_tiles_parquet(
        {"t1": image, "t2": image}, TILES, tmp_path / "a.parquet", level=-1, codec="png"
    )
    row = pq.read_table(path).to_pylist()[1]
    decoded = imagecodecs.png_decode(row["image"]["bytes"])
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, window(fine, 33, 41))
    assert row["channel_names"] is None


def test_row_groups_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("microtome.interop._parquet._GROUP_ROWS", 50)
    many = TileTable.from_columns(
        {"tissue_id": "t1", "row": np.arange(170) % 60, "col": np.arange(170) % 70},
        tile_size=8,
        strategy="grid",
    )
    path = write_tiles_parquet(pictures(), many, tmp_path / "a.parquet")
    groups = pq.ParquetFile(path).metadata
    sizes = [groups.row_group(n).num_rows for n in range(groups.num_row_groups)]
    assert sum(sizes) == 170
    assert max(sizes) < 50 + 32  # at most one read more


def test_images_are_opened_one_after_the_other(tmp_path):
    asked = []

    class Shelf(dict):
        def __getitem__(self, name):
            asked.append(name)
            return super().__getitem__(name)

    order = TILES.table.take(pa.array([0, 2, 3, 1]))
    grouped = TileTable(order, TILES.tile_size, "grid")
    write_tiles_parquet(Shelf(pictures()), grouped, tmp_path / "a.parquet", codec="png")
    assert asked == ["t1", "t1", "t2"]  # the first to see what its pixels are


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    images, path = pictures(), tmp_path / "a.parquet"
    with pytest.raises(InvalidInputError, match=r"must end in \.parquet"):
        write_tiles_parquet(images, TILES, tmp_path / "a.pq")
    with pytest.raises(InvalidInputError, match="codec is one of"):
        write_tiles_parquet(images, TILES, path, codec="jpeg")
    with pytest.raises(UnknownNameError, match="no image of t2; there are images of t1"):
        write_tiles_parquet({"t1": images["t1"]}, TILES, path)
    mixed = {"t1": images["t1"], "t2": opened(np.ones((2, 90, 110), np.uint8))}
    with pytest.raises(InvalidInputError, match="2 channels of uint8; a PNG has"):
        write_tiles_parquet(mixed, TILES, path)
    taken = TileTable(
        TILES.table.append_column("level", pa.array([1, 2, 3, 4])), TILES.tile_size, "grid"
    )
    with pytest.raises(InvalidInputError, match="columns level have names"):
        write_tiles_parquet(images, taken, path)
    none = TileTable.from_columns(
        {"tissue_id": [], "row": [], "col": []}, tile_size=8, strategy="grid"
    )
    with pytest.raises(InvalidInputError, match="no tile"):
        write_tiles_parquet(images, none, path)
    planes = open_image(np.ones((4, 90, 110), np.uint8), axes="zyx", mpp=1.0)
    with pytest.raises(InvalidInputError, match="of one plane"):
        write_tiles_parquet({"t1": planes, "t2": planes}, TILES, path, codec="raw")
    assert list(tmp_path.iterdir()) == []
    write_tiles_parquet(images, TILES, path)
    before = path.read_bytes()
    with pytest.raises(ExistsError):
        write_tiles_parquet(images, TILES, path)
    with pytest.raises(InvalidInputError):
        write_tiles_parquet(mixed, TILES, path, overwrite=True)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.interop
def test_datasets_of_hugging_face_sees_pictures(tmp_path):
    datasets = pytest.importorskip("datasets", reason="`datasets` is installed by hand")
    path = write_tiles_parquet(pictures(), TILES, tmp_path / "a.parquet")
    found = datasets.load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(found.features["image"], datasets.Image)
    assert found["grade"][:] == ["low", "high", None, "low"]
    for row in found:
        expected = window(COLOURS[row["tissue_id"]], row["row"], row["col"])
        np.testing.assert_array_equal(np.moveaxis(np.asarray(row["image"]), -1, 0), expected)
    streamed = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    assert next(iter(streamed))["image"].size == (24, 32)
    raw = write_tiles_parquet(pictures(), TILES, tmp_path / "b.parquet", codec="raw")
    one = datasets.load_dataset(
        "parquet", data_files=str(raw), split="train", cache_dir=str(tmp_path / "cache")
    )[1]
    pixels = np.frombuffer(one["pixels"], one["dtype"]).reshape(one["shape"])
    np.testing.assert_array_equal(pixels, window(COLOURS["t2"], 33, 41))
