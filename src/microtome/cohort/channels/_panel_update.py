"""Fill in what is known of a cohort's channels from a panel's file."""

from __future__ import annotations

import logging
import os
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality
from microtome.cohort._panels import PANEL_SCHEMA, panel
from microtome.cohort._tables import write_parquet
from microtome.errors import InvalidInputError
from microtome.panels import (
    Channel,
    Panel,
    PanelFormat,
    metal_tag,
    name_key,
    parse_channel_name,
    read_panel,
)
from microtome.storage import locked

from ._panel_states import panel_modality

__all__ = ["PanelMatch", "PanelUpdate", "update_panel"]

_log = logging.getLogger(__name__)

_FILLED = ("uniprot_id", "qc_pass", "is_nuclear_marker")


@dataclass(frozen=True, slots=True)
class PanelMatch:
    """What became of a channel of the cohort's panel.

    Parameters
    ----------
    channel
        Its name in the cohort.
    row
        Name of the row that speaks of it; None where none does.
    by
        How it was found: the ``"name"`` as it is, its ``"spelling"`` (case, separators, Greek
        letters, a tag beside it), or its metal ``"tag"``.
    changes
        Old and new value of each column that changed.
    note
        What to look at; empty where there is nothing.
    """

    channel: str
    row: str | None
    by: Literal["name", "spelling", "tag"] | None
    changes: Mapping[str, tuple[Any, Any]]
    note: str

    def __str__(self) -> str:
        if self.row is None:
            return f"{self.channel}: {self.note or 'no row'}"
        told = [f"{column} {old!r} -> {new!r}" for column, (old, new) in self.changes.items()]
        told += [self.note] if self.note else []
        return (
            f"{self.channel}: {self.row} (by {self.by}): {', '.join(told) or 'nothing to change'}"
        )


@dataclass(frozen=True, slots=True)
class PanelUpdate:
    """What `update_panel` did.

    Parameters
    ----------
    matches
        Every channel of the cohort's panel, in order.
    unused
        Rows that no channel of the cohort has.
    """

    matches: tuple[PanelMatch, ...]
    unused: tuple[str, ...]

    @property
    def changed(self) -> int:
        """Number of channels that changed."""
        return sum(bool(match.changes) for match in self.matches)

    def __str__(self) -> str:
        matched = sum(match.row is not None for match in self.matches)
        lines = [f"{matched} of {len(self.matches)} channels matched, {self.changed} changed"]
        lines += [str(match) for match in self.matches]
        if self.unused:
            lines.append(f"not in the cohort's panel: {', '.join(self.unused)}")
        return "\n".join(lines)


def update_panel(
    cohort: str | os.PathLike[str],
    modality: str | Modality | None,
    panel_or_path: Panel | str | os.PathLike[str],
    *,
    format: PanelFormat | None = None,  # noqa: A002 - the word for it
) -> PanelUpdate:
    """Fill accessions, quality control and nuclear markers of a cohort's channels in from a panel.

    Channels are found by name, then by spelling, then by metal tag, each only where exactly one row
    fits exactly one channel. The cohort's channels, their names and their order stay as they are,
    since the images' planes are in that order; what the panel does not say changes nothing.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    modality
        Whose panel; None for the only multiplex one.
    panel_or_path
        A panel, or a file that `microtome.panels.read_panel` reads.
    format
        Of the file; by default told by its ending and columns.

    Returns
    -------
    What was matched, what changed, and which rows no channel has.

    Raises
    ------
    InvalidInputError
        If no row fits any channel, or the modality has no panel.
    NotFoundError, FormatError
        If a file is missing or damaged, or the directory is not a cohort.
    """
    layout = CohortLayout.open(cohort)
    kind = panel_modality(layout, modality)
    given = panel_or_path if isinstance(panel_or_path, Panel) else read_panel(panel_or_path, format)
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        table = panel(layout, kind)
        rows: list[dict[str, Any]] = table.to_pylist()
        pairs, doubts = _pairs(rows, given.channels)
        if not pairs:
            msg = (
                f"no row fits a channel of {kind} in {layout.root}: the cohort has "
                f"{[row['channel_name'] for row in rows]}, the panel {list(given.names)}"
            )
            raise InvalidInputError(msg)
        matches = [
            _match(row, pairs.get(place), doubts.get(place, "")) for place, row in enumerate(rows)
        ]
        if any(match.changes for match in matches):
            write_parquet(_filled(table, matches), layout.channels(kind))
    used = {channel.name for channel, _ in pairs.values()}
    unused = tuple(name for name in given.names if name not in used)
    for match in matches:
        if match.note:
            _log.warning("%s: %s: %s", layout.channels(kind), match.channel, match.note)
    return PanelUpdate(tuple(matches), unused)


_By = Literal["name", "spelling", "tag"]


