"""The one meaning of micrometres in every table: from the upper left edge of the image.

Three ways to say where something on a level lies, and what leads from one to the next:

* pixels of the level, from its edge: pixel `j` covers `[j, j + 1)`, its middle is at `j + 0.5`;
* micrometres from the upper left edge of the image, the same for all of its levels: what every table
  holds (cells, tiles, vectors, AnnData);
* micrometres as OME-NGFF counts them, from wherever the image's translation says: the middle of the
  first pixel of the finest level is at `translation`. Only files of images speak so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError

__all__ = ["FROM_EDGE", "MicrometreGrid", "counts_from_edge", "micrometres_note"]

FROM_EDGE = "upper left edge of the image"
"""What a table's metadata say its micrometres are counted from."""

_FROM_MIDDLE = "translation of the image, the middle of its first pixel (OME-NGFF)"

# Tables of vectors that said nothing counted as OME-NGFF does.
_FORMERLY = ("tile-embeddings", "pooled-labels")
# Pixel sizes are rounded decimals: a window whose middle lies this part of a pixel before where another
# would be as good is as good.
_SAME = 1e-6


class _Placed(Protocol):
    """A level of an image: pixel size, and middle of its first pixel, an entry an axis."""

    @property
    def scale(self) -> tuple[float, ...]: ...

    @property
    def translation(self) -> tuple[float, ...]: ...


@dataclass(frozen=True, slots=True)
class MicrometreGrid:
    """Where the pixels of a level lie, in micrometres from the upper left edge of the image.

    All places are (..., 2), y before x.

    Parameters
    ----------
    size
        Micrometres per pixel, (y, x).
    start
        Upper left edge of the level's first pixel, in micrometres from that of the image; 0 where levels
        begin together, as ours do.
    edge
        Upper left edge of the image as OME-NGFF counts; by default that of an image that begins with
        this level and whose translation is 0, half a pixel before 0.

    Raises
    ------
    InvalidInputError
        If a size is not above 0, or a number is not finite.

    Examples
    --------
    The first pixel of a level of 0.5 um, whose middle the file puts at (10, 20):

    >>> grid = MicrometreGrid.from_ngff((0.5, 0.5), (10.0, 20.0))
    >>> grid.middles([0, 0]).tolist(), grid.to_ngff(grid.middles([0, 0])).tolist()
    ([0.25, 0.25], [10.0, 20.0])
    """

    size: tuple[float, float]
    start: tuple[float, float] = (0.0, 0.0)
    edge: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        numbers = np.asarray([self.size, self.start, self.edge or (0.0, 0.0)], np.float64)
        if numbers.shape != (3, 2) or not np.isfinite(numbers).all() or (numbers[0] <= 0).any():
            msg = f"pixels have a size (y, x) above 0 and lie at finite micrometres, got {self}"
            raise InvalidInputError(msg)

    @classmethod
    def from_mpp(cls, mpp: float | Sequence[float]) -> Self:
        """Return the grid of an image's finest level, or of any that begins where it does.

        Parameters
        ----------
        mpp
            Micrometres per pixel, one number or (y, x).

        Raises
        ------
        InvalidInputError
            If it is not above 0.
        """
        try:
            y, x = np.broadcast_to(np.asarray(mpp, np.float64), (2,)).tolist()
        except (TypeError, ValueError) as error:
            msg = f"mpp must be one number or (y, x), got {mpp!r}"
            raise InvalidInputError(msg) from error
        if not (np.isfinite([y, x]).all() and min(y, x) > 0):
            msg = f"mpp must be above 0, got {mpp}"
            raise InvalidInputError(msg)
        return cls((y, x))

    @classmethod
    def from_ngff(
        cls,
        scale: Sequence[float],
        translation: Sequence[float],
        *,
        base: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> Self:
        """Return the grid of a level as an OME-Zarr file states it.

        Parameters
        ----------
        scale, translation
            Of the level; their last two entries are y and x.
        base
            Scale and translation of the image's finest level, where this is another.
        """
        size, middle = (np.asarray(values, np.float64)[-2:] for values in (scale, translation))
        whole, first = (
            np.asarray(values, np.float64)[-2:] for values in base or (scale, translation)
        )
        edge = first - whole / 2
        start = middle - size / 2 - edge
        # Of levels that begin together nothing is left but rounding.
        start[np.abs(start) <= _SAME * size] = 0.0
        return cls(_pair(size), _pair(start), _pair(edge))

    @classmethod
    def of_level(cls, level: _Placed, base: _Placed) -> Self:
        """Return the grid of a level of an image.

        Parameters
        ----------
        level, base
            The level, and the image's finest one.
        """
        return cls.from_ngff(level.scale, level.translation, base=(base.scale, base.translation))

    def from_pixels(self, places: ArrayLike) -> NDArray[np.float64]:
        """Return where places lie that are counted in pixels, from the edge of the first one."""
        return np.asarray(self.start) + np.asarray(places, np.float64) * self.size

    def middles(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Return where the middles of pixels lie, which are given by their numbers."""
        return self.from_pixels(np.asarray(pixels, np.float64) + 0.5)

    def to_pixels(self, micrometres: ArrayLike) -> NDArray[np.float64]:
        """Return places in pixels, from the edge of the first one."""
        return (np.asarray(micrometres, np.float64) - self.start) / self.size

    def windows(self, micrometres: ArrayLike, size: ArrayLike) -> NDArray[np.int64]:
        """Return the first pixels of windows around places.

        Parameters
        ----------
        micrometres
            The places.
        size
            Pixels of a window, one number or (y, x).

        Returns
        -------
        (..., 2): the place lies in the middle of the window to half a pixel; where two windows are as
        good, the one further down and right.
        """
        begin = self.to_pixels(micrometres) - np.asarray(size) / 2
        return np.floor(begin + 0.5 + _SAME).astype(np.int64)

    def to_ngff(self, micrometres: ArrayLike) -> NDArray[np.float64]:
        """Return places as OME-NGFF counts them."""
        return np.asarray(micrometres, np.float64) + self._edge

    def places_of_ngff(self, micrometres: ArrayLike) -> NDArray[np.float64]:
        """Return places that are given as OME-NGFF counts them."""
        return np.asarray(micrometres, np.float64) - self._edge

    @property
    def _edge(self) -> NDArray[np.float64]:
        return -np.asarray(self.size) / 2 if self.edge is None else np.asarray(self.edge)


def counts_from_edge(metadata: Mapping[bytes, bytes] | None) -> bool:
    """Whether the micrometres of a table are counted from the upper left edge of the image.

    Parameters
    ----------
    metadata
        Of the table's schema.

    Returns
    -------
    False for vectors of tiles and cells that were written before microtome said so: those count as
    OME-NGFF does, from the image's translation, which is the middle of its first pixel. Everything else
    counts from the edge.
    """
    try:
        note: Any = json.loads((metadata or {}).get(b"microtome", b"{}"))
    except ValueError:
        return True
    if not isinstance(note, dict):
        return True
    return note.get("format") not in _FORMERLY or note.get("micrometres_from") == FROM_EDGE


def micrometres_note(metadata: Mapping[bytes, bytes] | None = None) -> dict[str, str]:
    """Return what is said, beside places, of the micrometres that they are.

    Parameters
    ----------
    metadata
        Of the schema of the table that they are from.
    """
    from_what = FROM_EDGE if counts_from_edge(metadata) else _FROM_MIDDLE
    return {"spatial_unit": "micrometer", "micrometres_from": from_what}


def _pair(values: NDArray[np.float64]) -> tuple[float, float]:
    y, x = values.tolist()
    return y, x
