"""A prediction that is there already: of which settings, and what is told to who asks again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microtome.errors import ExistsError
from microtome.image import MultiscaleImage

from ._resuming import differences

__all__ = ["as_stored", "is_of", "record_at", "refuse_finished"]


def as_stored(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they come back from the attributes of an image."""
    return json.loads(json.dumps(settings))


def is_of(out: Path, settings: Mapping[str, Any]) -> bool:
    """Whether there is a prediction of the same image with the same settings."""
    found = _settings_of(out)
    return found is not None and not differences(found, settings)


def refuse_finished(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a place where a finished prediction is, and say how it differs from what is asked for.

    What lies there otherwise, and is not replaced either, is not looked at.

    Raises
    ------
    ExistsError
        If there is one.
    """
    found = _settings_of(out)
    if found is None:
        return
    other = differences(found, settings)
    if not other:
        msg = (
            f"{out} exists already: it is this prediction, finished; open it, choose another place, or "
            "allow overwriting to make it again"
        )
        raise ExistsError(msg)
    msg = (
        f"{out} exists already and is a finished prediction with other settings ({other}); choose "
        "another place or allow overwriting"
    )
    raise ExistsError(msg)


def record_at(out: Path) -> dict[str, Any]:
    """Return what the image at a place says of the prediction that it is; nothing where there is none."""
    if not MultiscaleImage.exists(out):
        return {}
    ours: Any = MultiscaleImage.open(out).metadata.get("microtome", {})
    return ours.get("prediction", {})


def _settings_of(out: Path) -> dict[str, Any] | None:
    """Return what the prediction at a place was made with; None where nothing says so."""
    found = record_at(out).get("settings")
    return found if isinstance(found, dict) else None
