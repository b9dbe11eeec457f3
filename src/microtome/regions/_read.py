"""`read_regions`: the one read path under every dataset, loader and predictor."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from microtome.errors import InvalidInputError, MicrotomeError
from microtome.image import Channels
from microtome.storage import Conversion, Pending, ReadBatch

from ._boxes import Foreign, Source, reader_of
from ._memory import batch_memory
from ._stacks import Pixels, Stack, pixels_of, source_of
from ._turns import checked_turns, turn_in_place
from ._windows import Windows, limits

__all__ = ["Padding", "read_regions"]

Padding = float | Literal["edge", "reflect"]
"""What stands outside the image: a number, the nearest pixel, or the mirror image, in which the
pixel on the edge is not repeated."""


def read_regions(
    images: Sequence[Stack],
    windows: Windows,
    *,
    channels: Channels | Mapping[int, Channels] | None = None,
    out: NDArray[Any] | None = None,
    padding: Padding = 0,
    convert: Conversion | Mapping[int, Conversion] | None = None,
    turns: ArrayLike | None = None,
) -> NDArray[Any]:
    """Read windows of one size into one batch.

    Each chunk of a local image is decoded once for all windows that show some of it, outside
    Python's lock. Of what only the array engine reads, all reads are begun before the first is
    waited for.

    Parameters
    ----------
    images
        The images and stacks that `windows.image` counts, in any mix; the same number of channels
        and one dtype. Of a stack that is no `ArrayStack` only boxes inside are asked for, one after
        the other.
    windows
        What to read.
    channels
        Channels by number or name, the same for every image; or a mapping from the number of an
        image to its channels; None for all.
    out
        Buffer (n, C, (Z), Y, X) of the images' dtype, or of float32 where pixels are converted, to
        fill; a new one by default. Reusing one
        saves more time than any codec: memory that is touched for the first time costs more than
        decoding into it.
    padding
        What stands outside the image; of pixels that are converted, when that is done.
    convert
        What is done to pixels while they are at hand, for a batch of float32; or a mapping from the
        number of an image to what is done to its pixels. None for pixels as they are stored.
    turns
        How each window is turned or mirrored in Y and X, (n,) from 0 to 7 as of
        `DihedralAugmentation`; None for not at all. Pixels that are converted are turned on their
        way, which is cheaper than to turn the batch.

    Returns
    -------
    The batch, (n, C, (Z), Y, X).

    Raises
    ------
    InvalidInputError
        If images differ in channels or dtype, have other axes than the windows, or several samples
        of which the windows name none; if `out` has another shape or dtype, or `padding` is no
        value of that dtype; if a stack returns something else than it states; if `turns` are not one
        a window, or turn one that is not square by a quarter.
    OutOfRangeError
        If a window's image, level or sample does not exist.
    FormatError
        If a chunk is damaged; the message names the image and the window. No read is under way
        any more when an error is raised, so that `out` may be used again.
    """
    sizes, found = limits(images, windows)
    picks = _picks(found, channels)
    conversions = None if convert is None else _conversions(found, picks, convert)
    batch = _buffer(images, windows, found, picks, out, floats=convert is not None)
    fill = _fill_value(padding, batch.dtype)
    turned = None if turns is None else checked_turns(turns, len(windows), windows.size)
    low = np.maximum(windows.start, 0)
    # Not start + size, which may be more than 64 bits hold.
    size = np.asarray(windows.size, np.int64)
    high = np.minimum(windows.start, sizes - size) + size
    whole = (high - low == windows.size).all(axis=1)
    sources = {i: reader_of(images[i], found[i], c, len(windows.size)) for i, c in picks.items()}
    box = _Boxes(low, high, whole, fill, wanted=whole | (not isinstance(padding, str)))
    fused = _read_together(sources, images, windows, batch, box, conversions, turned)
    if conversions is None:
        _read_singly(sources, images, windows, sizes, batch, box, fused, padding)
        _turn(batch, turned, np.arange(len(windows)))
        return batch
    around = padding if isinstance(padding, str) else 0
    for image in np.unique(windows.image[~fused]).tolist():
        rows = np.flatnonzero(~fused & (windows.image == image))
        stored = read_regions(images, windows.take(rows), channels=picks, padding=around)
        box.finish(rows, windows, stored, batch, conversions[image])
    _turn(batch, turned, np.flatnonzero(~fused))
    for source in sources.values():
        source.verify_there()
    return batch


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    """The part of each window that lies inside its image.

    Parameters
    ----------
    low, high
        Its first pixel and one past its last, (n, d).
    whole
        Whether that is all of it, (n,).
    fill
        What stands elsewhere.
    wanted
        Whether elsewhere is nothing but that, (n,): other windows show pixels several times.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    whole: NDArray[np.bool_]
    fill: Any
    wanted: NDArray[np.bool_]

    def finish(
        self,
        rows: NDArray[np.intp],
        windows: Windows,
        stored: NDArray[Any],
        batch: NDArray[np.float32],
        conversion: Conversion,
    ) -> None:
        """Take windows as they are stored through the steps, and fill what is outside."""
        for row, window in zip(rows.tolist(), stored, strict=True):
            # One by one: each is converted while it is in the caches.
            batch[row] = window
            converted = conversion.apply(batch[row])
            if self.wanted[row] and not self.whole[row]:
                start = windows.start[row].tolist()
                inside = _part(converted, start, self.low[row].tolist(), self.high[row].tolist())
                pixels = inside.copy()
                converted[...] = self.fill
                inside[...] = pixels


