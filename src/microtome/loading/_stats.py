"""What a loader has done, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from ._reader import ReadBatch

__all__ = ["LoaderStats"]


@dataclass(frozen=True, slots=True)
class LoaderStats:
    """What a loader has handed out since it was made, all epochs together.

    A consumer that waits long compared with its own work is starved; one that hardly waits is the
    bottleneck itself.
    """

    batches: int = 0
    """Batches handed out."""
    tiles: int = 0
    """Tiles in them."""
    skipped: int = 0
    """Tiles that could not be read and were left out."""
    bytes: int = 0
    """Of their pixels, as handed out."""
    wait_seconds: float = 0.0
    """How long the consumer waited for them."""
    read_seconds: float = 0.0
    """How long the source took to read them, decoding included, summed over the threads."""
    decode_seconds: float = 0.0
    """How long chunks of Zarr arrays took to be decoded, summed over the threads that decode;
    what the array engine or the reader of a foreign format decodes is counted as reading alone."""
    convert_seconds: float = 0.0
    """How long making tensors, collating and copying to a device took, summed over the threads."""
    amplification: float | None = None
    """How many pixels of chunks tiles touch for each of their own, on average over all that were handed
    out, a chunk that several touch counted for each; None where batches tell of no chunks."""
    cache_hits: int | None = None
    """Chunks of Zarr arrays that were found decoded, or what the source counts as such; None
    where nothing is kept (``cache_bytes=0``) and the source does not count."""
    cache_misses: int | None = None
    """Chunks that had to be decoded; None as above."""

    def plus(self, found: ReadBatch, waited: float) -> LoaderStats:
        """Return the figures with one more batch in them."""
        return replace(
            self,
            batches=self.batches + 1,
            tiles=self.tiles + found.tiles,
            skipped=self.skipped + len(found.skipped),
            bytes=self.bytes + found.bytes,
            wait_seconds=self.wait_seconds + waited,
            read_seconds=self.read_seconds + found.read_seconds,
            convert_seconds=self.convert_seconds + found.convert_seconds,
            decode_seconds=self.decode_seconds + found.decode_seconds,
        )

    def since(self, earlier: LoaderStats) -> LoaderStats:
        """Return what came after earlier figures of the same loader, of an epoch say.

        Numbers are subtracted; `amplification`, which is an average, stays.

        Examples
        --------
        >>> LoaderStats(batches=9, tiles=90).since(LoaderStats(batches=4, tiles=40)).tiles
        50
        """
        less: dict[str, int | float] = {}
        for name in (field.name for field in fields(self) if field.name != "amplification"):
            now, before = getattr(self, name), getattr(earlier, name)
            if now is not None and before is not None:
                less[name] = now - before
        return replace(self, **less)

    @property
    def tiles_per_second(self) -> float:
        """Tiles for each second of one thread's reading and converting; 0 before the first."""
        spent = self.read_seconds + self.convert_seconds
        return self.tiles / spent if spent else 0.0
