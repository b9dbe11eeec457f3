"""A loader where torch's own `DataLoader`, or torchdata's stateful one, is what is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from microtome.errors import DependencyError, InvalidInputError

from ._loader import TileLoader

__all__ = ["iterable_dataset"]

if TYPE_CHECKING:
    from torch.utils.data import IterableDataset


def iterable_dataset(loader: TileLoader) -> IterableDataset[Any]:
    """Return a loader as a torch `IterableDataset` of whole batches.

    For code that insists on a `DataLoader`: give it with ``batch_size=None`` and ``num_workers=0``.
    The loader's own threads read ahead; a worker process would repeat the whole epoch, and is
    refused. It can be pickled where the loader's source can. `state_dict` and `load_state_dict` are the loader's,
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

    class Batches(IterableDataset[Any]):
        """The batches of a loader."""

        def __iter__(self) -> Iterator[Any]:
            if get_worker_info() is not None:
                msg = (
                    "a TileLoader reads with threads of its own, and each worker process would read the "
                    "whole epoch: use num_workers=0, or give DataLoader the dataset itself with a sampler"
                )
                raise InvalidInputError(msg)
            return iter(loader)

        def __len__(self) -> int:
            return len(loader)

        def __reduce__(self) -> Any:
            # The class is made where torch is there, and so is not found by its name.
            return iterable_dataset, (loader,)

        def set_epoch(self, epoch: int) -> None:
            """Choose the epoch that the next iteration reads."""
            loader.set_epoch(epoch)

        def state_dict(self) -> dict[str, Any]:
            """Return where the loader stands."""
            return dict(loader.state_dict())

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            """Continue where another stood."""
            loader.load_state_dict(state)

    return Batches()
