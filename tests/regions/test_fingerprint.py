"""A fingerprint is equal for equal pixels, and differs wherever pixels do."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile
import zarr

from microtome.image import MultiscaleImage
from microtome.regions import columns_fingerprint, pixels_fingerprint
from microtome.sources import open_image, open_stacks
from microtome.storage import Layout


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 250, shape).astype(np.uint16)


def test_pixels_in_memory_are_looked_at() -> None:
    pixels = noise((2, 40, 30))
    [one], [same] = open_stacks(pixels, "CYX"), open_stacks(pixels.copy(), "CYX")
    assert pixels_fingerprint(one) == pixels_fingerprint(same)
    other = pixels.copy()
    other[1, 39, 29] += 1
    for changed, axes in ((other, "CYX"), (pixels, "SYX"), (pixels.astype(np.int32), "CYX")):
        assert pixels_fingerprint(open_stacks(changed, axes)[0]) != pixels_fingerprint(one)


def test_bands_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    [stack] = open_stacks(noise((3, 50, 30)), "SYX")
    whole = pixels_fingerprint(stack)
    monkeypatch.setattr("microtome.regions._fingerprint._BAND_BYTES", 7 * 30 * 2)
    assert pixels_fingerprint(stack) == whole


def test_files_count_by_what_the_disk_says(tmp_path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((40, 30)))
    first = pixels_fingerprint(open_image(path))
    assert pixels_fingerprint(open_image(path)) == first
    os.utime(path, ns=(1, 1))
    assert pixels_fingerprint(open_image(path)) != first
    for name in "bc":
        zarr.create_array(tmp_path / name, data=noise((40, 30)), chunks=(9, 9))
    b, c = (open_stacks(tmp_path / name)[0] for name in "bc")
    assert pixels_fingerprint(b) == pixels_fingerprint(open_stacks(tmp_path / "b")[0])
    assert pixels_fingerprint(b) != pixels_fingerprint(c)  # written at another time
    before = pixels_fingerprint(b)
    (tmp_path / "b" / "c" / "0" / "0").unlink()  # as zarr deletes a chunk that became all zero
    assert pixels_fingerprint(b) != before


def test_pictures_of_one_file_are_told_apart(tmp_path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for seed, name in enumerate(("one", "two")):
            file.write(noise((40, 30), seed), metadata={"axes": "YX", "Name": name})
    prints = {pixels_fingerprint(open_image(path, image=number)) for number in (0, 1)}
    assert len(prints) == 2


def test_levels_and_snapshots_are_told_apart(tmp_path) -> None:
    def written(name: str, **options) -> MultiscaleImage:
        with MultiscaleImage.create(
            tmp_path / name,
            type="uint16",
            level_shape=(1, 64, 64),
            mpp=1.0,
            layout=Layout((1, 16, 16), (1, 32, 32)),
            **options,
        ) as image:
            image["level0"][...] = noise((1, 64, 64))
            image.build_levels()
        return MultiscaleImage.open(tmp_path / name)

    image = written("a")
    assert len({pixels_fingerprint(image, level) for level in range(image.level_count)}) == 3
    history = written("b", versioned=True)
    before = pixels_fingerprint(history)
    assert pixels_fingerprint(MultiscaleImage.open(tmp_path / "b")) == before
    with MultiscaleImage.open(tmp_path / "b", "w") as changed:
        changed["level0"][0, :16, :16] = 7
    now = MultiscaleImage.open(tmp_path / "b")
    assert pixels_fingerprint(now) != before
    assert pixels_fingerprint(history) == before


def test_columns_of_tables_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    row, col = np.arange(50), np.arange(50) * 3
    one = columns_fingerprint(("t",), row, col)
    assert len(one) == 16
    assert columns_fingerprint(("t",), row.astype(np.int32), col) == one
    changed = row.copy()
    changed[49] += 1
    for other in (
        columns_fingerprint(("u",), row, col),
        columns_fingerprint(("t",), changed, col),
        columns_fingerprint(("t",), row[::-1], col),
        columns_fingerprint(("t",), row[:49], col[:49]),
        columns_fingerprint(("t",), col, row),
    ):
        assert other != one
    # Of very long ones every so many rows are looked at, and their number.
    monkeypatch.setattr("microtome.regions._fingerprint._MOST_ROWS", 10)
    one = columns_fingerprint((), row)
    assert columns_fingerprint((), row + 1) != one
    assert columns_fingerprint((), np.arange(51)) != one
