"""Single rows of an AnnData, made of its parts: its own way to a row takes milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import numpy as np

__all__ = ["TableRows"]

_ATTRS = "spatialdata_attrs"


class TableRows:
    """The rows of a table, each as an AnnData of its own that annotates nothing.

    Parameters
    ----------
    table
        The AnnData.
    """

    def __init__(self, table: Any) -> None:
        self._table = table
        uns = cast("Mapping[str, Any]", table.uns)
        # Colours go with categories, and pairs of rows with both: AnnData knows how.
        colours = any(str(key).endswith("_colors") for key in uns)
        self._plain = table.raw is None and not (colours or len(table.obsp))
        self._columns = [name for name, kind in table.obs.dtypes.items() if str(kind) == "category"]

    def row(self, number: int) -> Any:
        """Return a row as ``table[number].copy()`` has it, without what the table annotates.

        That element is not part of the item that the row goes into.
        """
        table, part = self._table, slice(number, number + 1)
        if not self._plain:
            found = table[number].copy()
            found.uns.pop(_ATTRS, None)
            return found
        import anndata

        obs = table.obs.iloc[part]
        if self._columns:
            obs = obs.assign(
                **{name: obs[name].cat.remove_unused_categories() for name in self._columns}
            )
        return anndata.AnnData(
            X=None if table.X is None else _copied(table.X[part]),
            obs=obs,
            var=table.var,
            uns={key: deepcopy(value) for key, value in table.uns.items() if key != _ATTRS},
            obsm={key: _copied(value[part]) for key, value in table.obsm.items()},
            # From anndata 0.13 on, the layer None is X.
            layers={
                key: _copied(value[part]) for key, value in table.layers.items() if key is not None
            },
            varm={key: value.copy() for key, value in table.varm.items()},
            varp={key: value.copy() for key, value in table.varp.items()},
        )


def _copied(part: Any) -> Any:
    """Return part of a table, not a view of it: whoever writes to the row means the row alone."""
    return part.copy() if isinstance(part, np.ndarray) else part
