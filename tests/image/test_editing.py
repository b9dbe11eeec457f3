"""Levels added, set and removed: in order of size, whole or not at all, whoever else is at it.

Several tests here hold a defect that was found in tiledbsoma 2.3.0 (the numbers are those of our
notes on it): ours does right.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    MicrotomeError,
    ModeError,
    NotFoundError,
    StorageError,
    UnknownNameError,
)
from microtome.image import Level, MultiscaleImage, halve_mean, pyramid_shapes
from microtome.storage import read_group

SHAPE = (2, 40, 30)


def noise(shape=SHAPE, dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


@pytest.fixture
def path(tmp_path):
    """An image of one level, closed."""
    with MultiscaleImage.create(
        tmp_path / "a.ome.zarr", type="uint16", level_shape=SHAPE, mpp=0.5
    ) as image:
        image["level0"][...] = noise()
    return tmp_path / "a.ome.zarr"


@pytest.fixture(params=["new", "there", "memory"])
def image(request, tmp_path, path):
    """An image open for writing: one that is begun, and one that is there."""
    if request.param == "there":
        opened = MultiscaleImage.open(path, "w")
    else:
        uri = tmp_path / "b.ome.zarr" if request.param == "new" else f"memory://{tmp_path}/b"
        opened = MultiscaleImage.create(uri, type="uint16", level_shape=SHAPE, mpp=0.5)
        opened["level0"][...] = noise()
    yield opened
    opened.close()


def seen_by_others(image):
    """What an image is after it is closed, opened anew."""
    image.close()
    return MultiscaleImage.open(image.uri)


# ------------------------------------------------------------------ adding


def test_a_level_is_added_written_and_there(image):
    level = image.add_new_level("half", shape=(2, 20, 15))
    assert isinstance(level, Level)
    assert not level[...].any()  # zeros, not the largest number of the type
    pixels = noise((2, 20, 15), seed=1)
    level.write((), pixels)
    level.write((0, slice(3, 5)), 7)
    pixels[0, 3:5] = 7
    found = seen_by_others(image)
    assert list(found) == ["level0", "half"]
    np.testing.assert_array_equal(found["half"][...], pixels)
    np.testing.assert_array_equal(found["half"].read((1, slice(0, 4))), pixels[1, :4])
    assert found.levels() == {
        "level0": (found.level_uri(0), SHAPE),
        "half": (found.level_uri("half"), (2, 20, 15)),
    }
    assert found.get_transform_from_level("half").scale_factors == (2.0, 2.0)
    assert found["half"].translation == (0.0, 0.25, 0.25)


@settings(max_examples=40)
@given(data=st.data())
def test_levels_stand_in_order_of_size_however_they_come(tmp_path_factory, data):
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
    with MultiscaleImage.create(
        tmp_path_factory.mktemp("order") / "a", type="u1", level_shape=(40, 40), mpp=1.0,
        has_channel_axis=False,
    ) as image:  # fmt: skip
        for number, size in enumerate(sizes):
            image.add_new_level(f"n{number}", shape=(size, size))
        # Equal sizes in the order in which they came, as `sorted` keeps them.
        order = sorted(range(len(sizes)), key=lambda number: -sizes[number])
        assert list(image) == ["level0", *(f"n{number}" for number in order)]
    found = MultiscaleImage.open(image.uri)
    assert list(found) == list(image)
    assert [level.shape for level in found.values()] == [level.shape for level in image.values()]


@pytest.mark.parametrize(
    ("base", "size", "factor"),
    [
        (40, 20, 2),
        (301, 151, 2),
        (301, 76, 4),
        (40, 13, 40 / 13),
        (60, 30, 2),
        (30, 6, 5),
        (7, 7, 1),
    ],
)
def test_factors_are_whole_where_a_size_was_rounded_up(tmp_path, base, size, factor):
    with MultiscaleImage.create(tmp_path / "a", type="u1", level_shape=(1, base, base)) as image:
        image.add_new_level("b", shape=(1, size, size))
        assert image.get_transform_from_level("b").scale_factors == (factor, factor)
        back = image.get_transform_to_level("b").scale_factors
        np.testing.assert_allclose(back, (1 / factor, 1 / factor), rtol=1e-15)


def test_a_factor_that_the_shapes_do_not_tell(image):
    # A scanner that dropped an odd row: 13 pixels of three rows each, and one row of nothing.
    image.add_new_level("third", shape=(2, 13, 10), scale=(3, 3))
    assert seen_by_others(image).get_transform_from_level("third").scale_factors == (3.0, 3.0)


@pytest.mark.parametrize(
    ("key", "shape", "options", "error", "complaint"),
    [
        ("a", (2, 41, 30), {}, InvalidInputError, "along 'y': it is largest"),
        ("a", (2, 4, 31), {}, InvalidInputError, "along 'x': it is largest"),
        ("a", (1, 4, 4), {}, InvalidInputError, "channels and times are the same"),
        ("a", (3, 4, 4), {}, InvalidInputError, "along 'c'"),
        ("a", (4, 4), {}, InvalidInputError, "does not fit the axes"),
        ("a", (2, 0, 4), {}, InvalidInputError, "does not fit the axes"),
        ("level0", (2, 4, 4), {}, ExistsError, "has a level 'level0' already"),
        ("", (2, 4, 4), {}, InvalidInputError, "named by a text"),
        (3, (2, 4, 4), {}, InvalidInputError, "named by a text"),
        ("a", (2, 4, 4), {"scale": (1, 1)}, None, ""),
        ("a", (2, 4, 4), {"scale": (99, 10)}, InvalidInputError, "cannot cover"),
        ("a", (2, 4, 4), {"scale": (0.5, 10)}, InvalidInputError, "cannot cover"),
        ("a", (2, 4, 4), {"scale": (float("nan"), 10)}, InvalidInputError, "cannot cover"),
        ("a", (2, 4, 4), {"scale": (2,)}, InvalidInputError, "a number along each"),
        ("a", (2, 4, 4), {"uri": "../out"}, InvalidInputError, "lies inside its image"),
        ("a", (2, 4, 4), {"uri": "/tmp/out"}, InvalidInputError, "lies inside its image"),
        ("a", (2, 4, 4), {"uri": "labels/a"}, InvalidInputError, "not in labels/"),
        ("a", (2, 4, 4), {"uri": "0"}, ExistsError, "already"),
    ],
)
def test_what_is_no_level_leaves_no_trace(image, key, shape, options, error, complaint):
    # Defect 1.3.1: a creation that failed left metadata behind, and `levels()` failed for ever.
    if error is None:
        image.add_new_level(key, shape=shape, **options)
        return
    before = image.levels()
    with pytest.raises(error, match=complaint):
        image.add_new_level(key, shape=shape, **options)
    assert image.levels() == before
    image.add_new_level("fine", shape=(2, 4, 4))
    assert list(seen_by_others(image)) == ["level0", "fine"]


def test_levels_that_grow_in_one_direction_are_refused(image):
    image.add_new_level("wide", shape=(2, 10, 30))
    with pytest.raises(InvalidInputError, match="neither larger nor smaller than 'wide'"):
        image.add_new_level("tall", shape=(2, 40, 10))
    assert list(seen_by_others(image)) == ["level0", "wide"]


def test_the_reference_level_stays_the_first(image):
    # Defect 1.4: a larger level became the reference, and the meaning of every region changed.
    with pytest.raises(InvalidInputError, match="it is largest"):
        image.add_new_level("big", shape=(2, 80, 60))
    image.add_new_level("same", shape=SHAPE)
    assert list(image) == ["level0", "same"]
    assert image.get_transform_from_level("same").scale_factors == (1.0, 1.0)


def test_the_path_of_a_level_can_be_chosen(path):
    with MultiscaleImage.open(path, "w") as image:
        image.add_new_level("half", shape=(2, 20, 15), uri="coarse/half")
        assert image.level_uri("half") == f"{path}/coarse/half"
        image.add_new_level("third", shape=(2, 14, 10), uri=f"{path}/coarse/third")
    assert (path / "coarse" / "third" / "zarr.json").is_file()
    assert list(MultiscaleImage.open(path)) == ["level0", "half", "third"]


# ------------------------------------------------------------------ setting


@pytest.mark.parametrize(
    "make", [np.asarray, torch.from_numpy, memoryview], ids=["numpy", "torch", "memoryview"]
)
def test_a_level_is_set_from_any_array(image, path, make):
    pixels = noise((2, 20, 15), seed=2)
    image["half"] = make(pixels)
    image.set("same", image["half"])  # a level
    image.update({"third": noise((2, 14, 10))})
    image["path"] = path / "0"  # an array of another image
    found = seen_by_others(image)
    assert list(found) == ["level0", "path", "half", "same", "third"]
    np.testing.assert_array_equal(found["path"][...], noise())
    np.testing.assert_array_equal(found["half"][...], pixels)
    np.testing.assert_array_equal(found["same"][...], pixels)


def test_a_level_that_is_set_anew_replaces_the_old(image):
    image["half"] = noise((2, 20, 15))
    old = image["half"]
    pixels = noise((2, 10, 8), seed=3)
    image["half"] = pixels
    with pytest.raises(MicrotomeError):
        old[...]
    found = seen_by_others(image)
    assert found.levels()["half"][1] == (2, 10, 8)
    np.testing.assert_array_equal(found["half"][...], pixels)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("a", noise((2, 4, 4), "int32"), "convert it explicitly"),  # silent casts: defect 1.6
        ("a", noise((2, 4, 4), "float32"), "convert it explicitly"),
        ("a", noise((1, 4, 4)), "channels and times"),
        ("a", None, "convert it explicitly|cannot be taken"),
        ("level0", noise(), "write to its pixels"),
    ],
)
def test_what_cannot_be_set_leaves_no_trace(image, key, value, complaint):
    before = image.levels()
    with pytest.raises(InvalidInputError, match=complaint):
        image[key] = value
    assert image.levels() == before
    assert seen_by_others(image).levels().keys() == before.keys()
    with pytest.raises(ModeError):
        image[key] = value


def test_pixels_are_never_cast(image):
    level = image.add_new_level("b", shape=(2, 4, 4))
    for wrong in (np.full((2, 4, 4), 300.2), np.full((2, 4, 4), -1, np.int64), -1, 70000, 1.5):
        with pytest.raises(InvalidInputError, match="convert it explicitly"):
            level.write((), wrong)
    assert not level[...].any()


def test_tensors_that_are_no_plain_pixels_are_refused(image):
    level = image["level0"]
    for wrong in (torch.ones(SHAPE, requires_grad=True), torch.ones(SHAPE, device="meta")):
        with pytest.raises(InvalidInputError, match="cannot be taken as a numpy array"):
            level.write((), wrong)


class Interface:
    """An array of no library, known by its memory."""

    def __init__(self, array):
        self.__array_interface__ = array.__array_interface__
        self._kept = array


class Capsule:
    """An array of no library, known by dlpack."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


