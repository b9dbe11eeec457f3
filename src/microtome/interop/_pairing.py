"""Which images and labels the tiles of each region are cut from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microtome.errors import InvalidInputError

from ._elements import Elements, flat_matrix
from ._plan import Pair

__all__ = ["Names", "paired_regions", "verify_system"]

Names = str | Sequence[str]


def paired_regions(
    elements: Elements,
    images: Mapping[str, Names],
    labels: Mapping[str, Names],
    systems: Mapping[str, str],
) -> list[list[Pair]]:
    """Return what the tiles of each region are cut from, images first, in the order of `systems`.

    Parameters
    ----------
    elements
        Where they are.
    images, labels, systems
        For each region its image or images, the labels that are cut along, and its coordinate
        system.

    Raises
    ------
    InvalidInputError
        If they do not name the same regions, an element is of another kind, is named twice, or is
        not in the system.
    """
    if set(images) != set(systems):
        msg = (
            "regions_to_images and regions_to_coordinate_systems must name the same regions, got "
            f"{sorted(images)} and {sorted(systems)}"
        )
        raise InvalidInputError(msg)
    if not images:
        msg = "regions_to_images names no region"
        raise InvalidInputError(msg)
    if not set(labels) <= set(images):
        msg = f"regions_to_labels names regions that have no image: {sorted(set(labels) - set(images))}"
        raise InvalidInputError(msg)
    found: list[list[Pair]] = []
    for region, system in systems.items():
        if elements.kind(region) == "images":
            msg = f"{region!r} is an image; regions are labels, shapes or points"
            raise InvalidInputError(msg)
        names = [(name, "images") for name in _listed(images[region])]
        if not names:
            msg = f"regions_to_images names no image for {region!r}"
            raise InvalidInputError(msg)
        names += [(name, "labels") for name in _listed(labels.get(region, ()))]
        for name, kind in names:
            # Before it is told that it comes twice: an image among labels is one.
            _verify_kind(elements, name, kind)
        if len(dict(names)) < len(names):
            msg = f"an element is named twice for {region!r}: {[name for name, _ in names]}"
            raise InvalidInputError(msg)
        found.append([_pair(elements, region, name, system) for name, _ in names])
    return found


def _listed(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _verify_kind(elements: Elements, name: str, kind: str) -> None:
    if elements.kind(name) != kind:
        what = "image" if kind == "images" else "labels"
        msg = f"{name!r} is no {what}, but one of the {elements.kind(name)} of {elements.where}"
        if kind == "images" and elements.kind(name) == "labels":
            msg += "; labels that are cut along with an image are named in regions_to_labels"
        raise InvalidInputError(msg)


def _pair(elements: Elements, region: str, name: str, system: str) -> Pair:
    picture = elements.picture(name)
    verify_system(system, picture.to_systems, name)
    what = f"the transform of {name!r} to {system!r}"
    to_pixels = np.linalg.inv(flat_matrix(picture.to_systems[system], what)).astype(np.float64)
    return Pair(region, system, picture, to_pixels)


def verify_system(system: str, known: Mapping[str, Any], name: str) -> None:
    """Refuse a coordinate system that an element is not in."""
    if system not in known:
        msg = f"{name!r} is not in coordinate system {system!r}, but in {sorted(known)}"
        raise InvalidInputError(msg)
