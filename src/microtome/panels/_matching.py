"""Which channels of several panels are the same: groups of equal identities, and doubtful pairs.

An identity is a set of tokens, accessions or a normalized name. Channels of equal identity are one
group. Two groups may also be *akin*: their accessions overlap, or a Greek letter of one is a Latin
letter in the other. Akin groups become one only where each has no other to become one with, so that
what is matched depends neither on the order of the panels nor on a choice that nobody made.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "ACCESSIONS",
    "COMMON_NAMES",
    "NAMES",
    "Group",
    "Identity",
    "Kinship",
    "Member",
    "group_members",
    "name_key",
]

Identity = frozenset[str]


_WORDS = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda"),
    *("mu", "pi", "sigma", "tau", "phi", "chi", "psi", "omega"),
)
# Unicode spells lambda without a b.
_GREEK = {
    unicodedata.lookup(f"GREEK SMALL LETTER {word.replace('lambda', 'lamda')}"): word
    for word in _WORDS
}
# Those that people also write as one Latin letter: TGFb for TGFβ, CD3e for CD3ε.
_LATIN = {
    "alpha": "a",
    "beta": "b",
    "gamma": "g",
    "delta": "d",
    "epsilon": "e",
    "zeta": "z",
    "kappa": "k",
    "lambda": "l",
}
_SPELLED = re.compile("|".join(sorted(_LATIN, key=len, reverse=True)))
_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015\u2212]+")


class Member(NamedTuple):
    """A channel of a cohort: the cohort's place among the cohorts, the channel's in its panel."""

    cohort: int
    place: int


@dataclass(slots=True)
class Group:
    """Channels that are taken for one.

    Parameters
    ----------
    identity
        What they have in common; for names with a Greek letter, the first one's.
    members
        The channels, in order of cohort and place.
    rivals
        Groups that are akin, of which none could be chosen.
    """

    identity: Identity
    members: list[Member]
    rivals: list[Group]

    @property
    def cohorts(self) -> set[int]:
        """Cohorts that have a channel in the group."""
        return {member.cohort for member in self.members}


def name_key(name: str) -> str:
    """Return a name without what people write differently: case, separators, Greek letters.

    Parameters
    ----------
    name
        A channel's name. Of a name without any letter or digit all is kept.

    Examples
    --------
    >>> name_key("β-Catenin"), name_key("Beta_catenin"), name_key("HLA-DR")
    ('betacatenin', 'betacatenin', 'hladr')
    """
    # NFKC before: the micro sign becomes a Greek letter, a full-width letter a plain one.
    folded = unicodedata.normalize("NFKC", name).casefold()
    spelled = "".join(_GREEK.get(letter, letter) for letter in folded)
    return _SEPARATORS.sub("", spelled) or folded


@dataclass(frozen=True, slots=True)
class Kinship:
    """When two different identities may be the same channel.

    Parameters
    ----------
    tokens
        What an identity is looked up by: akin ones share a token.
    akin
        Whether two that share a token are akin.
    """

    tokens: Callable[[Identity], Identity]
    akin: Callable[[Identity, Identity], bool]


def _spellings(name: Identity) -> Identity:
    return name | {_latin(key) for key in name}


def _greek(one: Identity, other: Identity) -> bool:
    """Whether one name is the other with Latin letters for all Greek ones."""
    (first,), (second,) = one, other
    return first in _spellings(other) or second in _spellings(one)


NAMES = Kinship(_spellings, _greek)
"""Names: TGFb may be TGF-beta, but alpha-b is not a-beta, though both may be ab."""
ACCESSIONS = Kinship(lambda accessions: accessions, lambda _one, _other: True)
"""Sets of accessions, of which one is in both."""
COMMON_NAMES = Kinship(lambda _name: frozenset(), lambda _one, _other: False)
"""Names that a table gives: none is akin to another."""


def group_members(identities: Iterable[tuple[Member, Identity]], kinship: Kinship) -> list[Group]:
    """Group channels by identity, and akin groups where nothing else is akin to either.

    Parameters
    ----------
    identities
        Channels with what each is, in order of cohort and place.
    kinship
        Which different identities may be the same channel.

    Returns
    -------
    The groups in the order of their first channels. One whose `rivals` are not empty is doubtful.
    """
    exact: dict[Identity, Group] = {}
    for member, identity in identities:
        exact.setdefault(identity, Group(identity, [], [])).members.append(member)
    groups = list(exact.values())
    place = {id(group): number for number, group in enumerate(groups)}
    by_token: dict[str, list[Group]] = {}
    for group in groups:
        for token in kinship.tokens(group.identity):
            by_token.setdefault(token, []).append(group)
    candidates = [_candidates(group, by_token, kinship) for group in groups]
    merged: set[int] = set()
    for number, group in enumerate(groups):
        found = candidates[number]
        if len(found) == 1 and len(candidates[place[id(found[0])]]) == 1:
            other = place[id(found[0])]
            if number < other:
                group.members = sorted([*group.members, *found[0].members])
                group.identity = group.identity & found[0].identity or group.identity
                merged.add(other)
        else:
            group.rivals = found
    return [group for number, group in enumerate(groups) if number not in merged]


def _candidates(group: Group, by_token: dict[str, list[Group]], kinship: Kinship) -> list[Group]:
    """Return the groups that one could become one with: akin, and without a cohort in common.

    Two channels of one panel are two channels: collagen I beside what tags collagen I and
    fibronectin is no doubt about either.
    """
    sharing = {
        id(other): other
        for token in sorted(kinship.tokens(group.identity))
        for other in by_token[token]
        if other is not group
    }
    return [
        other
        for other in sharing.values()
        if kinship.akin(group.identity, other.identity) and group.cohorts.isdisjoint(other.cohorts)
    ]


def _latin(key: str) -> str:
    return _SPELLED.sub(lambda found: _LATIN[found.group()], key)
