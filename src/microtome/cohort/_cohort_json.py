"""cohort.json: which format and version a cohort has, and what made it."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from microtome.errors import FormatError
from microtome.storage import replace_file

from ._partial import sweep

__all__ = ["read_cohort_json", "write_cohort_json"]

_FORMAT = "microtome-cohort"
_VERSION = 1


def write_cohort_json(path: Path) -> None:
    """Begin a cohort; under its lock."""
    manifest = {
        "format": _FORMAT,
        "version": _VERSION,
        "created_with": f"microtome {version('microtome')}",
    }
    sweep(path)
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_cohort_json(path: Path) -> dict[str, Any]:
    """Return the content of a file that is there.

    Raises
    ------
    FormatError
        If it is damaged, something else's, or of a newer version.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    # As deep as a damaged one may be nested, nobody reads it.
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        msg = f"{path} is damaged: {error}"
        raise FormatError(msg) from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        msg = f"{path} is not a microtome cohort's"
        raise FormatError(msg)
    if not isinstance(manifest.get("version"), int) or manifest["version"] > _VERSION:
        msg = (
            f"{path} has version {manifest.get('version')!r}; this microtome reads up to {_VERSION}"
        )
        raise FormatError(msg)
    return dict(manifest)
