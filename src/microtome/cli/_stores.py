"""How stores are reached, said on the command line instead of by the environment, for every verb."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter

from microtome.errors import InvalidInputError

__all__ = ["StoreOptions", "stores_reached"]

_GROUP = Group("Stores", help="Where paths are addresses; by default what the environment says.")
_ENDPOINT = re.compile(r"https?://[^/\s]+.*")
# These go before a profile, and a profile that is said goes before them.
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How stores are reached."""

    endpoint_url: Annotated[str | None, Parameter(name="--endpoint-url")] = None
    """Server of s3:// addresses that is not Amazon's, such as https://minio.example.org:9000
    (AWS_ENDPOINT_URL)."""
    profile: Annotated[str | None, Parameter(name="--profile")] = None
    """Whose credentials of ~/.aws are used (AWS_PROFILE)."""
    anonymous: Annotated[bool, Parameter(name="--anonymous", negative=(), show_default=False)] = (
        False
    )
    """Read public buckets without credentials (AWS_NO_SIGN_REQUEST=YES)."""
    disk_cache: Annotated[str | None, Parameter(name="--disk-cache")] = None
    """Directory here in which what was read of stores is kept (MICROTOME_DISK_CACHE)."""
    disk_cache_limit: Annotated[str | None, Parameter(name="--disk-cache-limit")] = None
    """How much of it, such as 50GiB; 10GiB by default (MICROTOME_DISK_CACHE_LIMIT)."""


@contextmanager
def stores_reached(options: StoreOptions | None) -> Generator[None]:
    """Have this process, and those that it starts, reach stores as options say; afterwards as before.

    Raises
    ------
    InvalidInputError
        If an option is none.
    """
    told = _variables(options or StoreOptions())
    before = {name: os.environ.get(name) for name in told}
    try:
        _set(told)
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _variables(options: StoreOptions) -> dict[str, str | None]:
    """Return the variables that are set, or taken away, by name."""
    endpoint = options.endpoint_url
    told: dict[str, str | None] = {}
    if endpoint is not None:
        if not _ENDPOINT.fullmatch(endpoint):
            msg = f"--endpoint-url is the address of a server, such as http://localhost:9000, got {endpoint!r}"
            raise InvalidInputError(msg)
        told["AWS_ENDPOINT_URL_S3"] = endpoint
    if options.profile is not None:
        told |= {"AWS_PROFILE": options.profile, **dict.fromkeys(_KEYS)}
    if options.anonymous:
        if options.profile is not None:
            msg = "--anonymous reads without credentials, and --profile says whose are used; leave one out"
            raise InvalidInputError(msg)
        told["AWS_NO_SIGN_REQUEST"] = "YES"
    if options.disk_cache is not None:
        told["MICROTOME_DISK_CACHE"] = options.disk_cache
    if options.disk_cache_limit is not None:
        if not (options.disk_cache or os.environ.get("MICROTOME_DISK_CACHE")):
            msg = "--disk-cache-limit is of a cache: say where it is with --disk-cache DIRECTORY"
            raise InvalidInputError(msg)
        told["MICROTOME_DISK_CACHE_LIMIT"] = options.disk_cache_limit
    return told
