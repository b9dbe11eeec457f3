"""A model over a whole cohort: a prediction a tissue, and a table of tile embeddings."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypedDict, Unpack, cast

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
from microtome.errors import ExistsError, InvalidInputError, ModelError
from microtome.image import MultiscaleImage
from microtome.jobs import run_each, verify_executor
from microtome.progress import Progress, silent
from microtome.storage import Place, StorageOptions, StorePath, verify_here

from ._blend import Blend
from ._cohort_tiles import Chain, tilings_of
from ._embed import embed_tiles, embedding_settings, verify_finished
from ._embed_more import add_vectors, lacking_parts
from ._finished import ADVICE
from ._input import CohortInput, Standardization, chosen_standardization, verify_modalities
from ._model import Preprocess, verify_function
from ._predict import predict

__all__ = ["predict_cohort"]

_log = logging.getLogger(__name__)
_TISSUE = "tissue"
# Tiles that go through a model at once when it makes vectors of them.
_EMBEDDED = 64
# Of any number of tissues that are refused, these are told of.
_NAMED = 5


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
    out: str | os.PathLike[str] | None = None,
    storage_options: StorageOptions | None = None,
    modality: str | Modality | None = None,
    tissues: Sequence[str] | None = None,
    resolution: float | str | tuple[float, float] | Resolution | None = None,
    tile_size: int = 512,
    overlap: int = 64,
    batch_size: int = 8,
    channels: Sequence[str] | None = None,
    standardization: Standardization | None = None,
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
        Directory of the cohort; with `out` also its address in a store.
    name
        Name of the model: a directory.
    out
        Directory for the answers, in place of that in the cohort.
    storage_options
        How stores are reached.
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
    The predictions, and the tables of embeddings where there are any.

    Raises
    ------
    InvalidInputError
        As `predict`; also if the resolution or modality is not in the cohort, or the executor
        forks; or if some tissues have brightfield images and others multiplex ones only; or if the
        model's attribute `modality_kind` names the other of the two; or if the modality has no such
        standardization.
    NotFoundError
        If there are no such statistics, or a tissue has no mask.
    ExistsError
        If a prediction that is there is of another image, model or setting; those of the other
        tissues are made all the same. Or if a table of vectors is of another model or other tiles;
        those of tissues that came later are added to it.
    ModelError
        If the model fails on some tissues, of channels that it does not take for example; the others
        are made all the same, and what it raised first is the cause.
    WorkerError
        If the executor lost its workers; what is done stays, and the same call again goes on.
    """
    verify_executor(executor)
    verify_function(preprocess, "preprocess", "normalize")
    if out is not None:
        verify_here(out)
    layout = CohortLayout.open(cohort, reading=out is not None, storage_options=storage_options)
    target = layout.resolution(resolution)
    only = [parse_modality(modality)] if modality is not None else None
    chosen = tissues_with_images(layout, target, tissues=tissues, modalities=only)
    _verify_one_kind(chosen)
    directory = layout.predictions(target, name) if out is None else Path(out)
    # The callback stays where it is: another process cannot call it.
    told = _without_images(progress) if executor is None else silent
    kinds = sorted({modalities[0] for modalities in chosen.values()}, key=str)
    verify_modalities(model, kinds)
    given = chosen_standardization(model, standardization, preprocess=preprocess, modalities=kinds)
    shown = CohortInput(layout, target, channels, given, preprocess)
    own: dict[str, dict[str, Any]] = {}
    for shot in kinds:
        own |= shown.of(shot, [name for name, has in chosen.items() if has[0] == shot])
    common = {**options, "tile_size": tile_size, "overlap": overlap, "batch_size": batch_size}
    common["overwrite"] = overwrite
    written = [directory / f"{tissue_id}.ome.zarr" for tissue_id in chosen]
    tasks: list[_Task] = []
    for path, (tissue_id, modalities) in zip(written, chosen.items(), strict=True):
        place = layout, modalities[0], target, tissue_id
        covers = _mask_of(mask, layout, target, tissue_id)
        mine = {**common, **own[tissue_id]}
        noted = shown.noted(modalities[0], own[tissue_id])
        tasks.append(_Task(model, place, path, mine, noted, covers, told))
    # Looked at all the same: they may be of another image, model or setting.
    there = set() if overwrite else {path for path in written if MultiscaleImage.exists(path)}
    refused: dict[str, ExistsError | ModelError] = {}
    each = zip(chosen, written, run_each(_predicted, tasks, executor), strict=True)
    for done, (tissue_id, path, found) in enumerate(each, start=1):
        if found is not None:
            refused[tissue_id] = found
        elif path in there:
            _log.info("%s is there already", path)
        progress("images", done, len(tasks))
    if refused:
        # The others are done by now.
        _refuse(refused, len(tasks))
    if hasattr(model, "embed"):
        preset, then = shown.of_tiles()
        for size, tiles in _tilings(layout, target, kinds, preset):
            table = directory / f"{size}_tile_embeddings.parquet"
            _embed(
                model,
                tiles,
                table,
                then,
                overwrite=overwrite,
                resume=options.get("resume", True),
                progress=progress,
            )
            written.append(table)
    return written