@pytest.mark.parametrize("kind", [Interface, Capsule])
def test_pixels_come_from_anything_that_shows_its_memory(image, kind):
    pixels = noise(seed=9)
    image["level0"].write((), kind(pixels))
    np.testing.assert_array_equal(image["level0"][...], pixels)


# ------------------------------------------------------------------ removing


def test_levels_are_removed_and_can_come_again(image):
    # Defect 1.3.2: a removed level was still counted, and its name was blocked for ever.
    image["half"] = noise((2, 20, 15))
    image["third"] = noise((2, 14, 10))
    gone = image.pop("half")
    assert gone.shape == (2, 20, 15)
    with pytest.raises(MicrotomeError):
        gone[...]
    assert list(image) == ["level0", "third"]
    assert image.level_count == 2
    image["half"] = noise((2, 21, 16), seed=4)
    found = seen_by_others(image)
    assert found.level_shape("half") == (2, 21, 16)
    np.testing.assert_array_equal(found["half"][...], noise((2, 21, 16), seed=4))
    np.testing.assert_array_equal(found["third"][...], noise((2, 14, 10)))


def test_the_mapping_protocol(image):
    image["half"] = noise((2, 20, 15))
    image["third"] = noise((2, 14, 10))
    assert image.get("none") is None
    assert image.pop("none", 5) == 5
    with pytest.raises(KeyError, match="no level 'none'"):
        image.pop("none")
    with pytest.raises(UnknownNameError):
        del image["none"]
    assert image.setdefault("half", noise((2, 3, 3))).shape == (2, 20, 15)
    assert image.setdefault("tiny", noise((2, 3, 3))).shape == (2, 3, 3)
    assert image.popitem()[0] == "tiny"
    assert [key for key, _ in image.items()] == ["level0", "half", "third"]
    image.clear()
    assert list(image) == ["level0"]
    with pytest.raises(KeyError, match="only the reference level"):
        image.popitem()
    for remove in (lambda: image.pop("level0"), lambda: image.__delitem__("level0")):
        with pytest.raises(InvalidInputError, match="is the reference level and stays"):
            remove()
    found = seen_by_others(image)
    assert list(found) == ["level0"]
    np.testing.assert_array_equal(found["level0"][...], noise())


