"""What a packed cohort was packed from: noted in it, and compared with what there is now."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microtome.errors import MicrotomeError
from microtome.storage import replace_file

from ._made_of import image_identity

__all__ = ["PackedFrom", "packing_inputs"]

_NOTE = "packed.json"
_VERSION = 1
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class PackedFrom:
    """From what a cohort was packed, and how.

    Parameters
    ----------
    origin
        Directory of the cohort that was packed.
    settings
        How.
    images, files
        What tells the images that were rewritten, and all else that was copied, from any others, by
        their place in the cohort; see `packing_inputs`.
    made
        What became of the images, for who asks again.
    """

    origin: str
    settings: Mapping[str, Any]
    images: Mapping[str, str]
    files: Mapping[str, str]
    made: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @classmethod
    def read(cls, root: Path) -> PackedFrom | None:
        """Return what a packed cohort says of itself; None where nothing does."""
        try:
            found: Any = json.loads((root / _NOTE).read_text(encoding="utf-8"))
            if found["version"] != _VERSION:
                return None
            origin, *more = (
                found[name] for name in ("origin", "settings", "images", "files", "made")
            )
            settings, images, files, made = more
            whole = all(isinstance(each, dict) for each in (settings, images, files, *made))
        except (OSError, MicrotomeError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return cls(str(origin), settings, images, files, made) if whole else None

    def write(self, root: Path) -> None:
        """Write it into a packed cohort."""
        document = {
            "version": _VERSION,
            "origin": self.origin,
            "settings": dict(self.settings),
            "images": dict(self.images),
            "files": dict(self.files),
            "made": self.made,
        }
        with replace_file(root / _NOTE) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def changed_since(self, images: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
        """Return in words what is another now, is new, or is gone."""
        before, now = {**self.images, **self.files}, {**images, **files}
        return [
            f"{name} is {'gone' if name not in now else 'new' if name not in before else 'another'}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]


def packing_inputs(root: Path, images: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what tells each image of a cohort, and each other thing in it, from any other.

    Of an image that says what it was ingested from this is its identity, which a copy of the cohort
    has as well. Of all else it is the sizes and times of its files: nothing is read.

    Parameters
    ----------
    root
        Directory of the cohort.
    images
        Which images are known by their identity, as paths in it.

    Returns
    -------
    Of these images, and of all other files and OME-Zarr directories.
    """
    found: dict[str, str] = {}
    for name in images:
        identity = None
        with suppress(MicrotomeError, OSError):
            identity = image_identity(root / name)
        if identity is not None:
            found[name] = identity
        elif (root / name).exists():
            found[name] = _stated(root / name, _files_in(root / name))
    files: dict[str, str] = {}
    for place, folders, names in os.walk(root):
        here = Path(place)
        stored = [each for each in folders if each.endswith(".zarr") and not _is_own(each)]
        folders[:] = [each for each in folders if each not in stored and not _is_own(each)]
        for each in stored:
            inside = (here / each).relative_to(root).as_posix()
            if inside not in found:
                files[inside] = _stated(here / each, _files_in(here / each))
        for each in names:
            if not _is_own(each):
                files[(here / each).relative_to(root).as_posix()] = _stated(here, [here / each])
    return found, files


def _is_own(name: str) -> bool:
    """Whether a file is what a program keeps for itself: hidden, or the index of a table of tiles."""
    return name.startswith(".") or name.endswith(".arrow")


def _files_in(directory: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(directory):
        folders.sort()
        yield from (Path(place) / name for name in sorted(names))


def _stated(root: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with suppress(FileNotFoundError):  # gone meanwhile
            stat = file.stat()
            told = f"{file.relative_to(root).as_posix()} {stat.st_size} {stat.st_mtime_ns}\n"
            digest.update(told.encode())
    return digest.hexdigest()[:_DIGITS]
