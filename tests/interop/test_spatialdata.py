"""Elements of SpatialData are images of ours: the same pixels, at the same places of its systems.

Not in the `interop` extra: spatialdata 0.7 asks for an older dask than the other readers, and is installed
beside them without what it asks for (`constraints-beside.txt`), and with it by ``make spatialdata``.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import microtome as mt
from microtome.sources import element_transform

with warnings.catch_warnings():
    # What it imports warns of its own future, and of a config file that is not there.
    warnings.simplefilter("ignore")
    spatialdata = pytest.importorskip(
        "spatialdata", reason="needs a spatialdata that can be imported"
    )
    from spatialdata.datasets import blobs
    from spatialdata.models import Image2DModel, Image3DModel, Labels3DModel
    from spatialdata.transformations import Affine, Scale, Sequence, Translation, set_transformation

# Its own calls of what it is built on, not ours.
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def sample():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return blobs(length=130, n_channels=4, c_coords=["DNA", "CD3", "CD8", "CD20"])


@pytest.mark.parametrize("name", ["blobs_image", "blobs_labels"])
def test_an_element_of_one_level(sample, name):
    element = sample[name]
    image = mt.open_image(element)
    expected = element.data.compute()
    assert image.kind == ("labels" if "labels" in name else "intensity")
    assert image.mpp is None
    if image.kind == "intensity":
        assert image.channel_names == ("DNA", "CD3", "CD8", "CD20")
    np.testing.assert_array_equal(image.level(0)[...], expected)
    np.testing.assert_array_equal(image.read(0, (3, 99), (17, 18)), expected[..., 3:99, 17:18])


@pytest.mark.parametrize("name", ["blobs_multiscale_image", "blobs_multiscale_labels"])
def test_every_level_and_where_it_lies(sample, name):
    tree = sample[name]
    image = mt.open_image(tree, mpp=0.5)
    assert image.level_count == len(tree.children) == 3
    for index, node in enumerate(tree.children.values()):
        (level,) = node.data_vars.values()
        np.testing.assert_array_equal(image.level(index)[...], level.data.compute())
        # SpatialData's coordinates are those of pixel centres, ours of edges.
        edges = image.get_transform_from_level(index)
        y, x = level.coords["y"].to_numpy(), level.coords["x"].to_numpy()
        mine = edges.apply([[0.5, 0.5], [level.sizes["x"] - 0.5, level.sizes["y"] - 0.5]])
        np.testing.assert_allclose(mine, [[x[0], y[0]], [x[-1], y[-1]]])


@pytest.mark.parametrize(
    "to_system",
    [
        Scale([0.5, 0.25], axes=("x", "y")),
        Sequence([Scale([2, 2], axes=("y", "x")), Translation([7, -3], axes=("y", "x"))]),
        Affine([[0, 2, 5], [-1, 0, 90], [0, 0, 1]], ("x", "y"), ("x", "y")),
    ],
    ids=["scale", "shifted", "turned"],
)
@pytest.mark.parametrize("factors", [None, [2, 2]])
def test_a_box_of_a_coordinate_system(to_system, factors):
    values = RNG.integers(0, 2**16, (2, 101, 77), dtype=np.uint16)
    element = Image2DModel.parse(
        values, dims=("c", "y", "x"), c_coords=["a", "b"], scale_factors=factors
    )
    set_transformation(element, to_system, "tissue")
    image = mt.open_image(element)
    to_tissue = element_transform(element, "tissue")
    np.testing.assert_allclose(
        to_tissue.augmented_matrix, to_system.to_affine_matrix(("x", "y"), ("x", "y"))
    )
    box = to_tissue.apply_box((10, 20, 40, 70))
    read = image.read_spatial_region(0, box, region_transform=to_tissue.inverse_transform())
    np.testing.assert_array_equal(read.data, values[:, 20:70, 10:40])
    # What SpatialData itself cuts out of the same box.
    cut = spatialdata.bounding_box_query(
        element,
        axes=("x", "y"),
        min_coordinate=np.array(box[:2]),
        max_coordinate=np.array(box[2:]),
        target_coordinate_system="tissue",
    )
    level = cut if factors is None else next(iter(cut["scale0"].data_vars.values()))
    np.testing.assert_array_equal(level.data.compute(), read.data)


def test_volumes():
    values = RNG.integers(0, 2**16, (2, 5, 40, 31), dtype=np.uint16)
    image = mt.open_image(Image3DModel.parse(values, dims=("c", "z", "y", "x")))
    assert image.axes == "czyx"
    np.testing.assert_array_equal(
        image.read_spatial_region(0, (3, 4, 1, 9, 12, 3)).data, values[:, 1:3, 4:12, 3:9]
    )
    labels = mt.open_image(Labels3DModel.parse(values[0].astype(np.int64), dims=("z", "y", "x")))
    assert (labels.axes, labels.kind) == ("zyx", "labels")


def test_the_whole_object_holds_many_images(sample):
    with pytest.raises(mt.MicrotomeError, match="open one of them"):
        mt.open_image(sample)
