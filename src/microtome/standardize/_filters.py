"""Filters of pixels that look at neighbours, so that a tile equals the crop of the filtered image.

A filter declares its halo: how many pixels around one it looks at. A tile that is read with the
halo of a chain around it, filtered and cropped by it holds exactly what the crop of the whole image
after the same filters holds. At the border of the image, and only there, pixels are mirrored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError

from ._standardizer import as_float32
from ._window import windowed_tiles

__all__ = ["Filter", "FilterChain", "build_filters", "register_filter", "registered_filters"]

_Planes = NDArray[np.float32]

_NAME = re.compile(r"[a-z][a-z0-9_]*")

# Pixels filtered at a time, so that what passes between the steps of a filter stays in the cache.
_PIECE = 1 << 16


class Filter(Protocol):
    """Filter planes that have the halo around them.

    Called with float32 planes (N, H + 2 halo, W + 2 halo), gives float32 planes (N, H, W). A pixel
    of the result may depend on nothing but the (2 halo + 1) x (2 halo + 1) pixels around it.
    """

    def __call__(self, planes: _Planes, /) -> _Planes: ...


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    function: Filter
    halo: int


_FILTERS: dict[str, _Named] = {}


def register_filter(name: str, function: Filter, halo: int) -> None:
    """Add a filter under a name that `build_filters` then knows.

    Parameters
    ----------
    name
        Lower-case letters, digits and `_`.
    function
        The filter; a function of a module, where workers are other processes.
    halo
        Pixels around one that it looks at, at least 0.

    Raises
    ------
    InvalidInputError
        If the name is taken or is no such name, or the halo is negative.

    Examples
    --------
    >>> def brightest(planes):
    ...     rows = np.maximum(np.maximum(planes[:, :-2], planes[:, 1:-1]), planes[:, 2:])
    ...     return np.maximum(np.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])
    >>> register_filter("brightest_neighbour", brightest, halo=1)
    >>> build_filters(["brightest_neighbour"])(np.arange(4.0).reshape(1, 2, 2))
    array([[[3., 3.],
            [3., 3.]]], dtype=float32)
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            "a filter's name has lower-case letters, digits and _, starting with a letter; "
            f"got {name!r}"
        )
    if name in _FILTERS:
        raise InvalidInputError(f"there is a filter {name!r} already")
    if halo < 0:
        raise InvalidInputError(f"halo must be at least 0 pixels, got {halo}")
    _FILTERS[name] = _Named(name, function, halo)


def registered_filters() -> tuple[str, ...]:
    """Names of all filters, sorted."""
    return tuple(sorted(_FILTERS))


