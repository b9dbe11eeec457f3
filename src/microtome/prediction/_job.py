"""One image through a model: what is asked for, and the run that does it or goes on with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.image import Channels, Level, MultiscaleImage
from microtome.progress import Progress, silent
from microtome.regions import ImageRegionData
from microtome.storage import Place
from microtome.tiling import TilePlan, plan_tiles

from ._batches import TileReading, level_index, planned_level, sample_count, spatial_shape
from ._blend import Blend
from ._canvas import Canvas, Made
from ._devices import in_turn, running_on
from ._failure import telling_failures
from ._finished import as_stored, is_of, record_at, refuse_finished
from ._input import verify_kind
from ._model import Preprocess, model_name, verify_channels
from ._output import as_array, checked_maps, place_of
from ._record import record_of, with_record
from ._resuming import settings_of
from ._space import OutputSpace, checked_fill, checked_names, free_place
from ._staging import Final, put_image
from ._tissue import masks_of, tiles_with_tissue
from ._workplace import ResumedTarget, Workplace

__all__ = ["Job", "verify_image"]

_MEANS = {"linear", "gaussian"}


@dataclass(frozen=True, slots=True)
class Job:
    """What `predict` is asked for; see there."""

    model: Any
    tile_size: int | Sequence[int] | None
    overlap: int | Sequence[int]
    batch_size: int
    blend: Blend
    multiple_of: int
    level: int
    channels: Channels | None
    preprocess: Preprocess | None
    postprocess: Callable[[Any], Any] | None
    channel_names: Sequence[str] | None
    skip_empty: bool
    fill: float
    resume: bool
    overwrite: bool
    allow_nan: bool
    metadata: Mapping[str, Any] | None
    devices: Sequence[Any] | None = None
    keep_finished: bool = False
    # Where the result goes in the end, if that is no directory here.
    final: Final | None = None
    # Refuses a type that the result cannot be written with, when the model has answered first.
    verify_type: Callable[[np.dtype[Any]], None] | None = None

    def run(
        self, image: MultiscaleImage, out: Path | Place, mask: Any, progress: Progress
    ) -> MultiscaleImage:
        """Predict an image, or what is missing of it."""
        if isinstance(out, Place):
            return put_image(self, image, out, mask, progress)
        return _Run(self, image, out, mask, progress).result()


def verify_image(job: Job, image: MultiscaleImage) -> None:
    """Refuse an image that a job cannot be done for, without reading a pixel of it.

    Raises
    ------
    MicrotomeError
        As the job would, before its first tile.
    """
    _Run(replace(job, skip_empty=False), image, Path(), None, silent)


class _Run:
    """One image of a job.

    Parameters
    ----------
    job
        What is asked for.
    image, out, mask
        Of which image.
    progress
        Called with the tiles done and to do.
    """

    def __init__(
        self, job: Job, image: MultiscaleImage, out: Path, mask: Any, progress: Progress
    ) -> None:
        chosen = planned_level(image, job.level)
        self._job = job
        self._image = image
        self._out = out
        self._progress = progress
        self._level = level_index(image, job.level)
        self._shape = spatial_shape(chosen)
        self._samples = sample_count(chosen)
        self._dtype = chosen.array.dtype
        self._plan = self._planned(1)
        # Refused now rather than after the mask was made.
        reading = TileReading.of(image, self._plan, self._level, job.channels, job.batch_size)
        verify_channels(job.preprocess, len(reading.channels), image)
        # Of an image of a cohort it is known, and told of all together.
        if "predicted_from" not in (job.metadata or {}).get("microtome", {}):
            verify_kind(job.model, image, job.channels)
        self._space = OutputSpace.of(image, job.level)
        self._names = job.channel_names
        if self._names is None:
            self._names = getattr(job.model, "channel_names", None)
        self._masks = masks_of(image, job.level, mask, skip_empty=job.skip_empty)
        self._settings: dict[str, Any] = {}

    def result(self) -> MultiscaleImage:
        """Do what is missing, and open the result."""
        job = self._job
        with running_on(job.model, job.preprocess, job.devices) as runs:
            settings = self._settings = as_stored(self._depends_on())
            place = Workplace(self._out, settings, resume=job.resume)
            asked = settings
            if self._names is not None:
                asked = {**settings, "channel_names": list(self._names)}
            keep = True
            try:
                if job.final is not None and job.final.is_there(
                    self._out, self._image, asked, job.metadata
                ):
                    keep = False
                    return MultiscaleImage.open(job.final.place)
                if self._is_published(place) or (job.keep_finished and is_of(self._out, asked)):
                    keep = False
                    return MultiscaleImage.open(self._out)
                if not job.overwrite:
                    refuse_finished(self._out, asked, job.metadata)
                free_place(self._out, self._image, overwrite=job.overwrite)
                self._predict(runs, place)
                self._publish(place)
                keep = False
            except InvalidInputError:
                # The model's answer was wrong: what there is of it is not gone on with.
                keep = False
                raise
            finally:
                place.close(keep=keep)
        return MultiscaleImage.open(self._out)

    def _predict(self, runs: Sequence[Callable[[Any], Any]], place: Workplace) -> None:
        if place.made is not None:
            self._align(place.made.scale)
        if not self._attempt(runs, place):
            # The model makes one pixel of several, which no tile may begin inside.
            self._attempt(runs, place)

    def _attempt(self, runs: Sequence[Callable[[Any], Any]], place: Workplace) -> bool:
        """Run the tiles; False where they have to be planned again for the model's scale."""
        job, plan = self._job, self._plan
        kept = self._kept()
        reading = TileReading.of(self._image, plan, self._level, job.channels, job.batch_size)
        canvas = Canvas(
            str(self._out),
            plan,
            self._samples,
            self._shape,
            lambda made: self._begin(place, made),
            blend=job.blend,
            kept=kept,
            fill=job.fill,
            allow_nan=job.allow_nan,
            spill=self._out.parent,
        )
        total = canvas.tiles_planned
        before = 0
        try:
            needed: NDArray[np.bool_] | None = None
            if place.made is not None:
                canvas.start(place.made)
                needed = canvas.needed()
                before = total - int(needed.sum())
            functions = [self._answering(run, copied=len(runs) > 1) for run in runs]
            with (
                closing(reading.batches(kept, needed)) as batches,
                closing(in_turn(functions, batches)) as all_answered,
            ):
                for answered in all_answered:
                    if canvas.made is None and self._align(checked_maps(answered)[1]):
                        return False
                    canvas.add(answered)
                    self._progress("predict", min(before + canvas.tiles_done, total), total)
                    del answered  # before the next one is read
            if canvas.made is None:
                msg = f"no tile of {self._image.uri} has tissue: there is nothing to predict"
                raise InvalidInputError(msg)
            canvas.finish()
        finally:
            canvas.close()
        return True

    def _answering(
        self, run: Callable[[Any], Any], *, copied: bool
    ) -> Callable[[ImageRegionData[Any]], ImageRegionData[Any]]:
        """Return what a device does: of several, each also brings home what it has made."""
        post = self._job.postprocess

        def answered(batch: ImageRegionData[Any]) -> ImageRegionData[Any]:
            note = f"while predicting a batch from {place_of(batch, 0)}"
            with telling_failures(self._job.model, self._job.preprocess, batch.data, note):
                data = run(batch.data)
            try:
                data = data if post is None else post(data)
                if self._job.blend in _MEANS and str(getattr(data, "dtype", "")).endswith("bool"):
                    self._refuse_mean("booleans")
                return batch._replace(data=as_array(data) if copied else data)
            except Exception as error:
                error.add_note(note)
                raise

        return answered

    def _begin(self, place: Workplace, made: Made) -> ResumedTarget:
        if self._job.verify_type is not None:
            self._job.verify_type(made.dtype)
        # Integers that are not the image's own are what argmax gives: between 1 and 5 is no class 3.
        if self._job.blend in _MEANS and made.dtype.kind in "iu" and made.dtype != self._dtype:
            self._refuse_mean(f"{made.dtype} labels")
        checked_fill(self._job.fill, made, adding=self._job.blend in _MEANS)
        checked_names(self._names, made.channels)
        return place.begin(
            made,
            axes=self._space.axes,
            shape=self._space.shape(made),
        )

    def _refuse_mean(self, what: str) -> None:
        msg = (
            f"blend={self._job.blend!r} takes means, and the mean of {what} has no meaning; use "
            "blend='crop', or have the model return floating numbers"
        )
        raise InvalidInputError(msg)

    def _publish(self, place: Workplace) -> None:
        made = place.made
        if made is None:
            msg = f"{self._out}: no tile was predicted"
            raise InvalidInputError(msg)
        record = record_of(
            self._image,
            self._level,
            self._plan,
            blend=self._job.blend,
            model=model_name(self._job.model),
        )
        record["run"] = place.run
        record["settings"] = self._settings
        kept = self._kept()
        if kept is not None:
            record["skipped_tiles"] = int((~kept).sum())
            record["fill"] = self._job.fill
        image = self._space.begin(
            self._out,
            made,
            channel_names=checked_names(self._names, made.channels),
            overwrite=self._job.overwrite,
            metadata=with_record(self._job.metadata, record),
            layout=None,
        )
        try:
            place.put_into(image.level(0), 0)
            image.build_levels(progress=self._progress, fill=self._fill(place))
            image.close()
        finally:
            image.discard()

    def _fill(self, place: Workplace) -> Callable[[Level, Sequence[Level]], None] | None:
        """Return what puts the coarser levels into an image, None where they are to be computed."""
        if not place.has_levels:
            return None

        def fill(_: Level, coarser: Sequence[Level]) -> None:
            for number, level in enumerate(coarser, 1):
                place.put_into(level, number)
                self._progress("pyramid", number, len(coarser))

        return fill

    def _is_published(self, place: Workplace) -> bool:
        """Whether the run that was left had come to its end, but for tidying up."""
        return place.made is not None and record_at(self._out).get("run") == place.run

    # -- tiles

    def _kept(self) -> NDArray[np.bool_] | None:
        if self._masks is None:
            return None
        return tiles_with_tissue(self._plan, self._masks, self._shape)

    def _planned(self, align: int) -> TilePlan:
        """Plan tiles that begin, and meet, at multiples of `align` pixels."""
        job = self._job
        if job.tile_size is None:
            step = lcm(job.multiple_of, align)
            size = tuple(-(-n // step) * step for n in self._shape[-2:])
            size = (*self._shape[:-2], *size)
            return plan_tiles(size, size, 0)
        plan = plan_tiles(self._shape, job.tile_size, job.overlap)
        wrong = [size for size in plan.tile_size[-2:] if size % job.multiple_of]
        if wrong:
            msg = f"tile_size must be a multiple of multiple_of={job.multiple_of}, got {plan.tile_size}"
            raise InvalidInputError(msg)
        if align == 1:
            return plan
        lengths = tuple(-(-n // align) * align for n in self._shape[-2:])
        shared = tuple(-(-over // (2 * align)) * 2 * align for over in plan.overlap[-2:])
        if any(over >= size for over, size in zip(shared, plan.tile_size[-2:], strict=True)):
            msg = (
                f"the model makes one pixel of {align}: tiles of {plan.tile_size} cannot share "
                f"{shared}, the next multiple of {2 * align}; take larger tiles or less overlap"
            )
            raise InvalidInputError(msg)
        return plan_tiles(
            (*self._shape[:-2], *lengths), plan.tile_size, (*plan.overlap[:-2], *shared)
        )

    def _align(self, scale: Sequence[Fraction]) -> bool:
        """Plan the tiles for a scale; whether that changes them."""
        before = self._plan
        self._plan = self._planned(scale[-1].denominator)
        return (before.shape, before.overlap) != (self._plan.shape, self._plan.overlap)

    def _depends_on(self) -> dict[str, Any]:
        """Return what the result depends on."""
        job, plan = self._job, self._plan
        common = settings_of(
            self._image,
            self._level,
            job.channels,
            plan,
            batch_size=job.batch_size,
            model=job.model,
            preprocess=job.preprocess,
            postprocess=job.postprocess,
            masks=self._masks,
        )
        return {
            **common,
            "multiple_of": job.multiple_of,
            "blend": job.blend,
            "fill": repr(job.fill),
        }
