"""`ingest`: any microscope file becomes a multiscale image in a cohort."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microtome.coordinates import Mpp, Resolution
from microtome.errors import ExistsError, InvalidInputError, MicrotomeError
from microtome.image import MultiscaleImage, begin_image, channel_indices
from microtome.progress import Progress, silent
from microtome.sources import open_image
from microtome.storage import Codec, image_layout

from ._fingerprint import fingerprint
from ._images import stored_type
from ._ingest_source import IngestSource
from ._layout import CohortLayout, check_tissue_id
from ._modality import Modality, parse_modality
from ._tables import add_tissue, add_to_panel, channel_order

__all__ = ["Beginning", "channels_to_store", "ingest"]

_log = logging.getLogger(__name__)

# A pixel size that differs by less is the same: 0.4999 and 0.5 um are one scanner's setting, but
# resampling is exact all the same, so this only decides what counts as up-sampling.
_FINER = 1.02
_RGB = ("red", "green", "blue")
_RGB_NAMES = {_RGB, ("r", "g", "b"), ("channel 0", "channel 1", "channel 2")}


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
        Replace an image made from another source or with other settings.
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
        If nobody states the source's pixel size.
    NotFoundError, FormatError
        If the source is missing or damaged, or the directory is not a cohort.
    ExistsError
        If the tissue has an image made from something else.
    """
    check_tissue_id(tissue_id)
    kind = parse_modality(modality)
    target = Resolution.parse(resolution)
    opened = open_image(source, mpp=mpp, axes=axes, channel_names=channel_names, image=image)
    channels = channels_to_store(opened, kind, target, channel_names, upsample=upsample)
    own = opened.require_mpp()
    before = Beginning.of(cohort)
    layout = CohortLayout.open_or_create(cohort)
    try:
        digest = fingerprint(_pixels_of(source) if isinstance(source, MultiscaleImage) else source)
        settings: dict[str, Any] = {
            "sha256": digest,
            "mpp": [own.y, own.x],
            "resolution": target.directory,
            "channels": channels,
            "codec": codec,
            "dtype": _stored_type(opened, kind, target).name,
        }
        if image is not None:
            settings["image"] = image
        job = _Job(opened, layout, kind, target, tissue_id, settings)
        job.verify_free(overwrite=overwrite)
        job.fill(progress)
        base = opened.level(0)
        add_tissue(
            layout,
            {
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
            },
        )
    except Exception:
        # A full disk must not leave an empty cohort where there was none. After an interrupt, which
        # is no Exception, writes may still be going on.
        before.restore(layout)
        raise
    return MultiscaleImage.open(job.path)


def channels_to_store(
    image: MultiscaleImage,
    modality: Modality,
    resolution: Resolution,
    given: Sequence[str] | None,
    *,
    upsample: bool,
) -> list[str]:
    """Return the names of the channels that a source has for a modality; no pixel is read.

    Raises
    ------
    InvalidInputError
        If the source does not fit the modality, or is coarser than the resolution.
    NoResolutionError
        If nobody states its pixel size.
    """
    own = image.require_mpp()
    _verify_flat(image)
    channels = _channels(image, modality, given)
    if not upsample and max(own.y / resolution.mpp[0], own.x / resolution.mpp[1]) > _FINER:
        msg = (
            f"{image.uri} has {own}, coarser than the resolution {resolution} um asked for: pixels would be "
            f"invented. Use a coarser --resolution, or allow it with --upsample (upsample=True)"
        )
        raise InvalidInputError(msg)
    return channels


