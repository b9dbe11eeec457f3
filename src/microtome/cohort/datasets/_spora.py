"""`SporaDataset`: several cohorts as one, drawn from by an explicit rule (as in spora_io)."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.cohort._html import spora_html
from microtome.cohort._modality import Modality
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError, OutOfRangeError, UnknownNameError
from microtome.sampling import CohortSampler, SamplingRule
from microtome.storage import StorageOptions

from ._composed import ComposedImagingDataset
from ._composition import verify_modality_options
from ._spora_arguments import (
    Options,
    by_name,
    item_numbers,
    merged_options,
    sample_of,
    verify_names,
)
from ._spora_index import CohortWish
from ._spora_opening import open_cohorts
from ._spora_single import SamplingUnit, SingleDraws
from ._spora_tables import (
    Draws,
    described,
    draws_fingerprint,
    tile_table,
    tissue_table,
    write_drawn,
)

__all__ = ["SporaDataset"]

_log = logging.getLogger(__name__)


class SporaDataset:
    """Tiles, or tissues, of several cohorts: `dataset[i]` is draw `i` of an epoch.

    What is drawn where is a function of (seed, epoch, position); see `SamplingRule` for how much of
    it each cohort gives, and `CohortSampler` for the order. It opens by the tables of the cohorts
    alone; a cohort's images are opened when first drawn. A table of tiles with an index
    (`TileTable.build_index`) is not even read.

    A sample is a dict: `dataset_name`, `tissue_id`, `tile_id` where tiles are drawn, and
    `modalities`, typed results by the name of the modality.

    Parameters
    ----------
    dataset_names
        The cohorts.
    datasets_dir
        Directory of the cohorts; by default the one that SPORA_DATASETS_DIR names.
    modalities
        Which; None for all. A cohort that has none of them is skipped with a warning.
    resolution
        Micrometres per pixel.
    tile_size
        Side of the tiles in pixels, or (height, width).
    tile_strategy
        Which tiling.
    sampling_unit
        ``"tiles"`` or ``"tissues"``; tiles where there is a tile size.
    verbose
        Whether to log what was found.
    load_cell_metadata
        Whether to read the tables of cells.
    split
        Only images whose `split` is this; None for all.
    modality_kwargs, dataset_modality_kwargs
        Options by modality as of `ComposedImagingDataset`, for all cohorts, and by cohort on top.
    seed
        Of the draws, from 0 to 2^64 - 1; None is 0.
    alpha, weights, cohort_quota, patient_quota, replacement, epoch_length
        How an epoch is made up, as of `SamplingRule`; weights, and quotas that are to be met
        exactly, by the name of the cohort. A patient is one of a cohort: two cohorts may call two
        people the same.

    Raises
    ------
    NotFoundError
        If there is no such cohort, its table lists an image that is not there, or it has no
        tables of a standardization.
    UnknownNameError
        If options are of a modality that there is not.
    InvalidInputError
        If an argument, or an option of a modality, is wrong, no cohort is left, or the epoch cannot be filled.
    """

    def __init__(  # noqa: PLR0913 - the seed's parameters, and the rule's
        self,
        dataset_names: Sequence[str],
        *,
        datasets_dir: str | os.PathLike[str] | None = None,
        storage_options: StorageOptions | None = None,
        modalities: Sequence[str | Modality] | None = None,
        resolution: float | str | tuple[float, float] | Resolution | None = 1.0,
        tile_size: int | tuple[int, int] | None = None,
        tile_strategy: str = "default",
        sampling_unit: SamplingUnit | None = None,
        verbose: bool = False,
        load_cell_metadata: bool = False,
        split: str | None = None,
        modality_kwargs: Options | None = None,
        dataset_modality_kwargs: Mapping[str, Options] | None = None,
        seed: int | None = None,
        alpha: float = 1.0,
        weights: Mapping[str, float] | None = None,
        cohort_quota: int | Mapping[str, int] | None = None,
        patient_quota: int | None = None,
        replacement: bool = False,
        epoch_length: int | None = None,
    ) -> None:
        # Kept to be made again in another process: a table that is mapped into memory would be
        # sent as a copy.
        self._arguments = {k: v for k, v in locals().items() if k != "self"}
        verify_names(dataset_names, modalities, dataset_modality_kwargs)
        verify_modality_options(modality_kwargs)
        for name, own in (dataset_modality_kwargs or {}).items():
            verify_modality_options(own, f"dataset_modality_kwargs[{name!r}]")
        unit = sampling_unit or ("tiles" if tile_size is not None else "tissues")
        if unit not in get_args(SamplingUnit):
            msg = f"sampling_unit must be one of {get_args(SamplingUnit)}, got {unit!r}"
            raise InvalidInputError(msg)
        if unit == "tiles" and tile_size is None:
            msg = "sampling_unit='tiles' needs a tile_size"
            raise InvalidInputError(msg)
        self.sampling_unit: SamplingUnit = unit
        self.seed = 0 if seed is None else seed
        self._wish = CohortWish(modalities, resolution, split, tile_size, tile_strategy)
        self._load_cells = load_cell_metadata
        self._options = {
            name: merged_options(modality_kwargs, (dataset_modality_kwargs or {}).get(name))
            for name in dataset_names
        }
        self._cohorts = open_cohorts(
            dataset_names,
            datasets_dir,
            self._wish,
            self._options,
            storage_options=storage_options,
        )
        self._number = {cohort.name: i for i, cohort in enumerate(self._cohorts)}
        if patient_quota is not None:
            for cohort in self._cohorts:
                cohort.verify_patients()
        self._weighting = SamplingRule(
            alpha, by_name("weights", weights, dataset_names, self.dataset_names)
        )
        rule = SamplingRule(
            alpha,
            self._weighting.weights,
            by_name("cohort_quota", cohort_quota, dataset_names, self.dataset_names)
            if isinstance(cohort_quota, Mapping | Sequence)
            else cohort_quota,
            patient_quota,
            replacement,
            epoch_length,
        )
        self._sampler = CohortSampler(self._rows_of(unit), rule, seed=self.seed)
        self._datasets: dict[str, ComposedImagingDataset] = {}
        self._lock = threading.Lock()
        self._single = SingleDraws(self._rows_of, self._weighting, self.seed)
        if verbose:
            _log.info("%r", self)

    def _rows_of(self, unit: SamplingUnit) -> list[Any]:
        return [c.tile_rows if unit == "tiles" else c.tissue_rows for c in self._cohorts]

    # -- what is there

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """The datasets that are drawn from, by number."""
        return tuple(cohort.name for cohort in self._cohorts)

    @property
    def sampler(self) -> CohortSampler:
        """The draws of the epoch."""
        return self._sampler

    @property
    def epoch(self) -> int:
        """The epoch that items are of."""
        return self._sampler.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that items are of, from 0 to 2^32 - 1."""
        self._sampler = self._sampler.at_epoch(epoch)

    @cached_property
    def tissue_index(self) -> pa.Table:
        """One row a tissue: dataset_name, tissue_id, patient_id, modalities."""
        return tissue_table(self._cohorts)

    @cached_property
    def tile_index(self) -> pa.Table:
        """One row a tile: global_tile_id, dataset_name, tissue_id, tile_id, row, col.

        Tables of cohorts one after another; a tile's global id counts those of other splits, too,
        so that it is the same in each. The ids are made when first asked for, 12 bytes a tile.
        """
        if self._wish.tile_size is None:
            msg = "tile_index needs a dataset with a tile_size"
            raise InvalidInputError(msg)
        return tile_table(self._cohorts)

    def get_tissue_ids(self, name: str | None = None) -> NDArray[np.str_]:
        """Return the tissues of a dataset, or of all of them one after another."""
        chosen = self._cohorts if name is None else [self._cohorts[self._known(name)]]
        return np.asarray([tissue for cohort in chosen for tissue in cohort.tissue_ids], np.str_)

    def get_dataset(self, name: str) -> ComposedImagingDataset:
        """Return one of the datasets, opened when first asked for.

        Raises
        ------
        UnknownNameError
            If it is none of them.
        """
        cohort = self._cohorts[self._known(name)]
        with self._lock:
            if name not in self._datasets:
                wish = self._wish
                self._datasets[name] = ComposedImagingDataset(
                    name,
                    list(cohort.modalities),
                    resolution=wish.resolution,
                    path=cohort.layout.root,
                    tiles=cohort.tiles,
                    split=wish.split,
                    load_cell_metadata=self._load_cells,
                    modality_kwargs=self._options[name],
                )
            return self._datasets[name]

    def _known(self, name: str) -> int:
        if name not in self._number:
            msg = f"no dataset {name!r} is drawn from; there are {', '.join(self._number)}"
            raise UnknownNameError(msg)
        return self._number[name]

    # -- draws

    def draw(self, start: int, stop: int) -> Draws:
        """Return what stands at positions ``start ... stop - 1`` of the epoch, without reading it.

        Raises
        ------
        OutOfRangeError
            If the interval does not lie inside the epoch.
        """
        return self._placed(*self._sampler.rows(start, stop), self.sampling_unit)

    def write_manifest(self, path: str | os.PathLike[str], epoch: int | None = None) -> None:
        """Write what an epoch draws, one row a position, as a parquet file.

        Parameters
        ----------
        path
            The file; replaced if it is there.
        epoch
            Which; by default the one that is set.
        """
        sampler = self._sampler if epoch is None else self._sampler.at_epoch(epoch)
        unit = self.sampling_unit

        def named(start: int, stop: int) -> pa.Table:
            draws = self._placed(*sampler.rows(start, stop), unit)
            return described(self._cohorts, draws, tiles=unit == "tiles")

        rule = sampler.rule
        note = {
            "format": "draws",
            "version": 1,
            "seed": sampler.seed,
            "epoch": sampler.epoch,
            **{name: getattr(rule, name) for name in rule.__slots__},
        }
        write_drawn(path, named, len(sampler), note)

    def _placed(
        self, dataset: NDArray[np.int64], row: NDArray[np.int64], unit: SamplingUnit
    ) -> Draws:
        if unit == "tiles":
            for number in np.unique(dataset).tolist():
                tiles, mine = self._cohorts[number].tiles, dataset == number
                if tiles is not None:
                    row[mine] = tiles.in_order(row[mine])
        return Draws(dataset, row)

    @property
    def rows_fingerprint(self) -> str:
        """Sixteen letters that tell these draws, of whatever epoch, from those of another seed, rule or table."""
        return draws_fingerprint(self._cohorts, self._sampler, self.sampling_unit)

    @property
    def standardization(self) -> str:
        """How each modality of each cohort is standardized, as a text: for loaders that resume.

        Raises
        ------
        InvalidInputError
            If an option of a modality is none.
        """
        return " | ".join(
            f"{cohort.name}: {cohort.pixels_told(self._wish, self._options[cohort.name])}"
            for cohort in self._cohorts
        )

    # -- torch's map-style protocol

    @property
    def takes_epoch(self) -> Literal[True]:
        """Says to a `TileLoader` that items are other ones in every epoch."""
        return True

    def __len__(self) -> int:
        """Draws of an epoch."""
        return len(self._sampler)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return draw `index` of the epoch."""
        return self.__getitems__([index])[0]

    def __getitems__(
        self, indices: Sequence[int], *, epoch: int | None = None
    ) -> list[dict[str, Any]]:
        """Return several at once, read in one batch a cohort; of the epoch that is set, or another."""
        count = len(self)
        for index in indices:
            if not -count <= index < count:
                msg = f"draw {index} is outside the {count} of an epoch"
                raise OutOfRangeError(msg)
        at = np.asarray(indices, np.int64) % count
        sampler = self._sampler if epoch is None else self._sampler.at_epoch(epoch)
        return self._read(self._placed(*sampler.at(at), self.sampling_unit))

    def _read(self, draws: Draws) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for number in np.unique(draws.dataset).tolist():
            mine = np.flatnonzero(draws.dataset == number)
            cohort = self._cohorts[number]
            dataset, rows = self.get_dataset(cohort.name), draws.row[mine]
            if self.sampling_unit == "tiles" and cohort.tiles is not None:
                ids = cohort.tiles.rows(rows).tile_id.tolist()
                results = dataset.__getitems__(item_numbers(dataset, rows))
            else:
                ids = [None] * mine.size
                results = [dataset.get_composed_tissue(cohort.tissue_ids[i]) for i in rows.tolist()]
            for place, result, tile in zip(mine.tolist(), results, ids, strict=True):
                found[place] = sample_of(cohort.name, result, tile)
        return [found[place] for place in range(len(draws))]

    # -- by name, and one at a time

    def get_tissue_sample(self, dataset_name: str, tissue_id: str) -> dict[str, Any]:
        """Read a whole tissue in every modality."""
        result = self.get_dataset(dataset_name).get_composed_tissue(tissue_id)
        return sample_of(dataset_name, result, None)

    def get_tile_sample(self, dataset_name: str, tissue_id: str, tile_id: int) -> dict[str, Any]:
        """Read a tile in every modality, by its key."""
        result = self.get_dataset(dataset_name).get_composed_tile(tissue_id, tile_id)
        return sample_of(dataset_name, result, tile_id)

    def sample_random(self, index: int | None = None) -> dict[str, Any]:
        """Draw one tile or tissue, whichever is the sampling unit; as `sample_random_tile`."""
        if self.sampling_unit == "tiles":
            return self.sample_random_tile(index)
        return self.sample_random_tissue(index)

    def sample_random_tile(self, index: int | None = None) -> dict[str, Any]:
        """Draw one tile, with the weights of the cohorts, all of a cohort being equally likely.

        Parameters
        ----------
        index
            Number of the draw: the same one gives the same tile. By default the next one that this
            object was not asked for, which begins with 0 again in another process.
        """
        if self._wish.tile_size is None:
            msg = "sample_random_tile needs a dataset with a tile_size"
            raise InvalidInputError(msg)
        draws = self._placed(*self._single.rows("tiles", index), "tiles")
        (row,) = described(self._cohorts, draws, tiles=True).to_pylist()
        return self.get_tile_sample(row["dataset_name"], row["tissue_id"], row["tile_id"])

    def sample_random_tissue(self, index: int | None = None) -> dict[str, Any]:
        """Draw one tissue; as `sample_random_tile`."""
        draws = self._placed(*self._single.rows("tissues", index), "tissues")
        (row,) = described(self._cohorts, draws, tiles=False).to_pylist()
        return self.get_tissue_sample(row["dataset_name"], row["tissue_id"])

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (self._arguments, self.epoch)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} {self.sampling_unit} an epoch, of {', '.join(self._number)})"

    def _repr_html_(self) -> str:
        return spora_html(self)


def _made_again(arguments: dict[str, Any], epoch: int) -> SporaDataset:
    made = SporaDataset(**arguments)
    made.set_epoch(epoch)
    return made
