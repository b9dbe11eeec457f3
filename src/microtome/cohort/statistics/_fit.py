"""Standardization tables of one modality, from what was counted of its tissues."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.cohort._images import open_tissue_mask, tissues_with_images
from microtome.cohort._layout import CohortLayout
from microtome.cohort._made_of import Inputs, identity_of_names, image_of_tissue, mask_of_tissue
from microtome.cohort._modality import Modality
from microtome.cohort._panels import MeasuredChannels
from microtome.cohort._tables import read_tissues
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError
from microtome.jobs import run_each
from microtome.progress import Progress, silent
from microtome.standardize import (
    Level,
    Moments,
    QuantileCounter,
    QuantileSketch,
    StandardizationSpec,
    StatisticsTable,
    StatisticsTables,
)

from ._command import stats_command
from ._counted import count_tissue, forget_others, is_counted
from ._inside import TissuePixels
from ._look import TissueResult, TissueTask, count_pass, look_at
from ._unfitted import why_missing

__all__ = ["Fit", "FittedTables"]

_log = logging.getLogger(__name__)

_Row = NDArray[np.float64]
# Counters of exact quantiles that travel at a time: one holds half a megabyte a channel.
_TRAVELLING = 8


@dataclass(frozen=True, slots=True, eq=False)
class FittedTables:
    """Tables, and what a manifest says of them."""

    tables: StatisticsTables
    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The tissues and channels that one modality's tables speak of."""

    layout: CohortLayout
    modality: Modality
    resolution: Resolution
    measured: MeasuredChannels
    """Which tissue measured which channels of the panel."""
    tissues: tuple[str, ...]
    """All."""
    fitted: frozenset[str]
    """Those that global numbers are fitted on."""
    split: str | None
    executor: Executor | None = None
    progress: Progress = field(default=silent)

    @property
    def channels(self) -> tuple[str, ...]:
        """The panel."""
        return self.measured.panel

    @classmethod
    def of(
        cls,
        layout: CohortLayout,
        modality: Modality,
        resolution: Resolution,
        split: str | None,
        *,
        executor: Executor | None = None,
        progress: Progress = silent,
    ) -> Fit:
        """Find the tissues and the channels.

        Raises
        ------
        InvalidInputError
            If no tissue is in the split.
        """
        tissues = tuple(tissues_with_images(layout, resolution, modalities=[modality]))
        splits = _splits(layout, modality)
        chosen = split or ("train" if "train" in splits.values() else None)
        if chosen == "all" and "all" not in splits.values():
            chosen = None
        fitted = frozenset(t for t in tissues if chosen is None or splits.get(t) == chosen)
        if not fitted:
            msg = f"no tissue imaged as {modality} is in split {chosen!r}; there are {sorted({str(s) for s in splits.values()})}"
            raise InvalidInputError(msg)
        known = MeasuredChannels.read(layout, modality)
        return cls(layout, modality, resolution, known, tissues, fitted, chosen, executor, progress)

    def fitted_as(self, split: str | None) -> Fit:
        """Return the fit on the tissues of a split as tables name it; None is all tissues.

        Raises
        ------
        InvalidInputError
            If no tissue is in the split any more.
        """
        splits = _splits(self.layout, self.modality)
        fitted = frozenset(t for t in self.tissues if split is None or splits.get(t) == split)
        if not fitted:
            msg = f"no tissue imaged as {self.modality} is in split {split!r} any more; there are {sorted({str(s) for s in splits.values()})}"
            raise InvalidInputError(msg)
        return replace(self, fitted=fitted, split=split)

    def tables(
        self, spec: StandardizationSpec, stats_level: Level, *, exact: bool = False
    ) -> FittedTables:
        """Count the tissues and make the tables.

        Parameters
        ----------
        spec
            The method and its quantiles.
        stats_level
            Level of the means and standard deviations.
        exact
            Whether pixels of more than 16 bits are counted in several passes.

        Raises
        ------
        InvalidInputError
            If there is no pixel to fit on.
        """
        tissues = self.counted(spec, stats_level)
        # Before the pixels are read: what is replaced meanwhile is known to be stale.
        inputs = self.inputs(tissues)
        sources = [self._source(tissue) for tissue in tissues]
        for tissue in tissues:
            # A mask that is missing is found before hours of counting.
            if inputs[tissue]["mask"] is None:
                open_tissue_mask(self.layout, self.resolution, tissue)
        dtype = functools.reduce(np.promote_types, (source.dtype() for source in sources))
        passes = dtype if exact and not QuantileSketch(dtype, 1).exact else None
        wanted = tuple(q for q in (spec.upper_quantile, spec.lower_quantile) if q is not None)
        together = bool(wanted) and spec.quantile_level == "global"
        tasks = [
            TissueTask(
                source,
                spec,
                () if together else wanted,
                moments=spec.has_moments and not together,
                exact=passes,
            )
            for source in sources
        ]
        results = self._run(look_at, tasks, "pixels")
        if not any(r.pixels for t, r in zip(tissues, results, strict=True) if t in self.fitted):
            msg = f"no pixel of the tissues imaged as {self.modality} that are to be fitted on lies inside a mask ({', '.join(sorted(self.fitted)[:5])})"
            raise InvalidInputError(msg)
        given: _Row | None = None
        if together:
            fitted = [source for source in sources if source.tissue_id in self.fitted]
            given = self._quantiles(fitted, wanted, passes)
        moments = [result.moments for result in results]
        if together and spec.has_moments:
            chosen = [s for s in sources if stats_level == "image" or s.tissue_id in self.fitted]
            again = [TissueTask(source, spec, (), given, exact=passes) for source in chosen]
            done = dict(
                zip(
                    (s.tissue_id for s in chosen),
                    self._run(look_at, again, "moments"),
                    strict=True,
                )
            )
            moments = [done[t].moments if t in done else None for t in tissues]
        if passes is None:
            forget_others([self._source(tissue) for tissue in self.tissues])
        tables = StatisticsTables(
            *self._quantile_tables(results, given, len(wanted), tuple(tissues)),
            *self._moment_tables(moments, stats_level, tuple(tissues)),
            fitted_on=tuple(sorted(self.fitted)),
            split=self.split,
        )
        command = stats_command(
            self.layout.root,
            self.modality,
            self.resolution,
            str(spec),
            stats_level=stats_level if spec.has_moments else None,
        )
        self._tell_missing(tables, command)
        error = 0.0 if passes is not None else QuantileSketch(dtype, 1).relative_error
        return FittedTables(
            tables,
            self._manifest(
                spec, stats_level, dtype, error, dict(zip(tissues, results, strict=True)), inputs
            ),
        )

    def counted(self, spec: StandardizationSpec, stats_level: Level) -> list[str]:
        """Return the tissues whose pixels tables are made of."""
        apart = spec.quantile_level == "image" or (spec.has_moments and stats_level == "image")
        return [t for t in self.tissues if apart or t in self.fitted]

    def inputs(self, tissues: Sequence[str]) -> dict[str, Inputs]:
        """Return of which image, mask and channels the numbers of each tissue are made."""
        place = self.layout, self.modality, self.resolution
        return {
            tissue: {
                "image": image_of_tissue(*place, tissue),
                "mask": mask_of_tissue(self.layout, self.resolution, tissue),
                "channels": identity_of_names(self.measured.names_of(tissue)),
            }
            for tissue in tissues
        }

    def is_counted(self, tissues: Sequence[str]) -> bool:
        """Whether the files of all these tissues are those that were counted."""
        return all(is_counted(self._source(tissue)) for tissue in tissues)

    def _source(self, tissue: str) -> TissuePixels:
        place = self.layout, self.modality, self.resolution, tissue
        return TissuePixels(*place, self.channels, tuple(self.measured.names_of(tissue)))

    def _run(self, function: Any, tasks: Sequence[Any], what: str) -> list[Any]:
        found: list[Any] = []
        for done, result in enumerate(run_each(function, tasks, self.executor), start=1):
            found.append(result)
            self.progress(f"{what} {self.modality}", done, len(tasks))
        return found

    def _quantiles(
        self,
        sources: Sequence[TissuePixels],
        wanted: tuple[float, ...],
        passes: np.dtype[Any] | None,
    ) -> _Row:
        """Return quantiles over all of these tissues together, (channels, wanted)."""
        if passes is not None:
            counter = QuantileCounter(passes, len(self.channels), wanted)
            step = 0
            while not counter.done:
                for group in _groups(sources, _TRAVELLING):
                    tasks = [(source, counter.blank()) for source in group]
                    for counted in run_each(count_pass, tasks, self.executor):
                        counter.merge(counted)
                        step += 1
                        total = counter.passes * len(sources)
                        self.progress(f"quantiles {self.modality}", step, total)
                counter.finish_pass()
            return counter.quantiles()
        # Of what is fitted on alone: the same whichever other tissues are counted besides.
        fitted = functools.reduce(np.promote_types, (source.dtype() for source in sources))
        together = QuantileSketch(fitted, len(self.channels))
        for source in sources:
            together.merge(count_tissue(source).sketch)
        return together.quantiles(wanted)

    def _quantile_tables(
        self,
        results: Sequence[TissueResult],
        given: _Row | None,
        count: int,
        tissues: tuple[str, ...],
    ) -> tuple[StatisticsTable | None, StatisticsTable | None]:
        if not count:
            return None, None
        if given is not None:
            numbers, names = given[None], None
        else:
            rows = [result.quantiles for result in results if result.quantiles is not None]
            numbers, names = np.stack(rows), tissues
        made = [
            StatisticsTable(self.channels, numbers[..., place].astype(np.float32), names)
            for place in range(count)
        ]
        return made[0], made[1] if count > 1 else None

    def _moment_tables(
        self,
        found: Sequence[list[tuple[int, float, float]] | None],
        level: Level,
        tissues: tuple[str, ...],
    ) -> tuple[StatisticsTable | None, StatisticsTable | None]:
        there = [
            (tissue, Moments.from_channels(each))
            for tissue, each in zip(tissues, found, strict=True)
            if each is not None
        ]
        if not there:
            return None, None
        names = None
        if level == "image":
            names = tuple(tissue for tissue, _ in there)
            means = np.stack([moments.mean for _, moments in there])
            stds = np.stack([moments.std for _, moments in there])
        else:
            together = Moments(len(self.channels))
            for tissue, moments in there:
                if tissue in self.fitted:
                    together.merge(moments)
            means, stds = together.mean[None], together.std[None]
        return (
            StatisticsTable(self.channels, means.astype(np.float32), names),
            StatisticsTable(self.channels, stds.astype(np.float32), names),
        )

    def _tell_missing(self, tables: StatisticsTables, command: str) -> None:
        """Warn of channels that somebody measured and that what is global has no number of."""
        of = {name for t in self.fitted for name in self.measured.names_of(t)}
        somewhere = {name for t in self.tissues for name in self.measured.names_of(t)}
        for what, table in (("quantiles", tables.upper), ("means", tables.means)):
            if table is None or table.level != "global":
                continue
            empty = ~np.isfinite(table.values[0])
            lost = [n for n, no in zip(self.channels, empty, strict=True) if no and n in somewhere]
            if lost:
                why = why_missing(lost, of, tables.fitted_on, tables.split, command)
                _log.warning(
                    "%s: %d channels have no %s, and datasets leave them out. %s",
                    self.modality,
                    len(lost),
                    what,
                    why,
                )

    def _manifest(
        self,
        spec: StandardizationSpec,
        stats_level: Level,
        dtype: np.dtype[Any],
        error: float,
        results: dict[str, TissueResult],
        inputs: Mapping[str, Inputs],
    ) -> dict[str, Any]:
        return {
            "format": "microtome-standardization",
            "version": 1,
            "standardization": str(spec),
            "method": spec.method,
            "parameters": dict(spec.parameters),
            "upper_quantile": spec.upper_quantile,
            "lower_quantile": spec.lower_quantile,
            "quantile_level": spec.quantile_level,
            "stats_level": stats_level if spec.has_moments else None,
            "modality": self.modality.name,
            "resolution": self.resolution.directory,
            "mask": "tissue_masks",
            "pixel_type": str(dtype),
            "relative_error": error,
            "channels": list(self.channels),
            "tissues": {
                tissue: {"pixels": result.pixels, "fitted": tissue in self.fitted}
                | ({} if result.digest is None else {"counted": result.digest})
                | dict(inputs[tissue])
                for tissue, result in results.items()
            },
        }


def _splits(layout: CohortLayout, modality: Modality) -> dict[str, str | None]:
    return {
        row["tissue_id"]: row.get("split")
        for row in read_tissues(layout).to_pylist()
        if row["modality"] == modality.name
    }


def _groups(items: Sequence[TissuePixels], size: int) -> Iterator[list[TissuePixels]]:
    ahead = iter(items)
    while group := list(itertools.islice(ahead, size)):
        yield group
