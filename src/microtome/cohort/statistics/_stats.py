"""`stats`: pixels inside tissue become standardization tables."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import get_args

from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort._partial import sweep_all
from microtome.coordinates import Resolution
from microtome.errors import ExistsError, InvalidInputError
from microtome.jobs import verify_executor
from microtome.progress import Progress, silent
from microtome.standardize import Level, StandardizationSpec
from microtome.storage import locked

from ._fit import Fit
from ._stats_state import (
    StatsState,
    counted_exactly,
    fitted_before,
    has_means,
    is_foreign,
    other_level,
    state_of,
)

__all__ = ["stats"]

_log = logging.getLogger(__name__)

_QUANTILE = 0.99


def stats(  # noqa: PLR0913 - the choices that make up a standardization
    cohort: str | os.PathLike[str],
    *,
    modality: str | Modality | None = None,
    method: str = "quantile_clipping",
    quantile: float | None = None,
    lower_quantile: float | None = None,
    quantile_level: Level | None = None,
    stats_level: Level = "global",
    split: str | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    exact: bool = False,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Compute standardization tables from the pixels inside the tissue masks, streaming.

    Pixels are read once, whatever the method, and what was counted of a tissue is kept beside the
    tables: `stats` again, after a tissue was added or for another method or quantile, reads only
    tissues that are new or whose image or mask changed. Tables say which images, masks and channels
    they were made of: where these are others by now, `stats` again with the same settings replaces
    the tables, and where they are the same, it changes nothing. Means of both levels may stand side
    by side: whichever is asked for, the other is renewed with it where it is stale, as it was fitted
    before, so that both are always of the same images.

    Numbers of 8 and 16 bits are counted value by value, and the tables are those of numpy on all
    the pixels. Wider ones stand for the mean of the values that agree with them to 2^-11 (0.05 %):
    see `microtome.standardize.QuantileSketch`.

    Whatever is `global` is fitted on one split only. A quantile of each image by itself is
    computed for every tissue: it tells nothing of one tissue to another.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    modality
        Which multiplex modality; None for all whose tables are missing or stale. Brightfield is standardized
        by fixed numbers and needs no tables.
    method
        ``"quantile_clipping"``, ``"quantile_clipping_log1p"``, ``"arcsinh"``, ``"minmax"``,
        ``"zscore"``, or a registered one; or a whole standardization as it is written, such as
        ``"arcsinh/cofactor_10.0"``, which leaves no quantile to choose.
    quantile, lower_quantile
        Where intensities are clipped, by default at 0.99 and, below, at 0.
    quantile_level, stats_level
        ``"image"`` or ``"global"``: of each tissue, or of all together. Quantiles are of each tissue
        by default.
    split
        Tissues to fit on. By default ``"train"`` where the cohort has such a split, else all;
        ``"all"`` takes all in any case, unless a split has that name.
    resolution
        Which resolution; may be left out where the cohort has one.
    exact
        Whether pixels of more than 16 bits are counted to the last bit as well. That takes three
        passes over them (of 64 bits: five), and nothing is kept for the next time; it is not the
        default, since 0.05 % is far less than what quantiles of two tissues differ by.
    overwrite
        Replace tables that were made with other settings.
    executor
        Where the tissues are read: any `concurrent.futures` executor, such as that of
        `microtome.jobs.process_pool`; by default here, one after the other. The tables are the
        same.
    progress
        Called with the tissues done and to do.

    Returns
    -------
    Directories of the tables that were written, one a modality; where nothing was to be done, of
    those that are there.

    Raises
    ------
    InvalidInputError
        If the method, split or modality is unknown or needs no tables, or no pixel lies inside a
        mask.
    NotFoundError
        If a tissue has no mask.
    ExistsError
        If tables are there for all modalities asked for, with other settings (it says which) or by
        something that did not note them, and `overwrite` is false.
    FormatError
        If pixels are NaN, or a mask does not fit its image.
    """
    if stats_level not in get_args(Level):
        msg = f"stats_level must be 'image' or 'global', got {stats_level!r}"
        raise InvalidInputError(msg)
    verify_executor(executor)
    spec = _spec(method, quantile, lower_quantile, quantile_level)
    layout = CohortLayout.open(cohort)
    target = layout.resolution(resolution)
    if modality is not None and parse_modality(modality).kind != "multiplex":
        msg = f"{modality} is brightfield: it is standardized by fixed numbers and needs no tables"
        raise InvalidInputError(msg)
    kinds = (
        [parse_modality(modality)]
        if modality is not None
        else [m for m in layout.modalities() if m.kind == "multiplex" and layout.serves(m, target)]
    )
    places = {kind: layout.standardization(kind, target).joinpath(*spec.parts) for kind in kinds}
    # A split that is not there is told first, whatever tables are.
    fits = {
        kind: Fit.of(layout, kind, target, split, executor=executor, progress=progress)
        for kind in kinds
    }
    # What is replaced in any case is not looked at first.
    states = {
        kind: StatsState("stale")
        if overwrite
        else state_of(place, fits[kind], spec, stats_level, exact=exact)
        for kind, place in places.items()
    }
    refused = [(places[kind], state) for kind, state in states.items() if state.kind == "other"]
    if refused and len(refused) == len(places):
        raise ExistsError(_refusal(refused, spec, stats_level))
    written: list[Path] = []
    for kind, state in states.items():
        if state.kind == "other":
            continue
        # What was counted to the last bit stays so, unless it is replaced.
        made = _Made(places[kind], fits[kind], spec, exact=exact or state.exact)
        other = made.of_other_level(stats_level)
        if state.kind != "current":
            made.write(stats_level)
        if other is not None and other.is_to_be_renewed(other_level(stats_level)):
            other.write(other_level(stats_level))
        elif state.kind == "current":
            continue
        written.append(made.place)
    if not written and (there := [places[k] for k, s in states.items() if s.kind == "current"]):
        # Nothing to do is not nothing there.
        told = ", ".join(map(str, there))
        _log.info("%s: there already, of the same tissues, images and masks", told)
        return there
    return written


