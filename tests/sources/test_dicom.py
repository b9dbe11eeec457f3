"""Whole slides in DICOM: files that pydicom writes, held against wsidicom, OpenSlide and the pixels."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import DependencyError, FormatError, UnknownNameError
from microtome.sources import image_files, image_names, open_image

wsidicom = pytest.importorskip("wsidicom", reason="the extra dicom is not installed")
pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")

RNG = np.random.default_rng(51)
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
STUDY, SERIES, FRAME = (pydicom.uid.generate_uid() for _ in range(3))
SMOOTH = (np.add.outer(np.arange(200), np.arange(300))[..., None] * [1, 2, 3] % 200).astype("uint8")


def dataset(pixels: np.ndarray, mpp: float, flavour: str, tile: tuple[int, int]) -> Any:
    """Describe an instance as PS3.3 C.8.12 asks for; pixels are (paths, rows, columns, samples)."""
    paths, height, width, samples = pixels.shape
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = WHOLE_SLIDE, pydicom.uid.generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = STUDY, SERIES, FRAME
    made.Modality, made.Manufacturer, made.InstanceNumber = "SM", "microtome's tests", 1
    made.ImageType = ["ORIGINAL", "PRIMARY", flavour, "NONE"]
    made.Rows, made.Columns = tile
    made.TotalPixelMatrixRows, made.TotalPixelMatrixColumns = height, width
    made.SamplesPerPixel, made.PhotometricInterpretation = (
        (3, "RGB") if samples == 3 else (1, "MONOCHROME2")
    )
    if samples == 3:
        made.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation = 0
    made.DimensionOrganizationType = "TILED_FULL"
    made.ImagedVolumeWidth, made.ImagedVolumeHeight = width * mpp / 1000, height * mpp / 1000
    made.ImagedVolumeDepth = 0.001
    made.NumberOfOpticalPaths, made.TotalPixelMatrixFocalPlanes = paths, 1
    made.OpticalPathSequence = []
    for number in range(paths):
        item = pydicom.Dataset()
        item.OpticalPathIdentifier, item.OpticalPathDescription = str(number), f"stain {number}"
        made.OpticalPathSequence.append(item)
    measures, groups, origin = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.001
    groups.PixelMeasuresSequence = [measures]
    made.SharedFunctionalGroupsSequence = [groups]
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    made.TotalPixelMatrixOriginSequence, made.ImageOrientationSlide = [origin], [0, 1, 0, 1, 0, 0]
    made.BurnedInAnnotation = made.SpecimenLabelInImage = made.ExtendedDepthOfField = "NO"
    made.FocusMethod, made.VolumetricProperties, made.LossyImageCompression = "AUTO", "VOLUME", "00"
    return made


def written(
    path: Path,
    pixels: np.ndarray,
    *,
    mpp: float = 0.5,
    flavour: str = "VOLUME",
    tile: tuple[int, int] = (64, 64),
    jpeg: bool = False,
    **changes: Any,
) -> Path:
    made = dataset(pixels, mpp, flavour, tile)
    frames = []
    for plane in pixels:
        for y in range(0, plane.shape[0], tile[0]):
            for x in range(0, plane.shape[1], tile[1]):
                part = plane[y : y + tile[0], x : x + tile[1]]
                frame = np.zeros((*tile, plane.shape[-1]), pixels.dtype)
                frame[: part.shape[0], : part.shape[1]] = part
                frames.append(frame)
    made.NumberOfFrames = len(frames)
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = WHOLE_SLIDE
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    if jpeg:
        made.PhotometricInterpretation = "YBR_FULL_422"
        encoded = [imagecodecs.jpeg8_encode(f, level=90, subsampling="422") for f in frames]
        made.PixelData = pydicom.encaps.encapsulate(encoded)
        made.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    else:
        made.PixelData = b"".join(frame.tobytes() for frame in frames)
        made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made["PixelData"].VR = "OB" if pixels.dtype == np.uint8 else "OW"
    made["PixelData"].is_undefined_length = jpeg
    for name, value in changes.items():
        setattr(made, name, value)
    made.save_as(path, enforce_file_format=True)
    return path


def slide(folder: Path, *, jpeg: bool = False) -> Path:
    written(folder / "level0.dcm", SMOOTH[None], jpeg=jpeg)
    written(folder / "level1.dcm", SMOOTH[None, ::2, ::2], mpp=1.0, jpeg=jpeg)
    written(folder / "label.dcm", SMOOTH[None, :50, :60], mpp=5, flavour="LABEL", tile=(50, 60))
    written(folder / "over.dcm", SMOOTH[None, :40, :80], mpp=5, flavour="OVERVIEW", tile=(40, 80))
    return folder


@pytest.mark.parametrize("which", ["folder", "file"])
def test_a_slide_with_levels_label_and_overview(
    tmp_path: Path, pixels_equal: Any, which: str
) -> None:
    path = slide(tmp_path) if which == "folder" else slide(tmp_path) / "level1.dcm"
    assert image_names(path) == ("slide", "label", "overview")
    image = open_image(path)
    expected = np.moveaxis(SMOOTH, -1, 0)
    pixels_equal(image, expected)
    pixels_equal(image, expected[:, ::2, ::2], level=1)
    size = image.require_mpp()
    assert (size.y, size.x, size.source) == (0.5, 0.5, "metadata")
    assert image.channel_names == ("red", "green", "blue")
    assert image.metadata["associated_images"] == ["label", "overview"]
    assert image.metadata["acquisition"]["Manufacturer"] == "microtome's tests"
    pixels_equal(open_image(path, image="label"), expected[:, :50, :60], windows=2)
    pixels_equal(open_image(path, image=2), expected[:, :40, :80], windows=2)
    with pytest.raises(UnknownNameError, match="no image 'macro'"):
        open_image(path, image="macro")


@pytest.mark.parametrize("jpeg", [False, True])
def test_openslide_reads_the_same(tmp_path: Path, pixels_equal: Any, jpeg: bool) -> None:
    pytest.importorskip("openslide")
    ours = open_image(slide(tmp_path, jpeg=jpeg))
    theirs = open_image(tmp_path / "level0.dcm", format="OpenSlide")
    assert theirs.level_count == ours.level_count == 2
    for level in range(2):
        expected = ours.level(level)[...]
        if not jpeg:
            pixels_equal(theirs, expected, level=level, windows=4)
        # Of a subsampled colour each library smooths in its own way between two pixels.
        found = theirs.level(level)[...].astype(int)
        assert np.abs(found - expected).mean() < 2
    assert ours.require_mpp() == theirs.require_mpp()


def test_what_wsidicom_itself_writes(tmp_path: Path, pixels_equal: Any) -> None:
    (tmp_path / "saved").mkdir()
    with wsidicom.WsiDicom.open(slide(tmp_path, jpeg=True)) as opened:
        opened.save(tmp_path / "saved")
    ours, saved = open_image(tmp_path), open_image(tmp_path / "saved")
    for level in range(2):
        pixels_equal(saved, ours.level(level)[...], level=level, windows=2)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_optical_paths_are_channels(tmp_path: Path, pixels_equal: Any, dtype: str) -> None:
    pixels = RNG.integers(0, 250, (3, 100, 130, 1)).astype(dtype)
    if dtype == "uint16":
        pixels *= 200
    image = open_image(written(tmp_path / "a.dcm", pixels))
    pixels_equal(image, pixels[..., 0])
    assert image.channel_names == ("stain 0", "stain 1", "stain 2")


def test_many_threads_read_one_slide(tmp_path: Path) -> None:
    image = open_image(slide(tmp_path, jpeg=True))
    whole = image.level(0)[...]
    corners = [(int(y), int(x)) for y, x in RNG.integers(0, (150, 250), (100, 2))]
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda at: image.read(0, (at[0], at[0] + 50), (at[1], at[1] + 50)), corners)
        )
    for (y, x), part in zip(corners, found, strict=True):
        np.testing.assert_array_equal(part, whole[:, y : y + 50, x : x + 50])


def test_two_slides_in_one_folder(tmp_path: Path, pixels_equal: Any) -> None:
    one = written(tmp_path / "a.dcm", SMOOTH[None])
    uid = pydicom.uid.generate_uid()
    two = written(tmp_path / "b.dcm", 255 - SMOOTH[None], SeriesInstanceUID=uid)
    with pytest.raises(FormatError, match=r"holds 2 series; open a file of one: a\.dcm, b\.dcm"):
        open_image(tmp_path)
    pixels_equal(open_image(one), np.moveaxis(SMOOTH, -1, 0), windows=2)
    pixels_equal(open_image(two), np.moveaxis(255 - SMOOTH, -1, 0), windows=2)
    assert image_files(open_image(one)) == (one,)


def test_the_files_of_a_series(tmp_path: Path) -> None:
    slide(tmp_path)
    (tmp_path / "notes.txt").write_text("of nobody")
    files = image_files(open_image(tmp_path / "level1.dcm"))
    assert [file.name for file in files] == ["label.dcm", "level0.dcm", "level1.dcm", "over.dcm"]
    assert image_files(open_image(tmp_path)) == files


def test_dicom_that_is_no_slide(tmp_path: Path) -> None:
    written(tmp_path / "a.dcm", SMOOTH[None], flavour="LABEL")
    with pytest.raises(FormatError, match="none of its 1 files is a VOLUME"):
        open_image(tmp_path / "a.dcm")
    written(tmp_path / "a.dcm", SMOOTH[None], PixelRepresentation=1)
    with pytest.raises(FormatError, match="signed pixels"):
        open_image(tmp_path / "a.dcm")


def test_without_wsidicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wsidicom", None)
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(DependencyError, match=r"install microtome\[dicom\]"):
        open_image(tmp_path / "a.dcm")


@settings(max_examples=40)
@given(at=st.floats(0, 1), value=st.integers(0, 255), kept=st.floats(0.02, 1), cut=st.booleans())
@pytest.mark.filterwarnings("ignore")  # pydicom's, of the damage
def test_damage_is_ours_to_tell(
    tmp_path_factory: pytest.TempPathFactory,
    read_or_refused: Any,
    at: float,
    value: int,
    kept: float,
    cut: bool,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    path = written(folder / "a.dcm", SMOOTH[None, :70, :90])
    data = bytearray(path.read_bytes())
    # Half of the places within the tags, which are short beside the pixels.
    data[int(at * (len(data) - 1)) if cut else 140 + int(at * 1500)] = value
    path.write_bytes(data[: int(kept * len(data))] if cut else data)
    refusal = read_or_refused(path)
    assert not refusal or str(path) in refusal
