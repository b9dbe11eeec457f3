"""What is asked of the pixels of a patch's place before it is drawn as often as others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import ArrayStack, Channels, MemoryArray, as_array
from microtome.regions import Stack

__all__ = [
    "MaskFilter",
    "MaxFilter",
    "MeanStdFilter",
    "PatchFilter",
    "ShannonFilter",
    "TissueFilter",
]

# CAREamics' share of a patch that is not background: a quarter of an area, an eighth of a volume.
_COVERAGE = {2: 0.25, 3: 0.125}

Shares = tuple[NDArray[np.float64], ...]


class PatchFilter(ABC):
    """A rule that tells places with something in them from background.

    Write one of your own as a frozen dataclass: what `filter_map` keeps on disk is known by the
    class and its fields.
    """

    deciding: ClassVar[frozenset[str]] = frozenset()
    """Names of fields that only `keeps` looks at: statistics are the same whatever they are."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the statistics that `measure` returns."""

    @property
    def channels(self) -> Channels | None:
        """Channels whose mean is looked at; None for all."""
        return 0

    @property
    def masks(self) -> Sequence[Stack] | None:
        """What is looked at instead of the images, one for each of them; None for the images."""
        return None

    @abstractmethod
    def measure(self, pixels: NDArray[Any], shares: Shares) -> NDArray[np.float64]:
        """Return the statistics of places of one size.

        Parameters
        ----------
        pixels
            (n, (Z), Y, X).
        shares
            How much of each pixel lies in the place, along each axis (n, size) from 0 to 1; less
            than 1 at the border, where pixels are those of a coarser level.

        Returns
        -------
        (n, statistics).
        """

    @abstractmethod
    def keeps(self, values: NDArray[np.float64], rank: int) -> NDArray[np.bool_]:
        """Say which places are not background, (n,).

        Parameters
        ----------
        values
            What `measure` returned, (n, statistics); NaN for a place outside of its image.
        rank
            Number of spatial axes.
        """

    @property
    def settings(self) -> str:
        """What changes the statistics, as text."""
        kind = type(self)
        shown = {
            part.name: getattr(self, part.name)
            for part in (fields(self) if hasattr(kind, "__dataclass_fields__") else ())  # pyright: ignore[reportArgumentType] - a dataclass here
            if part.repr and part.name not in self.deciding
        }
        return f"{kind.__module__}.{kind.__qualname__} {shown!r}"


@dataclass(frozen=True)
class MeanStdFilter(PatchFilter):
    """Places that are bright, and not flat.

    Parameters
    ----------
    mean_threshold
        Least mean.
    std_threshold
        Least standard deviation, or None for any.
    channel
        Channel that is looked at, by number or name; the mean of several, of all with None.
    """

    deciding: ClassVar[frozenset[str]] = frozenset({"mean_threshold", "std_threshold"})

    mean_threshold: float
    std_threshold: float | None = None
    _: KW_ONLY
    channel: Channels | None = 0

    @property
    def names(self) -> tuple[str, ...]:
        """``("mean", "std")``."""
        return "mean", "std"

    @property
    def channels(self) -> Channels | None:
        """Channels whose mean is looked at; None for all."""
        return self.channel

    def measure(self, pixels: NDArray[Any], shares: Shares) -> NDArray[np.float64]:
        """Return mean and standard deviation, (n, 2)."""
        del shares
        flat = pixels.reshape(len(pixels), -1)
        mean = flat.mean(axis=1, dtype=np.float64)
        return np.stack([mean, flat.std(axis=1, dtype=np.float64)], axis=1)

    def keeps(self, values: NDArray[np.float64], rank: int) -> NDArray[np.bool_]:
        """Keep what reaches both thresholds."""
        del rank
        kept = values[:, 0] >= self.mean_threshold
        return kept if self.std_threshold is None else kept & (values[:, 1] >= self.std_threshold)


