"""What the documentation shows and a script made is what the script makes now.

The output below a piece of code, the page about the command line, the diagrams: each is a committed
file with a script in docs/scripts. After a change that is meant, run the script again.
"""

from __future__ import annotations

import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SCRIPTS = DOCS / "scripts"
OUTPUTS = sorted((DOCS / "snippets").glob("*.txt"))
MARKER = re.compile(r"^# -{2,}8<-{2,} \[(?:start|end):[\w-]+\]\n", re.MULTILINE)
SHOWN = re.compile(r"<!-- snippet: (?P<file>[\w.]+):(?P<section>[\w-]+) -->")
# As tests/test_docs.py: longer than this and it is no example.
SNIPPET_SECONDS = 110


@pytest.mark.slow
@pytest.mark.parametrize("output", OUTPUTS, ids=lambda path: path.stem)
def test_a_snippet_prints_what_the_page_shows(output, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(output.with_suffix(".py"))],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=SNIPPET_SECONDS,
        check=True,
    )
    assert MARKER.sub("", output.read_text("utf-8")) == ran.stdout, (
        f"if the change is meant: .venv/bin/python docs/scripts/record_outputs.py {output.stem}"
    )


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda path: path.stem)
def test_every_part_of_an_output_stands_below_its_code(output):
    shown = [
        (match["file"], match["section"])
        for page in sorted(DOCS.rglob("*.md"))
        for match in SHOWN.finditer(page.read_text("utf-8"))
    ]
    for section in re.findall(r"\[start:([\w-]+)\]", output.read_text("utf-8")):
        code = (f"{output.stem}.py", section)
        assert code in shown, f"no page shows {code}"
        following = shown[shown.index(code) + 1 :][:1]
        assert following == [(output.name, section)], (
            f"{output.name}:{section} is not below its code"
        )


def test_the_reference_lists_what_the_package_offers():
    import microtome

    table = (DOCS / "reference.md").read_text("utf-8").split("\n## ")[0]
    rows = re.findall(r"^\| \[.+\]\(#.+\), `(\w+)` \| (.+) \|$", table, re.MULTILINE)
    listed = [(room, name) for room, names in rows for name in re.findall(r"`(\w+)`", names)]
    assert sorted(name for _, name in listed) == sorted(microtome.__all__)
    for room, name in listed:
        assert name in importlib.import_module(f"microtome.{room}").__all__


def test_every_room_of_the_reference_is_in_the_architecture():
    rooms = re.findall(r"^::: microtome\.(\w+)$", (DOCS / "reference.md").read_text(), re.MULTILINE)
    architecture = (DOCS / "architecture.md").read_text("utf-8")
    assert rooms
    assert not [room for room in rooms if f"| `{room}` |" not in architecture]


def test_the_page_about_the_command_line_is_what_the_program_says():
    write_cli = runpy.run_path(str(SCRIPTS / "write_cli.py"))
    assert (DOCS / "cli.md").read_text("utf-8") == write_cli["page"](), (
        "if the change is meant: .venv/bin/python docs/scripts/write_cli.py"
    )


DIAGRAMS = runpy.run_path(str(SCRIPTS / "draw_diagrams.py"))["DIAGRAMS"]


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_is_what_the_script_draws(name):
    assert (DOCS / "images" / f"{name}.svg").read_text("utf-8") == DIAGRAMS[name](), (
        "if the change is meant: .venv/bin/python docs/scripts/draw_diagrams.py"
    )


def test_every_picture_is_shown_and_every_shown_picture_is_there():
    pages = [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]
    shown = {
        (page.parent / target).resolve()
        for page in pages
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text("utf-8"))
    }
    there = {path.resolve() for path in (DOCS / "images").iterdir()}
    assert shown == there


def test_pictures_are_small():
    heavy = {
        p.name: p.stat().st_size for p in (DOCS / "images").iterdir() if p.stat().st_size > 300_000
    }
    assert not heavy
