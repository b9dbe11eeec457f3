"""Datasets of multiplex images: channels by name, measured in part, standardized by tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort._panels import MeasuredChannels, panel, passed_qc
from microtome.cohort.statistics import kept_channels
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError, NotFoundError, UnknownNameError
from microtome.panels import HISTONE_H3, ChannelState, parse_uniprot
from microtome.standardize import (
    Level,
    StandardizationSpec,
    Standardizer,
    StatisticsTables,
    build_standardizer,
)
from microtome.storage import Conversion

from ._imaging import BaseImagingDataset, as_tensor
from ._options import DatasetOptions, options_of, verify_options
from ._request import Request
from ._tissues import ImageMode, MultiplexTissue, TissueKind

__all__ = ["ChannelKind", "MultiplexImagingDataset", "statistics_directory"]

ChannelKind = Literal["complete", "qc_filtered", "uniprot_filtered"]
"""`complete`: all measured channels. `qc_filtered`: those that passed quality control.
`uniprot_filtered`: of these, those with a UniProt accession (as in spora_io)."""

_KINDS: tuple[ChannelKind, ...] = ("complete", "qc_filtered", "uniprot_filtered")


@dataclass(frozen=True, slots=True)
class _Selection:
    """Which channels are asked for."""

    kind: Any
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
    conversion: Conversion | None


def statistics_directory(
    layout: CohortLayout, modality: Modality, resolution: Resolution, spec: StandardizationSpec
) -> Path:
    """Return the directory of a standardization's tables.

    Raises
    ------
    NotFoundError
        If it is not there; says what makes it.
    """
    directory = layout.standardization(modality, resolution) / str(spec)
    if not directory.is_dir():
        msg = (
            f"there are no statistics in {directory}; compute them with `microtome stats "
            f"{layout.root} --method {spec} --resolution {resolution.directory}`"
        )
        raise NotFoundError(msg)
    return directory


class MultiplexImagingDataset(BaseImagingDataset[MultiplexTissue]):
    """Multiplex tiles or tissues of a cohort (as in spora_io).

    Parameters
    ----------
    name
        Name of the cohort.
    modality
        ``"imc"``, ``"codex"``, ``"cycif"``, ``"mibi"``, ``"stains"`` or a registered one.
    standardization
        ``"identity"``, or the path of its tables such as ``"quantile_clipping/uq_0.99_image"``.
    kind
        Which channels batches have.
    channels
        Only these, in this order: for batches over tissues that measured different ones. Tissues and
        tiles have them too, unless they are asked for by their `kind`.
    quantile_level, stats_level
        Level of the quantiles, and of the means and standard deviations; needed only where the
        tables have both.
    use_mean_std
        Whether means are subtracted and divided by standard deviations.
    disable_quantile_mask
        Keep channels whose statistics are degenerate (an upper quantile of 0). Those that have no
        statistics are left out all the same: they would be NaN.
    return_uniprot_ids
        Whether results have `uniprot_ids`.
    replace_nuclear_uniprot_ids
        Whether nuclear markers of the panel have the accession of histone H3, P68431, whatever
        their own.
    **options
        Those of `BaseImagingDataset`: resolution, path, tile_size, tile_strategy, split, labels,
        masks and cells, filters.

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
        standardization: str | None = None,
        kind: ChannelKind = "complete",
        channels: Sequence[str] | None = None,
        quantile_level: Level | None = None,
        stats_level: Level | None = None,
        use_mean_std: bool = True,
        disable_quantile_mask: bool = False,
        return_uniprot_ids: bool = True,
        replace_nuclear_uniprot_ids: bool = False,
        **options: Unpack[DatasetOptions],
    ) -> None:
        verify_options(type(self).__name__, options, options_of(type(self)))
        parsed = parse_modality(modality)
        if parsed.kind != "multiplex":
            msg = f"{parsed} is brightfield; use HEImagingDataset or SingleIHCImagingDataset"
            raise InvalidInputError(msg)
        if standardization is None:
            msg = (
                "standardization= is missing: 'identity' for what is stored, or the path of tables that "
                "`microtome stats` made, such as 'quantile_clipping/uq_0.99_image'"
            )
            raise InvalidInputError(msg)
        self._default = _Selection(kind, None if channels is None else _names(channels))
        super().__init__(name, parsed, **options)
        self.standardization = StandardizationSpec.parse(standardization)
        self._mean_std = use_mean_std
        self._mask = not disable_quantile_mask
        self._return_ids = return_uniprot_ids
        rows = panel(self.layout, self.modality)
        self.channel_list: tuple[str, ...] = tuple(rows["channel_name"].to_pylist())
        count = len(self.channel_list)
        columns = rows.column_names
        self._qc = passed_qc(self.layout, self.modality, rows)
        self._uniprot: list[str | None] = (
            rows["uniprot_id"].to_pylist() if "uniprot_id" in columns else [None] * count
        )
        if replace_nuclear_uniprot_ids:
            self._uniprot = self._with_nuclear(rows)
        unknown = [c for c in channels or () if c not in self.channel_list]
        if unknown:
            msg = f"channels {unknown} are not in the panel of {self.modality}: {list(self.channel_list)}"
            raise UnknownNameError(msg)
        self._measured = MeasuredChannels.read(self.layout, self.modality)
        self._tables = self._read_tables(quantile_level, stats_level)
        self._plans: dict[tuple[str, _Selection], _Planes] = {}

    def _with_nuclear(self, rows: Any) -> list[str | None]:
        if "is_nuclear_marker" not in rows.column_names:
            msg = (
                f"{self.layout.channels(self.modality)} has no column is_nuclear_marker, so that "
                "nothing says whose accessions replace_nuclear_uniprot_ids replaces"
            )
            raise InvalidInputError(msg)
        nuclear = rows["is_nuclear_marker"].to_pylist()
        return [HISTONE_H3 if n else own for n, own in zip(nuclear, self._uniprot, strict=True)]

    def _read_tables(
        self, quantile_level: Level | None, stats_level: Level | None
    ) -> StatisticsTables | None:
        spec = self.standardization
        if not spec.reads_statistics(use_mean_std=self._mean_std):
            return None
        if quantile_level is not None and quantile_level != spec.quantile_level:
            msg = f"quantile_level={quantile_level!r} is not that of {spec}; it is the end of the path"
            raise InvalidInputError(msg)
        directory = statistics_directory(self.layout, self.modality, self.resolution, spec)
        return StatisticsTables.read(
            directory, quantile_level=spec.quantile_level, stats_level=stats_level
        )

    @property
    def channels(self) -> tuple[str, ...] | None:
        """The channels that batches were asked to have; None for all of `channel_kind`."""
        return self._default.channels

    @property
    def channel_kind(self) -> ChannelKind:
        """Which channels of a tissue batches may have."""
        return self._default.kind

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

    @property
    def image_channel_map(self) -> dict[str, NDArray[np.bool_]]:
        """Which channels of the panel each tissue measured, (panel,) by tissue id."""
        return {tissue: self._measured_by(tissue) for tissue in self._tissue_ids}

    def get_channel_states(self, tissue_id: str) -> NDArray[np.uint8]:
        """Return the state of every channel of the panel in a tissue: see `ChannelState`.

        Returns
        -------
        (panel,): 0 not measured, 1 measured, 2 measured but failed quality control.
        """
        self._number(tissue_id)
        measured = self._measured_by(tissue_id)
        passed = np.where(self._qc, ChannelState.MEASURED, ChannelState.FAILED_QC)
        return np.where(measured, passed, ChannelState.NOT_MEASURED).astype(np.uint8)

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

    def get_standardizer(self, tissue_id: str) -> Standardizer:
        """Return what standardizes the channels that a tissue's batches have, by `channel_names`."""
        return self._planes(tissue_id, self._default).standardizer

    def _selection(self, kind: str | None) -> _Selection:
        """Return what is asked for: by default `channels=`, else the seed's choice, where it has any."""
        if kind is None and self._default.channels is not None:
            return self._default
        if kind is None:
            known = any(_is_protein(accession) for accession in self._uniprot)
            kind = "uniprot_filtered" if known else "complete"
        return _Selection(kind, None)

    def _result(
        self,
        tissue_id: str,
        region: Any,
        kind: TissueKind,
        mode: ImageMode,
        request: Request,
    ) -> MultiplexTissue:
        planes = self._planes(tissue_id, request.select or self._default)
        loading = np.zeros(int(planes.measured.sum()), np.bool_)
        loading[planes.index] = True
        accessions = self._accessions(planes.names)
        known = self._return_ids and any(a is not None for a in accessions)
        return MultiplexTissue(
            image=as_tensor(region.data, mode),
            tissue_id=tissue_id,
            kind=kind,
            region=region,
            channel_names=np.asarray(planes.names, dtype=np.str_),
            measured_mask=planes.measured,
            image_loading_mask=loading,
            uniprot_ids=accessions if known else None,
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

    def _conversions(
        self, images: NDArray[np.int64], select: Any
    ) -> Mapping[int, Conversion] | None:
        found: dict[int, Conversion] = {}
        for i in images.tolist():
            own = self._planes(self._tissue_ids[i], select or self._default).conversion
            if own is None:
                return None
            found[i] = own
        return found

    def _batch_key(self, tissue_id: str, select: Any) -> Any:
        return self._planes(tissue_id, select or self._default).names

    def _standardize(
        self,
        stored: NDArray[Any],
        images: NDArray[np.int64],
        valid: NDArray[np.int64],
        select: Any,
    ) -> NDArray[np.float32]:
        # Pixels that are floats already are changed where they are: nobody else has them.
        out = stored if stored.dtype == np.float32 else np.empty(stored.shape, np.float32)
        start = 0
        # Tiles of a batch mostly come tissue by tissue: runs of them are slices, and not copied.
        for stop in [*(np.flatnonzero(np.diff(images)) + 1).tolist(), len(images)]:
            if stop > start:
                tissue = self._tissue_ids[int(images[start])]
                planes = self._planes(tissue, select or self._default)
                part = slice(start, stop)
                planes.standardizer(stored[part], out=out[part], valid=valid[part])
            start = stop
        return out

    def _planes(self, tissue_id: str, select: _Selection) -> _Planes:
        """Work out, once a tissue, which planes a selection returns."""
        key = (tissue_id, select)
        if key not in self._plans:
            self._plans[key] = self._plan(tissue_id, select)
        return self._plans[key]

    def _measured_by(self, tissue_id: str) -> NDArray[np.bool_]:
        """Return which channels of the panel a tissue measured; its image must have as many."""
        return self._measured.planes(tissue_id, self.image(tissue_id))

    def _plan(self, tissue_id: str, select: _Selection) -> _Planes:
        measured = self._measured_by(tissue_id)
        stored = [n for n, there in zip(self.channel_list, measured, strict=True) if there]
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
        standardizer = kept_channels(
            whole, self.name, tissue_id, self._tables, self._measured, root=str(self.layout.root)
        )
        names = standardizer.channel_names
        return _Planes(
            measured,
            [stored.index(name) for name in names],
            names,
            standardizer,
            standardizer.conversion,
        )

    def _passes(self, place: int, kind: ChannelKind) -> bool:
        if kind == "complete":
            return True
        if not self._qc[place]:
            return False
        return kind == "qc_filtered" or _is_protein(self._uniprot[place])

    def _accessions(self, names: Sequence[str]) -> NDArray[np.object_]:
        known = dict(zip(self.channel_list, self._uniprot, strict=True))
        return np.asarray([known[name] for name in names], dtype=object)


def _is_protein(field: str | None) -> bool:
    """Whether a field has accessions and nothing else; one antibody may have several."""
    if field is not None and field != field.strip():
        return False  # handed on as it is, it would match no other
    try:
        return bool(parse_uniprot(field))
    except InvalidInputError:
        return False


def _names(channels: Sequence[str]) -> tuple[str, ...]:
    """Return names of channels, each once; InvalidInputError where they are none."""
    if isinstance(channels, str):
        msg = f"channels= is a list of names, got the text {channels!r}; for one channel [{channels!r}]"
        raise InvalidInputError(msg)
    names = tuple(channels)
    if not names or len(set(names)) < len(names):
        msg = f"channels= names at least one channel, and each once, got {list(names)}"
        raise InvalidInputError(msg)
    return names
