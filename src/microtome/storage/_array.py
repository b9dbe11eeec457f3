"""Arrays on disk: the only place that knows the array engine (TensorStore).

TensorStore reads and writes Zarr v2 and v3 with its own C++ threads, decodes inside shards, and
copies straight into a given buffer; zarr-python, the reference implementation, needs 5 to 25
times the CPU for the same small reads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorstore as ts
from numpy.typing import DTypeLike, NDArray

from microtome.errors import (
    FormatError,
    InvalidInputError,
    MicrotomeError,
    ModeError,
    NotFoundError,
    StorageError,
)

from ._layout import Layout, codec_chain

__all__ = ["Box", "Pending", "StoredArray", "create_array", "open_array"]

Box = tuple[tuple[int, int], ...]
"""Half-open interval an axis, in the order of the array's axes."""


class Pending(Protocol):
    """A read that is under way; `result` waits for it and raises what went wrong."""

    def result(self, timeout: float | None = None) -> object: ...


class StoredArray:
    """One array on disk, opened when first touched.

    Not opened at construction because a cohort holds thousands, and because the engine's threads
    do not survive a fork: a handle must be made in the process that uses it.

    Parameters
    ----------
    path
        Directory of the array.
    writable
        Whether `write` is allowed.
    """

    def __init__(self, path: str | os.PathLike[str], *, writable: bool = False) -> None:
        self._path = Path(path)
        self._writable = writable
        self._store: Any = None
        self._pid = -1

    @property
    def path(self) -> Path:
        """Directory of the array."""
        return self._path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels."""
        return tuple(self._handle().shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return np.dtype(self._handle().dtype.numpy_dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Smallest part that is decoded."""
        return tuple(self._handle().chunk_layout.read_chunk.shape)

    @property
    def write_unit(self) -> tuple[int, ...]:
        """Smallest part that is written: the shard, or the chunk where there are none."""
        return tuple(self._handle().chunk_layout.write_chunk.shape)

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
        with _translated(self._path):
            return np.asarray(self._view(box).read().result())

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Start reading a box into `out` and return at once.

        Parameters
        ----------
        box
            Half-open interval an axis, inside the array.
        out
            Buffer of the box's shape and the array's dtype; need not be contiguous.
        """
        with _translated(self._path):
            target = ts.array(out)
            return _Transfer(target[...].write(self._view(box)), self._path)

    def write(self, box: Box, values: NDArray[Any]) -> None:
        """Write a box.

        Raises
        ------
        ModeError
            If the array was opened for reading.
        InvalidInputError
            If shape or dtype differ: values are never cast silently.
        """
        if not self._writable:
            msg = f"{self._path} is open for reading"
            raise ModeError(msg)
        shape = tuple(stop - start for start, stop in box)
        if values.shape != shape or values.dtype != self.dtype:
            msg = (
                f"{self._path}: a box of {shape} {self.dtype} was given {values.shape} "
                f"{values.dtype}; convert it explicitly"
            )
            raise InvalidInputError(msg)
        with _translated(self._path):
            self._view(box).write(values).result()

    def _view(self, box: Box) -> Any:
        shape = self._handle().shape
        if len(box) != len(shape) or any(
            not 0 <= start <= stop <= size for (start, stop), size in zip(box, shape, strict=True)
        ):
            msg = f"{self._path}: box {box} does not lie inside {tuple(shape)}"
            raise InvalidInputError(msg)
        return self._handle()[tuple(slice(start, stop) for start, stop in box)]

    def _handle(self) -> Any:
        if self._store is None:
            with _translated(self._path):
                self._store = ts.open(
                    _spec(self._path), open=True, read=True, write=self._writable, context=_context()
                ).result()
            self._pid = os.getpid()
        elif self._pid != os.getpid():
            msg = (
                f"{self._path} was opened in process {self._pid} and used in {os.getpid()}: the "
                "array engine does not survive a fork. Start workers with the 'spawn' or "
                "'forkserver' method, or use microtome.TileLoader, which needs no workers"
            )
            raise ModeError(msg)
        return self._store

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (str(self._path), self._writable)

    def __repr__(self) -> str:
        return f"StoredArray({str(self._path)!r})"


class _Transfer:
    """A TensorStore future whose errors are ours."""

    __slots__ = ("_future", "_path")

    def __init__(self, future: Any, path: Path) -> None:
        self._future = future
        self._path = path

    def result(self, timeout: float | None = None) -> object:
        with _translated(self._path):
            return self._future.result(timeout)


def create_array(
    path: str | os.PathLike[str],
    *,
    shape: Sequence[int],
    dtype: DTypeLike,
    layout: Layout,
    axes: str,
) -> StoredArray:
    """Create an empty Zarr v3 array; unwritten pixels read as 0.

    Parameters
    ----------
    path
        Directory to create.
    shape
        Shape in pixels, every size positive.
    dtype
        Type of a pixel.
    layout
        Chunks, shards and codec; shards are shrunk to what the shape can fill.
    axes
        Names of the axes, stored as the array's dimension names.

    Raises
    ------
    InvalidInputError
        If a size is not positive or ranks differ.
    StorageError
        If the disk refuses.
    """
    if len(shape) != len(axes) or len(shape) != len(layout.chunk) or min(shape, default=0) < 1:
        msg = f"{path}: cannot create an array of shape {tuple(shape)} over axes {axes!r} in chunks {layout.chunk}"
        raise InvalidInputError(msg)
    fitted = layout.fitted(shape)
    chain = codec_chain(fitted.codec, dtype)
    if fitted.shard is not None:
        chain = [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": fitted.chunk,
                    "codecs": chain,
                    "index_codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "crc32c"},
                    ],
                    "index_location": "end",
                },
            }
        ]
    metadata: dict[str, object] = {
        "shape": list(shape),
        "data_type": np.dtype(dtype).name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": list(fitted.write_unit)},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": chain,
        "dimension_names": list(axes),
        "fill_value": False if np.dtype(dtype) == np.bool_ else 0,
    }
    spec = {"driver": "zarr3", "kvstore": _kvstore(Path(path)), "metadata": metadata}
    with _translated(Path(path)):
        ts.open(spec, create=True, open=False, context=_context()).result()
    return StoredArray(path, writable=True)


def open_array(path: str | os.PathLike[str], *, writable: bool = False) -> StoredArray:
    """Open a Zarr v2 or v3 array; parameters as for `StoredArray`."""
    return StoredArray(path, writable=writable)


def _rebuild(path: str, writable: bool) -> StoredArray:  # noqa: FBT001 - pickle calls it by position
    return StoredArray(path, writable=writable)


def _kvstore(path: Path) -> dict[str, str]:
    return {"driver": "file", "path": f"{path.resolve()}/"}


def _spec(path: Path) -> dict[str, object]:
    if (path / "zarr.json").is_file():
        driver = "zarr3"
    elif (path / ".zarray").is_file():
        driver = "zarr"
    else:
        msg = f"{path} holds no Zarr array (neither zarr.json nor .zarray)"
        raise NotFoundError(msg)
    return {"driver": driver, "kvstore": _kvstore(path)}


_CONTEXT: dict[int, Any] = {}


def _context() -> Any:
    # One per process: a context that a parent used must not be touched after a fork.
    pid = os.getpid()
    if pid not in _CONTEXT:
        # No cache of decoded chunks: readers keep what they need, memory stays bounded.
        _CONTEXT[pid] = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
    return _CONTEXT[pid]


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn the engine's errors, all ValueErrors with a status word, into ours."""
    try:
        yield
    except MicrotomeError:
        raise
    except (ValueError, OSError) as error:
        text = str(error)
        status, _, rest = text.partition(":")
        reason = rest.split("[", 1)[0].strip() or text
        if status == "NOT_FOUND":
            msg = f"{path}: {reason}"
            raise NotFoundError(msg) from error
        if status in {"DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "OUT_OF_RANGE"}:
            msg = f"{path} is damaged or not an array that can be read: {reason}"
            raise FormatError(msg) from error
        msg = f"{path}: {reason}"
        raise StorageError(msg) from error


def array_metadata(path: Path) -> dict[str, Any]:
    """Return the parsed metadata document of an array, for `microtome info`."""
    for name in ("zarr.json", ".zarray"):
        if (path / name).is_file():
            return dict(json.loads((path / name).read_text()))
    msg = f"{path} holds no Zarr array"
    raise NotFoundError(msg)
