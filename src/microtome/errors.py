"""The one exception family of microtome.

Every class is also the builtin it stands for, so code that knows nothing of microtome can
still catch `ValueError` or `FileNotFoundError`:

    MicrotomeError
    ├── InvalidInputError      ValueError          an argument is wrong
    │   ├── NoResolutionError  ValueError          an image says nothing about its pixel size
    │   └── UnannotatedError   RuntimeError        an instance has no row in the table
    ├── UnknownNameError       KeyError            a name that is not there (level, channel, tissue)
    ├── OutOfRangeError        IndexError          an index outside what exists
    ├── NotFoundError          FileNotFoundError   a path that is not there
    ├── ExistsError            FileExistsError     a path that is there and must not be
    ├── FormatError            ValueError          a file is damaged or is not what it claims to be
    ├── ModeError              PermissionError     the object is closed or open for something else
    ├── StorageError           OSError             the disk or store refused (full, denied, gone)
    ├── BusyError              TimeoutError        another process holds the cohort
    ├── ConflictError          RuntimeError        another writer changed the same meanwhile
    ├── ModelError             RuntimeError        a model failed on what it was shown
    ├── WorkerError            RuntimeError        a process or machine that worked for a job is gone
    └── DependencyError        ImportError         an optional package is not installed

A message says what is wrong, with which values, and what to do about it.
"""

from __future__ import annotations

__all__ = [
    "BusyError",
    "ConflictError",
    "DependencyError",
    "ExistsError",
    "FormatError",
    "InvalidInputError",
    "MicrotomeError",
    "ModeError",
    "ModelError",
    "NoResolutionError",
    "NotFoundError",
    "OutOfRangeError",
    "StorageError",
    "UnannotatedError",
    "UnknownNameError",
    "WorkerError",
]


class MicrotomeError(Exception):
    """Base of every error that microtome raises on purpose."""


class InvalidInputError(MicrotomeError, ValueError):
    """An argument of the call is wrong."""


class NoResolutionError(InvalidInputError):
    """An image does not state its pixel size, or states an impossible one."""


class UnannotatedError(InvalidInputError, RuntimeError):
    """Instances of a region have no row in the table; SpatialData raises a `RuntimeError`."""


class UnknownNameError(MicrotomeError, KeyError):
    """A name (level, channel, tissue, modality...) that is not there.

    >>> str(UnknownNameError("no channel 'CD3'"))
    "no channel 'CD3'"
    """

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which puts a sentence between quotes.
        return str(self.args[0]) if self.args else ""


class OutOfRangeError(MicrotomeError, IndexError):
    """An index outside what exists."""


class NotFoundError(MicrotomeError, FileNotFoundError):
    """A path that is not there."""


class ExistsError(MicrotomeError, FileExistsError):
    """A path that is there and must not be overwritten."""


class FormatError(MicrotomeError, ValueError):
    """A file is damaged, or is not what its name or its metadata claims."""


class ModeError(MicrotomeError, PermissionError):
    """The object is closed, or open in another mode than the call needs."""


class StorageError(MicrotomeError, OSError):
    """The disk or the store refused: full, denied, gone."""


class BusyError(MicrotomeError, TimeoutError):
    """Another process holds the cohort."""


class ConflictError(MicrotomeError, RuntimeError):
    """Another writer changed the same meanwhile; what was done here is not lost, nor committed."""


class ModelError(MicrotomeError, RuntimeError):
    """A model failed on what it was shown; what it raised is the `__cause__`."""


class WorkerError(MicrotomeError, RuntimeError):
    """A process or machine that worked for a job is gone, killed or out of memory; or is of another version."""


class DependencyError(MicrotomeError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""
