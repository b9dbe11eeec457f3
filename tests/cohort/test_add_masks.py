"""`add_cell_masks`: the labels that were given, on the grid of the image, whatever they came in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from microtome.cohort import CohortLayout, HEImagingDataset, add_cell_masks, ingest
from microtome.cohort.cells._block_labels import BlockLabels, most_frequent
from microtome.coordinates import Resolution
from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)
from microtome.image import MemoryArray, MultiscaleImage

Tree = Callable[[Path], dict[str, str]]
Cohort = tuple[Path, dict[str, Any]]
ONE = Resolution.parse(1)
SHAPE = (140, 171)  # of tissue "a"


def some(top: int, dtype: Any = np.int32) -> np.ndarray:
    labels = np.random.default_rng(top).integers(0, min(top, 50), SHAPE).astype(dtype)
    labels[-1, -1] = top
    return labels


def stored(root: Path, kind: str = "instances", tissue: str = "a") -> np.ndarray:
    path = root / f"segmentations/1_0mpp/cell_masks/{kind}/{tissue}.ome.zarr"
    return MultiscaleImage.open(path).level(0)[...]


@pytest.mark.parametrize(
    "form", ["array", "int16", "tiff", "float tiff", "npz", "zarr", "tensor", "plane"]
)
def test_labels_come_in_any_form(imc: Cohort, tmp_path: Path, form: str) -> None:
    root, labels = imc[0], some(300)
    source: Any = labels
    if form == "int16":
        source = labels.astype(np.int16)
    elif form == "tensor":
        source = pytest.importorskip("torch").from_numpy(labels)
    elif form == "plane":
        source = tmp_path / "a.tif"
        tifffile.imwrite(source, labels.astype(np.uint16)[None], metadata={"axes": "CYX"})
    elif form.endswith("tiff"):
        source = tmp_path / "a.tiff"
        tifffile.imwrite(source, labels.astype(np.float32 if "float" in form else np.uint16))
    elif form == "npz":
        source = tmp_path / "a.npz"
        np.savez_compressed(source, mask=labels)
    elif form == "zarr":
        source = tmp_path / "a.ome.zarr"
        with MultiscaleImage.create(
            source,
            type=np.uint32,
            level_shape=SHAPE,
            has_channel_axis=False,
            mpp=1.0,
            kind="labels",
        ) as made:
            made.level(0)[...] = labels.astype(np.uint32)
    path = add_cell_masks(root, "a", source)
    assert path == CohortLayout.open(root).cell_mask(ONE, "instances", "a")
    np.testing.assert_array_equal(stored(root), labels)
    image = MultiscaleImage.open(path)
    assert (image.kind, image.dtype, image.mpp and image.mpp.y) == ("labels", np.uint16, 1.0)


@pytest.mark.parametrize(
    ("top", "dtype"),
    [(65535, np.uint16), (65536, np.uint32), (2**32 - 1, np.uint32), (2**32, np.uint64)],
)
def test_the_type_holds_every_label(imc: Cohort, top: int, dtype: Any) -> None:
    labels = some(top, np.int64)
    add_cell_masks(imc[0], "a", labels)
    found = stored(imc[0])
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(np.int64), labels)


def test_classes_have_names(imc: Cohort) -> None:
    root = imc[0]
    classes = some(3) % 4
    with pytest.raises(InvalidInputError, match="classes 1, 2, 3 of task 'type' have no names"):
        add_cell_masks(root, "a", classes, kind="type")
    add_cell_masks(root, "a", classes, kind="type", labels={3: "stroma", 1: "tumour", 2: "immune"})
    np.testing.assert_array_equal(stored(root, "type"), classes)
    encoder = root / "segmentations/1_0mpp/cell_masks/type/label_encoder.parquet"
    assert pq.read_table(encoder).to_pylist() == [
        {"id": 1, "name": "tumour"},
        {"id": 2, "name": "immune"},
        {"id": 3, "name": "stroma"},
    ]
    add_cell_masks(root, "b", np.ones((99, 130), bool), kind="type")  # has names already
    with pytest.raises(ExistsError, match=r"has other names: 1 'tumour' \(given 'normal'\)"):
        add_cell_masks(root, "c", np.ones((120, 120), int), kind="type", labels={1: "normal"})
    with pytest.raises(InvalidInputError, match=r"\['immune'\] are there more than once"):
        add_cell_masks(root, "c", np.ones((120, 120), int), kind="type", labels={4: "immune"})
    add_cell_masks(
        root, "c", np.ones((120, 120), int), kind="type", labels={1: "normal"}, overwrite=True
    )
    assert pq.read_table(encoder)["name"].to_pylist() == ["normal", "immune", "stroma"]


BAD: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "shape": (
        np.ones((140, 170), int),
        {},
        FormatError,
        r"has \(140, 170\) pixels, the image .* has \(140, 171\)",
    ),
    "planes": (np.ones((2, *SHAPE), int), {}, InvalidInputError, "needs axes="),
    "fractions": (np.full(SHAPE, 0.5), {}, FormatError, "with fractions or NaN"),
    "nan": (np.full(SHAPE, np.nan), {}, FormatError, "with fractions or NaN"),
    "negative": (np.full(SHAPE, -1), {}, FormatError, "labels begin at 1"),
    "names of cells": (
        np.ones(SHAPE, int),
        {"labels": {1: "x"}},
        InvalidInputError,
        "'instances' are cells and have numbers only",
    ),
    "kind": (np.ones(SHAPE, int), {"kind": "../x"}, InvalidInputError, "becomes part of a path"),
    "resolution": (np.ones(SHAPE, int), {"resolution": 0.5}, InvalidInputError, "has no images at"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_refused(imc: Cohort, tree: Tree, what: str) -> None:
    source, options, error, words = BAD[what]
    before = tree(imc[0])
    with pytest.raises(error, match=words):
        add_cell_masks(imc[0], "a", source, **options)
    assert tree(imc[0]) == before


def test_tissues_and_files_that_are_not_there(imc: Cohort, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"has no tissues \['z'\]"):
        add_cell_masks(imc[0], "z", np.ones(SHAPE, int))
    with pytest.raises(NotFoundError):
        add_cell_masks(imc[0], "a", tmp_path / "none.npz")
    with pytest.raises(NotFoundError):
        add_cell_masks(imc[0], "a", tmp_path / "none.tiff")
    np.savez(tmp_path / "a.npz", mask=np.array([[{}]], object))
    with pytest.raises(FormatError, match="allow_pickle=False"):
        add_cell_masks(imc[0], "a", tmp_path / "a.npz")


def test_a_mask_that_is_there_stays(imc: Cohort, tree: Tree) -> None:
    root = imc[0]
    add_cell_masks(root, "a", some(9))
    before = tree(root)
    with pytest.raises(ExistsError, match="replace it with --overwrite"):
        add_cell_masks(root, "a", some(10))
    assert tree(root) == before
    add_cell_masks(root, "a", some(10), overwrite=True)
    np.testing.assert_array_equal(stored(root), some(10))
    theirs = CohortLayout.open(root).cell_masks(ONE, "instances") / "b.npz"
    np.savez(theirs, mask=np.ones((99, 130), np.uint16))
    for overwrite, words in ((False, "exists"), (True, "was made by another tool")):
        with pytest.raises(ExistsError, match=words):
            add_cell_masks(root, "b", np.ones((99, 130), int), overwrite=overwrite)


def test_a_mask_larger_than_a_block(tmp_path: Path) -> None:
    shape = (2100, 2300)
    labels = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    ingest(
        np.zeros((*shape, 3), np.uint8), axes="yxc", cohort=tmp_path / "c", tissue_id="a",
        modality="he", mpp=1.0,
    )  # fmt: skip
    add_cell_masks(tmp_path / "c", "a", labels)
    np.testing.assert_array_equal(stored(tmp_path / "c"), labels)


def test_real_cells(shared_data: Path, tmp_path: Path) -> None:
    source = next((shared_data / "mibi").glob("fov8_Row*.tiff"))
    root = tmp_path / "mibi"
    ingest(
        source, cohort=root, tissue_id="fov8", modality="mibi", mpp=0.390625, resolution="0.390625"
    )
    cells = shared_data / "mibi/fov8_whole_cell_mask.tiff"
    path = add_cell_masks(root, "fov8", cells)
    found = MultiscaleImage.open(path).level(0)[...]
    np.testing.assert_array_equal(found, np.squeeze(tifffile.imread(cells)))
    assert np.unique(found).size - 1 == 272


def voted(labels: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """The rule of DESIGN, block by block: the most frequent, ties to the smallest that is not 0."""
    size = [-(-n // side) for n, side in zip(labels.shape, block, strict=True)]
    out = np.zeros(size, labels.dtype)
    for row, column in np.ndindex(*size):
        y, x = row * block[0], column * block[1]
        values, counts = np.unique(labels[y : y + block[0], x : x + block[1]], return_counts=True)
        best = values[counts == counts.max()]
        out[row, column] = best[best != 0][0] if (best != 0).any() else 0
    return out


@given(
    data=st.data(),
    block=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    shape=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    dtype=st.sampled_from([np.uint8, np.int32, np.uint64, np.bool_]),
)
def test_the_most_frequent_label_of_a_block(data: Any, block: Any, shape: Any, dtype: Any) -> None:
    few = st.integers(0, 1 if dtype is np.bool_ else 4)
    labels = data.draw(arrays(dtype, shape, elements=few if dtype is not np.bool_ else None))
    np.testing.assert_array_equal(most_frequent(labels, block), voted(labels, block))


def test_blocks_are_read_in_boxes(monkeypatch: Any) -> None:
    monkeypatch.setattr("microtome.cohort.cells._block_labels._BYTES", 200)
    labels = np.random.default_rng(0).integers(0, 4, (1, 31, 40)).astype(np.uint16)
    found = BlockLabels(MemoryArray(labels), (3, 4))
    expected = voted(labels[0], (3, 4))
    assert (found.shape, found.dtype) == (expected.shape, np.uint16)
    np.testing.assert_array_equal(found.read(((0, 11), (0, 10))), expected)
    np.testing.assert_array_equal(found.read(((2, 9), (3, 10))), expected[2:9, 3:10])


@pytest.mark.parametrize(("mpp", "block"), [(0.25, (2, 2)), (0.3, None), ((0.125, 0.5), (4, 1))])
def test_a_shape_does_not_move_when_its_mask_is_halved(
    he: Any, mpp: Any, block: tuple[int, int] | None
) -> None:
    root, sources = he  # stored at 0.5 um
    height, width = sources["t1"].shape[-2:]
    steps = [0.5 / each for each in (mpp if isinstance(mpp, tuple) else (mpp, mpp))]
    fine = np.zeros([int(n * s) for n, s in zip((height, width), steps, strict=True)], np.uint16)
    low, high = 100, 201
    side = [slice(round(low * s), round(high * s)) for s in steps]
    fine[tuple(side)] = 1
    add_cell_masks(root, "t1", fine, mpp=mpp, overwrite=True)
    found = HEImagingDataset("c", path=root).get_cell_instance_mask("t1").mask
    if block is not None:
        np.testing.assert_array_equal(found, voted(fine, block))
    rows, columns = np.nonzero(found)
    assert (rows.min(), rows.max() + 1) == (low, high)
    assert (columns.min(), columns.max() + 1) == (low, high)


def test_labels_of_another_pixel_size(he: Any, caplog: Any) -> None:
    root, sources = he  # stored at 0.5 um
    height, width = sources["t1"].shape[-2:]
    coarse = np.arange(1, 1 + 151 * 139, dtype=np.uint32).reshape(151, 139)
    add_cell_masks(root, "t1", coarse, mpp=1.0)
    found = HEImagingDataset("c", path=root).get_cell_instance_mask("t1").mask
    expected = np.repeat(np.repeat(coarse, 2, 0), 2, 1)[:height, :width]
    np.testing.assert_array_equal(found, expected)
    assert "smaller than a pixel" not in caplog.text
    fine = np.zeros((4 * height, 4 * width), np.uint16)  # 0.125 um
    fine[8:16, 8:16] = 1
    fine[100:101, 100:101] = 2  # of one pixel, a sixteenth of one of the image
    fine[42:46, 40:44] = 3  # half of two pixels each: more than the background has
    fine[42, 40] = 0
    add_cell_masks(root, "t1", fine, mpp=0.125, overwrite=True)
    again = HEImagingDataset("c", path=root).get_cell_instance_mask("t1").mask
    np.testing.assert_array_equal(again, voted(fine, (4, 4)))
    assert (again == 3).sum() == 1
    assert "1 labels are smaller than a pixel of 0.5 um" in caplog.text
    with pytest.raises(FormatError, match=r"give that with --mpp"):
        add_cell_masks(root, "t1", coarse, overwrite=True)
    own, at = r"\(151, 139\) pixels, which at the 0.8 x 0.8 um given", rf"\({height}, {width}\)"
    with pytest.raises(
        FormatError, match=rf"{own} .* are \(242, 223\) of .*'t1' has {at}: are they"
    ):
        add_cell_masks(root, "t1", coarse, mpp=0.8, overwrite=True)
    with pytest.raises(FormatError, match="fractions or NaN"):
        add_cell_masks(root, "t1", coarse + 0.5, mpp=1.0, overwrite=True)
