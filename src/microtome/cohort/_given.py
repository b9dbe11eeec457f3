"""Tables that people bring: CSV with types read strictly, parquet, or any Arrow table in memory.

A spreadsheet's `007` is a name and not a number, `12E4` a specimen and not 120000. What could be
either is text, and a column is of numbers only if every cell of it is one.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from microtome.errors import FormatError, InvalidInputError, NotFoundError

from ._tables import read_parquet

__all__ = ["as_type", "read_given"]

_log = logging.getLogger(__name__)

# What stands for "no value" in a text file; a parquet file says so itself.
NO_VALUE = ("", "NA", "N/A", "NaN", "nan", "null")

_WHOLE = r"(0|[1-9][0-9]*)"
_INTEGER = rf"^[+-]?{_WHOLE}$"
# An exponent needs a point or a sign: 12E4 is more often a name than a number.
_FLOAT = (
    rf"^[+-]?({_WHOLE}(\.[0-9]*([eE][+-]?[0-9]+)?)?|\.[0-9]+([eE][+-]?[0-9]+)?"
    rf"|{_WHOLE}[eE][+-][0-9]+)$"
)
# What other programs write for a division by nothing; only in a column of numbers, or it is a name.
_INFINITE = r"^[+-]?([iI]nf|INF|[iI]nfinity)$"
_BOOLEAN = r"^(true|false|True|False|TRUE|FALSE)$"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
# What stands between columns where the right one stands in no line of names. Spreadsheets write
# semicolons where a comma is the decimal point.
_OTHERS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}
_DECIMAL_COMMA = r"^[+-]?[0-9]+(,[0-9]+)?$"


def read_given(source: Any, *, text: Collection[str] = (), what: str = "the table") -> pa.Table:
    """Read a table that somebody brings.

    Parameters
    ----------
    source
        A `.csv`, `.tsv` or `.parquet` file, a mapping of columns, or anything with Arrow's stream
        interface: a table of pyarrow, pandas or polars.
    text
        Columns that hold text whatever it looks like: ids above all.
    what
        What it is, for messages.

    Returns
    -------
    Columns of text, integers, floats, booleans or dates; NaN and empty cells are null, and a
    column without any value is text. A text file whose line of names is separated by semicolons,
    tabs, commas or bars instead of what its ending says is read by them, and the log says so.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is damaged: rows of different lengths, columns of one name or of none, objects in a
        column, or decimal commas.
    InvalidInputError
        If it is nothing that can be read as a table.
    """
    if isinstance(source, str | os.PathLike):
        path, place = Path(source), str(source)
        if path.suffix.lower() in _DELIMITERS:
            table = _read_text(path, text)
        elif path.suffix.lower() == ".parquet":
            table = read_parquet(path, [])
        else:
            msg = f"{path} must be a .csv, .tsv or .parquet file"
            raise InvalidInputError(msg)
    else:
        place, table = what, _from_memory(source, what)
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        msg = f"{place}: columns {twice} are there more than once"
        raise FormatError(msg)
    if any(not name.strip() for name in table.column_names):
        msg = f"{place}: every column needs a name, got {table.column_names}"
        raise FormatError(msg)
    columns = {
        name: _plain(table[name], name, place, as_text=name in text) for name in table.column_names
    }
    return pa.table(columns)


def _from_memory(source: Any, what: str) -> pa.Table:
    if isinstance(source, pa.Table):
        return source
    if not (isinstance(source, Mapping) or hasattr(source, "__arrow_c_stream__")):
        msg = f"{what} must be a file, a mapping of columns or an Arrow table, got {type(source).__name__}"
        raise InvalidInputError(msg)
    try:
        return pa.table(source)
    except (pa.ArrowException, TypeError, ValueError) as error:
        msg = f"{what} cannot be read as a table: {error}"
        raise InvalidInputError(msg) from error


def _read_text(path: Path, text: Collection[str]) -> pa.Table:
    if not path.is_file():
        msg = f"{path} does not exist"
        raise NotFoundError(msg)
    delimiter = _DELIMITERS[path.suffix.lower()]
    try:
        delimiter, header = _header(path, delimiter)
        if not header or any(not name.strip() for name in header):
            msg = f"{path} must begin with a line of column names, got {header}"
            raise FormatError(msg)
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            msg = f"{path}: columns {twice} are there more than once"
            raise FormatError(msg)
        table = pcsv.read_csv(
            path,
            parse_options=pcsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pcsv.ConvertOptions(
                column_types={name: pa.string() for name in header},
                null_values=list(NO_VALUE),
                strings_can_be_null=True,
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} is not a table of text in UTF-8: {error}"
        raise FormatError(msg) from error
    columns: dict[str, Any] = {}
    for name in table.column_names:
        stripped = pc.utf8_trim_whitespace(table[name])
        empty = pc.equal(stripped, "")
        values = pc.if_else(empty, pa.scalar(None, pa.string()), stripped)
        if delimiter == ";":
            _verify_decimals(values, f"{path}: column {name!r}")
        columns[name] = values if name in text else _typed(values)
    return pa.table(columns)


def _header(path: Path, delimiter: str) -> tuple[str, list[str]]:
    """Return what stands between columns, and their names; says so where the ending says another.

    A line of names with the delimiter of the ending is read by it, whatever else it holds.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file, delimiter=delimiter), [])
        if len(header) != 1:
            return delimiter, header
        for other, words in _OTHERS.items():
            file.seek(0)
            found = next(csv.reader(file, delimiter=other), [])
            if len(found) > 1:
                _log.warning(
                    "%s: its columns %s are separated by %s, not by %s as its ending says; read so",
                    path,
                    found,
                    words,
                    _OTHERS[delimiter],
                )
                return other, found
    return delimiter, header


