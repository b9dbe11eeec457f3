"""What stands before the pixels of an array that numpy saved, in a file of its own or in an archive."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

__all__ = ["npy_header"]

# NumPy reads a header as a Python literal. Python 3.11 counts how deep these nest for all threads
# together, and now and then tells one of them that another's count is wrong (SystemError).
_TRIES = 4


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape of an array, whether it lies in Fortran's order, and its type.

    Whatever numpy trips over where there is none is raised as it is.

    Parameters
    ----------
    file
        Where the array begins; afterwards, where its pixels do.
    """
    start = file.tell()
    left = _TRIES
    while True:
        left -= 1
        try:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            return read(file)
        except SystemError:
            if not left:
                raise
            file.seek(start)