def test_files_of_removed_levels_are_gone(path):
    with MultiscaleImage.open(path, "w") as image:
        image["half"] = noise((2, 20, 15))
        place = path / "1"
        assert place.is_dir()
        del image["half"]
        assert not place.exists()
    assert sorted(p.name for p in path.iterdir()) == ["0", "zarr.json"]
    assert [p.name for p in path.parent.iterdir()] == ["a.ome.zarr"]


# ------------------------------------------------------------------ modes


def test_reading_changes_nothing_and_cannot(path, fingerprint):
    before = fingerprint(path.parent)
    with MultiscaleImage.open(path) as image:
        for attempt in (
            lambda: image.add_new_level("a", shape=(2, 4, 4)),
            lambda: image.set("a", noise((2, 4, 4))),
            lambda: image.__setitem__("a", noise((2, 4, 4))),
            lambda: image.pop("level0"),
            image.clear,
            image.build_levels,
            image.verify_open_for_writing,
            lambda: image["level0"].write((), noise()),
            lambda: image.metadata.__setitem__("a", 1),
        ):
            with pytest.raises(ModeError, match="open for reading"):
                attempt()
    assert fingerprint(path.parent) == before


def test_an_image_open_for_removing_removes_only(path):
    with MultiscaleImage.open(path, "w") as image:
        image["half"] = noise((2, 20, 15))
    with MultiscaleImage.open(path, "d") as image:
        assert image.mode == "d"
        with pytest.raises(ModeError, match="open for removing levels"):
            image.add_new_level("a", shape=(2, 4, 4))
        del image["half"]
    assert list(MultiscaleImage.open(path)) == ["level0"]


