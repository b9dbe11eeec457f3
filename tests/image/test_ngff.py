"""OME-NGFF metadata: what the versions mean in micrometres, and what is refused rather than guessed."""

from __future__ import annotations

import copy
import json

import pytest

from microtome.errors import FormatError
from microtome.image import DatasetEntry, read_metadata, write_metadata

AXES = [
    {"name": "c", "type": "channel"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]


def scale(*numbers):
    return {"type": "scale", "scale": list(numbers)}


def shift(*numbers):
    return {"type": "translation", "translation": list(numbers)}


def level(path, *transforms):
    return {"path": path, "coordinateTransformations": list(transforms)}


def image(**changes):
    """A multiscales entry of 0.4 or 0.5 with one level of 0.5 x 0.25 um."""
    return {"axes": AXES, "datasets": [level("0", scale(1, 0.5, 0.25))], **changes}


def old(**changes):
    return {"multiscales": [image(version="0.4", **changes)]}


def new(version="0.5", **changes):
    return {"ome": {"version": version, "multiscales": [image(**changes)]}}


def with_axes(*names, **units):
    types = {"t": "time", "c": "channel"}
    return [
        {"name": n, "type": types.get(n, "space"), **({"unit": units[n]} if n in units else {})}
        for n in names
    ]


def read(attributes):
    return read_metadata(attributes, where="/data/a.zarr")


# ------------------------------------------------------------------ 0.4 and 0.5


@pytest.mark.parametrize("attributes", [old(), new()], ids=["0.4", "0.5"])
def test_the_plain_case(attributes):
    found = read(attributes)
    assert found.axes == "cyx"
    assert found.datasets == (DatasetEntry("0", (1, 0.5, 0.25), (0, 0, 0)),)
    assert found.has_unit
    assert (found.channel_names, found.kind, found.name) == (None, "intensity", None)
    assert found.attributes is attributes


def test_a_translation_is_in_the_same_unit_and_a_second_scale_scales_it():
    # Per level: 2 i + 3; then for all of them 10 times that plus 1: 20 i + 31.
    found = read(
        old(
            datasets=[level("0", scale(1, 2, 2), shift(0, 3, 3))],
            coordinateTransformations=[scale(1, 10, 100), shift(0, 1, 5)],
        )
    )
    assert found.datasets[0].scale == (1, 20, 200)
    assert found.datasets[0].translation == (0, 31, 305)


def test_levels_come_in_order_with_their_paths():
    found = read(
        new(
            datasets=[
                level("scale0/image", scale(1, 1, 1)),
                level("s 1", scale(1, 2, 2), shift(0, 0.5, 0.5)),
            ]
        )
    )
    assert [entry.path for entry in found.datasets] == ["scale0/image", "s 1"]
    assert found.datasets[1].translation == (0, 0.5, 0.5)


@pytest.mark.parametrize(
    ("unit", "micrometres"),
    [
        ("angstrom", 1e-4),
        ("nanometer", 1e-3),
        ("micrometer", 1),
        ("millimeter", 1e3),
        ("centimeter", 1e4),
        ("meter", 1e6),
    ],
)
def test_units_of_length_become_micrometres(unit, micrometres):
    found = read(
        new(
            axes=with_axes("t", "z", "y", "x", t="second", z=unit, y=unit, x=unit),
            datasets=[level("0", scale(3, 4, 5, 6), shift(1, 2, 3, 4))],
        )
    )
    assert found.has_unit
    # Time keeps its own unit.
    assert found.datasets[0].scale == pytest.approx(
        (3, 4 * micrometres, 5 * micrometres, 6 * micrometres), rel=1e-15
    )
    assert found.datasets[0].translation == pytest.approx(
        (1, 2 * micrometres, 3 * micrometres, 4 * micrometres), rel=1e-15
    )


def test_each_axis_has_its_own_unit():
    found = read(
        new(
            axes=with_axes("y", "x", y="nanometer", x="micrometer"),
            datasets=[level("0", scale(500, 0.5))],
        )
    )
    assert found.datasets[0].scale == (0.5, 0.5)


@pytest.mark.parametrize(
    "units",
    [
        {},
        {"y": "micrometer"},
        {"x": "micrometer"},
        {"y": "pixel", "x": "pixel"},
        {"y": None, "x": None},
    ],
)
def test_without_units_a_scale_is_no_pixel_size(units):
    found = read(new(axes=with_axes("y", "x", **units), datasets=[level("0", scale(0.5, 0.5))]))
    assert not found.has_unit


@pytest.mark.parametrize(
    "dataset",
    [
        {"path": "0"},
        {"path": "0", "coordinateTransformations": []},
        {"path": "0", "coordinateTransformations": None},
        level("0", shift(0, 3, 3)),
    ],
)
def test_a_level_that_states_no_scale_has_no_pixel_size(dataset):
    # The unit is there, but nobody measured the one micrometre that would follow.
    found = read(new(datasets=[dataset]))
    assert not found.has_unit
    assert found.datasets[0].scale == (1, 1, 1)


def test_a_scale_for_all_levels_states_it():
    found = read(old(datasets=[{"path": "0"}], coordinateTransformations=[scale(1, 0.5, 0.5)]))
    assert found.has_unit
    assert found.datasets[0].scale == (1, 0.5, 0.5)


def test_upper_case_axes_are_axes():
    found = read(old(axes=[{**axis, "name": axis["name"].upper()} for axis in AXES]))
    assert found.axes == "cyx"
    assert found.has_unit


@pytest.mark.parametrize("names", ["yx", "zyx", "cyx", "tyx", "tcyx", "czyx", "tzyx", "tczyx"])
def test_axes_in_the_order_of_the_standard(names):
    found = read(new(axes=with_axes(*names), datasets=[level("0", scale(*[1] * len(names)))]))
    assert found.axes == names


@pytest.mark.parametrize(
    "names",
    [
        "xy", "yxc", "ycx", "ctyx", "zcyx", "yyx", "yxx", "y", "x", "zy", "qyx", "tczyyx",
        ["y", "lon"], ["", "y", "x"], ["tc", "y", "x"], ["dim_0", "dim_1"], [],
    ],
)  # fmt: skip
def test_axes_in_another_order_are_refused(names):
    # A channel axis at the end would be read as columns.
    with pytest.raises(FormatError, match="axes must be of t, c, z, y, x"):
        read(new(axes=with_axes(*names), datasets=[level("0", scale(*[1] * len(names)))]))


def test_channels_kind_and_name():
    attributes = new(name="liver")
    attributes["ome"]["omero"] = {
        "channels": [
            {"label": "DNA"},
            {"color": "FF0000"},
            {"label": None},
            {"label": ""},
            {"label": 7},
        ]
    }
    found = read(attributes)
    assert found.channel_names == ("DNA", "1", "2", "3", "7")
    assert found.name == "liver"
    for omero in (None, {}, {"channels": []}, {"channels": None}):
        attributes["ome"]["omero"] = omero
        assert read(attributes).channel_names is None
    attributes["ome"]["image-label"] = {}
    assert read(attributes).kind == "labels"
    assert read({**old(), "image-label": {"version": "0.4"}}).kind == "labels"


# ------------------------------------------------------------------ 0.6


def modern(
    version="0.6", systems=None, output=None, common=None, reference=lambda name: {"name": name}
):
    """An image of 0.6: three levels in nanometres that lead to "intrinsic"."""
    nanometres = [dict(axis) for axis in AXES]
    for axis in nanometres[1:]:
        axis["unit"] = "nanometer"
    millimetres = [{**axis, **({"unit": "millimeter"} if "unit" in axis else {})} for axis in AXES]
    ends = {"input": reference("0"), "output": reference(output or "intrinsic")}
    return {
        "ome": {
            "version": version,
            "multiscales": [
                {
                    "name": "a",
                    "coordinateSystems": systems
                    or [
                        {"name": "stage", "axes": millimetres},
                        {"name": "intrinsic", "axes": nanometres},
                        {"name": "atlas", "axes": millimetres},
                    ],
                    "datasets": [
                        {
                            "path": "0",
                            "coordinateTransformations": [{**scale(1, 500, 250), **ends}],
                        },
                        {
                            "path": "1",
                            "coordinateTransformations": [
                                {
                                    "type": "sequence",
                                    "transformations": [scale(1, 1000, 500), shift(0, 250, 125)],
                                    **ends,
                                }
                            ],
                        },
                    ],
                    "coordinateTransformations": common
                    or [
                        {
                            "type": "affine",
                            "affine": [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]],
                            "input": reference("intrinsic"),
                            "output": reference("atlas"),
                        },
                        {
                            **scale(1, 9, 9),
                            "input": reference("intrinsic"),
                            "output": reference("stage"),
                        },
                    ],
                }
            ],
        }
    }


