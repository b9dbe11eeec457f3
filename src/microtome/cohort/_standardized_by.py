"""Of which statistics a thing is that was made of standardized pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from microtome.coordinates import Resolution
from microtome.standardize import ChannelStatistics, Level, StandardizationSpec, StatisticsTables

from ._layout import CohortLayout
from ._made_of import array_identity
from ._modality import parse_modality

__all__ = ["note_statistics", "statistics_now"]


def note_statistics(
    spec: StandardizationSpec, statistics: ChannelStatistics, *, stats_level: str | None = None
) -> dict[str, Any]:
    """Return what is noted of the statistics that a tissue's channels are standardized by.

    Their identity is that of the numbers of this tissue and these channels: computed again to the same
    numbers, or with others for another tissue, they stay the same.

    Parameters
    ----------
    spec
        The standardization.
    statistics
        Of the channels that are shown.
    stats_level
        Level of the means and standard deviations among them; None where that was not said.
    """
    identity = _identity(statistics)
    if identity is None:
        return {}
    noted = {
        "standardization": str(spec),
        "channels": list(statistics.channel_names),
        "statistics": identity,
    }
    # Quantiles alone are those of the path.
    if stats_level is not None and statistics.mean is not None:
        noted["stats_level"] = stats_level
    return noted


def statistics_now(
    layout: CohortLayout, resolution: Resolution, tissue_id: str, noted: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the identity of the statistics that there are now of what was noted; nothing of none.

    Where means of both levels are there and it was not noted which these were, they are the same as
    long as those of one level are.

    Raises
    ------
    MicrotomeError, KeyError, TypeError
        If what was noted is damaged, or there are none any more.
    """
    if "statistics" not in noted:
        return {}
    spec = StandardizationSpec.parse(str(noted["standardization"]))
    place = layout.standardization(parse_modality(noted["modality"]), resolution) / str(spec)
    level = noted.get("stats_level")
    there = StatisticsTables.levels_of_means(place)
    known: Sequence[Level | None] = there if len(there) > 1 else [None]
    if level in get_args(Level):
        known = [level]
    found = [
        _identity(
            StatisticsTables.read(
                place, quantile_level=spec.quantile_level, stats_level=each
            ).for_tissue(tissue_id, noted["channels"])
        )
        for each in known
    ]
    same = noted["statistics"] in found
    return {"statistics": noted["statistics"] if same else found[0]}


def _identity(statistics: ChannelStatistics) -> str | None:
    rows = {
        name: getattr(statistics, name)
        for name in ("upper", "lower", "mean", "std")
        if getattr(statistics, name) is not None
    }
    if not rows:
        return None
    return array_identity(np.stack(list(rows.values())), *rows, *statistics.channel_names)
