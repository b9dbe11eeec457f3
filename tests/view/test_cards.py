"""Cards that notebooks show: small, text as text, few bytes read, and never an error."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

import microtome as mt
from microtome.cohort import (
    ComposedImagingDataset,
    MultiplexImagingDataset,
    SingleIHCImagingDataset,
    info,
)
from microtome.image import MemoryArray, html_card, html_of
from microtome.tiling import TileTable

from_user = "<img src=x onerror=alert(1)> & \"quoted\" 'text'"


class Card(HTMLParser):
    """Tags, lines by their names, and whether all that is open is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)
        if tag in {"th", "td"}:
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in {"th", "td"}:
            self.cells[-1] += data

    def fact(self, name: str) -> str:
        return self.cells[self.cells.index(name) + 1]

    @property
    def images(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "img"]


def card(value: object) -> Card:
    found = Card(value._repr_html_())
    allowed = {"div", "table", "thead", "tbody", "tr", "th", "td", "img", "pre"}
    assert {tag for tag, _ in found.tags} <= allowed
    for tag, attrs in found.tags:
        assert not [name for name in attrs if name.startswith("on")], tag
        if tag == "th":
            assert attrs["scope"] in {"row", "col"}
    for picture in found.images:
        assert picture["alt"]
        assert picture["src"].startswith("data:image/jpeg;base64,")
    assert len(found.html) < 150_000
    return found


def pixels_of(found: Card) -> np.ndarray:
    (picture,) = found.images
    return imread(BytesIO(base64.b64decode(picture["src"].split(",")[1])), format="jpeg")


class Counting(MemoryArray):
    """Pixels in memory that note how many bytes were read."""

    read_bytes = 0

    def read(self, box):
        found = super().read(box)
        self.read_bytes += found.nbytes
        return found


# ------------------------------------------------------------------ images


def test_an_image_tells_what_it_is_and_shows_its_coarsest_level(new_image):
    pixels = np.zeros((3, 600, 900), np.uint8)
    pixels[0, :, :450], pixels[2, :, 450:] = 200, 220
    image = new_image(pixels, 0.25, channel_names=["red", "green", "blue"])
    found = card(image)
    assert found.fact("Pixels") == "900 x 600"
    assert found.fact("Pixel size").startswith("0.25 x 0.25 µm")
    assert found.fact("Size") == "225 x 150 µm"
    assert found.fact("Channels") == "3: red, green, blue"
    coarse = image.level(image.level_count - 1)
    assert (
        found.fact("Levels")
        == f"{image.level_count}, the coarsest {coarse.width} x {coarse.height}"
    )
    shown = pixels_of(found).astype(int)
    assert max(shown.shape) <= 192
    third = shown.shape[1] // 3
    assert np.abs(shown[:, :third] - (200, 0, 0)).max() < 12
    assert np.abs(shown[:, -third:] - (0, 0, 220)).max() < 12


@pytest.mark.parametrize("shape", [(3, 50, 60), (1, 4000, 3000)])
def test_a_picture_is_made_within_a_budget_of_bytes(shape):
    # One level only, of 24 MB in the second case: too much to look at.
    image = mt.open_image(np.ones(shape, np.uint16), axes="cyx", mpp=0.5)
    array = Counting(np.ones(shape, np.uint16))
    object.__setattr__(image.level(0), "array", array)
    found = card(image)
    assert array.read_bytes <= 4 << 20
    assert len(found.images) == (shape[1] == 50)
    assert (array.read_bytes > 0) == (shape[1] == 50)


def test_of_a_slide_only_the_coarsest_level_is_read(new_image, monkeypatch):
    image = new_image(np.zeros((2, 700, 700), np.uint16), channel_names=["a", "b"])
    asked = []
    read = type(image).read
    monkeypatch.setattr(
        type(image),
        "read",
        lambda self, level, *a, **k: asked.append(level) or read(self, level, *a, **k),
    )
    found = card(image)
    assert asked == [image.level_count - 1]
    assert found.images[0]["alt"].endswith("channel a.")


def test_labels_are_told_apart_and_nothing_is_black(new_image):
    labels = np.zeros((60, 90), np.uint32)
    labels[:, 30:60], labels[:, 60:] = 1, 2
    shown = pixels_of(card(new_image(labels, kind="labels"))).astype(int)
    third = shown.shape[1] // 3
    none, one, two = (
        np.median(shown[:, i * third + 8 : (i + 1) * third - 8], (0, 1)) for i in range(3)
    )
    assert none.max() < 8
    assert np.abs(one - two).max() > 40
    assert min(one.max(), two.max()) > 60


def test_a_closed_and_a_damaged_image_are_shown_without_a_picture(new_image, tmp_path):
    image = new_image(np.ones((1, 40, 40), np.float32), channel_names=["a"])
    image.close()
    found = card(image)
    assert found.fact("State") == "closed"
    assert not found.images
    other = new_image(np.full((1, 40, 40), 7, np.float32), channel_names=["a"])
    for path in tmp_path.glob("image2.ome.zarr/*/c/**/*"):
        if path.is_file():
            path.write_bytes(b"no chunk")
    found = card(other)
    assert found.fact("Pixels") == "40 x 40"
    assert not found.images


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 1e300])
def test_any_pixels_can_be_looked_at(new_image, value):
    pixels = np.full((1, 20, 20), value, np.float64)
    assert len(card(new_image(pixels, channel_names=["a"])).images) == 1
    pixels[0, 0, 0] = 3
    assert len(card(new_image(pixels, channel_names=["a"])).images) == 1


