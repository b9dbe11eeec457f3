"""`PredictionWriter`: what a Lightning module predicts, tile by tile, goes straight into images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from inspect import Signature, signature
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from microtome.errors import DependencyError, InvalidInputError
from microtome.image import MultiscaleImage
from microtome.regions import ImageRegionData, collate_regions, decollate_regions
from microtome.tiling import plan_tiles

from ._batches import planned_level, sample_count, spatial_shape
from ._instances_write import InstanceStitcher
from ._output import as_array
from ._stitch import Stitcher

__all__ = ["PredictionWriter"]


class PredictionWriter:
    """A callback of Lightning's `Trainer` that writes the tiles which `predict_step` returns.

    `predict_step` returns the batch that it was given with the model's output as its data,
    ``batch._replace(data=self(batch.data))``. Tiles may come in any order, and those of several
    images in one batch. An image appears when its last tile has come, whole, or not at all. Ask
    the trainer not to collect what is written: ``trainer.predict(..., return_predictions=False)``.

    Parameters
    ----------
    out
        Directory of the new images, ``<name>.ome.zarr``.
    images
        The images that tiles are cut from, by name; or a list, in the order in which the dataset has
        them, which are called by their own names.
    tile_size, overlap
        Of the tiles.
    level
        Index of the level that tiles are cut from.
    instances
        Whether the output is labels, which are joined as by `InstanceStitcher`; else maps, put
        together as by `Stitcher`.
    **options
        Of `Stitcher` (`blend`, `channel_names`...) or `InstanceStitcher` (`min_share`...), and of
        both, `overwrite`; their defaults are those of these classes.

    Raises
    ------
    DependencyError
        If Lightning is not installed.
    InvalidInputError
        If there is no image, or two have one name.

    Examples
    --------
    ::

        writer = PredictionWriter("out", {"slide": image}, tile_size=512, overlap=64)
        trainer = lightning.Trainer(callbacks=[writer])
        trainer.predict(module, tiles, return_predictions=False)
        writer.written["slide"]
    """

    # What `help` and editors show: the arguments of `__init__`, not those of `__new__`.
    __signature__: ClassVar[Signature]

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:
        # Lightning asks for one of its own class, which is imported when one is made.
        return object.__new__(_for_lightning(cls))

    def __init__(
        self,
        out: str | os.PathLike[str],
        images: Mapping[str, MultiscaleImage] | Sequence[MultiscaleImage],
        *,
        tile_size: int | Sequence[int],
        overlap: int | Sequence[int],
        level: int = 0,
        instances: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        # An image is a mapping, too: of its levels.
        if isinstance(images, MultiscaleImage):
            msg = "images is a list of images, or a mapping by name; got one image"
            raise InvalidInputError(msg)
        if isinstance(images, Mapping):
            named = list(images.items())
        else:
            named = [(image.name, image) for image in images]
        names = [name for name, _ in named]
        if not named or len(set(names)) != len(names):
            msg = f"images are one or more, each with a name of its own, got {names}"
            raise InvalidInputError(msg)
        self._out = Path(out)
        self._images = dict(named)
        self._names = names
        self._cut = {"tile_size": tile_size, "overlap": overlap}
        self._level = level
        self._kind: Any = InstanceStitcher if instances else Stitcher
        self._options = options
        self._at_work: dict[str, tuple[Any, int]] = {}
        self.written: dict[str, MultiscaleImage] = {}
        """The images that are there, by name."""

    # -- what Lightning calls

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse a run of several processes: each has a part of the tiles of every image."""
        del pl_module
        if trainer.world_size > 1:
            msg = f"tiles are put together in one process, this run has {trainer.world_size}; predict with devices=1"
            raise InvalidInputError(msg)
        self.discard()
        self.written = {}

    def on_predict_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the tiles of a batch."""
        del trainer, pl_module, batch, batch_idx, dataloader_idx
        self.add(outputs)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Refuse a run after which tiles are missing."""
        del trainer, pl_module
        left = {name: total - made.tiles_done for name, (made, total) in self._at_work.items()}
        self.discard()
        if left:
            told = ", ".join(f"{count} of {name}" for name, count in sorted(left.items()))
            msg = f"tiles are missing, so that these images are not written: {told}; predict every tile of an image"
            raise InvalidInputError(msg)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Remove what is not complete."""
        del trainer, pl_module, exception
        self.discard()

    # -- the same for other loops

    def add(self, prediction: Any) -> None:
        """Write the tiles of a batch whose data are the model's output.

        Raises
        ------
        InvalidInputError
            If it is no batch of tiles, a tile is of none of the images or not of their plans, or what
            `Stitcher.add` refuses.
        """
        if not isinstance(prediction, ImageRegionData) or isinstance(prediction.source, str):
            msg = f"predict_step must return its batch with the output as data, batch._replace(data=...), got {type(prediction).__name__}"
            raise InvalidInputError(msg)
        batch = cast("ImageRegionData[Any]", prediction)
        # Moved off its device once, not tile by tile.
        batch = batch._replace(data=as_array(batch.data))
        of = [self._name_of(batch, row) for row in range(len(batch.source))]
        if len(set(of)) == 1:
            self._write(of[0], batch)
            return
        tiles = decollate_regions(batch)
        for name in dict.fromkeys(of):
            self._write(
                name,
                collate_regions([tile for tile, own in zip(tiles, of, strict=True) if own == name]),
            )

    def discard(self) -> None:
        """Remove what is not complete."""
        for made, _ in self._at_work.values():
            made.discard()
        self._at_work = {}

    def _write(self, name: str, batch: ImageRegionData[Any]) -> None:
        if name in self.written:
            msg = f"more tiles came of {name}, which is written already"
            raise InvalidInputError(msg)
        if name not in self._at_work:
            self._at_work[name] = self._begin(name)
        made, total = self._at_work[name]
        made.add(batch)
        if made.tiles_done == total:
            self.written[name] = made.finish()
            del self._at_work[name]

    def _begin(self, name: str) -> tuple[Any, int]:
        image = self._images[name]
        level = planned_level(image, self._level)
        plan = plan_tiles(spatial_shape(level), **self._cut)
        out = self._out / f"{name}.ome.zarr"
        total = len(plan) * sample_count(level)
        tiles = self._options.get("tiles")
        if tiles is not None:
            total = int(np.broadcast_to(tiles, (sample_count(level), len(plan))).sum())
        return self._kind(out, image, plan, level=self._level, **self._options), total

    def _name_of(self, batch: ImageRegionData[Any], row: int) -> str:
        """Return which image a tile is of: by its number, or by where it lies."""
        spec = cast("dict[str, Any]", batch.region_spec)
        number, source = int(spec["data_idx"][row]), batch.source[row]
        if number < len(self._names) and self._images[self._names[number]].uri == source:
            return self._names[number]
        found = [name for name, image in self._images.items() if image.uri == source]
        if len(found) != 1:
            known = sorted(image.uri for image in self._images.values())
            msg = f"a tile is of image {number} in {source}, which is {'none' if not found else 'several'} of {known}"
            raise InvalidInputError(msg)
        return found[0]


_own, *_given = signature(PredictionWriter.__init__).parameters.values()
PredictionWriter.__signature__ = Signature(_given)


@cache
def _for_lightning(cls: type[PredictionWriter]) -> type[Any]:
    try:
        base = import_module("lightning.pytorch.callbacks").Callback
    except ImportError as error:
        msg = "lightning is not installed: pip install 'microtome[lightning]'"
        raise DependencyError(msg) from error
    # Not a BasePredictionWriter: it asks which row of a sampler each tile was, which tiles say better.
    made = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls, base), made)
