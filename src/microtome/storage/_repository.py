"""Icechunk repositories in local directories: found, opened, and committed to without losing any.

Icechunk keeps an image's history, and is asked for it through here only. Three things it does not
do by itself: it loses commits that several processes make to a local directory at once, so ours
are made under a lock; it hangs in a forked child; and it writes its warnings to standard output.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from microtome.errors import (
    ConflictError,
    DependencyError,
    FormatError,
    MicrotomeError,
    ModeError,
    NotFoundError,
    StorageError,
)

from ._publish import is_versioned

if TYPE_CHECKING:
    import icechunk

__all__ = [
    "BRANCH",
    "Workspace",
    "open_repository",
    "real_path",
    "repository_errors",
    "verify_installed",
]

BRANCH = "main"

_ROOT = "zarr.json"
# What the operating system refuses; all else that Icechunk says of files is about damaged ones.
_REFUSALS = ("No space left", "Permission denied", "Read-only file system", "quota", "too large")
_FILTER = threading.Lock()


class _Process:
    """The process in which Icechunk's threads are."""

    id: int | None = None


def verify_installed() -> None:
    """Say which extra brings Icechunk, where it is not installed.

    Raises
    ------
    DependencyError
        If it is not installed.
    """
    try:
        # zarr-python, too: the arrays are read and written with it.
        import icechunk  # noqa: F401 # pyright: ignore[reportUnusedImport]
        import zarr  # noqa: F401 # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        msg = f'images with a history need Icechunk: pip install "microtome[versioned]" ({error})'
        raise DependencyError(msg) from error


def open_repository(path: Path, *, new: bool = False) -> icechunk.Repository:
    """Open the repository in a directory, or make one in it.

    Raises
    ------
    NotFoundError
        If there is none: looking at a directory that is not there would create it.
    FormatError
        If it is damaged.
    ModeError
        In a process that was forked after the first was opened.
    DependencyError
        If Icechunk is not installed.
    """
    verify_installed()
    import icechunk

    if not new and not is_versioned(path):
        msg = f"{path} holds no image with a history"
        raise NotFoundError(msg)
    _verify_process(path)
    _Process.id = os.getpid()
    with repository_errors(path):
        # It says that commits to a local directory are not safe; under our lock they are.
        with _quiet("icechunk::storage::object_store"):
            storage = icechunk.local_filesystem_storage(str(path))
        return icechunk.Repository.create(storage) if new else icechunk.Repository.open(storage)


def real_path(path: Path) -> Path:
    """Return where a directory really is.

    A lock lies beside the directory and has its name: two that come by different links would hold
    two locks, and lose each other's commits. A link may be set anew, and a program may change its
    directory, while an image is open.
    """
    return Path(os.path.realpath(path))  # `Path.resolve` raises for a link to itself


