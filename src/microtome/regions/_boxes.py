"""How boxes of one image, or of one stack with its axes in any order, get into a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import ImageStack, PixelArray, channel_runs
from microtome.storage import Box, BoxBatch, Conversion, Pending, ReadBatch, StoredArray

from ._stacks import Pixels, Stack
from ._turns import turned_places

__all__ = ["Foreign", "Source", "reader_of"]


@dataclass(frozen=True, slots=True)
class Source:
    """One image's level or one stack's array, and how its boxes are read into (C, (Z), Y, X).

    Parameters
    ----------
    array
        The pixels.
    reads
        One for each run of neighbouring channels: what it takes along the axes that are not the
        window's, and the index of the part of the target that it fills.
    lead
        Those axes, in the array's order.
    times
        Number of time points: samples are counted outside of them.
    order
        For each axis of the array its place in `lead` and the window's; None where they are its
        order.
    """

    array: PixelArray
    reads: tuple[tuple[Box, Any], ...]
    lead: str
    times: int
    order: tuple[int, ...] | None

    @classmethod
    def of(cls, array: PixelArray, axes: str, channels: list[int], rank: int) -> Source:
        """Plan the reads of an image's channels."""
        window = "zyx"[-rank:]
        lead = "".join(axis for axis in axes if axis not in window)
        order = None
        if lead + window != axes:
            order = tuple((lead + window).index(axis) for axis in axes)
        times = array.shape[axes.index("t")] if "t" in axes else 1
        reads: list[tuple[Box, Any]] = []
        # Axes that the target lacks have one entry: a single time point, a single plane.
        if "c" not in lead:
            box, new = ((0, 1),) * len(lead), (None,) * len(lead)
            reads.extend((box, (at, *new)) for at in range(len(channels)))
        else:
            for first, last, at in channel_runs(channels):
                part = slice(at, at + last - first)
                box = tuple((first, last) if axis == "c" else (0, 1) for axis in lead)
                reads.append((box, tuple(part if axis == "c" else None for axis in lead)))
        return cls(array, tuple(reads), lead, times, order)

    def verify_there(self) -> None:
        """Refuse pixels that were read of an array that is gone."""
        if isinstance(self.array, StoredArray):
            self.array.verify_there()

    def begin(
        self,
        sample: int,
        low: list[int],
        high: list[int],
        target: NDArray[Any],
        together: ReadBatch,
    ) -> list[Pending]:
        """Start reading a box inside a sample."""
        window = tuple(zip(low, high, strict=True))
        parts = [
            (lead + window, target[at])
            for lead, at in (self._reads_of(sample) if sample else self.reads)
        ]
        order = self.order
        if order is not None:
            # Pixels stay in the array's order: it is the buffer that is looked at in it.
            parts = [(tuple([box[i] for i in order]), part.transpose(order)) for box, part in parts]
        array = self.array
        if isinstance(array, StoredArray):
            return [array.read_into(box, part, together=together) for box, part in parts]
        return [array.read_into(box, part) for box, part in parts]

    def read(
        self,
        rows: NDArray[np.intp],
        samples: NDArray[np.int64] | None,
        inside: tuple[NDArray[np.int64], NDArray[np.int64]],
        start: NDArray[np.int64],
        batch: NDArray[Any],
        conversion: Conversion | None,
        turns: NDArray[np.int64] | None,
    ) -> bool:
        """Read the windows of this image in one go.

        Parameters
        ----------
        rows
            Which windows of the batch, (n,).
        samples
            The sample of each, (n,); None for the first.
        inside
            First pixel of each that lies inside and one past its last, (n, d) both.
        start
            First pixel of each, (n, d).
        batch
            The whole batch.
        conversion
            What is done to the pixels, for a batch of float32.
        turns
            How each is turned, (n,); None for not at all. Only of pixels that are converted.

        Returns
        -------
        False where they have to be begun one by one.
        """
        if not isinstance(self.array, StoredArray) or (
            turns is not None and self.order is not None
        ):
            return False
        if not self.reads:
            return True
        low, high = inside
        steps = np.tile(np.asarray(batch.strides[2:], np.int64), (len(rows), 1))
        corner = rows * batch.strides[0]
        pitch = None
        if turns is not None:
            first, pitch = turned_places(turns, batch.shape[-2:], batch.strides[-2:])
            corner, steps[:, -2:] = corner + first, pitch
        corner = corner + ((low - start) * steps).sum(axis=1)
        at = {}
        if samples is not None:
            at = dict(zip("st", np.divmod(samples, self.times), strict=True))
        lows: list[NDArray[np.int64]] = []
        highs: list[NDArray[np.int64]] = []
        targets: list[NDArray[np.int64]] = []
        channels: list[NDArray[np.int64]] = []
        strides: tuple[int, ...] = ()
        axes = self.lead + "zyx"[-low.shape[1] :]
        for lead, place in self.reads:
            part = batch[0][place]
            columns = [np.broadcast_to(first, len(rows)) for first, _ in lead]
            ends = [np.broadcast_to(last, len(rows)) for _, last in lead]
            for number, axis in enumerate(self.lead):
                if axis in at:
                    columns[number], ends[number] = at[axis], at[axis] + 1
            lows.append(np.column_stack([*columns, low]))
            highs.append(np.column_stack([*ends, high]))
            targets.append(corner + (part.ctypes.data - batch.ctypes.data))
            strides = part.strides
            channels.append(np.full(len(rows), _first_channel(place)))
        order = list(range(len(strides))) if self.order is None else list(self.order)
        return self.array.read_boxes(
            BoxBatch(
                np.concatenate(lows)[:, order],
                np.concatenate(highs)[:, order],
                batch,
                np.concatenate(targets),
                tuple(strides[axis] for axis in order),
                conversion,
                np.concatenate(channels),
                order.index(axes.index("c")) if "c" in axes else None,
                None if pitch is None else np.tile(pitch, (len(self.reads), 1)),
            )
        )

    def _reads_of(self, sample: int) -> Sequence[tuple[Box, Any]]:
        at = dict(zip("st", divmod(sample, self.times), strict=True))
        return [
            (
                tuple(
                    (at[axis], at[axis] + 1) if axis in at else part
                    for axis, part in zip(self.lead, box, strict=True)
                ),
                place,
            )
            for box, place in self.reads
        ]


