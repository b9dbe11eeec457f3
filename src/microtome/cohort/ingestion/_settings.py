"""What a stored image depends on besides the pixels of its source, and whether one that is there does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from microtome.cohort._images import stored_type
from microtome.cohort._modality import Modality
from microtome.coordinates import Resolution
from microtome.errors import ExistsError
from microtome.image import MultiscaleImage
from microtome.storage import Codec

__all__ = ["settings_of", "taken", "verify_settings"]

# What a source is, not what somebody asked to be made of it.
_OF_SOURCE = ("sha256", "image")


def settings_of(
    image: MultiscaleImage,
    modality: Modality,
    resolution: Resolution,
    channels: list[str],
    codec: Codec,
    name: str | int | None,
) -> dict[str, Any]:
    """Return what a stored image depends on, but for the pixels of its source."""
    own = image.require_mpp()
    settings: dict[str, Any] = {
        "mpp": [own.y, own.x],
        "resolution": resolution.directory,
        "channels": channels,
        "codec": codec,
        "dtype": _stored_type(image, modality, resolution).name,
    }
    return settings if name is None else {**settings, "image": name}


def verify_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse an image that is there and was made with other settings; of its pixels nothing is asked.

    Raises
    ------
    ExistsError
        If it was.
    """
    if not MultiscaleImage.exists(path):
        return
    made = MultiscaleImage.open(path).metadata.get("microtome", {}).get("ingest") or {}
    if {**made, "sha256": ""} != {**settings, "sha256": ""}:
        raise ExistsError(taken(path, made, {**settings, "sha256": made.get("sha256")}))


def taken(path: Path, made: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Say that an image was made of something else, and of what.

    Parameters
    ----------
    path
        The image that is there.
    made, settings
        What it was made of, and what it would be made of now.
    """
    if not made:
        found = "does not say what it was made from"
    else:
        names = [name for name in {**settings, **made} if made.get(name) != settings.get(name)]
        told = [_told(name, made.get(name), settings.get(name)) for name in names]
        source = [part for name, part in zip(names, told, strict=True) if name in _OF_SOURCE]
        others = [part for name, part in zip(names, told, strict=True) if name not in _OF_SOURCE]
        parts = [f"from another source ({'; '.join(source)})"] if source else []
        parts += [f"with other settings ({'; '.join(others)})"] if others else []
        found = f"was made {' and '.join(parts)}"
    return f"{path} {found}; replace it with --overwrite (overwrite=True), or use another tissue id"


def _told(name: str, then: Any, now: Any) -> str:
    """Say how something differs, in a few words also where it is long."""
    if name == "sha256":
        return f"its bytes differ: sha256 {str(then)[:12]} then, {str(now)[:12]} now"
    if name == "channels" and isinstance(then, list) and isinstance(now, list):
        gone, new = ([c for c in a if c not in b] for a, b in ((then, now), (now, then)))
        if not gone and not new:
            return "channels: in another order"
        parts = [
            f"{', '.join(map(str, some[:3]))}{f' and {len(some) - 3} more' if some[3:] else ''} {when}"
            for some, when in ((gone, "only then"), (new, "only now"))
            if some
        ]
        return f"channels: {', '.join(parts)}"
    shown = ["none" if value is None else value for value in (then, now)]
    return f"{name}: {shown[0]} then, {shown[1]} now"


def _stored_type(
    image: MultiscaleImage, modality: Modality, resolution: Resolution
) -> np.dtype[Any]:
    """Return the type that an image is stored in.

    A mean of counts is no whole number: a marker of one count in ten pixels, rounded, is gone.
    Colours of 8 bits lose nothing that a scanner or an eye could tell.
    """
    own, (y, x) = image.require_mpp(), resolution.mpp
    same = math.isclose(own.y, y, rel_tol=1e-9) and math.isclose(own.x, x, rel_tol=1e-9)
    return image.dtype if modality.kind == "brightfield" or same else stored_type(image.dtype)
