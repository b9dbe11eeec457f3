"""The tiles of a cohort that a model makes vectors of: those of several datasets, one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.cohort import (
    BaseImagingDataset,
    CohortLayout,
    HEImagingDataset,
    Modality,
    SingleIHCImagingDataset,
    image_of_tissue,
    tile_size_of,
    tiles_identities,
)
from microtome.coordinates import Resolution
from microtome.regions import ImageRegionData, collate_regions, decollate_regions

from ._fingerprint import array_fingerprint, image_fingerprint

__all__ = ["Chain", "tilings_of"]


class Chain:
    """Tiles of several datasets one after the other.

    Parameters
    ----------
    datasets
        Datasets of tiles of one size and number of channels.
    tissues
        Those whose tiles are taken, where a dataset has them.
    noted
        Of images that are not looked at, what a table of their vectors says that they were made of: as
        `made_of` says it, and as `inputs` does.
    """

    def __init__(
        self,
        datasets: Sequence[BaseImagingDataset[Any]],
        tissues: Collection[str],
        noted: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
    ) -> None:
        self._datasets = list(datasets)
        self._noted = noted
        self._own = [set(d.get_tissue_ids().tolist()) & set(tissues) for d in datasets]
        # Of a dataset of which nothing is left out, rows are its own.
        self._kept = [
            None if len(own) == len(dataset.get_tissue_ids()) else _rows(dataset, own)
            for dataset, own in zip(self._datasets, self._own, strict=True)
        ]
        sizes = [
            len(d if k is None else k) for d, k in zip(self._datasets, self._kept, strict=True)
        ]
        self._ends = list(accumulate(sizes))

    def __len__(self) -> int:
        return self._ends[-1]

    def beside(self, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> Chain:
        """Return these tiles with those of other tissues of which there are vectors.

        Parameters
        ----------
        settings, inputs
            What the table of these says that they were made of. Images and tiles of the others are not
            looked at.
        """
        mine = set[str]().union(*self._own)
        others = {
            key.split(" of ", 1)[1]
            for key in settings
            if " of " in key and not key.startswith("tiles of ")
        } - mine
        made = {key: value for key, value in settings.items() if _tissue_of(key) in others}
        known = {tissue: inputs[tissue] for tissue in others if tissue in inputs}
        return Chain(self._datasets, mine | others, (made, known)) if others else self

    def made_of(self) -> dict[str, str]:
        """Return what tells these tiles, and the images that they are of, from any others."""
        found: dict[str, str] = {}
        for dataset, own in zip(self._datasets, self._own, strict=True):
            tiles = dataset.tiles
            if tiles is None:
                continue
            rows = tiles.rows()
            for number, tissue_id in enumerate(tiles.tissue_ids):
                mine = rows.tissue == number
                if tissue_id not in own or not mine.any():
                    continue
                places = np.stack([rows.tile_id[mine], rows.row[mine], rows.col[mine]])
                what = f"{dataset.modality} of {tissue_id}"
                if what in self._noted[0]:
                    found[f"tiles of {what}"] = self._noted[0][f"tiles of {what}"]
                    found[what] = self._noted[0][what]
                    continue
                found[f"tiles of {what}"] = array_fingerprint(places)
                found[what] = image_fingerprint(dataset.image(tissue_id), 0)
        return found

    def parts(self) -> tuple[list[str], NDArray[np.int64]]:
        """Return the images that tiles are of, as `made_of` calls them, and of which each tile is."""
        names: list[str] = []
        owners: list[NDArray[np.int64]] = []
        for dataset, own in zip(self._datasets, self._own, strict=True):
            if dataset.tiles is None:
                continue
            tissues = dataset.tiles.rows().tissue
            number = np.full(len(dataset.tiles.tissue_ids), -1, np.int64)
            for place, tissue_id in enumerate(dataset.tiles.tissue_ids):
                if tissue_id in own and (tissues == place).any():
                    number[place] = len(names)
                    names.append(f"{dataset.modality} of {tissue_id}")
            mine = number[tissues]
            owners.append(mine[mine >= 0])
        return names, np.concatenate(owners)

    def inputs(self) -> dict[str, dict[str, Any]]:
        """Return the identities of each tissue's tiles, and by modality of its images."""
        found: dict[str, dict[str, Any]] = {t: dict(told) for t, told in self._noted[1].items()}
        for dataset, own in zip(self._datasets, self._own, strict=True):
            if dataset.tiles is None:
                continue
            identities = tiles_identities(dataset.tiles)
            for tissue_id in dataset.get_tissue_ids().tolist():
                if tissue_id in identities and tissue_id in own and tissue_id not in self._noted[1]:
                    mine = found.setdefault(tissue_id, {"tiles": identities[tissue_id]})
                    place = dataset.layout, dataset.modality, dataset.resolution, tissue_id
                    mine[dataset.modality.name] = image_of_tissue(*place)
        return found

    def read_batch(self, rows: NDArray[np.int64], /) -> ImageRegionData[Any]:
        """Read tiles, each from the dataset that its number falls into."""
        owner = np.asarray([bisect_right(self._ends, int(row)) for row in rows])
        if len(set(owner.tolist())) == 1:
            return self._read(int(owner[0]), rows)
        parts: list[ImageRegionData[Any] | None] = [None] * len(rows)
        for place in sorted(set(owner.tolist())):
            mine = np.flatnonzero(owner == place)
            for at, region in zip(
                mine, decollate_regions(self._read(place, rows[mine])), strict=True
            ):
                parts[at] = region
        return collate_regions([part for part in parts if part is not None])

    def _read(self, place: int, rows: NDArray[np.int64]) -> ImageRegionData[Any]:
        mine, kept = rows - (self._ends[place - 1] if place else 0), self._kept[place]
        dataset = self._datasets[place]
        batch = dataset.read_batch(mine if kept is None else kept[mine])
        # A tissue is there once in each way in which it was imaged.
        for facts in cast("list[dict[str, Any]]", batch.additional_metadata):
            facts["modality"] = dataset.modality.name
        return batch


