"""Images of files in another process: small, opened when they are read, and refused when changed."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.errors import FormatError, NotFoundError
from microtome.image import ArrayStack
from microtome.loading import RegionDataset
from microtome.patching import FixedRandomPatching
from microtome.regions import data_shape_of
from microtome.sources import open_image, open_stacks

RNG = np.random.default_rng(30)
RGB = RNG.integers(0, 256, (160, 200, 3), dtype=np.uint8)
PLANES = RNG.integers(0, 65536, (3, 83, 70), dtype=np.uint16)
APERIO = "Aperio Image Library v12.0\n200x160 [0,0 200x160] |AppMag = 20|MPP = 0.5"


def write_tiff(path: Path) -> Path:
    tifffile.imwrite(path, RGB, photometric="rgb", tile=(64, 64), compression="zlib")
    return path


def write_svs(path: Path) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for pixels in (RGB, RGB[::4, ::4]):
            writer.write(
                pixels, photometric="rgb", tile=(64, 64), compression="zlib", description=APERIO
            )
    return path


def write_folder(path: Path) -> Path:
    path.mkdir()
    for name, plane in zip("abc", PLANES, strict=True):
        tifffile.imwrite(path / f"{name}.tiff", plane)
    return path


def write_npy(path: Path) -> Path:
    np.save(path, RGB)
    return path


def write_png(path: Path) -> Path:
    from PIL import Image

    Image.fromarray(RGB).save(path)
    return path


FILES = [
    pytest.param(write_tiff, "a.tif", {"mpp": 0.5}, id="tiff"),
    pytest.param(write_svs, "a.svs", {"channel_names": ["r", "g", "b"]}, id="svs"),
    pytest.param(write_folder, "planes", {}, id="folder"),
    pytest.param(write_npy, "a.npy", {"axes": "yxc"}, id="npy"),
    pytest.param(write_png, "a.png", {}, id="png"),
]


@pytest.mark.parametrize(("write", "name", "options"), FILES)
def test_an_image_travels_small_and_is_the_same(
    tmp_path: Path, write: Any, name: str, options: dict[str, Any]
) -> None:
    image = open_image(write(tmp_path / name), **options)
    text = pickle.dumps(image)
    assert len(text) < 4_000
    again = pickle.loads(text)
    assert list(again) == list(image)
    for level in range(image.level_count):
        np.testing.assert_array_equal(again.level(level)[...], image.level(level)[...])
    for fact in ("uri", "mpp", "channel_names", "kind", "name", "axes"):
        assert getattr(again, fact) == getattr(image, fact)
    assert dict(again.metadata) == dict(image.metadata)
    # Sent on once more, from where it was opened.
    assert pickle.loads(pickle.dumps(again)).mpp == image.mpp


def test_what_a_file_says_of_itself_stays_at_home(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES, photometric="minisblack", description="x" * 100_000)
    image = open_image(path, channel_names=["a", "b", "c"])
    text = pickle.dumps(image)
    assert len(text) < 4_000
    assert pickle.loads(text).metadata["description"] == "x" * 100_000


def test_a_path_is_found_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiff(tmp_path / "a.tif")
    monkeypatch.chdir(tmp_path)
    text = pickle.dumps(open_image("a.tif"))
    monkeypatch.chdir("/")
    again = pickle.loads(text)
    np.testing.assert_array_equal(again.level(0)[...], np.moveaxis(RGB, -1, 0))
    assert again.uri == "a.tif"


def test_a_stack_of_other_axes_travels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PLANES, photometric="minisblack")
    [stack] = open_stacks(tmp_path / "a.tif", "SYX")
    assert isinstance(stack, ArrayStack)
    again = pickle.loads(pickle.dumps(stack))
    assert again.data_shape == (3, 1, 83, 70)
    np.testing.assert_array_equal(again.extract_patch(2, None, (0, 0), (83, 70))[0], PLANES[2])


def test_a_file_that_is_gone_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif")
    text = pickle.dumps(open_image(path))
    path.unlink()
    again = pickle.loads(text)
    assert again.level(0).shape == (3, 160, 200)
    with pytest.raises(NotFoundError, match=r"a\.tif does not exist any more"):
        again.read(0, (0, 9), (0, 9))


@pytest.mark.parametrize("write", [write_tiff, write_folder])
def test_a_file_that_was_changed_is_refused(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "a.tif")
    again = pickle.loads(pickle.dumps(open_image(path)))
    changed = path / "b.tiff" if path.is_dir() else path
    # The same pixels, written later.
    later = changed.stat().st_mtime_ns + 1_000_000_000
    os.utime(changed, ns=(later, later))
    with pytest.raises(FormatError, match=r"a\.tif was changed since .* send it anew"):
        again.read(0, (0, 9), (0, 9))


def test_a_file_that_is_no_image_any_more_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif")
    again = pickle.loads(pickle.dumps(open_image(path)))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FormatError, match="it was whole when it was opened in another process"):
        again.read(0, (0, 9), (0, 9))


def test_nothing_is_opened_before_it_is_read(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "planes")
    text = pickle.dumps(open_image(path))
    shutil.rmtree(path)
    again = pickle.loads(text)
    assert (again.level_shape(0), again.dtype) == ((3, 83, 70), np.uint16)


def test_a_spawned_worker_of_torch_reads_tiff_and_svs(tmp_path: Path) -> None:
    data = pytest.importorskip("torch.utils.data", reason="needs the extra torch")
    paths = [write_tiff(tmp_path / "a.tif"), write_svs(tmp_path / "b.svs")]
    shapes = [data_shape_of(open_image(path)) for path in paths]
    dataset = RegionDataset(paths, FixedRandomPatching(shapes, (32, 32), seed=1))
    loader = data.DataLoader(
        dataset,
        batch_size=5,
        num_workers=1,
        multiprocessing_context="spawn",
        collate_fn=RegionDataset.collate,
    )
    found = np.concatenate([batch.data.numpy() for batch in loader])
    wanted: Any = dataset.read_batch(np.arange(len(dataset)))
    np.testing.assert_array_equal(found, wanted.data)
    assert found.any()
