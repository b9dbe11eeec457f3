"""The engine's handles of arrays: opened, made, and asked what they know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from microtome.errors import NotFoundError

from ._engine import ENGINE, engine_errors
from ._facts import ArrayFacts
from ._options import StorageOptions
from ._remote import Place

__all__ = ["create_handle", "facts_of", "open_handle"]


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


def _kvstore(path: Path | Place) -> dict[str, Any]:
    if isinstance(path, Place):
        return path.spec
    return {"driver": "file", "path": f"{path.resolve()}/"}


def _spec(path: Path | Place, options: StorageOptions | None, *, modern: bool) -> dict[str, Any]:
    """Return how the engine opens an array; a `modern` one is known to be v3."""
    for name, driver in {"zarr.json": "zarr3", ".zarray": "zarr"}.items():
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
