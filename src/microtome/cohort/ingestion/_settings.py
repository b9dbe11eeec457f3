"""What a stored image depends on besides the pixels of its source, and whether one that is there does."""

from __future__ import annotations

import math
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
        raise ExistsError(taken(path))


def taken(path: Path) -> str:
    """Say that an image was made of something else."""
    return (
        f"{path} was made from another source or with other settings; replace it with "
        "--overwrite (overwrite=True), or use another tissue id"
    )


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