def test_reopen_is_in_place_and_works_after_close(path):
    image = MultiscaleImage.open(path)
    image.close()
    assert image.reopen("w") is image
    assert (image.mode, image.closed) == ("w", False)
    image["half"] = noise((2, 20, 15))
    image.metadata["stain"] = "DAPI"
    reader = MultiscaleImage.open(path)
    image.reopen()
    assert image.mode == "r"
    assert list(image) == list(reader) == ["level0", "half"]
    assert image.metadata["stain"] == "DAPI"
    with pytest.raises(InvalidInputError, match="mode must be"):
        image.reopen("x")
    assert not image.closed


def test_an_image_that_is_begun_is_published_by_reopen(tmp_path):
    image = MultiscaleImage.create(tmp_path / "a", type="uint16", level_shape=SHAPE)
    image["level0"][...] = noise()
    assert not MultiscaleImage.exists(tmp_path / "a")
    np.testing.assert_array_equal(image.reopen()["level0"][...], noise())


def test_what_is_read_in_place_cannot_be_reopened():
    from microtome import open_image

    image = open_image(noise(), axes="cyx")
    with pytest.raises(ModeError, match="open its source again"):
        image.reopen()
    with pytest.raises(ModeError):
        image.metadata["a"] = 1


@pytest.mark.parametrize("version", ["0.4", "0.6"])
def test_other_versions_are_read_and_not_changed(path, version):
    import json

    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["ome"]["version"] = version
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(ModeError, match=rf"OME-Zarr {version}; only 0.5 is changed"):
        MultiscaleImage.open(path, "w")


