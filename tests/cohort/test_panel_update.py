"""What is known of a cohort's channels is filled in; their names, order and planes stay."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome import open_image
from microtome.cohort import (
    CohortLayout,
    MultiplexImagingDataset,
    cohort_panel,
    ingest,
    panel,
    parse_modality,
    update_panel,
)
from microtome.errors import (
    BusyError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from microtome.panels import Channel, Panel
from microtome.storage import locked

IMC = parse_modality("imc")


def begun(root: Path, tissues: dict[str, list[str]]) -> CohortLayout:
    for number, (tissue_id, names) in enumerate(tissues.items()):
        source = np.random.default_rng(number).integers(0, 99, (len(names), 20, 20))
        ingest(
            source.astype(np.uint16),
            axes="cyx",
            mpp=1.0,
            cohort=root,
            tissue_id=tissue_id,
            modality="imc",
            channel_names=names,
        )
    return CohortLayout.open(root)


def stored(layout: CohortLayout) -> list[tuple[Any, ...]]:
    columns = ("channel_name", "index", "uniprot_id", "qc_pass", "is_nuclear_marker")
    return [tuple(row[c] for c in columns) for row in panel(layout, IMC).to_pylist()]


def test_a_panel_is_filled_in(tmp_path: Path) -> None:
    layout = begun(tmp_path / "c", {"a": ["DNA", "CD3"], "b": ["CD3", "CD20"]})
    before = panel(layout, IMC)
    given = Panel(
        (
            Channel("CD20", "P11836", qc_pass=False),
            Channel("CD3", "P07766;P04234", qc_pass=True, is_nuclear_marker=False),
            Channel("DNA", is_nuclear_marker=True),
            Channel("CD8", "P01732"),
        )
    )
    done = update_panel(layout.root, "imc", given)
    assert stored(layout) == [
        ("DNA", 0, None, True, True),
        ("CD3", 1, "P07766;P04234", True, False),
        ("CD20", 2, "P11836", False, False),
    ]
    assert panel(layout, IMC).schema == before.schema
    assert done.unused == ("CD8",)
    assert done.changed == 3
    assert [(m.channel, m.row, m.by, dict(m.changes)) for m in done.matches] == [
        ("DNA", "DNA", "name", {"is_nuclear_marker": (False, True)}),
        ("CD3", "CD3", "name", {"uniprot_id": (None, "P07766;P04234")}),
        ("CD20", "CD20", "name", {"uniprot_id": (None, "P11836"), "qc_pass": (True, False)}),
    ]
    assert str(done).splitlines() == [
        "3 of 3 channels matched, 3 changed",
        "DNA: DNA (by name): is_nuclear_marker False -> True",
        "CD3: CD3 (by name): uniprot_id None -> 'P07766;P04234'",
        "CD20: CD20 (by name): uniprot_id None -> 'P11836', qc_pass True -> False",
        "not in the cohort's panel: CD8",
    ]


def test_what_a_dataset_reads_then(tmp_path: Path) -> None:
    layout = begun(tmp_path / "c", {"a": ["DNA", "CD3", "CD20"]})
    update_panel(
        layout.root, "imc", Panel((Channel("CD20", "P11836"), Channel("CD3", "P07766", False)))
    )
    data = MultiplexImagingDataset(
        "c", "imc", path=layout.root, standardization="identity", kind="complete"
    )
    assert data.get_channel_names("a", "complete").tolist() == ["DNA", "CD3", "CD20"]
    assert data.get_channel_names("a", "qc_filtered").tolist() == ["DNA", "CD20"]
    assert data.get_channel_names("a", "uniprot_filtered").tolist() == ["CD20"]


def test_what_is_not_said_changes_nothing_and_writes_nothing(tmp_path: Path, tree: Any) -> None:
    layout = begun(tmp_path / "c", {"a": ["DNA", "CD3"]})
    full = Panel((Channel("DNA", None, False, True), Channel("CD3", "P07766", True, False)))
    update_panel(layout.root, "imc", full)
    before = tree(layout.root)
    stamp = layout.channels(IMC).stat().st_mtime_ns
    done = update_panel(layout.root, "imc", Panel.from_names(["DNA", "CD3"]))
    assert done.changed == 0
    assert "CD3: CD3 (by name): nothing to change" in str(done)
    assert update_panel(layout.root, "imc", full).changed == 0
    assert tree(layout.root) == before
    assert layout.channels(IMC).stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("ours", "theirs", "by"),
    [
        ("CD3", Channel("CD3"), "name"),
        ("Er170", Channel("CD3", extra={"original_channel_name": "Er170"}), "name"),
        ("HLA-DR", Channel("hla dr"), "spelling"),
        ("CD20 (164)", Channel("CD20"), "spelling"),
        ("TGF-β", Channel("TGF beta"), "spelling"),
        ("Dy161Di(CD20)", Channel("cd-20", extra={"tag": "Er170"}), "spelling"),
        ("Cytoker_651((3356))Pr141", Channel("Cytokeratin 5", extra={"tag": "Pr141"}), "tag"),
        ("141Pr", Channel("Cytokeratin 5", extra={"tag": "Pr141"}), "tag"),
        ("PanCK (141)", Channel("Cytokeratin", extra={"tag": "Pr141"}), "tag"),
        ("Cytokeratin", Channel("CK_141Pr"), None),
        ("DAPI (DAPI)", Channel("DNA_2", extra={"tag": "DAPI"}), None),
        ("CD3", Channel("CD30"), None),
    ],
)
def test_how_channels_are_found(ours: str, theirs: Channel, by: str | None, tmp_path: Path) -> None:
    layout = begun(tmp_path / "c", {"a": [ours, "other"]})
    given = Panel((theirs, Channel("other")))
    done = update_panel(layout.root, "imc", given)
    assert (done.matches[0].row, done.matches[0].by) == (theirs.name if by else None, by)
    assert done.unused == (() if by else (theirs.name,))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (["CD-3", "cd3", "x"], [Channel("CD3", "P07766"), Channel("x")]),
        (["CD-3", "x"], [Channel("CD3", "P07766"), Channel("cd 3", "P07766"), Channel("x")]),
        (["x", "Pr141"], [Channel("x"), *(Channel(n, extra={"tag": "Pr141"}) for n in "ab")]),
        (["In113", "x"], [Channel("x"), Channel("y", extra={"tag": "Cd113"})]),
    ],
    ids=["ours", "theirs", "tag", "mass"],
)
def test_nothing_is_chosen_where_several_fit(
    ours: list[str], theirs: list[Channel], tmp_path: Path
) -> None:
    layout = begun(tmp_path / "c", {"a": ours})
    done = update_panel(layout.root, "imc", Panel(tuple(theirs)))
    matched = [match.channel for match in done.matches if match.row]
    assert matched == ["x"]
    for match in done.matches:
        # A mass that two metals have is no likeness at all.
        likely = not match.row and match.channel != "In113"
        assert match.note.endswith("none was chosen") == likely
    assert all(row[2] is None for row in stored(layout))


def test_an_exact_name_goes_before_a_likeness(tmp_path: Path) -> None:
    layout = begun(tmp_path / "c", {"a": ["CD-3", "CD3"]})
    done = update_panel(
        layout.root, "imc", Panel((Channel("CD3", "P07766"), Channel("cd 3", "P04234")))
    )
    assert [(m.channel, m.row, m.by) for m in done.matches] == [
        ("CD-3", "cd 3", "spelling"),
        ("CD3", "CD3", "name"),
    ]


def test_a_tag_that_contradicts_the_name_is_told(tmp_path: Path, caplog: Any) -> None:
    layout = begun(tmp_path / "c", {"a": ["CD20_Dy161"]})
    done = update_panel(layout.root, "imc", Panel((Channel("CD20", extra={"tag": "Dy162"}),)))
    assert done.matches[0].note == "its tag is Dy161 in the cohort, Dy162 in the panel"
    assert "its tag is Dy161" in str(done)
    assert "its tag is Dy161" in caplog.text


def test_a_file_of_another_study(tmp_path: Path, tree: Any) -> None:
    layout = begun(tmp_path / "c", {"a": ["CD3"]})
    before = tree(layout.root)
    with pytest.raises(InvalidInputError, match=r"no row fits .*\['CD3'\], the panel \['CD8'\]"):
        update_panel(layout.root, "imc", Panel((Channel("CD8", "P01732"),)))
    wrong = tmp_path / "panel.csv"
    wrong.write_text("channel_name,uniprot_id\nCD3,CD3E\n")
    with pytest.raises(FormatError, match=r"panel.csv, row 1: channel 'CD3'"):
        update_panel(layout.root, "imc", wrong)
    assert tree(layout.root) == before


def test_real_slides_by_their_metals(shared_data: Path, tmp_path: Path) -> None:
    """The names of the MCD file, and steinbock's panel of the same slides."""
    names = [
        "107Ag",
        "Cytoker_651((3356))Pr141",
        "Laminin_681((851))Sm147",
        "YBX1_2987((3532))Eu153",
        "H3K27Ac_1977((2242))Yb172",
    ]
    root = tmp_path / "c"
    for number in (1, 3):
        image = open_image(
            shared_data / f"imc/img/20210305_NE_mockData{number}_002.tiff",
            mpp=1.0,
            channel_names=names,
        )
        ingest(image, cohort=root, tissue_id=f"t{number}", modality="imc")
    before = stored(CohortLayout.open(root))
    done = update_panel(root, None, shared_data / "imc/steinbock_panel.csv")
    assert [(match.row, match.by) for match in done.matches] == [
        ("Ag107", "spelling"),
        ("Cytokeratin 5", "tag"),
        ("Laminin", "spelling"),
        ("YBX1", "spelling"),
        ("H3K27Ac", "spelling"),
    ]
    after = stored(CohortLayout.open(root))
    assert [row[:4] for row in after] == [row[:4] for row in before]
    assert [row[4] for row in after] == [False, False, False, False, True]


