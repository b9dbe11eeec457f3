"""Features of GeoJSON files: polygons as QuPath writes them, and how it calls them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import DependencyError, FormatError, NotFoundError

if TYPE_CHECKING:
    from shapely import MultiPolygon

__all__ = ["class_of_feature", "multipolygon", "object_type", "polygon_rings", "read_features"]


def read_features(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the features of a GeoJSON file.

    Parameters
    ----------
    path
        A FeatureCollection, one Feature, or, as older versions of QuPath write, a list of them.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is no GeoJSON; names the feature.
    """
    place = Path(path)
    if not place.is_file():
        msg = f"there is no file {place}"
        raise NotFoundError(msg)
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        msg = f"{place} is not GeoJSON: {error}"
        raise FormatError(msg) from error
    features = content
    if isinstance(content, dict):
        document = cast("dict[str, Any]", content)
        features = [document]
        if document.get("type") == "FeatureCollection":
            features = document.get("features")
    if not isinstance(features, list):
        msg = f"{place} is not GeoJSON: it holds neither features nor a list of them"
        raise FormatError(msg)
    checked: list[dict[str, Any]] = []
    for number, feature in enumerate(cast("list[Any]", features)):
        kind = feature.get("type") if isinstance(feature, dict) else feature
        properties = feature.get("properties") if isinstance(feature, dict) else None
        if kind != "Feature" or not isinstance(properties, dict | None):
            msg = f"{place}: feature {number} is no GeoJSON Feature, got type {kind!r}"
            raise FormatError(msg)
        checked.append(cast("dict[str, Any]", feature))
    return checked


def object_type(feature: Mapping[str, Any]) -> Any:
    """Return what QuPath calls a feature; an annotation if nobody says."""
    properties = feature.get("properties") or {}
    return properties.get("objectType", properties.get("object_type", "annotation"))


def class_of_feature(feature: Mapping[str, Any]) -> str | None:
    """Return the class that QuPath gave a feature; None if it has none."""
    given = (feature.get("properties") or {}).get("classification")
    if isinstance(given, dict):
        stated = cast("dict[str, Any]", given)
        names = stated.get("names")
        given = stated.get("name") or (": ".join(map(str, names)) if names else None)
    return given if isinstance(given, str) else None


def polygon_rings(geometry: Any, place: str) -> tuple[tuple[NDArray[np.float64], ...], ...]:
    """Return the rings of a valid Polygon or MultiPolygon.

    Parameters
    ----------
    geometry
        The geometry of a feature.
    place
        Where it was read, for messages.

    Returns
    -------
    Of each polygon the outline, then its holes: (n, 2) corners (x, y), the last the first.

    Raises
    ------
    FormatError
        If it is something else, or no valid polygon.
    DependencyError
        If shapely is not installed.
    """
    kind: Any = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in {"Polygon", "MultiPolygon"}:
        msg = f"{place} is a {kind or 'feature without geometry'}; an area is a Polygon or MultiPolygon"
        raise FormatError(msg)
    given: Any = geometry.get("coordinates")
    try:
        parts = tuple(
            tuple(_ring(ring) for ring in part)
            for part in ([given] if kind == "Polygon" else given)
        )
    except (TypeError, ValueError, IndexError) as error:
        msg = f"{place} has no usable coordinates: {error}"
        raise FormatError(msg) from error
    if not parts or not all(parts):
        msg = f"{place} has no outline"
        raise FormatError(msg)
    _verify(parts, place)
    return parts


def _ring(given: Any) -> NDArray[np.float64]:
    corners = np.asarray(given, np.float64)
    if corners.ndim != 2 or corners.shape[0] < 4 or corners.shape[1] not in {2, 3}:
        msg = f"a ring has at least four corners (x, y), got an array of shape {corners.shape}"
        raise ValueError(msg)
    if not np.isfinite(corners).all():
        msg = "a corner is not finite"
        raise ValueError(msg)
    corners = np.ascontiguousarray(corners[:, :2])
    if (corners[0] != corners[-1]).any():
        msg = "a ring does not end where it begins"
        raise ValueError(msg)
    return corners


def _verify(parts: tuple[tuple[NDArray[np.float64], ...], ...], place: str) -> None:
    try:
        import shapely
    except ImportError as error:
        msg = "annotations need shapely, which is not installed: pip install 'microtome[geometry]'"
        raise DependencyError(msg) from error
    whole = multipolygon(parts)
    if not whole.is_valid:
        reason = shapely.is_valid_reason(whole)
        msg = f"{place} is no valid polygon: {reason}; mend it in the program that drew it"
        raise FormatError(msg)


def multipolygon(parts: tuple[tuple[NDArray[np.float64], ...], ...]) -> MultiPolygon:
    """Return polygons by their rings as one geometry of shapely."""
    from shapely import MultiPolygon

    return MultiPolygon([(part[0], list(part[1:])) for part in parts])
