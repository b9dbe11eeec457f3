"""A prediction that is there already: of which settings, and what is told to who asks again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from microtome.errors import ExistsError, FormatError, NotFoundError
from microtome.image import MultiscaleImage
from microtome.storage import Place, read_group

from ._resuming import differences

__all__ = ["ADVICE", "as_stored", "is_of", "record_at", "refuse_finished"]

ADVICE = "; choose another place, or replace it with --overwrite (overwrite=True)"
"""What the refusal of a prediction with other settings ends with."""

_NAMES = "channel_names"
# What may be replaced: its name, which settings are others with it, and what must be the same.
_REPLACED = {
    "image": ("an image", {"source", "pixels", "image", "files"}, ("modality",)),
    "statistics": ("statistics", {"preprocess_state"}, ("standardization", "channels")),
}


def as_stored(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they come back from the attributes of an image."""
    return json.loads(json.dumps(settings))


def is_of(out: Path | Place, settings: Mapping[str, Any]) -> bool:
    """Whether there is a prediction of the same image with the same settings.

    Among them may be `channel_names`, which no pixel depends on, and which the image itself tells.
    """
    found = _settings_of(out, settings)
    return found is not None and not differences(found, settings)


def refuse_finished(
    out: Path | Place, settings: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
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
    found = _settings_of(out, settings)
    if found is None:
        return
    other = differences(found, settings)
    if not other:
        msg = (
            f"{out} exists already: it is this prediction, finished; open it, choose another place, or "
            "make it again with --overwrite (overwrite=True)"
        )
        raise ExistsError(msg)
    then, now = _origin(_ours(out)), _origin((metadata or {}).get("microtome"))
    replaced = [name for name in _REPLACED if _is_another(then, now, name)]
    if replaced:
        ignored = {key for name in replaced for key in _REPLACED[name][1]}
        more = differences(found, settings, ignored=ignored)
        more = f", and with other settings ({more})" if more else ""
        named = " and ".join(_REPLACED[name][0] for name in replaced)
        verb = "was" if replaced == ["image"] else "were"
        what = f"was made of {named} that {verb} replaced since{more}"
    else:
        what = f"is a finished prediction with other settings ({other})"
    msg = f"{out} exists already and {what}{ADVICE}"
    raise ExistsError(msg)


def record_at(out: Path | Place) -> dict[str, Any]:
    """Return what the image at a place says of the prediction that it is; nothing where there is none."""
    return _ours(out).get("prediction", {})


def _settings_of(out: Path | Place, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the prediction at a place was made with; None where nothing says so."""
    found: Any = record_at(out).get("settings")
    if not isinstance(found, dict):
        return None
    if _NAMES not in wanted:
        return cast("dict[str, Any]", found)
    return {**found, _NAMES: list(MultiscaleImage.open(out).channel_names or ())}


def _ours(out: Path | Place) -> dict[str, Any]:
    """Return what we have written into the image at a place; nothing where there is none."""
    if isinstance(out, Place):
        # One request, where an image would ask for more.
        try:
            found: Any = read_group(out).get("microtome", {})
        except (NotFoundError, FormatError):
            return {}
        return found if isinstance(found, dict) else {}
    if not MultiscaleImage.exists(out):
        return {}
    return MultiscaleImage.open(out).metadata.get("microtome", {})


def _origin(ours: Any) -> dict[str, Any]:
    """Return what a prediction says of the image of a cohort that it is of, where it says so."""
    found = ours.get("predicted_from") if isinstance(ours, dict) else None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _is_another(then: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    """Whether something is known to be another; of another modality or method it is no newer one."""
    known = isinstance(then.get(name), str) and isinstance(now.get(name), str)
    same = all(then.get(key) == now.get(key) for key in _REPLACED[name][2])
    return known and same and then[name] != now[name]
