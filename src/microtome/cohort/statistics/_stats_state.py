"""Whether tables of statistics that are there are those that would be made now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from microtome.cohort._made_of import Inputs, stale_among
from microtome.errors import InvalidInputError
from microtome.standardize import Level, StandardizationSpec, StatisticsTables

from ._fit import Fit

__all__ = [
    "StatsState",
    "counted_exactly",
    "fitted_before",
    "has_means",
    "inputs_in",
    "is_foreign",
    "other_level",
    "state_of",
]

_NAMES = ("image", "mask", "channels")


@dataclass(frozen=True, slots=True)
class StatsState:
    """What tables are, compared with those that would be made now."""

    kind: Literal["missing", "current", "stale", "other"]
    """`stale`: made with these settings, of other tissues, images, masks or channels than there are
    now, or not to the end. `other`: made with other settings, or not known with which."""
    why: str = ""
    """Of `other`: which settings."""
    exact: bool = False
    """Whether what is there was counted to the last bit, and is to stay so."""


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
    missing = _missing(place, spec, stats_level)
    if missing == "all":
        return StatsState("missing")
    said = _said(place, spec, stats_level)
    why = _differing(said.manifest, fit, spec, exact=exact, means=not missing)
    kept = said.manifest.get("relative_error") == 0.0
    if why:
        return StatsState("other", why, exact=kept)
    if missing:
        return StatsState("missing", exact=kept)
    manifest, counted = said.manifest, fit.counted(spec, stats_level)
    tissues: Mapping[str, Mapping[str, Any]] = manifest.get("tissues", {})
    same = (
        said.whole
        and manifest.get("channels") == list(fit.channels)
        and {t: bool(each.get("fitted")) for t, each in tissues.items()}
        == {t: t in fit.fitted for t in counted}
        and not stale_among(inputs_in(manifest), fit.inputs(counted))
        # Pixels that somebody wrote over leave what an image says of itself as it was.
        and (not all("counted" in each for each in tissues.values()) or fit.is_counted(counted))
    )
    return StatsState("current" if same else "stale", exact=kept)


def fitted_before(place: Path, fit: Fit, spec: StandardizationSpec, stats_level: Level) -> Fit:
    """Return the fit on the split that means of a level say they were fitted on.

    Parameters
    ----------
    place
        The directory.
    fit
        Of the tables of the other level, made now.
    spec, stats_level
        What is there.

    Raises
    ------
    InvalidInputError
        If no tissue is in that split any more.
    """
    said = _said(place, spec, stats_level)
    # Quantiles of all tissues are the same for both levels.
    if not said.manifest or spec.quantile_level == "global":
        return fit
    split = said.manifest.get("split")
    if split == fit.split:
        return fit
    try:
        return fit.fitted_as(split)
    except InvalidInputError as error:
        if stats_level == "image":
            return fit  # What is of each tissue by itself is the same whatever was fitted on.
        msg = f"{place} has means and standard deviations of {stats_level} level too, and they are to be of the same images: {error}. Fit these anew first: stats_level={stats_level!r}, overwrite=True (--stats-level {stats_level} --overwrite)"
        raise InvalidInputError(msg) from None


def counted_exactly(place: Path, spec: StandardizationSpec, stats_level: Level) -> bool:
    """Whether tables are known to have been counted to the last bit."""
    return _said(place, spec, stats_level).manifest.get("relative_error") == 0.0


def is_foreign(place: Path, spec: StandardizationSpec, stats_level: Level) -> bool:
    """Whether means of a level are there of which nothing is known, and that stand alone.

    Those that stand on quantiles are of no use with any others, and have to follow these.
    """
    return spec.quantile_level is None and not _said(place, spec, stats_level).manifest


def other_level(level: Level) -> Level:
    """Return the one that it is not."""
    return "image" if level == "global" else "global"


def has_means(place: Path, level: Level) -> bool:
    """Whether a directory has means of a level."""
    return level in StatisticsTables.levels_of_means(place)


def inputs_in(manifest: Mapping[str, Any]) -> dict[str, Inputs]:
    """Return what a manifest says the numbers of each tissue were made of; {} where it does not."""
    tissues: Mapping[str, Mapping[str, Any]] = manifest.get("tissues", {})
    return {
        tissue: {name: each.get(name) for name in _NAMES}
        for tissue, each in tissues.items()
        if "image" in each
    }


@dataclass(frozen=True, slots=True)
class _Said:
    """What is known of tables."""

    manifest: Mapping[str, Any]
    """Empty where nothing is."""
    whole: bool


def _missing(
    place: Path, spec: StandardizationSpec, stats_level: Level
) -> Literal["", "means", "all"]:
    """Return what is not there; means may be missing beside quantiles that the other level uses."""
    lost = spec.has_moments and not has_means(place, stats_level)
    if spec.quantile_level is None:
        return "all" if lost else ""
    # The file that is written last.
    if not (place / f"{spec.quantile_level}_level_upper_quantiles.parquet").exists():
        return "all"
    return "means" if lost else ""


def _said(place: Path, spec: StandardizationSpec, stats_level: Level) -> _Said:
    if not spec.has_moments:
        return _Said(*StatisticsTables.manifest(place))
    manifest, whole = StatisticsTables.manifest(place, stats_level=stats_level)
    if manifest:
        return _Said(manifest, whole)
    if has_means(place, stats_level):
        return _Said({}, whole=False)
    # Quantiles that were written with means of the other level.
    manifest, _ = StatisticsTables.manifest(place, stats_level=other_level(stats_level))
    return _Said(manifest, whole=False)


def _differing(
    manifest: Mapping[str, Any],
    fit: Fit,
    spec: StandardizationSpec,
    *,
    exact: bool,
    means: bool,
) -> str:
    """Return in words what tables were made with that is not asked for now; "" where it is."""
    tissues: Mapping[str, Mapping[str, Any]] = manifest.get("tissues", {})
    if not manifest or len(inputs_in(manifest)) < len(tissues):
        return "nothing beside it says what it was made with"
    if manifest.get("standardization") != str(spec):
        return f"it says that it is of {manifest.get('standardization')}, not of {spec}"
    # Quantiles of each image are the same whatever the means beside them were fitted on.
    if (means or spec.quantile_level == "global") and manifest.get("split") != fit.split:
        return f"it was fitted on {_split(manifest.get('split'))}, while {_split(fit.split)} is asked for now"
    if exact and manifest.get("relative_error") != 0.0:
        return "it was counted within 0.05 %, while to the last bit (exact) is asked for now"
    return ""


def _split(name: str | None) -> str:
    return "all tissues" if name is None else f"split {name!r}"
