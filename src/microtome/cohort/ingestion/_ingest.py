"""`ingest`: any microscope file becomes a multiscale image in a cohort."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microtome.cohort._fingerprint import fingerprint
from microtome.cohort._layout import CohortLayout, check_tissue_id
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort._panels import add_to_panel, channel_order
from microtome.cohort._tables import add_tissue
from microtome.coordinates import Mpp, Resolution
from microtome.errors import ExistsError, MicrotomeError
from microtome.image import MultiscaleImage, begin_image, channel_indices
from microtome.progress import Progress, silent
from microtome.sources import image_files, open_image
from microtome.storage import Codec, image_layout, is_address

from ._channels import RGB, channels_to_store
from ._plausible import warn_of_mpp
from ._settings import settings_of, taken
from ._source import IngestSource
from ._stale_told import tell_stale

__all__ = ["Beginning", "Ingested", "ingest", "store_image"]

_log = logging.getLogger(__name__)


def ingest(  # noqa: PLR0913 - a row of the tissue table, each column optional
    source: Any,
    *,
    cohort: str | os.PathLike[str],
    tissue_id: str,
    modality: str | Modality,
    mpp: float | tuple[float, float] | Mpp | None = None,
    resolution: float | str | tuple[float, float] | Resolution = 1.0,
    axes: str | None = None,
    channel_names: Sequence[str] | None = None,
    image: str | int | None = None,
    patient_id: str | None = None,
    specimen_id: str | None = None,
    split: str | None = None,
    codec: Codec = "train",
    upsample: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> MultiscaleImage:
    """Write a source into a cohort at the cohort's resolution.

    The image appears whole or not at all; a killed run leaves nothing that opens, and running it
    again completes it. Running it again with the same source and settings changes nothing.

    Parameters
    ----------
    source
        Whatever `microtome.open_image` takes: a path, an array, an open image.
    cohort
        Directory of the cohort; begun where there is nothing.
    tissue_id
        Name of the tissue: letters, digits, ``.``, ``_`` and ``-``. Images of one piece of tissue
        share it over all modalities.
    modality
        How it was imaged: ``"he"``, ``"ihc_<marker>"``, ``"imc"``, ``"codex"``, ``"cycif"``,
        ``"mibi"``, ``"stains"``, or a registered one.
    mpp
        Micrometres per pixel of the source, where it does not state them or states wrong ones.
    resolution
        Micrometres per pixel of the image in the cohort.
    axes
        Names of an array's axes, for example ``"yxc"``.
    channel_names
        Names of the channels in order, where the source does not state them: those of a multiplex
        modality are known by name.
    image
        Which of the images in a file, by name or number: see `microtome.image_names`.
    patient_id, specimen_id, split
        Columns of the tissue's row.
    codec
        ``"train"``; ``"panel"``, where mostly all channels of a tile are read; ``"fast"`` to write;
        or ``"small"``. See `microtome.storage.Codec`.
    upsample
        Allow a source that is coarser than the resolution; its pixels are interpolated.
    overwrite
        Replace an image made from another source or with other settings. What was made of the old
        one, masks, tiles and statistics, is named in a warning, with the verb that renews it.
    progress
        Called with the blocks done and to do.

    Returns
    -------
    The image in the cohort, open for reading.

    Raises
    ------
    InvalidInputError
        If an argument is wrong, or the source does not fit the modality.
    NoResolutionError
        If nobody states the source's pixel size, or it is one that no microscope has.
    NotFoundError, FormatError
        If the source is missing or damaged, or the directory is not a cohort.
    ExistsError
        If the tissue has an image made from something else.
    """
    done = store_image(
        source,
        cohort=cohort,
        tissue_id=tissue_id,
        modality=modality,
        mpp=mpp,
        resolution=resolution,
        axes=axes,
        channel_names=channel_names,
        image=image,
        patient_id=patient_id,
        specimen_id=specimen_id,
        split=split,
        codec=codec,
        upsample=upsample,
        overwrite=overwrite,
        progress=progress,
    )
    return MultiscaleImage.open(done.path)


@dataclass(frozen=True, slots=True)
class Ingested:
    """An image that is in a cohort, and what the cohort's tables say of it."""

    path: Path
    modality: Modality
    channels: list[str]
    """In the order in which they are stored."""
    wrote: bool
    """Whether it was written now; else it was there."""
    row: dict[str, Any]
    """Of the table of tissues."""