def _read_together(
    sources: Mapping[int, Source | Foreign],
    images: Sequence[Stack],
    windows: Windows,
    batch: NDArray[Any],
    boxes: _Boxes,
    conversions: Mapping[int, Conversion] | None,
    turns: NDArray[np.int64] | None,
) -> NDArray[np.bool_]:
    """Read what can be read in one go, image by image; return which windows are done."""
    done = np.zeros(len(windows), np.bool_)
    for image, source in sources.items():
        rows = np.flatnonzero(boxes.wanted & (windows.image == image))
        if not len(rows):
            continue
        for row in rows[~boxes.whole[rows]].tolist():
            batch[row] = boxes.fill
        samples = None if windows.sample is None else windows.sample[rows]
        inside = boxes.low[rows], boxes.high[rows]
        conversion = None if conversions is None else conversions[image]
        try:
            mine = None if conversion is None or turns is None else turns[rows]
            start = windows.start[rows]
            read = source.read(rows, samples, inside, start, batch, conversion, mine)
        except MicrotomeError as error:
            raise _placed(error, images, windows, int(rows[0])) from error
        if read:
            done[rows] = True
    return done


def _turn(batch: NDArray[Any], turns: NDArray[np.int64] | None, rows: NDArray[np.intp]) -> None:
    """Turn windows that are in the batch upright."""
    if turns is not None:
        for row in rows.tolist():
            turn_in_place(batch[row], int(turns[row]))


def _read_singly(
    sources: Mapping[int, Source | Foreign],
    images: Sequence[Stack],
    windows: Windows,
    sizes: NDArray[np.int64],
    batch: NDArray[Any],
    box: _Boxes,
    done: NDArray[np.bool_],
    padding: Padding,
) -> None:
    """Read the windows that are not done, each by itself, all begun before the first is waited for."""
    samples = [0] * len(windows) if windows.sample is None else windows.sample.tolist()
    rows = zip(
        windows.image.tolist(), samples, batch, box.low.tolist(), box.high.tolist(), strict=True
    )
    pending: list[tuple[int, Pending]] = []
    mirrored: list[tuple[int, _Mirror]] = []
    row = 0
    try:
        # Begun as one: windows of one shard share what the engine has to read of it.
        with ReadBatch() as together:
            for row, (image, sample, window, start, stop) in enumerate(rows):
                if done[row]:
                    continue
                target, first, last = window, start, stop
                if not box.whole[row]:
                    if isinstance(padding, str):
                        mirror = _mirror(windows.start[row], sizes[row], window, padding)
                        mirrored.append((row, mirror))
                        first, last, target = mirror.low, mirror.high, mirror.pixels
                    else:
                        window[...] = box.fill
                        target = _part(window, windows.start[row].tolist(), first, last)
                        if not target.size:
                            continue
                reads = sources[image].begin(sample, first, last, target, together)
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