@dataclass(frozen=True)
class ShannonFilter(PatchFilter):
    """Places whose values tell something: the entropy of their histogram.

    Parameters
    ----------
    threshold
        Least entropy, in bits; every value that occurs is a bin.
    channel
        As of `MeanStdFilter`.
    """

    deciding: ClassVar[frozenset[str]] = frozenset({"threshold"})

    threshold: float
    _: KW_ONLY
    channel: Channels | None = 0

    @property
    def names(self) -> tuple[str, ...]:
        """``("entropy",)``."""
        return ("entropy",)

    @property
    def channels(self) -> Channels | None:
        """Channels whose mean is looked at; None for all."""
        return self.channel

    def measure(self, pixels: NDArray[Any], shares: Shares) -> NDArray[np.float64]:
        """Return the entropy in bits, (n, 1)."""
        del shares
        flat = np.sort(pixels.reshape(len(pixels), -1), axis=1)
        count = flat.shape[1]
        new = np.ones(flat.shape, np.bool_)
        new[:, 1:] = flat[:, 1:] != flat[:, :-1]
        # Values that are equal lie side by side: a run a value, and a run ends with its row.
        begins = np.flatnonzero(new)
        runs = np.diff(begins, append=flat.size).astype(np.float64)
        sums = np.bincount(begins // count, runs * np.log2(runs), minlength=len(flat))
        return (np.log2(count) - sums / count)[:, None]

    def keeps(self, values: NDArray[np.float64], rank: int) -> NDArray[np.bool_]:
        """Keep what reaches the threshold."""
        del rank
        return values[:, 0] >= self.threshold


@dataclass(frozen=True)
class MaxFilter(PatchFilter):
    """Places of which enough lies near something bright (the rule of CSBDeep).

    Each pixel gets the maximum of its neighbourhood, which is half as large as the place; what
    counts is the share of pixels for which that is above the threshold. A single bright pixel at
    the border so counts for less than one in the middle.

    Parameters
    ----------
    threshold
        What is bright; CSBDeep takes 0.4 of the 99.9th percentile of the image.
    coverage
        Least share; 0.25 by default, 0.125 in three dimensions.
    channel
        As of `MeanStdFilter`.
    """

    deciding: ClassVar[frozenset[str]] = frozenset({"coverage"})

    threshold: float
    coverage: float | None = None
    _: KW_ONLY
    channel: Channels | None = 0

    def __post_init__(self) -> None:
        _verify_share(self.coverage, "coverage")

    @property
    def names(self) -> tuple[str, ...]:
        """``("share", "max")``."""
        return "share", "max"

    @property
    def channels(self) -> Channels | None:
        """Channels whose mean is looked at; None for all."""
        return self.channel

    def measure(self, pixels: NDArray[Any], shares: Shares) -> NDArray[np.float64]:
        """Return the share of pixels near something bright, and the maximum, (n, 2)."""
        from scipy import ndimage

        del shares
        axes = tuple(range(1, pixels.ndim))
        size = (1, *(side // 2 if side > 1 else 1 for side in pixels.shape[1:]))
        near = ndimage.maximum_filter(pixels, size, mode="constant") > self.threshold
        return np.stack([near.mean(axis=axes), pixels.max(axis=axes).astype(np.float64)], axis=1)

    def keeps(self, values: NDArray[np.float64], rank: int) -> NDArray[np.bool_]:
        """Keep what reaches the coverage."""
        return _covered(values[:, 0], self.coverage, rank)


@dataclass(frozen=True)
class MaskFilter(PatchFilter):
    """Places of which enough lies in a mask: what is not 0 in it.

    Parameters
    ----------
    given
        One mask an image, or one: an array (Y, X) or (Z, Y, X), or an image of labels. It covers
        its image, in as many pixels or fewer.
    coverage
        Least share of the place; 0.25 by default, 0.125 in three dimensions.
    """

    deciding: ClassVar[frozenset[str]] = frozenset({"coverage"})

    given: Any = field(repr=False)
    coverage: float | None = None

    def __post_init__(self) -> None:
        _verify_share(self.coverage, "coverage")
        many = self.given if isinstance(self.given, list | tuple) else [self.given]
        object.__setattr__(self, "given", tuple(_mask(mask) for mask in many))

    @property
    def names(self) -> tuple[str, ...]:
        """``("coverage",)``."""
        return ("coverage",)

    @property
    def masks(self) -> Sequence[Stack]:
        """The masks."""
        return self.given

    def measure(self, pixels: NDArray[Any], shares: Shares) -> NDArray[np.float64]:
        """Return the share of the place that lies in the mask, (n, 1)."""
        found = (pixels != 0).astype(np.float64)
        area = np.ones(len(pixels))
        for share in reversed(shares):  # the last axis first, and it is gone
            found = np.einsum("n...i,ni->n...", found, share)
            area *= share.sum(axis=1)
        return (found / area)[:, None]

    def keeps(self, values: NDArray[np.float64], rank: int) -> NDArray[np.bool_]:
        """Keep what reaches the coverage."""
        return _covered(values[:, 0], self.coverage, rank)


@dataclass(frozen=True)
class TissueFilter(MaskFilter):
    """Places of which enough is tissue.

    Parameters
    ----------
    given
        One tissue mask an image, or one, as `detect_tissue` and `microtome cohort masks` make them:
        an array (Y, X), or an image of labels, of any resolution.
    coverage
        Least share of the place that is tissue; a half by default.
    """

    coverage: float | None = 0.5

    @property
    def names(self) -> tuple[str, ...]:
        """``("tissue_fraction",)``."""
        return ("tissue_fraction",)


def _covered(share: NDArray[np.float64], coverage: float | None, rank: int) -> NDArray[np.bool_]:
    return share >= (_COVERAGE[rank] if coverage is None else coverage)


def _verify_share(value: float | None, name: str) -> None:
    if value is not None and not 0 <= value <= 1:
        msg = f"{name} is a share from 0 to 1, got {value}"
        raise InvalidInputError(msg)


def _mask(mask: Any) -> Stack:
    if hasattr(mask, "extract_patch") or hasattr(mask, "level_count"):
        return mask
    pixels = as_array(mask, "mask")
    if pixels.ndim not in {2, 3} or pixels.dtype.kind not in "bui" or not pixels.size:
        msg = (
            "a mask is an array (Y, X) or (Z, Y, X) of bools or integers, or an image of labels, got "
            f"shape {pixels.shape} of {pixels.dtype}"
        )
        raise InvalidInputError(msg)
    return ArrayStack(MemoryArray(pixels), "zyx"[-pixels.ndim :], source="mask")
