"""Frames that are made here are Blosc's: those of LZ4 byte for byte, those of LZ4HC but for noise."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.storage._blosc_frames import OVERHEAD, FrameMaker, lz4
from microtome.storage._buffers import Buffers
from microtome.storage._chunk_encoder import _COMPILER, ChunkEncoder

pytestmark = pytest.mark.skipif(lz4() is None, reason="imagecodecs has no library of LZ4")

LIKE = {"zeros": 1, "few": 3, "counts": 60, "noise": 256}


def drawn(kind, size, seed):
    """Bytes that compress by themselves, hardly, and not at all; parts of them 0."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, LIKE[kind], size).astype(np.uint8)
    if seed % 3 == 1:
        values = np.repeat(values, 5)[:size]
    if seed % 3 == 2:
        values[rng.integers(size) :] = 0
    return values


def by_blosc(chunk, item, name, level):
    frame = imagecodecs.blosc_encode(
        chunk.view(f"u{item}"), level=level, compressor=name, shuffle=1, numthreads=1
    )
    return np.frombuffer(frame, np.uint8)


@settings(max_examples=200, deadline=None)
@given(
    item=st.sampled_from([1, 2, 4, 8]),
    pixels=st.integers(130, 4000),
    kind=st.sampled_from(sorted(LIKE)),
    level=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_frames_of_lz4_are_the_librarys(item, pixels, kind, level, seed):
    chunk = drawn(kind, pixels * item, seed)
    wanted = by_blosc(chunk, item, "lz4", level)
    maker = FrameMaker.like(by_blosc(np.zeros_like(chunk), item, "lz4", level), level, high=False)
    assert maker is not None
    out = np.empty(len(chunk) + OVERHEAD, np.uint8)
    assert bytes(out[: maker.make(chunk, out)]) == wanted.tobytes()


@settings(max_examples=100, deadline=None)
@given(
    item=st.sampled_from([1, 2, 4, 8]),
    pixels=st.integers(130, 4000),
    kind=st.sampled_from(sorted(LIKE)),
    level=st.integers(2, 5),
    seed=st.integers(0, 1000),
)
def test_frames_of_lz4hc_hold_the_chunk(item, pixels, kind, level, seed):
    chunk = drawn(kind, pixels * item, seed)
    like = by_blosc(np.zeros_like(chunk), item, "lz4hc", level)
    maker = FrameMaker.like(like, level, high=True)
    assert maker is not None
    out = np.empty(len(chunk) + OVERHEAD, np.uint8)
    length = maker.make(chunk, out)
    frame = bytes(out[:length])
    assert imagecodecs.blosc_decode(frame) == chunk.tobytes()


def test_noise_is_not_searched_and_the_rest_is():
    rng = np.random.default_rng(0)
    pixels = rng.poisson(270 + 100 * np.sin(np.arange(16384) / 400)).astype(np.uint16)
    out = np.empty(pixels.nbytes + OVERHEAD, np.uint8)
    length = FrameMaker(pixels.nbytes, 2, 2, high=True).make(pixels.view(np.uint8), out)
    lengths = out[20:24].view("<i4")[0], length - 28 - 16384
    plain = imagecodecs.lz4_encode(np.ascontiguousarray(pixels.view(np.uint8)[1::2]), level=1)
    assert lengths[0] == 16384, "the low bytes are noise"
    assert lengths[1] < len(plain)


@pytest.mark.parametrize(
    "options",
    [
        {"compressor": "zstd"},
        {"compressor": "blosclz"},
        {"shuffle": 0},
        {"shuffle": 2},
        {"blocksize": 4096},
    ],
)
def test_what_else_the_library_does_is_left_to_it(options):
    how = {"level": 5, "compressor": "lz4", "shuffle": 1, "blocksize": 0}
    frame = imagecodecs.blosc_encode(np.zeros(100000, np.uint16), numthreads=1, **how | options)
    assert FrameMaker.like(np.frombuffer(frame, np.uint8), 5, high=False) is None


def test_chunks_that_are_too_small_are_left_to_the_library():
    frame = by_blosc(np.zeros(64, np.uint8), 2, "lz4", 5)
    assert FrameMaker.like(frame, 5, high=False) is None


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_compiled_code_makes_the_same_bytes(data):
    dtype = np.dtype(data.draw(st.sampled_from(["bool", "u1", "i2", "u2", "f4", "i4", "u8", "f8"])))
    height, width = (data.draw(st.integers(12, 40)) for _ in range(2))
    rows, columns = data.draw(st.integers(1, height)), data.draw(st.integers(1, 4 * width))
    kind, seed = data.draw(st.sampled_from(sorted(LIKE))), data.draw(st.integers(0, 1000))
    name, level = data.draw(st.sampled_from([("lz4", 5), ("lz4", 1), ("lz4hc", 2), ("lz4hc", 3)]))
    # A part of something wider, that begins anywhere in it.
    wide = drawn(kind, rows * (columns + 9) * dtype.itemsize, seed)
    wide = (wide & 1 if dtype.kind == "b" else wide).view(dtype).reshape(rows, -1)
    first = data.draw(st.integers(0, 9))
    pixels = wide[None, :, first : first + columns]
    options = {
        "level": level,
        "compressor": name,
        "shuffle": 1,
        "typesize": dtype.itemsize,
        "blocksize": 0,
        "numthreads": 1,
    }
    encoder = ChunkEncoder((1, height, width), dtype, options)
    assert encoder._frames is not None
    call = _COMPILER.load()
    assert call is not None
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for with_it in (None, call):
            patch.setattr(_COMPILER, "after", lambda _, given=with_it: given)
            run = encoder.encode(pixels, Buffers())
            found.append((run.lengths, run.bytes.tobytes()))
    assert found[0] == found[1]
    at = 0
    for number, length in enumerate(found[1][0]):
        chunk = np.zeros((height, width), dtype)
        part = pixels[0, :, number * width : (number + 1) * width]
        chunk[: part.shape[0], : part.shape[1]] = part
        if length:
            frame = found[1][1][at : at + length]
            assert imagecodecs.blosc_decode(frame) == chunk.tobytes()
        else:
            assert not chunk.view(np.uint8).any()
        at += length
