"""Checks of masks of tissue and of cells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.cohort._images import open_labels
from microtome.cohort._layout import is_written
from microtome.cohort._merge import listed
from microtome.cohort._tables import read_parquet
from microtome.cohort.cells import INSTANCES
from microtome.coordinates import Resolution
from microtome.image import MultiscaleImage, blocks_of

from ._images import resolution_of
from ._survey import Survey, repeated

__all__ = ["check_cell_masks", "check_tissue_masks"]

_ENDINGS = (".ome.zarr", ".npz")
_ENCODER = "label_encoder.parquet"
_BLOCK = 2048


def check_tissue_masks(survey: Survey) -> None:
    """Check the tissue masks of every resolution."""
    for directory, resolution in _directories(survey, "tissue_masks"):
        there: set[str] = set()
        for path, tissue in _masks(survey, directory):
            there.add(tissue)
            with survey.guarded("mask-damaged", path, "make it again"):
                _open_checked(survey, path, tissue, resolution)
        with_images = {t for t, _, r in survey.sizes if r == resolution}
        lost = sorted(with_images - there)
        if lost:
            what = f"{len(lost)} of {len(with_images)} tissues have no mask: {listed(lost)}"
            advice = "make them with `microtome mask`; tiles and statistics need all"
            survey.report("warning", "mask-missing", directory, what, advice)


def check_cell_masks(survey: Survey, *, pixels: bool) -> None:
    """Check the cell masks of every resolution and kind.

    Parameters
    ----------
    pixels
        Read them whole, and compare their labels with the cells, or the names of classes.
    """
    cells = _cell_ids(survey) if pixels else {}
    for directory, resolution in _directories(survey, "cell_masks"):
        for kind in sorted(entry for entry in directory.iterdir() if entry.is_dir()):
            if kind.name.startswith("."):
                continue
            named = None if kind.name.startswith(INSTANCES) else _check_encoder(survey, kind)
            for path, tissue in _masks(survey, kind):
                with survey.guarded("mask-damaged", path, "add it again with --overwrite"):
                    labels = _open_checked(survey, path, tissue, resolution)
                    if not pixels:
                        continue
                    found = _labels_of(labels)
                    if kind.name == INSTANCES:
                        _compare_cells(survey, path, tissue, found, cells.get(tissue))
                    elif named is not None:
                        _compare_names(survey, path, found, named)


def _directories(survey: Survey, name: str) -> Iterator[tuple[Path, Resolution]]:
    for directory in sorted(survey.layout.root.glob(f"segmentations/*/{name}")):
        resolution = resolution_of(survey, directory.parent)
        if resolution is not None and survey.wanted(resolution):
            yield directory, resolution


def _masks(survey: Survey, directory: Path) -> Iterator[tuple[Path, str]]:
    """Yield the masks of tissues that the cohort has, and report the others."""
    tissues = set(survey.tissues())
    for entry in sorted(directory.iterdir()):
        if entry.name.startswith(".") or entry.name == _ENCODER:
            continue
        ending = next((e for e in _ENDINGS if entry.name.endswith(e)), "")
        tissue = entry.name.removesuffix(ending)
        if not ending or tissue not in tissues:
            what = "the table of tissues has no row for it"
            survey.report("warning", "orphan", entry, what, "ingest the tissue, or remove it")
        elif ending != ".npz" and not is_written(entry):
            what = "is unfinished: its writer was stopped just before the end"
            survey.report("error", "mask-damaged", entry, what, "make it again")
        else:
            yield entry, tissue


def _open_checked(
    survey: Survey, path: Path, tissue: str, resolution: Resolution
) -> MultiscaleImage:
    labels = open_labels(path, resolution)
    level = labels.level(0)
    level[..., :8, :8]  # that it can be read
    if labels.dtype.kind not in "biu":
        what = f"holds {labels.dtype}, which are no labels"
        survey.report("error", "mask-damaged", path, what, "write integers")
    size = survey.size_at(tissue, resolution)
    if size is not None and size != (level.height, level.width):
        what = (
            f"has {(level.height, level.width)} pixels, the image of tissue {tissue!r} has {size}"
        )
        survey.report("error", "mask-shape", path, what, "make it again from that image")
    return labels


def _check_encoder(survey: Survey, kind: Path) -> set[int] | None:
    """Check the names of a task's classes, and return their numbers."""
    path = kind / _ENCODER
    if not path.is_file():
        what = f"is missing: the classes of {kind.name!r} have numbers and no names"
        survey.report(
            "warning", "encoder-missing", path, what, "write it, with columns id and name"
        )
        return None
    keys = ("id", "name")
    table = survey.table(path, {"id": "integer", "name": "text"}, keys=keys)
    if table is None:
        return None
    for column in keys:
        twice = repeated(table, [column])
        if twice:
            what = f"{column} is there more than once: {listed(twice)}"
            survey.report("error", "encoder-duplicate", path, what, "one name a number")
    return set(table["id"].to_pylist())


def _cell_ids(survey: Survey) -> dict[str, NDArray[np.int64]]:
    """Return the cells that the table has of each tissue; none where it cannot be read."""
    path = survey.layout.cells
    if not path.is_file():
        return {}
    try:
        table = read_parquet(path, ["tissue_id", "cell_id"])
        table = table.select(["tissue_id", "cell_id"]).drop_null()
        names, ids = table["tissue_id"].cast(pa.string()), table["cell_id"].cast(pa.int64())
    except (pa.ArrowException, ValueError):
        return {}  # told of the table already
    codes: Any = names.combine_chunks().dictionary_encode()
    order = np.argsort(codes.indices.to_numpy(), kind="stable")
    starts = np.searchsorted(codes.indices.to_numpy()[order], np.arange(1, len(codes.dictionary)))
    parts = np.split(ids.to_numpy()[order], starts)
    return dict(zip(codes.dictionary.to_pylist(), parts, strict=False))


def _labels_of(labels: MultiscaleImage) -> set[int]:
    level = labels.level(0)
    found: set[int] = set()
    for y, x in blocks_of((level.height, level.width), (_BLOCK, _BLOCK)):
        block: Any = level[..., slice(*y), slice(*x)]
        found.update(np.unique(block).astype(np.int64).tolist())
    return found - {0}


def _compare_cells(
    survey: Survey, path: Path, tissue: str, found: set[int], cells: NDArray[np.int64] | None
) -> None:
    if cells is None:
        return
    lost = sorted(set(cells.tolist()) - found)
    if lost:
        what = f"{len(lost)} of {cells.size} cells of tissue {tissue!r} in metadata/cells.parquet are not in it: {listed(lost)}"
        advice = "are table and mask of the same segmentation?"
        survey.report("error", "cell-not-in-mask", path, what, advice)


def _compare_names(survey: Survey, path: Path, found: set[int], named: set[int]) -> None:
    lost = sorted(found - named)
    if lost:
        what = f"holds classes without a name in {_ENCODER}: {listed(lost)}"
        survey.report("error", "class-unnamed", path, what, "add their names")
