"""What stands for a path of a cohort that lies in a store: read as a `pathlib.Path` is, never written."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn, cast

import pyarrow as pa
import pyarrow.parquet as pq

from microtome.errors import FormatError, InvalidInputError, ModeError, NotFoundError

from ._addresses import is_address
from ._options import StorageOptions
from ._remote import AtPlace, Place, place_of

__all__ = [
    "FILE_LIST",
    "ZARR_DOCUMENTS",
    "StorePath",
    "file_source",
    "names_in",
    "path_to_read",
    "walked",
]

FILE_LIST = "metadata/files.parquet"
"""Table of the files of a cohort, column `path`: what a web server, which lists nothing, is asked for."""

ZARR_DOCUMENTS = frozenset({"zarr.json", ".zgroup", ".zarray", ".zattrs"})
"""Of the files of a Zarr hierarchy these are looked for by name; chunks, by far the most, are the array
engine's alone and are not listed."""
_ZARR = (".zarr/", ".zarr2/")
_KEPT_BYTES = 64 * 2**20
_LARGEST_KEPT = _KEPT_BYTES // 4
# Indexes of shards, and chunks that neighbouring tiles share: a request costs more than memory.
_REMOTE = StorageOptions(cache_bytes=256 * 2**20)


class _Tree:
    """What a store holds below a place: listed once, small files kept.

    Parameters
    ----------
    place
        Where it begins.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, bool]] | None = None
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def entries(self, directory: str) -> dict[str, bool] | None:
        """Return what a directory holds, by name, and whether it is a file; None if there is none."""
        with self._lock:
            if self._entries is None:
                self._entries = _tree_of(self._names())
            return self._entries.get(directory)

    def _names(self) -> Sequence[str]:
        if self.place.lists:
            return self.place.names()
        data = self.place.read(FILE_LIST)
        if data is None:
            msg = (
                f"{self.place} lies on a server that does not list its files, and has no table of "
                f"them ({FILE_LIST}); write one with write_file_list where the cohort is, and copy it there"
            )
            raise NotFoundError(msg)
        try:
            table = pq.read_table(pa.BufferReader(data), columns=["path"])
            return [FILE_LIST, *cast("list[str]", table["path"].cast(pa.string()).to_pylist())]
        except (pa.ArrowException, OSError, KeyError, TypeError) as error:
            msg = f"{self.place}/{FILE_LIST} is no table of files: {error}"
            raise FormatError(msg) from error

    def read(self, name: str) -> bytes:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        data = self.place.read(name)
        if data is None:
            msg = f"{self.place}/{name} does not exist"
            raise NotFoundError(msg)
        if len(data) <= _LARGEST_KEPT:
            with self._lock:
                self._kept[name] = data
                while sum(map(len, self._kept.values())) > _KEPT_BYTES:
                    self._kept.popitem(last=False)
        return data


# Of this process, for what is sent to it: a worker lists a cohort once, not once a task.
_TREES: dict[Place, _Tree] = {}
_OPENING = threading.Lock()


def _sent(place: Place, name: str) -> StorePath:
    with _OPENING:
        return StorePath(_TREES.setdefault(place, _Tree(place)), name)


class StorePath(AtPlace):
    """A path in a store, with those methods of `pathlib.Path` that read.

    All paths below one that was opened share one listing of the store, made when it is first asked
    for: what comes into the store later is seen when the cohort is opened again. It is no
    `os.PathLike`: nothing can take it for a path of this machine.
    """

    __slots__ = ("_name", "_tree")

    def __init__(self, tree: _Tree, name: str = "") -> None:
        self._tree, self._name = tree, name

    @classmethod
    def opened(cls, place: Place) -> StorePath:
        """Return the path of a place, which is listed anew."""
        with _OPENING:
            _TREES[place] = _Tree(place)
            return cls(_TREES[place])

    @property
    def place(self) -> Place:
        """Where it is, for the array engine."""
        return self._tree.place / self._name if self._name else self._tree.place

    # -- names

    def __truediv__(self, name: str | PurePosixPath) -> StorePath:
        inside = PurePosixPath(self._name, name)
        if inside.is_absolute() or ".." in inside.parts:
            msg = f"{name!r} is no path inside {self}"
            raise InvalidInputError(msg)
        return StorePath(self._tree, "" if str(inside) == "." else str(inside))

    def joinpath(self, *names: str) -> StorePath:
        """Return a path below this one."""
        return self / PurePosixPath(*names)

    @property
    def name(self) -> str:
        """The last part; of the place itself, that of its address."""
        return PurePosixPath(self._name or self._tree.place.uri.rstrip("/")).name

    @property
    def suffix(self) -> str:
        """The ending of the name."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def parents(self) -> tuple[StorePath, ...]:
        """The directories that it lies in, the nearest first, up to the place that was opened."""
        above = PurePosixPath(self._name).parents if self._name else ()
        return tuple(StorePath(self._tree, "" if str(p) == "." else str(p)) for p in above)

    @property
    def parent(self) -> StorePath:
        """The directory that it lies in."""
        return self.parents[0] if self._name else self

    def with_name(self, name: str) -> StorePath:
        """Return a path beside this one."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> StorePath:
        """Return the path with another ending."""
        return self.with_name(f"{self.stem}{suffix}")

    def relative_to(self, other: StorePath) -> PurePosixPath:
        """Return the path from a directory above.

        Raises
        ------
        ValueError
            If it does not lie below.
        """
        if not isinstance(other, StorePath) or other._tree.place != self._tree.place:  # pyright: ignore[reportUnnecessaryIsInstance]
            msg = f"{self} does not lie in {other}"
            raise InvalidInputError(msg)
        return PurePosixPath(self._name).relative_to(PurePosixPath(other._name))

    def is_relative_to(self, other: StorePath) -> bool:
        """Whether the path lies below a directory."""
        return other == self or other in self.parents

    def as_posix(self) -> str:
        """Return the address."""
        return str(self)

    def __str__(self) -> str:
        base = self._tree.place.uri.rstrip("/")
        return f"{base}/{self._name}" if self._name else base

    def __repr__(self) -> str:
        return f"StorePath({str(self)!r})"

    def _key(self) -> tuple[str, tuple[str, ...]]:
        return self._tree.place.uri, PurePosixPath(self._name).parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorePath) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __lt__(self, other: StorePath) -> bool:
        return self._key() < other._key()

    def __reduce__(self) -> tuple[Any, ...]:
        return _sent, (self._tree.place, self._name)

    # -- what is there

    def is_dir(self) -> bool:
        """Whether anything lies below."""
        return self._tree.entries(self._name) is not None

    def is_file(self) -> bool:
        """Whether it is a file."""
        if not self._name:
            return False
        above, _, name = self._name.rpartition("/")
        return bool((self._tree.entries(above) or {}).get(name))

    def exists(self) -> bool:
        """Whether it is a file, or anything lies below."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[StorePath]:
        """Yield what lies in the directory.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        entries = self._tree.entries(self._name)
        if entries is None:
            msg = f"there is no directory {self}"
            raise NotFoundError(msg)
        yield from (self / name for name in sorted(entries))

    def glob(self, pattern: str) -> Iterator[StorePath]:
        """Yield what a pattern matches, as `pathlib.Path.glob`."""
        found: dict[StorePath, None] = {}
        self._match(PurePosixPath(pattern).parts, found)
        yield from found

    def rglob(self, pattern: str) -> Iterator[StorePath]:
        """Yield what a pattern matches anywhere below."""
        yield from self.glob(f"**/{pattern}")

    def _match(self, parts: tuple[str, ...], found: dict[StorePath, None]) -> None:
        if not parts:
            found[self] = None
            return
        entries = self._tree.entries(self._name) or {}
        first, rest = parts[0], parts[1:]
        if first == "**":
            self._match(rest, found)
        for name in sorted(entries):
            below = self / name
            if first == "**":
                if below.is_dir():
                    below._match(parts, found)  # noqa: SLF001 - its own
            elif fnmatchcase(name, first) and (not rest or below.is_dir()):
                below._match(rest, found)  # noqa: SLF001 - its own

    def walk(self) -> Iterator[tuple[StorePath, list[str], list[str]]]:
        """Yield directories with the names in them, as `os.walk`: what is taken out is not entered."""
        entries = self._tree.entries(self._name) or {}
        files = [name for name, is_file in entries.items() if is_file]
        directories = [name for name in entries if (self / name).is_dir()]
        yield self, directories, files
        for name in directories:
            yield from (self / name).walk()

    # -- what it holds

    def read_bytes(self) -> bytes:
        """Return the content of the file; small ones are kept.

        Raises
        ------
        NotFoundError
            If there is none.
        StorageError
            If the store cannot be reached or refuses.
        """
        return self._tree.read(self._name)

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the content of the file as text; errors as `read_bytes`."""
        return self.read_bytes().decode(encoding)

    def open(
        self, mode: str = "r", *, encoding: str | None = None, newline: str | None = None
    ) -> IO[Any]:
        """Open the file for reading; errors as `read_bytes`."""
        if mode not in {"r", "rt", "rb"}:
            self._refuse()
        data = io.BytesIO(self.read_bytes())
        if mode == "rb":
            return data
        return io.TextIOWrapper(data, encoding=encoding or "utf-8", newline=newline)

    # -- what it does not do

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        msg = f"{self} lies in a store, where a cohort is read and not changed; copy the cohort here first"
        raise ModeError(msg)

    mkdir = unlink = rmdir = rename = replace = touch = write_bytes = write_text = _refuse


