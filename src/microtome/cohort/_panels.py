"""Panels of a cohort, and which tissue measured which of their channels.

Rows are added under the cohort's lock, as those of `_tables` are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.errors import FormatError, NotFoundError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.storage import locked

from ._columns import verify_text
from ._layout import CohortLayout
from ._modality import Modality
from ._pandas_note import pandas_note
from ._spelled import channels_spelled_twice
from ._tables import read_parquet, write_parquet

__all__ = [
    "PANEL_SCHEMA",
    "MeasuredChannels",
    "add_all_to_panel",
    "add_to_panel",
    "are_others",
    "channel_order",
    "extend_panel",
    "measured_channels",
    "panel",
    "passed_qc",
    "verify_planes",
]

_log = logging.getLogger(__name__)
PANEL_SCHEMA = pa.schema(
    [
        ("channel_name", pa.string()),
        ("index", pa.int64()),
        ("uniprot_id", pa.string()),
        ("qc_pass", pa.bool_()),
        ("is_nuclear_marker", pa.bool_()),
    ]
)


def panel(layout: CohortLayout, modality: Modality) -> pa.Table:
    """Return the panel of a modality: its channels in the order in which images store them.

    Raises
    ------
    NotFoundError
        If there is none.
    FormatError
        If names or accessions of channels are no text.
    """
    path = layout.channels(modality)
    table = read_parquet(path, ["channel_name"])
    for name in {"channel_name", "uniprot_id"} & set(table.column_names):
        verify_text(table, name, path)
    names = table["channel_name"].to_pylist()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(names):
        what = f"names {twice} more than once" if twice else "has a channel without a name"
        msg = f"{path} {what}: nothing says which plane of an image is which"
        raise FormatError(msg)
    return table


def passed_qc(layout: CohortLayout, modality: Modality, table: pa.Table) -> list[bool]:
    """Return which channels of a panel passed quality control: all that nobody says did not.

    Raises
    ------
    FormatError
        If the table says anything but yes, no, 1 or 0.
    """
    if "qc_pass" not in table.column_names:
        return [True] * len(table)
    values = table["qc_pass"].to_pylist()
    for name, value in zip(table["channel_name"].to_pylist(), values, strict=True):
        # What a table became on its way through another program: 1.0 for true where one was missing.
        if value is not None and value not in {True, False}:
            msg = (
                f"{layout.channels(modality)}: qc_pass of {name!r} is {value!r}; it is yes or no "
                "(or 1 or 0), or empty where nobody looked"
            )
            raise FormatError(msg)
    return [value is None or bool(value) for value in values]


def measured_channels(layout: CohortLayout, modality: Modality, tissue_id: str) -> list[str]:
    """Return the channels that a tissue measured, in panel order: the planes of its image.

    Raises
    ------
    NotFoundError
        If there is no table of it.
    UnknownNameError
        If the table does not speak of the tissue: nobody may say that all were measured.
    """
    known = MeasuredChannels.read(layout, modality)
    if known.measured is None:
        msg = f"{known.path} does not exist"
        raise NotFoundError(msg)
    return known.names_of(tissue_id)


def are_others(own: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the names that an image has for its planes are others; some images only count them."""
    counted = [f"channel {number}" for number in range(len(own))]
    return bool(own) and list(own) not in (list(names), counted)


