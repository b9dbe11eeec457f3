"""Forked workers (B7 of the reference): they read, or say why not, but do not hang."""

from __future__ import annotations

import multiprocessing
import warnings

import pytest

import microtome as mt
from microtome.interop import ImageTilesDataset

with warnings.catch_warnings():
    # What it imports warns of its own future, and of a config file that is not there.
    warnings.simplefilter("ignore")
    pytest.importorskip(
        "spatialdata",
        reason="needs a spatialdata that can be imported",
        exc_type=ImportError,
    )
    from spatialdata.datasets import blobs

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]


def _child(dataset, row, answers):
    try:
        answers.put(int(dataset[row]["blobs_image"].values.sum() * 1000))
    except mt.MicrotomeError as error:
        answers.put(str(error))


def _answer_of_a_fork(dataset, row):
    """Return what a forked process makes of a tile, after this one has read another."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    assert dataset[0]["blobs_image"].values.size
    process = context.Process(target=_child, args=(dataset, row, answers), daemon=True)
    process.start()
    try:
        return answers.get(timeout=30)
    finally:
        process.kill()
        process.join()


def _dataset(source):
    return ImageTilesDataset(
        source, {"blobs_circles": "blobs_image"}, {"blobs_circles": "global"}, tile_dim_in_units=20
    )


def test_pixels_in_memory_are_read_in_a_fork():
    dataset = _dataset(blobs(length=160))
    expected = int(dataset[2]["blobs_image"].values.sum() * 1000)
    assert _answer_of_a_fork(dataset, 2) == expected


def test_a_store_says_that_it_does_not_survive_a_fork(tmp_path):
    blobs(length=160).write(tmp_path / "a.zarr")
    answer = _answer_of_a_fork(_dataset(tmp_path / "a.zarr"), 2)
    assert "'spawn' or 'forkserver'" in answer
