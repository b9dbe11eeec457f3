"""Numbers as unsigned integers in the same order, so that they can be sorted digit by digit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.errors import InvalidInputError

__all__ = ["from_keys", "key_dtype", "read_dtype", "to_keys"]


def read_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype in native byte order.

    Raises
    ------
    InvalidInputError
        If its values have no keys: only bools, integers and floats of up to 64 bits do.
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native.kind not in "buif" or native.itemsize > 8:
        raise InvalidInputError(f"quantiles are of bools, integers or floats, not of {native}")
    return native


def key_dtype(dtype: np.dtype[Any]) -> np.dtype[np.unsignedinteger[Any]]:
    """Unsigned integer of the same size."""
    return np.dtype(f"u{dtype.itemsize}")


def to_keys(values: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Keys of values without NaN; -0.0 and 0.0 have the same.

    Integers with a sign get their sign bit flipped. IEEE 754 floats are ordered like integers that
    store their sign apart, so negative ones have all bits flipped and others the sign bit.
    """
    kind = key_dtype(values.dtype)
    if values.dtype.kind == "f":
        # Adding zero turns -0.0 into 0.0, which is the same number.
        bits = (values + values.dtype.type(0)).view(kind)
        negative = kind.type(0) - (bits >> kind.type(8 * kind.itemsize - 1))
        return bits ^ (negative | _sign_bit(kind))
    bits = np.ascontiguousarray(values).view(kind)
    return bits ^ _sign_bit(kind) if values.dtype.kind == "i" else bits


def from_keys(keys: NDArray[np.unsignedinteger[Any]], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Values of keys, as float64."""
    kind = key_dtype(dtype)
    bits = keys.astype(kind)
    sign = _sign_bit(kind)
    if dtype.kind == "f":
        bits = np.where(bits & sign, bits ^ sign, ~bits)
    elif dtype.kind == "i":
        bits = bits ^ sign
    return bits.view(dtype).astype(np.float64)


def _sign_bit(kind: np.dtype[np.unsignedinteger[Any]]) -> np.unsignedinteger[Any]:
    return kind.type(1 << (8 * kind.itemsize - 1))
