"""What was made of an image or a mask does not outlive it unnoticed, and is made anew alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from microtome.cohort import (
    CohortLayout,
    Finding,
    add_cell_masks,
    add_cells,
    ingest,
    ingest_manifest,
    mask,
    measure_cells,
    stats,
    tile,
    validate,
)
from microtome.coordinates import Resolution
from microtome.errors import ExistsError, FormatError
from microtome.image import MultiscaleImage
from microtome.packing import pack
from microtome.prediction import predict_cohort

Tree = Callable[[Path], dict[str, str]]

SIZE = 120
OPTIONS: dict[str, Any] = {"tile_size": 32, "method": "grid"}
TILES = "tiling/1_0mpp/grid/32_tile_coordinates.parquet"
MASKS = "segmentations/1_0mpp/tissue_masks"
STATS = "imc/1_0mpp/standardization/quantile_clipping/uq_0.99_image"
MANIFEST = f"{STATS}/manifest.json"


def counts(seed: int, side: int = 60) -> np.ndarray:
    """Two channels: a bright square of this side in the upper left corner, and noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.poisson(1, (2, SIZE, SIZE))
    pixels[:, :side, :side] += rng.poisson(200, (2, side, side))
    return pixels.astype(np.uint16)


def add(root: Path, tissue_id: str, pixels: np.ndarray, **options: Any) -> None:
    names = ["DNA", "CD3"]
    where: dict[str, Any] = {"cohort": root, "tissue_id": tissue_id, "modality": "imc"}
    ingest(pixels, axes="cyx", channel_names=names, mpp=1.0, **where, **options)


def fill(root: Path) -> None:
    mask(root)
    tile(root, **OPTIONS)
    stats(root)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    root = tmp_path / "c"
    for seed, name in enumerate("ab"):
        add(root, name, counts(seed))
    fill(root)
    return root


def stale(root: Path) -> list[Finding]:
    return [each for each in validate(root) if each.kind == "stale"]


def places(root: Path) -> set[str]:
    return {each.place for each in stale(root)}


def fresh(root: Path, tmp_path: Path, sources: dict[str, np.ndarray]) -> Path:
    """The cohort that one run makes of these sources."""
    other = tmp_path / "fresh" / root.name
    for name, pixels in sources.items():
        add(other, name, pixels)
    fill(other)
    return other


def same_derived(root: Path, other: Path) -> None:
    """Tiles, statistics and masks are byte for byte those of the other cohort."""
    for name in (TILES, TILES.replace("coordinates", "stats"), MANIFEST):
        assert (root / name).read_bytes() == (other / name).read_bytes(), name
    for directory in (MASKS, STATS):
        files = [p for p in sorted((other / directory).rglob("*")) if p.is_file()]
        assert files
        for path in files:
            mine = root / path.relative_to(other)
            assert mine.read_bytes() == path.read_bytes(), mine


def test_nothing_is_stale_that_was_just_made(made: Path) -> None:
    assert validate(made) == []


def test_another_image_is_told_of_all_that_was_made_of_the_old_one(made: Path) -> None:
    add(made, "a", counts(7), overwrite=True)
    found = {each.place: each for each in stale(made)}
    assert set(found) == {MASKS, TILES, STATS}
    for each in found.values():
        assert each.severity == "error"
        assert "another image of a, which has been replaced since" in each.what
    assert "tiles 'grid 32' were made of" in found[TILES].what
    # As they are to be pasted.
    tiles = f"microtome tile {made} --size 32 --method grid --resolution 1_0mpp`"
    assert tiles in found[TILES].advice
    assert f"microtome mask {made} --resolution 1_0mpp`" in found[MASKS].advice
    counted = f"microtome stats {made} --method quantile_clipping/uq_0.99_image`"
    assert counted in found[STATS].advice


