"""What lies in a directory: files of a format, and tables beside them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from microtome.errors import FormatError, StorageError

__all__ = ["Rows", "is_dicom_file", "named_by_stem", "rows_of", "stem_of", "tiffs_in"]

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


def named_by_stem(files: Sequence[Path]) -> dict[str, Path]:
    """Return files by their stems; those that share one by their whole names, so that none is lost.

    >>> list(named_by_stem([Path("a.ome.tif"), Path("a.tif"), Path("b.tif")]))
    ['a.ome.tif', 'a.tif', 'b']
    """
    stems = Counter(stem_of(file) for file in files)
    return {file.name if stems[stem_of(file)] > 1 else stem_of(file): file for file in files}


@dataclass(frozen=True, slots=True)
class Rows:
    """A table as text.

    Parameters
    ----------
    path
        Its file.
    columns
        Their names.
    records
        The rows, each by column; a cell that says nothing is "".
    lines
        Of each row the line in the file where it ends, from 1.
    """

    path: Path
    columns: tuple[str, ...] = ()
    records: tuple[dict[str, str], ...] = ()
    lines: tuple[int, ...] = ()

    def require(self, columns: Sequence[str]) -> None:
        """Refuse a table that has none of some columns.

        Raises
        ------
        FormatError
            If it has none of them.
        """
        if not set(columns) & set(self.columns):
            wanted = " or ".join(repr(column) for column in columns)
            own = ", ".join(repr(column) for column in self.columns) or "none"
            msg = f"{self.path} has no column {wanted}; it has {own}"
            raise FormatError(msg)


def rows_of(path: Path) -> Rows:
    """Return the rows of a CSV file, none where there is no file.

    As steinbock does it reads semicolons too, and tabs; lines of empty cells, and empty columns at the
    end, are what spreadsheets leave behind.

    Raises
    ------
    FormatError
        If it is no table.
    """
    if not path.is_file():
        return Rows(path)
    if path.stat().st_size > _LARGEST_TABLE:
        msg = (
            f"{path} takes {path.stat().st_size} bytes, too many for a table of channels or images"
        )
        raise FormatError(msg)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            msg = f"{path} is no table: it is no UTF-8 text; save it as CSV UTF-8"
            raise FormatError(msg)
        head = next((line for line in text.splitlines() if line.strip()), "")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
        found = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except UnicodeError as error:
        msg = f"{path} is no table: it is no UTF-8 text ({error}); save it as CSV UTF-8"
        raise FormatError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise StorageError(msg) from error
    except csv.Error as error:
        msg = f"{path} is no table: {error}"
        raise FormatError(msg) from error
    found = [(line, cells) for line, cells in found if any(cells)]
    if not found:
        return Rows(path)
    (_, columns), *body = found
    while not columns[-1]:
        columns.pop()
    twice = sorted(name for name, count in Counter(columns).items() if count > 1)
    if twice:
        msg = f"{path} has several columns called {', '.join(map(repr, twice))}; leave one of each"
        raise FormatError(msg)
    for line, cells in body:
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            msg = (
                f"{path}: some of its rows are longer or shorter than its first line; line {line} "
                f"has {len(cells)} cells, the first {len(columns)}"
            )
            raise FormatError(msg)
    records = tuple(dict(zip(columns, cells, strict=False)) for _, cells in body)
    return Rows(path, tuple(columns), records, tuple(line for line, _ in body))
