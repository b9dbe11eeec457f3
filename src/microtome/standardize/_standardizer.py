"""Multiplex pixels to standardized pixels, by the statistics of their channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.storage import Conversion

from ._channel_statistics import ChannelStatistics
from ._spec import StandardizationSpec
from ._steps import method_steps
from ._tables import StatisticsTables
from ._window import fill_outside

__all__ = ["Standardizer", "build_standardizer"]

_EPSILON = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Standardizer:
    """A standardization with the statistics of one tissue's channels.

    The method's transform is followed by `(y - mean) / (std + 1e-8)`, as in SPORA.

    Parameters
    ----------
    spec
        The method.
    statistics
        Of the channels, in the order of the planes that will be standardized.
    use_mean_std
        Whether to subtract the mean and divide by the standard deviation, where the method leaves
        the choice: `minmax` never does, `zscore` always.
    quantile_mask
        Whether `keep` leaves out channels whose statistics are degenerate.

    Raises
    ------
    InvalidInputError
        If the statistics that the method needs are missing.
    """

    spec: StandardizationSpec
    statistics: ChannelStatistics
    use_mean_std: bool = True
    quantile_mask: bool = True

    def __post_init__(self) -> None:
        statistics = self.statistics
        if self.spec.needs_quantiles and statistics.upper is None:
            raise InvalidInputError(f"{self.spec} needs the upper quantiles of the channels")
        if self._uses_moments and (statistics.mean is None or statistics.std is None):
            raise InvalidInputError(
                f"{self.spec} has no means and standard deviations; compute them, or pass "
                "use_mean_std=False"
            )

    @property
    def _uses_moments(self) -> bool:
        return self.spec.uses_moments(self.use_mean_std)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Channels in the order of the planes."""
        return self.statistics.channel_names

    @property
    def keep(self) -> NDArray[np.bool_]:
        """(C,) False for a channel without signal to standardize by, unless `quantile_mask` is off.

        SPORA's rule: the upper quantile is not finite or not above 0, or the mean or the standard
        deviation, where they are used, is not finite, or the latter not above 0. With `minmax` the
        greatest value has to be above the least instead.
        """
        keep = np.ones(len(self.channel_names), np.bool_)
        statistics = self.statistics
        if not self.quantile_mask:
            return keep
        if self.spec.needs_quantiles and statistics.upper is not None:
            lower = statistics.lower if self.spec.needs_range else None
            floor = 0 if lower is None else lower
            keep &= np.isfinite(statistics.upper) & (statistics.upper > floor)
        if self._uses_moments and statistics.mean is not None and statistics.std is not None:
            keep &= np.isfinite(statistics.mean) & np.isfinite(statistics.std)
            keep &= statistics.std > 0
        return keep

    @property
    def conversion(self) -> Conversion | None:
        """The same for `read_regions` to do while it reads, to the same bytes.

        None where the method is more than a few steps (a logarithm), or where a statistic is no
        finite number.
        """
        statistics = self.statistics
        lower, upper = self._bounds
        with np.errstate(invalid="ignore", over="ignore"):
            steps = method_steps(self.spec, lower, upper)
        if steps is None:
            return None
        if self._uses_moments and statistics.mean is not None and statistics.std is not None:
            steps.append(("subtract", statistics.mean))
            steps.append(("divide", statistics.std + np.float32(_EPSILON)))
        finite = all(np.isfinite(numbers).all() for _, *two in steps for numbers in two)
        return Conversion.of(steps) if finite else None

    @property
    def _bounds(self) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """The lower quantiles, 0 where there are none, and the upper ones."""
        upper, lower = self.statistics.upper, self.statistics.lower
        return (np.zeros_like(upper) if upper is not None and lower is None else lower), upper

    def select(self, channels: ArrayLike) -> Standardizer:
        """Return the standardizer of some channels, by mask (as `keep`) or by index."""
        return Standardizer(
            self.spec, self.statistics.select(channels), self.use_mean_std, self.quantile_mask
        )

    def __call__(
        self,
        image: NDArray[Any],
        *,
        out: NDArray[np.float32] | None = None,
        valid: ArrayLike | None = None,
        fill: float | None = 0.0,
    ) -> NDArray[np.float32]:
        """Standardize an image or a batch.

        Parameters
        ----------
        image
            (C, H, W) or (B, C, H, W) real numbers, C as many as `channel_names`.
        out
            Float32 of the same shape to write to, possibly the image itself; by default new.
        valid
            (row, col, height, width) of the part of the tile that lies inside the image, or (B, 4)
            of them; by default all of it.
        fill
            Value of everything outside `valid`; None leaves what standardization makes of it.

        Returns
        -------
        standardized
            `out`.

        Raises
        ------
        InvalidInputError
            If the shape or type does not fit.
        """
        count = len(self.channel_names)
        if image.ndim not in {3, 4} or image.shape[-3] != count:
            raise InvalidInputError(
                f"an image must be (C, H, W) or (B, C, H, W) with {count} channels, got shape "
                f"{image.shape}"
            )
        out = as_float32(image, out)
        self._apply(out)
        if valid is not None and fill is not None:
            fill_outside(out, valid, fill)
        return out

    def _apply(self, pixels: NDArray[np.float32]) -> None:
        statistics = self.statistics
        lower, upper = self._bounds
        # A degenerate channel that the mask does not leave out comes out as NaN, without a warning.
        with np.errstate(invalid="ignore", divide="ignore"):
            self.spec.transform(pixels, _as_planes(lower), _as_planes(upper))
            if self._uses_moments and statistics.mean is not None and statistics.std is not None:
                pixels -= statistics.mean[:, None, None]
                pixels /= (statistics.std + np.float32(_EPSILON))[:, None, None]


