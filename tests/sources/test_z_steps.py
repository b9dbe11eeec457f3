"""How far planes are apart, as files state it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.sources import open_image

PLANES = np.random.default_rng(9).integers(0, 65536, (2, 3, 4, 24, 36), dtype=np.uint16)


@pytest.mark.parametrize(
    ("unit", "value", "um"),
    [
        (None, 2.0, 2.0),
        ("µm", 1.25, 1.25),
        ("nm", 300.0, 0.3),
        ("mm", 0.004, 4.0),
        ("pm", 5e5, 0.5),
        ("thou", 0.1, 2.54),
        ("reference frame", 3.0, 1.0),  # no length: planes are counted
        ("µm", 0.0, 1.0),
    ],
)
@pytest.mark.parametrize("axes", ["TZCYX", "TCZYX"])
def test_ome_states_a_step(
    tmp_path: Path, axes: str, unit: str | None, value: float, um: float
) -> None:
    path = tmp_path / "a.ome.tif"
    facts: dict[str, Any] = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": value}
    if unit:
        facts["PhysicalSizeZUnit"] = unit
    tifffile.imwrite(path, PLANES, metadata={"axes": axes, **facts})
    image = open_image(path)
    assert image.axes == "tczyx"
    assert image.level(0).scale == pytest.approx((1, 1, um, 0.25, 0.5))


def test_the_step_of_a_file_stays_where_somebody_states_the_pixel_size(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PLANES[0, 0], metadata={"axes": "ZYX", "PhysicalSizeZ": 2.0})
    assert open_image(path).mpp is None
    assert open_image(path).level(0).scale == (2, 1, 1)
    assert open_image(path, mpp=0.5).level(0).scale == (2, 0.5, 0.5)


def test_levels_of_a_pyramid_have_the_same_planes(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    facts = {"axes": "ZYX", "PhysicalSizeX": 1, "PhysicalSizeY": 1, "PhysicalSizeZ": 3.0}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(PLANES[0, 0], subifds=1, metadata=facts, tile=(16, 16))
        writer.write(PLANES[0, 0, :, ::2, ::2], subfiletype=1, tile=(16, 16))
    image = open_image(path)
    assert [image.level(i).scale for i in range(2)] == [(3, 1, 1), (3, 2, 2)]


@pytest.mark.parametrize(
    ("facts", "um"),
    [
        ({"unit": "um", "spacing": 1.5}, 1.5),
        ({"unit": "micron", "spacing": -1.5}, 1.5),
        ({"unit": "nm", "spacing": 250.0}, 0.25),
        ({"unit": "um", "zunit": "nm", "spacing": 250.0}, 0.25),
        ({"unit": "um"}, 1.0),
        ({"unit": "pixel", "spacing": 4.0}, 1.0),
        ({"spacing": 4.0}, 1.0),
    ],
)
def test_imagej_states_a_step(tmp_path: Path, facts: dict[str, Any], um: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, PLANES[0], imagej=True, resolution=(2, 4), metadata={"axes": "ZCYX", **facts}
    )
    image = open_image(path)
    assert dict(zip(image.axes, image.level(0).scale, strict=True))["z"] == pytest.approx(um)


def test_czi_states_a_step(tmp_path: Path) -> None:
    czi = pytest.importorskip("pylibCZIrw.czi")
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        for z in range(3):
            file.write(PLANES[0, 0, z][..., None], plane={"C": 0, "T": 0, "Z": z})
        file.write_metadata("a", scale_x=5e-7, scale_y=2.5e-7, scale_z=2e-6)
    image = open_image(path)
    scale = dict(zip(image.axes, image.level(0).scale, strict=True))
    assert [scale[axis] for axis in "zyx"] == pytest.approx([2.0, 0.25, 0.5])
