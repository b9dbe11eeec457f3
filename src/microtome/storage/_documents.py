"""The JSON documents of a Zarr hierarchy: what groups and arrays say about themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from microtome.errors import FormatError, NotFoundError, StorageError

from ._files import replace_file, storage_errors
from ._remote import Place

__all__ = [
    "Hierarchy",
    "array_metadata",
    "forget_absent",
    "group_document",
    "is_group",
    "keep_absent",
    "keep_copies",
    "kept_copies",
    "read_document",
    "read_group",
    "read_hierarchy",
    "write_document",
    "write_group",
]

OURS = "microtome"
"""Name of the attribute in which we keep what no format has a place for."""

_ARRAYS = "arrays"
_ABSENT = "absent_shards"
_MODERN, _OLD_GROUP, _OLD_ARRAY, _OLD_ATTRIBUTES = "zarr.json", ".zgroup", ".zarray", ".zattrs"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """What one document says about a group and about the arrays in it.

    Parameters
    ----------
    attributes
        Attributes of the group.
    arrays
        Copies of the metadata documents of arrays, by their paths in the group: those that the
        group's own document holds, ours or as zarr-python consolidates them; maybe not all.
    absent
        Which files of arrays are not there because they were never written, by paths, as an
        `Inventory` takes them; maybe not of all arrays.
    """

    attributes: dict[str, Any]
    arrays: dict[str, dict[str, Any]]
    absent: dict[str, Any] = field(default_factory=dict[str, Any])


def is_group(path: str | os.PathLike[str]) -> bool:
    """Whether a directory is a Zarr group, v2 or v3; a damaged one is, until it is opened."""
    directory = Path(path)
    if (directory / "zarr.json").is_file():
        try:
            return read_document(directory / "zarr.json").get("node_type") != "array"
        except FormatError:
            return True
    return (directory / ".zgroup").is_file()


def read_group(path: str | os.PathLike[str] | Place) -> dict[str, Any]:
    """Return the attributes of a Zarr group, v2 or v3; parameters and errors as `read_hierarchy`."""
    return read_hierarchy(path).attributes


def read_hierarchy(path: str | os.PathLike[str] | Place) -> Hierarchy:
    """Read a Zarr group, v2 or v3, and what its document knows of its arrays: one read for v3.

    Parameters
    ----------
    path
        Directory of the group, or its place in a store.

    Raises
    ------
    NotFoundError
        If there is no group at the path.
    FormatError
        If its metadata is not JSON, or is an array's.
    StorageError
        If it may not be read, or the store cannot be reached.
    """
    place = path if isinstance(path, Place) else Path(path)
    document = _read(place, _MODERN)
    if document is not None:
        if document.get("node_type") != "group":
            msg = f"{place} is a Zarr {document.get('node_type')}, not a group"
            raise FormatError(msg)
        arrays = _copies(document)
        attributes = _attributes(document.get("attributes", {}), place)
        ours = attributes.get(OURS)
        if isinstance(ours, dict):
            # Nobody's but ours, and larger than all the rest: thousands of images are open at once.
            cast("dict[str, Any]", ours).pop(_ARRAYS, None)
        return Hierarchy(attributes, arrays, _taken(ours))
    if _holds(place, _OLD_GROUP):
        return Hierarchy(_attributes(_read(place, _OLD_ATTRIBUTES) or {}, place), {})
    if isinstance(place, Path) and not place.exists():
        msg = f"{place} does not exist"
    else:
        msg = f"{place} is no Zarr group: it has neither {_MODERN} nor {_OLD_GROUP}"
    raise NotFoundError(msg)


def array_metadata(path: str | os.PathLike[str] | Place) -> dict[str, Any]:
    """Return the metadata document of an array.

    Parameters
    ----------
    path
        Directory of the array, or its place in a store.

    Raises
    ------
    NotFoundError
        If there is none.
    FormatError
        If it is not a JSON object.
    """
    place = path if isinstance(path, Place) else Path(path)
    for name in (_MODERN, _OLD_ARRAY):
        document = _read(place, name)
        if document is not None:
            return document
    msg = f"{place} holds no Zarr array (neither {_MODERN} nor {_OLD_ARRAY})"
    raise NotFoundError(msg)


def write_group(path: str | os.PathLike[str], attributes: Mapping[str, Any]) -> None:
    """Write a Zarr v3 group's metadata in one step, replacing what was there.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    with storage_errors(Path(path)):
        Path(path).mkdir(parents=True, exist_ok=True)
        with replace_file(Path(path) / "zarr.json") as temporary:
            write_document(temporary, group_document(attributes))