def store_image(  # noqa: PLR0913 - as `ingest`
    source: Any,
    *,
    cohort: str | os.PathLike[str],
    tissue_id: str,
    modality: str | Modality,
    mpp: float | tuple[float, float] | Mpp | None = None,
    resolution: float | str | tuple[float, float] | Resolution = 1.0,
    axes: str | None = None,
    channel_names: Sequence[str] | None = None,
    image: str | int | None = None,
    patient_id: str | None = None,
    specimen_id: str | None = None,
    split: str | None = None,
    codec: Codec = "train",
    upsample: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    note: bool = True,
) -> Ingested:
    """Write an image as `ingest` does.

    Parameters
    ----------
    note
        Whether the cohort's tables are told; if not, the caller does it, for many images at once.
    """
    check_tissue_id(tissue_id)
    kind = parse_modality(modality)
    target = Resolution.parse(resolution)
    before = Beginning.of(cohort)
    opened = open_image(source, mpp=mpp, axes=axes, channel_names=channel_names, image=image)
    channels = channels_to_store(opened, kind, target, channel_names, upsample=upsample)
    own = opened.require_mpp()
    warn_of_mpp(own, opened.uri)
    layout = CohortLayout.open_or_create(cohort)
    try:
        digest = _digest(source, opened)
        settings = {"sha256": digest, **settings_of(opened, kind, target, channels, codec, image)}
        job = _Job(opened, layout, kind, target, tissue_id, settings, _directory(source))
        job.verify_free(overwrite=overwrite)
        order, wrote = job.fill(progress, note=note)
        base = opened.level(0)
        row = {
            "tissue_id": tissue_id,
            "dataset": layout.root.resolve().name,
            "patient_id": patient_id,
            "specimen_id": specimen_id,
            "modality": kind.name,
            "split": split,
            "mpp": float(np.sqrt(own.y * own.x)),
            "mpp_source": own.source,
            "width": base.width,
            "height": base.height,
            "source": opened.uri,
            "sha256": digest,
        }
        if note:
            add_tissue(layout, row)
    except Exception:
        # A full disk must not leave an empty cohort where there was none. After an interrupt, which
        # is no Exception, writes may still be going on.
        before.restore(layout)
        raise
    if note and wrote and overwrite:
        tell_stale(layout, {tissue_id})
    return Ingested(job.path, kind, order, wrote, row)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What was at a cohort's place before a job began."""

    directory: bool
    cohort: bool

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Beginning:
        if is_address(path):
            CohortLayout.open(path)  # refuses it, before any source is opened
        layout = CohortLayout(Path(path))
        return cls(layout.root.is_dir(), layout.has_begun)

    def restore(self, layout: CohortLayout) -> None:
        """Undo the beginning of a cohort that nothing came into."""
        if not self.cohort:
            with contextlib.suppress(MicrotomeError, OSError):
                layout.withdraw(keep_root=self.directory)


