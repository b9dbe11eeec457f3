"""Every line of Python that the documentation shows is a file, and every such file runs.

A page holds no code of its own: a Python block is one include of a file in docs/snippets (or of a
section of it, as pymdownx.snippets marks them). README.md is shown where includes are not followed;
its Python blocks are copies, and must equal such a file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SNIPPETS = sorted((REPOSITORY / "docs" / "snippets").glob("*.py"))
# A snippet may read and write a whole cohort; longer than this and it is no example.
SNIPPET_SECONDS = 110

FENCE = re.compile(r"^(?P<indent>[ \t>]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$")
INCLUDE = re.compile(r'-{2,}8<-{2,} "(?P<path>[^":]+)(?::(?P<section>[\w-]+))?"')
MARKER = re.compile(r"^\s*# -{2,}8<-{2,} \[(?:start|end):[\w-]+\]\n?", re.MULTILINE)
PYTHON = {"py", "python", "python3", "pycon"}
# Python that hides in a block without a language, or with another one's name.
LOOKS_LIKE_PYTHON = re.compile(r"^\s*(>>> |import microtome|from microtome)", re.MULTILINE)


# ------------------------------------------------------------------ the checker


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page: the line it starts on, its language, what stands in it."""

    line: int
    language: str
    text: str


def fenced_blocks(markdown: str) -> list[Block]:
    """Blocks at any depth: in lists, admonitions, tabs and quotes as well."""
    blocks: list[Block] = []
    opened: tuple[int, str, str, str] | None = None
    body: list[str] = []
    for number, line in enumerate(markdown.splitlines(), start=1):
        match = FENCE.match(line)
        if opened is None:
            if match:
                words = re.findall(r"[\w+#-]+", match["info"])
                language = words[0].lower() if words else ""
                opened = number, match["fence"], match["indent"], language
                body = []
            continue
        start, fence, indent, language = opened
        if match and match["fence"].startswith(fence) and not match["info"].strip():
            blocks.append(Block(start, language, textwrap.dedent("\n".join(body))))
            opened = None
        else:
            body.append(line.removeprefix(indent))
    return blocks


def has_section(snippet: str, section: str) -> bool:
    return all(f"[{end}:{section}]" in snippet for end in ("start", "end"))


def complaint_about_page_block(block: Block, root: Path) -> str | None:
    """What is wrong with a block of a page that follows includes, if anything."""
    if block.language not in PYTHON:
        hidden = LOOKS_LIKE_PYTHON.search(block.text)
        return "Python in a block that does not say so; include a snippet" if hidden else None
    include = INCLUDE.fullmatch(block.text.strip())
    if include is None:
        return "Python written into the page; include a file of docs/snippets"
    path = root / include["path"]
    if Path(include["path"]).parent.as_posix() != "docs/snippets" or path.suffix != ".py":
        return f"{include['path']} is not a Python file in docs/snippets, where the tests run them"
    if not path.is_file():
        return f"{include['path']} does not exist"
    if include["section"] and not has_section(path.read_text("utf-8"), include["section"]):
        return f"{include['path']} has no section {include['section']!r}"
    return None


def complaint_about_readme_block(block: Block, root: Path) -> str | None:
    """What is wrong with a block of a page that shows includes as they are, if anything."""
    if block.language not in PYTHON and not LOOKS_LIKE_PYTHON.search(block.text):
        return None
    snippets = (root / "docs" / "snippets").glob("*.py")
    shown = {MARKER.sub("", snippet.read_text("utf-8")).strip() for snippet in snippets}
    if block.text.strip() not in shown:
        return "equals no file in docs/snippets, so no test runs it"
    return None


def complaints(root: Path) -> list[str]:
    pages = sorted((root / "docs").rglob("*.md"))
    checks = [(page, complaint_about_page_block) for page in pages]
    checks += [(root / "README.md", complaint_about_readme_block)]
    return [
        f"{page.relative_to(root).as_posix()}:{block.line}: {complaint}"
        for page, check in checks
        for block in fenced_blocks(page.read_text("utf-8"))
        if (complaint := check(block, root)) is not None
    ]


