"""Images on disk, ours and of other writers: opened, read, and never written."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest

from microtome.coordinates import Mpp
from microtome.errors import (
    FormatError,
    InvalidInputError,
    NoResolutionError,
    NotFoundError,
    OutOfRangeError,
    UnknownNameError,
)
from microtome.image import MultiscaleImage, halve_mean
from microtome.storage import Layout, create_array, read_group, write_group

pytestmark = pytest.mark.interop


def noise(shape, dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def level(path, *numbers):
    return {"path": path, "coordinateTransformations": [{"type": "scale", "scale": list(numbers)}]}


def axes_of(names, unit="micrometer"):
    types = {"t": "time", "c": "channel"}
    entries = [{"name": n, "type": types.get(n, "space")} for n in names]
    return [e | ({"unit": unit} if unit and e["type"] == "space" else {}) for e in entries]


def foreign(folder, arrays, names, version="0.5", unit="micrometer", size=0.5, ome=None, **options):
    """An image as zarr-python writes it."""
    import zarr

    zarr_format = 2 if version == "0.4" else 3
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    entries = []
    for k, array in enumerate(arrays):
        chunks = tuple(min(7, n) for n in array.shape)
        stored = group.create_array(
            f"s{k}", shape=array.shape, dtype=array.dtype, chunks=chunks, **options
        )
        stored[...] = array
        entries.append(level(f"s{k}", *[1.0] * (len(names) - 2), size * 2**k, size * 2**k))
    document = {"axes": axes_of(names, unit), "datasets": entries, "name": "theirs"}
    if version == "0.4":
        group.attrs.update({"multiscales": [{"version": "0.4", **document}], **(ome or {})})
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [document], **(ome or {})}
    return folder


# ------------------------------------------------------------------ other writers


@pytest.mark.parametrize(
    ("version", "dtype"),
    [
        ("0.4", ">u2"),  # Zarr v3 has no byte order in its types
        *itertools.product(["0.4", "0.5"], ["uint16", "float32", "bool", "int8"]),
    ],
)
def test_an_image_of_another_writer(tmp_path, version, dtype):
    base = noise((3, 21, 17), dtype)
    levels = [base, base[:, ::2, ::2]]
    names = {"omero": {"channels": [{"label": n} for n in ("a", "b", "c/d")]}}
    image = MultiscaleImage.open(foreign(tmp_path / "a", levels, "cyx", version, ome=names))
    assert image.mpp == Mpp(0.5, 0.5, "metadata")
    assert image.channel_names == ("a", "b", "c/d")
    assert (image.name, image.kind, image.axes) == ("theirs", "intensity", "cyx")
    assert list(image) == ["level0", "level1"]
    assert image.levels() == {
        "level0": (f"{tmp_path / 'a'}/s0", (3, 21, 17)),
        "level1": (f"{tmp_path / 'a'}/s1", (3, 11, 9)),
    }
    assert image.dtype == np.dtype(dtype).newbyteorder("=")
    for k, stored in enumerate(levels):
        np.testing.assert_array_equal(image.level(k)[...], stored)
    np.testing.assert_array_equal(
        image.read(0, (3, 9), (1, 17), channels="c/d"), base[2:, 3:9, 1:17]
    )
    assert image.read_at(mpp=0.7).dtype == image.dtype


@pytest.mark.parametrize("separator", [".", "/"])
def test_chunks_in_folders_or_not(tmp_path, separator):
    base = noise((21, 17))
    key = {"chunk_key_encoding": {"name": "v2", "separator": separator}}
    image = MultiscaleImage.open(foreign(tmp_path / "a", [base], "yx", "0.4", **key))
    np.testing.assert_array_equal(image["level0"][...], base)
    assert image.channel_names is None


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_with_time_and_depth(tmp_path, version):
    base = noise((2, 3, 4, 9, 8), "uint8")
    image = MultiscaleImage.open(foreign(tmp_path / "a", [base], "tczyx", version))
    assert image.channel_names == ("channel 0", "channel 1", "channel 2")
    assert image.nchannels == 3
    np.testing.assert_array_equal(
        image.read(0, (1, 4), (2, 8), channels=[2, 0]), base[:, [2, 0], :, 1:4, 2:8]
    )
    np.testing.assert_array_equal(image.read_at(mpp=1.0), halve_mean(base))


def test_an_image_of_version_0_6(tmp_path):
    base = noise((3, 21, 17))
    folder = foreign(tmp_path / "a", [base, halve_mean(base)], "cyx", "0.6")
    document = json.loads((folder / "zarr.json").read_text())
    (multiscale,) = document["attributes"]["ome"]["multiscales"]
    physical = [
        {**axis, **({"unit": "nanometer"} if "unit" in axis else {})}
        for axis in multiscale.pop("axes")
    ]
    multiscale["coordinateSystems"] = [
        {"name": "physical", "axes": physical},
        {"name": "stage", "axes": axes_of("cyx", "millimeter")},
    ]
    multiscale["coordinateTransformations"] = [
        {
            "type": "translation", "translation": [0, 30, 40],
            "input": {"name": "physical"}, "output": {"name": "stage"},
        }
    ]  # fmt: skip
    for k, entry in enumerate(multiscale["datasets"]):
        ends = {"input": {"path": entry["path"]}, "output": {"name": "physical"}}
        steps = [
            {"type": "scale", "scale": [1, 499 * 2**k, 251 * 2**k]},
            {"type": "translation", "translation": [0, 499 * (2**k - 1) / 2, 251 * (2**k - 1) / 2]},
        ]
        entry["coordinateTransformations"] = [
            {"type": "sequence", "transformations": steps, **ends}
        ]
    (folder / "zarr.json").write_text(json.dumps(document))

    image = MultiscaleImage.open(folder)
    assert image.mpp.y == pytest.approx(0.499, rel=1e-15)
    assert image.mpp.x == pytest.approx(0.251, rel=1e-15)
    assert image.level(1).translation == pytest.approx((0, 0.2495, 0.1255), rel=1e-12)
    assert image.get_transform_from_level(1).scale_factors == pytest.approx((2, 2))
    np.testing.assert_array_equal(image["level1"][...], halve_mean(base))


@pytest.mark.parametrize(
    ("unit", "size", "mpp"),
    [("nanometer", 499.0, 0.499), ("millimeter", 0.0005, 0.5), ("micrometer", 0.25, 0.25)],
)
def test_units_are_converted(tmp_path, unit, size, mpp):
    image = MultiscaleImage.open(
        foreign(tmp_path / "a", [noise((9, 9))], "yx", unit=unit, size=size)
    )
    assert image.mpp.y == pytest.approx(mpp, rel=1e-15)
    assert image.level_mpp(0).x == pytest.approx(mpp, rel=1e-15)


def test_without_a_unit_there_is_no_pixel_size_but_there_are_pixels(tmp_path):
    base = noise((9, 9))
    image = MultiscaleImage.open(foreign(tmp_path / "a", [base, halve_mean(base)], "yx", unit=None))
    assert image.mpp is None
    with pytest.raises(
        NoResolutionError,
        match=r"a does not state its pixel size.*open_image\(\.\.\., mpp=\), or with --mpp",
    ):
        image.require_mpp()
    with pytest.raises(NoResolutionError, match="--mpp"):
        image.read_at(mpp=1.0)
    np.testing.assert_array_equal(
        image.read_spatial_region(1, (2, 2, 9, 9)).data, halve_mean(base)[1:, 1:]
    )


def test_an_impossible_pixel_size_names_the_image(tmp_path):
    folder = foreign(tmp_path / "a", [noise((9, 9))], "yx", unit="meter", size=1.0)
    with pytest.raises(NoResolutionError, match=rf"{folder}: .*--mpp"):
        MultiscaleImage.open(folder)


def test_labels_inside_an_image(tmp_path):
    foreign(tmp_path / "a", [noise((9, 9))], "yx")
    labels = foreign(
        tmp_path / "a" / "labels" / "cells",
        [noise((9, 9), "uint32")],
        "yx",
        ome={"image-label": {}},
    )
    image = MultiscaleImage.open(labels)
    assert image.kind == "labels"
    # Centres of pixels twice as large lie on the edge to the second pixel; the last has only one.
    expected = noise((9, 9), "uint32")[np.ix_([1, 3, 5, 7, 8], [1, 3, 5, 7, 8])]
    np.testing.assert_array_equal(image.read_at(mpp=1.0), expected)


# ------------------------------------------------------------------ ours


def test_an_image_that_we_wrote(written):
    path, pixels = written
    image = MultiscaleImage.open(str(path))
    assert (image.uri, image.name, image.mode, image.closed) == (str(path), "written", "r", False)
    assert image.mpp == Mpp(0.5, 0.5, "user")
    assert image.channel_names == ("DNA", "CD3", "CD8")
    assert image.data_axis_order == ("c", "y", "x")
    assert image.coordinate_space.axis_names == ("x", "y")
    assert [image.level_shape(i) for i in range(3)] == [(3, 29, 21), (3, 15, 11), (3, 8, 6)]
    assert image.level_uri(-1) == f"{path}/2"
    np.testing.assert_array_equal(image["level0"][...], pixels)
    np.testing.assert_array_equal(image["level2"][...], halve_mean(halve_mean(pixels)))
    assert repr(image) == f"MultiscaleImage({str(path)!r}, (3, 29, 21) uint16, 3 levels)"


def test_an_image_is_a_mapping_of_its_levels(written):
    image = MultiscaleImage.open(written[0])
    assert list(image) == ["level0", "level1", "level2"]
    assert len(image) == 3
    assert "level1" in image
    for key in ("level3", 0, 7, None, ("level0",)):
        assert key not in image
    assert image.get("level3") is None
    assert [level.height for level in image.values()] == [29, 15, 8]
    assert dict(image.items())["level1"].width == 11
    with pytest.raises(UnknownNameError, match="no level 'level3', only"):
        image["level3"]
    with pytest.raises(KeyError):
        image["level3"]
    for number in (3, -4):
        with pytest.raises(OutOfRangeError):
            image.level(number)


def test_an_image_is_equal_to_itself_only(written):
    # Mapping would compare levels; two handles of one file are two handles.
    one, other = MultiscaleImage.open(written[0]), MultiscaleImage.open(written[0])
    assert one == one  # noqa: PLR0124
    assert one != other
    assert len({one, other}) == 2


def test_a_name_with_slashes_and_an_odd_path(tmp_path):
    path = tmp_path / "a b#1%" / "x.ome.zarr"
    with MultiscaleImage.create(
        path,
        type="uint8",
        level_shape=(2, 9, 9),
        mpp=1.0,
        channel_names=["a/b", "c\\d μ"],
        name="x/y",
    ) as image:
        image["level0"][...] = noise((2, 9, 9), "uint8")
    again = MultiscaleImage.open(path)
    assert (again.name, again.channel_names) == ("x/y", ("a/b", "c\\d μ"))
    np.testing.assert_array_equal(
        again.read(0, (0, 9), (0, 9), channels="c\\d μ"), noise((2, 9, 9), "uint8")[1:]
    )


def test_reading_never_writes(written, fingerprint):
    path, _ = written
    before = fingerprint(path.parent)
    for _ in range(2):
        with MultiscaleImage.open(path) as image:
            image["level0"][...]
            image["level1"][0, 2:5]
            image.read(0, (0, 5), (0, 5), channels=[2, 0])
            image.read_spatial_region(1, (2.5, 3, 9, 10), channel_coords="CD3")
            image.read_at(mpp=0.7)
            image.read_at(mpp=3.0, region=(0, 0, 5, 5))
            image.level(2).array.read_into(
                ((0, 3), (0, 8), (0, 6)), np.empty((3, 8, 6), np.uint16)
            ).result()
            list(image.items())
            image.levels()
            str(image)
        MultiscaleImage.exists(path)
        image.close()
    assert fingerprint(path.parent) == before


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_reading_never_writes_to_what_others_wrote(tmp_path, fingerprint, version):
    folder = foreign(tmp_path / "a", [noise((9, 9))], "yx", version)
    before = fingerprint(tmp_path)
    with MultiscaleImage.open(folder) as image:
        image["level0"][...]
        image.read_at(mpp=0.7)
    assert fingerprint(tmp_path) == before


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("mode", ["r+", "a", "rw", "", None])
def test_other_modes_are_refused(written, mode):
    with pytest.raises(InvalidInputError, match="use create"):
        MultiscaleImage.open(written[0], mode)


def test_nothing_there(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("gone", "file", "."):
        with pytest.raises(NotFoundError, match=str(tmp_path)):
            MultiscaleImage.open(tmp_path / name)
        assert not MultiscaleImage.exists(tmp_path / name)


def test_exists(written, tmp_path):
    assert MultiscaleImage.exists(written[0])
    assert MultiscaleImage.exists(str(written[0]))
    assert not MultiscaleImage.exists(written[0] / "0")  # an array
    write_group(tmp_path / "plate", {"plate": {}})
    assert not MultiscaleImage.exists(tmp_path / "plate")
    (tmp_path / "plate" / "zarr.json").write_text("{")
    assert not MultiscaleImage.exists(tmp_path / "plate")


def edit(path, change):
    attributes = read_group(path)
    change(attributes["ome"]["multiscales"][0], attributes)
    write_group(path, attributes)


def forget_copies(path):
    """Take out the copies of the arrays' metadata, which others do not write."""
    edit(path, lambda _, attributes: attributes["microtome"].pop("arrays", None))


