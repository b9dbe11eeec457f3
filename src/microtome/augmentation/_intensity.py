"""Brightness and contrast of channels, and channels left out: of the input, never of a target."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._augmentation import Draws

__all__ = ["ChannelDropout", "IntensityJitter"]

_Range = float | tuple[float, float]


@dataclass(frozen=True, slots=True)
class IntensityJitter:
    """Normalized pixels made brighter or darker: ``gain * x ** gamma + offset``.

    A negative x keeps its sign, ``-(-x) ** gamma``, so that the order of pixels stays. Recorded as
    ``"intensity_jitter"``: `gain`, `gamma` and `offset` of each channel.

    Parameters
    ----------
    gain
        Bounds between which every value is equally likely; one number g means ``(1 - g, 1 + g)``.
    offset
        Likewise; one number means ``(-offset, offset)``, in units of normalized pixels.
    gamma
        Likewise; one number g means ``(1 - g, 1 + g)``.
    per_channel
        Whether each channel is changed by itself, or all alike.

    Raises
    ------
    InvalidInputError
        If bounds are reversed, or gain or gamma not above 0.
    """

    gain: _Range = 0.1
    offset: _Range = 0.1
    gamma: _Range = 0.0
    per_channel: bool = True

    name: str = field(default="intensity_jitter", init=False, repr=False)
    geometric: bool = field(default=False, init=False, repr=False)
    targets: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, middle in (("gain", 1.0), ("offset", 0.0), ("gamma", 1.0)):
            given = getattr(self, name)
            single = isinstance(given, int | float)
            low, high = (middle - given, middle + given) if single else given
            if not (np.isfinite([low, high]).all() and low <= high and (middle == 0 or low > 0)):
                limit = "" if middle == 0 else ", above 0"
                msg = f"{name} is a lower and an upper bound{limit}, got {given!r}"
                raise InvalidInputError(msg)
            object.__setattr__(self, name, (float(low), float(high)))

    def draw(
        self, rows: NDArray[np.int64], draws: Draws, shape: tuple[int, ...]
    ) -> Sequence[dict[str, list[float]]]:
        """Choose gain, offset and gamma of each channel; see `Augmentation.draw`."""
        channels = shape[0] if self.per_channel else 1
        share = draws.uniform(rows, 3 * channels).reshape(len(rows), 3, channels)
        bounds = np.asarray([self.gain, self.offset, self.gamma], np.float64)
        low, high = bounds[:, :1], bounds[:, 1:]
        values = (low + share * (high - low)).tolist()
        return [{"gain": a, "offset": b, "gamma": c} for a, b, c in values]

    def apply(self, pixels: NDArray[Any], record: dict[str, list[float]]) -> NDArray[Any]:
        """Change a patch in place; see `Augmentation.apply`."""
        for channel, plane in enumerate(pixels):
            gain, offset, gamma = self._of(record, channel)
            if gamma != 1.0:
                np.copysign(np.abs(plane) ** np.float32(gamma), plane, out=plane)
            np.multiply(plane, np.float32(gain), out=plane)
            np.add(plane, np.float32(offset), out=plane)
        return pixels

    def undo(self, pixels: Any, record: dict[str, list[float]]) -> Any:
        """Return pixels as they were, up to rounding; see `Augmentation.undo`.

        Raises
        ------
        InvalidInputError
            If there are other channels than were changed.
        """
        torch = cast("Any", sys.modules.get("torch"))  # a tensor is there only where torch is
        tensor = isinstance(pixels, getattr(torch, "Tensor", ()))
        made = pixels.to(torch.float32, copy=True) if tensor else np.array(pixels, np.float32)
        if len(record["gain"]) not in {1, len(made)}:
            msg = (
                f"the intensity of {len(record['gain'])} channels was changed, there are "
                f"{len(made)}; a model's answer is turned back with geometry_only=True"
            )
            raise InvalidInputError(msg)
        for channel, plane in enumerate(made):
            gain, offset, gamma = self._of(record, channel)
            plane[...] = (plane - np.float32(offset).item()) / np.float32(gain).item()
            if gamma == 1.0:
                continue
            if tensor:
                plane[...] = torch.copysign(plane.abs() ** (1.0 / gamma), plane)
            else:
                np.copysign(np.abs(plane) ** np.float32(1.0 / gamma), plane, out=plane)
        return made

    @staticmethod
    def _of(record: dict[str, list[float]], channel: int) -> tuple[float, float, float]:
        at = channel if len(record["gain"]) > 1 else 0
        return record["gain"][at], record["offset"][at], record["gamma"][at]


@dataclass(frozen=True, slots=True)
class ChannelDropout:
    """Channels left out at random: a model then does not rely on any one of them.

    One channel always stays. Recorded as ``"channel_dropout"``: the numbers of those left out.

    Parameters
    ----------
    probability
        Of each channel to be left out, from 0 to below 1.
    value
        What its pixels become, after normalization.

    Raises
    ------
    InvalidInputError
        If the probability is out of its range.
    """

    probability: float = 0.1
    value: float = 0.0

    name: str = field(default="channel_dropout", init=False, repr=False)
    geometric: bool = field(default=False, init=False, repr=False)
    targets: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.probability < 1:
            msg = f"probability must be from 0 to below 1, got {self.probability}"
            raise InvalidInputError(msg)

    def draw(
        self, rows: NDArray[np.int64], draws: Draws, shape: tuple[int, ...]
    ) -> Sequence[list[int]]:
        """Choose the channels that are left out; see `Augmentation.draw`."""
        numbers = draws.uniform(rows, shape[0])
        dropped = numbers < self.probability
        # Where all are, the one that was nearest to being kept stays.
        every = np.flatnonzero(dropped.all(axis=1))
        dropped[every, numbers[every].argmax(axis=1)] = False
        return [np.flatnonzero(row).tolist() for row in dropped]

    def apply(self, pixels: NDArray[Any], record: list[int]) -> NDArray[Any]:
        """Fill channels of a patch in place; see `Augmentation.apply`."""
        pixels[record] = self.value
        return pixels

    def undo(self, pixels: Any, record: list[int]) -> Any:
        """Return the pixels as they are: those of a channel that was left out are gone."""
        del record
        return pixels
