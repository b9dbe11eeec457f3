"""One resolution of an image."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, ModeError, OutOfRangeError
from microtome.storage import READ, Box, Pending

__all__ = ["Level", "MemoryArray", "PixelArray", "ReadOnly"]


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
        return READ


class ReadOnly:
    """A `PixelArray` whose pixels are not to be written.

    Parameters
    ----------
    array
        The pixels.
    """

    def __init__(self, array: PixelArray) -> None:
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
        """Smallest part that is decoded."""
        return self._array.chunks

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        return self._array.read(box)

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Start reading a box into a buffer."""
        return self._array.read_into(box, out)


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

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.axes)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001 - numpy's
        """Read all pixels, for numpy; there is no view of them, so `copy=False` is refused."""
        if copy is False:
            msg = f"level {self.key!r} cannot be seen as an array without reading it"
            raise InvalidInputError(msg)
        pixels = self[...]
        return pixels if dtype is None else pixels.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read like a numpy array: integers, slices without a step, an ellipsis."""
        box, drop = _box_of(index, self.shape)
        return read_box(self.array, box)[drop]

    def __setitem__(self, index: Any, values: Any) -> None:
        """Write like a numpy array; values are broadcast but never cast.

        Raises
        ------
        ModeError
            If the level's image is open for reading.
        InvalidInputError
            If the dtype differs.
        """
        write = getattr(self.array, "write", None)
        if write is None:
            msg = (
                f"level {self.key!r} is read-only; an OME-Zarr image is written where it is opened "
                "with mode='w'"
            )
            raise ModeError(msg)
        box, drop = _box_of(index, self.shape)
        given = as_array(values, f"values of level {self.key!r}")
        if given.dtype != self.dtype and not _fits(given, self.dtype):
            msg = (
                f"level {self.key!r} holds {self.dtype}, got "
                f"{f'{values} ' if given.ndim == 0 else ''}{given.dtype}; convert it explicitly"
            )
            raise InvalidInputError(msg)
        shape = tuple(stop - start for start, stop in box)
        if given.dtype == self.dtype and given.shape == shape:
            write(box, given)  # as it is: a slide that is written whole is not copied first
            return
        block = np.empty(shape, self.dtype)
        try:
            block[drop] = given
        except ValueError as error:
            msg = f"level {self.key!r}: {block[drop].shape} pixels were given {given.shape} values"
            raise InvalidInputError(msg) from error
        write(box, block)

    def read(self, coords: Any = ()) -> NDArray[Any]:
        """Read pixels, all by default.

        Parameters
        ----------
        coords
            An integer or a half-open slice an axis, in the order of `axes`; axes that are not
            named are read whole. (In tiledbsoma the ends of slices are inclusive.)
        """
        return self[coords]

    def write(self, coords: Any, values: Any) -> None:
        """Write pixels.

        Parameters
        ----------
        coords
            As for `read`; ``()`` for all pixels.
        values
            A number, or an array that fits: of numpy, torch, or anything with
            `__array_interface__` or dlpack. It is broadcast but never cast.

        Raises
        ------
        ModeError
            If the level's image is open for reading.
        InvalidInputError
            If shape or dtype differ.
        """
        self[coords] = values


def read_box(array: PixelArray, box: Box) -> NDArray[Any]:
    """Read a box of an array, which may be empty: then the array, of whatever format, is not asked."""
    for start, stop in box:
        if start >= stop:
            return np.empty([stop - start for start, stop in box], array.dtype)
    return array.read(box)


def as_array(values: object, what: str) -> NDArray[Any]:
    """View what another library made as a numpy array.

    Parameters
    ----------
    values
        Anything that numpy takes, or that speaks dlpack.
    what
        What it is, for the message.

    Raises
    ------
    InvalidInputError
        If it is on another device, is part of a gradient, or is no array.
    """
    foreign = hasattr(values, "__dlpack__") and not hasattr(values, "__array__")
    try:
        return np.from_dlpack(values) if foreign else np.asarray(values)  # pyright: ignore[reportArgumentType] - asked above
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        msg = f"{what} cannot be taken as a numpy array: {error}"
        raise InvalidInputError(msg) from error


def as_index(value: object) -> int | None:
    """Return an integer of any library as Python's own, None for anything else.

    Truth values are none: where one is given for a number, a mask was taken for indices.
    """
    if type(value) is int:  # first, since it is asked for every read
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # an array of several, which has the method all the same
        return None


def _fits(given: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether this is a lone number: it has no type to respect, only a value that must fit."""
    if given.ndim or given.dtype.kind not in "biuf":
        return False
    # A float has fewer digits than the number typed, never another value.
    with np.errstate(invalid="ignore"):  # NaN and what is too large come out as something else
        return dtype.kind == "f" or bool(given.astype(dtype) == given)


def _box_of(index: Any, shape: Sequence[int]) -> tuple[Box, tuple[Any, ...]]:
    """Turn a numpy index into a box, and the index that removes the axes of single integers."""
    parts: list[Any] = list(index) if isinstance(index, tuple) else [index]
    dots = [place for place, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1 or len(parts) - len(dots) > len(shape):
        msg = f"index {index!r} does not fit an array of shape {tuple(shape)}"
        raise InvalidInputError(msg)
    at = dots[0] if dots else len(parts)
    parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + len(dots))
    pairs = [_interval(part, size) for part, size in zip(parts, shape, strict=True)]
    return tuple(interval for interval, _ in pairs), tuple(drop for _, drop in pairs)


def _interval(part: Any, size: int) -> tuple[tuple[int, int], Any]:
    if isinstance(part, slice):
        start, stop, step = part.indices(size)
        if step != 1:
            msg = f"a level is read and written without steps, got {part}"
            raise InvalidInputError(msg)
        return (start, max(start, stop)), slice(None)
    position = as_index(part)
    if position is None:
        msg = f"a level is indexed by integers, slices and an ellipsis, got {part!r}"
        raise InvalidInputError(msg)
    if not -size <= position < size:
        # An IndexError, by which Python also knows where a loop over the level ends.
        msg = f"index {position} is outside an axis of {size} pixels"
        raise OutOfRangeError(msg)
    return (position % size, position % size + 1), 0
