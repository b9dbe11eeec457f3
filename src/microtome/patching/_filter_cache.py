"""Statistics of filters on disk: found again for the same pixels, places and question."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.regions import pixels_fingerprint
from microtome.storage import replace_file

from ._measuring import Measurement, Places

__all__ = ["KeptStatistics"]

_log = logging.getLogger(__name__)

# Another number where a statistic is computed in another way.
_VERSION = 1


class KeptStatistics:
    """Statistics of an image's places, as they are kept on disk.

    Parameters
    ----------
    cache
        The folder, or None to keep nothing.
    places, about
        What is measured.

    Attributes
    ----------
    values
        What is kept, (n, statistics); None where it is still to be measured.
    """

    def __init__(
        self, cache: str | os.PathLike[str] | None, places: Places, about: Measurement
    ) -> None:
        self.values: NDArray[np.float64] | None = None
        self._file: Path | None = None
        if cache is not None:
            self._key = _key(places, about)
            name = hashlib.sha256(self._key.encode()).hexdigest()[:32]
            self._file = Path(cache) / f"{name}.npz"
            shape = len(places), len(about.patch_filter.names)
            self.values = _read(self._file, self._key, shape)

    def keep(self, values: NDArray[np.float64]) -> None:
        """Keep what was measured, in one step."""
        if self._file is not None:
            with replace_file(self._file) as path, path.open("wb") as out:
                np.savez(out, key=np.frombuffer(self._key.encode(), np.uint8), values=values)


def _key(places: Places, about: Measurement) -> str:
    boxes = hashlib.sha256()
    for array in (places.sample, places.start, places.stop, about.factor):
        boxes.update(np.ascontiguousarray(array).data)
    return json.dumps(
        {
            "version": _VERSION,
            "pixels": pixels_fingerprint(about.stack, about.level),
            "places": boxes.hexdigest(),
            "level": about.level,
            "filter": about.patch_filter.settings,
        }
    )


def _read(file: Path, key: str, shape: tuple[int, int]) -> NDArray[np.float64] | None:
    if not file.is_file():
        return None
    try:
        # Opened here: numpy leaves a damaged file open.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as held:
            values, text = held["values"], held["key"].tobytes().decode()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("%s is damaged (%s); its statistics are measured anew", file, error)
        return None
    same = text == key and values.shape == shape and values.dtype == np.float64
    return values if same else None
