"""One tissue on a page: its images, its tiles in numbers, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from microtome.cohort import open_tissue_mask
from microtome.image import MultiscaleImage

from ._advice import lacking_prediction
from ._cells import CellNumbers, CellsBlock, cell_numbers
from ._charts import HistogramBlock
from ._inventory import Inventory, Missing, Tissue, attempt
from ._numbers import TileNumbers, tile_numbers
from ._predictions import find_predictions
from ._slides import SlideBlock, slide_block

__all__ = ["Section", "notes_of_all", "section_of"]

_SEVERAL = 2


@dataclass(frozen=True, slots=True)
class Section:
    """One tissue at one resolution."""

    anchor: str
    tissue: Tissue
    slides: tuple[SlideBlock, ...]
    tiling: str
    """Which tiling is drawn and counted; empty where there is none."""
    tile: str
    """Size of its tiles."""
    numbers: TileNumbers | Missing
    cells: CellNumbers | None
    """None where there are none."""
    notes: tuple[Missing, ...]


def section_of(
    inventory: Inventory,
    tissue: Tissue,
    anchor: str,
    *,
    cells: CellsBlock | None = None,
    compact: bool = False,
) -> Section:
    """Draw a tissue.

    Parameters
    ----------
    inventory
        The cohort.
    tissue
        One of its tissues.
    anchor
        Identifier of the section in the page.
    cells
        Cells of the cohort, None where it has none.
    compact
        Whether it is one of very many.
    """
    notes: list[Missing] = []
    mask = attempt(f"mask of {tissue.tissue_id}", lambda: _mask(inventory, tissue))
    if isinstance(mask, Missing):
        notes.append(mask)
    predicted = find_predictions(inventory, tissue)
    if not predicted:
        notes.append(lacking_prediction(inventory, tissue))
    counted = cell_numbers(inventory, tissue, cells)
    numbered = None if counted is None or compact else counted.mask
    if isinstance(numbered, Missing):
        notes.append(numbered)
        numbered = None
    slides = [
        slide_block(
            inventory,
            tissue,
            modality,
            None if isinstance(mask, Missing) else mask,
            # What was made from an image that is no longer here is shown on the first.
            [p for p in predicted if p.source is modality or (p.source is None and not place)],
            # Labels of cells are counted on the tissue's first image.
            cells=None if place else numbered,
            compact=compact,
        )
        for place, modality in enumerate(tissue.modalities)
    ]
    tiling = inventory.tiling(tissue.resolution)
    numbers: TileNumbers | Missing
    name = size = ""
    if tiling is None:
        command = inventory.command("tile", tissue.resolution)
        numbers = Missing("There are no tiles at this resolution.", command)
    else:
        numbers, name = tile_numbers(tiling, tissue.tissue_id), tiling.name
        (height, width), (mpp_y, mpp_x) = tiling.table.tile_size, tissue.resolution.mpp
        size = f"{width} x {height} px, {width * mpp_x:g} x {height * mpp_y:g} µm"
    return Section(anchor, tissue, tuple(slides), name, size, numbers, counted, tuple(notes))


def notes_of_all(sections: Sequence[Section]) -> tuple[Missing, ...]:
    """Return what every one of several tissues lacks: it is told once."""
    if len(sections) < _SEVERAL:
        return ()
    each = [
        dict.fromkeys(
            [
                *section.notes,
                *(
                    note
                    for slide in section.slides
                    if isinstance(slide.histograms, HistogramBlock)
                    for note in slide.histograms.notes
                ),
            ]
        )
        for section in sections
    ]
    return tuple(note for note in each[0] if note.command and all(note in own for own in each))


def _mask(inventory: Inventory, tissue: Tissue) -> MultiscaleImage | Missing:
    if not inventory.layout.tissue_mask(tissue.resolution, tissue.tissue_id).exists():
        command = inventory.command("mask", tissue.resolution)
        return Missing("This tissue has no tissue mask.", command)
    return open_tissue_mask(inventory.layout, tissue.resolution, tissue.tissue_id)