def test_an_error_inside_with_keeps_what_was_done_and_drops_what_was_not(path):
    def fails(image):
        with image:
            image["half"] = noise((2, 20, 15))
            raise RuntimeError

    image = MultiscaleImage.open(path, "w")
    with pytest.raises(RuntimeError):
        fails(image)
    assert image.closed
    assert list(MultiscaleImage.open(path)) == ["level0", "half"]


# ------------------------------------------------------------------ what others wrote


@pytest.mark.interop
def test_what_is_not_ours_stays_as_it_is(tmp_path):
    import zarr

    # Nanometres, a common transform, attributes of others, and consolidated metadata.
    root = zarr.open_group(tmp_path / "a", mode="w", zarr_format=3)
    root.create_array("s0", data=noise((40, 30)), dimension_names=["y", "x"])
    step = [{"type": "scale", "scale": [2.0, 2.0]}]
    root.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [{"name": a, "type": "space", "unit": "nanometer"} for a in "yx"],
                "datasets": [
                    {
                        "path": "s0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [100.0, 200.0]},
                            {"type": "translation", "translation": [7.0, 9.0]},
                        ],
                    }
                ],
                "coordinateTransformations": step,
                "metadata": {"kept": True},
            }
        ],
    }
    root.attrs["lab"] = {"kept": True}
    with pytest.warns(UserWarning, match="onsolidated"):
        zarr.consolidate_metadata(tmp_path / "a")
    with MultiscaleImage.open(tmp_path / "a", "w") as image:
        level = image.add_new_level("half", shape=(20, 15))
        level.write((), 5)
        assert image.mpp.y == pytest.approx(0.2)
        assert level.scale == pytest.approx((0.4, 0.8))
        # The first pixel's centre at 7 and 9, half a pixel of 100 and 200 further on; twice; in um.
        assert level.translation == pytest.approx(((7 + 50) * 2 / 1000, (9 + 100) * 2 / 1000))
        image.metadata["note"] = "x"
    group = zarr.open_group(tmp_path / "a", mode="r", use_consolidated=True)
    assert (group["0"][...] == 5).all()  # consolidated metadata know the new array
    assert group.attrs["lab"] == {"kept": True}
    multiscale = group.attrs["ome"]["multiscales"][0]
    assert multiscale["metadata"] == {"kept": True}
    assert multiscale["coordinateTransformations"] == step
    with MultiscaleImage.open(tmp_path / "a", "w") as image:
        assert list(image) == ["level0", "half"]
        del image["half"]
    assert sorted(zarr.open_group(tmp_path / "a", mode="r")) == ["s0"]


# ------------------------------------------------------------------ metadata


def test_metadata_are_stored_at_once(path):
    image = MultiscaleImage.open(path, "w")
    image.metadata["stain"] = {"name": "DAPI", "steps": (1, 2)}
    found = MultiscaleImage.open(path).metadata
    assert found["stain"] == image.metadata["stain"] == {"name": "DAPI", "steps": [1, 2]}
    # A copy: what is done to it changes nothing.
    image.metadata["stain"]["name"] = "other"
    assert image.metadata["stain"]["name"] == "DAPI"
    del image.metadata["stain"]
    with pytest.raises(KeyError, match="stain"):
        image.metadata["stain"]
    with pytest.raises(KeyError, match="stain"):
        del image.metadata["stain"]
    assert "stain" not in MultiscaleImage.open(path).metadata
    image.close()
    with pytest.raises(ModeError, match="closed"):
        image.metadata["stain"] = 1


