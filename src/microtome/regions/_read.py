"""`read_regions`: the one read path under every dataset, loader and predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from microtome.errors import InvalidInputError, MicrotomeError, OutOfRangeError
from microtome.image import Channels, Level, MultiscaleImage, channel_indices
from microtome.storage import Pending

from ._windows import Windows, valid_windows

__all__ = ["Padding", "read_regions"]

Padding = float | Literal["edge", "reflect"]
"""What stands outside the image: a number, the nearest pixel, or the mirror image."""


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
        If images differ in channels or dtype, or `out` has another shape or dtype.
    OutOfRangeError
        If a window's image does not exist.
    FormatError
        If a chunk is damaged; the message names the image and the window.
    """
    if len(windows) and not 0 <= int(windows.image.min()) <= int(windows.image.max()) < len(images):
        msg = f"windows speak of images {int(windows.image.min())} to {int(windows.image.max())}, there are {len(images)}"
        raise OutOfRangeError(msg)
    used = np.unique(windows.image)
    picks = {int(i): channel_indices(
            channels[int(i)] if isinstance(channels, Mapping) else channels,
            images[i].channel_names,
            images[i].nchannels,
        )
        for i in used}
    batch = _buffer(images, windows, picks, out)
    valid = valid_windows(images, windows)
    pending: list[tuple[int, Pending]] = []
    for row in range(len(windows)):
        image = int(windows.image[row])
        try:
            pending.extend(
                (row, read)
                for read in _start(
                    images[image].level(windows.level),
                    picks[image],
                    windows.start[row],
                    valid[row],
                    batch[row],
                    padding,
                )
            )
        except MicrotomeError as error:
            raise _placed(error, images, windows, row) from error
    for row, read in pending:
        try:
            read.result()
        except MicrotomeError as error:
            raise _placed(error, images, windows, row) from error
    if isinstance(padding, str):
        for row in np.flatnonzero((valid[..., 0] > 0).any(1) | (valid[..., 1] < windows.size).any(1)):
            _extend(batch[row], valid[row], padding)
    return batch


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
        msg = f"one batch holds one number of channels and one dtype, got (image, channels, dtype) {shown[:4]}"
        raise InvalidInputError(msg)
    if not picks:
        return out if out is not None else np.zeros((0, 0, *windows.size))
    shape = (len(windows), counts.pop(), *windows.size)
    dtype: DTypeLike = dtypes.pop()
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype:
        msg = f"out must be {shape} {dtype}, got {out.shape} {out.dtype}"
        raise InvalidInputError(msg)
    return out


def _start(
    level: Level,
    channels: list[int],
    start: NDArray[np.int64],
    valid: NDArray[np.int64],
    out: NDArray[Any],
    padding: Padding,
) -> list[Pending]:
    """Start reading the valid part of a window, and fill the rest."""
    rank = len(start)
    inside = tuple(slice(int(a), int(b)) for a, b in valid)
    whole = all(s.stop - s.start == n for s, n in zip(inside, out.shape[1:], strict=True))
    if not whole:
        out[...] = padding if not isinstance(padding, str) else 0
    if any(s.stop <= s.start for s in inside):
        return []
    box = [(0, size) for size in level.shape]
    if "t" in level.axes and level.shape[0] > 1:
        msg = f"level {level.key!r} has {level.shape[0]} time points; regions are read from one"
        raise InvalidInputError(msg)
    box[-rank:] = [(int(s) + int(a), int(s) + int(b)) for s, (a, b) in zip(start, valid, strict=True)]
    target = out[(slice(None), *inside)]
    if "c" not in level.axes:
        lead = (None,) * (len(box) - rank)
        return [level.array.read_into(tuple(box), target[0][lead])]
    axis = level.axes.index("c")
    reads: list[Pending] = []
    for first, last, at in _runs(channels):
        box[axis] = (first, last)
        part = target[at : at + last - first]
        lead = (None,) * (len(box) - part.ndim)
        reads.append(level.array.read_into(tuple(box), part[lead]))
    return reads


def _runs(channels: list[int]) -> list[tuple[int, int, int]]:
    """Group channels into runs of neighbours: (first, one past last, place in the output)."""
    runs: list[tuple[int, int, int]] = []
    for at, channel in enumerate(channels):
        if runs and runs[-1][1] == channel:
            runs[-1] = (runs[-1][0], channel + 1, runs[-1][2])
        else:
            runs.append((channel, channel + 1, at))
    return runs


def _extend(region: NDArray[Any], valid: NDArray[np.int64], padding: Literal["edge", "reflect"]) -> None:
    """Continue the valid part of a region outwards."""
    if (valid[:, 0] >= valid[:, 1]).any():
        msg = f"a window that lies outside its image altogether cannot be padded with {padding!r}"
        raise InvalidInputError(msg)
    inside = region[(slice(None), *(slice(a, b) for a, b in valid))].copy()
    widths = [(int(a), int(n - b)) for (a, b), n in zip(valid, region.shape[1:], strict=True)]
    # An axis of one pixel has no mirror image but itself.
    mode = "edge" if padding == "edge" or min(inside.shape[1:]) == 1 else "reflect"
    region[...] = np.pad(inside, [(0, 0), *widths], mode=mode)


def _placed(
    error: MicrotomeError, images: Sequence[MultiscaleImage], windows: Windows, row: int
) -> MicrotomeError:
    where = f"image {images[int(windows.image[row])].uri}, level {windows.level}, window at {windows.start[row].tolist()} of size {list(windows.size)}"
    return type(error)(f"{error} ({where})")
