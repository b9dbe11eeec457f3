"""Quiet, verbose, progress on a terminal and elsewhere, and the ways to start the program."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.cli import _console
from microtome.errors import (
    BusyError,
    ConflictError,
    DependencyError,
    ExistsError,
    FormatError,
    InvalidInputError,
    ModeError,
    NoResolutionError,
    NotFoundError,
    OutOfRangeError,
    StorageError,
    UnknownNameError,
)

SCRIPT = Path(sys.executable).with_name("microtome")


def ingest_arguments(slide: Path, root: Path) -> list[str]:
    options = ["--tissue", "t", "--modality", "he", "--resolution", "0.5"]
    return ["ingest", str(slide), "--cohort", str(root), *options]


def test_quiet_says_nothing(run: Any, slide: Path, tmp_path: Path) -> None:
    root = tmp_path / "c"
    for arguments in (
        ingest_arguments(slide, root),
        ["mask", root],
        ["tile", root, "--size", "64"],
        ["stats", root],
        ["predict", root, "--tile-size", "256"],
    ):
        for flag in ("-q", "--quiet"):
            again = ["--overwrite"] if arguments[0] == "tile" else []
            done = run(flag, *arguments, *again)
            assert (done.code, done.out, done.err) == (0, "", ""), arguments
    assert (root / "predictions/0_5mpp/demo/t.ome.zarr").is_dir()


def test_quiet_still_tells_errors(run: Any, tmp_path: Path) -> None:
    done = run("-q", "info", tmp_path / "missing")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"error: {tmp_path / 'missing'} does not exist\n"


def test_the_flags_stand_before_or_after_the_verb(run: Any, tmp_path: Path) -> None:
    before = run("-v", "info", tmp_path / "missing")
    after = run("info", tmp_path / "missing", "-v")
    assert before.code == after.code == 1
    assert "Traceback" in before.err
    assert "Traceback" in after.err


def test_verbose_gives_the_way_to_an_error(run: Any, tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_text("x")
    plain = run("info", tmp_path / "a.svs")
    assert plain.err.count("\n") == 1
    verbose = run("-v", "info", tmp_path / "a.svs")
    assert "FormatError" in verbose.err
    assert "_registry.py" in verbose.err
    assert plain.err.strip() in verbose.err
    # And the next run is not verbose any more.
    assert run("info", tmp_path / "a.svs").err == plain.err


def test_progress_is_log_lines_elsewhere(run: Any, slide: Path, tmp_path: Path) -> None:
    done = run(*ingest_arguments(slide, tmp_path / "c"))
    assert "ingest: 4 of 4\n" in done.err
    assert "\x1b" not in done.err + done.out
    assert "ingest:" not in done.out


def test_lines_now_and_then(run: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    now = [100.0]
    monkeypatch.setattr(_console.time, "monotonic", lambda: now[0])
    with caplog.at_level("INFO", "microtome"), _console.progress() as show:
        for done in range(1, 101):
            now[0] += 0.1
            show("job", done, 100)
        show("other", 1, 1)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[-2:] == ["job: 100 of 100", "other: 1 of 1"]
    assert 4 <= len(lines) <= 7, "one every two seconds of ten, and the ends"


def through_terminal(command: list[str]) -> tuple[int, bytes, bytes]:
    """Run with a terminal as standard error; return the code, standard output and what it showed."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
    )
    os.close(slave)
    shown = bytearray()
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        ready, _, _ = select.select([master], [], [], 0.1)
        if ready:
            try:
                part = os.read(master, 65536)
            except OSError:  # the terminal closes with the process
                break
            if not part:
                break
            shown += part
    out, _ = process.communicate(timeout=20)
    os.close(master)
    return process.returncode, out, bytes(shown)


def test_progress_is_a_bar_on_a_terminal(slide: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "microtome", *ingest_arguments(slide, tmp_path / "c")]
    code, out, shown = through_terminal(command)
    text = shown.decode()
    assert code == 0, text
    assert "━" in text
    assert "\x1b[" in text
    assert "4/4" in text
    assert "ingest: 4 of 4" not in text
    assert out.decode().startswith(f"{tmp_path / 'c'}")
    assert b"\x1b" not in out
    assert out.count(b"\n") == 1


def test_quiet_on_a_terminal(slide: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "microtome", "-q", *ingest_arguments(slide, tmp_path / "c")]
    assert through_terminal(command) == (0, b"", b"")


@pytest.mark.parametrize(
    "start", [[sys.executable, "-m", "microtome"], [str(SCRIPT)]], ids=["-m", "script"]
)
def test_ways_to_start(start: list[str], slide: Path, tmp_path: Path) -> None:
    if start == [str(SCRIPT)] and not SCRIPT.exists():
        pytest.skip(f"{SCRIPT} is not installed")
    done = subprocess.run(
        [*start, "info", str(slide)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0
    assert "3x613x541" in done.stdout
    assert done.stderr == ""
    wrong = subprocess.run(
        [*start, "info", str(tmp_path / "no")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (wrong.returncode, wrong.stdout) == (1, "")


def test_help_is_quick_and_loads_no_reader() -> None:
    code = (
        "import sys; from microtome.cli import main; main(['--help']);"
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'torch', 'tifffile', 'tensorstore', 'pyarrow', 'skimage', 'matplotlib'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInputError, 2),
        (NoResolutionError, 2),
        (UnknownNameError, 2),
        (OutOfRangeError, 2),
        (NotFoundError, 1),
        (ExistsError, 1),
        (FormatError, 1),
        (ModeError, 1),
        (StorageError, 1),
        (BusyError, 1),
        (ConflictError, 1),
        (DependencyError, 1),
    ],
)
def test_every_error_has_its_exit_code(
    error: type[Exception], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error("the reason")

    _console.set_verbosity(0)
    assert _console.run(fail) == code
    assert capsys.readouterr().err == "error: the reason\n"


def test_what_the_system_refuses_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise PermissionError(13, "Permission denied", "/a/b")

    _console.set_verbosity(0)
    assert _console.run(fail) == 1
    said = capsys.readouterr().err
    assert said == "error: [Errno 13] Permission denied: '/a/b'\n"


def test_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    _console.set_verbosity(0)
    assert _console.run(fail) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_defect_is_not_hidden() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _console.run(fail)


def test_results_and_the_rest_go_apart(run: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (70, 60, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    root = tmp_path / "c"
    arguments = [
        "ingest",
        tmp_path / "a.tif",
        "--cohort",
        root,
        "--tissue",
        "t",
        "--modality",
        "he",
    ]
    done = run(*arguments, "--mpp", "1")
    assert len(done.out.splitlines()) == 1
    again = run(*arguments, "--mpp", "1")
    assert again.out == done.out
    assert "is there already" in again.err
    assert "is there already" not in again.out
