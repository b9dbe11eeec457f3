"""The cache on disk that the environment names: for the command line, and programs that say nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from decimal import Decimal

from microtome.errors import InvalidInputError

from ._disk_cache import DiskCache

__all__ = ["DISK_CACHE", "DISK_CACHE_LIMIT", "disk_cache_stated"]

DISK_CACHE, DISK_CACHE_LIMIT = "MICROTOME_DISK_CACHE", "MICROTOME_DISK_CACHE_LIMIT"

_USUAL = 10 * 2**30
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B?|B)?", re.IGNORECASE | re.ASCII)


def disk_cache_stated(environment: Mapping[str, str] | None = None) -> DiskCache | None:
    """Return the cache on disk that the environment names, None where it names none.

    Parameters
    ----------
    environment
        Variables by name; by default those of this process. ``MICROTOME_DISK_CACHE`` is a directory,
        ``MICROTOME_DISK_CACHE_LIMIT`` how much it takes at most: ``50GiB``, ``500 MB``, or bytes; 10 GiB
        where it is not given.

    Raises
    ------
    InvalidInputError
        If the limit is no such size, or given without a directory.
    """
    told = os.environ if environment is None else environment
    directory, limit = told.get(DISK_CACHE), told.get(DISK_CACHE_LIMIT)
    if not directory:
        if limit:
            msg = (
                f"{DISK_CACHE_LIMIT} is {limit!r}, and {DISK_CACHE} names no directory; set it to "
                "the one where bytes of remote images are kept, or neither"
            )
            raise InvalidInputError(msg)
        return None
    try:
        return DiskCache(directory, _bytes_of(limit) if limit else _USUAL)
    except InvalidInputError as error:
        msg = f"{DISK_CACHE}={directory}, {DISK_CACHE_LIMIT}={limit}: {error}"
        raise InvalidInputError(msg) from error


def _bytes_of(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        msg = (
            f"a size is a number and a unit, as 50GiB or 500MB, or a number of bytes, got {text!r}"
        )
        raise InvalidInputError(msg)
    number, unit, binary = found.groups()
    power = 0 if unit is None else "KMGT".index(unit.upper()) + 1
    return int(Decimal(number) * (1024 if binary else 1000) ** power)
