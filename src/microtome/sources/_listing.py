"""What lies in a directory: files of a format, and tables beside them."""

from __future__ import annotations

import csv
from pathlib import Path

from microtome.errors import FormatError, StorageError

__all__ = ["is_dicom_file", "rows_of", "stem_of", "tiffs_in"]

_TIFFS = (".tif", ".tiff")

# A panel of a hundred channels takes a few kB.
_LARGEST_TABLE = 1 << 26


def tiffs_in(folder: Path) -> list[Path]:
    """Return the TIFF files in a folder, sorted by name; hidden ones are a system's own."""
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.name.lower().endswith(_TIFFS) and not path.name.startswith(".")
        ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        msg = f"{folder} cannot be listed: {error.strerror}"
        raise StorageError(msg) from error
    return sorted(path for path in found if path.is_file())


def is_dicom_file(path: Path) -> bool:
    """Whether a path is a DICOM file: what it is stands after 128 bytes that say nothing."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def stem_of(path: Path) -> str:
    """Return the name of a TIFF without its ending.

    >>> stem_of(Path("a.b.ome.tif")), stem_of(Path("CD3.tiff"))
    ('a.b', 'CD3')
    """
    return path.name.rpartition(".")[0].removesuffix(".ome")


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, [] where there is no file.

    Raises
    ------
    FormatError
        If it is no table.
    """
    if not path.is_file():
        return []
    if path.stat().st_size > _LARGEST_TABLE:
        msg = (
            f"{path} takes {path.stat().st_size} bytes, too many for a table of channels or images"
        )
        raise FormatError(msg)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeError) as error:
        msg = f"{path} is no table: {error}"
        raise FormatError(msg) from error
    if any(None in row or None in row.values() for row in rows):
        msg = f"{path}: some of its rows are longer or shorter than its first line"
        raise FormatError(msg)
    return rows
