"""The input of a dataset or its target: windows read, turned, normalized and changed, in one go."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.augmentation import Augmentation, DihedralAugmentation
from microtome.errors import InvalidInputError
from microtome.image import Channels
from microtome.normalization import NoNormalization, Normalization, verify_alike
from microtome.regions import (
    ImageRegionData,
    Padding,
    Stack,
    Windows,
    read_regions,
    region_batch,
    valid_windows,
)

from ._region_checks import verify_named_alike

__all__ = ["RegionSide"]


class RegionSide:
    """What is read of every patch of a dataset, once for its input and once for its target.

    Parameters
    ----------
    images, channels
        What is read.
    normalization
        What is done to stored pixels; None leaves them as they are, in their own dtype.
    augmentations
        What is done to patches.
    level
        Index of the level that is read.
    padding
        What stands outside an image.

    Raises
    ------
    InvalidInputError
        If images differ in channels or dtype, or the normalization is of other channels.
    """

    def __init__(
        self,
        images: Sequence[Stack],
        channels: Channels | None,
        normalization: Normalization | None,
        augmentations: tuple[Augmentation, ...],
        *,
        level: int,
        padding: Padding,
    ) -> None:
        self.images = tuple(images)
        self.channels = channels
        self.count, self.dtype = verify_alike(self.images, channels, level)
        verify_named_alike(self.images, channels)
        self._normalization = normalization
        if normalization is not None:
            # Refused here, not by the first batch.
            normalization.normalize(np.zeros((1, self.count, 1, 1), self.dtype))
        # One of a user's own need not say it in steps; it is then done after reading.
        convert = getattr(normalization, "conversion", None)
        self._conversion = None if convert is None else convert(self.count, self.dtype)
        # Float32 is what a model is given; labels stay what they are.
        self._made = self.dtype if normalization is None else np.dtype(np.float32)
        self._padding: Padding = padding
        # Those that only move pixels are views of what was read: nothing is copied for them.
        first = next(
            (n for n, a in enumerate(augmentations) if not a.geometric), len(augmentations)
        )
        self._turning, self._changing = augmentations[:first], augmentations[first:]
        self._facts = self._told()
        self._local = threading.local()

    @property
    def normalization(self) -> Normalization | None:
        """What is done to stored pixels."""
        return self._normalization

    def bytes_of(self, size: tuple[int, ...]) -> int:
        """Return how many bytes a patch of a size has in a batch."""
        return self.count * math.prod(size) * self._made.itemsize

    def read(
        self,
        windows: Windows,
        columns: Mapping[str, NDArray[np.int64]],
        records: Sequence[Mapping[str, Any]],
    ) -> ImageRegionData[Any]:
        """Read patches into one batch.

        Parameters
        ----------
        windows, columns
            Where they lie, and what else their specifications hold.
        records
            What is done to each, by the names of augmentations.
        """
        made = (
            self._made_after(windows, records)
            if self._conversion is None
            else self._made_while_reading(windows, records)
        )
        kept = {a.name for a in (*self._turning, *self._changing)}
        metadata = [
            {
                "normalization": self._facts,
                "augmentation": {name: what for name, what in record.items() if name in kept},
            }
            for record in records
        ]
        return region_batch(
            self.images,
            windows,
            made,
            channels=self.channels,
            specs=columns,
            metadata=metadata,
        )

    def _made_while_reading(
        self, windows: Windows, records: Sequence[Mapping[str, Any]]
    ) -> NDArray[Any]:
        """Normalize pixels as they are decoded, then turn and change them where they are."""
        # The first turn is done as pixels are laid into the batch, which costs least.
        first, later = self._turning[:1], self._turning[1:]
        if not first or type(first[0]) is not DihedralAugmentation:
            first, later = (), self._turning
        made = read_regions(
            self.images,
            windows,
            channels=self.channels,
            padding=self._padding,
            convert=self._conversion,
            turns=[record[first[0].name] for record in records] if first else None,
        )
        for patch, record in zip(made, records, strict=True):
            for step in later:
                patch[...] = step.apply(patch, record[step.name]).copy()
            self._change(patch, record)
        return made

    def _made_after(self, windows: Windows, records: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
        """Read pixels as they are stored, then turn, normalize and change them."""
        raw = self._read(windows)
        valid = self._reaching_out(windows)
        made = np.empty(raw.shape, self._made)
        for row, record in enumerate(records):
            inside = valid.get(row)
            if inside is None:
                self._finish(raw[row], made[row], record)
            else:
                self._finish_padded(raw[row], made[row], record, inside)
        return made

    def _read(self, windows: Windows) -> NDArray[Any]:
        """Read pixels into this thread's buffer."""
        shape = (len(windows), self.count, *windows.size)
        needed = math.prod(shape)
        # Kept from batch to batch: memory that is new costs more than decoding into it.
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or buffer.size < needed:
            buffer = self._local.buffer = np.empty(needed, self.dtype)
        padding: Padding = self._padding if isinstance(self._padding, str) else 0
        out = buffer[:needed].reshape(shape)
        return read_regions(self.images, windows, channels=self.channels, out=out, padding=padding)

    def _reaching_out(self, windows: Windows) -> dict[int, NDArray[np.int64]]:
        """Return the patches of which a part is to be filled, and which part is not."""
        if isinstance(self._padding, str):
            return {}
        valid = valid_windows(self.images, windows)
        whole = (valid[..., 1] - valid[..., 0] == windows.size).all(axis=1)
        return {int(row): valid[row] for row in np.flatnonzero(~whole)}

    def _finish(self, pixels: NDArray[Any], made: NDArray[Any], record: Mapping[str, Any]) -> None:
        for step in self._turning:
            pixels = step.apply(pixels, record[step.name])
        self._normalize(pixels, made)
        self._change(made, record)

    def _finish_padded(
        self,
        pixels: NDArray[Any],
        made: NDArray[Any],
        record: Mapping[str, Any],
        inside: NDArray[np.int64],
    ) -> None:
        """Do as `_finish`; what stands outside is a value after normalization."""
        upright = np.empty(pixels.shape, made.dtype)
        self._normalize(pixels, upright)
        there = (slice(None), *(slice(a, b) for a, b in inside.tolist()))
        kept = upright[there].copy()
        upright[...] = self._padding
        upright[there] = kept
        for step in self._turning:
            upright = step.apply(upright, record[step.name])
        made[...] = upright
        self._change(made, record)

    def _normalize(self, pixels: NDArray[Any], made: NDArray[Any]) -> None:
        if self._normalization is None:
            made[...] = pixels
        else:
            self._normalization.normalize(pixels[None], made[None])

    def _change(self, made: NDArray[Any], record: Mapping[str, Any]) -> None:
        for step in self._changing:
            result = step.apply(made, record[step.name])
            if result is not made:
                made[...] = result

    def _told(self) -> Mapping[str, Any]:
        """Return what is recorded of the normalization: one dictionary, which all patches share."""
        if self._normalization is None or isinstance(self._normalization, NoNormalization):
            return {"kind": "none"}
        told = self._normalization.to_dict()
        return {key: value for key, value in told.items() if key not in {"fitted_on", "target"}}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _local=threading.local())


def verify_padding(padding: Padding, side: RegionSide) -> None:
    """Refuse a number outside of images that is no value of pixels left in their own dtype.

    Raises
    ------
    InvalidInputError
        If it is none.
    """
    if isinstance(padding, str) or side.normalization is not None:
        return
    if side.dtype.kind in "bui" and np.asarray(padding).astype(side.dtype) != padding:
        msg = f"padding={padding!r} is no value of {side.dtype}"
        raise InvalidInputError(msg)
