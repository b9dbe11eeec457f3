"""What is put together piece by piece in a `with` block, and is gone unless it was finished there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from microtome.errors import ModeError

__all__ = ["Unfinished"]


class Unfinished(ABC):
    """An image that a stitcher has begun; leaving the `with` block discards it.

    Parameters
    ----------
    out
        Where it will be.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._closed = False

    @abstractmethod
    def discard(self) -> None:
        """Remove what was written, unless it is finished."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def _check_open(self) -> None:
        if self._closed:
            msg = f"the stitcher of {self._out} is finished or discarded"
            raise ModeError(msg)