def _tissue_of(key: str) -> str | None:
    """Return the tissue that an entry of settings speaks of: ``"he of a"``, ``"tiles of he of a"``."""
    what, _, tissue = key.removeprefix("tiles of ").partition(" of ")
    return tissue if what else None


def _rows(dataset: BaseImagingDataset[Any], own: set[str]) -> NDArray[np.int64]:
    """Return the numbers of a dataset's tiles that are of some of its tissues."""
    if dataset.tiles is None:
        return np.zeros(0, np.int64)
    there = set(dataset.get_tissue_ids().tolist())
    names = dataset.tiles.tissue_ids
    tissues = dataset.tiles.rows().tissue
    # A dataset numbers those tiles of a table that are of its tissues.
    counted = tissues[np.asarray([name in there for name in names], np.bool_)[tissues]]
    return np.flatnonzero(np.asarray([name in own for name in names], np.bool_)[counted])


def tilings_of(
    layout: CohortLayout,
    resolution: Resolution,
    modalities: Sequence[Modality],
    preset: str,
    tissues: Collection[str],
) -> list[tuple[str, Chain]]:
    """Return the default tilings by size, with the brightfield modalities' values by a preset.

    Those that have tiles of some of the tissues.
    """
    found: list[tuple[str, Chain]] = []
    for strategy, size in layout.tilings(resolution):
        if strategy != "default":
            continue
        datasets: list[BaseImagingDataset[Any]] = []
        for modality in modalities:
            if modality.kind != "brightfield":
                continue
            options: dict[str, Any] = {
                "path": layout.root,
                "resolution": resolution,
                "tile_size": tile_size_of(size),
                "mean_std_type": preset,
            }
            name = layout.root.name
            datasets.append(
                HEImagingDataset(name, **options)
                if modality.name == "he"
                else SingleIHCImagingDataset(name, modality.name, **options)
            )
        kept = [dataset for dataset in datasets if len(dataset)]
        chain = Chain(kept, tissues) if kept else None
        if chain is not None and len(chain):
            found.append((size, chain))
    return found
