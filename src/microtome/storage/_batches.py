"""Many boxes of one array into one buffer: every chunk is decoded once, whoever asks for it.

With Numba one compiled call does it, outside Python's lock and so on several processors; without,
a loop that has the same plan and gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import MicrotomeError

from ._chunks import ChunkReader
from ._compiler import TURNED_ROWS, Compiled, Compiler, compiled_reads
from ._conversion import Conversion
from ._kept_chunks import HeldChunks, KeptChunks
from ._plans import ChunkPlan, begins, plan_chunks, shard_place
from ._shard_files import Shard
from ._tally import current_tally
from ._thread_memory import MEMORY

try:
    import resource
except ImportError:  # Windows
    resource = None

__all__ = ["BoxBatch", "read_batch"]

# Bytes of pixels from which on the work is shared between threads.
_SHARED = 1 << 23
# Each thread keeps memory for one chunk; of larger ones the engine has as many as it decodes.
_LARGEST_CHUNK = 1 << 26
# Bytes of a buffer from which on pixels go past the caches, which would not hold it anyway.
_STREAMED = 1 << 23
# Files that are open for one piece of work; a process may open a thousand.
_MOST_FILES = 128
# Batches that are announced to the system, one after the other.
_ANNOUNCED = 16
_MOST_AXES = 5
_MOST_THREADS = 8
"""More of them than memory has channels wait for each other."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxBatch:
    """Boxes of one array and where each goes in a buffer.

    Parameters
    ----------
    low, high
        First pixel of each box and one past its last, (boxes, axes), inside the array.
    out
        The buffer.
    target
        Bytes from its beginning to where each box's first pixel goes, (boxes,).
    strides
        Bytes from a pixel to the next in it, one an axis of the array.
    conversion
        What is done to the pixels, where the buffer is float32 and not of the array's type.
    channel
        Channel of the buffer that each box begins with, (boxes,); needed where there are steps.
    along
        Axis of the array along which channels are counted; None where a box has one.
    pitch
        Of each box that is turned on its way, bytes from a pixel to the next along the last two axes
        of the array, (boxes, 2), where `target` is that of its first pixel; None where none is.
        Only of pixels that are converted.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    out: NDArray[Any]
    target: NDArray[np.int64]
    strides: tuple[int, ...]
    conversion: Conversion | None = None
    channel: NDArray[np.int64] | None = None
    along: int | None = None
    pitch: NDArray[np.int64] | None = None


_NOTHING = Conversion.of()
# Types that the compiled call makes float32 of, as it numbers them.
_KINDS = {
    name: number
    for number, name in enumerate(
        ("uint8", "uint16", "int8", "int16", "int32", "uint32", "float32")
    )
}


_COMPILER = Compiler(compiled_reads)


def read_batch(reader: ChunkReader, batch: BoxBatch) -> bool:  # noqa: PLR0911 - each a reason
    """Read boxes.

    Returns
    -------
    False where something is not as expected, and the buffer holds nothing of use.

    Raises
    ------
    StorageError, FormatError
        If chunks have to be fetched first, and cannot be.
    """
    if not len(batch.low):
        return True
    if len(reader.chunk) > _MOST_AXES or batch.strides[-1] != batch.out.itemsize:
        return False
    if batch.conversion is not None and reader.dtype.name not in _KINDS:
        return False
    if batch.pitch is not None and (batch.conversion is None or len(reader.chunk) < 2):
        return False
    if not reader.is_mappable or reader.chunk_bytes > _LARGEST_CHUNK:
        return False
    plan = plan_chunks(
        batch.low,
        batch.high,
        batch.target,
        batch.strides if batch.pitch is None else _turned(batch.strides, batch.pitch),
        chunk=reader.chunk,
        shard=reader.shard,
        shape=reader.shape,
    )
    if not len(plan.box):
        return True
    try:
        call = _COMPILER.after(reader.chunk_bytes * len(plan.local))
        if call is None and batch.conversion is not None:
            call = _COMPILER.soon()
        if call is None and batch.conversion is not None:
            # To convert piece by piece would cost it more than to do it for the batch.
            return False
        return all(_read(call, reader, piece, batch) for piece in plan.pieces(_MOST_FILES))
    except MicrotomeError:
        # Of a file that is lost, or of what had to be fetched: to read it in another way would be to
        # ask once more.
        raise
    except (OSError, ValueError, RuntimeError):
        # RuntimeError is what decoders raise, and where there can be no more threads.
        return False


def _turned(strides: tuple[int, ...], pitch: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the strides of each box, (boxes, axes)."""
    found = np.tile(np.asarray(strides, np.int64), (len(pitch), 1))
    found[:, -2:] = pitch
    return found


