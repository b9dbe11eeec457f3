"""Labels as polygons: the outline of every object, along the edges of its pixels.

Only corners are looked for. Along a row of pixel edges the corners of one object come in pairs, from
where its outline turns into that row to where it leaves it, and so along every column: two sortings
tell which corner follows which, without a step from pixel to pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage, PixelArray
from microtome.progress import Progress, silent

from ._images import verify_image

__all__ = ["Ring", "label_outlines"]

_CORNER = np.dtype(
    [("label", "i8"), ("y", "i4"), ("x", "i4"), ("right", "?"), ("down", "?"), ("convex", "?")]
)

Ring = NDArray[np.int64]
"""Corners (x, y) of a closed line, (n, 2), the last the first: pixels from the upper left edge."""

# Pixels that are looked at together; their comparisons take as many bytes, a few times.
_STRIP = 1 << 23


def label_outlines(
    labels: MultiscaleImage,
    *,
    level: int = 0,
    strip: int | None = None,
    progress: Progress = silent,
) -> Iterator[tuple[int, tuple[tuple[Ring, ...], ...]]]:
    """Yield every object of labels with its exact outline.

    An outline runs along the edges of pixels, so that its area is the object's number of pixels.
    Pixels that touch at a corner alone are two polygons of one object. Labels are read twice, in
    strips; memory is bounded by a strip and by the outlines of the objects that reach out of it.

    Parameters
    ----------
    labels
        Integers over y and x; 0 is background.
    level
        Index of the level whose pixels are outlined.
    strip
        Rows that are read together; by default some eight million pixels.
    progress
        Called with the strips read and to read, of both times together.

    Yields
    ------
    The label, and of each of its polygons the outline and then its holes, each (n, 2) corners
    (x, y), the last the first. As GeoJSON has it (RFC 7946, 3.1.6) outlines run counter-clockwise
    where y points up, holes the other way. Objects come strip by strip in which they end, within one
    by label.

    Raises
    ------
    InvalidInputError
        If the image has other axes that are longer than 1, is no integers, or has a negative label.
    """
    source = _Plane.of(labels, level)
    height, width = source.shape
    rows = strip or max(1, _STRIP // max(width, 1))
    if rows < 1:
        msg = f"strip must be at least 1 row, got {strip}"
        raise InvalidInputError(msg)
    tops = range(0, height, rows)
    ends = _last_strips(source, tops, rows, progress)
    waiting = np.zeros(0, _CORNER)
    last = np.zeros((1, width), source.array.dtype)
    for number, top in enumerate(tops):
        pixels = source.rows(top, min(top + rows, height))
        below = [np.zeros_like(last)] if top + rows >= height else []
        # Of a strip the corners on its upper edge, and not those on its lower, which the next has.
        found = _corners(np.concatenate([last, pixels, *below]), top)
        last = pixels[-1:]
        waiting = np.concatenate([waiting, found])
        place = np.searchsorted(ends.labels, waiting["label"])
        # A corner on the lower edge of a strip is found with the next one.
        done = (ends.strips[place] < number) | (top + rows >= height)
        yield from _objects(waiting[done])
        waiting = waiting[~done]
        progress("outline", len(tops) + number + 1, 2 * len(tops))


@dataclass(frozen=True, slots=True)
class _Plane:
    """The pixels of labels, whatever other axes of length 1 they have."""

    array: PixelArray
    axes: str
    name: str

    @classmethod
    def of(cls, image: MultiscaleImage, level: int) -> _Plane:
        verify_image(image, "labels")
        chosen = image.level(level)
        sizes = dict(zip(chosen.axes, chosen.shape, strict=True))
        others = {axis: n for axis, n in sizes.items() if axis not in "yx" and n != 1}
        if others or chosen.dtype.kind not in "iu":
            msg = (
                f"outlines are of labels, integers over y and x; {image.uri} has the axes "
                f"{chosen.axes!r} of {chosen.shape} {chosen.dtype}"
            )
            raise InvalidInputError(msg)
        return cls(chosen.array, chosen.axes, image.uri)

    @property
    def shape(self) -> tuple[int, int]:
        sizes = dict(zip(self.axes, self.array.shape, strict=True))
        return sizes["y"], sizes["x"]

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        spans = {"y": (top, bottom), "x": (0, self.shape[1])}
        box = tuple(spans.get(axis, (0, 1)) for axis in self.axes)
        pixels = self.array.read(box).reshape(bottom - top, self.shape[1])
        if pixels.dtype.kind == "i" and pixels.size and pixels.min() < 0:
            msg = f"{self.name} has the label {pixels.min()}; labels are 0 or above"
            raise InvalidInputError(msg)
        if pixels.dtype == np.uint64 and pixels.max(initial=0) > np.iinfo(np.int64).max:
            msg = f"{self.name} has the label {pixels.max()}; labels are at most 2**63 - 1"
            raise InvalidInputError(msg)
        return pixels


@dataclass(frozen=True, slots=True)
class _Ends:
    """In which strip each label is seen for the last time."""

    labels: NDArray[np.int64]
    """Ascending."""
    strips: NDArray[np.int64]


def _last_strips(source: _Plane, tops: Sequence[int], rows: int, progress: Progress) -> _Ends:
    labels = strips = np.zeros(0, np.int64)
    for number, top in enumerate(tops):
        pixels = source.rows(top, min(top + rows, source.shape[0]))
        here = _distinct(pixels)
        kept = ~np.isin(labels, here, assume_unique=True)
        labels = np.concatenate([labels[kept], here])
        strips = np.concatenate([strips[kept], np.full(here.size, number)])
        progress("outline", number + 1, 2 * len(tops))
    order = np.argsort(labels)
    return _Ends(labels[order], strips[order])


def _distinct(pixels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the labels of some rows; of a run of equal pixels only the first is sorted."""
    starts = np.ones(pixels.shape, np.bool_)
    np.not_equal(pixels[:, 1:], pixels[:, :-1], out=starts[:, 1:])
    here = np.unique(pixels[starts]).astype(np.int64)
    return here[here != 0]