@pytest.mark.parametrize("name", ["ome", "microtome", "multiscales", "omero", "image-label", 3])
def test_reserved_names_are_refused(image, name):
    with pytest.raises(InvalidInputError, match="an attribute is named by"):
        image.metadata[name] = 1
    with pytest.raises(InvalidInputError, match="an attribute is named by"):
        del image.metadata[name]


def test_metadata_of_an_image_that_is_begun(tmp_path):
    with MultiscaleImage.create(
        tmp_path / "a", type="u1", level_shape=SHAPE, metadata={"a": 1}
    ) as image:
        image.metadata["b"] = 2
        image.metadata.update(c=3)
        del image.metadata["a"]
    assert {k: MultiscaleImage.open(tmp_path / "a").metadata.get(k) for k in "abc"} == {
        "a": None, "b": 2, "c": 3,
    }  # fmt: skip


# ------------------------------------------------------------------ the pyramid of what is there


def test_levels_are_built_into_an_image_that_is_there(path, small_layout):
    with MultiscaleImage.open(path, "w") as image:
        image["old"] = noise((2, 7, 7))
        with pytest.raises(ExistsError, match=r"coarser levels already: \['old'\]"):
            image.build_levels()
        image._layout = small_layout
        image.build_levels(overwrite=True)
    found = MultiscaleImage.open(path)
    assert [level.shape for level in found.values()] == pyramid_shapes(SHAPE, 8)
    expected = noise()
    for level in found.values():
        np.testing.assert_array_equal(level[...], expected)
        expected = halve_mean(expected)


def test_a_pyramid_that_fails_leaves_the_image_as_it_was(path, small_layout, monkeypatch):
    import microtome.image._editing as editing

    def fails(base, targets, **options):
        targets[0].array.write(((0, 2), (0, 20), (0, 15)), noise((2, 20, 15)))
        message = "disk"
        raise StorageError(message)

    with MultiscaleImage.open(path, "w") as image:
        image["old"] = noise((2, 7, 7))
        image._layout = small_layout
        monkeypatch.setattr(editing, "fill_levels", fails)
        with pytest.raises(StorageError):
            image.build_levels(overwrite=True)
        assert list(image) == ["level0", "old"]
        names = {p.name for p in path.iterdir()}
    assert names == {"0", "1", "zarr.json"}
    np.testing.assert_array_equal(MultiscaleImage.open(path)["old"][...], noise((2, 7, 7)))


# ------------------------------------------------------------------ several writers, and the dead


def add_levels(path, start, queue):
    from microtome.errors import ExistsError
    from microtome.image import MultiscaleImage

    won = []
    with MultiscaleImage.open(path, "w") as image:
        for number in range(12):
            image.metadata[f"n{start}-{number}"] = number
            image.add_new_level(f"own{start}-{number}", shape=(2, 20, 15)).write((), start)
            try:
                level = image.add_new_level(f"same{number}", shape=(2, 10 + start, 8))
            except ExistsError:
                continue
            level.write((), start)
            won.append(f"same{number}")
    queue.put((start, won))


@pytest.mark.slow
def test_two_processes_lose_nothing_of_each_other(path):
    # Defect 1.3.3: of two writers of one key the loser's shape could win.
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    writers = [context.Process(target=add_levels, args=(path, n, queue)) for n in (1, 2)]
    for writer in writers:
        writer.start()
    won = dict(queue.get(timeout=100) for _ in writers)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    image = MultiscaleImage.open(path)
    assert sorted(won[1] + won[2]) == sorted(f"same{n}" for n in range(12))
    assert len(image) == 1 + 24 + 12
    for start, keys in won.items():
        for key in [*keys, *(f"own{start}-{n}" for n in range(12))]:
            level = image[key]
            assert (level[...] == start).all()
            assert level.shape[1] == (20 if key.startswith("own") else 10 + start)
        assert all(image.metadata[f"n{start}-{n}"] == n for n in range(12))


