"""Methods of standardization by name: what each does to pixels, and what it has to know for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

__all__ = [
    "IDENTITY",
    "Method",
    "Needs",
    "Transform",
    "UsesMoments",
    "find_method",
    "register_standardizer",
    "registered_standardizers",
]

Transform = Callable[..., None]
"""Changes float pixels in place. Called with the pixels; with the lower and the upper quantile of
their channels, which broadcast against them, where the method needs such; and with each of its
parameters by name."""

Needs = Literal["quantiles", "range", "nothing"]
"""What a transform has to know of a channel: quantiles that the spec chooses, its least and
greatest value, or nothing."""

UsesMoments = Literal["may", "must", "never"]
"""Whether `(y - mean) / (std + 1e-8)` may, must or must not follow a transform."""

IDENTITY = "identity"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# Words that begin the quantiles in a spec.
_TAKEN = frozenset({"uq", "lq", "image", "global"})


@dataclass(frozen=True, slots=True)
class Method:
    """One method; see `register_standardizer`."""

    name: str
    transform: Transform
    needs: Needs = "quantiles"
    parameters: Mapping[str, float] = field(default_factory=dict[str, float])
    moments: UsesMoments = "may"


_METHODS: dict[str, Method] = {}


def register_standardizer(
    name: str,
    transform: Transform,
    *,
    needs: Needs = "quantiles",
    parameters: Mapping[str, float] | None = None,
    moments: UsesMoments = "may",
) -> None:
    """Add a method of standardization under a name that specs can then use.

    Parameters
    ----------
    name
        Lower-case letters, digits and `_`; a directory on disk.
    transform
        Called with float pixels to change in place; then, unless `needs` is ``"nothing"``, with the
        lower and upper quantile of their channels, which broadcast against them; and with
        `parameters` by name. It must treat every pixel by itself.
    needs
        ``"quantiles"``: those that the spec names. ``"range"``: the least and the greatest value
        of a channel, quantiles 0 and 1. ``"nothing"``: no numbers of the cohort.
    parameters
        Numbers above 0 that the spec names, with their defaults; their names are lower-case
        letters.
    moments
        Whether the mean is then subtracted and the result divided by the standard deviation:
        ``"may"`` leaves it to `use_mean_std`, ``"must"`` means that the method is nothing without,
        ``"never"`` that they are not even computed.

    Raises
    ------
    InvalidInputError
        If the name is taken or is no such name, or a choice is none.

    Examples
    --------
    >>> def square_root(values, lower, upper):
    ...     np.sqrt(np.clip(values, 0, upper, out=values), out=values)
    >>> register_standardizer("quantile_clipping_sqrt", square_root)
    >>> "quantile_clipping_sqrt" in registered_standardizers()
    True
    >>> def power(values, *, exponent):
    ...     np.power(values, exponent, out=values)
    >>> register_standardizer("power", power, needs="nothing", parameters={"exponent": 0.5})

    Specs are then written ``"quantile_clipping_sqrt/uq_0.99_image"`` and ``"power/exponent_0.5"``.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"a method's name has lower-case letters, digits and _, starting with a letter; "
            f"got {name!r}"
        )
    if name == IDENTITY or name in _METHODS:
        raise InvalidInputError(f"there is a standardization method {name!r} already")
    for what, value, choices in (
        ("needs", needs, get_args(Needs)),
        ("moments", moments, get_args(UsesMoments)),
    ):
        if value not in choices:
            raise InvalidInputError(f"{what} must be one of {', '.join(choices)}, got {value!r}")
    for parameter in parameters or {}:
        if not re.fullmatch(r"[a-z]+", parameter) or parameter in _TAKEN:
            raise InvalidInputError(
                f"a parameter's name has lower-case letters and is none of "
                f"{', '.join(sorted(_TAKEN))}; got {parameter!r}"
            )
    _METHODS[name] = Method(name, transform, needs, dict(parameters or {}), moments)


def registered_standardizers() -> tuple[str, ...]:
    """Names of all methods, sorted."""
    return tuple(sorted({IDENTITY, *_METHODS}))


def find_method(name: str) -> Method:
    """Return a method other than `identity`.

    Raises
    ------
    InvalidInputError
        If there is none of that name.
    """
    if name not in _METHODS:
        raise InvalidInputError(
            f"no standardization method {name!r}; there are {', '.join(registered_standardizers())}"
        )
    return _METHODS[name]


# The two methods of SPORA, by its formulas; `_EPSILON` as there.
_EPSILON = 1e-8


def _quantile_clipping(values: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any], /) -> None:
    np.clip(values, lower, upper, out=values)
    values -= lower
    values /= upper - lower + values.dtype.type(_EPSILON)


def _quantile_clipping_log1p(
    values: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any], /
) -> None:
    np.clip(values, lower, upper, out=values)
    np.log1p(values, out=values)


def _arcsinh(values: NDArray[Any], /, *, cofactor: float) -> None:
    # Linear up to the cofactor and logarithmic beyond; 5 is what mass cytometry uses (Bendall et
    # al., Science 332, 2011, supplement).
    values /= values.dtype.type(cofactor)
    np.arcsinh(values, out=values)


def _minmax(values: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any], /) -> None:
    # The range may be that of other tissues: what is beyond it is clipped.
    np.clip(values, lower, upper, out=values)
    values -= lower
    # A channel of one value is 0.
    values /= np.where(upper > lower, upper - lower, values.dtype.type(1))


def _zscore(values: NDArray[Any], /) -> None:
    """Leave pixels as they are; mean and standard deviation follow."""


register_standardizer("quantile_clipping", _quantile_clipping)
register_standardizer("quantile_clipping_log1p", _quantile_clipping_log1p)
register_standardizer("arcsinh", _arcsinh, needs="nothing", parameters={"cofactor": 5.0})
register_standardizer("minmax", _minmax, needs="range", moments="never")
register_standardizer("zscore", _zscore, needs="nothing", moments="must")
