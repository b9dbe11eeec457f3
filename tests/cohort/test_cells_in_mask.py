"""`add_cells`: cells that the cohort's own masks do not have are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from microtome.cohort import CohortLayout, add_cell_masks, add_cells
from microtome.cohort.cells import _in_mask
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage
from microtome.sources import open_image

Tree = Callable[[Path], dict[str, str]]
Cohort = tuple[Path, dict[str, Any]]
SHAPE = (140, 171)  # of tissue "a"


def labelled(*labels: int) -> np.ndarray:
    found = np.zeros(SHAPE, np.int32)
    for place, label in enumerate(labels):
        found[7 * place : 7 * place + 4, 10:14] = label
    return found


def of(tissue: str, *cells: int) -> pa.Table:
    return pa.table({"tissue_id": [tissue] * len(cells), "cell_id": list(cells)})


@pytest.mark.parametrize("table", [1 << 27, 10])
@settings(max_examples=60, deadline=None)
@given(
    mask=arrays(
        st.sampled_from([np.uint8, np.uint16, np.int32, np.uint64]),
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.integers(0, 60),
    ),
    cells=st.sets(st.integers(1, 90), min_size=1),
)
def test_what_a_mask_has_is_what_numpy_finds_in_it(table: int, mask: Any, cells: set[int]) -> None:
    ids = np.array(sorted(cells), np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_in_mask, "_BLOCK", 4)
        patch.setattr(_in_mask, "_TABLE", table)
        found = _in_mask._found_in(open_image(mask, axes="yx"), ids)
    np.testing.assert_array_equal(found, np.isin(ids, mask.astype(np.int64)))


def test_cells_that_the_mask_has_not_are_refused(imc: Cohort, tree: Tree) -> None:
    root = imc[0]
    add_cell_masks(root, "a", labelled(1, 2, 40))
    before = tree(root)
    with pytest.raises(InvalidInputError, match="cell 99999 of tissue 'a' is not in its cell mask"):
        add_cells(root, of("a", 1, 99999))
    with pytest.raises(InvalidInputError, match="cell 3 of tissue 'a' and 2 more of its 4 cells"):
        add_cells(root, pa.concat_tables([of("b", 7), of("a", 50, 2, 41, 3)]))
    assert tree(root) == before
    # Of a tissue without a mask nothing says what is right.
    assert add_cells(root, pa.concat_tables([of("b", 7, 99999), of("a", 40, 2)])) == 4


def test_cells_of_a_task_are_no_cells(imc: Cohort) -> None:
    add_cell_masks(imc[0], "a", labelled(1), kind="cell_type", labels={1: "T"})
    assert add_cells(imc[0], of("a", 5)) == 1


def test_a_mask_that_is_too_large_to_look_at_is_left_to_validate(
    imc: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_in_mask, "_PIXELS", SHAPE[0] * SHAPE[1] - 1)
    add_cell_masks(imc[0], "a", labelled(1))
    assert add_cells(imc[0], of("a", 5)) == 1
    monkeypatch.setattr(_in_mask, "_PIXELS", SHAPE[0] * SHAPE[1])
    with pytest.raises(InvalidInputError, match="cell 6 of tissue 'a' is not"):
        add_cells(imc[0], of("a", 6))


def test_a_damaged_mask_is_no_reason_to_refuse_cells(imc: Cohort) -> None:
    path = add_cell_masks(imc[0], "a", labelled(1))
    (path / "zarr.json").write_text("{")
    assert add_cells(imc[0], of("a", 5)) == 1


def test_cells_that_were_lost_on_coarser_pixels_are_known(imc: Cohort, caplog: Any) -> None:
    fine = np.zeros((2 * SHAPE[0], 2 * SHAPE[1]), np.int32)
    fine[10:20, 10:20], fine[31, 31], fine[41, 41] = 1, 2, 7
    path = add_cell_masks(imc[0], "a", fine, mpp=0.5)
    assert "2 labels are smaller than a pixel" in caplog.text
    note = MultiscaleImage.open(path).metadata["microtome"]["cell_mask"]["lost"]
    assert note == {"count": 2, "largest": 7}
    with pytest.raises(InvalidInputError, match="cell 8 of tissue 'a' is not"):
        add_cells(imc[0], of("a", 1, 8))
    with pytest.raises(InvalidInputError, match="cell 2 of tissue 'a' and 2 more"):
        add_cells(imc[0], of("a", 1, 2, 3, 7))
    assert add_cells(imc[0], of("a", 1, 2, 7)) == 3
    assert CohortLayout.open(imc[0]).cells.is_file()
