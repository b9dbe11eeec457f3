"""Arrays of an image with a history, which only zarr-python reads and writes."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import (
    FormatError,
    InvalidInputError,
    MicrotomeError,
    ModeError,
    NotFoundError,
)

from ._array import Box, Pending
from ._facts import ArrayFacts, array_facts
from ._repository import Workspace
from ._transfers import READ

if TYPE_CHECKING:
    import zarr

__all__ = ["VersionedArray"]


class VersionedArray:
    """One array of an Icechunk repository.

    Parameters
    ----------
    workspace
        The session that it is read and written in.
    path
        Path of the array in the group.
    writable
        Whether `write` is allowed.

    Raises
    ------
    NotFoundError
        If there is no array.
    """

    def __init__(self, workspace: Workspace, path: str, *, writable: bool = False) -> None:
        self._workspace = workspace
        self._path = path
        self._writable = writable
        self._closed = False
        self._opened: tuple[int, zarr.Array[Any]] | None = None
        # Files are written whole: what two threads write to parts of one is written in turn.
        self._parts = threading.Lock()
        document = workspace.document(path)
        if document is None or document.get("node_type") != "array":
            msg = f"{self} holds no Zarr array"
            raise NotFoundError(msg)
        self._facts = array_facts(document) or self._facts_of(self._handle())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels."""
        return self._facts.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel, in this machine's byte order."""
        return self._facts.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Smallest part that is decoded."""
        return self._facts.chunks

    @property
    def write_unit(self) -> tuple[int, ...]:
        """Smallest part that is written: the shard, or the chunk where there are none."""
        return self._facts.write_unit

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of a shard, or None where the array is not sharded."""
        return None if self.write_unit == self.chunks else self.write_unit

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box that lies inside the array.

        Raises
        ------
        InvalidInputError
            If it does not.
        FormatError
            If a chunk is damaged or missing; the message names the array.
        ModeError
            If the array is closed.
        """
        shape = self._verified(box)
        if 0 in shape:
            return np.empty(shape, self.dtype)
        with self._errors():
            pixels = self._handle()[_slices(box)]
        return np.asarray(pixels, self.dtype)

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Read a box into a buffer of its shape and of the array's dtype; it is there at once.

        Raises
        ------
        InvalidInputError
            If shape or dtype differ.
        """
        shape = self._verified(box)
        if out.shape != shape or out.dtype != self.dtype or not out.flags.writeable:
            msg = (
                f"{self}: a box of {shape} {self.dtype} cannot be read into {out.shape} "
                f"{out.dtype}{'' if out.flags.writeable else ', read-only'}"
            )
            raise InvalidInputError(msg)
        out[...] = self.read(box)
        return READ

    def write(self, box: Box, values: NDArray[Any]) -> None:
        """Write a box; others see it when it is committed.

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
            msg = f"{self} is open for reading"
            raise ModeError(msg)
        shape = self._verified(box)
        if values.shape != shape or values.dtype != self.dtype:
            msg = (
                f"{self}: a box of {shape} {self.dtype} was given {values.shape} {values.dtype}; "
                "convert it explicitly"
            )
            raise InvalidInputError(msg)
        if 0 in shape:
            return
        if self._is_whole(box):
            self._write(box, values)
        else:
            with self._parts:
                self._write(box, values)

    def close(self) -> None:
        """Refuse reads and writes from now on; shape and dtype stay known."""
        self._closed = True

    def _write(self, box: Box, values: NDArray[Any]) -> None:
        with self._errors(), self._workspace.writing():
            self._handle()[_slices(box)] = values

    def _is_whole(self, box: Box) -> bool:
        return all(
            start % unit == 0 and (stop % unit == 0 or stop == size)
            for (start, stop), unit, size in zip(box, self.write_unit, self.shape, strict=True)
        )

    def _verified(self, box: Box) -> tuple[int, ...]:
        """Return the shape of a box that lies inside."""
        if self._closed:
            msg = f"{self} is closed"
            raise ModeError(msg)
        if len(box) != len(self.shape) or not all(
            0 <= start <= stop <= size for (start, stop), size in zip(box, self.shape, strict=True)
        ):
            msg = f"{self}: box {box} does not lie inside {self.shape}"
            raise InvalidInputError(msg)
        return tuple(stop - start for start, stop in box)

    def _handle(self) -> zarr.Array[Any]:
        """Return zarr-python's array, of the session that is open now."""
        import zarr

        number, store = self._workspace.number, self._workspace.store
        if self._opened is None or self._opened[0] != number:
            mode = "r+" if self._writable else "r"
            array = zarr.open_array(store, path=self._path, mode=mode, zarr_format=3)
            self._opened = number, array
        return self._opened[1]

    @staticmethod
    def _facts_of(array: zarr.Array[Any]) -> ArrayFacts:
        """Return what zarr-python knows, of a document that says more than we understand."""
        unit: Sequence[int] = array.shards or array.chunks
        return ArrayFacts(array.shape, np.dtype(array.dtype), array.chunks, tuple(unit))

    @contextmanager
    def _errors(self) -> Generator[None]:
        """Turn what Icechunk, zarr-python and its codecs raise into our errors."""
        try:
            with self._workspace.errors(self):
                yield
        except (MicrotomeError, MemoryError):
            raise
        except FileNotFoundError as error:
            msg = f"{self} is not there any more"
            raise NotFoundError(msg) from error
        except Exception as error:
            # Each codec has its own: blosc's is a RuntimeError, that of the checksum a ValueError.
            msg = f"{self} is damaged or cannot be read: {error}"
            raise FormatError(msg) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return VersionedArray, (self._workspace, self._path)

    def __str__(self) -> str:
        return f"{self._workspace.where}/{self._path}"

    def __repr__(self) -> str:
        return f"VersionedArray({str(self)!r})"


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)
