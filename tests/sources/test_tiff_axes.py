"""TIFFs of more than three dimensions, of several pictures, and in several files."""

from __future__ import annotations

import itertools
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.errors import FormatError, UnknownNameError
from microtome.sources import image_names, open_image

RNG = np.random.default_rng(12)
SIZES = {"T": 2, "C": 3, "Z": 4, "Y": 41, "X": 37}
LEADS = ["".join(order) for count in (2, 3) for order in itertools.permutations("TCZ", count)]


def pixels_of(axes: str) -> np.ndarray:
    return RNG.integers(0, 60000, [SIZES[axis] for axis in axes], dtype=np.uint16)


def in_our_order(pixels: np.ndarray, axes: str) -> np.ndarray:
    return pixels.transpose([axes.index(axis) for axis in "TCZYX" if axis in axes])


@pytest.mark.parametrize("leads", LEADS)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_four_and_five_dimensions_in_any_order(
    tmp_path: Path, leads: str, compression: str | None
) -> None:
    axes = f"{leads}YX"
    pixels = pixels_of(axes)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path, pixels, metadata={"axes": axes}, photometric="minisblack", tile=(16, 32),
        compression=compression,
    )  # fmt: skip
    image = open_image(path)
    expected = in_our_order(pixels, axes)
    assert image.axes == "".join(axis for axis in "tczyx" if axis in axes.lower())
    np.testing.assert_array_equal(image.level(0)[...], expected)
    inside = tuple(slice(size // 3, size // 3 + 2) for size in expected.shape)
    np.testing.assert_array_equal(image.level(0)[inside], expected[inside])


def test_hyperstacks_of_imagej(tmp_path: Path) -> None:
    pixels = pixels_of("TZCYX")
    path = tmp_path / "a.tif"
    labels = [f"plane {i}" for i in range(24)]
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "TZCYX", "Labels": labels})
    image = open_image(path)
    assert image.axes == "tczyx"
    np.testing.assert_array_equal(image.level(0)[...], pixels.transpose(0, 2, 1, 3, 4))
    # Its labels are of planes, not of channels.
    assert image.channel_names == ("channel 0", "channel 1", "channel 2")
    assert image.metadata["acquisition"]["slices"] == 4
    json.dumps(image.metadata["acquisition"])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("lead", ["T", "Z"])
def test_photographs_over_time_and_depth(tmp_path: Path, planar: str, lead: str) -> None:
    stack = RNG.integers(0, 255, (4, 41, 37, 3), dtype=np.uint8)
    path = tmp_path / "a.ome.tif"
    axes = f"{lead}YXS" if planar == "contig" else f"{lead}SYX"
    stored = stack if planar == "contig" else np.moveaxis(stack, -1, 1)
    tifffile.imwrite(
        path, stored, photometric="rgb", planarconfig=planar, metadata={"axes": axes}, tile=(16, 16)
    )
    image = open_image(path)
    expected = np.moveaxis(stack, -1, 1 if lead == "T" else 0)
    assert image.axes == ("tcyx" if lead == "T" else "czyx")
    np.testing.assert_array_equal(image.level(0)[...], expected)
    part = (slice(1, 3),) * 2 + (slice(10, 20), slice(5, 35))
    np.testing.assert_array_equal(image.level(0)[part], expected[part])


def test_channels_of_photographs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    stack = np.zeros((2, 20, 20, 3), np.uint8)
    tifffile.imwrite(path, stack, photometric="rgb", metadata={"axes": "CYXS"})
    with pytest.raises(FormatError, match=r"axes 'CYXS'.*once"):
        open_image(path)


def test_the_channel_names_of_five_dimensions(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "TCZYX", "Channel": {"Name": ["DNA", "CD3", "CD8"]}}
    tifffile.imwrite(path, pixels_of("TCZYX"), metadata=metadata, photometric="minisblack")
    assert open_image(path).channel_names == ("DNA", "CD3", "CD8")
    # By pages, of which those of one channel are alike.
    other = tmp_path / "b.tif"
    with tifffile.TiffWriter(other) as tiff:
        for name, plane in zip("ab", pixels_of("ZYX"), strict=False):
            tiff.write(plane, metadata=None, extratags=[(285, 2, 0, name, True)])
    assert open_image(other).channel_names == ("a", "b")


