"""What the tests of prediction share: images with pixels that say where they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from microtome.image import MultiscaleImage


@pytest.fixture
def stored(tmp_path) -> Callable[..., MultiscaleImage]:
    """Write random pixels as an OME-Zarr image, pyramid and all, and open it."""

    def make(shape=(3, 70, 51), dtype="uint8", mpp=0.5, name="image", seed=0, **options):
        path = tmp_path / "images" / f"{name}.ome.zarr"
        pixels = np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)
        with MultiscaleImage.create(
            path,
            type=dtype,
            level_shape=shape,
            mpp=mpp,
            has_channel_axis=len(shape) == 3,
            **options,
        ) as image:
            image["level0"][...] = pixels
            image.build_levels()
        return MultiscaleImage.open(path)

    return make
