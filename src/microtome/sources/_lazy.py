"""Arrays that compute or fetch their pixels when they are asked for: dask, xarray, zarr-python.

None of these is imported here: an object is known by the module that its class comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import PixelArray
from microtome.storage import Box

from ._fetched import FetchedArray

__all__ = ["is_from", "is_lazy", "lazy_array"]


def is_from(value: object, package: str, name: str) -> bool:
    """Whether a value is of a class of another package, or of one made from it."""
    return any(
        base.__name__ == name and base.__module__.partition(".")[0] == package
        for base in type(value).__mro__
    )


def is_lazy(value: object) -> bool:
    """Whether a value is an array of dask or zarr-python."""
    return is_from(value, "dask", "Array") or is_from(value, "zarr", "Array")


def lazy_array(array: Any, order: Sequence[int]) -> PixelArray:
    """View an array of dask, xarray or zarr-python.

    Parameters
    ----------
    array
        The array.
    order
        For each of our axes, which one of the array's it is.

    Raises
    ------
    InvalidInputError
        If it holds no numbers, has no pixels, or does not know its shape before it is computed.
    """
    what = f"{type(array).__module__.partition('.')[0]} array"
    if any(size != size for size in array.shape):  # noqa: PLR0124 - dask's unknown size is NaN
        msg = f"a {what} of unknown shape {array.shape} is no image; call its compute_chunk_sizes()"
        raise InvalidInputError(msg)
    if np.dtype(array.dtype).kind not in "biuf":
        msg = f"an image holds numbers, got a {what} of {array.dtype}"
        raise InvalidInputError(msg)
    if 0 in array.shape:
        msg = f"a {what} of shape {array.shape} has no pixels"
        raise InvalidInputError(msg)
    if is_from(array, "xarray", "DataArray"):
        if not is_from(array.variable.data if array.chunks else None, "dask", "Array"):
            # The variable, not the array: slicing the coordinates along would cost most of a read.
            return _view(array.variable, order, array.shape, _loaded)
        array = array.data
    if is_from(array, "dask", "Array"):
        return _view(array, order, [max(sizes) for sizes in array.chunks], _computed)
    return _view(array, order, array.chunks, np.asarray)


def _view(
    source: Any, order: Sequence[int], chunks: Sequence[int], fetch: Callable[[Any], Any]
) -> PixelArray:
    """View what is sliced like a numpy array; a read asks it for no more than its box.

    Reads from several threads go to the library at once, which all three allow.

    Parameters
    ----------
    source
        The array.
    order
        For each of our axes, which one of the source's it is.
    chunks
        Smallest part that the source makes, in the order of its own axes; of uneven ones, the
        largest.
    fetch
        Makes numpy's of a slice of it.
    """
    shape = [int(source.shape[i]) for i in order]
    sizes = [int(chunks[i]) for i in order]
    return FetchedArray(shape, source.dtype, sizes, _Slices(source, tuple(order), fetch))


class _Slices(NamedTuple):
    """Boxes of a source; travels to another process where the source does."""

    source: Any
    order: tuple[int, ...]
    fetch: Callable[[Any], Any]

    def __call__(self, box: Box) -> NDArray[Any]:
        key: list[slice] = [slice(None)] * len(box)
        for place, (start, stop) in zip(self.order, box, strict=True):
            key[place] = slice(start, stop)
        return np.asarray(self.fetch(self.source[tuple(key)])).transpose(self.order)


def _computed(part: Any) -> Any:
    return part.compute()


def _loaded(part: Any) -> Any:
    return part.to_numpy()