@pytest.mark.parametrize("version", ["0.6", "0.6.0", "0.6.dev3"])
@pytest.mark.parametrize("reference", [str, lambda name: {"name": name}], ids=["text", "object"])
def test_the_axes_are_those_of_the_system_that_levels_lead_to(version, reference):
    # Neither the first nor the last in the list; and what leads on from it is not the pixels'.
    found = read(modern(version, reference=reference))
    assert found.axes == "cyx"
    assert found.has_unit
    assert found.datasets[0] == DatasetEntry("0", (1, 0.5, 0.25), (0, 0, 0))
    assert found.datasets[1] == DatasetEntry("1", (1, 1, 0.5), (0, 0.25, 0.125))


def test_an_identity_states_a_size_of_one():
    attributes = modern()
    (entry, _) = attributes["ome"]["multiscales"][0]["datasets"]
    entry["coordinateTransformations"] = [{"type": "identity", "output": {"name": "intrinsic"}}]
    found = read(attributes)
    assert found.datasets[0].scale == (1, 0.001, 0.001)
    assert found.has_unit


@pytest.mark.parametrize("output", ["nowhere", "Intrinsic"])
def test_levels_that_lead_nowhere_are_refused(output):
    with pytest.raises(FormatError, match=f"levels lead to .*{output}"):
        read(modern(output=output))


