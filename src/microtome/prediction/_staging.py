"""A prediction into a store: made in a directory here, and put there when it is complete."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microtome.errors import ExistsError, InvalidInputError, StorageError
from microtome.image import MultiscaleImage
from microtome.progress import Progress
from microtome.storage import (
    AtPlace,
    Place,
    StorageOptions,
    forget_upload,
    is_address,
    place_of,
    spelled,
    storage_errors,
    upload_directory,
    verify_upload,
)

from ._finished import is_of, record_at, refuse_finished
from ._resuming import Claim

if TYPE_CHECKING:
    from ._job import Job

__all__ = [
    "Final",
    "Target",
    "put_image",
    "put_labels",
    "split_place",
    "staged",
    "target_of_prediction",
]

Target = str | os.PathLike[str] | Place | AtPlace
"""Where a prediction goes: a path, or the address of a store or what stands for one."""


def target_of_prediction(out: Target, options: StorageOptions | None = None) -> Path | Place:
    """Return where a prediction goes: a path here, or a place in a store that can be written.

    Raises
    ------
    InvalidInputError
        If the scheme of an address is unknown.
    ModeError
        If such a store is only read.
    """
    if not isinstance(out, Place | AtPlace):
        text = spelled(out)
        if not is_address(text):
            return Path(out)
        out = text
    place = place_of(out, options)
    if isinstance(place, Place):
        place.verify_writable()
    return place


def split_place(place: Place) -> tuple[Place, str]:
    """Return the directory of a file in a store, and the name of the file.

    Raises
    ------
    InvalidInputError
        If it has no name.
    """
    base, _, name = place.uri.rstrip("/").rpartition("/")
    above = place_of(base, place.options) if is_address(base) else None
    if not isinstance(above, Place):
        msg = f"{place} is no address of a file in a store"
        raise InvalidInputError(msg)
    return above, name


@dataclass(frozen=True, slots=True)
class Final:
    """Where what is made here goes in the end, and what becomes of what is there."""

    place: Place
    overwrite: bool
    keep: bool
    """Whether a finished prediction of the same settings is kept without a word."""

    def is_there(
        self,
        staged: Path,
        image: MultiscaleImage,
        settings: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
    ) -> bool:
        """Whether nothing is to be done, as the prediction that is asked for is there.

        Parameters
        ----------
        staged
            What a run that was killed has left here.
        image
            What is predicted.
        settings, metadata
            As for `refuse_finished`.

        Raises
        ------
        ExistsError
            If something else is there that is not to be replaced.
        InvalidInputError
            If it is the image that is predicted.
        """
        place = self.place
        _refuse_source(place, image)
        run = record_at(place).get("run")
        if run is None:
            # No prediction, which costs no further look.
            verify_upload(place, overwrite=self.overwrite)
            return False
        # Of a run that was killed after its last step, but for tidying up.
        if run == record_at(staged).get("run"):
            return True
        if self.keep and is_of(place, settings):
            return True
        if not self.overwrite:
            refuse_finished(place, settings, metadata)
        verify_upload(place, overwrite=self.overwrite)
        return False


@contextlib.contextmanager
def staged(place: Place, name: str, *, resume: bool) -> Generator[Path]:
    """Give the path here that what goes to a place in a store is made at, by one process.

    What a run leaves that was killed or failed is there for the next one on this machine.

    Parameters
    ----------
    place
        The directory in the store.
    name
        Name of what goes there.
    resume
        Whether what a run left is gone on with.

    Raises
    ------
    BusyError
        If another process of this machine is at work on the same.
    StorageError
        If the disk refuses, or the directory for temporary files is not one's own.
    """
    folder = _own_directory() / hashlib.sha256(f"{place.store}{name}".encode()).hexdigest()[:16]
    claim = Claim(folder, folder, told=f"{place}")
    try:
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        with storage_errors(folder):
            folder.mkdir(exist_ok=True)
        yield folder / name
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        # Of a wrong answer nothing is left to go on with.
        with contextlib.suppress(OSError):
            folder.rmdir()
        claim.release()


def put_image(
    job: Job, image: MultiscaleImage, place: Place, mask: Any, progress: Progress
) -> MultiscaleImage:
    """Predict an image into a store, or what is missing of it; errors as `Job.run`.

    Parameters
    ----------
    job
        What is asked for.
    image, mask, progress
        As for `Job.run`.
    place
        Where the prediction will be.
    """
    final = Final(place, job.overwrite, job.keep_finished)
    # A whole one is there where a run was killed while it was put into the store.
    inner = replace(job, keep_finished=True, overwrite=True, final=final)
    name = place.uri.rstrip("/").rsplit("/", 1)[-1]
    with staged(place, name, resume=job.resume) as path:
        made = inner.run(image, path, mask, progress)
        run = str(record_at(path).get("run"))
        if made.uri == str(place):
            if path.exists():
                forget_upload(place, run)
        else:
            made.close()
            settings = record_at(path).get("settings", {})
            try:
                upload_directory(path, place, run=run, overwrite=job.overwrite, progress=progress)
            except ExistsError:
                # Another machine may share the images of a cohort, and have been faster with this one.
                if not (final.keep and is_of(place, settings)):
                    raise
    return MultiscaleImage.open(place)


def put_labels(
    make: Callable[[Path], MultiscaleImage],
    image: MultiscaleImage,
    place: Place,
    *,
    overwrite: bool,
    resume: bool,
    progress: Progress,
) -> MultiscaleImage:
    """Make labels of an image here, and put them into a store.

    Parameters
    ----------
    make
        What makes them at a path.
    image
        What they are of.
    place
        Where they will be.
    overwrite
        Whether an image that is there may be replaced.
    resume
        Whether what a killed run left is gone on with.
    progress
        Called with the files that are there and all.

    Raises
    ------
    InvalidInputError
        If it is the image itself, or in the folder of labels of an image, which would have to be
        told of them.
    ExistsError
        If something is there that may not be replaced.
    """
    _refuse_source(place, image)
    *_, above, name = ["", *place.uri.rstrip("/").split("/")]
    if above == "labels":
        msg = f"{place}: labels inside of an image are listed there, and one in a store is not changed; choose another place"
        raise InvalidInputError(msg)
    verify_upload(place, overwrite=overwrite)
    with staged(place, name, resume=resume) as path:
        make(path).close()
        run = str(record_at(path).get("run"))
        upload_directory(path, place, run=run, overwrite=overwrite, progress=progress)
    return MultiscaleImage.open(place)


def _refuse_source(place: Place, image: MultiscaleImage) -> None:
    if str(place).rstrip("/") == image.uri.rstrip("/"):
        msg = f"{place} is the image that is predicted; choose another place"
        raise InvalidInputError(msg)


def _own_directory() -> Path:
    """Return the directory for what this user stages, which nobody else can write into."""
    user = os.getuid() if hasattr(os, "getuid") else None
    found = Path(tempfile.gettempdir()) / f"microtome-staging-{'own' if user is None else user}"
    with storage_errors(found):
        found.mkdir(mode=0o700, exist_ok=True)
        facts = found.lstat()
    if not found.is_dir() or found.is_symlink() or (user is not None and facts.st_uid != user):
        msg = f"{found}, where predictions for a store are kept until they are complete, is not yours; set TMPDIR to another directory"
        raise StorageError(msg)
    return found
