"""The engine's handles of arrays: opened, made, and asked what they know."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from microtome.errors import FormatError, NotFoundError

from ._engine import ENGINE, engine_errors
from ._facts import ArrayFacts
from ._options import StorageOptions
from ._remote import Place

__all__ = [
    "FORKED",
    "Stamp",
    "create_handle",
    "facts_of",
    "open_handle",
    "stamp_of",
    "verify_stamp",
]

Stamp = tuple[str, int, int]
"""Which metadata file an array had when it was opened: its path, number and time."""

FORKED: list[bool] = []
"""Empty in a process that was not forked from another: it need not ask whose the engine is."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: FORKED.append(True))

_DRIVERS = {"zarr.json": "zarr3", ".zarray": "zarr"}


def open_handle(
    path: Path | Place, options: StorageOptions | None, *, writable: bool, modern: bool
) -> ts.TensorStore:
    """Open an array.

    Parameters
    ----------
    path
        Its directory, or its place in a store.
    options
        How it is read.
    writable
        Whether it will be written.
    modern
        Whether it is known to be Zarr v3, which saves looking.

    Raises
    ------
    NotFoundError
        If there is no array.
    FormatError
        If it is none that can be read.
    """
    with engine_errors(path):
        return ts.open(
            _spec(path, options, modern=modern),
            open=True,
            read=True,
            write=writable,
            context=ENGINE.context(path, options),
        ).result()


def create_handle(
    path: Path | Place, options: StorageOptions | None, document: dict[str, Any]
) -> None:
    """Make an array from its metadata document.

    Raises
    ------
    ExistsError
        If there is an array.
    StorageError
        If the disk refuses.
    """
    spec = {"driver": "zarr3", "kvstore": _kvstore(path), "metadata": document}
    with engine_errors(path):
        ts.open(spec, create=True, open=False, context=ENGINE.context(path, options)).result()


def facts_of(store: ts.TensorStore) -> ArrayFacts:
    """Return what the engine knows of an array."""
    shape, layout = tuple(store.shape), store.chunk_layout

    def whole(unit: tuple[int | None, ...] | None) -> tuple[int, ...]:
        # A grid without a size along an axis is not cut there.
        return tuple(
            s if n is None else n for n, s in zip(unit or (None,) * len(shape), shape, strict=True)
        )

    return ArrayFacts(
        shape,
        np.dtype(store.dtype.numpy_dtype),
        whole(layout.read_chunk.shape),
        whole(layout.write_chunk.shape),
    )


def stamp_of(path: Path | Place) -> Stamp | None:
    """Return which metadata file an array has now; None where nobody could tell it from another."""
    if isinstance(path, Path):
        for name in _DRIVERS:
            with contextlib.suppress(OSError):
                return _stamp(f"{path}/{name}")
    return None


def verify_stamp(stamp: Stamp, path: Path | Place) -> None:
    """Refuse an array whose metadata file is not the one that it had.

    Raises
    ------
    NotFoundError
        If there is none any more.
    FormatError
        If there is another.
    """
    try:
        now = _stamp(stamp[0])
    except OSError as error:
        msg = f"{path} was removed since it was opened; reopen the image"
        raise NotFoundError(msg) from error
    if now != stamp:
        msg = f"{path} was replaced since it was opened; reopen the image"
        raise FormatError(msg)


def _stamp(file: str) -> Stamp:
    status = os.stat(file)  # noqa: PTH116 - after every read: a Path costs more than the call
    return file, status.st_ino, status.st_mtime_ns


def _kvstore(path: Path | Place) -> dict[str, Any]:
    if isinstance(path, Place):
        return path.spec
    return {"driver": "file", "path": f"{path.resolve()}/"}


def _spec(path: Path | Place, options: StorageOptions | None, *, modern: bool) -> dict[str, Any]:
    """Return how the engine opens an array; a `modern` one is known to be v3."""
    for name, driver in _DRIVERS.items():
        if modern or (
            path.read(name) is not None if isinstance(path, Place) else (path / name).is_file()
        ):
            # Where pixels are kept, the store is asked whether they still hold once, on opening.
            keeping = options is not None and options.cache_bytes > 0
            return {"driver": driver, "kvstore": _kvstore(path)} | (
                {"recheck_cached_data": "open"} if keeping else {}
            )
    msg = f"{path} holds no Zarr array (neither zarr.json nor .zarray)"
    raise NotFoundError(msg)
