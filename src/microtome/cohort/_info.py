"""`info`: what an image or a cohort is, for people and for programs."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from microtome.image import MultiscaleImage
from microtome.sources import SeveralImagesError, image_names, open_image
from microtome.storage import StorageOptions, place_of

from ._html import cohort_html
from ._layout import CohortLayout
from ._tables import read_parquet, read_tissues

__all__ = ["CohortInfo", "ContainerInfo", "ImageInfo", "LevelInfo", "info"]

# One of these is in every cohort.
_BEGINNINGS = ("", "cohort.json"), ("metadata", "tissues.parquet")


@dataclass(frozen=True, slots=True)
class LevelInfo:
    """One level of an image."""

    shape: tuple[int, ...]
    mpp: tuple[float, float] | None
    """Micrometres per pixel, (y, x)."""
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """What a file or a directory holds that has several images."""

    uri: str
    images: tuple[str, ...]
    """Their names, each of which `image=` takes."""

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain types."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.uri}: {len(self.images)} images; of one more with --image (image=)",
                *(f"  {name}" for name in self.images),
            ]
        )


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image is."""

    uri: str
    kind: str
    axes: str
    dtype: str
    mpp_source: str | None
    """Where the pixel size was read; None where nothing states it."""
    channel_names: tuple[str, ...] | None
    levels: tuple[LevelInfo, ...]
    associated_images: tuple[str, ...] = ()
    """Names of the other pictures in its file, each of which `image=` takes."""

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain types."""
        return asdict(self)

    def __str__(self) -> str:
        first = self.levels[0]
        size = (
            "not stated: give --mpp where it is ingested or read"
            if first.mpp is None
            else f"{_size(first.mpp)} um/px (from {self.mpp_source})"
        )
        lines = [
            self.uri,
            f"  {self.kind}, axes {self.axes}, {self.dtype}",
            f"  pixel size  {size}",
        ]
        if self.channel_names is not None:
            lines.append(
                f"  channels    {len(self.channel_names)}: {', '.join(self.channel_names)}"
            )
        for i, level in enumerate(self.levels):
            at = f" at {_size(level.mpp)} um" if level.mpp else ""
            shards = f" in shards {_shape(level.shards)}" if level.shards else ""
            lines.append(
                f"  level {i}     {_shape(level.shape)}{at}, chunks {_shape(level.chunks)}{shards}"
            )
        if self.associated_images:
            names = ", ".join(self.associated_images)
            lines.append(f"  with it     {names}; of one more with --image (image=)")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class CohortInfo:
    """What a cohort holds."""

    root: str
    tissues: tuple[dict[str, Any], ...]
    """Rows of the tissue table: tissue_id, modality, split, mpp, mpp_source."""
    resolutions: tuple[str, ...]
    tilings: tuple[dict[str, Any], ...]
    """resolution, strategy, size, tissues and tiles of each tiling."""
    standardizations: tuple[str, ...]
    predictions: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain types."""
        return asdict(self)

    def __str__(self) -> str:
        ids = {row["tissue_id"] for row in self.tissues}
        lines = [
            self.root,
            f"  cohort of {len(ids)} tissues, {len(self.tissues)} images at {', '.join(self.resolutions) or 'no resolution'}",
        ]
        for row in self.tissues:
            mpp = (
                f"source {row['mpp']:g} um/px (from {row['mpp_source']})"
                if row.get("mpp") and math.isfinite(row["mpp"])
                else "source pixel size not recorded"
            )
            split = f", split {row['split']}" if row.get("split") else ""
            lines.append(f"  {row['tissue_id']:<24} {row['modality']:<12} {mpp}{split}")
        lines.extend(
            f"  tiles       {t['strategy']} {t['size']} px at {t['resolution']}: {t['tiles']} tiles on {t['tissues']} tissues"
            for t in self.tilings
        )
        lines.extend(f"  statistics  {spec}" for spec in self.standardizations)
        lines.extend(f"  prediction  {name}" for name in self.predictions)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return cohort_html(self)


