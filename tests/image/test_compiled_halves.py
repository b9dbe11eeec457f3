"""Halving in compiled code gives the bits that NumPy gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.image import _pyramid

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f2", "u8", "bool", ">u2"]


def drawn(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        found = rng.normal(0, 10.0 ** rng.integers(-3, 4), shape).astype(dtype)
        found[rng.random(shape) < 0.05] = rng.choice([np.nan, np.inf, -np.inf, -0.0])
        return found
    # All bits there are: sums of four must not run over.
    return rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype)[..., 0] & (
        1 if dtype.kind == "b" else -1 if dtype.kind == "i" else np.iinfo(dtype).max
    )


@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from(TYPES),
    planes=st.integers(1, 3),
    height=st.integers(1, 21),
    width=st.integers(1, 40),
    edge=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_compiled_code_gives_the_same_bits(dtype, planes, height, width, edge, seed):
    # A part of something larger, into a part of something larger.
    whole = drawn(dtype, (planes, height + edge, width + edge), seed)
    if seed % 2:
        # As of a file that is mapped: not to be written, and where no such pixel should begin.
        memory = np.empty(whole.nbytes + 1, np.uint8)
        memory[1:] = whole.reshape(-1).view(np.uint8)
        whole = memory[1:].view(whole.dtype).reshape(whole.shape)
    whole.flags.writeable = seed % 3 > 0
    pixels = whole[:, edge:, edge:]
    call = _pyramid._COMPILER.load()
    assert call is not None
    found = []
    for with_it in (None, call):
        room = np.zeros((planes, (height + 1) // 2 + edge, (width + 1) // 2 + edge), pixels.dtype)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_pyramid._COMPILER, "after", lambda _, given=with_it: given)
            _pyramid.halve_mean(pixels, room[:, edge:, edge:])
        found.append(room)
    assert found[0].tobytes() == found[1].tobytes()


def test_types_that_are_compiled_use_it():
    call = _pyramid._COMPILER.load()
    for dtype in TYPES[:7]:
        assert _pyramid._is_plain(np.zeros((2, 8, 8), dtype)), dtype
        out = np.zeros((4, 4), dtype)
        call.kernel(np.full((8, 8), 3, dtype), out)
        assert (out == 3).all()
    for dtype in TYPES[7:]:
        assert not _pyramid._is_plain(np.zeros((2, 8, 8), dtype)), dtype
    assert not _pyramid._is_plain(np.zeros((2, 8, 16), "u2")[..., ::2])
    assert not _pyramid._is_plain(np.zeros((2, 8, 8), "u2")[:, ::-1])
