"""What a normalization is, and the four kinds of it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.storage import Conversion

from ._affine import conversion_of, float_batch, float_tensor, shifted_and_scaled, taken_back

__all__ = [
    "MeanStdNormalization",
    "MinMaxNormalization",
    "NoNormalization",
    "Normalization",
    "QuantileNormalization",
    "normalization_from_dict",
    "quantile_pair",
]

_VERSION = 1
_FORMAT = "microtome-normalization"


@runtime_checkable
class Normalization(Protocol):
    """Turns stored pixels into what a model is given, and a model's answer into pixels."""

    kind: ClassVar[str]
    """What sort of normalization this is."""

    @property
    def target(self) -> Normalization | None:
        """Normalization of the targets, where they have one of their own."""
        ...

    def normalize(self, batch: Any, out: NDArray[np.float32] | None = None) -> Any:
        """Normalize a batch.

        Parameters
        ----------
        batch
            Stored pixels, (B, C, (Z), Y, X), an array or a tensor; the result is of the same kind,
            float32. A single patch is a batch of one, ``patch[None]``.
        out
            Buffer of that shape to fill; a new one by default, and of a tensor always.
        """
        ...

    def denormalize(self, batch: Any) -> Any:
        """Take a model's answer back to pixels: of the target where that has statistics of its own.

        Parameters
        ----------
        batch
            (B, C, (Z), Y, X), an array or a tensor; the result is of the same kind, float32.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as numbers, strings, lists and dictionaries."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Affine:
    """``(pixel - shift) / scale``; subclasses say which statistics these are made of."""

    eps: float = 1e-6
    target: Normalization | None = None
    fitted_on: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)

    kind: ClassVar[str] = ""
    statistics: ClassVar[tuple[str, str]] = ("", "")
    options: ClassVar[tuple[str, ...]] = ("eps",)

    def __post_init__(self) -> None:
        for name in self.statistics:
            given = getattr(self, name)
            values = (given,) if isinstance(given, int | float | np.number) else given
            object.__setattr__(self, name, tuple(float(value) for value in values))
        one, other = self._own
        if not one or len(one) != len(other) or not all(map(math.isfinite, (*one, *other))):
            names = " and ".join(self.statistics)
            msg = f"{names} are as many finite numbers, one a channel or one for all; got {one} and {other}"
            raise InvalidInputError(msg)
        shift, scale = self._shift_and_scale()
        if not (scale > 0).all():
            channel = int(np.flatnonzero(~(scale > 0))[0])
            msg = (
                f"{self.kind}: channel {channel} is shifted by {shift[channel]} and divided by "
                f"{scale[channel]}, which must be above 0"
            )
            raise InvalidInputError(msg)

    @property
    def _own(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        first, second = self.statistics
        return getattr(self, first), getattr(self, second)

    @abstractmethod
    def _shift_and_scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

    def normalize(self, batch: Any, out: NDArray[np.float32] | None = None) -> Any:
        """Normalize a batch; see `Normalization.normalize`.

        Raises
        ------
        InvalidInputError
            If it has another number of channels, or `out` does not fit.
        """
        return shifted_and_scaled(batch, *self._shift_and_scale(), out)

    def denormalize(self, batch: Any) -> Any:
        """Take a model's answer back to pixels; see `Normalization.denormalize`.

        Raises
        ------
        InvalidInputError
            If it has another number of channels.
        """
        if self.target is not None:
            return self.target.denormalize(batch)
        return taken_back(batch, *self._shift_and_scale())

    def conversion(self, channels: int, dtype: np.dtype[Any]) -> Conversion | None:
        """Return what `normalize` does as steps for `read_regions(..., convert=)`, to the last bit.

        Parameters
        ----------
        channels
            Number of channels that are read.
        dtype
            Of the stored pixels; None is returned for one that float32 does not hold.

        Raises
        ------
        InvalidInputError
            If they are other channels.
        """
        return conversion_of(*self._shift_and_scale(), channels, dtype)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as numbers, strings, lists and dictionaries."""
        made: dict[str, Any] = {"format": _FORMAT, "version": _VERSION, "kind": self.kind}
        for name in (*self.statistics, *self.options):
            value = getattr(self, name)
            made[name] = (
                list(cast("tuple[float, ...]", value)) if isinstance(value, tuple) else value
            )
        made["target"] = None if self.target is None else self.target.to_dict()
        made["fitted_on"] = dict(self.fitted_on)
        return made

    @classmethod
    def from_dict(cls, made: Mapping[str, Any]) -> Self:
        """Make one of what `to_dict` gave.

        Raises
        ------
        InvalidInputError
            If it is of another kind, or something is missing.
        """
        names = (*cls.statistics, *cls.options)
        if made.get("kind") != cls.kind or any(name not in made for name in names):
            msg = f"a {cls.kind} normalization has {', '.join(names)}; got {dict(made)}"
            raise InvalidInputError(msg)
        given = {name: made[name] for name in names}
        return cls(**given, target=_target_of(made), fitted_on=dict(made.get("fitted_on") or {}))


@dataclass(frozen=True, slots=True)
class MeanStdNormalization(_Affine):
    """``(pixel - mean) / (std + eps)``.

    Parameters
    ----------
    means, stds
        Of each channel; one number stands for all.
    eps
        Keeps a channel of one value from dividing by zero.
    target
        Normalization of the targets; `denormalize` is then that one's.
    fitted_on
        What the statistics are of.

    Raises
    ------
    InvalidInputError
        If there are not as many of both, or one is negative, infinite or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> normalization = MeanStdNormalization([10.0], [2.0], eps=0.0)
    >>> normalization.normalize(np.array([[[[10, 14]]]], np.uint16))
    array([[[[0., 2.]]]], dtype=float32)
    """

    means: Sequence[float]
    stds: Sequence[float]

    kind: ClassVar[str] = "mean_std"
    statistics: ClassVar[tuple[str, str]] = ("means", "stds")

    def _shift_and_scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.asarray(self.means), np.asarray(self.stds) + self.eps


