"""What was made on a disk here, put into a store: what it opens by is written last, in one request.

A store renames nothing and locks nothing. Of an image, its root metadata, without which no reader
takes it for one, are the last object that is written, on the condition that nobody has written any.
Two writers are kept apart by an object of their own inside of the image, the claim: it is made on
the condition that there is none, says of which run it is, and is written anew every few seconds as
long as its writer lives. Who finds one that does not change takes it over; who finds one of the
same run, which was killed, goes on with what is there. Clocks are not compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from microtome.errors import BusyError, ExistsError
from microtome.progress import Progress, silent

from ._engine import engine_errors
from ._files import storage_errors
from ._remote import Place

__all__ = ["forget_upload", "upload_directory", "upload_file", "verify_upload"]

_CLAIM = ".uploading"
_ROOT = "zarr.json"
_ROOTS = (_ROOT, ".zgroup", ".zarray")
# A writer that lives says so this often, in seconds.
_BEAT = 5.0
# One that was silent for so long is dead.
_SILENCE = 60.0
# Of files on the way, so many, and so many bytes, are in memory.
_AT_ONCE = 16
_BYTES_AT_ONCE = 64 * 2**20


def verify_upload(place: Place, *, overwrite: bool) -> None:
    """Refuse a place where an image could not be put.

    Parameters
    ----------
    place
        The directory of the image in a store.
    overwrite
        Whether an image that is there may be replaced; anything else never is.

    Raises
    ------
    ModeError
        If such a store is only read.
    ExistsError
        If something is there that may not be replaced.
    StorageError
        If the store cannot be reached or refuses.
    """
    place.verify_writable()
    _verify_names(place, place.names(), overwrite=overwrite)


def upload_directory(
    source: Path, place: Place, *, run: str, overwrite: bool, progress: Progress = silent
) -> None:
    """Put an image that lies in a directory here into a store, whole or not at all.

    What was on the way when a process died is gone on with by the same run, and removed by another.
    An image that is replaced is gone while the new one is on its way.

    Parameters
    ----------
    source
        The image.
    place
        Where it will be.
    run
        What tells it from any other; also the files in `source`, as long as they are there.
    overwrite
        Whether an image that is there may be replaced.
    progress
        Called with the files that are there and all.

    Raises
    ------
    BusyError
        If another process writes to the same place.
    ExistsError
        If something is there that may not be replaced, or another process was faster.
    ModeError
        If such a store is only read.
    StorageError
        If the store cannot be reached or refuses; what was written is no image, and the same call
        goes on with it.
    """
    files = _files(source)
    before = place.names()
    if _ROOT in before and run == _run_of(place):
        forget_upload(place, run)
        return
    _verify_names(place, before, overwrite=overwrite)
    with _Claim(place, run, is_free=not before) as claim:
        there = set(place.names()) - {_CLAIM}
        _verify_names(place, [*there, _CLAIM], overwrite=overwrite)
        if there and not claim.resumes:
            claim.note(cleared=False)
            _clear(place, there)
            there = set[str]()
        claim.note(cleared=True)
        missing = [name for name in files if name not in there]
        done = len(files) - len(missing)
        # What names arrays comes after their pixels: nobody takes the rest for anything.
        pixels = [name for name in missing if not name.endswith(_ROOTS)]
        arrays = [name for name in missing if name.endswith(_ROOTS)]
        for names in (pixels, arrays):
            _put(source, place, names, claim, lambda n: progress("upload", n, len(files)), done)
            done += len(names)
        claim.verify()
        with storage_errors(source):
            root = (source / _ROOT).read_bytes()
        found, stamp = place.read_stamped(_ROOT)
        if found is not None or place.write_if(_ROOT, root, stamp) is None:
            msg = f"another process has written {place} meanwhile, which stays; choose another place or allow overwriting"
            raise ExistsError(msg)
        progress("upload", len(files) + 1, len(files) + 1)
        claim.release()


def upload_file(source: Path, place: Place, name: str, stamp: bytes) -> None:
    """Put one file into a store in one request, where nobody has changed it meanwhile.

    Parameters
    ----------
    source
        The file; it is read whole.
    place
        The directory in the store.
    name
        What it is called there.
    stamp
        What was there, as `Place.read_stamped` told it.

    Raises
    ------
    BusyError
        If another process has written it since.
    ModeError
        If such a store is only read.
    StorageError
        If the store cannot be reached or refuses.
    """
    with storage_errors(source):
        data = source.read_bytes()
    if place.write_if(name, data, stamp) is None:
        msg = f"another process has written {place}/{name} meanwhile, which stays; run it again"
        raise BusyError(msg)


def forget_upload(place: Place, run: str) -> None:
    """Remove what a run that was killed after its last step has left beside its image."""
    found = _stated(place.read(_CLAIM))
    if found.get("run") == run:
        place.remove(_CLAIM)


class _Claim:
    """The right to write to a place, renewed by a thread; a `with` block that fails leaves it behind.

    `resumes` says whether it was there, of the same run, and all that is there was written under it.

    Parameters
    ----------
    place
        The directory of an image.
    run
        Of which run it is.
    is_free
        Whether there was nothing at the place.

    Raises
    ------
    BusyError
        If another process has it.
    """

    def __init__(self, place: Place, run: str, *, is_free: bool = False) -> None:
        place.verify_writable()
        self._place = place
        self._document: dict[str, Any] = {"run": run, "cleared": is_free, "beat": 0}
        self.resumes = False
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._lost: BaseException | None = None
        found, stamp = place.read_stamped(_CLAIM)
        stated = _stated(found)
        if stated.get("run") == run:
            # Of this machine's own, which was killed: its lock here says that it lives no more.
            self.resumes = stated.get("cleared") is True
            self._document["cleared"] = self.resumes
        elif found is not None and stated.get("ended") is not True:
            _await_silence(place, stamp)
        self._stamp = stamp
        self._write()
        self._thread = threading.Thread(target=self._renew, name="microtome-upload", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error is not None and self._lost is None:
            # Whoever comes next need not wait to see that this writer is gone.
            self._document["ended"] = True
            with contextlib.suppress(OSError):
                self._write()

    def note(self, *, cleared: bool) -> None:
        """Note whether what was there before is gone, so that all that is there is of this run."""
        if self._document["cleared"] != cleared:
            self._document["cleared"] = cleared
            self._write()

    def verify(self) -> None:
        """Refuse to go on where another process has taken the place over.

        Raises
        ------
        BusyError
            If it has.
        """
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Give the place up."""
        self._ended.set()
        # The image is there; what is left beside it disturbs nobody.
        with self._guard, contextlib.suppress(OSError):
            self._place.remove(_CLAIM)

    def _write(self) -> None:
        with self._guard:
            self._document["beat"] += 1
            data = json.dumps(self._document).encode()
            stamp = self._place.write_if(_CLAIM, data, self._stamp)
            if stamp is None:
                msg = f"another process is writing {self._place}; wait for it, or choose another place"
                raise BusyError(msg)
            self._stamp = stamp

    def _renew(self) -> None:
        while not self._ended.wait(_BEAT):
            with self._guard:
                if self._ended.is_set():
                    return
            try:
                self._write()
            except BusyError as error:
                self._lost = error
                return
            except OSError:
                continue  # a request that failed: what is written for the image tells of it


