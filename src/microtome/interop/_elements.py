"""What a dataset asks of a SpatialData object, whether it is in memory or a store on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.image import Level, MultiscaleImage, PixelArray
from microtome.storage import StorageOptions

from ._instances import Instances, instances_of_labels

__all__ = [
    "KINDS",
    "Elements",
    "Picture",
    "Region",
    "flat_matrix",
    "image_of_levels",
    "unknown_element",
    "unknown_table",
]

KINDS = ("images", "labels", "shapes", "points")
"""The kinds of elements that lie in space, by the names of their groups."""

Matrices = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image or labels, and where its pixels lie.

    Parameters
    ----------
    name
        Name of the element.
    image
        Its pixels.
    to_systems
        For each coordinate system the augmented matrix from pixels of the finest level, (x, y) or
        (x, y, z) with pixel 0 covering [0, 1), to the system.
    channels
        What its channels are called in SpatialData, numbers or texts; None for labels.
    """

    name: str
    image: MultiscaleImage
    to_systems: Matrices
    channels: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """An element whose instances are the centres of tiles.

    Parameters
    ----------
    instances
        The instances.
    to_systems
        For each coordinate system the augmented matrix over (x, y), from the element to the system.
    """

    instances: Instances
    to_systems: Matrices


class Elements(ABC):
    """The elements of a SpatialData object by name.

    Parameters
    ----------
    options
        What is kept in memory of the stores that its images lie in.
    """

    def __init__(self, options: StorageOptions | None) -> None:
        self._options = options

    @property
    @abstractmethod
    def where(self) -> str:
        """What to call the object in messages."""

    @abstractmethod
    def kind(self, name: str) -> str:
        """Return which of `KINDS` an element is of; an `UnknownNameError` if there is none."""

    def picture(self, name: str) -> Picture:
        """Return an image or labels."""
        return self._picture(name, self._options)

    def region(self, name: str) -> Region:
        """Return labels, shapes or points as a region."""
        kind = self.kind(name)
        if kind == "labels":
            # Each chunk is looked at once: nothing of it is kept.
            picture = self._picture(name, None)
            return Region(instances_of_labels(picture.image), picture.to_systems)
        if kind == "images":
            msg = f"{name!r} is an image; regions are labels, shapes or points"
            raise InvalidInputError(msg)
        return self._places(kind, name)

    @abstractmethod
    def table(self, name: str) -> Any:
        """Return a table, an AnnData; an `UnknownNameError` if there is none."""

    @abstractmethod
    def _picture(self, name: str, options: StorageOptions | None) -> Picture: ...

    @abstractmethod
    def _places(self, kind: str, name: str) -> Region:
        """Return shapes or points as a region."""


def unknown_table(where: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Return the error for a table that is not there."""
    return UnknownNameError(f"{where} has no table {name!r}, but {sorted(known)}")


def unknown_element(where: str, name: object, known: Sequence[str]) -> UnknownNameError:
    """Return the error for an element that is not there."""
    return UnknownNameError(f"{where} has no element {name!r}, but {sorted(known)}")


def flat_matrix(matrix: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    """Return the part over (x, y) of a matrix over (x, y) or (x, y, z).

    Raises
    ------
    InvalidInputError
        If z and the plane are mixed, or the plane has no inverse.
    """
    linear = matrix[:-1, :-1]
    if linear[:2, 2:].any() or linear[2:, :2].any():
        msg = f"{what} mixes z with x and y; tiles are cut along the planes of a volume"
        raise InvalidInputError(msg)
    flat = np.eye(3)
    flat[:2, :2], flat[:2, 2] = linear[:2, :2], matrix[:2, -1]
    if not np.isfinite(flat).all() or abs(np.linalg.det(flat)) < np.finfo(float).tiny:
        msg = f"{what} has no inverse: {flat[:2].tolist()}"
        raise InvalidInputError(msg)
    return flat


def image_of_levels(
    arrays: Sequence[PixelArray],
    axes: str,
    *,
    name: str,
    uri: str,
    channel_names: Sequence[str] | None,
) -> MultiscaleImage:
    """View arrays as the levels of an image, finest first, as SpatialData places them.

    All levels cover what the finest one covers, so that one of 50 rows under 101 has pixels 2.02
    rows high. Pixel sizes count pixels of the finest level: SpatialData states no unit.
    """
    base = arrays[0]
    levels: list[Level] = []
    for index, array in enumerate(arrays):
        scale = tuple(
            size / own if axis in "zyx" else 1.0
            for axis, size, own in zip(axes, base.shape, array.shape, strict=True)
        )
        shift = tuple(
            (factor - 1) / 2 if axis in "zyx" else 0.0
            for axis, factor in zip(axes, scale, strict=True)
        )
        levels.append(Level(f"level{index}", f"level{index}", array, axes, scale, shift))
    return MultiscaleImage(
        levels,
        uri=uri,
        channel_names=channel_names,
        mpp=None,
        kind="intensity" if "c" in axes else "labels",
        name=name,
    )
