"""Several images through a model, one after the other or spread over an executor."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

from microtome.errors import ExistsError, InvalidInputError, MicrotomeError
from microtome.image import MultiscaleImage
from microtome.jobs import run_each
from microtome.progress import Progress, silent
from microtome.sources import open_image
from microtome.storage import Place

from ._devices import copies_of
from ._job import Job, verify_image
from ._tiff import is_tiff

__all__ = ["named_images", "predict_each"]

_SUFFIX = ".ome.zarr"
# Of images that cannot be opened so many are named.
_TOLD = 5


@dataclass(frozen=True, slots=True)
class _Task:
    job: Job
    image: Any
    out: Path | Place
    mask: Any
    progress: Progress


def named_images(images: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Return images by the name of their prediction, every name once.

    A path is named by its file name up to the first dot, an array by its number. Of several with
    one name the second is called ``name-2``, and so on.

    Raises
    ------
    InvalidInputError
        If there is none, or a name is no file name.
    """
    if not images:
        msg = "there is no image to predict"
        raise InvalidInputError(msg)
    if isinstance(images, Mapping):
        given = {str(name): image for name, image in images.items()}
        wrong = [name for name in given if not name or name != Path(name).name or name[0] == "."]
        if wrong:
            msg = f"a prediction's name is a file name without a directory, got {wrong[0]!r}"
            raise InvalidInputError(msg)
        return given
    named: dict[str, Any] = {}
    for number, image in enumerate(images):
        stem = _stem(image) or f"image-{number}"
        name, count = stem, 1
        while name in named:
            count += 1
            name = f"{stem}-{count}"
        named[name] = image
    return named


def predict_each(
    job: Job,
    images: Mapping[str, Any] | Sequence[Any],
    out: Path | Place,
    *,
    mask: Any,
    executor: Executor | None,
    progress: Progress,
) -> dict[str, MultiscaleImage]:
    """Predict each image into a directory; see `predict`."""
    if is_tiff(Path(str(out))):
        msg = f"several images are predicted into a directory of OME-Zarr images, got out={str(out)!r}; give a directory, or one image"
        raise InvalidInputError(msg)
    named = named_images(images)
    # An image is a mapping, too: of its levels.
    by_name = isinstance(mask, Mapping) and not isinstance(mask, MultiscaleImage)
    if by_name:
        unknown = sorted(cast("Mapping[str, Any]", mask).keys() - named.keys())
        if unknown:
            msg = f"masks of {unknown}, which are no images; there are {sorted(named)}"
            raise InvalidInputError(msg)
    if (isinstance(out, Path) and out.exists() and not out.is_dir()) or MultiscaleImage.exists(out):
        msg = f"{out} is there and no directory of predictions; choose another place"
        raise ExistsError(msg)
    _verify_each(job, named)
    tasks: list[_Task] = []
    for name, image in named.items():
        own = cast("Mapping[str, Any]", mask).get(name) if by_name else mask
        # The callback stays where it is: another process cannot call it, nor may several threads.
        told = progress if executor is None and job.devices is None else silent
        tasks.append(
            _Task(replace(job, keep_finished=True), image, out / f"{name}{_SUFFIX}", own, told)
        )
    each = _on_devices(job, tasks) if job.devices else run_each(_predicted, tasks, executor)
    for done, _ in enumerate(each, 1):
        progress("images", done, len(tasks))
    return {name: MultiscaleImage.open(task.out) for name, task in zip(named, tasks, strict=True)}


def _verify_each(job: Job, named: Mapping[str, Any]) -> None:
    """Open every image before the first is predicted: one that fails after hours is found now.

    Raises
    ------
    MicrotomeError
        If some cannot be predicted; it says why of each, and is of the first one's kind.
    """
    wrong: dict[str, MicrotomeError] = {}
    for name, image in named.items():
        try:
            verify_image(job, open_image(image))
        except MicrotomeError as error:
            wrong[name] = error
    if not wrong:
        return
    told = "; ".join(f"{name}: {error}" for name, error in list(wrong.items())[:_TOLD])
    if len(named) == 1:
        error = next(iter(wrong.values()))
        raise type(error)(told) from error
    more = f"; and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
    first = next(iter(wrong.values()))
    msg = f"{len(wrong)} of {len(named)} images cannot be predicted, and none was: {told}{more}"
    raise type(first)(msg) from first


def _on_devices(job: Job, tasks: Sequence[_Task]) -> Generator[str]:
    """Predict images by a thread a device, each by the copy of the model that is free first."""
    free: SimpleQueue[Any] = SimpleQueue()
    devices = job.devices or ()
    for model in copies_of(job.model, devices):
        free.put(model)

    def predicted(task: _Task) -> str:
        model = free.get()
        try:
            return _predicted(replace(task, job=replace(task.job, model=model, devices=None)))
        finally:
            free.put(model)

    with ThreadPoolExecutor(len(devices), thread_name_prefix="microtome-device") as threads:
        yield from run_each(predicted, tasks, threads)


def _predicted(task: _Task) -> str:
    image = open_image(task.image)
    return task.job.run(image, task.out, task.mask, task.progress).uri


def _stem(image: Any) -> str | None:
    if isinstance(image, MultiscaleImage):
        image = image.uri if image.uri != "array" else None
    if isinstance(image, str | os.PathLike):
        return Path(os.fspath(image)).name.split(".")[0] or None
    return None
