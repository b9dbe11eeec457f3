"""A tile brings the crops of its masks, its cells and its labels; each against slicing by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cohort import (
    CohortLayout,
    HEImagingDataset,
    MultiplexImagingDataset,
    mask,
    read_tissue_mask,
    tile,
)
from microtome.coordinates import Resolution
from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)

ONE = Resolution.parse(1.0)


def discs(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Cells of a few pixels, numbered from 1 with gaps, up to past 16 bits."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    for number, (y, x) in enumerate(rng.integers(0, shape, (60, 2)), start=1):
        labels[max(y - 3, 0) : y + 3, max(x - 3, 0) : x + 3] = number * 1500
    return labels


def write_npz(root: Path, kind: str, tissue_id: str, labels: np.ndarray) -> None:
    directory = root / "segmentations/1_0mpp/cell_masks" / kind
    directory.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(directory / f"{tissue_id}.npz", mask=labels)


def cells_of(labels: dict[str, np.ndarray], *, centres: bool = True) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for tissue, pixels in labels.items():
        for number in np.unique(pixels[pixels > 0]).tolist():
            y, x = np.nonzero(pixels == number)
            row = {"tissue_id": tissue, "cell_id": number, "cell_type": f"type {number % 7}"}
            if centres:  # the middle of pixel (0, 0) lies at (0.5, 0.5) um
                row |= {"centroid_y": float(y.mean() + 0.5), "centroid_x": float(x.mean() + 0.5)}
            rows.append(row)
    rng = np.random.default_rng(0)
    return pa.Table.from_pylist([rows[i] for i in rng.permutation(len(rows))])


@pytest.fixture
def with_cells(imc: Any) -> tuple[Path, dict[str, np.ndarray]]:
    """A cohort with cells, and their labels."""
    root, sources = imc
    labels = {name: discs(source.shape[-2:], i) for i, (name, source) in enumerate(sources.items())}
    for name, pixels in labels.items():
        write_npz(root, "instances", name, pixels)
        write_npz(root, "cell_type", name, (pixels // 1500 % 7).astype(np.uint8))
    pq.write_table(
        pa.table({"id": [0, 1, 2], "name": ["none", "T", "B"]}),
        root / "segmentations/1_0mpp/cell_masks/cell_type/label_encoder.parquet",
    )
    pq.write_table(cells_of(labels), root / "metadata/cells.parquet")
    tile(root, tile_size=48, method="grid", strategy="default", tolerance=0.9)
    return root, labels


def dataset(root: Path, **options: Any) -> MultiplexImagingDataset:
    return MultiplexImagingDataset("c", "imc", path=root, standardization="identity", **options)


def crop(pixels: np.ndarray, row: int, col: int, size: int) -> np.ndarray:
    out = np.zeros((size, size), pixels.dtype)
    part = pixels[row : row + size, col : col + size]
    out[: part.shape[0], : part.shape[1]] = part
    return out


def test_tiles_bring_masks_and_cells(with_cells: Any) -> None:
    root, labels = with_cells
    layout = CohortLayout.open(root)
    tiles = dataset(root, tile_size=48, with_masks=True, with_cells=True)
    seen = 0
    for region in [tiles[i] for i in range(len(tiles))]:
        told = region.additional_metadata
        name, (row, col) = told["tissue_id"], region.region_spec["coords"]
        tissue = read_tissue_mask(layout, ONE, name, labels[name].shape)
        np.testing.assert_array_equal(told["tissue_mask"], crop(tissue, row, col, 48))
        np.testing.assert_array_equal(told["cell_mask"], crop(labels[name], row, col, 48))
        inside = []
        for number in np.unique(labels[name])[1:]:
            y, x = (np.mean(v) + 0.5 for v in np.nonzero(labels[name] == number))
            if row <= y < row + 48 and col <= x < col + 48:
                inside.append(int(number))
        assert told["cells"]["cell_id"].to_pylist() == inside
        assert set(told["cells"]["tissue_id"].to_pylist()) <= {name}
        seen += len(inside)
        found = tiles.get_tile(name, told["tile_id"], "complete")
        np.testing.assert_array_equal(found.tissue_mask, told["tissue_mask"])
        np.testing.assert_array_equal(found.cell_mask, told["cell_mask"])
        assert found.cells is not None
        assert found.cells.equals(told["cells"])
        bare = tiles.get_tile(name, told["tile_id"], with_masks=False, with_cells=False)
        assert bare.tissue_mask is bare.cell_mask is bare.cells is None
    assert seen > 100


def test_cells_without_centres_are_those_of_the_mask(with_cells: Any) -> None:
    root, labels = with_cells
    pq.write_table(cells_of(labels, centres=False), root / "metadata/cells.parquet")
    tiles = dataset(root, tile_size=48, with_cells=True)
    for region in [tiles[i] for i in range(len(tiles))]:
        told = region.additional_metadata
        part = crop(labels[told["tissue_id"]], *region.region_spec["coords"], 48)
        assert told["cells"]["cell_id"].to_pylist() == np.unique(part[part > 0]).tolist()
        assert "cell_mask" not in told


def test_whole_tissues_bring_them_too(with_cells: Any) -> None:
    root, labels = with_cells
    found = dataset(root).get_tissue("b", with_masks=True, with_cells=True)
    np.testing.assert_array_equal(found.cell_mask, labels["b"])
    assert found.cells is not None
    assert found.cells["cell_id"].to_pylist() == np.unique(labels["b"])[1:].tolist()


def test_masks_of_instances_and_tasks(with_cells: Any) -> None:
    root, labels = with_cells
    data = dataset(root)
    instances = data.get_cell_instance_mask("a")
    np.testing.assert_array_equal(instances.mask, labels["a"])
    assert instances.mask.dtype == np.uint32
    assert (instances.tissue_id, instances.mapping) == ("a", None)
    assert instances.region.source.endswith("cell_masks/instances/a.npz")
    np.testing.assert_array_equal(instances.region.data[0], labels["a"])
    assert instances.region.additional_metadata["mpp"] == (1.0, 1.0)
    tissue = data.get_tissue_mask("a").region
    assert tissue.source.endswith("tissue_masks/a.ome.zarr")
    assert tuple(tissue.region_spec["patch_size"]) == labels["a"].shape
    assert tissue.additional_metadata["tissue_id"] == "a"
    assert data.get_cell_task_mask_types() == ["cell_type"]
    task = data.get_cell_task_mask("a", "cell_type")
    np.testing.assert_array_equal(task.mask, labels["a"] // 1500 % 7)
    assert task.mapping == {0: "none", 1: "T", 2: "B"}
    with pytest.raises(UnknownNameError, match=r"no cell masks 'instances_virtues'.*cell_type"):
        data.get_cell_instance_mask("a", use_instances_from_virtues=True)
    with pytest.raises(UnknownNameError, match="'grade'"):
        data.get_cell_task_mask("a", "grade")
    (root / "segmentations/1_0mpp/cell_masks/instances/b.npz").unlink()
    with pytest.raises(NotFoundError, match="'b' has no cell mask"):
        data.get_cell_instance_mask("b")
    with pytest.raises(UnknownNameError, match="'z'"):
        data.get_cell_instance_mask("z")


def test_at_a_coarser_resolution_masks_and_cells_follow(with_cells: Any) -> None:
    root, labels = with_cells
    found = dataset(root, resolution=2).get_tissue("a", with_masks=True, with_cells=True)
    height, width = found.image.shape[-2:]
    rows = np.minimum(np.arange(height) * 2 + 1, labels["a"].shape[0] - 1)
    columns = np.minimum(np.arange(width) * 2 + 1, labels["a"].shape[1] - 1)
    np.testing.assert_array_equal(found.cell_mask, labels["a"][np.ix_(rows, columns)])
    assert found.cells is not None
    assert len(found.cells) == len(np.unique(labels["a"])) - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns("cell_id"), r"lacks the columns \['cell_id'\]"),
        (lambda t: pa.concat_tables([t, t.slice(0, 1)]), "more than once"),
        (
            lambda t: t.set_column(1, "cell_id", t["cell_id"].cast(pa.float64())),
            "must be integers",
        ),
        (
            lambda t: t.set_column(
                1, "cell_id", pa.array([None, *t["cell_id"].to_pylist()[1:]], pa.int64())
            ),
            "1 rows have no cell_id",
        ),
        (
            lambda t: t.set_column(
                t.column_names.index("centroid_y"), "centroid_y", pa.array(["x"] * len(t))
            ),
            "centroid_y must hold micrometres",
        ),
    ],
    ids=["column", "twice", "type", "null", "centre"],
)
def test_a_bad_table_of_cells_is_refused(with_cells: Any, change: Any, message: str) -> None:
    root, _ = with_cells
    path = root / "metadata/cells.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(FormatError, match=message):
        dataset(root, load_cell_metadata=True)


def test_a_cohort_without_cells_says_so(imc: Any) -> None:
    root, _ = imc
    with pytest.raises(NotFoundError, match=r"cells\.parquet"):
        dataset(root, with_cells=True)
    with pytest.raises(NotFoundError, match=r"cells\.parquet"):
        dataset(root).get_cells("a")
    assert dataset(root).cell_metadata is None
    assert dataset(root).get_tissue("a", with_masks=True).cell_mask is None


def test_the_table_of_cells_is_that_of_the_datasets_tissues(with_cells: Any) -> None:
    root, labels = with_cells
    data = dataset(root, load_cell_metadata=True, split="test")
    assert data.cell_metadata is not None
    assert set(data.cell_metadata["tissue_id"].to_pylist()) == {"c"}
    assert len(data.get_cells("c")) == len(np.unique(labels["c"])) - 1


@pytest.mark.parametrize("kind", ["tissue_masks", "cell_masks/instances"])
def test_a_mask_of_another_shape_is_refused(with_cells: Any, kind: str) -> None:
    root, _ = with_cells
    directory = root / "segmentations/1_0mpp" / kind
    if kind == "tissue_masks":
        (directory / "a.ome.zarr").rename(directory / ".a")
    np.savez(directory / "a.npz", mask=np.ones((7, 9), np.uint8))
    with pytest.raises(FormatError, match=r"a\.npz has \(7, 9\) pixels.*'a' has \(140, 171\)"):
        dataset(root).get_tissue("a", with_masks=True)


def test_a_pickled_mask_is_never_loaded(with_cells: Any) -> None:
    root, _ = with_cells
    path = root / "segmentations/1_0mpp/cell_masks/instances/a.npz"
    np.savez(path, mask=np.asarray([{"a": 1}], dtype=object))
    with pytest.raises(FormatError, match="pickle"):
        dataset(root).get_cell_instance_mask("a")


# -- image modes, preprocessing


@pytest.mark.parametrize("preprocess", [True, False])
def test_channels_last_is_the_same_pixels_turned(he: Any, preprocess: bool) -> None:
    root, sources = he
    mask(root)
    tile(root, tile_size=64, method="grid", strategy="default", tolerance=0.9)
    data = HEImagingDataset("c", path=root, tile_size=64)
    first = data.get_tissue("t1", preprocess=preprocess)
    last = data.get_tissue("t1", preprocess=preprocess, image_mode="HWC")
    assert tuple(last.image.shape) == (301, 277, 3)
    np.testing.assert_array_equal(
        np.asarray(last.image), np.moveaxis(np.asarray(first.image), 0, -1)
    )
    if not preprocess:
        np.testing.assert_array_equal(np.asarray(first.image), sources["t1"].astype(np.float32))
        row = data.tile_coordinates["t1"][-1].tolist()
        found = data.get_tile_by_coordinates("t1", *row, preprocess=False)
        inside = sources["t1"][:, row[0] : row[0] + 64, row[1] : row[1] + 64]
        shown = np.asarray(found.image)
        np.testing.assert_array_equal(shown[:, : inside.shape[1], : inside.shape[2]], inside)
    with pytest.raises(InvalidInputError, match="'WHC'"):
        data.get_tissue("t1", image_mode="WHC")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="'qc_filtered'"):
        data.get_tissue("t1", "qc_filtered")


def test_multiplex_channels_last(imc: Any) -> None:
    root, sources = imc
    found = dataset(root).get_tissue("a", "complete", image_mode="HWC", preprocess=False)
    np.testing.assert_array_equal(np.asarray(found.image), np.moveaxis(sources["a"], 0, -1))


# -- filters


@pytest.mark.parametrize(
    "names",
    [["gaussian_blur"], ["median_filter"], ["median_filter", "gaussian_blur"]],
    ids="+".join,
)
def test_a_tile_is_the_crop_of_the_filtered_tissue(imc: Any, names: list[str]) -> None:
    root, _ = imc
    tile(root, tile_size=48, method="grid", strategy="default", tolerance=0.9)
    filtered = dataset(root, tile_size=48, filter_list=names)
    wholes = {t: np.asarray(filtered.get_tissue(t, "complete").image) for t in "abc"}
    plain = np.asarray(dataset(root).get_tissue("a", "complete").image)
    assert not np.allclose(wholes["a"], plain)
    hanging = 0
    for region in [filtered[i] for i in range(len(filtered))]:
        whole = wholes[region.additional_metadata["tissue_id"]]
        row, col = region.region_spec["coords"]
        expected = np.stack([crop(plane, row, col, 48) for plane in whole])
        hanging += row + 48 > whole.shape[1]
        np.testing.assert_array_equal(region.data, expected)
    assert hanging


def test_an_unknown_filter_is_named(imc: Any) -> None:
    with pytest.raises(InvalidInputError, match="sharpen"):
        dataset(imc[0], filter_list=["sharpen"])


# -- labels


def label(root: Path, **columns: Any) -> None:
    path = root / "metadata/tissues.parquet"
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)


def test_codes_do_not_depend_on_the_split(imc: Any) -> None:
    root, _ = imc
    label(root, grade=["low", "high", "high"])  # a, b train; c test
    whole = dataset(root, label="grade")
    assert whole.label_encoder == {"high": 0, "low": 1}
    for split in ("train", "test"):
        assert dataset(root, label="grade", split=split).label_encoder == whole.label_encoder
    assert [r.additional_metadata["label_code"] for r in (whole[0], whole[1])] == [1, 0]
    found = dataset(root, label="grade", split="test").get_tissue("c")
    assert (found.label, found.label_code) == ("high", 0)


def test_all_labels_are_kept_unless_some_are_named(imc: Any) -> None:
    root, _ = imc
    label(root, grade=[3, 1, 2])
    assert dataset(root, label="grade").unique_labels == [1, 2, 3]
    kept = dataset(root, label="grade", labels_to_keep=[3, 1])
    assert kept.get_tissue_ids().tolist() == ["a", "b"]
    assert kept.label_encoder == {1: 0, 3: 1}
    with pytest.raises(UnknownNameError, match=r"\[9\].*\[1, 2, 3\]"):
        dataset(root, label="grade", labels_to_keep=[9])
    with pytest.raises(InvalidInputError, match="has one of"):
        dataset(root, label="grade", labels_to_keep=[3], split="test")


def test_labels_can_be_changed_first(imc: Any) -> None:
    root, _ = imc
    label(root, grade=[3, 1, 2])
    data = dataset(root, label="grade", label_modifying_fn=lambda g: "bad" if g > 1 else "good")
    assert data.label_encoder == {"bad": 0, "good": 1}
    assert data[1].additional_metadata["label"] == "good"
    gone = {"label": "grade", "label_modifying_fn": lambda g: None if g == 2 else g}
    with pytest.raises(FormatError, match="1 of 3 tissues"):
        dataset(root, **gone)
    assert dataset(root, missing_labels="drop", **gone).get_tissue_ids().tolist() == ["a", "b"]


@pytest.mark.parametrize(
    "values", [[1.5, None, 2.0], [1.5, float("nan"), 2.0]], ids=["null", "nan"]
)
def test_missing_labels_are_an_error_unless_dropped(imc: Any, values: list[Any]) -> None:
    root, _ = imc
    label(root, age=values)
    with pytest.raises(FormatError, match=r"1 of 3 tissues.*no 'age' \(b\)"):
        dataset(root, label="age", label_type="regression")
    data = dataset(root, label="age", label_type="regression", missing_labels="drop")
    assert [r.additional_metadata["label_code"] for r in (data[0], data[1])] == [1.5, 2.0]
    assert data.label_encoder == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label": "nowhere"}, UnknownNameError, "nowhere"),
        ({"label": "grade", "label_type": "ordinal"}, InvalidInputError, "ordinal"),
        ({"label": "grade", "missing_labels": "skip"}, InvalidInputError, "skip"),
        ({"label": "grade", "label_type": "regression"}, FormatError, "'low', no number"),
        ({"labels_to_keep": ["low"]}, InvalidInputError, "need a label"),
        ({"label": "grade", "labels_to_keep": "ab"}, InvalidInputError, "list of labels.*'ab'"),
        (
            {"label": "grade", "label_type": "regression", "labels_to_keep": ["low"]},
            InvalidInputError,
            "names classes",
        ),
    ],
    ids=["column", "type", "missing", "number", "no label", "text", "keep"],
)
def test_wrong_labels(imc: Any, options: Any, error: Any, message: str) -> None:
    root, _ = imc
    label(root, grade=["low", "high", "high"])
    with pytest.raises(error, match=message):
        dataset(root, **options)


# -- patients, coordinates, states


def test_tissues_of_a_patient(imc: Any) -> None:
    root, _ = imc
    path = root / "metadata/tissues.parquet"
    table = pq.read_table(path)
    # As pandas writes a column of numbers in which one is missing.
    place = table.column_names.index("patient_id")
    pq.write_table(table.set_column(place, "patient_id", pa.array([7, 8, 7], pa.int64())), path)
    data = dataset(root)
    assert [t.tissue_id for t in data.get_tissue_by_patient("7")] == ["a", "c"]
    assert data.patient_tissue_map == {"7": ["a", "c"], "8": ["b"]}
    with pytest.raises(UnknownNameError, match=r"patient '9'.*7, 8"):
        data.get_tissue_by_patient("9")


def test_coordinates_and_ids(imc: Any) -> None:
    root, _ = imc
    made = tile(root, tile_size=48, method="grid", strategy="default", tolerance=0.9)
    data = dataset(root, tile_size=48, split="test")
    assert list(data.tile_coordinates) == ["c"]
    rows = made.rows(made.positions("c"))
    np.testing.assert_array_equal(data.tile_coordinates["c"], np.stack([rows.row, rows.col], 1))
    assert data.get_tissue_ids("all").tolist() == ["a", "b", "c"]
    assert data.get_tissue_ids().tolist() == ["c"]
    with pytest.raises(InvalidInputError, match="'every'"):
        data.get_tissue_ids("every")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="tile_size"):
        _ = dataset(root).tile_coordinates
