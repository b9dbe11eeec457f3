"""What the page says of a whole cohort is what counting its files, rows and pixels gives."""

from __future__ import annotations

import math
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cohort import CohortLayout, add_metadata, cohort_panel, ingest, validate
from microtome.errors import InvalidInputError, NotFoundError
from microtome.panels import ChannelState
from microtome.view import cohort_overview, report, split_balance, tiling_numbers

SIZES = {"a": (40, 50), "b": (60, 30), "c": (20, 20), "d": (31, 47)}
CHANNELS = {"a": ["CD3", "CD8", "DNA"], "b": ["CD3", "DNA"], "c": ["DNA"], "d": ["CD3", "CD8"]}
PATIENTS = {"a": "p1", "b": "p2", "c": "p1", "d": None}
SPLITS = {"a": "train", "b": "train", "c": "test", "d": "test"}
FAILED = "CD8"


class Page(HTMLParser):
    """The tables of a page by their names, its text, and what its pictures say of themselves."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tables: dict[str, list[list[str]]] = {}
        self.alts: list[str] = []
        self.words: list[str] = []
        self.region = ""
        self.cell = self.style = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        if known.get("role") == "region":
            self.region = known["aria-label"]
        if tag == "table":
            self.tables[self.region] = []
        if tag == "tr":
            self.tables[self.region].append([])
        if tag in {"td", "th"}:
            self.tables[self.region][-1].append("")
            self.cell = True
        if tag == "img":
            self.alts.append(known["alt"])
        self.style |= tag == "style"

    def handle_endtag(self, tag):
        self.cell &= tag not in {"td", "th"}
        self.style &= tag != "style"

    def handle_data(self, data):
        if not self.style:
            self.words.append(data)
        if self.cell:
            self.tables[self.region][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def records(self, table: str) -> list[dict[str, str]]:
        head, *rows = self.tables[table]
        return [dict(zip(head, row, strict=True)) for row in rows]


def read(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def panels(tmp_path_factory) -> CohortLayout:
    """Four tissues of ragged panels; p1 is in two splits, d is nobody's, CD8 failed."""
    root = tmp_path_factory.mktemp("panels") / "cohort"
    rng = np.random.default_rng(5)
    for tissue, names in CHANNELS.items():
        options = {} if PATIENTS[tissue] is None else {"patient_id": PATIENTS[tissue]}
        ingest(
            rng.poisson(5, (len(names), *SIZES[tissue])).astype(np.uint16),
            axes="cyx",
            channel_names=names,
            cohort=root,
            tissue_id=tissue,
            modality="codex",
            mpp=0.5,
            resolution=0.5,
            split=SPLITS[tissue],
            **options,
        )
    path = root / "codex/channels.parquet"
    table = pq.read_table(path)
    names = table["channel_name"].to_pylist()
    place = table.column_names.index("qc_pass")
    passed = pa.array([name != FAILED for name in names], pa.bool_())
    pq.write_table(table.set_column(place, "qc_pass", passed), path)
    return CohortLayout.open(root)


@pytest.fixture(scope="module")
def panels_page(panels, tmp_path_factory) -> Page:
    return read(
        report(
            panels.root, tmp_path_factory.mktemp("page") / "r.html", throughput=False, max_tissues=0
        )
    )


def number(cell: str) -> float:
    return float(cell.replace(",", "").removesuffix("%"))


def bytes_of(cell: str) -> float:
    amount, unit = cell.split()
    return float(amount) * 1000 ** ["B", "kB", "MB", "GB"].index(unit)


def length_of(*places: Path) -> tuple[int, int]:
    files = [f for p in places for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file()]
    return len(files), sum(f.stat().st_size for f in files)


# ------------------------------------------------------------------ what there is


