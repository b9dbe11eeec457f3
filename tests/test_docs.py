"""Every line of Python that the documentation shows is in a file, and every such file runs.

A Python block of a page is a copy of a file in docs/snippets (or of a section of it), named by a
comment above the block; docs/scripts/inline_snippets.py makes the copies.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
INLINE = REPOSITORY / "docs" / "scripts" / "inline_snippets.py"
SNIPPETS = sorted((REPOSITORY / "docs" / "snippets").glob("*.py"))
# A snippet may read and write a whole cohort; longer than this and it is no example.
SNIPPET_SECONDS = 110

FENCE = re.compile(r"^(?P<indent>[ \t>]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$")
PLACE = re.compile(r"\s*<!-- snippet: (?P<file>[\w.]+)(?::(?P<section>[\w-]+))? -->")
MARKER = re.compile(r"^\s*# -{2,}8<-{2,} \[(?:start|end):[\w-]+\]\n?", re.MULTILINE)
PYTHON = {"py", "python", "python3", "pycon"}
# Python that hides in a block without a language, or with another one's name.
LOOKS_LIKE_PYTHON = re.compile(r"^\s*(>>> |import microtome|from microtome)", re.MULTILINE)


# ------------------------------------------------------------------ the checker


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the line it starts on, the one above that, its language, what is in it."""

    line: int
    above: str
    language: str
    text: str


def fenced_blocks(markdown: str) -> list[Block]:
    """Blocks at any depth: in lists, admonitions, tabs and quotes as well."""
    blocks: list[Block] = []
    opened: tuple[int, str, str, str] | None = None
    body: list[str] = []
    lines = markdown.splitlines()
    for number, line in enumerate(lines, start=1):
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
            above = lines[start - 2] if start > 1 else ""
            blocks.append(Block(start, above, language, textwrap.dedent("\n".join(body))))
            opened = None
        else:
            body.append(line.removeprefix(indent))
    return blocks


def complaint(block: Block, root: Path) -> str | None:
    """What is wrong with a block of a page, if anything."""
    if block.language not in PYTHON:
        hidden = LOOKS_LIKE_PYTHON.search(block.text)
        return "Python in a block that does not say so; make it a snippet" if hidden else None
    place = PLACE.fullmatch(block.above)
    if place is None:
        return "Python that no test runs; put it into docs/snippets and name it above the block"
    path = root / "docs" / "snippets" / place["file"]
    if not path.is_file():
        path = root / "examples" / place["file"]  # test_examples.py runs them
    if path.suffix != ".py" or not path.is_file():
        return f"{place['file']} is not a Python file in docs/snippets, where the tests run them"
    # Coarser than the script's own comparison, and made without it: a part of a file that runs.
    if not block.text.strip() or block.text not in MARKER.sub("", path.read_text("utf-8")):
        return f"is no part of {place['file']}"
    return None


def complaints(root: Path) -> list[str]:
    return [
        f"{page.relative_to(root).as_posix()}:{block.line}: {found}"
        for page in (root / "README.md", *sorted((root / "docs").rglob("*.md")))
        for block in fenced_blocks(page.read_text("utf-8"))
        if (found := complaint(block, root)) is not None
    ]


# ------------------------------------------------------------------ the documentation


@pytest.mark.slow
@pytest.mark.parametrize(
    "snippet",
    # Those whose output is recorded run in tests/test_docs_pages.py, which compares it.
    [path for path in SNIPPETS if not path.with_suffix(".txt").exists()],
    ids=lambda path: path.stem,
)
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


def inline(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a repository, `root`'s own copy of it."""
    script = root / INLINE.relative_to(REPOSITORY)
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=SNIPPET_SECONDS,
        check=False,
    )


def test_pages_show_what_the_snippets_hold():
    ran = inline(REPOSITORY, "--check")
    assert ran.returncode == 0, f"run docs/scripts/inline_snippets.py\n{ran.stderr}"


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda path: path.stem)
def test_every_section_is_shown(snippet):
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    lines = [line for page in pages for line in page.read_text("utf-8").splitlines()]
    shown = {(m["file"], m["section"]) for line in lines if (m := PLACE.fullmatch(line))}
    sections = re.findall(r"\[start:([\w-]+)\]", snippet.read_text("utf-8")) or [None]
    assert {(snippet.name, section) for section in sections} <= shown


# ------------------------------------------------------------------ the checker, on made-up pages

SNIPPET = "# --8<-- [start:open]\nimport microtome\n# --8<-- [end:open]\nprint(microtome)\n"
OUTPUT = "# --8<-- [start:open]\n<module>\n# --8<-- [end:open]\n"
OPEN = "<!-- snippet: x.py:open -->"