@dataclass(frozen=True, slots=True)
class Foreign:
    """A stack of somebody else's, which cuts its windows itself.

    Parameters
    ----------
    stack
        The stack.
    channels
        Which of its channels are read.
    planes
        Whether it has planes, of which windows without depth want the only one.
    """

    stack: ImageStack
    channels: list[int]
    planes: bool

    def read(
        self,
        rows: NDArray[np.intp],
        samples: NDArray[np.int64] | None,
        inside: tuple[NDArray[np.int64], NDArray[np.int64]],
        start: NDArray[np.int64],
        batch: NDArray[Any],
        conversion: Conversion | None,
        turns: NDArray[np.int64] | None,
    ) -> bool:
        """Leave every window to be cut by itself."""
        del rows, samples, inside, start, batch, conversion, turns
        return False

    def verify_there(self) -> None:
        """Trust the stack: it has no files that microtome knows of."""

    def begin(
        self,
        sample: int,
        low: list[int],
        high: list[int],
        target: NDArray[Any],
        together: ReadBatch,  # noqa: ARG002 - what every source is given
    ) -> list[Pending]:
        """Read a box inside a sample; it is there when this returns."""
        size = [b - a for a, b in zip(low, high, strict=True)]
        if self.planes:
            low, size = [0, *low], [1, *size]
        patch = np.asarray(self.stack.extract_patch(sample, self.channels, low, size))
        shape = (len(self.channels), *size)
        # A cast would change labels without a word, and numpy stretches what is too small.
        if patch.shape != shape or patch.dtype != target.dtype:
            msg = (
                f"extract_patch of {type(self.stack).__name__} has to return {shape} "
                f"{target.dtype}, got {patch.shape} {patch.dtype}"
            )
            raise InvalidInputError(msg)
        target[...] = patch.reshape(target.shape)
        return []


def _first_channel(place: Sequence[Any]) -> int:
    """Return the first channel of a batch that an index of its windows means."""
    return next((at.start if isinstance(at, slice) else at for at in place if at is not None), 0)


def reader_of(image: Stack, pixels: Pixels, channels: list[int], rank: int) -> Source | Foreign:
    """Say how boxes of an image or a stack are read, along `rank` spatial axes."""
    if pixels.array is not None:
        return Source.of(pixels.array, pixels.axes, channels, rank)
    planes = len(pixels.shape) - 2 > rank
    return Foreign(cast("ImageStack", image), channels, planes)
