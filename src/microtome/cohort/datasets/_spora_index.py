"""What a cohort has to draw from, known from its tables alone: no image is opened."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort._tables import read_tissues
from microtome.cohort.tiles import open_tiles
from microtome.coordinates import Resolution
from microtome.errors import FormatError, InvalidInputError, NotFoundError, StorageError
from microtome.sampling import RowGroups
from microtome.standardize import StandardizationSpec
from microtome.storage import Place, StorageOptions, StorePath, file_source
from microtome.tiling import TileTable

from ._composition import modality_options
from ._multiplex import statistics_directory
from ._pixels_told import pixels_told

__all__ = ["CohortIndex", "CohortWish", "read_cohort_index"]

_log = logging.getLogger(__name__)

_COLUMNS = ("tissue_id", "modality", "split", "patient_id")
_IMAGE = ".ome.zarr"
_IHC = "ihc"


@dataclass(frozen=True, slots=True)
class CohortWish:
    """What is asked of every cohort alike."""

    modalities: Sequence[str | Modality] | None
    resolution: float | str | tuple[float, float] | Resolution | None
    split: str | None
    tile_size: int | tuple[int, int] | None
    tile_strategy: str


@dataclass(frozen=True, eq=False)
class CohortIndex:
    """The tissues and tiles of a cohort that may be drawn."""

    name: str
    layout: CohortLayout
    modalities: tuple[str, ...]
    """Of those asked for, the ones that the cohort has."""
    tissues: Mapping[str, tuple[str, ...]]
    """Modalities by tissue, in the order of the tissue table."""
    patients: Mapping[str, str | None]
    """Patient by tissue, as text; None where the table names none."""
    tiles: TileTable | None

    def pixels_told(self, wish: CohortWish, options: Mapping[str, Mapping[str, Any]]) -> str:
        """Return how its modalities are standardized; see `pixels_told`.

        Parameters
        ----------
        wish
            What is asked of every cohort.
        options
            Of the cohort's modalities.
        """
        chosen = [parse_modality(name) for name in self.modalities]
        at = self.layout.resolution(wish.resolution)
        return pixels_told(chosen, modality_options(chosen, options), at)

    def verify_statistics(self, wish: CohortWish, options: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse a standardization of which the cohort has no tables.

        Raises
        ------
        NotFoundError
            If it has none.
        """
        chosen = [parse_modality(name) for name in self.modalities]
        given = modality_options(chosen, options)
        for modality in chosen:
            own = given.get(modality.name, {})
            spec = StandardizationSpec.parse(str(own.get("standardization", "identity")))
            if spec.reads_statistics(use_mean_std=own.get("use_mean_std", True)):
                at = self.layout.resolution(own.get("resolution", wish.resolution))
                statistics_directory(self.layout, modality, at, spec)

    @cached_property
    def tissue_ids(self) -> tuple[str, ...]:
        """The tissues by number."""
        return tuple(self.tissues)

    @cached_property
    def tile_rows(self) -> RowGroups:
        """Places of the tiles that may be drawn in the order of tissues, by patient.

        Places, since a table need not list tissue after tissue: `TileTable.in_order` tells the row.
        """
        if self.tiles is None:
            return RowGroups([], [])
        names, offsets = self.tiles.tissue_ids, self.tiles.tissue_offsets
        numbers = [i for i, tissue in enumerate(names) if tissue in self.tissues]
        at = np.asarray(numbers, np.int64)
        owners = self._owners([names[i] for i in numbers])
        return RowGroups(offsets[at], offsets[at + 1] - offsets[at], owners)

    @cached_property
    def tissue_rows(self) -> RowGroups:
        """Numbers of the tissues, by patient."""
        count = len(self.tissues)
        return RowGroups(np.arange(count), np.ones(count, np.int64), self._owners(self.tissue_ids))

    def _owners(self, tissues: Sequence[str]) -> list[int]:
        """Return a number for each tissue's patient; a tissue of nobody known is its own."""
        number: dict[str, int] = {}
        found: list[int] = []
        for place, tissue in enumerate(tissues):
            patient = self.patients[tissue]
            own = -1 - place if patient is None else number.setdefault(patient, len(number))
            found.append(own)
        return found

    def verify_patients(self) -> None:
        """Refuse tissues of which nobody says whose they are.

        Raises
        ------
        InvalidInputError
            If there are any; names them.
        """
        lost = [tissue for tissue, patient in self.patients.items() if patient is None]
        if lost:
            shown = ", ".join(lost[:5]) + (", ..." if lost[5:] else "")
            msg = (
                f"a patient_quota needs the patient of every tissue, and {self.layout.tissues} names "
                f"none for {len(lost)}: {shown}; add them, or leave the quota out"
            )
            raise InvalidInputError(msg)