@dataclass(frozen=True, slots=True)
class FilterChain:
    """Filters, one after the other; see `build_filters`."""

    filters: tuple[_Named, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the filters, in the order in which they are applied."""
        return tuple(each.name for each in self.filters)

    @property
    def halo(self) -> int:
        """Pixels that a tile needs around it: those of every filter together."""
        return sum(each.halo for each in self.filters)

    def __call__(
        self,
        batch: NDArray[Any],
        *,
        valid: ArrayLike | None = None,
        out: _Planes | None = None,
    ) -> _Planes:
        """Filter an image, or tiles that were read with the halo.

        Parameters
        ----------
        batch
            (C, H, W) or (B, C, H, W) real numbers.
        valid
            (row, col, height, width) of the part of the tile that lies inside the image, or (B, 4)
            of them; by default all of it.
        out
            Float32 of the same shape to write to, possibly the batch itself; by default new.

        Returns
        -------
        filtered
            Of the shape of `batch`; what lies outside `valid` is as it was.

        Raises
        ------
        InvalidInputError
            If a shape or type does not fit, or a filter gives planes of another shape.

        Notes
        -----
        Pixels are mirrored at the edges of `valid` without repeating the pixel at the edge (NumPy's
        and torch's ``"reflect"``, SciPy's ``"mirror"``), before each filter anew. Where an edge of
        the tile is not one of the image this is a guess, which reaches no further in than `halo`
        pixels: crop them.
        """
        if batch.ndim not in {3, 4}:
            raise InvalidInputError(
                f"a batch must be (C, H, W) or (B, C, H, W), got shape {batch.shape}"
            )
        out = as_float32(batch, out)
        if not self.filters:
            return out
        windows = (0, 0, *out.shape[-2:]) if valid is None else valid
        for tile, (row, col, height, width) in windowed_tiles(out, windows):
            if height and width:
                inside = tile[..., row : row + height, col : col + width]
                planes = [inside[index] for index in np.ndindex(inside.shape[:-2])]
                size = max(1, _PIECE // (height * width))
                for start in range(0, len(planes), size):
                    self._filter(planes[start : start + size])
        return out

    def _filter(self, planes: list[_Planes]) -> None:
        """Filter planes of one shape, (H, W), in place."""
        source = np.stack(planes)
        count, height, width = source.shape
        rows = max(1, _PIECE // (count * width))
        for each in self.filters:
            result = np.empty_like(source)
            for start in range(0, height, rows):
                stop = min(start + rows, height)
                extended = _extended(source, start, stop, each.halo)
                result[:, start:stop] = _checked(each, extended, stop - start)
            source = result
        for plane, filtered in zip(planes, source, strict=True):
            plane[...] = filtered


def build_filters(names: Sequence[str]) -> FilterChain:
    """Make a chain of filters.

    Parameters
    ----------
    names
        ``"gaussian_blur"`` (3 x 3, sigma 1 pixel), ``"median_filter"`` (3 x 3), or registered ones,
        in the order in which they are applied; none gives a chain that changes nothing.

    Raises
    ------
    InvalidInputError
        If there is no such filter.

    Examples
    --------
    >>> chain = build_filters(["median_filter", "gaussian_blur"])
    >>> chain.halo
    2
    >>> image = np.zeros((1, 5, 5), np.float32)
    >>> image[0, 2, 2] = 1
    >>> float(chain(image).max())
    0.0
    """
    if isinstance(names, str):
        raise InvalidInputError(f"filters are a list of names; write [{names!r}]")
    unknown = [name for name in names if name not in _FILTERS]
    if unknown:
        raise InvalidInputError(
            f"no filter {unknown[0]!r}; there are {', '.join(registered_filters())}"
        )
    return FilterChain(tuple(_FILTERS[name] for name in names))


def _extended(planes: _Planes, start: int, stop: int, halo: int) -> _Planes:
    """Rows of planes with the halo around them, mirrored at the edges."""
    count, height, width = planes.shape
    out = np.empty((count, stop - start + 2 * halo, width + 2 * halo), np.float32)
    rows = _mirrored(np.arange(start - halo, stop + halo), height)
    out[:, :, halo : halo + width] = planes[:, rows]
    if halo:
        left, right = np.arange(-halo, 0), np.arange(width, width + halo)
        out[:, :, :halo] = out[:, :, halo + _mirrored(left, width)]
        out[:, :, halo + width :] = out[:, :, halo + _mirrored(right, width)]
    return out


def _mirrored(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Indices back and forth over what exists; the ends come once."""
    if size == 1:
        return np.zeros_like(index)
    folded = index % (2 * (size - 1))
    return np.minimum(folded, 2 * (size - 1) - folded)


def _checked(each: _Named, extended: _Planes, rows: int) -> _Planes:
    result = each.function(extended)
    count, _, width = extended.shape
    shape = (count, rows, width - 2 * each.halo)
    # Another shape could broadcast, and give an image of nonsense.
    if result.shape != shape:
        raise InvalidInputError(
            f"filter {each.name!r} with a halo of {each.halo} must give planes of shape {shape} "
            f"for {extended.shape}, got {result.shape}"
        )
    return result


# The two filters of SPORA, with its numbers: a normalized Gaussian of 3 x 3 pixels and sigma 1.
_EDGE = math.exp(-0.5) / (1 + 2 * math.exp(-0.5))
_WEIGHTS = np.array([1 - 2 * _EDGE, _EDGE], np.float32)


def _gaussian_blur(planes: _Planes, /) -> _Planes:
    # Every pixel by the same additions in the same order, wherever it lies in the tile: a routine
    # that sums along a line, or in the vectors of a processor, may round differently at its ends.
    middle, edge = _WEIGHTS
    rows = planes[:, :-2] + planes[:, 2:]
    rows *= edge
    rows += middle * planes[:, 1:-1]
    out = rows[..., :-2] + rows[..., 2:]
    out *= edge
    out += middle * rows[..., 1:-1]
    return out


def _median_filter(planes: _Planes, /) -> _Planes:
    # The median of nine by comparisons of whole planes: of every column of three, the lowest,
    # middle and highest; the median is that of the highest of the lowest, the median of the middle
    # ones and the lowest of the highest (J. L. Smith, "Implementing median filters in XC4000E
    # FPGAs", 1996). The sorted columns serve three pixels each.
    low, middle, high = _sorted(planes[:, :-2], planes[:, 1:-1], planes[:, 2:])
    lows = np.maximum(np.maximum(low[..., :-2], low[..., 1:-1]), low[..., 2:])
    highs = np.minimum(np.minimum(high[..., :-2], high[..., 1:-1]), high[..., 2:])
    middles = _middle(middle[..., :-2], middle[..., 1:-1], middle[..., 2:])
    return _middle(lows, middles, highs)


def _sorted(a: _Planes, b: _Planes, c: _Planes) -> tuple[_Planes, _Planes, _Planes]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.minimum(low, c), np.maximum(low, np.minimum(high, c)), np.maximum(high, c)


def _middle(a: _Planes, b: _Planes, c: _Planes) -> _Planes:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


register_filter("gaussian_blur", _gaussian_blur, halo=1)
register_filter("median_filter", _median_filter, halo=1)