def test_an_image_without_a_pixel_size_says_so():
    image = mt.open_image(np.zeros((5, 7), np.uint8), axes="yx")
    assert card(image).fact("Pixel size") == "not stated"


def test_names_are_text_and_many_are_cut(new_image):
    names = [from_user, *(f"channel {i}" for i in range(99))]
    found = card(new_image(np.zeros((100, 4, 4), np.uint8), channel_names=names))
    assert found.fact("Channels").startswith(f"100: {from_user}, channel 0")
    assert found.fact("Channels").endswith("and 88 more")


def test_an_address_does_not_tell_what_opens_it():
    from microtome.image._html import _place

    told = _place("https://me:secret@host.example/slide.zarr?X-Signature=abc")
    assert told == "https://host.example/slide.zarr"
    assert _place("/data/a?b@c.ome.zarr") == "/data/a?b@c.ome.zarr"


# ------------------------------------------------------------------ tables of tiles


def test_a_table_of_tiles_tells_counts_and_first_rows():
    rng = np.random.default_rng(2)
    tissues = [f"t{i:02}" for i in sorted(rng.integers(0, 12, 300).tolist())]
    tiles = TileTable.from_columns(
        {
            "tissue_id": tissues,
            "row": range(300),
            "col": range(300, 600),
            "note": [from_user] * 300,
        },
        tile_size=(64, 32),
        strategy="grid",
        resolution="0_5mpp",
    )
    found = card(tiles)
    assert found.fact("Tiles") == "300 of 32 x 64 px"
    first = list(dict.fromkeys(tissues))[:8]
    counts = ", ".join(f"{name} ({tissues.count(name)})" for name in first)
    assert found.fact("Tissues") == f"12: {counts} and 4 more"
    assert "tissue_id (string), tile_id (int64)" in found.fact("Columns")
    start = found.cells.index("tissue_id")
    assert found.cells[start + 5 : start + 10] == ["t00", "0", "0", "300", from_user]
    assert [tag for tag, _ in found.tags].count("tr") == 5 + 1 + 5


def test_an_empty_table_of_tiles_is_shown():
    tiles = TileTable.from_columns(
        {"tissue_id": [], "row": [], "col": []}, tile_size=8, strategy="grid"
    )
    found = card(tiles)
    assert (found.fact("Tiles"), found.fact("Tissues")) == ("0 of 8 x 8 px", "none")


# ------------------------------------------------------------------ cohorts


def test_a_cohort_tells_what_it_holds(cohort):
    found = card(info(cohort.root))
    assert found.fact("Tissues") == "2, 3 images"
    assert found.fact("Patients") == "1"
    assert found.fact("Modalities") == "he, ihc_CD3, stains"
    assert re.search(r"default 64 px \(\d+ tiles\), grid 96 px", found.fact("Tilings"))
    assert "<img src=x onerror=alert(2)>" in found.cells
    assert not found.images


def test_datasets_tell_what_they_read(cohort):
    options = {"path": cohort.root, "tile_size": 64}
    one = SingleIHCImagingDataset("study", "ihc_CD3", **options)
    found = card(one)
    assert found.fact("Tissues") == "1: two"
    assert found.fact("Items") == f"{len(one)} tiles of 64 x 64 px (default)"
    many = MultiplexImagingDataset("study", "stains", path=cohort.root, standardization="identity")
    found = card(many)
    assert found.fact("Channels").startswith("3: <script>alert(1)</script>, ")
    assert found.fact("Items") == "1 whole tissues"
    composed = ComposedImagingDataset("study", ["he", "ihc_CD3"], **options)
    assert card(composed).fact("Modalities") == "he, ihc_CD3 at 0.5 µm"


def test_a_dataset_of_several_cohorts_tells_which(cohort):
    name = cohort.root.name
    spora = mt.SporaDataset(
        [name], datasets_dir=cohort.root.parent, modalities=["he"], resolution=0.5, tile_size=64
    )
    found = card(spora)
    assert found.fact("Cohorts") == f"1: {name}"
    assert found.fact("An epoch") == f"{len(spora):,} tiles"


# ------------------------------------------------------------------ never an error


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_where_no_card_can_be_made_there_is_the_repr_and_at_worst_the_name():
    def fail():
        raise ValueError("no")

    assert html_of([from_user], fail) == Card(html_of([from_user], fail)).html
    assert "<img" not in html_of([from_user], fail)
    assert html_of(Broken(), fail) == "<pre>Broken</pre>"


def test_a_cohort_that_was_removed_is_no_error_in_a_notebook(cohort, tmp_path):
    import shutil

    shutil.copytree(cohort.root, tmp_path / "c")
    dataset = SingleIHCImagingDataset("c", "ihc_CD3", path=tmp_path / "c")
    image = mt.open_image(tmp_path / "c/he/0_5mpp/images/one.ome.zarr")
    shutil.rmtree(tmp_path / "c")
    assert card(dataset).fact("Tissues") == "1: two"
    assert card(image).fact("Pixels") == "420 x 301"


@given(st.text(max_size=400), st.text(max_size=400))
def test_whatever_the_text_it_is_text(name, value):
    found = Card(html_card("title", {name: value}))
    assert len(found.tags) == 7
    assert len(found.cells) == 2
