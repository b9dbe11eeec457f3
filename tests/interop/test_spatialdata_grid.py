"""Every kind of region and image in every kind of system, beside spatialdata and plain numpy.

Cut tiles, tables and annotations are spatialdata's own. Rasterized tiles are, to the pixel, those
under the centres that numpy finds in the whole image, and spatialdata's within the half of a target
pixel by which its own are off.
"""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest

from microtome.interop import ImageTilesDataset

with warnings.catch_warnings():
    # What it imports warns of its own future, and of a config file that is not there.
    warnings.simplefilter("ignore")
    spatialdata = pytest.importorskip(
        "spatialdata", reason="needs a spatialdata that can be imported", exc_type=ImportError
    )
    ad = pytest.importorskip("anndata")
    from spatialdata.dataloader import ImageTilesDataset as Peer
    from spatialdata.datasets import blobs
    from spatialdata.models import TableModel
    from spatialdata.transformations import (
        Affine,
        Identity,
        Scale,
        Sequence,
        Translation,
        get_transformation,
        set_transformation,
    )

# Its own calls of what it is built on, not ours.
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

TURN = np.deg2rad(30)
SYSTEMS = {
    "global": Identity(),
    "scaled": Scale([2.0, 0.5], axes=("x", "y")),
    "shifted": Sequence([Scale([4.0, 4.0], axes=("x", "y")), Translation([7.0, -3.0], ("x", "y"))]),
    "turned": Affine(
        [[np.cos(TURN), -np.sin(TURN), 40.0], [np.sin(TURN), np.cos(TURN), -20.0], [0, 0, 1]],
        ("x", "y"),
        ("x", "y"),
    ),
}
REGIONS = [
    "blobs_circles",
    "blobs_polygons",
    "blobs_multipolygons",
    "blobs_labels",
    "blobs_multiscale_labels",
]
IMAGES = ["blobs_image", "blobs_multiscale_image"]
LENGTH = 96
# Of the many ways to ask, each combination of the above is asked in one, and each is asked.
ASKED = list(
    product(
        [{"tile_dim_in_units": 16}, {"tile_dim_in_units": 21.3}],
        [None, {"target_width": 11}, {"target_unit_to_pixels": 0.7}],
        [None, "row", ["area", "instance_id"], ["CD8"]],
    )
)
PLACES = list(product(REGIONS, SYSTEMS, IMAGES))
CASES = [(*place, ASKED[5 * number % len(ASKED)]) for number, place in enumerate(PLACES)]


def fresh(region):
    sdata = blobs(length=LENGTH, n_shapes=5)
    for name in [*IMAGES, *REGIONS]:
        for system, transform in SYSTEMS.items():
            set_transformation(sdata[name], transform, system)
    if region in sdata.labels:
        ids = np.unique(whole(sdata, region))[1:]
    else:
        ids = sdata[region].index.to_numpy()
    order = np.random.default_rng(5).permutation(np.concatenate([ids, [9001]]))
    table = ad.AnnData(np.stack([order * 1.5, order + 0.25], axis=1).astype(np.float32))
    table.var_names = ["CD3", "CD8"]
    table.obs["region"] = region
    table.obs["region"] = table.obs["region"].astype("category")
    table.obs["instance_id"] = order
    table.obs["area"] = order * 10.0
    sdata.tables["notes"] = TableModel.parse(
        table, region=region, region_key="region", instance_key="instance_id"
    )
    return sdata


def whole(sdata, name):
    element = sdata[name]
    return (element["scale0"]["image"] if hasattr(element, "children") else element).values


def options(asked):
    size, raster, annotations = asked
    found = dict(size)
    if raster is not None:
        found.update(rasterize=True, rasterize_kwargs=raster)
    if annotations is not None:
        found["table_name"] = "notes"
    if isinstance(annotations, list):
        found["return_annotations"] = annotations
    return found


def under_centres(sdata, image, system, box, side):
    """Return where, in pixels (y, x) of the finest level, the centres of a raster's pixels lie."""
    steps = (np.arange(side) + 0.5) * ((box["maxx"] - box["minx"]) / side)
    y, x = np.meshgrid(box["miny"] + steps, box["minx"] + steps, indexing="ij")
    back = get_transformation(sdata[image], system).inverse()
    matrix = back.to_affine_matrix(("x", "y"), ("x", "y"))
    px, py, _ = np.tensordot(matrix, np.stack([x, y, np.ones_like(x)]), 1)
    return py, px


def parts(item, image):
    """Return the pixels of an item and what goes along with them."""
    if isinstance(item, tuple):
        return item[0], np.asarray(item[1])
    row = item["notes"] if "notes" in item.tables else None
    return item[image], None if row is None else (row.obs, row.X)


@pytest.mark.parametrize(
    ("region", "system", "image", "asked"),
    CASES,
    ids=["-".join([*case[:3], *map(str, case[3])]) for case in CASES],
)
def test_tiles_and_what_goes_along(region, system, image, asked):
    sdata = fresh(region)
    arguments = {region: image}, {region: system}
    ours = ImageTilesDataset(sdata, *arguments, **options(asked))
    peer = Peer(fresh(region), *arguments, **options(asked))
    columns = ["x", "y", "extent", "minx", "miny", "maxx", "maxy"]
    np.testing.assert_allclose(ours.tiles_coords[columns], peer.tiles_coords[columns])
    assert ours.dataset_index.astype(object).equals(peer.dataset_index.astype(object))
    pixels = whole(sdata, image)
    steepest = sum(np.abs(np.diff(pixels, axis=axis)).max() for axis in (1, 2))
    for row in (0, len(peer) // 2, -1):
        (tile, along), (expected, theirs) = parts(ours[row], image), parts(peer[row], image)
        assert tile.shape == expected.shape
        assert tile.dtype == expected.dtype
        if isinstance(along, tuple):
            assert along[0].equals(theirs[0])
            np.testing.assert_array_equal(along[1], theirs[1])
        elif along is not None:
            np.testing.assert_array_equal(along, theirs)
        if asked[1] is None:
            np.testing.assert_array_equal(tile.values, expected.values)
            continue
        box = ours.tiles_coords[columns].iloc[row]
        y, x = under_centres(sdata, image, system, box, tile.shape[-1])
        inside = (y >= 0) & (y < LENGTH) & (x >= 0) & (x < LENGTH)
        assert not tile.values[:, ~inside].any()
        if image == "blobs_image":  # Of several levels it may be another one.
            # A centre on the edge of two pixels is in either of them.
            sure = inside & (np.abs(y - np.round(y)) > 1e-6) & (np.abs(x - np.round(x)) > 1e-6)
            found = pixels[:, np.floor(y[sure]).astype(int), np.floor(x[sure]).astype(int)]
            np.testing.assert_array_equal(tile.values[:, sure], found)
        # How many pixels of the image one of the tile is long; the peer's is half of it off.
        along_y = np.abs(np.diff(y, axis=0)).max() + np.abs(np.diff(y, axis=1)).max()
        along_x = np.abs(np.diff(x, axis=0)).max() + np.abs(np.diff(x, axis=1)).max()
        long = max(along_y, along_x, 1)
        margin = 2 * long + 2
        well = (y > margin) & (y < LENGTH - margin) & (x > margin) & (x < LENGTH - margin)
        apart = np.abs(tile.values - expected.values)[:, well]
        assert apart.max(initial=0) <= steepest * (long + 1)
