"""One image of a tissue on a page: the picture, its legend, predictions and charts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.cohort import Modality, panel
from microtome.errors import NotFoundError
from microtome.image import MultiscaleImage

from ._cell_picture import CellPicture, cell_picture
from ._charts import HistogramBlock, histogram_block
from ._figures import MASK_COLOUR, TILE_COLOUR, plot_overview, scale_bar_length
from ._inventory import Inventory, Missing, Tissue, attempt
from ._nuclei import nuclear_channels
from ._pictures import Picture, photograph_of
from ._predictions import SIZE_OF_MANY, Found, PredictionBlock, prediction_block
from ._thumbnails import Thumbnail, frame_of, read_frame, thumbnail

__all__ = ["SlideBlock", "Swatch", "slide_block"]

_SIZE = 1000
_COMPOSITE = 6
_GLIMPSE = 256


@dataclass(frozen=True, slots=True)
class Swatch:
    """A line of a legend."""

    text: str
    colour: str | None = None
    """Hexadecimal; None for a remark."""
    outline: bool = False


@dataclass(frozen=True, slots=True)
class SlideBlock:
    """One image of a tissue."""

    modality: str
    facts: str
    picture: Picture | Missing
    scale_bar: float
    """Its length in micrometres."""
    legend: tuple[Swatch, ...]
    predictions: tuple[PredictionBlock | Missing, ...]
    cells: CellPicture | Missing | None
    """None where there are none, or too many pictures already."""
    histograms: HistogramBlock | Missing | None


def slide_block(
    inventory: Inventory,
    tissue: Tissue,
    modality: Modality,
    mask: MultiscaleImage | None,
    predicted: list[Found],
    *,
    cells: MultiscaleImage | None = None,
    compact: bool = False,
) -> SlideBlock:
    """Draw an image of a tissue; whatever cannot be read is told in its place.

    Parameters
    ----------
    inventory, tissue, modality
        Which image.
    mask
        The tissue's mask, None where there is none.
    predicted
        What was predicted from this image.
    cells
        The mask in which cells are numbered, None where it is not drawn.
    compact
        Whether it is one of very many: the picture is smaller, and channels have no charts.
    """
    what = f"{tissue.tissue_id} as {modality}"
    opened = attempt(what, lambda: _open(inventory, tissue, modality, compact=compact))
    if isinstance(opened, Missing):
        return SlideBlock(modality.name, "", opened, 0.0, (), (), None, None)
    image, slide = opened
    base = image.level(0)
    facts = (
        f"{base.width} x {base.height} px at {image.require_mpp().x:g} µm, {image.nchannels} "
        f"channel{'s' if image.nchannels > 1 else ''} of {image.dtype}, {image.level_count} levels"
    )
    return SlideBlock(
        modality.name,
        facts,
        attempt(what, lambda: _overview(inventory, tissue, modality, slide, mask, compact=compact)),
        scale_bar_length(slide.frame),
        _legend(inventory, tissue, slide, has_mask=mask is not None),
        tuple(
            attempt(
                what, lambda f=found: prediction_block(f, tissue, image, slide, compact=compact)
            )
            for found in predicted
        ),
        None if cells is None else attempt(what, lambda: cell_picture(image, slide, cells, what)),
        attempt(
            what,
            lambda: histogram_block(inventory, tissue, modality, image, mask, drawn=not compact),
        ),
    )


def _open(
    inventory: Inventory, tissue: Tissue, modality: Modality, *, compact: bool
) -> tuple[MultiscaleImage, Thumbnail]:
    path = inventory.layout.image(modality, tissue.resolution, tissue.tissue_id)
    if not path.exists():
        msg = f"The tissue table lists this image, but {path} is missing; ingest it again."
        raise NotFoundError(msg)
    image = MultiscaleImage.open(path)
    size = SIZE_OF_MANY if compact else _SIZE
    if modality.kind == "brightfield":
        return image, thumbnail(image, size=size, rgb=True)
    channels, nuclei = _composite(inventory, modality, image)
    return image, thumbnail(image, size=size, channels=channels, nuclei=nuclei)


def _composite(
    inventory: Inventory, modality: Modality, image: MultiscaleImage
) -> tuple[list[int], bool]:
    """Choose channels for the picture: nuclei, then, of too many, those with the widest range.

    Returns them, and whether the first shows nuclei.
    """
    names = image.channel_names or ("intensity",)
    spread = np.zeros(len(names))
    if len(names) > _COMPOSITE:
        planes = read_frame(image, frame_of(image, _GLIMPSE)).reshape(len(names), -1)
        known = np.nan_to_num(planes.astype(np.float32), posinf=0, neginf=0)
        middle, high = np.quantile(known, [0.5, 0.995], axis=1)
        spread = high - middle
    rows: dict[str, dict[str, Any]] = {}
    if inventory.layout.channels(modality).is_file():
        table = panel(inventory.layout, modality).to_pylist()
        rows = {str(row["channel_name"]): row for row in table}

    marked = [bool(rows.get(name, {}).get("is_nuclear_marker", False)) for name in names]
    nuclear = nuclear_channels(names, marked)

    def rank(index: int) -> tuple[bool, bool, float]:
        failed = rows.get(names[index], {}).get("qc_pass") is False
        return not nuclear[index], failed, -float(spread[index])

    chosen = sorted(range(len(names)), key=rank)[:_COMPOSITE]
    # Nuclei first, for they are blue; the others in the order in which the panel has them.
    shown = sorted(chosen, key=lambda index: (rank(index)[0], index))
    return shown, nuclear[shown[0]]


def _overview(
    inventory: Inventory,
    tissue: Tissue,
    modality: Modality,
    slide: Thumbnail,
    mask: MultiscaleImage | None,
    *,
    compact: bool,
) -> Picture:
    tiling = inventory.tiling(tissue.resolution)
    count = tiling.count(tissue.tissue_id) if tiling else 0
    tiles = tiling.table.for_tissue(tissue.tissue_id) if tiling and count else None
    ax = plot_overview(
        slide, tiles=tiles, mask=mask, legend=False, size=SIZE_OF_MANY if compact else _SIZE
    )
    width, height = slide.base.width * slide.base.step_x, slide.base.height * slide.base.step_y
    alt = f"{tissue.tissue_id} as {modality}, {width:.0f} x {height:.0f} µm"
    alt += ", with the outline of its tissue mask" if mask is not None else ""
    alt += f", with {count} tiles" if count else ""
    return photograph_of(ax, f"{alt}.")


def _legend(
    inventory: Inventory, tissue: Tissue, slide: Thumbnail, *, has_mask: bool
) -> tuple[Swatch, ...]:
    lines = [
        Swatch(f"{channel.name}, {channel.low:.4g} to {channel.high:.4g}", channel.colour)
        for channel in slide.channels
    ]
    hidden = slide.channel_count - len(slide.channels)
    if slide.channels and hidden:
        lines.append(Swatch(f"{hidden} more channels, of less contrast, are not in the picture"))
    if has_mask:
        lines.append(Swatch("tissue mask", MASK_COLOUR, outline=True))
    tiling = inventory.tiling(tissue.resolution)
    if tiling and tiling.count(tissue.tissue_id):
        lines.append(Swatch(f"tiles ({tiling.name})", TILE_COLOUR, outline=True))
    return tuple(lines)
