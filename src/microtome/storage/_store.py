"""What an image needs of the place that it lies in: a group's attributes, and arrays in it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._array import Box, Pending
from ._layout import Layout

__all__ = ["ImageStore", "WritableArray"]


class WritableArray(Protocol):
    """An array in a store that can be read and, where the store allows it, written."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        ...

    @property
    def chunks(self) -> tuple[int, ...]:
        """Smallest part that is decoded."""
        ...

    @property
    def write_unit(self) -> tuple[int, ...]:
        """Smallest part that is written."""
        ...

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box that lies inside the array."""
        ...

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Start reading a box into a buffer of its shape and of the array's dtype."""
        ...

    def write(self, box: Box, values: NDArray[Any]) -> None:
        """Write a box; values of another shape or dtype are refused."""
        ...

    def close(self) -> None:
        """Refuse reads and writes from now on; shape and dtype stay known."""
        ...


class ImageStore(Protocol):
    """A Zarr group that an image lies in.

    A store that was begun for a new image shows nothing of it before `close`; one that was opened
    shows every change when `changing` ends, or, where it has a history, when it is committed.
    """

    @property
    def uri(self) -> str:
        """Where the image is."""
        ...

    @property
    def writable(self) -> bool:
        """Whether anything may be changed."""
        ...

    def attributes(self) -> dict[str, Any]:
        """Return the group's attributes as they are now."""
        ...

    def changing(
        self, *, adding: Sequence[str] = (), removing: Sequence[str] = ()
    ) -> AbstractContextManager[dict[str, Any]]:
        """Give the attributes as they are now, to be changed in place.

        They are stored in one step when the block ends without an error, and not at all
        otherwise. No other writer changes them meanwhile.

        Parameters
        ----------
        adding
            Arrays that `create_array` made and that the new attributes name: from here on they are
            part of the group. Others stay invisible, and are dropped by `close`.
        removing
            Arrays that the new attributes no longer name; they are removed with all in them.
        """
        ...

    def open_array(self, path: str) -> WritableArray:
        """Open an array of the group, for writing too where the store is writable."""
        ...

    def create_array(
        self, path: str, *, shape: Sequence[int], dtype: DTypeLike, layout: Layout, axes: str
    ) -> WritableArray:
        """Create an array that reads as zeros; it is part of the group after `changing`.

        Raises
        ------
        ExistsError
            If something is at `path`.
        """
        ...

    def holds(self, path: str) -> bool:
        """Whether there is anything at a path inside the group."""
        ...

    def settle(self, path: str) -> str:
        """Return where an array that was begun will be, asked inside `changing` before it is added.

        That is where it was begun, unless another writer has taken that place meanwhile.
        """
        ...

    def forget(self, path: str) -> None:
        """Drop an array that `create_array` made, if it is no part of the group yet."""
        ...

    def close(self) -> None:
        """End writing, and make what was written appear where it does not already."""
        ...

    def discard(self) -> None:
        """End writing, and drop what does not appear yet."""
        ...
