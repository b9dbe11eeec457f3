"""The verb that makes a table of cells of cell masks: `microtome cohort cells`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ._console import progress, say
from ._options import Flag, ResolutionOption, Tissues

__all__ = ["cells"]


def cells(
    path: Path,
    *,
    tissue: Tissues = None,
    kind: str = "instances",
    modality: str | None = None,
    resolution: ResolutionOption = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Fill the table of cells from the cell masks: where each lies, how large, how bright.

    Tissues that have been measured are left as they are, unless their mask or image was replaced since.

    Parameters
    ----------
    path
        Directory of the cohort.
    tissue
        Only this tissue; may be given several times.
    kind
        Kind of the masks in which each cell has a number.
    modality
        Average this modality's channels over each cell.
    resolution
        Which resolution, where the cohort has several.
    overwrite
        Measure all, replace values that are there, and remove cells that the masks lack.
    """
    from microtome.cohort import measure_cells

    with progress() as show:
        count = measure_cells(
            path,
            tissues=tissue,
            kind=kind,
            modality=modality,
            resolution=resolution,
            overwrite=overwrite,
            progress=show,
        )
    say(f"{count} cells")
