"""Which labels of two neighbours are one object, and how objects are numbered.

All of it works on runs: neighbouring pixels of one label (or of one pair of labels) are counted at
once, so that what is sorted is as many as there are edges, not as there are pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["first_pixels", "label_type", "local_labels", "matches", "ranked", "united"]

# Of numbers that may be looked up in a table instead of being sorted.
_TABLE = 1 << 24


def local_labels(labels: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Renumber the labels of a tile 1, 2, ... in their order.

    Parameters
    ----------
    labels
        Integers of any shape; 0 is background and no number is below it.

    Returns
    -------
    The labels, of the smallest unsigned type that holds them, and how many there are.
    """
    top = int(labels.max()) if labels.size else 0
    if top < _TABLE:
        there = np.zeros(top + 1, np.bool_)
        there[labels] = True
        there[0] = False
        count = int(there.sum())
        names = np.cumsum(there).astype(label_type(count, smallest=True))
        names[0] = 0
        return names[labels], count
    values, numbers = np.unique(labels, return_inverse=True)
    count = len(values) - int(values[0] == 0)
    kind = label_type(count, smallest=True)
    return (numbers.reshape(labels.shape) + int(values[0] != 0)).astype(kind), count


def label_type(count: int, *, smallest: bool = False) -> np.dtype[Any]:
    """Return the type of labels from 0 to `count`: 32 bits where they are enough, as readers expect.

    Parameters
    ----------
    count
        The largest label.
    smallest
        Whether fewer bits are taken where they are enough.
    """
    kinds = (np.uint16, np.uint32, np.uint64) if smallest else (np.uint32, np.uint64)
    return np.dtype(next(kind for kind in kinds if count <= np.iinfo(kind).max))


def first_pixels(labels: NDArray[Any], positions: NDArray[np.int64], count: int) -> NDArray[Any]:
    """Return the smallest position of each of the labels 1, ..., count; the largest int64 of none.

    Parameters
    ----------
    labels
        (Y, X), or more axes.
    positions
        Position of the first pixel of each row, (Y,) or one axis less than `labels`; along a row
        they go up by 1.
    count
        The largest label.
    """
    first = np.full(count + 1, np.iinfo(np.int64).max, np.int64)
    width = labels.shape[-1]
    flat = labels.reshape(-1)
    starts = _run_starts(flat)
    at = positions.reshape(-1)[starts // width] + starts % width
    np.minimum.at(first, flat[starts], at)
    if len(flat) > width:
        # A run that goes on in the next row begins there anew: positions jump.
        rows = np.arange(width, len(flat), width)
        np.minimum.at(first, flat[rows], positions.reshape(-1)[1:])
    return first[1:]


def matches(first: NDArray[Any], second: NDArray[Any], min_share: float) -> NDArray[np.int64]:
    """Return pairs of labels that share enough of the smaller one.

    Parameters
    ----------
    first, second
        The same pixels as two tiles show them.
    min_share
        Share of the pixels of the label of a pair that has fewer here, in (0, 1].

    Returns
    -------
    (n, 2) labels of the first and of the second.
    """
    if not first.size:
        return np.zeros((0, 2), np.int64)
    base = int(second.max()) + 1
    key = np.multiply(first, base, dtype=np.int64).reshape(-1)
    key += second.reshape(-1)
    starts = _run_starts(key)
    lengths = np.diff(starts, append=len(key))
    there, numbers = np.unique(key[starts], return_inverse=True)
    shared = np.bincount(numbers, weights=lengths, minlength=len(there)).astype(np.int64)
    pairs = np.stack(np.divmod(there, base), axis=1)
    sizes = [np.bincount(pairs[:, side], weights=shared) for side in (0, 1)]
    both = (pairs != 0).all(axis=1)
    pairs, shared = pairs[both], shared[both]
    smaller = np.minimum(sizes[0][pairs[:, 0]], sizes[1][pairs[:, 1]])
    return pairs[shared >= min_share * smaller]


def united(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return which group each of the numbers 0, ..., count - 1 is in, given pairs that are one."""
    graph = coo_array(
        (np.ones(len(pairs), np.int32), (pairs[:, 0], pairs[:, 1])), shape=(count, count)
    )
    return connected_components(graph, directed=False)[1].astype(np.int64)


def ranked(groups: NDArray[np.int64], first: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Number groups 1, 2, ... by their first pixel.

    Parameters
    ----------
    groups
        Which group each object is in, (n,).
    first
        The first pixel of each object, (n,); the largest int64 of one without a pixel.

    Returns
    -------
    The new number of each object, (n,), 0 in a group without a pixel; and how many there are.
    """
    none = np.iinfo(np.int64).max
    of_group = np.full(int(groups.max(initial=-1)) + 1, none, np.int64)
    np.minimum.at(of_group, groups, first)
    order = np.argsort(of_group, kind="stable")
    count = int((of_group != none).sum())
    numbers = np.zeros(len(of_group), np.int64)
    numbers[order[:count]] = np.arange(1, count + 1)
    return numbers[groups], count


def _run_starts(flat: NDArray[Any]) -> NDArray[np.int64]:
    """Return where runs of equal values begin."""
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    changes += 1
    return np.concatenate([np.zeros(1, np.int64), changes])
