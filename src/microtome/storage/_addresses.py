"""Addresses of stores as text: told from paths, and refused where something is written to a disk here."""

from __future__ import annotations

import os
import re
from pathlib import Path

from microtome.errors import InvalidInputError

__all__ = ["is_address", "spelled", "verify_here"]

_LOST = re.compile(r"((?:s3|gs|https?):)/([^/].*)", re.DOTALL)


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a text is the address of a store, and not a path; one letter is a drive."""
    scheme, _, rest = spelled(path).partition("://")
    return bool(rest) and len(scheme) > 1 and "/" not in scheme


def spelled(path: str | os.PathLike[str]) -> str:
    """Return a path or address as text; a `Path` made of an address has lost a slash, and gets it back."""
    text = os.fspath(path)
    lost = None if isinstance(path, str) else _LOST.fullmatch(text)
    # A directory here may be called so, and is then meant.
    return text if lost is None or Path(lost[1]).exists() else f"{lost[1]}//{lost[2]}"


def verify_here(path: str | os.PathLike[str]) -> None:
    """Refuse an address where a file or directory is to be written, which would be called so here.

    Raises
    ------
    InvalidInputError
        If it is one.
    """
    text = spelled(path)
    if is_address(text):
        msg = f"{text} is an address, and this is written to a disk here: write it here and copy it there"
        raise InvalidInputError(msg)
