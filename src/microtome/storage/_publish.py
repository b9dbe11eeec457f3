"""Nothing half-written is ever opened: write beside, then rename.

A directory is built under a hidden name next to its target and renamed when it is complete. Its
root metadata, without which no reader takes it for an image, is kept under another name until
after that rename, so that a process killed at any moment leaves nothing that opens. A lock file
beside the draft, older than it and removed after it, says whether its writer lives: the operating
system releases the locks of the dead, and the next writer of the same target clears up after them.
A second lock keeps two writers of one target from renaming at the same time.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections import OrderedDict
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from microtome.errors import BusyError, ExistsError

from ._addresses import verify_here
from ._documents import group_document, write_document
from ._files import storage_errors, sync_directory

__all__ = ["Draft", "clear_drafts", "is_left_over", "is_versioned", "publishing"]

_PENDING = "zarr.json.pending"
_ROOTS = ("zarr.json", ".zgroup", ".zarray")
# What an Icechunk repository opens by: which snapshot is the newest.
_BRANCH = ("refs", "branch.main", "ref.json")
_LOCK_SUFFIX = ".lock"
# Names that drafts of one target have, the first that is free each: whoever looks for what the dead
# left asks for these, and need not list a directory of thousands of images for each of them. Beyond
# them, and of older versions, names are random, and looked for once by each process.
_SLOTS = tuple(f"{number:012x}" for number in range(8))
# Directories that a process remembers to have looked through.
_MOST_LOOKED = 4096
# What a writer leaves that is killed: see `_prefix`, `_aside` and `_publish_lock`.
_LEFT = re.compile(
    r"\.(?P<target>.+)\.(partial-[0-9a-f]{12}(\.lock)?|replaced-[0-9a-f]{12}|publish\.lock)"
)
# Renaming takes milliseconds; who waits longer than this waits for a process that hangs.
_PUBLISH_SECONDS = 60.0


class Draft:
    """A directory that is being written and is not there until `publish`.

    As a context manager it discards what is not published when the block is left.

    Parameters
    ----------
    target
        Where the directory will be.
    overwrite
        Whether an image or array that is there may be replaced. Anything else that is there never
        is: a mistyped path must not cost a folder of somebody's files.

    Raises
    ------
    ExistsError
        If the target holds something that may not be replaced.
    StorageError
        If the disk refuses.
    """

    def __init__(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.target = Path(target)
        self._overwrite = overwrite
        verify_here(self.target)
        with storage_errors(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            _sweep(self.target)
            try:
                self._verify_target()
            except ExistsError:  # or another writer was renaming while we looked
                with publishing(self.target):
                    self._verify_target()
            self.path, self._lock = _claim(self.target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()

    def write_root(self, attributes: Mapping[str, Any]) -> None:
        """Write the root group's metadata; it takes effect with `publish`."""
        with storage_errors(self.target):
            write_document(self.path / _PENDING, group_document(attributes))

    def publish(self) -> None:
        """Make the directory appear at its target, whole.

        Raises
        ------
        ExistsError
            If another writer was faster; this draft is removed.
        StorageError
            If the disk refuses; this draft is removed.
        """
        try:
            with storage_errors(self.target), publishing(self.target):
                self._verify_target()
                # Under the lock: nobody else takes the name.
                aside = _free(self.target, _aside(self.target))
                try:
                    if os.path.lexists(self.target):
                        # Not in one step, but the gap shows no image rather than half of one.
                        self.target.rename(aside)
                    self.path.rename(self.target)
                    with contextlib.suppress(FileNotFoundError):  # a plain directory has no root
                        (self.target / _PENDING).replace(self.target / _ROOTS[0])
                except BaseException:
                    _settle(aside, self.target)
                    raise
                sync_directory(self.target)
                sync_directory(self.target.parent)
            _remove(aside)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what was written and is not published."""
        _remove(self.path)
        if self._lock.is_locked:
            _release(self._lock)

    def _verify_target(self) -> None:
        if not os.path.lexists(self.target) or is_left_over(self.target):
            return
        if not (
            is_versioned(self.target) or any((self.target / root).is_file() for root in _ROOTS)
        ):
            msg = f"{self.target} holds something that is no image; choose another place"
            raise ExistsError(msg)
        if not self._overwrite:
            msg = f"{self.target} exists already; choose another place or allow overwriting"
            raise ExistsError(msg)


def clear_drafts(directory: Path) -> None:
    """Clear up after writers that died in a directory, whatever it was that they wrote.

    The next writer of the same target does so as well; but of a target that its writer completed
    before it died there may be none. Writers that live are left alone.
    """
    with contextlib.suppress(FileNotFoundError):
        names = frozenset(os.listdir(directory))  # noqa: PTH208 - a tenth of the time of paths
        for name in sorted(_left(names)):
            _sweep(directory / name, names)


def is_versioned(place: Path) -> bool:
    """Whether a directory holds images with a history, in an Icechunk repository."""
    return place.joinpath(*_BRANCH).is_file()


def is_left_over(target: Path) -> bool:
    """Whether a directory is empty, or complete but for the last step of a writer that died."""
    if not target.is_dir():
        return False
    try:
        names = {entry.name for entry in target.iterdir()}
    except FileNotFoundError:  # its writer moved it just now
        return False
    return not names or (_PENDING in names and names.isdisjoint(_ROOTS))


def _claim(target: Path) -> tuple[Path, FileLock]:
    """Make a directory to write in, under a lock that is there before it."""
    for name in _names():
        path = target.parent / f"{_prefix(target)}{name}"
        # Not one lock a thread: an image may be begun in one and published in another.
        lock = FileLock(path.with_name(path.name + _LOCK_SUFFIX), thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:  # another writer's, or somebody sweeps it before we held it
            continue
        try:
            if os.path.lexists(path):  # of a writer that died since we swept
                _remove(path)
            path.mkdir()
        except BaseException:
            _release(lock)
            raise
        return path, lock
    raise AssertionError  # names do not end


def _names() -> Iterator[str]:
    yield from _SLOTS
    while True:
        yield uuid.uuid4().hex[:12]


def _free(target: Path, prefix: str) -> Path:
    """Return a name beside a target that nothing has."""
    paths = (target.parent / f"{prefix}{name}" for name in _names())
    return next(path for path in paths if not os.path.lexists(path))


@contextlib.contextmanager
def publishing(target: Path) -> Generator[None]:
    """Keep other writers of the target from renaming."""
    lock = FileLock(target.parent / _publish_lock(target), thread_local=False)
    try:
        lock.acquire(timeout=_PUBLISH_SECONDS)
    except Timeout as error:
        msg = (
            f"another process has been publishing {target} for {_PUBLISH_SECONDS:g} s; is it stuck?"
        )
        raise BusyError(msg) from error
    try:
        yield
    finally:
        _release(lock)


def _release(lock: FileLock) -> None:
    # Removed while it is held: who waits for it sees that the file is gone, and makes another.
    with contextlib.suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _prefix(target: Path) -> str:
    return f".{target.name}.partial-"


def _publish_lock(target: Path) -> str:
    return f".{target.name}.publish{_LOCK_SUFFIX}"


def _aside(target: Path) -> str:
    return f".{target.name}.replaced-"


def _sweep(target: Path, names: Collection[str] | None = None) -> None:
    """Remove drafts of the same target whose writers are dead, and undo what they had begun.

    Parameters
    ----------
    target
        The target.
    names
        What is in its directory, where that is known; by default it is looked at for the names
        that drafts have.
    """
    parent, prefix, aside = target.parent, _prefix(target), _aside(target)
    if names is None and target.name in _left_in(parent):
        names = os.listdir(parent)  # noqa: PTH208 - names alone
    known = None if names is None else frozenset(names)

    def there(name: str) -> bool:
        return os.path.lexists(parent / name) if known is None else name in known

    def begun(prefix: str, suffix: str = "") -> list[str]:
        if known is None:
            return [n for slot in _SLOTS if there(n := f"{prefix}{slot}{suffix}")]
        return [n for n in known if n.startswith(prefix)]

    # The lock of a draft is there before it, and longer.
    for name in {n.removesuffix(_LOCK_SUFFIX) for n in begun(prefix, _LOCK_SUFFIX)}:
        _remove_if_dead(parent / name)
    moved = begun(aside)
    if moved or there(_publish_lock(target)):
        with publishing(target):
            for name in moved:
                _settle(parent / name, target)


_LOOKED: OrderedDict[str, frozenset[str]] = OrderedDict()


def _left_in(directory: Path) -> frozenset[str]:
    """Return the targets of which something lay in a directory when this process first wrote there."""
    key = os.path.abspath(directory)  # noqa: PTH100 - `resolve` asks the disk for every part
    found = _LOOKED.get(key)
    if found is None:
        found = _LOOKED[key] = frozenset(_left(os.listdir(directory)))  # noqa: PTH208 - as above
        while len(_LOOKED) > _MOST_LOOKED:
            with contextlib.suppress(KeyError):
                _LOOKED.popitem(last=False)
    return found


def _left(names: Iterable[str]) -> set[str]:
    """Return the targets of which something lies among names."""
    found = [_LEFT.fullmatch(name) for name in names if name.startswith(".")]
    return {each["target"] for each in found if each}


def _settle(old: Path, target: Path) -> None:
    """Put back what a writer moved aside before it died, unless what was to replace it is there."""
    with contextlib.suppress(OSError):
        if old.exists() and is_left_over(target):
            _remove(target)
        if os.path.lexists(target):
            _remove(old)
        else:
            old.rename(target)


def _remove_if_dead(draft: Path) -> None:
    lock = FileLock(draft.with_name(draft.name + _LOCK_SUFFIX), thread_local=False)
    with contextlib.suppress(Timeout, OSError):
        lock.acquire(timeout=0)
        _remove(draft)
        _release(lock)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_symlink():
            path.unlink()
        else:
            # What makes it open goes first: a process may be killed here, too.
            for root in _ROOTS:
                (path / root).unlink(missing_ok=True)
            path.joinpath(*_BRANCH).unlink(missing_ok=True)
            shutil.rmtree(path)
