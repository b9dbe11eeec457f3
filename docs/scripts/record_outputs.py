"""Run the snippets of the documentation and keep what they print, section by section.

A page shows a part of a snippet, and below it what that part printed: both are files, so neither can
drift from the code. After changing a snippet, or what it prints:

    .venv/bin/python docs/scripts/record_outputs.py            # all of them
    .venv/bin/python docs/scripts/record_outputs.py tiles      # one

Only a snippet beside which a `.txt` lies is recorded, an empty one to begin with.
`tests/test_docs_pages.py` runs them again and compares.
"""

from __future__ import annotations

import io
import os
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

SNIPPETS = Path(__file__).parents[1] / "snippets"
MARKER = re.compile(r"# -{2,}8<-{2,} \[(?P<edge>start|end):(?P<name>[\w-]+)\]")


def sections(snippet: Path) -> dict[int, str]:
    """Return the section of every line that lies in one, by line number from 1."""
    inside: dict[int, str] = {}
    name = ""
    for number, line in enumerate(snippet.read_text("utf-8").splitlines(), start=1):
        if match := MARKER.search(line):
            name = match["name"] if match["edge"] == "start" else ""
        elif name:
            inside[number] = name
    return inside


class Recorder(io.TextIOBase):
    """Standard output that notes which line of the snippet wrote."""

    def __init__(self, snippet: Path) -> None:
        self._file = str(snippet)
        self.written: list[tuple[int, str]] = []

    def write(self, text: str) -> int:
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - Python has no other way
        line = 0
        # The outermost line: what a function of the snippet prints belongs to who called it.
        while frame is not None:
            line = (
                frame.f_lineno if frame.f_code.co_filename == self._file else line
            )
            frame = frame.f_back
        self.written.append((line, text))
        return len(text)


def record(snippet: Path) -> str:
    """Run a snippet in this process and folder; return what it printed, with section markers."""
    recorder, where = Recorder(snippet), sections(snippet)
    shown, sys.stdout = sys.stdout, recorder
    try:
        runpy.run_path(str(snippet), run_name="__main__")
    finally:
        sys.stdout = shown
    pieces: list[str] = []
    current = ""
    for line, text in recorder.written:
        name = where.get(line, "")
        if name != current:
            pieces += [f"# --8<-- [end:{current}]\n"] if current else []
            pieces += [f"# --8<-- [start:{name}]\n"] if name else []
            current = name
        pieces.append(text)
    pieces += [f"# --8<-- [end:{current}]\n"] if current else []
    return "".join(pieces)


def main() -> None:
    """Record the snippets that are named, or all, each in a process and an empty folder of its own."""
    if sys.argv[1:2] == ["--this"]:
        sys.stdout.write(record(Path(sys.argv[2])))
        return
    names = sys.argv[1:] or sorted(path.stem for path in SNIPPETS.glob("*.txt"))
    for name in names:
        snippet = SNIPPETS / f"{name}.py"
        with tempfile.TemporaryDirectory() as folder:
            ran = subprocess.run(  # noqa: S603 - our own interpreter and script
                [sys.executable, __file__, "--this", str(snippet)],
                cwd=folder,
                env={**os.environ, "MPLBACKEND": "Agg"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        snippet.with_suffix(".txt").write_text(ran.stdout, "utf-8")
        sys.stderr.write(f"{name}: {len(ran.stdout.splitlines())} lines\n")


if __name__ == "__main__":
    main()
