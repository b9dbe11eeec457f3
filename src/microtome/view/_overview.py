"""How much a cohort holds: images and their sizes, patients, bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtome.cohort import CohortLayout, Modality
from microtome.coordinates import Resolution
from microtome.image import MultiscaleImage

from ._inventory import Inventory, Missing, attempt, is_in_store, take_inventory

__all__ = ["CohortOverview", "ImagesRow", "StorageRow", "cohort_overview", "overview_of"]

_SQUARE_MM = 1e6
"""Square micrometres of a square millimetre."""


@dataclass(frozen=True, slots=True)
class ImagesRow:
    """The images of a modality at a resolution."""

    modality: str
    resolution: str
    """Micrometres per pixel, as text."""
    areas: tuple[float, ...]
    """Square millimetres of each image that opens, in the order of the tissue table."""
    channels: tuple[int, int] | None
    """Fewest and most channels of an image; None where no image opens."""
    unread: int
    """Images of the tissue table that are missing or do not open."""
    size: int | None
    """Bytes of the files of these images; None in a store, of whose chunks nothing is listed."""


@dataclass(frozen=True, slots=True)
class StorageRow:
    """A part of a cohort on disk."""

    name: str
    files: int
    size: int
    """Bytes, as the lengths of the files; a file system may take more or less for them."""


@dataclass(frozen=True, slots=True)
class CohortOverview:
    """How much a cohort holds."""

    tissues: int
    patients: int | None
    """Different patients; None where the tissue table names none."""
    unnamed: int
    """Tissues of nobody: the tissue table names no patient for them."""
    images: tuple[ImagesRow, ...]
    storage: tuple[StorageRow, ...]
    """Images, masks, tiles, predictions, tables; what else lies in the directory does not count.
    Nothing of a cohort in a store."""

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(row.size for row in self.storage)

    @property
    def area(self) -> float:
        """Square millimetres of all images; two images of one tissue count twice."""
        return sum(sum(row.areas) for row in self.images)


def cohort_overview(cohort: str | os.PathLike[str]) -> CohortOverview:
    """Count what a cohort holds.

    Opens the metadata of every image, reads no pixels.

    Parameters
    ----------
    cohort
        Directory of the cohort; it is only read.

    Raises
    ------
    NotFoundError, FormatError
        If there is no cohort, or its tissue table is damaged.
    """
    return overview_of(take_inventory(cohort))


def overview_of(inventory: Inventory) -> CohortOverview:
    """Count what a cohort holds, of an inventory of it."""
    layout = inventory.layout
    shelves: dict[tuple[Resolution, Modality], list[str]] = {}
    for tissue in inventory.tissues:
        for modality in tissue.modalities:
            shelves.setdefault((tissue.resolution, modality), []).append(tissue.tissue_id)
    rows = tuple(
        _images(layout, resolution, modality, tissues)
        for (resolution, modality), tissues in sorted(
            shelves.items(), key=lambda shelf: (shelf[0][1].name, shelf[0][0].mpp)
        )
    )
    patient_of: dict[str, str | None] = {}
    for row in inventory.rows:
        patient = patient_of.get(str(row["tissue_id"]))
        patient_of[str(row["tissue_id"])] = patient or patient_text(row)
    named = {patient for patient in patient_of.values() if patient is not None}
    return CohortOverview(
        tissues=len(patient_of),
        patients=len(named) or None,
        unnamed=sum(patient is None for patient in patient_of.values()),
        images=rows,
        storage=_storage(layout),
    )


def patient_text(row: dict[str, Any]) -> str | None:
    """Return the patient of a row of the tissue table as text; None where it names none."""
    value = row.get("patient_id")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # A column of numbers with gaps.
    return text_or_none(value)


def text_or_none(value: Any) -> str | None:
    """Return a cell of a table as text; None where nothing is in it."""
    if value is None or value != value:  # noqa: PLR0124 - what pandas writes for none is not itself
        return None
    return str(value) or None


def _images(
    layout: CohortLayout, resolution: Resolution, modality: Modality, tissues: list[str]
) -> ImagesRow:
    areas: list[float] = []
    channels: list[int] = []
    for tissue_id in tissues:
        path = layout.image(modality, resolution, tissue_id)
        found = attempt(f"{tissue_id} as {modality}", lambda p=path: _measure(p))
        if not isinstance(found, Missing):
            areas.append(found[0])
            channels.append(found[1])
    return ImagesRow(
        modality.name,
        str(resolution),
        tuple(areas),
        (min(channels), max(channels)) if channels else None,
        len(tissues) - len(areas),
        None if is_in_store(layout) else _count([layout.images(modality, resolution)])[1],
    )


def _measure(path: Path) -> tuple[float, int]:
    """Return square millimetres and channels of an image."""
    image = MultiscaleImage.open(path)
    level, mpp = image.level(0), image.require_mpp()
    return level.height * mpp.y * level.width * mpp.x / _SQUARE_MM, image.nchannels


def _storage(layout: CohortLayout) -> tuple[StorageRow, ...]:
    if is_in_store(layout):
        return ()
    images: list[Path] = []
    rest: list[Path] = [layout.tissues.parent, layout.manifest]
    for modality in layout.modalities():
        own = [layout.images(modality, r) for r in layout.resolutions(modality)]
        images += own
        folder = layout.root / modality.canonical_dir
        if folder.is_dir():
            rest += [entry for entry in _entries(folder) if entry not in own]
    parts = {
        "Images": images,
        "Masks": [layout.root / "segmentations"],
        "Tiles": [layout.root / "tiling"],
        "Predictions": [layout.root / "predictions"],
        "Tables and statistics": rest,
    }
    return tuple(StorageRow(name, *_count(places)) for name, places in parts.items())


def _entries(folder: Path) -> list[Path]:
    """Return what lies in the folder of a modality, the folders of resolutions opened up."""
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        found += sorted(entry.iterdir()) if entry.is_dir() else [entry]
    return found


def _count(places: Iterable[Path]) -> tuple[int, int]:
    """Return how many files there are, and their bytes; links are not followed."""
    files = size = 0
    for place in places:
        found = [str(place)] if place.is_file() else []
        for folder, _, names in os.walk(place):
            found += [os.path.join(folder, name) for name in names]  # noqa: PTH118 - thousands
        for path in found:
            try:
                size += os.lstat(path).st_size
            except OSError:
                continue  # Gone meanwhile: somebody works in the cohort.
            files += 1
    return files, size