def _read(call: Compiled | None, reader: ChunkReader, plan: ChunkPlan, batch: BoxBatch) -> bool:
    """Read, count what is read where somebody asked, and keep what may be kept."""
    tally = current_tally()
    kept = reader.memory(None if tally is None else tally.kept)
    reader = reader.ready(plan, kept)
    held = reader.held
    spent: list[int] = []
    done = False
    try:
        chunks = _Chunks.of(reader, plan)
        if _DISK.is_asked():
            chunks.announce()
        if kept is not None and held is None:
            held = chunks.held(kept, plan, reader.chunk_bytes)
        if call is None:
            done = _read_here(reader, plan, batch, chunks, held, spent)
        else:
            done = _read_compiled(call, reader, plan, batch, chunks, held, spent)
    finally:
        if kept is not None and held is not None:
            kept.give(held, decoded=done)
    if tally is not None and done:
        found = 0 if held is None else int(np.count_nonzero(held.address))
        tally.found += found
        tally.decoded += int(np.count_nonzero(chunks.offset >= 0)) - found
        tally.decode_seconds += sum(spent) / 1e9
    return done


@dataclass(frozen=True, slots=True, eq=False)
class _Chunks:
    """Where the bytes of the chunks of a plan are.

    Parameters
    ----------
    shards
        Files that hold them, which stay open as long as this is there; None for one that is not.
    paths
        Of these files.
    shard
        Place of each chunk's file in these.
    offset, length
        Where it lies in the file, in bytes; -1 for a chunk that was never written.
    """

    shards: list[Shard | None]
    paths: list[str]
    shard: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]

    @classmethod
    def of(cls, reader: ChunkReader, plan: ChunkPlan) -> _Chunks:
        """Look the chunks up; errors as of `Shard`."""
        new = begins(plan.shard)
        place = np.zeros(len(plan.shard), np.int64)
        place[new] = 1
        offset = np.full(len(plan.shard), -1, np.int64)
        length = np.full(len(plan.shard), -1, np.int64)
        shards: list[Shard | None] = []
        paths: list[str] = []
        for begin, end in zip(new.tolist(), [*new[1:].tolist(), len(plan.shard)], strict=True):
            at = shard_place(int(plan.shard[begin]), reader.shard, reader.shape)
            shard = reader.shard_at(at)
            if shard is None and reader.inventory is not None:
                reader.inventory.verify_absent(at)
            shards.append(shard)
            paths.append(reader.shard_path(at))
            if shard is not None:
                entries = shard.entries.reshape(-1, 2)[plan.local[begin:end]]
                offset[begin:end], length[begin:end] = entries[:, 0], entries[:, 1]
        return cls(shards, paths, np.cumsum(place) - 1, offset, length)

    def held(self, kept: KeptChunks, plan: ChunkPlan, chunk_bytes: int) -> HeldChunks:
        """Look up which of them stayed decoded."""
        files = [
            None if shard is None else (path, shard.stamp)
            for path, shard in zip(self.paths, self.shards, strict=True)
        ]
        return kept.hold(files, self.shard, plan.local, self.offset >= 0, chunk_bytes)

    def addresses(self) -> NDArray[np.int64]:
        """Return where in memory each chunk is; 0 for one that was never written."""
        bases = np.zeros(len(self.shards), np.int64)
        for number, shard in enumerate(self.shards):
            if shard is not None:
                bases[number] = shard.bytes.ctypes.data
        return np.where(self.offset < 0, 0, bases[self.shard] + self.offset)

    def announce(self) -> None:
        """Have the system begin to read all of them."""
        for number, shard in enumerate(self.shards):
            if shard is not None and len(shard.bytes):
                mine = (self.shard == number) & (self.offset >= 0)
                shard.announce(self.offset[mine], self.length[mine])


