"""Tiles turned and changed by their records, and what is drawn for tiles of several modalities."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.augmentation import Augmentation, Draws
from microtome.regions import ImageRegionData

__all__ = ["Plan", "changed_batch", "changed_region", "changed_samples", "results_of"]

# What a tile's metadata may hold that lies pixel for pixel on it.
_ON_PIXELS = ("tissue_mask", "cell_mask")
# Streams of a modality's own lie past those of any number of augmentations.
_STREAMS = 32

Record = dict[str, Any]
Plan = Callable[[str], Sequence[Augmentation]]
"""What is done to a modality, in order: first what is done to all."""


def changed_batch(
    batch: ImageRegionData[Any], records: Sequence[Record], steps: Sequence[Augmentation]
) -> ImageRegionData[Any]:
    """Return a batch, each tile of it changed by its record.

    Parameters
    ----------
    batch
        Collated; its memory is left alone.
    records
        What is done to each tile, by the names of the steps.
    steps
        In order.
    """
    # Of its own: what a dataset gives may be memory that it keeps.
    made = np.empty_like(batch.data)
    for pixels, out, record in zip(batch.data, made, records, strict=True):
        _apply(steps, pixels, out, record)
    metadata = cast("Sequence[Mapping[str, Any]]", batch.additional_metadata)
    told = [_told(m, r, steps) for m, r in zip(metadata, records, strict=True)]
    return batch._replace(data=made, additional_metadata=cast("Any", told))


def changed_region(
    region: ImageRegionData[Any], record: Record, steps: Sequence[Augmentation]
) -> ImageRegionData[Any]:
    """Return one tile, changed by its record; as `changed_batch`."""
    made = np.empty_like(region.data)
    _apply(steps, region.data, made, record)
    metadata = cast("Mapping[str, Any]", region.additional_metadata)
    return region._replace(
        data=made, additional_metadata=cast("Any", _told(metadata, record, steps))
    )


def results_of(sample: Any) -> Mapping[str, Any] | None:
    """Return what a sample shows by modality; None of one that is of a single modality."""
    if isinstance(sample, dict):
        return cast("dict[str, Any]", sample).get("modalities")
    return getattr(sample, "modalities", None)


def changed_samples(
    samples: Sequence[Any],
    rows: NDArray[np.int64],
    *,
    plan: Plan,
    shared: int,
    seed: int,
    epoch: int,
) -> list[Any]:
    """Return samples of several modalities, changed.

    All modalities of a sample are turned alike, whatever their sizes; so is everything that changes targets
    like their input. What else changes pixels is drawn for each modality by itself, from its name.

    Parameters
    ----------
    samples
        Of a composed dataset, or draws of several cohorts.
    rows
        Their numbers, (n,).
    plan
        What is done to each modality.
    shared
        How many steps of each are those of all.
    seed, epoch
        Choose the draws.
    """
    results = [cast("Mapping[str, Any]", results_of(sample)) for sample in samples]
    records = _drawn(results, rows, plan, shared, seed, epoch)
    found: list[Any] = []
    for sample, shown, own in zip(samples, results, records, strict=True):
        made = {name: _changed(one, own[name], plan(name)) for name, one in shown.items()}
        whole = isinstance(sample, dict)
        found.append(
            {**cast("dict[str, Any]", sample), "modalities": made}
            if whole
            else replace(sample, modalities=made)
        )
    return found


def _changed(result: Any, record: Record, steps: Sequence[Augmentation]) -> Any:
    region = changed_region(result.region, record, steps)
    if isinstance(result.image, np.ndarray):
        return replace(result, region=region, image=region.data)
    import torch

    # The same memory, as a dataset gives it.
    return replace(result, region=region, image=torch.from_numpy(region.data))


def _drawn(
    results: Sequence[Mapping[str, Any]],
    rows: NDArray[np.int64],
    plan: Plan,
    shared: int,
    seed: int,
    epoch: int,
) -> list[dict[str, Record]]:
    """Draw what is done to each modality of each sample, those of one shape together."""
    found: list[dict[str, Record]] = [{name: {} for name in shown} for shown in results]
    together: dict[Any, list[tuple[int, Sequence[Record]]]] = {}
    names = sorted({name for shown in results for name in shown})
    most = max((len(plan(name)) for name in names), default=0)
    for number in range(most):
        together.clear()
        for at, shown in enumerate(results):
            for name, one in shown.items():
                steps = plan(name)
                if number >= len(steps):
                    continue
                step = steps[number]
                if number < shared and (step.geometric or step.targets):
                    key = (None, _joint_shape(shown))
                    together.setdefault(key, []).append((at, [*found[at].values()]))
                    break  # all modalities of it at once
                key = (name, one.region.data.shape)
                together.setdefault(key, []).append((at, [found[at][name]]))
        for (name, shape), members in together.items():
            step = plan(names[0] if name is None else name)[number]
            stream = 0 if name is None else (zlib.crc32(name.encode()) + 1) << _STREAMS
            draws = Draws(seed, epoch, number + stream)
            drawn = step.draw(rows[[at for at, _ in members]], draws, shape)
            for (_, records), what in zip(members, drawn, strict=True):
                for record in records:
                    record[step.name] = what
    return found


def _joint_shape(shown: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape by which a turn of all modalities is drawn: one that is not square, if there is one."""
    shapes = [tuple(one.region.data.shape) for one in shown.values()]
    return next((shape for shape in shapes if shape[-1] != shape[-2]), shapes[0])


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
