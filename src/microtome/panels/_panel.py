"""A panel: the channels of a multiplex modality, in order, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pyarrow as pa

from microtome.errors import FormatError, InvalidInputError, UnknownNameError

from ._names import parse_channel_name
from ._uniprot import parse_uniprot

__all__ = ["HISTONE_H3", "Channel", "Panel", "panel_of_rows"]

HISTONE_H3 = "P68431"
"""What spora_io calls every nuclear stain, DNA intercalators included, so that models which know
channels by their protein have one for the nucleus."""

_OWN = ("channel_name", "index", "uniprot_id", "qc_pass", "is_nuclear_marker")


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of a panel.

    Parameters
    ----------
    name
        Its name in the panel.
    uniprot_id
        UniProt accession of its target; several with ``;`` between where one tag stands for several
        proteins. None where there is none: DNA has none.
    qc_pass
        Whether it passed quality control; None where nobody said.
    is_nuclear_marker
        Whether it shows nuclei; None where nobody said.
    extra
        What else is known, by column: ``original_channel_name``, ``description``, ``tag`` (metal or
        fluorophore), ``cycle``, ``exposure``, another tool's columns.

    Raises
    ------
    InvalidInputError
        If the name is blank, a value has the wrong type, or the accession is none.
    """

    name: str
    uniprot_id: str | None = None
    qc_pass: bool | None = None
    is_nuclear_marker: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)

    def __post_init__(self) -> None:
        # A caller may hand in anything, whatever the annotations say.
        name = cast("object", self.name)
        if not isinstance(name, str) or not name.strip():
            msg = f"a channel needs a name, got {name!r}"
            raise InvalidInputError(msg)
        for what in ("qc_pass", "is_nuclear_marker"):
            flag: object = getattr(self, what)
            if not (flag is None or isinstance(flag, bool)):
                msg = f"{what} of channel {name!r} must be True, False or None, got {flag!r}"
                raise InvalidInputError(msg)
        text = cast("object", self.uniprot_id)
        if not (text is None or isinstance(text, str)):
            msg = f"uniprot_id of channel {name!r} must be text, got {text!r}"
            raise InvalidInputError(msg)
        try:
            accessions = parse_uniprot(text)
        except InvalidInputError as error:
            msg = f"channel {name!r}: {error}"
            raise InvalidInputError(msg) from error
        # One spelling, so that equal channels are equal values.
        object.__setattr__(self, "uniprot_id", ";".join(accessions) or None)
        taken = [column for column in _OWN if column in self.extra]
        if taken:
            msg = f"channel {name!r}: {taken} are columns of their own, not extra ones"
            raise InvalidInputError(msg)
        object.__setattr__(self, "extra", dict(self.extra))

    @property
    def accessions(self) -> tuple[str, ...]:
        """UniProt accessions of the channel's targets."""
        return parse_uniprot(self.uniprot_id)


