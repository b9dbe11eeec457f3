"""Zarr directories that hold several images: plates, bioformats2raw, SpatialData, labels of an image."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from microtome.errors import FormatError, NotFoundError
from microtome.storage import is_group, is_inside, read_group

__all__ = ["WHOLE", "contained_images", "is_spatialdata", "zarr_images"]

WHOLE = "."
"""Name of an image that is the directory itself, beside those of its labels."""

_SERIES = "bioformats2raw.layout"
_SPATIALDATA = "spatialdata_attrs"


def zarr_images(path: Path) -> tuple[str, ...]:
    """Return the paths of the images in a Zarr directory.

    Of an image: ``"."``, and ``"labels/NAME"`` for its labels. Of a plate: ``"A/1/0"``, row, column
    and field, of a well of one ``"0"``, its fields. Of what bioformats2raw writes: ``"0"``, ``"1"``... Of SpatialData: ``"images/NAME"``,
    ``"labels/NAME"``.

    Raises
    ------
    FormatError
        If there are none, or the metadata are damaged or lead outside.
    """
    attributes = _attributes(path)
    if attributes.get("multiscales"):
        return (WHOLE, *_labels(path))
    found = contained_images(path)
    if not found:
        msg = f"{path} is a Zarr group but no OME-Zarr image, and holds none"
        raise FormatError(msg)
    return found


def contained_images(path: Path) -> tuple[str, ...]:
    """Return the paths of the images in a Zarr directory that is none itself; () if it holds none.

    Raises
    ------
    FormatError
        If the metadata are damaged or lead outside.
    """
    try:
        attributes = _attributes(path)
        if "plate" in attributes:
            found = _fields(path, attributes["plate"])
        elif "well" in attributes:
            found = [str(field["path"]) for field in attributes["well"]["images"]]
        elif _SERIES in attributes:
            found = _series(path)
        elif _SPATIALDATA in attributes:
            found = [*_groups(path, "images"), *_groups(path, "labels")]
        else:
            return ()
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"{path}: its metadata are incomplete ({type(error).__name__}: {error})"
        raise FormatError(msg) from error
    outside = [name for name in found if not is_inside(name)]
    if outside:
        msg = f"{path}: images {outside[:5]} do not lie in it"
        raise FormatError(msg)
    return tuple(found)


def is_spatialdata(attributes: Mapping[str, Any]) -> bool:
    """Whether a group is an element of SpatialData, whose transforms are not those of OME-Zarr."""
    return _SPATIALDATA in attributes and "ome" in attributes


def _fields(path: Path, plate: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for well in plate["wells"]:
        place = str(well["path"])
        if not is_inside(place):
            found.append(place)
            continue
        images = _attributes(path / place)["well"]["images"]
        found += [f"{place}/{image['path']}" for image in images]
    return found


def _series(path: Path) -> list[str]:
    with contextlib.suppress(NotFoundError):
        named = _attributes(path / "OME").get("series")
        if named:
            return [str(name) for name in cast("Sequence[object]", named)]
    numbers = sorted(int(p.name) for p in path.iterdir() if p.name.isdecimal() and is_group(p))
    return [str(number) for number in numbers]


def _labels(path: Path) -> list[str]:
    named: object = None
    with contextlib.suppress(NotFoundError):
        named = _attributes(path / "labels").get("labels")
    if not isinstance(named, list):
        return []
    names = [f"labels/{name}" for name in cast("list[object]", named)]
    # A list that somebody wrote may name what was never there.
    return [name for name in names if is_inside(name) and is_group(path / name)]


def _groups(path: Path, folder: str) -> list[str]:
    inside = path / folder
    if not inside.is_dir():
        return []
    return sorted(f"{folder}/{child.name}" for child in inside.iterdir() if is_group(child))


def _attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a group, those of version 0.5 and later beside the others."""
    attributes = read_group(path)
    ome = attributes.get("ome")
    return {**attributes, **cast("dict[str, Any]", ome)} if isinstance(ome, dict) else attributes
