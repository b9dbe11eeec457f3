"""What pandas is told of a table's columns, so that it finds an index in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["pandas_note"]


def pandas_note(index: str, flags: Sequence[str], others: Mapping[str, pa.DataType]) -> str:
    """Return the note of a table whose index is a column of text, with columns of booleans and others.

    pandas, and so spora_io, opens a file with an index only where every column is described.
    """
    return json.dumps(
        {
            "index_columns": [index],
            "column_indexes": [
                {**_pandas_column(None, "unicode", "object"), "metadata": {"encoding": "UTF-8"}}
            ],
            "columns": [
                _pandas_column(index, "unicode", "object"),
                *(_pandas_column(name, "bool", "bool") for name in flags),
                *(_pandas_column(name, *_pandas_types(kind)) for name, kind in others.items()),
            ],
            "pandas_version": "2.0.0",
        }
    )


def _pandas_types(kind: pa.DataType) -> tuple[str, str]:
    """Return what pandas' metadata call a type, and the type of numpy that holds it."""
    if pa.types.is_boolean(kind):
        return "bool", "bool"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        name = str(np.dtype(kind.to_pandas_dtype()))
        return name, name
    return "unicode", "object"


def _pandas_column(name: str | None, pandas_type: str, numpy_type: str) -> dict[str, Any]:
    return {
        "name": name,
        "field_name": name,
        "pandas_type": pandas_type,
        "numpy_type": numpy_type,
        "metadata": None,
    }
