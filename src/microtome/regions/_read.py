"""`read_regions`: the one read path under every dataset, loader and predictor."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.errors import InvalidInputError, MicrotomeError
from microtome.image import Channels, Level, MultiscaleImage, PixelArray, channel_indices
from microtome.storage import Box, Pending, ReadBatch, StoredArray

from ._windows import Windows, limits

__all__ = ["Padding", "read_regions"]

Padding = float | Literal["edge", "reflect"]
"""What stands outside the image: a number, the nearest pixel, or the mirror image, in which the
pixel on the edge is not repeated."""


def read_regions(
    images: Sequence[MultiscaleImage],
    windows: Windows,
    *,
    channels: Channels | Mapping[int, Channels] | None = None,
    out: NDArray[Any] | None = None,
    padding: Padding = 0,
) -> NDArray[Any]:
    """Read windows of one size into one batch.

    All reads are started before the first is waited for, so that the engine decodes in parallel.

    Parameters
    ----------
    images
        The images that `windows.image` counts; the same channels and dtype.
    windows
        What to read.
    channels
        Channels by number or name, the same for every image; or a mapping from the number of an
        image to its channels; None for all.
    out
        Buffer (n, C, (Z), Y, X) of the images' dtype to fill; a new one by default. Reusing one
        saves more time than any codec: memory that is touched for the first time costs more than
        decoding into it.
    padding
        What stands outside the image.

    Returns
    -------
    The batch, (n, C, (Z), Y, X).

    Raises
    ------
    InvalidInputError
        If images differ in channels or dtype, or have other axes than the windows; if `out` has
        another shape or dtype, or `padding` is no value of that dtype.
    OutOfRangeError
        If a window's image does not exist.
    FormatError
        If a chunk is damaged; the message names the image and the window. No read is under way
        any more when an error is raised, so that `out` may be used again.
    """
    sizes = limits(images, windows)[0]
    _verify_readable(images, windows)
    picks = _picks(images, windows, channels)
    batch = _buffer(images, windows, picks, out)
    fill = _fill_value(padding, batch.dtype)
    low = np.maximum(windows.start, 0)
    high = np.minimum(windows.start + windows.size, sizes)
    whole = (high - low == windows.size).all(axis=1).tolist()
    sources = {i: _Source.of(images[i].level(windows.level), c, windows) for i, c in picks.items()}
    rows = zip(windows.image.tolist(), batch, low.tolist(), high.tolist(), strict=True)
    pending: list[tuple[int, Pending]] = []
    mirrored: list[tuple[int, _Mirror]] = []
    row = 0
    try:
        # Begun as one: windows of one shard share what the engine has to read of it.
        with ReadBatch() as together:
            for row, (image, window, start, stop) in enumerate(rows):
                target, first, last = window, start, stop
                if not whole[row]:
                    if isinstance(padding, str):
                        mirror = _mirror(windows.start[row], sizes[row], window, padding)
                        mirrored.append((row, mirror))
                        first, last, target = mirror.low, mirror.high, mirror.pixels
                    else:
                        window[...] = fill
                        target = _part(window, windows.start[row].tolist(), first, last)
                        if not target.size:
                            continue
                reads = sources[image].begin(first, last, target, together)
                pending.extend((row, read) for read in reads)
        for row, read in pending:  # noqa: B007 - an error names it
            read.result()
    except BaseException as error:
        # The engine goes on writing into the batch; whoever gets it back must find it at rest.
        for _, read in pending:
            with contextlib.suppress(MicrotomeError):
                read.result()
        if isinstance(error, MicrotomeError):
            raise _placed(error, images, windows, row) from error
        raise
    for source in sources.values():
        source.verify_there()
    for row, mirror in mirrored:
        batch[row] = mirror.pixels[mirror.places]
    return batch


@dataclass(frozen=True, slots=True)
class _Mirror:
    """The pixels that a window over the edge shows, each once, and where it shows them.

    Parameters
    ----------
    low, high
        Box of the level that holds them.
    pixels
        Buffer for that box, (C, (Z), Y, X).
    places
        Index that makes the window of the buffer.
    """

    low: list[int]
    high: list[int]
    pixels: NDArray[Any]
    places: tuple[NDArray[np.intp], ...]


def _mirror(
    start: NDArray[np.int64], size: NDArray[np.int64], window: NDArray[Any], padding: str
) -> _Mirror:
    """Find which pixel of the level stands at each place of a window, axis by axis.

    The level is continued without end, so a place has the same pixel in every window that holds it.
    """
    places: list[NDArray[np.intp]] = []
    for first, length, count in zip(start.tolist(), size.tolist(), window.shape[1:], strict=True):
        at = np.arange(first, first + count)
        if padding == "edge" or length == 1:  # one pixel has no mirror image but itself
            places.append(np.clip(at, 0, length - 1))
        else:
            at %= 2 * (length - 1)
            places.append(np.minimum(at, 2 * (length - 1) - at))
    low = [int(at.min()) for at in places]
    high = [int(at.max()) + 1 for at in places]
    shape = [last - first for first, last in zip(low, high, strict=True)]
    pixels = np.empty((len(window), *shape), window.dtype)
    within = [at - first for at, first in zip(places, low, strict=True)]
    return _Mirror(low, high, pixels, np.ix_(np.arange(len(window)), *within))


def _verify_readable(images: Sequence[MultiscaleImage], windows: Windows) -> None:
    """Refuse what `Windows` can name but is not read here: another sample would be the first's."""
    for i in np.unique(windows.image).tolist():
        if not isinstance(images[i], MultiscaleImage):
            msg = f"regions are read from images, got a {type(images[i]).__name__}; call its extract_patch"
            raise InvalidInputError(msg)
    if windows.sample is not None and windows.sample.any():
        msg = (
            f"regions are read from the first sample, got windows of sample {windows.sample.max()}"
        )
        raise InvalidInputError(msg)


