"""How long work tells what it has done: a callback, so that the library never prints.

The command line turns these calls into a progress bar or into log lines; a notebook or a
scheduler can pass its own.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called with the name of the job, how many units are done, and how many there are."""

    def __call__(self, job: str, done: int, total: int, /) -> None:
        """Take note of how far a job is."""
        ...


def silent(job: str, done: int, total: int, /) -> None:
    """Report nothing: the default of every public function."""
