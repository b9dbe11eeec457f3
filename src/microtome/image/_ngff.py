"""OME-NGFF metadata in both directions: 0.4, 0.5 and 0.6 in, 0.5 out.

Reading is lenient where readers in the field are (a missing unit, no `omero` block) and strict
where a guess would move pixels (unknown version, a transform that is not scale + translation).
Writing goes through the models of ome-zarr-models, so that what is written is valid by
construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, cast

from microtome.errors import FormatError

__all__ = ["DatasetEntry", "ImageMetadata", "Kind", "read_metadata", "write_metadata"]

Kind = Literal["intensity", "labels"]
"""What pixels mean: measured intensities, or the identifiers of objects."""

NGFF_VERSION = "0.5"
_READABLE = ("0.4", "0.5", "0.6")
_ORDER = "tczyx"
_AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}

# To micrometres; NGFF names units as UDUNITS-2 does.
_UNITS = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}

# Distinct on black and for the common red-green deficiencies; white for a lone channel.
_COLORS = ("0072B2", "E69F00", "009E73", "CC79A7", "56B4E9", "D55E00", "F0E442")


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One level in the metadata: where its array lies and what its pixels mean in space.

    Parameters
    ----------
    path
        Path of the array inside the group.
    scale, translation
        Pixel size and centre of pixel 0, an entry an axis of the image, micrometres for space.
    """

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """What a group says about the image in it.

    Parameters
    ----------
    axes
        Names of the axes, one letter each, for example ``"cyx"``.
    datasets
        The levels, finest first.
    has_unit
        Whether the scale is a pixel size: y and x carry a unit of length, and the finest level
        states a scale at all.
    channel_names
        Names from the `omero` block, None where there is none.
    kind
        Labels where the group has an `image-label` block.
    name
        Name of the image, or None.
    attributes
        All attributes of the group, unread ones included.
    """

    axes: str
    datasets: tuple[DatasetEntry, ...]
    has_unit: bool
    channel_names: tuple[str, ...] | None
    kind: Kind
    name: str | None
    attributes: Mapping[str, Any]


def read_metadata(attributes: Mapping[str, Any], *, where: str) -> ImageMetadata:
    """Parse the attributes of a Zarr group.

    Parameters
    ----------
    attributes
        Attributes of the group.
    where
        Path of the group, for messages.

    Raises
    ------
    FormatError
        If the group is no OME-Zarr image, or of a version or with transforms that cannot be
        read without guessing.
    """
    ome = attributes.get("ome", attributes)
    try:
        return _parse(cast("Mapping[str, Any]", ome), attributes, where)
    except FormatError:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        msg = f"{where}: OME-Zarr metadata is incomplete ({type(error).__name__}: {error})"
        raise FormatError(msg) from error


def _parse(ome: Mapping[str, Any], attributes: Mapping[str, Any], where: str) -> ImageMetadata:
    images = ome.get("multiscales")
    if not images:
        msg = f"{where} is a Zarr group but no OME-Zarr image (no 'multiscales' in its attributes)"
        raise FormatError(msg)
    image = images[0]
    version = str(ome.get("version", image.get("version", "0.4")))
    family = version.split("-", 1)[0]
    if not any(family == known or family.startswith(f"{known}.") for known in _READABLE):
        msg = f"{where} is OME-Zarr {version}; versions {', '.join(_READABLE)} can be read"
        raise FormatError(msg)
    if not image["datasets"]:
        msg = f"{where}: OME-Zarr metadata names no level"
        raise FormatError(msg)
    entries, common = _axis_entries(image, where)
    names = [str(entry["name"]).lower() for entry in entries]
    order = [_ORDER.find(name) if len(name) == 1 else -1 for name in names]
    if -1 in order or order != sorted(set(order)) or names[-2:] != ["y", "x"]:
        msg = (
            f"{where}: axes must be of t, c, z, y, x, in this order and with y and x, got "
            f"{[entry['name'] for entry in entries]}"
        )
        raise FormatError(msg)
    axes = "".join(names)
    units = [str(entry.get("unit", "")).lower() for entry in entries]
    factors = [
        _UNITS.get(unit, 1.0) if axis in "zyx" else 1.0
        for axis, unit in zip(axes, units, strict=True)
    ]
    datasets = tuple(
        _dataset(entry, common, axes, factors, where=where) for entry in image["datasets"]
    )
    # A level that states no scale has one of 1 that nobody measured.
    first = _flattened([*(image["datasets"][0].get("coordinateTransformations") or ()), *common])
    stated = any(transform.get("type") in {"scale", "identity"} for transform in first)
    omero = ome.get("omero") or {}
    channels = omero.get("channels")
    return ImageMetadata(
        axes=axes,
        datasets=datasets,
        has_unit=stated and units[-2] in _UNITS and units[-1] in _UNITS,
        channel_names=tuple(str(c.get("label") or i) for i, c in enumerate(channels))
        if channels
        else None,
        kind="labels" if "image-label" in ome else "intensity",
        name=image.get("name"),
        attributes=attributes,
    )


def _axis_entries(
    image: Mapping[str, Any], where: str
) -> tuple[list[dict[str, Any]], list[Mapping[str, Any]]]:
    """Return the axes that scales are given along, and the transforms that all levels share."""
    if "coordinateSystems" not in image:
        return list(image["axes"]), list(image.get("coordinateTransformations") or ())
    # 0.6: all levels lead to one "intrinsic" system, wherever it stands in the list. What the
    # image has besides leads on from there to other systems, and says nothing about its pixels.
    outputs = {
        _system_name(transform.get("output"))
        for entry in image["datasets"]
        for transform in entry["coordinateTransformations"]
    }
    systems = {str(system["name"]): system["axes"] for system in image["coordinateSystems"]}
    found = [systems[name] for name in outputs if name in systems]
    if len(outputs) != 1 or not found:
        msg = f"{where}: levels lead to {sorted(outputs)} of the coordinate systems {list(systems)}"
        raise FormatError(msg)
    return list(found[0]), []


