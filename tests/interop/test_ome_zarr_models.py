"""ome-zarr-models, the reference models of the metadata, takes what we write for OME-Zarr 0.5."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.interop

ome_zarr_models = pytest.importorskip("ome_zarr_models", reason="needs the interop extra")
zarr = pytest.importorskip("zarr", reason="needs the interop extra")

COMMAND = Path(sys.executable).with_name("ome-zarr-models")


def validate(path):
    return subprocess.run([COMMAND, "validate", path], capture_output=True, text=True, check=False)


def test_it_is_valid_and_of_version_0_5(written):
    group = ome_zarr_models.open_ome_zarr(str(written.path), version="0.5")
    assert type(group).__name__ == ("ImageLabel" if written.is_labels else "Image")
    assert group.attributes.ome.version == "0.5"


def test_axes_levels_and_transforms(written):
    group = ome_zarr_models.open_ome_zarr(str(written.path), version="0.5")
    (image,) = group.attributes.ome.multiscales
    assert image.name == written.name
    assert [(axis.name, axis.type) for axis in image.axes] == [
        (axis, "channel" if axis == "c" else "space") for axis in written.axes
    ]
    # A step between planes that is not known has no unit, which would claim a micrometre.
    measured = "yx" if written.step is None else "zyx"
    assert [axis.unit for axis in image.axes] == [
        "micrometer" if axis in measured else None for axis in written.axes
    ]
    assert [dataset.path for dataset in image.datasets] == [
        str(level) for level in range(len(written.levels))
    ]
    for level, dataset in enumerate(image.datasets):
        scale, translation = dataset.coordinateTransformations
        assert tuple(scale.scale) == written.scale(level)
        assert tuple(translation.translation) == written.translation(level)
        array = group.members[dataset.path]
        assert tuple(array.shape) == written.levels[level].shape
        assert array.data_type == written.levels[level].dtype.name
        assert tuple(array.dimension_names) == tuple(written.axes)


@pytest.mark.parametrize("name", ["multiplex", "tissue_mask"])
def test_its_command_validates(write_image, name, digest):
    written = write_image(name)
    before = digest(written.shelf)
    result = validate(written.path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Valid OME-Zarr" in result.stdout
    assert "Invalid" not in result.stdout
    assert digest(written.shelf) == before


def test_its_command_does_refuse(write_image, tmp_path):
    # Otherwise the test above would show nothing.
    damaged = tmp_path / "damaged.ome.zarr"
    shutil.copytree(write_image("multiplex").path, damaged)
    document = json.loads((damaged / "zarr.json").read_text())
    document["attributes"]["ome"]["multiscales"][0]["axes"].pop()
    (damaged / "zarr.json").write_text(json.dumps(document))
    result = validate(damaged)
    assert result.returncode == 1
    assert "Invalid OME-Zarr" in result.stdout
