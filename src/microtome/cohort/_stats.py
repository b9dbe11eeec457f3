"""`stats`: pixels inside tissue become standardization tables."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Resolution
from microtome.errors import ExistsError, FormatError, InvalidInputError
from microtome.image import blocks_of
from microtome.progress import Progress, silent
from microtome.standardize import (
    Level,
    Moments,
    QuantileCounter,
    StandardizationSpec,
    StatisticsTable,
    StatisticsTables,
)

from ._images import open_tissue_image, open_tissue_mask, tissues_with_images
from ._layout import CohortLayout
from ._modality import Modality, parse_modality
from ._tables import measured_channels, panel, read_tissues

__all__ = ["stats"]

_log = logging.getLogger(__name__)

# Pixels held at a time: 2048 x 2048 of one tissue, all channels.
_BLOCK = 2048


def stats(  # noqa: PLR0913 - the choices that make up a standardization
    cohort: str | os.PathLike[str],
    *,
    modality: str | Modality | None = None,
    method: str = "quantile_clipping",
    quantile: float = 0.99,
    lower_quantile: float | None = None,
    quantile_level: Level = "image",
    stats_level: Level = "global",
    split: str | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Compute standardization tables from the pixels inside the tissue masks, streaming.

    Quantiles are exact, those of `numpy.quantile` on all the pixels; memory does not grow with the
    images. Whatever is `global` is fitted on one split only. A quantile of each image by itself is
    computed for every tissue: it tells nothing of one tissue to another.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    modality
        Which multiplex modality; None for all. Brightfield is standardized by fixed numbers and
        needs no tables.
    method
        ``"quantile_clipping"``, ``"quantile_clipping_log1p"``, or a registered one.
    quantile, lower_quantile
        Where intensities are clipped; None clips at 0 below.
    quantile_level, stats_level
        ``"image"`` or ``"global"``: of each tissue, or of all together.
    split
        Tissues to fit on. By default ``"train"`` where the cohort has such a split, else all.
    resolution
        Which resolution; may be left out where the cohort has one.
    overwrite
        Replace tables that are there.
    progress
        Called with the passes over tissues done and to do.

    Returns
    -------
    Directories of the tables, one a modality.

    Raises
    ------
    InvalidInputError
        If the method, split or modality is unknown or needs no tables.
    NotFoundError
        If a tissue has no mask.
    ExistsError
        If the tables are there and `overwrite` is false.
    FormatError
        If pixels are NaN, or a mask does not fit its image.
    """
    if stats_level not in get_args(Level):
        msg = f"stats_level must be 'image' or 'global', got {stats_level!r}"
        raise InvalidInputError(msg)
    spec = StandardizationSpec(method, quantile, lower_quantile, quantile_level)
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
    written: list[Path] = []
    for kind in kinds:
        directory = layout.standardization(kind, target) / str(spec)
        if (
            directory / f"{quantile_level}_level_upper_quantiles.parquet"
        ).exists() and not overwrite:
            msg = f"{directory} exists; replace it with --overwrite (overwrite=True)"
            raise ExistsError(msg)
        fit = _Fit.of(layout, kind, target, split)
        fit.tables(spec, stats_level, progress).write(directory)
        written.append(directory)
    return written


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """The tissues and channels that one modality's tables speak of."""

    layout: CohortLayout
    modality: Modality
    resolution: Resolution
    channels: tuple[str, ...]
    tissues: tuple[str, ...]
    """All."""
    fitted: frozenset[str]
    """Those that global numbers are fitted on."""
    split: str | None

    @classmethod
    def of(
        cls, layout: CohortLayout, modality: Modality, resolution: Resolution, split: str | None
    ) -> _Fit:
        tissues = tuple(tissues_with_images(layout, resolution, modalities=[modality]))
        splits = {
            row["tissue_id"]: row.get("split")
            for row in read_tissues(layout).to_pylist()
            if row["modality"] == modality.name
        }
        chosen = split or ("train" if "train" in splits.values() else None)
        fitted = frozenset(t for t in tissues if chosen is None or splits.get(t) == chosen)
        if not fitted:
            msg = f"no tissue imaged as {modality} is in split {chosen!r}; there are {sorted({str(s) for s in splits.values()})}"
            raise InvalidInputError(msg)
        names = tuple(panel(layout, modality)["channel_name"].to_pylist())
        return cls(layout, modality, resolution, names, tissues, fitted, chosen)

    def tables(
        self, spec: StandardizationSpec, stats_level: Level, progress: Progress
    ) -> StatisticsTables:
        wanted = [q for q in (spec.upper_quantile, spec.lower_quantile) if q is not None]
        quantiles = self._quantiles(wanted, spec.quantile_level or "image", progress)
        upper = quantiles[0]
        lower = quantiles[1] if len(wanted) > 1 else None
        means, stds = self._moments(spec, upper, lower, stats_level, progress)
        return StatisticsTables(
            upper, lower, means, stds, fitted_on=tuple(sorted(self.fitted)), split=self.split
        )

    def _quantiles(
        self, wanted: Sequence[float], level: Level, progress: Progress
    ) -> list[StatisticsTable]:
        if level == "global":
            found = self._count(sorted(self.fitted), wanted, progress)[None].astype(np.float32)
            return [StatisticsTable(self.channels, found[..., i]) for i in range(len(wanted))]
        rows: list[NDArray[np.float64]] = []
        for done, tissue in enumerate(self.tissues, start=1):
            rows.append(self._count([tissue], wanted, silent))
            progress(f"quantiles {self.modality}", done, len(self.tissues))
        stacked = np.stack(rows).astype(np.float32)
        return [
            StatisticsTable(self.channels, stacked[..., i], self.tissues)
            for i in range(len(wanted))
        ]

    def _count(
        self, tissues: Sequence[str], wanted: Sequence[float], progress: Progress
    ) -> NDArray[np.float64]:
        """Return quantiles over some tissues together, (channels, wanted)."""
        counter: QuantileCounter | None = None
        passes = 1
        step = 0
        while counter is None or not counter.done:
            for tissue in tissues:
                for pixels, places in self._blocks(tissue):
                    if counter is None:
                        counter = QuantileCounter(pixels.dtype, len(self.channels), wanted)
                        passes = counter.passes
                    counter.update(pixels, channels=places, where=f"tissue {tissue!r}")
                step += 1
                progress(f"quantiles {self.modality}", step, passes * len(tissues))
            if counter is None:
                # No pixel of any of these tissues is inside a mask.
                return np.full((len(self.channels), len(wanted)), np.nan)
            counter.finish_pass()
        return counter.quantiles()

    def _moments(
        self,
        spec: StandardizationSpec,
        upper: StatisticsTable,
        lower: StatisticsTable | None,
        level: Level,
        progress: Progress,
    ) -> tuple[StatisticsTable, StatisticsTable]:
        together = Moments(len(self.channels))
        apart: list[Moments] = []
        tissues = sorted(self.fitted) if level == "global" else self.tissues
        for done, tissue in enumerate(tissues, start=1):
            moments = together if level == "global" else Moments(len(self.channels))
            high = upper.row(tissue, self.channels).astype(np.float64)
            low = (
                lower.row(tissue, self.channels).astype(np.float64)
                if lower
                else np.zeros_like(high)
            )
            for pixels, places in self._blocks(tissue):
                values = pixels.astype(np.float64)
                spec.transform(values, low[places][:, None], high[places][:, None])
                moments.update(values, channels=places, where=f"tissue {tissue!r}")
            apart.append(moments)
            progress(f"moments {self.modality}", done, len(tissues))
        if level == "global":
            means, stds, tissue_ids = together.mean[None], together.std[None], None
        else:
            means, stds = np.stack([m.mean for m in apart]), np.stack([m.std for m in apart])
            tissue_ids = self.tissues
        return (
            StatisticsTable(self.channels, means.astype(np.float32), tissue_ids),
            StatisticsTable(self.channels, stds.astype(np.float32), tissue_ids),
        )

    def _blocks(self, tissue: str) -> Iterator[tuple[NDArray[Any], list[int]]]:
        """Yield the pixels of a tissue inside its mask, (C, n), with the panel places of the rows."""
        image = open_tissue_image(self.layout, self.modality, self.resolution, tissue)
        mask = open_tissue_mask(self.layout, self.resolution, tissue)
        base = image.level(0)
        if mask.level_shape(0)[-2:] != (base.height, base.width):
            msg = f"{mask.uri} has {mask.level_shape(0)[-2:]} pixels, {image.uri} has {(base.height, base.width)}"
            raise FormatError(msg)
        stored = measured_channels(self.layout, self.modality, tissue)
        if len(stored) != image.nchannels:
            msg = f"{image.uri} has {image.nchannels} channels, its tables say {len(stored)}: {stored}"
            raise FormatError(msg)
        places = [self.channels.index(name) for name in stored]
        for y, x in blocks_of((base.height, base.width), (_BLOCK, _BLOCK)):
            inside = mask.read(0, y, x).reshape(y[1] - y[0], x[1] - x[0]) != 0
            if inside.any():
                yield image.read(0, y, x).reshape(len(places), *inside.shape)[:, inside], places
