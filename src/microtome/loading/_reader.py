"""Reading one batch: asking the source, seeing to it that the answer fits, and converting it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import (
    FormatError,
    InvalidInputError,
    MicrotomeError,
    NotFoundError,
    StorageError,
)
from microtome.regions import ImageRegionData
from microtome.storage import KeptChunks, tallied

from ._items import Collate, reading
from ._order import Order
from ._ragged import MultimodalBatch, PanelBatch
from ._tensors import Convert

__all__ = ["BatchReader", "ReadBatch", "SkippedTile"]

_log = logging.getLogger(__name__)

# Rows named in an error; the rest are found with `TileLoader.batch_rows`.
_ROWS_NAMED = 16
# What damaged, missing or unreachable data raise. What is wrong with a program is not skipped.
_OF_DATA = (FormatError, NotFoundError, StorageError, OSError)


@dataclass(frozen=True, slots=True)
class SkippedTile:
    """A tile that could not be read and was left out."""

    row: int
    """Its row in the source."""
    epoch: int
    """When: the epoch,"""
    batch: int
    """and the batch of this rank in it."""
    error: str
    """Why."""


@dataclass(slots=True)
class ReadBatch:
    """A batch that was read, and what it took."""

    batch: Any
    tiles: int
    bytes: int
    """Of its pixels."""
    read_seconds: float
    """Reading and decoding: the source's part."""
    convert_seconds: float
    """Making tensors, copying to a device, collating."""
    decode_seconds: float = 0.0
    """Of the reading, decoding, summed over the threads that do it."""
    decoded: float = 0.0
    """Chunks of local arrays that were decoded: a share of those that were for several batches."""
    found: float = 0.0
    """Chunks that were decoded already."""
    skipped: tuple[SkippedTile, ...] = ()
    """Tiles of the batch that could not be read."""

    def give(self) -> Any:
        """Return the batch and let go of it."""
        batch, self.batch = self.batch, None
        return batch


