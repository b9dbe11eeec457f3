"""The table of a cohort's files, for servers that do not say which there are."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa

from microtome.storage import FILE_LIST, ZARR_DOCUMENTS, locked

from ._layout import CohortLayout
from ._tables import write_parquet

__all__ = ["write_file_list"]


def write_file_list(cohort: str | os.PathLike[str]) -> Path:
    """Write which files a cohort has, so that it can be read from a web server.

    Chunks of images are left out. Write it again after the cohort was changed: what is not in it is
    not there for those who read it so.

    Parameters
    ----------
    cohort
        Directory of the cohort.

    Returns
    -------
    The table, `metadata/files.parquet`.

    Raises
    ------
    NotFoundError
        If there is no cohort.
    InvalidInputError
        If it is the address of a store.
    StorageError
        If the disk refuses.
    """
    layout = CohortLayout.open(cohort)
    found: list[str] = []
    with locked(layout.lock, what=f"the cohort {layout.root}"):
        for place, directories, files in os.walk(layout.root):
            directories[:] = sorted(name for name in directories if not name.startswith("."))
            inside = Path(place).relative_to(layout.root)
            of_zarr = any(part.endswith(".zarr") for part in inside.parts)
            found.extend(
                (inside / name).as_posix()
                for name in sorted(files)
                if (name in ZARR_DOCUMENTS if of_zarr else not name.startswith("."))
            )
        path = layout.root / FILE_LIST
        names = [name for name in found if name != FILE_LIST]
        write_parquet(pa.table({"path": pa.array(names, pa.string())}), path)
    return path
