"""Arrays on disk: the only place that knows the array engine (TensorStore).

TensorStore reads and writes Zarr v2 and v3 with its own C++ threads, decodes inside shards, and
copies straight into a given buffer; zarr-python, the reference implementation, needs 5 to 25
times the CPU for the same small reads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from microtome.errors import (
    FormatError,
    InvalidInputError,
    ModeError,
)

from ._batches import BoxBatch, read_batch
from ._chunks import ChunkReader, known_layout
from ._documents import array_metadata
from ._engine import ENGINE, engine_errors
from ._facts import ArrayFacts, array_facts, verify_chunk
from ._handles import FORKED, Stamp, facts_of, open_handle, stamp_of, verify_stamp
from ._inventory import Inventory
from ._options import StorageOptions
from ._remote import Place
from ._tally import current_tally
from ._transfers import READ, Box, ReadTransfer, write_by_file

__all__ = [
    "Box",
    "Pending",
    "ReadBatch",
    "StoredArray",
    "array_metadata",
]

# Of pixels that are read without the engine, which decodes what is larger on all processors.
_QUICK_BYTES = 1 << 23

ReadBatch = ts.Batch
"""Reads that are begun together, so that the engine fetches what they have in common once."""


class Pending(Protocol):
    """A read that is under way; `result` waits for it and raises what went wrong."""

    def result(self, timeout: float | None = None) -> object: ...


class StoredArray:
    """One array on disk, opened when its first pixel is touched.

    Not opened at construction because a cohort holds thousands, and because the engine's threads
    do not survive a fork: a handle must be made in the process that uses it.

    Parameters
    ----------
    path
        Directory of the array, or its place in a store that is read only.
    writable
        Whether `write` is allowed.
    document
        The array's metadata document, where its group holds a copy: shape and type are then known
        without a look at the array, and compared with it before a pixel is read.
    options
        What is kept of it in memory, and how many threads read it; a place has its own by default.
    absent
        Which of its files are not there because nothing was written, as an `Inventory` takes it,
        where its group says so: others that are not there are then an error of whoever reads them.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Place,
        *,
        writable: bool = False,
        document: Mapping[str, Any] | None = None,
        options: StorageOptions | None = None,
        absent: object = None,
    ) -> None:
        self._path = path if isinstance(path, Place) else Path(path)
        self._options = path.options if options is None and isinstance(path, Place) else options
        self._writable = writable
        self._closed = False
        # Not the document itself: thousands of images are open at once.
        self._facts = None if document is None else array_facts(document)
        self._store: ts.TensorStore | None = None
        self._keeping: tuple[StorageOptions, ts.TensorStore] | None = None
        self._stamp: Stamp | None = None
        self._reader: ChunkReader | None = None
        self._absent = absent
        self._files: Inventory | None = None
        self.before_write: Callable[[], None] | None = None
        """Called once, before anything is written."""

    @property
    def path(self) -> Path | Place:
        """Directory of the array, or its place in a store."""
        return self._path

    @property
    def document(self) -> dict[str, Any]:
        """Its metadata document, read from the array at each call.

        Raises
        ------
        NotFoundError
            If there is none.
        FormatError
            If it is not a JSON object.
        """
        return array_metadata(self._path)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels."""
        return self._known().shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel, in this machine's byte order."""
        return self._known().dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Smallest part that is decoded."""
        return self._known().chunks

    @property
    def write_unit(self) -> tuple[int, ...]:
        """Smallest part that is written: the shard, or the chunk where there are none."""
        return self._known().write_unit

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of a shard, or None where the array is not sharded."""
        unit = self.write_unit
        return None if unit == self.chunks else unit

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box that lies inside the array.

        Parameters
        ----------
        box
            Half-open interval an axis.

        Raises
        ------
        FormatError
            If a chunk is damaged; the message names the array.
        """
        handle = self._checked(box)
        pixels = self._quickly(box)
        if pixels is None:
            if self._files is not None:
                self._files.verify_files(box)
            try:
                pixels = handle[_slices(box)].read().result()
            except (ValueError, OSError):
                with engine_errors(self._path):
                    raise
        self.verify_there()
        return pixels

    def read_plane(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Read rows and columns, the last two axes, of all that comes before; else as `read`.

        The same with fewer calls: of a tile that is read by itself, every one is felt.
        """
        handle, facts, stamp = self._store, self._facts, self._stamp
        (top, bottom), (left, right) = rows, columns
        if (
            handle is None
            or facts is None
            or self._closed
            or FORKED
            or not 0 <= top <= bottom <= facts.shape[-2]
            or not 0 <= left <= right <= facts.shape[-1]
        ):
            # Opens the array, or says what is wrong.
            return self.read((*((0, size) for size in self.shape[:-2]), rows, columns))
        try:
            pixels = self._quickly((*((0, size) for size in facts.shape[:-2]), rows, columns))
            if pixels is None:
                if self._files is not None:
                    self._files.verify_files((*((0, n) for n in facts.shape[:-2]), rows, columns))
                pixels = handle[..., top:bottom, left:right].read().result()
            if stamp is not None:
                now = os.stat(stamp[0])  # noqa: PTH116 - a Path costs more than the call
                if now.st_ino != stamp[1] or now.st_mtime_ns != stamp[2]:
                    self.verify_there()
        except (ValueError, OSError):
            self.verify_there()
            with engine_errors(self._path):
                raise
        return pixels

    def read_into(
        self, box: Box, out: NDArray[Any], *, together: ReadBatch | None = None
    ) -> Pending:
        """Start reading a box into `out` and return at once.

        Parameters
        ----------
        box
            Half-open interval an axis, inside the array.
        out
            Buffer of the box's shape and the array's dtype; need not be contiguous.
        together
            Reads that are begun as one, when the batch ends: ``with ReadBatch() as together``.
            Waiting for one of them before that waits for ever; call `verify_there` after all.

        Raises
        ------
        InvalidInputError
            If shape or dtype differ: the engine would cast and repeat pixels silently.
        """
        handle = self._checked(box)
        shape = tuple([stop - start for start, stop in box])
        if out.shape != shape or out.dtype != self.dtype or not out.flags.writeable:
            msg = (
                f"{self._path}: a box of {shape} {self.dtype} cannot be read into "
                f"{out.shape} {out.dtype}{'' if out.flags.writeable else ', read-only'}"
            )
            raise InvalidInputError(msg)
        # Many at once are the engine's: it decodes them on all processors, outside Python's lock, for
        # which the threads of a loader would wait on each other.
        if together is None and self._quickly(box, out) is not None:
            self.verify_there()
            return READ
        if self._files is not None:
            self._files.verify_files(box)
        try:
            begun = ts.array(out).write(handle[_slices(box)], batch=together)
        except (ValueError, OSError):
            with engine_errors(self._path):
                raise
        # Whoever waits for a batch of reads asks once whether the array was there.
        return ReadTransfer(begun, self._path, None if together is not None else self.verify_there)

    def read_boxes(self, boxes: BoxBatch) -> bool:
        """Read many boxes at once, without the engine; call `verify_there` afterwards.

        Every chunk is decoded once, whichever of the boxes it is in.

        Parameters
        ----------
        boxes
            The boxes, and where they go: of the array's dtype, or converted.

        Returns
        -------
        False where only the engine reads the array, or can say what is wrong: nothing in the boxes
        is of use then.

        Raises
        ------
        InvalidInputError
            If a box does not lie inside the array, or the dtype differs.
        """
        if self._closed:
            msg = f"{self._path} is closed"
            raise ModeError(msg)
        self._handle()
        facts = self._known()
        shape = np.asarray(facts.shape)
        dtype = facts.dtype if boxes.conversion is None else np.dtype(np.float32)
        if (boxes.low < 0).any() or (boxes.high > shape).any() or boxes.out.dtype != dtype:
            msg = f"{self._path}: boxes do not lie inside {facts.shape}, or are not {dtype}"
            raise InvalidInputError(msg)
        return self._reader is not None and read_batch(self._reader, boxes)

    def write(self, box: Box, values: NDArray[Any]) -> None:
        """Write a box.

        Raises
        ------
        ModeError
            If the array was opened for reading, or closed.
        InvalidInputError
            If shape or dtype differ: values are never cast silently.
        StorageError
            If the disk refuses.
        """
        if not self._writable:
            msg = f"{self._path} is open for reading"
            raise ModeError(msg)
        view = self._checked(box)[_slices(box)]
        if self.before_write is not None:
            self.before_write, told = None, self.before_write
            told()
        if values.shape != tuple(view.shape) or values.dtype != self.dtype:
            msg = (
                f"{self._path}: a box of {tuple(view.shape)} {self.dtype} was given "
                f"{values.shape} {values.dtype}; convert it explicitly"
            )
            raise InvalidInputError(msg)
        write_by_file(view, box, values, self.write_unit, self._path)

    def verify_there(self) -> None:
        """Refuse pixels that were read of an array that is gone, or another, since it was opened.

        The engine takes files that are not there for pixels that were never written: a level that
        another process removed while it was being read would be zeros, in part or all. Whoever
        removes an array begins with its metadata, so a look at them afterwards tells.

        Raises
        ------
        NotFoundError
            If the array was removed.
        FormatError
            If it was replaced.
        """
        if self._stamp is not None:
            verify_stamp(self._stamp, self._path)

    def close(self) -> None:
        """Refuse reads and writes from now on; shape and dtype stay known.

        For an array that is about to move: the engine takes files that are not where they were
        for pixels that were never written, and would read zeros.
        """
        self._closed = True

    def published_files(self) -> list[str]:
        """Return the files that it was published with, inside its directory.

        None are told where its group does not say.
        """
        layout = None if self._absent is None else known_layout(self.document)
        files = Inventory.of(str(self._path), layout, self._absent)
        return [] if files is None else list(files.files())

    def _known(self) -> ArrayFacts:
        facts = self._facts
        if facts is None:
            # Of what only the engine understands, the engine tells the same.
            facts = array_facts(self.document) or facts_of(self._handle())
            self._facts = facts
        return facts

    def _quickly(self, box: Box, out: NDArray[Any] | None = None) -> NDArray[Any] | None:
        """Read a box without the engine; None where only the engine can, or does it faster."""
        reader, facts = self._reader, self._facts
        if reader is None or facts is None:
            return None
        shape = [stop - start for start, stop in box]
        if math.prod(shape) * facts.dtype.itemsize > _QUICK_BYTES:
            return None
        target = np.empty(shape, facts.dtype) if out is None else out
        return target if reader.read_into(box, target) else None

    def _checked(self, box: Box) -> ts.TensorStore:
        if self._closed:
            # Before it is opened: its files may have moved, or gone.
            msg = f"{self._path} is closed"
            raise ModeError(msg)
        handle = self._handle()
        shape = self._known().shape
        inside = len(box) == len(shape)
        # Written for speed, as all on the way of a read: it runs once for every tile.
        for (start, stop), size in zip(box, shape):  # noqa: B905 - their number is asked for
            inside = inside and 0 <= start <= stop <= size
        if not inside:
            msg = f"{self._path}: box {box} does not lie inside {shape}"
            raise InvalidInputError(msg)
        return handle

    def _handle(self) -> ts.TensorStore:
        ENGINE.verify(self._path)
        if self._store is None:
            known = self._facts is not None
            # Before it is opened: what is replaced from here on is noticed.
            self._stamp = stamp_of(self._path)
            store = open_handle(self._path, self._options, writable=self._writable, modern=known)
            self._facts = self._verified(facts_of(store))
            keeping = self._options is not None and self._options.cache_bytes > 0
            if isinstance(self._path, Path) and not self._writable:
                path, document = str(self._path.resolve()), self.document
                if self._absent is not None:
                    self._files = Inventory.of(path, known_layout(document), self._absent)
                reader = None if keeping else ChunkReader.of(path, document)
                if reader is not None:
                    reader.inventory = self._files
                self._reader = reader
            # Last: another thread that sees the handle takes all the rest for known.
            self._store = store
        tally = current_tally()
        if tally is not None and tally.kept is not None and self._reader is None:
            return self._kept(self._store, tally.kept.limit)
        return self._store

    def _kept(self, store: ts.TensorStore, limit: int) -> ts.TensorStore:
        """Return a handle that keeps what the engine decodes, for whoever asks for that just now."""
        options = self._options or StorageOptions()
        if self._writable or options.cache_bytes:
            return store
        options = replace(options, cache_bytes=limit)
        found = self._keeping
        if found is None or found[0] != options:
            # Of two threads that do this at once both handles share what is kept.
            found = options, open_handle(self._path, options, writable=False, modern=False)
            self._verified(facts_of(found[1]))
            self._keeping = found
        return found[1]

    def _verified(self, found: ArrayFacts) -> ArrayFacts:
        """Return what the engine says, unless pixels were promised that are not there."""
        told = self._facts
        if told is not None and (told.shape, told.dtype) != (found.shape, found.dtype):
            msg = (
                f"{self._path} holds {found.shape} {found.dtype}, but was announced as "
                f"{told.shape} {told.dtype}: it was changed since, or by a program that did not "
                "change what its group says of it"
            )
            raise FormatError(msg)
        verify_chunk(found, self._path)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        place = self._path if isinstance(self._path, Place) else str(self._path)
        return _rebuild, (place, self._writable, self._facts, self._options, self._absent)

    def __repr__(self) -> str:
        return f"StoredArray({str(self._path)!r})"


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple([slice(start, stop) for start, stop in box])


def _rebuild(
    path: str | Place,
    writable: bool,  # noqa: FBT001 - pickle calls it by position
    facts: ArrayFacts | None,
    options: StorageOptions | None,
    absent: object = None,
) -> StoredArray:
    array = StoredArray(path, writable=writable, options=options, absent=absent)
    array._facts = facts  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - its own
    return array
