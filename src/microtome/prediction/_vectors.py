"""Vectors of tiles and cells where single-cell tools look for them: AnnData."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from microtome.coordinates import micrometres_note
from microtome.errors import DependencyError, ExistsError, FormatError, InvalidInputError
from microtome.storage import Draft, replace_file

__all__ = ["vectors_to_anndata"]

_ID_COLUMNS = ("cell_id", "tile_id")


def vectors_to_anndata(
    table: str | os.PathLike[str] | pa.Table,
    out: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
) -> Any:
    """Bring vectors of tiles or cells into the form of single-cell tools.

    Parameters
    ----------
    table
        What `embed_tiles` or `pool_labels` has written, or such a table in memory.
    out
        Where it is written, ``.h5ad`` or ``.zarr``; nowhere by default.
    overwrite
        Whether a file or store that is there is replaced.

    Returns
    -------
    An `anndata.AnnData` of n rows: ``obsm["X_embedding"]`` has the vectors, (n, D) float32. Those of
    `pool_labels` are `X` as well, whose variables are the channels by name, where their names differ;
    of a model's vectors `X` has no column. ``obsm["spatial"]`` has the centres (x, y) in micrometres
    from the upper left edge of the image, where all are known; `obs` every other column, named by
    tissue and number, and between these by modality where a tissue has several images;
    ``uns["microtome"]`` which model and version made them, and what micrometres are counted from: in a
    table that does not say so, of an earlier microtome, from the image's translation, the middle of its
    first pixel; they stay as they are.

    Raises
    ------
    DependencyError
        If anndata is not installed.
    FormatError
        If it is no table of vectors.
    InvalidInputError
        If the name of `out` is that of no such file.
    ExistsError
        If there is something at `out`.
    """
    try:
        import anndata
        import pandas as pd
    except ImportError as error:
        msg = "AnnData needs anndata; install microtome[anndata]"
        raise DependencyError(msg) from error
    found: Any = table if isinstance(table, pa.Table) else pq.read_table(table)
    where = "the table" if isinstance(table, pa.Table) else os.fspath(table)
    key = next((name for name in _ID_COLUMNS if name in found.column_names), None)
    if key is None or not {"tissue_id", "embedding"} <= set(found.column_names):
        msg = f"{where} holds no vectors: it has the columns {found.column_names}, not tissue_id, {' or '.join(_ID_COLUMNS)}, and embedding"
        raise FormatError(msg)
    vectors = found["embedding"].combine_chunks()
    width = vectors.type.list_size if pa.types.is_fixed_size_list(vectors.type) else 0
    if not width:
        msg = f"{where}: embedding is {vectors.type}, not lists of one length"
        raise FormatError(msg)
    columns = {
        name: found[name].to_numpy(zero_copy_only=False)
        for name in found.column_names
        if name != "embedding"
    }
    names = [
        f"{tissue}_{name}" for tissue, name in zip(columns["tissue_id"], columns[key], strict=True)
    ]
    if "modality" in columns and len(set(names)) < len(names):
        # A tissue of several images has a tile of one number in each.
        names = [
            f"{tissue}_{modality}_{name}"
            for tissue, modality, name in zip(
                columns["tissue_id"], columns["modality"], columns[key], strict=True
            )
        ]
    obs = pd.DataFrame(columns, index=pd.Index(names, dtype=object))
    obs["tissue_id"] = pd.Categorical(obs["tissue_id"])
    note = json.loads((found.schema.metadata or {}).get(b"microtome", b"{}"))
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    values = np.ascontiguousarray(flat, np.float32).reshape(-1, width)
    markers = _markers(note, width)
    made = anndata.AnnData(
        X=values.copy() if markers else np.zeros((len(obs), 0), np.float32),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(markers, dtype=object)),
    )
    made.obsm["X_embedding"] = values
    if {"centroid_y", "centroid_x"} <= columns.keys():
        spatial = np.stack([columns[f"centroid_{axis}"] for axis in "xy"], axis=1)
        spatial = spatial.astype(np.float64)
        if np.isfinite(spatial).all():
            made.obsm["spatial"] = spatial
    made.uns["microtome"] = {**note, **micrometres_note(found.schema.metadata)}
    if out is not None:
        _write(made, Path(out), overwrite=overwrite)
    return made


def _markers(note: dict[str, Any], width: int) -> list[str]:
    """Return what the numbers of a vector are called: only means of channels have names, each its own."""
    names = note.get("channels") if note.get("format") == "pooled-labels" else None
    return names if names and len(set(names)) == len(names) == width else []


def _write(made: Any, out: Path, *, overwrite: bool) -> None:
    if out.suffix not in {".h5ad", ".zarr"}:
        msg = f"{out}: AnnData is written as .h5ad or .zarr"
        raise InvalidInputError(msg)
    if out.exists() and not overwrite:
        msg = f"{out} exists already; choose another place or allow overwriting"
        raise ExistsError(msg)
    if out.suffix == ".h5ad":
        with replace_file(out) as temporary:
            made.write_h5ad(temporary)
        return
    import anndata
    import zarr
    from anndata.io import write_elem

    # No shards, as the tables are small; releases before 0.12 have no setting for them.
    wanted = {"auto_shard_zarr_v3": False}
    known = {name: value for name, value in wanted.items() if hasattr(anndata.settings, name)}
    with Draft(out, overwrite=overwrite) as draft:
        # Zarr v3, as all that we write, and not consolidated, which v3 has no word for.
        group = zarr.open_group(draft.path, mode="w", zarr_format=3)
        with anndata.settings.override(**known):
            write_elem(group, "/", made)
        draft.publish()