def test_threads_of_one_process_lose_nothing(path):
    # By two names: a lock that is found by the name would be two.
    link = path.with_name("link")
    link.symlink_to(path)

    def work(number):
        with MultiscaleImage.open(link if number % 2 else path, "w") as image:
            image.add_new_level(f"n{number}", shape=(2, 20, 15)).write((), number)
            image.metadata[f"n{number}"] = number

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(16)))
    image = MultiscaleImage.open(path)
    assert len(image) == 17
    for number in range(16):
        assert (image[f"n{number}"][...] == number).all()
        assert image.metadata[f"n{number}"] == number


KILLED = """
    import os, sys, threading, time
    import numpy as np
    from microtome.image import MultiscaleImage

    threading.Thread(target=lambda: (time.sleep(float(sys.argv[2])), os.kill(os.getpid(), 9))).start()
    number = 0
    while True:
        with MultiscaleImage.open(sys.argv[1], "w") as image:
            image["half"] = np.full((2, 20, 15), 1, "u2")
            image.build_levels(overwrite=True)
            image.clear()
            image.metadata["number"] = number = number + 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.2, 0.3, 0.5, 0.8])
def test_a_writer_that_is_killed_leaves_a_whole_image(path, seconds):
    # Defect 1.3.5: a level of a dead writer was invisible, and blocked its key for ever.
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path), str(seconds)], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    image = MultiscaleImage.open(path)
    assert next(iter(image)) == "level0"
    for level in image.values():
        assert level[...].shape == level.shape
    np.testing.assert_array_equal(image["level0"][...], noise())
    with MultiscaleImage.open(path, "w") as image:  # and the next one is not in its way
        image["half"] = noise((2, 20, 15))
        image.clear()
    assert sorted(p.name for p in path.iterdir() if not p.name.startswith(".")) == [
        "0",
        "zarr.json",
    ]
    assert "left_over" not in read_group(path)["microtome"]


def test_a_disk_that_refuses_changes_nothing(path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, os.strerror(28))

    before = (path / "zarr.json").read_text()
    with MultiscaleImage.open(path, "w") as image:
        monkeypatch.setattr("microtome.storage._hierarchy.write_document", full)
        with pytest.raises(StorageError, match="no space left"):
            image.add_new_level("half", shape=(2, 20, 15))
        with pytest.raises(StorageError, match="no space left"):
            image.metadata["a"] = 1
        assert list(image) == ["level0"]
        assert "a" not in image.metadata
        monkeypatch.undo()
        assert (path / "zarr.json").read_text() == before
        image.add_new_level("half", shape=(2, 20, 15))
    assert list(MultiscaleImage.open(path)) == ["level0", "half"]


def write_rows(path, first):
    from microtome.image import MultiscaleImage

    with MultiscaleImage.open(path, "w") as image:
        for row in range(first, 40, 2):
            image["level0"].write((slice(None), row), row + 1)


@pytest.mark.slow
def test_two_processes_write_into_one_file_and_lose_nothing(path):
    # All rows lie in one shard: each write reads, changes and replaces it.
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_rows, args=(path, first)) for first in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(100)
        assert writer.exitcode == 0
    rows = MultiscaleImage.open(path)["level0"][...]
    assert (rows == np.arange(1, 41, dtype=np.uint16)[:, None]).all()


# ------------------------------------------------------------------ readers that were there before


def test_a_reader_of_a_level_that_is_gone_is_told(path):
    # Files that are not there read as pixels that were never written: zeros, without a word.
    with MultiscaleImage.open(path, "w") as image:
        image["half"] = noise((2, 20, 15)) + 1
        reader = MultiscaleImage.open(path)
        assert reader["half"][...].all()
        out = np.empty((2, 20, 15), np.uint16)
        del image["half"]
        for read in (
            lambda: reader["half"][...],
            lambda: reader.read_spatial_region("half"),
            lambda: reader["half"].array.read_into(((0, 2), (0, 20), (0, 15)), out).result(),
        ):
            with pytest.raises(NotFoundError, match="was removed since it was opened; reopen"):
                read()
        image["half"] = noise((2, 10, 15)) + 1
        with pytest.raises(FormatError, match="was replaced since it was opened; reopen"):
            reader["half"][...]
    assert reader.reopen()["half"][...].all()
    reader["level0"][...]
    with MultiscaleImage.create(
        path, type="uint16", level_shape=SHAPE, mpp=0.5, overwrite=True
    ) as image:
        image["level0"][...] = noise(seed=5)
    with pytest.raises(FormatError, match="was replaced since it was opened; reopen"):
        reader["level0"][...]


def test_a_level_that_is_removed_while_it_is_read_is_never_zeros(path):
    stop, zeros, told = threading.Event(), [], []

    def reads():
        while not stop.is_set():
            try:
                image = MultiscaleImage.open(path)
                while not stop.is_set():
                    pixels = image["half"][...]
                    if not pixels.all():
                        zeros.append(pixels)
            except MicrotomeError as error:
                told.append(error)

    reader = threading.Thread(target=reads)
    with MultiscaleImage.open(path, "w") as image:
        image["half"] = noise((2, 40, 30)) + 1
        reader.start()
        for seed in range(40):
            image["half"] = noise((2, 40, 30), seed=seed) + 1
        stop.set()
        reader.join()
    assert told
    assert not zeros


# ------------------------------------------------------------------ at the same moment


@pytest.mark.parametrize("way", ["set", "add", "build"])
def test_writers_that_add_at_the_same_moment(path, small_layout, way):
    # All of them choose the same place before one of them has it.
    def work(number):
        with MultiscaleImage.open(path, "w") as image:
            image._layout = small_layout
            barrier.wait()
            if way == "set" or number:
                image[f"n{number}"] = np.full((2, 10 + number, 10), number + 1, np.uint16)
            elif way == "add":
                image.add_new_level("n0", shape=(2, 10, 10)).write((), 1)
            else:
                with contextlib.suppress(ExistsError):  # where the others were there before
                    image.build_levels()

    for _ in range(5):
        barrier = threading.Barrier(3)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, range(3)))
        image = MultiscaleImage.open(path, "w")
        image.metadata["next"] = 1  # the next writer sweeps what it finds noted
        for number in (0, 1, 2):
            if way == "build" and number == 0:
                continue
            assert (image[f"n{number}"][...] == number + 1).all()
        assert all(level[...].any() for level in image.values())
        assert "left_over" not in read_group(path)["microtome"]
        image.clear()
        image.close()
    assert sorted(p.name for p in path.iterdir()) == ["0", "zarr.json"]


def test_a_pyramid_does_not_replace_what_it_does_not_know(path, small_layout):
    other = MultiscaleImage.open(path, "w")
    with MultiscaleImage.open(path, "w") as image:
        image["mine"] = noise((2, 7, 7))
    other._layout = small_layout
    with pytest.raises(ExistsError, match=r"another writer added \['mine'\]"):
        other.build_levels(overwrite=True)
    other.reopen("w").build_levels(overwrite=True)
    assert "mine" not in MultiscaleImage.open(path)


def test_who_removes_levels_writes_no_pixels(path):
    with MultiscaleImage.open(path, "d") as image:
        with pytest.raises(ModeError, match="read-only; an OME-Zarr image is written where"):
            image["level0"][0, 0, 0] = 1
        assert image["level0"][0, 0, 0] == noise()[0, 0, 0]


def test_a_level_is_an_array_for_numpy(path):
    level = MultiscaleImage.open(path)["level0"]
    np.testing.assert_array_equal(np.asarray(level), noise())
    assert np.asarray(level, np.float32).dtype == np.float32
    assert level.ndim == 3
    with pytest.raises(InvalidInputError, match="without reading it"):
        np.array(level, copy=False)
