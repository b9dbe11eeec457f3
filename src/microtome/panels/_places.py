"""Places of an alignment: which channel of which cohort gets each, and why another does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, UnknownNameError

from ._alignment import AlignmentRow, AlignmentStatus, ChannelAlignment
from ._identity import ChannelKey
from ._matching import Group, Identity, Member, group_members
from ._panel import Channel, Panel

__all__ = ["Choices", "Places", "verify_named"]

Choices = Mapping[str, Mapping[str, str | None]]
"""``{cohort: {channel name: name of an aligned channel, or None to leave it out}}``."""


class Places:
    """An alignment that is being made.

    Parameters
    ----------
    panels, key, choose
        As for `align_channels`.
    """

    def __init__(self, panels: Mapping[str, Panel], key: ChannelKey, choose: Choices) -> None:
        for cohort, names in choose.items():
            verify_named(panels, cohort, names, "choose")
        self.panels = panels
        self.key = key
        self.choose = choose
        self.cohorts = list(panels)
        self.names: list[str] = []
        self.uniprot_ids: list[str | None] = []
        self.places: list[NDArray[np.int64]] = []
        self.rows: dict[Member, AlignmentRow] = {}
        self.reference = False

    def join(self, *, every: bool) -> None:
        """Align the cohorts with one another; those channels alone that all have, where `every`."""
        numbers = range(len(self.cohorts))
        doubles = self.key.doubles(self._free(number) for number in numbers)
        identities = [pair for number in numbers for pair in self._identities(number, doubles)]
        groups = self._named(group_members(identities, self.key.kinship))
        pinned = self._pinned(groups)
        for name, group in groups.items():
            chosen = pinned.get(name, [])
            place = self._filled(name, group, chosen)
            if place.min() >= 0 if every else place.max() >= 0:
                self._add_place(name, self._channel(group.members[0]).uniprot_id, place)
                self._tell_group(name, group, chosen, place)
            else:
                self._tell_group(None, group, chosen, place)

    def follow(self, reference: Panel) -> None:
        """Align every cohort with a reference, by itself."""
        self.reference = True
        groups = {name: Group(frozenset(), [], []) for name in reference.names}
        pinned = self._pinned(groups)
        for number in range(len(self.cohorts)):
            doubles = self.key.doubles([reference, self._free(number)])
            # The reference stands as cohort -1, before the other.
            fixed = [
                (Member(-1, place), self.key.reference_identity(channel, doubles))
                for place, channel in enumerate(reference)
            ]
            own = self._identities(number, doubles)
            for group in group_members([*fixed, *own], self.key.kinship):
                mine = [member for member in group.members if member.cohort == number]
                targets = [member for member in group.members if member.cohort < 0]
                if targets:
                    target = groups[reference.names[targets[0].place]]
                    target.identity = group.identity
                    target.members += mine
                    continue
                for member in mine:
                    if group.rivals:
                        self._tell_rivals(member, None, group, reference)
                    else:
                        self._tell(member, None, "left out", "the reference has none like it")
        for name, group in groups.items():
            chosen = pinned.get(name, [])
            place = self._filled(name, group, chosen)
            self._add_place(name, reference[name].uniprot_id, place)
            self._tell_group(name, group, chosen, place)

    def finish(self) -> ChannelAlignment:
        """Return the alignment, its report in the order of cohorts, panels and places."""
        report: list[AlignmentRow] = []
        places = np.array(self.places, np.int64).reshape(-1, len(self.cohorts))
        index = {cohort: places[:, i].copy() for i, cohort in enumerate(self.cohorts)}
        for number, (cohort, panel) in enumerate(self.panels.items()):
            report += [self.rows[Member(number, place)] for place in range(len(panel))]
            report += [
                AlignmentRow(cohort, None, name, "missing", "the panel has none like it")
                for name, place in zip(self.names, index[cohort], strict=True)
                if place < 0
            ]
        return ChannelAlignment(
            tuple(self.names),
            tuple(self.uniprot_ids),
            index,
            {cohort: panel.names for cohort, panel in self.panels.items()},
            tuple(report),
        )

    # ------------------------------------------------------------- what channels are

    def _channel(self, member: Member) -> Channel:
        return self.panels[self.cohorts[member.cohort]].channels[member.place]

    def _free(self, number: int) -> list[Channel]:
        """Return the channels of a cohort that no choice speaks of."""
        chosen = self.choose.get(self.cohorts[number], {})
        return [c for c in self.panels[self.cohorts[number]] if c.name not in chosen]

    def _identities(
        self, number: int, doubles: frozenset[str]
    ) -> Iterator[tuple[Member, Identity]]:
        """Yield a cohort's channels that are matched by what they are; say of the others why not."""
        cohort = self.cohorts[number]
        chosen = self.choose.get(cohort, {})
        for place, channel in enumerate(self.panels[cohort]):
            member = Member(number, place)
            if channel.name in chosen:
                if chosen[channel.name] is None:
                    self._tell(member, None, "left out", "as chosen")
            elif identity := self.key.identity(cohort, channel, doubles):
                yield member, identity
            else:
                self._tell(member, None, "left out", self.key.unknown)

    def _pinned(self, aligned: Mapping[str, Group]) -> dict[str, list[Member]]:
        """Return the channels that were put in a place by choice, by the place's name."""
        found: dict[str, list[Member]] = {}
        for number, (cohort, panel) in enumerate(self.panels.items()):
            for channel, name in self.choose.get(cohort, {}).items():
                if name is None:
                    continue
                if name not in aligned:
                    msg = f"choose puts {channel!r} of {cohort!r} into {name!r}, but the aligned channels are {list(aligned)}"
                    raise UnknownNameError(msg)
                found.setdefault(name, []).append(Member(number, panel.index(channel)))
        return found

    def _named(self, groups: Sequence[Group]) -> dict[str, Group]:
        """Name each group after its first channel, or a table's common name, each name once."""
        named: dict[str, Group] = {}
        for group in groups:
            own = next(iter(group.identity)) if self.key.by == "table" else None
            name = own or self._channel(group.members[0]).name
            while name in named:
                name = f"{name} ({';'.join(sorted(group.identity))})"
            named[name] = group
        return named

    # ------------------------------------------------------------- what becomes of them

    def _filled(self, name: str, group: Group, pinned: Sequence[Member]) -> NDArray[np.int64]:
        """Return each cohort's channel for a place: one that was chosen, or the only one like it."""
        place = np.full(len(self.cohorts), -1, np.int64)
        for member in pinned:
            if place[member.cohort] >= 0:
                msg = f"choose puts two channels of {self.cohorts[member.cohort]!r} into {name!r}"
                raise InvalidInputError(msg)
            place[member.cohort] = member.place
        for member in group.members:
            if place[member.cohort] < 0 and not self._twins(group, member):
                place[member.cohort] = member.place
        return place

    def _add_place(self, name: str, uniprot_id: str | None, place: NDArray[np.int64]) -> None:
        self.names.append(name)
        self.uniprot_ids.append(uniprot_id)
        self.places.append(place)

    def _tell_group(
        self, name: str | None, group: Group, pinned: Sequence[Member], place: NDArray[np.int64]
    ) -> None:
        """Say of every channel of a group whether it got the place, or why it did not."""
        lacking = [cohort for cohort, own in zip(self.cohorts, place, strict=True) if own < 0]
        for member in pinned:
            if name is None:
                self._tell(member, None, "left out", f"{lacking} have none like it")
            else:
                self._tell(member, name, "matched", "as chosen")
        chosen = {member.cohort: self._channel(member).name for member in pinned}
        for member in group.members:
            if member.cohort in chosen:
                why = f"{chosen[member.cohort]!r} was chosen"
                self._tell(member, None, "left out", why)
            elif twins := self._twins(group, member):
                why = f"{twins} of the same cohort have the same {self.key.said(group.identity)}"
                self._tell(member, None, "ambiguous", why)
            elif group.rivals:
                self._tell_rivals(member, name, group)
            elif name is None:
                self._tell(member, None, "left out", f"{lacking} have none like it")
            elif self.reference or (place >= 0).sum() > 1:
                self._tell(member, name, "matched", self.key.said(group.identity))
            else:
                self._tell(member, name, "alone", "no other cohort has one like it")

    def _twins(self, group: Group, member: Member) -> list[str]:
        """Return the other channels of the same cohort that would be in the same place."""
        return [
            self._channel(other).name
            for other in group.members
            if other.cohort == member.cohort and other != member
        ]

    def _tell_rivals(
        self, member: Member, name: str | None, group: Group, reference: Panel | None = None
    ) -> None:
        rivals = [
            f"{reference.names[other.place]} of the reference"
            if reference is not None and other.cohort < 0
            else f"{self._channel(other).name} of {self.cohorts[other.cohort]}"
            for rival in group.rivals
            for other in rival.members
        ]
        why = f"it may be {' or '.join(rivals)}, which may also be another"
        if len(group.rivals) > 1:
            why = f"it may be {' or '.join(rivals)}, which are not the same"
        self._tell(member, name, "ambiguous", why)

    def _tell(self, member: Member, aligned: str | None, status: AlignmentStatus, why: str) -> None:
        self.rows[member] = AlignmentRow(
            self.cohorts[member.cohort], self._channel(member).name, aligned, status, why
        )


def verify_named(
    panels: Mapping[str, Panel], cohort: str, channels: Mapping[str, str | None], who: str
) -> None:
    """Refuse a cohort or a channel that is not there.

    Raises
    ------
    UnknownNameError
        If there is one.
    """
    if cohort not in panels:
        msg = f"{who} speaks of the cohort {cohort!r}; the panels are of {list(panels)}"
        raise UnknownNameError(msg)
    unknown = [name for name in channels if name not in panels[cohort]]
    if unknown:
        msg = f"{who} speaks of channels {unknown} that the panel of {cohort!r} lacks: {list(panels[cohort].names)}"
        raise UnknownNameError(msg)
