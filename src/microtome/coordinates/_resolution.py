"""Pixel size as a value that knows where it came from, and a cohort's nominal resolution."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from typing import Literal

from microtome.errors import InvalidInputError, NoResolutionError

__all__ = ["MPP_SOURCES", "Mpp", "MppSource", "Resolution"]

MppSource = Literal["metadata", "tag", "user"]
"""Where a pixel size was read: structured metadata, a TIFF resolution tag, or the user."""

MPP_SOURCES: tuple[MppSource, ...] = ("metadata", "tag", "user")

# A light microscope resolves about 0.2 um and no tissue scanner samples coarser than a preview;
# MIBI and electron images go lower, mass spectrometry imaging higher. Outside this range a
# "resolution" is a typographic DPI or a missing unit, not a pixel size.
_SANE = (1e-4, 1e3)

_NUMBER = r"[0-9]+(?:_[0-9]+)?"
_DIRECTORY = re.compile(rf"({_NUMBER})(?:x({_NUMBER}))?mpp")
# What people type. Decimal itself would read "0_5" as 5: an underscore is nothing to it.
_TYPED = re.compile(r"[0-9]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Mpp:
    """Micrometres per pixel.

    Parameters
    ----------
    y, x
        Height and width of a pixel in micrometres.
    source
        Where the number was found.

    Raises
    ------
    NoResolutionError
        If a number is not finite or not a possible pixel size (1e-4 to 1e3 um).

    Examples
    --------
    >>> Mpp(0.5, 0.5, "user").scaled(2)
    Mpp(y=1.0, x=1.0, source='user')
    """

    y: float
    x: float
    source: MppSource

    def __post_init__(self) -> None:
        if self.source not in MPP_SOURCES:
            msg = f"mpp source must be one of {MPP_SOURCES}, got {self.source!r}"
            raise InvalidInputError(msg)
        for value in (self.y, self.x):
            if not (math.isfinite(value) and _SANE[0] <= value <= _SANE[1]):
                msg = (
                    f"{self.y} x {self.x} um per pixel (from {self.source}) is not a possible "
                    "pixel size; give the right one with --mpp (mpp=)"
                )
                raise NoResolutionError(msg)

    @classmethod
    def from_user(cls, value: float | tuple[float, float] | Mpp) -> Mpp:
        """Take what a caller typed: one number, a (y, x) pair, or an `Mpp` as it is.

        Raises
        ------
        InvalidInputError
            If it is none of these.
        NoResolutionError
            If a number is not a possible pixel size.
        """
        if isinstance(value, Mpp):
            return value
        try:
            y, x = value if isinstance(value, tuple) else (value, value)
            return cls(float(y), float(x), "user")
        except NoResolutionError:
            raise
        except (TypeError, ValueError) as error:
            msg = f"{value!r} is no pixel size; give micrometres per pixel, a number or (y, x)"
            raise InvalidInputError(msg) from error

    def scaled(self, factor_y: float, factor_x: float | None = None) -> Mpp:
        """Return the pixel size of a level that is coarser by these factors."""
        return Mpp(
            self.y * factor_y, self.x * (factor_y if factor_x is None else factor_x), self.source
        )

    def __str__(self) -> str:
        size = f"{self.y:g}" if self.y == self.x else f"{self.y:g} x {self.x:g} (y, x)"
        return f"{size} um/px (from {self.source})"


@dataclass(frozen=True, slots=True)
class Resolution:
    """The nominal resolution of a cohort, typed once.

    Parameters
    ----------
    y, x
        Micrometres per pixel, exact decimals.

    Examples
    --------
    `1`, `1.0`, `"1.0"` and `"1_0mpp"` are one value (spora_io names directories this way):

    >>> {Resolution.parse(1), Resolution.parse("1.0"), Resolution.parse("1_0mpp")}
    {Resolution(y=Decimal('1'), x=Decimal('1'))}
    >>> Resolution.parse(0.65).directory
    '0_65mpp'
    """

    y: Decimal
    x: Decimal

    @classmethod
    def parse(cls, value: float | str | tuple[float, float] | Resolution) -> Resolution:
        """Read a resolution from a number, a string, a (y, x) pair or a directory name.

        Raises
        ------
        InvalidInputError
            If it is none of these, or not a possible pixel size.
        """
        if isinstance(value, Resolution):
            return value
        if isinstance(value, tuple):
            if len(value) != 2:
                msg = f"a resolution is one number or (y, x), got {value!r}"
                raise InvalidInputError(msg)
            return cls(_decimal(value[0]), _decimal(value[1]))
        if isinstance(value, str) and (match := _DIRECTORY.fullmatch(value)):
            y, x = match.group(1), match.group(2) or match.group(1)
            return cls(_decimal(y.replace("_", ".")), _decimal(x.replace("_", ".")))
        number = _decimal(value)
        return cls(number, number)

    @property
    def directory(self) -> str:
        """Name of the directory that holds images of this resolution."""
        y, x = _plain(self.y), _plain(self.x)
        return f"{y}mpp" if y == x else f"{y}x{x}mpp"

    @property
    def mpp(self) -> tuple[float, float]:
        """Micrometres per pixel as floats, (y, x)."""
        return float(self.y), float(self.x)

    def serves(self, other: Resolution) -> bool:
        """Whether images of this one can be resampled to another: it is as fine along both axes."""
        return self.y <= other.y and self.x <= other.x

    def __str__(self) -> str:
        return f"{self.y}" if self.y == self.x else f"{self.y} x {self.x}"


def _decimal(value: float | str) -> Decimal:
    # Through the shortest decimal that prints the float: 0.65, not 0.65000000000000002.
    text = str(value)
    try:
        number = Decimal(text if _TYPED.fullmatch(text) else "NaN").normalize()
    except DecimalException:  # malformed, or past the largest exponent
        number = Decimal("NaN")
    if not number.is_finite() or not _SANE[0] <= float(number) <= _SANE[1]:
        msg = f"{value!r} is not a resolution; give micrometres per pixel such as 0.5, or '0_5mpp'"
        raise InvalidInputError(msg)
    return number.quantize(Decimal(1)) if number == number.to_integral_value() else number


def _plain(number: Decimal) -> str:
    text = format(number, "f")
    return (text if "." in text else f"{text}.0").replace(".", "_")
