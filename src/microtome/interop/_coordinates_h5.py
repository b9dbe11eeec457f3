"""Where patches lie, in the HDF5 files of TRIDENT and CLAM.

Both keep a dataset `coords`, (n, 2) of (x, y) in pixels of the slide's finest level, and say in its
attributes how large a patch is: TRIDENT by two magnifications (`level0_magnification` and
`target_magnification`, `patch_size` pixels of the latter), CLAM by a level of the slide
(`patch_level`, `downsample`, `patch_size` pixels of that level).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from microtome.errors import (
    DependencyError,
    FormatError,
    InvalidInputError,
    NotFoundError,
)
from microtome.image import MultiscaleImage
from microtome.sources import open_image
from microtome.storage import replace_file
from microtome.tiling import TileTable

from ._coordinates_stated import StatedPatches
from ._qupath import free_file
from ._qupath_tables import tiles_of_one
from ._slide_scale import checked_scale, scale_of

__all__ = [
    "SlideEdge",
    "read_h5_coordinates",
    "slide_name",
    "write_clam_coordinates",
    "write_trident_coordinates",
]


_log = logging.getLogger(__name__)

SlideEdge = Literal["overhang", "drop"]
"""What becomes of tiles that hang over the edge of the slide."""


def write_trident_coordinates(  # noqa: PLR0913 - what the format states, and the edge
    tiles: TileTable,
    path: str | os.PathLike[str],
    *,
    magnification: float,
    slide: Any,
    tissue_id: str | None = None,
    scale: float | Sequence[float] | None = None,
    overlap: int = 0,
    edge: SlideEdge = "overhang",
    overwrite: bool = False,
) -> Path:
    """Write tiles as the coordinates from which TRIDENT extracts features.

    Parameters
    ----------
    tiles
        The table; tiles are square.
    path
        The file; TRIDENT looks for ``patches/<slide>_patches.h5``.
    magnification
        Magnification of the slide's finest level, as TRIDENT takes it to be: that of the tiles is it
        by `scale`. It says how many pixels are read, nothing about their size in micrometres.
    slide
        The slide, for its size and name: whatever `microtome.open_image` takes.
    tissue_id
        The tissue of the slide; may be left out where the table has one alone.
    scale
        Pixels of the slide's finest level in a pixel of the table. With a slide at 0.25 and tiles at
        1 micrometre per pixel it is 4, which is what it is by default where the table states its
        resolution and the slide its pixel size. Places are rounded to the slide's pixels.
    overlap
        Pixels of the table that neighbours share, as a statement alone.
    edge
        What becomes of tiles that hang over the edge of the slide: ``"overhang"`` writes them, and
        OpenSlide fills what is outside with black, which the log says; ``"drop"`` leaves them out.
    overwrite
        Whether a file that is there is replaced.

    Returns
    -------
    The path of the file.

    Raises
    ------
    ExistsError
        If there is something at `path`, unless it is a file and `overwrite` is true.
    UnknownNameError
        If the tissue has no tiles.
    InvalidInputError
        If tiles or pixels are not square, the table has several tissues and nobody says which, tiles
        of it fall on the same pixels of the slide, a number is not positive, or nothing says what the
        scale is.
    DependencyError
        If h5py is not installed.
    StorageError
        If the disk refuses.
    """
    chosen = tiles_of_one(tiles, tissue_id)
    if not np.isfinite(magnification) or magnification <= 0 or overlap < 0:
        msg = f"magnification must be positive and overlap not negative, got {magnification} and {overlap}"
        raise InvalidInputError(msg)
    image = open_image(slide)
    factor = scale_of(chosen, image, scale)
    if not np.isclose(factor[0], factor[1], rtol=1e-9, atol=0):
        msg = f"the pixels of {slide_name(image)} are not square: one of the tiles is {factor[1]} x {factor[0]} of them"
        raise InvalidInputError(msg)
    side = _side(chosen)
    height, width = _plane(image, 0)
    attributes = {
        "patch_size": side,
        "patch_size_level0": round(side * factor[0]),
        "level0_magnification": _plain(magnification),
        "target_magnification": _plain(magnification / factor[0]),
        "overlap": overlap,
        "name": slide_name(image),
        "savetodir": str(Path(path).parent.parent),
        "level0_width": width,
        "level0_height": height,
    }
    places = _inside(_places(chosen, factor), side * factor, factor, (height, width), edge, image)
    return _write(path, places, attributes, overwrite=overwrite)


def write_clam_coordinates(
    tiles: TileTable,
    path: str | os.PathLike[str],
    *,
    slide: Any,
    level: int = 0,
    tissue_id: str | None = None,
    scale: float | Sequence[float] | None = None,
    edge: SlideEdge = "overhang",
    overwrite: bool = False,
) -> Path:
    """Write tiles as the coordinates that CLAM reads patches by.

    CLAM reads whole pixels of one of the slide's own levels: the side of a patch is rounded to these,
    its place to pixels of the finest level.

    Parameters
    ----------
    tiles
        The table; tiles are square.
    path
        The file; CLAM looks for ``patches/<slide>.h5``.
    slide
        The slide: whatever `microtome.open_image` takes. CLAM reads it through OpenSlide, whose
        levels these must be.
    level
        Index of the level that patches are read from.
    tissue_id
        The tissue of the slide; may be left out where the table has one alone.
    scale
        Pixels of the slide's finest level in a pixel of the table, as of `write_trident_coordinates`:
        one number or (y, x).
    edge
        As of `write_trident_coordinates`.
    overwrite
        Whether a file that is there is replaced.

    Returns
    -------
    The path of the file.

    Raises
    ------
    ExistsError
        If there is something at `path`, unless it is a file and `overwrite` is true.
    UnknownNameError
        If the tissue has no tiles.
    OutOfRangeError
        If the slide has no such level.
    InvalidInputError
        If tiles are not square, or less than a pixel of that level, the table has several tissues and
        nobody says which, tiles of it fall on the same pixels of the slide, a scale is not positive,
        or nothing says what it is.
    DependencyError
        If h5py is not installed.
    StorageError
        If the disk refuses.
    """
    chosen = tiles_of_one(tiles, tissue_id)
    image = open_image(slide)
    factor = scale_of(chosen, image, scale)
    size = np.array(_plane(image, level)[::-1])
    downsample = np.array(_plane(image, 0)[::-1]) / size
    side = _side_there(chosen, factor / downsample)
    attributes = {
        "patch_size": side,
        "patch_level": level % image.level_count,
        "downsample": downsample,
        "downsampled_level_dim": size,
        "level_dim": size,
        "name": slide_name(image),
        "save_path": str(Path(path).parent),
    }
    places = _inside(
        _places(chosen, factor), side * downsample, factor, _plane(image, 0), edge, image
    )
    return _write(path, places, attributes, overwrite=overwrite)


def read_h5_coordinates(
    path: str | os.PathLike[str],
    *,
    tissue_id: str | None = None,
    scale: float | Sequence[float] | None = None,
    resolution: str | None = None,
) -> TileTable:
    """Read the coordinates of TRIDENT or CLAM as a table of tiles.

    Parameters
    ----------
    path
        The file: coordinates, or features with them.
    tissue_id
        What the tissue is called; by default the slide's name in the file, else the file's.
    scale
        Pixels of the slide's finest level in a pixel of the table: one number or (y, x). By default
        as the file states it, so that a tile has as many pixels as a patch. A place that lies
        between two pixels of the table goes to the nearer; with 1 places are those of the file.
    resolution
        As of `TileTable`.

    Returns
    -------
    The table, in the order of the file; its strategy is ``"trident"`` or ``"clam"``.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is no HDF5, or holds no coordinates of either.
    InvalidInputError
        If a patch is no whole number of pixels at that scale, or the file does not state its own.
    DependencyError
        If h5py is not installed.
    """
    place = Path(path)
    coordinates, attributes = _read(place)
    stated = StatedPatches.of(attributes, place)
    if scale is not None:
        factor = checked_scale(scale)
    elif stated.factor is not None:
        factor = stated.factor
    else:
        msg = f"{place} does not state how much coarser level {stated.level} is; pass scale"
        raise InvalidInputError(msg)
    width, height = stated.size(factor)
    cols, rows = np.rint(coordinates / factor).astype(np.int64).T
    name = tissue_id or _text(attributes.get("name")) or place.stem.removesuffix("_patches")
    return TileTable.from_columns(
        {"tissue_id": name, "row": rows, "col": cols},
        tile_size=(height, width),
        strategy=stated.program,
        resolution=resolution,
    )


def _places(tiles: TileTable, factor: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return (x, y) on the finest level."""
    rows = tiles.rows()
    pixels = np.stack([rows.col, rows.row], axis=1)
    places = np.rint(pixels * factor).astype(np.int64)
    if (np.rint(places / factor) != pixels).any():
        msg = (
            f"at scale {factor[::-1].tolist()} (y, x) several pixels of the table are one pixel of "
            "the slide, and places would not be the same again"
        )
        raise InvalidInputError(msg)
    return places


