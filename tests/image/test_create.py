"""Writing an image: exact transforms, a pyramid by the rule, and nothing when something fails."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.coordinates import Mpp
from microtome.errors import (
    ExistsError,
    InvalidInputError,
    ModeError,
    NoResolutionError,
    StorageError,
)
from microtome.image import MultiscaleImage, begin_image, halve_labels, halve_mean, pyramid_shapes
from microtome.storage import Layout, image_layout, label_layout, read_group


def noise(shape, dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def create(path, pixels, *, levels=True, **options):
    arguments = {"type": pixels.dtype, "level_shape": pixels.shape, "mpp": 0.5, **options}
    with MultiscaleImage.create(path, **arguments) as image:
        image["level0"][...] = pixels
        if levels:
            image.build_levels()
    return MultiscaleImage.open(path)


# ------------------------------------------------------------------ what is written


@settings(max_examples=25)
@given(data=st.data())
def test_every_level_is_the_rule_applied_to_the_one_before(tmp_path_factory, data):
    axes = data.draw(st.sampled_from(["yx", "cyx", "zyx", "czyx", "tczyx"]))
    shape = [data.draw(st.integers(1, 3)) for _ in axes[:-2]]
    shape += [data.draw(st.integers(1, 40)) for _ in "yx"]
    kind = data.draw(st.sampled_from(["intensity", "labels"]))
    dtype = data.draw(
        st.sampled_from(["uint8", "int16", "uint32"] + ["float32"] * (kind == "intensity"))
    )
    pixels = noise(shape, dtype) // (60 if kind == "labels" else 1)
    chunk = data.draw(st.sampled_from([3, 4, 8]))
    # Shards of a few chunks, so that levels are written in several blocks that end anywhere.
    layout = Layout(
        (*[1] * (len(axes) - 2), chunk, chunk), (*[2] * (len(axes) - 2), 2 * chunk, 2 * chunk)
    )
    path = tmp_path_factory.mktemp("rule") / "a.ome.zarr"
    image = create(
        path, pixels.astype(dtype), data_axis_order=axes, has_channel_axis="c" in axes,
        kind=kind, layout=layout,
    )  # fmt: skip
    assert image.axes == axes
    assert [image.level_shape(i) for i in range(len(image))] == pyramid_shapes(shape, chunk)
    halve = halve_labels if kind == "labels" else halve_mean
    expected = pixels.astype(dtype)
    for level in image.values():
        assert level.dtype == dtype
        np.testing.assert_array_equal(level[...], expected)
        expected = halve(expected)


@pytest.mark.parametrize(
    ("mpp", "translation"),
    [(0.5, (0.0, 0.0)), ((0.499, 0.3), (12.25, -7.5)), (0.1, (1e5 / 3, 1e-7))],
)
def test_scale_and_translation_are_exact(tmp_path, small_layout, mpp, translation):
    image = create(
        tmp_path / "a", noise((3, 61, 130)), mpp=mpp, translation=translation, layout=small_layout
    )
    y, x = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    multiscale = read_group(tmp_path / "a")["ome"]["multiscales"][0]
    assert len(multiscale["datasets"]) == 6
    for k, entry in enumerate(multiscale["datasets"]):
        scale, shift = entry["coordinateTransformations"]
        # Powers of two: exact to the last bit, and so is what is read back.
        assert scale == {"type": "scale", "scale": [1.0, y * 2**k, x * 2**k]}
        expected = [0.0, translation[0] + y * (2**k - 1) / 2, translation[1] + x * (2**k - 1) / 2]
        assert shift == {"type": "translation", "translation": expected}
        assert entry["path"] == str(k)
        level = image.level(k)
        assert (level.scale, level.translation) == ((1.0, y * 2**k, x * 2**k), tuple(expected))
        assert image.level_mpp(k) == Mpp(y * 2**k, x * 2**k, "user")
        assert image.get_transform_from_level(k).scale_factors == (2**k, 2**k)


def test_pixels_of_all_levels_lie_on_each_other(tmp_path, small_layout):
    # A landmark of one block of 8 x 8: on every level the same place in micrometres, by its centre.
    pixels = np.zeros((1, 64, 64), np.float32)
    pixels[0, 24:32, 40:48] = 1
    image = create(tmp_path / "a", pixels, mpp=0.3, layout=small_layout)
    places = []
    for level in image.values():
        plane = level[0]
        rows, columns = np.nonzero(plane)
        places.append(
            (
                rows.mean() * level.scale[1] + level.translation[1],
                columns.mean() * level.scale[2] + level.translation[2],
            )
        )
    np.testing.assert_allclose(places, [(27.5 * 0.3, 43.5 * 0.3)] * 4, rtol=1e-12)


@pytest.mark.interop
@pytest.mark.parametrize(
    ("axes", "options"),
    [
        ("yx", {}),
        ("cyx", {}),
        ("cyx", {"rgb": True}),
        ("czyx", {}),
        ("tczyx", {}),
        ("yx", {"kind": "labels"}),
    ],
    ids=str,
)
def test_other_readers_agree(tmp_path, axes, options):
    import zarr
    from ome_zarr_models.v05 import Image, ImageLabel

    shape = (2, 3, 4, 300, 170)[-len(axes) :] if axes != "cyx" else (3, 300, 170)
    pixels = noise(shape, "uint8")
    path = tmp_path / "a.ome.zarr"
    ours = create(path, pixels, data_axis_order=axes, has_channel_axis="c" in axes, **options)
    group = zarr.open_group(path, mode="r")
    model = ImageLabel if options.get("kind") else Image
    ome = model.from_zarr(group).ome_attributes
    assert ome.version == "0.5"
    (multiscale,) = ome.multiscales
    assert "".join(axis.name for axis in multiscale.axes) == axes
    for k, entry in enumerate(multiscale.datasets):
        theirs = group[entry.path]
        assert "".join(theirs.metadata.dimension_names) == axes
        np.testing.assert_array_equal(theirs[...], ours.level(k)[...])
        assert tuple(entry.coordinateTransformations[0].scale) == ours.level(k).scale
    assert theirs.shape[-2:] == (ours.level(-1).height, ours.level(-1).width)
    # No array or group besides the levels.
    assert sorted(group.array_keys()) == [entry.path for entry in multiscale.datasets]
    assert list(group.group_keys()) == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("intensity", image_layout("cyx", (3, 40, 40))), ("labels", label_layout("cyx", (3, 40, 40)))],
)
def test_the_layout_is_that_of_the_kind(tmp_path, kind, expected):
    image = create(tmp_path / "a", noise((3, 3000, 140), "uint8"), kind=kind)
    array = image["level0"].array
    assert array.chunks == expected.chunk
    assert array.shards == expected.fitted((3, 3000, 140)).shard
    # A slide is tens of files, not thousands.
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) < 30


def test_defaults(tmp_path):
    image = create(tmp_path / "liver.2.ome.zarr", noise((2, 9, 9)))
    assert image.name == "liver"
    assert image.channel_names == ("channel 0", "channel 1")
    assert image.kind == "intensity"
    plain = create(tmp_path / "b", noise((9, 9)), has_channel_axis=False)
    assert (plain.axes, plain.channel_names, plain.nchannels) == ("yx", None, 1)


def test_names_sources_and_further_attributes_come_back(tmp_path):
    attributes = {"study": {"ids": [1, 2], "text": "µ"}, "microtome": {"provenance": "test"}}
    with MultiscaleImage.create(
        tmp_path / "a",
        type="uint16",
        level_shape=(2, 9, 9),
        level_key="full",
        mpp=Mpp(0.5, 0.25, "tag"),
        channel_names=["DNA", 7],
        name="a slide",
        metadata=attributes,
    ) as image:
        image["full"][...] = noise((2, 9, 9))
        image.metadata["added"] = True
    again = MultiscaleImage.open(tmp_path / "a")
    assert again.mpp == Mpp(0.5, 0.25, "tag")
    assert list(again) == ["full"]
    assert again.channel_names == ("DNA", "7")
    assert again.name == "a slide"
    assert again.metadata["study"] == attributes["study"]
    assert again.metadata["added"] is True
    assert again.metadata["microtome"]["provenance"] == "test"
    # What an image says about itself may be handed to the next.
    copy = create(tmp_path / "b", noise((2, 9, 9)), metadata=again.metadata, mpp=2.0)
    assert copy.mpp == Mpp(2.0, 2.0, "user")
    assert copy.metadata["microtome"]["level_keys"] == ["level0"]


@pytest.mark.parametrize(
    ("pixels", "windows"),
    [
        (np.full((2, 9, 9), 7, np.uint8), [(0, 255)] * 2),
        (
            np.stack([np.full((9, 9), 7), np.full((9, 9), 900)]).astype(np.uint16),
            [(0, 7), (0, 900)],
        ),
        (np.zeros((1, 9, 9), np.uint16), [(0, 1)]),
        (np.full((1, 9, 9), -5, np.int16), [(-5, -4)]),
        (np.array([[[-2.5, np.nan], [np.inf, 3.5]]], np.float32), [(-2.5, 3.5)]),
        (np.full((1, 2, 2), np.nan, np.float32), [(0, 1)]),
    ],
)
def test_display_windows(tmp_path, pixels, windows):
    create(tmp_path / "a", pixels)
    channels = read_group(tmp_path / "a")["ome"]["omero"]["channels"]
    assert [(c["window"]["start"], c["window"]["end"]) for c in channels] == windows
    assert [(c["window"]["min"], c["window"]["max"]) for c in channels] == windows


def test_display_windows_without_a_pyramid_are_read_in_parts(tmp_path, monkeypatch, small_layout):
    # Without coarser levels the only one is the slide itself, which does not fit into memory.
    pixels = noise((5, 70, 50))
    pixels[3, 69, 49] = 60000
    image = MultiscaleImage.create(
        tmp_path / "a", type="uint16", level_shape=pixels.shape, mpp=1.0,
        layout=Layout((1, 8, 8), (2, 16, 16)),
    )  # fmt: skip
    image["level0"][...] = pixels
    array = image["level0"].array
    read, sizes = array.read, []
    monkeypatch.setattr(
        array, "read", lambda box: sizes.append([b - a for a, b in box]) or read(box)
    )
    image.close()
    assert sizes
    assert all(c <= 2 and y <= 16 and x <= 16 for c, y, x in sizes)
    channels = read_group(tmp_path / "a")["ome"]["omero"]["channels"]
    assert [c["window"]["end"] for c in channels] == [pixels[i].max() for i in range(5)]


def test_progress_counts_every_block(tmp_path, small_layout):
    calls = []
    with MultiscaleImage.create(
        tmp_path / "a", type="uint16", level_shape=(3, 61, 50), mpp=1.0, layout=small_layout
    ) as image:
        image.build_levels(progress=lambda *call: calls.append(call))
    # Levels of 31 x 25, 16 x 13 and 8 x 7 pixels in shards of 16 x 16.
    assert calls == [("pyramid", done, 6) for done in range(1, 7)]


# ------------------------------------------------------------------ when it appears


def test_an_image_appears_when_it_is_closed(tmp_path):
    path = tmp_path / "a"
    image = MultiscaleImage.create(path, type="uint8", level_shape=(1, 9, 9), mpp=1.0)
    assert (image.mode, image.closed) == ("w", False)
    assert not path.exists()
    assert not MultiscaleImage.exists(path)
    image.close()
    assert image.closed
    assert MultiscaleImage.exists(path)
    assert not MultiscaleImage.open(path)["level0"][...].any()
    image.close()  # once more is nothing more
    image.discard()
    assert MultiscaleImage.exists(path)
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_nothing(tmp_path, error):
    def write():
        with MultiscaleImage.create(
            tmp_path / "a", type="uint8", level_shape=(1, 300, 300), mpp=1.0
        ) as image:
            image["level0"][...] = 1
            image.build_levels()
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == []


def test_what_is_there_stays_unless_asked(tmp_path):
    path = tmp_path / "a"
    first = noise((1, 9, 9), seed=1)
    create(path, first)
    with pytest.raises(ExistsError, match="exists already"):
        MultiscaleImage.create(path, type="uint16", level_shape=(1, 9, 9), mpp=1.0)
    image = MultiscaleImage.create(
        path, type="uint16", level_shape=(1, 9, 9), mpp=1.0, overwrite=True
    )
    np.testing.assert_array_equal(MultiscaleImage.open(path)["level0"][...], first)
    image.discard()
    np.testing.assert_array_equal(MultiscaleImage.open(path)["level0"][...], first)
    second = noise((1, 9, 9), seed=2)
    create(path, second, overwrite=True)
    np.testing.assert_array_equal(MultiscaleImage.open(path)["level0"][...], second)
    assert names(tmp_path) == ["a"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(ExistsError, match="no image"):
            MultiscaleImage.create(
                tmp_path / "thesis", type="u1", level_shape=(1, 9, 9), mpp=1.0, overwrite=overwrite
            )
    assert names(tmp_path / "thesis") == ["a.tex"]


@pytest.mark.parametrize("ending", ["close", "discard"])
def test_a_written_image_that_is_closed_is_neither_read_nor_written(tmp_path, ending):
    # Its files have moved or gone: the engine would show zeros, and write into nowhere.
    image = MultiscaleImage.create(tmp_path / "a", type="uint8", level_shape=(1, 300, 9), mpp=1.0)
    level = image["level0"]
    level[...] = 7
    image.build_levels()
    coarse = image["level1"]
    getattr(image, ending)()
    for attempt in (
        lambda: level[...],
        lambda: coarse[0, 0, 0],
        lambda: image.read(0, (0, 1), (0, 1)),
        lambda: image.read_spatial_region(1),
        lambda: image.read_at(mpp=3.0),
        lambda: level.array.read_into(((0, 1), (0, 1), (0, 1)), np.zeros((1, 1, 1), np.uint8)),
        lambda: level.__setitem__(0, 1),
        image.build_levels,
        image.verify_open_for_writing,
    ):
        with pytest.raises(ModeError, match="closed"):
            attempt()
    assert image.level_shape(1) == (1, 150, 5)
    assert "closed" not in repr(image)
    assert names(tmp_path) == (["a"] if ending == "close" else [])


def test_modes(tmp_path):
    create(tmp_path / "a", noise((1, 9, 9)))
    image = MultiscaleImage.open(tmp_path / "a")
    for attempt in (image.build_levels, image.verify_open_for_writing):
        with pytest.raises(ModeError, match="open for reading"):
            attempt()
    image.discard()  # nothing of it was written, so nothing is removed
    assert image.closed
    assert MultiscaleImage.exists(tmp_path / "a")
    with pytest.raises(ModeError, match="is closed"):
        image.build_levels()


def test_levels_are_built_once(tmp_path):
    image = MultiscaleImage.create(tmp_path / "a", type="u1", level_shape=(1, 300, 9), mpp=1.0)
    image.build_levels()
    with pytest.raises(ExistsError, match="coarser levels already"):
        image.build_levels()
    image.close()
    assert len(MultiscaleImage.open(tmp_path / "a")) == 3


# ------------------------------------------------------------------ when it cannot be


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mpp": 0}, "not a possible"),
        ({"mpp": (0.5, math.nan)}, "not a possible"),
        ({"mpp": "fine"}, "no pixel size"),
        ({"level_shape": (9, 9)}, "does not fit axes"),
        ({"level_shape": (1, 0, 9)}, "does not fit axes"),
        ({"level_shape": (1, 9, -9)}, "does not fit axes"),
        ({"level_shape": ()}, "does not fit axes"),
        ({"data_axis_order": "yxc"}, "axes must be"),
        ({"data_axis_order": "xyc"}, "axes must be"),
        ({"data_axis_order": "cxy"}, "axes must be"),
        ({"data_axis_order": "ccyx"}, "axes must be"),
        ({"data_axis_order": "qyx"}, "axes must be"),
        ({"data_axis_order": ("c", "y", "")}, "axes must be"),
        ({"channel_names": ["a", "b"]}, "2 channel names"),
        ({"channel_names": []}, "0 channel names"),
        ({"has_channel_axis": False, "level_shape": (9, 9), "channel_names": ["a"]}, "1 channel names"),
        ({"type": "bool"}, "intensity cannot be bool"),
        ({"type": "complex64"}, "intensity cannot be complex64"),
        ({"type": "U3"}, "intensity cannot be"),
        ({"type": "colour"}, "no type of a pixel"),
        ({"type": "float128"}, "pixel"),
        ({"type": "float32", "kind": "labels"}, "labels cannot be float32"),
        ({"kind": "label"}, "kind must be"),
        ({"rgb": True}, "three channels"),
        ({"rgb": True, "level_shape": (3, 9, 9), "kind": "labels"}, "three channels"),
        ({"layout": Layout((8, 8), None)}, "cannot create an array"),
        ({"level_key": "level1"}, "cannot be called 'level1'"),
        ({"translation": (0.0,)}, "a translation is two"),
        ({"translation": (0.0, math.nan)}, "a translation is two"),
        ({"metadata": {"a": math.nan}}, "metadata must be JSON"),
        ({"metadata": {"a": {1, 2}}}, "metadata must be JSON"),
        ({"metadata": {"a": b"x"}}, "metadata must be JSON"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_an_image_is_refused_before_anything_is_written(tmp_path, change, complaint):
    arguments = {"type": "uint8", "level_shape": (1, 9, 9), "mpp": 1.0, **change}
    with pytest.raises(InvalidInputError, match=complaint):
        MultiscaleImage.create(tmp_path / "sub" / "a", **arguments)
    left = [path for path in tmp_path.rglob("*") if path != tmp_path / "sub"]
    assert left == []


def test_what_nobody_measured_is_not_claimed(tmp_path):
    with MultiscaleImage.create(tmp_path / "a", type="u1", level_shape=(1, 300, 9)) as image:
        image.build_levels()
        assert image.mpp is None
    axes = read_group(tmp_path / "a")["ome"]["multiscales"][0]["axes"]
    assert [axis.get("unit") for axis in axes] == [None, None, None]
    image = MultiscaleImage.open(tmp_path / "a")
    assert image.mpp is None
    assert image.get_transform_from_level(1).scale_factors == (2.0, 2.0)
    assert image.read_spatial_region(1, (0, 0, 4, 4)).data.shape == (1, 2, 2)
    for attempt in (image.require_mpp, lambda: image.read_at(mpp=1.0), lambda: image.level_mpp(0)):
        with pytest.raises(NoResolutionError, match="does not state its pixel size"):
            attempt()


def test_the_step_between_planes_is_stored_and_has_its_unit(tmp_path):
    path = tmp_path / "a"
    with MultiscaleImage.create(
        path, type="u1", level_shape=(4, 300, 9), coordinate_space=("x", "y", "z"),
        has_channel_axis=False, mpp=0.5, z_spacing=2.0,
    ) as image:  # fmt: skip
        assert image.axes == "zyx"
        image.build_levels()
    axes = read_group(path)["ome"]["multiscales"][0]["axes"]
    assert [axis.get("unit") for axis in axes] == ["micrometer"] * 3
    image = MultiscaleImage.open(path)
    assert [level.scale for level in image.values()][:2] == [(2.0, 0.5, 0.5), (2.0, 1.0, 1.0)]


def test_metadata_that_is_no_json_is_refused_where_it_is_given(tmp_path):
    image = MultiscaleImage.create(tmp_path / "a", type="u1", level_shape=(1, 9, 9), mpp=1.0)
    for value in (math.nan, {1, 2}, np.float32(1), b"bytes"):
        with pytest.raises(InvalidInputError, match="'a' must be JSON"):
            image.metadata["a"] = value
    image.discard()
    assert names(tmp_path) == []


def test_another_writer_was_faster(tmp_path):
    image = MultiscaleImage.create(tmp_path / "a", type="u1", level_shape=(1, 9, 9), mpp=1.0)
    first = create(tmp_path / "a", noise((1, 9, 9)))
    with pytest.raises(ExistsError, match="exists already"):
        image.close()
    np.testing.assert_array_equal(first["level0"][...], noise((1, 9, 9)))
    assert names(tmp_path) == ["a"]


FULL = textwrap.dedent("""
    import resource, sys
    import numpy as np
    from microtome.errors import StorageError
    from microtome.image import MultiscaleImage

    pixels = np.random.default_rng(0).integers(0, 60000, (1, 600, 600)).astype(np.uint16)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    try:
        with MultiscaleImage.create(
            sys.argv[1], type="uint16", level_shape=pixels.shape, mpp=1.0
        ) as image:
            image["level0"][...] = pixels
            image.build_levels()
    except StorageError as error:
        print(error)
