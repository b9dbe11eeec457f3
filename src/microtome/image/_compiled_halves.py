"""Halving in one pass, compiled: the same pixels as without.

Imported only where enough is halved that it pays.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from microtome.storage import jit

__all__ = ["halve_quads"]

_types: Any = import_module("numba.core.types")


def _halve_small(pixels: Any, out: Any, width: int) -> None:
    for y in range(len(out)):
        upper, lower, to = pixels[2 * y], pixels[2 * y + 1], out[y]
        for x in range(width):
            total = np.int32(upper[2 * x]) + np.int32(upper[2 * x + 1])
            total += np.int32(lower[2 * x]) + np.int32(lower[2 * x + 1])
            # Halves go up: floor((s + 2) / 4) == floor(s / 4 + 1 / 2).
            to[x] = (np.int32(total) + np.int32(2)) >> np.int32(2)


def _halve_large(pixels: Any, out: Any, width: int) -> None:
    for y in range(len(out)):
        upper, lower, to = pixels[2 * y], pixels[2 * y + 1], out[y]
        for x in range(width):
            total = np.int64(upper[2 * x]) + np.int64(upper[2 * x + 1])
            total += np.int64(lower[2 * x]) + np.int64(lower[2 * x + 1])
            to[x] = (total + 2) >> 2


def _halve_real(pixels: Any, out: Any, width: int) -> None:
    for y in range(len(out)):
        upper, lower, to = pixels[2 * y], pixels[2 * y + 1], out[y]
        for x in range(width):
            # In the order and the precision of NumPy's, so that no bit is another.
            total = 0.0 + np.float64(upper[2 * x]) * 0.25
            total += np.float64(upper[2 * x + 1]) * 0.25
            total += np.float64(lower[2 * x]) * 0.25
            total += np.float64(lower[2 * x + 1]) * 0.25
            to[x] = np.float32(total)


def _compiled(function: Any, *names: str) -> Any:
    planes = [
        [_types.Array(getattr(_types, name), 2, "C", readonly=fixed) for fixed in (False, True)]
        for name in names
    ]
    # Of what is read, either: a file that is mapped may not be written.
    signatures = [
        _types.void(source, usual, _types.int64)
        for usual, fixed in planes
        for source in (usual, fixed)
    ]
    return jit(function, signatures, error_model="numpy")


_SMALL = _compiled(_halve_small, "uint8", "int8", "uint16", "int16")
_LARGE = _compiled(_halve_large, "uint32", "int32")
_REAL = _compiled(_halve_real, "float32")


def halve_quads(pixels: Any, out: Any) -> None:
    """Average 2 x 2 blocks of a plane.

    Parameters
    ----------
    pixels
        (2 Y, 2 X) of integers of at most four bytes, or float32, each row without gaps.
    out
        (Y, X) of the same type, each row without gaps; integers are rounded half up.
    """
    width = out.shape[-1]
    call = _REAL if out.dtype.kind == "f" else _LARGE if out.itemsize > 2 else _SMALL
    call(_whole_rows(pixels), _whole_rows(out), width)


def _whole_rows(plane: Any) -> Any:
    """Return the plane with what lies between its rows: to compiled code, memory without gaps.

    Behind the last row this ends where nothing may be; only the pixels of the plane are touched.
    """
    pitch = plane.strides[0]
    if plane.flags.c_contiguous:
        return plane
    return np.lib.stride_tricks.as_strided(
        plane, (len(plane), pitch // plane.itemsize), (pitch, plane.itemsize)
    )
