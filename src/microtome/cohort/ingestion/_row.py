"""One row of a manifest, as it travels to a worker, and what the worker makes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microtome.cohort._layout import CohortLayout
from microtome.coordinates import Mpp, Resolution
from microtome.errors import FormatError, MicrotomeError
from microtome.image import MultiscaleImage
from microtome.sources import image_from_array, open_image
from microtome.storage import Codec

from ._channels import channels_to_store
from ._ingest import Ingested, store_image
from ._manifest_rows import ManifestRow
from ._settings import settings_of, verify_settings

__all__ = ["Failure", "Peek", "RowSettings", "RowTask", "Stored", "ingest_row", "peek_at"]


@dataclass(frozen=True, slots=True)
class RowSettings:
    """What holds for all rows."""

    layout: CohortLayout
    resolution: Resolution
    codec: Codec
    upsample: bool
    overwrite: bool


@dataclass(frozen=True, slots=True)
class RowTask:
    """One row to ingest."""

    row: ManifestRow
    settings: RowSettings


@dataclass(frozen=True, slots=True)
class Peek:
    """What a source states of itself, without its pixels."""

    task: RowTask
    channels: list[str]


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that cannot be ingested."""

    row: ManifestRow
    error: MicrotomeError | OSError
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.row}: {self.error}"


@dataclass(frozen=True, slots=True)
class Stored:
    """A row whose image is in the cohort."""

    task: RowTask
    done: Ingested
    size: int
    """Of its files in bytes."""
    seconds: float


def peek_at(task: RowTask) -> Peek | Failure:
    """Ask a source what it states of itself, and an image that is there what it was made with."""
    row, settings = task.row, task.settings
    target = settings.resolution
    try:
        opened = _open(row)
        channels = channels_to_store(
            opened, row.modality, target, row.channel_names, upsample=settings.upsample
        )
        if row.has_id and not settings.overwrite:
            verify_settings(
                settings.layout.image(row.modality, target, row.tissue_id),
                settings_of(opened, row.modality, target, channels, settings.codec, row.image),
            )
    except (MicrotomeError, OSError) as error:
        return Failure(task.row, _in_columns(error))
    return Peek(task, channels)


def ingest_row(task: RowTask, *, note: bool = False) -> Stored | Failure:
    """Write the image of a row.

    Parameters
    ----------
    task
        The row.
    note
        Whether the cohort's tables are told, as `ingest` does; by default the caller does it.
    """
    began = time.perf_counter()
    row, settings = task.row, task.settings
    array = row.path.suffix.lower() == ".npy"
    try:
        done = store_image(
            _open(row) if array else row.path,
            cohort=settings.layout.root,
            tissue_id=row.tissue_id,
            modality=row.modality,
            mpp=None if array else row.mpp,
            resolution=settings.resolution,
            channel_names=None if array else row.channel_names,
            image=row.image,
            patient_id=row.patient_id,
            specimen_id=row.specimen_id,
            split=row.split,
            codec=settings.codec,
            upsample=settings.upsample,
            overwrite=settings.overwrite,
            note=note,
        )
        size = _size_of(done.path)
    except (MicrotomeError, OSError) as error:
        return Failure(row, _in_columns(error), time.perf_counter() - began)
    return Stored(task, done, size, time.perf_counter() - began)


def _open(row: ManifestRow) -> MultiscaleImage:
    if row.path.suffix.lower() != ".npy":
        return open_image(row.path, mpp=row.mpp, channel_names=row.channel_names, image=row.image)
    try:
        pixels = np.load(row.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        msg = f"{row.path} is not an array of numbers that can be read: {error}"
        raise FormatError(msg) from error
    return image_from_array(
        pixels,
        axes=row.axes,
        mpp=None if row.mpp is None else Mpp.from_user(row.mpp),
        channel_names=row.channel_names,
        uri=str(row.path),
        name=row.path.stem,
    )


# What is an option where one file is ingested is a column here.
_COLUMNS = {
    "with --channel red --channel green --channel blue (channel_names=)": (
        "in the column channel_names: red|green|blue"
    ),
    "with --channel (channel_names=)": "in the column channel_names",
    "with --image (image=)": "in the column image",
    "with --mpp (mpp=)": "in the column mpp",
    "where it is opened, microtome.open_image(..., mpp=), or with --mpp": "in the column mpp",
}


def _in_columns(error: MicrotomeError | OSError) -> MicrotomeError | OSError:
    """Return an error that says what to do in the words of a manifest."""
    if not isinstance(error, MicrotomeError):
        return error
    text = str(error)
    for option, column in _COLUMNS.items():
        text = text.replace(option, column)
    return type(error)(text)


def _size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
