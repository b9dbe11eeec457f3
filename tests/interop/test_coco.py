"""`write_coco`: pictures and objects of tiles, decoded by the rule of COCO's run-length code."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pyarrow as pa
import pytest

from microtome.errors import ExistsError, InvalidInputError, UnknownNameError
from microtome.interop import write_coco
from microtome.sources import open_image
from microtome.tiling import TileTable

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (3, 90, 110), np.uint8)
LABELS = np.kron(RNG.integers(0, 9, (9, 11)), np.ones((10, 10), int)).astype(np.uint32) * 1000
TILES = TileTable.from_columns(
    {"tissue_id": "t1", "tile_id": [3, 5, 8, 9], "row": [0, 33, -7, 70], "col": [0, 41, 90, -12]},
    tile_size=(32, 24),
    strategy="grid",
)


def opened(pixels):
    return open_image(pixels, axes="yx" if pixels.ndim == 2 else "cyx", mpp=0.5)


def window(pixels, row, col, height=32, width=24):
    wide = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + [(50, 50), (50, 50)])
    return wide[..., row + 50 : row + 50 + height, col + 50 : col + 50 + width]


def decoded(code):
    height, width = code["size"]
    values = np.arange(len(code["counts"])) % 2
    return np.repeat(values, code["counts"]), (height, width)


def mask_of(code):
    flat, (height, width) = decoded(code)
    whole = np.zeros(height * width, bool)
    whole[: flat.size] = flat
    return whole.reshape(width, height).T


@pytest.mark.parametrize("channels", [3, 1])
def test_objects_are_what_tiles_show(tmp_path, channels):
    pixels = COLOURS[:channels]
    told = []
    path = write_coco(
        opened(pixels),
        opened(LABELS),
        TILES,
        tmp_path / "o",
        progress=lambda *what: told.append(what),
    )
    assert told[-1] == ("write", 4, 4)
    document = json.loads(path.read_text())
    assert document["categories"] == [{"id": 1, "name": "cell"}]
    names = [f"t1_{n}.png" for n in (3, 5, 8, 9)]
    assert [each["file_name"] for each in document["images"]] == names
    assert sorted(each.name for each in (tmp_path / "o" / "images").iterdir()) == names
    assert [each["id"] for each in document["annotations"]] == list(
        range(1, len(document["annotations"]) + 1)
    )
    for image, row, col in zip(
        document["images"], TILES.column("row"), TILES.column("col"), strict=True
    ):
        assert (image["height"], image["width"]) == (32, 24)
        shown = imagecodecs.png_decode((tmp_path / "o/images" / image["file_name"]).read_bytes())
        expected = np.moveaxis(window(pixels, row, col), 0, -1)
        np.testing.assert_array_equal(shown.reshape(expected.shape), expected)
        labels = window(LABELS, row, col)
        own = [each for each in document["annotations"] if each["image_id"] == image["id"]]
        assert [each["label"] for each in own] == [n for n in np.unique(labels) if n]
        for each in own:
            inside = labels == each["label"]
            np.testing.assert_array_equal(mask_of(each["segmentation"]), inside)
            assert each["area"] == np.count_nonzero(inside)
            y, x = np.nonzero(inside)
            left, top, width, height = each["bbox"]
            assert (left, top) == (x.min(), y.min())
            assert (left + width, top + height) == (x.max() + 1, y.max() + 1)
            assert each["iscrowd"] == 0


def test_classes_are_numbered_by_name(tmp_path):
    cells = pa.table(
        {"cell_id": [n * 1000 for n in range(8, 0, -1)], "type": ["b", "a", "c", "a"] * 2}
    )
    path = write_coco(opened(COLOURS), opened(LABELS), TILES, tmp_path, cells=cells, classes="type")
    document = json.loads(path.read_text())
    names = {each["id"]: each["name"] for each in document["categories"]}
    assert names == {1: "a", 2: "b", 3: "c"}
    known = dict(zip(cells["cell_id"].to_pylist(), cells["type"].to_pylist(), strict=True))
    for each in document["annotations"]:
        assert names[each["category_id"]] == known[each["label"]]
    with pytest.raises(InvalidInputError, match="has no class"):
        write_coco(
            opened(COLOURS),
            opened(LABELS),
            TILES,
            tmp_path / "o",
            cells=cells.slice(0, 3),
            classes="type",
        )
    assert not (tmp_path / "o" / "annotations.json").exists()


def test_a_job_goes_on_where_it_stopped(tmp_path):
    def stop(_what, done, _total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_coco(opened(COLOURS), opened(LABELS), TILES, tmp_path, progress=stop)
    assert [each.name for each in tmp_path.iterdir()] == ["images"]
    written = {path: path.stat().st_mtime_ns for path in Path(tmp_path / "images").iterdir()}
    assert len(written) == 2
    # What another job left is no tile of this one.
    other = tmp_path / "images" / "t1_9.png"
    other.write_bytes(next(iter(written)).read_bytes())
    write_coco(opened(COLOURS), opened(LABELS), TILES, tmp_path)
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    assert len(list((tmp_path / "images").iterdir())) == 4
    shown = np.moveaxis(imagecodecs.png_decode(other.read_bytes()), -1, 0)
    np.testing.assert_array_equal(shown, window(COLOURS, 70, -12))
    with pytest.raises(ExistsError, match="exists already"):
        write_coco(opened(COLOURS), opened(LABELS), TILES, tmp_path)


def test_tiles_without_objects(tmp_path):
    path = write_coco(opened(COLOURS), opened(LABELS * 0), TILES, tmp_path)
    document = json.loads(path.read_text())
    assert document["annotations"] == []
    assert len(document["images"]) == 4


@pytest.mark.parametrize(
    ("image", "labels", "options", "error", "message"),
    [
        (COLOURS[:2], LABELS, {}, InvalidInputError, "a PNG has one or three"),
        (COLOURS.astype(np.uint16), LABELS, {}, InvalidInputError, "a PNG has one or three"),
        (COLOURS, LABELS[:80], {}, InvalidInputError, "as large as the picture"),
        (COLOURS, LABELS.astype(np.float32), {}, InvalidInputError, "labels are whole numbers"),
        (COLOURS, LABELS, {"classes": "type"}, UnknownNameError, "no cells"),
        (COLOURS, LABELS, {"tissue_id": "t2"}, UnknownNameError, "'t2'"),
    ],
)
def test_what_coco_has_no_form_for_is_refused(tmp_path, image, labels, options, error, message):
    with pytest.raises(error, match=message):
        write_coco(opened(image), opened(labels), TILES, tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()


@pytest.mark.interop
# Its compiled part knows numpy 1 only by the name of an argument.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_the_same_masks(tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="`pycocotools` is not installed")
    path = write_coco(opened(COLOURS), opened(LABELS), TILES, tmp_path / "o")
    found = coco.COCO(str(path))
    assert len(found.getImgIds()) == len(TILES)
    seen = 0
    for number, image in found.imgs.items():
        row, col = TILES.rows().row[number - 1], TILES.rows().col[number - 1]
        shown = window(LABELS, row, col)
        for one in found.imgToAnns[number]:
            mask = found.annToMask(one)
            np.testing.assert_array_equal(mask, shown == one["label"])
            assert mask.shape == (image["height"], image["width"])
            assert one["area"] == mask.sum()
            seen += 1
        assert len(found.imgToAnns[number]) == len(set(shown[shown > 0].tolist()))
    assert seen == len(found.anns) > 0