def _verify_decimals(column: Any, place: str) -> None:
    """Refuse numbers that would be taken for text; names may hold commas, too, but not all of them."""
    given = column.drop_null()
    commas = given.filter(pc.match_substring(given, ","))
    if len(commas) and pc.all(pc.match_substring_regex(given, _DECIMAL_COMMA)).as_py():
        msg = f"{place} writes numbers with a decimal comma, such as {commas[0].as_py()!r}; write them with a point"
        raise FormatError(msg)


def _typed(column: Any) -> Any:
    """Return a column of text as what every one of its values is."""
    if column.null_count == len(column):
        return column
    infinite = pc.match_substring_regex(column, _INFINITE)
    if pc.any(infinite).as_py():
        # Whole numbers beside them are floats, too.
        rest = column.filter(pc.invert(infinite)).drop_null()
        numbers = pc.match_substring_regex(rest, f"{_INTEGER}|{_FLOAT}")
        return (
            _unsigned(column).cast(pa.float64())
            if len(rest) and pc.all(numbers).as_py()
            else column
        )
    for pattern, kind in ((_INTEGER, pa.int64()), (_FLOAT, pa.float64()), (_BOOLEAN, pa.bool_())):
        if pc.all(pc.match_substring_regex(column, pattern)).as_py():
            try:
                return _unsigned(column).cast(kind)
            except pa.ArrowInvalid:  # more digits than an integer of 64 bits holds
                return column
    return column


def _unsigned(column: Any) -> Any:
    # Arrow's parser knows no plus sign.
    return pc.replace_substring_regex(column, r"^\+", "")


def _plain(column: Any, name: str, place: str, *, as_text: bool) -> Any:
    """Return a column in one of the few types that a cohort's tables hold."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.string())
    elif pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
    elif pa.types.is_integer(kind):
        column = _cast(column, pa.int64(), name, place)
    elif not (
        pa.types.is_string(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_temporal(kind)
        or pa.types.is_decimal(kind)
    ):
        msg = f"{place}: column {name!r} holds {kind}; a cohort's tables hold text, numbers, booleans and dates"
        raise FormatError(msg)
    if as_text and not pa.types.is_string(column.type):
        if not pa.types.is_integer(column.type):
            msg = f"{place}: column {name!r} must hold text, got {column.type}"
            raise FormatError(msg)
        column = column.cast(pa.string())
    return column


def _cast(column: Any, kind: pa.DataType, name: str, place: str) -> Any:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        msg = f"{place}: column {name!r} does not fit {kind}: {error}"
        raise FormatError(msg) from error


def as_type(column: Any, kind: pa.DataType) -> Any:
    """Return a column in the type of one that is there, or None where values would change.

    Integers may become floats, and text where that is what is there: a cohort that calls its grades
    "1" and "2" takes them from a spreadsheet of numbers, too.
    """
    own = column.type
    if own == kind:
        return column
    safe: list[Callable[[], bool]] = [
        lambda: column.null_count == len(column),
        lambda: pa.types.is_integer(own) and (_is_number(kind) or _is_text(kind)),
        lambda: pa.types.is_floating(own) and pa.types.is_floating(kind),
        lambda: _is_text(own) and _is_text(kind),
        lambda: pa.types.is_temporal(own) and pa.types.is_temporal(kind),
    ]
    if not any(is_safe() for is_safe in safe):
        return None
    try:
        cast = column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if pa.types.is_integer(own) and pa.types.is_floating(kind):
        same = np.array_equal(
            cast.drop_null().to_numpy().astype(np.float64),
            column.drop_null().to_numpy().astype(np.float64),
        )
        return cast if same else None
    return cast


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