def test_levels_that_lead_to_different_systems_are_refused():
    attributes = modern()
    entry = attributes["ome"]["multiscales"][0]["datasets"][1]
    entry["coordinateTransformations"][0]["output"] = {"name": "stage"}
    with pytest.raises(FormatError, match="levels lead to"):
        read(attributes)


def test_a_system_of_bare_array_axes_is_refused():
    systems = [
        {"name": "intrinsic", "axes": [{"name": f"dim_{i}", "type": "array"} for i in range(3)]}
    ]
    with pytest.raises(FormatError, match="axes must be of"):
        read(modern(systems=systems))


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "version", ["0.1", "0.3", "0.7", "0.60", "1.0", "0.40", "", "latest", None, 5]
)
@pytest.mark.parametrize("place", ["ome", "multiscales"])
def test_a_version_that_is_not_known_is_refused(version, place):
    attributes = new(version) if place == "ome" else {"multiscales": [image(version=version)]}
    with pytest.raises(FormatError, match=r"is OME-Zarr .*; versions 0\.4, 0\.5, 0\.6 can be read"):
        read(attributes)


def test_the_dialect_of_spatialdata_is_known():
    assert read(new("0.5-dev-spatialdata")).has_unit


@pytest.mark.parametrize(
    "transform",
    [
        {"type": "affine", "affine": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]},
        {"type": "rotation", "rotation": [[1, 0], [0, 1]]},
        {"type": "mapAxis", "mapAxis": [0, 2, 1]},
        {"type": "scale", "path": "scales"},
        {"type": "scale", "scale": 2},
        {"type": "scale", "scale": [2, 2]},
        {"type": "scale", "scale": [1, 2, 2, 2]},
        {"type": "translation", "translation": [1, 1]},
        {"type": "scale"},
        {"type": None},
        {},
        {"type": "scale", "scale": ["a", "b", "c"]},
        {"type": "scale", "scale": [1, None, 1]},
        {"type": "sequence", "transformations": [{"type": "affine"}]},
        {"type": "sequence"},
        "scale",
        # Sizes that no pixel has, and mirrored axes.
        scale(1, 0, 1),
        scale(1, 1, -0.5),
        scale(1, float("nan"), 1),
        scale(1, 1, float("inf")),
        shift(0, float("nan"), 0),
        shift(0, 0, float("inf")),
    ],
    ids=repr,
)
@pytest.mark.parametrize("place", ["level", "all"])
def test_a_transform_that_would_have_to_be_guessed_is_refused(transform, place):
    attributes = new()
    entry = attributes["ome"]["multiscales"][0]
    if place == "level":
        entry["datasets"] = [level("7", transform)]
    else:
        entry["coordinateTransformations"] = [transform]
    with pytest.raises(FormatError, match=r"/data/a\.zarr"):
        read(attributes)


@pytest.mark.parametrize("path", ["/etc", "..", "../b/0", "a/../../b", "", ".", None, 0])
def test_a_level_outside_the_image_is_refused(path):
    with pytest.raises(FormatError):
        read(new(datasets=[level(path, scale(1, 1, 1))]))


