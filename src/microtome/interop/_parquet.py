"""Tiles with their pixels as a Parquet file, one row a tile, as `datasets` of Hugging Face reads it.

A picture is a struct of `bytes` and `path`, and the schema's metadata say that it is one: this is
how `datasets` keeps images since 2.0. Pixels that no picture holds are bytes beside their shape and
type.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.progress import Progress, silent
from microtome.regions import Windows, read_regions
from microtome.sources import open_image
from microtome.storage import replace_file, verify_free
from microtome.tiling import TileTable

from ._png import PNG_PICTURES, is_png_picture, png_bytes

__all__ = ["PixelCodec", "write_tiles_parquet"]

PixelCodec = Literal["png", "raw"]
"""How pixels of a tile are kept: a PNG, or the bytes of the array (C, Y, X). Neither loses any."""

# Tiles that are read at once, and threads that make pictures of them.
_BATCH = 32
_THREADS = 4
# A row group is what a reader holds in memory at least.
_GROUP_BYTES = 64 << 20
_GROUP_ROWS = 1024

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_PIXELS: dict[str, list[tuple[str, pa.DataType]]] = {
    "png": [("image", _PICTURE)],
    "raw": [
        ("pixels", pa.large_binary()),
        ("shape", pa.list_(pa.int64(), 3)),
        ("dtype", pa.string()),
    ],
}
_PLACE: list[tuple[str, pa.DataType]] = [
    ("tissue_id", pa.string()),
    ("tile_id", pa.int64()),
    ("row", pa.int64()),
    ("col", pa.int64()),
    ("height", pa.int64()),
    ("width", pa.int64()),
    ("level", pa.int64()),
    ("x", pa.float64()),
    ("y", pa.float64()),
    ("mpp_x", pa.float64()),
    ("mpp_y", pa.float64()),
    ("channel_names", pa.list_(pa.string())),
]


def write_tiles_parquet(
    images: Mapping[str, Any],
    tiles: TileTable,
    path: str | os.PathLike[str],
    *,
    level: int = 0,
    codec: PixelCodec | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write tiles with their pixels as one Parquet file that appears whole or not at all.

    A row has `tissue_id`, `tile_id`, the place in pixels of the level (`row`, `col`, `height`,
    `width`, `level`) and in micrometres from the corner of the image (`x`, `y`, with the pixel size
    `mpp_x` and `mpp_y`; null where the image states none), `channel_names`, every further column of
    the table, and the pixels: as PNG the column `image`, which `datasets.load_dataset("parquet",
    data_files=...)` gives as pictures; raw the columns `pixels` (bytes, little-endian, C order),
    `shape` (C, Y, X) and `dtype`. Row groups are bounded, so that memory depends on neither end on
    the number of tiles.

    Parameters
    ----------
    images
        The image of each tissue by its id: anything that `microtome.open_image` takes. It is looked
        up when its first tile is read.
    tiles
        The tiles, in the order in which they are written, in pixels of the level. What hangs over
        the edge is 0.
    path
        The file, ``.parquet``.
    level
        Index of the level of the images.
    codec
        ``"png"`` or ``"raw"``; by default PNG where the first image is a picture that has one (one
        or three channels of bytes, or one of uint16).
    overwrite
        Whether a file that is there is replaced.
    progress
        Called with the tiles done and to do.

    Returns
    -------
    The path of the file.

    Raises
    ------
    ExistsError
        If there is something at `path`, unless it is a file and `overwrite` is true.
    UnknownNameError
        If a tissue of the table has no image.
    InvalidInputError
        If there is no tile, the name is not that of a Parquet file, a column of the table has a
        name that is taken, or the pixels of an image have no PNG.
    StorageError
        If the disk refuses.

    Examples
    --------
    ::

        write_tiles_parquet({"t1": "slide.svs"}, tiles, "tiles.parquet")
        # elsewhere, with datasets installed
        datasets.load_dataset("parquet", data_files="tiles.parquet")["train"][0]["image"]
    """
    target = _checked(images, tiles, Path(path), codec)
    verify_free(target, overwrite=overwrite)
    first = open_image(images[tiles.tissue_ids[0]])
    kept: PixelCodec = codec or ("png" if is_png_picture(first, level) else "raw")
    schema = _schema(tiles, kept)
    done = 0
    with (
        replace_file(target) as temporary,
        ThreadPoolExecutor(_THREADS, "microtome-png") as pool,
        # Pixels are compressed already, or noise to a byte-wise codec; a page index only costs.
        pq.ParquetWriter(
            temporary, schema, compression="zstd", use_dictionary=["tissue_id"]
        ) as out,
    ):
        waiting: list[pa.RecordBatch] = []
        for batch in _batches(images, tiles, level, kept, schema, pool):
            waiting.append(batch)
            rows = sum(len(each) for each in waiting)
            if rows >= _GROUP_ROWS or sum(each.nbytes for each in waiting) >= _GROUP_BYTES:
                out.write_table(pa.Table.from_batches(waiting), row_group_size=rows)
                waiting.clear()
            done += len(batch)
            progress("write", done, len(tiles))
        if waiting:
            out.write_table(pa.Table.from_batches(waiting), row_group_size=_GROUP_ROWS)
    return target


