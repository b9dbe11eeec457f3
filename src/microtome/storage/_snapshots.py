"""What the snapshots of a repository are called: by id, by tag and by time."""

from __future__ import annotations

import operator
import re
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from microtome.errors import InvalidInputError, NotFoundError, UnknownNameError

from ._repository import BRANCH

if TYPE_CHECKING:
    import icechunk

__all__ = ["Snapshot", "ancestry", "known_snapshot", "resolve", "tags_of", "verify_tag"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
# A tag that looks like one would hide the snapshot of that id.
_ID = re.compile(r"[0-9A-Za-z]{20}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state of an image that was committed.

    Parameters
    ----------
    id
        By which it can be opened, for ever.
    message
        What was done, in the words of who committed it.
    written_at
        When, in UTC.
    tags
        Its names, sorted.
    """

    id: str
    message: str
    written_at: datetime
    tags: tuple[str, ...] = ()


def verify_tag(path: Path, name: object) -> None:
    """Refuse what can be no tag.

    Raises
    ------
    InvalidInputError
        If it is not of letters, digits and ``._+-``, or looks like the id of a snapshot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or _ID.fullmatch(name):
        msg = (
            f"{path}: a tag is made of letters, digits and ._+-, begins with a letter or a digit "
            f"and does not look like the id of a snapshot, got {name!r}"
        )
        raise InvalidInputError(msg)


def tags_of(repository: icechunk.Repository) -> dict[str, str]:
    """Return `{name: id of the snapshot}`, sorted by name."""
    return {name: repository.lookup_tag(name) for name in sorted(repository.list_tags())}


def ancestry(
    repository: icechunk.Repository, snapshot: str
) -> Generator[icechunk.SnapshotInfo, None, None]:
    """Give what led to a snapshot, newest first, without the empty one that Icechunk makes."""
    for info in repository.ancestry(snapshot_id=snapshot):
        if info.parent_id is not None:
            yield info


def resolve(repository: icechunk.Repository, path: Path, at: str | int | datetime | None) -> str:
    """Return the id of the snapshot that is meant.

    Parameters
    ----------
    repository, path
        Where to look, and what it is called in messages.
    at
        A tag, the id of a snapshot, or a time; None for the newest.

    Raises
    ------
    NotFoundError
        If there was none at that time.
    UnknownNameError
        If there is no such tag or snapshot.
    InvalidInputError
        If it is no such thing.
    """
    if isinstance(at, str):
        if at in repository.list_tags():
            return repository.lookup_tag(at)
        return known_snapshot(repository, path, at)
    newest = repository.lookup_branch(BRANCH)
    if at is None:
        return newest
    moment, oldest = _moment(path, at), ""
    for info in ancestry(repository, newest):
        if info.written_at <= moment:
            return info.id
        oldest = f"; its first snapshot, {info.message!r}, is of {info.written_at}"
    msg = f"{path} was not there at {at}{oldest}"
    raise NotFoundError(msg)


def known_snapshot(repository: icechunk.Repository, path: Path, snapshot: str) -> str:
    """Return the id of a snapshot that is there.

    Raises
    ------
    UnknownNameError
        If it is not; the tags are listed, one of which may be meant.
    """
    import icechunk

    try:
        info = repository.lookup_snapshot(snapshot)
    except icechunk.IcechunkError:
        info = None
    # Icechunk takes what looks a little like an id for one.
    if info is not None and info.id == snapshot and info.parent_id is not None:
        return info.id
    names = ", ".join(tags_of(repository)) or "none"
    msg = f"{path} has no tag or snapshot {snapshot!r}; its tags: {names}"
    raise UnknownNameError(msg)


def _moment(path: Path, at: object) -> datetime:
    """Return the last moment at which what was written then was there at a time."""
    if isinstance(at, datetime):
        if at.utcoffset() is None:
            msg = (
                f"{path}: a time without a time zone means another moment on another machine, got "
                f"{at!r}; give one, e.g. datetime.now(timezone.utc)"
            )
            raise InvalidInputError(msg)
        return at
    try:
        if isinstance(at, bool):
            raise TypeError
        number = operator.index(at)  # pyright: ignore[reportArgumentType] - asked here
        # Of a snapshot's time whose microseconds were cut off, too.
        return _EPOCH + timedelta(milliseconds=number, microseconds=999)
    except (TypeError, OverflowError) as error:
        msg = (
            f"{path}: at= is a tag, the id of a snapshot, a time, or whole milliseconds since the "
            f"epoch, got {at!r}"
        )
        raise InvalidInputError(msg) from error
