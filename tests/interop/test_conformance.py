"""The public suite of OME-NGFF 0.6 transforms calls our entry; it asks for Python 3.12."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = importlib.util.find_spec("transformation_conformance")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(SUITE is None, reason="needs the interop extra, on Python 3.12 or newer"),
]


def test_every_case_of_the_suite_passes():
    assert SUITE is not None
    script = Path(str(SUITE.origin))
    # Its cases lie beside it; it looks for them inside a package, which it is not.
    suite = [sys.executable, str(script), "--no-builtin", str(script.parent / "cases")]
    ran = subprocess.run(
        [*suite, "--", sys.executable, "-m", "microtome", "conformance"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    results = [line.split("\t")[1] for line in ran.stdout.splitlines() if "\t" in line]
    assert len(results) >= 24
    assert set(results) == {"pass"}
