"""The images and masks of a cohort, opened at any resolution that is stored or coarser.

A cohort stores images at one resolution or a few. At a coarser one an image is a view of the
nearest finer one, resampled exactly when it is read; its masks likewise.
"""

from __future__ import annotations

import logging
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp, Resolution
from microtome.errors import FormatError, InvalidInputError, NotFoundError, UnknownNameError
from microtome.image import MemoryArray, MultiscaleImage, image_at
from microtome.sources import image_from_levels, npy_header

from ._layout import CohortLayout, is_written
from ._merge import listed
from ._modality import Modality, parse_modality
from ._tables import read_tissues

__all__ = [
    "is_there",
    "open_labels",
    "open_labels_at",
    "open_tissue_image",
    "open_tissue_mask",
    "read_labels",
    "read_tissue_mask",
    "served_from",
    "stored_type",
    "tissues_with_images",
    "verify_fits",
]

_log = logging.getLogger(__name__)

# Of tissues that are not meant, these are named.
_MOST = 6
# Of an archive this much is unpacked at a time.
_BLOCK = 1 << 20
_KINDS = {"brightfield": 0, "multiplex": 1}


def open_tissue_image(
    layout: CohortLayout, modality: Modality, resolution: Resolution, tissue_id: str
) -> MultiscaleImage:
    """Open the image of a tissue at a resolution, stored or coarser than what is stored.

    Means of a multiplex image's counts are no whole numbers and are given as floats, made of its
    finest level; those of colours are rounded half up.

    Raises
    ------
    NotFoundError
        If there is no image at this resolution or a finer one.
    """
    stored = served_from(layout, modality, resolution, tissue_id)
    if stored is None:
        msg = f"{layout.image(modality, resolution, tissue_id)} is missing, and there is no finer image of tissue {tissue_id!r}"
        raise NotFoundError(msg)
    image = MultiscaleImage.open(layout.image(modality, stored, tissue_id))
    if stored == resolution:
        return image
    counts = modality.kind == "multiplex"
    return image_at(
        image,
        Mpp(*resolution.mpp, image.require_mpp().source),
        dtype=stored_type(image.dtype) if counts else None,
        level=0 if counts else None,
    )


def stored_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the float type that holds means of counts of a type."""
    if dtype.kind == "f":
        return dtype
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def served_from(
    layout: CohortLayout,
    modality: Modality,
    resolution: Resolution,
    tissue_id: str,
    *,
    stored: Sequence[Resolution] | None = None,
) -> Resolution | None:
    """Return the stored resolution that a tissue's image is read from: this one, or the next finer.

    None if there is none. `stored` are the resolutions that the modality has, where they are
    known.
    """
    if is_written(layout.image(modality, resolution, tissue_id)):
        return resolution
    known = layout.resolutions(modality) if stored is None else stored
    for finer in reversed(_finer(known, resolution)):
        if is_written(layout.image(modality, finer, tissue_id)):
            return finer
    return None


def _finer(stored: Sequence[Resolution], wanted: Resolution) -> list[Resolution]:
    """Return those of the resolutions that are finer than one in both axes, finest first."""
    return [r for r in stored if r != wanted and r.serves(wanted)]


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
    InvalidInputError
        If `tissues` is a text.
    """
    if isinstance(tissues, str):
        msg = f"tissues is a list of ids, got the text {tissues!r}; for one tissue [{tissues!r}]"
        raise InvalidInputError(msg)
    wanted = frozenset(m.name for m in modalities) if modalities is not None else None
    found: dict[str, list[Modality]] = {}
    stored = {m.name: layout.resolutions(m) for m in layout.modalities()}
    for row in read_tissues(layout).select(["tissue_id", "modality"]).to_pylist():
        kind, tissue_id = parse_modality(row["modality"]), str(row["tissue_id"])
        if kind.name not in stored or (wanted is not None and kind.name not in wanted):
            continue
        if tissues is not None and tissue_id not in tissues:
            continue
        known = stored[kind.name]
        if resolution not in known and not _finer(known, resolution):
            continue
        if served_from(layout, kind, resolution, tissue_id, stored=known) is None:
            others = [r for r in known if r != resolution]
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
        msg = (
            f"{layout.root} has no {about}{kinds} at {resolution} um per pixel; "
            f"{_what_there_is(layout, lost, wanted)}"
        )
        raise UnknownNameError(msg) if lost or wanted is not None else NotFoundError(msg)
    for kinds_of in found.values():
        kinds_of.sort(key=lambda m: (m.name != "he", _KINDS[m.kind], m.name))
    return found


