"""Panels as other tools write them: steinbock, MCMICRO, OME-XML, and tables of ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from microtome.errors import FormatError, InvalidInputError

from ._names import metal_tag
from ._ome_xml import read_ome_xml
from ._panel import Panel, panel_of_rows
from ._rows import Rows, read_rows, read_table, to_flag, verify_file

__all__ = ["PanelFormat", "read_panel"]

PanelFormat = Literal["steinbock", "imc_pipeline", "mcmicro", "ome_xml", "table"]
"""`steinbock`: panel.csv. `imc_pipeline`: the panel of the ImcSegmentationPipeline. `mcmicro`:
markers.csv. `ome_xml`: OME-XML, in a file of its own or in an OME-TIFF. `table`: the columns of a
cohort's channels.parquet, as CSV, TSV or parquet."""

_OME_ENDINGS = (".xml", ".ome", ".tif", ".tiff", ".btf", ".tf2", ".tf8")


def read_panel(path: str | os.PathLike[str], format: PanelFormat | None = None) -> Panel:  # noqa: A002 - the word for it
    """Read a panel from a file.

    Every row becomes a channel, those too that the file marks as not to be kept: they have `qc_pass`
    False, and what the file said in `extra`. Columns of the file that are not ours are in `extra`
    under their own names. A column ``uniprot_id``, ``qc_pass`` or ``is_nuclear_marker`` that somebody
    added to another tool's file is read as ours.

    Parameters
    ----------
    path
        The file.
    format
        What it is; by default told by its ending and its columns. What each becomes:

        ``"steinbock"``
            ``name`` (``channel`` where it is empty, which steinbock allows where keep is 0) is the
            name, ``channel`` the ``tag``; ``keep`` 0 is `qc_pass` False, 1 True; DeepCell's first
            group, which Mesmer takes for nuclei, is `is_nuclear_marker` True.
        ``"imc_pipeline"``
            ``Target`` (``Metal Tag`` where it is empty) is the name, ``Metal Tag`` the ``tag``,
            ``full`` what ``keep`` is to steinbock.
        ``"mcmicro"``
            ``marker_name`` is the name, ``Filter`` the ``tag``, ``cycle_number`` or ``cycle`` the
            ``cycle``, ``exposure`` a number; ``remove`` TRUE is `qc_pass` False, FALSE True.
        ``"ome_xml"``
            ``Name`` (``Fluor`` where it has none) is the name, ``Fluor`` the ``tag``,
            ``ExposureTime`` of the channel's first plane the ``exposure``.
        ``"table"``
            As `Panel.from_table`.

    Raises
    ------
    InvalidInputError
        If the format is unknown.
    NotFoundError
        If there is no file.
    FormatError
        If the file is damaged, is of no format that is known, or breaks a rule; the row is named.
    """
    file = Path(path)
    if format is not None and format not in get_args(PanelFormat):
        msg = f"format must be one of {get_args(PanelFormat)}, got {format!r}"
        raise InvalidInputError(msg)
    verify_file(file)
    ending = file.suffix.lower()
    if format == "ome_xml" or (format is None and ending in _OME_ENDINGS):
        return read_ome_xml(file)
    if ending == ".parquet":
        if format not in {None, "table"}:
            msg = f"{file} is a parquet file, which {format} does not write; it can be a 'table'"
            raise InvalidInputError(msg)
        return Panel.from_table(read_table(file), where=file)
    rows = read_rows(file)
    chosen = format or _told(rows)
    missing = [column for column in _NEEDED[chosen] if column not in rows.columns]
    if missing:
        msg = f"{file} is no {chosen} panel: it lacks {missing}; it has {list(rows.columns)}"
        raise FormatError(msg)
    return _panel(rows, _READERS[chosen])


_Row = dict[str, Any]
_TABLE_FLAGS = ("qc_pass", "is_nuclear_marker")
_NEEDED: dict[str, tuple[str, ...]] = {
    "table": ("channel_name",),
    "steinbock": ("channel", "name"),
    "imc_pipeline": ("Metal Tag", "Target"),
    "mcmicro": ("marker_name",),
}


def _told(rows: Rows) -> str:
    """Return the format that the columns tell."""
    found = [name for name, needed in _NEEDED.items() if set(needed) <= set(rows.columns)]
    if len(found) != 1:
        msg = (
            f"{rows.path} has the columns {list(rows.columns)}, by which it is "
            f"{' or '.join(found) or 'no panel that is known'}; a panel has "
            + ", or ".join(f"{', '.join(needed)} ({name})" for name, needed in _NEEDED.items())
            + ". Say which with format= (--format)"
        )
        raise FormatError(msg)
    return found[0]


