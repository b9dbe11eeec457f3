"""What a prediction says of itself: what was cut how, by which model and version."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from microtome.image import MultiscaleImage
from microtome.tiling import TilePlan

__all__ = ["library_version", "record_of", "with_record"]


def record_of(
    image: MultiscaleImage, level: int, plan: TilePlan, *, blend: str, model: str | None
) -> dict[str, Any]:
    """Return what is written into a prediction."""
    return {
        "source": image.uri,
        "level": level,
        "tile_size": list(plan.tile_size),
        "overlap": list(plan.overlap),
        "blend": blend,
        "model": model,
        "version": library_version(),
    }


def with_record(metadata: Mapping[str, Any] | None, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes with the record under ``["microtome"]["prediction"]``."""
    given = dict(metadata or {})
    return {**given, "microtome": {**given.get("microtome", {}), "prediction": dict(record)}}


def library_version() -> str:
    """Return the version that is written into what we make."""
    try:
        return version("microtome")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
