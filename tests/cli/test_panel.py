"""`microtome panel`: what it shows, what it fills in, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import tifffile

from microtome.cli._panel import panel as verb
from microtome.cohort import CohortLayout, panel, parse_modality
from microtome.panels import PanelFormat


@pytest.fixture
def multiplex(run: Any, tmp_path: Path) -> Path:
    """A cohort of one IMC tissue with three channels."""
    source, root = tmp_path / "t.tif", tmp_path / "cohort"
    tifffile.imwrite(source, np.ones((3, 32, 32), np.uint16), photometric="minisblack")
    options = ("--cohort", root, "--tissue", "t", "--modality", "imc", "--mpp", "1")
    done = run("ingest", source, *options, "--channel", "DNA", "CD3_Er170", "CD20")
    assert done.code == 0, done.err
    return root


def test_show_and_fill_in(run: Any, multiplex: Path, tmp_path: Path) -> None:
    done = run("panel", multiplex)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "imc: 3 channels, 1 tissue",
        "   channel    uniprot  qc    nuclear  measured  failed qc  not measured",
        "0  DNA        -        pass  -        1         0          0",
        "1  CD3_Er170  -        pass  -        1         0          0",
        "2  CD20       -        pass  -        1         0          0",
    ]
    given = tmp_path / "panel.csv"
    given.write_text(
        "channel,name,keep,uniprot_id\nEr170,CD3e,1,P07766\nIr191,DNA,0,\nYb171,CD8,1,P01732\n"
    )
    done = run("panel", multiplex, "--modality", "imc", "--from", given)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "2 of 3 channels matched, 2 changed",
        "DNA: DNA (by name): qc_pass True -> False",
        "CD3_Er170: CD3e (by tag): uniprot_id None -> 'P07766'",
        "CD20: no row",
        "not in the cohort's panel: CD8",
    ]
    table = panel(CohortLayout.open(multiplex), parse_modality("imc"))
    assert table["uniprot_id"].to_pylist() == [None, "P07766", None]
    assert (
        "0  DNA        -        fail  -        0         1          0"
        in run("panel", multiplex).out
    )


def test_a_format_that_is_named(run: Any, multiplex: Path, tmp_path: Path) -> None:
    given = tmp_path / "panel.csv"
    given.write_text("channel_name,marker_name\nCD9,DNA\n")
    assert "Say which with format= (--format)" in run("panel", multiplex, "--from", given).err
    done = run("panel", multiplex, "--from", given, "--format", "mcmicro")
    assert "DNA: DNA (by name)" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--modality", "he"), 2, "he is brightfield"),
        (("--modality", "mibi"), 1, "channels.parquet does not exist"),
        (("--format", "mcmicro"), 2, "--format says what the file of --from is"),
        (("--format", "qupath"), 2, "qupath"),
        (("--from", "nowhere.csv"), 1, "nowhere.csv does not exist"),
    ],
)
def test_how_it_ends(
    run: Any, multiplex: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = run("panel", multiplex, *arguments)
    assert done.code == code
    assert said in done.err
    assert done.out == ""


def test_every_format_can_be_named() -> None:
    hint = get_type_hints(verb, include_extras=True)["format"]
    assert get_args(get_args(get_args(hint)[0])[0]) == get_args(PanelFormat)


def test_a_cohort_that_is_none(run: Any, tmp_path: Path) -> None:
    done = run("panel", tmp_path)
    assert done.code == 1
    assert "is a directory but no cohort" in done.err