def _panel(rows: Rows, reader: Callable[[Mapping[str, str | None], str], _Row]) -> Panel:
    read: list[_Row] = []
    for line, record in zip(rows.lines, rows.records, strict=True):
        where = f"{rows.path}, line {line}"
        read.append(_completed(reader(record, where), record, where))
    if reader is _mcmicro:
        _verify_order(rows)
    return panel_of_rows(read, rows.path)


def _completed(row: _Row, record: Mapping[str, str | None], where: str) -> _Row:
    """Add the columns of ours that a person has put into another tool's file."""
    passed, nuclear = (
        to_flag(record.get(column), column=column, where=where) for column in _TABLE_FLAGS
    )
    # A channel passes where both say so; what it shows the column of that name knows best.
    if passed is not None and row.get("qc_pass") is not False:
        row["qc_pass"] = passed
    if nuclear is not None:
        row["is_nuclear_marker"] = nuclear
    index = _number(record.get("index"), "index", where)
    if index is None:
        return row
    return {**row, "index": int(index) if index.is_integer() else index}


def _rest(record: Mapping[str, str | None], read: set[str]) -> _Row:
    """Return the columns that a format does not know, `uniprot_id` among them."""
    others = set(_TABLE_FLAGS) | {"channel_name", "index", *read}
    rest: _Row = {key: value for key, value in record.items() if key not in others}
    if "channel_name" not in read and record.get("channel_name"):
        rest["original_channel_name"] = record["channel_name"]
    return rest


def _table(record: Mapping[str, str | None], _where: str) -> _Row:
    return {"channel_name": record["channel_name"], **_rest(record, {"channel_name"})}


def _steinbock(record: Mapping[str, str | None], where: str) -> _Row:
    channel = record["channel"]
    if not channel:
        msg = f"{where}: channel is empty; steinbock needs one, such as the metal"
        raise FormatError(msg)
    keep = to_flag(record.get("keep"), column="keep", where=where)
    if not record["name"] and keep is not False:
        msg = f"{where}: name is empty, which is allowed only where keep is 0"
        raise FormatError(msg)
    rest = _rest(record, {"channel", "name", "keep"})
    row: _Row = {"channel_name": record["name"] or channel, "qc_pass": keep}
    group = _number(record.get("deepcell"), "deepcell", where)
    if "deepcell" in record:
        row["is_nuclear_marker"] = group == 1
    kept = {} if keep is None else {"keep": keep}
    return {**row, "tag": metal_tag(channel) or channel, **kept, **rest}


def _imc_pipeline(record: Mapping[str, str | None], where: str) -> _Row:
    names = {"Metal Tag": "channel", "Target": "name", "full": "keep"}
    return _steinbock({names.get(key, key): value for key, value in record.items()}, where)


def _mcmicro(record: Mapping[str, str | None], where: str) -> _Row:
    own = {"marker_name", "Filter", "filter", "cycle_number", "cycle", "exposure", "channel_number"}
    row: _Row = {"channel_name": record["marker_name"]}
    removed = to_flag(record.get("remove"), column="remove", where=where)
    if removed is not None:
        row["qc_pass"] = not removed
    tag = record.get("Filter") or record.get("filter")
    cycle = record.get("cycle_number") or record.get("cycle")
    known = {
        "tag": tag,
        "cycle": cycle,
        "exposure": _number(record.get("exposure"), "exposure", where),
    }
    row |= {key: value for key, value in known.items() if value is not None}
    return {**row, **_rest(record, own)}


def _verify_order(rows: Rows) -> None:
    """Refuse rows whose numbers contradict their order: an image has its channels in only one."""
    last = 0.0
    for line, record in zip(rows.lines, rows.records, strict=True):
        number = _number(
            record.get("channel_number"), "channel_number", f"{rows.path}, line {line}"
        )
        if number is not None and number <= last:
            msg = (
                f"{rows.path}, line {line}: channel_number {number:g} does not follow {last:g}; sort the "
                "rows in the order of the image's channels"
            )
            raise FormatError(msg)
        last = last if number is None else number


def _number(text: str | None, column: str, where: str) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        msg = f"{where}: {column} must be a number or empty, got {text!r}"
        raise FormatError(msg) from None


_READERS: dict[str, Callable[[Mapping[str, str | None], str], _Row]] = {
    "table": _table,
    "steinbock": _steinbock,
    "imc_pipeline": _imc_pipeline,
    "mcmicro": _mcmicro,
}
