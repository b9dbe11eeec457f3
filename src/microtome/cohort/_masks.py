"""`mask`: where the tissue is, stored as labels on the cohort's pixel grid."""

from __future__ import annotations

import logging
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp, Resolution
from microtome.errors import ExistsError, FormatError, NotFoundError, UnknownNameError
from microtome.image import MultiscaleImage, begin_image, blocks_of
from microtome.progress import Progress, silent
from microtome.segmentation import detect_tissue
from microtome.sources import image_from_array

from ._layout import CohortLayout, is_written
from ._modality import Modality, parse_modality
from ._tables import read_tissues

__all__ = ["mask", "open_tissue_mask", "tissues_with_images"]

_log = logging.getLogger(__name__)

# Glands and vessels are tens of micrometres: 8 um a pixel keeps their outline and is 1/256 of the
# work at 0.5 um.
_COARSE = 8.0
# Pixels of a mask that are held at a time.
_BLOCK = 2048
_KINDS = {"brightfield": 0, "multiplex": 1}


def mask(
    cohort: str | os.PathLike[str],
    *,
    tissues: Sequence[str] | None = None,
    modality: str | Modality | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    method: str = "otsu",
    overwrite: bool = False,
    progress: Progress = silent,
) -> dict[str, float]:
    """Find the tissue of every slide and store it as labels (1 tissue, 0 background).

    Detection runs at 8 um a pixel (or the image's own size where that is coarser) and is stored at
    the cohort's resolution, so that a tile and its mask share their pixel grid.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    tissues
        Which tissues; None for all.
    modality
        Which image to look at; by default H&E where there is one, then IHC, then multiplex.
    resolution
        Which resolution; may be left out where the cohort has one.
    method
        How, see `microtome.segmentation.detect_tissue`.
    overwrite
        Replace masks that are there; otherwise they are kept.
    progress
        Called with the tissues done and to do.

    Returns
    -------
    Share of each image that is tissue, by tissue id.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If a tissue, modality or resolution is not in the cohort.
    """
    layout = CohortLayout.open(cohort)
    target = layout.resolution(resolution)
    only = [parse_modality(modality)] if modality is not None else None
    chosen = tissues_with_images(layout, target, tissues=tissues, modalities=only)
    shares: dict[str, float] = {}
    for done, (tissue_id, modalities) in enumerate(chosen.items(), start=1):
        path = layout.tissue_mask(target, tissue_id)
        if _is_there(path) and not overwrite:
            _log.info("%s is there already", path)
        else:
            image = MultiscaleImage.open(layout.image(modalities[0], target, tissue_id))
            found = _detect(image, method, modalities[0])
            _store(found, image, path, tissue_id, modalities[0])
        shares[tissue_id] = _share(open_tissue_mask(layout, target, tissue_id))
        progress("mask", done, len(chosen))
    return shares


def tissues_with_images(
    layout: CohortLayout,
    resolution: Resolution,
    *,
    tissues: Sequence[str] | None = None,
    modalities: Sequence[Modality] | None = None,
) -> dict[str, list[Modality]]:
    """Return the tissues of the table with the modalities that have an image of them.

    Parameters
    ----------
    layout, resolution
        Where to look.
    tissues, modalities
        Which; None for all.

    Returns
    -------
    Modalities by tissue id, brightfield first; tissues in the order of the table.

    Raises
    ------
    NotFoundError
        If a row of the table has no image at any resolution, or none was found at this one.
    """
    wanted = {m.name for m in modalities} if modalities is not None else None
    found: dict[str, list[Modality]] = {}
    there = {m.name for m in layout.modalities()}
    for row in read_tissues(layout).select(["tissue_id", "modality"]).to_pylist():
        kind, tissue_id = parse_modality(row["modality"]), str(row["tissue_id"])
        if kind.name not in there or (wanted is not None and kind.name not in wanted):
            continue
        if tissues is not None and tissue_id not in tissues:
            continue
        if not layout.images(kind, resolution).is_dir():
            continue
        if not is_written(layout.image(kind, resolution, tissue_id)):
            others = [r for r in layout.resolutions(kind) if r != resolution]
            if any(is_written(layout.image(kind, r, tissue_id)) for r in others):
                # The table does not say at which resolution a tissue was ingested.
                _log.info("tissue %r is imaged as %s at another resolution", tissue_id, kind)
                continue
            msg = f"{layout.tissues} lists tissue {tissue_id!r} as {kind}, but {layout.image(kind, resolution, tissue_id)} is missing"
            raise NotFoundError(msg)
        found.setdefault(tissue_id, []).append(kind)
    lost = [tissue for tissue in tissues or [] if tissue not in found]
    if lost or not found:
        about = f"tissues {lost}" if lost else "images"
        kinds = "" if wanted is None else f" of {', '.join(sorted(wanted))}"
        msg = f"{layout.root} has no {about}{kinds} at {resolution} um per pixel"
        raise UnknownNameError(msg) if lost or wanted is not None else NotFoundError(msg)
    for kinds_of in found.values():
        kinds_of.sort(key=lambda m: (m.name != "he", _KINDS[m.kind], m.name))
    return found