def _await_silence(place: Place, stamp: bytes) -> None:
    """Wait until a claim has not changed for so long that its writer is dead.

    Raises
    ------
    BusyError
        If it changes.
    """
    until = time.monotonic() + _SILENCE
    while time.monotonic() < until:
        time.sleep(min(_BEAT, _SILENCE) / 4)
        if place.read_stamped(_CLAIM)[1] != stamp:
            msg = f"another process is writing {place}; wait for it, or choose another place"
            raise BusyError(msg)


def _verify_names(place: Place, names: Sequence[str], *, overwrite: bool) -> None:
    if any(root in names for root in _ROOTS):
        if not overwrite:
            msg = f"{place} exists already; choose another place or allow overwriting"
            raise ExistsError(msg)
    elif names and _CLAIM not in names:
        msg = f"{place} holds something that is no image; choose another place"
        raise ExistsError(msg)


def _clear(place: Place, names: set[str]) -> None:
    """Remove what is there but for the claim; what it opens by goes first."""
    for root in _ROOTS:
        if root in names:
            place.remove(root)
    begun: deque[Any] = deque()
    for name in sorted(names.difference(_ROOTS)):
        with engine_errors(f"{place}/{name}"):
            begun.append(place.begin_write(name, None))
            if len(begun) == _AT_ONCE:
                begun.popleft().result()
    with engine_errors(place):
        while begun:
            begun.popleft().result()


def _put(
    source: Path,
    place: Place,
    names: Sequence[str],
    claim: _Claim,
    told: Any,
    done: int,
) -> None:
    """Write files, some at a time."""
    begun: deque[tuple[str, int, Any]] = deque()
    held = 0

    def settle() -> None:
        nonlocal held, done
        name, size, future = begun.popleft()
        held -= size
        with engine_errors(f"{place}/{name}"):
            future.result()
        done += 1
        told(done)

    try:
        for name in names:
            claim.verify()
            with storage_errors(source):
                data = (source / name).read_bytes()
            while begun and (len(begun) == _AT_ONCE or held + len(data) > _BYTES_AT_ONCE):
                settle()
            held += len(data)
            with engine_errors(f"{place}/{name}"):
                begun.append((name, len(data), place.begin_write(name, data)))
        while begun:
            settle()
    finally:
        # Nothing is on its way any more when this is left.
        for _, _, future in begun:
            with contextlib.suppress(ValueError, OSError):
                future.result()


def _files(source: Path) -> list[str]:
    """Return the names of the files of an image, but for that which it opens by."""
    found: list[str] = []
    for folder, folders, names in os.walk(source):
        folders.sort()
        inside = Path(folder).relative_to(source)
        found += [(inside / name).as_posix() for name in sorted(names)]
    return [name for name in found if name != _ROOT]


def _run_of(place: Place) -> str | None:
    """Return of which run the image at a place is, as a prediction says it."""
    try:
        found: Any = json.loads(place.read(_ROOT) or b"{}")
        return found["attributes"]["microtome"]["prediction"]["run"]
    except (ValueError, KeyError, TypeError):
        return None


def _stated(data: bytes | None) -> dict[str, Any]:
    try:
        found: Any = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
