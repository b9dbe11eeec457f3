"""Datasets of multiplex images: channels by name, measured in part, standardized by tables."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Resolution
from microtome.errors import FormatError, InvalidInputError, NotFoundError, UnknownNameError
from microtome.standardize import (
    Level,
    StandardizationSpec,
    Standardizer,
    StatisticsTables,
    build_standardizer,
)

from ._dataset import BaseImagingDataset, as_tensor
from ._modality import Modality, parse_modality
from ._tables import measured_channels, panel
from ._tissues import MultiplexTissue, TissueKind

__all__ = ["ChannelKind", "MultiplexImagingDataset"]

_log = logging.getLogger(__name__)

ChannelKind = Literal["complete", "qc_filtered", "uniprot_filtered"]
"""`complete`: all measured channels. `qc_filtered`: those that passed quality control.
`uniprot_filtered`: of these, those with a UniProt accession (seed 003)."""

_KINDS: tuple[ChannelKind, ...] = ("complete", "qc_filtered", "uniprot_filtered")

# UniProt's own pattern for accessions, https://www.uniprot.org/help/accession_numbers, with an
# optional isoform; spora_io's admits the first family only and drops A0A... and others.
_ACCESSION = re.compile(
    r"(?:[OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9](?:[A-Z][A-Z0-9]{2}[0-9]){1,2})(?:-\d+)?"
)


@dataclass(frozen=True, slots=True)
class _Selection:
    """Which channels are asked for."""

    kind: ChannelKind
    channels: tuple[str, ...] | None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            msg = f"kind must be one of {_KINDS}, got {self.kind!r}"
            raise InvalidInputError(msg)


@dataclass(frozen=True, slots=True, eq=False)
class _Planes:
    """Which planes of a tissue's image are returned, and how they are standardized."""

    measured: NDArray[np.bool_]
    index: list[int]
    names: tuple[str, ...]
    standardizer: Standardizer


