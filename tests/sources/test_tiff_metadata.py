"""What a TIFF says about itself: pixel size and channel names, dialect by dialect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.errors import FormatError, MicrotomeError, NoResolutionError
from microtome.sources import open_image

PLANES = np.random.default_rng(3).integers(0, 65536, (3, 40, 50), dtype=np.uint16)


def write_ome(path: Path, **metadata: Any) -> None:
    tifffile.imwrite(path, PLANES, photometric="minisblack", metadata={"axes": "CYX", **metadata})


@pytest.mark.parametrize(
    ("unit", "value", "um"),
    [
        ("µm", 0.325, 0.325),
        ("nm", 250.0, 0.25),
        ("mm", 0.0005, 0.5),
        ("cm", 0.0001, 1.0),
        ("m", 5e-7, 0.5),
        ("pm", 5e5, 0.5),
        ("thou", 0.02, 0.508),
        ("Å", 2500.0, 0.25),
        ("in", 1e-5, 0.254),
        (None, 0.65, 0.65),  # the schema's default is the micrometre
    ],
)
def test_ome_physical_size(tmp_path: Path, unit: str | None, value: float, um: float) -> None:
    path = tmp_path / "a.ome.tif"
    units = {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit} if unit else {}
    write_ome(path, PhysicalSizeX=value, PhysicalSizeY=2 * value, **units)
    mpp = open_image(path).require_mpp()
    assert mpp.x == pytest.approx(um)
    assert mpp.y == pytest.approx(2 * um)
    assert mpp.source == "metadata"


def test_ome_axes_may_have_units_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_ome(
        path,
        PhysicalSizeX=500.0,
        PhysicalSizeXUnit="nm",
        PhysicalSizeY=0.5,
        PhysicalSizeYUnit="µm",
    )
    mpp = open_image(path).require_mpp()
    assert (mpp.y, mpp.x) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("unit", ["pixel", "reference frame"])
def test_ome_sizes_that_are_no_lengths_are_none(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "a.ome.tif"
    write_ome(
        path,
        PhysicalSizeX=1.0,
        PhysicalSizeY=1.0,
        PhysicalSizeXUnit=unit,
        PhysicalSizeYUnit=unit,
    )
    assert open_image(path).mpp is None


def test_ome_names_its_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_ome(path, Channel={"Name": ["DAPI", "CD3", "Überlänge µ"]})
    assert open_image(path).channel_names == ("DAPI", "CD3", "Überlänge µ")


def test_half_named_channels_are_unnamed(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_ome(path, Channel={"Name": ["DAPI", "", "CD8"]})
    assert open_image(path).channel_names == ("channel 0", "channel 1", "channel 2")


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_imagej_micrometres(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        PLANES,
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"axes": "CYX", "unit": unit, "Labels": ["a", "b", "c"]},
    )
    image = open_image(path)
    assert (image.require_mpp().y, image.require_mpp().x) == pytest.approx((0.5, 0.25))
    assert image.require_mpp().source == "metadata"
    assert image.channel_names == ("a", "b", "c")


def test_imagej_without_a_unit_states_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES, imagej=True, resolution=(1.0, 1.0), metadata={"axes": "CYX"})
    assert open_image(path).mpp is None


@pytest.mark.parametrize("dpi", [72, 96, 300, 600, 1200])
def test_dots_per_inch_of_print_are_no_pixel_size(tmp_path: Path, dpi: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES[0], resolution=(dpi, dpi), resolutionunit="INCH")
    image = open_image(path)
    assert image.mpp is None
    with pytest.raises(NoResolutionError, match="--mpp"):
        image.require_mpp()


@pytest.mark.parametrize(
    ("unit", "a_unit"), [("inch", 72), ("inch", 1200), ("cm", 28.35), ("cm", 118.11)]
)
def test_nor_are_those_that_imagej_repeats_as_its_unit(
    tmp_path: Path, unit: str, a_unit: float
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        PLANES,
        imagej=True,
        resolution=(a_unit, a_unit),
        metadata={"axes": "CYX", "unit": unit},
    )
    assert open_image(path).mpp is None


@pytest.mark.parametrize(
    ("unit", "a_unit", "um"), [("inch", 50800, 0.5), ("cm", 20000, 0.5), ("mm", 20, 50)]
)
def test_finer_ones_and_those_in_units_of_microscopes_are(
    tmp_path: Path, unit: str, a_unit: float, um: float
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        PLANES,
        imagej=True,
        resolution=(a_unit, a_unit),
        metadata={"axes": "CYX", "unit": unit},
    )
    assert open_image(path).require_mpp().x == pytest.approx(um)


def test_print_resolution_in_centimetres_neither(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES[0], resolution=(300 / 2.54,) * 2, resolutionunit="CENTIMETER")
    assert open_image(path).mpp is None


@pytest.mark.parametrize(
    ("unit", "per_um", "resolution"),
    [("CENTIMETER", 1e-4, (20000.0, 40000.0)), ("INCH", 1 / 25400, (50800.0, 101600.0))],
)
def test_microscope_resolution_tags(
    tmp_path: Path, unit: str, per_um: float, resolution: tuple[float, float]
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES[0], resolution=resolution, resolutionunit=unit)
    mpp = open_image(path).require_mpp()
    assert mpp.x == pytest.approx(1 / (resolution[0] * per_um))
    assert mpp.y == pytest.approx(1 / (resolution[1] * per_um))
    assert mpp.source == "tag"


def test_a_resolution_without_a_unit_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES[0], resolution=(20000, 20000), resolutionunit="NONE")
    assert open_image(path).mpp is None


@pytest.mark.parametrize("dots", [1, 10, 1e-3])
def test_a_resolution_that_can_be_none_does_not_stop_the_file(tmp_path: Path, dots: float) -> None:
    # One dot an inch is what some writers mean by "unknown".
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES[0], resolution=(dots, dots), resolutionunit="INCH")
    image = open_image(path)
    assert image.mpp is None
    np.testing.assert_array_equal(image.level(0)[...], PLANES[0])


def test_the_users_word_goes_before_the_files(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_ome(path, PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    mpp = open_image(path, mpp=(0.3, 0.4)).require_mpp()
    assert (mpp.y, mpp.x, mpp.source) == (0.3, 0.4, "user")


def svs(path: Path, description: str) -> None:
    tifffile.imwrite(
        path,
        np.zeros((64, 64, 3), np.uint8),
        photometric="rgb",
        tile=(32, 32),
        description=description,
        metadata=None,
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )


def test_aperio_without_mpp_is_not_guessed_from_its_magnification(tmp_path: Path) -> None:
    svs(tmp_path / "a.svs", "Aperio Image Library v1\r\n64x64 (32x32)|AppMag = 40")
    assert open_image(tmp_path / "a.svs").mpp is None


@pytest.mark.parametrize("text", ["0", "0.0", "-0.5", "nan", "1e-9", "1e400", "", "abc"])
def test_aperio_with_an_impossible_mpp_is_none_or_refused(tmp_path: Path, text: str) -> None:
    svs(tmp_path / "a.svs", f"Aperio Image Library v1\r\n64x64 (32x32)|AppMag = 40|MPP = {text}")
    try:
        image = open_image(tmp_path / "a.svs")
    except NoResolutionError as error:
        # The other outcome is as good; this one names the file and the way out.
        assert "--mpp" in str(error)  # noqa: PT017
        assert "a.svs" in str(error)  # noqa: PT017
    else:
        assert image.mpp is None
    assert open_image(tmp_path / "a.svs", mpp=0.5).require_mpp().y == 0.5


BOMB = """<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">
<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;"><!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;">]>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0" Name="&e;">
<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="50" SizeY="40" SizeC="1"
 SizeZ="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5"><TiffData/></Pixels></Image></OME>"""

OUTSIDE = """<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY x SYSTEM "file://{secret}">]>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="50" SizeY="40" SizeC="3"
 SizeZ="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5"><Channel ID="a" Name="n">&x;</Channel>
