"""Verbs that look after a cohort: `microtome cohort init | add | add-cells | cells | add-mask | align | validate | info`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from microtome.errors import InvalidInputError

from ._answering import info
from ._console import answer, progress, say
from ._measuring import cells
from ._options import Flag, OneTissue, ResolutionOption, parse_mpp
from ._workers import DaskOption, WorkersOption, executor_of

__all__ = ["cohort_app", "validate"]


def init(path: Path, *, name: str | None = None, description: str | None = None) -> None:
    """Begin an empty cohort.

    Parameters
    ----------
    path
        Directory of the cohort: missing, empty, or a cohort already.
    name
        What it is called.
    description
        What it is.
    """
    from microtome.cohort import create_cohort

    say(str(create_cohort(path, name=name, description=description).root))


def add(path: Path, table: Path, *, overwrite: Annotated[bool, Flag] = False) -> None:
    """Add columns to the table of tissues: patients, splits, clinical data, labels.

    Parameters
    ----------
    path
        Directory of the cohort.
    table
        CSV, TSV or parquet with tissue_id and, where rows speak of one modality only, modality.
    overwrite
        Replace values that are there.
    """
    from microtome.cohort import add_metadata

    added = add_metadata(path, table, overwrite=overwrite)
    say(f"{added.num_rows} images, {added.num_columns} columns: {', '.join(added.column_names)}")


def add_cells(
    path: Path,
    table: Path,
    *,
    tissue_id: Annotated[str | None, OneTissue] = None,
    resolution: ResolutionOption = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Add cells, or columns of them, to the table of cells.

    Parameters
    ----------
    path
        Directory of the cohort.
    table
        CSV, TSV or parquet with tissue_id, cell_id and, in micrometres, centroid_y and centroid_x.
    tissue_id
        The tissue of the whole table, which may then be one of steinbock, with centres in pixels.
    resolution
        Of these pixels, where the cohort has several.
    overwrite
        Replace values that are there.
    """
    from microtome.cohort import add_cells as do

    count = do(path, table, tissue_id=tissue_id, resolution=resolution, overwrite=overwrite)
    say(f"{count} cells added, {count.changed} changed")


def add_mask(
    path: Path,
    source: Path,
    *,
    tissue_id: Annotated[str, OneTissue],
    kind: str = "instances",
    label: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    mpp: str | None = None,
    resolution: ResolutionOption = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Add a mask of cells that another program found.

    Parameters
    ----------
    path
        Directory of the cohort.
    source
        Image of labels, or an .npz with an array "mask", on the pixel grid of the tissue's image.
    tissue_id
        Which tissue.
    kind
        instances, or the name of a task whose classes the mask holds.
    label
        Names of a task's classes, each as NUMBER=NAME.
    mpp
        Micrometres per pixel of the labels, where they were made at another pixel size than the
        image in the cohort has; y,x if not square.
    resolution
        Which resolution, where the cohort has several.
    overwrite
        Replace a mask or names that are there.
    """
    from microtome.cohort import add_cell_masks

    labels = None if label is None else _named(label)
    made = add_cell_masks(
        path,
        tissue_id,
        source,
        kind=kind,
        labels=labels,
        mpp=parse_mpp(mpp),
        resolution=resolution,
        overwrite=overwrite,
    )
    say(str(made))


def align(
    path: Path,
    *,
    tissue_id: Annotated[str, OneTissue],
    modality: str,
    matrix: Annotated[list[float] | None, Parameter(consume_multiple=True, negative=())] = None,
    method: str = "affine",
) -> None:
    """Note how an image lies in its tissue's frame, or forget it.

    Parameters
    ----------
    path
        Directory of the cohort.
    tissue_id
        Which tissue.
    modality
        Which of its images.
    matrix
        Six numbers a b c d e f, by which a point (x, y) of the image, in micrometres from its
        top-left corner, lies at (a x + b y + c, d x + e y + f) of the frame; without them what was
        noted is forgotten.
    method
        How it was found, for people.
    """
    from microtome.cohort import set_alignment

    if matrix is not None and len(matrix) != 6:
        msg = f"--matrix is six numbers, a b c d e f, got {len(matrix)}"
        raise InvalidInputError(msg)
    rows = None if matrix is None else [matrix[:3], matrix[3:]]
    set_alignment(path, tissue_id, modality, rows, method=method)
    say(f"{tissue_id} {modality}: {'no alignment' if rows is None else rows}")


def _named(pairs: Sequence[str]) -> dict[int, str]:
    """Read `--label 1=tumour --label 2=stroma`."""
    named: dict[int, str] = {}
    for pair in pairs:
        number, sign, name = pair.partition("=")
        if not (sign and name and number.isascii() and number.isdigit()) or int(number) in named:
            msg = f"--label takes NUMBER=NAME, each number once, got {pair!r}"
            raise InvalidInputError(msg)
        named[int(number)] = name
    return named


def validate(
    path: Path,
    *,
    checksums: Annotated[bool, Flag] = False,
    cells: Annotated[bool, Flag] = False,
    resolution: ResolutionOption = None,
    workers: WorkersOption = 1,
    dask: DaskOption = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Check everything that later steps take for granted, and print a line for each finding.

    The exit code is 1 if there is an error among them, and 0 if there are warnings only.

    Parameters
    ----------
    path
        Directory of the cohort, or of a SPORA dataset.
    checksums
        Read every source that is still there, and compare it with what was ingested.
    cells
        Read every cell mask, and compare it with the table of cells.
    resolution
        Only this resolution.
    workers
        Processes on this machine that share the images; 1 does them here, one after the other.
    dask
        Address of a dask scheduler whose workers share the images, for example tcp://host:8786.
    as_json
        Print JSON.
    """
    from microtome.cohort import validate as do

    with executor_of(workers, dask) as executor, progress() as show:
        findings = do(
            path,
            checksums=checksums,
            cells=cells,
            resolution=resolution,
            executor=executor,
            progress=show,
        )
    if as_json:
        answer(json.dumps([f.as_dict() for f in findings], indent=2))
    else:
        for finding in findings:
            answer(str(finding))
    errors = sum(finding.severity == "error" for finding in findings)
    if not as_json:
        say(f"{errors} errors, {len(findings) - errors} warnings")
    return int(errors > 0)


cohort_app = App(
    name="cohort",
    help="Look after a cohort: begin it, add to it, check it.",
    sort_key=1.5,  # after info, before ingest
)
for place, (verb, name) in enumerate(
    (
        (init, "init"),
        (add, "add"),
        (add_cells, "add-cells"),
        (cells, "cells"),
        (add_mask, "add-mask"),
        (align, "align"),
        (validate, "validate"),
        (info, "info"),
    )
):
    cohort_app.command(verb, name=name, sort_key=place)
