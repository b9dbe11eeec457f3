"""What killed writers of files left beside them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["sweep", "sweep_all"]


def sweep(target: Path) -> None:
    """Remove what killed writers of a file left beside it; under the lock that they held."""
    _remove_partial(target.parent, f".{target.name}.")


def sweep_all(directory: Path) -> None:
    """Remove what killed writers of files left in a directory; under the lock that they held."""
    _remove_partial(directory, ".")


def _remove_partial(directory: Path, beginning: str) -> None:
    # No glob: a name may hold [, * or ?.
    for entry in directory.iterdir() if directory.is_dir() else ():
        if entry.name.startswith(beginning) and entry.name.endswith(".partial"):
            entry.unlink(missing_ok=True)
