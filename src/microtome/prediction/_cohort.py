"""A model over a whole cohort: a prediction a tissue, and a table of tile embeddings."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from microtome.cohort import (
    CohortLayout,
    Modality,
    identity_in,
    open_tissue_image,
    open_tissue_mask,
    parse_modality,
    tissues_with_images,
)
from microtome.coordinates import Resolution
from microtome.errors import ExistsError, InvalidInputError, MicrotomeError, ModeError
from microtome.image import MultiscaleImage
from microtome.jobs import run_each, verify_executor
from microtome.progress import Progress, silent
from microtome.standardize import Level
from microtome.storage import Place, StorageOptions, StorePath

from ._blend import Blend
from ._cohort_failures import refuse
from ._cohort_vectors import VectorsAsked, embed_cohort
from ._input import CohortInput, Standardization, chosen_standardization, verify_modalities
from ._model import Preprocess, verify_function
from ._predict import predict
from ._staging import Target, target_of_prediction

__all__ = ["predict_cohort"]

_log = logging.getLogger(__name__)
_TISSUE = "tissue"


class CohortOptions(TypedDict, total=False):
    """Keywords that `predict_cohort` hands on to `predict`; what they mean is told there."""

    blend: Blend
    multiple_of: int
    postprocess: Callable[[Any], Any] | None
    channel_names: Sequence[str] | None
    skip_empty: bool
    fill: float
    resume: bool
    allow_nan: bool
    metadata: Mapping[str, Any] | None


def predict_cohort(  # noqa: PLR0913 - a job with its options, all keyword-only
    model: Any,
    cohort: str | os.PathLike[str] | Place | StorePath,
    *,
    name: str,
    out: Target | None = None,
    storage_options: StorageOptions | None = None,
    modality: str | Modality | None = None,
    tissues: Sequence[str] | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    tile_size: int = 512,
    overlap: int = 64,
    batch_size: int = 8,
    channels: Sequence[str] | None = None,
    standardization: Standardization | None = None,
    stats_level: Level | None = None,
    preprocess: Preprocess | None = None,
    mask: Any = None,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
    **options: Unpack[CohortOptions],
) -> list[Path]:
    """Run a model over the images of a cohort and keep its answers there.

    Each tissue's prediction goes to `predictions/<resolution>/<name>/<tissue_id>.ome.zarr`. Where
    the model has a method `embed` and brightfield tissues have tiles of the strategy
    ``"default"``, their vectors go to `<size>_tile_embeddings.parquet` beside them.

    Parameters
    ----------
    model
        As for `predict`, a `TestTimeAugmentation` for example.
    cohort
        Directory of the cohort, or its address in a store: of S3 its predictions are put there, of
        any other there is `out`.
    name
        Name of the model: a directory.
    out
        Directory for the answers, or its address, in place of that in the cohort.
    storage_options
        How stores are reached, that of the cohort and that of `out`.
    modality
        Which images; by default each tissue's first, H&E before IHC before multiplex, where all of
        these are brightfield, or all multiplex.
    tissues
        Which tissues; None for all.
    resolution
        Which resolution; may be left out where the cohort has one.
    tile_size, overlap, batch_size
        As for `predict`.
    channels
        Channels that the model sees, by name, in this order; None for all.
    standardization
        What is done to stored pixels, as in the dataset that the model was trained on: of H&E and IHC
        ``"imagenet"``, ``"hibou"`` or another preset of `HEImagingDataset`; of multiplex images the
        path of the cohort's statistics, ``"quantile_clipping/uq_0.99_image"`` for example, where
        channels without statistics are left out as they are there. A normalization, or the path of
        one (``.json``). ``"stored"`` for nothing. By default what the model says in an attribute
        `standardization`, else nothing, which is told of a torch module.
    stats_level
        Level of the means and standard deviations of these statistics, ``"image"`` or ``"global"``;
        needed only where the cohort has both.
    preprocess
        A function of a batch instead, as for `predict`.
    mask
        Where tissue is: ``"tissue"`` for the cohort's tissue masks, a mapping from tissues to masks,
        or a function; as for `predict`.
    overwrite
        Replace predictions that are there; otherwise only missing ones are made, and those that are
        of the same images, model and settings kept.
    executor
        Where tissues are predicted: any `concurrent.futures` executor, to which the model can be
        pickled; by default here, one after the other. Embeddings are made here.
    progress
        Called with what is done and to do.
    **options
        `blend`, `multiple_of`, `postprocess`, `channel_names`, `skip_empty`, `fill`, `resume`,
        `allow_nan` and `metadata`, as for `predict`.

    Returns
    -------
    The predictions, and the tables of embeddings where there are any; of a store `StorePath`s.

    What stops one tissue, of its image, mask or channels, or the model on it, does not stop the others,
    nor the vectors of their tiles: it is told of all together when they are done.

    Raises
    ------
    InvalidInputError
        As `predict`; also if the resolution or modality is not in the cohort, or the executor
        forks; or if some tissues have brightfield images and others multiplex ones only; or if the
        model's attribute `modality_kind` names the other of the two; or if the modality has no such
        standardization.
    NotFoundError
        If there are no such statistics, or tissues have no mask.
    ExistsError
        If a prediction that is there is of another image, model or setting; those of the other
        tissues are made all the same. Or if a table of vectors is of another model or other tiles;
        those of tissues that came later are added to it.
    ModelError
        If the model fails on some tissues, of channels that it does not take for example; what it
        raised first is the cause.
    ModeError
        If the predictions would go into a store that is only read.
    MicrotomeError
        If tissues fail of several causes.
    WorkerError
        If the executor lost its workers; what is done stays, and the same call again goes on.
    """
    verify_executor(executor)
    verify_function(preprocess, "preprocess", "normalize")
    layout = CohortLayout.open(cohort, reading=True, storage_options=storage_options)
    target = layout.resolution(resolution)
    only = [parse_modality(modality)] if modality is not None else None
    chosen = tissues_with_images(layout, target, tissues=tissues, modalities=only)
    _verify_one_kind(chosen)
    directory = _directory(layout, target, name, out, storage_options)
    # The callback stays where it is: another process cannot call it.
    told = _without_images(progress) if executor is None else silent
    kinds = sorted({modalities[0] for modalities in chosen.values()}, key=str)
    verify_modalities(model, kinds)
    given = chosen_standardization(model, standardization, preprocess=preprocess, modalities=kinds)
    shown = CohortInput(layout, target, channels, given, preprocess, stats_level)
    own: dict[str, dict[str, Any]] = {}
    refused: dict[str, MicrotomeError] = {}
    for shot in kinds:
        mine, lacking = shown.of(shot, [name for name, has in chosen.items() if has[0] == shot])
        own |= mine
        refused |= lacking
    if not own:
        refuse(refused, len(chosen))
    common = {**options, "tile_size": tile_size, "overlap": overlap, "batch_size": batch_size}
    common["overwrite"] = overwrite
    names = [f"{tissue_id}.ome.zarr" for tissue_id in chosen]
    tasks: list[_Task] = []
    for tissue_id, options_of_one in own.items():
        shot = chosen[tissue_id][0]
        place = layout, shot, target, tissue_id
        mine = {**common, **options_of_one, "storage_options": storage_options}
        noted = shown.noted(shot, options_of_one)
        covers = _mask_of(mask, tissue_id)
        tasks.append(_Task(model, place, directory, mine, noted, covers, told))
    # Looked at all the same: they may be of another image, model or setting.
    there = set[str]() if overwrite else _images_in(directory, own)
    refused |= _predict_each(tasks, executor, there, progress, before=len(refused))
    also: MicrotomeError | None = None
    # What is there of other settings can be read.
    unread = [name for name, error in refused.items() if not isinstance(error, ExistsError)]
    if hasattr(model, "embed") and len(unread) < len(chosen):
        preset, then = shown.of_tiles()
        asked = VectorsAsked(
            model,
            preset,
            then,
            overwrite,
            options.get("resume", True),
            list(chosen),
            unread,
            progress,
        )
        try:
            names += embed_cohort(asked, layout, target, kinds, directory)
        except MicrotomeError as error:
            if not refused:
                raise
            also = error
    if refused:
        refuse(refused, len(chosen), also=also)
    return [_path(directory, each) for each in names]


def _predict_each(
    tasks: Sequence[_Task],
    executor: Executor | None,
    there: Collection[str],
    progress: Progress,
    *,
    before: int,
) -> dict[str, MicrotomeError]:
    """Predict tissues; returns why some are not.

    Parameters
    ----------
    tasks, executor
        Which, and where.
    there
        Of which there is a prediction, which is told of those that keep it.
    progress
        Called with the tissues done and all.
    before
        How many are refused already.
    """
    refused: dict[str, MicrotomeError] = {}
    each = zip(tasks, run_each(_predicted, tasks, executor), strict=True)
    for done, (task, found) in enumerate(each, start=before + 1):
        tissue_id = task.place[3]
        if found is not None:
            refused[tissue_id] = found
        elif tissue_id in there:
            _log.info("%s/%s.ome.zarr is there already", task.directory, tissue_id)
        progress("images", done, before + len(tasks))
    return refused


def _directory(
    layout: CohortLayout,
    resolution: Resolution,
    name: str,
    out: Target | None,
    options: StorageOptions | None,
) -> Path | Place:
    """Return where predictions go: a directory here, or a place in a store that can be written."""
    if out is not None:
        return target_of_prediction(out, options)
    own = layout.predictions(resolution, name)
    if not isinstance(own, StorePath):
        return own
    if not own.place.is_writable:
        msg = (
            f"{layout.root} lies in a store that is read and not written: say where the predictions "
            "go with out=, a directory here or an s3:// address"
        )
        raise ModeError(msg)
    return own.place


def _images_in(directory: Path | Place, tissues: Iterable[str]) -> set[str]:
    """Return of which tissues there is an image in a directory; a store is listed once."""
    if isinstance(directory, Place):
        listed = StorePath.opened(directory)
        return {t for t in tissues if (listed / f"{t}.ome.zarr/zarr.json").is_file()}
    return {t for t in tissues if MultiscaleImage.exists(directory / f"{t}.ome.zarr")}


def _path(directory: Path | Place, name: str) -> Path:
    if isinstance(directory, Place):
        # To those who read it is one, as that of a cohort in a store.
        return cast("Path", StorePath.opened(directory) / name)
    return directory / name


def _without_images(progress: Progress) -> Progress:
    """Return what tells of the tiles of each tissue; how many there are is told of all together."""

    def told(job: str, done: int, total: int, /) -> None:
        if job != "images":
            progress(job, done, total)

    return told


def _verify_one_kind(chosen: Mapping[str, Sequence[Modality]]) -> None:
    """Refuse tissues of which no model could take all."""
    first = {modalities[0] for modalities in chosen.values()}
    if len({modality.kind for modality in first}) > 1:
        names = sorted(str(modality) for modality in first)
        msg = f"tissues are imaged as {', '.join(names)}, which no model takes alike; say which with --modality (modality=)"
        raise InvalidInputError(msg)


@dataclass(frozen=True, slots=True)
class _Task:
    """One tissue to predict, as it travels to a worker."""

    model: Any
    place: tuple[CohortLayout, Modality, Resolution, str]
    directory: Path | Place
    options: Mapping[str, Any]
    noted: Mapping[str, Any]
    """Of what makes the model's input."""
    mask: Any
    progress: Progress


