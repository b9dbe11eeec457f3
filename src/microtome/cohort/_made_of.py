"""What a derived thing was made of: identities of images and masks, cheap to read and kept beside it.

The identity of an image is what it was ingested from and how, so that a copy of a cohort has the
same ones, and ingesting the same file again changes none. Of an image that somebody else wrote
nothing is known without reading all of it: its identity is None, and nothing made of it is ever
said to be stale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Resolution
from microtome.image import MultiscaleImage

from ._images import is_there, served_from
from ._layout import CohortLayout
from ._merge import listed
from ._modality import Modality

__all__ = [
    "Inputs",
    "array_identity",
    "changed",
    "identity_in",
    "identity_of_names",
    "image_identity",
    "image_of_tissue",
    "mask_identity",
    "mask_of_tissue",
    "note_inputs",
    "noted_inputs",
    "stale_among",
    "told_change",
]

Inputs = Mapping[str, Any]
"""Of one thing: `image` and `mask`, identities or None where they are not known, and others."""

_KEY = b"microtome.made_of"
_DIGITS = 16
# How the bytes lie on disk is nothing that pixels depend on.
_NOT_PIXELS = {"codec"}


def image_identity(path: Path) -> str | None:
    """Return what tells an image in a cohort from any other; None where it does not say.

    Raises
    ------
    NotFoundError, FormatError
        If it does not open.
    """
    return identity_in(MultiscaleImage.open(path).metadata)


def identity_in(metadata: Mapping[str, Any]) -> str | None:
    """Return the identity of the image that has this metadata."""
    ours = _mapping(metadata.get("microtome"))
    # A packed image has the pixels of the one that it was packed from.
    record = _mapping(ours.get("packed_from")) or _mapping(ours.get("ingest"))
    if "sha256" not in record:
        return None
    kept = {name: value for name, value in record.items() if name not in _NOT_PIXELS}
    return _digest(json.dumps(kept, sort_keys=True).encode())


def image_of_tissue(
    layout: CohortLayout, modality: Modality, resolution: Resolution, tissue_id: str
) -> str | None:
    """Return the identity of the image that a tissue is read from at a resolution."""
    stored = served_from(layout, modality, resolution, tissue_id)
    if stored is None:
        return None
    return image_identity(layout.image(modality, stored, tissue_id))


def mask_identity(path: Path) -> str | None:
    """Return what tells a mask from any other: of its labels, not of when they were written."""
    if path.suffix == ".npz":
        return _digest(path.read_bytes())
    ours = _mapping(MultiscaleImage.open(path).metadata.get("microtome"))
    for name in ("mask", "cell_mask"):
        found = _mapping(ours.get(name)).get("identity")
        if isinstance(found, str):
            return found
    return None


def mask_of_tissue(layout: CohortLayout, resolution: Resolution, tissue_id: str) -> str | None:
    """Return the identity of the tissue mask that is read at a resolution."""
    finer = [r for r in layout.resolutions() if r != resolution and r.serves(resolution)]
    for each in (resolution, *reversed(finer)):
        path = layout.tissue_mask(each, tissue_id)
        if is_there(path):
            return mask_identity(path)
    return None


def array_identity(array: NDArray[Any], *more: object) -> str:
    """Return what tells an array, and whatever else counts, from any other."""
    held = np.ascontiguousarray(array)
    told = json.dumps([held.dtype.str, held.shape, [str(each) for each in more]])
    return _digest(told.encode(), held.reshape(-1).view(np.uint8).data)


def identity_of_names(names: Sequence[str]) -> str:
    """Return what tells names, in any order, from any others."""
    return _digest(json.dumps(sorted(names)).encode())


def changed(before: Inputs, now: Inputs) -> list[str]:
    """Return the names of inputs that are known to be others than they were."""
    return [
        name
        for name, was in before.items()
        if was is not None and now.get(name) is not None and now[name] != was
    ]


def stale_among(before: Mapping[str, Inputs], now: Mapping[str, Inputs]) -> dict[str, list[str]]:
    """Return the tissues of which something changed, and what."""
    both = {tissue: changed(before[tissue], now[tissue]) for tissue in before if tissue in now}
    return {tissue: names for tissue, names in both.items() if names}


def told_change(stale: Mapping[str, Sequence[str]]) -> str:
    """Return in words what changed of which tissues: ``another image (a, b), another mask (c)``."""
    by_name: dict[str, list[str]] = {}
    for tissue, names in stale.items():
        for name in names:
            by_name.setdefault(name, []).append(tissue)
    return " and ".join(
        f"{_WORDS.get(name, f'another {name} image')} of {listed(tissues)}"
        for name, tissues in by_name.items()
    )


_WORDS = {
    "image": "another image",
    "mask": "another tissue mask",
    "areas": "other annotations",
    "cell_mask": "another cell mask",
    "cells": "other cells",
    "tiles": "other tiles",
    "channels": "other channels",
    "statistics": "other statistics",
}


def note_inputs(
    metadata: Mapping[bytes, bytes] | None, inputs: Mapping[str, Inputs]
) -> dict[bytes, bytes]:
    """Return the metadata of a table's schema with what each tissue's rows were made of."""
    text = json.dumps(inputs, separators=(",", ":"))
    return {**(metadata or {}), _KEY: text.encode()}


def noted_inputs(metadata: Mapping[bytes, bytes] | None) -> dict[str, Inputs]:
    """Return what each tissue's rows were made of; nothing where a table does not say."""
    try:
        found = json.loads((metadata or {}).get(_KEY, b"{}"))
    except (ValueError, RecursionError):
        return {}
    return {tissue: _mapping(each) for tissue, each in _mapping(found).items()}


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _digest(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:_DIGITS]