@dataclass(frozen=True, slots=True)
class _Made:
    """Tables of one level in a directory, to be made."""

    place: Path
    fit: Fit
    spec: StandardizationSpec
    exact: bool

    def of_other_level(self, stats_level: Level) -> _Made | None:
        """Return what means of the other level, that are there too, would be made of now.

        They are to be of the same images; where both stand on the same quantiles, these are written
        with either.
        """
        level = other_level(stats_level)
        if not self.spec.has_moments or not has_means(self.place, level):
            return None
        if is_foreign(self.place, self.spec, level):
            return None
        fit = fitted_before(self.place, self.fit, self.spec, level)
        if self.spec.quantile_level is not None:
            return replace(self, fit=fit)
        return replace(self, fit=fit, exact=counted_exactly(self.place, self.spec, level))

    def is_to_be_renewed(self, stats_level: Level) -> bool:
        state = state_of(self.place, self.fit, self.spec, stats_level, exact=self.exact)
        return state.kind != "current"

    def write(self, stats_level: Level) -> None:
        fitted = self.fit.tables(self.spec, stats_level, exact=self.exact)
        layout = self.fit.layout
        with locked(layout.lock, what=f"the cohort {layout.root}"):
            sweep_all(self.place)
            fitted.tables.write(self.place, manifest=fitted.manifest)


def _refusal(
    refused: Sequence[tuple[Path, StatsState]], spec: StandardizationSpec, stats_level: Level
) -> str:
    said = "; ".join(f"{place} exists, and {state.why}" for place, state in refused)
    level = f" of {stats_level} level" if spec.has_moments else ""
    return f"{said}. Replace the tables{level} with --overwrite (overwrite=True), which reads only tissues that changed"


def _spec(
    method: str,
    quantile: float | None,
    lower_quantile: float | None,
    quantile_level: Level | None,
) -> StandardizationSpec:
    choices = {
        "quantile": quantile,
        "lower_quantile": lower_quantile,
        "quantile_level": quantile_level,
    }
    given = ", ".join(f"{name}={value!r}" for name, value in choices.items() if value is not None)
    for name in ("quantile", "lower_quantile"):
        value = choices[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            msg = f"{name} must be a number from 0 to 1, got {value!r}"
            raise InvalidInputError(msg)
    if "/" in method:
        if given:
            msg = f"{method!r} says all of a standardization; leave out quantiles and their level, got {given}"
            raise InvalidInputError(msg)
        return StandardizationSpec.parse(method)
    if method == "identity":
        msg = "identity has no statistics and needs no tables"
        raise InvalidInputError(msg)
    needs = StandardizationSpec.needs_of(method)
    if needs == "nothing" and given:
        msg = f"{method} has no quantiles; leave out {given}"
        raise InvalidInputError(msg)
    if needs == "quantiles" and quantile is None:
        quantile = _QUANTILE
    if needs != "nothing" and quantile_level is None:
        quantile_level = "image"
    return StandardizationSpec(method, quantile, lower_quantile, quantile_level)
