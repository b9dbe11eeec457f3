"""What lies over a picture, at the right micrometre: overlays, tiles, single pixels."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.cohort import open_tiles
from microtome.coordinates import Mpp, Resolution
from microtome.image import MultiscaleImage, begin_image
from microtome.sources import open_image
from microtome.viewer._colours import COLOUR_MAPS, MASK_COLOUR, colour_of_labels, coloured
from microtome.viewer._overlays import sampled
from microtome.viewer._plane import pixels_to_um
from microtome.viewer._slide import Placed
from microtome.viewer._zoom import window_of

from .conftest import CELL_TYPES

SIZES = st.sampled_from(["0.25", "0.3", "0.5", "1", "1.7", "4"])
SHIFTS = st.integers(-300, 300).map(lambda n: str(Fraction(n, 4)))


@settings(max_examples=60)
@given(SIZES, SIZES, SHIFTS, SHIFTS, st.data())
def test_an_overlay_is_what_lies_at_the_micrometre(size, own, left, top, data):
    """In fractions, so that no rounding of ours is repeated."""
    pixels = np.random.default_rng(1).integers(1, 1000, (90, 130)).astype(np.uint16)
    size, own, left, top = (Fraction(v) for v in (size, own, left, top))
    overlay = open_image(pixels, axes="yx", mpp=float(own), kind="labels")
    height, width = 400, 620
    zoom = data.draw(st.integers(0, 2))
    step = 2 ** (2 - zoom)
    row = data.draw(st.integers(0, (-(-height // step) - 1) // 256))
    col = data.draw(st.integers(0, (-(-width // step) - 1) // 256))
    window = window_of(height, width, zoom, col, row)
    to_um = np.diag([float(size), float(size), 1.0])
    placed = Placed(overlay, pixels_to_um(overlay, (float(left), float(top))))
    values, known = sampled(placed, to_um, window)

    def places(span, start):
        return np.array(
            [floor(((i + Fraction(1, 2)) * step * size - start) / own) for i in range(*span)]
        )

    rows, columns = places(window.y, top), places(window.x, left)
    inside = ((rows >= 0) & (rows < 90))[:, None] & ((columns >= 0) & (columns < 130))
    np.testing.assert_array_equal(known, inside)
    expected = pixels[np.clip(rows, 0, 89)][:, np.clip(columns, 0, 129)]
    np.testing.assert_array_equal(values[known], expected[inside])
    assert not values[~known].any()


def test_a_coarse_zoom_is_taken_from_a_coarse_level(tmp_path):
    labels = np.random.default_rng(3).integers(0, 9, (700, 900)).astype(np.uint32)
    with begin_image(
        tmp_path / "l.ome.zarr", dtype=labels.dtype, shape=labels.shape, axes="yx",
        mpp=Mpp.from_user(1.0), channel_names=None, kind="labels",
    ) as image:  # fmt: skip
        image.level(0)[...] = labels
        image.build_levels()
    image = MultiscaleImage.open(tmp_path / "l.ome.zarr")
    assert image.level_count > 1
    placed = Placed(image, pixels_to_um(image, (0.0, 0.0)))
    # Of a picture of half the pixel size: zoom 0 has pixels of four micrometres, level 2 too.
    window = window_of(1400, 1800, 0, 0, 0)
    assert window.step == 8
    values, known = sampled(placed, np.diag([0.5, 0.5, 1.0]), window)
    assert known.all()
    coarse = min(2, image.level_count - 1)
    step = 2 ** (2 - coarse)
    expected = image.level(coarse)[...][step // 2 :: step, step // 2 :: step]
    np.testing.assert_array_equal(values, expected[: values.shape[0], : values.shape[1]])


def he_tile(array, zoom, col, row):
    """The centres of a tile's pixels on the array of level 0."""
    step = 2 ** (2 - zoom)
    centres = [(np.arange(256) + start * 256 + 0.5) * step for start in (row, col)]
    y, x = (np.floor(c).astype(int) for c in centres)
    y, x = y[y < array.shape[0]], x[x < array.shape[1]]
    return array[y][:, x]


@pytest.mark.parametrize("place", [(2, 1, 0), (2, 3, 2), (1, 0, 0), (0, 0, 0)])
def test_the_mask_of_the_tissue(study, picture, place):
    zoom, col, row = place
    shown = picture(f"api/overlay/a/he/masks/tissue/{zoom}/{col}/{row}.png")
    expected = he_tile(study.mask, *place)
    h, w = expected.shape
    np.testing.assert_array_equal(shown[:h, :w, 3] == 255, expected)
    assert (shown[:h, :w][expected] == (*MASK_COLOUR, 255)).all()
    assert not shown[h:].any()
    assert not shown[:, w:].any()


