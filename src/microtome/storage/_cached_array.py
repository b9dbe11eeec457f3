"""An array in a store: its chunks fetched together, kept decoded or on disk, and read as any other."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, ModeError

from ._array import Box, Pending, ReadBatch, StoredArray
from ._batches import BoxBatch, read_batch
from ._engine import ENGINE
from ._facts import array_facts
from ._options import StorageOptions
from ._plans import plan_chunks
from ._remote import Place
from ._remote_chunks import RemoteChunks
from ._tally import Tally, current_tally, tallied

__all__ = ["CachedArray", "open_array_at"]

# Boxes of one array that are fetched at the same time, where each is asked for by itself.
_AT_ONCE = 8
# Bytes of pixels that are fetched for one read at once.
_LARGEST_READ = 1 << 27


class CachedArray(StoredArray):
    """An array in a store, read chunk by chunk; parameters and methods as `StoredArray`.

    The indexes of its shards stay in memory, decoded chunks where its options or a loader have room
    for them, and bytes on disk where its options name one. Layouts that only the engine knows are
    read by it from the store.
    """

    def __init__(
        self,
        path: Place,
        *,
        document: Mapping[str, Any] | None = None,
        options: StorageOptions | None = None,
        absent: object = None,
    ) -> None:
        super().__init__(path, document=document, options=options, absent=absent)
        self._looking = threading.Lock()
        self._looked = False
        self._remote: RemoteChunks | None = None

    def _chunks_there(self) -> RemoteChunks | None:
        if self._closed:
            msg = f"{self._path} is closed"
            raise ModeError(msg)
        ENGINE.verify(self._path)
        if not self._looked:
            # Once, however many threads begin to read: each would ask for all indexes.
            with self._looking:
                if not self._looked:
                    self._look()
        return self._remote

    def _look(self) -> None:
        document = self.document
        found = array_facts(document)
        if found is not None:
            self._facts = self._verified(found)
        self._remote = RemoteChunks.of(cast("Place", self._path), document)
        if self._remote is not None:
            self._remote.expect(self._absent)
        # Last: another thread that sees it takes the rest for known.
        self._looked = True

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box that lies inside the array; see `StoredArray.read`."""
        remote = self._chunks_there()
        if remote is None:
            return super().read(box)
        self._verify_inside(box)
        out = np.empty([stop - start for start, stop in box], self.dtype)
        self._fill(remote, box, out)
        return out

    def read_plane(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Read rows and columns, the last two axes, of all that comes before."""
        return self.read((*((0, size) for size in self.shape[:-2]), rows, columns))

    def read_into(
        self, box: Box, out: NDArray[Any], *, together: ReadBatch | None = None
    ) -> Pending:
        """Start reading a box into `out`; see `StoredArray.read_into`."""
        remote = self._chunks_there()
        if remote is None:
            return super().read_into(box, out, together=together)
        self._verify_inside(box)
        shape = tuple([stop - start for start, stop in box])
        if out.shape != shape or out.dtype != self.dtype or not out.flags.writeable:
            msg = (
                f"{self._path}: a box of {shape} {self.dtype} cannot be read into "
                f"{out.shape} {out.dtype}{'' if out.flags.writeable else ', read-only'}"
            )
            raise InvalidInputError(msg)
        tally = current_tally()

        def fill() -> Tally:
            # What a thread may keep, and counts, is told to it.
            with tallied(None if tally is None else tally.kept) as mine:
                self._fill(remote, box, out)
            return mine

        return _Filling(_fetchers().submit(fill), tally)

    def read_boxes(self, boxes: BoxBatch) -> bool:
        """Read many boxes at once, all that is missing fetched together; see `StoredArray.read_boxes`."""
        remote = self._chunks_there()
        if remote is None:
            return super().read_boxes(boxes)
        shape = np.asarray(self.shape)
        dtype = self.dtype if boxes.conversion is None else np.dtype(np.float32)
        if (boxes.low < 0).any() or (boxes.high > shape).any() or boxes.out.dtype != dtype:
            msg = f"{self._path}: boxes do not lie inside {self.shape}, or are not {dtype}"
            raise InvalidInputError(msg)
        if remote.is_decoded_here:
            return read_batch(remote.reader, boxes)
        # All together, and onto the disk, where the reads that come instead find it.
        remote.fetched(
            plan_chunks(boxes.low, boxes.high, boxes.target, boxes.strides, **remote.sizes)
        )
        return False

    def _fill(self, remote: RemoteChunks, box: Box, out: NDArray[Any]) -> None:
        if not out.size:
            return
        if out.nbytes > _LARGEST_READ:
            # In parts, each of whole shards: what is fetched of one lies in memory, packed.
            parts = _halves(box, self.write_unit)
            if parts is not None:
                for part in parts:
                    inside = [slice(a - c, b - c) for (a, b), (c, _) in zip(part, box, strict=True)]
                    self._fill(remote, part, out[tuple(inside)])
                return
        low, high = (np.asarray([part], np.int64) for part in zip(*box, strict=True))
        nowhere = np.zeros(1, np.int64)
        if remote.is_decoded_here:
            whole = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
            if read_batch(remote.reader, BoxBatch(low, high, whole, nowhere, whole.strides)):
                if whole is not out:
                    out[...] = whole
                return
        # What only the engine decodes, and what it says is damaged.
        plan = plan_chunks(low, high, nowhere, (0,) * len(box), **remote.sizes)
        out[...] = remote.read_by_engine(remote.fetched(plan), box)

    def _verify_inside(self, box: Box) -> None:
        shape = self.shape
        if len(box) != len(shape) or not all(
            0 <= start <= stop <= size for (start, stop), size in zip(box, shape, strict=True)
        ):
            msg = f"{self._path}: box {box} does not lie inside {shape}"
            raise InvalidInputError(msg)

    def __reduce__(self) -> tuple[Any, ...]:
        # Shape and type are asked for again, with the document that every process reads once.
        return _again, (self._path, self._absent)


def _again(path: Place, absent: object) -> CachedArray:
    return CachedArray(path, absent=absent)


def _halves(box: Box, unit: tuple[int, ...]) -> tuple[Box, Box] | None:
    """Cut a box where shards meet, along the axis of most of them; None where it lies in one."""
    counts = [
        -(-stop // side) - start // side for (start, stop), side in zip(box, unit, strict=True)
    ]
    axis = max(range(len(box)), key=counts.__getitem__)
    if counts[axis] < 2:
        return None
    start, stop = box[axis]
    cut = (start // unit[axis] + counts[axis] // 2) * unit[axis]
    before, after = list(box), list(box)
    before[axis], after[axis] = (start, cut), (cut, stop)
    return tuple(before), tuple(after)


@dataclass(slots=True, eq=False)
class _Filling:
    """A box that is being read on another thread."""

    future: Future[Tally]
    tally: Tally | None

    def result(self, timeout: float | None = None) -> object:
        """Wait, and raise what went wrong."""
        mine, tally = self.future.result(timeout), self.tally
        if tally is not None:
            tally.decoded += mine.decoded
            tally.found += mine.found
            tally.decode_seconds += mine.decode_seconds
            self.tally = None
        return None


@cache
def _fetchers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_AT_ONCE, "microtome-fetch")


if hasattr(os, "register_at_fork"):
    # A child has none of the threads.
    os.register_at_fork(after_in_child=_fetchers.cache_clear)


def open_array_at(
    place: Place,
    *,
    document: Mapping[str, Any] | None = None,
    options: StorageOptions | None = None,
    absent: object = None,
) -> StoredArray:
    """Open an array in a store for reading.

    Parameters
    ----------
    place
        The array.
    document
        As of `StoredArray`.
    options
        How it is read; by default as its place says.
    absent
        As of `StoredArray`.
    """
    chosen = place.options if options is None else options
    if not place.is_remote:
        return StoredArray(place, document=document, options=options, absent=absent)
    held = Place(place.uri, place.store, chosen)
    return CachedArray(held, document=document, options=options, absent=absent)
