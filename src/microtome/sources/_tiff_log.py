"""What tifffile logs of a file that we open, which goes into our errors and not beside them."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["tifffile_heard"]

_HEARD: ContextVar[list[str] | None] = ContextVar("heard", default=None)
_log = logging.getLogger(__name__)
# It begins what it says with the object that says it.
_WHO = re.compile(r"^<tifffile\.\w+ [^>]*> ")


class _Listener(logging.Filter):
    """Keeps what is logged while one of our files is opened, in that thread, from whoever prints logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        heard = _HEARD.get()
        if heard is None:
            return True
        heard.append(_WHO.sub("", record.getMessage()))
        _log.debug("tifffile: %s", heard[-1])
        return False


_LISTENER = _Listener()


@contextmanager
def tifffile_heard() -> Generator[list[str]]:
    """Give a list of what tifffile logs while the block runs; others' files are logged as ever."""
    logging.getLogger("tifffile").addFilter(_LISTENER)  # the same one again is not added
    heard: list[str] = []
    token = _HEARD.set(heard)
    try:
        yield heard
    finally:
        _HEARD.reset(token)
