"""Chunks of an array in a store, fetched once and kept on disk: asked for together, decoded as local ones are.

What a read touches is looked up first, whichever shards it is in. Of what is not kept, the parts of
one shard that lie close together are one request, and all requests are under way at once. What came
is put together to small shards in memory, which the reader of local arrays reads.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from microtome.errors import FormatError

from ._chunks import ChunkReader, layout_of
from ._disk_cache import INDEX, CachedParts, cached_parts
from ._engine import ENGINE, engine_errors
from ._plans import ChunkPlan, shard_place
from ._remote import Place
from ._shard_files import MISSING, Shard, ShardIndex

__all__ = ["FetchedShards", "RemoteChunks"]

# Bytes between two parts of a shard that are rather fetched than asked for around.
_GAP = 256 * 2**10
# Of one request; what is larger is several, which are under way together.
_MOST_A_REQUEST = 8 * 2**20
# Shards of an array whose indexes are in memory; those of others are looked up on disk, and compared.
_MOST_KNOWN = 4096
_CRC_BYTES = 4
# How often a shard may change under a read before that is an error.
_ATTEMPTS = 4
_NO_ETAG = 2
"""Generations of fewer bytes say nothing: the server told none, so nothing of the file is kept."""


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What is known of a shard since the array was opened.

    Parameters
    ----------
    entries
        (chunks, 2) offset and length of every chunk; (-1, -1) for one that was never written.
    generation
        Which one it is, as the store says.
    number
        Its number in the cache; None where it is not kept.
    """

    entries: NDArray[np.int64]
    generation: bytes
    number: int | None

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Which one it is, as a `Shard` has it."""
        digest = hashlib.blake2b(self.generation, digest_size=8).digest()
        return int.from_bytes(digest, "little", signed=True), len(self.entries), 0


class _ShardInMemory:
    """Chunks of a shard that were fetched, one behind the other: what of a `Shard` is asked for."""

    __slots__ = ("bytes", "entries", "stamp")

    def __init__(
        self,
        known: _Known,
        parts: Mapping[int, bytes],
        grid: tuple[int, ...],
    ) -> None:
        # Of one that is not here, no byte: nobody may take it for one that was never written.
        entries = np.where(known.entries < 0, -1, 0)
        at = 0
        for part in sorted(parts):
            entries[part] = at, len(parts[part])
            at += len(parts[part])
        self.bytes = np.frombuffer(b"".join(parts[part] for part in sorted(parts)), np.uint8)
        self.entries = entries.reshape(*grid, 2)
        self.stamp = known.stamp

    def announce(self, offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Do nothing: it is in memory."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer; ValueError where the bytes end before."""
        part = self.bytes[offset : offset + len(buffer)]
        if len(part) != len(buffer):
            msg = "the shard ends before its chunks do"
            raise ValueError(msg)
        buffer[:] = part.data

    def file(self, index: ShardIndex) -> bytes:
        """Return it as a file, in which nothing was written but what is here."""
        if index.whole:
            return self.bytes.tobytes()
        entries = self.entries.copy()
        there = (entries[..., 1] > 0) & (entries[..., 0] >= 0)
        if not index.at_end:
            entries[there, 0] += index.size
        numbers = entries.astype("<u8")
        numbers[~there] = MISSING
        table = numbers.tobytes()
        if index.checked:
            table += google_crc32c.value(table).to_bytes(_CRC_BYTES, "little")
        data = self.bytes.tobytes()
        return data + table if index.at_end else table + data


class FetchedShards(ChunkReader):
    """A reader of what was fetched for one read, and of nothing else."""

    shards: dict[tuple[int, ...], _ShardInMemory | None]
    is_decoded_here: bool
    """Whether it can decode what was fetched; else the engine does."""

    def shard_at(self, place: Sequence[int]) -> Shard | None:
        """Return a shard that was fetched; KeyError for another."""
        return self.shards[tuple(place)]  # pyright: ignore[reportReturnType] - has what is asked of one


