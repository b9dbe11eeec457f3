"""The page, read as a browser reads it."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import shutil
import sys
from functools import partial
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from microtome.cli import main
from microtome.cli._app import app
from microtome.cohort import CohortLayout, ingest, open_tiles, parse_modality, tile
from microtome.cohort import mask as make_mask
from microtome.errors import (
    DependencyError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from microtome.view import _report, _sections, report
from microtome.view._throughput import Throughput, measure_throughput

CODEX = parse_modality("codex")
VOID = {"meta", "img", "rect", "br"}
SLIDE = re.compile(r"\w+ as \w+, \d+ x \d+ µm")


class Page(HTMLParser):
    """Tags with their attributes, the text, and the tables of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.codes: list[str] = []
        self.rows: list[list[str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            # Each stands in a region that can be scrolled and is named for it.
            region = self.tags[-2][1]["aria-label"]
            self.rows = self.tables[region] = []
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag == "code":
            self.codes.append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            return
        self.words.append(data)
        if "code" in self.open:
            self.codes[-1] += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def records(self, table: str) -> list[dict[str, str]]:
        head, *rows = self.tables[table]
        return [dict(zip(head, row, strict=True)) for row in rows]

    def attributes(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def read(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def hash_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def page(cohort, tmp_path_factory) -> Page:
    before = hash_of(cohort.root)
    path = report(cohort.root, tmp_path_factory.mktemp("page") / "report.html", throughput=False)
    assert hash_of(cohort.root) == before, "a report only reads"
    return read(path)


# ------------------------------------------------------------------ the page as such


def test_it_needs_nothing_but_itself(page):
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {t for t, _ in page.tags}
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], tag
        if "src" in attrs:
            assert attrs["src"].startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
        if "href" in attrs:
            assert attrs["href"].startswith("#")
    assert "://" not in page.html
    assert "@import" not in page.html
    assert "url(" not in page.html
    (policy,) = [m for m in page.attributes("meta") if m.get("http-equiv")]
    assert policy["content"].startswith("default-src 'none'")


def test_every_picture_can_be_decoded_and_is_described(page):
    images = page.attributes("img")
    assert len(images) > 10
    for attrs in images:
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", attrs["src"]).groups()
        pixels = imread(BytesIO(base64.b64decode(data, validate=True)), format=kind)
        ratio = pixels.shape[1] / pixels.shape[0]
        assert ratio == pytest.approx(int(attrs["width"]) / int(attrs["height"]), rel=0.05)
        assert attrs["alt"]


def test_headings_tables_and_links_are_in_order(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    tables = page.attributes("table")
    assert len(page.attributes("caption")) == len(tables) > 1
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {attrs["href"][1:] for attrs in page.attributes("a")}
    assert targets <= set(ids)
    assert page.attributes("html") == [{"lang": "en"}]


def test_text_from_the_cohort_is_text(page, cohort):
    # The root of the cohort, a channel, a clinical column and its value, a patient: none is markup.
    for text in (
        "study & <co>",
        "<script>alert(1)</script>",
        "$\\frac{x$",
        "grade <b>",
        "<i>G3</i>",
        "<img src=x onerror=alert(2)>",
        "<b>tissue</b>",
    ):
        assert text in page.text
    assert "<script" not in page.html
    assert "<i>" not in page.html
    assert not [attrs for attrs in page.attributes("img") if "onerror" in attrs]
    assert len(page.attributes("title")) == 1


def test_the_same_cohort_gives_the_same_page_but_for_the_date(page, cohort, tmp_path):
    again = report(cohort.root, tmp_path / "again.html", throughput=False).read_text("utf-8")

    def dateless(html):
        text, count = re.subn(r"<time [^>]*>[^<]*</time>", "", html)
        assert count == 1
        return text

    assert dateless(again) == dateless(page.html)


def test_matplotlib_settings_of_the_user_change_nothing(page, cohort, tmp_path):
    import matplotlib as mpl

    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30, "image.origin": "lower"}):
        other = read(report(cohort.root, tmp_path / "o.html", throughput=False))
        assert mpl.rcParams["font.size"] == 30
    assert [i["src"] for i in other.attributes("img")] == [i["src"] for i in page.attributes("img")]


# ------------------------------------------------------------------ what it says


def test_the_table_of_tissues_has_every_image(page):
    rows = page.records("Table of tissues")
    assert [(row["Tissue"], row["Modality"]) for row in rows] == [
        ("one", "he"),
        ("two", "ihc_CD3"),
        ("two", "stains"),
    ]
    for named in rows:
        assert named["Source µm/px"] == "0.5"
        assert named["stated by"] == "user"
        assert named["Source size (px)"] == "420 x 301"
        assert int(named["Tiles"]) > 3
        assert re.fullmatch(r"\d+\.\d%", named["Tissue covered"])
    assert "2 tissues 1 patient 3 images" in page.text


def test_it_tells_which_tiling_is_drawn(page):
    (first, second) = page.tables["Table of tilings"][1:]
    assert (first[0], first[1], first[-1]) == ("default", "64", "drawn")
    assert (second[0], second[1], second[-1]) == ("grid", "96", "\N{EN DASH}")
    assert "Tiles: default 64 px" in page.text
    assert "of 64 x 64 px, 32 x 32 µm" in page.text


def test_predictions_stand_with_the_image_they_were_made_from(page):
    alts = [attrs["alt"] for attrs in page.attributes("img")]
    slides = [i for i, alt in enumerate(alts) if SLIDE.match(alt)]
    assert [alts[i].split(",")[0] for i in slides] == [
        "one as he",
        "two as ihc_CD3",
        "two as stains",
    ]
    heat = [i for i, alt in enumerate(alts) if "over the slide in grey" in alt]
    assert [alts[i].split(" predicted")[0] for i in heat] == [
        "one: <b>tissue</b>",
        "two: prediction",
    ]
    # The second was made from the stains, not from the tissue's first image.
    assert slides[0] < heat[0] < slides[1] < slides[2] < heat[1]
    assert "predicted by model at 2 µm" in page.text
    assert "quarter , 0 (dark) to 0.25 (bright)" in page.text
    assert "nothing , 0 everywhere" in page.text


def test_channels_are_shown_before_and_after_standardization(page):
    assert "right after quantile_clipping/uq_0.99_image" in page.text
    alts = [attrs["alt"] for attrs in page.attributes("img") if attrs.get("class") == "chart"]
    assert any("red, green, blue in one, as stored" in alt for alt in alts)
    for channel in ("<script>alert(1)</script>", "$\\frac{x$", "empty"):
        assert any(f"{channel} in two, before and after" in alt for alt in alts)
    assert "Pixels inside the tissue mask" in page.text


def test_embeddings_are_a_scatter_with_tissues_named(page):
    assert "model, 64_tile_embeddings.parquet at 0.5 µm" in page.text
    assert "9 tiles, vectors of 5 numbers" in page.text


def test_the_slide_is_in_the_picture_the_right_way_up(page, cohort):
    (slide,) = [i for i in page.attributes("img") if i["alt"].startswith("one as he")]
    pixels = imread(BytesIO(base64.b64decode(slide["src"].split(",")[1])), format="jpeg")
    masks = cohort.root / "segmentations" / "0_5mpp" / "tissue_masks"
    tissue = np.load(masks / "one.npz")["mask"]
    zoom = pixels.shape[0] // tissue.shape[0]
    shown = pixels[zoom // 2 :: zoom, zoom // 2 :: zoom].astype(float)
    dark = shown[: tissue.shape[0], : tissue.shape[1]].mean(axis=2) < 200
    # Tiles, outline and scale bar are drawn over it; the rest is tissue where the mask says so.
    assert (dark == tissue).mean() > 0.93
    assert (dark == tissue[::-1]).mean() < 0.9
    assert (dark == tissue[:, ::-1]).mean() < 0.9


def test_progress_counts_tissues_and_the_rest_is_listed_only(cohort, tmp_path):
    calls: list[tuple[str, int, int]] = []
    path = report(
        cohort.root,
        tmp_path / "r.html",
        max_tissues=1,
        throughput=False,
        progress=lambda *call: calls.append(call),
    )
    assert calls == [("report", 1, 1)]
    page = read(path)
    assert "Pictures are below of the first 1 tissues; 1 more are in this table only." in page.text
    assert [row[0] for row in page.tables["Table of tissues"][1:]] == ["one", "two", "two"]
    links = {attrs["href"] for attrs in page.attributes("a")}
    assert {link for link in links if "tissue" in link} == {"#tissue-1", "#tissues"}


def test_throughput_is_measured_of_every_modality(cohort, tmp_path, monkeypatch):
    # Three kinds of slides share the time; there are at least 0.4 s for each.
    short = partial(measure_throughput, seconds=1.2)
    monkeypatch.setattr(_report, "measure_throughput", short)
    page = read(report(cohort.root, tmp_path / "r.html", max_tissues=0))
    rows = page.tables["Table of loading speed"][1:]
    colours = "mean and deviation of colours"
    assert [(row[0], *row[5:7]) for row in rows] == [
        ("he", "3", colours),
        ("ihc_CD3", "3", colours),
        ("stains", "2", "quantile_clipping/uq_0.99_image"),
    ]
    for row in rows:
        assert row[1] == "64 x 64"
        tiles, seconds = re.fullmatch(r"([\d,]+) tiles in ([\d.]+) s", row[-1]).groups()
        assert int(tiles.replace(",", "")) > 0
        # 64 x 64 float32 are 0.016384 MB; the third channel of the stains is empty and left out.
        rate, megabytes = (float(cell.replace(",", "")) for cell in row[3:5])
        assert megabytes == pytest.approx(rate * 0.016384 * int(row[5]), abs=1.1)
        assert float(seconds) >= 0.4
    assert "measured on the machine that made this page" in page.text


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> CohortLayout:
    """Fifteen tissues of seven or eight channels, of eight patients of whom each is in two splits."""
    root = tmp_path_factory.mktemp("many") / "cohort"
    rng = np.random.default_rng(1)
    names = [f"marker {i}" for i in range(8)]
    for number in range(15):
        count = 8 - number % 2
        ingest(
            rng.poisson(4, (count, 96, 128)).astype(np.uint16),
            axes="cyx",
            channel_names=names[:count],
            cohort=root,
            tissue_id=f"t{number:02d}",
            modality="codex",
            mpp=0.5,
            resolution=0.5,
            patient_id=f"p{number // 2}",
            split=("train", "test")[number % 2],
        )
    make_mask(root, method="whole")
    tile(root, tile_size=32)
    return CohortLayout.open(root)


def test_many_tissues_are_shown_in_less(many, tmp_path):
    page = read(report(many.root, tmp_path / "many.html", throughput=False))
    few = read(report(many.root, tmp_path / "few.html", throughput=False, max_tissues=2))
    # What all tissues lack is told once.
    for text in ("No model has predicted on this tissue.", "no standardization tables"):
        assert page.text.count(text) == few.text.count(text) == 1
    charts, pictures = (
        [a["alt"] for a in page.attributes("img") if a.get("class") == kind]
        for kind in ("chart", "photograph")
    )
    assert sum("Histogram of" in alt for alt in charts) == 0
    assert sum("Histograms of" in alt for alt in charts) == 8
    assert sum("as codex" in alt for alt in pictures) == 15
    # Of few tissues, each channel of each has its chart, folded away.
    alts = [a["alt"] for a in few.attributes("img") if a.get("class") == "chart"]
    assert sum("Histogram of" in alt for alt in alts) == 15
    assert "8 channels" in few.text
    # All of the patients are named, most of them in a list that opens.
    assert "2 more patients are in several splits" in page.text
    assert "p5, p6" in page.text
    links = [a["href"].removeprefix("#") for a in page.attributes("a")]
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert {link for link in links if link.startswith("tissue-")} == {
        f"tissue-{i}" for i in range(1, 16)
    }
    assert set(links) <= ids


def test_throughput_of_panels_that_differ(many):
    resolution = many.resolution(None)
    tiles = open_tiles(many, resolution, "default", 32)
    (found,) = measure_throughput(many, resolution, tiles, [CODEX], seconds=0.4)
    assert isinstance(found, Throughput)
    assert (found.channels, found.standardization) == (8, "as stored")
    assert found.megabytes == pytest.approx(found.tiles * 8 * 32 * 32 * 4 / 1e6)


def test_predictions_of_many_tissues_are_small(page, cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(_report, "_MANY", 1)
    small = read(report(cohort.root, tmp_path / "r.html", throughput=False, validation=False))

    def widths(shown):
        heat = [i for i in shown.attributes("img") if "predicted by model" in i["alt"]]
        return [int(i["width"]) for i in heat if "over the slide" in i["alt"]], [
            int(i["width"]) for i in heat if "over the slide" not in i["alt"]
        ]

    assert max(widths(small)[0]) <= 560 < min(widths(page)[0])
    assert max(widths(small)[1]) <= 200 < min(widths(page)[1])


# ------------------------------------------------------------------ what is missing


def test_an_empty_cohort_has_a_page(tmp_path):
    CohortLayout.open_or_create(tmp_path / "empty")
    page = read(report(tmp_path / "empty", tmp_path / "r.html"))
    assert "0 tissues 0 images" in page.text
    assert "microtome ingest SLIDE --cohort" in page.text


def test_what_is_missing_names_the_command_that_makes_it(tmp_path):
    root = tmp_path / "my cohort"
    pixels = np.random.default_rng(0).integers(0, 256, (2, 50, 60), np.uint8)
    options = {"axes": "cyx", "channel_names": ["a", "b"], "mpp": 1.0, "modality": "codex"}
    ingest(pixels, cohort=root, tissue_id="t", **options)
    page = read(report(root, tmp_path / "r.html"))
    for verb in ("mask", "tile", "predict", "stats"):
        # Quoted as a shell needs it.
        assert f"microtome {verb} '{root}'" in page.text
    assert "This tissue has no tissue mask." in page.text
    assert "There are no tiles at this resolution." in page.text
    assert "No model has predicted on this tissue." in page.text
    assert "This modality has no standardization tables." in page.text
    assert "There are no tile embeddings." in page.text
    assert "of the whole image, there being no mask" in page.text
    assert len([a for a in page.attributes("img") if "t as codex" in a["alt"]]) == 1


def test_a_command_names_the_resolution_where_there_are_several(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for resolution in (1.0, 2.0):
        ingest(
            pixels,
            axes="yxc",
            cohort=tmp_path / "c",
            tissue_id="t",
            modality="he",
            mpp=1.0,
            resolution=resolution,
        )
    page = read(report(tmp_path / "c", tmp_path / "r.html"))
    assert f"microtome mask {tmp_path / 'c'} --resolution 2" in page.text
    assert f"microtome mask {tmp_path / 'c'} --resolution 1" in page.text
    assert len([a for a in page.attributes("img") if "t as he" in a["alt"]]) == 2


def commands_of(page: Page) -> list[str]:
    """The commands that a page tells to run or names; a path of the page is none."""
    return [text for text in page.codes if text.startswith("microtome ")]


def test_every_command_on_a_page_is_one_that_the_program_has(cohort, tmp_path):
    root = tmp_path / "a study"
    shutil.copytree(cohort.root, root)
    (root / "cohort.json").unlink()  # Something that validate finds.
    shutil.rmtree(root / "segmentations")
    shutil.rmtree(root / "tiling")
    shutil.rmtree(root / "predictions")
    shutil.rmtree(root / "stains" / "0_5mpp" / "standardization")
    (root / "metadata" / "notes.parquet").write_bytes(b"PAR1")
    pages = [read(report(root, tmp_path / "r.html", throughput=True))]
    CohortLayout.open_or_create(tmp_path / "empty one")
    pages.append(read(report(tmp_path / "empty one", tmp_path / "e.html")))
    named: set[str] = set()
    for command in [command for page in pages for command in commands_of(page)]:
        tokens = shlex.split(command)[1:]
        function, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        named.add(function.__name__)
        given = [value for value in bound.arguments.values() if isinstance(value, Path)]
        assert {root, tmp_path / "empty one"} & set(given), command
    assert {"mask", "tile", "stats", "predict", "ingest", "validate"} <= named


def test_predictions_that_are_missing_in_a_mixed_cohort_can_be_made_as_told(tmp_path):
    rng = np.random.default_rng(0)
    common = {"cohort": tmp_path / "mixed", "mpp": 1.0, "resolution": 1.0}
    for name, modality, pixels, names in (
        ("slide", "he", rng.integers(80, 250, (3, 64, 64), np.uint8), None),
        ("imc", "imc", rng.poisson(4, (3, 64, 64)).astype(np.uint16), ["DNA1", "CD3", "CD8"]),
    ):
        ingest(pixels, axes="cyx", channel_names=names, tissue_id=name, modality=modality, **common)
    make_mask(tmp_path / "mixed", method="whole")
    tile(tmp_path / "mixed", tile_size=32)
    page = read(report(tmp_path / "mixed", tmp_path / "r.html", throughput=False))
    (of_slide,) = {c for c in commands_of(page) if "predict" in c and "--modality he" in c}
    (of_imc,) = {c for c in commands_of(page) if "predict" in c and "--modality imc" in c}
    assert "The model demo is for H&E and IHC; of imc it takes one of your own." in page.text
    pytest.importorskip("torch", reason="the extra `torch` is not installed")
    assert main(shlex.split(of_imc.replace("PACKAGE.MODULE:MODEL", "builtins:abs"))[1:]) == 0
    assert main(shlex.split(of_slide)[1:]) == 0
    page = read(report(tmp_path / "mixed", tmp_path / "again.html", throughput=False))
    assert "No model has predicted" not in page.text
    assert "There are no tile embeddings" not in page.text


def test_embeddings_are_not_promised_where_no_command_makes_them(many, tmp_path):
    page = read(report(many.root, tmp_path / "r.html", throughput=False, max_tissues=1))
    assert (
        "There are no tile embeddings. The command predict makes those of H&E and IHC" in page.text
    )


def test_damaged_pieces_are_told_in_their_place_and_the_rest_is_shown(cohort, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(cohort.root, root)
    (root / "he/0_5mpp/images/one.ome.zarr/0/zarr.json").write_text("{")
    (root / "segmentations/0_5mpp/tissue_masks/two.npz").write_bytes(b"PK")
    (root / "predictions/0_5mpp/model/two.ome.zarr/zarr.json").write_text("{")
    (root / "predictions/0_5mpp/model/64_tile_embeddings.parquet").write_bytes(b"PAR1")
    (root / "tiling/0_5mpp/grid/96_tile_coordinates.parquet").write_bytes(b"PAR1")
    (root / "tiling/0_5mpp/grid/big_tile_coordinates.parquet").write_bytes(b"PAR1")
    shutil.rmtree(root / "ihc/ihc_CD3/0_5mpp/images/two.ome.zarr")
    quantiles = root / "stains/0_5mpp/standardization/quantile_clipping/uq_0.99_image"
    (quantiles / "image_level_upper_quantiles.parquet").write_bytes(b"PAR1")
    page = read(report(root, tmp_path / "r.html", throughput=False))
    for told in (
        "one.ome.zarr/0",
        "two.npz is not a mask archive",
        "64_tile_embeddings.parquet is no table of embeddings",
        "96_tile_coordinates.parquet",
        "'big' is none",
        "two.ome.zarr is missing; ingest it again",
        "image_level_upper_quantiles.parquet",
    ):
        assert told in page.text
    # The channels of the one image that is left.
    alts = [attrs["alt"] for attrs in page.attributes("img")]
    assert len([alt for alt in alts if SLIDE.match(alt)]) == 1


def test_a_row_of_an_unknown_modality_is_told(cohort, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path / "c"
    shutil.copytree(cohort.root, root)
    path = CohortLayout.open(root).tissues
    table = pq.read_table(path)
    extra = table.slice(0, 1).set_column(
        table.column_names.index("modality"), "modality", pa.array(["x-ray"])
    )
    pq.write_table(pa.concat_tables([table, extra]), path)
    page = read(report(root, tmp_path / "r.html", throughput=False, max_tissues=0))
    assert "unknown modality 'x-ray'" in page.text


# ------------------------------------------------------------------ when it cannot be made


def test_what_is_no_cohort_is_refused_and_nothing_is_written(tmp_path):
    output = tmp_path / "r.html"
    with pytest.raises(NotFoundError):
        report(tmp_path / "nowhere", output)
    (tmp_path / "other").mkdir()
    with pytest.raises(FormatError):
        report(tmp_path / "other", output)
    CohortLayout.open_or_create(tmp_path / "c")
    with pytest.raises(InvalidInputError, match="max_tissues"):
        report(tmp_path / "c", output, max_tissues=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        report(tmp_path / "c", tmp_path / "file" / "r.html")
    assert not output.exists()


def test_an_interrupted_report_leaves_the_old_one(cohort, tmp_path, monkeypatch):
    output = tmp_path / "r.html"
    output.write_text("old")

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(_sections, "slide_block", stop)
    with pytest.raises(KeyboardInterrupt):
        report(cohort.root, output, throughput=False)
    assert output.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


@pytest.mark.parametrize("package", ["matplotlib.figure", "jinja2"])
def test_without_the_extra_it_is_named_before_any_work(cohort, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=r"microtome\[report\]"):
        report(cohort.root, tmp_path / "r.html")


def test_a_noisy_picture_can_be_compressed(tmp_path):
    # Pillow gives up on such a one where it tries to optimize.
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    ingest(pixels, axes="yxc", cohort=tmp_path / "c", tissue_id="t", modality="he", mpp=1.0)
    page = read(report(tmp_path / "c", tmp_path / "r.html"))
    (slide,) = [a for a in page.attributes("img") if "t as he" in a["alt"]]
    decoded = imread(BytesIO(base64.b64decode(slide["src"].split(",")[1])), format="jpeg")
    # Away from the scale bar.
    assert np.abs(decoded[:500].astype(int) - pixels[:500]).mean() < 15
