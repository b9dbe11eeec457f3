"""Sixteen pixels at a time, as many float32 as a line of the processor's caches has, or fewer.

Written out, since whether a loop becomes this depends on all that is compiled with it. Lines go the
plain way, or past the caches, into buffers that are larger than these: a plain store reads the memory
that it is about to overwrite, and pushes out of the caches what is wanted there. Of a line that is
written whole, a non-temporal store does neither. Whatever then touches that line soon after, even a
store that is masked there, waits for it to have gone out and come back: thirty times as long.

Imported only with the compiled call that decodes chunks.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "LINE",
    "WIDE",
    "end_streams",
    "put_bytes",
    "put_pairs",
    "put_words",
    "stream_bytes",
    "stream_line",
    "stream_pairs",
    "stream_words",
]

_cgutils: Any = import_module("numba.core.cgutils")
_types: Any = import_module("numba.core.types")
_extending: Any = import_module("numba.extending")
_ir: Any = _cgutils.ir

LINE = 64
"""Bytes of a line of the caches; where they are longer, a part of one."""
WIDE = 16
"""Pixels that are float32 in a line."""

_BYTE, _WORD, _LONG = (_ir.IntType(bits) for bits in (8, 16, 32))
_REAL = _ir.FloatType()


def _load(builder: Any, kind: Any, address: Any, count: int) -> Any:
    place = _ir.VectorType(kind, count).as_pointer()
    return builder.load(builder.inttoptr(address, place), align=1)


def _real(builder: Any, whole: Any) -> Any:
    count = whole.type.count
    # Numbers of at most two bytes: with a sign, which more processors convert at once.
    longs = builder.zext(whole, _ir.VectorType(_LONG, count))
    return builder.sitofp(longs, _ir.VectorType(_REAL, count))


def _pairs(builder: Any, count: int, low: Any, high: Any) -> Any:
    words = _ir.VectorType(_WORD, count)
    first, second = (builder.zext(_load(builder, _BYTE, at, count), words) for at in (low, high))
    eight = _ir.Constant(words, [8] * count)
    return _real(builder, builder.or_(first, builder.shl(second, eight)))


def _words(builder: Any, count: int, source: Any) -> Any:
    return _real(builder, _load(builder, _WORD, source, count))


def _bytes(builder: Any, count: int, source: Any) -> Any:
    return _real(builder, _load(builder, _BYTE, source, count))


def _line(builder: Any, count: int, source: Any) -> Any:
    return _load(builder, _LONG, source, count)


def _put(builder: Any, values: Any, target: Any) -> None:
    builder.store(values, builder.inttoptr(target, values.type.as_pointer()), align=1)


def _stream(builder: Any, values: Any, target: Any) -> None:
    """Store past the caches; `target` is where a line begins."""
    stored = builder.store(values, builder.inttoptr(target, values.type.as_pointer()), align=LINE)
    stored.set_metadata("nontemporal", builder.module.add_metadata([_ir.Constant(_LONG, 1)]))


def _code(load: Any, store: Any, count: int, *kinds: Any) -> tuple[Any, Any]:
    """Return type and code of a function of one or two sources, a target, and what else there is."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        del signature
        addresses = values[: len(values) - len(kinds)]
        store(builder, load(builder, count, *addresses[:-1]), addresses[-1])
        return context.get_dummy_value()

    sources = 2 if load is _pairs else 1
    return _types.void(*[_types.int64] * (sources + 1), *kinds), generate


@_extending.intrinsic(prefer_literal=True)
def put_pairs(typing: Any, low: Any, high: Any, target: Any, count: Any) -> Any:
    """Make float32 of pixels whose two bytes are apart; `count` is a number in the code."""
    del typing, low, high, target
    return _code(_pairs, _put, count.literal_value, count)


@_extending.intrinsic(prefer_literal=True)
def put_words(typing: Any, source: Any, target: Any, count: Any) -> Any:
    """Make float32 of pixels of two bytes."""
    del typing, source, target
    return _code(_words, _put, count.literal_value, count)


@_extending.intrinsic(prefer_literal=True)
def put_bytes(typing: Any, source: Any, target: Any, count: Any) -> Any:
    """Make float32 of pixels of one byte."""
    del typing, source, target
    return _code(_bytes, _put, count.literal_value, count)


@_extending.intrinsic
def stream_pairs(typing: Any, low: Any, high: Any, target: Any) -> Any:
    """Do as `put_pairs` with a line, past the caches."""
    del typing, low, high, target
    return _code(_pairs, _stream, WIDE)


@_extending.intrinsic
def stream_words(typing: Any, source: Any, target: Any) -> Any:
    """Do as `put_words` with a line, past the caches."""
    del typing, source, target
    return _code(_words, _stream, WIDE)


@_extending.intrinsic
def stream_bytes(typing: Any, source: Any, target: Any) -> Any:
    """Do as `put_bytes` with a line, past the caches."""
    del typing, source, target
    return _code(_bytes, _stream, WIDE)


@_extending.intrinsic
def stream_line(typing: Any, source: Any, target: Any) -> Any:
    """Copy a line past the caches."""
    del typing, source, target
    return _code(_line, _stream, WIDE)


@_extending.intrinsic
def end_streams(typing: Any) -> Any:
    """See to it that other threads find what was streamed."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        del signature, values
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return _types.void(), generate
