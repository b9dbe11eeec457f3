"""What tests of storage share."""

from __future__ import annotations

import pytest

from microtome.storage import _batches


@pytest.fixture(params=["compiled", "streamed", "plain"])
def engine(request, monkeypatch):
    """Reads are done by compiled code, past the caches or not, or by the loop that stands in for it."""
    found = None
    if request.param != "plain":
        pytest.importorskip("numba")
        found = _batches._COMPILER.load()
        assert found is not None, "imagecodecs brings the libraries that decode"
    monkeypatch.setattr(_batches._COMPILER, "after", lambda _: found)
    if request.param == "streamed":
        monkeypatch.setattr(_batches, "_STREAMED", 0)
    return request.param
