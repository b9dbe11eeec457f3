"""`ImageTilesDataset` of a store written by hand, where spatialdata is not installed."""

from __future__ import annotations

import json
import pickle
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import microtome as mt
from microtome.errors import DependencyError, InvalidInputError
from microtome.interop import ImageTilesDataset
from microtome.storage import create_array, image_layout, label_layout, write_group

pytest.importorskip("pandas", reason="tables of tiles need pandas")

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 2**16, (2, 120, 90), np.uint16)
LABELS = np.zeros((120, 90), np.int32)
LABELS[10:20, 30:36] = 4
LABELS[60:64, 50:70] = 9
LABELS[100:119, 80:90] = 300
SPOTS = np.array([[20.0, 30.0], [61.5, 88.25]])


def _space(axes):
    return [{"name": axis, "type": "space", "unit": "unit"} for axis in axes]


def _transform(axes, scale, system="global"):
    """A scale and a shift of x by 5, as spatialdata writes them."""
    ends = {
        "input": {"name": axes, "axes": _space(axes)},
        "output": {"name": system, "axes": _space(axes)},
    }
    parts = [
        {"type": "scale", "scale": [1.0 if axis == "c" else scale for axis in axes]},
        {"type": "translation", "translation": [5.0 if axis == "x" else 0.0 for axis in axes]},
    ]
    return {"type": "sequence", "transformations": [{**part, **ends} for part in parts], **ends}


def _raster(place, pixels, layout):
    axes = "cyx"[-pixels.ndim :]
    multiscale = {
        "axes": _space(axes),
        "datasets": [{"path": "s0"}],
        "coordinateTransformations": [_transform(axes, 0.5)],
    }
    write_group(place, {"ome": {"version": "0.5-dev-spatialdata", "multiscales": [multiscale]}})
    array = create_array(
        place / "s0", shape=pixels.shape, dtype=pixels.dtype, layout=layout, axes=axes
    )
    array.write(tuple((0, size) for size in pixels.shape), pixels)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "a.zarr"
    write_group(path, {"spatialdata_attrs": {"version": "0.2"}})
    _raster(path / "images" / "he", PIXELS, image_layout("cyx", PIXELS.shape))
    _raster(path / "labels" / "cells", LABELS, label_layout("yx", LABELS.shape))
    spots = path / "shapes" / "spots"
    write_group(spots, {"coordinateTransformations": [_transform("xy", 0.5)]})
    # Well-known binary of points: byte order, kind, x, y.
    points = [b"\x01\x01\x00\x00\x00" + spot.astype("<f8").tobytes() for spot in SPOTS]
    columns = {"geometry": pa.array(points), "radius": pa.array([4.0, 6.0])}
    table = pa.table(columns).replace_schema_metadata(
        {"geo": json.dumps({"primary_column": "geometry"})}
    )
    pq.write_table(table, spots / "shapes.parquet")
    return path


@pytest.fixture(autouse=True)
def _without_spatialdata(monkeypatch):
    """Neither of them is asked for, wherever the tests run."""
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    monkeypatch.setitem(sys.modules, "dask", None)


def test_labels_are_counted_and_placed(store):
    dataset = ImageTilesDataset(
        store, {"cells": "he"}, {"cells": "global"}, output="region", tile_size=8, tile_scale=2
    )
    assert dataset.dataset_index["instance_id"].tolist() == [4, 9, 300]
    for row, label in enumerate([4, 9, 300]):
        y, x = np.nonzero(label == LABELS)
        found = dataset.tiles_coords.loc[row, ["x", "y", "extent"]].to_numpy()
        side = 2 * 2 * np.sqrt(len(x) / np.pi) * 0.5
        centre = [(x.mean() + 0.5) * 0.5 + 5, (y.mean() + 0.5) * 0.5]
        np.testing.assert_allclose(found.astype(float), [*centre, side])