class _Disk:
    """Whether what is read lies in memory already, as the system counts it.

    To announce a batch costs a fiftieth of reading it, and nothing is gained where its files are in
    memory: so the first batches are announced, and some more after one that had to wait.
    """

    def __init__(self) -> None:
        self._left = _ANNOUNCED
        self._waited = _waits()

    def is_asked(self) -> bool:
        """Whether this batch is announced."""
        waited, before, self._waited = _waits(), self._waited, _waits()
        # A page or two may be anybody's, of code for instance; of files that lie on the disk it is more.
        self._left = max(self._left, min(_ANNOUNCED, waited - before))
        self._left -= self._left > 0
        return self._left > 0


def _waits() -> int:
    """How often this process waited for a page of a file."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_majflt


_DISK = _Disk()


def _read_here(
    reader: ChunkReader,
    plan: ChunkPlan,
    batch: BoxBatch,
    chunks: _Chunks,
    held: HeldChunks | None,
    spent: list[int],
) -> bool:
    """Read without compiled code."""
    if not batch.out.flags.c_contiguous:
        return False
    flat = batch.out.reshape(-1).view(np.uint8)
    usual = MEMORY.chunk(reader.chunk_bytes)[: reader.chunk_bytes]
    memory = {} if held is None else held.memory
    first, starts, sizes = plan.first.tolist(), plan.start.tolist(), plan.size.tolist()
    targets, dtype = plan.target.tolist(), batch.out.dtype
    places = zip(chunks.shard.tolist(), chunks.offset.tolist(), chunks.length.tolist(), strict=True)
    for number, (at, offset, length) in enumerate(places):
        shard = chunks.shards[at]
        there = offset >= 0
        scratch = memory.get(number, usual)
        pixels = scratch.view(reader.dtype).reshape(reader.chunk)
        if shard is not None and there and not (held is not None and held.address[number]):
            began = perf_counter_ns()
            reader.decode(memoryview(shard.bytes)[offset : offset + length], scratch)
            spent.append(perf_counter_ns() - began)
        for copy in range(first[number], first[number + 1]):
            start, size = starts[copy], sizes[copy]
            goes: NDArray[Any] = np.ndarray(size, dtype, flat, targets[copy], batch.strides)
            if there:
                part = tuple([slice(a, a + n) for a, n in zip(start, size, strict=True)])
                goes[...] = pixels[part]
            else:
                goes[...] = reader.fill
    return True


def _read_compiled(
    call: Compiled,
    reader: ChunkReader,
    plan: ChunkPlan,
    batch: BoxBatch,
    chunks: _Chunks,
    held: HeldChunks | None,
    spent: list[int],
) -> bool:
    itemsize, copies = reader.dtype.itemsize, len(plan.box)
    lead = _MOST_AXES - len(reader.chunk)
    start = np.zeros((copies, _MOST_AXES), np.int64)
    size = np.ones((copies, _MOST_AXES), np.int64)
    start[:, lead:], size[:, lead:] = plan.start, plan.size
    sides = np.asarray((1,) * lead + reader.chunk, np.int64)
    strides = np.asarray((0,) * lead + batch.strides, np.int64)
    pitch = np.empty((copies, 2), np.int64)
    pitch[:] = strides[-2:] if batch.pitch is None else batch.pitch[plan.box]
    source, length = chunks.addresses(), chunks.length
    keep = np.zeros(len(length), np.int64)
    if held is not None:
        keep = held.goes
        source = np.where(held.address, held.address, source)
        length = np.where(held.address, -1, length)
    packed = {None: 0, "blosc": 1, "zstd": 2}[reader.compression]
    fill = np.full(1, reader.fill, reader.dtype).view(np.uint8)
    conversion, kind, along = batch.conversion, -1, _MOST_AXES
    channel = np.zeros(copies, np.int64)
    if conversion is not None:
        kind = _KINDS[reader.dtype.name]
        if batch.along is not None:
            along = batch.along + lead
        if batch.channel is not None:
            channel = batch.channel[plan.box]
            if batch.along is not None:
                # A copy may begin behind the first channel of its box.
                sides_along, axis = reader.chunk[batch.along], batch.along
                channel = channel + plan.place[:, axis] * sides_along + plan.start[:, axis]
                channel -= batch.low[plan.box, axis]
    steps = _NOTHING if conversion is None else conversion
    streams = batch.out.nbytes >= _STREAMED and _on_fours(batch)

    def work(part: tuple[int, int]) -> int:
        # ZSTD's context is of the thread that does the work.
        context = MEMORY.context(call.calls)
        facts = np.asarray([itemsize, packed, along, kind, context, streams], np.int64)
        # A chunk, a row of it as it is stored, and some as float32.
        rows = reader.chunk[-1] * (itemsize + 4 * TURNED_ROWS)
        scratch = MEMORY.chunk(reader.chunk_bytes + rows + 8)
        # Here, so that whoever does the work holds on to what it goes to.
        target = plan.target + batch.out.ctypes.data
        nanoseconds = np.zeros(1, np.int64)
        damaged = call.kernel(
            np.asarray(part, np.int64), source, length, plan.first, start, size, target,
            channel, sides, strides, pitch, facts, fill, scratch, call.calls,
            steps.codes, steps.first, steps.second, keep, nanoseconds,
        )  # fmt: skip
        spent.append(int(nanoseconds[0]))
        return damaged

    parts = _parts(plan, reader.chunk_bytes)
    found = [work(parts[0])] if len(parts) == 1 else _shared(work, parts)
    return all(damaged < 0 for damaged in found)


def _on_fours(batch: BoxBatch) -> bool:
    """Whether each pixel of float32 goes where a number of four bytes may."""
    if batch.conversion is None:
        return True
    pitch = 0 if batch.pitch is None else int(np.bitwise_or.reduce(batch.pitch, axis=None))
    steps = np.bitwise_or.reduce([*batch.strides, batch.out.ctypes.data, pitch])
    return not int(steps | np.bitwise_or.reduce(batch.target)) & 3


def _shared(work: Callable[[tuple[int, int]], int], parts: list[tuple[int, int]]) -> list[int]:
    """Do work on several threads; none is at it any more when this ends, or is interrupted."""
    begun: list[Future[int]] = []
    try:
        for part in parts:
            begun.append(_threads().submit(work, part))  # noqa: PERF401 - of an error, those before
        return [one.result() for one in begun]
    finally:
        for one in begun:
            one.cancel()
        wait(begun)


def _parts(plan: ChunkPlan, chunk_bytes: int) -> list[tuple[int, int]]:
    """Cut the chunks of a plan into runs, one a thread, of about the same work."""
    count = len(plan.local)
    threads = min(_processors(), _MOST_THREADS, max(1, count * chunk_bytes // _SHARED))
    cuts = [count * number // threads for number in range(threads + 1)]
    return list(pairwise(cuts))


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_processors(), _MOST_THREADS), "microtome-chunks")


if hasattr(os, "register_at_fork"):
    # A child has none of the threads.
    os.register_at_fork(after_in_child=_threads.cache_clear)
