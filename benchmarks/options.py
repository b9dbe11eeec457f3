"""What a run of the benchmarks is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure on, and how long.

    Parameters
    ----------
    image
        Image to measure on; None for the demo's, or one like it.
    rounds
        How many times each competitor is measured.
    items
        Items in a round.
    work
        Directory for what is made on the way, removed afterwards.
    tell
        Called with a line about how far it is.
    data
        Directory of the images that several benchmarks share; None for `work`.
    """

    image: Path | None
    rounds: int
    items: int
    work: Path
    tell: Callable[[str], None]
    data: Path | None = None

    @property
    def shared(self) -> Path:
        """Where images that others may need too are made."""
        return self.data or self.work
