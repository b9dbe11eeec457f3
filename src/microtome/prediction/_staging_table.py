"""A table of vectors for a store: what is there is fetched, and what is made of it put there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from microtome.storage import Place, replace_file, upload_file

from ._embed import noted_settings
from ._staging import staged

__all__ = ["StagedTable"]


class StagedTable:
    """A table of vectors for a store, made or added to in a file here; as a context manager.

    Parameters
    ----------
    place
        The directory in the store.
    name
        Of the table.
    resume
        Whether what a killed run left is gone on with.
    """

    def __init__(self, place: Place, name: str, *, resume: bool) -> None:
        self._place, self._name = place, name
        self._held = staged(place / name, name, resume=resume)
        self._stamp = b""
        self._before: tuple[int, int] | None = None
        self.path = Path()

    def __enter__(self) -> Self:
        self.path = self._held.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def fetch(self, *, wanted: Mapping[str, Any], overwrite: bool) -> None:
        """Bring the table that is there, to be looked at or added to.

        Parameters
        ----------
        wanted
            What the vectors that are asked for depend on: those that a killed run made, and did not
            put into the store, are kept if they are these.
        overwrite
            Whether what is there in the store does not count.
        """
        data, self._stamp = self._place.read_stamped(self._name)
        if data is None or overwrite:
            left = noted_settings(self.path) if self.path.exists() else None
            if overwrite or left != json.loads(json.dumps(wanted)):
                self.path.unlink(missing_ok=True)
            return
        with replace_file(self.path) as temporary:
            temporary.write_bytes(data)
        self._before = _file_identity(self.path)

    def put(self) -> None:
        """Put the table into the store, unless it is the one that is there.

        Raises
        ------
        BusyError
            If another process has written it since it was fetched.
        """
        if self._before != _file_identity(self.path):
            upload_file(self.path, self._place, self._name, self._stamp)


def _file_identity(path: Path) -> tuple[int, int]:
    # A table that is changed is replaced by another file.
    found = path.stat()
    return found.st_ino, found.st_mtime_ns
