"""What is under every dataset of one modality: tissues and tiles by number, read in batches."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from microtome.cohort._alignment import tell_aligned
from microtome.cohort._directory import cohort_directory
from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort.tiles import open_tiles
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError, OutOfRangeError, UnknownNameError
from microtome.image import Channels, MultiscaleImage
from microtome.regions import (
    ImageRegionData,
    PatchSpecs,
    Windows,
    decollate_regions,
    read_regions,
    region_batch,
)
from microtome.standardize import FilterChain, build_filters
from microtome.storage import Conversion, Place, StorageOptions, StorePath
from microtome.tiling import TileTable

from ._companions import Companions
from ._halo import grown_windows, shows_nothing, valid_parts
from ._labels import LabelType, MissingLabels, TissueLabels
from ._records import TissueRecords
from ._request import Request, tile_corner
from ._shelf import ImageShelf, OpenImage

__all__ = ["ModalityDataset"]

_log = logging.getLogger(__name__)


class ModalityDataset(ABC):
    """Tiles or tissues of one modality, by number, in batches; see `BaseImagingDataset`."""

    def __init__(  # noqa: PLR0913 - the seed's parameters
        self,
        name: str,
        modality: str | Modality,
        *,
        resolution: float | str | tuple[float, float] | Resolution | None = None,
        path: str | os.PathLike[str] | Place | StorePath | None = None,
        storage_options: StorageOptions | None = None,
        tile_size: int | tuple[int, int] | None = None,
        tile_strategy: str | None = None,
        split: str | None = None,
        label: str | None = None,
        labels_to_keep: Sequence[Any] | None = None,
        label_modifying_fn: Callable[[Any], Any] | None = None,
        label_type: LabelType = "classification",
        missing_labels: MissingLabels = "error",
        load_cell_metadata: bool = False,
        with_masks: bool = False,
        with_cells: bool = False,
        filter_list: Sequence[str] | None = None,
        verbose: bool = False,
    ) -> None:
        if tile_strategy is not None and tile_size is None:
            msg = f"tile_strategy={tile_strategy!r} needs a tile_size"
            raise InvalidInputError(msg)
        if label is None and (labels_to_keep is not None or label_modifying_fn is not None):
            msg = (
                "labels_to_keep and label_modifying_fn need a label: the column that they speak of"
            )
            raise InvalidInputError(msg)
        self.name = name
        self.modality = parse_modality(modality)
        self.filters: FilterChain = build_filters(filter_list or ())
        self.layout = CohortLayout.open(
            cohort_directory(name, path), reading=True, storage_options=storage_options
        )
        self.resolution = self.layout.resolution(resolution)
        self.split = split
        labels = None
        if label is not None:
            labels = TissueLabels.read(
                self.layout,
                self.modality,
                label,
                label_type=label_type,
                keep=labels_to_keep,
                modify=label_modifying_fn,
                missing=missing_labels,
            )
        self.records = TissueRecords.read(
            self.layout, self.modality, self.resolution, split=split, labels=labels
        )
        self._tissue_ids = self.records.tissue_ids
        self._place = {tissue: i for i, tissue in enumerate(self._tissue_ids)}
        self._opener = OpenImage(self.layout, self.modality, self.resolution)
        self._images = ImageShelf(self._opener, self._tissue_ids)
        self._companions = Companions(
            self._opener, self._tissue_ids, load_cells=load_cell_metadata or with_cells
        )
        self._standing = Request(masks=with_masks, cells=with_cells)
        self.tiles: TileTable | None = None
        self._rows: NDArray[np.int64] | None = None
        self._image_of: NDArray[np.int64] = np.empty(0, np.int64)
        if tile_size is not None:
            self._open_tiles(tile_strategy or "default", tile_size)
        if verbose:
            _log.info("%r", self)

    def _open_tiles(self, strategy: str, size: int | tuple[int, int]) -> None:
        self.tiles = open_tiles(self.layout, self.resolution, strategy, size)
        self._image_of = np.asarray([self._place.get(t, -1) for t in self.tiles.tissue_ids])
        if (self._image_of < 0).any():
            # Tiles of tissues that are not of this modality or split.
            self._rows = np.flatnonzero(self._image_of[self.tiles.rows().tissue] >= 0)
        tell_aligned(
            self.layout,
            self.modality,
            (t for t in self.tiles.tissue_ids if t in self._place),
            who=self.name,
            advice=f"ComposedImagingDataset(..., ['{self.modality.name}']) reads them where they lie",
        )
        if not len(self):
            told = f"{len(self.tiles)} tiles, none of them on one of its {len(self._tissue_ids)} tissues"
            _log.warning("%s is empty: the tiling %s %s has %s", self.name, strategy, size, told)

    # -- what is there

    @property
    def tissue_metadata(self) -> pa.Table:
        """The whole table of tissues, of all modalities and splits."""
        return self.records.table

    @property
    def tissue_modality_metadata(self) -> pa.Table:
        """Rows of the tissue table that this dataset consists of."""
        return self.records.modality_table

    @property
    def cell_metadata(self) -> pa.Table | None:
        """Rows of the table of cells of these tissues; None unless `load_cell_metadata`."""
        return self._companions.cell_table

    @property
    def tile_coordinates(self) -> dict[str, NDArray[np.int64]]:
        """(row, col) of the tiles of each tissue, (n, 2), in the order of the table."""
        tiles = self._with_tiles("tile_coordinates")
        found: dict[str, NDArray[np.int64]] = {}
        for tissue in tiles.tissue_ids:
            if tissue in self._place:
                rows = tiles.rows(tiles.positions(tissue))
                found[tissue] = np.stack([rows.row, rows.col], axis=1)
        return found

    @property
    def label_encoder(self) -> dict[Any, int]:
        """Code by class, the same in every split; empty without `label` and in a regression."""
        return dict(self.records.labels.encoder) if self.records.labels is not None else {}

    @property
    def unique_labels(self) -> list[Any]:
        """The classes, in the order of their codes."""
        return list(self.label_encoder)

    @property
    def patient_tissue_map(self) -> dict[str, list[str]]:
        """Tissues by patient, ids as text; tissues of no known patient are left out."""
        found: dict[str, list[str]] = {}
        for tissue, patient in self.records.patients.items():
            if patient is not None:
                found.setdefault(patient, []).append(tissue)
        return found

    def get_tissue_ids(self, kind: Literal["modality", "all"] = "modality") -> NDArray[np.str_]:
        """Return the ids of the tissues, in the order of the tissue table.

        Parameters
        ----------
        kind
            ``"modality"``: those that the dataset consists of. ``"all"``: those of the whole
            cohort, however imaged and in whichever split.
        """
        if kind == "all":
            ids = self.records.table["tissue_id"].cast(pa.string()).unique().to_pylist()
            return np.asarray(ids, dtype=np.str_)
        if kind != "modality":
            msg = f"kind must be 'modality' or 'all', got {kind!r}"
            raise InvalidInputError(msg)
        return np.asarray(self._tissue_ids, dtype=np.str_)

    def image(self, tissue_id: str) -> MultiscaleImage:
        """Return the image of a tissue.

        Raises
        ------
        UnknownNameError
            If the dataset has no such tissue.
        """
        return self._images[self._number(tissue_id)]

    def _number(self, tissue_id: str) -> int:
        if tissue_id not in self._place:
            msg = f"dataset {self.name!r} has no tissue {tissue_id!r} imaged as {self.modality}{f' in split {self.split!r}' if self.split else ''}"
            raise UnknownNameError(msg)
        return self._place[tissue_id]

    # -- torch's map-style protocol

    def __len__(self) -> int:
        if self.tiles is None:
            return len(self._tissue_ids)
        return len(self.tiles) if self._rows is None else self._rows.size

    def __getitem__(self, index: int) -> ImageRegionData[PatchSpecs]:
        """Return tile (or tissue) `index`, standardized, with its provenance."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[ImageRegionData[PatchSpecs]]:
        """Return several at once: torch's loader asks for a batch this way, in one read."""
        if self.tiles is None:
            ids = [self._tissue_ids[self._checked(i)] for i in indices]
            return [self._tissue_region(tissue, self._standing) for tissue in ids]
        return decollate_regions(self.read_batch(np.asarray(indices, np.int64)))

    def read_batch(self, rows: ArrayLike) -> ImageRegionData[PatchSpecs]:
        """Read tiles by number into one collated, standardized batch.

        Parameters
        ----------
        rows
            Numbers of tiles, (n,), each in `[0, len(self))`.

        Returns
        -------
        Collated regions: data (n, C, H, W) float32; `additional_metadata` names tissue and tile.

        Raises
        ------
        InvalidInputError
            If the dataset has no tile size, or tissues of the batch differ in their channels.
        OutOfRangeError
            If a number is outside.
        """
        if self.tiles is None:
            msg = "a dataset of whole tissues has no batches of tiles; give tile_size="
            raise InvalidInputError(msg)
        wanted = np.asarray(rows, np.int64)
        if wanted.size and not -len(self) <= int(wanted.min()) <= int(wanted.max()) < len(self):
            msg = f"tile numbers {int(wanted.min())} to {int(wanted.max())} are outside the {len(self)} tiles of the dataset"
            raise OutOfRangeError(msg)
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        at = wanted if self._rows is None else self._rows[wanted]
        found = self.tiles.rows(at)
        windows = Windows(
            self._image_of[found.tissue],
            np.stack([found.row, found.col], axis=1),
            self.tiles.tile_size,
        )
        return self._batch(windows, found.tile_id.tolist(), self._standing, must_show=True)

    def _batch(
        self,
        windows: Windows,
        tile_ids: Sequence[int | None],
        request: Request,
        *,
        must_show: bool = False,
    ) -> ImageRegionData[PatchSpecs]:
        """Read windows; with `must_show`, refuse those that show nothing of their tissue."""
        halo = self.filters.halo if request.preprocess else 0
        grown = grown_windows(windows, halo)
        valid = valid_parts(self._images, grown)
        if must_show:
            self._verify_shown(windows, tile_ids, shows_nothing(windows, valid, halo))
        numbers = np.unique(windows.image)
        channels = self._channels(numbers, request.select)
        convert: Mapping[int, Conversion] | Conversion | None = Conversion.of()
        if request.preprocess:
            convert = None if halo else self._conversions(numbers, request.select)
        data = read_regions(self._images, grown, channels=channels, convert=convert)
        if convert is None:
            data = self._standardize(data, windows.image, valid, request.select)
            if halo:
                data = self.filters(data, valid=valid, out=data)
                data = np.ascontiguousarray(data[..., halo:-halo, halo:-halo])
        metadata = self._metadata_of(windows, tile_ids, request)
        return region_batch(self._images, windows, data, channels=channels, metadata=metadata)

    def _verify_shown(
        self, windows: Windows, tile_ids: Sequence[int | None], empty: NDArray[np.bool_]
    ) -> None:
        """Refuse windows that show nothing of their tissue."""
        if empty.any():
            place = int(np.flatnonzero(empty)[0])
            number = int(windows.image[place])
            tile = "the tile" if tile_ids[place] is None else f"tile {tile_ids[place]}"
            msg = (
                f"{tile} at {tuple(windows.start[place].tolist())} of {windows.size} pixels lies outside "
                f"tissue {self._tissue_ids[number]!r}, whose image has {self._images[number].level_shape(0)[-2:]}"
            )
            raise OutOfRangeError(msg)

    def _metadata_of(
        self, windows: Windows, tile_ids: Sequence[int | None], request: Request
    ) -> list[dict[str, Any]]:
        """Return what is known of each window beyond its image."""
        labels = self.records.labels
        found: list[dict[str, Any]] = []
        for image, tile_id in zip(windows.image.tolist(), tile_ids, strict=True):
            tissue_id = self._tissue_ids[image]
            told: dict[str, Any] = {"tissue_id": tissue_id}
            if tile_id is not None:
                told["tile_id"] = tile_id
            if labels is not None:
                told["label"] = labels.values[tissue_id]
                told["label_code"] = labels.code(tissue_id)
            found.append(told)
        self._companions.tell(found, windows, masks=request.masks, cells=request.cells)
        return found

    def _window(
        self,
        tissue_id: str,
        row: int,
        col: int,
        size: tuple[int, int],
        request: Request,
        *,
        tile_id: int | None = None,
    ) -> ImageRegionData[PatchSpecs]:
        """Read one window of a tissue."""
        windows = Windows.of(self._number(tissue_id), [[row, col]], size)
        return decollate_regions(self._batch(windows, [tile_id], request, must_show=True))[0]

    def _tissue_region(self, tissue_id: str, request: Request) -> ImageRegionData[PatchSpecs]:
        shape = self.image(tissue_id).level_shape(0)
        return self._window(tissue_id, 0, 0, (shape[-2], shape[-1]), request)

    def _tile_region(
        self, tissue_id: str, tile_id: int, request: Request
    ) -> ImageRegionData[PatchSpecs]:
        """Read a tile by its key, not by its position."""
        tiles = self._with_tiles("get_tile")
        self._number(tissue_id)
        row, col = tile_corner(tiles, tissue_id, tile_id)
        return self._window(tissue_id, row, col, tiles.tile_size, request, tile_id=tile_id)

    def _with_tiles(self, what: str) -> TileTable:
        if self.tiles is None:
            msg = f"{what} needs a dataset with a tile_size"
            raise InvalidInputError(msg)
        return self.tiles

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            msg = f"tissue {index} is outside the {len(self)} tissues of the dataset"
            raise OutOfRangeError(msg)
        return index

    def _channels(self, images: NDArray[np.int64], select: Any) -> Mapping[int, Channels] | None:
        """Return which channels to read of each of these images; None for all.

        Parameters
        ----------
        images
            Numbers of the images of a batch, each once.
        select
            What the caller of `_batch` asked for; None for what the dataset was made with.
        """
        del images, select
        return None

    def _conversions(
        self, images: NDArray[np.int64], select: Any
    ) -> Mapping[int, Conversion] | None:
        """Return what `_standardize` does, for a read to do; None where only it can."""
        del images, select
        return None

    def _batch_key(self, tissue_id: str, select: Any) -> Any:
        """Return what tissues of one batch must have in common."""
        del tissue_id, select
        return None

    @abstractmethod
    def _standardize(
        self,
        stored: NDArray[Any],
        images: NDArray[np.int64],
        valid: NDArray[np.int64],
        select: Any,
    ) -> NDArray[np.float32]:
        """Turn stored pixels (n, C, H, W) into float32.

        Parameters
        ----------
        stored
            (n, C, H, W).
        images
            Number of each window's image, (n,).
        valid
            (row, col, height, width) of the part inside the image, (n, 4); the rest becomes 0.
        select
            As for `_channels`.
        """

    def __repr__(self) -> str:
        unit = "tissues" if self.tiles is None else "tiles"
        return f"{type(self).__name__}({self.name!r}, {len(self)} {unit} of {len(self._tissue_ids)} tissues at {self.resolution} um)"
