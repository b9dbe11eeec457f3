"""`RegionDataModule`: datasets of patches and tiles for Lightning, and their statistics in its checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Executor
from functools import cache
from importlib import import_module
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast, get_args

from microtome.errors import DependencyError, FormatError, InvalidInputError, NotFoundError
from microtome.normalization import (
    Kind,
    Normalization,
    fit_normalization,
    normalization_from_dict,
    plain_channels,
)

from ._items import Collate, ItemSource, reading
from ._loader import TileLoader
from ._moving import moved
from ._order import Order, OrderKind
from ._region_checks import verified_normalization
from ._region_dataset import RegionDataset
from ._source import EpochTileSource, TileSource
from ._state import channels_of, standardization_of, tiles_of

if TYPE_CHECKING:
    import torch

__all__ = ["RegionDataModule"]

Source: TypeAlias = TileSource | EpochTileSource | ItemSource
"""What a loader reads; a `RegionDataset` is one."""

_VERSION = 1
_STATE = "RegionDataModule"


class RegionDataModule:
    """Patches or tiles for training, validation and prediction, as a `LightningDataModule`.

    Its datasets are `RegionDataset`s, or anything else that `TileLoader` reads: datasets of a cohort, a
    `SporaDataset`. On several devices each reads its own part of an epoch. Batches are read by the threads of `TileLoader`. Lightning tells the epoch, so that a run that is
    resumed sees the patches that it would have seen; in the middle of an epoch, too. Statistics are
    fitted once, when first needed, and are part of every checkpoint: a run that goes on, and a
    prediction from a checkpoint, use those that the model was trained with.

    Parameters
    ----------
    train, val, predict
        The datasets; those that are None have no loader.
    batch_size
        Patches in a batch.
    normalization
        ``"mean_std"``, ``"quantile"``, ``"min_max"`` or ``"none"``, fitted on all pixels of the
        images of `train`; or a normalization. It is then that of all datasets, which are then
        `RegionDataset`s: those of a cohort standardize. By default each has its own.
    normalize_targets
        Whether statistics of targets are fitted as well; else targets stay as they are (labels).
    order
        Of `train`, as of `TileLoader`; validation and prediction are sequential.
    seed
        Chooses that order; of an order that has its own, it is the seed instead of that.
    collate
        How samples become a batch, as of `TileLoader`.
    prefetch, threads, cache_bytes
        As of `TileLoader`, of each loader.
    executor
        Where statistics are counted.

    Raises
    ------
    DependencyError
        If Lightning is not installed.
    InvalidInputError
        If there is no dataset, one is nothing that a loader reads, `normalization` is none, or it is for
        datasets that have their own. Where one is to be fitted and there is no
        `train`, it may still come from a checkpoint: it is missed when the first loader is made.
    """

    __signature__: ClassVar[Signature]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # What help() shows: __new__ takes whatever __init__ does.
        cls.__signature__ = _made_with(cls)

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:
        # Lightning asks for one of its own class, which is imported when one is made.
        return object.__new__(_for_lightning(cls))

    def __init__(  # noqa: PLR0913 - datasets and the settings of their loaders, flat
        self,
        train: Source | None = None,
        val: Source | None = None,
        predict: Source | None = None,
        *,
        batch_size: int = 32,
        normalization: Kind | Normalization | None = None,
        normalize_targets: bool = False,
        order: OrderKind | Order = "blocked",
        seed: int = 0,
        collate: Collate | None = None,
        prefetch: int = 2,
        threads: int | None = None,
        cache_bytes: int = 0,
        executor: Executor | None = None,
    ) -> None:
        super().__init__()
        if train is None and val is None and predict is None:
            msg = "there is no dataset: give train, val or predict"
            raise InvalidInputError(msg)
        if isinstance(normalization, str) and normalization not in get_args(Kind):
            msg = f"normalization is one of {get_args(Kind)} or a Normalization, got {normalization!r}"
            raise InvalidInputError(msg)
        verified_normalization(None if isinstance(normalization, str) else normalization)
        self._datasets: dict[str, Any] = {"train": train, "val": val, "predict": predict}
        for name, dataset in self._datasets.items():
            self._verify(name, dataset, normalization, collate)
        self._batch_size = batch_size
        self._wanted = normalization
        self._resolved = None if isinstance(normalization, str) else normalization
        self._normalize_targets = normalize_targets
        self._order: OrderKind | Order = order
        self._seed = seed
        self._reading = {
            "prefetch": prefetch,
            "threads": threads,
            "cache_bytes": cache_bytes,
            "collate": collate,
        }
        self._executor = executor
        self._loaders: dict[str, Any] = {}

    @staticmethod
    def _verify(name: str, dataset: Any, normalization: Any, collate: Collate | None) -> None:
        if dataset is None:
            return
        try:
            reading(dataset, collate)
        except InvalidInputError as error:
            msg = f"{name}: {error}"
            raise InvalidInputError(msg) from error
        if normalization is not None and not isinstance(dataset, RegionDataset):
            msg = (
                f"normalization={normalization!r} is of RegionDatasets, and {name} is a "
                f"{type(dataset).__name__}, whose pixels are what it makes of them (of a cohort's dataset "
                "standardization= says what); leave normalization out"
            )
            raise InvalidInputError(msg)

    @property
    def normalization(self) -> Normalization | None:
        """That of all datasets, fitted now if it is not yet; None where each has its own.

        Raises
        ------
        InvalidInputError
            If it is to be fitted and there is no dataset for training.
        """
        if self._resolved is None and isinstance(self._wanted, str):
            train = self._datasets["train"]
            if train is None:
                msg = (
                    f"normalization={self._wanted!r} is fitted on the images of train, which is "
                    "None; give it, load a checkpoint, or give a Normalization"
                )
                raise InvalidInputError(msg)
            targets = train.targets if self._normalize_targets else None
            self._resolved = fit_normalization(
                cast("Kind", self._wanted),
                train.images,
                targets=targets,
                channels=train.channels,
                target_channels=train.target_channels,
                level=train.level,
                executor=self._executor,
            )
        return self._resolved

    def dataset(self, name: str) -> Any:
        """Return ``"train"``, ``"val"`` or ``"predict"`` as its loader reads it.

        Raises
        ------
        InvalidInputError
            If there is none.
        """
        found = self._datasets.get(name)
        if found is None:
            msg = f"there is no dataset {name!r}, only {[n for n, d in self._datasets.items() if d is not None]}"
            raise InvalidInputError(msg)
        normalization = self.normalization
        return found if normalization is None else found.with_normalization(normalization)

    def train_dataloader(self) -> Any:
        """Return the loader of training patches."""
        return self._loader("train")

    def val_dataloader(self) -> Any:
        """Return the loader of validation patches, none without a dataset."""
        return self._loader("val") if self._datasets["val"] is not None else []

    def predict_dataloader(self) -> Any:
        """Return the loader of patches to predict."""
        return self._loader("predict")

    def _loader(self, name: str) -> Any:
        trainer = getattr(self, "trainer", None)
        rank, world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        order = self._order if name == "train" else "sequential"
        own = None if isinstance(order, str) else order.at(self._seed, order.epoch)
        return TileLoader(
            self.dataset(name),
            self._batch_size,
            order=cast("OrderKind", order) if own is None else own,
            seed=self._seed if own is None else None,
            rank=rank,
            world_size=world,
            as_torch=True,
            **cast("dict[str, Any]", self._reading),
        )

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move the pixels of a batch, and leave what is known of them where it is."""
        del dataloader_idx
        return moved(batch, device)

    # -- checkpoints

    def config(self) -> dict[str, Any]:
        """Return what the batches of training are made of, as numbers, strings, lists and dictionaries."""
        dataset = next(d for d in self._datasets.values() if d is not None)
        told: dict[str, Any] = {}
        if isinstance(dataset, RegionDataset):
            told = {
                "patch_size": list(dataset.patching.patch_size),
                "patching": type(dataset.patching).__name__,
                "level": dataset.level,
                "channels": plain_channels(dataset.channels),
                "target_channels": plain_channels(dataset.target_channels),
                "augmentations": [repr(each) for each in dataset.augmentations],
                "dataset_seed": dataset.seed,
            }
        else:
            told = {
                "dataset": type(dataset).__name__,
                "samples": len(dataset),
                "rows_fingerprint": tiles_of(dataset),
                "standardization": standardization_of(dataset),
                "channels": channels_of(dataset),
            }
        return {
            **told,
            "batch_size": self._batch_size,
            "order": self._order if isinstance(self._order, str) else self._order.kind,
            "seed": self._seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds: the statistics and `config`, nothing but plain values."""
        resolved = self._resolved
        return {
            "format": _STATE,
            "version": _VERSION,
            "normalization": None if resolved is None else resolved.to_dict(),
            "config": self.config(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the statistics of a checkpoint: what was fitted here, or is to be, counts no more.

        Raises
        ------
        InvalidInputError
            If it is no such state.
        """
        self._resolved = _normalization_of(state_dict, "the state") or self._resolved

    @staticmethod
    def from_checkpoint(
        path: str | os.PathLike[str],
    ) -> tuple[Normalization | None, dict[str, Any]]:
        """Read the statistics and the `config` of a run from its checkpoint alone.

        Parameters
        ----------
        path
            A ``.ckpt`` of a run with this data module; nothing in it is executed.

        Raises
        ------
        NotFoundError
            If there is no such file.
        FormatError
            If it is no checkpoint, or of a run with other data.
        """
        if not Path(path).is_file():
            msg = f"{path} does not exist"
            raise NotFoundError(msg)
        torch = _imported("torch", "torch")
        try:
            saved = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # torch raises of several kinds
            msg = f"{path} is no checkpoint of plain values and weights: {error}"
            raise FormatError(msg) from error
        state = saved.get(_STATE) if isinstance(saved, dict) else None
        if not isinstance(state, dict):
            msg = f"{path} is of a run without a RegionDataModule"
            raise FormatError(msg)
        held = cast("dict[str, Any]", state)
        return _normalization_of(held, str(path)), dict(held["config"])


def _made_with(cls: type[Any]) -> Signature:
    """Return what a class is made with."""
    _, *parameters = signature(cls.__init__).parameters.values()
    return Signature(parameters)


RegionDataModule.__signature__ = _made_with(RegionDataModule)


@cache
def _for_lightning(cls: type[RegionDataModule]) -> type[Any]:
    base = _imported("lightning", "lightning").LightningDataModule
    # Of the same name: it is what the state is kept by in a checkpoint.
    made = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(base)(cls.__name__, (cls, base), made)


def _imported(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        msg = f"{name} is not installed: pip install 'microtome[{extra}]'"
        raise DependencyError(msg) from error


def _normalization_of(state: Mapping[str, Any], where: str) -> Normalization | None:
    if state.get("format") != _STATE or state.get("version") != _VERSION:
        msg = f"{where} is no {_STATE} of version {_VERSION}: it has {sorted(state)}"
        raise InvalidInputError(msg)
    made = state.get("normalization")
    return None if made is None else normalization_from_dict(made)
