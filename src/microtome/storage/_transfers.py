"""Reads and writes that are under way."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import tensorstore as ts
from numpy.typing import NDArray

from microtome.errors import MicrotomeError

from ._engine import engine_errors

__all__ = ["READ", "Box", "ReadTransfer", "write_by_file"]

Box = tuple[tuple[int, int], ...]
"""Half-open interval an axis, in the order of the array's axes."""

# What is written lies in memory once more, encoded. The chunks of one file are encoded in parallel,
# so that many large files at once take memory and save nothing.
_BYTES_AT_ONCE = 2**26


class _Read:
    """A read that was finished at once."""

    __slots__ = ()

    def result(self, timeout: float | None = None) -> object:
        """Return at once."""
        del timeout
        return None


READ = _Read()
"""What stands for any read that needs no waiting."""


class ReadTransfer:
    """A read whose errors are ours.

    Parameters
    ----------
    future
        The engine's.
    path
        Place of the array, for messages.
    verify
        Called when the read has ended.
    """

    __slots__ = ("_future", "_path", "_verify")

    def __init__(
        self, future: ts.WriteFutures, path: object, verify: Callable[[], None] | None
    ) -> None:
        self._future = future
        self._path = path
        self._verify = verify

    def result(self, timeout: float | None = None) -> object:
        """Wait, and raise what went wrong."""
        try:
            done = self._future.result(timeout)
        except (ValueError, OSError):
            with engine_errors(self._path):
                raise
        if self._verify is not None:
            self._verify()
        return done


def write_by_file(
    view: ts.TensorStore, box: Box, values: NDArray[Any], unit: Sequence[int], path: object
) -> None:
    """Write a box, a few files at a time.

    Parameters
    ----------
    view
        The box in the engine.
    box
        Where it lies in the array.
    values
        Its pixels.
    unit
        Part of the array that is one file.
    path
        Place of the array, for messages.

    Raises
    ------
    StorageError
        If the disk refuses; nothing is being written any more.
    """
    at_once = max(2, _BYTES_AT_ONCE // (math.prod(unit) * values.dtype.itemsize))
    begun: deque[ts.WriteFutures] = deque()
    failed: list[MicrotomeError] = []

    def settle() -> None:
        try:
            with engine_errors(path):
                begun.popleft().result()
        except MicrotomeError as error:
            failed.append(error)

    for within, outside in _pieces(box, unit):
        if len(begun) == at_once:
            settle()
        if failed:
            break
        with engine_errors(path):
            begun.append(view[within].write(values[outside]))
    while begun:
        settle()
    if failed:
        raise failed[0]


def _pieces(box: Box, unit: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Cut a box where files meet: each piece in the array's coordinates, and in the box's.

    One write of many files fails with the first, while the engine is still at work on the rest:
    files would appear in a directory that the caller has begun to remove.
    """
    cuts = [
        [
            slice(max(at, start), min(at + step, stop))
            for at in range(start // step * step, stop, step)
        ]
        for (start, stop), step in zip(box, unit, strict=True)
    ]
    for piece in product(*cuts):
        yield (
            piece,
            tuple(
                slice(part.start - start, part.stop - start)
                for part, (start, _) in zip(piece, box, strict=True)
            ),
        )
