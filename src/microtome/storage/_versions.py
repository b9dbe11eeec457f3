"""Images with a history: what was changed is committed at once, and every commit can be opened."""

from __future__ import annotations

import copy
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike

from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    ModeError,
)

from ._documents import group_document
from ._facts import array_document
from ._layout import Layout
from ._publish import Draft, is_versioned, publishing
from ._repository import (
    Workspace,
    open_repository,
    real_path,
    repository_errors,
    verify_installed,
)
from ._snapshots import Snapshot, ancestry, known_snapshot, resolve, tags_of, verify_tag
from ._versioned_array import VersionedArray

__all__ = ["Snapshot", "VersionedStore", "is_versioned"]


class VersionedStore:
    """An image in an Icechunk repository; see `create` and `open`.

    What is changed lies in a session that nobody else sees, until it is committed whole. A store
    to read stays at its snapshot, whatever others commit.
    """

    def __init__(self, workspace: Workspace, path: Path, *, draft: Draft | None = None) -> None:
        self._workspace = workspace
        self._path = path
        self._draft = draft
        self.writable = workspace.writable
        self._pending: set[str] = set()
        self._arrays: dict[str, VersionedArray] = {}
        # Not from inside a change, and not two at once: they would be one commit.
        self._changing = threading.RLock()

    @classmethod
    def create(cls, path: Path, *, overwrite: bool = False) -> VersionedStore:
        """Begin a new image; nothing is at `path` before the first commit.

        Parameters
        ----------
        path
            Directory.
        overwrite
            Whether an image that is there may be replaced, its history included.

        Raises
        ------
        ExistsError
            If the path holds something that may not be replaced.
        StorageError
            If the disk refuses.
        DependencyError
            If Icechunk is not installed.
        """
        verify_installed()
        draft = Draft(path.absolute(), overwrite=overwrite)
        try:
            repository = open_repository(draft.path, new=True)
            workspace = Workspace(draft.path, path, repository=repository)
            workspace.put("", group_document({}))
        except BaseException:
            draft.discard()
            raise
        return cls(workspace, path, draft=draft)

    @classmethod
    def open(
        cls, path: Path, *, writable: bool = False, at: str | int | datetime | None = None
    ) -> VersionedStore:
        """Open an image.

        Parameters
        ----------
        path
            Directory.
        writable
            Whether anything will be changed.
        at
            What to read: the id of a snapshot, a tag, or a time, with a time zone or in
            milliseconds since the epoch, for the newest snapshot that was there then; the newest
            of all by default.

        Raises
        ------
        NotFoundError
            If there is no such image, or was none at that time.
        UnknownNameError
            If there is no such tag or snapshot.
        InvalidInputError
            If `at` is no such thing, or is given to write: the past is not changed.
        FormatError
            If the repository is damaged.
        """
        if writable and at is not None:
            msg = f"{path} at {at!r} cannot be changed, the past being past; open it without at="
            raise InvalidInputError(msg)
        if writable:
            return cls(Workspace(path, path), path)
        repository = open_repository(real_path(path))
        with repository_errors(path):
            snapshot = resolve(repository, path, at)
        return cls(Workspace(path, path, snapshot=snapshot, repository=repository), path)

    @property
    def uri(self) -> str:
        """The directory."""
        return str(self._path)

    # -- the group

    def attributes(self) -> dict[str, Any]:
        """Return the attributes, with what is changed and not committed.

        Raises
        ------
        FormatError
            If there is no group at the root of the repository.
        """
        document = self._workspace.document()
        if document is None or document.get("node_type") != "group":
            msg = f"{self._path} is an Icechunk repository without a group at its root: no image"
            raise FormatError(msg)
        return document.get("attributes", {})

    @contextmanager
    def changing(
        self, *, adding: Sequence[str] = (), removing: Sequence[str] = ()
    ) -> Generator[dict[str, Any]]:
        """Give the attributes to be changed in place; see `ImageStore.changing`.

        Raises
        ------
        ModeError
            If the store was opened for reading, or is closed.
        """
        self._verify_writable()
        with self._changing:
            before = self.attributes()
            attributes = copy.deepcopy(before)
            yield attributes
            if attributes != before:  # or two writers who change nothing would be at odds
                self._workspace.put("", group_document(attributes))
            self._pending.difference_update(adding)
            for path in removing:
                self._remove(path)

    def open_array(self, path: str) -> VersionedArray:
        """Open an array of the group: the same one each time, all being closed with the store."""
        if path not in self._arrays:
            array = VersionedArray(self._workspace, path, writable=self.writable)
            self._arrays[path] = array
        return self._arrays[path]

    def create_array(
        self, path: str, *, shape: Sequence[int], dtype: DTypeLike, layout: Layout, axes: str
    ) -> VersionedArray:
        """Create an array that reads as zeros; see `ImageStore.create_array`."""
        self._verify_writable()
        document = array_document(shape, dtype, layout, axes, where=self._path / path)
        with self._changing:
            if self.holds(path):
                msg = f"{self._path} holds something at {path!r} already"
                raise ExistsError(msg)
            self._add_groups(path)
            head = {"zarr_format": 3, "node_type": "array"}
            self._workspace.put(path, {**head, **document, "attributes": {}})
            self._pending.add(path)
            return self.open_array(path)

    def holds(self, path: str) -> bool:
        """Whether there is anything at a path inside the group."""
        return self._workspace.document(path) is not None

    def settle(self, path: str) -> str:
        """Return where an array is: a session is nobody else's."""
        return path

    def forget(self, path: str) -> None:
        """Drop an array that was created and is no part of the group yet; nothing if there is none."""
        if path in self._pending:
            self._remove(path)

    # -- history

    def history(self) -> list[Snapshot]:
        """Return the snapshots that led to what is open, newest first."""
        names: dict[str, list[str]] = {}
        for name, snapshot in self.tags().items():
            names.setdefault(snapshot, []).append(name)
        with self._workspace.errors():
            found = list(ancestry(self._workspace.repository, self._workspace.base))
        return [
            Snapshot(info.id, info.message, info.written_at, tuple(names.get(info.id, ())))
            for info in found
        ]

    def commit(self, message: str) -> str:
        """Make what was changed visible to others, all of it at once.

        Where others committed since, this goes upon theirs if all changes are to different chunks,
        arrays and metadata.

        Returns
        -------
        The id of the snapshot.

        Raises
        ------
        ConflictError
            If others changed the same; nothing is dropped, and nothing committed.
        InvalidInputError
            If nothing was changed, or there is no message.
        ModeError
            If the store was opened for reading, or is closed.
        ExistsError, StorageError
            If a new image cannot appear at its place; nothing of it is left.
        """
        self._verify_writable()
        if not isinstance(message, str) or not message.strip():  # pyright: ignore[reportUnnecessaryIsInstance] - whatever the caller gave
            msg = f"{self._path}: a commit needs a message that says what was done, got {message!r}"
            raise InvalidInputError(msg)
        with self._changing:
            if self._pending:
                msg = (
                    f"{self._path}: arrays {sorted(self._pending)} are being written and are no "
                    "levels yet; commit when that has ended"
                )
                raise InvalidInputError(msg)
            if not self._workspace.changed:
                msg = f"{self._path}: nothing was changed since the last commit"
                raise InvalidInputError(msg)
            return self._commit(message)

    def tag(self, name: str, snapshot: str | None = None) -> None:
        """Name a snapshot; the name is never given to another.

        Parameters
        ----------
        name
            Letters, digits and ``._+-``, beginning with a letter or a digit.
        snapshot
            Id of a snapshot; that which is open by default.

        Raises
        ------
        ExistsError
            If there is, or was, a tag of that name.
        InvalidInputError
            If it is no name, or there are changes that are not committed.
        UnknownNameError
            If there is no such snapshot.
        ModeError
            If the store was opened for reading, or is closed.
        """
        import icechunk

        self._verify_writable()
        verify_tag(self._path, name)
        if snapshot is None and (self._workspace.changed or self._draft is not None):
            msg = f"{self._path} has changes that are in no snapshot; commit before tagging"
            raise InvalidInputError(msg)
        repository = self._workspace.repository
        with self._workspace.errors():
            chosen = known_snapshot(repository, self._path, snapshot or self._workspace.base)
            with publishing(self._workspace.path):
                try:
                    repository.create_tag(name, chosen)
                except icechunk.IcechunkError as error:
                    if "already exists" not in str(error):
                        raise
                    msg = (
                        f"{self._path} has, or had, a tag {name!r}, which stays what it is; choose "
                        "another name"
                    )
                    raise ExistsError(msg) from error

    def tags(self) -> dict[str, str]:
        """Return `{name: id of the snapshot}`, sorted by name."""
        with self._workspace.errors():
            return tags_of(self._workspace.repository)

    # -- the end

    def close(self) -> None:
        """Commit what was changed, under the message "closed", and end writing.

        Raises
        ------
        ConflictError
            If others changed the same; nothing is dropped, and nothing committed.
        ExistsError, StorageError
            If a new image cannot appear at its place; nothing of it is left.
        """
        if not self.writable:
            return
        with self._changing:
            for path in tuple(self._pending):
                self._remove(path)
            if self._workspace.changed:
                self._commit("closed")
            self._end()

    def discard(self) -> None:
        """End writing, and drop what was not committed; a new image is removed."""
        if self.writable:
            self._end()

    def _end(self) -> None:
        for array in self._arrays.values():
            array.close()
        self.writable = False
        self._workspace.freeze()
        if self._draft is not None:
            self._draft.discard()
            self._draft = None

    def _commit(self, message: str) -> str:
        if self._draft is None:
            with publishing(self._workspace.path):
                return self._workspace.commit(message)
        snapshot = self._workspace.commit(message)
        try:
            self._draft.publish()
        except BaseException:
            self._end()
            raise
        target, self._draft = self._draft.target, None
        self._workspace.move_to(target)
        return snapshot

    def _add_groups(self, path: str) -> None:
        """Make the groups that an array lies in: Icechunk does not remove what lies in none."""
        parts = path.split("/")
        for end in range(1, len(parts)):
            parent = "/".join(parts[:end])
            document = self._workspace.document(parent)
            if document is None:
                self._workspace.put(parent, group_document({}))
            elif document.get("node_type") != "group":
                msg = f"{self._path} holds an array at {parent!r}, in which {path!r} cannot lie"
                raise ExistsError(msg)

    def _remove(self, path: str) -> None:
        self._pending.discard(path)
        array = self._arrays.pop(path, None)
        if array is not None:
            array.close()
        self._workspace.remove(path)

    def _verify_writable(self) -> None:
        if not self.writable:
            msg = f"{self._path} is open for reading, or closed; open it for writing"
            raise ModeError(msg)

    def __reduce__(self) -> tuple[Any, ...]:
        return VersionedStore, (self._workspace, self._path)
