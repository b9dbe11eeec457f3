"""Tiles and their objects as COCO has them: pictures, and one JSON file about all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.errors import ExistsError, InvalidInputError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.progress import Progress, silent
from microtome.regions import Windows, read_regions
from microtome.sources import open_image
from microtome.storage import replace_file
from microtome.tiling import TileTable

from ._png import PNG_PICTURES, is_png_picture, png_bytes
from ._qupath_tables import CellRows, tiles_of_one

__all__ = ["verify_coco", "write_coco"]

_JSON = "annotations.json"
_CELL = "cell"
# Tiles that are read at once.
_BATCH = 32


def write_coco(  # noqa: PLR0913 - a picture, its objects, where to look, and what they are
    image: Any,
    labels: Any,
    tiles: TileTable,
    out: str | os.PathLike[str],
    *,
    tissue_id: str | None = None,
    level: int = 0,
    cells: pa.Table | None = None,
    classes: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Write tiles of a picture and the objects in them for programs that train on COCO.

    `out` gets `images/<tissue>_<tile>.png` and, when all of them are there, `annotations.json`: of
    every object that a tile shows its pixels as an uncompressed run-length code, its area and box in
    pixels of the tile, and its label as `label`. An object that a tile cuts is what it shows of it.
    A job that was stopped can be run again.

    Parameters
    ----------
    image
        The picture, one or three channels of bytes, or one of uint16: whatever
        `microtome.open_image` takes.
    labels
        Labels of it, as large at the same level.
    tiles
        The tiles, in pixels of that level; what hangs over the edge is 0.
    out
        Directory to write to.
    tissue_id
        The tissue of the picture; may be left out where the table has one alone.
    level
        Index of the level of picture and labels.
    cells
        What is known of the objects: `cell_id` is the label.
    classes
        Column of text in `cells` that holds the class of each object, which has one; without it all
        are of the class ``"cell"``.
    progress
        Called with the tiles done and to do.

    Returns
    -------
    The path of the JSON file.

    Raises
    ------
    ExistsError
        If `out` has an `annotations.json`.
    UnknownNameError
        If the tissue has no tiles, or there is no such column.
    InvalidInputError
        If a picture has no PNG, picture and labels differ in size, or an object has no class.
    StorageError
        If the disk refuses.
    """
    chosen = tiles_of_one(tiles, tissue_id)
    picture, masks = open_image(image), open_image(labels)
    verify_coco(picture, masks, level)
    kinds = _Classes.of(cells, classes)
    target = Path(out) / _JSON
    if target.exists():
        msg = f"{target} exists already; choose another place"
        raise ExistsError(msg)
    with replace_file(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        images: list[dict[str, Any]] = []
        count = 0
        for number, (name, pixels, mask) in enumerate(_tiles(picture, masks, chosen, level), 1):
            _write_png(Path(out) / "images" / name, pixels)
            height, width = mask.shape
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            count = _write_objects(file, mask, number, count, kinds)
            progress("write", number, len(chosen))
        categories = [{"id": n, "name": name} for n, name in enumerate(kinds.names, 1)]
        file.write(
            f'\n], "images": {json.dumps(images)}, "categories": {json.dumps(categories)}}}\n'
        )
    return target


@dataclass(frozen=True, slots=True)
class _Classes:
    """The class of every object, by its label."""

    names: Sequence[str]
    rows: CellRows | None = None
    values: Sequence[str | None] = ()

    @classmethod
    def of(cls, cells: pa.Table | None, classes: str | None) -> _Classes:
        if classes is None:
            return cls((_CELL,))
        if cells is None or classes not in cells.column_names:
            there = "no cells" if cells is None else ", ".join(cells.column_names)
            msg = f"no column {classes!r} with classes; there are {there}"
            raise UnknownNameError(msg)
        values: list[str | None] = cells[classes].cast(pa.string()).to_pylist()
        names = sorted({value for value in values if value is not None})
        return cls(names, CellRows.of(cells), values)

    def number(self, label: int) -> int:
        """Return the number of an object's class, from 1."""
        if self.rows is None:
            return 1
        row = self.rows.find(label)
        name = None if row is None else self.values[row]
        if name is None:
            msg = f"label {label} has no class; give it one, or remove it from the labels"
            raise InvalidInputError(msg)
        return self.names.index(name) + 1


def _tiles(
    picture: MultiscaleImage, masks: MultiscaleImage, tiles: TileTable, level: int
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Yield the name of every tile's picture, its pixels and its labels."""
    rows = tiles.rows()
    (tissue,) = tiles.tissue_ids or ("",)
    starts = np.stack([rows.row, rows.col], axis=1)
    for first in range(0, len(tiles), _BATCH):
        part = slice(first, first + _BATCH)
        windows = Windows.of(0, starts[part], tiles.tile_size, level % picture.level_count)
        pixels = read_regions([picture], windows)
        labels = read_regions([masks], windows)[:, 0]
        for at, tile_id in enumerate(rows.tile_id[part].tolist()):
            yield f"{tissue}_{tile_id}.png", pixels[at], labels[at]


def _write_png(path: Path, pixels: NDArray[Any]) -> None:
    content = png_bytes(pixels)
    if path.is_file() and path.read_bytes() == content:
        return  # of a job that was stopped; of another one it would be another tile
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def _write_objects(
    file: TextIO, mask: NDArray[Any], image: int, count: int, kinds: _Classes
) -> int:
    """Write the objects of a tile, numbered on from `count`; return the last number."""
    for label, places in _objects(mask):
        y, x = places % mask.shape[0], places // mask.shape[0]
        left, top = int(x.min()), int(y.min())
        count += 1
        entry = {
            "id": count,
            "image_id": image,
            "category_id": kinds.number(label),
            "segmentation": {"size": list(mask.shape), "counts": _runs(places, mask.size)},
            "area": places.size,
            "bbox": [left, top, int(x.max()) - left + 1, int(y.max()) - top + 1],
            "iscrowd": 0,
            "label": label,
        }
        file.write((",\n" if count > 1 else "\n") + json.dumps(entry))
    return count


def _objects(mask: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield every label of a tile and its pixels, ascending, counted column by column."""
    flat = mask.T.ravel()
    inside = np.flatnonzero(flat)
    order = inside[np.argsort(flat[inside], kind="stable")]
    values = flat[order]
    if not values.size:
        return
    firsts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    for first, after in zip(firsts, [*firsts[1:], values.size], strict=True):
        yield int(values[first]), order[first:after]


def _runs(places: NDArray[np.int64], size: int) -> list[int]:
    """Return how many pixels are outside, inside, outside, and so on."""
    breaks = np.flatnonzero(np.diff(places) != 1)
    starts = places[np.concatenate([[0], breaks + 1])]
    stops = places[np.concatenate([breaks, [places.size - 1]])] + 1
    edges = np.stack([starts, stops], axis=1).ravel()
    counts: list[int] = np.diff(np.concatenate([[0], edges, [size]])).tolist()
    return counts if counts[-1] else counts[:-1]


def verify_coco(picture: MultiscaleImage, masks: MultiscaleImage, level: int = 0) -> None:
    """Refuse what `write_coco` cannot write, before anything is.

    Raises
    ------
    InvalidInputError
        If a picture has no PNG, or picture and labels differ in size.
    """
    fine, coarse = picture.level(level), masks.level(level)
    if not is_png_picture(picture, level):
        msg = (
            f"{picture.uri} has {picture.nchannels} channels of {fine.dtype}; a PNG has "
            f"{PNG_PICTURES}, so COCO cannot show it; webdataset and parquet keep any channels"
        )
        raise InvalidInputError(msg)
    if (
        masks.nchannels != 1
        or coarse.dtype.kind not in "iu"
        or fine.shape[-2:] != coarse.shape[-2:]
    ):
        msg = (
            f"labels are whole numbers as large as the picture, {fine.shape[-2:]}; {masks.uri} has "
            f"{masks.nchannels} channels of {coarse.shape} {coarse.dtype}"
        )
        raise InvalidInputError(msg)