def test_windows_around_circles_are_padded(store):
    """Circles lie in the store at half a pixel's units, like the image: at their own pixels."""
    dataset = ImageTilesDataset(
        store,
        {"spots": "he"},
        {"spots": "global"},
        tile_dim_in_units=10,
        output="region",
        tile_size=48,
        padding=7,
    )
    padded = np.pad(PIXELS, ((0, 0), (48, 48), (48, 48)), constant_values=7)
    items = dataset.__getitems__([1, 0])
    for item, (x, y) in zip(items, SPOTS[::-1], strict=True):
        top, left = int(np.floor(y - 24 + 0.5)), int(np.floor(x - 24 + 0.5))
        expected = padded[:, top + 48 : top + 96, left + 48 : left + 96]
        np.testing.assert_array_equal(item.data, expected)
    batch = dataset.read_batch(np.array([1, 0]))
    np.testing.assert_array_equal(batch.data, np.stack([item.data for item in items]))


@pytest.mark.parametrize("padding", [0, 7, "edge", "reflect"])
@pytest.mark.parametrize("rasterize", [False, True])
def test_batches_are_the_items_as_floats(store, rasterize, padding):
    """Some tiles are whole pixels and some are resampled, some hang over the edge."""
    dataset = ImageTilesDataset(
        store,
        {"spots": "he", "cells": "he"},
        {"spots": "global", "cells": "global"},
        tile_scale=3,
        rasterize=rasterize,
        interpolation="linear" if rasterize else "nearest",
        output="region",
        tile_size=24,
        padding=padding,
    )
    rows = [4, 0, 2, 3, 1]
    items = dataset.__getitems__(rows)
    # What is resampled to values between pixels is no whole number, in an item neither.
    assert {item.data.dtype for item in items} == {np.dtype("f4" if rasterize else "u2")}
    batch = dataset.read_batch(np.array(rows))
    assert batch.data.dtype == np.float32
    np.testing.assert_array_equal(batch.data, np.stack([item.data for item in items]))
    ids = [told["instance_id"] for told in batch.additional_metadata]
    assert ids == [item.additional_metadata["instance_id"] for item in items]


@pytest.mark.parametrize("padding", [-1, 0.5, np.nan])
def test_padding_is_a_value_of_the_pixels_in_batches_too(store, padding):
    dataset = ImageTilesDataset(
        store,
        {"cells": "he"},
        {"cells": "global"},
        output="region",
        tile_size=8,
        padding=padding,
    )
    for read in (dataset.__getitem__, lambda row: dataset.read_batch(np.array([row]))):
        with pytest.raises(InvalidInputError, match="no value of"):
            read(0)


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_labels_lie_on_the_pixels_of_their_image(store, kept):
    dataset = ImageTilesDataset(
        store,
        {"cells": "he"},
        {"cells": "global"},
        tile_dim_in_units=12,
        rasterize=True,
        rasterize_kwargs={"target_width": 24},
        regions_to_labels={"cells": "cells"},
        output="region",
        storage_options=mt.StorageOptions(cache_bytes=kept),
    )
    dataset = pickle.loads(pickle.dumps(dataset))
    for row, label in enumerate([4, 9, 300]):
        image, cells = dataset[row]
        y, x = np.nonzero(label == LABELS)
        top = int(np.floor(y.mean() + 0.5 - 12 + 0.5))
        left = int(np.floor(x.mean() + 0.5 - 12 + 0.5))
        for part, whole in ((image, PIXELS), (cells, LABELS[None])):
            padded = np.pad(whole, ((0, 0), (24, 24), (24, 24)))
            expected = padded[:, top + 24 : top + 48, left + 24 : left + 48]
            np.testing.assert_array_equal(part.data, expected)
        assert label in cells.data


def test_items_of_spatialdata_need_it(store):
    dataset = ImageTilesDataset(store, {"cells": "he"}, {"cells": "global"})
    with pytest.raises(DependencyError, match="output='region'"):
        dataset[0]


@pytest.mark.parametrize("labels", [None, {"cells": "cells"}])
def test_torch_collates_items_by_itself(store, labels):
    """What nobody knows is left out of items: `default_collate` takes no None."""
    torch = pytest.importorskip("torch")
    dataset = ImageTilesDataset(
        store,
        {"cells": "he"},
        {"cells": "global"},
        regions_to_labels=labels,
        output="region",
        tile_size=8,
        tile_scale=2,
    )
    whole = dataset.read_batch(np.arange(3))
    for options in ({}, {"collate_fn": mt.collate_regions}):
        (batch,) = torch.utils.data.DataLoader(dataset, batch_size=3, **options)
        sides = [batch] if labels is None else batch
        expected = [whole] if labels is None else whole
        for side, own in zip(sides, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(side.data), own.data)