def open_tissue_mask(
    layout: CohortLayout, resolution: Resolution, tissue_id: str
) -> MultiscaleImage:
    """Open a tissue mask, OME-Zarr labels or a SPORA `.npz`, as an image of labels.

    Raises
    ------
    NotFoundError
        If there is none.
    FormatError
        If the `.npz` is damaged, holds no array "mask", or holds pickled objects.
    """
    path = layout.tissue_mask(resolution, tissue_id)
    if not _is_there(path):
        msg = f"tissue {tissue_id!r} has no tissue mask ({path}); make one with `microtome mask {layout.root} --resolution {resolution.directory}`"
        raise NotFoundError(msg)
    if path.suffix == ".npz":
        array = load_npz_mask(path).astype(np.uint8)
        return image_from_array(
            array, axes="yx", mpp=Mpp(*resolution.mpp, "metadata"), uri=str(path)
        )
    return MultiscaleImage.open(path)


def load_npz_mask(path: Path) -> NDArray[Any]:
    """Return the array "mask" of an archive; never loads a pickle."""
    try:
        # Opened here: numpy leaves a damaged archive open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            array: NDArray[Any] = archive["mask"]
    except (
        LookupError,
        ValueError,
        OSError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        msg = f"{path} is not a mask archive with an array 'mask': {error}"
        raise FormatError(msg) from error
    if array.ndim != 2 or array.dtype.kind not in "biu":
        msg = f"{path}: a mask is (height, width) of integers or booleans, got {array.shape} {array.dtype}"
        raise FormatError(msg)
    return array


def read_tissue_mask(
    layout: CohortLayout, resolution: Resolution, tissue_id: str, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return a tissue mask as booleans.

    Raises
    ------
    FormatError
        If its shape is not the image's.
    """
    image = open_tissue_mask(layout, resolution, tissue_id)
    pixels = image.level(0)[...]
    if pixels.shape[-2:] != shape:
        msg = f"{image.uri} has {pixels.shape[-2:]} pixels, the image of tissue {tissue_id!r} has {shape}"
        raise FormatError(msg)
    return pixels.reshape(shape) != 0


def _detect(
    image: MultiscaleImage, method: str, modality: Modality
) -> tuple[NDArray[np.bool_], Mpp]:
    own = image.require_mpp()
    coarse = Mpp(max(_COARSE, own.y), max(_COARSE, own.x), own.source)
    pixels = image.read_at(mpp=coarse)
    found = detect_tissue(pixels, method=method, mpp=(coarse.y, coarse.x), kind=modality.kind)
    return found, coarse


def _is_there(path: Path) -> bool:
    """Whether there is a mask; a directory whose writer was killed just before the end is none."""
    return path.is_file() if path.suffix == ".npz" else is_written(path)


def _store(
    found: tuple[NDArray[np.bool_], Mpp],
    image: MultiscaleImage,
    path: Path,
    tissue_id: str,
    modality: Modality,
) -> None:
    tissue, coarse = found
    if path.suffix == ".npz":
        msg = f"the mask of tissue {tissue_id!r}, {path}, was made by another tool; remove it first"
        raise ExistsError(msg)
    own, base = image.require_mpp(), image.level(0)
    labels = image_from_array(tissue.astype(np.uint8), axes="yx", mpp=coarse)
    with begin_image(
        path,
        dtype=np.uint8,
        shape=(base.height, base.width),
        axes="yx",
        channel_names=None,
        mpp=own,
        kind="labels",
        overwrite=True,
        metadata={"microtome": {"mask": {"from": modality.name, "mpp": [coarse.y, coarse.x]}}},
    ) as made:
        level = made.level(0)
        # Block by block: at full size a mask of a slide may not fit in memory.
        for y, x in blocks_of(level.shape, (_BLOCK, _BLOCK)):
            level[slice(*y), slice(*x)] = labels.read_grid(own, y, x, interpolation="nearest")
        made.build_levels()


def _share(labels: MultiscaleImage) -> float:
    """Return the share of pixels that are tissue, counted at full size."""
    level = labels.level(0)
    inside = sum(
        int(np.count_nonzero(labels.read(0, y, x)))
        for y, x in blocks_of((level.height, level.width), (_BLOCK, _BLOCK))
    )
    return inside / (level.height * level.width)