def _tilings(
    layout: CohortLayout, resolution: Resolution, modalities: Sequence[Modality], preset: str
) -> list[tuple[str, Chain]]:
    found = tilings_of(layout, resolution, modalities, preset)
    if not found:
        _log.info(
            "no vectors of tiles are made: there are no tiles of the strategy 'default' on images of "
            "H&E or IHC, which is what they are made of here; embed_tiles makes those of any others"
        )
    return found


def _embed(
    model: Any,
    tiles: Chain,
    table: Path,
    preprocess: Preprocess | None,
    *,
    overwrite: bool,
    resume: bool,
    progress: Progress,
) -> None:
    """Make the vectors of tiles, or those that a table lacks, or look whether it is what is asked for."""
    there = table.exists() and not overwrite
    new = (
        lacking_parts(model, tiles, table, batch_size=_EMBEDDED, preprocess=preprocess)
        if there
        else []
    )
    if new:
        # One slide more is no reason to make the vectors of all others again.
        add_vectors(
            model,
            tiles,
            table,
            new,
            batch_size=_EMBEDDED,
            preprocess=preprocess,
            resume=resume,
            progress=progress,
        )
    elif there:
        settings = embedding_settings(model, tiles, batch_size=_EMBEDDED, preprocess=preprocess)
        verify_finished(table, settings)
        _log.info("%s is there already", table)
    else:
        embed_tiles(
            model,
            tiles,
            table,
            batch_size=_EMBEDDED,
            preprocess=preprocess,
            resume=resume,
            progress=progress,
        )


def _refuse(refused: Mapping[str, ExistsError | ModelError], count: int) -> NoReturn:
    """Say of which tissues there is no prediction, and why.

    Raises
    ------
    ModelError
        If the model failed on some; the first of what it raised is the cause.
    ExistsError
        If other predictions were there.
    """
    there = [
        str(error).removesuffix(ADVICE)
        for error in refused.values()
        if isinstance(error, ExistsError)
    ]
    failed = {name: error for name, error in refused.items() if isinstance(error, ModelError)}
    told: list[str] = []
    if failed:
        first, *others = failed
        told.append(f"{first}: {failed[first]}")
        if others:
            told.append(f"and the model failed on {_listed(others)}")
    if there:
        more = f"; and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
        hint = "replace predictions with --overwrite (overwrite=True), of these tissues alone with --tissue (tissues=)"
        told.append(f"{'; '.join(there[:_NAMED])}{more}; {hint}")
    msg = f"{len(refused)} of {count} tissues are not predicted: {'; '.join(told)}"
    if not failed:
        raise ExistsError(msg)
    error = next(iter(failed.values()))
    raise ModelError(msg) from error.__cause__ or error


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


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
    out: Path
    options: Mapping[str, Any]
    noted: Mapping[str, Any]
    """Of what makes the model's input."""
    mask: Any
    progress: Progress


def _predicted(task: _Task) -> ExistsError | ModelError | None:
    """Predict a tissue; returns why not, where another prediction is there or the model fails."""
    image = open_tissue_image(*task.place)
    options: dict[str, Any] = {**task.options, "mask": task.mask, "progress": task.progress}
    origin = {"modality": task.place[1].name, "image": identity_in(image.metadata), **task.noted}
    options["metadata"] = _with_origin(options.get("metadata"), origin)
    if isinstance(task.mask, str) and task.mask == _TISSUE:
        layout, _, resolution, tissue_id = task.place
        options["mask"] = open_tissue_mask(layout, resolution, tissue_id)
    try:
        if task.options["overwrite"]:
            predict(task.model, image, task.out, **options)
        else:
            # As one of several: what is finished is kept, or refused where it is another prediction.
            predict(task.model, {task.place[3]: image}, task.out.parent, **options)
    except (ExistsError, ModelError) as error:
        return error
    return None


def _with_origin(metadata: Mapping[str, Any] | None, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata of a prediction that say of what it is, for who looks whether it is stale."""
    given = dict(metadata or {})
    return {**given, "microtome": {**given.get("microtome", {}), "predicted_from": dict(origin)}}


def _mask_of(mask: Any, layout: CohortLayout, resolution: Resolution, tissue_id: str) -> Any:
    """Return the mask of a tissue, or the word for the cohort's own, which must be there."""
    if isinstance(mask, str) and mask == _TISSUE:
        open_tissue_mask(layout, resolution, tissue_id)
        return _TISSUE
    if isinstance(mask, Mapping) and not isinstance(mask, MultiscaleImage):
        return cast("Mapping[str, Any]", mask).get(tissue_id)
    return mask
