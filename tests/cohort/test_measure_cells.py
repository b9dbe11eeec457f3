"""`measure_cells`: what scikit-image says of the same labels, whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from skimage.measure import regionprops

from microtome.cohort import add_cell_masks, add_cells, ingest, validate
from microtome.cohort.cells._measure_cells import measure_cells
from microtome.errors import ExistsError, FormatError, NotFoundError, UnknownNameError

MPP = 0.5


def labels_of(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.zeros((70, 90), np.int32)
    for number in rng.permutation(40)[:25] + 1:
        y, x = rng.integers(0, 60), rng.integers(0, 80)
        labels[y : y + rng.integers(1, 12), x : x + rng.integers(1, 12)] = number * 1000
    return labels


@pytest.fixture
def made(tmp_path: Path) -> Any:
    root, pixels, labels = tmp_path / "c", {}, {}
    for seed, name in enumerate("ab"):
        pixels[name] = np.random.default_rng(seed).poisson(9, (2, 70, 90)).astype(np.uint16)
        labels[name] = labels_of(seed)
        where: dict[str, Any] = {"cohort": root, "tissue_id": name, "modality": "imc"}
        names = ["DNA", "CD3"]
        ingest(pixels[name], axes="cyx", channel_names=names, mpp=MPP, resolution=MPP, **where)
        add_cell_masks(root, name, labels[name])
    return root, pixels, labels


def test_cells_are_those_of_scikit_image(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microtome.cohort.cells._measure_cells._BLOCK", 16)
    root, pixels, labels = made
    count = measure_cells(root, modality="imc")
    table = pq.read_table(root / "metadata/cells.parquet").to_pylist()
    assert count == len(table)
    found = {(row["tissue_id"], row["cell_id"]): row for row in table}
    expected = {
        (name, each.label): each
        for name in "ab"
        for each in regionprops(labels[name], np.moveaxis(pixels[name], 0, -1))
    }
    assert set(found) == set(expected)
    for key, each in expected.items():
        row = found[key]
        middle = (np.array(each.centroid) + 0.5) * MPP
        np.testing.assert_allclose([row["centroid_y"], row["centroid_x"]], middle)
        assert row["area_um2"] == pytest.approx(each.area * MPP**2)
        np.testing.assert_allclose([row["mean_DNA"], row["mean_CD3"]], each.intensity_mean)
    assert validate(root, cells=True) == []


def test_another_mask_replaces_the_cells_where_asked(made: Any) -> None:
    root, _, labels = made
    measure_cells(root)
    fewer = np.where(labels["a"] == labels["a"].max(), 0, labels["a"])
    fewer[0, 0] = 7
    add_cell_masks(root, "a", fewer, overwrite=True)
    measure_cells(root, tissues=["a"], overwrite=True)
    rows = pq.read_table(root / "metadata/cells.parquet").to_pylist()
    assert {r["cell_id"] for r in rows if r["tissue_id"] == "a"} == set(np.unique(fewer)) - {0}
    assert {r["cell_id"] for r in rows if r["tissue_id"] == "b"} == set(np.unique(labels["b"])) - {
        0
    }


def test_a_tissue_without_a_mask_is_named(made: Any) -> None:
    root, pixels, _ = made
    where: dict[str, Any] = {"cohort": root, "tissue_id": "z", "modality": "imc"}
    ingest(
        pixels["a"],
        axes="cyx",
        channel_names=["DNA", "CD3"],
        mpp=MPP,
        resolution=MPP,
        **where,
    )
    command = f"`microtome cohort add-mask {root} MASK --tissue z` "
    with pytest.raises(NotFoundError, match=r"'z' has no cell mask .*bring one with") as error:
        measure_cells(root)
    assert command in str(error.value)
    with pytest.raises(
        UnknownNameError, match=r"no cell masks 'nuclei'; it has .'instances'."
    ) as no:
        measure_cells(root, tissues=["z"], kind="nuclei")
    assert f"{command.removesuffix('` ')} --kind nuclei`" in str(no.value)


def stale(root: Path) -> list[str]:
    return [each.what for each in validate(root) if each.kind == "stale" and "cells" in each.place]


def of_both(root: Path, seed: int, *modalities: str) -> None:
    pixels = np.random.default_rng(seed).poisson(9, (1, 70, 90)).astype(np.uint16)
    for modality in modalities:
        where: dict[str, Any] = {"cohort": root, "tissue_id": "a", "modality": modality}
        name = modality.upper()
        ingest(
            pixels,
            axes="cyx",
            channel_names=[name],
            mpp=MPP,
            resolution=MPP,
            overwrite=True,
            **where,
        )


def test_old_columns_do_not_pass_as_new(tmp_path: Path) -> None:
    """Cells of one modality measured anew say nothing of what was measured of another."""
    root = tmp_path / "c"
    of_both(root, 1, "mibi", "imc")
    add_cell_masks(root, "a", labels_of(0))
    for modality in ("mibi", "imc"):
        measure_cells(root, modality=modality)
    assert stale(root) == []
    of_both(root, 2, "mibi")
    old = pq.read_table(root / "metadata/cells.parquet")["mean_MIBI"]
    measure_cells(root, modality="imc", overwrite=True)
    assert pq.read_table(root / "metadata/cells.parquet")["mean_MIBI"] == old
    (what,) = stale(root)
    assert what.startswith("columns mean_MIBI of cells were made of another mibi image of a")
    measure_cells(root, modality="mibi")
    assert stale(root) == []
    assert pq.read_table(root / "metadata/cells.parquet")["mean_MIBI"] != old


def test_another_mask_makes_cells_stale(made: Any) -> None:
    root, _, labels = made
    measure_cells(root, modality="imc")
    add_cell_masks(root, "a", np.roll(labels["a"], 1, 0), overwrite=True)
    (what,) = stale(root)
    assert what.startswith("columns cell_id, centroid_y, centroid_x, area_um2, mean_DNA, mean_CD3")
    assert "another cell mask of a, which has been replaced" in what
    measure_cells(root, tissues=["a"])
    (what,) = stale(root)
    assert what.startswith("columns mean_DNA, mean_CD3 of cells")
    measure_cells(root, tissues=["a"], modality="imc")
    assert stale(root) == []


def imc_of(root: Path, tissue_id: str, channels: list[str], labels: np.ndarray) -> None:
    pixels = np.random.default_rng(5).poisson(9, (len(channels), 70, 90)).astype(np.uint16)
    where: dict[str, Any] = {"cohort": root, "tissue_id": tissue_id, "modality": "imc"}
    ingest(pixels, axes="cyx", channel_names=channels, mpp=MPP, resolution=MPP, **where)
    add_cell_masks(root, tissue_id, labels)


def test_channels_that_a_tissue_did_not_measure_are_nothing_to_warn_of(tmp_path: Path) -> None:
    root = tmp_path / "c"
    imc_of(root, "x", ["DNA", "CD3", "CD8"], labels_of(1))
    imc_of(root, "y", ["DNA"], labels_of(2))
    imc_of(root, "z", ["DNA", "Ki67"], np.zeros((70, 90), np.int32))
    of_both(root, 1, "mibi")
    add_cell_masks(root, "a", labels_of(3))
    measure_cells(root, tissues=["x", "y", "z"], modality="imc")
    measure_cells(root, modality="mibi")
    table = pq.read_table(root / "metadata/cells.parquet")
    means = [name for name in table.column_names if name.startswith("mean_")]
    assert means == ["mean_DNA", "mean_CD3", "mean_CD8", "mean_MIBI"], "nobody has a cell with Ki67"
    assert validate(root, cells=True) == []
    # What a tissue measured and has no value of is told, once.
    rows = table.to_pylist()
    for row in rows[:3]:
        row.update(dict.fromkeys(means[:2]))
    told = pa.Table.from_pylist(rows, table.schema)
    pq.write_table(told, root / "metadata/cells.parquet")
    (found,) = validate(root, cells=True)
    assert found.what.startswith("columns 'mean_DNA', 'mean_CD3' have no value in 3 of ")
    assert found.what.endswith(f" of {table.num_rows} rows (row 1, 2, 3)")
    # Of tissues that measured the channel, and were left out.
    (root / "metadata/cells.parquet").unlink()
    measure_cells(root, tissues=["x"], modality="imc")
    measure_cells(root, tissues=["y"])
    (found,) = validate(root, cells=True)
    assert found.what.startswith("column 'mean_DNA' has no value in ")


def test_a_tissue_that_is_imaged_otherwise_is_told_so(made: Any) -> None:
    root, pixels, _ = made
    where: dict[str, Any] = {"cohort": root, "modality": "mibi", "mpp": MPP, "resolution": MPP}
    for place in range(8):
        ingest(pixels["a"], axes="cyx", channel_names=["P", "Q"], tissue_id=f"m{place}", **where)

    def refused(**options: Any) -> str:
        with pytest.raises(UnknownNameError) as error:
            measure_cells(root, **options)
        return str(error.value).split(" per pixel; ")[1]

    mibi = "of mibi it has 8 tissues: m0, m1, m2, m3, m4, m5 and 2 more"
    told = refused(tissues=["a"], modality="mibi")
    assert told == f"'a' is imaged as imc at 0.5; {mibi}"
    assert refused(tissues=["zz"], modality="mibi") == mibi
    every = "it has 10 tissues: a, b, m0, m1, m2, m3 and 4 more, imaged as imc at 0.5; mibi at 0.5"
    assert refused(tissues=["zz"]) == every
    assert refused(modality="codex") == every


def fresh(tmp_path: Path, name: str, made: Any, **changed: np.ndarray) -> Path:
    """The cohort that one run makes of these pixels and labels; `a_labels` and `a_pixels` are others."""
    _, pixels, labels = made
    root = tmp_path / name
    for tissue in "ab":
        of_imc: np.ndarray = {**pixels, **changed}[
            f"{tissue}_pixels" if f"{tissue}_pixels" in changed else tissue
        ]
        names = ["DNA", "CD3"][: len(of_imc)]
        where: dict[str, Any] = {"cohort": root, "tissue_id": tissue, "modality": "imc"}
        ingest(of_imc, axes="cyx", channel_names=names, mpp=MPP, resolution=MPP, **where)
        add_cell_masks(root, tissue, changed.get(f"{tissue}_labels", labels[tissue]))
    return root


def seen(root: Path, **options: Any) -> list[tuple[str, int, int]]:
    steps: list[tuple[str, int, int]] = []
    measure_cells(root, progress=lambda *step: steps.append(step), **options)
    return steps


@pytest.mark.parametrize("kind", ["mask", "image", "image of one channel", "both"])
def test_what_is_stale_is_measured_anew_and_nothing_else(
    made: Any, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    root, pixels, labels = made
    measure_cells(root, modality="imc")
    path = root / "metadata/cells.parquet"
    assert seen(root, modality="imc") == []
    assert seen(root) == [], "places were measured with the means"
    changed: dict[str, np.ndarray] = {}
    if kind in {"mask", "both"}:
        changed["a_labels"] = np.roll(
            np.where(labels["a"] == labels["a"].max(), 77, labels["a"]), 3
        )
        add_cell_masks(root, "a", changed["a_labels"], overwrite=True)
    if kind != "mask":
        changed["a_pixels"] = pixels["a"][: 1 if "one" in kind else 2] + np.uint16(1)
        where: dict[str, Any] = {"cohort": root, "tissue_id": "a", "modality": "imc"}
        ingest(
            changed["a_pixels"],
            axes="cyx",
            channel_names=["DNA", "CD3"][: len(changed["a_pixels"])],
            mpp=MPP,
            resolution=MPP,
            overwrite=True,
            **where,
        )
    caplog.clear()
    assert seen(root, modality="imc") == [("cells", 1, 1)]
    assert "cells are measured anew that were made of another" in caplog.text
    assert stale(root) == []
    other = fresh(tmp_path, "other", made, **changed)
    count = measure_cells(other, modality="imc")
    assert path.read_bytes() == (other / "metadata/cells.parquet").read_bytes()
    caplog.clear()
    assert measure_cells(root, modality="imc") == count
    assert path.read_bytes() == (other / "metadata/cells.parquet").read_bytes()
    assert [r for r in caplog.records if r.levelname == "WARNING"] == []


def test_a_channel_that_no_tissue_has_any_more_leaves_the_table(made: Any, tmp_path: Path) -> None:
    root, pixels, _ = made
    measure_cells(root, modality="imc")
    changed: dict[str, np.ndarray] = {}
    for tissue in "ab":
        changed[f"{tissue}_pixels"] = pixels[tissue][:1] + np.uint16(1)
        where: dict[str, Any] = {"cohort": root, "tissue_id": tissue, "modality": "imc"}
        ingest(
            changed[f"{tissue}_pixels"],
            axes="cyx",
            channel_names=["DNA"],
            mpp=MPP,
            resolution=MPP,
            overwrite=True,
            **where,
        )
    measure_cells(root, modality="imc")
    other = fresh(tmp_path, "other", made, **changed)
    measure_cells(other, modality="imc")
    mine, theirs = (pq.read_table(each / "metadata/cells.parquet") for each in (root, other))
    assert mine.equals(theirs, check_metadata=True)
    assert stale(root) == []


def test_what_people_brought_is_not_lost(made: Any) -> None:
    root, _, labels = made
    measure_cells(root, modality="imc")
    ids = sorted(set(np.unique(labels["a"]).tolist()) - {0})
    types = {"tissue_id": ["a", "a"], "cell_id": [ids[0], ids[-1]], "type": ["B", "T"]}
    add_cells(root, types)
    path = root / "metadata/cells.parquet"
    add_cell_masks(root, "a", np.where(labels["a"] == ids[-1], 0, labels["a"]), overwrite=True)
    before = path.read_bytes()
    told = rf"has type of cells that the masks lack: a {ids[-1]}; remove them with --overwrite"
    with pytest.raises(ExistsError, match=rf"of another cell mask of a, .*{told}"):
        measure_cells(root, modality="imc")
    assert path.read_bytes() == before
    measure_cells(root, modality="imc", overwrite=True)
    kept = {(r["cell_id"], r["type"]) for r in pq.read_table(path).to_pylist() if r["type"]}
    assert kept == {(ids[0], "B")}
    # Of the other cells that stayed, what was brought stays too.
    add_cell_masks(root, "a", np.where(labels["a"] == ids[1], 0, labels["a"]), overwrite=True)
    measure_cells(root, modality="imc")
    rows = pq.read_table(path).to_pylist()
    assert {(r["cell_id"], r["type"]) for r in rows if r["type"]} == kept
    assert {r["cell_id"] for r in rows if r["tissue_id"] == "a"} == set(ids) - {ids[1]}


def test_places_that_people_brought_are_not_replaced(made: Any) -> None:
    root, _, labels = made
    measure_cells(root)
    first = int(np.unique(labels["a"])[1])
    moved = {"tissue_id": ["a"], "cell_id": [first], "centroid_y": [1.0], "centroid_x": [2.0]}
    add_cells(root, moved, overwrite=True)
    add_cell_masks(root, "a", np.roll(labels["a"], 1, 0), overwrite=True)
    with pytest.raises(ExistsError, match=r"another cell mask of a, .*other values than those"):
        measure_cells(root)
    measure_cells(root, overwrite=True)
    assert stale(root) == []


def test_a_panel_that_disagrees_with_the_image_is_refused(made: Any) -> None:
    root, _, _ = made
    path = root / "imc/channels_per_tissue.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("CD3")
    pq.write_table(table.set_column(place, "CD3", pa.array([True, False])), path)
    with pytest.raises(
        FormatError,
        match=r"b.ome.zarr has 2 channels, but the panel of imc says that 1 were measured: .*DNA",
    ):
        measure_cells(root, modality="imc")
    assert not (root / "metadata/cells.parquet").exists()
