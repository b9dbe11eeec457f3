"""What an augmentation is, and where its random numbers come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.sampling import drawn

__all__ = ["Augmentation", "Draws", "drawn_records", "verified_augmentations"]

# Random numbers of one patch lie so far apart from those of the next.
_DRAWS = 1 << 16
# Tells these streams from those by which patches are placed, of the same seed.
_STREAM = 2


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers of one augmentation in one epoch, counted, not drawn in turn.

    Parameters
    ----------
    seed
        At least 0.
    epoch
        At least 0.
    number
        Place of the augmentation among those of a dataset: each has a stream of its own.

    Examples
    --------
    >>> draws = Draws(seed=0, epoch=3, number=0)
    >>> together, alone = draws.uniform([7, 8], 2), draws.uniform([8], 2)
    >>> bool((together[1] == alone[0]).all())
    True
    """

    seed: int
    epoch: int
    number: int
    _keys: NDArray[np.uint64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        key = (self.epoch, _STREAM, self.number)
        sequence = np.random.SeedSequence(self.seed, spawn_key=key)
        object.__setattr__(self, "_keys", sequence.generate_state(2, np.uint64))

    def uniform(self, rows: NDArray[np.int64] | Sequence[int], count: int) -> NDArray[np.float64]:
        """Return so many numbers for each patch, (n, count), from 0 to below 1.

        Parameters
        ----------
        rows
            Numbers of patches, (n,).
        count
            How many, at most 65,536.
        """
        place = np.asarray(rows, np.int64)[:, None] * _DRAWS + np.arange(count)
        numbers = drawn(place.reshape(-1), self._keys).reshape(place.shape) >> np.uint64(11)
        return numbers.astype(np.float64) * 2.0**-53

    def generator(self, row: int) -> np.random.Generator:
        """Return numpy's generator for one patch, in its first state."""
        key = (self.epoch, _STREAM, self.number, int(row))
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


@runtime_checkable
class Augmentation(Protocol):
    """One change of a patch.

    What is drawn is plain numbers, which are recorded with the patch; from them alone follows what
    is done to its pixels, and how it is taken back.
    """

    @property
    def name(self) -> str:
        """What it is recorded as."""
        ...

    @property
    def geometric(self) -> bool:
        """Whether it moves pixels and changes none; such ones are done before pixels are copied."""
        ...

    @property
    def targets(self) -> bool:
        """Whether a target is changed like its input."""
        ...

    def draw(self, rows: NDArray[np.int64], draws: Draws, shape: tuple[int, ...]) -> Sequence[Any]:
        """Decide what is done to patches.

        Parameters
        ----------
        rows
            Numbers of the patches, (n,).
        draws
            Where random numbers come from.
        shape
            Shape of a patch, C(Z)YX.

        Returns
        -------
        What is recorded, one entry a patch: numbers, strings, lists and dictionaries.
        """
        ...

    def apply(self, pixels: NDArray[Any], record: Any) -> NDArray[Any]:
        """Return a patch, changed; pixels may be changed in place.

        Parameters
        ----------
        pixels
            C(Z)YX; float32 unless `geometric`.
        record
            From `draw`.
        """
        ...

    def undo(self, pixels: Any, record: Any) -> Any:
        """Return pixels as they were before; a copy or a view.

        Parameters
        ----------
        pixels
            C(Z)YX, an array or a tensor.
        record
            From `draw`.
        """
        ...


def drawn_records(
    augmentations: Sequence[Augmentation],
    rows: NDArray[np.int64],
    seed: int,
    epoch: int,
    shape: tuple[int, ...],
) -> list[dict[str, Any]]:
    """Draw what is done to patches; one record a patch, by the augmentations' names.

    Parameters
    ----------
    augmentations
        What is done, in order.
    rows
        Numbers of the patches, (n,).
    seed, epoch
        Choose the draws.
    shape
        Of a patch, (C, (Z), Y, X).
    """
    columns = {
        each.name: each.draw(rows, Draws(seed, epoch, number), shape)
        for number, each in enumerate(augmentations)
    }
    return [{name: drawn[at] for name, drawn in columns.items()} for at in range(len(rows))]


def verified_augmentations(augmentations: Sequence[Augmentation]) -> tuple[Augmentation, ...]:
    """Return augmentations in their order.

    Raises
    ------
    InvalidInputError
        If they are no list, one is none, or two have one name: what was done could not be told from the record.
    """
    if not isinstance(augmentations, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
        msg = f"augmentations are a list, got {augmentations!r}; give [{augmentations!r}]"
        raise InvalidInputError(msg)
    found = tuple(augmentations)
    for each in found:
        if isinstance(each, type):
            msg = f"{each.__name__} is a class; give {each.__name__}()"
            raise InvalidInputError(msg)
        if not isinstance(each, Augmentation):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
            msg = (
                f"{type(each).__name__} is no augmentation; give a function as "
                "CustomAugmentation(name, function)"
            )
            raise InvalidInputError(msg)
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        msg = f"each augmentation is recorded by its name, so names differ; got {names}"
        raise InvalidInputError(msg)
    return found