def verify_planes(image: MultiscaleImage, names: Sequence[str], *, said_by: object) -> None:
    """Refuse an image whose planes are not the channels that a cohort's tables say.

    Parameters
    ----------
    image
        The image.
    names
        Channels that its tissue measured, in panel order.
    said_by
        The table that says so.

    Raises
    ------
    FormatError
        If it has another number of planes, or says itself that they are other channels.
    """
    if len(names) != image.nchannels:
        msg = (
            f"{image.uri} has {image.nchannels} channels, but {said_by} says that {len(names)} were "
            f"measured: {list(names)}"
        )
        raise FormatError(msg)
    own = list(image.channel_names or ())
    if are_others(own, names):
        place, mine, panels = next(
            (i, a, b) for i, (a, b) in enumerate(zip(own, names, strict=True)) if a != b
        )
        msg = (
            f"{image.uri} says that its plane {place} is {mine!r}, by the panel it is {panels!r}: "
            "the panel is in another order than the images; put its rows back, or ingest again"
        )
        raise FormatError(msg)


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredChannels:
    """Which tissue measured which channels of a panel, read once for all tissues.

    Parameters
    ----------
    path
        The table.
    panel
        Names of the panel's channels.
    rows
        Row of each tissue.
    measured
        (tissues, panel); None where there is no table.
    """

    path: Path
    panel: tuple[str, ...]
    rows: Mapping[str, int]
    measured: NDArray[np.bool_] | None

    @classmethod
    def read(cls, layout: CohortLayout, modality: Modality) -> MeasuredChannels:
        """Read the table of a modality; a SPORA dataset may have none.

        Raises
        ------
        FormatError
            If it lacks a channel of the panel, a value, or names a tissue twice.
        """
        path = layout.channels_per_tissue(modality)
        names = panel(layout, modality)["channel_name"].to_pylist()
        if not path.is_file():
            return cls(path, tuple(names), {}, None)
        table = read_parquet(path, [])
        column = _index_column(path, table)
        missing = [name for name in names if name not in table.column_names]
        if missing:
            msg = f"{path} lacks the panel's channels {missing}"
            raise FormatError(msg)
        ids = table[column].cast(pa.string()).to_pylist()
        rows = {str(tissue): place for place, tissue in enumerate(ids)}
        if len(rows) < len(ids):
            twice = next(t for place, t in enumerate(ids) if rows[str(t)] != place)
            msg = f"{path} has more than one row for tissue {twice!r}"
            raise FormatError(msg)
        measured = np.zeros((len(ids), len(names)), np.bool_)
        for place, name in enumerate(names):
            # Zeros and ones are as good: some tools write no booleans.
            values = table[name]
            if values.null_count or not (
                pa.types.is_boolean(values.type) or pa.types.is_integer(values.type)
            ):
                msg = f"{path}: channel {name!r} must say yes or no of every tissue, got {values.type} with {values.null_count} missing"
                raise FormatError(msg)
            measured[:, place] = values.cast(pa.bool_()).to_numpy()
        return cls(path, tuple(names), rows, measured)

    def planes(self, tissue_id: str, image: MultiscaleImage) -> NDArray[np.bool_]:
        """Return which channels of the panel the planes of a tissue's image are, (panel,).

        Raises
        ------
        UnknownNameError
            As of `of`.
        FormatError
            If the image has another number of planes, or says that they are other channels.
        """
        measured = self.of(tissue_id)
        if measured is None:
            if image.nchannels != len(self.panel):
                msg = (
                    f"{self.path} is missing, and {image.uri} has {image.nchannels} of the "
                    f"{len(self.panel)} channels of the panel: nothing says which"
                )
                raise FormatError(msg)
            measured = np.ones(len(self.panel), np.bool_)
        names = [n for n, there in zip(self.panel, measured, strict=True) if there]
        verify_planes(image, names, said_by=self.path)
        return measured

    def of(self, tissue_id: str) -> NDArray[np.bool_] | None:
        """Return which channels of the panel a tissue measured, (panel,); None without a table.

        Raises
        ------
        UnknownNameError
            If the table does not speak of the tissue: nobody may say that all were measured.
        """
        if self.measured is None:
            return None
        if tissue_id not in self.rows:
            msg = f"{self.path} has 0 rows for tissue {tissue_id!r}, needs one"
            raise UnknownNameError(msg)
        return self.measured[self.rows[tissue_id]].copy()

    def names_of(self, tissue_id: str) -> list[str]:
        """Return the channels that a tissue measured, in panel order; all without a table.

        A SPORA dataset may have no table: the number of planes has to bear it out.
        """
        there = self.of(tissue_id)
        return [name for place, name in enumerate(self.panel) if there is None or there[place]]


def _index_column(path: Path, table: pa.Table) -> str:
    """Return the column with the tissue ids, pandas' unnamed index included."""
    for column in ("tissue_id", "__index_level_0__"):
        if column in table.column_names:
            return column
    msg = f"{path} has no column or index 'tissue_id'"
    raise FormatError(msg)


def channel_order(layout: CohortLayout, modality: Modality, channels: Sequence[str]) -> list[str]:
    """Return channels in panel order, in which an image must store its planes; new ones last."""
    known: list[str] = []
    if layout.channels(modality).is_file():
        known = panel(layout, modality)["channel_name"].to_pylist()
    mine = set(channels)
    return [c for c in known if c in mine] + [c for c in channels if c not in known]