def test_a_table_of_another_tool(tmp_path: Path) -> None:
    """Its columns, their types and pandas' index stay; what is missing is added."""
    pandas = pytest.importorskip("pandas")
    layout = begun(tmp_path / "c", {"a": ["CD3", "DNA"]})
    frame = pandas.DataFrame(
        {
            "channel_name": ["CD3", "DNA"],
            "uniprot_id": pandas.Series([None, None], dtype=object),
            "qc_pass": np.array([1, 0], np.int8),
            "description": ["T", None],
        },
        index=[4, 2],
    )
    frame.to_parquet(layout.channels(IMC))
    given = Panel((Channel("CD3", "P07766", False, False), Channel("DNA", None, None, True)))
    update_panel(layout.root, "imc", given)
    again = pandas.read_parquet(layout.channels(IMC))
    assert again["channel_name"].tolist() == ["CD3", "DNA"]
    assert again["uniprot_id"].tolist() == ["P07766", None]
    assert [bool(v) for v in again["qc_pass"]] == [False, False]
    assert [bool(v) for v in again["is_nuclear_marker"]] == [False, True]
    assert again["description"].tolist() == ["T", None]
    table = pq.read_table(layout.channels(IMC))
    assert table.schema.field("uniprot_id").type == pa.string()


def test_one_writer_at_a_time(tmp_path: Path, monkeypatch: Any) -> None:
    layout = begun(tmp_path / "c", {"a": ["CD3"]})
    monkeypatch.setattr(
        "microtome.cohort.channels._panel_update.locked",
        lambda path, *, what: locked(path, what=what, timeout=0.2),
    )
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(layout.lock, what="the cohort"):
            held.set()
            release.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(BusyError):
            update_panel(layout.root, "imc", Panel((Channel("CD3", "P07766"),)))
    finally:
        release.set()
        other.join()
    assert stored(layout) == [("CD3", 0, None, True, False)]


