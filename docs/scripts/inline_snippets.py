"""Copy the snippets, and what they print, into the pages.

    .venv/bin/python docs/scripts/inline_snippets.py            # write the pages
    .venv/bin/python docs/scripts/inline_snippets.py --check    # name the blocks that differ

A page shows code as it is, so that it can be read wherever Markdown can. Above each block a comment
names the file in docs/snippets or examples, and the section of it, that the block is a copy of:

    <!-- snippet: tiles.py:cover -->
    ```python
    ```

    <!-- snippet: tiles.txt:cover -->
    ```text
    ```

Between the fences this script writes. After changing a snippet run it, or after changing what one
prints `record_outputs.py` and then it. `tests/test_docs.py` runs it with `--check`.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = re.compile(
    r"(?P<indent>[ \t]*)<!-- snippet: (?P<file>[\w.]+)(?::(?P<section>[\w-]+))? -->"
)
FENCE = re.compile(r"[ \t>]*(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)")
EDGE = re.compile(r"# -{2,}8<-{2,} \[(?P<edge>start|end):(?P<name>[\w-]+)\]")
OPENING = {".py": "```python", ".txt": '```text title="Output"'}


def snippet_text(path: Path, section: str | None) -> str:
    """Return a section of a snippet, or all of it, without the comments that mark sections.

    Raises
    ------
    ValueError
        If there is no such file or section, or nothing in it.
    """
    if path.suffix not in OPENING or not path.is_file():
        msg = f"docs/snippets has no {path.name}"
        raise ValueError(msg)
    kept: list[str] = []
    inside: str | None = None
    for line in path.read_text("utf-8").splitlines():
        if match := EDGE.search(line):
            inside = match["name"] if match["edge"] == "start" else None
        elif section is None or inside == section:
            kept.append(line)
    text = textwrap.dedent("\n".join(kept)).strip("\n")
    if not text:
        msg = f"docs/snippets/{path.name} has no section {section!r}"
        raise ValueError(msg)
    return text


def filled(page: str, snippets: Path) -> str:
    """Return a page with every block that has a place above it as the snippets say.

    Raises
    ------
    ValueError
        If a place names nothing, or no block follows it.
    """
    lines = page.splitlines()
    written: list[str] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        written.append(line)
        place = PLACE.fullmatch(line)
        if place is None:
            # What stands in another block, an example of a place say, is none.
            if fence := FENCE.fullmatch(line):
                stop = closing(lines, position, fence["fence"])
                written += lines[position : stop + 1]
                position = stop + 1
            continue
        fence = FENCE.fullmatch(lines[position]) if position < len(lines) else None
        if fence is None:
            msg = f"line {position}: no block follows {line.strip()}"
            raise ValueError(msg)
        path = snippets / place["file"]
        if not path.is_file():
            path = snippets.parents[1] / "examples" / place["file"]
        block = f"{snippet_text(path, place['section'])}\n```"
        block = f"{OPENING[path.suffix]}\n{block}"
        written += textwrap.indent(block, place["indent"]).splitlines()
        position = closing(lines, position + 1, fence["fence"]) + 1
    return "\n".join(written) + "\n"


def closing(lines: list[str], start: int, fence: str) -> int:
    """Return the line that closes a block."""
    for number in range(start, len(lines)):
        match = FENCE.fullmatch(lines[number])
        if match and match["fence"].startswith(fence) and not match["info"].strip():
            return number
    msg = f"line {start}: the block is never closed"
    raise ValueError(msg)


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write the pages, or compare them; return 1 if one differs or cannot be filled."""
    bad = 0
    for path in (root / "README.md", *sorted((root / "docs").rglob("*.md"))):
        name, page = path.relative_to(root).as_posix(), path.read_text("utf-8")
        try:
            wanted = filled(page, root / "docs" / "snippets")
        except ValueError as error:
            sys.stderr.write(f"{name}: {error}\n")
            bad = 1
            continue
        if wanted == page:
            continue
        if "--check" in arguments:
            pairs = enumerate(
                zip(page.splitlines(), wanted.splitlines(), strict=False)
            )
            line = next((n for n, (a, b) in pairs if a != b), 0) + 1
            sys.stderr.write(
                f"{name}:{line}: differs from its snippet; run "
                "docs/scripts/inline_snippets.py\n"
            )
            bad = 1
        else:
            path.write_text(wanted, "utf-8")
            sys.stderr.write(f"{name}\n")
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
