"""Which standardization: a method with the numbers it was asked for, written as a path."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Self, get_args

from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._methods import IDENTITY, Method, Needs, find_method

__all__ = ["Level", "StandardizationSpec"]

Level = Literal["image", "global"]
"""Whether a statistic is of each tissue by itself, or of all of them together."""

_NUMBER = r"[0-9][0-9.e+-]*"
_QUANTILES = re.compile(
    rf"uq_(?P<upper>{_NUMBER})(?:_lq_(?P<lower>{_NUMBER}))?_(?P<level>image|global)"
)
_LEVELS = re.compile(r"image|global")
_PARAMETER = re.compile(rf"(?P<name>[a-z]+)_(?P<value>{_NUMBER})(?:_|$)")


@dataclass(frozen=True, slots=True)
class StandardizationSpec:
    """A method, the quantiles of the pixels that it clips at, and its other numbers.

    Written as SPORA does, as a path: `identity`, `quantile_clipping/uq_0.99_image`,
    `quantile_clipping_log1p/uq_0.999_lq_0.01_global`; and in the same manner what SPORA lacks:
    `arcsinh/cofactor_5.0`, `minmax/image`, `zscore`. The suffix is the level of the quantiles only;
    means and standard deviations state theirs in their files' names.

    Raises
    ------
    InvalidInputError
        If no such method is registered, the quantiles are not 0 <= lower < upper <= 1 or it has
        none, or it has no such parameter.
    """

    method: str
    upper_quantile: float | None = None
    """None where the method does not clip at quantiles; 1 where it needs the range."""
    lower_quantile: float | None = None
    """None clips at 0; 0 where the method needs the range."""
    quantile_level: Level | None = None
    """None where the method needs no quantiles."""
    parameters: tuple[tuple[str, float], ...] = ()
    """Names and numbers, in the order of the method's; a mapping is taken as well, and what it
    lacks is the method's default."""

    def __post_init__(self) -> None:
        quantiles = (self.upper_quantile, self.lower_quantile, self.quantile_level)
        if self.method == IDENTITY:
            if quantiles != (None, None, None) or dict(self.parameters):
                given = {**_given(quantiles), **dict(self.parameters)}
                raise InvalidInputError(
                    f"identity has no quantiles and no parameters, got {_told(given)}"
                )
            object.__setattr__(self, "parameters", ())
            return
        method = find_method(self.method)
        object.__setattr__(self, "parameters", _parameters(method, self.parameters))
        if method.needs == "nothing":
            if quantiles != (None, None, None):
                raise InvalidInputError(
                    f"{self.method} has no quantiles, got {_told(_given(quantiles))}"
                )
            return
        if self.quantile_level not in get_args(Level):
            raise InvalidInputError(
                f"quantile_level must be 'image' or 'global', got {self.quantile_level!r}"
            )
        for name in ("upper_quantile", "lower_quantile"):
            value: Any = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
                raise InvalidInputError(f"{name} must be a number from 0 to 1, got {value!r}")
        if method.needs == "range":
            if self.upper_quantile not in {None, 1} or self.lower_quantile not in {None, 0}:
                raise InvalidInputError(
                    f"{self.method} takes the least and the greatest value, no quantiles; got "
                    f"lower {self.lower_quantile} and upper {self.upper_quantile}"
                )
            object.__setattr__(self, "upper_quantile", 1.0)
            object.__setattr__(self, "lower_quantile", 0.0)
            return
        lower = 0.0 if self.lower_quantile is None else self.lower_quantile
        if self.upper_quantile is None or not 0 <= lower < self.upper_quantile <= 1:
            raise InvalidInputError(
                f"quantiles must be 0 <= lower < upper <= 1, got lower {self.lower_quantile} and "
                f"upper {self.upper_quantile}"
            )
        # A whole number is written like the float that it equals.
        object.__setattr__(self, "upper_quantile", float(self.upper_quantile))
        if self.lower_quantile is not None:
            object.__setattr__(self, "lower_quantile", float(self.lower_quantile))

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
        >>> StandardizationSpec.parse("arcsinh/cofactor_5.0").parameters
        (('cofactor', 5.0),)
        """
        name, _, rest = text.partition("/")
        try:
            spec = cls(name, *_read(rest))
        except InvalidInputError as error:
            raise InvalidInputError(
                f"{text!r} is no standardization: {error}. Write 'identity' or, for example, "
                "'quantile_clipping/uq_0.99_image' (or _global; _lq_0.01 before it)"
            ) from None
        if str(spec) != text:
            # It names a directory: two spellings of one number would be two directories.
            raise InvalidInputError(f"{text!r} must be written {str(spec)!r}")
        return spec

    @staticmethod
    def needs_of(method: str) -> Needs:
        """What a method has to know of a channel before it can be written as a spec.

        Raises
        ------
        InvalidInputError
            If there is no such method.
        """
        return "nothing" if method == IDENTITY else find_method(method).needs

    def __str__(self) -> str:
        return "/".join(self.parts) or IDENTITY

    @property
    def parts(self) -> tuple[str, ...]:
        """Directories under `standardization/` where the statistics lie; none for `identity`."""
        if self.method == IDENTITY:
            return ()
        words = [f"{name}_{value!r}" for name, value in self.parameters]
        if self.quantile_level is not None:
            if not self.needs_range:
                words.append(f"uq_{self.upper_quantile!r}")
                if self.lower_quantile is not None:
                    words.append(f"lq_{self.lower_quantile!r}")
            words.append(self.quantile_level)
        return (self.method, "_".join(words)) if words else (self.method,)

    @property
    def needs_statistics(self) -> bool:
        """Whether the method has statistics of a cohort at all: all but `identity` do.

        `reads_statistics` says whether pixels cannot be standardized without them.
        """
        return self.method != IDENTITY

    @property
    def needs_quantiles(self) -> bool:
        """Whether pixels cannot be transformed without quantiles of their channels."""
        return self.quantile_level is not None

    @property
    def needs_range(self) -> bool:
        """Whether the quantiles are the least and the greatest value, whatever they are."""
        return self.needs_quantiles and find_method(self.method).needs == "range"

    @property
    def has_moments(self) -> bool:
        """Whether means and standard deviations are computed, to follow the transform."""
        return self.method != IDENTITY and find_method(self.method).moments != "never"

    def uses_moments(self, use_mean_std: bool) -> bool:  # noqa: FBT001 - the seed's word
        """Whether the mean is subtracted and the result divided by the standard deviation.

        Parameters
        ----------
        use_mean_std
            What was asked for.

        Raises
        ------
        InvalidInputError
            If the method is nothing without and they were declined.
        """
        if not self.has_moments:
            return False
        if find_method(self.method).moments == "must" and not use_mean_std:
            raise InvalidInputError(
                f"{self} is nothing without means and standard deviations; use 'identity', or "
                "leave use_mean_std=True"
            )
        return use_mean_std

    def reads_statistics(self, use_mean_std: bool) -> bool:  # noqa: FBT001 - the seed's word
        """Whether pixels cannot be standardized without tables: `arcsinh` can, without means.

        Raises
        ------
        InvalidInputError
            If the method is nothing without means and they were declined.
        """
        return self.uses_moments(use_mean_std) or self.needs_quantiles

    def transform(
        self,
        values: NDArray[Any],
        lower: NDArray[Any] | None = None,
        upper: NDArray[Any] | None = None,
        /,
    ) -> None:
        """Apply the method to float pixels in place, before means and standard deviations.

        Parameters
        ----------
        values
            Float pixels of any shape.
        lower, upper
            Quantiles of their channels, shaped to broadcast against them; None where the method
            needs none.

        Raises
        ------
        InvalidInputError
            If the method needs quantiles and there are none.
        """
        if self.method == IDENTITY:
            return
        method = find_method(self.method)
        if method.needs == "nothing":
            method.transform(values, **dict(self.parameters))
            return
        if lower is None or upper is None:
            raise InvalidInputError(f"{self} needs the lower and upper quantiles of the channels")
        method.transform(values, lower, upper, **dict(self.parameters))


def _given(quantiles: tuple[Any, Any, Any]) -> dict[str, Any]:
    """Return those that are there, by name."""
    names = ("upper_quantile", "lower_quantile", "quantile_level")
    return {n: each for n, each in zip(names, quantiles, strict=True) if each is not None}


def _told(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


def _parameters(
    method: Method, given: tuple[tuple[str, float], ...] | Mapping[str, float]
) -> tuple[tuple[str, float], ...]:
    """Numbers of a method, defaults where none is given."""
    numbers = dict(given)
    unknown = [name for name in numbers if name not in method.parameters]
    if unknown:
        known = ", ".join(method.parameters) or "none"
        raise InvalidInputError(f"{method.name} has no parameter {unknown[0]!r}; it has {known}")
    merged = {**method.parameters, **numbers}
    for name, value in merged.items():
        # No parameter makes sense at zero, by which `cofactor` would divide, or below.
        if not (math.isfinite(value) and value > 0):
            raise InvalidInputError(f"{name} of {method.name} must be above 0, got {value!r}")
    return tuple((name, float(value)) for name, value in merged.items())


def _read(
    text: str,
) -> tuple[float | None, float | None, Level | None, tuple[tuple[str, float], ...]]:
    """Numbers in the second part of a spec."""
    parameters: list[tuple[str, float]] = []
    while text and not (_QUANTILES.fullmatch(text) or _LEVELS.fullmatch(text)):
        found = _PARAMETER.match(text)
        if found is None or found["name"] in {"uq", "lq"}:
            raise InvalidInputError(
                f"{text!r} must be, for example, uq_0.99_image, uq_0.999_lq_0.01_global or "
                "cofactor_5.0"
            )
        parameters.append((found["name"], _number(found["value"])))
        text = text[found.end() :]
    if not text:
        return None, None, None, tuple(parameters)
    match = _QUANTILES.fullmatch(text)
    level: Level = "image" if text.endswith("image") else "global"
    if match is None:
        return None, None, level, tuple(parameters)
    lower = None if match["lower"] is None else _number(match["lower"])
    return _number(match["upper"]), lower, level, tuple(parameters)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(f"{text!r} is no number") from None
