"""Which channels are meant: by number, name, list or slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from microtome.errors import InvalidInputError, OutOfRangeError, UnknownNameError

from ._level import as_index

if TYPE_CHECKING:
    from ._levels import LevelStack

__all__ = ["Channels", "channel_indices", "channel_runs", "wanted_channels"]

Channels = int | str | slice | Sequence[int] | Sequence[str]
"""A channel by number or name, several by a list or a slice; the channel axis always stays."""


def channel_indices(
    channels: Channels | None, names: Sequence[str] | None, count: int
) -> list[int]:
    """Resolve channels given by number, name, list or slice.

    Parameters
    ----------
    channels
        What the caller asked for; None for all.
    names
        Names of the image's channels, or None where there is no channel axis.
    count
        Number of channels.

    Raises
    ------
    UnknownNameError
        If a name is not there, or there twice.
    OutOfRangeError
        If a number is.
    InvalidInputError
        If it is none of these; a boolean mask would read as channels 0 and 1.
    """
    if channels is None:
        return list(range(count))
    if isinstance(channels, slice):
        return list(range(*channels.indices(count)))
    try:
        wanted = [channels] if isinstance(channels, int | str | np.integer) else list(channels)
    except TypeError as error:
        msg = f"channels are given by number or name, got {channels!r}"
        raise InvalidInputError(msg) from error
    return [_channel_index(item, names, count) for item in wanted]


def _channel_index(item: int | str, names: Sequence[str] | None, count: int) -> int:
    if isinstance(item, str):
        found = [i for i, name in enumerate(names or ()) if name == item]
        if len(found) != 1:
            there = f"is there {len(found)} times" if found else "is not there"
            msg = f"channel {item!r} {there}; the channels are {list(names or ())}"
            raise UnknownNameError(msg)
        return found[0]
    index = as_index(item)
    if index is None:
        msg = f"channels are given by number or name, got {item!r}"
        raise InvalidInputError(msg)
    if not -count <= index < count:
        msg = f"channel {index} is outside the {count} channels of the image"
        raise OutOfRangeError(msg)
    return index % count


def wanted_channels(image: LevelStack, channels: Channels | None) -> list[int] | None:
    """Return the channels of an image that the caller asked for; None for all.

    Raises
    ------
    InvalidInputError
        If the image has no channel axis; else as `channel_indices`.
    """
    if channels is None:
        return None
    if not image.has_channel_axis:
        msg = f"{image.uri} has no channel axis {image.data_axis_order}, yet got {channels!r}"
        raise InvalidInputError(msg)
    return channel_indices(channels, image.channel_names, image.nchannels)


def channel_runs(channels: Sequence[int]) -> list[tuple[int, int, int]]:
    """Group channels into runs of neighbours: (first, one past last, place of the first among them).

    What lies between two runs need not be read.
    """
    runs: list[tuple[int, int, int]] = []
    for at, channel in enumerate(channels):
        if runs and runs[-1][1] == channel:
            runs[-1] = (runs[-1][0], channel + 1, runs[-1][2])
        else:
            runs.append((channel, channel + 1, at))
    return runs
