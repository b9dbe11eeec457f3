"""How every test of a source looks at pixels: whole, and through windows at random places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from microtome.errors import MicrotomeError
from microtome.image import MultiscaleImage
from microtome.sources import image_names, open_image

Check = Callable[..., None]


@pytest.fixture
def pixels_equal() -> Check:
    """Compare a level with an array, whole and through random windows, edges included."""

    def check(
        image: MultiscaleImage, expected: NDArray[Any], *, level: int = 0, windows: int = 12
    ) -> None:
        chosen = image.level(level)
        assert chosen.shape == expected.shape
        assert image.dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(chosen[...], expected)
        rng = np.random.default_rng(len(expected.shape) * 1000 + expected.shape[-1])
        height, width = expected.shape[-2:]
        corners = [(0, 0, 1, 1), (height - 1, width - 1, height, width)]
        for _ in range(windows):
            y0, x0 = int(rng.integers(height)), int(rng.integers(width))
            y1, x1 = int(rng.integers(y0, height)) + 1, int(rng.integers(x0, width)) + 1
            corners.append((y0, x0, y1, x1))
        for y0, x0, y1, x1 in corners:
            found = image.read(level, (y0, y1), (x0, x1))
            np.testing.assert_array_equal(found, expected[..., y0:y1, x0:x1])
        if image.has_channel_axis:
            last = image.nchannels - 1
            found = image.read(level, (0, height), (0, width), channels=[last, 0])
            np.testing.assert_array_equal(found, expected[[last, 0]])

    return check


@pytest.fixture(scope="session")
def read_or_refused() -> Callable[..., str]:
    """Open what may be damaged, and read some of it: any error but ours fails the test.

    Returns what the error said, "" where there was none.
    """

    def check(path: Path, **options: Any) -> str:
        try:
            names = image_names(path, **options)
            images = [open_image(path, image=i, **options) for i in range(len(names[:4]))]
            for image in images:
                for level in range(image.level_count):
                    height, width = image.level_shape(level)[-2:]
                    found = image.read(level, (0, min(height, 40)), (0, min(width, 40)))
                    assert found.shape[-2:] == (min(height, 40), min(width, 40))
        except MicrotomeError as error:
            return str(error) or repr(error)
        return ""

    return check
