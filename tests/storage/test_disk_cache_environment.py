"""The cache on disk that the environment names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import InvalidInputError
from microtome.storage import DiskCache, StorageOptions, place_of
from microtome.storage._disk_cache_environment import disk_cache_stated


def stated(directory, limit=None):
    told = {"MICROTOME_DISK_CACHE": directory, "MICROTOME_DISK_CACHE_LIMIT": limit}
    return disk_cache_stated({name: text for name, text in told.items() if text is not None})


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        (None, 10 * 2**30),
        ("", 10 * 2**30),
        ("50GiB", 50 * 2**30),
        ("50 gib", 50 * 2**30),
        ("1.5 MiB", 3 * 2**19),
        ("500MB", 500_000_000),
        ("2T", 2 * 10**12),
        ("2Ti", 2 * 2**40),
        ("1048576", 2**20),
        ("1048576B", 2**20),
    ],
)
def test_sizes(tmp_path, limit, size):
    assert stated(str(tmp_path), limit) == DiskCache(tmp_path, size)


@given(st.integers(2**20, 2**60))
def test_a_number_is_bytes(number):
    assert stated("somewhere", str(number)).limit == number


def test_no_directory_is_no_cache():
    assert stated(None) is None
    assert stated("") is None
    with pytest.raises(InvalidInputError, match=r"LIMIT is '5GiB', and MICROTOME_DISK_CACHE names"):
        stated(None, "5GiB")


@pytest.mark.parametrize("limit", ["much", "5 apples", "-1GiB", "1e9", "5GiBs", "nan", "٣GB"])
def test_what_is_no_size_is_refused(limit):
    with pytest.raises(InvalidInputError, match=r"MICROTOME_DISK_CACHE=a, .*as 50GiB or 500MB"):
        stated("a", limit)


def test_a_size_that_is_too_small_is_refused():
    with pytest.raises(InvalidInputError, match=r"MICROTOME_DISK_CACHE_LIMIT=5kB: .*got 5000"):
        stated("a", "5kB")


def test_remote_places_have_it_and_others_do_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROTOME_DISK_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("MICROTOME_DISK_CACHE_LIMIT", "3GiB")
    cache = DiskCache(tmp_path / "c", 3 * 2**30)
    place = place_of("s3://bucket/a.ome.zarr")
    assert place.options == StorageOptions(disk_cache=cache)
    assert (place / "0").options == place.options
    assert place_of("memory://a").options == StorageOptions()
    # What a program says is what counts.
    own = StorageOptions(disk_cache=DiskCache(tmp_path / "own", 2**20), cache_bytes=7)
    assert place_of("https://a.org/b", own).options == own
    assert place_of("gs://b/c", StorageOptions(cache_bytes=7)).options == StorageOptions(
        cache_bytes=7, disk_cache=cache
    )
    assert not (tmp_path / "c").exists()
    monkeypatch.setenv("MICROTOME_DISK_CACHE_LIMIT", "lots")
    with pytest.raises(InvalidInputError, match="got 'lots'"):
        place_of("s3://bucket/a.ome.zarr")
    assert place_of(tmp_path) == tmp_path