@dataclass(frozen=True, slots=True)
class Panel:
    """The channels of a multiplex modality, in the order in which images store them.

    Parameters
    ----------
    channels
        The channels, at least one, each name once.

    Raises
    ------
    InvalidInputError
        If there is no channel, or a name occurs twice.

    Examples
    --------
    >>> panel = Panel((Channel("CD3", "P07766"), Channel("DNA", is_nuclear_marker=True)))
    >>> panel.names, panel.index("DNA"), panel["CD3"].accessions
    (('CD3', 'DNA'), 1, ('P07766',))
    """

    channels: tuple[Channel, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if not self.channels:
            msg = "a panel needs at least one channel"
            raise InvalidInputError(msg)
        places: dict[str, list[int]] = {}
        for place, channel in enumerate(self.channels):
            places.setdefault(channel.name, []).append(place)
        twice = {name: rows for name, rows in places.items() if len(rows) > 1}
        if twice:
            msg = f"channel names must be unique in a panel; {twice} occur at several positions"
            raise InvalidInputError(msg)

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Panel:
        """Make a panel of channel names as an image's file has them.

        Parameters
        ----------
        names
            Such as `MultiscaleImage.channel_names`. Where a name holds a tag (`parse_channel_name`),
            the channel is named by its marker and has ``tag`` and ``original_channel_name``; where
            two would then share a name, those keep the whole of theirs.

        Raises
        ------
        InvalidInputError
            If a name is blank or occurs twice.

        Examples
        --------
        >>> panel = Panel.from_names(["CD20 (164)", "DAPI"])
        >>> panel.names, panel["CD20"].extra["tag"]
        (('CD20', 'DAPI'), '164')
        """
        parsed = [parse_channel_name(name) for name in names]
        markers = [found.marker for found in parsed]
        channels: list[Channel] = []
        for found in parsed:
            name = found.marker if markers.count(found.marker) == 1 else found.original
            extra = {} if found.tag is None else {"tag": found.tag}
            if name != found.original:
                extra["original_channel_name"] = found.original
            channels.append(Channel(name, extra=extra))
        return cls(tuple(channels))

    @classmethod
    def from_table(cls, table: pa.Table, *, where: object = "the table") -> Panel:
        """Make a panel of a table with the columns of a cohort's channels.parquet.

        Parameters
        ----------
        table
            Columns ``channel_name`` and, where they are known, ``uniprot_id``, ``qc_pass``,
            ``is_nuclear_marker`` and ``index``, which must then count the rows from 0; any other is
            kept as an extra one. A SPORA dataset's panel has no ``index``.
        where
            File that errors name.

        Raises
        ------
        FormatError
            If a column is missing or has the wrong type, or a row breaks a rule of `Channel` or
            `Panel`; file and row are named.
        """
        if "channel_name" not in table.column_names:
            msg = f"{where} lacks the column 'channel_name'; it has {table.column_names}"
            raise FormatError(msg)
        if len(set(table.column_names)) != len(table.column_names):
            msg = f"{where} has columns of the same name: {table.column_names}"
            raise FormatError(msg)
        rows = [
            {key: value for key, value in row.items() if not key.startswith("__index_level_")}
            for row in table.to_pylist()
        ]
        return panel_of_rows(rows, where)

    def to_table(self) -> pa.Table:
        """Return the panel with the columns of a cohort's channels.parquet.

        What nobody said becomes what a reader takes it for: a channel passes quality control, and
        is not nuclear.
        """
        columns: dict[str, pa.Array] = {
            "channel_name": pa.array(self.names, pa.string()),
            "index": pa.array(range(len(self)), pa.int64()),
            "uniprot_id": pa.array([c.uniprot_id for c in self.channels], pa.string()),
            "qc_pass": pa.array([c.qc_pass is not False for c in self.channels], pa.bool_()),
            "is_nuclear_marker": pa.array(
                [c.is_nuclear_marker is True for c in self.channels], pa.bool_()
            ),
        }
        for name in dict.fromkeys(key for channel in self.channels for key in channel.extra):
            values = [channel.extra.get(name) for channel in self.channels]
            try:
                columns[name] = pa.array(values)
            except (pa.ArrowException, ValueError) as error:
                msg = f"column {name!r} of the panel has values of several types: {values}"
                raise InvalidInputError(msg) from error
        return pa.table(columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return tuple(channel.name for channel in self.channels)

    def index(self, name: str) -> int:
        """Return the position of a channel.

        Raises
        ------
        UnknownNameError
            If there is none of this name.
        """
        try:
            return self.names.index(name)
        except ValueError:
            msg = f"there is no channel {name!r} in the panel {list(self.names)}"
            raise UnknownNameError(msg) from None

    def select(self, names: Sequence[str]) -> Panel:
        """Return a panel of some channels, in the order asked for.

        Raises
        ------
        UnknownNameError
            If there is none of a name.
        """
        return Panel(tuple(self[name] for name in names))

    def replace_nuclear_uniprot_ids(self, uniprot_id: str = HISTONE_H3) -> Panel:
        """Return a panel in which every nuclear marker has one accession.

        DNA stains have none, and differ from cohort to cohort; what they show is where histones are.

        Parameters
        ----------
        uniprot_id
            The accession; by default that of histone H3, as spora_io has it.

        Examples
        --------
        >>> panel = Panel((Channel("DAPI", is_nuclear_marker=True), Channel("CD3", "P07766")))
        >>> [channel.uniprot_id for channel in panel.replace_nuclear_uniprot_ids()]
        ['P68431', 'P07766']
        """
        return Panel(
            tuple(
                replace(channel, uniprot_id=uniprot_id) if channel.is_nuclear_marker else channel
                for channel in self.channels
            )
        )

    def __getitem__(self, name: str) -> Channel:
        return self.channels[self.index(name)]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[Channel]:
        return iter(self.channels)

    def __len__(self) -> int:
        return len(self.channels)


def panel_of_rows(rows: Sequence[Mapping[str, Any]], where: object) -> Panel:
    """Make a panel of rows, each a mapping of columns.

    Parameters
    ----------
    rows
        With the names of `Channel`'s columns in channels.parquet; any other column is an extra one.
    where
        File that errors name.

    Raises
    ------
    FormatError
        If a row breaks a rule; file and row are named.
    """
    channels: list[Channel] = []
    places: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        try:
            channel = Channel(
                row["channel_name"],
                row.get("uniprot_id"),
                row.get("qc_pass"),
                row.get("is_nuclear_marker"),
                {key: value for key, value in row.items() if key not in _OWN},
            )
        except InvalidInputError as error:
            msg = f"{where}, row {number}: {error}"
            raise FormatError(msg) from error
        if row.get("index", len(channels)) not in {len(channels), None}:
            msg = (
                f"{where}, row {number}: index is {row['index']!r}, but rows are the panel's order, in "
                f"which it is {len(channels)}"
            )
            raise FormatError(msg)
        if channel.name in places:
            msg = (
                f"{where}, row {number}: channel {channel.name!r} is already in row "
                f"{places[channel.name]}; names must be unique"
            )
            raise FormatError(msg)
        places[channel.name] = number
        channels.append(channel)
    if not channels:
        msg = f"{where} has no channel"
        raise FormatError(msg)
    return Panel(tuple(channels))