def _batches(
    images: Mapping[str, Any],
    tiles: TileTable,
    level: int,
    codec: PixelCodec,
    schema: pa.Schema,
    pool: ThreadPoolExecutor,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows in the order of the table, a few tiles of one tissue at a time."""
    rows = tiles.rows()
    opened: tuple[str, MultiscaleImage] | None = None
    for start, stop in _runs(rows.tissue):
        tissue = tiles.tissue_ids[int(rows.tissue[start])]
        if opened is None or opened[0] != tissue:
            opened = tissue, open_image(images[tissue])
        image = opened[1]
        _verify(image, level, codec)
        corners = np.stack([rows.row[start:stop], rows.col[start:stop]], axis=1)
        windows = Windows.of(0, corners, tiles.tile_size, level % image.level_count)
        pixels = read_regions([image], windows)
        known: dict[str, Any] = {
            name: tiles.table[name].slice(start, stop - start).combine_chunks()
            for name in tiles.table.column_names
        }
        known |= _places(image, level, corners, tiles.tile_size)
        known |= _pictures(pixels, known, tissue, pool) if codec == "png" else _bytes(pixels)
        yield pa.RecordBatch.from_arrays(
            [_typed(known[field.name], field.type) for field in schema], schema=schema
        )


def _runs(tissue: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Yield where rows of one tissue begin and end, no more than are read at once."""
    edges = np.flatnonzero(np.diff(tissue)) + 1
    for start, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(tissue)], strict=True):
        for first in range(start, stop, _BATCH):
            yield first, min(first + _BATCH, stop)


def _places(
    image: MultiscaleImage, level: int, corners: NDArray[np.int64], size: tuple[int, int]
) -> dict[str, Any]:
    count = len(corners)
    mpp = None if image.mpp is None else image.level_mpp(level)
    found: dict[str, Any] = {
        "height": [size[0]] * count,
        "width": [size[1]] * count,
        "level": [level % image.level_count] * count,
        "channel_names": [image.channel_names] * count,
    }
    for place, axis in enumerate("yx"):
        pixel = None if mpp is None else getattr(mpp, axis)
        found[f"mpp_{axis}"] = [pixel] * count
        found[axis] = [None] * count if pixel is None else corners[:, place] * pixel
    return found


def _pictures(
    pixels: NDArray[Any], known: Mapping[str, Any], tissue: str, pool: ThreadPoolExecutor
) -> dict[str, Any]:
    names = [f"{tissue}_{tile_id}.png" for tile_id in known["tile_id"].to_pylist()]
    content = list(pool.map(png_bytes, pixels))
    return {
        "image": [{"bytes": one, "path": name} for one, name in zip(content, names, strict=True)]
    }


def _bytes(pixels: NDArray[Any]) -> dict[str, Any]:
    plain = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    return {
        "pixels": [one.tobytes() for one in plain],
        "shape": [list(one.shape) for one in plain],
        "dtype": [pixels.dtype.name] * len(pixels),
    }


def _typed(values: Any, kind: pa.DataType) -> pa.Array[Any]:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)


def _schema(tiles: TileTable, codec: PixelCodec) -> pa.Schema:
    """Return the columns: the place, what else is known, the pixels."""
    taken = {name for name, _ in _PLACE}
    others = [(f.name, _plain(f.type)) for f in tiles.table.schema if f.name not in taken]
    features = {"image": {"_type": "Image"}} if codec == "png" else {}
    about = {
        "microtome": json.dumps(
            {
                "format": "tiles",
                "strategy": tiles.strategy,
                "resolution": tiles.resolution,
                "tile_size": tiles.tile_size,
            }
        )
    }
    if features:
        about["huggingface"] = json.dumps({"info": {"features": features}})
    return pa.schema([*_PLACE, *others, *_PIXELS[codec]], metadata=about)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if isinstance(kind, pa.DictionaryType) else kind


def _checked(
    images: Mapping[str, Any], tiles: TileTable, path: Path, codec: PixelCodec | None
) -> Path:
    if path.suffix != ".parquet":
        msg = f"{path} must end in .parquet"
        raise InvalidInputError(msg)
    if codec is not None and codec not in get_args(PixelCodec):
        msg = f"codec is one of {get_args(PixelCodec)}, got {codec!r}"
        raise InvalidInputError(msg)
    if not len(tiles):
        msg = "there is no tile to write"
        raise InvalidInputError(msg)
    lost = [tissue for tissue in tiles.tissue_ids if tissue not in images]
    if lost:
        msg = f"no image of {', '.join(lost[:3])}; there are images of {_some(list(images))}"
        raise UnknownNameError(msg)
    # Both names of places that only the pixels tell, and those of the pixels.
    ours = {name for name, _ in _PLACE[4:]} | {
        name for columns in _PIXELS.values() for name, _ in columns
    }
    twice = sorted(ours & set(tiles.table.column_names))
    if twice:
        msg = f"the table's columns {', '.join(twice)} have names that pixels and places need; rename them"
        raise InvalidInputError(msg)
    return path


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"


def _verify(image: MultiscaleImage, level: int, codec: PixelCodec) -> None:
    if set(image.axes) - set("cyx"):
        msg = f"{image.uri} has the axes {image.axes}; a tile here is (C, Y, X), of one plane"
        raise InvalidInputError(msg)
    if codec == "png" and not is_png_picture(image, level):
        msg = (
            f"{image.uri} has {image.nchannels} channels of {image.dtype}; a PNG has {PNG_PICTURES}: "
            "use codec='raw'"
        )
        raise InvalidInputError(msg)
