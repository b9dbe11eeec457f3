"""Run the notebooks in `examples` from their first cell to their last, and keep what they show.

    .venv/bin/python docs/scripts/run_notebooks.py                # all of them
    .venv/bin/python docs/scripts/run_notebooks.py first_slide    # one

Each is run in a kernel of its own, in an empty folder. `tests/test_notebooks.py` runs them again and
compares what they print; pictures may differ from one release of matplotlib to the next.
"""

from __future__ import annotations

import copy
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"
# Longer than this and it is no example; a machine that is busy takes its time.
SECONDS = 300
# Where an object lies in memory differs from run to run.
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


def notebooks() -> list[Path]:
    """Return the notebooks, in the order of their names."""
    return sorted(EXAMPLES.glob("*.ipynb"))


def run(path: Path, folder: Path) -> Any:
    """Return a notebook as it is after a run in a fresh kernel in a folder."""
    import nbformat
    from nbclient import NotebookClient

    found: Any = nbformat.read(path, as_version=4)
    for cell in found.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # No setting of whoever runs it: the kernel's own directory is empty.
    settings = folder / ".ipython"
    settings.mkdir()
    os.environ["IPYTHONDIR"] = str(settings)
    # tqdm, which scikit-image imports, would have widgets.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    NotebookClient(
        found,
        timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    ).execute()
    return found


def texts(notebook: Any) -> list[str]:
    """Return what each cell of code printed, and what its values are called."""
    found: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        words: list[str] = []
        for output in cell.outputs:
            if output.output_type == "stream":
                words.append(output.text)
            elif output.output_type in {"display_data", "execute_result"}:
                words.append(output.data.get("text/plain", "") + "\n")
        found.append(ADDRESS.sub("0x", "".join(words)))
    return found


def cleaned(notebook: Any) -> Any:
    """Return a notebook without what differs from run to run and from machine to machine."""
    kept = copy.deepcopy(notebook)
    kept.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(kept.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    return kept


if __name__ == "__main__":
    import nbformat

    wanted = set(sys.argv[1:])
    for place in notebooks():
        if wanted and place.stem not in wanted:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            ran = cleaned(run(place, Path(temporary)))
        nbformat.validate(ran)
        place.write_text(nbformat.writes(ran) + "\n", "utf-8")
        sys.stderr.write(f"{place.name}: {place.stat().st_size // 1000} kB\n")
