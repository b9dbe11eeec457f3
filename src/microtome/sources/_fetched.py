"""Pixels that a function fetches: what most formats come down to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.storage import READ, Box, Pending

__all__ = ["FetchedArray"]


class FetchedArray:
    """A `PixelArray` over a function that reads a box; called from several threads at once.

    Parameters
    ----------
    shape, dtype
        Of the pixels.
    chunks
        Smallest part that is decoded.
    fetch
        Returns the pixels of a box that lies inside; a view of memory is fine, it is copied.
    files
        The files that they are in, where these are not the one that was opened.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: Any,
        chunks: Sequence[int],
        fetch: Callable[[Box], NDArray[Any]],
        files: Sequence[Path] = (),
    ) -> None:
        self._shape = tuple(int(size) for size in shape)
        self._dtype = np.dtype(dtype).newbyteorder("=")
        self._chunks = tuple(min(int(a), b) for a, b in zip(chunks, self._shape, strict=True))
        self._fetch = fetch
        self._files = tuple(files)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel, in the machine's byte order."""
        return self._dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Smallest part that is decoded."""
        return self._chunks

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that its pixels are in; () for the one that was opened."""
        return self._files

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        return np.array(self._fetch(box), self._dtype)

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Read a box into a buffer."""
        out[...] = self._fetch(box)
        return READ
