"""An array in a store whose chunks are kept on disk: read as any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, ModeError

from ._array import Box, Pending, ReadBatch, StoredArray
from ._batches import BoxBatch, read_batch
from ._facts import array_facts
from ._options import StorageOptions
from ._plans import ChunkPlan, plan_chunks
from ._remote import Place
from ._remote_chunks import RemoteChunks
from ._transfers import READ

__all__ = ["CachedArray", "open_array_at"]


class CachedArray(StoredArray):
    """An array in a store, read through a cache on disk; parameters and methods as `StoredArray`.

    Layouts that only the engine knows are read by it from the store, and not kept.
    """

    _looked = False
    _remote: RemoteChunks | None = None

    def _chunks_there(self) -> RemoteChunks | None:
        if self._closed:
            msg = f"{self._path} is closed"
            raise ModeError(msg)
        if not self._looked:
            document = self.document
            found = array_facts(document)
            if found is not None:
                self._facts = self._verified(found)
            self._remote = RemoteChunks.of(cast("Place", self._path), document)
            # Last: another thread that sees it takes the rest for known.
            self._looked = True
        return self._remote

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
        """Read a box into `out`, which is there when this returns; see `StoredArray.read_into`."""
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
        self._fill(remote, box, out)
        return READ

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
        plan = plan_chunks(boxes.low, boxes.high, boxes.target, boxes.strides, **remote.sizes)
        # Where it returns False, what it fetched is on disk for the reads that come instead.
        fetched = remote.fetched(plan)
        return fetched.is_decoded_here and read_batch(fetched, boxes)

    def _fill(self, remote: RemoteChunks, box: Box, out: NDArray[Any]) -> None:
        if not out.size:
            return
        fetched = remote.fetched(_plan_of(box, remote))
        if fetched.is_decoded_here and fetched.read_into(box, out):
            return
        # What only the engine decodes, and what it says is damaged.
        out[...] = remote.read_by_engine(fetched, box)

    def _verify_inside(self, box: Box) -> None:
        shape = self.shape
        if len(box) != len(shape) or not all(
            0 <= start <= stop <= size for (start, stop), size in zip(box, shape, strict=True)
        ):
            msg = f"{self._path}: box {box} does not lie inside {shape}"
            raise InvalidInputError(msg)

    def __reduce__(self) -> tuple[Any, ...]:
        # Shape and type are asked for again, with the document that every process reads once.
        return CachedArray, (self._path,)


def _plan_of(box: Box, remote: RemoteChunks) -> ChunkPlan:
    low, high = (np.asarray([part], np.int64) for part in zip(*box, strict=True))
    nowhere = np.zeros(1, np.int64)
    return plan_chunks(low, high, nowhere, (0,) * len(box), **remote.sizes)


def open_array_at(
    place: Place,
    *,
    document: Mapping[str, Any] | None = None,
    options: StorageOptions | None = None,
) -> StoredArray:
    """Open an array in a store for reading: through the cache on disk, where its options name one.

    Parameters
    ----------
    place
        The array.
    document
        As of `StoredArray`.
    options
        How it is read; by default as its place says.
    """
    chosen = place.options if options is None else options
    if chosen.disk_cache is None or not place.is_remote:
        return StoredArray(place, document=document, options=options)
    return CachedArray(Place(place.uri, place.store, chosen), document=document, options=options)
