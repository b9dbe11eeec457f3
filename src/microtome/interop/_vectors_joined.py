"""Which row of a table of vectors is that of each tile or cell: by tissue, image and number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, UnknownNameError

__all__ = ["rows_of_vectors"]

_IMAGE = "modality"


def rows_of_vectors(
    vectors: Any,
    key: str,
    tissues: Sequence[Any],
    numbers: Sequence[Any],
    modality: str | None = None,
) -> NDArray[np.int64]:
    """Return the row of the vectors of each tile or cell, (n,).

    Parameters
    ----------
    vectors
        An AnnData of `vectors_to_anndata`.
    key
        What a row is called by beside its tissue: ``"tile_id"`` or ``"cell_id"``.
    tissues, numbers
        Tissue and number of each, (n,); tissues and numbers are compared apart, as text.
    modality
        Of which images, where the vectors say of which they are.

    Raises
    ------
    UnknownNameError
        If one has no vector, or there are none of the modality.
    InvalidInputError
        If one has several, or two of these are called alike.
    """
    import pandas as pd

    obs = vectors.obs
    if key not in obs.columns:
        msg = f"the vectors have none of {key}; they are of {', '.join(vectors.obs_names[:3])}, ..."
        raise UnknownNameError(msg)
    images = obs[_IMAGE].astype(str).to_numpy() if _IMAGE in obs.columns else None
    mine = np.arange(len(obs))
    if modality is not None and images is not None:
        mine = np.flatnonzero(images == modality)
        if not mine.size:
            msg = f"there are no vectors of {modality}, only of {', '.join(sorted(set(images)))}"
            raise UnknownNameError(msg)
    there = pd.MultiIndex.from_arrays(
        [obs["tissue_id"].astype(str).to_numpy()[mine], obs[key].astype(str).to_numpy()[mine]]
    )
    wanted = pd.MultiIndex.from_arrays([list(map(str, tissues)), list(map(str, numbers))])
    what = key.removesuffix("_id")
    if not wanted.is_unique:
        tissue, number = wanted[int(np.flatnonzero(wanted.duplicated())[0])]
        msg = (
            f"{what} {number} of tissue {tissue!r} is there more than once, so that no vector can be "
            f"given to each; give a table in which a {what} of a tissue is one row"
        )
        raise InvalidInputError(msg)
    twice = there[there.duplicated()]
    torn = np.flatnonzero(wanted.isin(twice)) if len(twice) else np.zeros(0, np.int64)
    if torn.size:
        tissue, number = wanted[int(torn[0])]
        rows = mine[(there == (tissue, number))]
        found = [] if images is None else sorted(set(images[rows].tolist()))
        if len(found) > 1:
            told = f"of {', '.join(found)}; say of which images with modality="
        else:
            told = "and do not say of which image each is; give those of one image"
        msg = f"{torn.size} of {len(wanted)} {what}s have several vectors: {what} {number} of tissue {tissue!r} has {len(rows)}, {told}"
        raise InvalidInputError(msg)
    first = np.flatnonzero(~there.duplicated())
    places = there.take(first).get_indexer(wanted)
    lost = np.flatnonzero(places < 0)
    if lost.size:
        tissue, number = wanted[int(lost[0])]
        msg = f"the vectors have none of {tissue}_{number}, and lack {lost.size} of {len(wanted)} {what}s; they are of {', '.join(vectors.obs_names[:3])}, ..."
        raise UnknownNameError(msg)
    return mine[first[places]]