def _picks(
    images: Sequence[MultiscaleImage],
    windows: Windows,
    channels: Channels | Mapping[int, Channels] | None,
) -> dict[int, list[int]]:
    """Return the channels of each image that is read."""
    picks: dict[int, list[int]] = {}
    for i in np.unique(windows.image).tolist():
        wanted = channels[i] if isinstance(channels, Mapping) else channels
        try:
            picks[i] = channel_indices(wanted, images[i].channel_names, images[i].nchannels)
        except MicrotomeError as error:
            raise type(error)(f"{images[i].uri}: {error}") from error
    return picks


def _buffer(
    images: Sequence[MultiscaleImage],
    windows: Windows,
    picks: dict[int, list[int]],
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    counts = {len(channels) for channels in picks.values()}
    dtypes: set[np.dtype[Any]] = {images[i].dtype for i in picks}
    if len(counts) > 1 or len(dtypes) > 1:
        shown = [(images[i].uri, len(c), str(images[i].dtype)) for i, c in picks.items()]
        msg = (
            "one batch holds one number of channels and one dtype, got (image, channels, dtype) "
            f"{shown[:4]}"
        )
        raise InvalidInputError(msg)
    if not picks:
        # No windows, so no channels were looked up; the first image says what pixels would be.
        return out if out is not None else _no_windows(images, windows)
    shape = (len(windows), counts.pop(), *windows.size)
    dtype: DTypeLike = dtypes.pop()
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.writeable:
        msg = (
            f"out must be {shape} {dtype}, got {out.shape} {out.dtype}"
            f"{'' if out.flags.writeable else ', read-only'}"
        )
        raise InvalidInputError(msg)
    return out


def _no_windows(images: Sequence[MultiscaleImage], windows: Windows) -> NDArray[Any]:
    if not images:
        return np.empty((0, 0, *windows.size))
    return np.empty((0, images[0].nchannels, *windows.size), images[0].dtype)


def _fill_value(padding: Padding, dtype: np.dtype[Any]) -> Any:
    if isinstance(padding, str):
        if padding not in ("edge", "reflect"):
            msg = f"padding must be a number, 'edge' or 'reflect', got {padding!r}"
            raise InvalidInputError(msg)
        return 0
    value: NDArray[Any] = np.asarray(padding)
    with np.errstate(invalid="ignore", over="ignore"):  # of what does not fit, refused below
        fits = (
            value.ndim == 0
            and value.dtype.kind in "biuf"
            and (dtype.kind == "f" or bool(value.astype(dtype) == value))
        )
    if not fits:
        msg = f"padding {padding!r} is no value of {dtype} pixels"
        raise InvalidInputError(msg)
    return value.astype(dtype)


@dataclass(frozen=True, slots=True)
class _Source:
    """One image's level, and how its boxes are read into (C, (Z), Y, X).

    Parameters
    ----------
    array
        The pixels.
    reads
        One for each run of neighbouring channels: what it takes along the axes before those of the
        window, and the index of the part of the target that it fills.
    """

    array: PixelArray
    reads: tuple[tuple[Box, Any], ...]

    @classmethod
    def of(cls, level: Level, channels: list[int], windows: Windows) -> _Source:
        """Plan the reads of an image's channels."""
        lead = level.axes[: -len(windows.size)]
        # Axes that the target lacks have one entry: a single time point, a single plane.
        if "c" not in lead:
            box, new = ((0, 1),) * len(lead), (None,) * len(lead)
            return cls(level.array, tuple((box, (at, *new)) for at in range(len(channels))))
        reads: list[tuple[Box, Any]] = []
        for first, last, at in _runs(channels):
            part = slice(at, at + last - first)
            box = tuple((first, last) if axis == "c" else (0, 1) for axis in lead)
            reads.append((box, tuple(part if axis == "c" else None for axis in lead)))
        return cls(level.array, tuple(reads))

    def verify_there(self) -> None:
        """Refuse pixels that were read of an array that is gone."""
        if isinstance(self.array, StoredArray):
            self.array.verify_there()

    def begin(
        self, low: list[int], high: list[int], target: NDArray[Any], together: ReadBatch
    ) -> list[Pending]:
        """Start reading a box inside the level."""
        window = tuple(zip(low, high, strict=True))
        array = self.array
        if isinstance(array, StoredArray):
            return [
                array.read_into(lead + window, target[at], together=together)
                for lead, at in self.reads
            ]
        return [array.read_into(lead + window, target[at]) for lead, at in self.reads]


def _runs(channels: list[int]) -> list[tuple[int, int, int]]:
    """Group channels into runs of neighbours: (first, one past last, place in the output)."""
    runs: list[tuple[int, int, int]] = []
    for at, channel in enumerate(channels):
        if runs and runs[-1][1] == channel:
            runs[-1] = (runs[-1][0], channel + 1, runs[-1][2])
        else:
            runs.append((channel, channel + 1, at))
    return runs


def _part(target: NDArray[Any], start: list[int], low: list[int], high: list[int]) -> NDArray[Any]:
    """Return the part of a window's target that lies in the image; empty where none does."""
    within = [slice(max(a - o, 0), max(b - o, 0)) for a, b, o in zip(low, high, start, strict=True)]
    return target[(..., *within)]


def _placed(
    error: MicrotomeError, images: Sequence[MultiscaleImage], windows: Windows, row: int
) -> MicrotomeError:
    """Return an error with the image and the window in its message."""
    msg = (
        f"{error} (image {images[int(windows.image[row])].uri}, level {windows.level}, window "
        f"at {windows.start[row].tolist()} of size {list(windows.size)})"
    )
    return type(error)(msg)
