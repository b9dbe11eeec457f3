"""Formats of other distributions: entry points of the group ``microtome.sources``."""

from __future__ import annotations

import functools
import logging
from importlib.metadata import entry_points

from ._format import SourceFormat

__all__ = ["GROUP", "plugged_in"]

_log = logging.getLogger(__name__)

GROUP = "microtome.sources"
"""Name of the group; each entry point of it leads to a `SourceFormat`."""


@functools.cache
def plugged_in() -> tuple[SourceFormat, ...]:
    """Return the formats that installed distributions bring, in the order of their names.

    A plug-in that cannot be imported is told in the log and left out: it must not keep anybody from
    opening what it has nothing to do with.
    """
    found: list[SourceFormat] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            source = point.load()
        except Exception as error:  # noqa: BLE001 - it is another's code, and may raise anything
            _log.warning("the format %r of %s cannot be used: %s", point.name, point.value, error)
            continue
        if not isinstance(source, SourceFormat):
            _log.warning("the format %r of %s is no SourceFormat", point.name, point.value)
            continue
        found.append(source)
    return tuple(found)
