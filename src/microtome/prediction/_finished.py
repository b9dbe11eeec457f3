"""A prediction that is there already: of which settings, and what is told to who asks again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microtome.errors import ExistsError
from microtome.image import MultiscaleImage

from ._resuming import differences

__all__ = ["ADVICE", "as_stored", "is_of", "record_at", "refuse_finished"]

ADVICE = "; choose another place, or replace it with --overwrite (overwrite=True)"
"""What the refusal of a prediction with other settings ends with."""

# What is another where the image is.
_OF_THE_IMAGE = {"source", "pixels"}


def as_stored(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they come back from the attributes of an image."""
    return json.loads(json.dumps(settings))


def is_of(out: Path, settings: Mapping[str, Any]) -> bool:
    """Whether there is a prediction of the same image with the same settings."""
    found = _settings_of(out)
    return found is not None and not differences(found, settings)


def refuse_finished(
    out: Path, settings: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
) -> None:
    """Refuse a place where a finished prediction is, and say how it differs from what is asked for.

    What lies there otherwise, and is not replaced either, is not looked at.

    Parameters
    ----------
    out
        The place.
    settings
        What the one that is asked for depends on.
    metadata
        What it will say of itself: of images of a cohort, which one it is of.

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
            "make it again with --overwrite (overwrite=True)"
        )
        raise ExistsError(msg)
    then, now = _image_of(_ours(out)), _image_of((metadata or {}).get("microtome"))
    if then is not None and now is not None and then != now:
        more = differences(found, settings, ignored=_OF_THE_IMAGE)
        more = f", and with other settings ({more})" if more else ""
        what = f"was made of another image, which has been replaced since{more}"
    else:
        what = f"is a finished prediction with other settings ({other})"
    msg = f"{out} exists already and {what}{ADVICE}"
    raise ExistsError(msg)


def record_at(out: Path) -> dict[str, Any]:
    """Return what the image at a place says of the prediction that it is; nothing where there is none."""
    return _ours(out).get("prediction", {})


def _settings_of(out: Path) -> dict[str, Any] | None:
    """Return what the prediction at a place was made with; None where nothing says so."""
    found = record_at(out).get("settings")
    return found if isinstance(found, dict) else None


def _ours(out: Path) -> dict[str, Any]:
    """Return what we have written into the image at a place; nothing where there is none."""
    if not MultiscaleImage.exists(out):
        return {}
    found: Any = MultiscaleImage.open(out).metadata.get("microtome", {})
    return found


def _image_of(ours: Any) -> str | None:
    """Return the identity of the image of a cohort that a prediction is of, where it says so."""
    origin = ours.get("predicted_from") if isinstance(ours, dict) else None
    found = origin.get("image") if isinstance(origin, dict) else None
    return found if isinstance(found, str) else None