class MultiplexImagingDataset(BaseImagingDataset):
    """Multiplex tiles or tissues of a cohort (seed 003).

    Parameters
    ----------
    name
        Name of the cohort.
    modality
        ``"imc"``, ``"codex"``, ``"cycif"``, ``"mibi"``, ``"stains"`` or a registered one.
    standardization
        ``"identity"``, or the path of its tables such as ``"quantile_clipping/uq_0.99_image"``.
    resolution, path, tile_size, tile_strategy, split
        As for `HEImagingDataset`.
    kind
        Which channels batches have.
    channels
        Only these, in this order: for batches over tissues that measured different ones.
    stats_level
        Level of the means and standard deviations; needed only where the tables have both.
    use_mean_std
        Whether means are subtracted and divided by standard deviations.
    disable_quantile_mask
        Keep channels whose statistics are degenerate (an upper quantile of 0).

    Raises
    ------
    InvalidInputError
        If there is no such modality, resolution, tiling, split, kind or standardization.
    NotFoundError
        If the standardization's tables are missing.
    """

    def __init__(  # noqa: PLR0913 - the seed's parameters
        self,
        name: str,
        modality: str | Modality,
        *,
        standardization: str,
        resolution: float | str | tuple[float, float] | Resolution | None = None,
        path: str | os.PathLike[str] | None = None,
        tile_size: int | tuple[int, int] | None = None,
        tile_strategy: str | None = None,
        split: str | None = None,
        kind: ChannelKind = "complete",
        channels: Sequence[str] | None = None,
        stats_level: Level | None = None,
        use_mean_std: bool = True,
        disable_quantile_mask: bool = False,
    ) -> None:
        parsed = parse_modality(modality)
        if parsed.kind != "multiplex":
            msg = f"{parsed} is brightfield; use HEImagingDataset or SingleIHCImagingDataset"
            raise InvalidInputError(msg)
        self._default = _Selection(kind, tuple(channels) if channels is not None else None)
        super().__init__(
            name,
            parsed,
            resolution,
            path=path,
            tile_size=tile_size,
            tile_strategy=tile_strategy,
            split=split,
        )
        self.standardization = StandardizationSpec.parse(standardization)
        self._mean_std = use_mean_std
        self._mask = not disable_quantile_mask
        rows = panel(self.layout, self.modality)
        self.channel_list: tuple[str, ...] = tuple(rows["channel_name"].to_pylist())
        count = len(self.channel_list)
        columns = rows.column_names
        self._qc = (
            [v is not False for v in rows["qc_pass"].to_pylist()]
            if "qc_pass" in columns
            else [True] * count
        )
        self._uniprot: list[str | None] = (
            rows["uniprot_id"].to_pylist() if "uniprot_id" in columns else [None] * count
        )
        unknown = [c for c in channels or () if c not in self.channel_list]
        if unknown:
            msg = f"channels {unknown} are not in the panel of {self.modality}: {list(self.channel_list)}"
            raise UnknownNameError(msg)
        self._tables = self._read_tables(stats_level)
        self._plans: dict[tuple[str, _Selection], _Planes] = {}

    def _read_tables(self, stats_level: Level | None) -> StatisticsTables | None:
        if not self.standardization.needs_statistics:
            return None
        there = self.layout.standardization(self.modality, self.resolution)
        directory = there / str(self.standardization)
        if not directory.is_dir():
            msg = f"there are no upper quantiles in {directory}; compute them with `microtome stats {self.layout.root}`"
            raise NotFoundError(msg)
        return StatisticsTables.read(
            directory,
            quantile_level=self.standardization.quantile_level,
            stats_level=stats_level,
        )

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Channels of the batches.

        Raises
        ------
        InvalidInputError
            If tissues differ in them: choose those that all have with `channels=`.
        """
        images = np.arange(len(self._tissue_ids))
        self._channels(images, None)
        return self._planes(self._tissue_ids[0], self._default).names

    def _selection(self, kind: ChannelKind | None) -> _Selection:
        """Return what is asked for: by default the seed's choice, where there is anything in it."""
        if kind is None:
            known = any(a and _ACCESSION.match(a) for a in self._uniprot)
            kind = "uniprot_filtered" if known else "complete"
        return _Selection(kind, None)

    def get_channel_names(
        self, tissue_id: str, kind: ChannelKind | None = None
    ) -> NDArray[np.str_]:
        """Return the names of the channels of a tissue, as `get_tissue` returns them."""
        return np.asarray(self._planes(tissue_id, self._selection(kind)).names, dtype=np.str_)

    def get_uniprot_ids(
        self, tissue_id: str, kind: ChannelKind | None = None
    ) -> NDArray[np.object_]:
        """Return the UniProt accessions of the channels of a tissue; None for those without."""
        return self._accessions(self._planes(tissue_id, self._selection(kind)).names)

    def get_tissue(self, tissue_id: str, kind: ChannelKind | None = None) -> MultiplexTissue:
        """Read a whole tissue.

        Parameters
        ----------
        tissue_id
            Which.
        kind
            Which channels; by default ``"uniprot_filtered"`` as in spora_io, but
            ``"complete"`` where the panel has no accession at all.

        Raises
        ------
        UnknownNameError
            If there is no such tissue.
        InvalidInputError
            If no channel is of this kind.
        """
        shape = self.image(tissue_id).level_shape(0)
        return self._result(tissue_id, 0, 0, (shape[-2], shape[-1]), kind, "tissue")

    def get_tile(
        self, tissue_id: str, tile_id: int, kind: ChannelKind | None = None
    ) -> MultiplexTissue:
        """Read a tile by its id, the `tile_id` of the table and not a position in it."""
        row, col = self._tile_corner(tissue_id, tile_id)
        return self._result(tissue_id, row, col, self._tile_shape(), kind, "tile", tile_id)

    def get_tile_by_coordinates(
        self, tissue_id: str, row: int, col: int, kind: ChannelKind | None = None
    ) -> MultiplexTissue:
        """Read the tile whose top-left pixel is (row, col); 0 outside the image."""
        return self._result(tissue_id, row, col, self._tile_shape(), kind, "tile")

    def _result(
        self,
        tissue_id: str,
        row: int,
        col: int,
        size: tuple[int, int],
        kind: ChannelKind | None,
        what: TissueKind,
        tile_id: int | None = None,
    ) -> MultiplexTissue:
        select = self._selection(kind)
        planes = self._planes(tissue_id, select)
        region = self._window(tissue_id, row, col, size, select, tile_id=tile_id)
        loading = np.zeros(int(planes.measured.sum()), np.bool_)
        loading[planes.index] = True
        accessions = self._accessions(planes.names)
        return MultiplexTissue(
            image=as_tensor(region.data, "CHW"),
            tissue_id=tissue_id,
            kind=what,
            region=region,
            channel_names=np.asarray(planes.names, dtype=np.str_),
            measured_mask=planes.measured,
            image_loading_mask=loading,
            uniprot_ids=None if all(a is None for a in accessions) else accessions,
        )

    def _channels(self, images: NDArray[np.int64], select: Any) -> dict[int, list[int]]:
        plans = {
            int(i): self._planes(self._tissue_ids[int(i)], select or self._default) for i in images
        }
        names = {self._tissue_ids[i]: plan.names for i, plan in plans.items()}
        if len(set(names.values())) > 1:
            msg = (
                f"tissues of one batch differ in their channels: {dict(list(names.items())[:3])}; choose "
                "those that all have with channels="
            )
            raise InvalidInputError(msg)
        return {i: plan.index for i, plan in plans.items()}

    def _standardize(
        self,
        stored: NDArray[Any],
        images: NDArray[np.int64],
        valid: NDArray[np.int64],
        select: Any,
    ) -> NDArray[np.float32]:
        out = np.empty(stored.shape, np.float32)
        for image in np.unique(images):
            mine = images == image
            planes = self._planes(self._tissue_ids[int(image)], select or self._default)
            out[mine] = planes.standardizer(stored[mine], valid=valid[mine])
        return out

    def _planes(self, tissue_id: str, select: _Selection) -> _Planes:
        """Work out, once a tissue, which planes a selection returns."""
        key = (tissue_id, select)
        if key not in self._plans:
            self._plans[key] = self._plan(tissue_id, select)
        return self._plans[key]

    def _plan(self, tissue_id: str, select: _Selection) -> _Planes:
        image = self.image(tissue_id)
        stored = measured_channels(self.layout, self.modality, tissue_id)
        if len(stored) != image.nchannels:
            msg = (
                f"{image.uri} has {image.nchannels} channels, but {self.layout.channels_per_tissue(self.modality)} "
                f"says that {len(stored)} were measured: {stored}"
            )
            raise FormatError(msg)
        places = {name: i for i, name in enumerate(self.channel_list)}
        passed = [name for name in stored if self._passes(places[name], select.kind)]
        if select.channels is not None:
            lost = [name for name in select.channels if name not in passed]
            if lost:
                msg = f"tissue {tissue_id!r} has no {select.kind} channels {lost}; it has {passed}"
                raise UnknownNameError(msg)
            passed = list(select.channels)
        if not passed:
            msg = f"no channel of tissue {tissue_id!r} is {select.kind!r}; measured are {stored}. Use kind='complete'"
            raise InvalidInputError(msg)
        whole = build_standardizer(
            self.standardization,
            passed,
            tables=self._tables,
            tissue_id=tissue_id,
            use_mean_std=self._mean_std,
            quantile_mask=self._mask,
        )
        standardizer = whole.select(whole.keep)
        lost = [name for name in passed if name not in standardizer.channel_names]
        if lost:
            _log.warning(
                "%s: channels %s of tissue %s are left out, their statistics are degenerate (an upper "
                "quantile of 0, say); disable_quantile_mask=True keeps them",
                self.name,
                lost,
                tissue_id,
            )
        names = standardizer.channel_names
        measured = np.zeros(len(self.channel_list), np.bool_)
        measured[[places[name] for name in stored]] = True
        return _Planes(measured, [stored.index(name) for name in names], names, standardizer)

    def _passes(self, place: int, kind: ChannelKind) -> bool:
        if kind == "complete":
            return True
        if not self._qc[place]:
            return False
        accession = self._uniprot[place]
        return kind == "qc_filtered" or bool(accession and _ACCESSION.fullmatch(accession))

    def _accessions(self, names: Sequence[str]) -> NDArray[np.object_]:
        known = dict(zip(self.channel_list, self._uniprot, strict=True))
        return np.asarray([known[name] for name in names], dtype=object)
