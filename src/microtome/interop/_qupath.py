"""Objects of QuPath: tiles, cells and annotations as its GeoJSON, out and in.

The form is QuPath's, as its versions 0.2 to 0.6 read and write it: coordinates in pixels of the
finest level from the upper left edge, `objectType`, `classification` and `measurements` among the
properties.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError, InvalidInputError, UnknownNameError
from microtome.storage import replace_file, verify_free
from microtome.tiling import class_of_feature, object_type, polygon_rings, read_features

__all__ = ["Color", "Polygons", "QuPathKind", "QuPathObject", "read_qupath", "write_qupath"]

QuPathKind = Literal["annotation", "tile", "detection", "cell"]
"""What QuPath takes an object for. Of many thousands, detections and tiles are shown much faster
than annotations; a cell may have a nucleus."""

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

Polygons = tuple[tuple[NDArray[Any], ...], ...]
"""Of each polygon the outline, then its holes: (n, 2) corners (x, y), the last the first."""

_KINDS: tuple[str, ...] = get_args(QuPathKind)
_SPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "microtome.qupath")


@dataclass(frozen=True, slots=True, eq=False)
class QuPathObject:
    """Something that has a place on a picture, as QuPath keeps it.

    Parameters
    ----------
    kind
        ``"annotation"``, ``"tile"``, ``"detection"`` or ``"cell"``.
    polygons
        Where it is: of each polygon the outline, then its holes, (n, 2) corners (x, y) in pixels of
        the finest level, the last corner the first.
    classification
        Name of its class; parts of a name are joined by ``": "``.
    color
        Colour of the class; QuPath's own choice if none is given.
    name
        What it is called.
    measurements
        Numbers by name. What is not finite is left out when it is written.
    id
        A UUID; the same object, written twice, is one in QuPath.
    nucleus
        Of a cell, where its nucleus is.

    Raises
    ------
    InvalidInputError
        If the kind or the colour is none, or a line is not closed.
    """

    kind: QuPathKind
    polygons: Polygons
    classification: str | None = None
    color: Color | None = None
    name: str | None = None
    measurements: Mapping[str, float] = field(default_factory=dict[str, float])
    id: str | None = None
    nucleus: Polygons | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            msg = f"kind must be one of {list(_KINDS)}, got {self.kind!r}"
            raise InvalidInputError(msg)
        if self.color is not None and not _is_color(self.color):
            msg = f"a colour is three whole numbers from 0 to 255, got {self.color!r}"
            raise InvalidInputError(msg)
        for part in (*self.polygons, *(self.nucleus or ())):
            for ring in part:
                if (
                    ring.ndim != 2
                    or ring.shape[1] != 2
                    or len(ring) < 4
                    or (ring[0] != ring[-1]).any()
                ):
                    msg = (
                        "a line has at least four corners (x, y), the last the first; got an array "
                        f"of shape {ring.shape}"
                    )
                    raise InvalidInputError(msg)
        if not self.polygons:
            msg = f"{self.kind} {self.name or self.id or ''} has no polygon"
            raise InvalidInputError(msg)

    def as_feature(self) -> dict[str, Any]:
        """Return the GeoJSON feature."""
        properties: dict[str, Any] = {"objectType": self.kind}
        if self.name is not None:
            properties["name"] = self.name
        if self.classification is not None:
            color = {} if self.color is None else {"color": list(self.color)}
            properties["classification"] = {"name": self.classification, **color}
        finite = {key: value for key, value in self.measurements.items() if math.isfinite(value)}
        if finite:
            properties["measurements"] = finite
        feature: dict[str, Any] = {"type": "Feature"}
        if self.id is not None:
            feature["id"] = self.id
        feature["geometry"] = _geometry(self.polygons)
        if self.nucleus is not None:
            feature["nucleusGeometry"] = _geometry(self.nucleus)
        return feature | {"properties": properties}


def write_qupath(
    objects: Iterable[QuPathObject],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Path:
    """Write objects as GeoJSON that QuPath imports: drop it on the picture.

    The file appears whole or not at all. Objects are written as they come, so that memory does not
    depend on their number; `tile_objects`, `cell_objects` and `area_objects` make them.

    Parameters
    ----------
    objects
        The objects of one picture.
    path
        The file, ``.geojson`` or ``.json``: QuPath goes by the name.
    overwrite
        Whether a file that is there is replaced.

    Returns
    -------
    The path of the file.

    Raises
    ------
    ExistsError
        If there is something at `path`, unless it is a file and `overwrite` is true.
    InvalidInputError
        If the name is no GeoJSON's.
    StorageError
        If the disk refuses.
    """
    target = free_file(path, (".geojson", ".json"), "GeoJSON", overwrite=overwrite)
    with replace_file(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, each in enumerate(objects):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(each.as_feature(), ensure_ascii=False, allow_nan=False))
        file.write("\n]}\n")
    return target


def read_qupath(
    path: str | os.PathLike[str], *, kinds: Sequence[QuPathKind] | None = None
) -> tuple[QuPathObject, ...]:
    """Read the objects of a GeoJSON file of QuPath; those inside others follow these.

    Parameters
    ----------
    path
        A FeatureCollection, one Feature, or, as older versions of QuPath write, a list of them.
    kinds
        Only objects of these kinds, whatever the others are; None for all. What states no kind is an
        annotation.

    Returns
    -------
    The objects, in the order of the file. The plane of a picture with depth or time that an object
    lies in is not kept.

    Raises
    ------
    NotFoundError
        If there is no such file.
    UnknownNameError
        If one of `kinds` is none.
    FormatError
        If it is no GeoJSON, or an object is no valid polygon, or of no kind that there is; names it.
    DependencyError
        If shapely is not installed.
    """
    place = Path(path)
    if kinds is not None:
        verify_kinds(kinds)
    found: list[QuPathObject] = []
    for number, feature in enumerate(_with_children(read_features(place))):
        where = f"{place}: feature {number}"
        kind = object_type(feature) or "annotation"
        if kinds is not None and kind not in kinds:
            continue
        if kind not in _KINDS:
            msg = f"{where} is a {kind!r}; objects are {', '.join(_KINDS)}: choose kinds"
            raise FormatError(msg)
        properties: Mapping[str, Any] = feature.get("properties") or {}
        nucleus = feature.get("nucleusGeometry")
        name, known = properties.get("name"), feature.get("id")
        found.append(
            QuPathObject(
                kind,
                polygon_rings(feature.get("geometry"), where),
                class_of_feature(feature),
                _color(properties.get("classification"), where),
                None if name is None else str(name),
                _measurements(properties.get("measurements"), where),
                None if known is None else str(known),
                None if nucleus is None else polygon_rings(nucleus, f"{where} (nucleus)"),
            )
        )
    return tuple(found)


def verify_kinds(kinds: Sequence[str]) -> None:
    """Refuse kinds of objects that QuPath has none of.

    Raises
    ------
    UnknownNameError
        If one is none.
    """
    wrong = [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind not in _KINDS]
    if wrong or isinstance(kinds, str):
        msg = f"kinds is a list of some of {', '.join(_KINDS)}, got {kinds!r}"
        raise UnknownNameError(msg)


def free_file(
    path: str | os.PathLike[str], suffixes: Sequence[str], what: str, *, overwrite: bool
) -> Path:
    """Return the path of a file to write.

    Raises
    ------
    ExistsError
        If there is something, unless it is a file and `overwrite` is true.
    InvalidInputError
        If it has another ending than one of `suffixes`.
    """
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        msg = f"{path} would not be taken for {what}; call it {target.stem}{suffixes[0]}"
        raise InvalidInputError(msg)
    verify_free(target, overwrite=overwrite)
    return target


def object_id(*words: object) -> str:
    """Return the UUID of an object that is called by some words: always the same."""
    return str(uuid.uuid5(_SPACE, "/".join(map(str, words))))


def _with_children(features: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for feature in features:
        properties = feature.get("properties") or {}
        if object_type(feature) != "root":
            yield feature
        inner = feature.get("childObjects") or properties.get("childObjects") or ()
        yield from _with_children(cast("Sequence[Mapping[str, Any]]", inner))


def _geometry(polygons: Polygons) -> dict[str, Any]:
    parts = [[_corners(ring) for ring in part] for part in polygons]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _corners(ring: NDArray[Any]) -> list[list[float]]:
    whole = np.rint(ring)
    # Half as long, and the same to a reader.
    return (whole.astype(np.int64) if (whole == ring).all() else ring).tolist()


def _is_color(given: Any) -> bool:
    parts = list(given)
    return len(parts) == 3 and all(isinstance(n, int) and 0 <= n <= 255 for n in parts)


def _color(classification: Any, where: str) -> Color | None:
    if not isinstance(classification, dict):
        return None
    stated = cast("dict[str, Any]", classification)
    given = stated.get("color")
    if given is None and isinstance(stated.get("colorRGB"), int):
        # QuPath until 0.3: four bytes, of which the first is opacity.
        packed = stated["colorRGB"]
        given = [packed >> 16 & 255, packed >> 8 & 255, packed & 255]
    if given is None:
        return None
    if not isinstance(given, list) or not _is_color(cast("list[Any]", given)):
        msg = f"{where} has the colour {given!r}; a colour is three whole numbers from 0 to 255"
        raise FormatError(msg)
    red, green, blue = cast("list[int]", given)
    return red, green, blue


def _measurements(given: Any, where: str) -> dict[str, float]:
    try:
        if isinstance(given, list):
            # QuPath until 0.3: a list of names and values.
            pairs = [(each["name"], each["value"]) for each in cast("list[Any]", given)]
        else:
            pairs = list(cast("dict[str, Any]", given or {}).items())
        return {str(name): _number(value) for name, value in pairs}
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        msg = f"{where} has measurements that are no numbers by name: {error}"
        raise FormatError(msg) from error


def _number(value: Any) -> float:
    if isinstance(value, int):
        return value
    # Java writes what is not finite as text; what was never measured is null.
    return float("nan") if value is None else float(value)