def documentation(folder: Path, *, page: str = "", readme: str = "") -> Path:
    (folder / "docs" / "snippets").mkdir(parents=True)
    (folder / "docs" / "snippets" / "x.py").write_text(SNIPPET)
    (folder / "docs" / "snippets" / "x.txt").write_text(OUTPUT)
    (folder / "docs" / "scripts").mkdir()
    shutil.copy(INLINE, folder / "docs" / "scripts")
    (folder / "docs" / "concepts").mkdir()
    (folder / "docs" / "concepts" / "page.md").write_text(page)
    (folder / "README.md").write_text(readme)
    return folder


@pytest.mark.parametrize(
    "page",
    [
        f"{OPEN}\n```python\nimport microtome\n```",
        "<!-- snippet: x.py -->\n```python\nimport microtome\nprint(microtome)\n```",
        f'=== "Tab"\n\n    {OPEN}\n    ```python\n    import microtome\n    ```',
        "```console\n$ microtome info .\n```",
        "```\nno language, no Python\n```",
        "````markdown\n```python\nnot a block, an example of one\n```\n````",
    ],
)
def test_good_blocks_pass(tmp_path, page):
    assert complaints(documentation(tmp_path, page=page, readme=page)) == []


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("```python\nx = 1\n```", "1: Python that no test runs"),
        ("text\n\n~~~py\nx = 1\n~~~", "3: Python that no test runs"),
        ("- item\n\n    ```python\n    x = 1\n    ```", "3: Python that no test runs"),
        ("```pycon\n>>> 1 + 1\n2\n```", "1: Python that no test runs"),
        (f"{OPEN}\n\n```python\nimport microtome\n```", "3: Python that no test runs"),
        (f"{OPEN}\n```python\nimport microtome\nx = 1\n```", "2: is no part of x.py"),
        (f"{OPEN}\n```python\n```", "2: is no part of x.py"),
        ("<!-- snippet: y.py -->\n```python\nx = 1\n```", "2: y.py is not a Python file"),
        ("<!-- snippet: x.txt -->\n```python\nx = 1\n```", "2: x.txt is not a Python file"),
        ("```\n>>> 1 + 1\n2\n```", "1: Python in a block that does not say so"),
        ("```text\nimport microtome as mt\n```", "1: Python in a block that does not say so"),
    ],
)
def test_bad_blocks_are_found(tmp_path, page, found):
    in_readme, on_page = complaints(documentation(tmp_path, page=page, readme=page))
    assert on_page.startswith(f"docs/concepts/page.md:{found}")
    assert in_readme.startswith(f"README.md:{found}")


# ------------------------------------------------------------------ the script, on made-up pages

EMPTY = """\
Text.

<!-- snippet: x.py:open -->
```python
```

- item

    <!-- snippet: x.txt:open -->
    ```text
    something old
    ```

<!-- snippet: x.py -->
```python
```

````markdown
<!-- snippet: x.py -->
```python
```
````
"""
FULL = """\
Text.

<!-- snippet: x.py:open -->
```python
import microtome
```

- item

    <!-- snippet: x.txt:open -->
    ```text title="Output"
    <module>
    ```

<!-- snippet: x.py -->
```python
import microtome
print(microtome)
```

````markdown
<!-- snippet: x.py -->
```python
```
````
"""


def test_the_script_fills_blocks_once(tmp_path):
    root = documentation(tmp_path, page=EMPTY, readme="No code.\n")
    page = root / "docs" / "concepts" / "page.md"
    checked = inline(root, "--check")
    assert checked.returncode == 1
    assert checked.stderr.startswith("docs/concepts/page.md:5: differs")
    assert page.read_text() == EMPTY
    assert inline(root).returncode == 0
    assert page.read_text() == FULL
    assert inline(root, "--check").returncode == 0
    inline(root)
    assert page.read_text() == FULL
    assert (root / "README.md").read_text() == "No code.\n"


@pytest.mark.parametrize("changed", ["x.py", "x.txt"])
def test_the_script_sees_a_snippet_change(tmp_path, changed):
    root = documentation(tmp_path, page=FULL)
    (root / "README.md").write_text("\n")
    assert inline(root, "--check").returncode == 0
    snippet = root / "docs" / "snippets" / changed
    snippet.write_text(snippet.read_text().replace("module", "Module").replace("import", "Import"))
    assert inline(root, "--check").returncode == 1


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- snippet: y.py -->\n```python\n```\n", "has no y.py"),
        ("<!-- snippet: x.py:shut -->\n```python\n```\n", "x.py has no section 'shut'"),
        ("<!-- snippet: x.py -->\n\n```python\n```\n", "line 1: no block follows"),
        ("<!-- snippet: x.py -->\n```python\n", "never closed"),
    ],
)
def test_the_script_refuses_a_place_that_names_nothing(tmp_path, page, message):
    ran = inline(documentation(tmp_path, page=page, readme="\n"))
    assert ran.returncode == 1
    assert "docs/concepts/page.md" in ran.stderr
    assert message in ran.stderr
