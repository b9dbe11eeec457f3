"""Other libraries that read formats for us: imported when needed, and their errors made ours."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microtome.errors import DependencyError, FormatError, MicrotomeError, StorageError

__all__ = ["foreign_errors", "imported", "missing"]


def imported(module: str, path: Path, extra: str) -> Any:
    """Return a module that reads a format.

    Parameters
    ----------
    module
        Its name.
    path
        What is to be read, for the message.
    extra
        The extra of microtome that brings it.

    Raises
    ------
    DependencyError
        If it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing(module.partition(".")[0], path, extra, str(error)) from error


def missing(library: str, path: Path, extra: str, told: str) -> DependencyError:
    """Return the error that says which extra brings a library that cannot be imported."""
    msg = (
        f"{path} is read with {library}, which cannot be imported ({told}); "
        f"install microtome[{extra}]"
    )
    return DependencyError(msg)


@contextmanager
def foreign_errors(path: Path, reader: str) -> Generator[None]:
    """Turn whatever a reader stumbles over into an error of ours that names the file.

    Parameters
    ----------
    path
        What is read.
    reader
        Who reads it.
    """
    try:
        yield
    except MicrotomeError:
        raise
    except Exception as error:
        # A damaged file can make these raise anything.
        if isinstance(error, OSError) and error.errno is not None:
            msg = f"{path} cannot be read: {error.strerror}"
            raise StorageError(msg) from error
        msg = f"{path} is damaged or of a kind that {reader} does not read: {error or type(error).__name__}"
        raise FormatError(msg) from error