def test_areas_channels_and_bytes_of_images(panels, panels_page):
    (row,) = panels_page.records("Table of images")
    areas = [height * width * 0.25e-6 for height, width in SIZES.values()]
    assert (row["Modality"], row["Resolution"], row["Images"]) == ("codex", "0.5 µm", "4")
    assert row["Channels"] == "1 to 3"
    assert number(row["mm² in all"]) == pytest.approx(sum(areas), rel=1e-3)
    assert number(row["smallest"]) == pytest.approx(min(areas), rel=1e-3)
    assert number(row["largest"]) == pytest.approx(max(areas), rel=1e-3)
    _, size = length_of(panels.root / "codex/0_5mpp/images")
    assert bytes_of(row["On disk"]) == pytest.approx(size, rel=5e-3)
    assert "4 tissues 2 patients 4 images" in panels_page.text
    found = cohort_overview(panels.root)
    assert (found.tissues, found.patients, found.unnamed) == (4, 2, 1)
    assert found.images[0].size == size
    assert found.area == pytest.approx(sum(areas))


def test_every_file_of_the_cohort_is_in_one_part(cohort, page_of_all):
    root = cohort.root
    images = [root / p for p in ("he/0_5mpp/images", "ihc/ihc_CD3/0_5mpp/images")]
    expected = {
        "Images": length_of(*images, root / "stains/0_5mpp/images"),
        "Masks": length_of(root / "segmentations"),
        "Tiles": length_of(root / "tiling"),
        "Predictions": length_of(root / "predictions"),
    }
    rows = {row["Part"]: row for row in page_of_all.records("Table of disk space")}
    for name, (files, size) in expected.items():
        assert number(rows[name]["Files"]) == files > 0
        assert bytes_of(rows[name]["Size"]) == pytest.approx(size, rel=5e-3)
    everything, size = length_of(root)
    lock = [p for p in root.iterdir() if p.is_file() and p.name.startswith(".")]
    assert number(rows["Together"]["Files"]) == everything - len(lock)
    assert bytes_of(rows["Together"]["Size"]) == pytest.approx(size, rel=5e-3)
    found = cohort_overview(root)
    assert found.size == size - sum(p.stat().st_size for p in lock)


@pytest.fixture(scope="module")
def page_of_all(cohort, tmp_path_factory) -> Page:
    path = tmp_path_factory.mktemp("all") / "r.html"
    return read(report(cohort.root, path, throughput=False, max_tissues=0))


def test_images_that_do_not_open_are_counted_apart(cohort, tmp_path):
    root = tmp_path / "c"
    shutil.copytree(cohort.root, root)
    (root / "he/0_5mpp/images/one.ome.zarr/zarr.json").write_text("{")
    page = read(report(root, tmp_path / "r.html", throughput=False, max_tissues=0))
    row = page.records("Table of images")[0]
    assert row["Images"] == "0 (1 more cannot be read)"
    assert (row["Channels"], row["smallest"]) == ("\N{EN DASH}", "\N{EN DASH}")


# ------------------------------------------------------------------ splits


def test_patients_in_two_splits_are_flagged(panels, panels_page):
    rows = panels_page.records("Table of splits")
    for row in rows:
        mine = [tissue for tissue, split in SPLITS.items() if split == row["Split"]]
        patients = {PATIENTS[tissue] for tissue in mine} - {None}
        assert number(row["Patients"]) == len(patients)
        assert number(row["Tissues"]) == number(row["Images"]) == len(mine)
        assert row["Tiles"] == "\N{EN DASH}"
    assert [row["Split"] for row in rows] == ["train", "test"]
    assert "Patient p1 is in train, test" in panels_page.text
    assert "Patient p2" not in panels_page.text
    assert "1 tissue in a split has no patient" in panels_page.text
    assert "No patient is in two splits" not in panels_page.text
    balance = split_balance(panels.root)
    assert [(p.name, p.splits) for p in balance.shared_patients] == [("p1", ("train", "test"))]
    assert balance.shared_tissues == ()
    assert balance.unnamed == 1