# ---------------------------------------------------------------- several files


def ome(names: tuple[str, str]) -> str:
    return f"""<?xml version="1.0"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="I:0">
<Pixels ID="P:0" DimensionOrder="XYCZT" Type="uint16" SizeX="37" SizeY="41" SizeC="2" SizeZ="1"
 SizeT="1"><Channel ID="C:0" Name="DNA"/><Channel ID="C:1" Name="CD3"/>
<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="{names[0]}">urn:uuid:1</UUID></TiffData>
<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="{names[1]}">urn:uuid:2</UUID></TiffData>
</Pixels></Image></OME>"""


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("first", ["a", "b"])
def test_an_ome_tiff_in_several_files(
    tmp_path: Path, pixels_equal: Any, compression: str | None, first: str
) -> None:
    pixels = pixels_of("CYX")[:2]
    for name, plane, own in zip("ab", pixels, ("1", "2"), strict=True):
        text = ome(("a.ome.tif", "b.ome.tif")).replace(
            'UUID="urn:uuid:1"', f'UUID="urn:uuid:{own}"'
        )
        tifffile.imwrite(
            tmp_path / f"{name}.ome.tif", plane, description=text, metadata=None,
            compression=compression, tile=(16, 16),
        )  # fmt: skip
    image = open_image(tmp_path / f"{first}.ome.tif")
    pixels_equal(image, pixels)
    assert image.channel_names == ("DNA", "CD3")
    (tmp_path / ("b.ome.tif" if first == "a" else "a.ome.tif")).unlink()
    with pytest.raises(FormatError, match="missing"):
        open_image(tmp_path / f"{first}.ome.tif")


@pytest.mark.parametrize(
    "name", ["../b.ome.tif", "/etc/hostname", "deeper/b.ome.tif", "..", "..\\b.ome.tif"]
)
def test_no_file_elsewhere_is_opened(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in/a.ome.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, pixels_of("YX"), description=ome(("a.ome.tif", name)), metadata=None)
    tifffile.imwrite(tmp_path / "b.ome.tif", pixels_of("YX"))
    opened: list[Any] = []
    whole = tifffile.TiffFile.__init__

    def noted(self: Any, file: Any, **options: Any) -> None:
        opened.append(file)
        whole(self, file, **options)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", noted)
    with pytest.raises(FormatError, match="speaks of a file elsewhere"):
        open_image(path)
    assert opened == [path]


# ---------------------------------------------------------------- several pictures


def test_label_and_macro_of_a_real_slide(shared_data: Path, pixels_equal: Any) -> None:
    path = shared_data / "wsi/cmu-1-small-region.svs"
    assert image_names(path) == ("Baseline", "Thumbnail", "Label", "Macro")
    slide = open_image(path)
    assert slide.metadata["associated_images"] == ["Thumbnail", "Label", "Macro"]
    facts = slide.metadata["acquisition"]
    assert (facts["AppMag"], facts["MPP"], facts["Date"]) == ("20", "0.4990", "12/29/09")
    with tifffile.TiffFile(path) as tiff:
        for number, name in enumerate(image_names(path)):
            expected = np.moveaxis(tiff.series[number].asarray(), -1, 0)
            for image in (open_image(path, image=name), open_image(path, image=number)):
                pixels_equal(image, expected, windows=2)
            # The thumbnail repeats what is said of the slide.
            assert (image.mpp is None) == (name != "Baseline")
    assert open_image(path, image="Macro").name == "cmu-1-small-region Macro"
    with pytest.raises(UnknownNameError, match="no image 'macro'; it has 'Baseline'"):
        open_image(path, image="macro")