def _tree_of(names: Sequence[str]) -> dict[str, dict[str, bool]]:
    """Return what each directory holds, by name, and whether it is a file."""
    found: dict[str, dict[str, bool]] = {}
    for full in names:
        if full.endswith("/"):
            continue  # what some consoles make where a directory shall be
        directory, _, name = full.rpartition("/")
        if name not in ZARR_DOCUMENTS and any(ending in full for ending in _ZARR):
            continue
        found.setdefault(directory, {})[name] = True
        while directory:
            directory, _, name = directory.rpartition("/")
            inside = found.setdefault(directory, {})
            if name in inside:
                break
            inside[name] = False
    return found


def path_to_read(
    path: str | os.PathLike[str] | Place | StorePath, options: StorageOptions | None = None
) -> Path:
    """Return a path that can be read: of this machine, or of a store.

    Parameters
    ----------
    path
        A path, an address (``s3://``, ``gs://``, ``http(s)://``...), a place or a path in a store.
    options
        How stores are reached; by default as `StorageOptions` says, with 256 MiB of pixels kept.

    Returns
    -------
    A path. That of a store is a `StorePath`, which has all methods of one that read.

    Raises
    ------
    InvalidInputError
        If the scheme of an address is unknown.
    """
    found: object
    if isinstance(path, StorePath):
        found = path
    elif isinstance(path, Place):
        found = StorePath.opened(path)
    elif is_address(path):
        place = place_of(path, options or _REMOTE)
        found = StorePath.opened(place) if isinstance(place, Place) else place
    else:
        found = Path(path)
    # To those who read it is one: they ask for nothing else.
    return cast("Path", found)


def file_source(path: Path) -> Any:
    """Return what pyarrow opens a file by: the path, or the content of a file in a store."""
    return pa.BufferReader(path.read_bytes()) if isinstance(path, StorePath) else path


def names_in(directory: Path) -> Iterator[str]:
    """Yield the names in a directory, here or in a store; who stops early reads no more of it."""
    if isinstance(directory, StorePath):
        yield from (entry.name for entry in directory.iterdir())
    else:
        # `Path.iterdir` would list thousands of images before it yields the first.
        with os.scandir(directory) as entries:
            yield from (entry.name for entry in entries)


def walked(path: Path) -> Iterator[tuple[Any, list[str], list[str]]]:
    """Walk a directory as `os.walk` does, here or in a store."""
    return path.walk() if isinstance(path, StorePath) else os.walk(path)