def codex_in_he(rows, columns):
    """Where pixels of codex lie on H&E: a quarter turn and a shift, as the cohort was told."""
    x_um, y_um = (columns + 0.5) * 0.5, (rows + 0.5) * 0.5
    return np.floor((x_um + 20) / 0.5).astype(int), np.floor((250 - y_um) / 0.5).astype(int)


def test_a_mask_over_a_picture_that_is_turned(study, picture):
    rows, columns = np.mgrid[:256, :256]
    y, x = codex_in_he(rows, columns + 0)
    # (x, y) goes to (250 - y, x + 20): the row on H&E comes from the column on codex.
    shown = picture("api/overlay/a/codex/masks/tissue/1/0/0.png")
    np.testing.assert_array_equal(shown[..., 3] == 255, study.mask[y, x])


def test_the_two_pictures_share_micrometres(client):
    he, codex = (client.get(f"api/image/a/{m}").json() for m in ("he", "codex"))
    assert he["to_um"] == [[0.5, 0, 0], [0, 0.5, 0]]
    np.testing.assert_allclose(codex["to_um"], [[0, -0.5, 250], [0.5, 0, 20]])


@pytest.mark.parametrize("place", [(2, 1, 1), (1, 0, 0)])
@pytest.mark.parametrize("style", ["outline", "fill"])
def test_cells_filled_and_outlined(study, picture, style, place):
    zoom, col, row = place
    step = 2 ** (2 - zoom)
    shown = picture(f"api/overlay/a/he/cells/instances/{zoom}/{col}/{row}.png", style=style)
    # The whole picture at this zoom, and outlines on it: seams of tiles must not show.
    centres = [np.arange(-(-n // step)) * step + step // 2 for n in study.cells.shape]
    y, x = (c[c < n] for c, n in zip(centres, study.cells.shape, strict=True))
    whole = study.cells[y][:, x]
    padded = np.pad(whole, 1)
    edge = np.zeros(whole.shape, bool)
    for there in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        edge |= there != whole
    drawn = np.where(edge, whole, 0) if style == "outline" else whole
    part = drawn[row * 256 : row * 256 + 256, col * 256 : col * 256 + 256]
    h, w = part.shape
    np.testing.assert_array_equal(shown[:h, :w], colour_of_labels(part))
    assert (shown[..., 3] == 255).any()


@pytest.mark.parametrize("name", COLOUR_MAPS)
def test_colour_maps_are_those_of_the_name(name):
    values = np.linspace(-0.1, 1.1, 500)[None]
    expected = mpl.colormaps[name](values)[..., :3] * 255
    found = coloured(values, 0.0, 1.0, name)[..., :3].astype(float)
    assert np.abs(found - expected).max() < 13  # seventeen stops; cividis bends most


def test_a_prediction_of_values(study, picture):
    shown = picture(
        "api/overlay/a/he/predictions/model/2/0/0.png",
        channel="density", low="0.25", high="0.75", map="gray",
    )  # fmt: skip
    at = (np.arange(256) // 4)[:, None], (np.arange(256) // 4)[None]
    values = study.density[0][at]
    share = np.clip((np.nan_to_num(values) - 0.25) / 0.5, 0, 1)
    known = np.isfinite(values)
    assert np.abs(shown[..., 0] - share * 255)[known].max() <= 1
    np.testing.assert_array_equal(shown[..., 3], np.where(known, 255, 0))
    assert not known.all()
    other = picture("api/overlay/a/he/predictions/model/2/0/0.png", channel="1", map="gray")
    # As in the report, 0 is nothing: colours begin there.
    share = np.clip(study.density[1][at] / np.quantile(study.density[1], 0.998), 0, 1)
    assert np.abs(other[..., 0] - share * 255).max() < 3
    clear = picture(
        "api/overlay/a/he/predictions/model/2/0/0.png", channel="1", map="gray", ends="clear"
    )
    np.testing.assert_array_equal(clear[..., :3], other[..., :3])
    assert np.abs(clear[..., 3] - np.clip(share * 1.6, 0, 1) * 255).max() < 4
    assert np.unique(other[..., 3]).tolist() == [255]


def test_predicted_labels_have_their_colours(study, client, picture):
    layers = client.get("api/image/a/he").json()["layers"]
    assert layers["predictions"] == [
        {"id": "model", "name": "model", "kind": "dense", "channels": ["density", "rest"]},
        {"id": "types", "name": "types", "kind": "labels", "channels": []},
    ]
    assert [v["id"] for v in layers["masks"]] == ["tissue"]
    assert [v["id"] for v in layers["cells"]] == ["instances", "phenotypes"]
    shown = picture("api/overlay/a/he/predictions/types/2/1/1.png")
    path = study.layout.predictions(Resolution.parse(0.5), "types") / "a.ome.zarr"
    labels = MultiscaleImage.open(path).level(0)[...][0]
    at = ((np.arange(256) + 256) // 4)[:, None], ((np.arange(256) + 256) // 4)[None]
    np.testing.assert_array_equal(shown, colour_of_labels(labels[at]))


def table_of(study, tissue="a"):
    tiles = open_tiles(study.layout, study.layout.resolution(None), "default", 64)
    return tiles.for_tissue(tissue).table.to_pylist()


def test_tiles_are_where_the_table_says(study, client):
    layer = client.get("api/image/a/he").json()["layers"]["tilings"][0]
    rows = table_of(study)
    assert layer == {"id": "default-64", "name": "default 64 px", "size": 64, "count": len(rows)}
    box = {"x0": 200, "y0": 150, "x1": 500, "y1": 420}
    answer = client.get("api/tiles/a/he/default-64", params=box).json()
    expected = [
        r for r in rows
        if r["col"] < 500 and r["col"] + 64 > 200 and r["row"] < 420 and r["row"] + 64 > 150
    ]  # fmt: skip
    assert 3 < len(expected) < len(rows)
    assert [t[:5] for t in answer["tiles"]] == [
        [r["row"], r["col"], 64, 64, r["tile_id"]] for r in expected
    ]
    for i, name in enumerate(answer["columns"]):
        for tile, row in zip(answer["tiles"], expected, strict=True):
            assert tile[5 + i] == pytest.approx(row[name])
    assert (answer["total"], answer["truncated"]) == (len(expected), False)
    few = client.get("api/tiles/a/he/default-64", params={**box, "limit": 2}).json()
    assert (few["tiles"], few["total"]) == (answer["tiles"][:2], len(expected))
    assert few["truncated"]


def test_tiles_over_a_picture_that_is_turned(study, client):
    box = {"x0": -1e6, "y0": -1e6, "x1": 1e6, "y1": 1e6}
    answer = client.get("api/tiles/a/codex/default-64", params=box).json()
    rows = table_of(study)
    assert answer["total"] == len(rows)
    for tile, row in zip(answer["tiles"], rows, strict=True):
        # The inverse of the quarter turn: x = row - 40, y = 500 - column, of the far edge.
        assert tile[:4] == [500 - (row["col"] + 64), row["row"] - 40, 64, 64]


def test_the_pixel_under_the_pointer(study, client):
    for y, x in ((0, 0), (300, 400), (612, 870)):
        answer = client.get("api/pixel/a/he", params={"x": x, "y": y}).json()
        assert answer["values"] == study.he[:, y, x].tolist()
        assert answer["um"] == [x * 0.5 + 0.25, y * 0.5 + 0.25]
        assert answer["labels"]["tissue"] == int(study.mask[y, x])
        assert answer["labels"]["instances"] == study.cells[y, x]
        kind = int(study.types[y, x])
        assert answer["labels"]["phenotypes"] == CELL_TYPES.get(kind, kind)
        if y < 612:
            density = float(study.density[1, y // 4, x // 4])
            assert answer["labels"]["model rest"] == pytest.approx(density)
    answer = client.get("api/pixel/a/codex", params={"x": 30, "y": 10}).json()
    assert answer["values"] == study.codex[:, 10, 30].tolist()
    assert answer["um"] == [250 - 5.25, 15.25 + 20]
    # What a tissue did not measure has no value, and is not 0.
    assert client.get("api/pixel/b/codex", params={"x": 3, "y": 1}).json()["values"] == [
        *study.codex[:2, 1, 3].tolist(), None, None,
    ]  # fmt: skip


def test_the_tissues_and_what_is_known_of_them(client):
    answer = client.get("api/cohort").json()
    assert (answer["title"], answer["kind"]) == ("study", "cohort")
    assert answer["modalities"] == ["he", "codex"]
    assert answer["panels"] == {"codex": ["DNA", "CD3", "CD8", "odd:name,&=%"]}
    first, second = answer["tissues"]
    assert (first["tissue_id"], first["modalities"]) == ("a", ["he", "codex"])
    assert (first["metadata"]["age"], second["metadata"]["age"]) == (61, 47)
    # What is the same of all tells nobody apart.
    assert {"age", "patient_id"} <= set(answer["columns"])
    assert not {"site", "split"} & set(answer["columns"])
