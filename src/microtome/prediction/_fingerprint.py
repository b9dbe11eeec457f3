"""Whether an image or a model is still the one that a run was begun with."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Mapping
from functools import partial, singledispatch
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.cohort import identity_in
from microtome.image import MemoryArray, MultiscaleImage
from microtome.regions import pixels_fingerprint

__all__ = [
    "array_fingerprint",
    "files_fingerprint",
    "image_fingerprint",
    "model_fingerprint",
    "sees_batches",
    "source_fingerprint",
]

# Slots that hold nothing of a value's own.
_OWN = frozenset({"__dict__", "__weakref__"})


def source_fingerprint(image: MultiscaleImage, level: int) -> str:
    """Describe the pixels of a level: by its files' sizes and times, or, in memory, by themselves.

    Of an image that neither lies on this machine nor in memory, its name and shape are all there is:
    its pixels are not fetched for this.
    """
    chosen = image.level(level)
    if _local_place(image, level) is not None or isinstance(chosen.array, MemoryArray):
        return pixels_fingerprint(image, level)
    return f"{chosen.shape} {chosen.dtype} {chosen.axes} {image.uri}"


def image_fingerprint(image: MultiscaleImage, level: int) -> str:
    """Describe an image by what it was ingested from and how, where it says so, else by its pixels' files.

    An image of a cohort that was moved or copied, here or into a store, is the same one.
    """
    identity = identity_in(image.metadata)
    return source_fingerprint(image, level) if identity is None else identity


def files_fingerprint(image: MultiscaleImage, level: int) -> str | None:
    """Describe the files of a level by their names and sizes, which a copy has, too.

    None where they are no files of a directory on this machine.
    """
    path = _local_place(image, level)
    if path is None or not path.is_dir():
        return None
    total = 0
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder) / name
            told = f"{file.relative_to(path).as_posix()} {file.stat().st_size}\n"
            total = zlib.crc32(told.encode(), total)
    return f"{total:08x}"


def _local_place(image: MultiscaleImage, level: int) -> Path | None:
    """Return where a level's pixels lie on this machine, if they do."""
    stored = getattr(image.level(level).array, "path", None)
    path = stored if isinstance(stored, Path) else Path(image.uri)
    return path if "://" not in image.uri and path.exists() else None


def model_fingerprint(model: Any) -> str:
    """Describe what a model computes, as far as that can be seen.

    Of a torch module, its parameters, buffers and own code; of a function, its code and what it closes
    over; of any other callable, its code and attributes, and so on within them. What is read elsewhere,
    from a file or a global name, is not seen.
    """
    return f"{_described(model):08x}"


def sees_batches(model: Any) -> bool:
    """Whether what a model says of a tile depends on the others of its batch, as far as can be seen.

    A torch module is put in evaluation mode when it is run, and then does not. Any other callable does
    if it holds a torch module in training mode, whose batch norm looks at all that it is shown.
    """
    # Ours, that run another model, put that one in evaluation mode.
    while callable(getattr(model, "microtome_on", None)):
        model = model.model
    torch = sys.modules.get("torch")
    if torch is None or isinstance(model, torch.nn.Module):
        return False
    return _trains(model, torch.nn.Module, torch.Tensor, frozenset())


def _trains(value: Any, module: type, tensor: type, above: frozenset[int]) -> bool:
    if isinstance(value, module):
        held: Any = value
        return any(part.training for part in held.modules())
    plain = str | bytes | bool | int | float | complex | np.ndarray | np.generic | type | ModuleType
    if value is None or id(value) in above or isinstance(value, plain | tensor):
        return False
    return any(_trains(part, module, tensor, above | {id(value)}) for part in _parts(value))


def array_fingerprint(array: NDArray[Any] | None) -> str:
    """Describe an array by its values."""
    if array is None:
        return ""
    held = np.ascontiguousarray(array)
    return f"{held.shape} {zlib.crc32(held.view(np.uint8).reshape(-1).data):08x}"


def _described(value: Any, above: frozenset[int] = frozenset()) -> int:
    """Return a checksum of a value; one that holds itself is described once on the way down."""
    total = zlib.crc32(f"{type(value).__module__}.{type(value).__qualname__}".encode())
    leaf = _leaf(value)
    if leaf is not None:
        return zlib.crc32(leaf, total)
    if id(value) in above:
        return total
    for part in _parts(value):
        total = zlib.crc32(_described(part, above | {id(value)}).to_bytes(4, "big"), total)
    return total


def _leaf(value: Any) -> bytes | None:
    """Return the bytes of a value that holds no others."""
    if value is None or isinstance(value, str | bytes | bool | int | float | complex):
        return repr(value).encode()
    if isinstance(value, np.ndarray | np.generic):
        held = np.asarray(value)
        # References are no values.
        return None if held.dtype.hasobject else f"{held.dtype} {array_fingerprint(held)}".encode()
    if isinstance(value, type | ModuleType):
        return value.__name__.encode()
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        held = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        total = zlib.crc32(held.numpy().data)
        return f"{value.dtype} {tuple(value.shape)} {total:08x}".encode()
    return None


@singledispatch
def _parts(value: Any) -> Iterable[Any]:
    """Return what a value is made of: of an object its code and what it holds."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        return repr(value), _code_of(type(value).forward), dict(value.state_dict())
    held = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        names = {slots} if isinstance(slots, str) else set(slots)
        held |= {name: getattr(value, name) for name in names - _OWN if hasattr(value, name)}
    call = next(
        (vars(kind)["__call__"] for kind in type(value).__mro__ if "__call__" in vars(kind)), None
    )
    return _code_of(call), held


@_parts.register(np.ndarray)
def _(value: Any) -> Iterable[Any]:
    return value.reshape(-1).tolist()


@_parts.register(Mapping)
def _(value: Any) -> Iterable[Any]:
    return [part for item in value.items() for part in item]


@_parts.register(list)
@_parts.register(tuple)
def _(value: Any) -> Iterable[Any]:
    return value


@_parts.register(set)
@_parts.register(frozenset)
def _(value: Any) -> Iterable[Any]:
    # In no order, and another one in every process.
    return sorted(map(_described, value))


@_parts.register(partial)
def _(value: Any) -> Iterable[Any]:
    return value.func, value.args, value.keywords


@_parts.register(np.ufunc)
def _(value: Any) -> Iterable[Any]:
    # Not its __dict__, where NumPy keeps a signature that somebody asked for.
    return value.__name__, value.nin, value.nout, value.types


@_parts.register(MethodType)
def _(value: Any) -> Iterable[Any]:
    return value.__func__, value.__self__


@_parts.register(FunctionType)
def _(value: Any) -> Iterable[Any]:
    # A cell that nothing was put into yet has no contents.
    cells = [cell for cell in value.__closure__ or () if cell != CellType()]
    held = [cell.cell_contents for cell in cells]
    return _code_of(value), value.__defaults__, value.__kwdefaults__, held


def _code_of(function: Any) -> int:
    code = getattr(function, "__code__", None)
    return _code(code) if isinstance(code, CodeType) else 0


def _code(code: CodeType) -> int:
    total = zlib.crc32(code.co_code)
    for constant in code.co_consts:
        text = str(_code(constant)) if isinstance(constant, CodeType) else repr(constant)
        total = zlib.crc32(text.encode(), total)
    return zlib.crc32(repr(code.co_names).encode(), total)
