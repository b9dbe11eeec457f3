"""How stores are reached, and what is kept of them in memory: one value for many images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from microtome.errors import InvalidInputError

from ._disk_cache import DiskCache

__all__ = ["StorageOptions"]

_PER_STORE = ("file_io", "s3_request", "gcs_request", "http_request")
_FIRST_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How stores are reached, and what is kept of them; one value serves any number of images.

    Everything opened in a process with equal options shares one cache and one set of threads,
    whether it was given the same object or one that is equal to it.

    Parameters
    ----------
    endpoint
        Address of an S3-compatible server; by default what the environment names
        (``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``), or else Amazon's.
    region
        Region of the bucket; by default the environment's (``AWS_REGION``,
        ``AWS_DEFAULT_REGION``), or else the server's.
    credentials
        ``"environment"`` (variables, shared files, instance roles, as Amazon's own tools do it)
        or ``"anonymous"`` for public buckets, which the environment can say as well
        (``AWS_NO_SIGN_REQUEST=YES``).
    cache_bytes
        How much decoded pixels all these images together keep in memory until the process ends;
        the least recently used go first. 0 keeps nothing. What is kept is compared with the store
        when an image is opened, and then no longer: pixels that another process changes later may
        be seen as they were, and those written through another handle of this one.
    concurrency
        How many reads are in flight, and how many threads decode and copy; by default as many
        threads as there are cores, and as many reads as suit the store.
    retries
        How often a request to a server is repeated that failed on the way. The pauses between
        begin with a tenth of a second and double.
    longest_pause
        Seconds that a pause lasts at most.
    disk_cache
        Where bytes of images in remote stores (S3, Google's, HTTP) are kept on a disk of this
        machine, and how many; by default where the environment says (``MICROTOME_DISK_CACHE``, a
        directory, and ``MICROTOME_DISK_CACHE_LIMIT``, as ``50GiB``), or else nowhere.

    Raises
    ------
    InvalidInputError
        If a value is none of these.
    """

    endpoint: str | None = None
    region: str | None = None
    credentials: Literal["environment", "anonymous"] = "environment"
    cache_bytes: int = 0
    concurrency: int | None = None
    # The engine's own default goes on for ten minutes, which looks like hanging.
    retries: int = 6
    longest_pause: float = 3.0
    disk_cache: DiskCache | None = None

    def __post_init__(self) -> None:
        if self.credentials not in {"environment", "anonymous"}:
            msg = f"credentials must be 'environment' or 'anonymous', got {self.credentials!r}"
            raise InvalidInputError(msg)
        for name in ("endpoint", "region"):
            value = getattr(self, name)
            if not (value is None or (isinstance(value, str) and value)):
                msg = f"{name} must be a text that is not empty, or None, got {value!r}"
                raise InvalidInputError(msg)
        if self.disk_cache is not None and not isinstance(self.disk_cache, DiskCache):  # pyright: ignore[reportUnnecessaryIsInstance] - what a user types
            msg = f"disk_cache must be a DiskCache(path, limit) or None, got {self.disk_cache!r}"
            raise InvalidInputError(msg)
        _verify_count("cache_bytes", self.cache_bytes, 0)
        _verify_count("retries", self.retries, 0)
        if self.concurrency is not None:
            _verify_count("concurrency", self.concurrency, 1)
        pause = self.longest_pause
        if isinstance(pause, bool) or not isinstance(pause, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - what a user types
            msg = f"longest_pause must be a number of seconds, got {pause!r}"
            raise InvalidInputError(msg)
        if not (math.isfinite(pause) and pause > 0):
            msg = f"longest_pause must be a finite number of seconds above 0, got {pause!r}"
            raise InvalidInputError(msg)

    @property
    def engine_context(self) -> dict[str, Any]:
        """What the array engine is told of this: its description of a context."""
        patience = {
            "max_retries": self.retries,
            "initial_delay": f"{min(_FIRST_PAUSE, self.longest_pause)}s",
            "max_delay": f"{self.longest_pause}s",
        }
        spec: dict[str, Any] = {
            "cache_pool": {"total_bytes_limit": self.cache_bytes},
            "http_request_retries": patience,
            "gcs_request_retries": patience,
            "s3_request_retries": patience,
        }
        if self.concurrency is not None:
            for resource in ("data_copy", *_PER_STORE):
                spec[f"{resource}_concurrency"] = {"limit": self.concurrency}
        return spec


def _verify_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        msg = f"{name} must be a whole number, {least} or more, got {value!r}"
        raise InvalidInputError(msg)
