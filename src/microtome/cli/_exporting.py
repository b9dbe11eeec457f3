"""The verb that writes what other programs read: images, and tiles and cells of a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from microtome.errors import InvalidInputError

from ._console import progress, say
from ._export_qupath import qupath_cells, qupath_tiles
from ._export_tiles import clam, coco, parquet, spatialdata, trident, webdataset
from ._options import Flag, parse_mpp

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

    with progress() as show:
        written = write_ome_tiff(
            open_image(source, mpp=parse_mpp(mpp), image=image),
            output,
            codec=codec,
            overwrite=overwrite,
            progress=show,
        )
    say(str(written))


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
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write cells, or vectors of tiles or cells, as AnnData, which single-cell tools read.

    Parameters
    ----------
    table
        A cohort, whose table of cells is written; a table of cells; or a table of embeddings that
        predict made, or of pooled labels.
    output
        The file, .h5ad; a table of embeddings may also become a store, .zarr.
    variable
        Columns of a table of cells that become variables of X; by default those that cohort cells
        measured, mean_CHANNEL. All others are in obs.
    overwrite
        Replace what is there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from microtome.cohort import CohortLayout
    from microtome.interop import cells_to_anndata
    from microtome.prediction import vectors_to_anndata

    file = CohortLayout.open(table).cells if table.is_dir() else table
    try:
        columns = {column.name: column.type for column in pq.read_schema(file)}
    except (OSError, pa.ArrowInvalid):
        columns = {}  # what is wrong with it is told by those that read it
    if "embedding" in columns:
        if variable:
            msg = f"{table} holds vectors, which are in obsm; --variable is for tables of cells"
            raise InvalidInputError(msg)
        vectors_to_anndata(table, output, overwrite=overwrite)
    else:
        means = [n for n, k in columns.items() if n.startswith("mean_") and pa.types.is_floating(k)]
        cells_to_anndata(
            table, output, variables=means if variable is None else variable, overwrite=overwrite
        )
    say(str(output))


export_app = App(
    name="export",
    help="Write what other programs read: an image as OME-TIFF, or in the format that is named.",
)
export_app.default(ome_tiff)
for _place, (_verb, _name) in enumerate(
    (
        (ome_tiff, "ome-tiff"),
        (qupath_tiles, "qupath-tiles"),
        (qupath_cells, "qupath-cells"),
        (trident, "trident"),
        (clam, "clam"),
        (webdataset, "webdataset"),
        (coco, "coco"),
        (parquet, "parquet"),
        (spatialdata, "spatialdata"),
        (anndata, "anndata"),
        (soma, "soma"),
    )
):
    export_app.command(_verb, name=_name, sort_key=_place)