def add_to_panel(
    layout: CohortLayout, modality: Modality, tissue_id: str, channels: Sequence[str]
) -> list[str]:
    """Note which channels a tissue measured; new ones go to the end of the panel.

    Parameters
    ----------
    layout, modality, tissue_id
        Whose.
    channels
        Names of the channels, each once.

    Returns
    -------
    The channels in panel order, in which the image must store its planes.
    """
    return add_all_to_panel(layout, modality, {tissue_id: channels})[tissue_id]


def add_all_to_panel(
    layout: CohortLayout, modality: Modality, measured: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Note as `add_to_panel` does, for many tissues with one writing of each table."""
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        every = dict.fromkeys(name for channels in measured.values() for name in channels)
        names = _extended(layout, modality, list(every))
        _note_measured(
            layout.channels_per_tissue(modality),
            names,
            {tissue: set(channels) for tissue, channels in measured.items()},
        )
    return {
        tissue: [name for name in names if name in set(channels)]
        for tissue, channels in measured.items()
    }


def extend_panel(layout: CohortLayout, modality: Modality, channels: Sequence[str]) -> None:
    """Put channels that are new at the end of a panel, before any tissue has measured them."""
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        _extended(layout, modality, channels)


def _extended(layout: CohortLayout, modality: Modality, channels: Sequence[str]) -> list[str]:
    """Put new channels at the end of a panel and return its names; under the cohort's lock."""
    known = (
        panel(layout, modality)
        if layout.channels(modality).is_file()
        else PANEL_SCHEMA.empty_table()
    )
    names: list[str] = known["channel_name"].to_pylist()
    new = [name for name in channels if name not in names]
    if not new:
        return names
    size = len(names)
    rows: dict[str, list[Any]] = {
        "channel_name": list(new),
        "index": list(range(size, size + len(new))),
        "uniprot_id": [None] * len(new),
        "qc_pass": [True] * len(new),
        "is_nuclear_marker": [False] * len(new),
    }
    # A panel that was edited with pandas has that one's types, such as large_string.
    kinds = {field.name: field.type for field in [*PANEL_SCHEMA, *known.schema]}
    added = pa.table({n: pa.array(v, kinds[n]) for n, v in rows.items()})
    merged = pa.concat_tables([known, added], promote_options="default")
    write_parquet(merged, layout.channels(modality))
    for alike in channels_spelled_twice(names + new):
        if not set(alike) <= set(names):
            # Ingesting goes on: which spelling is right, and whether they are one, a person knows.
            _log.warning(
                "%s has %s as channels of their own: they are spelled alike but for capital letters, "
                "spaces, hyphens or underscores; if they are one, ingest again with the panel's spelling",
                layout.channels(modality),
                " and ".join(map(repr, alike)),
            )
    return names + new


def _note_measured(path: Path, names: Sequence[str], measured: Mapping[str, set[str]]) -> None:
    rows: list[dict[str, Any]] = []
    others: dict[str, pa.DataType] = {}
    if path.is_file():
        table = read_parquet(path, [])
        index = _index_column(path, table)
        others = {
            field.name: field.type for field in table.schema if field.name not in {index, *names}
        }
        rows = [{**row, "tissue_id": row[index]} for row in table.to_pylist()]
        known = {row["tissue_id"]: row for row in rows}
        same = {
            tissue
            for tissue, mine in measured.items()
            if tissue in known and all(known[tissue].get(n) == (n in mine) for n in names)
        }
        measured = {tissue: mine for tissue, mine in measured.items() if tissue not in same}
        if not measured:
            return
    told = {
        tissue: {"tissue_id": tissue, **{name: name in mine for name in names}}
        for tissue, mine in measured.items()
    }
    # A tissue that is there keeps its place.
    rows = [told.pop(row["tissue_id"], row) for row in rows]
    rows += told.values()
    columns = {"tissue_id": pa.array([row["tissue_id"] for row in rows], pa.string())}
    for name in names:
        # A tissue that was there before a channel joined the panel did not measure it.
        columns[name] = pa.array([bool(row.get(name, False)) for row in rows], pa.bool_())
    for name, kind in others.items():
        columns[name] = pa.array([row.get(name) for row in rows], kind)
    note = pandas_note("tissue_id", names, others)
    table = pa.table(columns).replace_schema_metadata({"pandas": note})
    write_parquet(table, path)
