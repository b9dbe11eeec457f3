"""Imaging mass cytometry as text: one region a file, a line a pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from microtome.coordinates import Mpp
from microtome.errors import FormatError
from microtome.image import MemoryArray, MultiscaleImage

from ._array import image_from_levels
from ._choice import distinct

__all__ = ["open_imc_text"]

# Before the channels: three columns about the shots, and three about the place.
_PLACES = ("Start_push", "End_push", "Pushes_duration", "X", "Y", "Z")


def open_imc_text(path: Path, *, mpp: Mpp | None) -> MultiscaleImage:
    """Open a text file of an IMC instrument; it is parsed whole.

    Its numbers have three decimals, those of the MCD file beside it all that were measured.

    Parameters
    ----------
    path
        The file.
    mpp
        Pixel size; the file states none.

    Raises
    ------
    FormatError
        If it is damaged or cut short.
    """
    try:
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=csv.ConvertOptions(
                column_types=_types(path), strings_can_be_null=False
            ),
        )
    except (pa.ArrowException, UnicodeError, ValueError) as error:
        msg = f"{path} is a damaged IMC text file: {error}"
        raise FormatError(msg) from error
    columns = table.column_names
    x, y = (_places(path, table, axis) for axis in "XY")
    height, width = (int(places.max()) + 1 for places in (y, x))
    # Before memory is taken for pixels that somebody may only claim.
    if height * width != len(x) or len(np.unique(y * width + x)) != len(x):
        msg = f"{path} is cut short: {len(x)} of {height} x {width} pixels are there"
        raise FormatError(msg)
    channels = columns[len(_PLACES) :]
    pixels = np.empty((len(channels), height, width), np.float32)
    for plane, name in zip(pixels, range(len(_PLACES), len(columns)), strict=True):
        plane[y, x] = table.column(name).to_numpy()
    if not np.isfinite(pixels).all():
        msg = f"{path} is damaged: some of its counts are no numbers"
        raise FormatError(msg)
    named = [_name_and_metal(column) for column in channels]
    return image_from_levels(
        [MemoryArray(pixels)],
        "cyx",
        mpp=mpp,
        channel_names=distinct([name for name, _ in named]),
        uri=str(path),
        name=path.name.split(".")[0],
        metadata={"channels": [{"name": name, "metal": metal} for name, metal in named]},
    )


def _types(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        line = file.readline(1 << 20)
    try:
        head = line.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = f"{path} is a damaged IMC text file: its first line is no UTF-8: {error}"
        raise FormatError(msg) from error
    columns = head.rstrip("\r\n").split("\t")
    if tuple(columns[: len(_PLACES)]) != _PLACES or len(columns) == len(_PLACES):
        msg = f"{path} is no IMC text file: its columns are {columns[:8]}"
        raise FormatError(msg)
    return dict.fromkeys(columns, pa.float32()) | dict.fromkeys("XY", pa.float64())


def _places(path: Path, table: pa.Table, axis: str) -> NDArray[np.int64]:
    found = table.column(axis).to_numpy()
    if len(found) == 0 or not ((found >= 0) & (found < 2**24) & (found == np.floor(found))).all():
        msg = f"{path} is damaged: some of its pixels have no place along {axis}"
        raise FormatError(msg)
    return found.astype(np.int64)


def _name_and_metal(column: str) -> tuple[str, str]:
    """Split what a column is called.

    >>> _name_and_metal("Cytoker_651((3356))Pr141(Pr141Di)")
    ('Cytoker_651((3356))Pr141', 'Pr141')
    """
    name, bracket, metal = column.strip().rpartition("(")
    if not bracket or not metal.endswith(")"):
        return column.strip(), ""
    metal = metal[:-1].removesuffix("Di")
    return name or metal, metal
