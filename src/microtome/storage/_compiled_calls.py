"""What compiled code needs to call C: the decoders that imagecodecs brings, by their addresses.

Addresses are arguments and no constants, so that what was compiled can be kept for other processes.
"""

from __future__ import annotations

import ctypes
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any
from zlib import crc32

from ._compiler import jit

__all__ = [
    "call_blosc",
    "call_clock",
    "call_lz4",
    "call_lz4_begin",
    "call_lz4_fast",
    "call_lz4_part",
    "call_lz4_search",
    "call_lz4_state",
    "call_zstd",
    "compiled",
    "copy",
    "is_possible",
    "libraries",
    "pointer",
]

numba: Any = import_module("numba")
_cgutils: Any = import_module("numba.core.cgutils")
_types: Any = import_module("numba.core.types")
_extending: Any = import_module("numba.extending")
_ir: Any = _cgutils.ir


def compiled(function: Any, signature: Any = None) -> Any:
    """Compile a function, at once where its signature is given; of that one the code is kept.

    Numba looks up what it kept by the function's own file. As others are compiled into it, its name
    says which sources they had.
    """
    if signature is None:
        return numba.njit(nogil=True, error_model="numpy")(function)
    function.__qualname__ += f"_{_sources():08x}"
    return jit(function, signature, error_model="numpy")


def _sources() -> int:
    """Return a number that is another where any of the compiled modules is."""
    found = 0
    for path in sorted(Path(__file__).parent.glob("_compiled_*.py")):
        found = crc32(path.read_bytes(), found)
    return found


def is_possible() -> bool:
    """Whether Numba may compile, and bytes have the order that they have in files."""
    return not numba.config.DISABLE_JIT and sys.byteorder == "little"


def libraries() -> list[int] | None:
    """Return the addresses of what decodes: LZ4, the same in part, ZSTD, its context's two, Blosc.

    Then that of the system's clock, and which of its clocks is asked.

    None where imagecodecs was built without libraries of its own, where Numba is told to compile
    nothing, and where bytes have another order than in files.
    """
    if not is_possible():
        return None
    names = {
        "_lz4": ("LZ4_decompress_safe", "LZ4_decompress_safe_partial"),
        "_zstd": ("ZSTD_decompressDCtx", "ZSTD_createDCtx", "ZSTD_freeDCtx"),
        "_blosc": ("blosc_decompress_ctx",),
    }
    found: dict[str, int] = {}
    try:
        for module, functions in names.items():
            # Looked up in what the module is linked to, whatever that is called.
            library = ctypes.CDLL(import_module(f"imagecodecs.{module}").__file__)
            for name in functions:
                address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
                found[name] = int(address or 0)
        clock = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value
    except (ImportError, OSError, AttributeError):
        return None
    return [*found.values(), int(clock or 0), time.CLOCK_MONOTONIC]


def _foreign(result: Any, *arguments: Any) -> Any:
    """Return code that calls a C function by its address; pointers are numbers like any other."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = _ir.FunctionType(result, list(arguments))
        found = builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value() if signature.return_type == _types.void else found

    return generate


_I32, _I64 = _ir.IntType(32), _ir.IntType(64)


@_extending.intrinsic
def call_lz4(typing: Any, at: Any, source: Any, target: Any, length: Any, room: Any) -> Any:
    del typing, at, source, target, length, room
    i32, i64 = _types.int32, _types.int64
    return i32(i64, i64, i64, i32, i32), _foreign(_I32, _I64, _I64, _I32, _I32)


@_extending.intrinsic
def call_lz4_part(  # LZ4's own arguments
    typing: Any, at: Any, source: Any, target: Any, length: Any, wanted: Any, room: Any
) -> Any:
    del typing, at, source, target, length, wanted, room
    i32, i64 = _types.int32, _types.int64
    return i32(i64, i64, i64, i32, i32, i32), _foreign(_I32, _I64, _I64, _I32, _I32, _I32)


@_extending.intrinsic
def call_lz4_fast(  # LZ4's own arguments
    typing: Any, at: Any, source: Any, target: Any, length: Any, room: Any, acceleration: Any
) -> Any:
    del typing, at, source, target, length, room, acceleration
    i32, i64 = _types.int32, _types.int64
    return i32(i64, i64, i64, i32, i32, i32), _foreign(_I32, _I64, _I64, _I32, _I32, _I32)


@_extending.intrinsic
def call_lz4_begin(typing: Any, at: Any, state: Any, size: Any) -> Any:
    del typing, at, state, size
    i64 = _types.int64
    return i64(i64, i64, i64), _foreign(_I64, _I64, _I64)


@_extending.intrinsic
def call_lz4_state(typing: Any, at: Any, state: Any, level: Any) -> Any:
    del typing, at, state, level
    i32, i64 = _types.int32, _types.int64
    return _types.void(i64, i64, i32), _foreign(_ir.VoidType(), _I64, _I32)


@_extending.intrinsic
def call_lz4_search(  # LZ4's own arguments
    typing: Any, at: Any, state: Any, source: Any, target: Any, length: Any, room: Any
) -> Any:
    del typing, at, state, source, target, length, room
    i32, i64 = _types.int32, _types.int64
    return i32(i64, i64, i64, i64, i32, i32), _foreign(_I32, _I64, _I64, _I64, _I32, _I32)


@_extending.intrinsic
def call_zstd(  # ZSTD's own arguments
    typing: Any, at: Any, context: Any, target: Any, room: Any, source: Any, length: Any
) -> Any:
    del typing, at, context, target, room, source, length
    i64 = _types.int64
    return i64(i64, i64, i64, i64, i64, i64), _foreign(_I64, _I64, _I64, _I64, _I64, _I64)


@_extending.intrinsic
def call_blosc(typing: Any, at: Any, source: Any, target: Any, room: Any, threads: Any) -> Any:
    del typing, at, source, target, room, threads
    i32, i64 = _types.int32, _types.int64
    return i32(i64, i64, i64, i64, i32), _foreign(_I32, _I64, _I64, _I64, _I32)


@_extending.intrinsic
def call_clock(typing: Any, at: Any, which: Any, target: Any) -> Any:
    del typing, at, which, target
    i32, i64 = _types.int32, _types.int64
    return i32(i64, i32, i64), _foreign(_I32, _I32, _I64)


@_extending.intrinsic
def pointer(typing: Any, address: Any) -> Any:
    del typing, address

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        del context, signature
        return builder.inttoptr(values[0], _cgutils.voidptr_t)

    return _types.voidptr(_types.int64), generate


@_extending.intrinsic
def copy(typing: Any, target: Any, source: Any, size: Any) -> Any:
    del typing, target, source, size

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        del signature
        pointers = [builder.inttoptr(value, _cgutils.voidptr_t) for value in values[:2]]
        _cgutils.raw_memcpy(builder, *pointers, values[2], 1)
        return context.get_dummy_value()

    return _types.void(_types.int64, _types.int64, _types.int64), generate
