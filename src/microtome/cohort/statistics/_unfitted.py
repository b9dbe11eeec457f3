"""Channels that statistics have no numbers of: who should have measured them, what to do."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.cohort._merge import listed
from microtome.cohort._panels import MeasuredChannels
from microtome.errors import InvalidInputError
from microtome.standardize import Standardizer, StatisticsTables

__all__ = ["fit_again", "fitted_where", "kept_channels", "why_missing"]

_log = logging.getLogger(__name__)

_COMMAND = "microtome stats {} --method {} --overwrite"


def fit_again(command: str) -> str:
    """Return in words what to do about channels that nobody measured where statistics were fitted.

    Parameters
    ----------
    command
        That which makes these tables anew, without a split.
    """
    return (
        f"fit on tissues that measured them, `{command} --split NAME` (`all` for every tissue), or "
        "on each tissue by itself, `--stats-level image` (and a method that ends in `_image`)"
    )


def kept_channels(
    whole: Standardizer,
    cohort: str,
    tissue_id: str,
    tables: StatisticsTables | None,
    measured: MeasuredChannels,
    *,
    root: str,
) -> Standardizer:
    """Return the standardizer of the channels that can be standardized; others are told of.

    Parameters
    ----------
    whole
        Of all channels of the tissue that were asked for.
    cohort, tissue_id
        Whose they are.
    tables
        What the statistics are from.
    measured
        Who measured what.
    root
        Where the cohort is, for the command that is advised.

    Raises
    ------
    InvalidInputError
        If no channel is left, since the statistics have no numbers of them.
    """
    missing = _missing_numbers(whole)
    keep = whole.keep & ~missing
    names = np.asarray(whole.channel_names)
    if missing.any() and tables is not None:
        command = _COMMAND.format(shlex.quote(root), whole.spec)
        why = _of_tissue(names[missing].tolist(), tissue_id, tables, measured, command)
        if not keep.any():
            msg = f"no channel of tissue {tissue_id!r} can be standardized by {whole.spec}. {why}"
            raise InvalidInputError(msg)
        _log.warning("%s: channels of tissue %s are left out. %s", cohort, tissue_id, why)
    lost = names[~keep & ~missing].tolist()
    if lost:
        _log.warning(
            "%s: channels %s of tissue %s are left out, their statistics are degenerate (an upper "
            "quantile of 0, say); disable_quantile_mask=True keeps them",
            cohort,
            lost,
            tissue_id,
        )
    return whole.select(keep)


def _of_tissue(
    names: list[str],
    tissue_id: str,
    tables: StatisticsTables,
    measured: MeasuredChannels,
    command: str,
) -> str:
    """Return why a tissue's channels have no numbers; what is of each tissue, it measured itself."""
    together: set[str] = set()
    for table in (tables.upper, tables.means):
        if table is not None and table.level == "global":
            row = np.isfinite(table.row(tissue_id, names)).tolist()
            together |= {name for name, there in zip(names, row, strict=True) if not there}
    known = [t for t in tables.fitted_on if measured.measured is None or t in measured.rows]
    counted = {name for t in known for name in measured.names_of(t)}
    there = {name for name in names if name not in together or name in counted}
    return why_missing(names, there, tables.fitted_on, tables.split, command)


def _missing_numbers(standardizer: Standardizer) -> NDArray[np.bool_]:
    """(C,) Whether a number that the standardization uses is none: pixels would become NaN."""
    spec, statistics = standardizer.spec, standardizer.statistics
    used = [statistics.upper, statistics.lower] if spec.needs_quantiles else []
    if spec.uses_moments(standardizer.use_mean_std):
        used += [statistics.mean, statistics.std]
    missing = np.zeros(len(standardizer.channel_names), np.bool_)
    for row in used:
        if row is not None:
            missing |= ~np.isfinite(row)
    return missing


def fitted_where(fitted_on: Sequence[str], split: str | None) -> str:
    """Return in words what statistics were fitted on."""
    if not fitted_on:
        return "tissues that the tables do not name"
    named = listed(sorted(fitted_on))
    return (
        f"{named}, all tissues that there were" if split is None else f"split {split!r} ({named})"
    )


def why_missing(
    names: Sequence[str],
    measured: Collection[str],
    fitted_on: Sequence[str],
    split: str | None,
    command: str,
) -> str:
    """Return in words why channels have no numbers.

    Parameters
    ----------
    names
        The channels.
    measured
        Those that any tissue that was fitted on measured.
    fitted_on, split
        As the tables say.
    command
        That which makes them anew.
    """
    nobody = [name for name in names if name not in measured] if fitted_on else []
    uncounted = [name for name in names if name not in nobody]
    where = fitted_where(fitted_on, split)
    said: list[str] = []
    if nobody:
        said.append(
            f"{listed(nobody)}: statistics were fitted on {where}, where nobody measured them; {fit_again(command)}"
        )
    if uncounted:
        said.append(
            f"{listed(uncounted)}: no pixel of them lay inside a tissue mask, or the statistics are "
            f"older than the images; see to the masks, then `{command}`"
        )
    return ". ".join(said)