def group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata document of a Zarr v3 group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def keep_copies(attributes: dict[str, Any], arrays: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep copies of the arrays' documents in a group's attributes, so that one read opens all.

    Not in the form of zarr-python's consolidated metadata: whoever reads those takes them for all
    that is in the group, and does not see labels that another program has added to an image.

    Parameters
    ----------
    attributes
        Attributes of the group, changed in place.
    arrays
        Metadata documents of its arrays, by their paths.
    """
    attributes.setdefault(OURS, {})[_ARRAYS] = {path: dict(arrays[path]) for path in arrays}


def kept_copies(attributes: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """Return the copies that `keep_copies` made, None where there are none."""
    ours = attributes.get(OURS)
    found = cast("dict[str, Any]", ours).get(_ARRAYS) if isinstance(ours, dict) else None
    return cast("dict[str, dict[str, Any]]", found) if isinstance(found, dict) else None


def keep_absent(attributes: dict[str, Any], absent: Mapping[str, Any]) -> None:
    """Keep in a group's attributes which files of its arrays are not there, by paths."""
    attributes.setdefault(OURS, {})[_ABSENT] = dict(absent)


def forget_absent(attributes: Mapping[str, Any], paths: Iterable[str]) -> None:
    """Say nothing more of the files of some arrays."""
    ours = attributes.get(OURS)
    absent: object = cast("dict[str, Any]", ours).get(_ABSENT) if isinstance(ours, dict) else None
    if isinstance(absent, dict):
        for path in paths:
            cast("dict[str, Any]", absent).pop(path, None)


def _taken(ours: object) -> dict[str, Any]:
    """Take from what is ours of a group's attributes which files are not there."""
    absent: object = (
        cast("dict[str, Any]", ours).pop(_ABSENT, None) if isinstance(ours, dict) else {}
    )
    return cast("dict[str, Any]", absent) if isinstance(absent, dict) else {}


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON object, down to the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=2, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def read_document(path: Path) -> dict[str, Any]:
    """Return a JSON object.

    Raises
    ------
    FormatError
        If the file is not JSON, or holds something else.
    StorageError
        If it may not be read.
    """
    try:
        return _parsed(path.read_bytes(), path)
    except PermissionError as error:
        msg = f"not allowed to read {path}: {error.strerror}"
        raise StorageError(msg) from error


def _read(place: Path | Place, name: str) -> dict[str, Any] | None:
    """Return a JSON object, None where there is none."""
    if isinstance(place, Place):
        data = place.read(name)
        return None if data is None else _parsed(data, f"{place}/{name}")
    try:
        return read_document(place / name)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _holds(place: Path | Place, name: str) -> bool:
    return place.read(name) is not None if isinstance(place, Place) else (place / name).is_file()


def _parsed(data: bytes, where: object) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # ValueError is bad UTF-8, bad JSON, and a number of more digits than Python will read.
        msg = f"{where} is not JSON: {error}"
        raise FormatError(msg) from error
    if not isinstance(document, dict):
        msg = f"{where} must hold a JSON object, got {type(document).__name__}"
        raise FormatError(msg)
    return cast("dict[str, Any]", document)


def _attributes(found: object, place: Path | Place) -> dict[str, Any]:
    if not isinstance(found, dict):
        msg = f"{place}: group attributes must be an object, got {type(found).__name__}"
        raise FormatError(msg)
    return cast("dict[str, Any]", found)


def _copies(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arrays' documents in a group's; what is in another form is not there."""
    attributes = document.get("attributes")
    nodes: object = kept_copies(attributes) if isinstance(attributes, dict) else None
    block = document.get("consolidated_metadata")
    if nodes is None and isinstance(block, dict):
        nodes = cast("dict[str, Any]", block).get("metadata")
    if not isinstance(nodes, dict):
        return {}
    return {
        path: node
        for path, node in cast("dict[str, Any]", nodes).items()
        if isinstance(node, dict) and node.get("node_type") == "array"
    }
