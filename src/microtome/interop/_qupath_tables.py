"""Tables and labels as objects of QuPath, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.export import label_outlines
from microtome.sources import open_image
from microtome.tiling import AreaSet, TileTable

from ._qupath import Color, QuPathObject, object_id
from ._slide_scale import checked_scale, scale_of

__all__ = [
    "CellRows",
    "area_objects",
    "cell_objects",
    "tile_objects",
    "tiles_of_objects",
    "tiles_of_one",
]

_CLASS = "class"


def tile_objects(
    tiles: TileTable,
    *,
    tissue_id: str | None = None,
    slide: Any = None,
    scale: float | Sequence[float] | None = None,
    classes: str | None = None,
    colors: Mapping[str, Color] | None = None,
) -> Iterator[QuPathObject]:
    """Return an iterator over the tiles of a tissue as tiles of QuPath.

    Columns of numbers become measurements, `tile_id` among them, so that `tiles_of_objects` gives
    the table back; a missing number is none. Columns of text are left out, but for the classes.

    Parameters
    ----------
    tiles
        The table.
    tissue_id
        The tissue of the picture; may be left out where the table has one alone.
    slide
        The picture that they are drawn on, whatever `microtome.open_image` takes: for its pixel size.
    scale
        Pixels of the picture's finest level in a pixel of the table: one number or (y, x). With a
        picture at 0.25 and tiles at 1 micrometre per pixel it is 4, which is what it is by default
        where the table states its resolution and `slide` its pixel size.
    classes
        Column of text that holds the class of each tile.
    colors
        Colours of classes.

    Raises
    ------
    UnknownNameError
        If the tissue has no tiles, or there is no such column.
    InvalidInputError
        If the table has several tissues and nobody says which, a scale is not positive, or nothing
        says what it is.
    """
    chosen = tiles_of_one(tiles, tissue_id)
    factor = scale_of(chosen, None if slide is None else open_image(slide), scale)
    columns = _Columns.of(chosen.table, ("tissue_id", "row", "col"), classes)
    return _tiles(chosen, columns, factor, colors or {})


def _tiles(
    tiles: TileTable, columns: _Columns, factor: NDArray[np.float64], colors: Mapping[str, Color]
) -> Iterator[QuPathObject]:
    height, width = tiles.tile_size
    square = np.array([[0, 0], [width, 0], [width, height], [0, height], [0, 0]])
    rows = tiles.rows()
    (tissue,) = tiles.tissue_ids or ("",)
    for number in range(len(tiles)):
        corners = (square + np.array([rows.col[number], rows.row[number]])) * factor
        name = columns.class_of(number)
        yield QuPathObject(
            "tile",
            ((corners,),),
            name,
            None if name is None else colors.get(name),
            measurements=columns.numbers_of(number),
            id=object_id("tile", tissue, tiles.strategy, width, height, rows.tile_id[number]),
        )


def tiles_of_one(tiles: TileTable, tissue_id: str | None) -> TileTable:
    """Return the tiles of one tissue, for a file that is of one picture.

    Raises
    ------
    UnknownNameError
        If the tissue has no tiles.
    InvalidInputError
        If the table has several tissues and nobody says which.
    """
    if tissue_id is not None:
        return tiles.for_tissue(tissue_id)
    if len(tiles.tissue_ids) > 1:
        msg = (
            f"the file is of one picture, the table has {len(tiles.tissue_ids)} tissues "
            f"({', '.join(tiles.tissue_ids[:3])}, ...); pass tissue_id"
        )
        raise InvalidInputError(msg)
    return tiles


def tiles_of_objects(
    objects: Iterable[QuPathObject],
    *,
    tissue_id: str,
    scale: float | Sequence[float] = 1.0,
    strategy: str = "qupath",
    resolution: str | None = None,
) -> TileTable:
    """Return a table of tiles that QuPath has, as `tile_objects` made them or QuPath itself.

    Parameters
    ----------
    objects
        Tiles of one size, as `read_qupath(path, kinds=["tile"])` gives them.
    tissue_id
        The tissue of the picture.
    scale
        Pixels of the picture's finest level in a pixel of the table: one number or (y, x).
    strategy, resolution
        As of `TileTable`.

    Returns
    -------
    The table: tile ids are the measurement `tile_id` where all have it, else 0, 1, ...; other
    measurements are columns, the class is the column `class` where a tile has one.

    Raises
    ------
    InvalidInputError
        If there is none, one is no rectangle on whole pixels, or they differ in size.
    """
    factor = checked_scale(scale)
    given = list(objects)
    if not given:
        msg = "no tiles to make a table of"
        raise InvalidInputError(msg)
    boxes = np.array([_box(each, factor) for each in given])
    sizes = np.unique(boxes[:, 2:], axis=0)
    if len(sizes) > 1:
        first, second = (f"{height}x{width}" for height, width in sizes[:2].tolist())
        msg = f"tiles of one table are of one size, got {first} and {second} pixels"
        raise InvalidInputError(msg)
    names = dict.fromkeys(name for each in given for name in each.measurements)
    columns: dict[str, Any] = {
        "tissue_id": tissue_id,
        "row": boxes[:, 0],
        "col": boxes[:, 1],
    }
    for name in names:
        if name in columns or (
            name == "tile_id" and not all("tile_id" in each.measurements for each in given)
        ):
            continue
        values = [each.measurements.get(name) for each in given]
        # A program that keeps numbers as floats had whole ones before.
        whole = all(value is None or float(value).is_integer() for value in values)
        kind = int if whole and name in {"tile_id", "gain"} else None
        columns[name] = pa.array(
            [value if value is None or kind is None else kind(value) for value in values],
            from_pandas=True,
        )
    if any(each.classification is not None for each in given):
        columns[_CLASS] = pa.array([each.classification for each in given], pa.string())
    height, width = sizes[0].tolist()
    return TileTable.from_columns(
        columns, tile_size=(height, width), strategy=strategy, resolution=resolution
    )


def _box(tile: QuPathObject, factor: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """Return (row, col, height, width)."""
    ring = tile.polygons[0][0] / factor
    low, high = np.rint(ring.min(axis=0)), np.rint(ring.max(axis=0))
    corners = {tuple(corner) for corner in np.rint(ring).tolist()}
    expected = {(x, y) for x in (low[0], high[0]) for y in (low[1], high[1])}
    is_box = len(tile.polygons) == len(tile.polygons[0]) == 1 and corners == expected
    if not is_box or len(expected) < 4 or np.abs(ring - np.rint(ring)).max() > 1e-6:
        msg = (
            f"{tile.kind} {tile.name or tile.id or ''} from {ring.min(axis=0).tolist()} to "
            f"{ring.max(axis=0).tolist()} (x, y) is no rectangle on whole pixels; is the scale of "
            f"{factor[::-1].tolist()} (y, x) that of the table's pixels?"
        )
        raise InvalidInputError(msg)
    return int(low[1]), int(low[0]), int(high[1] - low[1]), int(high[0] - low[0])


def cell_objects(
    labels: Any,
    *,
    cells: pa.Table | None = None,
    scale: float | Sequence[float] = 1.0,
    kind: Literal["detection", "cell"] = "detection",
    classes: str | None = None,
    colors: Mapping[str, Color] | None = None,
) -> Iterator[QuPathObject]:
    """Return an iterator over the objects of labels with their exact outlines.

    Memory does not depend on the size of the labels, but for 16 bytes an object and what
    `label_outlines` states.

    Parameters
    ----------
    labels
        Labels of one picture: whatever `microtome.open_image` takes.
    cells
        What is known of them: `cell_id` is the label, columns of numbers become measurements. A row
        without a label is left out, a label without a row has no measurements but its id.
    scale
        Pixels of the picture's finest level in a pixel of the labels: one number or (y, x).
    kind
        ``"detection"`` or ``"cell"``.
    classes
        Column of text in `cells` that holds the class of each.
    colors
        Colours of classes.

    Raises
    ------
    UnknownNameError
        If there is no such column, or no `cell_id`.
    InvalidInputError
        If the labels are none, ids are no whole numbers or occur twice, or a scale is not positive.
    """
    factor = checked_scale(scale)
    image = open_image(labels)
    known = pa.table({"cell_id": pa.array([], pa.int64())}) if cells is None else cells
    rows = CellRows.of(known)
    columns = _Columns.of(known, ("tissue_id",), classes)

    def objects() -> Iterator[QuPathObject]:
        for label, polygons in label_outlines(image):
            row = rows.find(label)
            name = None if row is None else columns.class_of(row)
            yield QuPathObject(
                kind,
                tuple(tuple(ring * factor for ring in part) for part in polygons),
                name,
                None if name is None else (colors or {}).get(name),
                str(label),
                {"cell_id": label} if row is None else columns.numbers_of(row),
                object_id(kind, image.name, label),
            )

    return objects()


def area_objects(
    areas: AreaSet,
    *,
    scale: float | Sequence[float] = 1.0,
    colors: Mapping[str, Color] | None = None,
) -> Iterator[QuPathObject]:
    """Return an iterator over areas as annotations; `read_areas` reads them back.

    Parameters
    ----------
    areas
        The areas.
    scale
        Pixels of the picture's finest level in a unit of the areas: one number or (y, x).
    colors
        Colours of classes.

    Raises
    ------
    InvalidInputError
        If a scale is not positive.
    """
    factor = checked_scale(scale)
    return (
        QuPathObject(
            "annotation",
            tuple(tuple(ring * factor for ring in part) for part in area.rings),
            area.name,
            None if area.name is None else (colors or {}).get(area.name),
        )
        for area in areas.areas
    )


@dataclass(frozen=True, slots=True)
class CellRows:
    """Rows of a table of cells by label."""

    ids: NDArray[Any]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, cells: pa.Table) -> Self:
        """Look at the column `cell_id`.

        Raises
        ------
        UnknownNameError
            If there is none.
        InvalidInputError
            If ids are no whole numbers or occur twice.
        """
        if "cell_id" not in cells.column_names:
            msg = f"cells have a column 'cell_id', the label; got {', '.join(cells.column_names)}"
            raise UnknownNameError(msg)
        ids = cells["cell_id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        if ids.dtype.kind not in "iu" or (np.diff(ids[order]) == 0).any():
            msg = (
                f"cell_id must be whole numbers that occur once, got {len(ids)} of type {ids.dtype}; "
                "are the cells of one tissue?"
            )
            raise InvalidInputError(msg)
        return cls(ids[order], order)

    def find(self, one: int) -> int | None:
        """Return the row of a label; None if it has none."""
        place = int(np.searchsorted(self.ids, one))
        found = place < len(self.ids) and self.ids[place] == one
        return int(self.rows[place]) if found else None


@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns of numbers of a table, and the one of classes."""

    numbers: Mapping[str, pa.ChunkedArray[Any]]
    classes: pa.ChunkedArray[Any] | None

    @classmethod
    def of(cls, table: pa.Table, places: Sequence[str], classes: str | None) -> Self:
        names = table.column_names
        if classes is not None and classes not in names:
            msg = f"no column {classes!r} with classes; there are {', '.join(names)}"
            raise UnknownNameError(msg)
        numeric = {
            name: table[name]
            for name in names
            if name not in {*places, classes} and _is_number(table[name].type)
        }
        return cls(numeric, None if classes is None else table[classes].cast(pa.string()))

    def class_of(self, row: int) -> str | None:
        return None if self.classes is None else self.classes[row].as_py()

    def numbers_of(self, row: int) -> dict[str, float]:
        values = {name: column[row].as_py() for name, column in self.numbers.items()}
        return {
            name: int(value) if isinstance(value, bool) else value
            for name, value in values.items()
            if value is not None
        }


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
