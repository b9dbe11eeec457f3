"""Stores that are not directories: S3, HTTP, a zip file, and memory; read, never written.

A `Place` stands where a path stands. Reads that fail on the way are tried again with growing
pauses and end in an error that names the key.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast
from urllib.parse import urlsplit

import tensorstore as ts

from microtome.errors import FormatError, InvalidInputError, NotFoundError

from ._engine import ENGINE, engine_errors

__all__ = ["Place", "StorageOptions", "place_of", "read_remote_group"]

_SCHEMES = ("file", "memory", "s3", "http", "https")
_ZIP = (".zip", ".ozx")


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How remote stores are reached; one value may serve any number of images.

    Parameters
    ----------
    endpoint
        Address of an S3-compatible server; Amazon's by default.
    region
        Region of the bucket; the server's or the environment's by default.
    credentials
        ``"environment"`` (variables, shared files, instance roles, as Amazon's own tools do it)
        or ``"anonymous"`` for public buckets.
    """

    endpoint: str | None = None
    region: str | None = None
    credentials: Literal["environment", "anonymous"] = "environment"

    def __post_init__(self) -> None:
        if self.credentials not in {"environment", "anonymous"}:
            msg = f"credentials must be 'environment' or 'anonymous', got {self.credentials!r}"
            raise InvalidInputError(msg)


@dataclass(frozen=True, slots=True)
class Place:
    """A directory in a store.

    Parameters
    ----------
    uri
        What the user typed, with the parts that were added by ``/``.
    store
        The engine's description of the store, as JSON text: a value that can be compared and sent
        to another process.
    """

    uri: str
    store: str

    def __truediv__(self, name: str) -> Self:
        spec = self.spec
        spec["path"] = f"{spec.get('path', '')}{name.strip('/')}/"
        return type(self)(f"{self.uri.rstrip('/')}/{name}", json.dumps(spec))

    @property
    def spec(self) -> dict[str, Any]:
        """The engine's description of the store."""
        return cast("dict[str, Any]", json.loads(self.store))

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a key, None where there is none.

        Raises
        ------
        StorageError
            If the store cannot be reached or refuses.
        """
        with engine_errors(f"{self.uri}/{name}"):
            store = ts.KvStore.open(self.spec, context=ENGINE.context(self.uri)).result()
            found = store.read(name).result()
        return found.value if found.state == "value" else None

    def __str__(self) -> str:
        return self.uri


def place_of(
    uri: str | os.PathLike[str] | Place, options: StorageOptions | None = None
) -> Path | Place:
    """Return where something is: a path, or a place in a store.

    Parameters
    ----------
    uri
        A path, ``file://``, ``memory://``, ``s3://bucket/key``, ``http(s)://...``, or the path of a
        zip file (``.ozx``, RFC-9) that holds an image at its root.
    options
        How remote stores are reached.

    Raises
    ------
    InvalidInputError
        If the scheme is unknown, or an S3 address names no bucket.
    """
    if isinstance(uri, Place):
        return uri
    text = os.fspath(uri)
    scheme, _, rest = text.partition("://")
    if not rest or len(scheme) == 1:  # one letter is a drive
        return _local(Path(text))
    if scheme not in _SCHEMES:
        msg = f"{text}: stores of {scheme!r} cannot be read; {', '.join(_SCHEMES)} can"
        raise InvalidInputError(msg)
    if scheme == "file":
        return _local(Path(rest))
    if scheme == "memory":
        return Place(text, json.dumps({"driver": "memory", "path": f"{rest.strip('/')}/"}))
    chosen = options or StorageOptions()
    if scheme == "s3":
        return Place(text, json.dumps(_s3(text, chosen)))
    base = text if text.endswith("/") else f"{text}/"
    return Place(text, json.dumps({"driver": "http", "base_url": base, "path": ""}))


def read_remote_group(place: Place) -> dict[str, Any]:
    """Return the attributes of a Zarr group in a store; errors as `read_group`."""
    modern = _document(place, "zarr.json")
    if modern is not None:
        if modern.get("node_type") != "group":
            msg = f"{place} is a Zarr {modern.get('node_type')}, not a group"
            raise FormatError(msg)
        attributes = modern.get("attributes", {})
    elif _document(place, ".zgroup") is not None:
        attributes = _document(place, ".zattrs") or {}
    else:
        msg = f"{place} is no Zarr group: it has neither zarr.json nor .zgroup"
        raise NotFoundError(msg)
    if not isinstance(attributes, dict):
        msg = f"{place}: group attributes must be an object, got {type(attributes).__name__}"
        raise FormatError(msg)
    return cast("dict[str, Any]", attributes)


def _local(path: Path) -> Path | Place:
    if path.suffix in _ZIP and path.is_file():
        base = {"driver": "file", "path": str(path.resolve())}
        return Place(str(path), json.dumps({"driver": "zip", "base": base, "path": ""}))
    return path


def _s3(text: str, options: StorageOptions) -> dict[str, Any]:
    parts = urlsplit(text)
    if not parts.netloc:
        msg = f"{text}: an S3 address is s3://bucket/key"
        raise InvalidInputError(msg)
    key = parts.path.strip("/")
    spec: dict[str, Any] = {
        "driver": "s3",
        "bucket": parts.netloc,
        "path": f"{key}/" if key else "",
    }
    if options.endpoint is not None:
        spec["endpoint"] = options.endpoint
    if options.region is not None:
        spec["aws_region"] = options.region
    if options.credentials == "anonymous":
        spec["aws_credentials"] = {"type": "anonymous"}
    return spec


def _document(place: Place, name: str) -> dict[str, Any] | None:
    data = place.read(name)
    if data is None:
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        msg = f"{place}/{name} is not JSON: {error}"
        raise FormatError(msg) from error
    if not isinstance(document, dict):
        msg = f"{place}/{name} must hold a JSON object, got {type(document).__name__}"
        raise FormatError(msg)
    return cast("dict[str, Any]", document)
