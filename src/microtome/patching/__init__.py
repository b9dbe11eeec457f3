"""Patching: which windows of which samples a model is trained, validated and run on.

A `Patching` is a pure plan over shapes: patch `i` is a function of (seed, epoch, `i`), computed when
asked for, so that a million patches are no objects and any worker gets the same. `RandomPatching`
and `StratifiedPatching` are for training, `FixedRandomPatching` and `FixedPatching` for validation,
`SequentialPatching`, `TiledPatching` and `WholePatching` for prediction, `TablePatching` for any
table of tiles. `validation_split` sets patches aside where there are no other images.
"""

from ._patching import Patching
from ._random import FixedPatching, FixedRandomPatching, RandomPatching
from ._regular import SequentialPatching, TablePatching, TiledPatching, WholePatching
from ._split import validation_split
from ._stratified import PatchCells, StratifiedPatching

__all__ = [
    "FixedPatching",
    "FixedRandomPatching",
    "PatchCells",
    "Patching",
    "RandomPatching",
    "SequentialPatching",
    "StratifiedPatching",
    "TablePatching",
    "TiledPatching",
    "WholePatching",
    "validation_split",
]
