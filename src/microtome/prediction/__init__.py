"""Images through a model, tile by tile, and the answer back onto the tissue.

`predict` does the whole job. Its parts are public for people with a loop of their own:
`iter_tile_batches` reads the tiles of a plan, `Stitcher` puts the kept part of each into a new
image, `stitch_tiles` into an array. `predict_instances` runs a model that finds objects:
`InstanceStitcher` puts the labels of tiles together on disk, `stitch_instances` in memory;
`merge_labels` joins those of tiles that do not overlap. `embed_tiles` makes one vector a tile,
of `CellCrops` one a cell; `pool_labels` takes the mean of a map in every object, and
`vectors_to_anndata` brings either to single-cell tools. `load_model` finds a model by name,
`OnnxModel` is one in a file; `TestTimeAugmentation` asks one about every turn of a tile;
`StainDensityModel` is a small one that needs no weights.
"""

from typing import TYPE_CHECKING, Any

from ._augmented import TestTimeAugmentation
from ._batches import iter_tile_batches
from ._cohort import predict_cohort
from ._embed import embed_tiles
from ._input import preprocess_of
from ._instances import stitch_instances
from ._instances_predict import predict_instances
from ._instances_write import InstanceStitcher
from ._lightning import PredictionWriter
from ._merge_labels import merge_labels
from ._model import load_model
from ._onnx import OnnxModel
from ._predict import predict
from ._stitch import Stitcher, stitch_tiles
from ._vectors import vectors_to_anndata
from ._vectors_cells import CellCrops
from ._vectors_pool import pool_labels

if TYPE_CHECKING:
    from ._stain import StainDensityModel

__all__ = [
    "CellCrops",
    "InstanceStitcher",
    "OnnxModel",
    "PredictionWriter",
    "StainDensityModel",
    "Stitcher",
    "TestTimeAugmentation",
    "embed_tiles",
    "iter_tile_batches",
    "load_model",
    "merge_labels",
    "pool_labels",
    "predict",
    "predict_cohort",
    "predict_instances",
    "preprocess_of",
    "stitch_instances",
    "stitch_tiles",
    "vectors_to_anndata",
]


def __getattr__(name: str) -> Any:
    # A torch module cannot be defined without torch, which nothing else here imports.
    if name == "StainDensityModel":
        from ._model import stain_density_model

        return stain_density_model()
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