def _corners(pixels: NDArray[Any], top: int) -> NDArray[Any]:
    """Return the corners of all outlines between rows of pixels.

    Parameters
    ----------
    pixels
        Rows with the one above the first.
    top
        Where the second row lies in the image.
    """
    padded = np.pad(pixels, ((0, 0), (1, 1)))
    wide = padded[:, 1:] == padded[:, :-1]  # equal to the pixel to the left
    high = padded[1:] == padded[:-1]  # equal to the pixel above
    level = wide[1:] & wide[:-1]
    upright = high[:, 1:] & high[:, :-1]
    # Where a line goes straight on, or there is none, there is no corner.
    y, x = np.nonzero(~(level | upright))
    block = {
        (down, right): padded[y + down, x + right].astype(np.int64)
        for down in (0, 1)
        for right in (0, 1)
    }
    found: list[NDArray[Any]] = []
    for (down, right), own in block.items():
        beside, over = block[down, 1 - right] == own, block[1 - down, right] == own
        across = block[1 - down, 1 - right] == own
        convex = ~beside & ~over
        chosen = np.flatnonzero((own != 0) & (convex | (beside & over & ~across)))
        made = np.empty(chosen.size, _CORNER)
        made["label"] = own[chosen]
        made["y"], made["x"] = y[chosen] + top, x[chosen]
        made["convex"] = bends = convex[chosen]
        # A convex corner lies between two sides of its own pixel, any other between two sides of
        # the one pixel of the four that is not the object's: the one opposite.
        made["right"] = bends == bool(right)
        made["down"] = bends == bool(down)
        found.append(made)
    return np.concatenate(found)


