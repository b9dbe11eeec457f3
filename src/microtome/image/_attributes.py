"""The attributes of an image's group, changed when its levels change.

An image that is there may have been written by another program: what is not understood stays as it
is, and a new level is placed relative to the first, in whatever units and under whatever common
transforms that one is given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from microtome.errors import InvalidInputError
from microtome.storage import OURS

from ._ngff import read_metadata

__all__ = [
    "OURS",
    "RESERVED",
    "as_json",
    "insert_level",
    "level_keys",
    "remove_levels",
    "set_windows",
]

# What the format and we keep in the attributes; the rest is the user's.
RESERVED = frozenset({"ome", OURS, "multiscales", "omero", "image-label"})


def level_keys(attributes: dict[str, Any], count: int) -> list[str]:
    """Return the names of the levels; OME-NGFF has none, so they are among our attributes.

    Parameters
    ----------
    attributes
        Attributes of the group.
    count
        Number of levels.
    """
    ours = attributes.get(OURS)
    keys = cast("dict[str, Any]", ours).get("level_keys") if isinstance(ours, dict) else None
    if isinstance(keys, list):
        names = [str(key) for key in cast("list[object]", keys)]
        if len(names) == count == len(set(names)):
            return names
    # Written by somebody else, or edited.
    return [f"level{i}" for i in range(count)]


def insert_level(
    attributes: dict[str, Any], index: int, *, key: str, path: str, factors: Sequence[float]
) -> None:
    """Name one more level in the attributes, in place.

    Parameters
    ----------
    attributes
        Attributes of the group.
    index
        Its number among the levels, 1 or more.
    key
        Its name.
    path
        Where its array lies in the group.
    factors
        Pixels of the first level that one of its pixels covers, an entry an axis of the array.
    """
    datasets = _datasets(attributes)
    keys = level_keys(attributes, len(datasets))
    scale, translation = _stored_transform(attributes)
    datasets.insert(
        index,
        {
            "path": path,
            "coordinateTransformations": [
                {"type": "scale", "scale": [s * f for s, f in zip(scale, factors, strict=True)]},
                {
                    # The centre of f pixels lies (f - 1) / 2 pixels past that of the first.
                    "type": "translation",
                    "translation": [
                        t + s * (f - 1) / 2
                        for t, s, f in zip(translation, scale, factors, strict=True)
                    ],
                },
            ],
        },
    )
    keys.insert(index, key)
    _set_keys(attributes, keys)


def remove_levels(attributes: dict[str, Any], paths: Sequence[str]) -> None:
    """Name levels no more, in place."""
    datasets = _datasets(attributes)
    keys = level_keys(attributes, len(datasets))
    kept = [(k, d) for k, d in zip(keys, datasets, strict=True) if d["path"] not in paths]
    datasets[:] = [dataset for _, dataset in kept]
    _set_keys(attributes, [key for key, _ in kept])


def set_windows(attributes: dict[str, Any], windows: Sequence[tuple[float, float]]) -> None:
    """State the display range of each channel, in place."""
    channels = attributes["ome"]["omero"]["channels"]
    for channel, (low, high) in zip(channels, windows, strict=True):
        channel["window"] = {"min": low, "max": high, "start": low, "end": high}


def as_json(value: object, what: str) -> Any:
    """Return a value as it will be read back from JSON.

    Raises
    ------
    InvalidInputError
        If it is no JSON, or NaN or infinite.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"{what} must be JSON: {error}"
        raise InvalidInputError(msg) from error


def _datasets(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return attributes["ome"]["multiscales"][0]["datasets"]


def _set_keys(attributes: dict[str, Any], keys: list[str]) -> None:
    attributes.setdefault(OURS, {})["level_keys"] = keys


def _stored_transform(attributes: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return scale and translation of the first level as they are stored."""
    # Alone and without units: neither is what the file says, so both stay out of what is added.
    multiscale = attributes["ome"]["multiscales"][0]
    bare = {
        "axes": [{k: v for k, v in axis.items() if k != "unit"} for axis in multiscale["axes"]],
        "datasets": multiscale["datasets"][:1],
    }
    ome = {"version": "0.5", "multiscales": [bare]}
    (entry,) = read_metadata({"ome": ome}, where="image").datasets
    return entry.scale, entry.translation
