"""The three states of a channel in a tissue."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, UnknownNameError

from ._panel import Panel

__all__ = ["ChannelState", "channel_states"]


class ChannelState(IntEnum):
    """What a tissue knows of a channel; stored as uint8."""

    NOT_MEASURED = 0
    """The channel was not imaged: there is no plane."""
    MEASURED = 1
    """There is a plane, and nothing is known against it."""
    FAILED_QC = 2
    """There is a plane, which failed quality control."""


def channel_states(
    panel: Panel,
    measured: Mapping[str, bool] | Collection[str] | NDArray[np.bool_],
    qc_pass: Mapping[str, bool] | NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Return the state of every channel of a panel in one tissue.

    Parameters
    ----------
    panel
        The panel; a channel whose `qc_pass` is False fails in every tissue.
    measured
        Which channels the tissue measured: a flag a channel of the panel (a row of
        channels_per_tissue.parquet, or an array (C,)), or the names of those measured.
    qc_pass
        Which channels passed quality control in this tissue: flags by name, for some channels or
        all, or an array (C,). By default only the panel decides. A channel passes where both say so.

    Returns
    -------
    `ChannelState` of each channel, uint8 of shape (C,).

    Raises
    ------
    UnknownNameError
        If a name is not in the panel, or `measured` does not speak of a channel: nobody may say
        whether it was.
    InvalidInputError
        If an array has another shape or type.

    Examples
    --------
    >>> panel = Panel.from_names(["CD3", "CD8", "DNA"])
    >>> channel_states(panel, ["CD3", "DNA"], {"DNA": False}).tolist()
    [1, 0, 2]
    """
    there = _flags(panel, measured, "measured")
    passed = np.array([channel.qc_pass is not False for channel in panel.channels], np.bool_)
    if qc_pass is not None:
        full = (
            {**dict.fromkeys(panel.names, True), **qc_pass}
            if isinstance(qc_pass, Mapping)
            else qc_pass
        )
        passed &= _flags(panel, full, "qc_pass")
    states = np.where(passed, ChannelState.MEASURED, ChannelState.FAILED_QC)
    return np.where(there, states, ChannelState.NOT_MEASURED).astype(np.uint8)


def _flags(
    panel: Panel,
    given: Mapping[str, bool] | Collection[str] | NDArray[np.bool_],
    what: str,
) -> NDArray[np.bool_]:
    if isinstance(given, np.ndarray):
        if given.shape != (len(panel),) or given.dtype != np.bool_:
            msg = (
                f"{what} must be {len(panel)} booleans, one a channel of the panel, got "
                f"{given.dtype} of shape {given.shape}"
            )
            raise InvalidInputError(msg)
        return given
    if isinstance(given, str):
        msg = f"{what} must be names of channels, got the text {given!r}"
        raise InvalidInputError(msg)
    unknown = [name for name in given if name not in panel]
    if unknown:
        msg = f"{what} speaks of channels {unknown}, which the panel lacks: {list(panel.names)}"
        raise UnknownNameError(msg)
    if not isinstance(given, Mapping):
        return np.array([name in set(given) for name in panel.names], np.bool_)
    missing = [name for name in panel.names if name not in given]
    if missing:
        msg = f"{what} says nothing of the channels {missing} of the panel"
        raise UnknownNameError(msg)
    wrong = {name: flag for name, flag in given.items() if not isinstance(flag, bool | np.bool_)}
    if wrong:
        msg = f"{what} must be True or False for each channel, got {wrong}"
        raise InvalidInputError(msg)
    return np.array([bool(given[name]) for name in panel.names], np.bool_)