def _inside(
    places: NDArray[np.int64],
    sides: NDArray[np.float64],
    factor: NDArray[np.float64],
    plane: tuple[int, int],
    edge: SlideEdge,
    slide: MultiscaleImage,
) -> NDArray[np.int64]:
    """Leave out tiles that hang over the edge, or say that there are some.

    Less than a pixel of the table is no overhang: an image has a last pixel for what is left of one.
    """
    if edge not in get_args(SlideEdge):
        msg = f"edge must be one of {get_args(SlideEdge)}, got {edge!r}"
        raise InvalidInputError(msg)
    over = ((places < 0) | (places + sides >= np.array(plane[::-1]) + factor)).any(axis=1)
    count = int(over.sum())
    if not count:
        return places
    told = f"{count} of {len(places)} tiles hang over the edge of {slide_name(slide)}"
    if edge == "drop":
        _log.info("%s, and are left out", told)
        return places[~over]
    _log.warning(
        "%s; OpenSlide fills what is outside with black; leave them out with --edge drop (edge='drop')",
        told,
    )
    return places


def _write(
    path: str | os.PathLike[str],
    places: NDArray[np.int64],
    attributes: Mapping[str, Any],
    *,
    overwrite: bool,
) -> Path:
    h5py = _h5py()
    target = free_file(path, (".h5", ".hdf5"), "coordinates", overwrite=overwrite)
    with replace_file(target) as temporary, h5py.File(temporary, "w") as file:
        chunk = (min(max(len(places), 1), 4096), 2)
        made = file.create_dataset("coords", data=places, maxshape=(None, 2), chunks=chunk)
        made.attrs.update(attributes)
    return target