def _what_there_is(layout: CohortLayout, lost: Sequence[str], wanted: frozenset[str] | None) -> str:
    """Return in words as what tissues are imaged that were not found, and which others there are."""
    images: dict[str, list[str]] = {}
    for row in read_tissues(layout).select(["tissue_id", "modality"]).to_pylist():
        images.setdefault(str(row["tissue_id"]), []).append(parse_modality(row["modality"]).name)
    at = {
        kind.name: f"{kind} at {' and '.join(map(str, layout.resolutions(kind)))}"
        for kind in layout.modalities()
    }
    told = [
        f"{tissue!r} is imaged as {', '.join(at.get(kind, kind) for kind in images[tissue])}"
        for tissue in lost[:_MOST]
        if tissue in images
    ]
    others = [t for t, kinds in images.items() if wanted is None or not wanted.isdisjoint(kinds)]
    only = wanted if others else None
    named = others or list(images)
    many = f"{len(named) or 'no'} tissue{'s' * (len(named) != 1)}"
    there = f"it has {many}{': ' * bool(named)}{listed(named, _MOST)}"
    if only is not None:
        there = f"of {', '.join(sorted(only))} {there}"
    else:
        there += f", imaged as {'; '.join(at.values()) or 'nothing'}"
    return "; ".join([*told, there])


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
    found = open_labels_at(layout, resolution, lambda stored: layout.tissue_mask(stored, tissue_id))
    if found is None:
        path = layout.tissue_mask(resolution, tissue_id)
        msg = f"tissue {tissue_id!r} has no tissue mask ({path}); make one with `microtome mask {layout.root} --resolution {resolution.directory}`"
        raise NotFoundError(msg)
    return found


def open_labels(path: Path, resolution: Resolution) -> MultiscaleImage:
    """Open labels, OME-Zarr or an `.npz` of SPORA's, that lie on a resolution's grid."""
    if path.suffix != ".npz":
        return MultiscaleImage.open(path)
    array = load_npz_mask(path)
    return image_from_levels(
        [MemoryArray(array.astype(np.uint8) if array.dtype.kind == "b" else array)],
        "yx",
        mpp=Mpp(*resolution.mpp, "metadata"),
        channel_names=None,
        uri=str(path),
        name=path.stem,
        kind="labels",
    )


def open_labels_at(
    layout: CohortLayout, resolution: Resolution, place: Callable[[Resolution], Path]
) -> MultiscaleImage | None:
    """Open labels at a resolution, or view those of the next finer one that are there."""
    stored = [resolution, *reversed(_finer(layout.resolutions(), resolution))]
    for each in stored:
        path = place(each)
        if is_there(path):
            labels = open_labels(path, each)
            return (
                labels if each == resolution else image_at(labels, Mpp(*resolution.mpp, "metadata"))
            )
    return None


def load_npz_mask(path: Path) -> NDArray[Any]:
    """Return the array "mask" of an archive; never loads a pickle, nor takes memory on a header's word."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("mask.npy") as member:
            shape, fortran, dtype = npy_header(member)
            _verify_mask(path, shape, dtype, archive.getinfo("mask.npy").file_size)
            array = np.empty(math.prod(shape), dtype)
            data = array.view(np.uint8).data
            while len(data):
                block = member.read(_BLOCK)
                if not block:
                    msg = f"{path}: the mask states {shape} pixels of {dtype}, and the archive ends before"
                    raise FormatError(msg)
                kept = min(len(block), len(data))
                data[:kept] = block[:kept]
                data = data[kept:]
            while member.read(_BLOCK):
                pass  # the archive's checksum is of all that it holds
    except FormatError:
        raise
    # What is damaged ends in whatever the readers of zip, of a Python literal and of numpy trip over.
    except Exception as error:
        msg = f"{path} is not a mask archive with an array 'mask': {error}"
        raise FormatError(msg) from error
    return array.reshape(shape, order="F" if fortran else "C")


def _verify_mask(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], held: int) -> None:
    """Refuse an array that is no mask, or larger than what the archive holds, before it is read."""
    if dtype.hasobject:
        msg = f"{path}: the mask holds objects, which are never loaded (allow_pickle=False)"
        raise FormatError(msg)
    if len(shape) != 2 or dtype.kind not in "biu" or 0 in shape:
        msg = f"{path}: a mask is (height, width) of integers or booleans, got {shape} {dtype}"
        raise FormatError(msg)
    if min(shape) < 0 or math.prod(shape) * dtype.itemsize > held:
        msg = f"{path}: the mask states {shape} pixels of {dtype}, and the archive holds {held} bytes of it"
        raise FormatError(msg)


def read_tissue_mask(
    layout: CohortLayout, resolution: Resolution, tissue_id: str, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return a tissue mask as booleans.

    Raises
    ------
    FormatError
        If its shape is not the image's.
    """
    labels = open_tissue_mask(layout, resolution, tissue_id)
    return read_labels(labels, tissue_id, shape) != 0


def read_labels(labels: MultiscaleImage, tissue_id: str, shape: tuple[int, int]) -> NDArray[Any]:
    """Return labels whole, (H, W).

    Raises
    ------
    FormatError
        If their shape is not the image's.
    """
    verify_fits(labels, tissue_id, shape)
    return labels.level(0)[...].reshape(shape)


def verify_fits(labels: MultiscaleImage, tissue_id: str, shape: tuple[int, ...]) -> None:
    """Refuse labels that do not lie on the pixel grid, (H, W), of a tissue's image.

    Raises
    ------
    FormatError
        If they have another shape.
    """
    if labels.level_shape(0)[-2:] != shape:
        msg = f"{labels.uri} has {labels.level_shape(0)[-2:]} pixels, the image of tissue {tissue_id!r} has {shape}"
        raise FormatError(msg)


def is_there(path: Path) -> bool:
    """Whether there is a mask; a directory whose writer was killed just before the end is none."""
    return path.is_file() if path.suffix == ".npz" else is_written(path)