def _as_planes(row: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    return None if row is None else row[:, None, None]


def build_standardizer(
    spec: str | StandardizationSpec,
    channel_names: Sequence[str],
    *,
    tables: StatisticsTables | None = None,
    tissue_id: str | None = None,
    use_mean_std: bool = True,
    quantile_mask: bool = True,
) -> Standardizer:
    """Make the standardizer of one tissue.

    Parameters
    ----------
    spec
        The method, as `StandardizationSpec` or as it is written.
    channel_names
        Channels in the order of the planes that will be standardized.
    tables
        Statistics of the cohort; may be missing where the spec reads none, see
        `StandardizationSpec.reads_statistics`.
    tissue_id
        The tissue; needed where the tables have statistics for each.
    use_mean_std, quantile_mask
        As of `Standardizer`.

    Raises
    ------
    InvalidInputError
        If the spec is none, or there are no tables for it.
    UnknownNameError
        If the tables lack the tissue or a channel.
    """
    if isinstance(spec, str):
        spec = StandardizationSpec.parse(spec)
    if not spec.reads_statistics(use_mean_std):
        statistics = ChannelStatistics(tuple(channel_names))
    elif tables is None:
        raise InvalidInputError(f"{spec} needs statistics; compute them, or use 'identity'")
    else:
        statistics = tables.for_tissue(tissue_id, channel_names)
    return Standardizer(spec, statistics, use_mean_std, quantile_mask)


def as_float32(image: NDArray[Any], out: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Copy pixels to float32, to `out` if given; no copy where `out` is the image."""
    if image.dtype.kind not in "buif":
        raise InvalidInputError(f"pixels must be real numbers, got {image.dtype}")
    if out is None:
        return image.astype(np.float32)
    if out.shape != image.shape or out.dtype != np.float32:
        raise InvalidInputError(
            f"out must be float32 of shape {image.shape}, got {out.dtype} of shape {out.shape}"
        )
    if out is not image:
        np.copyto(out, image, casting="same_kind")
    return out
