"""OME-NGFF 0.4 and 0.5: a scale and a translation between the centres of pixels and space.

The rule is the specification's `coordinateTransformations` of a dataset: exactly one `scale`, then
at most one `translation`, an entry an axis of the array; pixel `j` has its *centre* at
`translation + scale * j`. Ours speak of pixel *edges*: pixel `j` covers `[j, j + 1)`, so its centre
is at `j + 0.5`, and the two differ by half a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microtome.errors import FormatError, InvalidInputError

from ._transforms import (
    AffineTransform,
    CoordinateTransform,
    ScaleTransform,
    TranslationTransform,
)

__all__ = ["transform_from_ngff", "transform_to_ngff"]


def transform_from_ngff(
    transformations: Sequence[Mapping[str, Any]],
    axes: Sequence[str],
    output_axes: Sequence[str] | None = None,
) -> CoordinateTransform:
    """Read the `coordinateTransformations` of a dataset of OME-NGFF 0.4 or 0.5.

    Parameters
    ----------
    transformations
        The JSON objects: a scale, and maybe a translation after it.
    axes
        Names of the axes of the array, in its order.
    output_axes
        Names of the axes of the space, in the same order; those of the array by default.

    Returns
    -------
    From pixel edges to the space; a scale where the translation is that of pixels which begin at
    0, else an affine transform.

    Raises
    ------
    FormatError
        If there is not one scale, more than one translation, another type or order, or not a finite
        number for each axis, of which none may scale by 0.

    Examples
    --------
    >>> level1 = [
    ...     {"type": "scale", "scale": [1.0, 1.0]},
    ...     {"type": "translation", "translation": [0.25, 0.25]},
    ... ]
    >>> transform_from_ngff(level1, "yx").apply([3, 3]).tolist()
    [2.75, 2.75]
    """
    kinds = [item.get("type") for item in transformations]
    if kinds not in (["scale"], ["scale", "translation"]):
        msg = f"a dataset has one scale, then at most one translation; got {kinds}"
        raise FormatError(msg)
    outs = tuple(axes if output_axes is None else output_axes)
    try:
        scale = ScaleTransform(axes, outs, transformations[0]["scale"])
        shift = TranslationTransform(
            outs, outs, (*transformations[1:], {"translation": [0.0] * len(outs)})[0]["translation"]
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = f"scale and translation of {tuple(axes)} cannot be read: {error}"
        raise FormatError(msg) from error
    factors = np.asarray(scale.scale_factors)
    if not factors.all():
        msg = f"a scale of {scale.scale_factors} along {tuple(axes)} has no inverse"
        raise FormatError(msg)
    offset = np.asarray(shift.translation) - factors / 2
    if not offset.any():
        return scale
    matrix = scale.augmented_matrix
    matrix[:-1, -1] = offset
    return AffineTransform(axes, outs, matrix)


def transform_to_ngff(transform: CoordinateTransform) -> list[dict[str, Any]]:
    """Return the `coordinateTransformations` of a dataset of OME-NGFF 0.4 or 0.5.

    Parameters
    ----------
    transform
        From pixel edges to the space, both axes in the order of the array; the inverse of
        `transform_from_ngff`.

    Raises
    ------
    InvalidInputError
        If it is more than a scale and a shift along each axis, or has no inverse. OME-NGFF 0.6 has
        a place for those: `transform_to_json`.

    Examples
    --------
    >>> transform_to_ngff(ScaleTransform("yx", "yx", [2.0, 2.0]))
    [{'type': 'scale', 'scale': [2.0, 2.0]}, {'type': 'translation', 'translation': [1.0, 1.0]}]
    """
    linear = transform.linear
    factors = np.diag(linear)
    if (linear != np.diag(factors)).any() or not factors.all():
        msg = (
            f"{transform!r} is no scale with a translation, which is all that OME-NGFF 0.4 and 0.5 "
            "can say of a level"
        )
        raise InvalidInputError(msg)
    centre = transform.offset + factors / 2
    return [
        {"type": "scale", "scale": factors.tolist()},
        {"type": "translation", "translation": centre.tolist()},
    ]
