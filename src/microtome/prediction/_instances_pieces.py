"""Labels of tiles until all are there: what each holds, and what their objects are called in the end.

Of a tile is held what it keeps, and half of what it shows beyond: neighbours are compared where
neither is near its own border, at which a model sees half of an object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.regions import ImageRegionData

from ._merge import first_pixels, local_labels, matches, ranked, united
from ._output import as_array, place_of

__all__ = ["Held", "Objects", "Pieces"]


class Held(Protocol):
    """Where the labels of pieces are kept, by the order in which they came."""

    def append(self, facts: NDArray[np.int64], labels: NDArray[Any], /) -> None:
        """Keep a piece and what is known of it."""
        ...

    def labels(self, number: int, /) -> NDArray[Any]:
        """Return the labels of a piece; they are not changed."""
        ...


class InMemory:
    """Pieces in a list."""

    def __init__(self) -> None:
        self._labels: list[NDArray[Any]] = []

    def append(self, facts: NDArray[np.int64], labels: NDArray[Any], /) -> None:
        """Keep a piece."""
        del facts
        self._labels.append(labels)

    def labels(self, number: int, /) -> NDArray[Any]:
        """Return the labels of a piece."""
        return self._labels[number]


@dataclass(slots=True)
class Pieces:
    """The tiles of one image that have come.

    Parameters
    ----------
    held
        Where their labels go.
    """

    held: Held = field(default_factory=InMemory)
    _of: tuple[str, int] | None = None
    _total: int = 0
    _shape: tuple[int, ...] = ()
    # A row a piece: sample, then first pixel of its tile, start and stop of what is held, start and
    # stop of what is kept, an axis each; then the number of its labels.
    _facts: list[NDArray[np.int64]] = field(default_factory=list[NDArray[np.int64]])
    _places: set[tuple[int, ...]] = field(default_factory=set[tuple[int, ...]])

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image, (S, (Z), Y, X)."""
        return self._shape

    def has(self, sample: int, start: Sequence[int]) -> bool:
        """Whether the tile that begins at a pixel has come."""
        return (sample, *start) in self._places

    def take_up(self, facts: NDArray[np.int64]) -> None:
        """Count a piece that is held already."""
        rank = len(facts) // 5
        self._facts.append(facts)
        self._places.add(tuple(facts[: 1 + rank].tolist()))

    def add(self, batch: ImageRegionData[Any], *, skip_known: bool = False) -> None:
        """Take the tiles of a batch.

        Parameters
        ----------
        batch
            Tiles whose data are labels; see `stitch_instances`.
        skip_known
            Whether a tile that has come is passed over; otherwise it is refused.

        Raises
        ------
        InvalidInputError
            If the data are no labels, or the tiles are not of the image that the others are of.
        """
        spec = cast("dict[str, Any]", batch.region_spec)
        labels = _checked(batch, spec)
        keys = ("coords", "stitch_coords", "crop_size")
        columns = [np.asarray(spec[key], np.int64) for key in keys]
        for row, tile in enumerate(labels):
            self._verify_same(batch, row, spec)
            sample = int(spec["sample_idx"][row])
            coords, stitch, size = (column[row] for column in columns)
            if self.has(sample, coords.tolist()):
                if skip_known:
                    continue
                msg = f"{place_of(batch, row)} came before; the tiles of one picture are stitched, once"
                raise InvalidInputError(msg)
            kept = np.minimum(stitch + size, self._shape[1:])
            # Half of what is shown beyond what is kept, on either side, and no padding.
            start = stitch - (stitch - coords + 1) // 2
            after = coords + tile.shape - (stitch + size)
            stop = np.minimum(stitch + size + (after + 1) // 2, self._shape[1:])
            window = tuple(map(slice, (start - coords).tolist(), (stop - coords).tolist()))
            own, count = local_labels(tile[window])
            facts = np.concatenate([[sample], coords, start, stop, stitch, kept, [count]])
            self.held.append(facts, own)
            self.take_up(facts)

    def verify_complete(self, total: int | None = None) -> None:
        """Refuse an image that lacks tiles.

        Parameters
        ----------
        total
            How many there are; by default as many as the tiles say.
        """
        wanted = self._total if total is None else total
        if not wanted or len(self) != wanted:
            msg = f"{len(self)} of {wanted} tiles came: stitching needs every one"
            raise InvalidInputError(msg)

    def objects(self, shape: Sequence[int], min_share: float) -> Objects:
        """Find out which labels are one object.

        Parameters
        ----------
        shape
            Of the image, (S, (Z), Y, X).
        min_share
            Share of pixels; see `stitch_instances`.
        """
        return Objects.of(self.held, self._facts, tuple(shape), min_share)

    def _verify_same(self, batch: ImageRegionData[Any], row: int, spec: dict[str, Any]) -> None:
        of = batch.source[row], int(spec["data_idx"][row])
        if self._of is None:
            self._of, self._total = of, int(spec["total_tiles"][row])
            sizes = [int(axis[row]) for axis in batch.data_shape]
            self._shape = sizes[0], *sizes[-len(spec["patch_size"][row]) :]
        if of != self._of:
            msg = f"{place_of(batch, row)} is not of {self._of}, as the others; the tiles of one picture are stitched, once"
            raise InvalidInputError(msg)


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of an image, of which pieces hold parts.

    Parameters
    ----------
    held
        The pieces' labels.
    order
        Numbers of the pieces, sorted by place.
    samples, start, stop, kept_start, kept_stop
        Of the pieces, in that order: the sample, (n,); what is held and what is kept, (n, d).
    bases
        What is added to a label of a piece for its number among all labels, less 1, (n,).
    names
        What each label of all is called in the image.
    count
        Number of objects.
    """

    held: Held
    order: NDArray[np.int64]
    samples: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    kept_start: NDArray[np.int64]
    kept_stop: NDArray[np.int64]
    bases: NDArray[np.int64]
    names: NDArray[np.int64]
    count: int

    @classmethod
    def of(
        cls,
        held: Held,
        rows: Sequence[NDArray[np.int64]],
        shape: tuple[int, ...],
        min_share: float,
        *,
        touching: bool = False,
    ) -> Objects:
        """Compare neighbours, unite what is one, and number it by its first pixel.

        Parameters
        ----------
        held
            The pieces' labels.
        rows
            What is known of each piece, in the form of `Pieces`.
        shape
            Of the image, (S, (Z), Y, X).
        min_share
            Share of pixels that makes two labels one.
        touching
            Whether pieces show nothing of each other, and the pixels on both sides of where they
            meet are compared.
        """
        rank = len(shape) - 1
        facts = np.stack(rows)
        columns = [facts[:, 1 + rank * part : 1 + rank * (part + 1)] for part in range(5)]
        order = np.lexsort([*columns[1].T[::-1], facts[:, 0]])
        samples, counts = facts[order, 0], facts[order, -1]
        _, start, stop, kept_start, kept_stop = (column[order] for column in columns)
        bases = np.cumsum(counts) - counts
        made = cls(
            held, order, samples, start, stop, kept_start, kept_stop, bases, np.zeros(0, np.int64), 0
        )  # fmt: skip
        total = int(counts.sum())
        pairs = [np.zeros((0, 2), np.int64), *made._pairs(min_share, touching=touching)]
        first = [np.zeros(0, np.int64)]
        for at in range(len(order)):
            labels = made._within(at, kept_start[at], kept_stop[at])
            origin = np.array([samples[at], *kept_start[at]])
            sizes = [1, *(kept_stop[at] - kept_start[at]).tolist()]
            rows = [np.arange(a, a + n) for a, n in zip(origin[:-1], sizes[:-1], strict=True)]
            grid = np.meshgrid(*rows, indexing="ij")
            places = np.ravel_multi_index([*grid, np.full_like(grid[0], origin[-1])], shape)
            first.append(first_pixels(labels, places.reshape(labels.shape[:-1]), int(counts[at])))
        groups = united(np.concatenate(pairs), total)
        names, count = ranked(groups, np.concatenate(first))
        return cls(
            held, order, samples, start, stop, kept_start, kept_stop, bases, names, count
        )  # fmt: skip

    def paint(self, sample: int, start: Sequence[int], out: NDArray[Any]) -> None:
        """Write the objects of a box of a sample into an array that is 0.

        Parameters
        ----------
        sample
            Which sample.
        start
            First pixel of the box.
        out
            The box, of any type that holds the objects.
        """
        low = np.asarray(start, np.int64)
        high = low + out.shape
        inside = (self.kept_start < high) & (self.kept_stop > low)
        for at in np.flatnonzero(inside.all(axis=1) & (self.samples == sample)).tolist():
            first = np.maximum(self.kept_start[at], low)
            last = np.minimum(self.kept_stop[at], high)
            labels = self._within(at, first, last)
            stop = self.bases[at + 1] if at + 1 < len(self.bases) else len(self.names)
            names = np.zeros(stop - self.bases[at] + 1, out.dtype)
            names[1:] = self.names[self.bases[at] : stop]
            out[tuple(map(slice, (first - low).tolist(), (last - low).tolist()))] = names[labels]

    def _pairs(self, min_share: float, *, touching: bool) -> Iterator[NDArray[np.int64]]:
        """Yield the numbers of labels that are one, (n, 2)."""
        matched = self._in_contact if touching else self._matched
        for at, (low, high) in enumerate(zip(self.start, self.stop + touching, strict=True)):
            # Sorted by sample and first row: none after the last of these reaches it.
            end = np.searchsorted(self.samples, self.samples[at], side="right")
            end = at + 1 + np.searchsorted(self.start[at + 1 : end, 0], high[0])
            after = slice(at + 1, end)
            meet = ((self.start[after] < high) & (self.stop[after] + touching > low)).all(axis=1)
            for other in (at + 1 + np.flatnonzero(meet)).tolist():
                found = matched(at, other, min_share)
                yield found - 1 + self.bases[[at, other]]

    def _in_contact(self, at: int, other: int, min_share: float) -> NDArray[np.int64]:
        """Return labels of two pieces that lie side by side."""
        low = np.maximum(self.start[at], self.start[other])
        high = np.minimum(self.stop[at], self.stop[other])
        sides = np.flatnonzero(low >= high)
        # At a corner, or an edge, they have no face in common.
        if len(sides) != 1:
            return np.zeros((0, 2), np.int64)
        face: list[NDArray[Any]] = []
        for piece in (at, other):
            start, stop = low.copy(), high.copy()
            before = self.stop[piece, sides] == low[sides]
            start[sides] = np.where(before, self.stop[piece, sides] - 1, self.start[piece, sides])
            stop[sides] = start[sides] + 1
            face.append(self._within(piece, start, stop))
        return matches(face[0], face[1], min_share)

    def _matched(self, at: int, other: int, min_share: float) -> NDArray[np.int64]:
        wide = (
            np.maximum(self.start[at], self.start[other]),
            np.minimum(self.stop[at], self.stop[other]),
        )
        # The two pixels where what they keep meets: as far from both borders as can be.
        near = (
            np.maximum(wide[0], np.maximum(self.kept_start[at], self.kept_start[other]) - 1),
            np.minimum(wide[1], np.minimum(self.kept_stop[at], self.kept_stop[other]) + 1),
        )
        if (near[0] >= near[1]).any():
            return np.zeros((0, 2), np.int64)
        first, second = (self._within(number, *near) for number in (at, other))
        found = matches(first, second, min_share)
        alone = [
            np.setdiff1d(labels, [0, *found[:, side]]) for side, labels in ((0, first), (1, second))
        ]
        if not any(map(len, alone)):
            return found
        # What only one of them shows there may lie a little aside in the other.
        first, second = (self._within(number, *wide) for number in (at, other))
        more = matches(first, second, min_share)
        wanted = np.isin(more[:, 0], alone[0]) | np.isin(more[:, 1], alone[1])
        return np.concatenate([found, more[wanted]])

    def _within(self, at: int, start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[Any]:
        """Return the labels of a piece in a box that it holds."""
        origin = self.start[at]
        box = map(slice, (start - origin).tolist(), (stop - origin).tolist())
        return self.held.labels(int(self.order[at]))[tuple(box)]


def _checked(batch: ImageRegionData[Any], spec: dict[str, Any]) -> NDArray[Any]:
    needed = {"coords", "stitch_coords", "crop_size", "total_tiles", "patch_size"}
    if isinstance(batch.source, str) or needed - spec.keys():
        msg = f"not a collated batch of tiles: its specification lacks {sorted(needed - spec.keys()) or 'a batch axis'}"
        raise InvalidInputError(msg)
    labels = as_array(batch.data)
    wanted = (len(batch.source), *(int(size) for size in spec["patch_size"][0]))
    if labels.ndim == len(wanted) + 1 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != wanted or labels.dtype.kind not in "iu":
        axes = "Z, Y, X" if len(wanted) == 4 else "Y, X"
        msg = (
            f"labels of tiles are integers (B, {axes}) or (B, 1, {axes}), here {wanted}; got "
            f"{as_array(batch.data).shape} {labels.dtype} from {place_of(batch, 0)}"
        )
        raise InvalidInputError(msg)
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        row = int(np.argmin(labels.reshape(len(labels), -1).min(axis=1)))
        msg = f"labels are 0 for background and positive for objects, got {labels[row].min()} from {place_of(batch, row)}"
        raise InvalidInputError(msg)
    return labels
