"""The JSON documents of a Zarr hierarchy: what groups and arrays say about themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microtome.errors import FormatError, NotFoundError, StorageError

from ._files import replace_file, storage_errors
from ._remote import Place, read_remote_group

__all__ = ["is_group", "read_document", "read_group", "write_document", "write_group"]


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
    """Return the attributes of a Zarr group, v2 or v3.

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
        If it may not be read.
    """
    if isinstance(path, Place):
        return read_remote_group(path)
    directory = Path(path)
    if not directory.exists():
        msg = f"{directory} does not exist"
        raise NotFoundError(msg)
    modern, old = directory / "zarr.json", directory / ".zgroup"
    if modern.is_file():
        document = read_document(modern)
        if document.get("node_type") != "group":
            msg = f"{directory} is a Zarr {document.get('node_type')}, not a group"
            raise FormatError(msg)
        attributes = document.get("attributes", {})
    elif old.is_file():
        attributes = (
            read_document(directory / ".zattrs") if (directory / ".zattrs").is_file() else {}
        )
    else:
        msg = f"{directory} is no Zarr group: it has neither zarr.json nor .zgroup"
        raise NotFoundError(msg)
    if not isinstance(attributes, dict):
        msg = f"{directory}: group attributes must be an object, got {type(attributes).__name__}"
        raise FormatError(msg)
    return attributes


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
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        # ValueError is bad UTF-8, bad JSON, and a number of more digits than Python will read.
        msg = f"{path} is not JSON: {error}"
        raise FormatError(msg) from error
    except PermissionError as error:
        msg = f"not allowed to read {path}: {error.strerror}"
        raise StorageError(msg) from error
    if not isinstance(document, dict):
        msg = f"{path} must hold a JSON object, got {type(document).__name__}"
        raise FormatError(msg)
    return document