def test_pictures_of_an_ome_tiff_have_sizes_and_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    first, second = pixels_of("CYX"), pixels_of("YX")
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(
            first, photometric="minisblack",
            metadata={
                "axes": "CYX", "Name": "tissue", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5,
                "Channel": {"Name": ["a", "b", "c"]}, "AcquisitionDate": "2026-01-01T00:00:00",
            },
        )  # fmt: skip
        tiff.write(
            second, photometric="minisblack",
            metadata={"axes": "YX", "Name": "overview", "PhysicalSizeX": 8, "PhysicalSizeY": 8},
        )  # fmt: skip
    assert image_names(path) == ("tissue", "overview")
    tissue, overview = open_image(path), open_image(path, image="overview")
    np.testing.assert_array_equal(tissue.level(0)[...], first)
    np.testing.assert_array_equal(overview.level(0)[...], second)
    assert (tissue.require_mpp().y, overview.require_mpp().y) == (0.5, 8.0)
    assert tissue.channel_names == ("a", "b", "c")
    facts = json.loads(json.dumps(tissue.metadata["acquisition"]))
    assert facts["Image"]["Name"] == "tissue"
    assert facts["Pixels"]["PhysicalSizeX"] == "0.5"
    assert [channel["Name"] for channel in facts["Channel"]] == ["a", "b", "c"]


# ---------------------------------------------------------------- what files say of themselves


def test_facts_of_a_real_qptiff(shared_data: Path) -> None:
    facts = open_image(shared_data / "wsi/vectra.qptiff").metadata["acquisition"]
    assert facts["Objective"] == "10x"
    assert "ScanProfile" not in facts
    json.dumps(facts)


def test_channel_names_in_the_json_of_mibi(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    planes = pixels_of("CYX")
    with tifffile.TiffWriter(path) as tiff:
        for target, plane in zip(("dsDNA", "CD45", "Keratin"), planes, strict=True):
            text = json.dumps(
                {"image.type": "SIMS", "channel.target": target, "mibi.run": "r", "raw": 1}
            )
            tiff.write(
                plane, description=text, metadata=None, software="IonpathMIBIv1.0",
                resolution=(20000, 20000), resolutionunit="CENTIMETER",
            )  # fmt: skip
    image = open_image(path)
    assert image.channel_names == ("dsDNA", "CD45", "Keratin")
    assert image.require_mpp().y == 0.5
    assert image.metadata["acquisition"]["mibi.run"] == "r"
    assert image.metadata["acquisition"]["Software"] == "IonpathMIBIv1.0"


@pytest.mark.parametrize("text", ["{", '{"channel.target": {}}', "[" * 5000, '{"channel.target"'])
def test_json_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, pixels_of("YX"), description=text, metadata=None)
    assert open_image(path).level_shape(0) == (41, 37)


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_pixels_are_as_stored_and_the_orientation_is_told(
    tmp_path: Path, pixels_equal: Any, turn: int
) -> None:
    # As tifffile and OpenSlide give them: windows in the file's own rows and columns.
    path = tmp_path / "a.tif"
    pixels = pixels_of("YX")
    tifffile.imwrite(path, pixels, extratags=[(274, 3, 1, turn, True)], metadata=None)
    image = open_image(path)
    pixels_equal(image, pixels)
    assert image.metadata["acquisition"].get("Orientation", 1) == turn


def test_a_mask_is_said_to_be_labels(shared_data: Path) -> None:
    path = shared_data / "mibi/fov8_whole_cell_mask.tiff"
    assert open_image(path).kind == "intensity"
    labels = open_image(path, kind="labels")
    assert labels.kind == "labels"
    assert len(np.unique(labels.level(0)[...])) == 273


# ---------------------------------------------------------------- bombs


def test_a_segment_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels_of("YX"), compression="zlib", tile=(16, 16), metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages.first.tags
        for name in ("TileWidth", "TileLength"):
            at = tags[name].valueoffset
            data[at : at + 4] = (1 << 17).to_bytes(4, "little") if tags[name].dtype == 4 else b""
    if len(data) != path.stat().st_size:
        pytest.fail("tifffile writes the sides of tiles as 16 bits now: claim less")
    path.write_bytes(data)
    with pytest.raises(FormatError, match="a segment would take 32 GiB in memory"):
        open_image(path)


def test_a_segment_that_decodes_to_more_than_it_claims_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    packer, mebibyte = zlib.compressobj(1), bytes(1 << 20)
    bomb = b"".join([*(packer.compress(mebibyte) for _ in range(200)), packer.flush()])
    tifffile.imwrite(
        path, iter([bomb]), shape=(16, 16), dtype=np.uint8, compression="zlib", tile=(16, 16)
    )
    image = open_image(path)
    tracemalloc.start()
    try:
        outcome = str(image.level(0)[...].any())
    except FormatError as error:
        outcome = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert outcome == "False" or "damaged" in outcome
    assert peak < 20 << 20
