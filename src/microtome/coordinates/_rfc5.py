"""The linear transforms of OME-NGFF as JSON, in both directions.

The family is that of RFC-5, which is OME-NGFF 0.6: identity, translation, scale, rotation,
affine, mapAxis, sequence, byDimension, bijection. Versions 0.4 and 0.5 know the first three.
`coordinates` and `displacements`, whose numbers lie in arrays, are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError, InvalidInputError

from ._compound import BijectionTransform, SequenceTransform
from ._transforms import (
    AffineTransform,
    CoordinateTransform,
    IdentityTransform,
    ScaleTransform,
    TranslationTransform,
)

__all__ = ["transform_from_json", "transform_to_json"]


def transform_from_json(
    document: Mapping[str, Any], input_axes: Sequence[str], output_axes: Sequence[str]
) -> CoordinateTransform:
    """Read a transform.

    Parameters
    ----------
    document
        The JSON object, with its `type`.
    input_axes, output_axes
        Names of the axes of the spaces that it connects, in their order.

    Raises
    ------
    FormatError
        If the type is unknown or not linear, or its numbers do not fit the axes.
    """
    kind = document.get("type")
    readers = {
        "identity": _identity,
        "translation": _translation,
        "scale": _scale,
        "rotation": _rotation,
        "affine": _affine,
        "mapAxis": _map_axis,
        "sequence": _sequence,
        "byDimension": _by_dimension,
        "bijection": _bijection,
    }
    if kind not in readers:
        msg = f"transforms of type {kind!r} cannot be read; {', '.join(readers)} can"
        raise FormatError(msg)
    if len(input_axes) != len(output_axes):
        msg = (
            f"a {kind} from {tuple(input_axes)} to {tuple(output_axes)} changes the number of axes"
        )
        raise FormatError(msg)
    try:
        return readers[kind](document, tuple(input_axes), tuple(output_axes))
    except (KeyError, TypeError, IndexError, InvalidInputError) as error:
        msg = f"the {kind} from {tuple(input_axes)} to {tuple(output_axes)} cannot be read: {error}"
        raise FormatError(msg) from error


def transform_to_json(transform: CoordinateTransform) -> dict[str, Any]:
    """Return a transform as the JSON object of OME-NGFF 0.6, without the names of its spaces.

    Parameters
    ----------
    transform
        Any of ours.
    """
    if isinstance(transform, IdentityTransform):
        return {"type": "identity"}
    if isinstance(transform, ScaleTransform):
        return {"type": "scale", "scale": list(transform.scale_factors)}
    if isinstance(transform, TranslationTransform):
        return {"type": "translation", "translation": list(transform.translation)}
    if isinstance(transform, SequenceTransform):
        steps = [transform_to_json(step) for step in transform.transformations]
        return {"type": "sequence", "transformations": steps}
    if isinstance(transform, BijectionTransform):
        return {
            "type": "bijection",
            "forward": transform_to_json(transform.forward),
            "inverse": transform_to_json(transform.inverse_transform().forward),
        }
    return {"type": "affine", "affine": transform.augmented_matrix[:-1].tolist()}


_Axes = tuple[str, ...]


def _identity(document: Mapping[str, Any], ins: _Axes, outs: _Axes) -> CoordinateTransform:
    del document
    return IdentityTransform(ins, outs)


def _translation(document: Mapping[str, Any], ins: _Axes, outs: _Axes) -> CoordinateTransform:
    return TranslationTransform(ins, outs, document["translation"])


def _scale(document: Mapping[str, Any], ins: _Axes, outs: _Axes) -> CoordinateTransform:
    return ScaleTransform(ins, outs, document["scale"])


def _rotation(document: Mapping[str, Any], ins: _Axes, outs: _Axes) -> CoordinateTransform:
    matrix = _matrix(document["rotation"])
    if matrix.shape != (len(ins), len(ins)):
        msg = f"a rotation over {ins} needs {len(ins)} x {len(ins)} numbers, got {matrix.shape}"
        raise InvalidInputError(msg)
    # Stored with few digits a rotation is orthogonal to those digits only.
    if not np.allclose(matrix @ matrix.T, np.eye(len(ins)), atol=1e-3) or np.linalg.det(matrix) < 0:
        msg = f"{matrix.tolist()} is not a rotation"
        raise InvalidInputError(msg)
    return AffineTransform(ins, outs, matrix)


def _affine(document: Mapping[str, Any], ins: _Axes, outs: _Axes) -> CoordinateTransform:
    matrix = _matrix(document["affine"])
    if matrix.shape != (len(ins), len(ins) + 1):
        msg = f"an affine over {ins} needs {len(ins)} x {len(ins) + 1} numbers, got {matrix.shape}"
        raise InvalidInputError(msg)
    return AffineTransform(ins, outs, matrix)


def _map_axis(document: Mapping[str, Any], ins: _Axes, outs: _Axes) -> CoordinateTransform:
    order = document["mapAxis"]
    if not isinstance(order, list) or sorted(cast("list[int]", order)) != list(range(len(ins))):
        msg = f"mapAxis must name every input axis once by number, got {order!r}"
        raise InvalidInputError(msg)
    # Output axis i is input axis order[i].
    return AffineTransform(ins, outs, np.eye(len(ins))[cast("list[int]", order)])


def _sequence(document: Mapping[str, Any], ins: _Axes, outs: _Axes) -> CoordinateTransform:
    steps = document["transformations"]
    # What lies between two steps has no name of its own: only the last arrives at the output.
    last = len(steps) - 1
    return SequenceTransform(
        [
            transform_from_json(step, ins, outs if place == last else ins)
            for place, step in enumerate(steps)
        ]
    )


def _by_dimension(document: Mapping[str, Any], ins: _Axes, outs: _Axes) -> CoordinateTransform:
    matrix = np.zeros((len(ins) + 1, len(ins) + 1))
    matrix[-1, -1] = 1
    seen_in: list[int] = []
    seen_out: list[int] = []
    for part in document["transformations"]:
        # 0.6 wraps the part; its release candidates put the axes beside the type.
        inner = part.get("transformation", part)
        first = _places(part.get("input_axes", inner.get("input")), ins)
        second = _places(part.get("output_axes", inner.get("output")), outs)
        names_in, names_out = [ins[i] for i in first], [outs[i] for i in second]
        whole = transform_from_json(inner, names_in, names_out).augmented_matrix
        matrix[np.ix_(second, first)] = whole[:-1, :-1]
        matrix[second, -1] = whole[:-1, -1]
        seen_in += first
        seen_out += second
    if sorted(seen_out) != list(range(len(outs))) or sorted(seen_in) != list(range(len(ins))):
        msg = f"byDimension must use every axis once, got inputs {seen_in} and outputs {seen_out}"
        raise InvalidInputError(msg)
    return AffineTransform(ins, outs, matrix)


def _bijection(document: Mapping[str, Any], ins: _Axes, outs: _Axes) -> CoordinateTransform:
    return BijectionTransform(
        transform_from_json(document["forward"], ins, outs),
        transform_from_json(document["inverse"], outs, ins),
    )


def _matrix(numbers: Any) -> NDArray[np.float64]:
    if not isinstance(numbers, list):
        msg = f"a matrix must be a list of rows, got {type(numbers).__name__} (a path into the store cannot be read)"
        raise InvalidInputError(msg)
    try:
        return np.asarray(cast("list[list[float]]", numbers), dtype=np.float64)
    except ValueError as error:
        msg = f"a matrix must have rows of equal length, got {numbers!r}"
        raise InvalidInputError(msg) from error


def _places(given: Sequence[int | str], axes: _Axes) -> list[int]:
    """Return axes, given by number or by name, as numbers."""
    return [axes.index(item) if isinstance(item, str) else range(len(axes))[item] for item in given]
