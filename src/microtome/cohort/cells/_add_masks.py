"""`add_cell_masks`: cells that another program found, stored as labels on the cohort's pixel grid."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.cohort._cell_inputs import images_of_tissue
from microtome.cohort._images import is_there, load_npz_mask, open_tissue_image, tissues_with_images
from microtome.cohort._layout import CohortLayout, check_tissue_id
from microtome.cohort._made_of import array_identity
from microtome.cohort._merge import listed
from microtome.cohort._tables import read_parquet, write_parquet
from microtome.coordinates import Mpp, Resolution
from microtome.errors import ExistsError, FormatError, InvalidInputError, NotFoundError
from microtome.image import MultiscaleImage, begin_image, blocks_of, image_at
from microtome.sources import image_from_array, image_from_levels, open_image
from microtome.storage import locked

from ._block_labels import BlockLabels

__all__ = ["ENCODER_SCHEMA", "add_cell_masks"]

ENCODER_SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])

_log = logging.getLogger(__name__)

_INSTANCES = ("instances", "instances_virtues")
# Pixels of a mask that are held at a time.
_BLOCK = 2048
# Pixel sizes are rounded when they are written: of a slide of 10^5 pixels none then lies elsewhere.
_SAME = 1e-6
# Labels are numbers of cells: as few bytes as hold them, but never so few that a next tissue's
# mask would be of another type for ten cells more.
_TYPES = (np.uint16, np.uint32, np.uint64)


def add_cell_masks(
    cohort: str | os.PathLike[str],
    tissue_id: str,
    source: Any,
    *,
    kind: str = "instances",
    labels: Mapping[int, str] | None = None,
    mpp: float | tuple[float, float] | Mpp | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    overwrite: bool = False,
) -> Path:
    """Put a mask of cells into a cohort.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    tissue_id
        Which tissue.
    source
        The labels, 0 for the background: whatever `open_image` takes, an array (H, W), or an
        `.npz` file with an array "mask". They lie on the pixel grid of the tissue's image, unless
        `mpp` says otherwise.
    kind
        ``"instances"``, a number a cell, or the name of a task, for example ``"cell_type"``, a
        number a class.
    labels
        Names of a task's classes by number; kept in label_encoder.parquet for all tissues. A task
        that has them already may leave out what is there.
    mpp
        Micrometres per pixel of the labels, where they were made at another pixel size than the
        image in the cohort has: that of the microscope, say. Where a pixel of the image is a whole
        block of theirs, it has the most frequent label of the block, as in a pyramid (ties go to the
        smallest that is not 0); else the label that lies under its centre. Cells that are too small
        for either are lost, and a warning names how many.
    resolution
        Whose grid; may be left out where the cohort has one.
    overwrite
        Replace a mask, or names of classes, that are there.

    Returns
    -------
    Where the mask is.

    Raises
    ------
    FormatError
        If the mask has another shape than the image, or values that are no labels.
    InvalidInputError
        If classes have no names, or instances have some.
    ExistsError
        If there is a mask, or a class has another name, and `overwrite` is false.
    UnknownNameError
        If the cohort has no such tissue.
    """
    layout = CohortLayout.open(cohort)
    target = layout.resolution(resolution)
    path = layout.cell_mask(target, kind, check_tissue_id(tissue_id))
    modalities = tissues_with_images(layout, target, tissues=[tissue_id])[tissue_id]
    base = open_tissue_image(layout, modalities[0], target, tissue_id).level(0)
    image, lost = _open(source), dict[str, int]()
    given = None
    if mpp is not None:
        size = Mpp.from_user(mpp)
        given = (
            f"{_pixels(image)} pixels, which at the {size.y:g} x {size.x:g} um given (--mpp, mpp=)"
        )
        image, lost = _resampled(image, size, target, (base.height, base.width))
    largest, identity = _verify_labels(image, (base.height, base.width), tissue_id, given)
    if is_there(path) and not overwrite:
        msg = f"{path} exists; replace it with --overwrite (overwrite=True)"
        raise ExistsError(msg)
    if path.suffix == ".npz":
        msg = f"the mask of tissue {tissue_id!r}, {path}, was made by another tool; remove it first"
        raise ExistsError(msg)
    if kind in _INSTANCES:
        if labels is not None:
            msg = f"{kind!r} are cells and have numbers only; names are for the classes of a task"
            raise InvalidInputError(msg)
    else:
        _name_classes(layout, target, kind, labels, _classes(image), overwrite=overwrite)
    dtype = next(t for t in _TYPES if largest <= np.iinfo(t).max)
    note: dict[str, Any] = {
        "kind": kind,
        "from": image.uri,
        "images": images_of_tissue(layout, target, tissue_id, modalities),
        "identity": identity,
    }
    if lost:
        note["lost"] = lost
    with begin_image(
        path,
        dtype=dtype,
        shape=(base.height, base.width),
        axes="yx",
        channel_names=None,
        mpp=Mpp(*target.mpp, "metadata"),
        kind="labels",
        overwrite=True,
        metadata={"microtome": {"cell_mask": note}},
    ) as made:
        level = made.level(0)
        for place, block in _blocks(image):
            level[place] = block.astype(dtype)
        made.build_levels()
    return path


def _open(source: Any) -> MultiscaleImage:
    """Open labels, whatever their file says of itself: the shape decides, as in every other tool."""
    if isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == ".npz":
        if not Path(source).is_file():
            msg = f"{source} does not exist"
            raise NotFoundError(msg)
        return open_image(load_npz_mask(Path(source)), axes="yx")
    return open_image(source)


def _resampled(
    image: MultiscaleImage, mpp: Mpp, resolution: Resolution, shape: tuple[int, int]
) -> tuple[MultiscaleImage, dict[str, int]]:
    """View labels of one pixel size on the grid of another, and tell which of them vanish.

    Returns
    -------
    The labels; and of those that vanished, if any, how many they are and the largest.
    """
    _verify_plane(image)
    array = image.level(0).array
    labels = image_from_levels(
        [array],
        image.axes,
        mpp=mpp,
        channel_names=None,
        uri=image.uri,
        name=image.name,
        kind="labels",
    )
    if array.dtype.kind == "f":
        _verify_values(labels)  # a fraction could be outvoted
    block = _whole_block(mpp, resolution)
    if block is None:
        found = image_at(labels, Mpp(*resolution.mpp, "user"))
    else:
        found = image_from_levels(
            [BlockLabels(array, block)],
            "yx",
            mpp=Mpp(*resolution.mpp, "user"),
            channel_names=None,
            uri=image.uri,
            name=image.name,
            kind="labels",
        )
    size = found.level_shape(0)[-2:]
    over = [a - b for a, b in zip(size, shape, strict=True)]
    steps = [own / grid for own, grid in zip((mpp.y, mpp.x), resolution.mpp, strict=True)]
    if any(over) and all(0 <= a < step for a, step in zip(over, steps, strict=True)):
        # The last of the coarser pixels reach over the far edge of the image.
        found = image_from_array(
            found.read(0, (0, shape[0]), (0, shape[1])).reshape(shape), axes="yx", mpp=found.mpp
        )
    with np.errstate(invalid="ignore"):  # what is no label is refused when it is verified
        lost = _classes(labels) - _classes(found)
    if lost:
        _log.warning(
            "%s: %d labels are smaller than a pixel of %s um and fill none of the mask: %s",
            image.uri,
            len(lost),
            resolution,
            listed(sorted(lost)),
        )
    return found, {"count": len(lost), "largest": max(lost)} if lost else {}


def _whole_block(mpp: Mpp, resolution: Resolution) -> tuple[int, int] | None:
    """Return how many pixels, down and across, one of a resolution is; None if they are not whole."""
    ratios = [grid / own for own, grid in zip((mpp.y, mpp.x), resolution.mpp, strict=True)]
    high, wide = (round(ratio) for ratio in ratios)
    whole = all(abs(r - n) < _SAME * n for r, n in zip(ratios, (high, wide), strict=True) if n)
    return (high, wide) if whole and min(high, wide) >= 1 and (high, wide) != (1, 1) else None


def _pixels(image: MultiscaleImage) -> tuple[int, int]:
    level = image.level(0)
    return level.height, level.width


def _verify_plane(image: MultiscaleImage) -> None:
    sizes = dict(zip(image.axes, image.level_shape(0), strict=True))
    planes = {axis: size for axis, size in sizes.items() if axis not in "yx" and size > 1}
    if planes:
        msg = f"{image.uri} has axes {image.axes} of {image.level_shape(0)}; a mask is one plane"
        raise FormatError(msg)


def _verify_labels(
    image: MultiscaleImage, shape: tuple[int, int], tissue_id: str, given: str | None
) -> tuple[int, str]:
    """Return the largest label, and what tells these labels from any others.

    `given` says how many there were before they were put on the pixels of the image, where they were.
    """
    _verify_plane(image)
    size = _pixels(image)
    if size != shape:
        msg = (
            f"{image.uri} has {size} pixels, the image of tissue {tissue_id!r} has {shape}; if it was made at another pixel size, give that with --mpp (mpp=)"
            if given is None
            else f"{image.uri} has {given} are {size} of the image's; but the image of tissue {tissue_id!r} has {shape}: are they of that size, and of this tissue?"
        )
        raise FormatError(msg)
    return _verify_values(image)


def _verify_values(image: MultiscaleImage) -> tuple[int, str]:
    """The same of labels of any size."""
    largest, identity = 0, ""
    for _, block in _blocks(image):
        if block.dtype.kind == "f" and not np.array_equal(block, np.floor(block)):
            msg = f"{image.uri} holds {block.dtype} with fractions or NaN, which are no labels"
            raise FormatError(msg)
        if block.dtype.kind != "b" and block.min() < 0:
            msg = f"{image.uri} holds {block.min()}; labels begin at 1, and 0 is the background"
            raise FormatError(msg)
        largest = max(largest, int(block.max()))
        identity = array_identity(block.astype(np.uint64), identity)
    return largest, identity


def _blocks(image: MultiscaleImage) -> Iterator[tuple[tuple[slice, slice], NDArray[Any]]]:
    level = image.level(0)
    for y, x in blocks_of((level.height, level.width), (_BLOCK, _BLOCK)):
        pixels = np.asarray(image.read(0, y, x))
        yield (slice(*y), slice(*x)), pixels.reshape(pixels.shape[-2:])


def _classes(image: MultiscaleImage) -> set[int]:
    found: set[int] = set()
    for _, block in _blocks(image):
        found.update(np.unique(block).astype(np.int64).tolist())
    return found - {0}


def _name_classes(
    layout: CohortLayout,
    resolution: Resolution,
    task: str,
    labels: Mapping[int, str] | None,
    present: set[int],
    *,
    overwrite: bool,
) -> None:
    """Note the names of a task's classes; the first step, so that no mask has classes without."""
    path = layout.label_encoder(resolution, task)
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        known: dict[int, str] = {}
        if path.is_file():
            rows = read_parquet(path, ["id", "name"]).to_pylist()
            known = {int(row["id"]): str(row["name"]) for row in rows}
        given = {int(number): str(name) for number, name in (labels or {}).items()}
        others = [
            f"{number} {known[number]!r} (given {name!r})"
            for number, name in given.items()
            if known.get(number, name) != name
        ]
        if others and not overwrite:
            msg = f"{path} has other names: {listed(others)}; replace them with --overwrite (overwrite=True)"
            raise ExistsError(msg)
        names = {**known, **given}
        without = sorted(present - set(names))
        if without:
            msg = f"classes {listed(without)} of task {task!r} have no names; give them with --label NUMBER=NAME (labels=)"
            raise InvalidInputError(msg)
        twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
        if twice:
            msg = f"classes of task {task!r} must have names of their own, {twice} are there more than once"
            raise InvalidInputError(msg)
        if names != known:
            columns = {"id": list(names), "name": list(names.values())}
            write_parquet(pa.table(columns, schema=ENCODER_SCHEMA).sort_by("id"), path)
