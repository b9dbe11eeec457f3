"""A prediction as one OME-TIFF: predicted into an OME-Zarr beside it, and written from there.

Shards can be written in any order and gone on with; the pages of a TIFF can not.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from microtome.errors import InvalidInputError
from microtome.export import free_tiff_place, verify_tiff_type, write_ome_tiff
from microtome.image import MultiscaleImage
from microtome.progress import Progress
from microtome.sources import open_image
from microtome.storage import replace_file, storage_errors

from ._job import Job
from ._resuming import Claim

__all__ = ["is_tiff", "predict_tiff"]

_SUFFIXES = (".tif", ".tiff")
_NOTE = "finished.json"


def is_tiff(out: Path) -> bool:
    """Whether a name is a TIFF's, an OME-TIFF's or not."""
    return out.name.lower().endswith(_SUFFIXES)


def predict_tiff(
    job: Job, image: MultiscaleImage, out: Path, mask: Any, progress: Progress
) -> MultiscaleImage:
    """Predict an image into an OME-TIFF, or what is missing of it.

    A hidden directory beside `out` holds the OME-Zarr image, what a killed run left of it, and, when
    both are complete, which file the OME-TIFF is.

    Raises
    ------
    ExistsError
        If there is something at `out`.
    InvalidInputError
        If its name is no OME-TIFF's, there is `metadata`, which it has no place for, or the model
        returns a type that OME has no name for.
    """
    if job.metadata:
        msg = f"{out}: an OME-TIFF has no place for metadata={sorted(job.metadata)}; predict into .ome.zarr"
        raise InvalidInputError(msg)
    folder = out.parent / f".{out.name}.predicting"
    claim = Claim(out, folder)
    try:
        if not job.resume:
            shutil.rmtree(folder, ignore_errors=True)
        if not _is_finished(folder, out):
            free_tiff_place(out, overwrite=job.overwrite)
            if out.exists() and Path(image.uri).exists() and out.samefile(image.uri):
                msg = f"{out} is the image that is predicted; choose another place"
                raise InvalidInputError(msg)
            _predict(job, image, folder, out, mask, progress)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        # Of a wrong answer nothing is left to go on with.
        with contextlib.suppress(OSError):
            folder.rmdir()
        claim.release()
    return open_image(out)


def _predict(
    job: Job, image: MultiscaleImage, folder: Path, out: Path, mask: Any, progress: Progress
) -> None:
    with storage_errors(out):
        folder.mkdir(exist_ok=True)
    # By the name of the file: the picture in it has this name.
    stem = out.name[: out.name.lower().index(".ome.tif")]
    inner = replace(
        job,
        # A whole one is there where a run was killed while the OME-TIFF was written.
        keep_finished=True,
        overwrite=True,
        verify_type=lambda dtype: verify_tiff_type(dtype, "what the model returns"),
    )
    with inner.run(image, folder / f"{stem}.ome.zarr", mask, progress) as made:
        finished = write_ome_tiff(made, folder / out.name, overwrite=True, progress=progress)
    # The file keeps what is noted of it under its new name, so that a run which is killed in
    # between is known for one that has come to its end.
    with replace_file(folder / _NOTE) as temporary:
        temporary.write_text(json.dumps(_identity(finished)))
    with storage_errors(out):
        finished.replace(out)


def _is_finished(folder: Path, out: Path) -> bool:
    """Whether the run that was left had come to its end, but for tidying up."""
    try:
        return json.loads((folder / _NOTE).read_text()) == _identity(out)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _identity(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]