@dataclass(frozen=True, slots=True)
class MinMaxNormalization(_Affine):
    """``(pixel - minimum) / (maximum - minimum + eps)``; what lies outside is not cut off.

    Parameters
    ----------
    minima, maxima
        Of each channel; one number stands for all.
    eps
        Keeps a channel of one value from dividing by zero.
    target, fitted_on
        As of `MeanStdNormalization`.

    Raises
    ------
    InvalidInputError
        If there are not as many of both, one is no number, or a maximum lies below its minimum.
    """

    minima: Sequence[float]
    maxima: Sequence[float]
    eps: float = field(default=1e-8, kw_only=True)

    kind: ClassVar[str] = "min_max"
    statistics: ClassVar[tuple[str, str]] = ("minima", "maxima")

    def _shift_and_scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        low = np.asarray(self.minima)
        return low, np.asarray(self.maxima) - low + self.eps


@dataclass(frozen=True, slots=True)
class QuantileNormalization(_Affine):
    """``(pixel - lower) / (upper - lower + eps)`` with two quantiles; nothing is cut off.

    Parameters
    ----------
    lower_values, upper_values
        The quantiles of each channel; one number stands for all.
    quantiles
        Which quantiles these are, from 0 to 1.
    eps
        Keeps a channel of one value from dividing by zero.
    target, fitted_on
        As of `MeanStdNormalization`.

    Raises
    ------
    InvalidInputError
        If there are not as many of both, one is no number, or an upper one lies below its lower.
    """

    lower_values: Sequence[float]
    upper_values: Sequence[float]
    quantiles: Sequence[float] = (0.01, 0.99)

    kind: ClassVar[str] = "quantile"
    statistics: ClassVar[tuple[str, str]] = ("lower_values", "upper_values")
    options: ClassVar[tuple[str, ...]] = ("quantiles", "eps")

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", quantile_pair(self.quantiles))
        _Affine.__post_init__(self)  # super() knows no class that was made anew for its slots

    def _shift_and_scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        low = np.asarray(self.lower_values)
        return low, np.asarray(self.upper_values) - low + self.eps


@dataclass(frozen=True, slots=True)
class NoNormalization:
    """Pixels as they are, as float32.

    Parameters
    ----------
    target
        Normalization of the targets, or None.
    """

    target: Normalization | None = None

    kind: ClassVar[str] = "none"

    def normalize(self, batch: Any, out: NDArray[np.float32] | None = None) -> Any:
        """Return a batch as float32; see `Normalization.normalize`.

        Raises
        ------
        InvalidInputError
            If `out` does not fit.
        """
        tensor = float_tensor(batch, out)
        if tensor is not None:
            return tensor
        made = float_batch(batch, out)
        np.copyto(made, batch, casting="unsafe")
        return made

    def denormalize(self, batch: Any) -> Any:
        """Return the answer as it is, or taken back by the target's normalization."""
        return batch if self.target is None else self.target.denormalize(batch)

    def conversion(self, channels: int, dtype: np.dtype[Any]) -> Conversion | None:
        """Return what `normalize` does, nothing, for `read_regions(..., convert=)`."""
        del channels
        return Conversion.of() if np.can_cast(dtype, np.float32) else None

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as numbers, strings, lists and dictionaries."""
        target = None if self.target is None else self.target.to_dict()
        return {"format": _FORMAT, "version": _VERSION, "kind": self.kind, "target": target}

    @classmethod
    def from_dict(cls, made: Mapping[str, Any]) -> Self:
        """Make one of what `to_dict` gave.

        Raises
        ------
        InvalidInputError
            If it is of another kind.
        """
        if made.get("kind") != cls.kind:
            msg = f"a {cls.kind} normalization was expected, got {dict(made)}"
            raise InvalidInputError(msg)
        return cls(_target_of(made))


_KINDS = {
    cls.kind: cls
    for cls in (MeanStdNormalization, MinMaxNormalization, NoNormalization, QuantileNormalization)
}


def normalization_from_dict(made: Mapping[str, Any]) -> Normalization:
    """Make a normalization of what its `to_dict` gave.

    Parameters
    ----------
    made
        The dictionary.

    Raises
    ------
    InvalidInputError
        If it is no normalization, of a newer version, or of a kind that is not known.
    """
    if made.get("format") != _FORMAT or made.get("version") != _VERSION:
        msg = f"not a {_FORMAT} of version {_VERSION}: {dict(made)}"
        raise InvalidInputError(msg)
    cls = _KINDS.get(str(made.get("kind")))
    if cls is None:
        msg = f"a normalization is one of {sorted(_KINDS)}, got {made.get('kind')!r}"
        raise InvalidInputError(msg)
    return cls.from_dict(made)


def _target_of(made: Mapping[str, Any]) -> Normalization | None:
    """Return the normalization of the targets that a dictionary holds."""
    target = made.get("target")
    return None if target is None else normalization_from_dict(cast("Mapping[str, Any]", target))


def quantile_pair(quantiles: Sequence[float]) -> tuple[float, float]:
    """Return a lower and an upper quantile.

    Raises
    ------
    InvalidInputError
        If they are not two numbers from 0 to 1, the lower first.
    """
    pair = tuple(float(value) for value in quantiles)
    if len(pair) != 2 or not 0 <= pair[0] < pair[1] <= 1:
        msg = f"quantiles are a lower and an upper one, from 0 to 1, got {tuple(quantiles)}"
        raise InvalidInputError(msg)
    return pair[0], pair[1]