@dataclass(frozen=True, slots=True)
class _Job:
    """One image to write into a cohort.

    Parameters
    ----------
    image
        The source.
    layout, modality, resolution, tissue_id
        Where it goes.
    settings
        What the stored image depends on; kept with it.
    directory
        The source, where it is one.
    """

    image: MultiscaleImage
    layout: CohortLayout
    modality: Modality
    resolution: Resolution
    tissue_id: str
    settings: dict[str, Any]
    directory: Path | None

    @property
    def path(self) -> Path:
        """Where the image goes."""
        return self.layout.image(self.modality, self.resolution, self.tissue_id)

    def verify_free(self, *, overwrite: bool) -> None:
        """Refuse to replace what was made from something else."""
        if not overwrite and MultiscaleImage.exists(self.path) and not self._is_made(None):
            made = MultiscaleImage.open(self.path).metadata.get("microtome", {}).get("ingest") or {}
            raise ExistsError(taken(self.path, made, self.settings))

    def fill(self, progress: Progress, *, note: bool) -> tuple[list[str], bool]:
        """Write the image unless it is there, and only then note its channels.

        Returns
        -------
        The channels in the order in which they are stored, and whether anything was written.
        """
        channels: list[str] = self.settings["channels"]
        if self.modality.kind != "multiplex":
            return channels, self._write_unless_made(channels, progress)
        order = channel_order(self.layout, self.modality, channels)
        wrote = False
        while True:
            wrote = self._write_unless_made(order, progress) or wrote
            stored = order
            if note:
                order = add_to_panel(self.layout, self.modality, self.tissue_id, stored)
            if order == stored:
                return order, wrote
            _log.info("the panel of %s has grown meanwhile; writing once more", self.modality)

    def _is_made(self, order: Sequence[str] | None) -> bool:
        """Whether the image is there, made with the same settings and in this order of planes."""
        if not MultiscaleImage.exists(self.path):
            return False
        there = MultiscaleImage.open(self.path)
        made = there.metadata.get("microtome", {}).get("ingest") or {}
        same = made == self.settings or self._is_made_of_all(made)
        return same and (order is None or list(there.channel_names or ()) == list(order))

    def _is_made_of_all(self, made: dict[str, Any]) -> bool:
        """Whether it was made of the same, when all that lies in a directory still was its source."""
        if self.directory is None or {**made, "sha256": ""} != {**self.settings, "sha256": ""}:
            return False
        return made["sha256"] == fingerprint(self.directory)

    def _write_unless_made(self, order: Sequence[str], progress: Progress) -> bool:
        if self._is_made(order):
            _log.info("%s is there already, made from the same source", self.path)
            return False
        _write(self, order, progress)
        return True


def _write(job: _Job, order: Sequence[str], progress: Progress) -> None:
    image, settings = job.image, job.settings
    own = image.require_mpp()
    target = Mpp(*job.resolution.mpp, own.source)
    source = IngestSource(
        image,
        target,
        channel_indices(_present(image, order), image.channel_names, image.nchannels),
        dtype=settings["dtype"],
        # A scanner's own levels are rounded, or thinned out: good enough to look at, not to count on.
        level=0 if job.modality.kind == "multiplex" else None,
    )
    with begin_image(
        job.path,
        dtype=source.dtype,
        shape=source.shape,
        axes="cyx",
        channel_names=order,
        mpp=target,
        layout=image_layout("cyx", source.shape, codec=settings["codec"]),
        # What may not be replaced was refused before.
        overwrite=True,
        rgb=list(order) == list(RGB),
        metadata={
            "microtome": {
                "ingest": settings,
                # From pixel edges of this image to pixel edges of the source, (x, y).
                "source": {"uri": image.uri, "scale": [target.x / own.x, target.y / own.y]},
            }
        },
    ) as made:
        made.build_levels(
            source=source, progress=lambda _, done, total, /: progress("ingest", done, total)
        )


def _present(image: MultiscaleImage, order: Sequence[str]) -> list[int] | list[str]:
    names = image.channel_names
    # A brightfield image may call its channels otherwise; their order is red, green, blue.
    return (
        list(order) if names is not None and set(order) <= set(names) else list(range(len(order)))
    )


def _digest(source: Any, image: MultiscaleImage) -> str:
    """Return what identifies a source: the files of the image that was opened, or its pixels where it has none."""
    if isinstance(source, str | os.PathLike):
        return fingerprint(image.uri if "://" not in image.uri else source, image_files(image))
    if not isinstance(source, MultiscaleImage):
        return fingerprint(source)
    if Path(image.uri).exists():
        return fingerprint(image.uri, image_files(image))
    return fingerprint(image.level(0)[...])


def _directory(source: Any) -> Path | None:
    place = source.uri if isinstance(source, MultiscaleImage) else source
    return Path(place) if isinstance(place, str | os.PathLike) and Path(place).is_dir() else None
