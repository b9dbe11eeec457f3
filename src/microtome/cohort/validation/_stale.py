"""Checks that what was made of images and masks was made of those that there are now."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from microtome.cohort._cell_inputs import (
    ABOUT,
    BROUGHT_OF,
    MEAN,
    cell_mask_inputs,
    cell_mask_of_tissue,
    cells_parts,
    centres_mask,
)
from microtome.cohort._layout import CohortLayout, is_written, tile_size_of
from microtome.cohort._made_of import (
    Inputs,
    image_of_tissue,
    mask_of_tissue,
    noted_inputs,
    stale_among,
    told_change,
)
from microtome.cohort._masks import mask_inputs
from microtome.cohort._merge import listed
from microtome.cohort._modality import parse_modality
from microtome.cohort._standardized_by import statistics_now
from microtome.cohort.statistics import inputs_in
from microtome.cohort.tiles import (
    cells_identity,
    cells_of,
    open_tiles,
    tile_statistics,
    tiles_identities,
)
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.standardize import StatisticsTables
from microtome.storage import file_source

from ._survey import DAMAGE, Survey

__all__ = ["Stale", "check_stale", "find_stale"]

_TILES = "_tile_coordinates.parquet"
_VECTORS = "_tile_embeddings.parquet"
_METHODS = {"default": "cover"} | {name: name for name in ("grid", "strips", "fewest", "cells")}


@dataclass(frozen=True, slots=True)
class Stale:
    """Something that was made of other images, masks or channels than there are now."""

    place: Path
    what: str
    """What was made of what: ``tiles were made of another image of a``."""
    advice: str
    certain: bool
    """Whether it is wrong by now, and not only perhaps."""
    tissues: tuple[str, ...]


def check_stale(survey: Survey) -> None:
    """Report all that has outlived what it was made of."""
    for found in find_stale(survey.layout, only=survey.only):
        severity = "error" if found.certain else "warning"
        survey.report(severity, "stale", found.place, found.what, found.advice)


def find_stale(
    layout: CohortLayout, *, only: Resolution | None = None, tissues: set[str] | None = None
) -> Iterator[Stale]:
    """Yield what has outlived its source; nothing of what does not say what it was made of.

    Parameters
    ----------
    layout
        The cohort.
    only
        The resolution to look at; None for all.
    tissues
        Those to look at; None for all.
    """
    now = _Now(layout, tissues)
    kinds = (_masks, _tilings, _statistics, _cells, _predictions, _embeddings)
    for found in chain.from_iterable(kind(now) for kind in kinds):
        resolution, place, before, after, what, advice, certain = found
        if only is not None and resolution not in {None, only}:
            continue
        stale = stale_among(before, after)
        if stale:
            told = f"{what} made of {told_change(stale)}, which has been replaced since"
            yield Stale(place, told, advice, certain, tuple(stale))


_Found = tuple[Resolution | None, Path, Mapping[str, Inputs], Mapping[str, Inputs], str, str, bool]


@dataclass(slots=True)
class _Now:
    """Identities of what there is now, each read once; None of what does not open."""

    layout: CohortLayout
    only: set[str] | None = None
    """Tissues to look at; None for all."""
    _images: dict[Any, str | None] = field(default_factory=dict[Any, "str | None"])
    _masks: dict[Any, str | None] = field(default_factory=dict[Any, "str | None"])

    @property
    def named(self) -> str:
        """The cohort, as a shell takes it."""
        return shlex.quote(str(self.layout.root))

    def wanted(self, before: Mapping[str, Inputs]) -> dict[str, Inputs]:
        """Return what is known of the tissues to look at."""
        return {t: each for t, each in before.items() if self.only is None or t in self.only}

    def labels(self, directory: Path) -> Iterator[tuple[Path, str]]:
        """Yield the masks of a directory that are of tissues to look at."""
        for path, tissue in _stored_labels(directory):
            if self.only is None or tissue in self.only:
                yield path, tissue

    def image(self, modality: str, resolution: Resolution, tissue_id: str) -> str | None:
        key = modality, resolution, tissue_id
        if key not in self._images:
            self._images[key] = None
            with suppress(*DAMAGE):
                self._images[key] = image_of_tissue(
                    self.layout, parse_modality(modality), resolution, tissue_id
                )
        return self._images[key]

    def mask(self, resolution: Resolution, tissue_id: str) -> str | None:
        key = resolution, tissue_id
        if key not in self._masks:
            self._masks[key] = None
            with suppress(*DAMAGE):
                self._masks[key] = mask_of_tissue(self.layout, resolution, tissue_id)
        return self._masks[key]

    def images_of(self, before: Inputs, resolution: Resolution, tissue_id: str) -> dict[str, Any]:
        """Return the image that there is now of what something was made of."""
        name = before.get("modality")
        known = isinstance(name, str)  # in a damaged table it may be anything
        return {"image": self.image(name, resolution, tissue_id)} if known else {}


def _resolution(directory: Path) -> Resolution | None:
    with suppress(InvalidInputError):
        return Resolution.parse(directory.name)
    return None


def _stored_labels(directory: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(directory.glob("*.ome.zarr")):
        if not path.name.startswith(".") and is_written(path):
            yield path, path.name.removesuffix(".ome.zarr")


def _masks(now: _Now) -> Iterator[_Found]:
    root = now.layout.root
    for directory in sorted(root.glob("segmentations/*/tissue_masks")):
        resolution = _resolution(directory.parent)
        if resolution is None:
            continue
        before: dict[str, Inputs] = {}
        for path, tissue in now.labels(directory):
            with suppress(*DAMAGE):
                before[tissue] = mask_inputs(path)
        after = {t: now.images_of(each, resolution, t) for t, each in before.items()}
        command = f"microtome mask {now.named} --resolution {resolution.directory}"
        advice = f"run `{command}` again, which replaces only these"
        yield resolution, directory, before, after, "tissue masks were", advice, True
    for directory in sorted(root.glob("segmentations/*/cell_masks/*")):
        resolution = _resolution(directory.parents[1])
        if resolution is None:
            continue
        before = {}
        after = {}
        for path, tissue in now.labels(directory):
            with suppress(*DAMAGE):
                before[tissue] = cell_mask_inputs(path)
                after[tissue] = {n: now.image(n, resolution, tissue) for n in before[tissue]}
        advice = "are they of the new one? Then add them again with --overwrite"
        what = f"cell masks {directory.name!r} were"
        yield resolution, directory, before, after, what, advice, False


def _noted(now: _Now, path: Path) -> dict[str, Inputs]:
    """Return of what a table notes that it was made, by tissues; nothing of one that is damaged."""
    with suppress(*DAMAGE):
        return now.wanted(noted_inputs(pq.read_schema(file_source(path)).metadata))
    return {}


def _tilings(now: _Now) -> Iterator[_Found]:
    for path in sorted(now.layout.root.glob(f"tiling/*/*/*{_TILES}")):
        resolution = _resolution(path.parents[1])
        if resolution is None or path.name.startswith("."):
            continue
        before = _noted(now, path)
        after = {
            tissue: {
                **now.images_of(each, resolution, tissue),
                "mask": now.mask(resolution, tissue),
            }
            for tissue, each in before.items()
        }
        on_cells = [tissue for tissue, each in before.items() if "cells" in each]
        if on_cells:
            with suppress(*DAMAGE):
                cells, noted = cells_of(now.layout, on_cells), _noted_cells(now.layout)
                for tissue in on_cells:
                    if tissue in cells:
                        after[tissue]["cells"] = cells_identity(*cells[tissue])
                        of = centres_mask(now.layout, tissue, noted.get(tissue, {}))
                        after[tissue]["cell_mask"] = of[1]
        name = f"{path.parent.name} {path.name.removesuffix(_TILES)}"
        size, strategy = path.name.removesuffix(_TILES), path.parent.name
        options = _method_options(now.layout, resolution, strategy, size)
        command = f"microtome tile {now.named} --size {size} {options} --resolution {resolution.directory}"
        advice = f"run `{command}` again with the same other settings, which replaces only these"
        yield resolution, path, before, after, f"tiles {name!r} were", advice, True


def _method_options(layout: CohortLayout, resolution: Resolution, strategy: str, size: str) -> str:
    """Return the method and the name of a tiling, as far as they are known, as options of a command.

    Its statistics say the method; where they cannot be read, its name does, if it is that of one.
    """
    method, named = _METHODS.get(strategy), f"--strategy {shlex.quote(strategy)}"
    with suppress(*DAMAGE):
        rows = tile_statistics(layout, resolution, strategy, size)
        told = {_METHODS.get(str(row.get("tiling_method"))) for row in rows}
        method = told.pop() if len(told) == 1 else None
    if method is None:
        return named
    own = _METHODS.get(strategy) == method
    return f"--method {method}" if own else f"--method {method} {named}"


def _statistics(now: _Now) -> Iterator[_Found]:
    root = now.layout.root
    for path in sorted(root.glob("*/*mpp/standardization/**/manifest.json")):
        resolution = _resolution(root / Path(*path.relative_to(root).parts[:2]))
        manifest, whole = StatisticsTables.manifest(path.parent)
        if resolution is None or not whole:
            continue
        modality, before = str(manifest.get("modality")), now.wanted(inputs_in(manifest))
        after = {
            tissue: {
                "image": now.image(modality, resolution, tissue),
                "mask": now.mask(resolution, tissue),
            }
            for tissue in before
        }
        name = manifest.get("standardization")
        option = _level_option(path.parent, manifest)
        command = f"microtome stats {now.named} --method {name}{option}"
        advice = f"run `{command}` again, which counts only these anew"
        what = f"statistics of {modality} were"
        yield resolution, path.parent, before, after, what, advice, True


def _level_option(directory: Path, manifest: Mapping[str, Any]) -> str:
    """Return the option of `microtome stats` that says whose means are counted, where both are there."""
    there = StatisticsTables.levels_of_means(directory)
    level = manifest.get("stats_level")
    return f" --stats-level {level}" if len(there) > 1 and level in there else ""


def _cells(now: _Now) -> Iterator[_Found]:
    path = now.layout.cells
    before = now.wanted(_noted_cells(now.layout))
    # By which columns they speak of, and of which masks they were measured.
    groups: dict[tuple[Any, Any], tuple[dict[str, Inputs], dict[str, Inputs]]] = {}
    for tissue, each in before.items():
        for part in cells_parts(each):
            with suppress(*DAMAGE):
                resolution, kind = Resolution.parse(part["resolution"]), part.get("kind")
                names = part.keys() - ABOUT - {"cell_mask"}
                there: dict[str, Any] = {n: now.image(n, resolution, tissue) for n in names}
                of = BROUGHT_OF if kind is None else kind
                there["cell_mask"] = cell_mask_of_tissue(now.layout, resolution, of, tissue)
                columns = None if part.get("columns") is None else tuple(part["columns"])
                was, are = groups.setdefault((columns, kind), ({}, {}))
                # Two parts of a tissue differ in their columns or images, which are told either way.
                if tissue in was and stale_among({tissue: was[tissue]}, {tissue: are[tissue]}):
                    continue
                was[tissue] = {n: i for n, i in part.items() if n not in ABOUT}
                are[tissue] = there
    for (columns, kind), (was, are) in groups.items():
        what = "cells were" if columns is None else f"columns {listed(columns)} of cells were"
        if kind is None:
            advice = "are they of the new one? Then add them again with --overwrite"
        else:
            modalities = {n for each in was.values() for n in each} - {"cell_mask"}
            measured = any(name.startswith(MEAN) for name in columns or ())
            option = f" --modality {min(modalities)}" if measured and modalities else ""
            advice = f"run `microtome cohort cells {now.named}{option} --kind {kind}` again, which replaces only these"
        yield None, path, was, are, what, advice, False


def _noted_cells(layout: CohortLayout) -> dict[str, Inputs]:
    if layout.cells.is_file():
        with suppress(*DAMAGE):
            return noted_inputs(pq.read_schema(file_source(layout.cells)).metadata)
    return {}


def _predictions(now: _Now) -> Iterator[_Found]:
    for directory in sorted(now.layout.root.glob("predictions/*/*")):
        resolution = _resolution(directory.parent)
        if resolution is None:
            continue
        before: dict[str, Inputs] = {}
        for path, tissue in now.labels(directory):
            with suppress(*DAMAGE):
                ours = MultiscaleImage.open(path).metadata["microtome"]
                before[tissue] = dict(ours.get("predicted_from") or {})
        after = {t: now.images_of(each, resolution, t) for t, each in before.items()}
        for tissue, each in before.items():
            with suppress(*DAMAGE):
                after[tissue] |= statistics_now(now.layout, resolution, tissue, each)
        what = f"predictions {directory.name!r} were"
        advice = "run `microtome predict` with the same settings again for these (--tissue) with --overwrite"
        yield resolution, directory, before, after, what, advice, True


def _embeddings(now: _Now) -> Iterator[_Found]:
    for path in sorted(now.layout.root.glob(f"predictions/*/*/*{_VECTORS}")):
        resolution = _resolution(path.parents[1])
        if resolution is None or path.name.startswith("."):
            continue
        before = _noted(now, path)
        tiles: dict[str, str] = {}
        if before:
            with suppress(*DAMAGE):
                size = tile_size_of(path.name.removesuffix(_VECTORS))
                tiles = tiles_identities(open_tiles(now.layout, resolution, "default", size))
        after: dict[str, Inputs] = {}
        for tissue, each in before.items():
            names = each.keys() - {"tiles"}
            with suppress(*DAMAGE):
                images = {name: now.image(name, resolution, tissue) for name in names}
                after[tissue] = {**images, "tiles": tiles.get(tissue)}
        name = f"{path.parent.name} {path.name.removesuffix(_VECTORS)}"
        advice = "run `microtome predict` with the same settings again with --overwrite"
        yield resolution, path, before, after, f"vectors of tiles {name!r} were", advice, True
