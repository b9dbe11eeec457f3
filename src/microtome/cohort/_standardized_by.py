"""Of which statistics a thing is that was made of standardized pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from microtome.coordinates import Resolution
from microtome.standardize import ChannelStatistics, StandardizationSpec, StatisticsTables

from ._layout import CohortLayout
from ._made_of import array_identity
from ._modality import parse_modality

__all__ = ["note_statistics", "statistics_now"]


def note_statistics(spec: StandardizationSpec, statistics: ChannelStatistics) -> dict[str, Any]:
    """Return what is noted of the statistics that a tissue's channels are standardized by.

    Their identity is that of the numbers of this tissue and these channels: computed again to the same
    numbers, or with others for another tissue, they stay the same.

    Parameters
    ----------
    spec
        The standardization.
    statistics
        Of the channels that are shown.
    """
    identity = _identity(statistics)
    if identity is None:
        return {}
    return {
        "standardization": str(spec),
        "channels": list(statistics.channel_names),
        "statistics": identity,
    }


def statistics_now(
    layout: CohortLayout, resolution: Resolution, tissue_id: str, noted: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the identity of the statistics that there are now of what was noted; nothing of none.

    Raises
    ------
    MicrotomeError, KeyError, TypeError
        If what was noted is damaged, or there are none any more.
    """
    if "statistics" not in noted:
        return {}
    spec = StandardizationSpec.parse(str(noted["standardization"]))
    place = layout.standardization(parse_modality(noted["modality"]), resolution) / str(spec)
    tables = StatisticsTables.read(place, quantile_level=spec.quantile_level)
    return {"statistics": _identity(tables.for_tissue(tissue_id, noted["channels"]))}


def _identity(statistics: ChannelStatistics) -> str | None:
    rows = {
        name: getattr(statistics, name)
        for name in ("upper", "lower", "mean", "std")
        if getattr(statistics, name) is not None
    }
    if not rows:
        return None
    return array_identity(np.stack(list(rows.values())), *rows, *statistics.channel_names)