def test_the_command_says_the_method_of_a_tiling_by_another_name(made: Path) -> None:
    cells = {"cell_id": [1], "centroid_y": [30.0], "centroid_x": [31.0]}
    for name in "ab":
        add_cells(made, {"tissue_id": [name], **cells})
    for method, strategy in (("cells", "on-cells"), ("grid", "default"), ("cover", "mine")):
        tile(made, tile_size=16, method=method, strategy=strategy)
    tile(made, tile_size=16, method="strips", strategy="lost")
    stats_of_lost = made / "tiling/1_0mpp/lost/16_tile_stats.parquet"
    stats_of_lost.write_bytes(b"damaged")
    add(made, "a", counts(7), overwrite=True)
    advice = {each.place: each.advice for each in stale(made)}
    for name, options in {
        "on-cells": "--method cells --strategy on-cells",
        "default": "--method grid --strategy default",
        "mine": "--method cover --strategy mine",
        "lost": "--strategy lost",
    }.items():
        found = advice[f"tiling/1_0mpp/{name}/16_tile_coordinates.parquet"]
        assert f"microtome tile {made} --size 16 {options} --resolution 1_0mpp`" in found


def test_what_is_stale_is_made_anew_and_nothing_else(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(made, "a", counts(7, 90), overwrite=True)
    kept = made / MASKS / "b.ome.zarr"
    before = {p: p.stat().st_mtime_ns for p in kept.rglob("*") if p.is_file()}
    done: list[str] = []

    def noting(what: str, _: int, total: int, /) -> None:
        done.append(f"{what} {total}")

    mask(made)
    tile(made, progress=noting, **OPTIONS)
    assert done == ["tile 1"], "b has its tiles"
    stats(made)
    assert stale(made) == []
    assert {p: p.stat().st_mtime_ns for p in kept.rglob("*") if p.is_file()} == before
    same_derived(made, fresh(made, tmp_path, {"a": counts(7, 90), "b": counts(1)}))


def test_what_is_made_anew_keeps_its_place(made: Path, tmp_path: Path) -> None:
    """The order of tissues is that of epochs: ids that are written anew do not go to the end."""
    add(made, "a", counts(7, 90), overwrite=True)
    mask(made)
    tile(made, tissues=["a"], overwrite=True, **OPTIONS)
    stats(made)
    other = fresh(made, tmp_path, {"a": counts(7, 90), "b": counts(1)})
    same_derived(made, other)
    for name in ("metadata/tissues.parquet", "imc/channels_per_tissue.parquet"):
        assert (made / name).read_bytes() == (other / name).read_bytes(), name


def test_a_tissue_that_measured_other_channels_keeps_its_place(made: Path) -> None:
    where: dict[str, Any] = {"cohort": made, "tissue_id": "a", "modality": "imc"}
    ingest(counts(7)[:1], axes="cyx", channel_names=["DNA"], mpp=1.0, overwrite=True, **where)
    rows = pq.read_table(made / "imc/channels_per_tissue.parquet").to_pylist()
    assert rows == [
        {"tissue_id": "a", "DNA": True, "CD3": False},
        {"tissue_id": "b", "DNA": True, "CD3": True},
    ]


def test_a_second_run_changes_nothing(made: Path, tree: Tree) -> None:
    add(made, "a", counts(7), overwrite=True)
    fill(made)
    before = tree(made)
    fill(made)
    assert tree(made) == before


def test_the_same_source_again_makes_nothing_stale(made: Path) -> None:
    add(made, "a", counts(0), overwrite=True)
    add(made, "a", counts(0), overwrite=True, codec="small")
    assert validate(made) == []


def test_a_new_tissue_is_added_to_tiles_and_statistics(made: Path, tmp_path: Path) -> None:
    add(made, "c", counts(2, 80))
    fill(made)
    every = {"a": counts(0), "b": counts(1), "c": counts(2, 80)}
    same_derived(made, fresh(made, tmp_path, every))


def test_another_mask_makes_tiles_and_statistics_stale(made: Path, tmp_path: Path) -> None:
    mask(made, method="whole", tissues=["a"], overwrite=True)
    found = {each.place: each.what for each in stale(made)}
    assert set(found) == {TILES, STATS}
    assert all("another tissue mask of a" in what for what in found.values())
    tile(made, **OPTIONS)
    stats(made)
    assert stale(made) == []
    tissues = pq.read_table(made / TILES)["tissue_id"].to_pylist()
    assert (tissues.count("a"), tissues.count("b")) == (16, 4)


def test_the_same_mask_again_makes_nothing_stale(made: Path) -> None:
    mask(made, overwrite=True)
    assert validate(made) == []


def test_an_archive_that_is_another_is_noticed(made: Path) -> None:
    shutil.rmtree(made / MASKS / "a.ome.zarr")
    np.savez_compressed(made / MASKS / "a.npz", mask=np.ones((SIZE, SIZE), bool))
    assert places(made) == {TILES, STATS}
    tile(made, **OPTIONS)
    stats(made)
    assert stale(made) == []
    np.savez_compressed(made / MASKS / "a.npz", mask=np.eye(SIZE, dtype=bool))
    assert places(made) == {TILES, STATS}


def test_other_settings_are_refused_and_not_mixed(made: Path, tree: Tree) -> None:
    add(made, "c", counts(2))
    mask(made)
    before = tree(made)
    with pytest.raises(ExistsError, match=r"other settings.*--overwrite"):
        tile(made, tolerance=0.2, **OPTIONS)
    assert tree(made) == before


def test_tables_that_do_not_say_what_they_were_made_of_are_never_stale(made: Path) -> None:
    path = made / TILES
    table = pq.read_table(path)
    kept = {k: v for k, v in table.schema.metadata.items() if k != b"microtome.made_of"}
    pq.write_table(table.replace_schema_metadata(kept), path)
    manifest = json.loads((made / MANIFEST).read_text())
    for each in manifest["tissues"].values():
        for name in ("image", "mask", "channels"):
            del each[name]
    (made / MANIFEST).write_text(json.dumps(manifest))
    add(made, "a", counts(7), overwrite=True)
    assert places(made) == {MASKS}
    with pytest.raises(ExistsError, match="does not say with which settings"):
        tile(made, **OPTIONS)
    with pytest.raises(ExistsError, match="nothing beside it says what it was made with"):
        stats(made)
    tile(made, overwrite=True, **OPTIONS)
    stats(made, overwrite=True)
    add(made, "a", counts(8), overwrite=True)
    assert places(made) == {MASKS, TILES, STATS}


def test_a_run_of_stats_that_was_killed_between_files_is_done_again(made: Path) -> None:
    upper = made / STATS / "image_level_upper_quantiles.parquet"
    old = upper.read_bytes()
    add(made, "a", counts(7), overwrite=True)
    fill(made)
    whole = upper.read_bytes()
    assert whole != old
    upper.write_bytes(old)
    stats(made)
    assert upper.read_bytes() == whole


def test_pixels_written_over_are_counted_anew(made: Path) -> None:
    before = (made / MANIFEST).read_text()
    place = CohortLayout.open(made).tissue_mask(Resolution.parse(1.0), "a")
    with MultiscaleImage.open(place, "w") as labels:
        labels.level(0)[...] = np.eye(SIZE, dtype=np.uint8)
    stats(made)
    now = json.loads((made / MANIFEST).read_text())
    assert now["tissues"]["a"]["pixels"] == SIZE
    assert now["tissues"]["b"] == json.loads(before)["tissues"]["b"]


def test_tiles_on_cells_follow_the_cells(made: Path, tmp_path: Path) -> None:
    def cells(shift: float) -> Path:
        path = tmp_path / "cells.csv"
        rows = [f"{t},{n},{20.0 + 5 * n + shift},30.0" for t in "ab" for n in (1, 2)]
        path.write_text("tissue_id,cell_id,centroid_y,centroid_x\n" + "\n".join(rows) + "\n")
        return path

    add_cells(made, cells(0))
    options: dict[str, Any] = {"tile_size": 16, "method": "cells"}
    first = tile(made, **options)
    assert stale(made) == []
    add_cells(made, cells(2), overwrite=True)
    (found,) = [each for each in stale(made) if each.place.startswith("tiling")]
    assert "other cells of a, b" in found.what
    second = tile(made, **options)
    assert [each for each in stale(made) if each.place.startswith("tiling")] == []
    np.testing.assert_array_equal(second.column("row"), first.column("row") + 2)


def test_tiles_on_cells_follow_the_mask_that_these_were_measured_in(made: Path) -> None:
    def squares(at: int, side: int = 6) -> np.ndarray:
        labels = np.zeros((SIZE, SIZE), np.int32)
        labels[at : at + side, at : at + side], labels[40:44, 10:14] = 1, 2
        return labels

    def told() -> list[str]:
        return [f"{e.severity} {e.what}" for e in stale(made) if e.place.startswith("tiling")]

    for name in "ab":
        add_cell_masks(made, name, squares(20))
    measure_cells(made)
    options: dict[str, Any] = {"tile_size": 16, "method": "cells"}
    first = tile(made, **options)
    assert stale(made) == []
    add_cell_masks(made, "a", squares(30), overwrite=True)
    (what,) = told()
    assert what.startswith("error tiles 'cells 16' were made of another cell mask of a, which")
    path = made / "tiling/1_0mpp/cells/16_tile_coordinates.parquet"
    before = path.read_bytes()
    with pytest.raises(FormatError, match=r"in another cell mask of a, .*`microtome cohort cells "):
        tile(made, **options)
    tile(made, tissues=["b"], **options)
    assert path.read_bytes() == before
    measure_cells(made)
    (what,) = told()
    assert "other cells of a and another cell mask of a" in what
    steps: list[tuple[str, int, int]] = []
    second = tile(made, progress=lambda *step: steps.append(step), **options)
    assert steps == [("tile", 1, 1)]
    moved = second.column("row") - first.column("row")
    assert moved.tolist() == [10, 0, 0, 0]
    assert stale(made) == []
    # Another mask in which the centres are the same.
    add_cell_masks(made, "a", squares(29, 8), overwrite=True)
    measure_cells(made)
    assert [what.split(",")[0] for what in told()] == [
        "error tiles 'cells 16' were made of another cell mask of a"
    ]
    np.testing.assert_array_equal(tile(made, **options).column("row"), second.column("row"))
    assert stale(made) == []


def test_cells_say_of_which_image_they_were(made: Path) -> None:
    cells = {"cell_id": [1], "centroid_y": [3.0], "centroid_x": [4.0]}
    for name in "ab":
        add_cells(made, {"tissue_id": [name], **cells})
    assert stale(made) == []
    add(made, "a", counts(7), overwrite=True)
    (found,) = [each for each in stale(made) if "cells" in each.place]
    assert (found.severity, found.place) == ("warning", "metadata/cells.parquet")
    assert "another imc image of a," in found.what
    add_cells(made, {"tissue_id": ["a"], **cells}, overwrite=True)
    assert "metadata/cells.parquet" not in places(made)


def test_cells_that_were_brought_say_of_which_mask_they_were(made: Path) -> None:
    labels = np.zeros((SIZE, SIZE), np.int32)
    labels[3:6, 3:6], labels[9, 9:12] = 1, 2
    add_cells(made, {"tissue_id": ["b"], "cell_id": [1], "type": ["B"]})
    for name in "ab":
        add_cell_masks(made, name, labels)
    add_cells(made, {"tissue_id": ["a"], "cell_id": [1], "type": ["T"]})
    measure_cells(made)
    assert stale(made) == []
    for name in "ab":
        add_cell_masks(made, name, labels.T, overwrite=True)
    found = [each for each in stale(made) if "cells.parquet" in each.place]
    assert [each.severity for each in found] == ["warning", "warning"]
    (brought,) = [each for each in found if "type" in each.what]
    # When those of b were added there was no mask.
    assert "type of cells were made of another cell mask of a, which" in brought.what
    assert "add them again" in brought.advice
    (measured,) = [each for each in found if each is not brought]
    assert measured.what.startswith("columns ")
    assert "of cells were made of another cell mask of b, a, which" in measured.what
    measure_cells(made, overwrite=True)
    add_cells(made, {"tissue_id": ["a"], "cell_id": [1], "type": ["T"]}, overwrite=True)
    assert stale(made) == []


def test_tiles_inside_annotations_follow_their_file(made: Path, tmp_path: Path) -> None:
    def areas(side: int) -> Path:
        for tissue in "ab":
            ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
            shape = {"type": "Polygon", "coordinates": [ring]}
            told = {"type": "Feature", "properties": {}, "geometry": shape}
            text = json.dumps({"type": "FeatureCollection", "features": [told]})
            (tmp_path / f"{tissue}.geojson").write_text(text)
        return tmp_path

    options: dict[str, Any] = {**OPTIONS, "strategy": "drawn"}
    one = tile(made, annotations=areas(32), **options)
    again = tile(made, annotations=areas(32), **options)
    assert again.table.equals(one.table)
    assert len(tile(made, annotations=areas(60), **options)) > len(one)


def test_cell_masks_say_of_which_image_they_were(made: Path) -> None:
    add_cell_masks(made, "a", np.eye(SIZE, dtype=np.int32))
    assert validate(made) == []
    add(made, "a", counts(7), overwrite=True)
    (found,) = [each for each in stale(made) if "cell_masks" in each.place]
    assert found.severity == "warning"
    assert "another imc image of a" in found.what
    add_cell_masks(made, "a", np.eye(SIZE, dtype=np.int32), overwrite=True)
    assert not any("cell_masks" in each for each in places(made))


def test_a_packed_cohort_knows_its_images(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    pack(made, out, tile_size=32, tile_strategy="grid")
    assert validate(out) == []
    add(out, "a", counts(7), overwrite=True)
    assert places(out) == {MASKS, TILES, STATS}


def test_an_image_taken_whole_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "c"
    for seed, name in enumerate("ab"):
        add(root, name, counts(seed, 30)[:, :60, :60])
    assert set(mask(root).values()) == {1.0}
    (told,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "2 of 2 multiplex images (a, b)" in told
    caplog.clear()
    mask(root)
    mask(root, method="whole", overwrite=True)
    assert not caplog.records


def test_ingest_says_what_has_become_stale(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    def told() -> list[str]:
        found = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        caplog.clear()
        return found

    told()
    add(made, "a", counts(7), overwrite=True)
    first = told()
    assert [text.split(":")[0] for text in first] == [MASKS, TILES, STATS]
    assert all("another image of a, which has been replaced since" in text for text in first)
    add(made, "a", counts(7), overwrite=True)
    add(made, "c", counts(9), overwrite=True)
    assert told() == [], "nothing was replaced, and of another tissue nothing was made yet"


def test_a_manifest_says_it_once_for_all(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seed in (("a", 7), ("b", 8)):
        np.save(tmp_path / f"{name}.npy", counts(seed))
    rows = "\n".join(f"{t},{t}.npy,imc,1.0,DNA|CD3,cyx" for t in "ab")
    table = tmp_path / "tissues.csv"
    table.write_text(f"tissue_id,path,modality,mpp,channel_names,axes\n{rows}\n")
    caplog.clear()
    ingest_manifest(table, made, overwrite=True)
    found = [r.getMessage() for r in caplog.records if "which has been replaced" in r.getMessage()]
    assert [text.split(":")[0] for text in found] == [MASKS, TILES, STATS]
    assert all("another image of a, b" in text for text in found)


class Vectors:
    """What a model of tiles makes: a picture, and a vector of each tile."""

    def __call__(self, batch: Any) -> Any:
        return np.asarray(batch, np.float32)[:, :1]

    def embed(self, batch: Any) -> Any:
        return np.asarray(batch, np.float32).mean((2, 3))


def test_vectors_of_tiles_say_of_which_images_and_tiles_they_are(tmp_path: Path) -> None:
    root = tmp_path / "c"

    def slide(tissue: str, seed: int, **options: Any) -> None:
        pixels = np.random.default_rng(seed).integers(60, 170, (3, SIZE, SIZE), dtype=np.uint8)
        where: dict[str, Any] = {"cohort": root, "tissue_id": tissue, "modality": "he"}
        ingest(pixels, axes="cyx", mpp=1.0, **where, **options)

    def told() -> list[tuple[str, str]]:
        return [(e.severity, e.what) for e in stale(root) if e.place.endswith("embeddings.parquet")]

    def vectors(**options: Any) -> None:
        predict_cohort(Vectors(), root, name="m", tile_size=64, overlap=0, **options)

    for seed, tissue in enumerate("ab"):
        slide(tissue, seed)
    mask(root, method="whole")
    tile(root, tile_size=32)
    vectors()
    assert (root / "predictions/1_0mpp/m/32_tile_embeddings.parquet").is_file()
    assert validate(root) == []
    slide("a", 7, overwrite=True)
    was = (
        "vectors of tiles 'm 32' were made of another he image of a, which has been replaced since"
    )
    assert told() == [("error", was)]
    mask(root, method="whole")
    tile(root, tile_size=32)
    assert told() == [("error", was)]
    vectors(overwrite=True)
    assert validate(root) == []
    tile(root, tile_size=32, method="grid", strategy="default", overwrite=True, tissues=["b"])
    assert [what.split(",")[0] for _, what in told()] == [
        "vectors of tiles 'm 32' were made of other tiles of b"
    ]