class BatchReader:
    """Reads batches of a source; holds nothing that changes, so that threads may share it.

    Parameters
    ----------
    source
        What is read.
    convert
        Turns the pixels of a batch into what is handed out.
    collate
        How samples become a batch; None as the source has it.
    skip
        Whether tiles that cannot be read are left out; else they are an error.
    kept
        Where chunks stay decoded from batch to batch; None where they do not.
    """

    def __init__(
        self,
        source: Any,
        convert: Convert,
        collate: Collate | None = None,
        *,
        skip: bool = False,
        kept: KeptChunks | None = None,
    ) -> None:
        self._skip = skip
        self._kept = kept
        self._name = type(source).__name__
        self._convert = convert
        self._reading = reading(source, collate)

    def read(
        self, order: Order, steps: range, rows: Sequence[NDArray[np.int64]]
    ) -> list[ReadBatch | Exception]:
        """Return batches that are read at once; in place of one that cannot be, its error.

        Parameters
        ----------
        order
            The order of the epoch that the batches are of.
        steps
            Numbers of the batches in it.
        rows
            Rows of the source, (n,), for each.
        """
        try:
            return list(self._read(order, rows))
        except Exception as error:  # noqa: BLE001 - whatever a source raises goes to the consumer
            if len(steps) == 1:
                if self._skip and isinstance(error, _OF_DATA):
                    return [self._without_bad(order, steps[0], rows[0])]
                return [self._named(error, order, steps[0], rows[0])]
        # One of them cannot be read: the others are, and the error is told of that one alone.
        return [self.read(order, range(s, s + 1), [r])[0] for s, r in zip(steps, rows, strict=True)]

    def _read(self, order: Order, rows: Sequence[NDArray[np.int64]]) -> Iterator[ReadBatch]:
        started = perf_counter()
        together = rows[0] if len(rows) == 1 else np.concatenate(rows)
        with tallied(self._kept) as tally:
            found = self._reading.read(together, order.epoch)
        if self._reading.collate is None:
            self._verify(found, len(together))
        share = 1 / len(rows)
        seconds = (perf_counter() - started) * share
        chunks = tally.decode_seconds * share, tally.decoded * share, tally.found * share
        sizes = [len(r) for r in rows]
        started = perf_counter()
        for own, size in zip(self._reading.batches(found, sizes), sizes, strict=True):
            batch = self._converted(own)
            now = perf_counter()
            yield ReadBatch(batch, size, _bytes_of(batch), seconds, now - started, *chunks)
            started = now

    def _without_bad(
        self, order: Order, step: int, rows: NDArray[np.int64]
    ) -> ReadBatch | Exception:
        """Return a batch of those of its tiles that can be read: each is tried by itself."""
        good: list[int] = []
        bad: list[SkippedTile] = []
        for row in rows.tolist():
            try:
                self._reading.read(np.asarray([row], np.int64), order.epoch)
            except _OF_DATA as error:
                bad.append(SkippedTile(row, order.epoch, step, str(error)))
            except Exception as error:  # noqa: BLE001 - whatever a source raises goes to the consumer
                return self._named(error, order, step, rows)
            else:
                good.append(row)
        if bad:
            _log.warning("%s", _told_of(bad, len(rows)))
        if not good:
            return ReadBatch(None, 0, 0, 0.0, 0.0, skipped=tuple(bad))
        kept = np.asarray(good, np.int64)
        try:
            (found,) = self._read(order, [kept])
        except Exception as error:  # noqa: BLE001 - as above
            return self._named(error, order, step, kept)
        found.skipped = tuple(bad)
        return found

    def _verify(self, batch: Any, count: int) -> None:
        parts = cast("tuple[Any, ...]", batch)
        if isinstance(batch, ImageRegionData):
            parts = (cast("Any", batch),)
        elif not isinstance(batch, tuple) or not all(isinstance(b, ImageRegionData) for b in parts):
            msg = (
                f"{self._name}.read_batch gave {type(batch).__name__}; a batch is one ImageRegionData, "
                "or a tuple of several, as of an input and its target"
            )
            raise InvalidInputError(msg)
        for part in parts:
            if len(part.data) != count:
                msg = f"{self._name}.read_batch gave {len(part.data)} tiles for {count} rows"
                raise InvalidInputError(msg)

    def _converted(self, batch: Any) -> Any:
        """Return a batch with its pixels turned into what is handed out, whatever it is made of."""
        if isinstance(batch, ImageRegionData):
            region = cast("ImageRegionData[Any]", batch)
            return region._replace(data=self._convert(region.data))
        if isinstance(batch, PanelBatch | MultimodalBatch):
            return batch.converted(self._convert)
        if isinstance(batch, list):
            return [self._converted(sample) for sample in cast("list[Any]", batch)]
        if isinstance(batch, tuple):
            parts = cast("tuple[Any, ...]", batch)
            # A named tuple of the source's own stays one.
            return getattr(type(parts), "_make", tuple)([self._converted(part) for part in parts])
        return batch  # tiles of several modalities are tensors already

    def _named(
        self, error: Exception, order: Order, step: int, rows: NDArray[np.int64]
    ) -> Exception:
        shown = ", ".join(str(row) for row in rows[:_ROWS_NAMED])
        more = f", ... {len(rows)} in all" if len(rows) > _ROWS_NAMED else ""
        named = f"batch {step} of epoch {order.epoch}, seed {order.seed}: rows {shown}{more}"
        if isinstance(error, MicrotomeError):
            told = type(error)(f"{error} ({named})")
            told.__cause__ = error
            return told
        # Of the source's own making: its type stays, for whoever catches it.
        error.add_note(f"in {named}")
        return error


def _told_of(bad: Sequence[SkippedTile], count: int) -> str:
    """Say in one line what is left out of a batch: a damaged file has many tiles."""
    shown = ", ".join(str(tile.row) for tile in bad[:_ROWS_NAMED])
    more = ", ..." if len(bad) > _ROWS_NAMED else ""
    what = f"{len(bad)} of {count} tiles are" if len(bad) > 1 else f"1 of {count} tiles is"
    others = len({tile.error for tile in bad}) - 1
    besides = (
        f" ({others} other error{'s' * (others > 1)}, see TileLoader.skipped)" if others else ""
    )
    return (
        f"{what} skipped (batch {bad[0].batch} of epoch {bad[0].epoch}: rows {shown}{more}): "
        f"{bad[0].error}{besides}"
    )


def _bytes_of(batch: Any) -> int:
    """Return how many bytes the pixels of a batch have, as far as it is of a known kind."""
    if isinstance(batch, ImageRegionData):
        return int(getattr(batch.data, "nbytes", 0))
    if isinstance(batch, PanelBatch):
        return _bytes_of(batch.region)
    if isinstance(batch, MultimodalBatch):
        return sum(_bytes_of(part) for part in batch.modalities.values())
    if isinstance(batch, list | tuple):
        return sum(_bytes_of(part) for part in cast("list[Any]", batch))
    if isinstance(batch, dict):  # a draw of several cohorts
        results = cast("dict[str, Any]", batch).get("modalities", {}).values()
        return sum(_bytes_of(result.region) for result in results)
    return sum(_bytes_of(region) for region in getattr(batch, "regions", {}).values())
