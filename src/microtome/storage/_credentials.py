"""Where the credentials of S3 are: the array engine has to be told of what Amazon's own tools look at.

Asked for nothing, the engine takes variables of the environment, but looks for files of profiles
first and writes five lines to stderr about those that are not there, for each image; and of files
that are there it finds no profile, as it looks for one without a name.
"""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import Any

__all__ = ["stated_credentials"]

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def stated_credentials() -> dict[str, Any] | None:
    """Return what the engine is to be told, or None: it may be a machine that has a role.

    Keys in the environment go first, then the profile that ``AWS_PROFILE`` names, or ``default``, in
    the files of credentials and configuration; what is in these besides keys, such as roles, the
    engine knows.
    """
    if all(os.environ.get(name) for name in _KEYS):
        return {"type": "environment"}
    keys = _file("AWS_SHARED_CREDENTIALS_FILE", "credentials")
    settings = _file("AWS_CONFIG_FILE", "config")
    if keys is None and settings is None:
        return None
    profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    if keys is not None and _has_keys(keys, profile):
        # By itself, so that no other provider is tried, and complains.
        return {
            "type": "profile",
            "profile": profile,
            "credentials_file": str(keys),
            "config_file": str(settings or os.devnull),
        }
    return {"type": "default", "profile": profile}


def _file(variable: str, name: str) -> Path | None:
    path = Path(os.environ.get(variable) or f"~/.aws/{name}")
    try:
        path = path.expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError):
        return None  # There is no home, or it may not be looked into.


def _has_keys(path: Path, profile: str) -> bool:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (configparser.Error, OSError, UnicodeDecodeError):
        return False  # The engine says what it thinks of it.
    return all(parser.has_option(profile, name.lower()) for name in _KEYS)
