"""Where everything of a cohort lies: the SPORA layout (as in spora_io), as paths."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtome.coordinates import Resolution
from microtome.errors import (
    FormatError,
    InvalidInputError,
    MicrotomeError,
    NotFoundError,
    StorageError,
)
from microtome.storage import (
    Place,
    StorageOptions,
    StorePath,
    is_address,
    locked,
    names_in,
    path_to_read,
    spelled,
    storage_errors,
)

from ._cohort_json import read_cohort_json, write_cohort_json
from ._modality import Modality, parse_modality

__all__ = [
    "CohortLayout",
    "check_tissue_id",
    "is_written",
    "size_name",
    "tile_size_of",
]

_LOCK = ".cohort.lock"

_TISSUE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_LONGEST_ID = 200
# A path that was made of an address has lost a slash; one letter is a drive.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def check_tissue_id(tissue_id: str) -> str:
    """Return a tissue id that can be part of a path, unchanged.

    Raises
    ------
    InvalidInputError
        If it has anything but letters, digits, ``.``, ``_`` and ``-``, begins with ``.`` or
        ``-``, or is longer than 200 characters.
    """
    if not _TISSUE_ID.fullmatch(tissue_id) or len(tissue_id) > _LONGEST_ID:
        msg = (
            f"tissue id {tissue_id!r} becomes part of a path: use letters, digits, '.', '_' and '-' "
            f"only, not beginning with '.' or '-', at most {_LONGEST_ID} characters"
        )
        raise InvalidInputError(msg)
    return tissue_id


@dataclass(frozen=True, slots=True)
class CohortLayout:
    """The paths of a cohort directory.

    Parameters
    ----------
    root
        The directory: a path here, or one in a store (`StorePath`), which is only read.
    """

    root: Path

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | Place | StorePath,
        *,
        reading: bool = False,
        storage_options: StorageOptions | None = None,
    ) -> CohortLayout:
        """Find an existing cohort, ours or a SPORA dataset.

        Parameters
        ----------
        path
            Its directory; to read also an address (``s3://``, ``gs://``, ``http(s)://``).
        reading
            Whether the caller changes nothing in the cohort, and may so be given one in a store.
        storage_options
            How stores are reached.

        Raises
        ------
        NotFoundError
            If there is no directory.
        InvalidInputError
            If it is the address of a store, and the caller would write there.
        StorageError
            If the store cannot be reached or refuses.
        FormatError
            If it is not a cohort, or one of a newer format.
        """
        if not reading:
            _verify_no_address(path)
        layout = cls(path_to_read(path, storage_options))
        if not layout.root.is_dir():
            if layout.root.is_file():
                msg = f"{path} is a file, not a cohort directory"
                raise FormatError(msg)
            msg = f"there is no cohort at {path}; make one with `microtome ingest ... --cohort {path}`"
            raise NotFoundError(msg)
        if layout.manifest.is_file():
            read_cohort_json(layout.manifest)
        elif not layout.tissues.is_file():
            msg = f"{path} is a directory but no cohort: it has neither cohort.json nor metadata/tissues.parquet"
            raise FormatError(msg)
        return layout

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str]) -> CohortLayout:
        """Find a cohort, or begin one where there is nothing.

        Raises
        ------
        InvalidInputError
            If it is the address of a store.
        FormatError
            If there is something else, which is left as it is.
        """
        _verify_no_address(path)
        layout = cls(Path(path))
        if os.path.lexists(layout.root):
            if not layout.root.is_dir():
                msg = f"{path} is a file, not a cohort directory"
                raise FormatError(msg)
            if any(not _is_beginning(entry.name) for entry in layout.root.iterdir()):
                return cls.open(path)
        there = layout.root.is_dir()
        try:
            with storage_errors(layout.root):
                layout.root.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # as in /proc, where its parent is there
            msg = f"no directory can be made at {path}: {error.strerror}; choose another place"
            raise StorageError(msg) from error
        try:
            with locked(layout.lock, what=f"the cohort {layout.root}"):
                layout.write_manifest()
        except Exception:
            with contextlib.suppress(MicrotomeError, OSError):
                layout.withdraw(keep_root=there)
            raise
        return layout

    @property
    def has_begun(self) -> bool:
        """Whether there is a cohort, ours or one of the SPORA layout."""
        return self.manifest.is_file() or self.tissues.is_file()

    def write_manifest(self) -> None:
        """Write cohort.json unless the cohort has begun; under the cohort's lock."""
        if not self.has_begun:
            write_cohort_json(self.manifest)

    def withdraw(self, *, keep_root: bool) -> None:
        """Undo the beginning of a cohort into which nothing came; leaves any other as it is.

        Parameters
        ----------
        keep_root
            Leave the empty directory.
        """
        with locked(self.lock, what=f"the cohort {self.root}"):
            mine = {self.manifest, self.lock}
            entries = list(self.root.rglob("*"))
            if any(not entry.is_dir() and entry not in mine for entry in entries):
                return
            for entry in sorted(entries, reverse=True):
                with contextlib.suppress(OSError):  # another process is filling it now
                    if entry.is_dir():
                        entry.rmdir()
            if set(self.root.iterdir()) - mine:
                return
            self.manifest.unlink(missing_ok=True)
            self.lock.unlink(missing_ok=True)
        if not keep_root:
            with contextlib.suppress(OSError):
                self.root.rmdir()

    def read_manifest(self) -> dict[str, Any]:
        """Return the content of cohort.json; empty for a foreign cohort.

        Raises
        ------
        FormatError
            If it is damaged, something else's, or of a newer version.
        """
        return read_cohort_json(self.manifest) if self.manifest.is_file() else {}

    @property
    def manifest(self) -> Path:
        """cohort.json; absent in a cohort that spora_io wrote."""
        return self.root / "cohort.json"

    @property
    def lock(self) -> Path:
        """The lock file of whoever changes tables."""
        return self.root / _LOCK

    @property
    def tissues(self) -> Path:
        """The table of tissues."""
        return self.root / "metadata" / "tissues.parquet"

    def channels(self, modality: Modality) -> Path:
        """Return the panel of a modality."""
        return self.root / modality.canonical_dir / "channels.parquet"

    def channels_per_tissue(self, modality: Modality) -> Path:
        """Return the table of which tissue measured which channel."""
        return self.root / modality.canonical_dir / "channels_per_tissue.parquet"

    def images(self, modality: Modality, resolution: Resolution) -> Path:
        """Return the directory of a modality's images."""
        return self.root / modality.canonical_dir / resolution.directory / "images"

    def image(self, modality: Modality, resolution: Resolution, tissue_id: str) -> Path:
        """Return the image of a tissue."""
        return self.images(modality, resolution) / f"{check_tissue_id(tissue_id)}.ome.zarr"

    def standardization(self, modality: Modality, resolution: Resolution) -> Path:
        """Return the directory of a modality's standardization tables."""
        return self.root / modality.canonical_dir / resolution.directory / "standardization"

    def tissue_mask(self, resolution: Resolution, tissue_id: str) -> Path:
        """Return the tissue mask: OME-Zarr labels, or the `.npz` where there is only that."""
        base = self.root / "segmentations" / resolution.directory / "tissue_masks"
        return _labels_or_archive(base, tissue_id)

    def cell_masks(self, resolution: Resolution, kind: str) -> Path:
        """Return the directory of cell masks: ``"instances"``, or a task such as a cell type."""
        base = self.root / "segmentations" / resolution.directory / "cell_masks"
        return base / _plain("kind of cell mask", kind)

    def cell_mask(self, resolution: Resolution, kind: str, tissue_id: str) -> Path:
        """Return a cell mask: OME-Zarr labels, or the `.npz` where there is only that."""
        return _labels_or_archive(self.cell_masks(resolution, kind), tissue_id)

    def cell_mask_kinds(self, resolution: Resolution) -> list[str]:
        """Return the kinds of cell masks that are there."""
        base = self.root / "segmentations" / resolution.directory / "cell_masks"
        return sorted(path.name for path in base.glob("*") if _holds_images(path))

    def label_encoder(self, resolution: Resolution, task: str) -> Path:
        """Return the table of the names of a task's labels: id, name."""
        return self.cell_masks(resolution, task) / "label_encoder.parquet"

    @property
    def cells(self) -> Path:
        """The table of cells; not every cohort has one."""
        return self.root / "metadata" / "cells.parquet"

    @property
    def alignments(self) -> Path:
        """The table of transforms from images to their tissues' frames; our addition."""
        return self.root / "metadata" / "alignments.parquet"

    def tile_coordinates(self, resolution: Resolution, strategy: str, size: str) -> Path:
        """Return the table of tiles of a strategy and size."""
        return self._tiling(resolution, strategy) / f"{size}_tile_coordinates.parquet"

    def tile_stats(self, resolution: Resolution, strategy: str, size: str) -> Path:
        """Return the table of what a strategy achieved on each tissue."""
        return self._tiling(resolution, strategy) / f"{size}_tile_stats.parquet"

    def tilings(self, resolution: Resolution) -> list[tuple[str, str]]:
        """Return the (strategy, size) of the tilings that are there."""
        base = self.root / "tiling" / resolution.directory
        ending = "_tile_coordinates.parquet"
        return sorted(
            (p.parent.name, p.name.removesuffix(ending)) for p in base.glob(f"*/*{ending}")
        )

    def tiled_resolutions(self) -> list[Resolution]:
        """Return the resolutions at which there are tiles, finest first."""
        found: set[Resolution] = set()
        for path in (self.root / "tiling").glob("*mpp"):
            with contextlib.suppress(InvalidInputError):  # somebody else's directory
                found.add(Resolution.parse(path.name))
        return sorted(found, key=lambda r: r.mpp)

    def predictions(self, resolution: Resolution, name: str) -> Path:
        """Return the directory of a model's predictions (our addition to the layout)."""
        return self.root / "predictions" / resolution.directory / _plain("model name", name)

    def modalities(self) -> list[Modality]:
        """Return the modalities that have images."""
        found = {
            path.parents[1].relative_to(self.root).as_posix()
            for pattern in ("*/*mpp/images", "ihc/*/*mpp/images")
            for path in self.root.glob(pattern)
            if _holds_images(path)
        }
        return [parse_modality(name.removeprefix("ihc/")) for name in sorted(found)]

    def resolutions(self, modality: Modality | None = None) -> list[Resolution]:
        """Return the resolutions that have images, finest first."""
        chosen = [modality] if modality is not None else self.modalities()
        found = {
            Resolution.parse(path.parent.name)
            for one in chosen
            for path in (self.root / one.canonical_dir).glob("*mpp/images")
            if _holds_images(path)
        }
        return sorted(found, key=lambda r: r.mpp)

    def resolution(
        self, wanted: float | str | tuple[float, float] | Resolution | None
    ) -> Resolution:
        """Return the resolution asked for, or the only one that the cohort has.

        One that is coarser than what is stored is served by resampling.

        Raises
        ------
        InvalidInputError
            If none was asked for and the cohort has several or none, or none of its images are
            as fine as the one asked for.
        """
        there = self.resolutions()
        if not there:
            msg = f"{self.root} has no image yet; add one with `microtome ingest`"
            raise InvalidInputError(msg)
        shown = ", ".join(r.directory for r in there)
        if wanted is not None:
            parsed = Resolution.parse(wanted)
            if not any(stored.serves(parsed) for stored in there):
                msg = f"{self.root} has no images at {parsed} um per pixel or finer; it has {shown}"
                raise InvalidInputError(msg)
            return parsed
        if len(there) != 1:
            msg = f"{self.root} has images at {shown}; say which with --resolution (resolution=)"
            raise InvalidInputError(msg)
        return there[0]

    def serves(self, modality: Modality, resolution: Resolution) -> bool:
        """Whether a modality has images at a resolution, or finer ones to resample."""
        return any(stored.serves(resolution) for stored in self.resolutions(modality))

    def _tiling(self, resolution: Resolution, strategy: str) -> Path:
        return self.root / "tiling" / resolution.directory / _plain("tiling strategy", strategy)


def is_written(image: Path) -> bool:
    """Whether an OME-Zarr directory is complete: without its root it is what a killed writer left."""
    return (image / "zarr.json").is_file() or (image / ".zgroup").is_file()


def size_name(tile_size: int | tuple[int, int]) -> str:
    """Return how the names of files call a size of tiles: ``"224"``, or ``"224x448"``."""
    height, width = tile_size if isinstance(tile_size, tuple) else (tile_size, tile_size)
    return f"{height}" if height == width else f"{height}x{width}"


def tile_size_of(name: str) -> tuple[int, int]:
    """Return the (height, width) that `size_name` calls so.

    Raises
    ------
    FormatError
        If it is no such name.
    """
    height, _, width = name.partition("x")
    sides = height, width or height
    if not all(map(str.isdecimal, sides)):
        msg = f"{name!r} is no size of tiles"
        raise FormatError(msg)
    return int(sides[0]), int(sides[1])


def _verify_no_address(path: str | os.PathLike[str] | Place | StorePath) -> None:
    """Refuse what lies in a store, where nothing of a cohort is changed.

    Raises
    ------
    InvalidInputError
        If it does.
    """
    if isinstance(path, Place | StorePath) or is_address(path) or _ADDRESS.match(os.fspath(path)):
        named = path if isinstance(path, Place | StorePath) else spelled(path)
        msg = (
            f"{named} is an address, and a cohort in a store is read and not changed: by datasets, info, "
            "validate, report, and predict with another place to write to. For all else copy the cohort "
            "here, work on the copy, and copy back what was made; or mount the store as a directory"
        )
        raise InvalidInputError(msg)


def _is_beginning(name: str) -> bool:
    """Whether a file belongs to a cohort that is being begun, or whose beginning was cut short."""
    return name == _LOCK or (name.startswith(".cohort.json.") and name.endswith(".partial"))


def _holds_images(directory: Path) -> bool:
    # What a failed ingest leaves is empty, what a running one is at is hidden.
    try:
        return any(not name.startswith(".") for name in names_in(directory))
    except (FileNotFoundError, NotADirectoryError, NotFoundError):
        return False


def _labels_or_archive(base: Path, tissue_id: str) -> Path:
    labels = base / f"{check_tissue_id(tissue_id)}.ome.zarr"
    archive = base / f"{tissue_id}.npz"
    return archive if archive.is_file() and not is_written(labels) else labels


def _plain(what: str, name: str) -> str:
    if not _TISSUE_ID.fullmatch(name) or len(name) > _LONGEST_ID:
        msg = (
            f"a {what} becomes part of a path: letters, digits, '.', '_' and '-' only, at most "
            f"{_LONGEST_ID}, got {name!r}"
        )
        raise InvalidInputError(msg)
    return name
