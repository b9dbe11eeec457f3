"""A table of which channel of which cohort has which common name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from microtome.errors import FormatError, NotFoundError

from ._rows import read_rows, read_table

__all__ = ["NameTable", "read_name_table"]

NameTable = Mapping[str, Mapping[str, str]]
"""``{cohort: {name in its panel: common name}}``."""

_COLUMNS = ("cohort", "channel_name", "common_name")


def read_name_table(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """Read a table of common names.

    Parameters
    ----------
    path
        CSV, TSV or parquet with the columns cohort, channel_name and common_name; a row without a
        common name leaves the channel out.

    Raises
    ------
    NotFoundError
        If there is no file.
    FormatError
        If a column or a cell is missing, or a channel of a cohort has two rows.
    """
    file = Path(path)
    if not file.is_file():
        msg = (
            f"by={str(path)!r} is neither 'uniprot' nor 'name', and there is no such file of names"
        )
        raise NotFoundError(msg)
    if file.suffix.lower() == ".parquet":
        table = read_table(file)
        columns, records = tuple(table.column_names), table.to_pylist()
        lines = list(range(1, len(records) + 1))
    else:
        rows = read_rows(file)
        columns, records, lines = rows.columns, rows.records, rows.lines
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        msg = f"{file} lacks the columns {missing}; it has {list(columns)}"
        raise FormatError(msg)
    names: dict[str, dict[str, str]] = {}
    for line, record in zip(lines, records, strict=True):
        cohort, channel, common = (record[name] for name in _COLUMNS)
        if not cohort or not channel:
            msg = f"{file}, row {line}: cohort and channel_name must not be empty, got {record}"
            raise FormatError(msg)
        own = names.setdefault(str(cohort), {})
        if str(channel) in own:
            msg = f"{file}, row {line}: channel {channel!r} of {cohort!r} is there twice"
            raise FormatError(msg)
        own[str(channel)] = str(common or "")
    return names
