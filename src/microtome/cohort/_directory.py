"""Where a cohort lies that is known by its name."""

from __future__ import annotations

import os
from pathlib import Path

from microtome.errors import NotFoundError
from microtome.storage import Place, StorePath, is_address, spelled

__all__ = ["cohort_directory"]


def cohort_directory(
    name: str,
    path: str | os.PathLike[str] | Place | StorePath | None,
    *,
    among: str | os.PathLike[str] | None = None,
    said_by: str = "path=",
) -> str | os.PathLike[str] | Place | StorePath:
    """Return where a cohort lies.

    Parameters
    ----------
    name
        Its name.
    path
        Its directory or address, where that is known.
    among
        The directory or address of all cohorts; by default what SPORA_DATASETS_DIR says.
    said_by
        What the caller may be given that says so, for the message.

    Raises
    ------
    NotFoundError
        If neither says so, nor SPORA_DATASETS_DIR.
    """
    if path is not None:
        return path
    root = among if among is not None else os.environ.get("SPORA_DATASETS_DIR")
    if not root:
        msg = f"where is cohort {name!r}? Give {said_by}, or name the folder of all cohorts in SPORA_DATASETS_DIR"
        raise NotFoundError(msg)
    return f"{spelled(root).rstrip('/')}/{name}" if is_address(root) else Path(root) / name
