"""The files of the page: a fixed table, made once; no path is put together from a request."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

__all__ = ["PageFile", "page_files"]

_MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page."""

    media: str
    data: bytes
    tag: str
    """Changes with the data."""


def page_files() -> dict[str, PageFile]:
    """Return the files of the page by name, with "/" between folder and file."""
    found: dict[str, PageFile] = {}
    _gather(files("microtome.viewer") / "static", "", found)
    return found


def _gather(folder: Traversable, before: str, found: dict[str, PageFile]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _gather(entry, f"{before}{entry.name}/", found)
            continue
        media = _MEDIA.get(f".{entry.name.rpartition('.')[2]}")
        if media is not None:
            data = entry.read_bytes()
            tag = hashlib.blake2b(data, digest_size=12).hexdigest()
            found[before + entry.name] = PageFile(media, data, tag)
