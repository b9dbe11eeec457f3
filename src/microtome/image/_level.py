"""One resolution of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, ModeError
from microtome.storage import Box, Pending, StoredArray

__all__ = ["Level", "MemoryArray", "PixelArray"]


class PixelArray(Protocol):
    """Whatever pixels can be read from: an array on disk or in memory, a page of a TIFF.

    This is the one seam for foreign formats; a box always lies inside the array.
    """

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

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        ...

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Start reading a box into a buffer of its shape and of the array's dtype."""
        ...


class _Done:
    """A read that was finished at once."""

    __slots__ = ()

    def result(self, timeout: float | None = None) -> object:
        del timeout
        return None


DONE: Pending = _Done()


class MemoryArray:
    """An array in memory as a `PixelArray`.

    Parameters
    ----------
    array
        Anything numpy can view; not copied.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self._array.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """The whole array: nothing is decoded."""
        return self._array.shape

    def read(self, box: Box) -> NDArray[Any]:
        """Copy a box."""
        return self._array[tuple(slice(a, b) for a, b in box)].copy()

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Copy a box into `out`."""
        out[...] = self._array[tuple(slice(a, b) for a, b in box)]
        return DONE


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of an image: its pixels, and where they lie.

    Parameters
    ----------
    key
        Name of the level in the image.
    path
        Path of its array inside the image's directory; equal to the key where there is none.
    array
        The pixels.
    axes
        Names of the array's axes, one letter each.
    scale, translation
        Pixel size and centre of pixel 0, an entry an axis; micrometres where known, else pixels of
        the finest level.
    """

    key: str
    path: str
    array: PixelArray
    axes: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels, in the order of `axes`."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self.array.dtype

    @property
    def height(self) -> int:
        """Rows."""
        return self.shape[-2]

    @property
    def width(self) -> int:
        """Columns."""
        return self.shape[-1]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read like a numpy array: integers, slices without a step, an ellipsis."""
        box, drop = _box_of(index, self.shape)
        return self.array.read(box)[drop]

    def __setitem__(self, index: Any, values: Any) -> None:
        """Write like a numpy array; values are broadcast but never cast.

        Raises
        ------
        ModeError
            If the level's image is open for reading.
        InvalidInputError
            If the dtype differs.
        """
        if not isinstance(self.array, StoredArray):
            msg = f"level {self.key!r} is read-only"
            raise ModeError(msg)
        box, drop = _box_of(index, self.shape)
        shape = tuple(stop - start for start, stop in box)
        given: NDArray[Any] = np.asarray(values)
        # A lone number has no dtype of its own to respect, only a value that must fit.
        fits = given.ndim == 0 and given.astype(self.dtype) == given
        if given.dtype != self.dtype and not fits:
            msg = f"level {self.key!r} holds {self.dtype}, got {given.dtype}; convert it explicitly"
            raise InvalidInputError(msg)
        block = np.empty(shape, self.dtype)
        block[drop] = given
        self.array.write(box, block)


def _box_of(index: Any, shape: Sequence[int]) -> tuple[Box, tuple[Any, ...]]:
    """Turn a numpy index into a box, and the index that removes the axes of single integers."""
    parts: list[Any] = list(index) if isinstance(index, tuple) else [index]
    if parts.count(Ellipsis) > 1 or len(parts) - parts.count(Ellipsis) > len(shape):
        msg = f"index {index!r} does not fit an array of shape {tuple(shape)}"
        raise InvalidInputError(msg)
    if Ellipsis not in parts:
        parts.append(Ellipsis)
    at = parts.index(Ellipsis)
    parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    box: list[tuple[int, int]] = []
    drop: list[Any] = []
    for part, size in zip(parts, shape, strict=True):
        if isinstance(part, slice):
            start, stop, step = part.indices(size)
            if step != 1:
                msg = f"a level is read without steps, got {part}; slice the result"
                raise InvalidInputError(msg)
            box.append((start, max(start, stop)))
            drop.append(slice(None))
        else:
            position = int(part)
            if not -size <= position < size:
                msg = f"index {position} is outside an axis of {size} pixels"
                raise InvalidInputError(msg)
            position %= size
            box.append((position, position + 1))
            drop.append(0)
    return tuple(box), tuple(drop)