<TiffData/></Pixels></Image></OME>"""


def test_an_entity_bomb_in_ome_xml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PLANES[0], description=BOMB, metadata=None)
    with pytest.raises(FormatError, match="OME-XML"):
        open_image(path)


def test_ome_xml_reads_no_other_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    path = tmp_path / "a.ome.tif"
    text = OUTSIDE.format(secret=secret)
    tifffile.imwrite(path, PLANES[0], description=text, metadata=None)
    with pytest.raises(FormatError, match="OME-XML") as caught:
        open_image(path)
    assert "secret\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["PlaneCount", "FirstC", "IFD"])
@pytest.mark.parametrize("count", [2_000_000_000, -5])
def test_a_billion_planes_are_not_believed(tmp_path: Path, name: str, count: int) -> None:
    path = tmp_path / "a.ome.tif"
    text = BOMB[BOMB.index("<OME") :].replace("&e;", "a")
    text = text.replace("<TiffData/>", f'<TiffData {name}="{count}"/>')
    tifffile.imwrite(path, PLANES[0], description=text, metadata=None)
    with pytest.raises(FormatError, match="planes"):
        open_image(path)


@pytest.mark.parametrize("text", ["<OME>", "<OME></OME>", "<OME><Image><Pixels/></Image></OME>"])
def test_ome_xml_that_says_nothing_is_no_crash(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PLANES[0], description=text, metadata=None)
    try:
        image = open_image(path)
    except MicrotomeError:
        return
    np.testing.assert_array_equal(image.level(0)[...].reshape(40, 50), PLANES[0])


def test_page_names_name_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for plane, name in zip(PLANES, ["Ki67 (151)", "CD20", "HH3"], strict=True):
            tag = (285, "s", 0, name, False)
            tiff.write(plane, extratags=[tag], metadata=None, contiguous=False)
    image = open_image(path)
    assert image.channel_names == ("Ki67 (151)", "CD20", "HH3")
    np.testing.assert_array_equal(image.level(0)[...], PLANES)


def test_names_of_the_caller_go_before_the_files(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_ome(path, Channel={"Name": ["DAPI", "CD3", "CD8"]})
    assert open_image(path, channel_names=["x", "y", "z"]).channel_names == ("x", "y", "z")
    with pytest.raises(MicrotomeError, match="2 channel names"):
        open_image(path, channel_names=["x", "y"])