def _read(path: Path) -> tuple[NDArray[np.float64], dict[str, Any]]:
    h5py = _h5py()
    if not path.is_file():
        msg = f"there is no file {path}"
        raise NotFoundError(msg)
    try:
        with h5py.File(path, "r") as file:
            found = file.get("coords")
            if not isinstance(found, h5py.Dataset):
                msg = f"{path} has no dataset coords; it has {', '.join(file) or 'none'}"
                raise FormatError(msg)
            coordinates, attributes = np.asarray(found[()]), dict(found.attrs)
    except (OSError, RuntimeError) as error:
        msg = f"{path} is damaged or no HDF5: {error}"
        raise FormatError(msg) from error
    # A batch of one slide, as files of features have it.
    if coordinates.ndim == 3 and coordinates.shape[0] == 1:
        coordinates = coordinates[0]
    kind = coordinates.dtype.kind
    if coordinates.ndim != 2 or coordinates.shape[1] != 2 or kind not in "iuf":
        msg = f"{path}: coords must be (n, 2) numbers (x, y), got {coordinates.shape} {coordinates.dtype}"
        raise FormatError(msg)
    if kind == "f" and not (coordinates == np.rint(coordinates)).all():
        msg = f"{path}: coords must be whole pixels of the finest level"
        raise FormatError(msg)
    return coordinates.astype(np.float64), attributes


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        msg = "HDF5 files need h5py, which is not installed: pip install 'microtome[anndata]'"
        raise DependencyError(msg) from error
    return h5py


def slide_name(image: MultiscaleImage) -> str:
    """Return what TRIDENT and CLAM call a slide: its file without the last ending.

    An image is called as its file up to the first dot, which of a slide of TCGA is a part.
    """
    place = Path(image.uri)
    return place.stem if place.is_file() else image.name


def _plane(image: MultiscaleImage, level: int) -> tuple[int, int]:
    chosen = image.level(level)
    sizes = dict(zip(chosen.axes, chosen.shape, strict=True))
    return sizes["y"], sizes["x"]


def _side(tiles: TileTable) -> int:
    height, width = tiles.tile_size
    if height != width:
        msg = f"patches are square, the tiles of the table are {height}x{width}"
        raise InvalidInputError(msg)
    return height


def _side_there(tiles: TileTable, factor: NDArray[np.float64]) -> int:
    """Return the side of the tiles in pixels of a level of which some, (x, y), are one of the table."""
    height, width = tiles.tile_size
    across, down = np.rint(np.array([width, height]) * factor).astype(int).tolist()
    if min(across, down) < 1:
        msg = f"a tile of {height}x{width} pixels is less than a pixel of that level; choose a finer one"
        raise InvalidInputError(msg)
    if across != down:
        msg = f"patches are square, the tiles of the table are {down}x{across} pixels of that level"
        raise InvalidInputError(msg)
    return across


def _plain(number: float) -> float:
    return int(number) if float(number).is_integer() else float(number)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value != "None" else None
