"""Vectors of a cohort's tiles beside its predictions, here or in a store."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from microtome.cohort import CohortLayout, Modality, noted_inputs
from microtome.coordinates import Resolution
from microtome.progress import Progress
from microtome.storage import Place

from ._cohort_tiles import Chain, tilings_of
from ._embed import embed_tiles, embedding_settings, noted_settings, verify_finished
from ._embed_more import add_vectors, lacking_parts
from ._model import Preprocess
from ._staging_table import StagedTable

__all__ = ["VectorsAsked", "embed_cohort"]

_log = logging.getLogger(__name__)
# Tiles that go through a model at once when it makes vectors of them.
_EMBEDDED = 64


@dataclass(frozen=True, slots=True)
class VectorsAsked:
    """What vectors are asked for.

    Parameters
    ----------
    model
        With a method `embed`.
    preset, preprocess
        What is done to pixels.
    overwrite, resume
        As for `predict_cohort`.
    tissues
        Whose tiles. Vectors that are there of others stay, and are not looked at.
    without
        Those that cannot be read, whose tiles are left out.
    progress
        Called with the tiles done and to do.
    """

    model: Any
    preset: str
    preprocess: Preprocess | None
    overwrite: bool
    resume: bool
    tissues: Collection[str]
    without: Collection[str]
    progress: Progress


def embed_cohort(
    asked: VectorsAsked,
    layout: CohortLayout,
    resolution: Resolution,
    modalities: Sequence[Modality],
    directory: Path | Place,
) -> list[str]:
    """Make the tables of vectors of a cohort's default tilings; returns their names.

    Parameters
    ----------
    asked
        What is asked for.
    layout, resolution, modalities
        Of which tiles.
    directory
        Where the tables go.
    """
    tissues = set(asked.tissues) - set(asked.without)
    found = tilings_of(layout, resolution, modalities, asked.preset, tissues)
    if not found:
        _log.info(
            "no vectors of tiles are made: there are no tiles of the strategy 'default' on images of "
            "H&E or IHC, which is what they are made of here; embed_tiles makes those of any others"
        )
    names: list[str] = []
    for size, tiles in found:
        name = f"{size}_tile_embeddings.parquet"
        if isinstance(directory, Place):
            _embed_into(asked, tiles, directory, name)
        else:
            _embed(asked, tiles, directory / name, told=str(directory / name))
        names.append(name)
    return names


def _embed_into(asked: VectorsAsked, tiles: Chain, place: Place, name: str) -> None:
    """Make a table in a store: what is there is fetched, and what is made of it put there."""
    with StagedTable(place, name, resume=asked.resume) as table:
        table.fetch(
            wanted=embedding_settings(
                asked.model, tiles, batch_size=_EMBEDDED, preprocess=asked.preprocess
            ),
            overwrite=asked.overwrite,
        )
        _embed(asked, tiles, table.path, told=f"{place}/{name}")
        table.put()


def _embed(asked: VectorsAsked, tiles: Chain, table: Path, *, told: str) -> None:
    """Make the vectors of tiles, or those that a table lacks, or look whether it is what is asked for."""
    model = asked.model
    how: dict[str, Any] = {"batch_size": _EMBEDDED, "preprocess": asked.preprocess}
    doing: dict[str, Any] = {**how, "resume": asked.resume, "progress": asked.progress}
    noted = noted_settings(table) if table.exists() else None
    if noted is not None:
        inputs = noted_inputs(pq.read_schema(table).metadata)
        every = tiles.beside(noted, inputs)
        if asked.overwrite and every is not tiles:
            _renew(asked, (tiles, every), table, noted, told=told, doing=doing)
            return
        tiles = every
    if not table.exists() or asked.overwrite:
        embed_tiles(model, tiles, table, **doing)
        return
    kept = {key.rpartition(" of ")[2] for key in noted_settings(table) or {}} & set(asked.without)
    if kept:
        # With those of tissues that cannot be read now it is of other tiles than the rest of them.
        _log.warning("%s stays as it is: %s cannot be read now", told, ", ".join(sorted(kept)))
        return
    new = lacking_parts(model, tiles, table, **how)
    if new:
        # One slide more is no reason to make the vectors of all others again.
        add_vectors(model, tiles, table, new, **doing)
    else:
        verify_finished(table, embedding_settings(model, tiles, **how))
        _log.info("%s is there already", told)


def _renew(
    asked: VectorsAsked,
    tiles: tuple[Chain, Chain],
    table: Path,
    noted: Mapping[str, Any],
    *,
    told: str,
    doing: Mapping[str, Any],
) -> None:
    """Make vectors of some tissues anew in a table of more, which keeps those of the others."""
    some, every = tiles
    settings = embedding_settings(
        asked.model, every, batch_size=_EMBEDDED, preprocess=asked.preprocess
    )
    mine, known = set(some.parts()[0]), set(every.parts()[0])
    own = {key for name in mine for key in (name, f"tiles of {name}")} | {"tiles"}
    others = {key: value for key, value in noted.items() if key not in own}
    if others == {key: value for key, value in settings.items() if key not in own}:
        add_vectors(asked.model, every, table, [n for n in every.parts()[0] if n in mine], **doing)
        return
    _log.warning(
        "%s is replaced by vectors of %d images: it had those of %d others, which were made with other "
        "settings, and one table holds vectors of one model",
        told,
        len(mine),
        len(known - mine),
    )
    embed_tiles(asked.model, some, table, **doing)
