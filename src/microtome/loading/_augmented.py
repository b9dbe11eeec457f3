"""`AugmentedDataset`: tiles of a dataset, turned and changed, otherwise in every epoch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.augmentation import Augmentation, drawn_records, verified_augmentations
from microtome.errors import InvalidInputError
from microtome.patching import checked_seed
from microtome.regions import ImageRegionData

from ._of_epochs import OfEpochs
from ._region_dataset import RegionDataset
from ._source import Batch, EpochTileSource, TileSource
from ._state import standardization_of

__all__ = ["AugmentedDataset"]

# What a tile's metadata may hold that lies pixel for pixel on it.
_ON_PIXELS = ("tissue_mask", "cell_mask")


class AugmentedDataset(OfEpochs):
    """Tiles of a dataset, turned and changed: those of a cohort's dataset, for training.

    What is done to tile `i` is a function of (seed, epoch, `i`), whoever asks, in whatever batch. It
    is recorded in the tile's `additional_metadata` as `augmentation`, by which
    `microtome.augmentation.undo` takes it back. Masks in the metadata (`tissue_mask`, `cell_mask`) are
    turned with the pixels; places stay those of the tile as it lies in its image.

    Everything else is the dataset's: its length, columns, orders, channels. It is a source for
    `TileLoader`, which tells the epoch, for `RegionDataModule`, and for torch's `DataLoader`.

    Parameters
    ----------
    dataset
        A dataset of one modality with a tile size, or another source that gives batches of float32;
        of tuples, the first is the input and the others are its targets. A `RegionDataset` has
        `augmentations=` of its own.
    augmentations
        What is done, in order.
    seed
        Chooses what they draw.

    Raises
    ------
    InvalidInputError
        If the dataset gives no batches, or the augmentations are none.

    Examples
    --------
    >>> from microtome import DihedralAugmentation, TileLoader
    >>> turned = AugmentedDataset(tiles, [DihedralAugmentation()])  # doctest: +SKIP
    >>> loader = TileLoader(turned, 64)  # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: TileSource | EpochTileSource,
        augmentations: Sequence[Augmentation],
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        if isinstance(dataset, RegionDataset):
            msg = "a RegionDataset is made with augmentations= of its own; give them there"
            raise InvalidInputError(msg)
        if not callable(getattr(dataset, "read_batch", None)):
            msg = (
                f"tiles are augmented in batches, and {type(dataset).__name__} gives none (no read_batch): "
                "augment datasets of one modality, or change its samples in the loader's collate="
            )
            raise InvalidInputError(msg)
        self._dataset: Any = dataset
        self._augmentations = verified_augmentations(augmentations)

    @property
    def dataset(self) -> Any:
        """What is augmented."""
        return self._dataset

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """What is done to tiles, in order."""
        return self._augmentations

    @property
    def standardization(self) -> str:
        """How pixels are made, augmentations included: what a loader compares when it resumes."""
        # A function is written with its place in memory, which is another in every process.
        done = re.sub(r" at 0x[0-9a-f]+", "", repr(list(self._augmentations)))
        return f"{standardization_of(self._dataset)}, then {done} with seed {self._seed}"

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
        """
        number = self._epoch if epoch is None else checked_seed(epoch, "epoch")
        asked = np.asarray(rows, np.int64)
        told = {"epoch": number} if getattr(self._dataset, "takes_epoch", False) is True else {}
        found: Any = self._dataset.read_batch(asked, **told)
        sides: list[ImageRegionData[Any]] = (
            [found] if isinstance(found, ImageRegionData) else list(found)
        )
        records = self._records(self._numbers(asked), number, sides[0].data.shape[1:])
        made = [self._changed(side, records, target=place > 0) for place, side in enumerate(sides)]
        return made[0] if isinstance(found, ImageRegionData) else tuple(made)

    def __getitem__(self, index: int) -> Any:
        """Return one tile."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int], *, epoch: int | None = None) -> list[Any]:
        """Return tiles as the dataset gives them, changed."""
        number = self._epoch if epoch is None else checked_seed(epoch, "epoch")
        asked = np.asarray(indices, np.int64)
        told = {"epoch": number} if getattr(self._dataset, "takes_epoch", False) is True else {}
        samples: list[Any] = self._dataset.__getitems__(list(indices), **told)
        made: list[Any] = []
        for row, sample in zip(self._numbers(asked), samples, strict=True):
            sides = [sample] if isinstance(sample, ImageRegionData) else list(sample)
            # Tiles may differ in their channels: each draws by itself, which is the same.
            (record,) = self._records(row[None], number, sides[0].data.shape)
            done = [self._one(side, record, target=place > 0) for place, side in enumerate(sides)]
            made.append(done[0] if isinstance(sample, ImageRegionData) else tuple(done))
        return made

    def _numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(rows < 0, rows + len(self), rows)

    def _records(
        self, rows: NDArray[np.int64], epoch: int, shape: tuple[int, ...]
    ) -> list[dict[str, Any]]:
        return drawn_records(self._augmentations, rows, self._seed, epoch, shape)

    def _steps(self, *, target: bool) -> list[Augmentation]:
        return [each for each in self._augmentations if each.targets or not target]

    def _changed(
        self, batch: ImageRegionData[Any], records: Sequence[Mapping[str, Any]], *, target: bool
    ) -> ImageRegionData[Any]:
        steps = self._steps(target=target)
        # Of its own: what a dataset gives may be memory that it keeps.
        made = np.empty_like(batch.data)
        for tile, out, record in zip(batch.data, made, records, strict=True):
            _apply(steps, tile, out, record)
        metadata = cast("Sequence[Mapping[str, Any]]", batch.additional_metadata)
        told = [_told(m, r, steps) for m, r in zip(metadata, records, strict=True)]
        return batch._replace(data=made, additional_metadata=cast("Any", told))

    def _one(
        self, region: ImageRegionData[Any], record: Mapping[str, Any], *, target: bool
    ) -> ImageRegionData[Any]:
        steps = self._steps(target=target)
        made = np.empty_like(region.data)
        _apply(steps, region.data, made, record)
        metadata = cast("Mapping[str, Any]", region.additional_metadata)
        return region._replace(
            data=made, additional_metadata=cast("Any", _told(metadata, record, steps))
        )

    def __getattr__(self, name: str) -> Any:
        if name == "_dataset":  # not yet there while one is unpickled
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __repr__(self) -> str:
        return f"AugmentedDataset({self._dataset!r}, {list(self._augmentations)!r})"


def _apply(
    steps: Sequence[Augmentation],
    tile: NDArray[Any],
    out: NDArray[Any],
    record: Mapping[str, Any],
) -> None:
    """Turn and change a tile into memory of its own."""
    done = tile
    for step in steps:
        if not step.geometric and done is not out:
            out[...] = done
            done = out
        result = step.apply(done, record[step.name])
        if result is not done and done is out:
            out[...] = result.copy() if np.may_share_memory(result, out) else result
        elif done is not out:
            done = result  # a view: nothing is copied for it yet
    if done is not out:
        out[...] = done


def _told(
    metadata: Mapping[str, Any], record: Mapping[str, Any], steps: Sequence[Augmentation]
) -> dict[str, Any]:
    """Return what is known of a tile: what was done to it, and masks as its pixels lie now."""
    told = dict(metadata)
    for key in _ON_PIXELS:
        if told.get(key) is None:
            continue
        mask = cast("NDArray[Any]", told[key])
        for step in steps:
            if step.geometric:
                mask = step.apply(mask[None], record[step.name])[0]
        told[key] = np.ascontiguousarray(mask)
    told["augmentation"] = {
        **told.get("augmentation", {}),
        **{step.name: record[step.name] for step in steps},
    }
    return told
