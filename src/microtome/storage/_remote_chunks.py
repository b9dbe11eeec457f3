"""Chunks of an array in a store: asked for together, and decoded as local ones are.

What a read touches is looked up first, whichever shards it is in. What is decoded in memory, or kept
on disk, is not asked for. Of the rest, the parts of one shard that lie close together are one
request, and all requests are under way at once. What came is put together to small shards in memory,
which the reader of local arrays reads.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from microtome.errors import FormatError

from ._chunks import ChunkReader, known_layout
from ._disk_cache import INDEX, CachedParts, cached_parts
from ._engine import ENGINE, engine_errors
from ._fetched_shards import FetchedShards, ShardInMemory
from ._flights import flights_to
from ._inventory import Inventory
from ._kept_chunks import HeldChunks, KeptChunks
from ._options import StorageOptions
from ._plans import ChunkPlan, begins, shard_place
from ._remote import Place
from ._remote_indexes import INDEXES, KnownShard, entries_of
from ._shard_files import ShardIndex

__all__ = ["RemoteChunks", "RemoteReader"]

# Bytes between two parts of a shard that are rather fetched than asked for around: where they are
# kept, and where they are thrown away.
_GAP, _GAP_NOT_KEPT = 256 * 2**10, 32 * 2**10
# Of one request; what is larger is several, which are under way together.
_MOST_A_REQUEST = 8 * 2**20
# How often a shard may change under a read before that is an error.
_ATTEMPTS = 4
# Chunks that the reader of local arrays takes, see `read_batch`.
_MOST_AXES, _LARGEST_CHUNK = 5, 1 << 26

_LOOKS = count()

_Places = tuple[int, ...]
_Name = tuple[_Places, bytes, int]
"""Of something that is fetched: a shard, which one it is, and a part; `INDEX` for whatever of it."""
_HandOver = Callable[[Any, Any], None]


class _ChangedError(Exception):
    """A shard is not the one any more that its index was of."""


class RemoteChunks:
    """The chunks of an array in a store.

    Parameters
    ----------
    place
        The array.
    document
        Its metadata document.
    layout
        What that says, by the names of a `ChunkReader`'s arguments.
    parts
        Where bytes are kept on disk; None for nowhere.
    """

    def __init__(
        self,
        place: Place,
        document: Mapping[str, Any],
        layout: Mapping[str, Any],
        parts: CachedParts | None,
    ) -> None:
        self._place, self._document, self._layout, self._parts = place, document, layout, parts
        self._index: ShardIndex = layout["index"]
        self._lead = str(layout.get("lead", "c/"))
        self._separator = str(layout.get("separator", "/"))
        self._chunk_bytes = math.prod(layout["chunk"]) * layout["dtype"].itemsize
        # An index without a checksum may say anything.
        self._longest = 4 * self._chunk_bytes + 2**20
        self._number = INDEXES.new()
        self._flights = flights_to(f"{'' if parts is None else parts.path} {place.store}")
        self._store: ts.KvStore | None = None
        self.reader = RemoteReader(str(place), **self._told())
        """Reads boxes of the array."""
        self.reader.remote = self
        self.reader.is_mappable = True

    @classmethod
    def of(cls, place: Place, document: Mapping[str, Any]) -> RemoteChunks | None:
        """Return the chunks of an array, None for one that only the engine reads.

        Raises
        ------
        StorageError
            If there can be no such cache on disk as its options name.
        """
        cache = place.options.disk_cache
        layout = known_layout(document)
        if layout is None:
            return None
        found = cls(place, document, layout, None if cache is None else cached_parts(cache))
        # What the engine has to decode comes by way of the disk, or not by us.
        return found if cache is not None or found.is_decoded_here else None

    def expect(self, absent: object) -> None:
        """Take in which files are not there because nothing was written, as an `Inventory` does."""
        self.reader.inventory = Inventory.of(str(self._place), self._layout, absent)

    @property
    def is_decoded_here(self) -> bool:
        """Whether what was fetched is decoded without the engine."""
        return (
            self._layout["compression"] != "other"
            and len(self._layout["chunk"]) <= _MOST_AXES
            and self._chunk_bytes <= _LARGEST_CHUNK
        )

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Shapes that a plan is made of."""
        return {name: self._layout[name] for name in ("chunk", "shard", "shape")}

    @property
    def kept(self) -> KeptChunks | None:
        """Where its options keep decoded chunks, those of all arrays of equal options together."""
        return _kept_of(self._place.options)

    def fetched(self, plan: ChunkPlan, kept: KeptChunks | None = None) -> FetchedShards:
        """Return what a read needs: from memory, the disk or the store.

        Parameters
        ----------
        plan
            The read.
        kept
            Where chunks stay decoded. What is held of it is the reader's: `KeptChunks.give` has to
            follow.

        Raises
        ------
        StorageError
            If the store cannot be reached or refuses.
        FormatError
            If the index of a shard is damaged, or a shard changes again and again.
        """
        new = begins(plan.shard).tolist()
        runs = {
            tuple(shard_place(int(plan.shard[begin]), *self._grid)): slice(begin, end)
            for begin, end in zip(new, [*new[1:], len(plan.shard)], strict=True)
        }
        for _ in range(_ATTEMPTS):
            known, data = self._look_up(list(runs), keeping=kept is not None)
            held = None
            try:
                there, held = self._held(plan, runs, known, kept)
                wanted = there if held is None else there & (held.address == 0)
                parts = self._bring(known, runs, plan.local, wanted, data)
            except BaseException as error:
                if kept is not None and held is not None:
                    kept.give(held, decoded=False)
                if isinstance(error, _ChangedError):
                    # Nothing of what was known of the array is believed any more: pixels of before
                    # would come to lie beside those of after.
                    self._number = INDEXES.new()
                    continue
                raise
            for at, one in known.items():
                if one is None and self.reader.inventory is not None:
                    self.reader.inventory.verify_absent(at)
            reader = FetchedShards(str(self._place), **self._told())
            reader.is_mappable = True
            reader.held = held
            reader.shards = {
                at: None if one is None else ShardInMemory(one, parts[at], self._index.grid)
                for at, one in known.items()
            }
            return reader
        msg = f"{self._place} changes while it is read"
        raise FormatError(msg)

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

    @property
    def _grid(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self._layout["shard"], self._layout["shape"]

    def _told(self) -> dict[str, Any]:
        return {**self._layout, "dtype": self._layout["dtype"].newbyteorder("<")}

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

    def _held(
        self,
        plan: ChunkPlan,
        runs: Mapping[_Places, slice],
        known: Mapping[_Places, KnownShard | None],
        kept: KeptChunks | None,
    ) -> tuple[NDArray[np.bool_], HeldChunks | None]:
        """Return which chunks were ever written, and what is decoded of them."""
        there = np.zeros(len(plan.local), np.bool_)
        file = np.zeros(len(plan.local), np.int64)
        for number, (at, run) in enumerate(runs.items()):
            one = known[at]
            file[run] = number
            if one is not None:
                there[run] = one.entries[plan.local[run], 0] >= 0
        if kept is None:
            return there, None
        files = [
            None if one is None else (self._address(at), one.stamp) for at, one in known.items()
        ]
        return there, kept.hold(files, file, plan.local, there, self._chunk_bytes)

    def _bring(
        self,
        known: Mapping[_Places, KnownShard | None],
        runs: Mapping[_Places, slice],
        local: NDArray[np.int64],
        wanted: NDArray[np.bool_],
        data: Mapping[_Places, bytes],
    ) -> dict[_Places, dict[int, bytes]]:
        """Return the parts of shards that are wanted."""
        found: dict[_Places, dict[int, bytes]] = {}
        left: dict[_Places, set[int]] = {}
        for at, run in runs.items():
            parts = local[run][wanted[run]].tolist()
            if at in data:
                # A file that is one chunk came when it was looked up.
                found[at] = dict.fromkeys(parts, data[at])
            else:
                found[at] = {}
                left[at] = set(parts)

        def fetch(mine: list[_Name], hand_over: _HandOver) -> None:
            self._fetch({name: known[name[0]] for name in mine}, left, hand_over)

        while any(left.values()):
            # Where they are kept on disk, one thread at a time fetches of a shard, and what lies between
            # the parts that it wants as well: the next finds that there.
            names = {
                (at, one.generation, part if self._parts is None else INDEX)
                for at, one in known.items()
                if one is not None
                for part in left.get(at, ())
            }
            for (at, *_), came in self._flights.bring(names, fetch).items():
                found[at] |= {part: came[part] for part in left[at] if part in came}
            left = {at: parts - found[at].keys() for at, parts in left.items()}
        return found

    def _fetch(
        self,
        mine: Mapping[_Name, KnownShard | None],
        left: Mapping[_Places, set[int]],
        hand_over: _HandOver,
    ) -> None:
        """Take parts from the disk, or ask for them; _ChangedError where a shard is another by now."""
        shards = {at: one for (at, *_), one in mine.items() if one is not None}
        missing = {at: set[int]() for at in shards}
        for at, _, part in mine:
            missing[at] |= left[at] if part == INDEX else {part}
        found = {at: self._on_disk(one, missing[at]) for at, one in shards.items()}
        begun: list[tuple[_Places, tuple[int, int], Any]] = []
        for at, one in shards.items():
            rest = missing[at] - found[at].keys()
            if rest:
                gap = _GAP_NOT_KEPT if self._parts is None else _GAP
                runs, keys = _runs(one.entries, sorted(rest), gap), self._keys()
                # All of them are under way before the first is waited for.
                begun += [
                    (at, run, keys.read(self._key(at), byte_range=slice(*run))) for run in runs
                ]
        came = {at: dict[int, bytes]() for at in shards}
        changed: set[_Places] = set()
        for at, run, ask in begun:
            with engine_errors(f"{self._place}/{self._key(at)}"):
                result = ask.result()
            if result.state != "value" or result.stamp.generation != shards[at].generation:
                changed.add(at)
                continue
            for part, offset, length in _inside(shards[at].entries, *run):
                came[at][part] = result.value[offset - run[0] :][:length]
        for at in shards.keys() - changed:
            if came[at] and shards[at].is_named:
                self._keep(at, shards[at], came[at])
            found[at] |= came[at]
        for name in mine:
            if name[0] not in changed:
                hand_over(name, found[name[0]])
        if changed:
            raise _ChangedError

    def _on_disk(self, shard: KnownShard, parts: Iterable[int]) -> dict[int, bytes]:
        if self._parts is None or shard.number is None:
            return {}
        return self._parts.get(shard.number, sorted(parts))

    def _keep(self, at: _Places, known: KnownShard, parts: Mapping[int, bytes]) -> None:
        if self._parts is None:
            return
        number = self._parts.put(self._address(at), known.generation, parts)
        if number != known.number:
            # Another process had removed it, or it was begun anew.
            INDEXES.put(self._number, at, replace(known, number=number))

    def _look_up(
        self, places: Sequence[_Places], *, keeping: bool
    ) -> tuple[dict[_Places, KnownShard | None], dict[_Places, bytes]]:
        """Learn where the chunks of shards are: by the kept indexes, if the store says they still hold."""
        number = self._number
        found: dict[_Places, KnownShard | None] = {}
        new: list[_Places] = []
        for at in places:
            try:
                found[at] = INDEXES.get(number, at)
            except KeyError:
                new.append(at)
        data: dict[_Places, bytes] = {}
        # Of this opening: another that asked before it began may have heard of what was there then.
        names = [(number, at) for at in new]
        for (_, at), (one, whole) in self._flights.bring(names, self._ask).items():
            found[at] = one
            # Of a server without ETags, what is kept is that of this opening, and else nothing.
            if one is None or one.is_named or keeping:
                INDEXES.put(number, at, one)
            if whole is not None:
                data[at] = whole
        return {at: found[at] for at in places}, data

    def _ask(self, mine: Sequence[tuple[int, _Places]], hand_over: _HandOver) -> None:
        """Ask for the indexes of shards, or whether those on disk still hold."""
        keys = self._keys()
        asked: list[tuple[int, _Places, tuple[int, bytes] | None, bytes | None, Any]] = []
        size, whole = self._index.size, self._index.whole
        part = 0 if whole else INDEX
        span = None if whole else slice(-size, None) if self._index.at_end else slice(0, size)
        for opening, at in mine:
            kept, data = None, None
            if self._parts is not None:
                kept = self._parts.file(self._address(at))
                data = None if kept is None else self._parts.get(kept[0], [part]).get(part)
            generation = None if kept is None or data is None else kept[1]
            ask = keys.read(self._key(at), if_not_equal=generation, byte_range=span)
            asked.append((opening, at, kept, data, ask))
        for opening, at, kept, data, ask in asked:
            with engine_errors(f"{self._place}/{self._key(at)}"):
                result = ask.result()
            if result.state == "missing":
                hand_over((opening, at), (None, None))
                continue
            generation = bytes(result.stamp.generation)
            came = result.value if result.state == "value" else (data or b"")
            where = f"{self._place}/{self._key(at)}"
            entries = entries_of(came, self._index, self._longest, where)
            one = KnownShard(entries, generation, None if kept is None else kept[0], next(_LOOKS))
            if result.state == "value":
                number = None
                if self._parts is not None and one.is_named:
                    number = self._parts.put(self._address(at), generation, {part: came})
                one = replace(one, number=number)
            hand_over((opening, at), (one, came if whole else None))


class RemoteReader(ChunkReader):
    """Reads boxes of an array in a store: what it needs is fetched for each read."""

    remote: RemoteChunks

    def ready(self, plan: ChunkPlan, kept: KeptChunks | None) -> ChunkReader:
        """Fetch what a read needs; errors as of `RemoteChunks.fetched`."""
        return self.remote.fetched(plan, kept)

    def memory(self, kept: KeptChunks | None) -> KeptChunks | None:
        """Return where its chunks stay decoded: with whoever asks for it, or as its options say."""
        return self.remote.kept if kept is None else kept


_KEPT: dict[StorageOptions, KeptChunks] = {}
_KEEPING = threading.Lock()


def _kept_of(options: StorageOptions) -> KeptChunks | None:
    if not options.cache_bytes:
        return None
    with _KEEPING:
        found = _KEPT.get(options)
        if found is None:
            found = _KEPT[options] = KeptChunks(options.cache_bytes, evicts=True)
        return found


def _runs(entries: NDArray[np.int64], parts: Sequence[int], gap: int) -> list[tuple[int, int]]:
    """Return the requests that fetch parts: first byte and one past the last."""
    found: list[tuple[int, int]] = []
    for offset, length in sorted(entries[list(parts)].tolist()):
        end = offset + length
        if found and offset - found[-1][1] <= gap and end - found[-1][0] <= _MOST_A_REQUEST:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((offset, end))
    return found


def _inside(entries: NDArray[np.int64], start: int, stop: int) -> list[tuple[int, int, int]]:
    """Return all parts that a request brings, those between the ones that are wanted too."""
    ends = entries[:, 0] + entries[:, 1]
    there = np.flatnonzero((entries[:, 0] >= start) & (ends <= stop))
    return [(part, *entries[part].tolist()) for part in there.tolist()]