def _pairs(
    rows: Sequence[Mapping[str, Any]], given: Sequence[Channel]
) -> tuple[dict[int, tuple[Channel, _By]], dict[int, str]]:
    """Find the row of the panel for each channel, by its place in the cohort's, or why none."""
    pairs: dict[int, tuple[Channel, _By]] = {}
    doubts: dict[int, str] = {}
    levels: tuple[tuple[_By, Callable[..., set[str]], Callable[..., bool]], ...] = (
        ("name", _own_names, _meet),
        ("spelling", _spellings, _meet),
        ("tag", _tags, _same_metal),
    )
    for by, marks, same in levels:
        used = {channel.name for channel, _ in pairs.values()}
        theirs = [(c, marks(c.name, c.extra)) for c in given if c.name not in used]
        ours = {
            place: marks(row["channel_name"], row)
            for place, row in enumerate(rows)
            if place not in pairs
        }
        for place, mine in ours.items():
            fits = [(channel, its) for channel, its in theirs if same(mine, its)]
            others = [
                rows[other]["channel_name"]
                for other, marks_of in ours.items()
                if other != place and any(same(marks_of, its) for _, its in fits)
            ]
            if len(fits) == 1 and not others:
                pairs[place] = (fits[0][0], by)
            elif fits:
                names = [channel.name for channel, _ in fits]
                also = f", which {others} may be as well" if others else ""
                doubts.setdefault(place, f"it may be {names} by {by}{also}; none was chosen")
    return pairs, doubts


def _meet(ours: set[str], theirs: set[str]) -> bool:
    return not ours.isdisjoint(theirs)


def _own_names(name: str, columns: Mapping[str, Any]) -> set[str]:
    original = columns.get("original_channel_name")
    return {name, original} if isinstance(original, str) and original.strip() else {name}


def _spellings(name: str, columns: Mapping[str, Any]) -> set[str]:
    names = _own_names(name, columns)
    markers = {parse_channel_name(one).marker for one in names}
    return {name_key(one) for one in names | markers}


def _tags(name: str, columns: Mapping[str, Any]) -> set[str]:
    """Return the metals of a channel, or the masses by which MIBI names know them.

    Dyes are no help: every cycle has the same ones.
    """
    stated = columns.get("tag")
    found = {stated} if isinstance(stated, str) else set[str]()
    found |= {parse_channel_name(one).tag or "" for one in _own_names(name, columns)}
    return {metal_tag(tag) or tag for tag in found if metal_tag(tag) or tag.isdecimal()}


def _same_metal(ours: set[str], theirs: set[str]) -> bool:
    """Whether a metal is in both, or the mass of one that the other knows by mass alone."""
    return any(
        mine == its or ((mine.isdecimal() or its.isdecimal()) and _mass(mine) == _mass(its))
        for mine in ours
        for its in theirs
    )


def _mass(tag: str) -> str:
    return tag.lstrip(string.ascii_letters)


def _match(row: Mapping[str, Any], pair: tuple[Channel, _By] | None, doubt: str) -> PanelMatch:
    name = row["channel_name"]
    if pair is None:
        return PanelMatch(name, None, None, {}, doubt)
    channel, by = pair
    changes: dict[str, tuple[Any, Any]] = {}
    for column in _FILLED:
        new = getattr(channel, column)
        if new is not None and row.get(column) != new:
            changes[column] = (row.get(column), new)
    mine, theirs = _tags(name, row), _tags(channel.name, channel.extra)
    note = ""
    if by != "tag" and mine and theirs and not _same_metal(mine, theirs):
        shown = (" or ".join(sorted(tags)) for tags in (mine, theirs))
        note = "its tag is {} in the cohort, {} in the panel".format(*shown)
    return PanelMatch(name, channel.name, by, changes, note)


def _filled(table: pa.Table, matches: Sequence[PanelMatch]) -> pa.Table:
    """Return a table with its changes, all else and all types as they are."""
    for column in _FILLED:
        if not any(column in match.changes for match in matches):
            continue
        there = column in table.column_names
        old: list[Any] = table[column].to_pylist() if there else [None] * len(matches)
        new = [
            match.changes[column][1] if column in match.changes else value
            for match, value in zip(matches, old, strict=True)
        ]
        own = PANEL_SCHEMA.field(column).type
        try:
            made = pa.array(new, table.schema.field(column).type if there else own)
        except (pa.ArrowException, ValueError, TypeError):
            # A column of nothing, or of another tool's zeros and ones.
            made = pa.array([_as(own, value) for value in new], own)
        if there:
            table = table.set_column(table.column_names.index(column), column, made)
        else:
            # pandas' own description of a table lists every column; it reads one without it as well.
            table = table.append_column(column, made).replace_schema_metadata(None)
    return table


def _as(kind: pa.DataType, value: Any) -> Any:
    if value is None:
        return None
    return bool(value) if pa.types.is_boolean(kind) else str(value)
