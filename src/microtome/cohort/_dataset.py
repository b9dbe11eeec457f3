"""What every dataset of one modality does: find tissues, tiles and masks, and read batches."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError, NotFoundError, OutOfRangeError, UnknownNameError
from microtome.image import Channels, MultiscaleImage
from microtome.regions import (
    ImageRegionData,
    PatchSpecs,
    Windows,
    decollate_regions,
    read_regions,
    region_batch,
    valid_windows,
)
from microtome.tiling import TileTable

from ._images import read_tissue_mask, tissues_with_images
from ._layout import CohortLayout
from ._modality import Modality, parse_modality
from ._shelf import ImageShelf
from ._tables import read_tissues
from ._tiles import open_tiles
from ._tissues import TissueMask

__all__ = ["BaseImagingDataset"]


class BaseImagingDataset(ABC):
    """One modality of a cohort as a map-style dataset of tiles, or of tissues without a tile size.

    `dataset[i]` is tile `i` as `ImageRegionData`, `read_batch(rows)` many at once; the typed
    results of seed 003 come from `get_tile` and `get_tissue`.

    Parameters
    ----------
    name
        Name of the cohort.
    modality
        Which modality.
    resolution
        Micrometres per pixel; may be left out where the cohort has one.
    path
        Directory of the cohort; by default `name` inside the directory that the environment
        variable SPORA_DATASETS_DIR names, as in spora_io.
    tile_size
        Side of the tiles in pixels, or (height, width); None for whole tissues.
    tile_strategy
        Which tiling; ``"default"`` by default.
    split
        Only tissues whose `split` is this; None for all.

    Raises
    ------
    InvalidInputError
        If a strategy is given without a tile size, or there is no such tiling, split or image.
    """

    def __init__(
        self,
        name: str,
        modality: str | Modality,
        resolution: float | str | tuple[float, float] | Resolution | None,
        *,
        path: str | os.PathLike[str] | None,
        tile_size: int | tuple[int, int] | None,
        tile_strategy: str | None,
        split: str | None,
    ) -> None:
        if tile_strategy is not None and tile_size is None:
            msg = f"tile_strategy={tile_strategy!r} needs a tile_size"
            raise InvalidInputError(msg)
        self.name = name
        self.modality = parse_modality(modality)
        self.layout = CohortLayout.open(_directory(name, path))
        self.resolution = self.layout.resolution(resolution)
        self.split = split
        self._tissue_ids = self._find_tissues()
        self._place = {tissue: i for i, tissue in enumerate(self._tissue_ids)}
        self._images = ImageShelf(self.layout, self.modality, self.resolution, self._tissue_ids)
        self.tiles: TileTable | None = None
        self._rows: NDArray[np.int64] | None = None
        self._image_of: NDArray[np.int64] = np.empty(0, np.int64)
        if tile_size is not None:
            self.tiles = open_tiles(
                self.layout, self.resolution, tile_strategy or "default", tile_size
            )
            self._image_of = np.asarray(
                [self._place.get(t, -1) for t in self.tiles.tissue_ids], np.int64
            )
            if (self._image_of < 0).any():
                # Tiles of tissues that are not of this modality or split.
                self._rows = np.flatnonzero(self._image_of[self.tiles.rows().tissue] >= 0)

    # -- what is there

    @property
    def tissue_metadata(self) -> pa.Table:
        """Rows of the tissue table that this dataset consists of."""
        table = read_tissues(self.layout)
        mine = pc.and_(
            pc.equal(table["modality"].cast(pa.string()), self.modality.name),
            pc.is_in(table["tissue_id"].cast(pa.string()), value_set=pa.array(self._tissue_ids)),
        )
        return table.filter(mine)

    def get_tissue_ids(self) -> NDArray[np.str_]:
        """Return the ids of the tissues, in the order of the tissue table."""
        return np.asarray(self._tissue_ids, dtype=np.str_)

    def image(self, tissue_id: str) -> MultiscaleImage:
        """Return the image of a tissue.

        Raises
        ------
        UnknownNameError
            If the dataset has no such tissue.
        """
        if tissue_id not in self._place:
            msg = f"dataset {self.name!r} has no tissue {tissue_id!r} imaged as {self.modality}{f' in split {self.split!r}' if self.split else ''}"
            raise UnknownNameError(msg)
        return self._images[self._place[tissue_id]]

    def get_tissue_mask(self, tissue_id: str) -> TissueMask:
        """Return where the tissue is, on the image's pixel grid.

        Raises
        ------
        NotFoundError
            If the tissue has no mask: no mask does not mean tissue everywhere.
        """
        shape = self.image(tissue_id).level_shape(0)
        found = read_tissue_mask(self.layout, self.resolution, tissue_id, (shape[-2], shape[-1]))
        return TissueMask(mask=found, tissue_id=tissue_id)

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
            return [self._tissue_region(self._tissue_ids[self._checked(i)]) for i in indices]
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
        ids = self.tiles.tissue_ids
        names = [
            {"tissue_id": ids[tissue], "tile_id": tile}
            for tissue, tile in zip(found.tissue.tolist(), found.tile_id.tolist(), strict=True)
        ]
        return self._batch(windows, names)

    def _batch(
        self, windows: Windows, names: Sequence[dict[str, Any]], select: Any = None
    ) -> ImageRegionData[PatchSpecs]:
        channels = self._channels(np.unique(windows.image), select)
        stored = read_regions(self._images, windows, channels=channels)
        inside = valid_windows(self._images, windows)
        # (row, col, height, width), as standardizers take it.
        valid = np.concatenate([inside[..., 0], inside[..., 1] - inside[..., 0]], axis=1)
        data = self._standardize(stored, windows.image, valid, select)
        return region_batch(self._images, windows, data, channels=channels, metadata=names)

    def _window(
        self,
        tissue_id: str,
        row: int,
        col: int,
        size: tuple[int, int],
        select: Any = None,
        *,
        tile_id: int | None = None,
    ) -> ImageRegionData[PatchSpecs]:
        """Read one window of a tissue."""
        self.image(tissue_id)
        windows = Windows.of(self._place[tissue_id], [[row, col]], size)
        names: dict[str, Any] = {"tissue_id": tissue_id}
        if tile_id is not None:
            names["tile_id"] = tile_id
        return decollate_regions(self._batch(windows, [names], select))[0]

    def _tissue_region(self, tissue_id: str) -> ImageRegionData[PatchSpecs]:
        shape = self.image(tissue_id).level_shape(0)
        return self._window(tissue_id, 0, 0, (shape[-2], shape[-1]))

    def _tile_region(self, tissue_id: str, tile_id: int) -> ImageRegionData[PatchSpecs]:
        """Read a tile by its key, not by its position."""
        row, col = self._tile_corner(tissue_id, tile_id)
        return self._window(tissue_id, row, col, self._tile_shape(), tile_id=tile_id)

    def _tile_corner(self, tissue_id: str, tile_id: int) -> tuple[int, int]:
        if self.tiles is None:
            msg = "get_tile needs a dataset with a tile_size"
            raise InvalidInputError(msg)
        self.image(tissue_id)
        found = self.tiles.rows(self.tiles.positions(tissue_id))
        hit = np.flatnonzero(found.tile_id == tile_id)
        if hit.size != 1:
            msg = f"tissue {tissue_id!r} has no tile {tile_id}; it has {len(found)} tiles"
            raise UnknownNameError(msg)
        return int(found.row[hit[0]]), int(found.col[hit[0]])

    def _tile_shape(self) -> tuple[int, int]:
        if self.tiles is None:
            msg = "get_tile_by_coordinates needs a dataset with a tile_size"
            raise InvalidInputError(msg)
        return self.tiles.tile_size

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            msg = f"tissue {index} is outside the {len(self)} tissues of the dataset"
            raise OutOfRangeError(msg)
        return index

    def _find_tissues(self) -> list[str]:
        found = list(tissues_with_images(self.layout, self.resolution, modalities=[self.modality]))
        if self.split is None:
            return found
        table = read_tissues(self.layout)
        if "split" not in table.column_names:
            msg = f"{self.layout.tissues} has no column 'split'"
            raise InvalidInputError(msg)
        rows = table.select(["tissue_id", "modality", "split"]).to_pylist()
        kept = {
            r["tissue_id"]
            for r in rows
            if r["modality"] == self.modality.name and r["split"] == self.split
        }
        chosen = [tissue for tissue in found if tissue in kept]
        if not chosen:
            splits = sorted({str(r["split"]) for r in rows if r["split"] is not None})
            there = f"there are {splits}" if splits else "no tissue has a split"
            msg = f"no tissue of {self.name!r} imaged as {self.modality} is in split {self.split!r}; {there}"
            raise InvalidInputError(msg)
        return chosen

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


def _directory(name: str, path: str | os.PathLike[str] | None) -> Path:
    if path is not None:
        return Path(path)
    root = os.environ.get("SPORA_DATASETS_DIR")
    if not root:
        msg = f"where is cohort {name!r}? Give path=, or name the folder of all cohorts in SPORA_DATASETS_DIR"
        raise NotFoundError(msg)
    return Path(root) / name


def as_tensor(data: NDArray[np.float32], mode: str) -> Any:
    """Return a (C, H, W) array as a torch tensor, channels last where asked for.

    Raises
    ------
    InvalidInputError
        If the mode is neither ``"CHW"`` nor ``"HWC"``.
    """
    import torch

    if mode not in {"CHW", "HWC"}:
        msg = f"image_mode must be 'CHW' or 'HWC', got {mode!r}"
        raise InvalidInputError(msg)
    tensor = torch.from_numpy(data)
    return tensor if mode == "CHW" else tensor.permute(1, 2, 0)
