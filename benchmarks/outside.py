"""Peers in environments of their own: a process each, which does items when it is told to.

No environment holds them all: CAREamics, tiledbsoma and spatialdata ask for versions that others
do not allow, zarr 3.4 for a newer Python. So each runs in a child process of an interpreter that has
it; its processor time is counted with that of the children. What it does is in `outside_readers`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .harness import Items, Read

__all__ = ["PEERS", "ZARR", "OutsideError", "has", "outside"]

_ROOT = Path(__file__).parents[1]
PEERS = _ROOT / "build/peers-venv/bin/python"
"""The interpreter that has what `constraints-peers.txt` names; `make bench-peers` makes it."""
ZARR = _ROOT / "build/zarr-venv/bin/python"
"""A newer interpreter, which has zarr 3.4; `make bench-peers` makes it where there is one."""


class OutsideError(Exception):
    """A peer failed."""


def has(python: Path, *modules: str) -> bool:
    """Return whether an interpreter is there and has these modules."""
    find = "import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
    return (
        python.is_file()
        and subprocess.run([python, "-c", find, *modules], check=False).returncode == 0
    )


def outside(reader: str, python: Path, **given: Any) -> Generator[Read]:
    """Start a peer, and yield its `Read`.

    Parameters
    ----------
    reader
        Name of a function of `outside_readers`.
    python
        The interpreter.
    given
        What it is called with: text, numbers, None, lists and dictionaries of these, paths.

    Raises
    ------
    OutsideError
        If the peer fails; what it said is on the standard error.
    """
    command = [python, "-W", "ignore", "-m", "benchmarks.outside_readers", reader]
    command.append(json.dumps(given, default=str))
    with (
        tempfile.TemporaryDirectory(prefix="microtome-peer-") as directory,
        subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        peer = _Peer(Path(directory), process.stdin, process.stdout)
        try:
            peer.answer(reader)
            yield peer
        finally:
            process.stdin.close()


@dataclass(frozen=True, slots=True)
class _Peer:
    """The `Read` of a child process: it makes batches and drops them; only checks bring them here."""

    directory: Path
    asked: IO[str]
    answers: IO[str]

    def __call__(self, items: Items) -> Iterator[Any]:
        self.ask(items, keep=False)
        return iter(())

    def checked(self, items: Items) -> Iterator[NDArray[Any]]:
        """Do the items, and yield what came of them."""
        self.ask(items, keep=True)
        yield np.load(self.directory / "found.npy")

    def ask(self, items: Items, *, keep: bool) -> None:
        np.save(self.directory / "items.npy", items)
        print(json.dumps([str(self.directory), keep]), file=self.asked, flush=True)
        self.answer("a peer")

    def answer(self, who: str) -> None:
        found = self.answers.readline().strip()
        if found != "done":
            msg = f"{who}: {found or 'ended; see above'} ({sys.executable} goes on without it)"
            raise OutsideError(msg)
