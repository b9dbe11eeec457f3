"""Zarr directories of several images: plates, series, SpatialData, and the labels of an image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.errors import FormatError, InvalidInputError, NotFoundError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.sources import image_names, open_image

zarr = pytest.importorskip("zarr")

RNG = np.random.default_rng(61)
FIELDS = ("A/1/0", "A/1/1", "B/3/0")


def image(path: Path, seed: int, **options: Any) -> np.ndarray:
    shape = (60, 70) if options.get("kind") == "labels" else (2, 60, 70)
    pixels = np.random.default_rng(seed).integers(0, 60000, shape, dtype=np.uint16)
    with MultiscaleImage.create(
        path, type="uint16", level_shape=shape, mpp=0.5, has_channel_axis=len(shape) == 3, **options
    ) as written:
        written.level(0)[...] = pixels
    return pixels


def group(path: Path, attributes: dict[str, Any], version: int) -> None:
    root = zarr.open_group(path, mode="a", zarr_format=version)
    root.attrs.update({"ome": {"version": "0.5", **attributes}} if version == 3 else attributes)


def plate(path: Path, version: int = 3) -> Path:
    """Describe a plate in the words of OME-Zarr 0.5 (Zarr v3) or 0.4 (v2)."""
    wells = [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}, {"path": "B/3"}]
    group(path, {"plate": {"name": "a plate", "wells": wells}}, version)
    for well, fields in (("A/1", ("0", "1")), ("B/3", ("0",))):
        group(path / well, {"well": {"images": [{"path": field} for field in fields]}}, version)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_the_fields_of_a_plate(tmp_path: Path, version: int, pixels_equal: Any) -> None:
    path = plate(tmp_path / "p.zarr", version)
    expected = {name: image(path / name, seed) for seed, name in enumerate(FIELDS)}
    assert image_names(path) == FIELDS
    for number, name in enumerate(FIELDS):
        pixels_equal(open_image(path, image=name), expected[name], windows=2)
        pixels_equal(open_image(path, image=number), expected[name], windows=2)
    with pytest.raises(
        InvalidInputError, match=r"holds 3 images; say which with --image \(image=\): 'A/1/0'"
    ):
        open_image(path)
    with pytest.raises(UnknownNameError, match="no image 'A/2/0'"):
        open_image(path, image="A/2/0")
    assert open_image(path, image="B/3/0", mpp=2).require_mpp().y == 2.0


@pytest.mark.parametrize("version", [2, 3])
def test_the_fields_of_a_well(tmp_path: Path, version: int, pixels_equal: Any) -> None:
    path = plate(tmp_path / "p.zarr", version)
    expected = {name: image(path / name, seed) for seed, name in enumerate(FIELDS)}
    assert image_names(path / "A/1") == ("0", "1")
    pixels_equal(open_image(path / "A/1", image="1"), expected["A/1/1"], windows=2)
    with pytest.raises(InvalidInputError, match=r"holds 2 images; .*: '0', '1'"):
        open_image(path / "A/1")
    pixels_equal(open_image(path / "B/3"), expected["B/3/0"], windows=2)


@pytest.mark.parametrize("how", ["root", "folder", "none"])
def test_a_zip_file_whose_image_is_not_at_its_root_says_where_it_is(
    tmp_path: Path, how: str, pixels_equal: Any
) -> None:
    pixels = image(tmp_path / "a.ome.zarr", 1)
    if how == "none":
        (tmp_path / "a.ome.zarr/zarr.json").parent.rename(tmp_path / "b")
        (tmp_path / "a.ome.zarr").mkdir()
        (tmp_path / "a.ome.zarr/notes.txt").write_text("of other things")
    base = "a.ome.zarr" if how == "folder" else None
    root = tmp_path if base else tmp_path / "a.ome.zarr"
    made = shutil.make_archive(str(tmp_path / "z"), "zip", root, base)
    if how == "root":
        pixels_equal(open_image(made), pixels, windows=2)
        return
    words = "in its folder 'a.ome.zarr'" if how == "folder" else "there is no zarr.json in it"
    with pytest.raises(FormatError, match=words):
        open_image(made)


@pytest.mark.slow
@pytest.mark.interop
def test_a_plate_that_ome_zarr_py_wrote(tmp_path: Path, pixels_equal: Any) -> None:
    writer = pytest.importorskip("ome_zarr.writer")
    root = zarr.open_group(tmp_path / "p.zarr", mode="w", zarr_format=3)
    writer.write_plate_metadata(root, ["A", "B"], ["1", "2", "3"], ["A/1", "B/3"])
    expected: dict[str, np.ndarray] = {}
    for name in FIELDS:
        row, column, field = name.split("/")
        well = root.require_group(row).require_group(column)
        fields = [f.rpartition("/")[2] for f in FIELDS if f.startswith(f"{row}/{column}")]
        writer.write_well_metadata(well, fields)
        expected[name] = RNG.integers(0, 255, (2, 64, 64), dtype=np.uint8)
        writer.write_image(expected[name], well.require_group(field), axes="cyx", scaler=None)
    assert image_names(tmp_path / "p.zarr") == FIELDS
    for name, pixels in expected.items():
        pixels_equal(open_image(tmp_path / "p.zarr", image=name), pixels, windows=2)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("version", [2, 3])
def test_what_bioformats2raw_writes(
    tmp_path: Path, named: bool, version: int, pixels_equal: Any
) -> None:
    path = tmp_path / "b.zarr"
    group(path, {"bioformats2raw.layout": 3}, version)
    if named:
        group(path / "OME", {"series": ["0", "1"]}, version)
    expected = [image(path / str(number), number) for number in range(2)]
    assert image_names(path) == ("0", "1")
    for number, pixels in enumerate(expected):
        pixels_equal(open_image(path, image=str(number)), pixels, windows=2)


def test_a_series_of_one_needs_no_saying(tmp_path: Path, pixels_equal: Any) -> None:
    path = tmp_path / "b.zarr"
    group(path, {"bioformats2raw.layout": 3}, 3)
    pixels = image(path / "0", 1)
    pixels_equal(open_image(path), pixels, windows=2)


def test_the_labels_of_an_image(tmp_path: Path, pixels_equal: Any) -> None:
    path = tmp_path / "a.ome.zarr"
    pixels = image(path, 1)
    group(path / "labels", {"labels": ["cells", "gone"]}, 3)
    cells = image(path / "labels/cells", 2, kind="labels")
    assert image_names(path) == (".", "labels/cells")
    pixels_equal(open_image(path), pixels, windows=2)
    pixels_equal(open_image(path, image="."), pixels, windows=2)
    found = open_image(path, image="labels/cells")
    pixels_equal(found, cells, windows=2)
    assert found.kind == "labels"


# ---------------------------------------------------------------- SpatialData


def element(path: Path, pixels: np.ndarray, transform: dict[str, Any], **more: Any) -> None:
    """Write an element as SpatialData 0.7.3 does."""
    axes = [{"name": a, "type": "channel" if a == "c" else "space"} for a in "cyx"[-pixels.ndim :]]
    unit = [{**axis, "unit": "unit"} for axis in axes]
    ends = {"input": {"name": "in", "axes": unit}, "output": {"name": "global", "axes": unit}}
    root = zarr.open_group(path, mode="w", zarr_format=3)
    levels = [pixels, pixels[..., ::2, ::2]]
    datasets = []
    for number, level in enumerate(levels):
        root.create_array(f"s{number}", data=level)
        scale = [1.0] * (pixels.ndim - 2) + [2.0**number] * 2
        moves = [{"type": "scale", "scale": scale}]
        datasets.append({"path": f"s{number}", "coordinateTransformations": moves})
    root.attrs.update(
        {
            "ome": {
                "version": "0.5-dev-spatialdata",
                "multiscales": [
                    {
                        "name": path.name,
                        "axes": axes,
                        "datasets": datasets,
                        "coordinateTransformations": [{**transform, **ends}],
                    }
                ],
                **more,
            },
            "spatialdata_attrs": {"version": "0.3"},
        }
    )


PIXELS = RNG.integers(0, 60000, (3, 64, 80), dtype=np.uint16)


@pytest.fixture
def spatialdata(tmp_path: Path) -> Path:
    path = tmp_path / "s.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs["spatialdata_attrs"] = {"version": "0.2"}
    channels = {"channels": [{"label": "DNA"}, {"label": "CD3"}, {"label": 2}]}
    turned = [[1, 0, 0, 0], [0, 0, 1, 3], [0, 1, 0, 4]]
    element(path / "images/raw", PIXELS, {"type": "scale", "scale": [1, 0.5, 0.5]}, omero=channels)
    element(path / "images/turned", PIXELS, {"type": "affine", "affine": turned})
    element(path / "labels/cells", PIXELS[0], {"type": "identity"}, **{"image-label": {}})
    return path


def test_the_elements_of_spatialdata(spatialdata: Path, pixels_equal: Any) -> None:
    assert image_names(spatialdata) == ("images/raw", "images/turned", "labels/cells")
    for name, expected in (("raw", PIXELS), ("turned", PIXELS)):
        for found in (
            open_image(spatialdata, image=f"images/{name}"),
            open_image(spatialdata / "images" / name),
        ):
            pixels_equal(found, expected, windows=2)
            pixels_equal(found, expected[..., ::2, ::2], level=1, windows=2)
            assert found.mpp is None, "its transforms are in no unit"
            assert found.name == name
    names = open_image(spatialdata, image="images/raw").channel_names
    assert names == ("DNA", "CD3", "2")
    cells = open_image(spatialdata, image="labels/cells", mpp=0.5)
    pixels_equal(cells, PIXELS[0], windows=2)
    assert cells.kind == "labels"
    assert cells.level_mpp(1).y == 1.0
    with pytest.raises(InvalidInputError, match="holds 3 images"):
        open_image(spatialdata)


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # SpatialData's own, of what it calls
def test_a_store_that_spatialdata_wrote(tmp_path: Path, pixels_equal: Any) -> None:
    library = pytest.importorskip("spatialdata", exc_type=ImportError)
    from spatialdata.models import Image2DModel, Labels2DModel
    from spatialdata.transformations import Affine

    turn = Affine([[0, 1, 3], [1, 0, 4], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    raw = Image2DModel.parse(PIXELS, dims=("c", "y", "x"), transformations={"global": turn})
    cells = Labels2DModel.parse(PIXELS[0].astype(np.uint32), dims=("y", "x"))
    path = tmp_path / "s.zarr"
    library.SpatialData(images={"raw": raw}, labels={"cells": cells}).write(path)
    assert image_names(path) == ("images/raw", "labels/cells")
    pixels_equal(open_image(path, image="images/raw"), PIXELS, windows=2)
    labels = open_image(path, image="labels/cells")
    pixels_equal(labels, PIXELS[0].astype(np.uint32), windows=2)
    assert labels.kind == "labels"


# ---------------------------------------------------------------- damaged and hostile


@pytest.mark.parametrize("place", ["../out", "/etc", "A/../../out", ".", "A\\1", ""])
def test_no_image_outside_is_opened(tmp_path: Path, place: str) -> None:
    image(tmp_path / "out", 1)
    path = tmp_path / "p.zarr"
    group(path, {"plate": {"wells": [{"path": place}]}}, 3)
    with pytest.raises(FormatError, match="do not lie in it"):
        image_names(path)
    group(path / "A/1", {"well": {"images": [{"path": place}]}}, 3)
    group(path, {"plate": {"wells": [{"path": "A/1"}]}}, 3)
    with pytest.raises(FormatError, match="do not lie in it"):
        open_image(path)


@pytest.mark.parametrize(
    "plates", [{"wells": [{}]}, {}, [], None, {"wells": 3}, {"wells": [{"path": "A/1"}]}]
)
def test_plates_that_are_none(tmp_path: Path, plates: Any) -> None:
    path = tmp_path / "p.zarr"
    group(path, {"plate": plates}, 3)
    with pytest.raises((FormatError, NotFoundError), match=r"p\.zarr"):
        open_image(path)


def test_a_group_that_holds_nothing(tmp_path: Path) -> None:
    group(tmp_path / "g.zarr", {"of": "nothing"}, 3)
    with pytest.raises(FormatError, match="no OME-Zarr image"):
        open_image(tmp_path / "g.zarr")
    with pytest.raises(FormatError, match="holds none"):
        image_names(tmp_path / "g.zarr")


def test_an_element_whose_levels_do_not_fit(spatialdata: Path) -> None:
    document = spatialdata / "images/turned/zarr.json"
    text = json.loads(document.read_text())
    axes = text["attributes"]["ome"]["multiscales"][0]["axes"]
    del axes[0]
    document.write_text(json.dumps(text))
    with pytest.raises(FormatError):
        open_image(spatialdata, image="images/turned")


# ---------------------------------------------------------------- what several libraries read


def by_ome_zarr_py(path: Path, version: str, pixels: np.ndarray) -> None:
    writer = pytest.importorskip("ome_zarr.writer")
    form = pytest.importorskip("ome_zarr.format").format_from_version(version)
    root = zarr.open_group(path, mode="w", zarr_format=form.zarr_format)
    writer.write_image(pixels, root, axes="cyx", scale_factors=(2, 4), fmt=form)


def by_ngff_zarr(path: Path, version: str, pixels: Any) -> None:
    ngff_zarr: Any = pytest.importorskip("ngff_zarr")
    image = ngff_zarr.to_ngff_image(pixels, dims=("c", "y", "x"))
    levels = ngff_zarr.to_multiscales(image, scale_factors=[2, 4], chunks=64)
    ngff_zarr.to_ngff_zarr(str(path), levels, version=version)


@pytest.mark.slow
@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("write", "version"),
    [
        *((by_ome_zarr_py, version) for version in ("0.4", "0.5")),
        *((by_ngff_zarr, version) for version in ("0.4", "0.5", "0.6")),
    ],
)
def test_zarr_python_and_ome_zarr_py_read_the_same(
    tmp_path: Path, write: Any, version: str, pixels_equal: Any
) -> None:
    path = tmp_path / "a.ome.zarr"
    pixels = RNG.integers(0, 5000, (3, 203, 150), dtype=np.uint16)
    write(path, version, pixels)
    image = open_image(path)
    assert image.level_count == 3
    np.testing.assert_array_equal(image.level(0)[...], pixels)
    for number in range(3):
        array = zarr.open_array(path / image.level(number).path, mode="r")
        pixels_equal(image, np.asarray(array[...]), level=number, windows=3)
    if version != "0.6":  # which ome-zarr-py does not read
        reader, io = (pytest.importorskip(f"ome_zarr.{name}") for name in ("reader", "io"))
        (node,) = reader.Reader(io.parse_url(str(path), mode="r"))()
        for number, theirs in enumerate(node.data):
            pixels_equal(image, np.asarray(theirs), level=number, windows=1)