def test_a_write_that_fails_leaves_the_old_panel(
    tmp_path: Path, monkeypatch: Any, tree: Any
) -> None:
    layout = begun(tmp_path / "c", {"a": ["CD3"]})
    before = tree(layout.root)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(StorageError):
        update_panel(layout.root, "imc", Panel((Channel("CD3", "P07766"),)))
    assert tree(layout.root) == before


@pytest.mark.parametrize("do", [cohort_panel, lambda *a: update_panel(*a, Panel((Channel("x"),)))])
def test_what_has_no_panel(do: Any, he: Any, tmp_path: Path) -> None:
    root = he[0]
    with pytest.raises(InvalidInputError, match="he is brightfield"):
        do(root, "he")
    with pytest.raises(
        InvalidInputError, match=r"has no multiplex modality; say which with --modal"
    ):
        do(root, None)
    with pytest.raises(NotFoundError, match=r"channels.parquet does not exist"):
        do(root, "imc")
    with pytest.raises(NotFoundError, match="there is no cohort"):
        do(tmp_path / "none", "imc")


# ------------------------------------------------------------------ the states of channels


def test_the_states_of_every_tissue(tmp_path: Path) -> None:
    layout = begun(tmp_path / "c", {"a": ["DNA", "CD3"], "b": ["CD3", "CD20"]})
    update_panel(
        layout.root,
        "imc",
        Panel((Channel("CD3", "P07766", False), Channel("DNA", None, None, True))),
    )
    found = cohort_panel(layout.root)
    assert found.tissue_ids == ("a", "b")
    assert found.panel.names == ("DNA", "CD3", "CD20")
    assert found.states.dtype == np.uint8
    assert found.states.tolist() == [[1, 2, 0], [0, 2, 1]]
    assert str(found).splitlines() == [
        "imc: 3 channels, 2 tissues",
        "   channel  uniprot  qc    nuclear  measured  failed qc  not measured",
        "0  DNA      -        pass  yes      1         0          1",
        "1  CD3      P07766   fail  -        0         2          0",
        "2  CD20     -        pass  -        1         0          1",
    ]


def test_a_foreign_panel_with_other_texts_and_no_table_of_measured_channels(tmp_path: Path) -> None:
    layout = begun(tmp_path / "c", {"a": ["DNA", "CD3"]})
    pq.write_table(
        pa.table({"channel_name": ["DNA", "CD3"], "uniprot_id": ["dsDNA", "P07766"]}),
        layout.channels(IMC),
    )
    layout.channels_per_tissue(IMC).unlink()
    found = cohort_panel(layout.root, "imc")
    assert found.states.shape == (0, 2)
    assert str(found).splitlines() == [
        "imc: 2 channels, no table of measured channels",
        "   channel  uniprot  qc    nuclear  measured  failed qc  not measured",
        "0  DNA      -        pass  -        ?         ?          ?",
        "1  CD3      P07766   pass  -        ?         ?          ?",
        "channel 'DNA': 'dsDNA' is no UniProt accession",
    ]
