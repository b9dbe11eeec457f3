"""What a notebook shows of a table of tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from microtome.image import html_card, html_of, short_list

if TYPE_CHECKING:
    from ._table import TileTable

__all__ = ["tiles_html"]

_MOST_ROWS = 5
_MOST_TISSUES = 8


def tiles_html(tiles: TileTable) -> str:
    """Return a card of a table of tiles: what it consists of, and its first rows.

    Nothing is computed over the rows: a table of 10^8 tiles is shown as fast as one of ten.
    """
    return html_of(tiles, lambda: _card(tiles))


def _card(tiles: TileTable) -> str:
    height, width = tiles.tile_size
    names, offsets = tiles.tissue_ids, tiles.tissue_offsets
    counts = np.diff(offsets[: _MOST_TISSUES + 1]).tolist()
    shown = [f"{name} ({count:,})" for name, count in zip(names, counts, strict=False)]
    more = len(names) - len(shown)
    tissues = f"{', '.join(shown)} and {more:,} more" if more else ", ".join(shown)
    facts = {
        "Tiles": f"{len(tiles):,} of {width} x {height} px",
        "Strategy": tiles.strategy,
        "Resolution": tiles.resolution or "not known",
        "Tissues": f"{len(names):,}: {tissues}" if names else "none",
        "Columns": short_list(
            [f"{field.name} ({_kind(field.type)})" for field in tiles.table.schema]
        ),
    }
    rows: list[dict[str, Any]] = tiles.table.slice(0, _MOST_ROWS).to_pylist()
    return html_card("TileTable", facts, rows=[{k: _value(v) for k, v in r.items()} for r in rows])


def _kind(kind: Any) -> str:
    """Return the type of a column; that tissues are numbered is nobody's business."""
    return str(kind.value_type) if hasattr(kind, "value_type") else str(kind)


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
