"""An S3 server that stumbles: reads are tried again and end right, or in an error that names the key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import microtome as mt
from microtome.errors import ModeError, StorageError
from microtome.image import MultiscaleImage
from microtome.storage import StorageOptions

FAULTS = ("error", "throttled", "cut", "refused", "slow")


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 60000, (2, 700, 650), dtype=np.uint16)


@pytest.fixture(scope="module")
def moto(
    pixels: NDArray[np.uint16], tmp_path_factory: pytest.TempPathFactory, s3_holding: Any
) -> Iterator[str]:
    """The address of a server that has an image."""
    path = tmp_path_factory.mktemp("local") / "a.ome.zarr"
    with MultiscaleImage.create(
        path, type="uint16", level_shape=pixels.shape, mpp=0.5, channel_names=["DNA", "CD3"]
    ) as image:
        image["level0"][...] = pixels
        image.build_levels()
    with s3_holding(path, "slides", "study/a.ome.zarr") as address:
        yield address


@pytest.fixture
def trouble(moto: str, stumbling: Any) -> Iterator[Any]:
    """What goes wrong on the way."""
    with stumbling(moto) as trouble:
        trouble.every = 3
        yield trouble


@pytest.fixture
def options(trouble: Any) -> StorageOptions:
    """How the image is reached through the proxy."""
    return StorageOptions(endpoint=trouble.endpoint, region="us-east-1", longest_pause=0.2)


@pytest.mark.parametrize("fault", FAULTS)
def test_reads_end_right(
    options: StorageOptions, trouble: Any, pixels: NDArray[np.uint16], fault: str
) -> None:
    trouble.fault = fault
    image = mt.open_image("s3://slides/study/a.ome.zarr", storage_options=options)
    np.testing.assert_array_equal(image.level(0)[...], pixels)
    for row in range(0, 600, 100):
        found = image.read(0, (row, row + 90), (row, row + 40))
        np.testing.assert_array_equal(found, pixels[:, row : row + 90, row : row + 40])
    assert trouble.stumbled >= 3, "hardly a request went wrong"


def test_a_model_runs_over_an_image_that_stumbles(
    options: StorageOptions, trouble: Any, pixels: NDArray[np.uint16], tmp_path: Path
) -> None:
    trouble.fault, trouble.every = "throttled", 2
    image = mt.open_image("s3://slides/study/a.ome.zarr", storage_options=options)
    made = mt.predict(
        lambda batch: batch[:, :1].astype(np.float32),
        image,
        tmp_path / "p.ome.zarr",
        tile_size=256,
        overlap=32,
    )
    np.testing.assert_array_equal(made.level(0)[...], pixels[:1])
    assert trouble.stumbled >= 2


@pytest.mark.parametrize("fault", ["error", "throttled", "cut", "refused"])
def test_a_server_that_never_answers_is_an_error_that_names_the_image(
    options: StorageOptions, trouble: Any, fault: str
) -> None:
    trouble.fault, trouble.every = fault, 1
    begun = time.monotonic()
    with pytest.raises(StorageError, match=r"s3://slides/study/a\.ome\.zarr"):
        mt.open_image("s3://slides/study/a.ome.zarr", storage_options=options)
    assert time.monotonic() - begun < 60


def test_a_prediction_for_a_store_that_is_only_read_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in ("gs://slides/p.ome.zarr", Path("https://slides/p.ome.zarr")):
        with pytest.raises(ModeError, match=r"//slides/p\.ome\.zarr.*copy it there"):
            mt.predict(np.asarray, np.zeros((3, 64, 64), np.uint8), out, tile_size=32, overlap=8)
    assert not list(tmp_path.iterdir())
