"""The pyramid rule: what one pixel of a coarser level is.

Each level halves y and x, `n -> ceil(n / 2)`. Intensity is the mean over the part of the 2 x 2
block that exists, rounded half up for integers; a label is the most frequent of the block, ties
to the smallest that is not background. Four good writers in the field disagree here (anisotropic
scales, missing half-pixel shifts, truncation), so ours is stated, and kept by tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.storage import Box, Compiled, Compiler

__all__ = [
    "blocks_of",
    "expect_halving",
    "halve",
    "halve_labels",
    "halve_mean",
    "halved_shape",
    "pyramid_shapes",
]


def halved_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of the next level: y and x are the last two axes."""
    return (*shape[:-2], -(-shape[-2] // 2), -(-shape[-1] // 2))


def pyramid_shapes(shape: Sequence[int], smallest: int) -> list[tuple[int, ...]]:
    """Return the shapes of all levels, finest first, until the larger side is at most `smallest`."""
    shapes = [tuple(shape)]
    while max(shapes[-1][-2:]) > smallest:
        shapes.append(halved_shape(shapes[-1]))
    return shapes


def halve(pixels: NDArray[Any], *, labels: bool, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Halve the last two axes by the rule for labels or for intensities."""
    return (halve_labels if labels else halve_mean)(pixels, out)


def halve_mean(pixels: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Average 2 x 2 blocks over the last two axes.

    Parameters
    ----------
    pixels
        (..., Y, X) of any integer, boolean or floating type.
    out
        Where the result goes, of its shape and of the type of `pixels`; by default a new array.

    Returns
    -------
    (..., ceil(Y / 2), ceil(X / 2)) of the same type; integers rounded half up.
    """
    height, width = pixels.shape[-2:]
    if out is None:
        out = np.empty(halved_shape(pixels.shape), pixels.dtype)
    even_y, even_x = height // 2 * 2, width // 2 * 2
    main = pixels[..., :even_y, :even_x]
    call = _COMPILER.after(pixels.nbytes)
    if call is not None and _is_plain(main) and _is_plain(out):
        for plane in np.ndindex(pixels.shape[:-2]):
            call.kernel(main[plane], out[plane][: height // 2, : width // 2])
    elif pixels.dtype in _WIDER and main.size:
        _mean_of_quads(main, out[..., : height // 2, : width // 2])
    else:
        quads = [main[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        out[..., : height // 2, : width // 2] = _mean(quads)
    if height % 2:
        row = pixels[..., -1, :even_x]
        out[..., -1, : width // 2] = _mean([row[..., 0::2], row[..., 1::2]])
    if width % 2:
        column = pixels[..., :even_y, -1]
        out[..., : height // 2, -1] = _mean([column[..., 0::2], column[..., 1::2]])
    if height % 2 and width % 2:
        out[..., -1, -1] = pixels[..., -1, -1]
    return out


def expect_halving(size: int) -> None:
    """Say that so many bytes of pixels are going to be halved: what is compiled for it is loaded."""
    _COMPILER.expect(size)


def _compiled_halves() -> Compiled | None:
    found: Any = import_module("microtome.image._compiled_halves")
    return Compiled(found.halve_quads, np.empty(0, np.int64))


_COMPILER = Compiler(_compiled_halves)


def _is_plain(pixels: NDArray[Any]) -> bool:
    """Whether compiled code takes these pixels: of such a type, and in rows without gaps."""
    row, item = pixels.strides[-2:]
    return (
        pixels.size > 0
        and pixels.dtype.isnative
        and pixels.flags.aligned
        and pixels.dtype.str[1:] in _COMPILED
        and item == pixels.itemsize
        and row >= item * pixels.shape[-1]
        and row % item == 0
    )


_COMPILED = {"u1", "i1", "u2", "i2", "u4", "i4", "f4"}

# The unsigned type of two pixels side by side, which also holds the sum of four.
_WIDER: dict[np.dtype[Any], type[np.unsignedinteger[Any]]] = {
    np.dtype(f"{kind}{size}"): wide
    for size, wide in ((1, np.uint16), (2, np.uint32), (4, np.uint64))
    for kind in "iu"
}
# Of the words in work: more than this falls out of the nearest caches, and halves the speed.
_WORK_BYTES = 1 << 17


def _mean_of_quads(pixels: NDArray[Any], out: NDArray[Any]) -> None:
    """Average 2 x 2 blocks of integers into `out`, two pixels in one machine word at a time.

    What numpy does with every second pixel is done pixel by pixel; taken as words of two, rows are
    contiguous, and all of it runs in vector instructions.
    """
    if pixels.strides[-1] != pixels.itemsize:
        pixels = np.ascontiguousarray(pixels)
    wide = _WIDER[pixels.dtype]
    bits = wide(8 * pixels.itemsize)
    low = wide((1 << int(bits)) - 1)
    # Signed pixels are moved up to start at 0, which moves their mean by as much.
    shift = wide(1 << (int(bits) - 1)) if pixels.dtype.kind == "i" else wide(0)
    height, width = out.shape[-2:]
    rows = max(1, min(height, _WORK_BYTES // (width * np.dtype(wide).itemsize)))
    work = np.empty((2, rows, width), wide)
    halves = out.view(f"u{pixels.itemsize}")
    for plane in np.ndindex(pixels.shape[:-2]):
        upper, lower = (pixels[plane][row::2].view(wide) for row in (0, 1))
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            total, part = work[:, : stop - start]
            _sum_of_quads(upper[start:stop], lower[start:stop], total, part, (bits, low, shift))
            # Halves go up: floor((s + 2) / 4) == floor(s / 4 + 1 / 2).
            total += wide(2)
            total >>= wide(2)
            if shift:
                total ^= shift
            # The lower half of each word; for signed pixels as unsigned ones, which are never cast.
            np.copyto(halves[plane][start:stop], total, casting="unsafe")


def _sum_of_quads(
    upper: NDArray[Any],
    lower: NDArray[Any],
    total: NDArray[Any],
    part: NDArray[Any],
    word: tuple[Any, Any, Any],
) -> None:
    """Add up the two pixels of each word of two rows."""
    bits, low, shift = word
    np.bitwise_and(upper, low, out=total)
    if shift:
        total ^= shift
    for row, second in ((upper, True), (lower, False), (lower, True)):
        if second:
            np.right_shift(row, bits, out=part)
        else:
            np.bitwise_and(row, low, out=part)
        if shift:
            part ^= shift
        total += part


def _mean(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    kind, size = parts[0].dtype.kind, parts[0].dtype.itemsize
    count = len(parts)
    if kind == "f":
        # Pairwise in float64, so that the order of the four does not show in the result.
        total = np.zeros(parts[0].shape, np.float64)
        with np.errstate(invalid="ignore"):  # infinities of both signs have no mean: NaN
            for part in parts:  # divided first, which is exact, so that no sum is too large
                total += np.multiply(part, 1 / count, dtype=np.float64)
        return total.astype(parts[0].dtype)
    if kind == "b":
        return np.asarray(sum(part.astype(np.uint8) for part in parts) * 2 >= count)
    if size <= 4:
        wide = np.dtype(f"{'i' if kind == 'i' else 'u'}{max(4, 2 * size)}")
        total = parts[0].astype(wide)
        for part in parts[1:]:
            total += part
        # Halves go up: floor((2 s + n) / 2n) == floor(s / n + 1 / 2); n is 2 or 4, so a shift.
        total += count // 2
        total >>= 1 if count == 2 else 2
        return total.astype(parts[0].dtype)
    # 64 bit: no wider integer, so add quotients and remainders apart.
    one = parts[0].dtype.type
    whole = sum(part // one(count) for part in parts)
    rest = sum(part % one(count) for part in parts)
    return np.asarray(whole + (one(2) * rest + one(count)) // one(2 * count))


def halve_labels(labels: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Take the most frequent label of 2 x 2 blocks over the last two axes.

    Parameters
    ----------
    labels
        (..., Y, X) of an integer or boolean type; 0 is background.
    out
        Where the result goes, of its shape and of the type of `labels`; by default a new array.

    Returns
    -------
    (..., ceil(Y / 2), ceil(X / 2)). Ties go to the smallest label that is not 0, so that thin
    objects survive.
    """
    if out is None:
        out = np.empty(halved_shape(labels.shape), labels.dtype)
    pad_y, pad_x = labels.shape[-2] % 2, labels.shape[-1] % 2
    if pad_y or pad_x:
        # Repeating the edge doubles every count of a partial block, which changes no majority.
        labels = np.pad(
            labels, [(0, 0)] * (labels.ndim - 2) + [(0, pad_y), (0, pad_x)], mode="edge"
        )
    # Most blocks lie inside one object or in the background; only the others are voted on.
    vote = _votes_on_words if labels.dtype in _WIDER else _votes
    rows = max(1, _WORK_BYTES // max(1, out.shape[-1] * out.itemsize))
    for plane in np.ndindex(out.shape[:-2]):
        for start in range(0, out.shape[-2], rows):
            strip = labels[plane][2 * start : 2 * (start + rows)]
            to = out[plane][start : start + rows]
            to[...] = strip[::2, ::2]
            mixed, values = vote(strip)
            if values[0].size:
                to[mixed] = _most_frequent(*values)
    return out


_Votes = tuple[NDArray[np.bool_], list[NDArray[Any]]]


def _votes(labels: NDArray[Any]) -> _Votes:
    """Return which 2 x 2 blocks hold more than one label, and the four of each of those."""
    quads = [labels[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    mixed = np.zeros(quads[0].shape, np.bool_)
    for quad in quads[1:]:
        mixed |= quad != quads[0]
    return mixed, [quad[mixed] for quad in quads]


def _votes_on_words(labels: NDArray[Any]) -> _Votes:
    """As `_votes`, two labels in one machine word at a time, as `_mean_of_quads` does it."""
    pairs = np.ascontiguousarray(labels).view(_WIDER[labels.dtype])
    upper, lower = pairs[..., ::2, :], pairs[..., 1::2, :]
    bits = pairs.dtype.type(8 * labels.itemsize)
    mixed = upper != lower
    mixed |= (upper >> bits) != (upper & pairs.dtype.type((1 << int(bits)) - 1))
    words = [rows[mixed].view(labels.dtype) for rows in (upper, lower)]
    return mixed, [word[side::2] for word in words for side in (0, 1)]


def _most_frequent(*quads: NDArray[Any]) -> NDArray[Any]:
    """Return the label that wins each block; ties go to the smallest that is not 0."""
    a, b, c, d = _sorted(*quads)
    one_pair = np.where(a == b, a, np.where(c == d, c, np.where(a == 0, b, a)))
    two_pairs = (a == 0) & (a == b) & (c == d)
    # Sorted, whatever there are three of lies in the middle.
    return np.where(b == c, b, np.where(two_pairs, c, one_pair))


def _sorted(
    a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], d: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Sort four arrays against each other, value by value."""
    a, b = np.minimum(a, b), np.maximum(a, b)
    c, d = np.minimum(c, d), np.maximum(c, d)
    a, c = np.minimum(a, c), np.maximum(a, c)
    b, d = np.minimum(b, d), np.maximum(b, d)
    return a, np.minimum(b, c), np.maximum(b, c), d


def blocks_of(shape: Sequence[int], unit: Sequence[int]) -> Iterator[Box]:
    """Cut an array into its write units, in row-major order."""
    ranges = [range(0, size, step) for size, step in zip(shape, unit, strict=True)]
    for corner in product(*ranges):
        yield tuple(
            (start, min(start + step, size))
            for start, step, size in zip(corner, unit, shape, strict=True)
        )