def test_levels_that_are_not_of_one_image(written):
    path, _ = written
    forget_copies(path)
    shapes = {"1": ((3, 15, 11), "uint8"), "2": ((2, 8, 6), "uint16")}
    for name, (shape, dtype) in shapes.items():
        copy = path.with_name(f"copy{name}")
        shutil.copytree(path, copy)
        shutil.rmtree(copy / name)
        create_array(
            copy / name, shape=shape, dtype=dtype, layout=Layout((1, 8, 8), None), axes="cyx"
        )
        with pytest.raises(FormatError, match=f"level '{name}' holds .* not levels of one image"):
            MultiscaleImage.open(copy)


def test_axes_that_do_not_fit_the_array(written):
    path, _ = written

    def drop(multiscale, attributes):
        del attributes["ome"]["omero"]
        del multiscale["axes"][0]
        for entry in multiscale["datasets"]:
            for transform in entry["coordinateTransformations"]:
                del transform[transform["type"]][0]

    edit(path, drop)
    with pytest.raises(FormatError, match=r"has shape \(3, 29, 21\) but axes 'yx'"):
        MultiscaleImage.open(path)


def test_channel_names_that_do_not_fit_the_array(written):
    path, _ = written
    edit(path, lambda _, attributes: attributes["ome"]["omero"]["channels"].pop())
    with pytest.raises(FormatError, match=r"names 2 channels \('DNA', 'CD3'\), but holds 3"):
        MultiscaleImage.open(path)


