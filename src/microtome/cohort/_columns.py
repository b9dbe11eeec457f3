"""What columns of a cohort's tables must be for anybody to read them: each refused in words."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from microtome.errors import FormatError

__all__ = ["verify_filled", "verify_flat", "verify_named_once", "verify_text"]


def verify_named_once(table: pa.Table, path: Path) -> None:
    """Refuse a table with two columns of one name: nobody can say which is meant.

    Raises
    ------
    FormatError
        If it has.
    """
    names = table.column_names
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        msg = f"{path} has the columns {twice} more than once; rename or remove all but one"
        raise FormatError(msg)


def verify_flat(table: pa.Table, name: str, path: Path) -> None:
    """Refuse a column of lists or structures, which is no key.

    Raises
    ------
    FormatError
        If it is one.
    """
    kind = table.schema.field(name).type
    if pa.types.is_nested(kind):
        msg = f"{path}: column {name!r} must hold a value in each row, got {kind}"
        raise FormatError(msg)


def verify_filled(table: pa.Table, name: str, path: Path) -> None:
    """Refuse a column that lacks a value.

    Raises
    ------
    FormatError
        If it does; names the first row, counted from 1.
    """
    if table[name].null_count:
        row = int(table[name].is_null().to_numpy().argmax()) + 1
        msg = f"{path}: row {row} has no {name}; fill it in, or remove the row"
        raise FormatError(msg)


def verify_text(table: pa.Table, name: str, path: Path) -> None:
    """Refuse a column that holds anything but text.

    Raises
    ------
    FormatError
        If it does.
    """
    kind = table.schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    of = pa.types
    # A column without any value has no type.
    if not any(
        is_a(kind) for is_a in (of.is_string, of.is_large_string, of.is_string_view, of.is_null)
    ):
        msg = f"{path}: column {name!r} must hold text, got {kind}"
        raise FormatError(msg)