def test_a_tissue_in_two_splits_is_flagged_and_tiles_are_counted(cohort, tmp_path):
    root = tmp_path / "c"
    shutil.copytree(cohort.root, root)
    path = root / "metadata/tissues.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("split")
    # one as he, two as ihc_CD3, two as stains
    table = table.set_column(place, "split", pa.array([None, "train", "test"]))
    place = table.column_names.index("patient_id")
    table = table.set_column(place, "patient_id", pa.array([7.0, None, 8.0]))
    pq.write_table(table, path)
    page = read(report(root, tmp_path / "r.html", throughput=False, max_tissues=0))
    rows = {row["Split"]: row for row in page.records("Table of splits")}
    tiles = pq.read_table(root / "tiling/0_5mpp/default/64_tile_coordinates.parquet")
    counts = {name: tiles["tissue_id"].to_pylist().count(name) for name in ("one", "two")}
    assert list(rows) == ["train", "test", "none"]
    assert number(rows["none"]["Tiles"]) == counts["one"]
    assert number(rows["train"]["Tiles"]) == number(rows["test"]["Tiles"]) == counts["two"]
    assert [number(rows[name]["Patients"]) for name in rows] == [0, 1, 1]
    assert "Tissue two has images in train, test." in page.text
    # One of its rows says whose it is.
    assert "has no patient" not in page.text
    assert split_balance(root).shared_patients == ()
    assert cohort_overview(root).patients == 2


def test_a_cohort_without_splits_is_told_so(page_of_all):
    assert "No tissue is in a split" in page_of_all.text
    (row,) = page_of_all.records("Table of splits")
    assert (row["Split"], row["Tissues"], row["Images"]) == ("none", "2", "3")


# ------------------------------------------------------------------ panels


def test_channels_have_three_states(panels, panels_page):
    rows = panels_page.records("Table of channels of codex")
    assert {row["Channel"] for row in rows} == {"CD3", "CD8", "DNA"}
    for row in rows:
        there = sum(row["Channel"] in names for names in CHANNELS.values())
        failed = there if row["Channel"] == FAILED else 0
        assert number(row["Measured"]) == there - failed
        assert number(row["Failed QC"]) == failed
        assert number(row["Not measured"]) == len(CHANNELS) - there
    (matrix,) = [alt for alt in panels_page.alts if alt.startswith("Matrix of")]
    assert "3 channels of codex by 4 tissues: 6 measured, 4 not measured, 2 failed" in matrix


def test_a_foreign_cohort_without_a_table_of_channels_says_nothing_of_them(panels, tmp_path):
    root = tmp_path / "c"
    shutil.copytree(panels.root, root)
    (root / "codex/channels_per_tissue.parquet").unlink()
    page = read(report(root, tmp_path / "r.html", throughput=False, max_tissues=0))
    assert "nobody says which tissue measured what" in page.text
    assert not [alt for alt in page.alts if alt.startswith("Matrix of")]