def read_cohort_index(
    name: str,
    path: str | os.PathLike[str] | Place | StorePath,
    wish: CohortWish,
    options: Mapping[str, Mapping[str, Any]],
    *,
    storage_options: StorageOptions | None = None,
) -> CohortIndex | None:
    """Read the tables of a cohort; None if it has none of the modalities asked for.

    Parameters
    ----------
    name, path
        The cohort.
    wish
        What is asked of it.
    options
        Options by modality; a resolution among them says where its images lie.
    storage_options
        How stores are reached.

    Raises
    ------
    NotFoundError
        If there is no cohort, or its table lists an image that is not there.
    InvalidInputError
        If there is no such split or tiling.
    """
    layout = CohortLayout.open(path, reading=True, storage_options=storage_options)
    there = layout.modalities()
    chosen = [m for m in there if wish.modalities is None or _is_asked(m, wish.modalities)]
    target = Resolution.parse(wish.resolution) if wish.resolution is not None else None
    places: dict[str, dict[str, set[str]]] = {}
    for modality in chosen:
        own = options.get(modality.name, options.get(_IHC, {}) if _is_ihc(modality) else {})
        wanted = own.get("resolution", target)
        places[modality.name] = _images(layout, modality, wanted)
    served = {modality: found for modality, found in places.items() if found["here"]}
    if not served:
        return None
    tissues, patients = _tissues(layout, served, wish.split)
    tiles = None
    if wish.tile_size is not None:
        resolution = target if target is not None else layout.resolution(None)
        tiles = open_tiles(layout, resolution, wish.tile_strategy, wish.tile_size, indexed=True)
        if not set(tiles.tissue_ids) & set(tissues):
            _log.warning("%s: no tissue has tiles, so that none can be drawn from it", layout.root)
    return CohortIndex(name, layout, tuple(served), tissues, patients, tiles)


def _is_ihc(modality: Modality) -> bool:
    return modality.name.startswith("ihc_")


def _is_asked(modality: Modality, asked: Sequence[str | Modality]) -> bool:
    return any(
        _is_ihc(modality) if one == _IHC else parse_modality(one).name == modality.name
        for one in asked
    )


def _images(layout: CohortLayout, modality: Modality, wanted: Any) -> dict[str, set[str]]:
    """Return the tissues with an image that serves a resolution, and those with any.

    Listed, not looked at one by one: there may be very many.
    """
    target = Resolution.parse(wanted) if wanted is not None else layout.resolution(None)
    found: dict[str, set[str]] = {"here": set(), "anywhere": set()}
    for images in (layout.root / modality.canonical_dir).glob("*mpp/images"):
        names = {
            name.removesuffix(_IMAGE)
            for name in _names_in(images)
            if name.endswith(_IMAGE) and name[0] != "."
        }
        found["anywhere"] |= names
        if Resolution.parse(images.parent.name).serves(target):
            found["here"] |= names
    return found


def _names_in(directory: Path) -> Iterable[str]:
    if isinstance(directory, StorePath):
        return [entry.name for entry in directory.iterdir()]
    return os.listdir(directory)  # noqa: PTH208 - names, without an object for each


def _tissues(
    layout: CohortLayout, places: Mapping[str, Mapping[str, set[str]]], split: str | None
) -> tuple[dict[str, tuple[str, ...]], dict[str, str | None]]:
    columns = _tissue_columns(layout)
    if split is not None and "split" not in columns:
        msg = f"{layout.tissues} has no column 'split'"
        raise InvalidInputError(msg)
    none = [None] * len(columns["tissue_id"])
    parts, owners = columns.get("split", none), columns.get("patient_id", none)
    tissues: dict[str, tuple[str, ...]] = {}
    patients: dict[str, str | None] = {}
    rows = zip(columns["tissue_id"], columns["modality"], parts, owners, strict=True)
    for tissue, kind, part, patient in rows:
        found = places.get(kind)
        if found is None or (split is not None and part != split):
            continue
        name = tissue if isinstance(tissue, str) else str(tissue)
        if name not in found["here"]:
            if name in found["anywhere"]:  # at a coarser resolution only
                continue
            msg = f"{layout.tissues} lists tissue {name!r} as {kind}, of which there is no image"
            raise NotFoundError(msg)
        owner = None if patient is None else str(patient)
        if name not in tissues:
            tissues[name], patients[name] = (kind,), owner
            continue
        if kind in tissues[name]:
            read_tissues(layout)  # says which row there is twice
        tissues[name] += (kind,)
        if patients[name] is None:
            patients[name] = owner
    if not tissues:
        where = "" if split is None else f" in split {split!r}"
        there = sorted({str(part) for part in parts if part is not None})
        about = f"; there are {there}" if split is not None and there else ""
        msg = f"no tissue of {layout.root} imaged as {', '.join(places)} is there{where}{about}"
        raise InvalidInputError(msg)
    return tissues, patients


def _tissue_columns(layout: CohortLayout) -> dict[str, list[Any]]:
    """Read what is asked of the tissue table, which may have very many columns."""
    if not layout.tissues.is_file():
        return read_tissues(layout).select(["tissue_id", "modality"]).to_pydict()
    try:
        with pq.ParquetFile(file_source(layout.tissues)) as file:
            wanted = [name for name in _COLUMNS if name in file.schema_arrow.names]
            if wanted[:2] == list(_COLUMNS[:2]):
                # A table of one cohort is small: threads would cost more than they save.
                return file.read(wanted, use_threads=False).to_pydict()
    except StorageError:
        raise  # of a store that cannot be reached, which says nothing of the file
    except (pa.ArrowException, OSError) as error:
        msg = f"{layout.tissues} is not a parquet file that can be read: {error}"
        raise FormatError(msg) from error
    return read_tissues(layout).to_pydict()  # says what is missing


def dictionary(names: Sequence[str], codes: Any) -> pa.DictionaryArray[Any, Any]:
    """Return a column of names by number."""
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, pa.int32()), pa.array(list(names), pa.string())
    )
