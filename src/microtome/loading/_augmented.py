"""`AugmentedDataset`: tiles of a dataset, turned and changed, otherwise in every epoch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.augmentation import Augmentation, drawn_records, verified_augmentations
from microtome.cohort import parse_modality
from microtome.errors import InvalidInputError
from microtome.patching import checked_seed
from microtome.regions import ImageRegionData

from ._augmented_tile import changed_batch, changed_region, changed_samples, results_of
from ._items import ItemSource, gives_batches
from ._of_epochs import OfEpochs
from ._region_dataset import RegionDataset
from ._source import Batch, EpochTileSource, TileSource
from ._state import standardization_of

__all__ = ["AugmentedDataset"]

_IHC = "ihc"  # stands for every marker, as in the options of datasets


class AugmentedDataset(OfEpochs):
    """Tiles of a dataset, turned and changed: those of a cohort's dataset, for training.

    What is done to tile `i` is a function of (seed, epoch, `i`), whoever asks, in whatever batch. It
    is recorded in the tile's `additional_metadata` as `augmentation`, by which
    `microtome.augmentation.undo` takes it back. Masks in the metadata (`tissue_mask`, `cell_mask`) are
    turned with the pixels; places stay those of the tile as it lies in its image.

    A tile of several modalities (`ComposedImagingDataset`, `SporaDataset`) is turned alike in all of
    them, and so with every augmentation that also changes targets. Any other is drawn for each modality by
    itself: what it draws does not depend on which others there are.

    Everything else is the dataset's: its length, columns, orders, channels. It is a source for
    `TileLoader`, which tells the epoch, for `RegionDataModule`, and for torch's `DataLoader`.

    Parameters
    ----------
    dataset
        A dataset of a cohort or of several, or another source that gives batches of float32, or samples;
        of tuples, the first is the input and the others are its targets. A `RegionDataset` has
        `augmentations=` of its own.
    augmentations
        What is done, in order.
    seed
        Chooses what they draw.
    modality_augmentations
        What else is done to one modality, afterwards, by its name, such as ``{"imc":
        [ChannelDropout()]}``; ``"ihc"`` stands for every marker. Of datasets of several modalities.

    Raises
    ------
    InvalidInputError
        If the dataset gives neither batches nor samples, the augmentations are none, or would turn one
        modality and not the others.
    UnknownNameError
        If there is no such modality.

    Examples
    --------
    >>> from microtome import DihedralAugmentation, TileLoader
    >>> turned = AugmentedDataset(tiles, [DihedralAugmentation()])  # doctest: +SKIP
    >>> loader = TileLoader(turned, 64)  # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: TileSource | EpochTileSource | ItemSource,
        augmentations: Sequence[Augmentation],
        *,
        seed: int = 0,
        modality_augmentations: Mapping[str, Sequence[Augmentation]] | None = None,
    ) -> None:
        self._dataset: Any = dataset
        super().__init__(seed)
        if isinstance(dataset, RegionDataset):
            msg = "a RegionDataset is made with augmentations= of its own; give them there"
            raise InvalidInputError(msg)
        batches, items = (hasattr(dataset, n) for n in ("read_batch", "__getitems__"))
        if not batches and not items:
            msg = (
                f"{type(dataset).__name__} gives neither batches (read_batch) nor samples (__getitems__) "
                "that could be augmented"
            )
            raise InvalidInputError(msg)
        self._batches = gives_batches(dataset)
        self._augmentations = verified_augmentations(augmentations)
        self._by_modality = self._verified(modality_augmentations or {})

    def _verified(
        self, given: Mapping[str, Sequence[Augmentation]]
    ) -> dict[str, tuple[Augmentation, ...]]:
        if given and self._batches:
            msg = (
                f"modality_augmentations are of datasets of several modalities, and a "
                f"{type(self._dataset).__name__} is of one: give them in augmentations"
            )
            raise InvalidInputError(msg)
        found: dict[str, tuple[Augmentation, ...]] = {}
        for name, asked in given.items():
            own = verified_augmentations(asked)
            verified_augmentations([*self._augmentations, *own])
            turning = [each.name for each in own if each.geometric]
            if turning:
                msg = (
                    f"modality_augmentations[{name!r}] would turn ({', '.join(turning)}) one modality and not "
                    "the others; give what moves pixels in augmentations, which turn all alike"
                )
                raise InvalidInputError(msg)
            found[name if name == _IHC else parse_modality(name).name] = own
        return found

    @property
    def dataset(self) -> Any:
        """What is augmented."""
        return self._dataset

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """What is done to tiles, in order."""
        return self._augmentations

    @property
    def gives_batches(self) -> bool:
        """Whether it has batches of tiles (`read_batch`), or samples of several modalities alone."""
        return self._batches

    @property
    def standardization(self) -> str:
        """How pixels are made, augmentations included: what a loader compares when it resumes."""
        done = f"{list(self._augmentations)!r}"
        if self._by_modality:
            done += f" and {self._by_modality!r}"
        # A function is written with its place in memory, which is another in every process.
        done = re.sub(r" at 0x[0-9a-f]+", "", done)
        return f"{standardization_of(self._dataset)}, then {done} with seed {self._seed}"

    @property
    def epoch(self) -> int:
        """The epoch whose tiles are read where none is named: of draws, that of the dataset."""
        return self._dataset.epoch if self._drawn else self._epoch

    def _stand_at(self, epoch: int) -> None:
        super()._stand_at(epoch)
        if self._drawn:
            self._dataset.set_epoch(epoch)

    @property
    def _drawn(self) -> bool:
        """Whether the dataset has an epoch of its own."""
        return callable(getattr(self._dataset, "set_epoch", None)) and hasattr(
            self._dataset, "epoch"
        )

    def __len__(self) -> int:
        return len(self._dataset)

    def read_batch(self, rows: ArrayLike, *, epoch: int | None = None) -> Batch:
        """Read tiles into one batch.

        Parameters
        ----------
        rows
            Numbers of tiles, (n,).
        epoch
            Which epoch's; that of `set_epoch` by default.

        Raises
        ------
        InvalidInputError
            If tiles are of several modalities, which have no one array.
        """
        if not self._batches:
            msg = (
                f"a {type(self._dataset).__name__} gives samples, not batches: index it, or load it with "
                "TileLoader(..., collate='list', 'panel' or 'pad')"
            )
            raise InvalidInputError(msg)
        number, asked = self._number(epoch), np.asarray(rows, np.int64)
        found: Any = self._dataset.read_batch(asked, **self._told(number))
        sides: list[ImageRegionData[Any]] = (
            [found] if isinstance(found, ImageRegionData) else list(found)
        )
        records = self._records(self._rows(asked), number, sides[0].data.shape[1:])
        made = [
            changed_batch(side, records, self._steps(target=place > 0))
            for place, side in enumerate(sides)
        ]
        return made[0] if isinstance(found, ImageRegionData) else tuple(made)

    def __getitem__(self, index: int) -> Any:
        """Return one tile."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int], *, epoch: int | None = None) -> list[Any]:
        """Return tiles as the dataset gives them, changed."""
        number, rows = self._number(epoch), self._rows(np.asarray(indices, np.int64))
        samples: list[Any] = self._dataset.__getitems__(list(indices), **self._told(number))
        composed = [at for at, sample in enumerate(samples) if results_of(sample) is not None]
        if len(composed) == len(samples):
            return changed_samples(
                samples,
                rows,
                plan=self._plan,
                shared=len(self._augmentations),
                seed=self._seed,
                epoch=number,
            )
        return [self._one(sample, row, number) for sample, row in zip(samples, rows, strict=True)]

    def _one(self, sample: Any, row: NDArray[np.int64], epoch: int) -> Any:
        """Return a tile of one modality, or an input and its targets, changed."""
        alone = isinstance(sample, ImageRegionData)
        sides: list[Any] = [sample] if alone else list(sample)
        if not all(isinstance(side, ImageRegionData) for side in sides):
            msg = (
                f"{type(self._dataset).__name__} gives samples of {type(sample).__name__}; what is augmented are "
                "regions, tuples of them, or tiles of several modalities"
            )
            raise InvalidInputError(msg)
        # Tiles may differ in their channels: each draws by itself, which is the same.
        (record,) = self._records(row[None], epoch, sides[0].data.shape)
        done = [
            changed_region(side, record, self._steps(target=place > 0))
            for place, side in enumerate(sides)
        ]
        return done[0] if alone else tuple(done)

    def _number(self, epoch: int | None) -> int:
        return self.epoch if epoch is None else checked_seed(epoch, "epoch")

    def _told(self, epoch: int) -> dict[str, int]:
        return {"epoch": epoch} if getattr(self._dataset, "takes_epoch", False) is True else {}

    def _rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(rows < 0, rows + len(self), rows)

    def _records(
        self, rows: NDArray[np.int64], epoch: int, shape: tuple[int, ...]
    ) -> list[dict[str, Any]]:
        return drawn_records(self._augmentations, rows, self._seed, epoch, shape)

    def _steps(self, *, target: bool) -> list[Augmentation]:
        return [each for each in self._augmentations if each.targets or not target]

    def _plan(self, modality: str) -> Sequence[Augmentation]:
        own = self._by_modality.get(modality, ())
        if not own and modality.startswith(f"{_IHC}_"):
            own = self._by_modality.get(_IHC, ())
        return (*self._augmentations, *own)

    def __getattr__(self, name: str) -> Any:
        if name == "_dataset":  # not yet there while one is unpickled
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __repr__(self) -> str:
        return f"AugmentedDataset({self._dataset!r}, {list(self._augmentations)!r})"
