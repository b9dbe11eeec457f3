"""Images in directories: new ones, which appear whole, and ones that are there and are changed.

What is changed under a directory that others read goes through one file, the group's metadata,
which is replaced in one step: an array is complete before the metadata name it, and is removed
after they have ceased to. What a writer that died in between left behind is noted in the metadata
before it exists, and removed by the next writer.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

from numpy.typing import DTypeLike

from microtome.errors import ExistsError, FormatError, MicrotomeError, ModeError

from ._array import StoredArray
from ._chunks import known_layout
from ._documents import (
    OURS,
    forget_absent,
    group_document,
    keep_absent,
    keep_copies,
    kept_copies,
    read_document,
    read_hierarchy,
    write_document,
)
from ._files import replace_file, storage_errors
from ._inventory import shards_absent
from ._layout import Layout
from ._making import create_array
from ._publish import Draft, publishing
from ._remote import StorageOptions

__all__ = ["DirectoryStore", "DraftStore"]

_ROOT = "zarr.json"
# In our attribute: the arrays that no attribute names any more, or none names yet.
_LEFT_OVER = "left_over"


class DraftStore:
    """A new image in a directory: nothing of it is there before `close`.

    Parameters
    ----------
    target
        Where the directory will be.
    overwrite
        Whether an image that is there may be replaced.

    Raises
    ------
    ExistsError
        If the target holds something that may not be replaced.
    StorageError
        If the disk refuses.
    """

    writable = True

    def __init__(self, target: Path, *, overwrite: bool = False) -> None:
        self._draft = Draft(target, overwrite=overwrite)
        self._attributes: dict[str, Any] = {}
        self._arrays: dict[Path, StoredArray] = {}

    @property
    def uri(self) -> str:
        """Where the image will be."""
        return str(self._draft.target)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes as they are now."""
        return copy.deepcopy(self._attributes)

    @contextmanager
    def changing(
        self, *, adding: Sequence[str] = (), removing: Sequence[str] = ()
    ) -> Generator[dict[str, Any]]:
        """Give the attributes to be changed in place; see `ImageStore.changing`."""
        del adding  # all that is in a draft appears with it
        attributes = self.attributes()
        yield attributes
        self._attributes = attributes
        for path in removing:
            self.forget(path)

    def open_array(self, path: str) -> StoredArray:
        """Open an array of the draft."""
        return _opened(self._arrays, self._draft.path / path)

    def create_array(
        self, path: str, *, shape: Sequence[int], dtype: DTypeLike, layout: Layout, axes: str
    ) -> StoredArray:
        """Create an array in the draft."""
        place = self._draft.path / path
        array = create_array(place, shape=shape, dtype=dtype, layout=layout, axes=axes)
        self._arrays[place] = array
        return array

    def holds(self, path: str) -> bool:
        """Whether there is anything at a path inside the draft."""
        return (self._draft.path / path).exists()

    def settle(self, path: str) -> str:
        """Return where an array is: nobody else writes into a draft."""
        return path

    def forget(self, path: str) -> None:
        """Remove an array of the draft."""
        _close_array(self._arrays, self._draft.path / path)
        _remove(self._draft.path / path)

    def close(self) -> None:
        """Make the directory appear at its place, whole.

        Raises
        ------
        ExistsError
            If another writer was faster; this draft is removed.
        StorageError
            If the disk refuses; this draft is removed.
        """
        try:
            documents = {
                place.relative_to(self._draft.path).as_posix(): array.document
                for place, array in self._arrays.items()
            }
            keep_copies(self._attributes, documents)
            keep_absent(self._attributes, self._absent(documents))
            _close_all(self._arrays)
            self._draft.write_root(self._attributes)
            self._draft.publish()
        finally:
            self._draft.discard()

    def _absent(self, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return which files of the arrays were never written, where that can be told."""
        found: dict[str, Any] = {}
        for path, document in documents.items():
            layout = known_layout(document)
            absent = None if layout is None else shards_absent(self._draft.path / path, layout)
            if absent is not None:
                found[path] = absent
        return found

    def discard(self) -> None:
        """Remove the draft."""
        _close_all(self._arrays)
        self._draft.discard()


class DirectoryStore:
    """An image in a directory that is there.

    Any number of writers may have one open: each change of the attributes is made under a lock, to
    what they are at that moment.

    Parameters
    ----------
    path
        The directory.
    writable
        Whether anything may be changed.
    options
        What is kept in memory.

    Raises
    ------
    NotFoundError
        If there is no group.
    ModeError
        If it is to be written and is a Zarr v2 group.
    """

    def __init__(
        self, path: Path, *, writable: bool = False, options: StorageOptions | None = None
    ) -> None:
        self._path = path
        self._options = options
        self.writable = writable
        self._drafts: dict[str, Draft] = {}
        self._arrays: dict[Path, StoredArray] = {}
        self._found = read_hierarchy(path)
        if writable and not (path / _ROOT).is_file():
            msg = (
                f"{path} is a Zarr v2 group, which is read and not changed; copy it into a new "
                "image to write"
            )
            raise ModeError(msg)

    @property
    def uri(self) -> str:
        """The directory."""
        return str(self._path)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes: as they are now, or, of a store to read, as they were found."""
        return (read_hierarchy(self._path) if self.writable else self._found).attributes

    @contextmanager
    def changing(
        self, *, adding: Sequence[str] = (), removing: Sequence[str] = ()
    ) -> Generator[dict[str, Any]]:
        """Give the attributes to be changed in place; see `ImageStore.changing`.

        Raises
        ------
        ModeError
            If the store was opened for reading.
        BusyError
            If another process is changing the image and does not end.
        """
        self._verify_writable()
        # By its own name, whatever link it was opened by: writers of one image share one lock.
        own = Path(os.path.realpath(self._path))
        with storage_errors(self._path), publishing(own):
            before = read_document(self._path / _ROOT)
            attributes: dict[str, Any] = copy.deepcopy(before.get("attributes", {}))
            self._sweep(attributes)
            yield attributes
            for path in adding:
                if self.holds(path):  # before anything is noted: what is there is somebody's
                    msg = f"{self._path} holds something at {path!r} already"
                    raise ExistsError(msg)
            if adding:
                # Should the process die before the new attributes are there, the next writer
                # finds this note and removes what nothing names.
                _note(before.setdefault("attributes", {}), adding)
                self._replace_root(before)
                try:
                    for path in adding:
                        _close_array(self._arrays, self._drafts[path].path)
                        self._drafts.pop(path).publish()
                except BaseException:
                    self._sweep(before["attributes"])
                    self._replace_root(before)
                    raise
            after = _consolidated(before, attributes, self._path, adding, removing)
            if removing:
                _note(attributes, removing)
                self._replace_root(after)
                for path in removing:
                    _close_array(self._arrays, self._path / path)
                    _remove(self._path / path)
                _note(attributes, ())
            self._replace_root(after)

    def open_array(self, path: str) -> StoredArray:
        """Open an array of the group."""
        draft = self._drafts.get(path)
        place = draft.path if draft is not None else self._path / path
        if self.writable:
            array = _opened(self._arrays, place)
            if self._found.absent.pop(path, None) is not None:
                # A file of which all pixels become 0 is removed, and no loss.
                array.before_write = partial(self._forget_absent, path)
            return array
        # Opened once, and the document let go of: thousands of images are open at once.
        document, absent = self._found.arrays.pop(path, None), self._found.absent.pop(path, None)
        return StoredArray(place, document=document, options=self._options, absent=absent)

    def _forget_absent(self, path: str) -> None:
        with self.changing() as attributes:
            forget_absent(attributes, [path])

    def create_array(
        self, path: str, *, shape: Sequence[int], dtype: DTypeLike, layout: Layout, axes: str
    ) -> StoredArray:
        """Create an array beside the group's, under a name that no reader looks at."""
        self._verify_writable()
        if self._is_taken(path):
            msg = f"{self._path} holds something at {path!r} already"
            raise ExistsError(msg)
        draft = Draft(self._path / path)
        try:
            array = create_array(draft.path, shape=shape, dtype=dtype, layout=layout, axes=axes)
        except BaseException:
            draft.discard()
            raise
        self._drafts[path] = draft
        self._arrays[draft.path] = array
        return array

    def holds(self, path: str) -> bool:
        """Whether there is anything at a path inside the group."""
        return (self._path / path).exists()

    def settle(self, path: str) -> str:
        """Return where an array will be: elsewhere, if another writer has taken its place."""
        if not self.holds(path):
            return path
        free = next(name for name in map(str, count()) if not self._is_taken(name))
        draft = self._drafts[free] = self._drafts.pop(path)
        draft.target = self._path / free
        return free

    def _is_taken(self, path: str) -> bool:
        return path in self._drafts or self.holds(path)

    def forget(self, path: str) -> None:
        """Drop an array that was begun and is no part of the group yet; nothing if there is none."""
        draft = self._drafts.pop(path, None)
        if draft is not None:
            _close_array(self._arrays, draft.path)
            draft.discard()

    def close(self) -> None:
        """Drop arrays that were begun and are no part of the group; the others are there."""
        _close_all(self._arrays)
        while self._drafts:
            self._drafts.popitem()[1].discard()

    discard = close

    def _verify_writable(self) -> None:
        if not self.writable:
            msg = f"{self._path} is open for reading"
            raise ModeError(msg)

    def _replace_root(self, document: dict[str, Any]) -> None:
        with replace_file(self._path / _ROOT) as temporary:
            write_document(temporary, document)

    def _sweep(self, attributes: dict[str, Any]) -> None:
        """Remove what a writer that died had noted, and the note."""
        ours = attributes.get(OURS)
        noted = cast("dict[str, Any]", ours).get(_LEFT_OVER) if isinstance(ours, dict) else None
        if isinstance(noted, list):
            for path in cast("list[object]", noted):
                if isinstance(path, str) and is_inside(path):
                    _remove(self._path / path)
            _note(attributes, ())


def is_inside(path: str) -> bool:
    """Whether a path with forward slashes leads to something below where it starts."""
    parts = path.split("/")
    return not any(part in {"", ".", ".."} or "\\" in part or "\0" in part for part in parts)


def _note(attributes: dict[str, Any], paths: Sequence[str]) -> None:
    """Note arrays that may be removed by whoever comes next, or that there are none."""
    ours: dict[str, Any] = attributes.setdefault(OURS, {})
    if paths:
        ours[_LEFT_OVER] = list(paths)
    else:
        ours.pop(_LEFT_OVER, None)
        if not ours:
            attributes.pop(OURS)


def _consolidated(
    before: dict[str, Any],
    attributes: dict[str, Any],
    directory: Path,
    adding: Iterable[str],
    removing: Iterable[str],
) -> dict[str, Any]:
    """Return the group's document with new attributes.

    Copies of its arrays' documents, which some writers keep in it, are kept true.
    """
    adding, removing = list(adding), list(removing)
    forget_absent(attributes, [*adding, *removing])
    ours = kept_copies(attributes)
    if ours is not None:
        keep_copies(attributes, _changed(ours, directory, adding, removing))
    after = {**before, **group_document(attributes)}
    block = after.get("consolidated_metadata")
    if isinstance(block, dict):
        theirs = cast("dict[str, Any]", block).get("metadata")
        if not isinstance(theirs, dict):
            msg = f"{directory}: consolidated_metadata must hold an object named 'metadata'"
            raise FormatError(msg)
        copies = _changed(cast("dict[str, Any]", theirs), directory, adding, removing)
        after["consolidated_metadata"] = {**block, "metadata": copies}
    return after


def _changed(
    copies: dict[str, Any], directory: Path, adding: Iterable[str], removing: Iterable[str]
) -> dict[str, Any]:
    kept = {path: copy for path, copy in copies.items() if path not in removing}
    return kept | {path: read_document(directory / path / _ROOT) for path in adding}


def _opened(arrays: dict[Path, StoredArray], place: Path) -> StoredArray:
    """Return the one handle of an array that is written: all are closed when it moves or goes."""
    if place not in arrays:
        arrays[place] = StoredArray(place, writable=True)
    return arrays[place]


def _close_array(arrays: dict[Path, StoredArray], place: Path) -> None:
    array = arrays.pop(place, None)
    if array is not None:
        with contextlib.suppress(MicrotomeError):
            _ = array.shape  # known from now on, without its files
        array.close()


def _close_all(arrays: dict[Path, StoredArray]) -> None:
    for place in list(arrays):
        _close_array(arrays, place)


def _remove(path: Path) -> None:
    # The metadata first: what is half removed opens as nothing.
    with contextlib.suppress(OSError):
        (path / _ROOT).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
