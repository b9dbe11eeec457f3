"""Whose epoch counts where a source has one of its own: that of the loader, which the source is told."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from microtome.errors import InvalidInputError

__all__ = ["agree", "epoch_set", "tell"]

# What a loader last told each source. Several loaders may read one, at epochs of their own: a source
# that stands elsewhere than it was told was set by hand.
_told: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def epoch_set(source: Any) -> int | None:
    """Return the epoch that a source was set to by hand; None where a loader told it, or it has none."""
    own = _epoch_of(source)
    return None if own is None or own == _last_told(source) else own


def _last_told(source: Any) -> int | None:
    try:
        return _told.get(source)
    except TypeError:
        return None


def _epoch_of(source: Any) -> int | None:
    """Return the epoch that a source is set to; None where it is told one with every read, or has none."""
    has = getattr(source, "takes_epoch", False) is True and callable(
        getattr(source, "set_epoch", None)
    )
    epoch = getattr(source, "epoch", None) if has else None
    return epoch if isinstance(epoch, int) else None


def tell(source: Any, epoch: int) -> None:
    """Set the epoch of a source, if it has one."""
    if _epoch_of(source) is None:
        return
    source.set_epoch(epoch)
    # What cannot be kept track of is not compared.
    with suppress(TypeError):
        _told[source] = epoch


def agree(source: Any, epoch: int) -> None:
    """Set the epoch of a source to that of a loader that begins to read it.

    Raises
    ------
    InvalidInputError
        If the source was set to another by hand, which a loader would not follow.
    """
    own = _epoch_of(source)
    if own is None:
        return
    told = _last_told(source)
    if told is not None and own not in {told, epoch}:
        msg = (
            f"the {type(source).__name__} was set to epoch {own}, and the loader is at epoch {epoch}: a "
            f"loader tells its source the epoch, so set the loader's, set_epoch({own})"
        )
        raise InvalidInputError(msg)
    tell(source, epoch)
