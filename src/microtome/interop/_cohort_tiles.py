"""A tiling of a cohort with the images that it lies on: what exports of whole cohorts are made of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from microtome.cohort import (
    CohortLayout,
    Modality,
    open_tiles,
    open_tissue_image,
    parse_modality,
    read_tissues,
    size_name,
    tell_aligned,
    tile_size_of,
    tissue_row,
    tissues_with_images,
)
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError, NotFoundError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.regions import ImageRegionData, Windows, read_regions, region_batch
from microtome.tiling import TileTable

from ._exported_from import IMAGE_OF, picture_identity, places_identity

__all__ = ["CohortTiles", "TissueImages", "source_scale"]

# The tiling that is meant where nobody names one.
_USUAL = "default"


@dataclass(frozen=True, slots=True)
class TissueImages(Mapping[str, MultiscaleImage]):
    """The images of some tissues of a cohort by tissue id, opened when they are asked for.

    Parameters
    ----------
    layout, modality, resolution
        Which images.
    tissue_ids
        Whose.
    """

    layout: CohortLayout
    modality: Modality
    resolution: Resolution
    tissue_ids: tuple[str, ...]

    @classmethod
    def of_cohort(
        cls,
        cohort: str | os.PathLike[str],
        *,
        modality: str | Modality | None = None,
        resolution: float | str | tuple[float, float] | Resolution | None = None,
        tissues: Sequence[str] | None = None,
    ) -> Self:
        """Find the images of one modality.

        Parameters
        ----------
        cohort
            Directory of the cohort.
        modality
            Which; by default the one that all tissues have first, H&E before IHC before multiplex.
        resolution
            Which resolution; may be left out where the cohort has one.
        tissues
            Only these tissues; None for all that have an image.

        Raises
        ------
        InvalidInputError
            If there is no such resolution, or nothing says which modality.
        UnknownNameError
            If a tissue has no image.
        """
        layout = CohortLayout.open(cohort)
        target = layout.resolution(resolution)
        only = None if modality is None else [parse_modality(modality)]
        there = tissues_with_images(layout, target, tissues=tissues, modalities=only)
        return cls(layout, _one_modality(layout, there, list(there)), target, tuple(there))

    @classmethod
    def of_each_modality(
        cls,
        cohort: str | os.PathLike[str],
        *,
        modality: str | Modality | None = None,
        resolution: float | str | tuple[float, float] | Resolution | None = None,
        tissues: Sequence[str] | None = None,
    ) -> tuple[Self, ...]:
        """Find the images of every modality, H&E before IHC before multiplex.

        Parameters
        ----------
        cohort, resolution, tissues
            As of `of_cohort`.
        modality
            Only this one.

        Returns
        -------
        The images of each, of the tissues that are imaged so.

        Raises
        ------
        InvalidInputError
            If there is no such resolution.
        UnknownNameError
            If a tissue has no image.
        """
        layout = CohortLayout.open(cohort)
        target = layout.resolution(resolution)
        only = None if modality is None else [parse_modality(modality)]
        there = tissues_with_images(layout, target, tissues=tissues, modalities=only)
        kinds = sorted(
            {kind for imaged in there.values() for kind in imaged},
            key=lambda kind: (kind.kind != "brightfield", kind.name),
        )
        return tuple(
            cls(layout, kind, target, tuple(t for t, imaged in there.items() if kind in imaged))
            for kind in kinds
        )

    def __getitem__(self, tissue_id: str) -> MultiscaleImage:
        if tissue_id not in self.tissue_ids:
            msg = f"no image of tissue {tissue_id!r} as {self.modality} is asked for here"
            raise UnknownNameError(msg)
        return open_tissue_image(self.layout, self.modality, self.resolution, tissue_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tissue_ids)

    def __len__(self) -> int:
        return len(self.tissue_ids)


@dataclass(frozen=True, slots=True)
class CohortTiles:
    """Tiles of a cohort and the images of one modality that they lie on.

    It is a source of tiles for `write_webdataset` and `TileLoader`, too: `read_batch` gives the
    stored values, in the type in which they are stored.

    Parameters
    ----------
    images
        The images.
    tiles
        The tiles, all on these images.
    channels
        Names of the channels that batches have; None for all. Tissues that measured different ones
        go into one batch by those that all of them have.
    """

    images: TissueImages
    tiles: TileTable
    channels: tuple[str, ...] | None = None
    _opened: dict[int, MultiscaleImage] = field(
        default_factory=dict[int, MultiscaleImage], repr=False, compare=False
    )

    @classmethod
    def open(
        cls,
        cohort: str | os.PathLike[str],
        *,
        modality: str | Modality | None = None,
        tile_size: int | tuple[int, int] | None = None,
        tile_strategy: str | None = None,
        resolution: float | str | tuple[float, float] | Resolution | None = None,
        tissues: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Self:
        """Open a tiling.

        Parameters
        ----------
        cohort
            Directory of the cohort.
        modality
            Which images; by default the one that all tissues with tiles have first, H&E before IHC
            before multiplex.
        tile_size, tile_strategy
            Which tiling; may be left out where only one fits. Of several of one size it is
            ``"default"``, the cover, as for datasets.
        resolution
            Which resolution; may be left out where the cohort has one.
        tissues
            Only these tissues; None for all that have tiles and an image.
        split
            Only tissues of this split.

        Raises
        ------
        InvalidInputError
            If there is no such tiling or resolution, several fit, or nothing says which modality.
        UnknownNameError
            If a tissue has no tiles or no image, or no tissue with tiles is in the split.
        """
        layout = CohortLayout.open(cohort)
        target = layout.resolution(resolution)
        table = _tiling(layout, target, tile_strategy, tile_size)
        only = None if modality is None else [parse_modality(modality)]
        there = tissues_with_images(layout, target, tissues=tissues, modalities=only)
        if tissues is not None:
            for tissue in tissues:
                table.positions(tissue)  # says so if there are none
        inside = _of_split(layout, split)
        wanted = [
            tissue
            for tissue in table.tissue_ids
            if tissue in there
            and (tissues is None or tissue in tissues)
            and (inside is None or tissue in inside)
        ]
        if not wanted:
            about = "" if split is None else f" in split {split!r}"
            msg = f"{layout.root} has no tissue{about} that has tiles and an image at {target} um per pixel"
            raise UnknownNameError(msg)
        kind = _one_modality(layout, there, wanted)
        if len(wanted) < len(table.tissue_ids):
            names = table.table["tissue_id"].cast(pa.string())
            kept = table.table.filter(pc.is_in(names, value_set=pa.array(wanted, pa.string())))
            table = TileTable(kept, table.tile_size, table.strategy, table.resolution)
        return cls(TissueImages(layout, kind, target, table.tissue_ids), table)

    def __len__(self) -> int:
        return len(self.tiles)

    def made_of(self) -> dict[str, str]:
        """Return what tells these tiles, and the images that they are of, from any others."""
        return {
            "places": places_identity(self.tiles),
            "channels": "all" if self.channels is None else ", ".join(self.channels),
            **{
                f"{IMAGE_OF}{tissue}": picture_identity(self.images[tissue]) or "not known"
                for tissue in self.tiles.tissue_ids
            },
        }

    def read_batch(self, rows: ArrayLike) -> ImageRegionData[Any]:
        """Read tiles by their row into one batch of the stored values.

        Raises
        ------
        OutOfRangeError
            If a row is outside the table.
        InvalidInputError
            If tissues of the batch differ in their channels, and none are chosen.
        UnknownNameError
            If a tissue has no channel of a name that is chosen.
        """
        found = self.tiles.rows(np.asarray(rows, np.int64))
        numbers: NDArray[np.int64] = found.tissue.astype(np.int64)
        images = self._images(numbers)
        windows = Windows(
            np.searchsorted(np.unique(numbers), numbers).astype(np.int64),
            np.stack([found.row, found.col], axis=1),
            self.tiles.tile_size,
        )
        names = self.tiles.tissue_ids
        told = [
            {"tissue_id": names[number], "tile_id": int(tile)}
            for number, tile in zip(numbers.tolist(), found.tile_id, strict=True)
        ]
        chosen = None if self.channels is None else list(self.channels)
        if chosen is None:
            _verify_alike(images)
        data = read_regions(images, windows, channels=chosen)
        return region_batch(images, windows, data, channels=chosen, metadata=told)

    def _images(self, numbers: NDArray[np.int64]) -> list[MultiscaleImage]:
        """Return the images of some tissues by ascending number; those are kept open."""
        found: list[MultiscaleImage] = []
        if not self._opened:
            tell_aligned(
                self.images.layout,
                self.images.modality,
                self.tiles.tissue_ids,
                who=str(self.images.layout.root),
                advice="ComposedImagingDataset reads them where they lie",
            )
        for number in np.unique(numbers).tolist():
            if number not in self._opened:
                self._opened[number] = self.images[self.tiles.tissue_ids[number]]
            found.append(self._opened[number])
        return found

    def __reduce__(self) -> Any:
        # What is open stays here.
        return CohortTiles, (self.images, self.tiles, self.channels)


def _verify_alike(images: Sequence[MultiscaleImage]) -> None:
    first = images[0]
    for other in images[1:]:
        if other.channel_names != first.channel_names:
            msg = (
                f"{first.uri} has the channels {list(first.channel_names or ())}, {other.uri} has "
                f"{list(other.channel_names or ())}; choose those that all have with --channel (channels=)"
            )
            raise InvalidInputError(msg)


def source_scale(
    layout: CohortLayout, modality: Modality, resolution: Resolution, tissue_id: str
) -> tuple[float, float]:
    """Return how many pixels of the file that a tissue was made from are one at a resolution.

    Returns
    -------
    (y, x).

    Raises
    ------
    NotFoundError
        If neither the image nor the table of tissues says how large a pixel of its source was.
    """
    for stored in layout.resolutions(modality):
        place = layout.image(modality, stored, tissue_id)
        if not MultiscaleImage.exists(place):
            continue
        ours: Any = MultiscaleImage.open(place).metadata.get("microtome", {})
        scale = ours.get("source", {}).get("scale") if isinstance(ours, dict) else None
        if scale is not None:
            x, y = map(float, scale)
            ratio = (resolution.mpp[0] / stored.mpp[0], resolution.mpp[1] / stored.mpp[1])
            return y * ratio[0], x * ratio[1]
    row = tissue_row(layout, tissue_id, modality)
    size = None if row is None else row.get("mpp")
    if size is None:
        msg = f"{layout.tissues} does not say how large a pixel of the source of {tissue_id!r} ({modality}) is, in which QuPath, TRIDENT and CLAM count; say it with --source-mpp (source_mpp=)"
        raise NotFoundError(msg)
    return resolution.mpp[0] / float(size), resolution.mpp[1] / float(size)


def _one_modality(
    layout: CohortLayout, there: Mapping[str, Sequence[Modality]], tissues: Sequence[str]
) -> Modality:
    kinds = {there[tissue][0].name: there[tissue][0] for tissue in tissues}
    if len(kinds) > 1:
        msg = f"tissues of {layout.root} are imaged as {', '.join(kinds)}; say as which with --modality (modality=)"
        raise InvalidInputError(msg)
    (kind,) = kinds.values()
    return kind


def _tiling(
    layout: CohortLayout,
    resolution: Resolution,
    strategy: str | None,
    size: int | tuple[int, int] | None,
) -> TileTable:
    if strategy is None or size is None:
        text = None if size is None else size_name(size)
        there = layout.tilings(resolution)
        fitting = [
            (name, each)
            for name, each in there
            if (strategy is None or name == strategy) and (text is None or each == text)
        ]
        usual = [(name, each) for name, each in fitting if name == _USUAL]
        if len(usual) == len({each for _, each in fitting}) == 1:
            fitting = usual  # of one size: that of `tile`, as for datasets
        if len(fitting) != 1:
            shown = ", ".join(f"{name} {each}" for name, each in there) or "none"
            many = "several tilings fit" if fitting else "no tiling fits"
            msg = f"{many} at {resolution} um per pixel in {layout.root}, which has {shown}; say which with --strategy and --size (tile_strategy=, tile_size=)"
            raise InvalidInputError(msg)
        strategy, text = fitting[0]
        size = tile_size_of(text)
    return open_tiles(layout, resolution, strategy, size)


def _of_split(layout: CohortLayout, split: str | None) -> set[str] | None:
    if split is None:
        return None
    table = read_tissues(layout)
    if "split" not in table.column_names:
        msg = f"{layout.tissues} has no column split"
        raise UnknownNameError(msg)
    rows = table.select(["tissue_id", "split"]).to_pylist()
    return {str(row["tissue_id"]) for row in rows if row["split"] == split}