# ------------------------------------------------------------------ the documentation


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda path: path.stem)
def test_snippet_runs(snippet, tmp_path):
    # As a reader would: a fresh interpreter, in an empty folder.
    ran = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(snippet)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=SNIPPET_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, f"{snippet.name} failed\n{ran.stdout}\n{ran.stderr}"


def test_every_python_block_is_a_snippet():
    found = complaints(REPOSITORY)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda path: path.stem)
def test_snippet_is_shown(snippet):
    pages = [*(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "README.md"]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    copied = MARKER.sub("", snippet.read_text("utf-8")).strip() in text
    assert copied or f"docs/snippets/{snippet.name}" in text, f"no page shows {snippet.name}"


# ------------------------------------------------------------------ the checker, on made-up pages

SNIPPET = "# --8<-- [start:open]\nimport microtome\n# --8<-- [end:open]\nprint(microtome)\n"


def documentation(folder: Path, *, page: str = "", readme: str = "") -> Path:
    (folder / "docs" / "snippets").mkdir(parents=True)
    (folder / "docs" / "snippets" / "x.py").write_text(SNIPPET)
    (folder / "docs" / "concepts").mkdir()
    (folder / "docs" / "concepts" / "page.md").write_text(page)
    (folder / "README.md").write_text(readme)
    return folder


@pytest.mark.parametrize(
    "page",
    [
        '```python\n--8<-- "docs/snippets/x.py"\n```',
        '``` py title="x"\n--8<-- "docs/snippets/x.py:open"\n```',
        '=== "Tab"\n\n    ```{.python .annotate}\n    --8<-- "docs/snippets/x.py"\n    ```',
        "```console\n$ microtome info .\n```",
        "```\nno language, no Python\n```",
        "````markdown\n```python\nnot a block, an example of one\n```\n````",
    ],
)
def test_good_blocks_pass(tmp_path, page):
    assert complaints(documentation(tmp_path, page=page)) == []


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```python\nx = 1\n```", "1: Python written into the page"),
        ("text\n\n~~~py\nx = 1\n~~~", "3: Python written into the page"),
        ("- item\n\n    ```python\n    x = 1\n    ```", "3: Python written into the page"),
        ('```python\n--8<-- "docs/snippets/x.py"\nx = 1\n```', "1: Python written into the page"),
        ('```python\n--8<-- "docs/snippets/y.py"\n```', "1: docs/snippets/y.py does not exist"),
        ('```python\n--8<-- "src/x.py"\n```', "1: src/x.py is not a Python file in docs/snippets"),
        (
            '```python\n--8<-- "docs/snippets/x.py:shut"\n```',
            "1: docs/snippets/x.py has no section 'shut'",
        ),
        ("```pycon\n>>> 1 + 1\n2\n```", "1: Python written into the page"),
        ("```\n>>> 1 + 1\n2\n```", "1: Python in a block that does not say so"),
        ("```text\nimport microtome as mt\n```", "1: Python in a block that does not say so"),
    ],
)
def test_bad_blocks_are_found(tmp_path, page, complaint):
    (found,) = complaints(documentation(tmp_path, page=page))
    assert found.startswith(f"docs/concepts/page.md:{complaint}")


def test_readme_copies_a_whole_snippet(tmp_path):
    shown = "import microtome\nprint(microtome)"
    assert complaints(documentation(tmp_path, readme=f"```python\n{shown}\n```")) == []


@pytest.mark.parametrize("text", ["import microtome", '--8<-- "docs/snippets/x.py"', "x = 1"])
def test_readme_with_other_code_is_found(tmp_path, text):
    (found,) = complaints(documentation(tmp_path, readme=f"\n```python\n{text}\n```"))
    assert found == "README.md:2: equals no file in docs/snippets, so no test runs it"
