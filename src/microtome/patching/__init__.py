"""Patching: which windows of which samples a model is trained, validated and run on.

A `Patching` is a pure plan over shapes: patch `i` is a function of (seed, epoch, `i`), computed when
asked for, so that a million patches are no objects and any worker gets the same. `RandomPatching`
and `StratifiedPatching` are for training, `FixedRandomPatching` and `FixedPatching` for validation,
`SequentialPatching`, `TiledPatching` and `WholePatching` for prediction, `TablePatching` for any
table of tiles. `validation_split` sets patches aside where there are no other images. `filter_map`
asks a filter which places are background, to be drawn more rarely or left out.
"""

from ._filter_map import FilterMap, filter_map
from ._filter_plot import plot_filter_map
from ._filters import (
    MaskFilter,
    MaxFilter,
    MeanStdFilter,
    PatchFilter,
    ShannonFilter,
    TissueFilter,
)
from ._patching import Patching
from ._random import FixedPatching, FixedRandomPatching, RandomPatching, checked_seed
from ._regular import SequentialPatching, TablePatching, TiledPatching, WholePatching
from ._selected import SelectedPatching
from ._split import validation_split
from ._stratified import PatchCells, StratifiedPatching

__all__ = [
    "FilterMap",
    "FixedPatching",
    "FixedRandomPatching",
    "MaskFilter",
    "MaxFilter",
    "MeanStdFilter",
    "PatchCells",
    "PatchFilter",
    "Patching",
    "RandomPatching",
    "SelectedPatching",
    "SequentialPatching",
    "ShannonFilter",
    "StratifiedPatching",
    "TablePatching",
    "TiledPatching",
    "TissueFilter",
    "WholePatching",
    "checked_seed",
    "filter_map",
    "plot_filter_map",
    "validation_split",
]
