"""What reads of one thread came to, and what they may keep: told to whoever reads on its behalf.

Between a loader and the chunks that it reads lie datasets of many kinds. None of them has to know of
this: the loader says it of its thread, and the reads that follow there see it.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from ._kept_chunks import KeptChunks

__all__ = ["Tally", "current_tally", "tallied"]


@dataclass(slots=True)
class Tally:
    """Chunks of arrays that were read; those that the array engine reads are not counted."""

    kept: KeptChunks | None = None
    """Where chunks stay decoded."""
    decoded: int = 0
    """Chunks that were decoded, or copied where they are not compressed."""
    found: int = 0
    """Chunks that were decoded already."""
    decode_seconds: float = 0.0
    """How long decoding took, summed over the threads that did it."""


class _Now(threading.local):
    tally: Tally | None = None


_NOW = _Now()


def current_tally() -> Tally | None:
    """Return what counts the reads of this thread, None where nobody asked."""
    return _NOW.tally


@contextmanager
def tallied(kept: KeptChunks | None = None) -> Generator[Tally]:
    """Count the reads of this thread, and have them keep what they decode.

    Parameters
    ----------
    kept
        Where chunks stay decoded; None where nothing is kept.
    """
    before, _NOW.tally = _NOW.tally, Tally(kept)
    try:
        yield _NOW.tally
    finally:
        _NOW.tally = before
