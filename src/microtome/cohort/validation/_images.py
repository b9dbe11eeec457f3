"""Checks of images: that they open, and are what their place and their tables say."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtome.cohort._alignment import read_alignments
from microtome.cohort._layout import is_written
from microtome.cohort._merge import listed
from microtome.cohort._modality import Modality, parse_modality
from microtome.cohort._panels import are_others
from microtome.coordinates import Mpp, Resolution
from microtome.errors import InvalidInputError, UnknownNameError
from microtome.image import Level, MultiscaleImage
from microtome.jobs import run_each
from microtome.storage import StoredArray, StorePath, walked

from ._survey import DAMAGE, Survey, told

__all__ = ["check_images", "look_at_image", "resolution_of"]

_IMAGE = ".ome.zarr"
# A pixel size that was rounded when it was written differs by less.
_SAME = 1e-3
# Pixels that are read of a level to see that it can be.
_LOOK = 8


@dataclass(frozen=True, slots=True)
class _Shelf:
    """A directory of images."""

    directory: Path
    modality: Modality
    resolution: Resolution


def check_images(survey: Survey) -> None:
    """Check every image, that every row has one, and what killed writers left."""
    _check_leftovers(survey)
    shelves = list(_shelves(survey))
    entries = [(shelf, entry) for shelf in shelves for entry in _entries(shelf.directory)]
    known = {(row["tissue_id"], row["modality"]) for row in survey.rows}
    there: set[tuple[str, str]] = set()
    looked_at: list[tuple[_Shelf, Path, str]] = []
    for shelf, entry in entries:
        tissue = entry.name.removesuffix(_IMAGE)
        if not entry.name.endswith(_IMAGE) or (tissue, shelf.modality.name) not in known:
            what = f"the table of tissues has no row for it as {shelf.modality}"
            advice = "add the row by ingesting it, or remove it"
            survey.report("warning", "orphan", entry, what, advice)
            continue
        there.add((tissue, shelf.modality.name))
        if not is_written(entry):
            what = "is unfinished: its writer was stopped just before the end"
            survey.report("error", "image-damaged", entry, what, "ingest it again")
        elif survey.wanted(shelf.resolution):
            looked_at.append((shelf, entry, tissue))
    facts = run_each(look_at_image, [entry for _, entry, _ in looked_at], survey.executor)
    for done, ((shelf, entry, tissue), found) in enumerate(
        zip(looked_at, facts, strict=True), start=1
    ):
        survey.progress("validate", done, len(looked_at))
        if isinstance(found, str):
            advice = "ingest it again with --overwrite"
            survey.report("error", "image-damaged", entry, found, advice)
        else:
            _check_image(survey, shelf, entry, tissue, found)
    for tissue, name in sorted(known - there):
        modality = parse_modality(name)
        place = survey.layout.root / modality.canonical_dir
        what = f"tissue {tissue!r} has a row as {name}, but no image at any resolution"
        survey.report("error", "image-missing", place, what, "ingest it, or remove the row")
    _check_extents(survey)


def _shelves(survey: Survey) -> Iterator[_Shelf]:
    root = survey.layout.root
    for directory in sorted([*root.glob("*/*mpp/images"), *root.glob("ihc/*/*mpp/images")]):
        place = directory.parents[1]
        name = place.relative_to(root).as_posix()
        if not any(_entries(directory)):
            continue
        try:
            modality = parse_modality(name.removeprefix("ihc/"))
        except (UnknownNameError, InvalidInputError) as error:
            advice = "register it before the cohort is used, or move the directory"
            survey.report("error", "unknown-modality", place, str(error), advice)
            continue
        if modality.canonical_dir != name:
            what = f"images of {modality} are looked for in {modality.canonical_dir}"
            survey.report("error", "unknown-modality", place, what, "rename the directory")
            continue
        resolution = resolution_of(survey, directory.parent)
        if resolution is not None:
            yield _Shelf(directory, modality, resolution)


def resolution_of(survey: Survey, directory: Path) -> Resolution | None:
    """Return the resolution that a directory is named after; None, and a finding, if it is none."""
    try:
        resolution = Resolution.parse(directory.name)
    except InvalidInputError as error:
        survey.report("error", "resolution-name", directory, str(error), "rename it")
        return None
    if resolution.directory != directory.name:
        what = f"{resolution} um per pixel is looked for in {resolution.directory}"
        survey.report("error", "resolution-name", directory, what, "rename it")
        return None
    return resolution


def _entries(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))


def _check_leftovers(survey: Survey) -> None:
    """Report what killed writers left, without looking into the stores of images."""
    found: list[Path] = []
    for place, directories, files in walked(survey.layout.root):
        hidden = [name for name in [*directories, *files] if _is_leftover(name)]
        found += [survey.layout.root / place / name for name in hidden]
        directories[:] = [
            name for name in directories if not name.endswith(_IMAGE) and not name.startswith(".")
        ]
    for path in sorted(found):
        what = "was left by a writer that was killed, or that is at work now"
        survey.report("warning", "leftover", path, what, "if nothing is at work, remove it")


def _is_leftover(name: str) -> bool:
    if not name.startswith(".") or name.endswith(".lock"):
        return False
    return name.endswith(".partial") or ".partial-" in name or ".replaced-" in name


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image states of itself; it travels from a worker."""

    size: tuple[int, int]
    mpp: Mpp | None
    channels: int
    names: tuple[str, ...]
    dtype: str


