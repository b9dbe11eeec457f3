"""Reading one batch: asking the source, seeing to it that the answer fits, and converting it."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, MicrotomeError
from microtome.regions import ImageRegionData

from ._items import Collate, reading
from ._order import TileOrder
from ._ragged import MultimodalBatch, PanelBatch
from ._tensors import Convert

__all__ = ["BatchReader", "ReadBatch"]

# Rows named in an error; the rest are found with `TileLoader.batch_rows`.
_ROWS_NAMED = 16


@dataclass(slots=True)
class ReadBatch:
    """A batch that was read, and what it took."""

    batch: Any
    tiles: int
    seconds: float


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
    """

    def __init__(self, source: Any, convert: Convert, collate: Collate | None = None) -> None:
        self._name = type(source).__name__
        self._convert = convert
        self._read_rows, self._is_list = reading(source, collate)
        self._own_collate = callable(collate)

    def read(self, order: TileOrder, step: int, rows: NDArray[np.int64]) -> ReadBatch:
        """Return a batch; an error names it and its rows.

        Parameters
        ----------
        order
            The order of the epoch that the batch is of.
        step
            Number of the batch in it.
        rows
            Rows of the source, (n,).
        """
        started = perf_counter()
        try:
            batch = self._converted(self._read_rows(rows, order.epoch), len(rows))
        except MicrotomeError as error:
            raise type(error)(f"{error} ({_named(order, step, rows)})") from error
        except Exception as error:
            # Of the source's own making: its type stays, for whoever catches it.
            error.add_note(f"in {_named(order, step, rows)}")
            raise
        return ReadBatch(batch, len(rows), perf_counter() - started)

    def _converted(self, batch: Any, count: int) -> Any:
        if isinstance(batch, ImageRegionData):
            return self._one(cast("ImageRegionData[Any]", batch), count)
        if isinstance(batch, PanelBatch | MultimodalBatch):
            return batch.converted(self._convert)
        if self._is_list:
            return [self._pixels(sample) for sample in cast("list[Any]", batch)]
        if self._own_collate:  # whatever its function makes
            return batch
        parts = cast("tuple[Any, ...]", batch)
        if not isinstance(batch, tuple) or not all(isinstance(b, ImageRegionData) for b in parts):
            msg = (
                f"{self._name}.read_batch gave {type(batch).__name__}; a batch is one ImageRegionData, "
                "or a tuple of several, as of an input and its target"
            )
            raise InvalidInputError(msg)
        # A named tuple of the source's own stays one.
        make = getattr(type(parts), "_make", tuple)
        return make([self._one(part, count) for part in parts])

    def _pixels(self, sample: Any) -> Any:
        if not isinstance(sample, ImageRegionData):
            return sample  # tiles of several modalities come as tensors already
        region = cast("ImageRegionData[Any]", sample)
        return region._replace(data=self._convert(region.data))

    def _one(self, batch: ImageRegionData[Any], count: int) -> ImageRegionData[Any]:
        if len(batch.data) != count:
            msg = f"{self._name}.read_batch gave {len(batch.data)} tiles for {count} rows"
            raise InvalidInputError(msg)
        return batch._replace(data=self._convert(batch.data))


def _named(order: TileOrder, step: int, rows: NDArray[np.int64]) -> str:
    shown = ", ".join(str(row) for row in rows[:_ROWS_NAMED])
    more = f", ... {len(rows)} in all" if len(rows) > _ROWS_NAMED else ""
    return f"batch {step} of epoch {order.epoch}, seed {order.seed}: rows {shown}{more}"