def _system_name(reference: object) -> str:
    # A name in the drafts of 0.6, an object with a name in the released version.
    if isinstance(reference, Mapping):
        return str(cast("Mapping[str, object]", reference).get("name"))
    return str(reference)


def _dataset(
    entry: Mapping[str, Any],
    common: Sequence[Mapping[str, Any]],
    axes: str,
    factors: Sequence[float],
    *,
    where: str,
) -> DatasetEntry:
    path = PurePosixPath(entry["path"])
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in str(path):
        msg = f"{where}: level {entry['path']!r} does not lie in the image"
        raise FormatError(msg)
    rank = len(factors)
    scale, translation = [1.0] * rank, [0.0] * rank
    for transform in _flattened([*(entry.get("coordinateTransformations") or ()), *common]):
        kind = transform.get("type")
        if kind == "identity":
            continue
        values = transform.get(str(kind))
        if kind not in {"scale", "translation"} or not isinstance(values, list):
            msg = (
                f"{where}: level {str(path)!r} has a transform {kind!r}; only scale and "
                "translation given as numbers are read"
            )
            raise FormatError(msg)
        numbers = [float(value) for value in cast("list[float]", values)]
        if len(numbers) != rank:
            msg = (
                f"{where}: level {str(path)!r} has a {kind} of {len(numbers)} numbers for {rank} "
                "axes"
            )
            raise FormatError(msg)
        if kind == "scale":
            scale = [a * b for a, b in zip(scale, numbers, strict=True)]
            translation = [a * b for a, b in zip(translation, numbers, strict=True)]
        else:
            translation = [a + b for a, b in zip(translation, numbers, strict=True)]
    sizes = [size for axis, size in zip(axes, scale, strict=True) if axis in "zyx"]
    if not all(math.isfinite(v) for v in translation) or not all(0 < v < math.inf for v in sizes):
        msg = (
            f"{where}: level {path} has a scale of {scale} and a translation of {translation} "
            f"along {axes}; sizes must be positive and all numbers finite"
        )
        raise FormatError(msg)
    return DatasetEntry(
        str(path),
        tuple(a * b for a, b in zip(scale, factors, strict=True)),
        tuple(a * b for a, b in zip(translation, factors, strict=True)),
    )


def _flattened(transforms: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    flat: list[Mapping[str, Any]] = []
    for transform in transforms:
        if transform.get("type") == "sequence":
            flat.extend(_flattened(transform["transformations"]))
        else:
            flat.append(transform)
    return flat


def write_metadata(  # noqa: PLR0913 - what an image states, keyword-only
    *,
    axes: str,
    datasets: Sequence[DatasetEntry],
    channel_names: Sequence[str] | None,
    kind: Kind,
    name: str,
    windows: Sequence[tuple[float, float]] | None = None,
    rgb: bool = False,
    measured: str = "yx",
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the attributes of an OME-Zarr 0.5 image group.

    Parameters
    ----------
    axes
        Names of the axes, for example ``"cyx"``.
    datasets
        The levels, finest first.
    channel_names
        One a channel; None for an image without a channel axis.
    kind
        Labels get an `image-label` block.
    name
        Name of the image.
    windows
        Display range (low, high) a channel, for viewers.
    rgb
        Whether the three channels are the red, green and blue of a photograph.
    measured
        The axes along which pixels have a known size, in micrometres; the others get no unit.
    extra
        Further attributes, beside `ome`.
    """
    from ome_zarr_models.v05.image import ImageAttrs

    ome: dict[str, Any] = {
        "version": NGFF_VERSION,
        "multiscales": [
            {
                "name": name,
                "axes": [
                    {"name": axis, "type": _AXIS_TYPES[axis]}
                    # Without a unit a scale of 1 counts pixels, and claims nothing.
                    | ({"unit": "micrometer"} if axis in measured else {})
                    for axis in axes
                ],
                "datasets": [
                    {
                        "path": entry.path,
                        "coordinateTransformations": [
                            {"type": "scale", "scale": list(entry.scale)},
                            {"type": "translation", "translation": list(entry.translation)},
                        ],
                    }
                    for entry in datasets
                ],
                "type": "mode" if kind == "labels" else "mean",
            }
        ],
    }
    if kind == "labels":
        ome["image-label"] = {"version": NGFF_VERSION}
    else:
        names = list(channel_names) if channel_names is not None else [name]
        ome["omero"] = {"channels": _omero_channels(names, windows, rgb=rgb)}
    ImageAttrs.model_validate(ome)
    return {**(extra or {}), "ome": ome}


def _omero_channels(
    names: Sequence[str], windows: Sequence[tuple[float, float]] | None, *, rgb: bool
) -> list[dict[str, Any]]:
    if rgb:
        colors = ("FF0000", "00FF00", "0000FF")
    elif len(names) == 1:
        colors = ("FFFFFF",)
    else:
        colors = tuple(_COLORS[i % len(_COLORS)] for i in range(len(names)))
    ranges = windows if windows is not None else [(0.0, 255.0 if rgb else 65535.0)] * len(names)
    return [
        {
            "label": name,
            "color": color,
            "active": rgb or i < len(_COLORS),
            "window": {"min": low, "max": high, "start": low, "end": high},
        }
        for i, (name, color, (low, high)) in enumerate(zip(names, colors, ranges, strict=True))
    ]
