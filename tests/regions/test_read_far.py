"""Windows as far away as numbers go, against Python's own, which have no end."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.regions import Windows, read_regions


@pytest.mark.parametrize("padding", [7, "edge", "reflect"])
@pytest.mark.parametrize("where", ["in memory", "on disk"])
def test_windows_at_the_end_of_all_numbers(tmp_path, in_memory, on_disk, where, padding):
    # The sum of a start and a size is more than 64 bits hold.
    pixels = np.arange(1, 1 + 30 * 31, dtype=np.uint16).reshape(1, 30, 31)
    image = on_disk(tmp_path / "i", pixels) if where == "on disk" else in_memory(pixels)
    end = 2**63 - 1
    starts = [(end, 0), (0, end), (end - 3, end), (-end - 1, 2), (-end, -end - 1)]
    out = np.full((len(starts), 1, 9, 9), 99, np.uint16)
    batch = read_regions([image], Windows.of(0, starts, 9), out=out, padding=padding)

    def value(y, x):
        places = []
        for at, n in zip((y, x), (30, 31), strict=True):
            if padding == "edge":
                places.append(min(max(at, 0), n - 1))
            elif padding == "reflect":
                back = at % (2 * (n - 1))
                places.append(min(back, 2 * (n - 1) - back))
            elif 0 <= at < n:
                places.append(at)
        return pixels[0, *places] if len(places) == 2 else padding

    expected = [[[[value(y + i, x + j) for j in range(9)] for i in range(9)]] for y, x in starts]
    np.testing.assert_array_equal(batch, expected)
