"""What datasets share whose items are other ones in every epoch: the epoch, and a state to go on from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from microtome.errors import InvalidInputError
from microtome.patching import checked_seed

from ._state import tiles_of

__all__ = ["OfEpochs"]

_log = logging.getLogger(__name__)


class OfEpochs:
    """A dataset that stands at an epoch, which is read where none is named.

    Parameters
    ----------
    seed
        Of what is drawn anew in every epoch.
    """

    takes_epoch: Literal[True] = True
    """`TileLoader` tells the epoch of its order with every read."""

    def __init__(self, seed: int) -> None:
        self._seed = checked_seed(seed)
        self._epoch = 0
        self._was_set = False  # whether somebody chose the epoch
        self._tiles: str | None = None

    @property
    def seed(self) -> int:
        """Chooses what augmentations draw."""
        return self._seed

    @property
    def epoch(self) -> int:
        """The epoch whose items are read where none is named."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose items are read where none is named.

        `TileLoader` names it. Workers of torch's `DataLoader` learn it when they start, so that
        they have to start anew each epoch (`persistent_workers=False`, the default).

        Raises
        ------
        InvalidInputError
            If it is no whole number of at least 0.
        """
        self._stand_at(checked_seed(epoch, "epoch"))
        self._was_set = True

    def _stand_at(self, epoch: int) -> None:
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and what tells these items from others: numbers and strings.

        torchdata's `StatefulDataLoader` keeps it beside where its sampler stands. What a loader of this
        library keeps is in `TileLoader.state_dict`.
        """
        if self._tiles is None:  # of a long table it takes a second
            self._tiles = tiles_of(self)
        return {"epoch": self.epoch, "seed": self._seed, "tiles": self._tiles}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand at the epoch of a state; one that was chosen with `set_epoch` stays.

        torchdata's loader gives the state when it begins to read, after the training loop has chosen the
        epoch: that of the state, or the next where the state is of the end of one.

        Raises
        ------
        InvalidInputError
            If it is no such state, or of other items.
        """
        if not isinstance(state, Mapping) or {*state} != {"epoch", "seed", "tiles"}:  # pyright: ignore[reportUnnecessaryIsInstance] - what a checkpoint holds
            msg = f"a state is from state_dict() of a {type(self).__name__}, got {state!r}"
            raise InvalidInputError(msg)
        own = self.state_dict()
        for name, what in (("seed", "augmentations of seed {}"), ("tiles", "tiles {}")):
            if state[name] != own[name]:
                msg = (
                    f"the state is of a dataset with {what.format(state[name])}, this one has "
                    f"{own[name]}: go on with the dataset that it was made with"
                )
                raise InvalidInputError(msg)
        epoch = checked_seed(state["epoch"], "epoch")
        if not self._was_set:
            self._stand_at(epoch)
        elif epoch != self.epoch:
            _log.info("goes on at epoch %d, which was set; the state has %d", self.epoch, epoch)