@dataclass(frozen=True, slots=True)
class Beginning:
    """What was at a cohort's place before a job began."""

    directory: bool
    cohort: bool

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Beginning:
        layout = CohortLayout(Path(path))
        return cls(layout.root.is_dir(), layout.manifest.is_file() or layout.tissues.is_file())

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
    """

    image: MultiscaleImage
    layout: CohortLayout
    modality: Modality
    resolution: Resolution
    tissue_id: str
    settings: dict[str, Any]

    @property
    def path(self) -> Path:
        """Where the image goes."""
        return self.layout.image(self.modality, self.resolution, self.tissue_id)

    def verify_free(self, *, overwrite: bool) -> None:
        """Refuse to replace what was made from something else."""
        if not overwrite and MultiscaleImage.exists(self.path) and not self._is_made(None):
            msg = (
                f"{self.path} was made from another source or with other settings; replace it with "
                "--overwrite (overwrite=True), or use another tissue id"
            )
            raise ExistsError(msg)

    def fill(self, progress: Progress) -> None:
        """Write the image unless it is there, and only then note its channels."""
        channels: list[str] = self.settings["channels"]
        if self.modality.kind != "multiplex":
            self._write_unless_made(channels, progress)
            return
        order = channel_order(self.layout, self.modality, channels)
        while True:
            self._write_unless_made(order, progress)
            stored = order
            order = add_to_panel(self.layout, self.modality, self.tissue_id, stored)
            if order == stored:
                return
            _log.info("the panel of %s has grown meanwhile; writing once more", self.modality)

    def _is_made(self, order: Sequence[str] | None) -> bool:
        """Whether the image is there, made with the same settings and in this order of planes."""
        if not MultiscaleImage.exists(self.path):
            return False
        there = MultiscaleImage.open(self.path)
        same = there.metadata.get("microtome", {}).get("ingest") == self.settings
        return same and (order is None or list(there.channel_names or ()) == list(order))

    def _write_unless_made(self, order: Sequence[str], progress: Progress) -> None:
        if self._is_made(order):
            _log.info("%s is there already, made from the same source", self.path)
        else:
            _write(self, order, progress)


def _verify_flat(image: MultiscaleImage) -> None:
    sizes = dict(zip(image.axes, image.level_shape(0), strict=True))
    deep = {axis: size for axis, size in sizes.items() if axis in "tz" and size > 1}
    if deep:
        msg = f"{image.uri} has axes {image.axes} of {image.level_shape(0)}; a cohort holds single planes"
        raise InvalidInputError(msg)


def _channels(image: MultiscaleImage, modality: Modality, given: Sequence[str] | None) -> list[str]:
    """Return the names of the channels to store, checked against the modality."""
    if modality.kind == "brightfield":
        if image.nchannels != len(_RGB) or image.dtype != np.uint8:
            msg = f"{modality} is red, green and blue of 8 bits; {image.uri} has {image.nchannels} channels of {image.dtype}"
            raise InvalidInputError(msg)
        if tuple(str(name).lower() for name in image.channel_names or ()) not in _RGB_NAMES:
            msg = (
                f"{modality} is red, green and blue; {image.uri} names its channels "
                f"{image.channel_names}. Is it fluorescence? If they are colours, say so with "
                "--channel red --channel green --channel blue (channel_names=)"
            )
            raise InvalidInputError(msg)
        return list(_RGB)
    names = image.channel_names
    if names == _RGB and image.dtype == np.uint8 and given is None:
        msg = (
            f"{image.uri} is a colour photograph, red, green and blue; {modality} has a channel a "
            "marker. If these are markers, name them with --channel (channel_names=)"
        )
        raise InvalidInputError(msg)
    if not image.has_channel_axis and given is not None and len(given) == 1:
        names = tuple(given)
    # A source without names numbers its channels; a panel of numbers would join by accident.
    if names is None or names == tuple(f"channel {i}" for i in range(len(names))):
        msg = (
            f"{image.uri} has {image.nchannels} channels without names, and channels of {modality} are "
            "known by name; give them in order with --channel (channel_names=)"
        )
        raise InvalidInputError(msg)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{image.uri}: channel names must be unique, {twice} occur more than once"
        raise InvalidInputError(msg)
    return list(names)


def _stored_type(
    image: MultiscaleImage, modality: Modality, resolution: Resolution
) -> np.dtype[Any]:
    """Return the type that an image is stored in.

    A mean of counts is no whole number: a marker of one count in ten pixels, rounded, is gone.
    Colours of 8 bits lose nothing that a scanner or an eye could tell.
    """
    own, (y, x) = image.require_mpp(), resolution.mpp
    same = math.isclose(own.y, y, rel_tol=1e-9) and math.isclose(own.x, x, rel_tol=1e-9)
    return image.dtype if modality.kind == "brightfield" or same else stored_type(image.dtype)


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
        rgb=list(order) == list(_RGB),
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


def _pixels_of(image: MultiscaleImage) -> Any:
    """Return what identifies an open image: its place, or its pixels where it has none."""
    return image.uri if Path(image.uri).exists() else image.level(0)[...]