def _predicted(task: _Task) -> MicrotomeError | None:
    """Predict a tissue; returns why not, which is of this tissue and no reason to stop the others."""
    try:
        _predict(task)
    except MicrotomeError as error:
        return error
    return None


def _predict(task: _Task) -> None:
    image = open_tissue_image(*task.place)
    options: dict[str, Any] = {**task.options, "mask": task.mask, "progress": task.progress}
    origin = {"modality": task.place[1].name, "image": identity_in(image.metadata), **task.noted}
    options["metadata"] = _with_origin(options.get("metadata"), origin)
    if isinstance(task.mask, str) and task.mask == _TISSUE:
        layout, _, resolution, tissue_id = task.place
        options["mask"] = open_tissue_mask(layout, resolution, tissue_id)
    name = task.place[3]
    if task.options["overwrite"]:
        predict(task.model, image, task.directory / f"{name}.ome.zarr", **options)
    else:
        # As one of several: what is finished is kept, or refused where it is another prediction.
        predict(task.model, {name: image}, task.directory, **options)


def _with_origin(metadata: Mapping[str, Any] | None, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata of a prediction that say of what it is, for who looks whether it is stale."""
    given = dict(metadata or {})
    return {**given, "microtome": {**given.get("microtome", {}), "predicted_from": dict(origin)}}


def _mask_of(mask: Any, tissue_id: str) -> Any:
    """Return the mask of a tissue, or the word for the cohort's own."""
    if isinstance(mask, Mapping) and not isinstance(mask, MultiscaleImage):
        return cast("Mapping[str, Any]", mask).get(tissue_id)
    return mask
