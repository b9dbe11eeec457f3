"""What a loader has done, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LoaderStats"]


@dataclass(frozen=True, slots=True)
class LoaderStats:
    """What a loader has handed out since it was made.

    A consumer that waits long compared with its own work is starved; one that hardly waits is the
    bottleneck itself.
    """

    batches: int = 0
    """Batches handed out."""
    tiles: int = 0
    """Tiles in them."""
    wait_seconds: float = 0.0
    """How long the consumer waited for them."""
    read_seconds: float = 0.0
    """How long reading them took, summed over the threads."""

    def plus(self, *, tiles: int, wait_seconds: float, read_seconds: float) -> LoaderStats:
        """Return the figures with one more batch in them."""
        return LoaderStats(
            self.batches + 1,
            self.tiles + tiles,
            self.wait_seconds + wait_seconds,
            self.read_seconds + read_seconds,
        )
