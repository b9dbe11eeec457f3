"""`embed_tiles`: one row a tile in the order of the tiles, or no file at all."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.errors import InvalidInputError
from microtome.prediction import _embed, embed_tiles
from microtome.regions import Windows, read_regions, region_batch
from microtome.sources import open_image


class Tiles:
    """Tiles of an image in memory, as the datasets of a cohort give them."""

    def __init__(self, count=23, size=16, tile_id=int):
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 255, (3, 300, 280), np.uint8)
        self.image = open_image(self.pixels, axes="cyx", mpp=0.5)
        self.starts = rng.integers(0, 250, (count, 2))
        self.size = size
        self.tile_id = tile_id
        self.read = []

    def __len__(self):
        return len(self.starts)

    def read_batch(self, rows):
        self.read.append(rows.tolist())
        windows = Windows.of(0, self.starts[rows], self.size)
        data = read_regions([self.image], windows).astype(np.float32)
        facts = [{"tissue_id": f"t{row % 2}", "tile_id": self.tile_id(row)} for row in rows]
        return region_batch([self.image], windows, data, metadata=facts)

    def expected(self):
        return np.stack(
            [
                self.pixels[:, y : y + self.size, x : x + self.size].mean((1, 2))
                for y, x in self.starts
            ]
        )


def mean(batch):
    return batch.mean((2, 3))


@pytest.mark.parametrize("batch_size", [1, 5, 23, 64])
@pytest.mark.parametrize("group", [1, 7, 4096])
def test_a_row_a_tile_in_their_order(tmp_path, monkeypatch, batch_size, group):
    monkeypatch.setattr(_embed, "_GROUP", group)
    tiles = Tiles()
    calls = []
    path = embed_tiles(
        mean,
        tiles,
        tmp_path / "deep" / "e.parquet",
        batch_size=batch_size,
        progress=lambda *c: calls.append(c),
    )
    table = pq.read_table(path)
    assert table.schema.names == [
        "tissue_id",
        "tile_id",
        "row",
        "col",
        "centroid_y",
        "centroid_x",
        "embedding",
    ]
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 3)
    assert table["tissue_id"].to_pylist() == [f"t{row % 2}" for row in range(23)]
    assert table["tile_id"].to_pylist() == list(range(23))
    assert np.array_equal(np.stack([table["row"], table["col"]], 1), tiles.starts)
    # Pixels of half a micrometre, counted from the edge.
    centres = np.stack([table["centroid_y"], table["centroid_x"]], 1)
    np.testing.assert_allclose(centres, (tiles.starts + 8) * 0.5)
    vectors = np.array(table["embedding"].to_pylist())
    np.testing.assert_allclose(vectors, tiles.expected(), rtol=1e-5)
    assert [row for rows in tiles.read for row in rows] == list(range(23))
    assert max(map(len, tiles.read)) == min(batch_size, 23)
    assert calls[-1] == ("embed", 23, 23)
    file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert max(sizes) <= max(group, batch_size)
    assert file.metadata.row_group(0).column(6).compression == "ZSTD"
    assert [p.name for p in path.parent.iterdir()] == ["e.parquet"]


def test_the_file_says_which_model(tmp_path):
    path = embed_tiles(mean, Tiles(), tmp_path / "e.parquet")
    note = json.loads(pq.read_schema(path).metadata[b"microtome"])
    assert note.pop("library_version")
    assert note.pop("settings")["tiles"] == 23
    assert note == {
        "format": "tile-embeddings",
        "version": 2,
        "micrometres_from": "upper left edge of the image",
        "model": f"{__name__}.mean",
    }


def test_tile_ids_may_be_names(tmp_path):
    table = pq.read_table(embed_tiles(mean, Tiles(tile_id="a{}".format), tmp_path / "e.parquet"))
    assert table["tile_id"].to_pylist()[:2] == ["a0", "a1"]


def test_a_model_with_embed_is_asked_through_it(tmp_path):
    torch = pytest.importorskip("torch")

    class Two(torch.nn.Module):
        def forward(self, batch):
            raise AssertionError("embed is what makes vectors")

        def embed(self, batch):
            assert not self.training
            assert torch.is_inference_mode_enabled()
            return batch.mean((2, 3))

    tiles = Tiles()
    table = pq.read_table(embed_tiles(Two(), tiles, tmp_path / "e.parquet"))
    np.testing.assert_allclose(
        np.array(table["embedding"].to_pylist()), tiles.expected(), rtol=1e-5
    )


def test_the_demo_model_embeds(tmp_path):
    pytest.importorskip("torch")
    from microtome.prediction import load_model

    model = load_model("demo")
    table = pq.read_table(embed_tiles(model, Tiles(), tmp_path / "e.parquet"))
    assert table.schema.field("embedding").type.list_size == len(model.feature_names)


class Later:
    """A model that misbehaves in its second batch."""

    def __init__(self, answer):
        self.answer = answer
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        return mean(batch) if self.calls == 1 else self.answer(batch)


def nan_in_the_third(batch):
    out = mean(batch)
    out[2, 1] = np.nan
    return out


def broken(batch):
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            nan_in_the_third,
            InvalidInputError,
            r"NaN for tile 7 of tissue t1 at \(row, col\) \(\d+, \d+\)",
        ),
        (lambda b: b, InvalidInputError, r"\(5, D\), a vector a tile, got \(5, 3, 16, 16\)"),
        (lambda b: mean(b)[1:], InvalidInputError, r"got \(4, 3\)"),
        (lambda b: mean(b)[:, :0], InvalidInputError, r"got \(5, 0\)"),
        (lambda b: mean(b)[:, :2], InvalidInputError, "2 numbers for tile 5 .*before that 3"),
        (lambda b: None, InvalidInputError, "NoneType"),
        (broken, RuntimeError, "out of memory"),
    ],
)
def test_a_failure_leaves_no_file_and_keeps_the_old_one(tmp_path, answer, error, message):
    path = tmp_path / "e.parquet"
    with pytest.raises(error, match=message) as raised:
        embed_tiles(Later(answer), Tiles(), path, batch_size=5)
    assert list(tmp_path.iterdir()) == []
    if error is RuntimeError:
        assert "from tile 5 of tissue t1" in str(raised.value)
    path.write_text("older")
    with pytest.raises(error):
        embed_tiles(Later(answer), Tiles(), path, batch_size=5)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["older"]


def test_a_wrong_request_is_refused(tmp_path):
    for tiles, options in ((Tiles(count=0), {}), (Tiles(), {"batch_size": 0})):
        with pytest.raises(InvalidInputError, match="give at least 1"):
            embed_tiles(mean, tiles, tmp_path / "e.parquet", **options)
    nameless = Tiles()
    nameless.read_batch = lambda rows: Tiles.read_batch(nameless, rows)._replace(
        additional_metadata=[{"tile_id": 1}] * len(rows)
    )
    with pytest.raises(InvalidInputError, match="tile 0 has no tissue_id"):
        embed_tiles(mean, nameless, tmp_path / "e.parquet")
    with pytest.raises(InvalidInputError, match="a model is"):
        embed_tiles("demo", Tiles(), tmp_path / "e.parquet")
    assert list(tmp_path.iterdir()) == []
