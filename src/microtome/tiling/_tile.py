"""A tile, and tiles as columns that look like a list of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import index as as_index
from typing import overload

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, OutOfRangeError

__all__ = ["Tile", "TileSelection", "per_axis", "read_size"]


@dataclass(frozen=True, slots=True)
class Tile:
    """A window in a level's pixel grid: `[row, row + height) x [col, col + width)`.

    It may hang over the edge of the image.
    """

    row: int
    """Top-left pixel."""
    col: int
    height: int
    """Pixels, at least 1."""
    width: int
    tissue_frac: float | None = None
    """Share of the whole window that is tissue; what hangs over the edge counts as background."""
    gain: float | None = None
    """Tissue pixels that no tile chosen before it covers."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InvalidInputError(
                f"a tile has at least one pixel, got {self.height}x{self.width}"
            )

    def clip(self, shape: tuple[int, int]) -> Tile | None:
        """Part of the tile that lies inside an image of this (height, width); None if none does.

        >>> Tile(row=90, col=-10, height=64, width=64).clip((100, 100))
        Tile(row=90, col=0, height=10, width=54, tissue_frac=None, gain=None)
        """
        top, left = max(self.row, 0), max(self.col, 0)
        bottom = min(self.row + self.height, shape[0])
        right = min(self.col + self.width, shape[1])
        if bottom <= top or right <= left:
            return None
        return Tile(top, left, bottom - top, right - left)


@dataclass(frozen=True, slots=True, eq=False)
class TileSelection(Sequence[Tile]):
    """Tiles of one tissue in the order they were chosen: columns, and a read-only list of `Tile`."""

    row: NDArray[np.int64]
    """(n,) top-left pixels."""
    col: NDArray[np.int64]
    tissue_frac: NDArray[np.float32]
    """(n,) share of each whole tile that is tissue."""
    gain: NDArray[np.int64]
    """(n,) tissue pixels that no tile before it covers."""
    tile_size: tuple[int, int]
    """(height, width) in pixels."""
    tissue_frac_inside: NDArray[np.float32] | None = None
    """(n,) share of the part inside the image that is tissue, where it is known."""
    cell_id: NDArray[np.int64] | None = None
    """(n,) the cell that each tile was put on, of tiles around cells."""

    def __len__(self) -> int:
        return self.row.size

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> TileSelection: ...
    def __getitem__(self, index: int | slice) -> Tile | TileSelection:
        if isinstance(index, slice):
            return TileSelection(
                self.row[index],
                self.col[index],
                self.tissue_frac[index],
                self.gain[index],
                self.tile_size,
                None if self.tissue_frac_inside is None else self.tissue_frac_inside[index],
                None if self.cell_id is None else self.cell_id[index],
            )
        if not -len(self) <= index < len(self):
            raise OutOfRangeError(f"tile {index} of {len(self)}")
        height, width = self.tile_size
        return Tile(
            int(self.row[index]),
            int(self.col[index]),
            height,
            width,
            float(self.tissue_frac[index]),
            int(self.gain[index]),
        )

    def __iter__(self) -> Iterator[Tile]:
        return (self[index] for index in range(len(self)))


def read_size(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """(height, width) in pixels from an int or a pair of them; at least 1 each."""
    height, width = per_axis(value, 2, name, least=1)
    return height, width


def per_axis(
    value: int | Iterable[int], rank: int | None, name: str, *, least: int
) -> tuple[int, ...]:
    """One integer per axis; a single one stands for all where the number of axes is known.

    Raises
    ------
    InvalidInputError
        If it is anything else, or a number is below the least.
    """
    single = not isinstance(value, Iterable)
    try:
        numbers = (as_index(value),) * (rank or 0) if single else tuple(map(as_index, value))
    except TypeError:
        raise InvalidInputError(f"{name} must be integers, got {value!r}") from None
    if not numbers or (rank is not None and len(numbers) != rank):
        raise InvalidInputError(
            f"{name} must be one integer or {f'{rank} of them, one' if rank else 'one'} per axis, "
            f"got {value!r}"
        )
    if min(numbers) < least:
        raise InvalidInputError(f"{name} must be at least {least} on every axis, got {value!r}")
    return numbers
