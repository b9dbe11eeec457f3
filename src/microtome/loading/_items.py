"""Sources that give samples one by one: batches are put together of what `__getitems__` gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._ragged import PanelCollate
from ._slices import cut

__all__ = [
    "Collate",
    "CollateKind",
    "ItemSource",
    "Reading",
    "gives_batches",
    "of_whole_tissues",
    "reading",
]

CollateKind = Literal["stack", "list", "pad", "panel"]
"""`stack`: one array, tiles must agree in shape. `list`: the samples as the source gives them.
`pad`: one array, as many planes as the tile with the most. `panel`: one array, each channel of the
panel at its place."""

Collate: TypeAlias = CollateKind | Callable[[list[Any]], Any]
"""How samples become a batch: by name, or whatever a function makes of a list of them."""


@runtime_checkable
class ItemSource(Protocol):
    """Samples by number, several at once: every dataset of a cohort is one."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return samples, in that order."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows of a source become a batch."""

    read: Callable[[NDArray[np.int64], int], Any]
    """Reads rows of an epoch: the batch as the source gives it, or a list of samples."""
    collate: Callable[[list[Any]], Any] | None
    """Makes a batch of samples; None where the source gives batches."""

    def batches(self, found: Any, sizes: Sequence[int]) -> Iterator[Any]:
        """Yield what was read at once as batches of some sizes.

        Parameters
        ----------
        found
            What `read` returned.
        sizes
            Tiles of each batch; together as many as were read.
        """
        if self.collate is None and len(sizes) == 1:
            yield found
            return
        start = 0
        for size in sizes:
            if self.collate is None:
                yield cut(found, start, start + size)
            else:
                yield self.collate(found[start : start + size])
            start += size


def of_whole_tissues(source: Any) -> bool:
    """Whether a source is a dataset of a cohort without a tile size, whose items are whole tissues."""
    return hasattr(source, "tiles") and source.tiles is None and hasattr(source, "get_tissue_ids")


def gives_batches(source: Any) -> bool:
    """Whether a source gives batches; a dataset around another gives what that gives, and says so."""
    has = callable(getattr(source, "read_batch", None))
    return has and getattr(source, "gives_batches", True) is True


def reading(source: Any, collate: Collate | None) -> Reading:
    """Return how rows of a source become a batch.

    Parameters
    ----------
    source
        A `TileSource`, an `EpochTileSource` or an `ItemSource`.
    collate
        How samples become a batch; None for ``"stack"`` where the source reads batches, else
        ``"list"``.

    Raises
    ------
    InvalidInputError
        If it is no source, or cannot be read so.
    """
    batches = gives_batches(source)
    items = callable(getattr(source, "__getitems__", None))
    # Asked at the border: without it the first thread to fail would be the one to tell.
    if not (hasattr(source, "__len__") and (batches or items)):
        msg = f"a source has __len__ and read_batch(rows), or __getitems__(rows), got {type(source).__name__}"
        raise InvalidInputError(msg)
    if isinstance(collate, str) and collate not in get_args(CollateKind):
        msg = f"collate must be one of {get_args(CollateKind)} or a function, got {collate!r}"
        raise InvalidInputError(msg)
    kind = collate or ("stack" if batches else "list")
    told = getattr(source, "takes_epoch", False) is True
    if kind in {"stack", "pad", "panel"} and batches and of_whole_tissues(source):
        msg = (
            f"the {type(source).__name__} has no tile_size, so that its items are whole tissues, each of "
            "a size of its own: give the dataset a tile_size, or the loader collate='list'"
        )
        raise InvalidInputError(msg)
    if kind == "stack":
        if not batches:
            msg = (
                f"{type(source).__name__} gives samples of several images, which have no one shape; "
                "use collate='list', 'pad', 'panel', or a function of a list of samples"
            )
            raise InvalidInputError(msg)
        return Reading(partial(_read_batch, source, told), None)
    if not items:
        msg = f"collate={collate!r} puts batches together of samples, and {type(source).__name__} has no __getitems__"
        raise InvalidInputError(msg)
    read_items = partial(_read_items, source, told)
    if callable(kind):
        return Reading(read_items, kind)
    if kind == "list":
        return Reading(read_items, list)
    return Reading(read_items, PanelCollate(source, "pad" if kind == "pad" else "panel"))


# Of the module, so that a loader can be pickled where its source can.
def _read_batch(source: Any, told: bool, rows: NDArray[np.int64], epoch: int) -> Any:  # noqa: FBT001 - bound by position
    return source.read_batch(rows, epoch=epoch) if told else source.read_batch(rows)


def _read_items(source: Any, told: bool, rows: NDArray[np.int64], epoch: int) -> list[Any]:  # noqa: FBT001 - bound by position
    asked = rows.tolist()
    get = source.__getitems__
    samples = list(get(asked, epoch=epoch) if told else get(asked))
    if len(samples) != len(asked):
        msg = f"{type(source).__name__}.__getitems__ gave {len(samples)} samples for {len(asked)} rows"
        raise InvalidInputError(msg)
    return samples