def test_a_level_that_is_not_there(written):
    path, _ = written
    shutil.rmtree(path / "1")
    # One read opens an image, so that its arrays are found out when they are read: never zeros.
    image = MultiscaleImage.open(path)
    for read in (lambda: image["level1"][...], lambda: image.read_spatial_region(1)):
        with pytest.raises(NotFoundError, match=f"{path}/1"):
            read()
    forget_copies(path)
    with pytest.raises(NotFoundError, match=f"{path}/1"):
        MultiscaleImage.open(path)


def test_a_level_that_was_changed_by_others(written):
    path, _ = written
    shutil.rmtree(path / "1")
    create_array(
        path / "1", shape=(3, 15, 11), dtype="uint8", layout=Layout((1, 8, 8), None), axes="cyx"
    )
    image = MultiscaleImage.open(path)
    with pytest.raises(FormatError, match=r"holds \(3, 15, 11\) uint8, but was announced as"):
        image["level1"][...]


@pytest.mark.parametrize(
    "ours",
    [None, [], "x", {}, {"level_keys": None}, {"level_keys": ["a"]}, {"level_keys": ["a", "a", "b"]},
     {"mpp_source": "hearsay"}, {"mpp_source": None}, {"mpp_source": ["x"]}],
    ids=repr,
)  # fmt: skip
def test_our_own_notes_are_not_relied_on(written, ours):
    path, _ = written
    edit(path, lambda _, attributes: attributes.update(microtome=ours))
    image = MultiscaleImage.open(path)
    assert list(image) == ["level0", "level1", "level2"]
    assert image.mpp == Mpp(0.5, 0.5, "metadata")


def test_a_damaged_chunk_names_the_level_and_the_rest_is_read(written):
    path, pixels = written
    file = path / "0" / "c" / "0" / "1" / "0"
    file.write_bytes(file.read_bytes()[:-20])
    image = MultiscaleImage.open(path)
    with pytest.raises(FormatError, match=f"{path}/0 is damaged"):
        image.read(0, (0, 29), (0, 21))
    np.testing.assert_array_equal(image.read(0, (0, 16), (0, 21)), pixels[:, :16])
