"""What an export was made of: kept in its folder, and compared when it is asked for again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from microtome.cohort import identity_in
from microtome.errors import FormatError
from microtome.image import MultiscaleImage
from microtome.regions import pixels_fingerprint
from microtome.storage import replace_file
from microtome.tiling import TileTable

__all__ = [
    "IMAGE_OF",
    "cells_identity",
    "differences",
    "labels_identity",
    "picture_identity",
    "places_identity",
    "read_record",
    "write_record",
]

IMAGE_OF = "image of "
"""Begins the name of an entry of a record that is the identity of a tissue's image."""

_SHOWN = 3
_MASKS = ("cell_mask", "mask")


def picture_identity(image: MultiscaleImage) -> str | None:
    """Return what tells an image of a cohort from any other that lay in its place.

    Of one that does not say what it was ingested from these are the sizes and times of its files;
    None where it lies elsewhere, whose pixels are not fetched for this.
    """
    known = identity_in(image.metadata)
    return _by_pixels(image) if known is None else known


def labels_identity(labels: MultiscaleImage) -> str | None:
    """Return what tells a mask of a cohort from any other; as `picture_identity`."""
    ours = _mapping(labels.metadata.get("microtome"))
    for name in _MASKS:
        found = _mapping(ours.get(name)).get("identity")
        if isinstance(found, str):
            return found
    return _by_pixels(labels)


def cells_identity(cells: pa.Table | None, column: str | None) -> str | None:
    """Return what tells the values of a column of cells from any others; None where none is asked."""
    if cells is None or column is None or column not in cells.column_names:
        return None
    known = cells.select(["cell_id", column]).to_pylist()
    told = sorted(json.dumps([row["cell_id"], row[column]], default=str) for row in known)
    return _digest("\n".join(told).encode())


def places_identity(tiles: TileTable) -> str:
    """Return what tells tiles, in their order, from any others."""
    rows = tiles.rows()
    places = np.stack([rows.tile_id, rows.row, rows.col]).astype("<i8")
    names = json.dumps([list(tiles.tissue_ids), list(tiles.tile_size)]).encode()
    return _digest(names, rows.tissue.astype("<i8").tobytes(), places.tobytes())


def read_record(place: Path) -> dict[str, Any] | None:
    """Return what a folder says of what it holds; None where nothing does.

    Raises
    ------
    FormatError
        If it is damaged.
    """
    if not place.is_file():
        return None
    try:
        found: Any = json.loads(place.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{place} is damaged: {error}"
        raise FormatError(msg) from error
    return _mapping(found)


def write_record(place: Path, record: Mapping[str, Any]) -> None:
    """Say in a folder what it holds."""
    with replace_file(place) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def differences(before: Mapping[str, Any], now: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """Say in words what is another than it was; nothing where all is as it was.

    Parameters
    ----------
    before, now
        Records.
    words
        What the entries are called whose values are nothing to look at; of others these are told.
    """
    told: list[str] = []
    images: list[str] = []
    for name in [*now, *(name for name in before if name not in now)]:
        then, new = before.get(name), now.get(name)
        if then == new:
            continue
        if name.startswith(IMAGE_OF):
            images.append(name.removeprefix(IMAGE_OF))
        elif name in words:
            told.append(words[name])
        elif isinstance(then, dict) and isinstance(new, dict):
            told.append(differences(_mapping(then), _mapping(new), words))
        elif name not in before:
            told.append("images and cells, which were not noted then")
        else:
            told.append(f"{name} ({_plain(then)} then, {_plain(new)} now)")
    if images:
        more = f" and {len(images) - _SHOWN} more" if len(images) > _SHOWN else ""
        told.append(f"another image of {', '.join(images[:_SHOWN])}{more}")
    return ", ".join(dict.fromkeys(told))


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, cast("list[Any]", value)))
    return "none" if value is None else str(value)


def _by_pixels(image: MultiscaleImage) -> str | None:
    return None if "://" in image.uri else pixels_fingerprint(image)[:16]


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
