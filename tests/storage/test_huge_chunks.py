"""A chunk that does not fit into memory is refused in words, before the engine ends the process."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from microtome.errors import FormatError
from microtome.storage import Layout, create_array, open_array


def described(path, chunk, *, sharded):
    """An array of a few pixels whose document says that its chunks are as large as `chunk`."""
    layout = Layout((1, 16, 16), (1, 32, 32) if sharded else None, "fast")
    array = create_array(path, shape=(3, 40, 50), dtype="u2", layout=layout, axes="cyx")
    array.write(((0, 3), (0, 40), (0, 50)), np.ones((3, 40, 50), np.uint16))
    array.close()
    document = json.loads((path / "zarr.json").read_text())
    document["chunk_grid"]["configuration"]["chunk_shape"] = chunk
    if sharded:
        document["codecs"][0]["configuration"]["chunk_shape"] = chunk
    (path / "zarr.json").write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(
    "chunk", [[10**6] * 3, [3, 60000, 60000], [3, 10**9, 10**9], [1, 2**15, 2**15 + 1]]
)
def test_chunks_beyond_memory_are_refused(tmp_path, chunk, sharded):
    array = open_array(described(tmp_path / "a", chunk, sharded=sharded))
    size = math.prod(chunk) * 2 / 2**30
    with pytest.raises(FormatError, match=rf"take {size:,.1f} GiB each in memory.*smaller chunks"):
        array.read(((0, 1), (0, 10), (0, 10)))


def test_a_chunk_that_is_larger_than_the_array_and_fits_is_read(tmp_path):
    array = create_array(
        tmp_path / "a", shape=(40, 50), dtype="u1", layout=Layout((4096, 4096), None), axes="yx"
    )
    array.write(((0, 40), (0, 50)), np.full((40, 50), 7, np.uint8))
    assert (open_array(tmp_path / "a").read(((0, 40), (0, 50))) == 7).all()
