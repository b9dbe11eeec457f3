"""Image stacks: one array of samples, with its axes in any order, that windows are cut from.

A `MultiscaleImage` knows levels and where they lie. A stack is less, so that anybody can write one:
samples of one shape, and a function that cuts a window out of one of them (CAREamics' `ImageStack`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.coordinates import Mpp
from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.storage import Box, Pending

from ._level import Level, PixelArray
from ._window import read_window

__all__ = ["STACK_AXES", "ArrayStack", "ImageStack", "stack_axes"]

STACK_AXES = "sctzyx"
"""Letters of a stack's axes: samples, channels, time points, planes, rows, columns."""


@runtime_checkable
class ImageStack(Protocol):
    """What windows can be cut from, for formats that microtome does not know.

    Time points and samples are one axis, S, the samples outside: sample ``s``, time ``t`` is number
    ``s * T + t``. A stack may also have `mpp` (an `Mpp`) and `channel_names`.
    """

    @property
    def source(self) -> str:
        """Where the pixels are from: a path, or ``"array"``."""
        ...

    @property
    def data_shape(self) -> Sequence[int]:
        """Shape of all pixels in SC(Z)YX."""
        ...

    @property
    def data_dtype(self) -> DTypeLike:
        """Type of the stored pixels, in which `extract_patch` returns them."""
        ...

    @property
    def original_data_shape(self) -> Sequence[int]:
        """Shape of the pixels as they are stored."""
        ...

    @property
    def original_axes(self) -> str:
        """Axes of the stored pixels, one letter of SCTZYX each."""
        ...

    def extract_patch(
        self,
        sample_idx: int,
        channels: Sequence[int] | None,
        coords: Sequence[int],
        patch_size: Sequence[int],
    ) -> NDArray[Any]:
        """Return a window of one sample in C(Z)YX.

        Parameters
        ----------
        sample_idx
            Number of the sample.
        channels
            Numbers of the channels, in order; None for all.
        coords
            First pixel along (Z)YX.
        patch_size
            Size along (Z)YX.
        """
        ...


class ArrayStack:
    """An array as a stack of samples; nothing is copied, moved or cast.

    Parameters
    ----------
    array
        The pixels: in memory, on disk, or what a file's reader made.
    axes
        Names of its axes in its own order, one letter of SCTZYX each.
    source
        Where the pixels are from.
    mpp
        Pixel size, or None.
    channel_names
        One a channel, or None.

    Raises
    ------
    InvalidInputError
        If axes do not fit the array, or there are not as many names as channels.
    """

    def __init__(
        self,
        array: PixelArray,
        axes: str,
        *,
        source: str = "array",
        mpp: Mpp | None = None,
        channel_names: Sequence[str] | None = None,
    ) -> None:
        self._array = array
        self._axes = stack_axes(axes, array.shape, source)
        self._source = source
        self._mpp = mpp
        self._names = tuple(channel_names) if channel_names is not None else None
        if 0 in array.shape:
            msg = f"{source}: an array of shape {array.shape} has no pixels"
            raise InvalidInputError(msg)
        if self._names is not None and len(self._names) != self.data_shape[1]:
            msg = (
                f"{source}: {len(self._names)} channel names {self._names} for "
                f"{self.data_shape[1]} channels"
            )
            raise InvalidInputError(msg)

    @property
    def array(self) -> PixelArray:
        """The pixels, in the order of `axes`."""
        return self._array

    @property
    def axes(self) -> str:
        """Names of the array's axes, lower case."""
        return self._axes

    @property
    def source(self) -> str:
        """Where the pixels are from."""
        return self._source

    @property
    def mpp(self) -> Mpp | None:
        """Pixel size, None where nothing states it."""
        return self._mpp

    @property
    def channel_names(self) -> tuple[str, ...] | None:
        """Names of the channels, None where nobody named them."""
        return self._names

    @property
    def chunks(self) -> tuple[int, ...]:
        """Smallest part that is decoded, in the order of `axes`."""
        return self._array.chunks

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of a shard, None where the array has none."""
        return getattr(self._array, "shards", None)

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape in SC(Z)YX, S and T merged."""
        sizes = dict(zip(self._axes, self._array.shape, strict=True))
        spatial = tuple(sizes[axis] for axis in "zyx" if axis in sizes)
        return (sizes.get("s", 1) * sizes.get("t", 1), sizes.get("c", 1), *spatial)

    @property
    def data_dtype(self) -> np.dtype[Any]:
        """Type of the stored pixels, in this machine's byte order."""
        return self._array.dtype.newbyteorder("=")

    @property
    def original_data_shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self._array.shape

    @property
    def original_axes(self) -> str:
        """Names of the array's axes."""
        return self._axes.upper()

    def extract_patch(
        self,
        sample_idx: int,
        channels: Sequence[int] | None,
        coords: Sequence[int],
        patch_size: Sequence[int],
    ) -> NDArray[Any]:
        """Return a window of one sample in C(Z)YX; 0 outside of it.

        Raises
        ------
        OutOfRangeError
            If there is no such sample or channel.
        InvalidInputError
            If the window has another number of axes.
        """
        samples, count, *sizes = self.data_shape
        picked = list(range(count) if channels is None else channels)
        if not 0 <= sample_idx < samples or any(not 0 <= c < count for c in picked):
            msg = (
                f"{self._source} has {samples} samples of {count} channels, "
                f"no channels {picked} of sample {sample_idx}"
            )
            raise OutOfRangeError(msg)
        if not len(coords) == len(patch_size) == len(sizes):
            msg = (
                f"{self._source}: a window has {len(sizes)} axes, got {coords} of size {patch_size}"
            )
            raise InvalidInputError(msg)
        spatial = "zyx"[-len(sizes) :]
        ones, zeros = (1.0,) * (1 + len(sizes)), (0.0,) * (1 + len(sizes))
        pixels = _Sample(self, sample_idx)
        level = Level(self._source, self._source, pixels, f"c{spatial}", ones, zeros)
        box = [(int(a), int(a) + int(n)) for a, n in zip(coords, patch_size, strict=True)]
        return read_window(level, box, picked, 0)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self._array.shape))
        return f"ArrayStack({self._source!r}, {self.original_axes}, {shape} {self.data_dtype})"