class RemoteChunks:
    """The chunks of an array in a store, which are kept on disk.

    Parameters
    ----------
    place
        The array.
    document
        Its metadata document.
    layout
        What that says, by the names of a `ChunkReader`'s arguments.

    Raises
    ------
    StorageError
        If there can be no such cache.
    """

    def __init__(
        self,
        place: Place,
        document: Mapping[str, Any],
        layout: Mapping[str, Any],
        parts: CachedParts,
    ) -> None:
        self._place, self._document, self._layout, self._parts = place, document, layout, parts
        self._index: ShardIndex = layout["index"]
        self._lead = str(layout.get("lead", "c/"))
        self._separator = str(layout.get("separator", "/"))
        chunk_bytes = math.prod(layout["chunk"]) * layout["dtype"].itemsize
        # An index without a checksum may say anything.
        self._longest = 4 * chunk_bytes + 2**20
        self._known: OrderedDict[tuple[int, ...], _Known | None] = OrderedDict()
        self._lock = threading.Lock()
        self._fetching = _lock_of(f"{parts.path} {place.store}")
        self._store: ts.KvStore | None = None

    @classmethod
    def of(cls, place: Place, document: Mapping[str, Any]) -> RemoteChunks | None:
        """Return the chunks of an array; None where it is too odd, or nothing is to be kept."""
        cache = place.options.disk_cache
        if cache is None:
            return None
        try:
            layout = layout_of(document)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return None
        return None if layout is None else cls(place, document, layout, cached_parts(cache))

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Shapes that a plan is made of."""
        return {name: self._layout[name] for name in ("chunk", "shard", "shape")}

    def fetched(self, plan: ChunkPlan) -> FetchedShards:
        """Return what a read needs, from the disk or the store.

        Raises
        ------
        StorageError
            If the store cannot be reached or refuses.
        FormatError
            If the index of a shard is damaged.
        """
        wanted: dict[tuple[int, ...], list[int]] = {}
        new = np.flatnonzero(np.diff(plan.shard, prepend=-1)).tolist()
        for begin, end in zip(new, [*new[1:], len(plan.shard)], strict=True):
            at = shard_place(int(plan.shard[begin]), self._layout["shard"], self._layout["shape"])
            wanted[tuple(at)] = plan.local[begin:end].tolist()
        shards: dict[tuple[int, ...], _ShardInMemory | None] = {}
        for _ in range(_ATTEMPTS):
            if not wanted:
                break
            # One thread at a time, whoever opened the array: the next finds what this one kept, and
            # does not ask for it again.
            with self._fetching:
                shards |= self._fetch(wanted)
            wanted = {at: parts for at, parts in wanted.items() if at not in shards}
        else:
            if wanted:
                msg = f"{self._place}/{self._key(next(iter(wanted)))} changes while it is read"
                raise FormatError(msg)
        reader = FetchedShards(
            str(self._place),
            **{
                **self._layout,
                "dtype": self._layout["dtype"].newbyteorder("<"),
            },
        )
        reader.is_mappable = True
        reader.shards = shards
        reader.is_decoded_here = self._layout["compression"] != "other"
        return reader

    def read_by_engine(self, fetched: FetchedShards, box: Sequence[tuple[int, int]]) -> Any:
        """Read a box of what only the engine decodes.

        Raises
        ------
        FormatError
            If a chunk is damaged.
        """
        with engine_errors(self._place):
            context = ts.Context({"memory_key_value_store": {}})
            keys = ts.KvStore.open({"driver": "memory", "path": "a/"}, context=context).result()
            for at, shard in fetched.shards.items():
                if shard is not None:
                    keys.write(self._key(at), shard.file(self._index)).result()
            modern = self._document["zarr_format"] == 3
            name = "zarr.json" if modern else ".zarray"
            keys.write(name, json.dumps(self._document).encode()).result()
            driver = "zarr3" if modern else "zarr"
            spec = {"driver": driver, "kvstore": {"driver": "memory", "path": "a/"}}
            handle = ts.open(spec, open=True, read=True, context=context).result()
            return handle[tuple([slice(a, b) for a, b in box])].read().result()

    # -- inside

    def _key(self, at: Sequence[int]) -> str:
        return self._lead + self._separator.join([str(number) for number in at])

    def _address(self, at: Sequence[int]) -> str:
        return f"{self._place.store} {self._key(at)}"

    def _keys(self) -> ts.KvStore:
        # Once: to open it looks for credentials on disk.
        context = ENGINE.context(self._place, self._place.options)
        if self._store is None:
            with engine_errors(self._place):
                self._store = ts.KvStore.open(self._place.spec, context=context).result()
        return self._store

    def _fetch(
        self, wanted: Mapping[tuple[int, ...], Sequence[int]]
    ) -> dict[tuple[int, ...], _ShardInMemory | None]:
        """Return shards with what is wanted of them; one that changed meanwhile is left out."""
        keys = self._keys()
        looked = self._look_up(keys, list(wanted))
        found: dict[tuple[int, ...], dict[int, bytes]] = {}
        begun: list[tuple[tuple[int, ...], int, list[tuple[int, int, int]], Any]] = []
        gone: set[tuple[int, ...]] = set()
        known: dict[tuple[int, ...], _Known] = {}
        for at, parts in wanted.items():
            one = looked[at]
            if one is None:
                continue
            known[at] = one
            there = [part for part in parts if one.entries[part, 0] >= 0]
            found[at] = {} if one.number is None else self._parts.get(one.number, there)
            missing = [part for part in there if part not in found[at]]
            for start, stop in _runs(one.entries, missing):
                inside = _inside(one.entries, start, stop)
                ask = keys.read(self._key(at), byte_range=slice(start, stop))
                begun.append((at, start, inside, ask))
        came: dict[tuple[int, ...], dict[int, bytes]] = {}
        for at, start, inside, ask in begun:
            with engine_errors(f"{self._place}/{self._key(at)}"):
                result = ask.result()
            if result.state != "value" or result.stamp.generation != known[at].generation:
                gone.add(at)
                continue
            for part, offset, length in inside:
                data = result.value[offset - start : offset - start + length]
                came.setdefault(at, {})[part] = data
        for at, parts in came.items():
            if at not in gone:
                found[at] |= parts
                if len(known[at].generation) >= _NO_ETAG:
                    self._keep(at, known[at], parts)
        with self._lock:
            for at in gone:
                self._known.pop(at, None)
        grid = self._index.grid
        return {
            at: _ShardInMemory(known[at], found[at], grid) if at in known else None
            for at in wanted
            if at not in gone
        }

    def _keep(self, at: tuple[int, ...], known: _Known, parts: Mapping[int, bytes]) -> None:
        number = self._parts.put(self._address(at), known.generation, parts)
        if number != known.number:
            # Another process had removed it, or it was begun anew.
            with self._lock:
                self._known[at] = _Known(known.entries, known.generation, number)

    def _look_up(
        self, keys: ts.KvStore, places: Sequence[tuple[int, ...]]
    ) -> dict[tuple[int, ...], _Known | None]:
        """Learn where the chunks of shards are: by the kept indexes, if the store says they still hold."""
        with self._lock:
            # Not looked at again below: another thread may drop one, and that is no missing shard.
            found = {at: self._known[at] for at in places if at in self._known}
        new = [at for at in places if at not in found]
        asked: list[tuple[tuple[int, ...], tuple[int, bytes] | None, bytes | None, Any]] = []
        size, whole = self._index.size, self._index.whole
        part = 0 if whole else INDEX
        span = None if whole else slice(-size, None) if self._index.at_end else slice(0, size)
        for at in new:
            kept = self._parts.file(self._address(at))
            data = None if kept is None else self._parts.get(kept[0], [part]).get(part)
            generation = None if kept is None or data is None else kept[1]
            ask = keys.read(self._key(at), if_not_equal=generation, byte_range=span)
            asked.append((at, kept, data, ask))
        for at, kept, data, ask in asked:
            with engine_errors(f"{self._place}/{self._key(at)}"):
                result = ask.result()
            generation = bytes(result.stamp.generation)
            number = None if kept is None else kept[0]
            if result.state == "missing":
                one = None
            elif result.state == "value":
                number = None
                if len(generation) >= _NO_ETAG:
                    address, parts = self._address(at), {part: result.value}
                    number = self._parts.put(address, generation, parts)
                one = _Known(self._entries(result.value, at), generation, number)
            else:
                one = _Known(self._entries(data or b"", at), generation, number)
            found[at] = one
        with self._lock:
            for at in places:
                self._known[at] = found[at]
                self._known.move_to_end(at)
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return found

    def _entries(self, data: bytes, at: Sequence[int]) -> NDArray[np.int64]:
        """Return what an index says."""
        index = self._index
        if index.whole:
            return np.asarray([[0, len(data)]], np.int64)
        where = f"{self._place}/{self._key(at)}"
        if len(data) != index.size:
            msg = f"{where} is damaged: it is shorter than the index of a shard"
            raise FormatError(msg)
        table = data[:-_CRC_BYTES] if index.checked else data
        if index.checked and google_crc32c.value(table) != int.from_bytes(
            data[-_CRC_BYTES:], "little"
        ):
            msg = f"{where} is damaged: the checksum of its index is wrong"
            raise FormatError(msg)
        entries = np.frombuffer(table, "<u8").reshape(-1, 2)
        missing = (entries == MISSING).all(axis=1)
        fits = (entries[:, 0] < 2**62) & (entries[:, 1] <= self._longest)
        if not (missing | fits).all():
            msg = f"{where} is damaged: its index names chunks that cannot be"
            raise FormatError(msg)
        return entries.astype(np.int64)


_LOCKS: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
_LOCKING = threading.Lock()


def _lock_of(address: str) -> threading.Lock:
    """Return the lock of all who fetch from an address into one cache."""
    with _LOCKING:
        lock = _LOCKS.get(address)
        if lock is None:
            lock = _LOCKS[address] = threading.Lock()
        return lock


def _runs(entries: NDArray[np.int64], parts: Sequence[int]) -> list[tuple[int, int]]:
    """Return the requests that fetch parts: first byte and one past the last."""
    found: list[tuple[int, int]] = []
    for offset, length in sorted(entries[list(parts)].tolist()):
        end = offset + length
        if found and offset - found[-1][1] <= _GAP and end - found[-1][0] <= _MOST_A_REQUEST:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((offset, end))
    return found


def _inside(entries: NDArray[np.int64], start: int, stop: int) -> list[tuple[int, int, int]]:
    """Return all parts that a request brings, those between the ones that are wanted too."""
    ends = entries[:, 0] + entries[:, 1]
    there = np.flatnonzero((entries[:, 0] >= start) & (ends <= stop))
    return [(part, *entries[part].tolist()) for part in there.tolist()]
