"""Statistics of filters on disk: found again for the same pixels, places and question."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.regions import pixels_fingerprint
from microtome.storage import replace_file

from ._measuring import Measurement, Places

__all__ = ["Kept", "kept_statistics"]

_log = logging.getLogger(__name__)

# Another number where a statistic is computed in another way.
_VERSION = 1


@dataclass(slots=True)
class Kept:
    """Statistics of places, (n, statistics); None where they are still to be measured."""

    values: NDArray[np.float64] | None = None


@contextmanager
def kept_statistics(
    cache: str | os.PathLike[str] | None, places: Places, about: Measurement
) -> Generator[Kept]:
    """Give what is kept; what the block puts there is kept when it ends without an error.

    Parameters
    ----------
    cache
        The folder, or None to keep nothing.
    places, about
        What is measured.
    """
    if cache is None:
        yield Kept()
        return
    key = _key(places, about)
    file = Path(cache) / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    found = Kept(_read(file, key, (len(places), len(about.patch_filter.names))))
    known = found.values is not None
    yield found
    if not known and found.values is not None:
        with replace_file(file) as path, path.open("wb") as out:
            np.savez(out, key=np.frombuffer(key.encode(), np.uint8), values=found.values)


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
