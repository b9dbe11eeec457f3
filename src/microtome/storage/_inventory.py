"""Which files an array was published with, so that one that is lost is not taken for empty.

Zarr has no file for pixels that were never written, or that are all 0, and no list of those that it
has: of an image that was copied half, or lost a file, the rest of the pixels would be read as 0. The
list is kept in the document of the image's group, as stretches of what is not there: mostly none.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, cast

from microtome.errors import NotFoundError

__all__ = ["Inventory", "shards_absent"]

Absent = list[list[int]]
"""First and last number of each stretch of shards that are not there, ascending."""

# Files of one array that are looked for, and stretches that are written down; of more, nothing is.
_MOST_FILES = 1 << 20
_MOST_STRETCHES = 1 << 12


class Inventory:
    """The files of an array, as they were when it was published.

    Parameters
    ----------
    path
        Directory of the array, or its address.
    layout
        Sizes of the array and names of its files, as `layout_of` tells them.
    absent
        Shards that are not there, numbered as NumPy numbers entries.
    """

    __slots__ = ("_above", "_first", "_grid", "_last", "_prefix", "_separator", "_shard")

    def __init__(
        self, path: str, layout: Mapping[str, Any], absent: Iterable[Sequence[int]]
    ) -> None:
        self._prefix, self._separator = _names(path, layout)
        self._above = len(path) + 1
        self._shard: tuple[int, ...] = layout["shard"]
        self._grid = _grid(layout)
        stretches = sorted((int(first), int(last)) for first, last in absent)
        self._first = [first for first, _ in stretches]
        self._last = [last for _, last in stretches]

    @classmethod
    def of(cls, path: str, layout: Mapping[str, Any] | None, absent: object) -> Inventory | None:
        """Return that of an array; None where its document or its group's says nothing of use."""
        if layout is None or absent is None:
            return None
        try:
            return cls(path, layout, cast("Absent", absent))
        except (TypeError, ValueError):
            return None

    def verify_absent(self, place: Sequence[int]) -> None:
        """Refuse to take a file that is lost for one that was never written.

        Parameters
        ----------
        place
            The shard, by its number along each axis.

        Raises
        ------
        NotFoundError
            If it was there when the array was published.
        """
        if self._has(place):
            msg = (
                f"{self._file(place)} is gone: the image was written with it, and its pixels "
                "would be read as nothing but 0; copy or ingest the image again"
            )
            raise NotFoundError(msg)

    def verify_files(self, box: Sequence[tuple[int, int]]) -> None:
        """Refuse a box of a local array that is read by who takes a lost file for an empty one."""
        numbers = [
            range(start // side, -(-stop // side) if stop > start else 0)
            for (start, stop), side in zip(box, self._shard, strict=True)
        ]
        for place in product(*numbers):
            if not os.path.exists(self._file(place)):  # noqa: PTH110 - in a fifth of the time
                self.verify_absent(place)

    def files(self) -> Iterator[str]:
        """Yield the names of the files that are to be there, inside the array's directory."""
        for place in product(*(range(count) for count in self._grid)):
            if self._has(place):
                yield self._file(place)[self._above :]

    def _has(self, place: Sequence[int]) -> bool:
        number = 0
        for at, count in zip(place, self._grid, strict=True):
            number = number * count + at
        found = bisect_right(self._first, number) - 1
        return found < 0 or number > self._last[found]

    def _file(self, place: Sequence[int]) -> str:
        return self._prefix + self._separator.join([str(at) for at in place])


def shards_absent(path: Path, layout: Mapping[str, Any]) -> Absent | None:
    """Return which files of a local array are not there, None for one with too many to tell.

    Parameters
    ----------
    path
        Directory of the array.
    layout
        As `layout_of` tells it.
    """
    grid = _grid(layout)
    if math.prod(grid) > _MOST_FILES:
        return None
    prefix, separator = _names(path, layout)
    found: Absent = []
    for number, place in enumerate(product(*(range(count) for count in grid))):
        if os.path.exists(prefix + separator.join(map(str, place))):  # noqa: PTH110 - as above
            continue
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found if len(found) <= _MOST_STRETCHES else None


def _names(path: object, layout: Mapping[str, Any]) -> tuple[str, str]:
    """Return what the names of files begin with, and what lies between their numbers."""
    return f"{path}/{layout.get('lead', 'c/')}", layout.get("separator", "/")


def _grid(layout: Mapping[str, Any]) -> list[int]:
    return [-(-n // s) for n, s in zip(layout["shape"], layout["shard"], strict=True)]
