"""The verb that writes what other programs read: images, and tiles and cells of a cohort."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from microtome.errors import InvalidInputError, NotFoundError

from ._console import progress, say
from ._export_qupath import qupath_cells, qupath_tiles
from ._export_tiles import clam, coco, parquet, spatialdata, trident, webdataset
from ._options import Flag, Tissues, parse_mpp

__all__ = ["export_app"]


def ome_tiff(
    source: Path,
    output: Path,
    *,
    image: str | None = None,
    codec: Literal["deflate", "zstd", "lzw", "none"] = "deflate",
    mpp: str | None = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write an image as a pyramidal OME-TIFF, which QuPath and Bio-Formats read.

    Without the name of a format, `microtome export SOURCE OUTPUT` does this.

    Parameters
    ----------
    source
        An image in any format that can be read.
    output
        The file, .ome.tif or .ome.tiff.
    image
        Name of one of the images in a file, where it holds several.
    codec
        How its tiles are compressed.
    mpp
        Micrometres per pixel of an image that states none.
    overwrite
        Replace a file that is there.
    """
    from microtome.export import write_ome_tiff
    from microtome.sources import open_image

    _verify_source(source)
    with progress() as show:
        written = write_ome_tiff(
            open_image(source, mpp=parse_mpp(mpp), image=image),
            output,
            codec=codec,
            overwrite=overwrite,
            progress=show,
        )
    say(str(written))


def _ome_tiff(
    source: Path,
    output: Path,
    *more: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    image: str | None = None,
    codec: Literal["deflate", "zstd", "lzw", "none"] = "deflate",
    mpp: str | None = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    # What follows are arguments of a format, whose name is then not what it should be.
    if more:
        _verify_source(source)
        msg = f"an image becomes one file, OUTPUT; got {' '.join(more)!r} as well"
        raise InvalidInputError(msg)
    ome_tiff(source, output, image=image, codec=codec, mpp=mpp, overwrite=overwrite)


def _verify_source(source: Path) -> None:
    """Refuse what is rather meant as the name of a format, or is a cohort."""
    if (source / "cohort.json").is_file() or (source / "metadata/tissues.parquet").is_file():
        images = sorted(source.glob("*/*mpp/images/*")) + sorted(source.glob("ihc/*/*mpp/images/*"))
        such = f", such as {shlex.quote(str(images[0]))}" if images else " once it has any"
        msg = (
            f"{source} is a cohort: name one of its images{such}, or the format in which its tiles "
            f"or cells shall be written, one of {', '.join(_FORMATS)}"
        )
        raise InvalidInputError(msg)
    if source.suffix or source.exists() or "/" in str(source):
        return
    near = difflib.get_close_matches(str(source), _FORMATS, 1, 0.7)
    hint = f"; did you mean {near[0]}?" if near else f"; formats are {', '.join(_FORMATS)}"
    msg = f"{source} is neither an image that is there nor a format{hint}"
    raise NotFoundError(msg)


def soma(source: Path, output: Path, *, image: str | None = None, mpp: str | None = None) -> None:
    """Write an image as a SOMA MultiscaleImage, which tiledbsoma reads.

    Parameters
    ----------
    source
        An image in any format that can be read.
    output
        Directory of the image; there must be none.
    image
        Name of one of the images in a file, where it holds several.
    mpp
        Micrometres per pixel of an image that states none.
    """
    from microtome.interop import to_soma
    from microtome.sources import open_image

    with progress() as show:
        written = to_soma(
            open_image(source, mpp=parse_mpp(mpp), image=image), output, progress=show
        )
    say(written)


def anndata(
    table: Path,
    output: Path,
    *,
    variable: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    modality: str | None = None,
    tissue: Tissues = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write cells, tiles, or vectors of either as AnnData, which single-cell tools read.

    Parameters
    ----------
    table
        A cohort, whose table of cells is written; a table of cells; one of tiles; or a table of
        embeddings that predict made, or of pooled labels.
    output
        The file, .h5ad; a table of embeddings may also become a store, .zarr.
    variable
        Columns of a table of cells or tiles that become variables of X; by default those that cohort
        cells measured, mean_CHANNEL. All others are in obs.
    modality
        Only cells of tissues of a cohort that were imaged so, and means of its channels.
    tissue
        Only cells of this tissue; may be given several times.
    overwrite
        Replace what is there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from microtome.interop import cells_to_anndata, tiles_to_anndata
    from microtome.prediction import vectors_to_anndata
    from microtome.tiling import TileTable

    try:
        columns = set[str]() if table.is_dir() else set(pq.read_schema(table).names)
    except (OSError, pa.ArrowInvalid):
        columns = set[str]()  # what is wrong with it is told by those that read it
    of_tiles = {"tile_id", "row", "col"} <= columns and "cell_id" not in columns
    if ("embedding" in columns or of_tiles) and (modality or tissue):
        msg = f"{table} is no table of cells, which --modality and --tissue choose from"
        raise InvalidInputError(msg)
    if "embedding" in columns:
        if variable:
            msg = f"{table} holds vectors, which are in obsm; --variable is for tables of cells"
            raise InvalidInputError(msg)
        vectors_to_anndata(table, output, overwrite=overwrite)
    elif of_tiles:
        tiles_to_anndata(
            TileTable.read(table), output, variables=variable or (), overwrite=overwrite
        )
    else:
        cells_to_anndata(
            table,
            output,
            variables=variable,
            tissues=tissue,
            modality=modality,
            overwrite=overwrite,
        )
    say(str(output))


export_app = App(
    name="export",
    help="Write what other programs read: an image as OME-TIFF, or in the format that is named.",
)
_ome_tiff.__doc__ = ome_tiff.__doc__
export_app.default(_ome_tiff)
_VERBS = {
    "ome-tiff": ome_tiff,
    "qupath-tiles": qupath_tiles,
    "qupath-cells": qupath_cells,
    "trident": trident,
    "clam": clam,
    "webdataset": webdataset,
    "coco": coco,
    "parquet": parquet,
    "spatialdata": spatialdata,
    "anndata": anndata,
    "soma": soma,
}
_FORMATS = tuple(_VERBS)
for _place, (_name, _verb) in enumerate(_VERBS.items()):
    export_app.command(_verb, name=_name, sort_key=_place)
