"""Rows of a table that a person or another tool wrote: CSV, TSV or parquet."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from microtome.errors import FormatError, NotFoundError

__all__ = ["Rows", "read_rows", "read_table", "to_flag"]

_FLAGS = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "t", "y"), True),
    **dict.fromkeys(("0", "0.0", "false", "no", "f", "n"), False),
}
# How pandas, R and people write that there is nothing.
_NOTHING = {"", "na", "nan", "n/a", "none", "null", "<na>"}


@dataclass(frozen=True, slots=True)
class Rows:
    """The text of a delimited file.

    Parameters
    ----------
    path
        The file.
    columns
        Names of its columns.
    records
        Each row as text by column, None where a cell says nothing.
    lines
        Number of each row's line in the file, from 1.
    """

    path: Path
    columns: tuple[str, ...]
    records: list[dict[str, str | None]]
    lines: list[int]


def read_rows(path: Path) -> Rows:
    """Read a delimited file: commas, semicolons or tabs, whichever its first line has most.

    Raises
    ------
    NotFoundError
        If there is no file.
    FormatError
        If it is no UTF-8 text, has no header, a column twice or without a name, or a row with more or
        fewer cells than columns.
    """
    verify_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path} is no UTF-8 text: {error}; save it as CSV UTF-8"
        raise FormatError(msg) from error
    header = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(",;\t", key=header.count)
    # Not splitlines, which would also break lines where only Unicode sees an end of one.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend(
            (reader.line_num, [cell.strip() for cell in cells])
            for cells in reader
            if any(cell.strip() for cell in cells)
        )
    except csv.Error as error:
        msg = f"{path}, line {reader.line_num}: {error}"
        raise FormatError(msg) from error
    if not rows:
        msg = f"{path} is empty; it needs a line with the names of its columns"
        raise FormatError(msg)
    (_, columns), *body = rows
    # What pandas writes of its index has no name; a second such column would be a mistake.
    if len(set(columns)) != len(columns):
        msg = f"{path} has columns of the same name, or several without: {columns}"
        raise FormatError(msg)
    for line, cells in body:
        if len(cells) != len(columns):
            msg = f"{path}, line {line}: {len(cells)} cells, but there are {len(columns)} columns {columns}"
            raise FormatError(msg)
    records = [
        {
            column: None if cell.lower() in _NOTHING else cell
            for column, cell in zip(columns, cells, strict=True)
            if column
        }
        for _, cells in body
    ]
    return Rows(path, tuple(c for c in columns if c), records, [line for line, _ in body])


def read_table(path: Path) -> pa.Table:
    """Read a parquet file.

    Raises
    ------
    NotFoundError
        If there is no file.
    FormatError
        If it is no parquet file.
    """
    verify_file(path)
    try:
        # One handle: `pq.read_table` opens a path twice, and a writer may replace the file between.
        with path.open("rb") as file:
            return pq.ParquetFile(file).read()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        msg = f"{path} is not a parquet file that can be read: {error}"
        raise FormatError(msg) from error


def verify_file(path: Path) -> None:
    """Refuse a path without a file.

    Raises
    ------
    NotFoundError
        If there is no file.
    """
    if not path.is_file():
        msg = f"{path} is no file" if path.exists() else f"{path} does not exist"
        raise NotFoundError(msg)


def to_flag(text: Any, *, column: str, where: str) -> bool | None:
    """Return a cell that says yes or no, None where it says nothing.

    Raises
    ------
    FormatError
        If it says something else.
    """
    if text is None or isinstance(text, bool):
        return text
    flag = _FLAGS.get(str(text).lower())
    if flag is None:
        msg = f"{where}: {column} must be 1, 0, true, false or empty, got {text!r}"
        raise FormatError(msg)
    return flag
