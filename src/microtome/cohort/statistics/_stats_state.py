"""Whether tables of statistics that are there are those that would be made now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from microtome.cohort._made_of import Inputs, stale_among
from microtome.standardize import Level, StandardizationSpec, StatisticsTables

from ._fit import Fit

__all__ = ["StatsState", "inputs_in", "state_of"]

StatsState = Literal["missing", "current", "stale", "other"]
"""`stale`: made with these settings, of other tissues, images, masks or channels than there are now,
or not to the end. `other`: made with other settings, or not known with which."""

_NAMES = ("image", "mask", "channels")


def state_of(
    place: Path, fit: Fit, spec: StandardizationSpec, stats_level: Level, *, exact: bool
) -> StatsState:
    """Compare the tables in a directory with what they would be made of now.

    Parameters
    ----------
    place
        The directory.
    fit, spec, stats_level, exact
        What they would be.
    """
    if not (place / _last(spec, stats_level)).exists():
        return "missing"
    manifest, whole = StatisticsTables.manifest(place)
    tissues: Mapping[str, Mapping[str, Any]] = manifest.get("tissues", {})
    wanted = {
        "standardization": str(spec),
        "stats_level": stats_level if spec.has_moments else None,
        "split": fit.split,
    }
    if any(manifest.get(name, "") != value for name, value in wanted.items()):
        return "other"
    if exact and manifest.get("relative_error") != 0.0:
        return "other"
    before = inputs_in(manifest)
    if not before or len(before) < len(tissues):
        return "other"
    counted = fit.counted(spec, stats_level)
    same = (
        whole
        and manifest.get("channels") == list(fit.channels)
        and {t: bool(each.get("fitted")) for t, each in tissues.items()}
        == {t: t in fit.fitted for t in counted}
        and not stale_among(before, fit.inputs(counted))
        # Pixels that somebody wrote over leave what an image says of itself as it was.
        and (not all("counted" in each for each in tissues.values()) or fit.is_counted(counted))
    )
    return "current" if same else "stale"


def inputs_in(manifest: Mapping[str, Any]) -> dict[str, Inputs]:
    """Return what a manifest says the numbers of each tissue were made of; {} where it does not."""
    tissues: Mapping[str, Mapping[str, Any]] = manifest.get("tissues", {})
    return {
        tissue: {name: each.get(name) for name in _NAMES}
        for tissue, each in tissues.items()
        if "image" in each
    }


def _last(spec: StandardizationSpec, stats_level: Level) -> str:
    """Name of the file that is written last."""
    if spec.quantile_level is not None:
        return f"{spec.quantile_level}_level_upper_quantiles.parquet"
    return f"{stats_level}_level_means.parquet"