def _objects(corners: NDArray[Any]) -> Iterator[tuple[int, tuple[tuple[Ring, ...], ...]]]:
    """Join the corners of whole objects."""
    if not corners.size:
        return
    label, y, x = corners["label"], corners["y"], corners["x"]
    # Where two pixels of an object touch at a corner it has two corners there: the line from the
    # left ends at the one, that to the right begins at the other.
    corners = corners[np.lexsort((corners["right"], x, y, label))]
    label, y, x = corners["label"], corners["y"], corners["x"]
    column = np.lexsort((corners["down"], y, x, label))
    vertical = np.empty(len(corners), np.int64)
    vertical[column[0::2]], vertical[column[1::2]] = column[1::2], column[0::2]
    follows: list[int] = vertical.tolist()
    points = np.stack([x, y], axis=1).astype(np.int64)
    seen = bytearray(len(corners))
    firsts = np.flatnonzero(np.diff(label, prepend=-1))
    for first, after in zip(firsts, [*firsts[1:], len(corners)], strict=True):
        rings: list[Ring] = []
        for start in range(int(first), int(after)):
            if seen[start]:
                continue
            walk: list[int] = []
            at = start
            while not seen[at]:
                pair = at ^ 1  # sorted by rows, every pair is two neighbours
                seen[at] = seen[pair] = 1
                walk += (at, pair)
                at = follows[pair]
            # The first corner is the topmost and of those the leftmost: from it to the right the
            # object lies inside, unless that is a hole, whose line then runs the other way.
            if not corners["convex"][start]:
                walk.reverse()
            rings += _simple(points[walk])
        yield int(label[first]), _polygons(rings)


def _simple(ring: Ring) -> list[Ring]:
    """Split a line where it comes back to a corner, and close its parts."""
    keys: list[tuple[int, int]] = list(map(tuple, ring.tolist()))
    if len(set(keys)) == len(keys):
        return [np.concatenate([ring, ring[:1]])]
    parts: list[Ring] = []
    way: list[tuple[int, int]] = []
    place: dict[tuple[int, int], int] = {}
    for key in keys:
        back = place.get(key)
        if back is not None:
            parts.append(np.array([*way[back:], key], np.int64))
            for gone in way[back:]:
                del place[gone]
            del way[back:]
        place[key] = len(way)
        way.append(key)
    parts.append(np.array([*way, way[0]], np.int64))
    return parts


def _polygons(rings: list[Ring]) -> tuple[tuple[Ring, ...], ...]:
    """Put every hole into the outline that it is a hole of."""
    areas = [_area(ring) for ring in rings]
    outer = sorted((n for n, area in enumerate(areas) if area > 0), key=areas.__getitem__)
    holes: dict[int, list[Ring]] = {n: [] for n in outer}
    for n, area in enumerate(areas):
        if area < 0:
            # The smallest that contains it: of two around each other the inner lies in a hole.
            own = outer[0] if len(outer) == 1 else _around(rings, outer, rings[n])
            holes[own].append(rings[n])
    return tuple((rings[n], *holes[n]) for n in sorted(outer))


def _area(ring: Ring) -> int:
    """Return the area; below 0 where the line runs clockwise, y pointing up."""
    x, y = ring[:, 0], ring[:, 1]
    return int((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) // 2


def _around(rings: list[Ring], outer: list[int], hole: Ring) -> int:
    """Return the smallest outline that contains the pixel above a hole's first corner."""
    x, y = min(map(tuple, hole.tolist()), key=lambda corner: (corner[1], corner[0]))
    for n in outer[:-1]:
        line = rings[n]
        ends = np.stack([line[:-1, 1], line[1:, 1]])
        upright = line[:-1, 0] == line[1:, 0]
        crossed = upright & (line[:-1, 0] <= x) & (ends.min(0) <= y - 1) & (ends.max(0) >= y)
        if np.count_nonzero(crossed) % 2:
            return n
    return outer[-1]
