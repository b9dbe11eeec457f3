"""A loader where torch's own `DataLoader`, or torchdata's stateful one, is what is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

from microtome.errors import DependencyError, InvalidInputError
from microtome.regions import ImageRegionData

from ._loader import TileLoader
from ._samples import refuse

__all__ = ["iterable_dataset"]

if TYPE_CHECKING:
    from torch.utils.data import IterableDataset


class LoadedBatch(ImageRegionData[Any]):
    """A batch as a `DataLoader` is given it: one that torch would stack with others is refused."""


def _whole(found: Any) -> Any:
    """Mark batches for what they are, whatever they are parts of."""
    if isinstance(found, ImageRegionData):
        return LoadedBatch(*cast("ImageRegionData[Any]", found))
    if type(found) is tuple:
        return tuple(map(_whole, cast("tuple[Any, ...]", found)))
    return found


def _marked(loader: TileLoader) -> Iterator[Any]:
    # No name for a batch, as in the loader: the consumer decides how long it lives.
    with closing(cast("Any", iter(loader))) as batches:
        yield from map(_whole, batches)


_WHOLE = (
    "a TileLoader gives whole batches, and this DataLoader would stack several of them: make it with "
    "batch_size=None, and give the TileLoader the batch_size"
)


def iterable_dataset(loader: TileLoader) -> IterableDataset[Any]:
    """Return a loader as a torch `IterableDataset` of whole batches.

    For code that insists on a `DataLoader`: give it with ``batch_size=None`` and ``num_workers=0``.
    The loader's own threads read ahead; a worker process would repeat the whole epoch, and is
    refused, and so is a `DataLoader` that would stack batches. It can be pickled where the loader's source can. `state_dict` and `load_state_dict` are the loader's,
    as torchdata's `StatefulDataLoader` asks for them.

    Raises
    ------
    DependencyError
        If torch is not installed.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> tiles = iterable_dataset(TileLoader(dataset, 64))  # doctest: +SKIP
    >>> for batch in DataLoader(tiles, batch_size=None):  # doctest: +SKIP
    ...     ...
    """
    try:
        from torch.utils.data import IterableDataset, get_worker_info
    except ImportError:
        msg = "torch is not installed: install the extra microtome[torch], or iterate over the loader itself"
        raise DependencyError(msg) from None

    refuse(LoadedBatch, _WHOLE)

    class Batches(IterableDataset[Any]):
        """The batches of a loader."""

        _chosen: int | None = None  # the epoch that was set since batches were last asked for

        def __iter__(self) -> Iterator[Any]:
            if get_worker_info() is not None:
                msg = (
                    "a TileLoader reads with threads of its own, and each worker process would read the "
                    "whole epoch: use num_workers=0, or give DataLoader the dataset itself with a sampler"
                )
                raise InvalidInputError(msg)
            self._chosen = None
            return _marked(loader)

        def __len__(self) -> int:
            return len(loader)

        def __reduce__(self) -> Any:
            # The class is made where torch is there, and so is not found by its name.
            return iterable_dataset, (loader,)

        def set_epoch(self, epoch: int) -> None:
            """Choose the epoch that the next iteration reads."""
            loader.set_epoch(epoch)
            self._chosen = epoch

        def state_dict(self) -> dict[str, Any]:
            """Return where the loader stands."""
            return dict(loader.state_dict())

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            """Continue where another stood; after the end of an epoch, in the one that was set."""
            chosen = self._chosen
            loader.load_state_dict(state)
            # torchdata's loader says so late: when it begins to read, and the next epoch has been set.
            if chosen is not None and state["batch"] == state["batches"]:
                loader.set_epoch(chosen)

    return Batches()
