"""Which standardization: a method and the quantiles it clips at, written as a path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

__all__ = [
    "Level",
    "StandardizationSpec",
    "Transform",
    "register_standardizer",
    "registered_standardizers",
]

Level = Literal["image", "global"]
"""Whether a statistic is of each tissue by itself, or of all of them together."""


class Transform(Protocol):
    """Change pixels in place, given the quantiles of their channels."""

    def __call__(
        self, values: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any], /
    ) -> None: ...


_IDENTITY = "identity"
_METHODS: dict[str, Transform] = {}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SPEC = re.compile(
    r"(?P<method>[^/]+)/uq_(?P<upper>[0-9.]+)(?:_lq_(?P<lower>[0-9.]+))?_(?P<level>image|global)"
)


def register_standardizer(name: str, transform: Transform) -> None:
    """Add a method of standardization under a name that specs can then use.

    Parameters
    ----------
    name
        Lower-case letters, digits and `_`; a directory on disk.
    transform
        Called with float pixels to change in place, and the lower and upper quantile of their
        channels, which broadcast against them.

    Raises
    ------
    InvalidInputError
        If the name is taken or is no such name.

    Examples
    --------
    >>> def square_root(values, lower, upper):
    ...     np.sqrt(np.clip(values, 0, upper, out=values), out=values)
    >>> register_standardizer("quantile_clipping_sqrt", square_root)
    >>> StandardizationSpec.parse("quantile_clipping_sqrt/uq_0.99_image").method
    'quantile_clipping_sqrt'
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"a method's name has lower-case letters, digits and _, starting with a letter; "
            f"got {name!r}"
        )
    if name == _IDENTITY or name in _METHODS:
        raise InvalidInputError(f"there is a standardization method {name!r} already")
    _METHODS[name] = transform


def registered_standardizers() -> tuple[str, ...]:
    """Names of all methods, sorted."""
    return tuple(sorted({_IDENTITY, *_METHODS}))


@dataclass(frozen=True, slots=True)
class StandardizationSpec:
    """A method, and the quantiles of the pixels that it clips at.

    Written as SPORA does: `identity`, `quantile_clipping/uq_0.99_image`,
    `quantile_clipping_log1p/uq_0.999_lq_0.01_global`. The suffix is the level of the quantiles
    only; means and standard deviations state theirs in their files' names.

    Raises
    ------
    InvalidInputError
        If no such method is registered, or the quantiles are not 0 <= lower < upper <= 1.
    """

    method: str
    upper_quantile: float | None = None
    """None for `identity` alone."""
    lower_quantile: float | None = None
    """None clips at 0."""
    quantile_level: Level | None = None
    """None for `identity` alone."""

    def __post_init__(self) -> None:
        if self.method not in registered_standardizers():
            raise InvalidInputError(
                f"no standardization method {self.method!r}; there are "
                f"{', '.join(registered_standardizers())}"
            )
        quantiles = (self.upper_quantile, self.lower_quantile, self.quantile_level)
        if self.method == _IDENTITY:
            if quantiles != (None, None, None):
                raise InvalidInputError(f"identity has no quantiles, got {quantiles}")
            return
        if self.quantile_level not in get_args(Level):
            raise InvalidInputError(
                f"quantile_level must be 'image' or 'global', got {self.quantile_level!r}"
            )
        lower = 0.0 if self.lower_quantile is None else self.lower_quantile
        if self.upper_quantile is None or not 0 <= lower < self.upper_quantile <= 1:
            raise InvalidInputError(
                f"quantiles must be 0 <= lower < upper <= 1, got lower {self.lower_quantile} and "
                f"upper {self.upper_quantile}"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a spec as it is written.

        Raises
        ------
        InvalidInputError
            If it is no spec.

        Examples
        --------
        >>> StandardizationSpec.parse("quantile_clipping/uq_0.99_image").upper_quantile
        0.99
        """
        if text == _IDENTITY:
            return cls(_IDENTITY)
        match = _SPEC.fullmatch(text)
        if match is None:
            raise InvalidInputError(
                f"{text!r} is no standardization; write 'identity' or, for example, "
                "'quantile_clipping/uq_0.99_image' (or _global; _lq_0.01 before it)"
            )
        try:
            upper = float(match["upper"])
            lower = None if match["lower"] is None else float(match["lower"])
        except ValueError:
            raise InvalidInputError(f"{text!r} has a quantile that is no number") from None
        level: Level = "image" if match["level"] == "image" else "global"
        spec = cls(match["method"], upper, lower, level)
        if str(spec) != text:
            # It names a directory: two spellings of one number would be two directories.
            raise InvalidInputError(f"{text!r} must be written {str(spec)!r}")
        return spec

    def __str__(self) -> str:
        return "/".join(self.parts) or _IDENTITY

    @property
    def parts(self) -> tuple[str, ...]:
        """Directories under `standardization/` where the statistics lie; none for `identity`."""
        if self.method == _IDENTITY:
            return ()
        lower = "" if self.lower_quantile is None else f"_lq_{self.lower_quantile!r}"
        return (self.method, f"uq_{self.upper_quantile!r}{lower}_{self.quantile_level}")

    @property
    def needs_statistics(self) -> bool:
        """Whether pixels cannot be standardized without quantiles."""
        return self.method != _IDENTITY

    def transform(self, values: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any], /) -> None:
        """Apply the method to float pixels in place, before means and standard deviations.

        Parameters
        ----------
        values
            Float pixels of any shape.
        lower, upper
            Quantiles of their channels, shaped to broadcast against them.
        """
        if self.method != _IDENTITY:
            _METHODS[self.method](values, lower, upper)


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


register_standardizer("quantile_clipping", _quantile_clipping)
register_standardizer("quantile_clipping_log1p", _quantile_clipping_log1p)
