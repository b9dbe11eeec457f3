"""Pages of shards that were read go back to the system, however large the image is."""

from pathlib import Path

import numpy as np
import pytest

from microtome.storage._shard_files import ShardIndex, _Shards

INDEX = ShardIndex(grid=(1,), at_end=True, checked=False)
SIZE = 1 << 20


@pytest.fixture
def files(tmp_path):
    """Twelve files of a mebibyte, each one chunk and its index."""
    made = []
    for number in range(12):
        path = tmp_path / str(number)
        body = np.full(SIZE, number, np.uint8).tobytes()
        path.write_bytes(body + np.array([0, SIZE], "<u8").tobytes())
        made.append(str(path))
    return made


def resident(path):
    """Return how many KiB of a file's mappings this process has pages of."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0] and not line.startswith("VmFlags"):
            inside = line.endswith(path)
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux for resident pages")
def test_what_was_not_read_lately_has_no_pages(files):
    shards = _Shards(most=100, resident=6 << 20)
    for number, path in enumerate(files):
        shard = shards.get(path, INDEX)
        assert int(shard.bytes[:SIZE].min()) == number
    held = [resident(path) >= SIZE >> 10 for path in files]
    assert held[-1]
    assert not any(held[:6])
    assert sum(held) <= 6
    # What was given back is there again when it is read, by whoever holds it still.
    assert int(shards.get(files[0], INDEX).bytes[:SIZE].max()) == 0


def test_one_that_is_read_again_and_again_stays(files):
    shards = _Shards(most=100, resident=6 << 20)
    first = shards.get(files[0], INDEX)
    released = []
    for path in files[1:]:
        shard = shards.get(path, INDEX)
        shard.bytes.sum()
        assert shards.get(files[0], INDEX) is first
        released.append(shards._old.keys() | shards._young.keys())
    assert all(files[0] in kept for kept in released)


def test_shards_that_are_closed_are_forgotten(files):
    shards = _Shards(most=2, resident=1 << 40)
    for path in files:
        shards.get(path, INDEX)
    assert len(shards) == 2
    assert set(shards._young) == set(files[-2:])
