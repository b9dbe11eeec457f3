"""Transforms as OME-NGFF stores them, compared with matrices written out by hand."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.cli import main
from microtome.coordinates import (
    AffineTransform,
    BijectionTransform,
    IdentityTransform,
    ScaleTransform,
    SequenceTransform,
    TransformGraph,
    TranslationTransform,
    transform_from_json,
    transform_to_json,
)
from microtome.errors import FormatError, InvalidInputError, UnknownNameError

YX = ("y", "x")
QUARTER = [[0.0, -1.0], [1.0, 0.0]]

# Each with what it makes of the point (y, x) = (3, 5), worked out by hand.
DOCUMENTS = [
    ({"type": "identity"}, (3, 5)),
    ({"type": "translation", "translation": [10, -1]}, (13, 4)),
    ({"type": "scale", "scale": [2, 0.5]}, (6, 2.5)),
    ({"type": "rotation", "rotation": QUARTER}, (-5, 3)),
    ({"type": "affine", "affine": [[1, 2, 100], [0, 1, 200]]}, (113, 205)),
    ({"type": "mapAxis", "mapAxis": [1, 0]}, (5, 3)),
    (
        {
            "type": "sequence",
            "transformations": [
                {"type": "scale", "scale": [2, 2]},
                {"type": "translation", "translation": [1, 1]},
            ],
        },
        (7, 11),
    ),
    (
        {
            "type": "byDimension",
            "transformations": [
                {"type": "translation", "translation": [7], "input_axes": [0], "output_axes": [0]},
                {"type": "scale", "scale": [10], "input_axes": [1], "output_axes": [1]},
            ],
        },
        (10, 50),
    ),
    (
        {
            "type": "byDimension",
            "transformations": [
                {
                    "transformation": {"type": "scale", "scale": [10]},
                    "input_axes": ["y"],
                    "output_axes": ["x"],
                },
                {
                    "transformation": {"type": "identity"},
                    "input_axes": ["x"],
                    "output_axes": ["y"],
                },
            ],
        },
        (5, 30),
    ),
    (
        {
            "type": "bijection",
            "forward": {"type": "scale", "scale": [2, 2]},
            "inverse": {"type": "scale", "scale": [0.5, 0.5]},
        },
        (6, 10),
    ),
]


@pytest.mark.parametrize(("document", "wanted"), DOCUMENTS)
def test_every_linear_type_maps_a_point_as_worked_out_by_hand(document, wanted):
    transform = transform_from_json(document, YX, YX)
    np.testing.assert_allclose(transform.apply([3, 5]), wanted)
    np.testing.assert_allclose(transform.inverse_transform().apply(wanted), [3, 5])


@pytest.mark.parametrize(("document", "wanted"), DOCUMENTS)
def test_what_is_written_reads_back_as_the_same_map(document, wanted):
    written = json.loads(json.dumps(transform_to_json(transform_from_json(document, YX, YX))))
    np.testing.assert_allclose(transform_from_json(written, YX, YX).apply([3, 5]), wanted)


def test_a_bijection_is_taken_at_its_word():
    forward = TranslationTransform(YX, YX, [1, 1])
    backward = TranslationTransform(YX, YX, [10, 10])
    both = BijectionTransform(forward, backward)
    assert both.apply([0, 0]).tolist() == [1, 1]
    assert both.inverse_transform().apply([0, 0]).tolist() == [10, 10]
    with pytest.raises(InvalidInputError, match="must lead back"):
        BijectionTransform(forward, IdentityTransform(("a", "b"), YX))


numbers = st.floats(-100, 100, allow_subnormal=False)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5), st.tuples(numbers, numbers))
def test_a_sequence_is_its_steps_one_after_the_other(shifts, point):
    steps = [TranslationTransform(YX, YX, shift) for shift in shifts]
    steps.append(ScaleTransform(YX, YX, [2, 3]))
    expected = np.asarray(point)
    for step in steps:
        expected = step.apply(expected)
    np.testing.assert_allclose(SequenceTransform(steps).apply(point), expected, atol=1e-9)
    back = SequenceTransform(steps).inverse_transform().apply(expected)
    np.testing.assert_allclose(back, point, atol=1e-9)


def test_steps_that_do_not_fit_and_empty_sequences_are_refused():
    with pytest.raises(InvalidInputError, match="cannot compose"):
        SequenceTransform([IdentityTransform(YX, YX), IdentityTransform(("a", "b"), YX)])
    with pytest.raises(InvalidInputError, match="at least one"):
        SequenceTransform([])


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"type": "displacements", "path": "d"}, "type 'displacements' cannot be read"),
        ({}, "type None cannot be read"),
        ({"type": "scale"}, "'scale'"),
        ({"type": "scale", "scale": [1, 2, 3]}, "2 finite numbers"),
        ({"type": "scale", "scale": [1, math.nan]}, "2 finite numbers"),
        ({"type": "rotation", "rotation": [[2, 0], [0, 2]]}, "is not a rotation"),
        ({"type": "rotation", "rotation": [[0, 1], [1, 0]]}, "is not a rotation"),
        ({"type": "rotation", "rotation": "path/to/array"}, "list of rows"),
        ({"type": "affine", "affine": [[1, 0], [0, 1]]}, "2 x 3 numbers"),
        ({"type": "affine", "affine": [[1, 0, 0], [0, 1]]}, "rows of equal length"),
        ({"type": "mapAxis", "mapAxis": [0, 0]}, "every input axis once"),
        ({"type": "sequence", "transformations": []}, "at least one"),
        (
            {
                "type": "byDimension",
                "transformations": [
                    {"type": "identity", "input_axes": [0], "output_axes": [0]},
                ],
            },
            "every axis once",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(document, reason):
    with pytest.raises(FormatError, match=reason):
        transform_from_json(document, YX, YX)


def scene(*edges, names=("a", "b", "c")):
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space", "unit": "micrometer"}]
    return {
        "coordinateSystems": [{"name": name, "axes": axes} for name in names],
        "coordinateTransformations": [
            {"input": source, "output": target, **document} for source, target, document in edges
        ],
    }


def test_a_graph_finds_its_way_backwards_too():
    graph = TransformGraph.from_scene(
        scene(
            ("a", "b", {"type": "translation", "translation": [1, 2]}),
            ("c", "b", {"type": "scale", "scale": [2, 4]}),
        )
    )
    assert graph.transform("a", "c").apply([1, 2]).tolist() == [1, 1]
    assert graph.transform("c", "a").apply([1, 1]).tolist() == [1, 2]
    assert graph.transform("a", "a") == IdentityTransform(YX, YX)
    assert graph.spaces["a"].axis("x").unit == "micrometer"


def test_a_graph_refuses_what_is_not_in_it():
    graph = TransformGraph.from_scene(scene(("a", "b", {"type": "identity"})))
    with pytest.raises(UnknownNameError, match="no coordinate system 'potato'"):
        graph.transform("a", "potato")
    with pytest.raises(UnknownNameError, match="no transforms lead from 'a' to 'c'"):
        graph.transform("a", "c")
    with pytest.raises(FormatError, match="speaks of the coordinate system 'potato'"):
        TransformGraph.from_scene(scene(("a", "potato", {"type": "identity"})))
    with pytest.raises(FormatError, match="two coordinate systems 'a'"):
        TransformGraph.from_scene(scene(names=("a", "a")))
    with pytest.raises(FormatError, match="incomplete"):
        TransformGraph.from_scene({})
    flat = TransformGraph.from_scene(scene(("a", "b", {"type": "scale", "scale": [0, 1]})))
    with pytest.raises(InvalidInputError, match="cannot be inverted"):
        flat.transform("b", "a")
    with pytest.raises(InvalidInputError, match="no space 'a' with axes"):
        TransformGraph(
            graph.spaces, [("a", "b", AffineTransform(("u", "v"), ("u", "v"), np.eye(2)))]
        )


def test_the_conformance_verb_prints_json_and_fails_with_a_code(tmp_path, capsys):
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "ome": {
                "version": "0.6",
                "scene": scene(("a", "b", {"type": "scale", "scale": [2, 3]})),
            }
        },
    }
    (tmp_path / "zarr.json").write_text(json.dumps(group))
    assert main(["conformance", str(tmp_path), "b", "a", "[[2, 3], [4, 6]]"]) == 0
    assert json.loads(capsys.readouterr().out) == {"coordinates": [[1, 1], [2, 2]]}
    assert main(["conformance", str(tmp_path), "a", "nowhere", "[[2, 3]]"]) == 2
    assert main(["conformance", str(tmp_path), "a", "b", "[[2, 3"]) == 2
    assert main(["conformance", str(tmp_path), "a", "b", "[[2, 3, 4]]"]) == 2
