"""`validate`: everything that later steps take for granted, checked before they stumble over it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from microtome.cohort._fingerprint import fingerprint
from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import parse_modality
from microtome.coordinates import Resolution
from microtome.errors import FormatError, NotFoundError
from microtome.image import MultiscaleImage
from microtome.jobs import run_each, verify_executor
from microtome.progress import Progress, silent
from microtome.sources import image_files, open_image
from microtome.storage import Place, StorageOptions, StorePath, path_to_read

from ._images import check_images
from ._masks import check_cell_masks, check_tissue_masks
from ._packed import check_packed
from ._panels import check_panels
from ._stale import check_stale
from ._statistics import check_statistics
from ._survey import DAMAGE, Finding, Survey, told
from ._tables import check_cells, check_tissues
from ._tilings import check_tilings

__all__ = ["validate"]


def validate(
    cohort: str | os.PathLike[str] | Place | StorePath,
    *,
    checksums: bool = False,
    cells: bool = False,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    executor: Executor | None = None,
    progress: Progress = silent,
    storage_options: StorageOptions | None = None,
) -> list[Finding]:
    """Check a cohort, ours or a SPORA dataset, and say all that is wrong with it.

    Nothing is written, and what is damaged is a finding and not an error. Of every image the
    middle of the finest and of the coarsest level is read; whole images only for `checksums`, whole
    cell masks only for `cells`.

    Parameters
    ----------
    cohort
        Directory of the cohort, or its address in a store.
    checksums
        Read the sources that are still where they were, and compare them with what was ingested.
    cells
        Read every cell mask and compare its labels with the table of cells, or the names of classes.
    resolution
        Look at images, masks, tiles and statistics of this one only.
    executor
        Where images are opened and sources read: any `concurrent.futures` executor; by default
        here, one after the other.
    progress
        Called with the images looked at and to look at.
    storage_options
        How stores are reached, where the cohort is given by an address.

    Returns
    -------
    What was found, in the order of the checks; empty where all is well.

    Raises
    ------
    NotFoundError
        If there is no directory.
    FormatError
        If it is no cohort at all.
    InvalidInputError
        If the resolution is none.
    """
    verify_executor(executor)
    layout = CohortLayout(path_to_read(cohort, storage_options))
    if not layout.root.is_dir():
        msg = f"there is no cohort at {cohort}"
        raise NotFoundError(msg)
    if not layout.has_begun:
        msg = f"{cohort} is a directory but no cohort: it has neither cohort.json nor metadata/tissues.parquet"
        raise FormatError(msg)
    only = None if resolution is None else Resolution.parse(resolution)
    survey = Survey(layout, only, progress, executor)
    with survey.guarded("manifest-damaged", layout.manifest, "bring back a copy of it"):
        layout.read_manifest()
    check_tissues(survey)
    check_panels(survey)
    check_images(survey)
    check_cells(survey)
    check_tissue_masks(survey)
    check_cell_masks(survey, pixels=cells)
    check_tilings(survey)
    check_statistics(survey)
    check_stale(survey)
    check_packed(survey)
    if checksums:
        _check_sources(survey)
    return survey.findings


def _check_sources(survey: Survey) -> None:
    """Compare sources that are still there with what was ingested."""
    known = [row for row in survey.rows if row.get("sha256") and row.get("source")]
    here = [row for row in known if Path(row["source"]).exists()]
    digests = run_each(_digest, [_source_of(survey, row) for row in here], survey.executor)
    for done, (row, (digest, error)) in enumerate(zip(here, digests, strict=True), start=1):
        source = Path(row["source"])
        if error is not None:
            advice = "is it still the file it was?"
            survey.report("error", "source-changed", source, error, advice)
        elif digest != row["sha256"]:
            what = f"is not what tissue {row['tissue_id']!r} ({row['modality']}) was ingested from"
            advice = "ingest it again with --overwrite, or bring back the old file"
            survey.report("error", "source-changed", source, what, advice)
        survey.progress("checksums", done, len(here))


def _digest(source: tuple[Path, str, Path | None]) -> tuple[str | None, str | None]:
    """Return the digest of a source, or why there is none."""
    path, noted, stored = source
    try:
        whole = fingerprint(path)
        if whole == noted:
            return whole, None
        # Of what lies in a directory, and beside a file, that of the image's own files is noted.
        record: Mapping[str, Any] = {}
        if stored is not None:
            record = MultiscaleImage.open(stored).metadata.get("microtome", {}).get("ingest") or {}
        with open_image(path, image=record.get("image")) as opened:
            return fingerprint(path, image_files(opened)), None
    except DAMAGE as error:
        return None, told(error, path)


def _source_of(survey: Survey, row: Mapping[str, Any]) -> tuple[Path, str, Path | None]:
    """Return a source, its digest as it was, and an image that was made of it, where one opens."""
    modality = parse_modality(row["modality"])
    mine = (row["tissue_id"], modality.name)
    found = next((resolution for *key, resolution in survey.sizes if tuple(key) == mine), None)
    stored = None if found is None else survey.layout.image(modality, found, row["tissue_id"])
    return Path(row["source"]), row["sha256"], stored
