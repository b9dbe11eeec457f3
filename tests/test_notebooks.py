"""Every notebook in `examples` runs in a fresh kernel and prints what it shows in the repository."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "docs" / "scripts" / "run_notebooks.py"
NOTEBOOKS = sorted((REPOSITORY / "examples").glob("*.ipynb"))
WANTED = {"first_slide", "multiplex_cohort", "composed_he_multiplex", "embeddings_to_qupath"}
MOST_BYTES = 400_000
# What stands for a machine or a folder of whoever ran them.
PRIVATE = re.compile(r"/(?:home|root|tmp|work|Users)/|file://|127\.0\.0\.1")

pytest.importorskip("nbclient", reason="notebooks are run by nbclient, of the `test` extra")


@pytest.fixture(scope="module")
def runner():
    found = importlib.util.spec_from_file_location("run_notebooks", SCRIPT)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def cells(path):
    return json.loads(path.read_text("utf-8"))["cells"]


def test_the_notebooks_that_are_wanted_are_there():
    assert {path.stem for path in NOTEBOOKS} >= WANTED


def test_notebooks_do_not_share_a_cohort():
    # They lie in one folder, and are run there, one after the other.
    made = {
        path.stem: set(
            re.findall(r'cohort="(\w+)"', "".join(t for c in cells(path) for t in c["source"]))
        )
        for path in NOTEBOOKS
    }
    assert all(len(names) == 1 for names in made.values()), made
    assert len(set().union(*made.values())) == len(made), made


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_was_run_in_order_and_names_no_machine(path, runner):
    import nbformat

    text = path.read_text("utf-8")
    assert len(text.encode()) < MOST_BYTES
    told = "".join(
        line
        for cell in cells(path)
        for line in [*cell["source"], *(t for o in cell.get("outputs", ()) for t in _words(o))]
    )
    assert PRIVATE.search(told) is None
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
    pictures = [o for cell in code for o in cell["outputs"] if "image/png" in o.get("data", {})]
    assert pictures
    # It is as the script writes it, so that the next run changes only what changed.
    notebook = nbformat.read(path, as_version=4)
    assert nbformat.writes(runner.cleaned(notebook)) + "\n" == text


def _words(output):
    given = output.get("text", output.get("data", {}).get("text/plain", []))
    return [given] if isinstance(given, str) else given


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# jupyter_client and its event loop warn of what they do themselves.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_notebook_prints_the_same_in_a_fresh_kernel(path, runner, tmp_path, monkeypatch):
    import nbformat

    for name in ("IPYTHONDIR", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "")  # what the run sets is undone
    shown = runner.texts(nbformat.read(path, as_version=4))
    ran = runner.run(path, tmp_path)
    assert runner.texts(ran) == shown, f"run docs/scripts/run_notebooks.py {path.stem} again"


def test_a_difference_would_be_seen(runner):
    import nbformat

    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    other = nbformat.read(NOTEBOOKS[0], as_version=4)
    output = next(o for c in other.cells for o in c.get("outputs", ()) if o.output_type == "stream")
    output.text = output.text.replace("(", "[", 1)
    assert runner.texts(other) != runner.texts(notebook)
