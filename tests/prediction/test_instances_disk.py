"""`predict_instances`: the objects of the whole image, on disk, whatever the tiles and interruptions."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.ndimage
import skimage.feature
import skimage.measure
import skimage.segmentation
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import BusyError, ExistsError, InvalidInputError, ModeError
from microtome.image import MultiscaleImage, halve_labels
from microtome.prediction import (
    InstanceStitcher,
    _instances_spool,
    iter_tile_batches,
    predict_instances,
    stitch_instances,
)
from microtome.prediction._instances_spool import InstanceWorkplace, Spool
from microtome.sources import open_image
from microtome.storage import Layout
from microtome.tiling import plan_tiles


def blobs(shape, seed=0, density=0.4, smooth=2):
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), smooth)
    return (noise <= np.quantile(noise, density)).astype(np.uint8)


def connected(batch):
    """Connected pixels of the first channel of each tile."""
    return np.stack([skimage.measure.label(tile[0], connectivity=1) for tile in batch])


def image_of(pixels, mpp=0.5):
    return open_image(np.asarray(pixels)[None], axes="cyx" if np.ndim(pixels) == 2 else "czyx", mpp=mpp)


def level(image, index=0):
    return image.level(index)[...]


# ------------------------------------------------------------------ the same as on the whole


@settings(max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    tile=st.tuples(st.integers(12, 48), st.integers(12, 48)),
    density=st.sampled_from([0.2, 0.5, 0.6]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_connected_pixels_are_those_of_the_whole_image(
    tmp_path_factory, shape, tile, density, seed, data
):
    overlap = tuple(data.draw(st.integers(1, size - 6)) for size in tile)
    pixels = blobs(shape, seed, density, smooth=1)
    out = tmp_path_factory.mktemp("labels") / "cells"
    plan = plan_tiles(shape, tile, overlap)
    image = image_of(pixels)
    # Chunks of 16 in shards of 32: many shards, which tiles cross in every way.
    layout = Layout((16, 16), (32, 32), "labels")
    batches = [
        batch._replace(data=connected(batch.data))
        for batch in iter_tile_batches(image, plan, batch_size=3)
    ]
    random.Random(seed).shuffle(batches)
    with InstanceStitcher(out, image, plan, min_share=1e-9, layout=layout) as stitcher:
        for batch in batches:
            stitcher.add(batch)
        made = stitcher.finish()
    whole = skimage.measure.label(pixels, connectivity=1)  # numbered in raster order, too
    np.testing.assert_array_equal(level(made), whole)
    np.testing.assert_array_equal(level(made), stitch_instances(batches, min_share=1e-9))


@pytest.mark.parametrize("tile", [(3, 20, 24), (8, 16, 16), (1, 30, 30)])
def test_objects_of_planes_are_joined_along_all_axes(tmp_path, tile):
    pixels = blobs((7, 60, 50), smooth=1)
    overlap = tuple(min(4, size - 1) for size in tile)
    made = predict_instances(
        connected, image_of(pixels), tmp_path / "o", tile_size=tile, overlap=overlap, min_share=1e-9
    )
    assert made.axes == "zyx"
    if tile[0] > 1:
        whole = skimage.measure.label(pixels, connectivity=1)
    else:
        # Tiles of one plane share none: objects are those of each plane.
        planes = [skimage.measure.label(plane, connectivity=1) for plane in pixels]
        tops = np.cumsum([0, *(plane.max() for plane in planes)])
        whole = np.stack([np.where(p, p + top, 0) for p, top in zip(planes, tops, strict=False)])
    np.testing.assert_array_equal(level(made), whole)


def test_every_time_point_has_objects_of_its_own(tmp_path):
    pixels = np.stack([blobs((50, 60), seed) for seed in range(3)])
    image = open_image(pixels[:, None], axes="tcyx", mpp=0.5)
    made = predict_instances(
        connected, image, tmp_path / "o", tile_size=32, overlap=8, min_share=1e-9
    )
    top = 0
    for found, frame in zip(level(made), pixels, strict=True):
        whole = skimage.measure.label(frame, connectivity=1)
        np.testing.assert_array_equal(found, np.where(whole, whole + top, 0))
        top += whole.max()


def test_what_tiles_make_of_half_an_object_joins_nothing(tmp_path):
    # A model that calls all one object which it sees within 4 pixels of a tile's border.
    truth = np.kron(np.arange(1, 65).reshape(8, 8), np.ones((12, 12), np.int64)).astype(np.uint16)

    def short_sighted(batch):
        found = batch[:, 0].copy()
        inner = np.zeros(found.shape[1:], bool)
        inner[4:-4, 4:-4] = True
        found[:, ~inner] = 999
        return found

    # What is kept is 8 pixels off every border inside, and of the image's own border 4 are lost.
    made = predict_instances(short_sighted, image_of(truth), tmp_path / "o", tile_size=40, overlap=17)
    inner = level(made)[4:-4, 4:-4]
    assert len(np.unique(inner)) == 64
    pairs = np.unique(np.stack([inner.ravel(), truth[4:-4, 4:-4].ravel()]), axis=1)
    assert pairs.shape[1] == 64


