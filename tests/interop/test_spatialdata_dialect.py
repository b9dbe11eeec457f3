"""Stores as spatialdata writes them, of both container formats and with every kind of transform.

What is expected is what spatialdata itself reads of the same store.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from microtome.interop import ImageTilesDataset

with warnings.catch_warnings():
    # What it imports warns of its own future, and of a config file that is not there.
    warnings.simplefilter("ignore")
    spatialdata = pytest.importorskip(
        "spatialdata", reason="needs a spatialdata that can be imported", exc_type=ImportError
    )
    from spatialdata._io.format import SpatialDataContainerFormatV01, SpatialDataContainerFormatV02
    from spatialdata.dataloader import ImageTilesDataset as Peer
    from spatialdata.datasets import blobs
    from spatialdata.transformations import (
        Affine,
        MapAxis,
        Scale,
        Sequence,
        Translation,
        set_transformation,
    )

# Its own calls of what it is built on, not ours.
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

SYSTEMS = {
    "swapped": MapAxis({"x": "y", "y": "x"}),
    "sequence": Sequence(
        [
            Scale([2, 3], axes=("x", "y")),
            MapAxis({"x": "y", "y": "x"}),
            Translation([5], axes=("y",)),
        ]
    ),
    # Leads to (y, x): its rows are in another order than its columns.
    "ordered": Affine([[0, 1, 2], [1, 0.5, 3], [0, 0, 1]], ("x", "y"), ("y", "x")),
}
REGIONS = ["blobs_labels", "blobs_polygons", "blobs_circles"]
IMAGES = ["blobs_image", "blobs_multiscale_image"]


@pytest.fixture(
    scope="module",
    params=[SpatialDataContainerFormatV01, SpatialDataContainerFormatV02],
    ids=["0.1", "0.2"],
)
def store(request, tmp_path_factory):
    sdata = blobs(length=96, n_shapes=5)
    for name in [*REGIONS, *IMAGES]:
        for system, transform in SYSTEMS.items():
            set_transformation(sdata[name], transform, system)
    path = tmp_path_factory.mktemp("dialect") / "a.zarr"
    sdata.write(path, sdata_formats=request.param())
    return path


@pytest.mark.parametrize("system", list(SYSTEMS))
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("image", IMAGES)
def test_a_store_is_what_spatialdata_reads_of_it(store, image, region, system):
    arguments = {region: image}, {region: system}
    ours = ImageTilesDataset(store, *arguments, tile_dim_in_units=9.3)
    # Read anew: it changes circles in place.
    peer = Peer(spatialdata.read_zarr(store), *arguments, tile_dim_in_units=9.3)
    places = ["x", "y", "extent"]
    np.testing.assert_allclose(ours.tiles_coords[places], peer.tiles_coords[places])
    assert ours.dataset_index.astype(object).equals(peer.dataset_index.astype(object))
    for row in range(0, len(peer), 3):
        np.testing.assert_array_equal(ours[row][image].values, peer[row][image].values)
