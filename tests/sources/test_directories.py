"""Directories as other tools leave them: steinbock, MCMICRO, and a TIFF for each channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.errors import FormatError, InvalidInputError, UnknownNameError
from microtome.sources import image_names, open_image

RNG = np.random.default_rng(8)
PIXELS = RNG.integers(0, 60000, (3, 70, 50), dtype=np.uint16)
LABELS = RNG.integers(0, 90, (70, 50), dtype=np.uint32)


# ---------------------------------------------------------------- steinbock


@pytest.fixture
def steinbock(shared_data: Path, tmp_path: Path) -> Path:
    """The real run, its files under the names that steinbock gives them."""
    for name, origin in (
        ("img", "img"),
        ("masks", "masks"),
        ("panel.csv", "steinbock_panel.csv"),
        ("images.csv", "images.csv"),
    ):
        (tmp_path / name).symlink_to(shared_data / "imc" / origin)
    return tmp_path


def test_a_real_run_of_steinbock(steinbock: Path, pixels_equal: Any) -> None:
    names = image_names(steinbock)
    assert len(names) == 18
    assert names[0] == "20210305_NE_mockData1_001"
    assert names[9] == "masks/20210305_NE_mockData1_001"
    for name in names[:9]:
        image = open_image(steinbock, image=name, mpp=1)
        pixels_equal(image, tifffile.imread(steinbock / "img" / f"{name}.tiff"), windows=2)
        assert image.channel_names == ("Ag107", "Cytokeratin 5", "Laminin", "YBX1", "H3K27Ac")
        assert image.kind == "intensity"
        mask = open_image(steinbock, image=f"masks/{name}")
        pixels_equal(mask, tifffile.imread(steinbock / "masks" / f"{name}.tiff"), windows=2)
        assert mask.kind == "labels"
        assert mask.level_shape(0) == image.level_shape(0)[-2:]


def test_what_steinbock_says_of_an_acquisition(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    tifffile.imwrite(tmp_path / "img/a.tiff", PIXELS.astype(np.float32), photometric="minisblack")
    (tmp_path / "panel.csv").write_text(
        "channel,name,keep\nIr191,DNA,1\nIn113,,0\nPr141,CD3,1\nNd142,CD8,1\n"
    )
    (tmp_path / "images.csv").write_text("image,acquisition_id\na.tiff,7\n")
    image = open_image(tmp_path)
    assert image.channel_names == ("DNA", "CD3", "CD8")
    assert image.metadata["channels"][1] == {"name": "CD3", "metal": "Pr141"}
    assert image.metadata["acquisition"] == {"image": "a.tiff", "acquisition_id": "7"}


def test_a_panel_of_another_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    tifffile.imwrite(tmp_path / "img/a.tiff", PIXELS, photometric="minisblack")
    (tmp_path / "panel.csv").write_text("channel,name,keep\nIr191,DNA,1\n")
    with pytest.raises(FormatError, match=r"keeps 1 channels, .*a\.tiff has 3"):
        open_image(tmp_path)
    (tmp_path / "panel.csv").write_text("channel,name\nIr191,DNA,1\n")
    with pytest.raises(FormatError, match="longer or shorter"):
        open_image(tmp_path)
    (tmp_path / "panel.csv").write_bytes(b"channel,name\n\xff\xfe,DNA\n")
    with pytest.raises(FormatError, match="is no table"):
        open_image(tmp_path)


def run_of(path: Path, panel: bytes | str) -> Path:
    """A run of three channels, with a panel as somebody saved it."""
    (path / "img").mkdir(parents=True)
    tifffile.imwrite(path / "img/a.tiff", PIXELS, photometric="minisblack")
    (path / "panel.csv").write_bytes(panel if isinstance(panel, bytes) else panel.encode())
    return path


def test_a_panel_that_is_none_of_steinbock(tmp_path: Path, shared_data: Path) -> None:
    for name, origin in (("img", "img"), ("panel.csv", "panel.csv")):
        (tmp_path / name).symlink_to(shared_data / "imc" / origin)
    name = image_names(tmp_path)[0]
    with pytest.raises(
        FormatError,
        match=r"panel\.csv has no column 'name' or 'channel'; it has 'Tube Number', 'Metal Tag', 'T",
    ):
        open_image(tmp_path, image=name)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("channel,name,keep\nIr191,DNA,1\n,,1\nPr141,CD3,1\n", r"line 3: .* kept has no name"),
        ("channel,name,keep\nIr191,DNA,1\nPr141,CD3,\nNd142,CD8,1\n", r"line 3: keep .* got ''"),
        ("channel,name,keep\nIr191,DNA,x\n", "keep must be 1 or 0, got 'x'"),
        ("channel,name,name\nA,B,C\n", "several columns called 'name'"),
        ("Channel,Name\nA,B\nC,D\nE,F\n", "no column 'name' or 'channel'; it has 'Channel', 'Na"),
        ("", "no column 'name' or 'channel'; it has none"),
        ("channel,name\nA\n", r"longer or shorter .* line 2 has 1 cells, the first 2"),
        ("channel,name\nA,B,,C\n", "longer or shorter"),
        ("channel,name\nA,B\n".encode("utf-16"), "no UTF-8 text .* save it as CSV UTF-8"),
        ("channel,name\nA,B\n".encode("utf-16-le"), "no UTF-8 text"),
        ("channel,name\nA,Café\n".encode("latin-1"), "no UTF-8 text"),
    ],
)
def test_panels_that_are_refused(tmp_path: Path, rows: str | bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        open_image(run_of(tmp_path, rows))


@pytest.mark.parametrize(
    "panel",
    [
        "channel,name,keep\nIr191,DNA,1.0\nIn113,,0.0\nPr141,CD3,1.0\nNd142,CD8,1.0\n",
        "channel,name,keep\nIr191,DNA,TRUE\nIn113,,FALSE\nPr141,CD3,True\nNd142,CD8,true\n",
        "channel;name;keep\nIr191;DNA;1\nIn113;;0\nPr141;CD3;1\nNd142;CD8;1\n",
        "name\tnote\nDNA\ta, b\nCD3\t\nCD8\t\n",
        "\ufeffchannel,name\r\nIr191,DNA\r\nPr141,CD3\r\nNd142,CD8\r\n",
        "channel,name\rIr191,DNA\rPr141,CD3\rNd142,CD8",
        '\n channel , name ,,\nIr191, DNA,,\n,,,\nPr141,"CD3",,\n\nNd142,CD8 ,,\n,,,\n',
        "channel\nDNA\nCD3\nCD8\n",
        "name,channel\nDNA,Ir191\n,CD3\nCD8,Nd142\n",
    ],
    ids=["pandas", "R", "semicolons", "tabs", "Windows", "Mac", "Excel", "channels", "nameless"],
)
def test_panels_as_people_and_spreadsheets_leave_them(tmp_path: Path, panel: str) -> None:
    assert open_image(run_of(tmp_path, panel)).channel_names == ("DNA", "CD3", "CD8")


def test_files_that_differ_by_their_ending_only_are_all_there(tmp_path: Path) -> None:
    run = run_of(tmp_path, "name\nDNA\nCD3\nCD8\n")
    tifffile.imwrite(run / "img/a.ome.tif", PIXELS + 1, metadata={"axes": "CYX"})
    (run / "masks").mkdir()
    for name in ("a.tif", "a.tiff"):
        tifffile.imwrite(run / "masks" / name, LABELS)
    assert image_names(run) == ("a.ome.tif", "a.tiff", "masks/a.tif", "masks/a.tiff")
    np.testing.assert_array_equal(open_image(run, image="a.tiff").level(0)[...], PIXELS)
    np.testing.assert_array_equal(open_image(run, image="a.ome.tif").level(0)[...], PIXELS + 1)


# ---------------------------------------------------------------- MCMICRO


@pytest.fixture
def mcmicro(tmp_path: Path) -> Path:
    for folder in ("registration", "segmentation/unmicst-exemplar"):
        (tmp_path / folder).mkdir(parents=True)
    tifffile.imwrite(
        tmp_path / "registration/exemplar.ome.tif",
        PIXELS,
        metadata={"axes": "CYX", "PhysicalSizeX": 0.65, "PhysicalSizeY": 0.65},
        tile=(32, 32),
    )
    tifffile.imwrite(tmp_path / "segmentation/unmicst-exemplar/cell.ome.tif", LABELS)
    (tmp_path / "markers.csv").write_text(
        "channel_number,cycle_number,marker_name,remove\n1,1,DNA_1,\n2,1,CD3,\n3,1,AF488,TRUE\n"
    )
    return tmp_path


def test_an_output_of_mcmicro(mcmicro: Path, pixels_equal: Any) -> None:
    assert image_names(mcmicro) == (
        "registration/exemplar",
        "segmentation/unmicst-exemplar/cell",
    )
    image = open_image(mcmicro)
    pixels_equal(image, PIXELS)
    assert image.channel_names == ("DNA_1", "CD3", "AF488")
    assert image.require_mpp().y == 0.65
    assert image.metadata["channels"][0]["cycle_number"] == "1"
    mask = open_image(mcmicro, image="segmentation/unmicst-exemplar/cell")
    pixels_equal(mask, LABELS)
    assert mask.kind == "labels"


def test_channels_that_mcmicro_took_away(mcmicro: Path) -> None:
    (mcmicro / "background").mkdir()
    tifffile.imwrite(mcmicro / "background/exemplar.ome.tif", PIXELS[:2], metadata={"axes": "CYX"})
    assert open_image(mcmicro, image="background/exemplar").channel_names == ("DNA_1", "CD3")
    assert open_image(mcmicro).nchannels == 3


def test_markers_of_another_slide(mcmicro: Path) -> None:
    (mcmicro / "markers.csv").write_text("channel_number,marker_name\n1,DNA\n")
    with pytest.raises(FormatError, match=r"names 1 markers .* has 3 channels"):
        open_image(mcmicro)
    (mcmicro / "markers.csv").write_text("channel_number,marker\n1,A\n2,B\n3,C\n")
    with pytest.raises(
        FormatError, match="no column 'marker_name'; it has 'channel_number', 'marker'"
    ):
        open_image(mcmicro)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("marker_name\nA\nB\nC\nD\n", "names 4 markers in its column marker_name, .* has 3"),
        ("marker_name,remove\nA,\nB,\nC,TRUE\nD,TRUE\n", "names 4 .*, 2 of them not removed"),
        ("cycle,marker_name\n1,A\n1,\n1,C\n", r"line 3: a channel of .* has no marker_name"),
        ("Marker_Name\nA\nB\nC\n", "no column 'marker_name'; it has 'Marker_Name'"),
        ("channel_number,marker_name\n2,B\n1,A\n3,C\n", r"not in the order of the rows \(\[2, 1"),
    ],
)
def test_markers_that_are_refused(mcmicro: Path, rows: str, words: str) -> None:
    (mcmicro / "markers.csv").write_text(rows)
    with pytest.raises(FormatError, match=words):
        open_image(mcmicro)


@pytest.mark.parametrize(
    "rows",
    [
        "marker_name\r\nA\r\nB\r\nC\r\n",
        "\ufeffmarker_name;x\nA;1\nB;1\nC;2\n;\n",
        "cycle_number,channel_number,marker_name\n1,1,A\n1,2,B\n2,1,C\n",
        "channel_number,marker_name\n9,A\n10,B\n11,C\n",
    ],
    ids=["Windows", "Excel", "by-cycle", "as-numbers"],
)
def test_markers_as_people_and_spreadsheets_leave_them(mcmicro: Path, rows: str) -> None:
    (mcmicro / "markers.csv").write_text(rows)
    assert open_image(mcmicro).channel_names == ("A", "B", "C")


def test_several_slides_are_not_guessed_at(mcmicro: Path) -> None:
    tifffile.imwrite(mcmicro / "registration/other.ome.tif", PIXELS)
    with pytest.raises(InvalidInputError, match="'registration/exemplar', 'registration/other'"):
        open_image(mcmicro)
    with pytest.raises(UnknownNameError, match="no image 'another'"):
        open_image(mcmicro, image="another")


# ---------------------------------------------------------------- a file for each channel


def folder(path: Path, **options: Any) -> Path:
    path.mkdir()
    for name, plane in zip(("CD8", "DNA", "CD3"), PIXELS, strict=True):
        tifffile.imwrite(path / f"{name}.tiff", plane, **options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (32, 32), "compression": "zlib"},
        {"ome": True},
        {"metadata": {"axes": "YX"}, "imagej": True},
        {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"},
    ],
    ids=["plain", "tiles", "ome", "imagej", "resolution"],
)
def test_a_folder_of_channels_is_one_image(
    tmp_path: Path, pixels_equal: Any, options: dict[str, Any]
) -> None:
    path = folder(tmp_path / "fov1", **options)
    (path / "._DNA.tiff").write_bytes(b"what a Mac leaves on a share")
    (path / "notes.txt").write_text("no channel")
    image = open_image(path)
    pixels_equal(image, PIXELS[[2, 0, 1]])
    assert image.channel_names == ("CD3", "CD8", "DNA")
    assert image.name == "fov1"
    assert (image.mpp is not None) == ("resolution" in options)
    if image.mpp is not None:
        assert (image.mpp.y, image.mpp.source) == (0.5, "tag")


def test_pyramids_side_by_side(tmp_path: Path) -> None:
    for name, plane in zip("abc", PIXELS, strict=True):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as tiff:
            tiff.write(plane, subifds=1, tile=(32, 32))
            tiff.write(plane[::2, ::2], subfiletype=1, tile=(32, 32))
    image = open_image(tmp_path)
    assert image.level_count == 2
    np.testing.assert_array_equal(image.level(1)[...], PIXELS[:, ::2, ::2])


@pytest.mark.parametrize(
    ("other", "options", "words"),
    [
        (PIXELS, {}, "one image only where each file is one channel"),
        (PIXELS[0, :50], {}, r"other\.tif is \(50, 50\) uint16, CD3.tiff \(70, 50\) uint16"),
        (PIXELS[0].astype(np.float32), {}, "float32"),
        (PIXELS[0], {"resolution": (10000, 10000), "resolutionunit": "CENTIMETER"}, "give mpp="),
    ],
    ids=["channels", "shape", "type", "size"],
)
def test_files_that_are_no_channels_of_one_image(
    tmp_path: Path, other: Any, options: dict[str, Any], words: str
) -> None:
    path = folder(tmp_path / "fov", resolution=(20000, 20000), resolutionunit="CENTIMETER")
    options = options or {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path / "other.tif", other, photometric="minisblack", **options)
    with pytest.raises(FormatError, match=words):
        open_image(path)
    if words == "give mpp=":
        assert open_image(path, mpp=0.5).nchannels == 4
