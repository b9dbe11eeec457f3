"""Levels that grow with the finest are those that are built from it, in whatever order it comes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.image import (
    GrowingLevels,
    MultiscaleImage,
    blocks_of,
    halve_labels,
    halve_mean,
    pyramid_shapes,
)
from microtome.storage import Layout


class Held:
    """An array in memory that is written by file."""

    def __init__(self, shape, unit, dtype):
        self.pixels = np.full(shape, 77, dtype)
        self.written = np.zeros(shape, int)
        self.shape, self.write_unit, self.dtype = shape, unit, self.pixels.dtype

    def put(self, box, pixels):
        at = tuple(slice(*span) for span in box)
        self.pixels[at] = pixels
        self.written[at] += 1


@settings(max_examples=60)
@given(
    lead=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    labels=st.booleans(),
    dtype=st.sampled_from(["u1", "u2", "i4"]),
    order=st.randoms(use_true_random=False),
)
def test_levels_are_halved_in_any_order_of_files(lead, size, labels, dtype, order):
    shape = (*lead, *size)
    pixels = np.random.default_rng(0).integers(0, 4, shape).astype(dtype)
    shapes = pyramid_shapes(shape, 5)
    # As of the default layout: all channels of one time point, smaller where the level is.
    units = [(1, lead[1], *(min(16, -(-n // 4) * 4) for n in s[-2:])) for s in shapes]
    arrays = [Held(s, u, dtype) for s, u in zip(shapes, units, strict=True)]
    assert GrowingLevels.can_grow(arrays[0], arrays[1:])
    levels = GrowingLevels(
        arrays[1:], lambda level, box, part: arrays[level + 1].put(box, part), labels=labels
    )
    boxes = list(blocks_of(shape, units[0]))
    order.shuffle(boxes)
    for box in boxes:
        levels.add(box, pixels[tuple(slice(*span) for span in box)])
    for array in arrays[1:]:
        pixels = (halve_labels if labels else halve_mean)(pixels)
        assert (array.written == 1).all()
        np.testing.assert_array_equal(array.pixels, pixels)


def test_a_file_that_lies_in_two_of_the_next_level_is_told():
    def held(shape, unit):
        return Held(shape, unit, "u1")

    base = held((1, 64, 64), (1, 16, 16))
    assert GrowingLevels.can_grow(base, [held((1, 32, 32), (1, 8, 8))])
    for unit in ((1, 12, 16), (1, 16, 4)):
        assert not GrowingLevels.can_grow(base, [held((1, 32, 32), unit)])


@settings(max_examples=10)
@given(size=st.tuples(st.integers(1, 80), st.integers(1, 80)), seed=st.integers(0, 99))
def test_who_has_the_coarser_pixels_puts_them_there(size, seed):
    """An image whose levels grew is, file by file, the one whose levels were built."""
    pixels = np.random.default_rng(seed).integers(0, 999, (2, *size), np.uint16)
    layout = Layout((1, 8, 8), (2, 16, 16), "fast")
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for grown in (False, True):
            path = Path(folder) / ("grown" if grown else "built") / "image.ome.zarr"
            with MultiscaleImage.create(
                path, type="uint16", level_shape=pixels.shape, mpp=0.5, layout=layout
            ) as image:
                image["level0"][...] = pixels

                def fill(base, coarser):
                    arrays = [level.array for level in coarser]
                    levels = GrowingLevels(
                        arrays, lambda at, box, part: arrays[at].write(box, part)
                    )
                    for box in blocks_of(base.shape, base.array.write_unit):
                        levels.add(box, base.array.read(box))

                image.build_levels(fill=fill if grown else None)
            made.append(
                {
                    file.relative_to(path).as_posix(): file.read_bytes()
                    for file in path.rglob("*")
                    if file.is_file()
                }
            )
    assert made[0] == made[1]


def test_a_pyramid_that_was_not_filled_is_no_pyramid(tmp_path):
    def fill(base, coarser):
        raise RuntimeError("no pixels")

    with MultiscaleImage.create(
        tmp_path / "i", type="uint8", level_shape=(1, 300, 300), mpp=0.5
    ) as image:
        with pytest.raises(RuntimeError):
            image.build_levels(fill=fill)
        assert image.level_count == 1
    assert MultiscaleImage.open(tmp_path / "i").level_count == 1
