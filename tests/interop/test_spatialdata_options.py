"""Options of `ImageTilesDataset` that would do nothing are refused, before anything is opened."""

from __future__ import annotations

import warnings

import pytest

import microtome as mt
from microtome.errors import InvalidInputError, NotFoundError

REGION = {"output": "region", "tile_size": 8}


def dataset(**options):
    # There is no such store: whoever looks for it says so with another error.
    return mt.ImageTilesDataset("nowhere.zarr", {"a": "b"}, {"a": "global"}, **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tile_size": 8}, r"^tile_size=8: .* give output='region'"),
        ({"tile_size": 8, "pixel_size": 2.0, "padding": "edge"}, "pixel_size=2.0, padding='edge'"),
        ({"padding": 1}, "padding=1"),
        ({"interpolation": "linear"}, "give rasterize=True"),
        ({**REGION, "interpolation": "area"}, "interpolation='area' says how tiles are rasterized"),
        (
            {**REGION, "rasterize": True, "rasterize_kwargs": {"target_width": 16}},
            r"tile_size=8 and rasterize_kwargs=\{'target_width': 16\} both say",
        ),
        ({"return_annotations": "a"}, "give table_name"),
        ({"output": "tensor"}, "must be 'spatialdata' or 'region'"),
        ({"rasterize": True, "interpolation": "cubic"}, "'nearest'.*got 'cubic'"),
        ({**REGION, "padding": "wrap"}, "a number, 'edge' or 'reflect', got 'wrap'"),
        ({**REGION, "padding": True}, "got True"),
    ],
)
def test_what_would_be_ignored_is_refused(options, told):
    with pytest.raises(InvalidInputError, match=told):
        dataset(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        REGION,
        {**REGION, "pixel_size": 2.0, "padding": 1},
        {**REGION, "rasterize": True, "interpolation": "linear"},
        {"rasterize": True, "rasterize_kwargs": {"target_width": 16}, "interpolation": "area"},
        {"output": "region", "rasterize": True, "rasterize_kwargs": {"target_width": 16}},
    ],
)
def test_what_is_used_is_not(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotFoundError, match="does not exist"):
            dataset(**options)


def test_sizes_of_tiles_that_are_not_rasterized_are_warned_of_as_by_spatialdata():
    with (
        pytest.warns(UserWarning, match="they are ignored") as caught,
        pytest.raises(NotFoundError),
    ):
        mt.ImageTilesDataset(
            "nowhere.zarr", {"a": "b"}, {"a": "global"}, rasterize_kwargs={"target_width": 16}
        )
    assert caught[0].filename == __file__
