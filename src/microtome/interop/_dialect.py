"""Coordinate transforms as SpatialData writes them: an early form of RFC-5, with named axes.

A raster's transforms stand beside its levels, one for each coordinate system that it lies in, as
alternatives to each other (OME-Zarr would apply them one after the other). Each names the axes that
it starts from and leads to, whose order may differ and decides what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError

__all__ = ["matrices_of"]

_Named = tuple[NDArray[np.float64], tuple[str, ...]]


def matrices_of(
    documents: object, axes: Sequence[str], *, where: str
) -> dict[str, NDArray[np.float64]]:
    """Read the transforms of an element.

    Parameters
    ----------
    documents
        The list of JSON objects.
    axes
        The spatial axes of the element in the order of coordinates, ``("x", "y")`` or with ``"z"``.
    where
        Path of the element, for messages.

    Returns
    -------
    For each coordinate system the augmented matrix over `axes`, from the element to the system.

    Raises
    ------
    FormatError
        If there are none, or one cannot be read.
    """
    if not isinstance(documents, list) or not documents:
        msg = f"{where}: an element of SpatialData states its coordinateTransformations, this has none"
        raise FormatError(msg)
    found: dict[str, NDArray[np.float64]] = {}
    for document in cast("list[Mapping[str, Any]]", documents):
        try:
            system = str(document["output"]["name"])
            matrix, outputs = _named(document, None)
            inputs = _axis_names(document["input"])
            rows = [outputs.index(axis) for axis in axes]
            columns = [*(inputs.index(axis) for axis in axes), -1]
        except (KeyError, TypeError, IndexError, ValueError) as error:
            msg = (
                f"{where}: a coordinate transform cannot be read ({type(error).__name__}: {error})"
            )
            raise FormatError(msg) from error
        augmented = np.eye(len(axes) + 1)
        augmented[:-1] = matrix[rows][:, columns]
        found[system] = augmented
    return found


def _axis_names(space: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(axis["name"]) for axis in space["axes"])


def _named(document: Mapping[str, Any], before: tuple[str, ...] | None) -> _Named:
    """Return a transform's matrix (outputs, inputs + 1) and the names of its outputs."""
    kind = document["type"]
    stated = document.get("input")
    inputs = _axis_names(stated) if stated and "axes" in stated else before
    if inputs is None:
        msg = f"a {kind} that does not name its axes"
        raise ValueError(msg)
    leads = document.get("output")
    outputs = _axis_names(leads) if leads and "axes" in leads else inputs
    if kind == "sequence":
        return _sequence(document["transformations"], inputs, outputs)
    if kind == "byDimension":
        return _by_dimension(document["transformations"], inputs, outputs)
    count = len(inputs)
    matrix = np.zeros((len(outputs), count + 1))
    if kind == "affine":
        matrix[...] = np.asarray(document["affine"], np.float64)
        return matrix, outputs
    for row, axis in enumerate(outputs):
        source = document["mapAxis"].get(axis, axis) if kind == "mapAxis" else axis
        matrix[row, inputs.index(source)] = 1
    if kind == "scale":
        matrix[:, :-1] *= np.asarray(document["scale"], np.float64)
    elif kind == "translation":
        shift = dict(zip(inputs, document["translation"], strict=True))
        matrix[:, -1] = [float(shift[axis]) for axis in outputs]
    elif kind not in {"identity", "mapAxis"}:
        msg = f"a transform of type {kind!r}"
        raise ValueError(msg)
    return matrix, outputs


def _sequence(
    steps: Sequence[Mapping[str, Any]], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> _Named:
    total, names = np.eye(len(inputs), len(inputs) + 1), inputs
    last = np.zeros(len(inputs) + 1)
    last[-1] = 1
    for step in steps:
        matrix, leads = _named(step, names)
        own = step.get("input")
        starts = _axis_names(own) if own and "axes" in own else names
        total = matrix @ np.vstack([total[[names.index(axis) for axis in starts]], last])
        names = leads
    return total[[names.index(axis) for axis in outputs]], outputs


def _by_dimension(
    parts: Sequence[Mapping[str, Any]], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> _Named:
    total = np.zeros((len(outputs), len(inputs) + 1))
    for part in parts:
        matrix, leads = _named(part, None)
        columns = [*(inputs.index(axis) for axis in _axis_names(part["input"])), -1]
        total[np.ix_([outputs.index(axis) for axis in leads], columns)] = matrix
    return total, outputs
