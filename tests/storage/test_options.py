"""What one value of storage options does for all that is opened with it: cache, threads, patience."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

import microtome as mt
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.storage import (
    Layout,
    StorageOptions,
    create_array,
    is_address,
    open_array,
    place_of,
)
from microtome.storage._engine import ENGINE

CHUNK, SIDE = 32, 512
CHUNK_BYTES = CHUNK * CHUNK * 2
COUNT = (SIDE // CHUNK) ** 2


@pytest.fixture
def pixels():
    # No zeros: that is what the engine reads where a file is gone.
    return np.random.default_rng(0).integers(1, 60000, (SIDE, SIDE), dtype=np.uint16)


def corners():
    return [(y, x) for y in range(0, SIDE, CHUNK) for x in range(0, SIDE, CHUNK)]


def box(y, x):
    return ((y, y + CHUNK), (x, x + CHUNK))


def remove_pixels(path):
    for file in path.rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.unlink()


def say_nothing_of_files(path):
    """Make an image one of those whose lost files nobody misses."""
    document = json.loads((path / "zarr.json").read_text())
    del document["attributes"]["microtome"]["absent_shards"]
    (path / "zarr.json").write_text(json.dumps(document))


def stored(path, pixels, shard=None):
    layout = Layout((CHUNK, CHUNK), shard)
    array = create_array(path, shape=pixels.shape, dtype=pixels.dtype, layout=layout, axes="yx")
    array.write(((0, SIDE), (0, SIDE)), pixels)


@pytest.mark.parametrize("shard", [None, (128, 128)])
def test_what_was_read_last_is_kept_and_no_more_than_allowed(tmp_path, pixels, shard):
    stored(tmp_path / "a", pixels, shard)
    room = COUNT // 4
    # Equal options share a cache, those of other tests too: an unusual number has one of its own.
    options = StorageOptions(cache_bytes=room * CHUNK_BYTES + 1, concurrency=1 if shard else 2)
    array = open_array(tmp_path / "a", options=options)
    for y, x in corners():
        np.testing.assert_array_equal(array.read(box(y, x)), pixels[y : y + CHUNK, x : x + CHUNK])
    remove_pixels(tmp_path / "a")
    known = [
        bool((array.read(box(y, x)) == pixels[y : y + CHUNK, x : x + CHUNK]).all())
        for y, x in reversed(corners())
    ]
    # The engine counts its own books too, so that a few pixels less find room.
    assert 0.8 * room <= sum(known) <= room
    assert known == sorted(known, reverse=True)  # the latest, without a gap


def test_nothing_is_kept_unless_asked_for(tmp_path, pixels):
    stored(tmp_path / "a", pixels)
    array = open_array(tmp_path / "a")
    assert array.read(box(0, 0)).all()
    remove_pixels(tmp_path / "a")
    assert not array.read(box(0, 0)).any()


@pytest.fixture
def image_path(tmp_path, pixels):
    with MultiscaleImage.create(
        tmp_path / "a.ome.zarr", type="uint16", level_shape=(1, SIDE, SIDE), mpp=0.5
    ) as image:
        image["level0"][...] = pixels[None]
    return tmp_path / "a.ome.zarr"


def test_images_share_the_cache_of_equal_options(image_path, pixels):
    say_nothing_of_files(image_path)
    first = MultiscaleImage.open(image_path, context=StorageOptions(cache_bytes=2**24 + 7))
    again = mt.open_image(image_path, storage_options=StorageOptions(cache_bytes=2**24 + 7))
    other = MultiscaleImage.open(image_path, context=StorageOptions(cache_bytes=2**24 + 8))
    assert first.context == again.context != other.context
    again["level0"].array.dtype  # noqa: B018
    region = ((10, 300), (20, 500))
    expected = pixels[None, 10:300, 20:500]
    np.testing.assert_array_equal(again.read(0, (0, 1), (0, 1)), pixels[None, :1, :1])
    np.testing.assert_array_equal(first.read(0, *region), expected)
    remove_pixels(image_path)
    np.testing.assert_array_equal(first.read(0, *region), expected)
    np.testing.assert_array_equal(again.read(0, *region), expected)
    assert not other.read(0, *region).any()


def test_an_image_that_is_opened_later_sees_what_was_written_since(image_path):
    options = StorageOptions(cache_bytes=2**24 + 9)
    before = MultiscaleImage.open(image_path, context=options)
    before.read(0, (0, SIDE), (0, SIDE))
    with MultiscaleImage.open(image_path, "w") as image:
        image["level0"][...] = np.full((1, SIDE, SIDE), 7, np.uint16)
    after = MultiscaleImage.open(image_path, context=options)
    assert (after.read(0, (0, SIDE), (0, SIDE)) == 7).all()


def test_one_context_for_equal_options_and_one_memory_for_all():
    some, others = StorageOptions(cache_bytes=123), StorageOptions(cache_bytes=124)
    assert ENGINE.context("a", some) is ENGINE.context("b", StorageOptions(cache_bytes=123))
    assert ENGINE.context("a", some) is not ENGINE.context("a", others)
    assert ENGINE.context("a") is ENGINE.context("a", StorageOptions())
    place_of("memory://shared/by/options", some).write("key", b"bytes")
    assert place_of("memory://shared/by", others).options == others
    assert (place_of("memory://shared/by", others) / "options").read("key") == b"bytes"


def test_options_travel_with_what_they_open(tmp_path, pixels):
    options = StorageOptions(cache_bytes=5, concurrency=2, retries=1, longest_pause=0.5)
    assert pickle.loads(pickle.dumps(options)) == options
    assert (
        len({options, StorageOptions(cache_bytes=5, concurrency=2, retries=1, longest_pause=0.5)})
        == 1
    )
    assert (place_of("s3://bucket/a", options) / "b").options is options
    stored(tmp_path / "a", pixels)
    array = pickle.loads(pickle.dumps(open_array(tmp_path / "a", options=options)))
    assert array._options == options
    np.testing.assert_array_equal(array.read(box(32, 64)), pixels[32:64, 64:96])


@pytest.mark.parametrize(
    "wrong",
    [
        {"cache_bytes": -1},
        {"cache_bytes": 1.5},
        {"cache_bytes": True},
        {"cache_bytes": "1GB"},
        {"concurrency": 0},
        {"concurrency": "many"},
        {"retries": -1},
        {"retries": None},
        {"longest_pause": 0},
        {"longest_pause": math.nan},
        {"longest_pause": math.inf},
        {"longest_pause": "3s"},
        {"endpoint": ""},
        {"region": 3},
        {"credentials": "guess"},
    ],
)
def test_options_that_cannot_be_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(InvalidInputError, match=f"{name}.*must be"):
        StorageOptions(**wrong)


def test_a_path_made_of_an_address_is_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("s3://b/a", "gs://b/a", "http://h/a", "https://h:80/a"):
        assert place_of(Path(address)) == place_of(address)
        assert is_address(Path(address))
    assert not is_address(Path("c:/a"))
    assert place_of("a//b") == Path("a/b")
    (tmp_path / "s3:").mkdir()
    assert place_of(Path("s3:/b/a")) == Path("s3:/b/a")
