"""Levels of a SOMA image as arrays of ours, and what tiledbsoma refuses in our words."""

# tiledbsoma needs older releases of others in the environment of the checks; see `make bench-peers`.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import (
    DependencyError,
    FormatError,
    MicrotomeError,
    NotFoundError,
    StorageError,
)
from microtome.storage import READ, Box, Pending

__all__ = ["SomaArray", "SomaGroup", "imported_tiledbsoma", "inclusive", "soma_errors"]


class SomaGroup:
    """A SOMA image, opened when it is first needed; it travels as its address alone."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._opened: Any = None

    def opened(self) -> Any:
        """Return the open image; its arrays live as long as it does."""
        with self._lock:
            if self._opened is None:
                self._opened = imported_tiledbsoma().MultiscaleImage.open(self.uri)
            return self._opened

    def __reduce__(self) -> Any:
        return SomaGroup, (self.uri,)


@dataclass(frozen=True, slots=True)
class SomaArray:
    """A level as a `PixelArray`.

    Parameters
    ----------
    group, key
        Which.
    order
        The place in the array of each axis of the image.
    shape, dtype, chunks
        Of the image, in the order of its axes.
    """

    group: SomaGroup
    key: str
    order: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    @classmethod
    def of(cls, group: SomaGroup, key: str, order: tuple[int, ...]) -> SomaArray:
        array = group.opened()[key]
        tiles = json.loads(array.schema_config_options().dims)
        kind = np.dtype(array.schema.field("soma_data").type.to_pandas_dtype())
        return cls(
            group,
            key,
            order,
            tuple(int(array.shape[place]) for place in order),
            kind,
            tuple(
                min(int(tiles[f"soma_dim_{place}"]["tile"]), int(array.shape[place]))
                for place in order
            ),
        )

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        out = np.empty([stop - start for start, stop in box], self.dtype)
        self.read_into(box, out)
        return out

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Read a box into `out`."""
        if not out.size:
            return READ  # TileDB has no empty slice
        stored = [box[self.order.index(place)] for place in range(len(box))]
        with soma_errors(self.group.uri):
            found = self.group.opened()[self.key].read(inclusive(tuple(stored))).to_numpy()
        out[...] = found.transpose(self.order)
        return READ


@contextmanager
def soma_errors(place: str, *, writing: bool = False) -> Generator[None]:
    """Say in our words what tiledbsoma refuses."""
    soma = imported_tiledbsoma()
    try:
        yield
    except soma.DoesNotExistError as error:
        msg = f"there is no SOMA MultiscaleImage at {place}: {error}"
        raise NotFoundError(msg) from error
    except MicrotomeError:
        raise
    except (soma.SOMAError, KeyError) as error:
        if writing:
            msg = f"tiledbsoma could not write {place}: {error}"
            raise StorageError(msg) from error
        msg = f"{place} is no SOMA MultiscaleImage that can be read: {error}"
        raise FormatError(msg) from error


def imported_tiledbsoma() -> Any:
    try:
        import tiledbsoma as soma
    except ImportError as error:
        msg = "SOMA needs tiledbsoma, which is not installed: pip install 'microtome[soma]'"
        raise DependencyError(msg) from error
    return soma


def inclusive(box: Box) -> tuple[slice, ...]:
    """Return a box as SOMA has it: its slices include their ends."""
    return tuple(slice(start, stop - 1) for start, stop in box)
