"""Where a region lies in micrometres, and each pixel of it, turned and mirrored or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import AffineTransform
from microtome.errors import InvalidInputError, NoResolutionError

from ._collate import decollate_regions
from ._region import ImageRegionData

__all__ = ["RegionSpace", "region_bounds", "region_transform"]

RegionSpace = Literal["image", "world"]
"""Micrometres from the top-left corner of the image, as `read_at` takes them; or in the coordinate
space that the image states, where its corner may lie anywhere."""


def region_bounds(
    region: ImageRegionData[Any], *, space: RegionSpace = "image"
) -> NDArray[np.float64]:
    """Return the box that a region covers, in micrometres.

    Turns and mirror images within the window, and a model's answer in other pixels, cover the same
    box.

    Parameters
    ----------
    region
        A region, or a batch.
    space
        What the coordinates are measured from.

    Returns
    -------
    (4,): x0, y0, x1, y1; with planes (6,): x0, y0, z0, x1, y1, z1. Of a batch (B, 4) or (B, 6). The
    depth is in planes where the image does not state their distance.

    Raises
    ------
    NoResolutionError
        If the image states no pixel size.
    InvalidInputError
        If there is no such space.

    Examples
    --------
    >>> from microtome.image import ArrayStack, MemoryArray
    >>> from microtome.coordinates import Mpp
    >>> from microtome.regions import Windows, read_regions, region_batch
    >>> pixels = MemoryArray(np.zeros((64, 64), np.uint8))
    >>> slide = ArrayStack(pixels, "YX", mpp=Mpp(0.5, 0.5, "user"))
    >>> windows = Windows.of(0, [[8, 20]], (16, 32))
    >>> batch = region_batch([slide], windows, read_regions([slide], windows))
    >>> region_bounds(batch).tolist()
    [[10.0, 4.0, 26.0, 12.0]]
    """
    if not isinstance(region.source, str):
        spec: Any = region.region_spec
        metadata = cast("Sequence[Mapping[str, Any]]", region.additional_metadata)
        low, size = np.asarray(spec["coords"]), np.asarray(spec["patch_size"])
        pairs = [_grid(facts, low.shape[1], space) for facts in metadata]
        spacing, origin = (np.asarray(column) for column in zip(*pairs, strict=True))
    else:
        low = np.asarray(region.region_spec["coords"])
        size = np.asarray(region.region_spec["patch_size"])
        spacing, origin = _grid(_facts(region), len(low), space)
    first = (origin + low * spacing)[..., ::-1]
    last = (origin + (low + size) * spacing)[..., ::-1]
    return np.concatenate([first, last], axis=-1)


def region_transform(
    region: ImageRegionData[Any], *, space: RegionSpace = "image"
) -> AffineTransform | list[AffineTransform]:
    """Return where the pixels of a region lie, in micrometres.

    It undoes the turn and the mirror image that `additional_metadata["augmentation"]` records, and
    knows that the data may be a model's answer in finer or coarser pixels. Its `inverse_transform`
    says in which pixel a place of the tissue is.

    Parameters
    ----------
    region
        A region, or a batch.
    space
        What the coordinates are measured from.

    Returns
    -------
    From pixel edges of `region.data` along its axes ((z), y, x), pixel j covering [j, j + 1), to
    (x, y, (z)) in micrometres; of a batch a list of B.

    Raises
    ------
    NoResolutionError
        If the image states no pixel size.
    InvalidInputError
        If there is no such space, or data and window have other numbers of axes.

    Examples
    --------
    A crop that was turned by a quarter: its first pixel was the last of the first row.

    >>> region = ImageRegionData(
    ...     np.zeros((1, 32, 16)),
    ...     "a",
    ...     (1, 1, 64, 64),
    ...     "uint8",
    ...     "YX",
    ...     (64, 64),
    ...     {"data_idx": 0, "sample_idx": 0, "coords": (8, 20), "patch_size": (16, 32)},
    ...     {"mpp": (0.5, 0.5), "augmentation": {"dihedral": 1}},
    ... )
    >>> region_transform(region).apply([0.5, 0.5]).tolist()
    [25.75, 4.25]
    """
    if not isinstance(region.source, str):
        return [
            cast("AffineTransform", region_transform(one, space=space))
            for one in decollate_regions(region)
        ]
    low = np.asarray(region.region_spec["coords"], np.float64)
    size = np.asarray(region.region_spec["patch_size"], np.float64)
    rank = len(low)
    shape = tuple(region.data.shape)
    if len(shape) != rank + 1:
        msg = f"data of a window along {rank} axes are (C, ...), got {shape}"
        raise InvalidInputError(msg)
    facts = _facts(region)
    spacing, origin = _grid(facts, rank, space)
    turned = _undone(_dihedral(facts), size)
    # Pixels of the data in pixels of the window, as it was after it was turned.
    seen = size.copy()
    if _dihedral(facts) % 2:
        seen[-2:] = size[:-3:-1]
    finer = np.eye(rank + 1)
    finer[range(rank), range(rank)] = seen / np.asarray(shape[1:])
    place = np.eye(rank + 1)
    place[range(rank), range(rank)] = spacing
    place[:-1, -1] = origin + low * spacing
    matrix = place @ turned @ finer
    # From rows and columns to x and y.
    matrix[:-1] = matrix[:-1][::-1]
    axes = tuple("zyx"[-rank:])
    return AffineTransform(axes, axes[::-1], matrix)


def _facts(region: ImageRegionData[Any]) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", region.additional_metadata)


def _grid(
    facts: Mapping[str, Any], rank: int, space: RegionSpace
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the size of a pixel, and where the image's first corner lies, along (Z)YX."""
    if space not in get_args(RegionSpace):
        msg = f"space is one of {get_args(RegionSpace)}, got {space!r}"
        raise InvalidInputError(msg)
    mpp = facts.get("mpp")
    if mpp is None:
        msg = (
            "the region's image states no pixel size, so that it lies nowhere in micrometres; open "
            "the image with mpp="
        )
        raise NoResolutionError(msg)
    spacing = np.ones(rank)
    spacing[-2:] = mpp
    origin = np.zeros(rank)
    if rank == 3:
        spacing[0] = facts.get("z_spacing") or 1.0
    stated = facts.get("origin")
    if space == "world" and stated is not None:
        origin[:] = stated[-rank:]
    return spacing, origin


def _dihedral(facts: Mapping[str, Any]) -> int:
    """Return which of the eight turns and mirror images a crop was given."""
    state = (facts.get("augmentation") or {}).get("dihedral", 0)
    if state not in range(8):
        msg = f"augmentation['dihedral'] is a number from 0 to 7, got {state!r}"
        raise InvalidInputError(msg)
    return int(state)


def _undone(state: int, size: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix from a crop's pixels to those of its window.

    A crop was mirrored along its last axis from state 4 on, then turned counter-clockwise
    ``state % 4`` times (`np.rot90`).
    """
    rank = len(size)
    y, x = rank - 2, rank - 1
    matrix = np.eye(rank + 1)
    height, width = size[-2:]
    if state >= 4:
        matrix[x, x], matrix[x, -1] = -1.0, width
    for _ in range(state % 4):
        # A turn of (height, width) puts its pixel (row, column) at (width - column, row).
        back = np.eye(rank + 1)
        back[y, y] = back[x, x] = 0.0
        back[y, x] = 1.0
        back[x, y], back[x, -1] = -1.0, width
        matrix = matrix @ back
        height, width = width, height
    return matrix
