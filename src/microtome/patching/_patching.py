"""What a way of cutting patches is: a pure function from numbers to windows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError
from microtome.regions import PatchSpecs, TileSpecs, Windows
from microtome.sampling import drawn

from ._samples import Samples

__all__ = ["Patching", "uniform"]

# Random numbers of one patch lie so far apart from those of the next: one an axis, and one to spare.
_DRAWS = 4
# Windows that are looked at together.
_TOGETHER = 1 << 20


class Patching(ABC):
    """Which patches there are, and where.

    A patching knows shapes only, never pixels. Patch `i` of an epoch is a function of the seed, the
    epoch and `i`: whoever asks, in whatever order, in whichever process, gets the same.
    """

    @property
    @abstractmethod
    def patch_size(self) -> tuple[int, ...]:
        """Size of a patch along (Z)YX, in pixels."""

    @property
    @abstractmethod
    def n_patches(self) -> int:
        """Number of patches of an epoch."""

    @abstractmethod
    def windows(self, rows: ArrayLike, *, epoch: int = 0) -> Windows:
        """Return where patches lie.

        Parameters
        ----------
        rows
            Numbers of patches, (n,), from 0 to `n_patches`.
        epoch
            Number of the epoch, at least 0; of no effect where nothing is drawn.

        Raises
        ------
        OutOfRangeError
            If there is no such patch.
        """

    @abstractmethod
    def get_patch_indices(self, data_idx: int) -> NDArray[np.int64] | range:
        """Return the numbers of the patches that come from an image.

        Raises
        ------
        OutOfRangeError
            If there is no such image.
        """

    def columns(self, rows: ArrayLike, *, epoch: int = 0) -> Mapping[str, NDArray[np.int64]]:
        """Return what a specification holds beyond a window, each of length n; nothing of a patch.

        Parameters
        ----------
        rows, epoch
            As of `windows`.
        """
        del rows, epoch
        return {}

    def get_patch_spec(self, index: int, *, epoch: int = 0) -> PatchSpecs | TileSpecs:
        """Return where one patch lies, as a specification.

        Raises
        ------
        OutOfRangeError
            If there is no such patch.
        """
        window = self.windows([index], epoch=epoch)
        spec: dict[str, Any] = {
            "data_idx": int(window.image[0]),
            "sample_idx": 0 if window.sample is None else int(window.sample[0]),
            "coords": tuple(window.start[0].tolist()),
            "patch_size": window.size,
        }
        for name, column in self.columns([index], epoch=epoch).items():
            value = column[0].tolist()
            spec[name] = tuple(value) if isinstance(value, list) else value
        return cast("PatchSpecs", spec)

    def verify_shapes(self, data_shapes: Sequence[Sequence[int]], *, touching: bool = True) -> None:
        """Refuse images that these are no patches of.

        A patching that is made of shapes wants those very shapes, whatever their channels; a window
        that was given wants an image, and to touch it.

        Parameters
        ----------
        data_shapes
            Shape of each image in SC(Z)YX, on the level that is read.
        touching
            Whether a window that was given may not lie outside of its image altogether.

        Raises
        ------
        InvalidInputError
            If there are other images than it is made of, or a patch lies outside of its own.
        """
        for begin in range(0, self.n_patches, _TOGETHER):
            rows = np.arange(begin, min(begin + _TOGETHER, self.n_patches))
            windows = self.windows(rows)
            samples = Samples.of(data_shapes, len(windows.size))
            at = samples.places(windows)
            if not touching:
                continue
            size = samples.size[at]
            outside = (windows.start >= size) | (windows.start + windows.size <= 0)
            outside = np.flatnonzero(outside.any(axis=1))
            if outside.size:
                row = int(outside[0])
                msg = (
                    f"patch {begin + row} begins at {tuple(windows.start[row].tolist())}, outside of "
                    f"image {windows.image[row]} of {tuple(size[row].tolist())}; a patching is of "
                    "the images and of the level that are read"
                )
                raise InvalidInputError(msg)

    def __len__(self) -> int:
        return self.n_patches

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.patch_size))
        return f"{type(self).__name__}({self.n_patches} patches of {size})"


def uniform(
    rows: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
) -> NDArray[np.int64]:
    """Draw a place for each row: whole numbers of ``[low, high)``, all equally likely.

    Parameters
    ----------
    rows
        Numbers of patches, (n,).
    low, high
        Bounds along each axis, (n, d).
    seed, epoch
        Choose the draw.

    Returns
    -------
    (n, d). Cut from 52 bits: the places of a range of 2^20 differ in frequency by 2^-32 of it at
    most.
    """
    # The epoch as spawn key, not as a second word of entropy: SeedSequence joins words, and
    # (seed 1, epoch 0) would be (seed 1).
    keys = (
        np.random.SeedSequence(seed, spawn_key=(epoch,))
        .generate_state(2, np.uint64)
        .astype(np.uint64, copy=False)
    )
    axes = low.shape[1]
    place = rows[:, None] * _DRAWS + np.arange(axes)
    numbers = drawn(place.reshape(-1), keys).reshape(-1, axes) >> np.uint64(12)
    # 52 bits, not 53: a product with the largest 53-bit share may round up to the bound itself.
    share = numbers.astype(np.float64) * 2.0**-52
    return low + np.floor(share * (high - low)).astype(np.int64)