class _Gate:
    """Lets any number of threads write, or one commit: a write is in one commit, all of it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._writing = 0
        self._waiting = 0

    @contextmanager
    def writing(self) -> Generator[None]:
        with self._changed:
            while self._waiting:  # or a commit might wait for ever
                self._changed.wait()
            self._writing += 1
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Generator[None]:
        with self._changed:
            self._waiting += 1
            try:
                while self._writing:
                    self._changed.wait()
                yield
            finally:
                self._waiting -= 1
                self._changed.notify_all()


class Workspace:
    """The session that a store and its arrays work in: another one after each commit.

    Parameters
    ----------
    path
        Directory of the repository.
    where
        What it is called in messages.
    snapshot
        Read this snapshot; None to write.
    repository
        The repository, where it is open already.
    """

    def __init__(
        self,
        path: Path,
        where: Path,
        *,
        snapshot: str | None = None,
        repository: icechunk.Repository | None = None,
    ) -> None:
        self.where = where
        self.number = 0
        self._gate = _Gate()
        self._path = real_path(path)
        self._snapshot = snapshot
        self._enter(repository or open_repository(self._path))

    @property
    def path(self) -> Path:
        """Where the repository really is; locks go by this."""
        return self._path

    @property
    def repository(self) -> icechunk.Repository:
        """The repository."""
        _verify_process(self.where)
        return self._repository

    @property
    def store(self) -> icechunk.IcechunkStore:
        """The store of the session, for zarr-python."""
        _verify_process(self.where)
        return self._store

    @property
    def base(self) -> str:
        """Id of the snapshot that the session started from."""
        return self._base

    @property
    def writable(self) -> bool:
        """Whether anything can be changed."""
        return self._snapshot is None

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        return self._snapshot is None and self._session.has_uncommitted_changes

    def move_to(self, path: Path) -> None:
        """Go on in a new session, the repository being at another place from now on."""
        self._path = real_path(path)
        self._enter(open_repository(self._path))

    def freeze(self) -> None:
        """Drop what is not committed, and only read from now on; nothing is asked of the disk."""
        if self._snapshot is None:
            self._session.discard_changes()
        self._snapshot = self._base
        self.number += 1

    # -- documents

    def document(self, path: str = "") -> dict[str, Any] | None:
        """Return the metadata document of a group or an array, None where there is none."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        with self.errors():
            data = sync(self.store.get(_key(path), default_buffer_prototype()))
        return None if data is None else cast("dict[str, Any]", json.loads(data.to_bytes()))

    def put(self, path: str, document: dict[str, Any]) -> None:
        """Store the metadata document of a group or an array."""
        from zarr.buffer.cpu import Buffer
        from zarr.core.sync import sync

        data = json.dumps(document, allow_nan=False).encode()
        with self.errors():
            sync(self.store.set(_key(path), Buffer.from_bytes(data)))

    def remove(self, path: str) -> None:
        """Remove an array with all its pixels."""
        from zarr.core.sync import sync

        with self.errors():
            sync(self.store.delete_dir(path))

    # -- commits

    def writing(self) -> AbstractContextManager[None]:
        """Keep the session from being committed while pixels are written."""
        return self._gate.writing()

    def commit(self, message: str) -> str:
        """Commit, and go on in a new session; the caller holds the lock.

        Raises
        ------
        ConflictError
            If what was committed meanwhile cannot be left as it is; nothing is dropped.
        """
        import icechunk

        self._verify_there()
        with self._gate.alone(), self.errors():
            while True:
                try:
                    snapshot = self._session.commit(message)
                    break
                except icechunk.ConflictError:
                    self._rebase()
            self._enter(self._repository)
        return snapshot

    def _rebase(self) -> None:
        """Put our changes upon those that others committed, if none of them are to the same."""
        import icechunk

        try:
            # What it warns of is raised as an error right below.
            with _quiet("icechunk::session"):
                self._session.rebase(icechunk.ConflictDetector())
        except icechunk.RebaseFailedError as error:
            theirs = self._repository.lookup_snapshot(error.snapshot)
            msg = (
                f"{self.where}: {theirs.message!r}, committed {theirs.written_at:%Y-%m-%d %H:%M:%S} "
                f"UTC by another writer, changed the same: {_conflicts(error)}. discard() what "
                "is not committed, reopen() the image, which shows what it is now, and make the "
                "changes again"
            )
            raise ConflictError(msg) from error

    def _verify_there(self) -> None:
        # Not asked of Icechunk, which remembers what it has read.
        if not (self._path / "snapshots" / self._base).is_file():
            msg = (
                f"{self.where} was removed or replaced since it was opened; open it again, and "
                "make the changes again"
            )
            raise ConflictError(msg)

    @contextmanager
    def errors(self, where: object = None) -> Generator[None]:
        """Turn what Icechunk raises into our errors, about the repository or what is in it."""
        try:
            with repository_errors(where or self.where):
                yield
        except FormatError as error:
            if (self._path / "snapshots" / self._base).is_file():
                raise
            msg = f"{self.where} was removed or replaced since it was opened; open it again"
            raise NotFoundError(msg) from error

    def _enter(self, repository: icechunk.Repository) -> None:
        with repository_errors(self.where):
            session = (
                repository.writable_session(BRANCH)
                if self._snapshot is None
                else repository.readonly_session(snapshot_id=self._snapshot)
            )
            self._repository, self._session = repository, session
            self._base = session.snapshot_id
            self._store = session.store
        # Last: an array that sees the new number takes the new session.
        self.number += 1

    def __reduce__(self) -> tuple[Any, ...]:
        if self._snapshot is None:
            msg = (
                f"{self.where} is open for writing, which cannot be handed to another process; "
                "open it there"
            )
            raise ModeError(msg)
        return _workspace, (str(self._path), str(self.where), self._snapshot)


def _workspace(path: str, where: str, snapshot: str) -> Workspace:
    return Workspace(Path(path), Path(where), snapshot=snapshot)


@contextmanager
def repository_errors(where: object) -> Generator[None]:
    """Turn Icechunk's errors, which are of one class, into ours."""
    import icechunk

    try:
        yield
    except MicrotomeError:
        raise
    except icechunk.IcechunkError as error:
        # Below its first line there are places in Icechunk's own source.
        reason = str(error).strip().split("\n", 1)[0].removeprefix("x ").strip()
        if any(words in str(error) for words in _REFUSALS):
            msg = f"{where}: {reason}"
            raise StorageError(msg) from error
        msg = f"{where} is damaged or cannot be read: {reason}"
        raise FormatError(msg) from error


def _verify_process(where: object) -> None:
    """Refuse to work in a child that was forked after Icechunk had started: it would hang."""
    if _Process.id is not None and _Process.id != os.getpid():
        msg = (
            f"{where}: Icechunk was used in process {_Process.id}, from which process "
            f"{os.getpid()} was forked, and does not survive that. Start workers with the "
            "'spawn' or 'forkserver' method, or use microtome.TileLoader, which needs none"
        )
        raise ModeError(msg)


@contextmanager
def _quiet(module: str) -> Generator[None]:
    """Keep warnings of one module of Icechunk off standard output."""
    import icechunk

    stated = os.environ.get("ICECHUNK_LOG", "warn")
    with _FILTER:
        icechunk.set_logs_filter(f"{stated},{module}=error")
        try:
            yield
        finally:
            icechunk.set_logs_filter(None)  # what the environment says


def _conflicts(error: icechunk.RebaseFailedError) -> str:
    """Say what two writers changed, in words."""
    found: list[str] = []
    for conflict in error.conflicts:
        path, chunks = conflict.path.strip("/"), conflict.conflicted_chunks
        if chunks:
            some = ", ".join(str(tuple(chunk)) for chunk in chunks[:4])
            more = f" and {len(chunks) - 4} more" if len(chunks) > 4 else ""
            found.append(f"chunks {some}{more} of array {path!r}")
        else:
            found.append(f"array {path!r}" if path else "metadata")
    return "; ".join(dict.fromkeys(found))


def _key(path: str) -> str:
    return f"{path}/{_ROOT}" if path else _ROOT