def look_at_image(path: Path) -> ImageFacts | str:
    """Open an image, read the middle of its finest and coarsest level, and return what it states.

    Returns
    -------
    The facts, or what a damaged image made its reader say.
    """
    try:
        image = MultiscaleImage.open(path)
        base = image.level(0)
        lost = _lost(path, [image.level(i) for i in range(image.level_count)])
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            return f"has lost {lost[0]}{more}, as a copy has that was stopped"
        for level in (image.level(i) for i in sorted({0, image.level_count - 1})):
            y, x = (max(0, size // 2 - _LOOK // 2) for size in (level.height, level.width))
            level[..., y : y + _LOOK, x : x + _LOOK]
        return ImageFacts(
            (base.height, base.width),
            image.mpp,
            image.nchannels,
            tuple(image.channel_names or ()),
            image.dtype.name,
        )
    except DAMAGE as error:
        return told(error, path)


def _lost(path: Path | StorePath, levels: list[Level]) -> list[str]:
    """Return the files of an image that were published with it and are not there."""
    if not isinstance(path, StorePath):
        is_there = lambda name: (path / name).is_file()  # noqa: E731 - one of two
    elif path.place.lists:
        is_there = set(path.place.names()).__contains__
    else:
        # A web server: to ask for each file would take longer than to read all.
        return []
    return [
        f"{level.path}/{file}"
        for level in levels
        if isinstance(level.array, StoredArray)
        for file in level.array.published_files()
        if not is_there(f"{level.path}/{file}")
    ]


def _check_image(survey: Survey, shelf: _Shelf, path: Path, tissue: str, image: ImageFacts) -> None:
    survey.note_size(tissue, shelf.modality, shelf.resolution, image.size)
    own, (height, width) = image.mpp, shelf.resolution.mpp
    if own is None:
        what = f"does not state its pixel size, which its directory says is {shelf.resolution} um"
        survey.report("error", "image-mpp", path, what, "write it into its OME-Zarr metadata")
    elif not (
        math.isclose(own.y, height, rel_tol=_SAME) and math.isclose(own.x, width, rel_tol=_SAME)
    ):
        what = f"states {own}, its directory says {shelf.resolution} um"
        survey.report("error", "image-mpp", path, what, "correct the one that is wrong")
    _check_channels(survey, shelf.modality, image, path, tissue)


def _check_channels(
    survey: Survey, modality: Modality, image: ImageFacts, path: Path, tissue: str
) -> None:
    count = image.channels
    if modality.kind == "brightfield":
        if count != 3 or image.dtype != "uint8":
            what = f"has {count} channels of {image.dtype}; {modality} is red, green and blue of 8 bits"
            survey.report("error", "image-channels", path, what, "ingest it as what it is")
        return
    expected = survey.measured.get(modality.name, {}).get(tissue)
    if expected is None:
        return  # told of the table already
    advice = "correct the panel or channels_per_tissue.parquet, or ingest it again"
    if count != len(expected):
        what = (
            f"has {count} planes, and {len(expected)} channels were measured ({listed(expected)})"
        )
        survey.report("error", "image-channels", path, what, advice)
        return
    names = list(image.names)
    if are_others(names, expected):
        what = f"its planes are {listed(names)}, by the panel they are {listed(expected)}"
        survey.report("error", "image-channels", path, what, advice)


def _check_extents(survey: Survey) -> None:
    """Check that the images of one tissue cover the same ground, unless transforms say where they lie."""
    aligned = _aligned(survey)
    images: dict[str, list[tuple[str, Resolution, tuple[int, int]]]] = defaultdict(list)
    for (tissue, modality, resolution), size in survey.sizes.items():
        if (tissue, modality) not in aligned:
            images[tissue].append((modality, resolution, size))
    for tissue, found in images.items():
        first, *others = found
        for other in others:
            sizes = [
                [n * mpp for n, mpp in zip(size, r.mpp, strict=True)]
                for _, r, size in (first, other)
            ]
            # Of pixels that are cut through at the far edge: one more of them is the same ground.
            slack = [max(a, b) for a, b in zip(first[1].mpp, other[1].mpp, strict=True)]
            if any(abs(a - b) > s * (1 + 1e-9) for a, b, s in zip(*sizes, slack, strict=True)):
                shown = " and ".join(
                    f"{m} of {h} x {w} pixels at {r} um" for m, r, (h, w) in (first, other)
                )
                survey.report(
                    "error",
                    "image-extent",
                    survey.layout.tissues,
                    f"the images of tissue {tissue!r} do not cover the same ground: {shown}",
                    "crop them to the same field, or say how each lies with `microtome cohort align`",
                )


def _aligned(survey: Survey) -> set[tuple[Any, Any]]:
    """Return the images that have a transform of their own."""
    path = survey.layout.alignments
    with survey.guarded("table-damaged", path, "write it again with set_alignment"):
        return set(read_alignments(survey.layout))
    return set()