def _conversions(
    found: Mapping[int, Pixels],
    picks: Mapping[int, list[int]],
    convert: Conversion | Mapping[int, Conversion],
) -> dict[int, Conversion]:
    """Return what is done to the pixels of each image."""
    chosen: dict[int, Conversion] = {}
    for i, channels in picks.items():
        chosen[i] = convert[i] if isinstance(convert, Mapping) else convert
        count = chosen[i].channels
        if count is not None and count != len(channels):
            msg = (
                f"{found[i].source}: the conversion is for {count} channels, and {len(channels)} "
                "are read"
            )
            raise InvalidInputError(msg)
    return chosen


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
        # Counted from near the level: places far away may be more than 64 bits hold.
        if padding == "edge" or length == 1:  # one pixel has no mirror image but itself
            at = np.arange(count) + min(max(first, -count), length)
            places.append(np.clip(at, 0, length - 1))
        else:
            period = 2 * (length - 1)
            at = (np.arange(count) + first % period) % period
            places.append(np.minimum(at, period - at))
    low = [int(at.min()) for at in places]
    high = [int(at.max()) + 1 for at in places]
    shape = [last - first for first, last in zip(low, high, strict=True)]
    pixels = np.empty((len(window), *shape), window.dtype)
    within = [at - first for at, first in zip(places, low, strict=True)]
    return _Mirror(low, high, pixels, np.ix_(np.arange(len(window)), *within))


def _picks(
    found: Mapping[int, Pixels], channels: Channels | Mapping[int, Channels] | None
) -> dict[int, list[int]]:
    """Return the channels of each image that is read."""
    picks: dict[int, list[int]] = {}
    for i, pixels in found.items():
        try:
            picks[i] = pixels.picked(channels[i] if isinstance(channels, Mapping) else channels)
        except MicrotomeError as error:
            raise type(error)(f"{pixels.source}: {error}") from error
    return picks


def _buffer(
    images: Sequence[Stack],
    windows: Windows,
    found: Mapping[int, Pixels],
    picks: dict[int, list[int]],
    out: NDArray[Any] | None,
    *,
    floats: bool,
) -> NDArray[Any]:
    counts = {len(channels) for channels in picks.values()}
    dtypes: set[np.dtype[Any]] = {found[i].dtype for i in picks}
    if floats:
        dtypes = {np.dtype(np.float32)} if picks else set()
    if len(counts) > 1 or len(dtypes) > 1:
        shown = [(found[i].source, len(c), str(found[i].dtype)) for i, c in picks.items()]
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
        return batch_memory(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.writeable:
        msg = (
            f"out must be {shape} {dtype}, got {out.shape} {out.dtype}"
            f"{'' if out.flags.writeable else ', read-only'}"
        )
        raise InvalidInputError(msg)
    return out


def _no_windows(images: Sequence[Stack], windows: Windows) -> NDArray[Any]:
    if not images:
        return np.empty((0, 0, *windows.size))
    first = pixels_of(images[0], windows.level)
    return np.empty((0, first.shape[1], *windows.size), first.dtype)


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


def _part(target: NDArray[Any], start: list[int], low: list[int], high: list[int]) -> NDArray[Any]:
    """Return the part of a window's target that lies in the image; empty where none does."""
    within = [slice(max(a - o, 0), max(b - o, 0)) for a, b, o in zip(low, high, start, strict=True)]
    return target[(..., *within)]


def _placed(
    error: MicrotomeError, images: Sequence[Stack], windows: Windows, row: int
) -> MicrotomeError:
    """Return an error with the image and the window in its message."""
    msg = (
        f"{error} (image {source_of(images[int(windows.image[row])])}, level {windows.level}, window "
        f"at {windows.start[row].tolist()} of size {list(windows.size)})"
    )
    return type(error)(msg)
