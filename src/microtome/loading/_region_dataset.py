"""`RegionDataset`: the patches of a patching, read, normalized and augmented, by number."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.augmentation import Augmentation, drawn_records, verified_augmentations
from microtome.errors import InvalidInputError, OutOfRangeError
from microtome.image import Channels
from microtome.normalization import NoNormalization, Normalization
from microtome.patching import Patching, checked_seed
from microtome.regions import (
    ImageRegionData,
    Padding,
    Stack,
    Windows,
    collate_regions,
    columns_fingerprint,
    data_shape_of,
    decollate_regions,
    paired,
)
from microtome.sources import open_stacks

from ._by_place import PlacedRows
from ._of_epochs import OfEpochs
from ._region_checks import (
    verified_normalization,
    verified_patching,
    verify_patches,
)
from ._region_side import RegionSide, verify_padding
from ._samples import RegionSample
from ._source import Batch
from ._tensors import converter

__all__ = ["RegionDataset"]


class RegionDataset(OfEpochs):
    """Patches of images for training, validation and prediction, with their targets where given.

    Patch `i` of an epoch is a function of (seed, epoch, `i`): where it lies (that is the patching's),
    how it is turned and changed. So it is the same in any thread, process and batch.

    For `TileLoader` it is a source whose patches are others in every epoch; for torch's `DataLoader`
    a dataset (`collate_fn=RegionDataset.collate`, workers by ``"spawn"``). Pixels are read, turned,
    normalized and changed in one go, a batch at a time.

    ``dataset[i]`` is a tuple, ``(input,)`` or with targets ``(input, target)``; a batch without
    targets is the input alone.

    Parameters
    ----------
    images
        Images and stacks of the same channels and dtype, or whatever `open_stacks` opens.
    patching
        Which patches there are; it is made of the images' shapes on the level that is read
        (`data_shape_of`), and refused with other images.
    targets
        One an image, pixel for pixel on it; None without targets.
    normalization
        What is done to stored pixels; by default they become float32 and nothing else.
    target_normalization
        Likewise for targets; by default that of `normalization`, where it has statistics of targets,
        else targets stay as they are, in their own dtype (labels).
    augmentations
        What is done to patches, in order.
    channels, target_channels
        Channels by number or name; None for all.
    level
        Index of the level that patches are counted in.
    padding
        What stands outside an image where a patch hangs over: a number, which pixels have after
        normalization, or ``"edge"`` or ``"reflect"``.
    seed
        Chooses what augmentations draw.
    by_place
        Whether patches are numbered by where they lie instead of as the patching does: then
        ``TileLoader(order="blocked")`` reads neighbours together whatever the patching.

    Raises
    ------
    InvalidInputError
        If images, targets, patching, normalization, augmentations and padding do not fit each other.
    OutOfRangeError
        If there is no such level or channel, or the patching speaks of images that are not there.
    """

    def __init__(  # noqa: PLR0913 - the parts of a dataset, flat, each with a default
        self,
        images: Any,
        patching: Patching,
        *,
        targets: Any = None,
        normalization: Normalization | None = None,
        target_normalization: Normalization | None = None,
        augmentations: Sequence[Augmentation] = (),
        channels: Channels | None = None,
        target_channels: Channels | None = None,
        level: int = 0,
        padding: Padding = 0,
        seed: int = 0,
        by_place: bool = False,
    ) -> None:
        super().__init__(seed)
        own = verified_normalization(normalization) or NoNormalization()
        other = verified_normalization(target_normalization, "target_normalization")
        self._patching = verified_patching(patching)
        opened = open_stacks(images)
        self._augmentations = verified_augmentations(augmentations)
        self._level = level
        self._padding: Padding = padding
        self._input = RegionSide(
            opened, channels, own, self._augmentations, level=level, padding=padding
        )
        self._target = None
        if targets is not None:
            self._target = self._side_of_targets(
                opened,
                open_stacks(targets),
                target_channels,
                own.target if other is None else other,
                padding,
            )
        elif other is not None or target_channels is not None:
            msg = "target_normalization and target_channels are for targets, and none are given"
            raise InvalidInputError(msg)
        self._placed, self._by_place = PlacedRows(patching), by_place
        verify_patches(
            opened,
            patching,
            self._augmentations,
            level=level,
            seed=self._seed,
            channels=self._input.count,
        )

    def _side_of_targets(
        self,
        images: Sequence[Stack],
        targets: Sequence[Stack],
        channels: Channels | None,
        normalization: Normalization | None,
        padding: Padding,
    ) -> RegionSide:
        paired(images, targets, level=self._level)
        steps = tuple(a for a in self._augmentations if a.targets)
        if normalization is None and any(not step.geometric for step in steps):
            msg = (
                f"{[a.name for a in steps if not a.geometric]} change the pixels of targets, which "
                "are not normalized and keep their dtype; give target_normalization=NoNormalization() "
                "to have them as float32"
            )
            raise InvalidInputError(msg)
        side = RegionSide(
            targets, channels, normalization, steps, level=self._level, padding=padding
        )
        verify_padding(padding, side)
        return side

    def with_normalization(
        self,
        normalization: Normalization | None,
        target_normalization: Normalization | None = None,
    ) -> RegionDataset:
        """Return the same patches, normalized otherwise.

        Parameters
        ----------
        normalization, target_normalization
            As when a dataset is made.
        """
        target = self._target
        made = RegionDataset(
            list(self.images),
            self._patching,
            targets=None if target is None else list(target.images),
            normalization=normalization,
            target_normalization=target_normalization,
            augmentations=self._augmentations,
            channels=self._input.channels,
            target_channels=None if target is None else target.channels,
            level=self._level,
            padding=self._padding,
            seed=self._seed,
            by_place=self._by_place,
        )
        made._epoch, made._was_set = self._epoch, self._was_set
        return made

    # -- what there is

    @property
    def images(self) -> tuple[Stack, ...]:
        """What patches are cut from."""
        return self._input.images

    @property
    def targets(self) -> tuple[Stack, ...] | None:
        """Their targets, or None."""
        return None if self._target is None else self._target.images

    @property
    def patching(self) -> Patching:
        """Which patches there are."""
        return self._patching

    @property
    def normalization(self) -> Normalization | None:
        """What is done to stored pixels."""
        return self._input.normalization

    @property
    def target_normalization(self) -> Normalization | None:
        """What is done to stored targets; None where they stay as they are."""
        return None if self._target is None else self._target.normalization

    @property
    def channels(self) -> Channels | None:
        """Channels of the images that are read; None for all."""
        return self._input.channels

    @property
    def target_channels(self) -> Channels | None:
        """Channels of the targets that are read; None for all."""
        return None if self._target is None else self._target.channels

    @property
    def level(self) -> int:
        """Index of the level that patches are counted in."""
        return self._level

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """What is done to patches, in order."""
        return self._augmentations

    # -- patches

    def __len__(self) -> int:
        return self._patching.n_patches

    def __getitem__(self, index: int) -> tuple[ImageRegionData[Any], ...]:
        """Return one patch, ``(input,)`` or ``(input, target)``; from the end where negative.

        Raises
        ------
        OutOfRangeError
            If there is no such patch.
        InvalidInputError
            If it is not asked for by number.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[ImageRegionData[Any], ...]]:
        """Return patches, read together; torch asks for a batch like this."""
        rows = [self._row(index) for index in indices]
        if not rows:
            return []
        batch = self.read_batch(np.asarray(rows, np.int64))
        sides = [batch] if isinstance(batch, ImageRegionData) else list(batch)
        RegionSample.refused_by_torch()
        return list(map(RegionSample, zip(*map(decollate_regions, sides), strict=True)))

    def read_batch(self, rows: ArrayLike, *, epoch: int | None = None) -> Batch:
        """Read patches into one batch.

        Parameters
        ----------
        rows
            Numbers of patches, (n,).
        epoch
            Which epoch's; that of `set_epoch` by default.

        Returns
        -------
        The patches, collated, ``(input, target)`` where there are targets; `data` is
        (n, C, (Z), Y, X), float32 where it is normalized. `additional_metadata` of each has
        `augmentation` and `normalization`.

        Raises
        ------
        OutOfRangeError
            If there is no such patch.
        InvalidInputError
            If numbers are not whole, or there is none.
        """
        number = self._epoch if epoch is None else checked_seed(epoch, "epoch")
        chosen = self._chosen(rows, number)
        windows = self._windows(chosen, number)
        columns = self._patching.columns(chosen, epoch=number)
        records = self._records(chosen, number)
        patches = self._input.read(windows, columns, records)
        if self._target is None:
            return patches
        return patches, self._target.read(windows, columns, records)

    def storage_blocks(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the block that each patch lies in, (n,): those of one share chunks.

        `TileLoader` asks for it where its order is ``"blocked"``. It holds in every epoch where
        patches are numbered by place; else for those that do not move far from epoch to epoch, as
        all but those of `RandomPatching`.

        Parameters
        ----------
        rows
            Numbers of patches, (n,).
        """
        return self._placed.blocks(np.asarray(rows, np.int64), placed=self._by_place)

    @property
    def rows_fingerprint(self) -> str:
        """Sixteen letters that tell these patches, those of epoch 0, from others of the same number."""
        found = self._windows(self._chosen(np.arange(len(self)), 0), 0)
        # Shapes and not paths, which are others on another machine.
        shapes = [data_shape_of(image, level=self._level) for image in self.images]
        return columns_fingerprint((*shapes, *found.size), found.image, found.start)

    @property
    def tile_bytes(self) -> int:
        """About how many bytes a patch has as a batch holds it, its target included."""
        sides = [self._input] if self._target is None else [self._input, self._target]
        return sum(side.bytes_of(self._patching.patch_size) for side in sides)

    @staticmethod
    def collate(samples: Sequence[tuple[ImageRegionData[Any], ...]]) -> Batch:
        """Put samples together as `TileLoader` does, tensors where torch is there.

        For torch's `DataLoader`, whose own rule cannot collate what is None and turns metadata
        inside out.
        """
        convert = converter(None, None)
        sides = [collate_regions(side) for side in zip(*samples, strict=True)]
        made = [side._replace(data=convert(side.data)) for side in sides]
        return made[0] if len(made) == 1 else tuple(made)

    def _chosen(self, rows: ArrayLike, epoch: int) -> NDArray[np.int64]:
        chosen = np.atleast_1d(np.asarray(rows))
        if not chosen.size or chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            msg = f"patches are asked for by number, got {chosen.dtype} of shape {chosen.shape}"
            raise InvalidInputError(msg)
        chosen = chosen.astype(np.int64, copy=False)
        wrong = chosen[(chosen < 0) | (chosen >= len(self))]
        if wrong.size:
            msg = f"no patch {wrong[0]}, there are {len(self)}"
            raise OutOfRangeError(msg)
        return self._placed.patches(chosen, epoch) if self._by_place else chosen

    def _windows(self, rows: NDArray[np.int64], epoch: int) -> Windows:
        found = self._patching.windows(rows, epoch=epoch)
        return Windows(found.image, found.start, found.size, self._level, found.sample)

    def _records(self, rows: NDArray[np.int64], epoch: int) -> list[dict[str, Any]]:
        """Draw what is done to each patch."""
        shape = (self._input.count, *self._patching.patch_size)
        return drawn_records(self._augmentations, rows, self._seed, epoch, shape)

    def _row(self, index: Any) -> int:
        try:
            row = operator.index(index)
        except TypeError as error:
            msg = f"a patch is asked for by its number, got {index!r}"
            raise InvalidInputError(msg) from error
        if not -len(self) <= row < len(self):
            msg = f"no patch {row}, there are {len(self)}"
            raise OutOfRangeError(msg)
        return row % len(self)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self._patching.patch_size))
        pairs = "images" if self._target is None else "images with targets"
        return f"RegionDataset({len(self)} patches of {size} of {len(self.images)} {pairs})"
