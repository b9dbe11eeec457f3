"""The two directions in which a table of tile embeddings varies most."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microtome.errors import FormatError

__all__ = ["EmbeddingMap", "embedding_map"]

# More points than this are one blot on a page, and their decomposition takes minutes.
_MOST_POINTS = 4000
# Rows in memory at a time.
_ROWS = 8192


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingMap:
    """Tiles as points in a plane."""

    points: NDArray[np.float64]
    """(n, 2) first two principal components."""
    tissue_ids: tuple[str, ...]
    """(n,) tissue of each point."""
    explained: tuple[float, float]
    """Share of the variance along each component."""
    tiles: int
    """Rows of the table, of which n were taken at even distances."""
    dimension: int
    """Length of a vector."""


def embedding_map(path: str | os.PathLike[str], *, most: int = _MOST_POINTS) -> EmbeddingMap:
    """Read a table of embeddings and project it onto its first two principal components.

    Parameters
    ----------
    path
        Parquet file with the columns `tissue_id` and `embedding`, as `embed_tiles` writes it.
    most
        Points at most; of a longer table every k-th row is taken.

    Raises
    ------
    FormatError
        If it is no such file, is empty, or a vector is not finite or of another length.
    """
    source = Path(path)
    try:
        with pq.ParquetFile(source) as file:
            tiles = file.metadata.num_rows
            step = max(1, -(-tiles // most))
            vectors, names = _every(file, step)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        msg = f"{source} is no table of embeddings that can be read: {error}"
        raise FormatError(msg) from error
    if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
        msg = (
            f"{source}: embeddings must be finite vectors of one length, got shape {vectors.shape}"
        )
        raise FormatError(msg)
    points, explained = _principal(vectors)
    return EmbeddingMap(points, tuple(names), explained, tiles, vectors.shape[1])


def _every(file: Any, step: int) -> tuple[NDArray[np.float64], list[str]]:
    """Take every `step`-th row, a batch of rows in memory at a time."""
    parts: list[NDArray[Any]] = []
    names: list[str] = []
    seen = 0
    for batch in file.iter_batches(_ROWS, columns=["tissue_id", "embedding"]):
        chosen = np.arange(-seen % step, batch.num_rows, step)
        seen += batch.num_rows
        taken = batch.take(pa.array(chosen))
        names += [str(name) for name in taken.column("tissue_id").to_pylist()]
        lists = taken.column("embedding")
        if chosen.size:
            if lists.null_count or len(pc.unique(pc.list_value_length(lists))) != 1:
                msg = "vectors are missing or differ in length"
                raise ValueError(msg)
            flat: NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)
            parts.append(flat.reshape(chosen.size, -1).astype(np.float64))
    return (np.concatenate(parts) if parts else np.empty((0, 0))), names


def _principal(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    centered = vectors - vectors.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centered, full_matrices=False)
    points = np.zeros((len(vectors), 2))
    shares = [0.0, 0.0]
    total = float(np.square(sizes).sum())
    for axis in range(min(2, len(directions))):
        direction = directions[axis]
        # The sign of a component is the library's whim; a page must not flip from run to run.
        sign = np.sign(direction[np.abs(direction).argmax()]) or 1.0
        points[:, axis] = centered @ (sign * direction)
        shares[axis] = float(sizes[axis] ** 2 / total) if total > 0 else 0.0
    return points, (shares[0], shares[1])
