"""`ComposedImagingDataset`: several modalities of the same tissues as one dataset."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.cohort._alignment import read_alignments
from microtome.cohort._directory import cohort_directory
from microtome.cohort._html import composed_html
from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort._tables import read_tissues
from microtome.cohort.tiles import open_tiles
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError, OutOfRangeError, UnknownNameError
from microtome.regions import columns_fingerprint
from microtome.storage import Place, StorageOptions, StorePath
from microtome.tiling import TileTable

from ._composed_columns import composed_column
from ._composed_reading import ComposedReader, kind_for
from ._composition import (
    expand_modalities,
    modalities_in_split,
    modalities_of_tissues,
    modality_options,
    open_modality,
)
from ._frames import FrameBox, FramePlace
from ._imaging import BaseImagingDataset
from ._pixels_told import pixels_told
from ._request import tile_corner
from ._tissues import ComposedTissue, ImageMode, TissueMask

__all__ = ["ComposedImagingDataset"]

_log = logging.getLogger(__name__)


class ComposedImagingDataset:
    """Several modalities of a cohort: a tile is one square of a tissue in each (as in spora_io).

    A tissue lacks the modalities in which it was not imaged. Where an image has an alignment
    (`set_alignment`), it is resampled onto the square; all others of a tissue must share one pixel
    grid, which is checked when the tissue is first read.

    Parameters
    ----------
    name
        Name of the cohort.
    modalities
        Which; ``"ihc"`` stands for every marker that there is. None for all.
    resolution
        Micrometres per pixel of the tiles' table and, unless `modality_kwargs` say otherwise, of
        every modality; may be left out where the cohort has one.
    path
        Directory of the cohort; by default `name` inside the directory that SPORA_DATASETS_DIR
        names.
    tile_size
        Side of the tiles in pixels, or (height, width); None for whole tissues.
    tile_strategy
        Which tiling; ``"default"`` by default.
    split
        Only images whose `split` is this; None for all.
    load_cell_metadata
        Whether to read the table of cells.
    modality_kwargs
        Options of one modality's dataset by its name, such as ``{"imc": {"standardization":
        "quantile_clipping/uq_0.99_image"}, "he": {"resolution": 0.5}}``. A multiplex modality
        without a standardization has ``"identity"``, and a warning is logged.
    tiles
        The table of tiles in place of the one that `tile_size` and `tile_strategy` name: one that is
        open already, or of your own choice, at `resolution`.
    verbose
        Whether to log what was found.

    Raises
    ------
    InvalidInputError
        If there is no such modality, resolution, tiling or split, or an option is wrong.
    """

    def __init__(  # noqa: PLR0913 - the seed's parameters
        self,
        name: str,
        modalities: Sequence[str | Modality] | None = None,
        *,
        resolution: float | str | tuple[float, float] | Resolution | None = None,
        path: str | os.PathLike[str] | Place | StorePath | None = None,
        storage_options: StorageOptions | None = None,
        tile_size: int | tuple[int, int] | None = None,
        tile_strategy: str | None = None,
        split: str | None = None,
        load_cell_metadata: bool = False,
        modality_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
        tiles: TileTable | None = None,
        verbose: bool = False,
    ) -> None:
        if tile_strategy is not None and tile_size is None:
            msg = f"tile_strategy={tile_strategy!r} needs a tile_size"
            raise InvalidInputError(msg)
        if tiles is not None and tile_size is not None:
            msg = "give tiles, or the tile_size of a table to open, not both"
            raise InvalidInputError(msg)
        self.name = name
        self.layout = CohortLayout.open(
            cohort_directory(name, path), reading=True, storage_options=storage_options
        )
        self.resolution = self.layout.resolution(resolution)
        self.split = split
        chosen = expand_modalities(self.layout, modalities)
        options = modality_options(chosen, modality_kwargs)
        self._datasets: dict[str, BaseImagingDataset[Any]] = {}
        there = modalities_in_split(self.layout, chosen, split)
        self._pixels_told = pixels_told(there, options, self.resolution)
        for modality in there:
            self._datasets[modality.name] = open_modality(
                name,
                modality,
                {
                    "resolution": self.resolution,
                    "path": self.layout.root,
                    "split": split,
                    "load_cell_metadata": load_cell_metadata,
                    **options.get(modality.name, {}),
                },
            )
        self._modalities_of = modalities_of_tissues(self._datasets)
        order = read_tissues(self.layout)["tissue_id"].to_pylist()
        self._tissue_ids = [t for t in dict.fromkeys(map(str, order)) if t in self._modalities_of]
        self._reader = ComposedReader(
            self._datasets, self._modalities_of, read_alignments(self.layout)
        )
        self.tiles: TileTable | None = None
        self.tile_rows: NDArray[np.int64] | None = None
        if tile_size is not None:
            tiles = open_tiles(self.layout, self.resolution, tile_strategy or "default", tile_size)
        if tiles is not None:
            self._take(tiles)
        if verbose:
            _log.info("%r", self)

    def _take(self, tiles: TileTable) -> None:
        if tiles.resolution not in {None, self.resolution.directory}:
            msg = f"the tiles lie at {tiles.resolution}, the dataset at {self.resolution.directory}"
            raise InvalidInputError(msg)
        self.tiles = tiles
        mine = np.asarray([t in self._modalities_of for t in tiles.tissue_ids], np.bool_)
        if not mine.all():
            self.tile_rows = np.flatnonzero(mine[tiles.rows().tissue])

    # -- what is there

    def get_dataset(self, modality: str | Modality) -> BaseImagingDataset[Any]:
        """Return the dataset of one modality.

        Raises
        ------
        UnknownNameError
            If it is none of this dataset's.
        """
        name = parse_modality(modality).name
        if name not in self._datasets:
            msg = f"dataset {self.name!r} is composed of {list(self._datasets)}, not of {name!r}"
            raise UnknownNameError(msg)
        return self._datasets[name]

    def get_available_modalities(self) -> list[str]:
        """Return the names of the modalities, brightfield first."""
        return list(self._datasets)

    def get_tissue_ids(self, modality: str | Modality | None = None) -> NDArray[np.str_]:
        """Return the ids of the tissues, of one modality or of any, in the table's order."""
        if modality is not None:
            return self.get_dataset(modality).get_tissue_ids()
        return np.asarray(self._tissue_ids, dtype=np.str_)

    def get_modalities_of_tissue(self, tissue_id: str) -> list[str]:
        """Return how a tissue was imaged.

        Raises
        ------
        UnknownNameError
            If there is no such tissue.
        """
        if tissue_id not in self._modalities_of:
            msg = f"dataset {self.name!r} has no tissue {tissue_id!r}{f' in split {self.split!r}' if self.split else ''}"
            raise UnknownNameError(msg)
        return list(self._modalities_of[tissue_id])

    @property
    def standardization(self) -> str:
        """How each modality is standardized, as a text: for loaders that resume."""
        return self._pixels_told

    @property
    def rows_fingerprint(self) -> str:
        """Sixteen letters that tell these tiles, or tissues, from others of the same number."""
        about: list[object] = [*self._tissue_ids]
        if self.tiles is None:
            return columns_fingerprint(about)
        about += [*self.tiles.tile_size, *self.tiles.tissue_ids]
        rows = np.arange(len(self.tiles)) if self.tile_rows is None else self.tile_rows
        found = self.tiles.rows(rows)
        return columns_fingerprint(about, found.tissue, found.row, found.col)

    def tile_column(self, name: str) -> NDArray[Any]:
        """Return what a column says of each item, (len(self),): for orders and weights.

        Parameters
        ----------
        name
            ``"label"``, where a modality has labels; a column of the table of tiles; or one of the table
            of tissues that says the same of a tissue in every modality.

        Raises
        ------
        UnknownNameError
            If there is no such column.
        InvalidInputError
            If modalities differ in what they say of a tissue.
        """
        return composed_column(name, self._datasets, self._tissue_ids, self.tiles, self.tile_rows)

    @property
    def patients(self) -> dict[str, str | None]:
        """Patient of each tissue, as text; None where the table names none."""
        found: dict[str, str | None] = dict.fromkeys(self._tissue_ids)
        for dataset in self._datasets.values():
            for tissue, patient in dataset.records.patients.items():
                found[tissue] = found[tissue] or patient
        return found

    # -- one modality

    def get_unimodal_tissue(
        self, modality: str | Modality, tissue_id: str, kind: str | None = None, **options: Any
    ) -> Any:
        """Read a whole tissue in one modality; options as of `BaseImagingDataset.get_tissue`."""
        return self.get_dataset(modality).get_tissue(tissue_id, kind, **options)

    def get_unimodal_tile(
        self,
        modality: str | Modality,
        tissue_id: str,
        tile_id: int,
        kind: str | None = None,
        *,
        preprocess: bool = True,
        image_mode: ImageMode = "CHW",
    ) -> Any:
        """Read a tile in one modality, as it is in `get_composed_tile`.

        Raises
        ------
        UnknownNameError
            If there is no such modality, tissue or tile, or the tissue was not imaged so.
        """
        dataset = self.get_dataset(modality)
        dataset.image(tissue_id)  # says what is missing
        place = self._place(tissue_id, tile_id)
        name = dataset.modality.name
        found = self._reader.read(
            [place], kind, preprocess=preprocess, image_mode=image_mode, only=[name]
        )
        return found[0].modalities[name]

    def get_unimodal_tissue_mask(self, modality: str | Modality, tissue_id: str) -> TissueMask:
        """Return where the tissue is, on the pixel grid of one modality's image."""
        return self.get_dataset(modality).get_tissue_mask(tissue_id)

    def get_unimodal_tissue_size(self, modality: str | Modality, tissue_id: str) -> tuple[int, int]:
        """Return (height, width) of a tissue's image in one modality, in pixels."""
        shape = self.get_dataset(modality).image(tissue_id).level_shape(0)
        return shape[-2], shape[-1]

    # -- all of them

    def get_composed_tissue(
        self, tissue_id: str, kind: str | None = None, **options: Any
    ) -> ComposedTissue:
        """Read a whole tissue in every modality, each on its own pixel grid.

        Parameters
        ----------
        tissue_id
            Which.
        kind
            Which channels of multiplex modalities, as of `BaseImagingDataset.get_tissue`.
        **options
            As of `BaseImagingDataset.get_tissue`.
        """
        modalities = {
            name: self._datasets[name].get_tissue(
                tissue_id, kind_for(self._datasets[name], kind), **options
            )
            for name in self.get_modalities_of_tissue(tissue_id)
        }
        return ComposedTissue(tissue_id=tissue_id, modalities=modalities)

    def get_composed_tile(
        self,
        tissue_id: str,
        tile_id: int,
        kind: str | None = None,
        *,
        preprocess: bool = True,
        image_mode: ImageMode = "CHW",
    ) -> ComposedTissue:
        """Read a tile in every modality in which its tissue was imaged.

        Parameters
        ----------
        tissue_id, tile_id
            Which.
        kind
            Which channels of multiplex modalities, as of `BaseImagingDataset.get_tissue`.
        preprocess, image_mode
            As of `BaseImagingDataset.get_tissue`.

        Raises
        ------
        UnknownNameError
            If there is no such tissue or tile.
        FormatError
            If images of the tissue without alignments have no common pixel grid.
        """
        place = self._place(tissue_id, tile_id)
        return self._reader.read([place], kind, preprocess=preprocess, image_mode=image_mode)[0]

    def get_composed_tile_by_coordinates(
        self,
        tissue_id: str,
        row: int,
        col: int,
        kind: str | None = None,
        *,
        preprocess: bool = True,
        image_mode: ImageMode = "CHW",
    ) -> ComposedTissue:
        """Read the tile whose top-left corner is pixel (row, col) of the tissue's frame."""
        self.get_modalities_of_tissue(tissue_id)  # says so if there is no such tissue
        box = self._box(row, col, self._with_tiles().tile_size)
        place = FramePlace(tissue_id, box, None)
        return self._reader.read([place], kind, preprocess=preprocess, image_mode=image_mode)[0]

    def get_composed_tissue_by_patient(
        self, patient_id: str, kind: str | None = None, **options: Any
    ) -> list[ComposedTissue]:
        """Read all tissues of a patient in every modality.

        Raises
        ------
        UnknownNameError
            If no tissue here is this patient's.
        """
        mine = [tissue for tissue, who in self.patients.items() if who == str(patient_id)]
        if not mine:
            msg = f"no tissue of dataset {self.name!r} is of patient {patient_id!r}"
            raise UnknownNameError(msg)
        return [self.get_composed_tissue(tissue, kind, **options) for tissue in mine]

    # -- torch's map-style protocol

    def __len__(self) -> int:
        if self.tiles is None:
            return len(self._tissue_ids)
        return len(self.tiles) if self.tile_rows is None else self.tile_rows.size

    def __getitem__(self, index: int) -> ComposedTissue:
        """Return tile (or tissue) `index`."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[ComposedTissue]:
        """Return several at once, read in one batch a modality."""
        count = len(self)
        for index in indices:
            if not -count <= index < count:
                unit = "tissues" if self.tiles is None else "tiles"
                msg = f"item {index} is outside the {count} {unit} of the dataset"
                raise OutOfRangeError(msg)
        numbers = np.asarray(indices, np.int64) % max(count, 1)
        if self.tiles is None:
            return [self.get_composed_tissue(self._tissue_ids[i]) for i in numbers.tolist()]
        rows = numbers if self.tile_rows is None else self.tile_rows[numbers]
        found = self.tiles.rows(rows)
        ids = self.tiles.tissue_ids
        places = [
            FramePlace(ids[tissue], self._box(row, col, self.tiles.tile_size), tile)
            for tissue, tile, row, col in zip(
                found.tissue.tolist(),
                found.tile_id.tolist(),
                found.row.tolist(),
                found.col.tolist(),
                strict=True,
            )
        ]
        return self._reader.read(places, None, preprocess=True, image_mode="CHW")

    def _place(self, tissue_id: str, tile_id: int) -> FramePlace:
        tiles = self._with_tiles()
        self.get_modalities_of_tissue(tissue_id)  # says so if there is no such tissue
        box = self._box(*tile_corner(tiles, tissue_id, tile_id), tiles.tile_size)
        return FramePlace(tissue_id, box, tile_id)

    def _box(self, row: int, col: int, size: tuple[int, int]) -> FrameBox:
        y, x = self.resolution.mpp
        return FrameBox(row * y, col * x, size[0] * y, size[1] * x)

    def _with_tiles(self) -> TileTable:
        if self.tiles is None:
            msg = "tiles need a dataset with a tile_size"
            raise InvalidInputError(msg)
        return self.tiles

    def __repr__(self) -> str:
        unit = "tissues" if self.tiles is None else "tiles"
        return f"{type(self).__name__}({self.name!r}, {len(self)} {unit} of {len(self._tissue_ids)} tissues in {', '.join(self._datasets)} at {self.resolution} um)"

    def _repr_html_(self) -> str:
        return composed_html(self)
