"""Find which channels of several cohorts are the same, and put them in one order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from microtome.errors import InvalidInputError

from ._alignment import ChannelAlignment
from ._identity import ChannelKey
from ._matching import Identity, name_key
from ._name_table import NameTable, read_name_table
from ._names import parse_channel_name
from ._panel import Channel, Panel
from ._places import Choices, Places, verify_named
from ._uniprot import is_uniprot_accession, parse_uniprot

__all__ = ["align_channels"]


class HasPanel(Protocol):
    """Something that comes with a panel."""

    @property
    def panel(self) -> Panel:
        """The panel."""
        ...


def align_channels(
    panels: Mapping[str, Panel | HasPanel],
    *,
    by: str | os.PathLike[str] | NameTable = "uniprot",
    how: Literal["union", "intersection"] | Panel | Sequence[str] = "union",
    others: Literal["leave", "name"] = "leave",
    isoforms: Literal["exact", "ignore"] = "exact",
    ambiguous: Literal["raise", "report"] = "raise",
    choose: Choices | None = None,
) -> ChannelAlignment:
    """Put the channels of several cohorts in one order.

    Parameters
    ----------
    panels
        The panel of each cohort, by the cohort's name; or what has one, such as a `CohortPanel`.
    by
        How channels are known for the same. ``"uniprot"``: their accessions are the same set; or share
        one where neither shares one with anything else, as collagen I does with a tag of collagen I
        and fibronectin. ``"name"``: their names are the same but for case, hyphens, underscores,
        spaces, how Greek letters are spelled, and a tag beside the marker (``CD20 (164)``);
        ``TGFb`` is ``TGF-beta`` where it can be nothing else. Or a table of names:
        ``{cohort: {channel name: common name}}``, or a CSV, TSV or parquet file with the columns
        cohort, channel_name, common_name.
    how
        Which channels there are. ``"union"``: all, in the order in which the panels first have them.
        ``"intersection"``: those that every cohort has. A panel, or a list of names (of accessions
        for ``by="uniprot"``): exactly these, in their order, each cohort matched by itself, so that
        another cohort more changes nothing.
    others
        What becomes of channels that the table does not name: they are left out, and reported; or
        known by their own ``"name"``, so that a table needs to name only what is called otherwise.
    isoforms
        Whether P16070 and P16070-2 are two proteins (``"exact"``) or one (``"ignore"``).
    ambiguous
        What to do where channels could be matched in several ways: raise, or report it and match
        none of them.
    choose
        Decisions, ``{cohort: {channel name: name of an aligned channel}}``; None leaves a channel out.

    Returns
    -------
    The order of channels, each cohort's places in it, and a report on every channel.

    Raises
    ------
    InvalidInputError
        If an option is wrong, a match is ambiguous, or a reference has two channels of one identity.
    UnknownNameError
        If the table or `choose` names a cohort, channel or aligned channel that is not there.

    Examples
    --------
    >>> imc = Panel((Channel("CD3", "P07766"), Channel("E-Cadherin", "P12830")))
    >>> mibi = Panel((Channel("ECadherin", "P12830"), Channel("CD20", "P11836")))
    >>> print(align_channels({"imc": imc, "mibi": mibi}))
    3 aligned channels of 2 cohorts
      CD3         P07766  imc: CD3         mibi: -
      E-Cadherin  P12830  imc: E-Cadherin  mibi: ECadherin
      CD20        P11836  imc: -           mibi: CD20
    """
    # A cohort's panel comes with what was measured of it.
    known = {name: _panel_of(name, panel) for name, panel in panels.items()}
    _verify(known, isoforms, ambiguous, others)
    key = _parse_by(by, known, ignore_isoforms=isoforms == "ignore")
    if others == "name":
        if key.by != "table":
            msg = f"others='name' speaks of channels that a table does not name, and by is {by!r}"
            raise InvalidInputError(msg)
        key = replace(key, table=_with_own_names(key.table, known))
    work = Places(known, key, choose or {})
    if isinstance(how, str):
        if how not in {"union", "intersection"}:
            msg = f"how must be 'union', 'intersection', a panel or a list of names, got {how!r}"
            raise InvalidInputError(msg)
        work.join(every=how == "intersection")
    else:
        work.follow(_reference(how, key))
    made = work.finish()
    if made.ambiguous and ambiguous == "raise":
        first = "; ".join(str(row) for row in made.ambiguous[:3])
        msg = (
            f"{len(made.ambiguous)} channels could be matched in several ways: {first}. Say which with "
            "choose={cohort: {channel: aligned name, or None to leave it out}}, with a table of names "
            "(by=), or have them reported and left unmatched with ambiguous='report'"
        )
        raise InvalidInputError(msg)
    return made


def _panel_of(name: str, panel: object) -> Panel:
    found = panel if isinstance(panel, Panel) else getattr(panel, "panel", None)
    if not isinstance(found, Panel):
        msg = f"cohort {name!r} has no panel but {type(panel).__name__}; give a Panel, as of read_panel or cohort_panel"
        raise InvalidInputError(msg)
    return found


def _verify(panels: Mapping[str, Panel], isoforms: str, ambiguous: str, others: str) -> None:
    if not panels:
        msg = "align_channels needs the panel of at least one cohort"
        raise InvalidInputError(msg)
    for what, value, allowed in (
        ("isoforms", isoforms, ("exact", "ignore")),
        ("ambiguous", ambiguous, ("raise", "report")),
        ("others", others, ("leave", "name")),
    ):
        if value not in allowed:
            msg = f"{what} must be one of {allowed}, got {value!r}"
            raise InvalidInputError(msg)


def _parse_by(
    by: str | os.PathLike[str] | NameTable, panels: Mapping[str, Panel], *, ignore_isoforms: bool
) -> ChannelKey:
    if by in ("uniprot", "name"):
        return ChannelKey(by, {}, ignore_isoforms)  # type: ignore[arg-type]
    table = by if isinstance(by, Mapping) else read_name_table(by)
    for cohort, names in table.items():
        verify_named(panels, cohort, names, "the table of names")
    return ChannelKey("table", table, ignore_isoforms)


def _with_own_names(table: NameTable, panels: Mapping[str, Panel]) -> NameTable:
    """Return a table that also gives every other channel a common name: its marker.

    Where a panel has a marker on several tags, its channels keep their whole names.
    """
    shown = {name_key(common): common for names in table.values() for common in names.values()}
    filled: dict[str, dict[str, str]] = {}
    for cohort, panel in panels.items():
        named = dict(table.get(cohort, {}))
        markers = {c.name: parse_channel_name(c.name).marker for c in panel}
        counts = Counter(map(name_key, markers.values()))
        for channel, marker in markers.items():
            own = marker if counts[name_key(marker)] == 1 else channel
            named.setdefault(channel, shown.setdefault(name_key(own), own))
        filled[cohort] = named
    return filled


def _reference(how: Panel | Sequence[str], key: ChannelKey) -> Panel:
    """Return the reference as a panel in which every channel has an identity of its own."""
    if isinstance(how, Panel):
        panel = how
    elif key.by == "uniprot":
        wrong = [name for name in how if not all(map(is_uniprot_accession, name.split(";")))]
        if wrong:
            msg = (
                f"how={wrong} are no accessions, by which channels are matched here; give accessions, "
                "a panel that has them, or align by='name'"
            )
            raise InvalidInputError(msg)
        panel = Panel(tuple(Channel(name, ";".join(parse_uniprot(name))) for name in how))
    else:
        panel = Panel(tuple(Channel(name) for name in how))
    seen: dict[Identity, str] = {}
    doubles = key.doubles([panel])
    for channel in panel:
        identity = key.reference_identity(channel, doubles)
        if not identity:
            msg = f"channel {channel.name!r} of the reference has no UniProt accession, by which channels are matched here"
            raise InvalidInputError(msg)
        if identity in seen:
            msg = (
                f"channels {seen[identity]!r} and {channel.name!r} of the reference have the same "
                f"{key.said(identity)}: nothing could be matched with only one of them"
            )
            raise InvalidInputError(msg)
        seen[identity] = channel.name
    return panel
