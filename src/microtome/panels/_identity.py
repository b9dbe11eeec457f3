"""What a channel is, for the purpose of finding the same one in another panel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ._matching import ACCESSIONS, COMMON_NAMES, NAMES, Identity, Kinship, name_key
from ._name_table import NameTable
from ._names import parse_channel_name
from ._panel import Channel
from ._uniprot import without_isoform

__all__ = ["ChannelKey"]


@dataclass(frozen=True, slots=True)
class ChannelKey:
    """How a channel is known: by its accessions, its name, or the name that a table gives it.

    Parameters
    ----------
    by
        Which of these.
    table
        The table; empty without one.
    ignore_isoforms
        Whether the isoforms of a protein are one.
    """

    by: Literal["uniprot", "name", "table"]
    table: NameTable
    ignore_isoforms: bool

    @property
    def kinship(self) -> Kinship:
        """Which channels may be the same though their identities differ."""
        return {"uniprot": ACCESSIONS, "name": NAMES, "table": COMMON_NAMES}[self.by]

    @property
    def unknown(self) -> str:
        """Why a channel without an identity has no place."""
        if self.by == "uniprot":
            return "it has no UniProt accession; align by='name' or with a table"
        return "the table of names does not name it"

    def doubles(self, panels: Iterable[Iterable[Channel]]) -> frozenset[str]:
        """Return the markers that one of the panels has on several tags, by which alone to match.

        Parameters
        ----------
        panels
            The channels of each panel that is to be matched with the others.
        """
        if self.by != "name":
            return frozenset()
        counts = [Counter(_marker(channel) for channel in panel) for panel in panels]
        return frozenset(marker for one in counts for marker, count in one.items() if count > 1)

    def identity(self, cohort: str, channel: Channel, doubles: Collection[str] = ()) -> Identity:
        """Return what a channel is; nothing where that is not known.

        Parameters
        ----------
        cohort
            Whose it is.
        channel
            The channel.
        doubles
            Markers that do not say which channel is meant, so that the tag belongs to the name: of
            `DNA (191Ir)` and `DNA (193Ir)` neither is just `DNA`.
        """
        if self.by == "uniprot":
            return self._accessions(channel.accessions)
        if self.by == "name":
            marker = _marker(channel)
            return frozenset({name_key(channel.name) if marker in doubles else marker})
        common = self.table.get(cohort, {}).get(channel.name)
        return frozenset({common}) if common else frozenset()

    def reference_identity(self, channel: Channel, doubles: Collection[str] = ()) -> Identity:
        """Return what a channel of the reference is; its name is the table's common one."""
        if self.by == "table":
            return frozenset({channel.name})
        return self.identity("", channel, doubles)

    def said(self, identity: Identity) -> str:
        """Say what two channels have in common."""
        what = {"uniprot": "accession", "name": "name", "table": "common name"}[self.by]
        return f"{what} {';'.join(sorted(identity))}"

    def _accessions(self, accessions: Sequence[str]) -> Identity:
        return frozenset(
            without_isoform(one) if self.ignore_isoforms else one for one in accessions
        )


def _marker(channel: Channel) -> str:
    return name_key(parse_channel_name(channel.name).marker)
