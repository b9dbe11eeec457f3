"""What opening an image costs: one read, whatever the number of levels, and no file that stays open."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from microtome.errors import FormatError
from microtome.image import MultiscaleImage
from microtome.storage import Layout, Place, create_array, read_group, write_group


@pytest.fixture
def reads(monkeypatch):
    """The metadata documents that are read, in order."""
    seen = []
    of_file, of_place = Path.read_bytes, Place.read

    def read_bytes(self):
        data = of_file(self)
        seen.append(str(self))
        return data

    def read(self, name):
        data = of_place(self, name)
        seen.append(f"{self}/{name}")
        return data

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr(Place, "read", read)
    return seen


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def image_of(path, levels):
    with MultiscaleImage.create(
        path,
        type="uint8",
        level_shape=(2, 1 << levels, 40),
        mpp=0.5,
        layout=Layout((1, 8, 8), None),
    ) as image:
        for level in range(1, levels):
            image.add_new_level(f"level{level}", shape=(2, 1 << (levels - level), 40))
    return path


def everything_of(path):
    with MultiscaleImage.open(path) as image:
        str(image)
        assert image.dtype == np.uint8
        assert [level.array.chunks for level in image.values()] == [(1, 8, 8)] * len(image)
        return [level.shape for level in image.values()]


@pytest.mark.parametrize("levels", [1, 4, 12])
def test_one_document_is_read_whatever_the_number_of_levels(tmp_path, reads, levels):
    path = image_of(tmp_path / "a.ome.zarr", levels)
    reads.clear()
    assert everything_of(path) == [(2, 1 << (levels - level), 40) for level in range(levels)]
    assert reads == [f"{path}/zarr.json"]


def test_one_request_is_made_to_a_store(tmp_path, reads):
    path = image_of(tmp_path / "a.ome.zarr", 4)
    packed = tmp_path / "a.ozx"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(path.rglob("*")):
            archive.write(file, file.relative_to(path))
    reads.clear()
    assert everything_of(packed) == [(2, 1 << (4 - level), 40) for level in range(4)]
    assert reads == [f"{packed}/zarr.json"]


@pytest.mark.interop
def test_what_zarr_python_consolidated_is_opened_with_one_read(tmp_path, reads, recwarn):
    import zarr

    path = image_of(tmp_path / "a.ome.zarr", 3)
    write_group(path, read_group(path))  # which leaves our copies out
    zarr.consolidate_metadata(path)
    recwarn.clear()  # that it is no part of the Zarr v3 specification yet
    reads.clear()
    assert everything_of(path) == [(2, 8, 40), (2, 4, 40), (2, 2, 40)]
    assert reads == [f"{path}/zarr.json"]


def test_levels_of_which_there_is_no_copy_are_looked_at(tmp_path, reads):
    path = image_of(tmp_path / "a.ome.zarr", 4)
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    copies = attributes["microtome"]["arrays"]
    copies.pop("1")
    copies["2"]["data_type"] = "r24"  # nothing that we can read off it
    copies["3"] = "no document"
    write_group(path, attributes)
    reads.clear()
    assert everything_of(path) == [(2, 16, 40), (2, 8, 40), (2, 4, 40), (2, 2, 40)]
    assert sorted(set(reads)) == [f"{path}/{p}zarr.json" for p in ("1/", "2/", "3/", "")]


def test_a_copy_that_is_not_true_is_found_out_before_a_pixel_is_read(tmp_path):
    path = image_of(tmp_path / "a.ome.zarr", 2)
    shutil.rmtree(path / "1")
    create_array(
        path / "1", shape=(2, 3, 40), dtype="uint8", layout=Layout((1, 8, 8), None), axes="cyx"
    )
    image = MultiscaleImage.open(path)
    assert image.level_shape(1) == (2, 2, 40)
    for read in (
        lambda: image.read_spatial_region(1),
        lambda: image.read_spatial_region(1, (0, 0, 2, 2)),
        lambda: image.read(1, (0, 1), (0, 1)),
        lambda: image["level1"][0, 0, 0],
    ):
        with pytest.raises(FormatError, match=r"a\.ome\.zarr/1 holds \(2, 3, 40\) uint8, but was"):
            read()
    # The other level is not touched by that.
    assert image.read_spatial_region(0, (0, 0, 2, 2)).data.tolist() == np.zeros((2, 2, 2)).tolist()


def test_a_copy_of_other_chunks_costs_nothing_but_the_plan(tmp_path):
    path = image_of(tmp_path / "a.ome.zarr", 2)
    shutil.rmtree(path / "1")
    pixels = np.arange(160, dtype=np.uint8).reshape(2, 2, 40)
    create_array(
        path / "1", shape=(2, 2, 40), dtype="uint8", layout=Layout((1, 2, 16), None), axes="cyx"
    ).write(((0, 2), (0, 2), (0, 40)), pixels)
    image = MultiscaleImage.open(path)
    assert image.level(1).array.chunks == (1, 8, 8)
    np.testing.assert_array_equal(image["level1"][...], pixels)
    assert image.level(1).array.chunks == (1, 2, 16)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system has no /proc")
def test_thousands_of_open_images_hold_few_files(tmp_path):
    # More than a process may have open by default; the benchmark has ten thousand.
    first = image_of(tmp_path / "first.ome.zarr", 2)
    with MultiscaleImage.open(first, "w") as image:
        image["level0"][...] = 7
    paths = [first]
    for number in range(1_999):
        paths.append(tmp_path / str(number))
        shutil.copytree(first, paths[-1], copy_function=os.link)
    before = open_files()
    with contextlib.ExitStack() as stack:
        images = [stack.enter_context(MultiscaleImage.open(path)) for path in paths]
        assert open_files() == before
        for image in images:
            assert image.read_spatial_region(0, (1, 1, 2, 2)).data.tolist() == [[[7]], [[7]]]
        assert open_files() < before + 300
