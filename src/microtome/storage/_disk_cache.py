"""Bytes of remote stores that are kept on a disk of this machine, in a stated room.

In one SQLite database: it has what such a cache needs and what is easily got wrong, entries that are
whole or not there however a process ends, several processes at once, and free room that is used
again. fsspec's caches are of whole files, or grow without a bound; diskcache loads pickles; the array
engine keeps things in memory only.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import google_crc32c

from microtome.errors import InvalidInputError

from ._files import storage_errors

__all__ = ["INDEX", "CachedParts", "DiskCache", "cached_parts"]

_T = TypeVar("_T")

INDEX = -1
"""Number of the part of a file that is its index."""

_LEAST = 2**20
_NAME = "remote-bytes.sqlite"
_LOG = logging.getLogger(__name__)
# What a row takes beside its bytes, and the page that it begins in.
_ROW_BYTES, _PAGE = 200, 4096
# Of the log of changes, into which SQLite writes before it writes where it belongs: bytes that are left
# for it, of one transaction, and from which on it is folded in.
_MOST_LOG, _MOST_AT_ONCE, _FOLDED = 16 * 2**20, 4 * 2**20, 2**20
_USED_EVERY = 10.0
_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY AUTOINCREMENT, address TEXT NOT NULL UNIQUE, generation BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS parts (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL, part INTEGER NOT NULL, size INTEGER NOT NULL,
    used INTEGER NOT NULL, checksum INTEGER NOT NULL, UNIQUE (file, part));
CREATE INDEX IF NOT EXISTS parts_by_use ON parts (used);
CREATE TABLE IF NOT EXISTS bodies (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class DiskCache:
    """Where bytes of remote images are kept on disk, and how many.

    Parameters
    ----------
    path
        A directory for it, made if it is not there; any number of processes may share it. It can be
        removed at any time when none of them runs.
    limit
        Bytes that it takes at most, 1 MiB or more; what was used least recently goes first.

    Raises
    ------
    InvalidInputError
        If the limit is no such number, or the path none.
    """

    path: str
    limit: int

    def __init__(self, path: str | os.PathLike[str], limit: int) -> None:
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):  # pyright: ignore[reportUnnecessaryIsInstance] - what a user types
            msg = f"a cache on disk needs the path of a directory, got {path!r}"
            raise InvalidInputError(msg)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < _LEAST:  # pyright: ignore[reportUnnecessaryIsInstance] - as above
            msg = f"a cache on disk is of a whole number of bytes, {_LEAST} or more, got {limit!r}"
            raise InvalidInputError(msg)
        # A worker may have another working directory.
        object.__setattr__(self, "path", str(Path(path).expanduser().absolute()))
        object.__setattr__(self, "limit", limit)

    def __reduce__(self) -> tuple[type[DiskCache], tuple[str, int]]:
        return DiskCache, (self.path, self.limit)


class CachedParts:
    """The entries of a cache: parts of files, each of one generation of its file.

    Nothing here fails a read: what the disk refuses is not kept, and what is damaged is not there.

    Parameters
    ----------
    cache
        Where, and how much.

    Raises
    ------
    StorageError
        If there can be no such directory.
    """

    def __init__(self, cache: DiskCache) -> None:
        self._limit = cache.limit
        log = min(cache.limit // 4, _MOST_LOG)
        self._room = cache.limit - log
        # It is folded in after a transaction, which comes on top.
        self._at_once, self._folded = min(log // 2, _MOST_AT_ONCE), min(log // 4, _FOLDED)
        self._file = Path(cache.path) / _NAME
        with storage_errors(self._file.parent):
            self._file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._used: set[int] = set()
        self._noted = time.monotonic()
        self._warned = False

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._file

    def file(self, address: str) -> tuple[int, bytes] | None:
        """Return number and generation of a file of which something is kept."""
        return self._tried(
            lambda db: db.execute(
                "SELECT id, generation FROM files WHERE address = ?", (address,)
            ).fetchone(),
            None,
        )

    def get(self, file: int, parts: Sequence[int]) -> dict[int, bytes]:
        """Return those parts of a file that are kept, and whole."""
        return self._tried(lambda db: self._get(db, file, parts), {})

    def put(self, address: str, generation: bytes, parts: Mapping[int, bytes]) -> int | None:
        """Keep parts of a file; of another generation of it nothing is kept from here on.

        Returns
        -------
        The number of the file, None where nothing could be kept.
        """
        pieces: list[dict[int, bytes]] = [{}]
        size = total = 0
        for part, data in parts.items():
            total += _stored(len(data))
            if total > self._room // 2:
                break  # the last would push the first out
            if pieces[-1] and size + _stored(len(data)) > self._at_once:
                pieces.append({})
                size = 0
            pieces[-1][part] = data
            size += _stored(len(data))
        number: int | None = None
        for piece in pieces:
            number = self._tried(lambda db, p=piece: self._put(db, address, generation, p), None)
            if number is None:
                return None
        return number

    def forget(self, address: str) -> None:
        """Keep nothing of a file."""
        self._tried(lambda db: _forget(db, address), None)

    # -- inside

    def _get(self, db: sqlite3.Connection, file: int, parts: Sequence[int]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        damaged: list[int] = []
        rows = db.execute(
            "SELECT parts.id, part, checksum, data FROM parts JOIN bodies ON bodies.id = parts.id "
            "WHERE file = ? AND part IN (SELECT value FROM json_each(?))",
            (file, json.dumps(list(parts))),
        ).fetchall()
        for number, part, checksum, data in rows:
            if _checksum(file, part, data) == checksum:
                found[part] = data
                self._used.add(number)
            else:
                damaged.append(number)
        if damaged or (self._used and time.monotonic() - self._noted > _USED_EVERY):
            with db:
                db.execute("BEGIN IMMEDIATE")
                _drop(db, damaged)
                self._note(db)
        return found

    def _put(
        self, db: sqlite3.Connection, address: str, generation: bytes, parts: Mapping[int, bytes]
    ) -> int:
        with db:
            db.execute("BEGIN IMMEDIATE")
            row = db.execute(
                "SELECT id, generation FROM files WHERE address = ?", (address,)
            ).fetchone()
            if row is not None and row[1] != generation:
                _forget(db, address)
                row = None
            self._note(db)
            self._make_room(db, sum(_stored(len(data)) for data in parts.values()))
            if row is not None:
                file: int = row[0]
            else:
                file = int(
                    db.execute(
                        "INSERT INTO files (address, generation) VALUES (?, ?)",
                        (address, generation),
                    ).lastrowid
                    or 0
                )
            now = _now()
            for part, data in parts.items():
                number = db.execute(
                    "INSERT OR IGNORE INTO parts (file, part, size, used, checksum) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (file, part, len(data), now, _checksum(file, part, data)),
                )
                if number.rowcount == 1:
                    db.execute(
                        "INSERT OR REPLACE INTO bodies (id, data) VALUES (?, ?)",
                        (number.lastrowid, data),
                    )
            return file

    def _make_room(self, db: sqlite3.Connection, wanted: int) -> None:
        pages = _pragma(db, "page_count") - _pragma(db, "freelist_count")
        excess = pages * _PAGE + wanted - self._room
        if excess <= 0:
            return
        # A twentieth more, so that not every batch has to.
        excess += self._room // 20
        while excess > 0:
            oldest = db.execute("SELECT id, size FROM parts ORDER BY used LIMIT 256").fetchall()
            if not oldest:
                return
            gone: list[int] = []
            for number, size in oldest:
                gone.append(number)
                excess -= _stored(size)
                if excess <= 0:
                    break
            _drop(db, gone)
        db.execute("DELETE FROM files WHERE id NOT IN (SELECT file FROM parts)")

    def _note(self, db: sqlite3.Connection) -> None:
        """Write down what was used lately: not with every read, which would be a write each."""
        if self._used:
            db.execute(
                "UPDATE parts SET used = ? WHERE id IN (SELECT value FROM json_each(?))",
                (_now(), json.dumps(list(self._used))),
            )
            self._used.clear()
        self._noted = time.monotonic()

    def _tried(self, work: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        with self._lock:
            for again in (True, False):
                try:
                    return work(self._opened())
                except sqlite3.OperationalError as error:
                    # Full, read-only, or held by another for long: the read goes on without.
                    self._warn(error)
                    return otherwise
                except sqlite3.DatabaseError as error:
                    # Damaged: it holds nothing that cannot be fetched again.
                    self._warn(error)
                    self._begin_anew()
                    if not again:
                        return otherwise
        return otherwise

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            db = sqlite3.connect(
                self._file, timeout=10.0, isolation_level=None, check_same_thread=False
            )
            try:
                # Before the first table, or it has no effect.
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute(f"PRAGMA wal_autocheckpoint = {self._folded // _PAGE}")
                db.execute("PRAGMA journal_size_limit = 0")
                db.executescript(_TABLES)
                if _pragma(db, "page_count") * _PAGE > self._room:
                    # It was larger once.
                    with db:
                        db.execute("BEGIN IMMEDIATE")
                        self._make_room(db, 0)
                    # As a script, which is run to its end: `execute` frees one page.
                    db.executescript("PRAGMA incremental_vacuum")
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except BaseException:
                db.close()
                raise
            self._connection = db
        return self._connection

    def _begin_anew(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        self._used.clear()
        for ending in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self._file}{ending}").unlink(missing_ok=True)

    def _warn(self, error: sqlite3.Error) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning(
                "%s: bytes of a remote store are read without being kept here: %s",
                self._file,
                error,
            )


def _forget(db: sqlite3.Connection, address: str) -> None:
    for (file,) in db.execute("SELECT id FROM files WHERE address = ?", (address,)).fetchall():
        rows = db.execute("SELECT id FROM parts WHERE file = ?", (file,)).fetchall()
        _drop(db, [number for (number,) in rows])
        db.execute("DELETE FROM files WHERE id = ?", (file,))


def _drop(db: sqlite3.Connection, numbers: Sequence[int]) -> None:
    if numbers:
        which = (json.dumps(list(numbers)),)
        db.execute("DELETE FROM bodies WHERE id IN (SELECT value FROM json_each(?))", which)
        db.execute("DELETE FROM parts WHERE id IN (SELECT value FROM json_each(?))", which)


def _checksum(file: int, part: int, data: bytes) -> int:
    # Of whose it is as well: a row that lost its way is damaged too.
    return int(google_crc32c.extend(google_crc32c.value(f"{file} {part} ".encode()), data))


def _stored(size: int) -> int:
    """Return about how many bytes of the file so many bytes take: whole pages, mostly."""
    return -(-(size + _ROW_BYTES) // _PAGE) * _PAGE


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _now() -> int:
    return time.time_ns() // 1_000_000


_OPEN: dict[DiskCache, CachedParts] = {}
_OPENING = threading.Lock()


def cached_parts(cache: DiskCache) -> CachedParts:
    """Return the entries of a cache, one object a process; errors as of `CachedParts`."""
    with _OPENING:
        found = _OPEN.get(cache)
        if found is None:
            found = _OPEN[cache] = CachedParts(cache)
        return found
