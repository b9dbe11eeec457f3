"""Images of files in another process: what is sent is how the file was opened, not what is open.

A file that is open has descriptors, locks, and tables of a million tiles. The other process gets
shapes and a recipe, and opens the file when it first reads from it: there, an error reaches whoever
reads, while one in the middle of unpickling ends a worker without a word.
"""

from __future__ import annotations

import hashlib
import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError, NotFoundError, StorageError
from microtome.image import ArrayStack, Level, MultiscaleImage, PixelArray
from microtome.storage import Box, Pending, StoredArray

__all__ = ["Recipe", "function_at", "traveling_image", "traveling_stack"]


def function_at(place: str) -> Callable[..., Any]:
    """Return the function at ``"module:function"``."""
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(module), function)


class Recipe:
    """How a local file was opened, and what that gave; in another process it is opened anew.

    Parameters
    ----------
    opener
        ``"module:function"`` that opened it.
    path
        The file or directory.
    options
        What else the function was given.
    opened
        What it returned.
    """

    def __init__(
        self,
        opener: str,
        path: Path,
        options: Mapping[str, Any],
        opened: MultiscaleImage | ArrayStack,
    ) -> None:
        # The other process may have another working directory.
        self._path = path.absolute()
        self._opener = opener
        self._options = dict(options)
        self._opened: MultiscaleImage | ArrayStack | None = opened
        self._state = _state(_files(self._path, opened))
        self._guard = threading.Lock()

    def array(self, level: int) -> PixelArray:
        """Return the pixels of a level; the file is opened if it is not yet.

        Raises
        ------
        NotFoundError
            If the file is gone.
        FormatError
            If it was changed since it was opened in the first process.
        """
        return _arrays(self._image())[level]

    def metadata(self) -> Mapping[str, Any]:
        """Return what the file says of itself; errors as of `array`."""
        found = self._image()
        return found.metadata if isinstance(found, MultiscaleImage) else {}

    def _image(self) -> MultiscaleImage | ArrayStack:
        if self._opened is None:
            with self._guard:
                if self._opened is None:
                    self._opened = self._open()
        return self._opened

    def _open(self) -> MultiscaleImage | ArrayStack:
        if not self._path.exists():
            msg = (
                f"{self._path} does not exist any more, or not for this process; it was there when "
                "it was opened in another one"
            )
            raise NotFoundError(msg)
        try:
            opened = function_at(self._opener)(self._path, **self._options)
        except FormatError as error:
            msg = f"{error}; it was whole when it was opened in another process"
            raise FormatError(msg) from error
        if _state(_files(self._path, opened)) != self._state:
            msg = (
                f"{self._path} was changed since it was opened in another process; open it there "
                "again and send it anew"
            )
            raise FormatError(msg)
        return opened

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_guard": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._guard = threading.Lock()


class _FileArray:
    """A level of what a recipe opens, as a `PixelArray`; its shape is known before.

    Parameters
    ----------
    array
        The pixels, as they are here.
    recipe
        How they are reached elsewhere.
    level
        Which of its levels it is.
    """

    def __init__(self, array: PixelArray, recipe: Recipe, level: int) -> None:
        self._array: PixelArray | None = array
        self._recipe = recipe
        self._level = level
        self._shape, self._dtype, self._chunks = array.shape, array.dtype, array.chunks

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in pixels."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self._dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Smallest part that is decoded."""
        return self._chunks

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that its pixels are in, where they say it."""
        return getattr(self._array or self._reached(), "files", ())

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        return (self._array or self._reached()).read(box)

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        """Start reading a box into a buffer."""
        return (self._array or self._reached()).read_into(box, out)

    def _reached(self) -> PixelArray:
        self._array = array = self._recipe.array(self._level)
        return array

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}


def traveling_image(image: MultiscaleImage, recipe: Recipe) -> MultiscaleImage:
    """Return an image that another process opens by a recipe when it reads from it.

    Parameters
    ----------
    image
        What the recipe opened.
    recipe
        How.
    """
    levels = [image.level(index) for index in range(image.level_count)]
    if all(isinstance(level.array, StoredArray) for level in levels):
        return image  # such arrays are reached by their paths already
    return MultiscaleImage(
        [
            Level(
                level.key,
                level.path,
                _FileArray(level.array, recipe, number),
                level.axes,
                level.scale,
                level.translation,
            )
            for number, level in enumerate(levels)
        ],
        uri=image.uri,
        channel_names=image.channel_names,
        mpp=image.mpp,
        kind=image.kind,
        name=image.name,
        metadata=recipe.metadata,
    )


def traveling_stack(stack: ArrayStack, recipe: Recipe) -> ArrayStack:
    """Return a stack that another process opens by a recipe when it reads from it.

    Parameters
    ----------
    stack
        What the recipe opened.
    recipe
        How.
    """
    return ArrayStack(
        _FileArray(stack.array, recipe, 0),
        stack.axes,
        source=stack.source,
        mpp=stack.mpp,
        channel_names=stack.channel_names,
    )


def _arrays(opened: MultiscaleImage | ArrayStack) -> list[PixelArray]:
    if isinstance(opened, ArrayStack):
        return [opened.array]
    return [opened.level(index).array for index in range(opened.level_count)]


def _files(path: Path, opened: MultiscaleImage | ArrayStack) -> list[Path]:
    """Return the files that pixels are in, where they say it; else the file, or what a directory holds."""
    found: set[Path] = set()
    for array in _arrays(opened):
        found.update(getattr(array, "files", ()))
    if not found and path.is_dir():
        found.update(child for child in path.iterdir() if child.is_file())
    return sorted(found) or [path]


def _state(files: Sequence[Path]) -> str:
    """Describe files by their names, sizes and times, however many there are, in a few bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        try:
            stated = file.stat()
        except FileNotFoundError as error:
            msg = f"{file} does not exist any more"
            raise NotFoundError(msg) from error
        except OSError as error:
            msg = f"{file} cannot be read: {error.strerror}"
            raise StorageError(msg) from error
        digest.update(f"{file.name}\0{stated.st_size}\0{stated.st_mtime_ns}\0".encode())
    return digest.hexdigest()
