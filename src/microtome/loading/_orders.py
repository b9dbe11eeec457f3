"""Which order a loader has, and how many of its batches it reads at once."""

from __future__ import annotations

from typing import Any, Protocol, cast, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

from ._batches import BatchPlan, SharedPlan
from ._blocks import BlockOrder
from ._items import of_whole_tissues
from ._order import Order, OrderKind, TileOrder

__all__ = ["StorageSource", "order_of", "plan_of", "span_of", "together"]

# Bytes of pixels that are read at once: the whole of what is shuffled together, so that each
# chunk of it is decoded once. Two such are under way beside the one that is handed out.
_AT_ONCE = 256 << 20
_MOST_MIXED = 4096


@runtime_checkable
class StorageSource(Protocol):
    """A source that knows where its tiles are stored: every dataset of one modality is one."""

    def storage_blocks(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the storage block that each tile lies in, (n,).

        Tiles of one number share chunks; any integers do.
        """
        ...

    @property
    def tile_bytes(self) -> int:
        """About how many bytes a tile has as a batch holds it."""
        ...


def order_of(order: OrderKind | Order, source: Any, seed: int | None, epoch: int | None) -> Order:
    """Return the order that is meant.

    Raises
    ------
    InvalidInputError
        If it is of another table, or has a seed and another is given.
    """
    count = len(source)
    if isinstance(order, str):
        # Asked for by name: of one that hands on what another has, the type says nothing.
        stored = not of_whole_tissues(source) and callable(getattr(source, "storage_blocks", None))
        if order == "blocked" and stored and count:
            blocks = source.storage_blocks(np.arange(count))
            mixed = _AT_ONCE // max(source.tile_bytes, 1)
            # A power of two: batches mostly are, and then fill what is mixed without a rest.
            mixed = 1 << max(min(mixed, _MOST_MIXED), 1).bit_length() - 1
            return BlockOrder(blocks, seed or 0, epoch or 0, mixed)
        return TileOrder(count, order, seed or 0, epoch or 0)
    if not isinstance(getattr(order, "over", None), int):
        msg = (
            f"order must be one of {get_args(OrderKind)}, or a TileOrder, BlockOrder, DrawnOrder or "
            f"WeightedOrder, got {type(order).__name__}; to read rows that you name, in their order, "
            "call read_batch(rows) of the dataset"
        )
        raise InvalidInputError(msg)
    if order.over != count:
        msg = f"the order is over {order.over} tiles, the source has {count}"
        raise InvalidInputError(msg)
    if seed is not None or epoch is not None:
        msg = f"seed={seed} and epoch={epoch} are given beside an order that has its own; leave them out"
        raise InvalidInputError(msg)
    return order


def plan_of(
    order: Order, batch_size: int, rank: int, world_size: int, *, drop_last: bool
) -> tuple[Order, BatchPlan | SharedPlan]:
    """Return the batches of a rank, and the order that they are cut from.

    Of blocks each rank has its own; of any other order ranks take turns, and so of batches of one,
    of which all must have equally many.

    Raises
    ------
    InvalidInputError
        If there is no such rank, or the ranks cannot have equally many batches.
    """
    if not isinstance(order, BlockOrder) or batch_size == 1 or world_size <= 1:
        plan = BatchPlan(order.count, batch_size, rank, world_size, drop_last)
        return order, plan
    order = order.shared(world_size)
    return order, SharedPlan(
        order.count, order.share_sizes, batch_size, rank, world_size, drop_last
    )


def span_of(plan: BatchPlan | SharedPlan, order: Order, step: int) -> tuple[int, int]:
    """Return the half-open interval of positions of an order that make a batch."""
    if isinstance(plan, SharedPlan):
        return plan.span(step, cast("BlockOrder", order).share(plan.rank))
    return plan.span(step)


def together(order: Order, plan: BatchPlan | SharedPlan) -> int:
    """Return how many batches are read at once: those whose tiles share chunks."""
    if not isinstance(order, BlockOrder):
        return 1
    ranks = 1 if isinstance(plan, SharedPlan) else plan.world_size
    return max(1, order.mixed // (plan.batch_size * ranks))