""")


# The pixels do not fit into the first, the metadata of the array not into the second.
@pytest.mark.parametrize("limit", [100_000, 500])
def test_a_disk_that_is_full_leaves_nothing(tmp_path, limit):
    ran = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "a", str(limit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert str(tmp_path) in ran.stdout
    assert "File too large" in ran.stdout
    assert names(tmp_path) == []


def test_a_path_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        MultiscaleImage.create(tmp_path / "file" / "a", type="u1", level_shape=(1, 9, 9), mpp=1.0)
    assert names(tmp_path) == ["file"]


def test_begin_image_takes_the_same(tmp_path):
    with begin_image(
        os.fspath(tmp_path / "a"), dtype=">u2", shape=np.array([9, 9]), axes="yx",
        channel_names=None, mpp=Mpp(1, 1, "tag"),
    ) as image:  # fmt: skip
        image["level0"][...] = noise((9, 9))
    np.testing.assert_array_equal(
        MultiscaleImage.open(tmp_path / "a")["level0"][...], noise((9, 9))
    )


def test_levels_are_written_block_by_block(tmp_path):
    # By threads, each its own shards: what a loader of slides does.
    pixels = noise((3, 64, 48))
    with MultiscaleImage.create(
        tmp_path / "a",
        type="uint16",
        level_shape=pixels.shape,
        mpp=1.0,
        layout=Layout((1, 8, 8), (3, 16, 16)),
    ) as image:
        level = image["level0"]

        def write(corner):
            rows, columns = (slice(at, at + 16) for at in corner)
            level[:, rows, columns] = pixels[:, rows, columns]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, itertools.product(range(0, 64, 16), range(0, 48, 16))))
    np.testing.assert_array_equal(MultiscaleImage.open(tmp_path / "a")["level0"][...], pixels)
