"""Imaging mass cytometry: MCD and text files hold what readimc reads of them, in place."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter

from microtome.errors import FormatError, InvalidInputError, UnknownNameError
from microtome.sources import image_names, open_image

SLIDES = ("20210305_NE_mockData1", "20210305_NE_mockData2", "20210305_NE_mockData3")
LABELS = (
    "107Ag",
    "Cytoker_651((3356))Pr141",
    "Laminin_681((851))Sm147",
    "YBX1_2987((3532))Eu153",
    "H3K27Ac_1977((2242))Yb172",
)


def mcd(shared_data: Path, slide: str) -> Path:
    return shared_data / "imc/raw" / f"{slide}.mcd"


@pytest.mark.parametrize("slide", SLIDES)
def test_pixels_names_and_sizes_are_those_of_readimc(
    shared_data: Path, pixels_equal: Any, slide: str
) -> None:
    readimc = pytest.importorskip("readimc")
    path = mcd(shared_data, slide)
    assert image_names(path)[:3] == ("ROI_001", "ROI_002", "ROI_003")
    with readimc.MCDFile(path) as file:
        for acquisition in file.slides[0].acquisitions:
            image = open_image(path, image=acquisition.description)
            pixels_equal(image, file.read_acquisition(acquisition))
            assert image.axes == "cyx"
            assert list(image.channel_names or ()) == acquisition.channel_labels
            metals = [channel["metal"] for channel in image.metadata["channels"]]
            assert metals == acquisition.channel_names
            assert image.metadata["acquisition"] == acquisition.metadata
            size = image.require_mpp()
            assert (size.y, size.x, size.source) == (1.0, 1.0, "metadata")


@pytest.mark.parametrize("slide", SLIDES)
def test_the_picture_of_the_slide_is_that_of_readimc(shared_data: Path, slide: str) -> None:
    readimc = pytest.importorskip("readimc")
    path = mcd(shared_data, slide)
    name = image_names(path)[-1]
    assert open_image(path, image=0).metadata["associated_images"] == [name]
    with readimc.MCDFile(path) as file:
        expected = file.read_panorama(file.slides[0].panoramas[0])
    found = open_image(path, image=name).level(0)[...]
    np.testing.assert_array_equal(np.moveaxis(found, 0, -1), expected[..., : len(found)])


def test_steinbock_wrote_the_same_pixels(shared_data: Path) -> None:
    # It cut hot pixels off: those that stand out by 50 counts from all their neighbours.
    around = np.ones((1, 3, 3), bool)
    around[0, 1, 1] = False
    for slide in SLIDES:
        for number, region in enumerate(image_names(mcd(shared_data, slide))[:3], start=1):
            ours = open_image(mcd(shared_data, slide), image=region).level(0)[...]
            highest = maximum_filter(ours, footprint=around, mode="mirror")
            expected = np.where(ours - highest > 50, highest, ours)
            theirs = open_image(shared_data / "imc/img" / f"{slide}_00{number}.tiff").level(0)[...]
            np.testing.assert_array_equal(theirs, expected)


def test_text_holds_the_mcds_counts_to_three_decimals(shared_data: Path) -> None:
    path = shared_data / "imc/raw" / f"{SLIDES[0]}_ROI_001_1.txt"
    image = open_image(path)
    region = open_image(mcd(shared_data, SLIDES[0]), image="ROI_001")
    np.testing.assert_allclose(image.level(0)[...], region.level(0)[...], atol=5e-4)
    assert image.channel_names == region.channel_names == LABELS
    assert image.metadata["channels"] == region.metadata["channels"]
    assert image.mpp is None


def test_text_is_what_readimc_reads(shared_data: Path, pixels_equal: Any) -> None:
    readimc = pytest.importorskip("readimc")
    path = shared_data / "imc/raw" / f"{SLIDES[0]}_ROI_001_1.txt"
    with readimc.TXTFile(path) as file:
        pixels_equal(open_image(path), file.read_acquisition())
        assert [c["metal"] for c in open_image(path).metadata["channels"]] == file.channel_names


def test_several_regions_are_not_guessed_at(shared_data: Path) -> None:
    path = mcd(shared_data, SLIDES[0])
    with pytest.raises(InvalidInputError, match=r"3 images.*'ROI_001', 'ROI_002', 'ROI_003'"):
        open_image(path)
    with pytest.raises(UnknownNameError, match="no image 'ROI_004'"):
        open_image(path, image="ROI_004")
    with pytest.raises(UnknownNameError, match="no image 9"):
        open_image(path, image=9)


# ---------------------------------------------------------------- files that the tests write


def schema(
    regions: list[tuple[str, int, int, int, int]], channels: list[str], distance: str = "0.5"
) -> str:
    parts: list[str] = []
    for number, (name, start, stop, height, width) in enumerate(regions):
        parts.append(
            f"<Acquisition><ID>{number}</ID><Description>{name}</Description>"
            f"<DataStartOffset>{start}</DataStartOffset><DataEndOffset>{stop}</DataEndOffset>"
            f"<MaxX>{width}</MaxX><MaxY>{height}</MaxY><ValueBytes>4</ValueBytes>"
            f"<AblationDistanceBetweenShotsX>{distance}</AblationDistanceBetweenShotsX>"
            f"<AblationDistanceBetweenShotsY>{distance}</AblationDistanceBetweenShotsY>"
            "<SegmentDataFormat>Float</SegmentDataFormat></Acquisition>"
        )
        # In no order: the number says where the data are.
        columns = list(enumerate(["X", "Y", "Z", *channels]))
        parts.extend(
            f"<AcquisitionChannel><ChannelName>{metal}</ChannelName><ChannelLabel></ChannelLabel>"
            f"<OrderNumber>{order}</OrderNumber><AcquisitionID>{number}</AcquisitionID>"
            "</AcquisitionChannel>"
            for order, metal in reversed(columns)
        )
    return (
        f'<MCDSchema xmlns="http://www.fluidigm.com/IMC/MCDSchema.xsd">{"".join(parts)}</MCDSchema>'
    )


def records(pixels: np.ndarray, order: np.ndarray) -> bytes:
    count, _, width = pixels.shape
    y, x = np.divmod(order, width)
    columns = [x, y, np.arange(len(order)), *pixels.reshape(count, -1)[:, order]]
    return np.stack(columns, axis=1).astype("<f4").tobytes()


def written(
    path: Path,
    pixels: np.ndarray,
    *,
    shuffled: bool = False,
    planned: tuple[int, int] | None = None,
    uncounted: int = 0,
    lost: int = 0,
) -> Path:
    _, height, width = pixels.shape
    order = np.arange(height * width)
    if shuffled:
        order = np.random.default_rng(1).permutation(order)
    data = records(pixels, order[: len(order) - lost])
    text = schema(
        [("one", 7, 7 + len(data) - uncounted, *(planned or (height, width)))],
        [f"M{i}" for i in range(len(pixels))],
    )
    path.write_bytes(b"1234567" + data + text.encode("utf-16-le"))
    return path


PIXELS = np.random.default_rng(4).gamma(0.5, 8, (4, 33, 21)).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [{}, {"shuffled": True}, {"planned": (400, 21)}, {"uncounted": 1}],
    ids=["in order", "in another order", "stopped early", "a byte not counted"],
)
def test_pixels_as_they_were_measured(
    tmp_path: Path, pixels_equal: Any, options: dict[str, Any]
) -> None:
    image = open_image(written(tmp_path / "a.mcd", PIXELS, **options))
    pixels_equal(image, PIXELS)
    assert image.channel_names == ("M0", "M1", "M2", "M3")
    assert image.require_mpp().y == 0.5


def test_many_threads_read_one_file(tmp_path: Path) -> None:
    image = open_image(written(tmp_path / "a.mcd", PIXELS, shuffled=True))
    rows = [(y, y + 3) for y in range(30)] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda y: image.read(0, y, (2, 19)), rows))
    for (y0, y1), part in zip(rows, found, strict=True):
        np.testing.assert_array_equal(part, PIXELS[:, y0:y1, 2:19])


def test_a_region_that_was_broken_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"one was broken off: 690 of 33 x 21 pixels"):
        open_image(written(tmp_path / "a.mcd", PIXELS, lost=3))


def test_a_pixel_measured_twice_is_no_picture(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mcd", PIXELS)
    data = bytearray(path.read_bytes())
    data[7:15] = data[7 + 28 : 15 + 28]  # x and y of the second, for the first
    path.write_bytes(data)
    with pytest.raises(FormatError, match="do not fill 33 x 21"):
        open_image(path).level(0)[...]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no MCD schema"),
        ("<MCDSchema>", "cut short within"),
        ("<MCDSchema><a></MCDSchema>", "cannot be read"),
        (
            '<MCDSchema><!DOCTYPE x [<!ENTITY e "eee">]>&e;</MCDSchema>',
            "cannot be read",
        ),
        (schema([("a", 0, 0, 2, 2)], ["M"]), "is empty"),
        (schema([("a", 0, 10**9, 2, 2)], ["M"]), "cut short"),
        (schema([("a", -5, 10, 2, 2)], ["M"]), "DataStartOffset of -5"),
        (schema([("a", "x", 10, 2, 2)], ["M"]), "no number DataStartOffset"),  # type: ignore[list-item]
        (schema([("a", 0, 64, 2, 2)], ["M"]).replace(">X<", ">Q<"), "begin with X, Y and Z"),
        (schema([("a", 0, 64, 2, 2)], ["M"]).replace(">4<", ">2<"), "values of 2 bytes"),
    ],
)
def test_damaged_schemas(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.mcd"
    path.write_bytes(b"\0" * 64 + text.encode("utf-16-le"))
    with pytest.raises(FormatError, match=words):
        open_image(path)


def test_a_distance_of_zero_is_no_pixel_size(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mcd", PIXELS)
    text = path.read_bytes().replace("0.5".encode("utf-16-le"), "0.0".encode("utf-16-le"))
    path.write_bytes(text)
    assert open_image(path).mpp is None


def text_file(path: Path, change: Callable[[list[str]], list[str]]) -> Path:
    lines = ["Start_push\tEnd_push\tPushes_duration\tX\tY\tZ\tDNA(Ir191Di)\tIr193(Ir193Di)"]
    lines += [f"1\t2\t1\t{i % 4}\t{i // 4}\t{i}\t{i}.5\t0.25" for i in range(12)]
    path.write_text("\n".join(change(lines)) + "\n")
    return path


def test_text_of_ones_own(tmp_path: Path) -> None:
    image = open_image(text_file(tmp_path / "a.txt", lambda lines: lines))
    np.testing.assert_array_equal(image.level(0)[0], np.arange(12).reshape(3, 4) + 0.5)
    assert image.channel_names == ("DNA", "Ir193")
    # The pixels of a line say where they are, not its number.
    turned = open_image(text_file(tmp_path / "b.txt", lambda lines: [lines[0], *lines[:0:-1]]))
    np.testing.assert_array_equal(turned.level(0)[...], image.level(0)[...])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:-1], r"11 of 3 x 4"),
        (lambda lines: lines[:1], "no place"),
        (lambda lines: [*lines[:-1], lines[-2]], "of 3 x 4"),
        (lambda lines: [*lines[:-1], "1\t2\t1\t3\t1e9\t1\t1\t1"], "no place along Y"),
        (lambda lines: [*lines[:-1], "1\t2\t1\t3\t9999999\t1\t1\t1"], "of 10000000 x 4"),
        (lambda lines: [*lines[:-1], "1\t2\t1\t3\t2\t1\t1"], "Expected 8 columns"),
        (lambda lines: [*lines[:-1], "1\t2\t1\t3\t2\t1\t1\tnan"], "no numbers"),
        (lambda lines: [*lines[:-1], "1\t2\t1\t3\t2\t1\t1\tx"], "invalid value"),
        (lambda lines: [lines[0].replace("\tX\t", "\tQ\t"), *lines[1:]], "its columns are"),
    ],
)
def test_damaged_text(tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        open_image(text_file(tmp_path / "a.txt", change))


@settings(max_examples=60)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), min_size=1, max_size=6),
    kept=st.floats(0.5, 1),
    whole=st.booleans(),
)
def test_damage_to_a_real_file_is_ours_to_tell(
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    read_or_refused: Any,
    flips: list[tuple[float, int]],
    kept: float,
    whole: bool,
) -> None:
    data = bytearray(mcd(shared_data, SLIDES[0]).read_bytes())
    schema_at = data.rfind("<MCDSchema".encode("utf-16-le"))
    for place, bit in flips:
        # Most of them where it hurts: in the schema.
        data[schema_at + int(place * (len(data) - schema_at - 1))] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "damaged.mcd"
    path.write_bytes(data if whole else data[: int(kept * len(data))])
    refusal = read_or_refused(path)
    assert not refusal or str(path) in refusal


def test_a_text_whose_names_are_no_text_is_refused(shared_data: Path, tmp_path: Path) -> None:
    data = bytearray((shared_data / "imc/raw" / f"{SLIDES[0]}_ROI_001_1.txt").read_bytes())
    data[data.index(b"(", 40)] = 0xFF
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(
        FormatError, match=r"a\.txt is a damaged IMC text file: its first line is no UTF-8"
    ):
        open_image(tmp_path / "a.txt")
