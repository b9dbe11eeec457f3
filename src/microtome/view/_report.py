"""`report`: one self-contained page about a cohort."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

from microtome.errors import DependencyError, InvalidInputError
from microtome.progress import Progress, silent
from microtome.storage import StorageOptions, replace_file, verify_here

from ._advice import lacking_embeddings, lacking_tissues
from ._cells import CellsBlock, cells_block
from ._cohort_blocks import cohort_block
from ._embeddings import EmbeddingMap, embedding_map
from ._figures import POINT_COLOURS, new_figure, plot_embeddings
from ._heat import heat_legend
from ._inventory import Inventory, Missing, attempt, is_in_store, take_inventory
from ._numbers import tile_numbers
from ._pictures import Picture, chart_of, own_style, picture_of_pixels
from ._sections import Section, notes_of_all, section_of
from ._slides import Swatch
from ._throughput import Throughput, measure_throughput

__all__ = ["report"]

_TEMPLATE = "report.html.jinja"
# With more pictures than this, a page of all details would be tens of megabytes and of a hundred screens.
_MANY = 12


@dataclass(frozen=True, slots=True)
class EmbeddingBlock:
    """Tile embeddings of one model."""

    title: str
    picture: Picture | Missing
    legend: tuple[Swatch, ...]
    facts: str


def report(
    cohort: str | os.PathLike[str],
    output: str | os.PathLike[str] = "report.html",
    *,
    max_tissues: int = 50,
    throughput: bool = True,
    validation: bool = True,
    progress: Progress = silent,
    storage_options: StorageOptions | None = None,
) -> Path:
    """Write one page that shows what a cohort holds.

    The page needs nothing but itself: pictures are part of it, and it runs no script. It tells how
    much there is, what is wrong with it, who is in which split, which channels were measured, and
    what tiles cover and waste. It shows every tissue with its mask, tiles, predictions and
    histograms, and tells which command makes what is missing. It appears whole or not at all, and is the same for the same cohort but for
    the date and the measured throughput.

    Parameters
    ----------
    cohort
        Directory of the cohort, or its address in a store; it is only read.
    output
        The page, on a disk here; one that is there is replaced.
    max_tissues
        Tissues that are shown with pictures; the table lists all. Of more than twelve, pictures are
        smaller, and channels of panels are charted across tissues only.
    throughput
        Whether to load tiles for two seconds and tell how fast that was.
    validation
        Whether to check the cohort, as `microtome.cohort.validate` does, and tell what it found.
    progress
        Called with the tissues done and to do.
    storage_options
        How stores are reached.

    Returns
    -------
    The path of the page.

    Raises
    ------
    DependencyError
        If matplotlib or jinja2 is not installed (the extra `report`).
    NotFoundError, FormatError
        If there is no cohort, or its tissue table is damaged.
    InvalidInputError
        If `max_tissues` is negative, or `output` is an address.
    StorageError
        If the disk refuses.
    """
    if max_tissues < 0:
        msg = f"max_tissues must be at least 0, got {max_tissues}"
        raise InvalidInputError(msg)
    verify_here(output)
    template = _template()
    inventory = take_inventory(cohort, storage_options)
    shown = inventory.tissues[:max_tissues]
    compact = len(shown) > _MANY
    cells = attempt("cells", lambda: cells_block(inventory))
    known = None if isinstance(cells, Missing) else cells
    sections: list[Section] = []
    with own_style():
        for done, tissue in enumerate(shown, start=1):
            anchor = f"tissue-{done}"
            sections.append(section_of(inventory, tissue, anchor, cells=known, compact=compact))
            progress("report", done, len(shown))
        embeddings = list(_embeddings(inventory))
        block = cohort_block(inventory, sections, validation=validation)
        bar = picture_of_pixels(heat_legend(), "")
    measured = _throughput(inventory) if throughput else None
    layout = inventory.layout
    root = layout.root if is_in_store(layout) else layout.root.resolve()
    text = template.render(
        inventory=inventory,
        root=str(root),
        name=root.name,
        facts=_facts(inventory),
        made=datetime.now(UTC),
        tissues=list(_tissue_rows(inventory, sections, known)),
        cohort=block,
        cells=cells,
        sections=sections,
        compact=compact,
        of_all=notes_of_all(sections),
        hidden=len(inventory.tissues) - len(shown),
        embeddings=embeddings,
        no_embeddings=lacking_embeddings(inventory),
        no_tissue=lacking_tissues(inventory),
        heat_bar=bar,
        throughput=measured,
        tiles=_tiles_in_all(inventory),
    )
    path = Path(output)
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _template() -> Any:
    """Return the page's template; everything put into it is escaped."""
    try:
        import_module("matplotlib.figure")
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        msg = f"the report needs matplotlib and jinja2 ({error}); install microtome[report]"
        raise DependencyError(msg) from error
    environment = Environment(
        loader=PackageLoader("microtome.view", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["value"] = _value
    environment.filters["bytes"] = _bytes
    environment.tests["missing"] = _is_missing
    return environment.get_template(_TEMPLATE)


def _facts(inventory: Inventory) -> dict[str, str]:
    manifest = inventory.layout.read_manifest()
    made_with = manifest.get("created_with")
    if not manifest:
        form = "SPORA layout, not made by microtome"
    else:
        form = f"{manifest['format']} {manifest['version']}"
        form += f", begun with {made_with}" if made_with else ""
    return {
        "Format": form,
        "Resolutions": ", ".join(f"{r} µm" for r in inventory.resolutions) or "none yet",
        "Page made with": f"microtome {version('microtome')}, Python {platform.python_version()}, "
        f"numpy {version('numpy')}, tensorstore {version('tensorstore')}",
    }


def _tissue_rows(
    inventory: Inventory, sections: list[Section], cells: CellsBlock | None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the tissue table, with the tiles of the finest resolution that has any."""
    anchors: dict[str, str] = {}
    for section in sections:
        anchors.setdefault(section.tissue.tissue_id, section.anchor)
    tiling = next((t for r in inventory.resolutions if (t := inventory.tiling(r))), None)
    for row in inventory.rows:
        tissue_id = str(row["tissue_id"])
        numbers = None if tiling is None else tile_numbers(tiling, tissue_id)
        yield {
            **row,
            "anchor": anchors.get(tissue_id),
            "cells": cells.counts.get(tissue_id, 0) if cells and cells.total is not None else None,
            "tiles": None if numbers is None else numbers.tiles,
            "coverage": None if numbers is None else numbers.coverage,
        }


def _tiles_in_all(inventory: Inventory) -> int | None:
    shown = [t for r in inventory.resolutions if (t := inventory.tiling(r))]
    return sum(tiling.tiles for tiling in shown) if shown else None


def _embeddings(inventory: Inventory) -> Iterator[EmbeddingBlock]:
    for resolution, models in inventory.models.items():
        for model in models:
            directory = inventory.layout.predictions(resolution, model)
            for path in sorted(directory.glob("*embeddings.parquet")):
                title = f"{model}, {path.name} at {resolution} µm"
                found = attempt(f"embeddings {path}", lambda p=path: embedding_map(p))
                if isinstance(found, Missing):
                    yield EmbeddingBlock(title, found, (), "")
                else:
                    yield _embedding_block(title, found)


def _embedding_block(title: str, found: EmbeddingMap) -> EmbeddingBlock:
    names = list(dict.fromkeys(found.tissue_ids))
    figure = new_figure(760, 420)
    plot_embeddings(found, groups=names, ax=figure.add_subplot())
    figure.tight_layout(pad=0.5)
    alt = f"Scatter of {len(found.points)} tiles of {len(names)} tissues along two axes."
    legend = [Swatch(name, colour) for name, colour in zip(names, POINT_COLOURS, strict=False)]
    if len(names) > len(POINT_COLOURS):
        legend.append(Swatch(f"{len(names) - len(POINT_COLOURS)} other tissues", "#8a8f98"))
    facts = f"{found.tiles} tiles, vectors of {found.dimension} numbers"
    if len(found.points) < found.tiles:
        facts += f", {len(found.points)} of them drawn, at even distances in the table"
    return EmbeddingBlock(title, chart_of(figure, alt), tuple(legend), facts)


def _throughput(inventory: Inventory) -> list[Throughput | Missing] | Missing:
    for resolution in inventory.resolutions:
        tiling = inventory.tiling(resolution)
        if tiling is None or not tiling.tiles:
            continue
        found = sorted(
            {m for t in inventory.tissues if t.resolution == resolution for m in t.modalities},
            key=str,
        )
        measured = attempt(
            "throughput",
            lambda r=resolution, t=tiling, m=found: measure_throughput(
                inventory.layout, r, t.table, m
            ),
        )
        if isinstance(measured, Missing) or measured:
            return measured
        return Missing("No image has tiles to load.", inventory.command("tile", resolution))
    first = next(iter(inventory.resolutions), None)
    return Missing("There are no tiles to load.", inventory.command("tile", first))


def _percent(share: float | None) -> str:
    return "" if share is None or not isfinite(share) else f"{share:.1%}"


def _bytes(count: int) -> str:
    """Write bytes as disks are sold: a kB is 1000 of them."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{count} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _is_missing(value: Any) -> bool:
    return isinstance(value, Missing)


def _value(value: Any) -> str:
    """Write a value of a table as people do."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