def test_the_panel_of_real_regions_is_that_of_its_names(shared_data, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    names = [f"m{i}" for i in range(5)]
    for place, path in enumerate(sorted((shared_data / "imc/img").glob("*.tiff"))[:3]):
        ingest(
            tifffile.imread(path)[: 5 - place],
            axes="cyx",
            channel_names=names[: 5 - place],
            cohort=tmp_path / "imc",
            tissue_id=path.stem,
            modality="imc",
            mpp=1.0,
            resolution=1.0,
        )
    page = read(report(tmp_path / "imc", tmp_path / "r.html", throughput=False, max_tissues=0))
    rows = page.records("Table of channels of imc")
    assert [number(row["Measured"]) for row in rows] == [3, 3, 3, 2, 1]
    states = cohort_panel(tmp_path / "imc").states
    assert (states == ChannelState.MEASURED).sum() == 12


# ------------------------------------------------------------------ tilings


@pytest.mark.parametrize(("strategy", "size"), [("default", 64), ("grid", 96)])
def test_coverage_and_waste_of_all_tissues_are_those_of_their_pixels(
    cohort, page_of_all, strategy, size
):
    folder = cohort.root / "tiling/0_5mpp" / strategy
    rows = pq.read_table(folder / f"{size}_tile_coordinates.parquet").to_pylist()
    held = covered = tissue = pixels = 0
    for name in ("one", "two"):
        mask = np.load(cohort.root / f"segmentations/0_5mpp/tissue_masks/{name}.npz")["mask"]
        times = np.zeros(np.add(mask.shape, size), int)
        inside = np.zeros(times.shape, bool)
        inside[: mask.shape[0], : mask.shape[1]] = mask
        for row in rows:
            if row["tissue_id"] == name:
                times[row["row"] : row["row"] + size, row["col"] : row["col"] + size] += 1
        held += (times * inside).sum()
        covered += ((times > 0) & inside).sum()
        tissue += inside.sum()
        pixels += times.sum()
    found = tiling_numbers(cohort.root, size, strategy=strategy).total
    assert found.tiles == len(rows)
    assert found.coverage == pytest.approx(covered / tissue)
    assert found.overlap == pytest.approx(1 - covered / held, abs=1e-6)
    assert found.waste == pytest.approx(1 - held / pixels, abs=1e-6)
    (row,) = [r for r in page_of_all.records("Table of tilings") if r["Strategy"] == strategy]
    assert number(row["Tiles"]) == len(rows)
    # Written with one digit; 1e-6 for shares in float32.
    assert number(row["Covered"]) == pytest.approx(100 * covered / tissue, abs=0.0501)
    assert number(row["Overlap"]) == pytest.approx(100 * (1 - covered / held), abs=0.0501)
    assert number(row["Waste"]) == pytest.approx(100 * (1 - held / pixels), abs=0.0501)


def test_what_one_tissue_does_not_state_is_not_said_of_all(cohort, tmp_path):
    root = tmp_path / "c"
    shutil.copytree(cohort.root, root)
    path = root / "tiling/0_5mpp/default/64_tile_stats.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("covered_valid_pixels")
    values = [float("nan"), *table["covered_valid_pixels"].to_pylist()[1:]]
    pq.write_table(table.set_column(place, "covered_valid_pixels", pa.array(values)), path)
    found = tiling_numbers(root, 64).total
    assert (found.coverage, found.overlap) == (None, None)
    assert found.waste is not None
    assert math.isfinite(found.waste)
    page = read(report(root, tmp_path / "r.html", throughput=False, max_tissues=0))
    row = page.records("Table of tilings")[0]
    assert (row["Covered"], row["Overlap"]) == ("\N{EN DASH}", "\N{EN DASH}")


def test_a_tiling_that_is_not_there_is_refused(cohort, tmp_path):
    with pytest.raises(InvalidInputError, match="no tiles default 65"):
        tiling_numbers(cohort.root, 65)
    for count in (cohort_overview, split_balance, lambda path: tiling_numbers(path, 64)):
        with pytest.raises(NotFoundError):
            count(tmp_path / "nowhere")


# ------------------------------------------------------------------ validation


def test_findings_are_those_of_validate_errors_first(panels, tmp_path):
    root = tmp_path / "c"
    shutil.copytree(panels.root, root)
    shutil.rmtree(root / "codex/0_5mpp/images/b.ome.zarr")
    (root / "codex/0_5mpp/images/.left-over").mkdir()
    page = read(report(root, tmp_path / "r.html", throughput=False, max_tissues=0))
    found = validate(root)
    assert found
    rows = page.records("Table of findings")
    said = {(f.severity, f.place, f.what, f.advice) for f in found}
    assert {tuple(" ".join(v.split()) for v in row.values()) for row in rows} == {
        tuple(" ".join(part.split()) for part in line) for line in said
    }
    order = [row["Severity"] for row in rows]
    assert order == sorted(order)  # "error" before "warning"
    errors = order.count("error")
    assert errors > 0
    assert f"{errors} error" in page.text
    quiet = read(
        report(root, tmp_path / "q.html", validation=False, throughput=False, max_tissues=0)
    )
    assert "Table of findings" not in quiet.tables
    assert 'id="validation"' not in quiet.html


def test_a_cohort_in_order_is_told_so(panels, panels_page, tmp_path):
    if validate(panels.root):
        assert panels_page.tables["Table of findings"]
    root = tmp_path / "he"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    ingest(pixels, axes="yxc", cohort=root, tissue_id="t", modality="he", mpp=1.0)
    add_metadata(root, {"tissue_id": ["t"], "age": [50]})
    assert validate(root) == []
    page = read(report(root, tmp_path / "r.html", throughput=False, max_tissues=0))
    assert "Nothing was found" in page.text
