"""Whether an image or a model is still the one that a run was begun with."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.image import Level, MemoryArray, MultiscaleImage

__all__ = ["array_fingerprint", "model_fingerprint", "source_fingerprint"]

_BAND_BYTES = 32 << 20


def source_fingerprint(image: MultiscaleImage, level: int) -> str:
    """Describe the pixels of a level: by its files' sizes and times, or, in memory, by themselves.

    Of an image that neither lies on this machine nor in memory, its name and shape are all there is.
    """
    chosen = image.level(level)
    what = f"{chosen.shape} {chosen.dtype} {chosen.axes}"
    place = getattr(chosen.array, "path", None)
    path = place if isinstance(place, Path) else Path(image.uri)
    if isinstance(chosen.array, MemoryArray):
        return f"{what} {_pixels(chosen):08x}"
    if "://" not in image.uri and path.exists():
        total = 0
        for line in _files(path):
            total = zlib.crc32(line.encode(), total)
        return f"{what} {total:08x}"
    return f"{what} {image.uri}"


def model_fingerprint(model: Any) -> str:
    """Describe what a model computes, as far as that can be seen.

    Of a torch module, its parameters, buffers and own code; of a function, its code. What a callable object
    holds, or reads elsewhere, is not seen.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        total = zlib.crc32(repr(model).encode(), _code_of(type(model).forward))
        for name, tensor in model.state_dict().items():
            total = zlib.crc32(name.encode(), total)
            if hasattr(tensor, "detach"):
                held = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                total = zlib.crc32(held.numpy().data, total)
        return f"{total:08x}"
    call = model if hasattr(model, "__code__") else vars(type(model)).get("__call__")
    return f"{_code_of(call):08x}"


def array_fingerprint(array: NDArray[Any] | None) -> str:
    """Describe an array by its values."""
    if array is None:
        return ""
    held = np.ascontiguousarray(array)
    return f"{held.shape} {zlib.crc32(held.view(np.uint8).reshape(-1).data):08x}"


def _code_of(function: Any) -> int:
    code = getattr(function, "__code__", None)
    return _code(code) if isinstance(code, CodeType) else 0


def _code(code: CodeType) -> int:
    total = zlib.crc32(code.co_code)
    for constant in code.co_consts:
        text = str(_code(constant)) if isinstance(constant, CodeType) else repr(constant)
        total = zlib.crc32(text.encode(), total)
    return zlib.crc32(repr(code.co_names).encode(), total)


def _pixels(level: Level) -> int:
    total = 0
    *lead, height, width = level.shape
    rows = max(1, _BAND_BYTES // max(1, width * level.dtype.itemsize))
    for place in np.ndindex(*lead):
        at = tuple((index, index + 1) for index in place)
        for top in range(0, height, rows):
            band = level.array.read((*at, (top, min(top + rows, height)), (0, width)))
            total = zlib.crc32(np.ascontiguousarray(band).view(np.uint8).reshape(-1).data, total)
    return total


def _files(path: Path) -> Iterator[str]:
    """Name every file below a path with its size and the time of its last change."""
    if path.is_file():
        stat = path.stat()
        yield f"{path.name} {stat.st_size} {stat.st_mtime_ns}"
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder) / name
            stat = file.stat()
            yield f"{file.relative_to(path).as_posix()} {stat.st_size} {stat.st_mtime_ns}"
