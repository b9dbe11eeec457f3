"""`BaseImagingDataset`: what every dataset of one modality hands out, as typed results."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.cohort._html import dataset_html
from microtome.cohort._images import open_tissue_mask, read_labels
from microtome.cohort.cells import (
    cell_task_names,
    instances_kind,
    open_cell_mask,
    read_label_encoder,
)
from microtome.coordinates import AffineTransform
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.regions import (
    ImageRegionData,
    PatchSpecs,
    Windows,
    decollate_regions,
    region_batch,
)

from ._framed import FramedDataset
from ._frames import FramePlace
from ._request import Request
from ._tissues import (
    CellMask,
    HETissue,
    IHCTissue,
    ImageMode,
    MultiplexTissue,
    TissueKind,
    TissueMask,
)

__all__ = ["BaseImagingDataset"]

TissueT = TypeVar("TissueT", HETissue, IHCTissue, MultiplexTissue)


class BaseImagingDataset(FramedDataset, Generic[TissueT]):
    """One modality of a cohort as a map-style dataset of tiles, or of tissues without a tile size.

    `dataset[i]` is tile `i` as `ImageRegionData`, `read_batch(rows)` many at once; the typed
    results of spora_io come from `get_tile` and `get_tissue`.

    Parameters
    ----------
    name
        Name of the cohort.
    modality
        Which modality.
    resolution
        Micrometres per pixel, one that the cohort stores or a coarser one, which is resampled from
        the nearest finer one; may be left out where the cohort has one.
    path
        Directory of the cohort; by default `name` inside the directory that the environment
        variable SPORA_DATASETS_DIR names, as in spora_io.
    tile_size
        Side of the tiles in pixels, or (height, width); None for whole tissues.
    tile_strategy
        Which tiling; ``"default"`` by default.
    split
        Only tissues whose `split` is this; None for all.
    label
        Column of the tissue table to take labels from. The metadata of a tile then have `label`,
        and `label_code`: the class's number in `label_encoder`, which is that of the whole cohort
        whatever the split, or the number itself in a regression.
    labels_to_keep
        Only tissues with these labels; None for all.
    label_modifying_fn
        Called with each label; what it returns is the label, None for none.
    label_type
        ``"classification"`` or ``"regression"``.
    missing_labels
        ``"error"``, or ``"drop"`` tissues without a label.
    load_cell_metadata
        Whether to read the table of cells.
    with_masks
        Whether the metadata of a tile have `tissue_mask`, (H, W) booleans, and where the cohort has
        cell masks `cell_mask`, (H, W) integers; 0 outside the image.
    with_cells
        Whether the metadata of a tile have `cells`: the rows of the table of cells whose centre
        lies in the tile, or where the table has no centres, those in the tile's cell mask.
    filter_list
        Filters of standardized pixels by name, in order: ``"gaussian_blur"``, ``"median_filter"``
        or a registered one. A tile is the crop of the filtered tissue.
    verbose
        Whether to log what was found.

    Raises
    ------
    InvalidInputError
        If a strategy is given without a tile size, or there is no such tiling, split or image.
    """

    # -- typed results

    def get_tissue(
        self,
        tissue_id: str,
        kind: str | None = None,
        *,
        preprocess: bool = True,
        image_mode: ImageMode = "CHW",
        with_masks: bool | None = None,
        with_cells: bool | None = None,
    ) -> TissueT:
        """Read a whole tissue.

        Parameters
        ----------
        tissue_id
            Which.
        kind
            Which channels. Multiplex: ``"complete"``, ``"qc_filtered"`` or ``"uniprot_filtered"``,
            by default the last as in spora_io, but ``"complete"`` where the panel has no accession
            at all. Brightfield: ``"complete"``.
        preprocess
            Whether to standardize and filter; else the stored values, as float32.
        image_mode
            ``"CHW"`` or ``"HWC"``.
        with_masks, with_cells
            Whether masks and cells come along; by default as the dataset was made.

        Raises
        ------
        UnknownNameError
            If there is no such tissue.
        InvalidInputError
            If no channel is of this kind, or an option is none of those that there are.
        """
        request = self._request(kind, preprocess, with_masks, with_cells)
        region = self._tissue_region(tissue_id, request)
        return self._result(tissue_id, region, "tissue", image_mode, request)

    def get_tile(
        self,
        tissue_id: str,
        tile_id: int,
        kind: str | None = None,
        *,
        preprocess: bool = True,
        image_mode: ImageMode = "CHW",
        with_masks: bool | None = None,
        with_cells: bool | None = None,
    ) -> TissueT:
        """Read a tile by its id, the `tile_id` of the table and not a position in it.

        Parameters
        ----------
        tissue_id, tile_id
            Which.
        kind, preprocess, image_mode, with_masks, with_cells
            As for `get_tissue`.

        Raises
        ------
        UnknownNameError
            If there is no such tissue or tile. No other window is ever read in its place.
        """
        request = self._request(kind, preprocess, with_masks, with_cells)
        region = self._tile_region(tissue_id, tile_id, request)
        return self._result(tissue_id, region, "tile", image_mode, request)

    def get_tile_by_coordinates(
        self,
        tissue_id: str,
        row: int,
        col: int,
        kind: str | None = None,
        *,
        preprocess: bool = True,
        image_mode: ImageMode = "CHW",
        with_masks: bool | None = None,
        with_cells: bool | None = None,
    ) -> TissueT:
        """Read the tile whose top-left pixel is (row, col); 0 outside the image.

        Parameters
        ----------
        tissue_id, row, col
            Which.
        kind, preprocess, image_mode, with_masks, with_cells
            As for `get_tissue`.
        """
        request = self._request(kind, preprocess, with_masks, with_cells)
        size = self._with_tiles("get_tile_by_coordinates").tile_size
        region = self._window(tissue_id, row, col, size, request)
        return self._result(tissue_id, region, "tile", image_mode, request)

    def get_tissue_by_patient(
        self,
        patient_id: str,
        kind: str | None = None,
        *,
        preprocess: bool = True,
        image_mode: ImageMode = "CHW",
    ) -> list[TissueT]:
        """Read all tissues of a patient, in the order of the tissue table.

        Parameters
        ----------
        patient_id
            As in the table, numbers written as text.
        kind, preprocess, image_mode
            As for `get_tissue`.

        Raises
        ------
        UnknownNameError
            If no tissue here is this patient's.
        """
        return [
            self.get_tissue(tissue, kind, preprocess=preprocess, image_mode=image_mode)
            for tissue in self.records.of_patient(patient_id)
        ]

    def read_places(
        self,
        places: Sequence[FramePlace],
        to_frame: Mapping[str, AffineTransform],
        kind: str | None = None,
        *,
        preprocess: bool = True,
        image_mode: ImageMode = "CHW",
    ) -> list[TissueT]:
        """Read boxes of one size of the tissues' frames, as `ComposedImagingDataset` asks for them.

        Parameters
        ----------
        places
            Where.
        to_frame
            How images lie in the frames, by tissue id; those of other tissues have the frame's own
            pixel grid.
        kind, preprocess, image_mode
            As for `get_tissue`.
        """
        request = self._request(kind, preprocess, None, None)
        regions = self._places(places, to_frame, request)
        return [
            self._result(place.tissue_id, region, "tile", image_mode, request)
            for place, region in zip(places, regions, strict=True)
        ]

    # -- masks and cells

    def get_tissue_mask(self, tissue_id: str) -> TissueMask:
        """Return where the tissue is, on the image's pixel grid.

        Raises
        ------
        NotFoundError
            If the tissue has no mask: no mask does not mean tissue everywhere.
        FormatError
            If the mask is damaged, or of another shape than the image.
        """
        shape = self._shape(tissue_id)
        labels = open_tissue_mask(self.layout, self.resolution, tissue_id)
        found = read_labels(labels, tissue_id, shape) != 0
        region = _whole(labels, found, tissue_id)
        return TissueMask(mask=found, tissue_id=tissue_id, region=region)

    def get_cell_instance_mask(
        self, tissue_id: str, *, use_instances_from_virtues: bool = False
    ) -> CellMask:
        """Return the cells of a tissue, each with its number, on the image's pixel grid.

        Parameters
        ----------
        tissue_id
            Which.
        use_instances_from_virtues
            Whether to read ``cell_masks/instances_virtues`` in place of ``cell_masks/instances``.

        Raises
        ------
        UnknownNameError
            If the cohort has no such masks.
        NotFoundError
            If the tissue has none.
        FormatError
            If the mask is damaged, or of another shape than the image.
        """
        kind = instances_kind(from_virtues=use_instances_from_virtues)
        return self._cell_mask(tissue_id, kind, None)

    def get_cell_task_mask_types(self) -> list[str]:
        """Return the tasks for which the cohort has cell masks."""
        return cell_task_names(self.layout, self.resolution)

    def get_cell_task_mask(self, tissue_id: str, mask_type: str) -> CellMask:
        """Return the labels of a task, with their names where the cohort has them.

        Parameters
        ----------
        tissue_id
            Which.
        mask_type
            One of `get_cell_task_mask_types`.

        Raises
        ------
        UnknownNameError
            If there is no such task.
        NotFoundError
            If the tissue has no mask for it.
        FormatError
            If the mask or the table of names is damaged.
        """
        mapping = read_label_encoder(self.layout, self.resolution, mask_type)
        return self._cell_mask(tissue_id, mask_type, mapping)

    def get_cells(self, tissue_id: str) -> pa.Table:
        """Return the rows of the table of cells that speak of a tissue, by cell id.

        Raises
        ------
        NotFoundError
            If the cohort has no table of cells.
        """
        self._number(tissue_id)
        return self._companions.cells_of(tissue_id)

    def _cell_mask(self, tissue_id: str, kind: str, mapping: dict[int, str] | None) -> CellMask:
        shape = self._shape(tissue_id)
        labels: MultiscaleImage = open_cell_mask(self.layout, self.resolution, kind, tissue_id)
        found = read_labels(labels, tissue_id, shape)
        region = _whole(labels, found, tissue_id)
        return CellMask(mask=found, tissue_id=tissue_id, mapping=mapping, region=region)

    def _shape(self, tissue_id: str) -> tuple[int, int]:
        shape = self.image(tissue_id).level_shape(0)
        return shape[-2], shape[-1]

    # -- what the modalities differ in

    def _request(
        self,
        kind: str | None,
        preprocess: bool,  # noqa: FBT001 - passed on
        with_masks: bool | None,  # noqa: FBT001
        with_cells: bool | None,  # noqa: FBT001
    ) -> Request:
        standing = self._standing
        return Request(
            select=self._selection(kind),
            preprocess=preprocess,
            masks=standing.masks if with_masks is None else with_masks,
            cells=standing.cells if with_cells is None else with_cells,
        )

    @abstractmethod
    def _selection(self, kind: str | None) -> Any:
        """Return what a kind of channels means to `_channels` and `_standardize`."""

    @abstractmethod
    def _result(
        self,
        tissue_id: str,
        region: ImageRegionData[PatchSpecs],
        kind: TissueKind,
        mode: ImageMode,
        request: Request,
    ) -> TissueT:
        """Wrap a region in the type of the modality."""

    def _repr_html_(self) -> str:
        return dataset_html(self)


def _whole(
    labels: MultiscaleImage, pixels: NDArray[Any], tissue_id: str
) -> ImageRegionData[PatchSpecs]:
    """Return the labels of a whole tissue with their provenance."""
    windows = Windows.of(0, [[0, 0]], pixels.shape)
    told = [{"tissue_id": tissue_id}]
    return decollate_regions(region_batch([labels], windows, pixels[None, None], metadata=told))[0]


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
