"""The front door: which names there are, that each is documented, and that opening it costs nothing."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import microtome

# Frozen on purpose: adding, renaming or removing a public name is a decision, made here as well.
PUBLIC_NAMES = [
    "AffineTransform",
    "AugmentedDataset",
    "Axis",
    "BaseImagingDataset",
    "BlockOrder",
    "CODEXModality",
    "CellCrops",
    "CellMask",
    "ChannelDropout",
    "ChannelState",
    "ComposedImagingDataset",
    "ComposedTissue",
    "Conversion",
    "CoordinateSpace",
    "CycIFModality",
    "DihedralAugmentation",
    "DiskCache",
    "DrawnOrder",
    "HEImagingDataset",
    "HEModality",
    "HETissue",
    "IHCModality",
    "IHCTissue",
    "IMCModality",
    "IdentityTransform",
    "ImageRegionData",
    "ImageTilesDataset",
    "IntensityJitter",
    "MIBIModality",
    "MicrotomeError",
    "Mpp",
    "MultiplexImagingDataset",
    "MultiplexTissue",
    "MultiscaleImage",
    "Panel",
    "PanelCollate",
    "PatchSpecs",
    "PredictionWriter",
    "RandomPatching",
    "RegionDataModule",
    "RegionDataset",
    "Resolution",
    "ScaleTransform",
    "SequenceTransform",
    "SequentialPatching",
    "SingleIHCImagingDataset",
    "SpatialRead",
    "SporaDataset",
    "StorageOptions",
    "StratifiedPatching",
    "TileLoader",
    "TileSpecs",
    "TileTable",
    "TiledPatching",
    "TissueMask",
    "TranslationTransform",
    "UniformScaleTransform",
    "WeightedOrder",
    "WholePatching",
    "add_cell_masks",
    "add_cells",
    "add_metadata",
    "add_tiles",
    "align_channels",
    "bench",
    "best_mask_tiling_try_to_stop",
    "cell_objects",
    "cells_from_spatialdata",
    "cells_to_anndata",
    "collate_regions",
    "create_cohort",
    "decollate_regions",
    "embed_tiles",
    "fit_normalization",
    "from_soma",
    "from_spatialdata",
    "get_cell_tiles",
    "get_fewest_tiles",
    "get_grid_tile",
    "get_strip_tiles",
    "image_names",
    "info",
    "ingest",
    "ingest_manifest",
    "load_normalization",
    "mask",
    "measure_cells",
    "merge_labels",
    "open_image",
    "open_stacks",
    "pack",
    "pool_labels",
    "predict",
    "predict_cohort",
    "predict_instances",
    "process_pool",
    "read_areas",
    "read_panel",
    "read_qupath",
    "read_regions",
    "region_bounds",
    "region_transform",
    "report",
    "save_normalization",
    "set_alignment",
    "stats",
    "tile",
    "tile_objects",
    "tiles_from_spatialdata",
    "tiles_to_anndata",
    "to_soma",
    "to_spatialdata",
    "update_panel",
    "validate",
    "validation_split",
    "vectors_to_anndata",
    "write_coco",
    "write_ome_tiff",
    "write_qupath",
    "write_tiles_parquet",
    "write_webdataset",
]

# The command line is reached by typing, not by importing.
FACES = {"cli"}
# Reading these is most of what a start costs, and none is needed until something is opened.
HEAVY = {
    "imagecodecs",
    "matplotlib",
    "ome_zarr_models",
    "pyarrow",
    "pydantic",
    "scipy",
    "skimage",
    "tensorstore",
    "tifffile",
    "torch",
    "zarr",
}
# What an installation without extras does not have.
OPTIONAL = {"jinja2", "matplotlib", "torch"}

REFERENCE = Path(__file__).parents[1] / "docs" / "reference.md"


def rooms() -> list[str]:
    found = pkgutil.iter_modules(microtome.__path__)
    return sorted(module.name for module in found if not module.name.startswith("_"))


def loaded_by(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after running the code."""
    report = "import json, sys; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout))


def test_the_names_are_these():
    assert microtome.__all__ == PUBLIC_NAMES


def test_every_name_is_there_and_listed():
    listed = dir(microtome)
    for name in microtome.__all__:
        assert getattr(microtome, name) is not None
        assert name in listed, f"dir(microtome) does not show {name}"


def test_rooms_are_there_whatever_was_asked_for_before():
    code = "import microtome as mt; mt.cohort.validate; mt.panels.align_channels; mt.coordinates"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        microtome.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_every_name_is_documented(name):
    value = getattr(microtome, name)
    if inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value):
        # Of its own: a docstring inherited from a base class says nothing about this one.
        assert (value.__doc__ or "").strip(), f"{name} has no docstring"
    homes = [
        room
        for room in rooms()
        if name in getattr(importlib.import_module(f"microtome.{room}"), "__all__", ())
        and getattr(sys.modules[f"microtome.{room}"], name) is value
    ]
    assert homes or name in rooms() or name == "__version__", f"{name} is in no room's __all__"


def test_the_reference_has_every_room():
    shown = re.findall(r"^::: microtome\.(\w+)$", REFERENCE.read_text("utf-8"), re.MULTILINE)
    assert sorted(shown) == [room for room in rooms() if room not in FACES]


def test_import_loads_nothing_heavy():
    assert loaded_by("import microtome") & HEAVY == set()


def test_every_room_imports_without_the_extras():
    names = [f"microtome.{room}" for room in rooms()]
    blocked = f"import sys; sys.modules.update(dict.fromkeys({sorted(OPTIONAL)!r}))"
    loaded_by(f"{blocked}\nimport {', '.join(names)}")


def test_the_measure_of_what_is_loaded_sees_a_package():
    assert "tifffile" in loaded_by("import tifffile")
