"""Planes in the places of an alignment, against a loop over names."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.panels import Channel, ChannelAlignment, Panel, align_channels

torch = pytest.importorskip("torch")


def alignment() -> ChannelAlignment:
    return align_channels(
        {
            "a": Panel(tuple(map(Channel, ("CD3", "DNA", "Ki67")))),
            "b": Panel(tuple(map(Channel, ("CD8", "ki-67", "cd3", "p53")))),
        },
        by="name",
    )


def planes_of(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 99, shape).astype(dtype)


def looped(
    made: ChannelAlignment, cohort: str, planes: np.ndarray, names: list[str], fill: float
) -> Any:
    """Place by place: which of the cohort's channels it is, and where its plane lies."""
    shape = (*planes.shape[:-3], len(made), *planes.shape[-2:])
    out, mask = np.full(shape, fill, planes.dtype), np.zeros(shape[:-2], bool)
    for row in made.report:
        if row.cohort == cohort and row.channel in names and row.aligned:
            place = made.names.index(row.aligned)
            out[..., place, :, :] = planes[..., names.index(row.channel), :, :]
            mask[..., place] = True
    return out, mask


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64, np.bool_])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=["image", "batch", "twice"])
@pytest.mark.parametrize(
    ("cohort", "channels"),
    [
        ("a", None),
        ("b", None),
        ("b", ["p53", "ki-67"]),
        ("a", ["Ki67"]),
        ("a", []),
    ],
    ids=["a", "b", "part", "one", "none"],
)
def test_planes_go_to_their_places(cohort: str, channels: Any, batch: Any, dtype: Any) -> None:
    made = alignment()
    names = list(made.panels[cohort]) if channels is None else channels
    planes = planes_of((*batch, len(names), 4, 5), dtype)
    before = planes.copy()
    out, mask = made.scatter(cohort, planes, channels=channels, fill=1)
    expected, present = looped(made, cohort, planes, names, 1)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(mask, present)
    assert out.dtype == planes.dtype
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(planes, before)

    tensor, tensor_mask = made.scatter(cohort, torch.from_numpy(planes), channels=channels, fill=1)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    np.testing.assert_array_equal(tensor_mask.numpy(), present)
    assert tensor.dtype == torch.from_numpy(planes).dtype
    assert tensor_mask.dtype == torch.bool


@given(st.permutations(["CD8", "ki-67", "cd3", "p53"]), st.integers(0, 4))
def test_any_part_in_any_order(order: list[str], count: int) -> None:
    made, names = alignment(), order[:count]
    planes = planes_of((2, count, 3, 2))
    out, mask = made.scatter("b", planes, channels=names, fill=-1)
    expected, present = looped(made, "b", planes, names, -1)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(mask, present)


def test_the_whole_panel_fills_the_places_that_the_cohort_has() -> None:
    made = alignment()
    _, mask = made.scatter("a", planes_of((3, 2, 2)))
    np.testing.assert_array_equal(mask, made.present("a"))


def test_what_is_missing_may_be_nan() -> None:
    out, mask = alignment().scatter("a", planes_of((2, 3, 4, 4)), fill=float("nan"))
    assert np.isnan(out[~mask]).all()
    assert not np.isnan(out[mask]).any()


def test_masks_and_planes_can_be_written_to() -> None:
    out, mask = alignment().scatter("a", planes_of((2, 3, 4, 4)))
    out[:] = 0
    mask[0] = False
    assert mask[1].any()


def test_gradients_flow_back() -> None:
    planes = torch.ones((1, 3, 2, 2), requires_grad=True)
    out, _ = alignment().scatter("a", planes)
    (out * 2).sum().backward()
    assert planes.grad is not None
    assert planes.grad.unique().tolist() == [2.0]


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
@pytest.mark.parametrize(
    ("cohort", "shape", "options", "kind", "message"),
    [
        ("c", (3, 4, 4), {}, UnknownNameError, "no cohort 'c'"),
        ("a", (2, 4, 4), {}, InvalidInputError, r"must be \(n, 3, Y, X\) .* got \(2, 4, 4\)"),
        ("a", (3, 4), {}, InvalidInputError, r"got \(3, 4\)"),
        (
            "a",
            (1, 4, 4),
            {"channels": ["CD8"]},
            UnknownNameError,
            r"\['CD8'\] are not in the panel",
        ),
        ("a", (2, 4, 4), {"channels": ["CD3", "CD3"]}, InvalidInputError, "name each plane once"),
        ("a", (3, 4, 4), {"fill": float("nan")}, InvalidInputError, "fill=nan does not fit"),
        ("a", (3, 4, 4), {"fill": -1}, InvalidInputError, "whole number from 0 to 255"),
        ("a", (3, 4, 4), {"fill": 0.5}, InvalidInputError, "fill=0.5 does not fit"),
    ],
)
def test_what_is_refused(
    cohort: str, shape: Any, options: Any, kind: Any, message: str, make: Any
) -> None:
    with pytest.raises(kind, match=message):
        alignment().scatter(cohort, make(planes_of(shape, np.uint8)), **options)