@pytest.mark.parametrize("key", ["axes", "datasets"])
@pytest.mark.parametrize(
    "value", [None, [], {}, 3, "text", [None], [3], [[]], [{}], ["yx"]], ids=repr
)
def test_metadata_of_another_shape_is_refused(key, value):
    with pytest.raises(FormatError, match=r"/data/a\.zarr"):
        read(new(**{key: value}))


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"ome": {}},
        {"ome": None},
        {"ome": []},
        {"ome": "0.5"},
        {"multiscales": []},
        {"multiscales": {}},
        {"multiscales": None},
        {"multiscales": 5},
        {"multiscales": [None]},
        {"multiscales": ["a"]},
        {"plate": {}},
        {"bioformats2raw.layout": 3},
        {"ome": {"version": "0.5", "multiscales": [{}]}},
        {"ome": {"version": "0.6", "multiscales": [{"coordinateSystems": []}]}},
        {"ome": {**new()["ome"], "omero": [1]}},
        {"ome": {**new()["ome"], "omero": {"channels": [3]}}},
    ],
    ids=repr,
)
def test_what_is_no_image_is_refused(attributes):
    with pytest.raises(FormatError, match=r"/data/a\.zarr"):
        read(attributes)


# ------------------------------------------------------------------ writing


def written(**changes):
    arguments = {
        "axes": "cyx",
        "datasets": [
            DatasetEntry("0", (1.0, 0.5, 0.25), (0.0, 3.0, 4.0)),
            DatasetEntry("1", (1.0, 1.0, 0.5), (0.0, 3.25, 4.125)),
        ],
        "channel_names": ["DNA", "CD3"],
        "kind": "intensity",
        "name": "a",
    }
    return write_metadata(**{**arguments, **changes})


def test_what_is_written_is_read_back():
    attributes = json.loads(json.dumps(written(extra={"study": {"id": 3}, "ome": "overruled"})))
    found = read(attributes)
    assert found.axes == "cyx"
    assert list(found.datasets) == [
        DatasetEntry("0", (1.0, 0.5, 0.25), (0.0, 3.0, 4.0)),
        DatasetEntry("1", (1.0, 1.0, 0.5), (0.0, 3.25, 4.125)),
    ]
    assert found.channel_names == ("DNA", "CD3")
    assert (found.kind, found.name, found.has_unit) == ("intensity", "a", True)
    assert attributes["study"] == {"id": 3}


def test_the_profile_that_every_reader_opens():
    ome = written()["ome"]
    (multiscale,) = ome["multiscales"]
    assert ome["version"] == "0.5"
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"]
    assert [axis.get("unit") for axis in multiscale["axes"]] == [None, "micrometer", "micrometer"]
    for entry in multiscale["datasets"]:
        kinds = [transform["type"] for transform in entry["coordinateTransformations"]]
        assert kinds == ["scale", "translation"]
    for channel in ome["omero"]["channels"]:
        assert len(channel["color"]) == 6
        assert set(channel["window"]) == {"min", "max", "start", "end"}
    assert "image-label" not in ome
    assert multiscale["type"] == "mean"


def test_labels_are_marked_and_have_no_channels_to_show():
    ome = written(
        axes="yx",
        channel_names=None,
        kind="labels",
        datasets=[DatasetEntry("0", (1.0, 1.0), (0.0, 0.0))],
    )["ome"]
    assert ome["image-label"] == {"version": "0.5"}
    assert "omero" not in ome
    assert ome["multiscales"][0]["type"] == "mode"


def test_an_image_without_channels_is_shown_as_one():
    attributes = written(
        axes="yx", channel_names=None, datasets=[DatasetEntry("0", (1.0, 1.0), (0.0, 0.0))]
    )
    (channel,) = attributes["ome"]["omero"]["channels"]
    assert (channel["label"], channel["color"]) == ("a", "FFFFFF")


def test_a_photograph_is_shown_in_its_colours():
    channels = written(channel_names=["R", "G", "B"], rgb=True)["ome"]["omero"]["channels"]
    assert [c["color"] for c in channels] == ["FF0000", "00FF00", "0000FF"]
    assert all(c["active"] and c["window"]["end"] == 255 for c in channels)


def test_forty_channels_are_written_and_few_are_shown_at_first():
    names = [f"marker {i}" for i in range(40)]
    channels = written(channel_names=names)["ome"]["omero"]["channels"]
    assert [c["label"] for c in channels] == names
    assert 1 <= sum(c["active"] for c in channels) < 10


def test_reading_changes_nothing():
    for attributes in (old(), new(), modern(), written()):
        before = copy.deepcopy(attributes)
        read(attributes)
        assert attributes == before
