"""What all runs share that a killed one may leave something to: one at a time, and the same settings."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from numpy.typing import NDArray

from microtome.cohort import identity_in
from microtome.errors import BusyError, ExistsError
from microtome.image import Channels, MultiscaleImage, channel_indices
from microtome.storage import storage_errors
from microtome.tiling import TilePlan

from ._fingerprint import (
    array_fingerprint,
    files_fingerprint,
    model_fingerprint,
    sees_batches,
    source_fingerprint,
)
from ._model import Preprocess, model_name

__all__ = ["Claim", "differences", "settings_of", "verify_settings"]


_BATCH_SIZE = "batch_size"
# Which image it is, by what it was ingested from, and the names and sizes of its files.
_IMAGE, _FILES = "image", "files"
_CHECKSUM = re.compile("[0-9a-f]{8,}")


class Claim:
    """A place that one process predicts to; its lock file is gone when it is given up.

    Parameters
    ----------
    out
        Where the result will be.
    path
        What a killed run leaves there.
    told
        What the result is called in messages; by default by its path.

    Raises
    ------
    BusyError
        If another process is at work on the same result.
    StorageError
        If the disk refuses.
    """

    def __init__(self, out: Path, path: Path, *, told: str | None = None) -> None:
        with storage_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            # Images are predicted by threads, too, and closed by another one after an error.
            self._lock = FileLock(path.with_name(f"{path.name}.lock"), thread_local=False)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                msg = f"another process is predicting {told or out}; wait for it, or choose another place"
                raise BusyError(msg) from error

    def release(self) -> None:
        """Give it up."""
        # Removed while it is held: who waits for it sees that the file is gone, and makes another.
        with contextlib.suppress(OSError):
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


def settings_of(  # noqa: PLR0913 - all that a run depends on
    image: MultiscaleImage,
    level: int,
    channels: Channels | None,
    plan: TilePlan,
    *,
    batch_size: int,
    model: Any,
    preprocess: Preprocess | None,
    postprocess: Callable[[Any], Any] | None,
    masks: NDArray[Any] | None,
) -> dict[str, Any]:
    """Return what must be the same for a run to be gone on with, as JSON holds it."""
    functions = {"preprocess": preprocess, "postprocess": postprocess}
    found: dict[str, Any] = {
        "source": image.uri,
        "pixels": source_fingerprint(image, level),
        **_identity(image, level),
        "level": level,
        "channels": channel_indices(channels, image.channel_names, image.nchannels),
        "tile_size": list(plan.tile_size),
        "overlap": list(plan.overlap),
        "model": model_name(model),
        "model_state": model_fingerprint(model),
        **{name: None if each is None else model_name(each) for name, each in functions.items()},
        "mask": array_fingerprint(masks),
    }
    # A normalization is called like any other of its kind: its numbers tell it apart.
    found |= {
        f"{name}_state": model_fingerprint(each)
        for name, each in functions.items()
        if each is not None
    }
    if any(map(sees_batches, (model, *functions.values()))):
        found[_BATCH_SIZE] = batch_size
    return found


def verify_settings(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with a run of other settings.

    Raises
    ------
    ExistsError
        If one of them differs; the message says which, and how.
    """
    other = differences(found, wanted)
    if other:
        msg = (
            f"a run with other settings was left at {path} ({other}); go on with the same "
            "settings, or start over with --start-over (resume=False)"
        )
        raise ExistsError(msg)


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], *, ignored: Collection[str] = ()
) -> str:
    """Say in which settings, but for some, two runs differ; nothing where they do not."""
    # Noted always, formerly; where it is not, the result does not depend on it.
    keys = wanted.keys() | (found.keys() - {_BATCH_SIZE})
    changed = {key for key in keys if found.get(key) != wanted.get(key)}
    known = None not in (found.get(_IMAGE), wanted.get(_IMAGE))
    if not known or _IMAGE not in changed:
        changed.discard(_IMAGE)
    if (
        known
        and _IMAGE not in changed
        and (_FILES not in changed or _unknown(_FILES, found, wanted))
    ):
        # It was moved or copied: where it lies and when it was written is nothing that pixels depend on.
        changed -= {"source", "pixels"}
    changed.discard(_FILES)
    if "source" in changed:
        changed -= {"pixels", _IMAGE}  # of another file
    elif _IMAGE in changed:
        changed.discard("pixels")
    # Of another function nobody wants to know how its numbers differ.
    other = sorted(changed - {f"{key}_state" for key in changed} - set(ignored))
    return "; ".join(_told(key, found.get(key), wanted.get(key)) for key in other)


def _unknown(key: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return None in (found.get(key), wanted.get(key))


def _identity(image: MultiscaleImage, level: int) -> dict[str, Any]:
    """Return what tells an image from others wherever it lies; nothing of one that does not say."""
    identity = identity_in(image.metadata)
    return {} if identity is None else {_IMAGE: identity, _FILES: files_fingerprint(image, level)}


def _told(key: str, then: Any, now: Any) -> str:
    """Say how one setting differs; of checksums only that they do, which nobody can read."""
    if all(isinstance(value, str) and _CHECKSUM.fullmatch(value) for value in (then, now)):
        if key in {"pixels", _IMAGE}:
            return "the image has changed since, or its files were written anew"
        what = key.removesuffix("_state")
        return f"{what}: other weights, numbers or code" if what != key else f"{what}: another now"
    return f"{key}: {then!r} then, {now!r} now"