class _Sample:
    """One sample of a stack as an array C(Z)YX, so that its windows are read as those of levels.

    Parameters
    ----------
    stack
        The stack.
    number
        Number of the sample.
    """

    def __init__(self, stack: ArrayStack, number: int) -> None:
        self._stack = stack
        self._number = number

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in C(Z)YX."""
        return self._stack.data_shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self._stack.data_dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Smallest part that is decoded."""
        sizes = dict(zip(self._stack.axes, self._stack.chunks, strict=True))
        return tuple(sizes.get(axis, 1) for axis in self._axes)

    @property
    def _axes(self) -> str:
        return "c" + "zyx"[1 - len(self.shape) :]

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        out = np.empty([b - a for a, b in box], self.dtype)
        self.read_into(box, out).result()
        return out

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Start reading a box into a buffer."""
        axes, array = self._stack.axes, self._stack.array
        times = array.shape[axes.index("t")] if "t" in axes else 1
        series, time = divmod(self._number, times)
        parts = {"s": (series, series + 1), "t": (time, time + 1)}
        parts |= dict(zip(self._axes, box, strict=True))
        # The buffer is looked at in the array's order; axes that only one of them has are single.
        lead = "".join(axis for axis in axes if axis in "st")
        target, names = out[(None,) * len(lead)], lead + self._axes
        if "c" not in axes:
            target, names = target[..., 0, *(slice(None),) * (out.ndim - 1)], names.replace("c", "")
        return array.read_into(
            tuple(parts[axis] for axis in axes), target.transpose([*map(names.index, axes)])
        )


def stack_axes(axes: str, shape: Sequence[int], where: str) -> str:
    """Return the axes of a stack in lower case, if they fit its array.

    Parameters
    ----------
    axes
        One letter of SCTZYX an axis, in the array's order, Y and X among them.
    shape
        Shape of the array.
    where
        What the array is, for the message.

    Raises
    ------
    InvalidInputError
        If they do not; the message names axes that would.
    """
    letters = axes.lower() if isinstance(axes, str) else ""  # pyright: ignore[reportUnnecessaryIsInstance] - whatever the caller gave
    if (
        len(letters) == len(shape)
        and len(set(letters)) == len(letters)
        and set("yx") <= set(letters) <= set(STACK_AXES)
    ):
        return letters
    msg = (
        f"{where}: axes {axes!r} do not fit an array of shape {tuple(shape)}; one letter of SCTZYX "
        f"an axis does, Y and X among them{_suggestion(len(shape))}"
    )
    raise InvalidInputError(msg)


def _suggestion(rank: int) -> str:
    known = {2: "'YX'", 3: "'CYX', 'YXC', 'ZYX' or 'SYX'", 4: "'CZYX', 'SCYX' or 'TYXC'"}
    more = {5: "'TCZYX' or 'SCZYX'", 6: "'STCZYX'"}
    found = (known | more).get(rank)
    return f", for example {found}" if found else f"; {rank} axes are no stack"