def info(
    path: str | os.PathLike[str] | MultiscaleImage,
    *,
    image: str | int | None = None,
    storage_options: StorageOptions | None = None,
) -> ImageInfo | ContainerInfo | CohortInfo:
    """Say what an image or a cohort is, or which images a file holds.

    Parameters
    ----------
    path
        An image, open or in any format that can be read, or a cohort directory; or the address of
        an OME-Zarr image or a cohort in a store.
    image
        Which of the images in a file, by name or number, where there are several.
    storage_options
        How stores are reached.

    Raises
    ------
    NotFoundError
        If there is nothing.
    FormatError
        If it is neither, or damaged.
    """
    if isinstance(path, MultiscaleImage):
        return _image_info(open_image(path, image=image))
    if image is None and _is_cohort(path, storage_options):
        return _cohort_info(CohortLayout.open(path, reading=True, storage_options=storage_options))
    try:
        return _image_info(open_image(path, image=image, storage_options=storage_options))
    except SeveralImagesError:
        return ContainerInfo(os.fspath(path), tuple(image_names(path)))


def _is_cohort(path: str | os.PathLike[str], options: StorageOptions | None) -> bool:
    place = place_of(path, options)
    if isinstance(place, Path):
        return CohortLayout(place).has_begun
    # Asked for by name: an image, which it may be as well, can be of very many files.
    return any((place / at if at else place).read(name) is not None for at, name in _BEGINNINGS)


def _image_info(image: MultiscaleImage) -> ImageInfo:
    levels: list[LevelInfo] = []
    for index in range(image.level_count):
        level = image.level(index)
        mpp = image.level_mpp(index) if image.mpp is not None else None
        levels.append(
            LevelInfo(
                shape=level.shape,
                mpp=(mpp.y, mpp.x) if mpp else None,
                chunks=level.array.chunks,
                shards=getattr(level.array, "shards", None),
            )
        )
    return ImageInfo(
        uri=image.uri,
        kind=image.kind,
        axes=image.axes,
        dtype=str(image.dtype),
        mpp_source=image.mpp.source if image.mpp else None,
        channel_names=image.channel_names,
        levels=tuple(levels),
        associated_images=tuple(image.metadata.get("associated_images") or ()),
    )


def _cohort_info(layout: CohortLayout) -> CohortInfo:
    table = read_tissues(layout)
    shown = [
        c
        for c in ("tissue_id", "modality", "patient_id", "split", "mpp", "mpp_source")
        if c in table.column_names
    ]
    tilings: list[dict[str, Any]] = []
    # Of coarser resolutions too, at which there are tiles and no images.
    for resolution in layout.tiled_resolutions():
        for strategy, size in layout.tilings(resolution):
            path = layout.tile_coordinates(resolution, strategy, size)
            counts = read_parquet(path, ["tissue_id"])["tissue_id"].value_counts().to_pylist()
            tilings.append(
                {
                    "resolution": resolution.directory,
                    "strategy": strategy,
                    "size": size,
                    "tissues": len(counts),
                    "tiles": sum(int(row["counts"]) for row in counts),
                }
            )
    return CohortInfo(
        root=str(layout.root),
        tissues=tuple(table.select(shown).to_pylist()),
        resolutions=tuple(r.directory for r in layout.resolutions()),
        tilings=tuple(tilings),
        standardizations=tuple(
            sorted(
                p.relative_to(layout.root).as_posix()
                for p in layout.root.glob("*/*mpp/standardization/*/*")
                if p.is_dir()
            )
        ),
        predictions=tuple(
            sorted(
                p.relative_to(layout.root).as_posix()
                for p in layout.root.glob("predictions/*/*/*")
                if not p.name.startswith(".")
            )
        ),
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


def _size(mpp: tuple[float, float]) -> str:
    return f"{mpp[0]:g}" if mpp[0] == mpp[1] else f"{mpp[0]:g} x {mpp[1]:g} (y, x)"
