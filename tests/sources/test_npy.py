"""Arrays that numpy saved are read in place, and hold what numpy loads."""

from __future__ import annotations

import io
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.format import write_array_header_1_0

from microtome.errors import FormatError, InvalidInputError
from microtome.sources import open_image

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "<i4", "float32", ">f8", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pixels_are_those_that_numpy_loads(
    tmp_path: Path, pixels_equal: Any, dtype: str, order: Any
) -> None:
    array = np.asarray(RNG.integers(0, 2 if dtype == "bool" else 200, (3, 41, 29)), dtype)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    image = open_image(tmp_path / "a.npy", axes="cyx", mpp=0.5)
    pixels_equal(image, np.load(tmp_path / "a.npy"))
    assert image.require_mpp().source == "user"
    assert image.name == "a"


@pytest.mark.parametrize("axes", ["".join(axes) for axes in itertools.permutations("cyx")])
@pytest.mark.parametrize("order", ["C", "F"])
def test_axes_in_any_order(tmp_path: Path, pixels_equal: Any, axes: str, order: Any) -> None:
    sizes = {"c": 3, "y": 17, "x": 11}
    array = RNG.integers(0, 9, [sizes[axis] for axis in axes])
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    expected = array.transpose([axes.index(axis) for axis in "cyx"])
    pixels_equal(open_image(tmp_path / "a.npy", axes=axes), expected)


def test_five_axes(tmp_path: Path) -> None:
    array = RNG.integers(0, 60000, (2, 3, 4, 9, 8), dtype=np.uint16)
    np.save(tmp_path / "a.npy", array)
    image = open_image(tmp_path / "a.npy", axes="tczyx")
    np.testing.assert_array_equal(image.level(0)[...], array)
    np.testing.assert_array_equal(image.level(0)[1, 1:3, 2, 3:7, 1:4], array[1, 1:3, 2, 3:7, 1:4])


def test_two_axes_need_no_saying_and_three_do(tmp_path: Path) -> None:
    np.save(tmp_path / "plane.npy", np.zeros((5, 4), np.uint16))
    np.save(tmp_path / "planes.npy", np.zeros((5, 4, 3), np.uint16))
    assert open_image(tmp_path / "plane.npy").axes == "yx"
    assert open_image(tmp_path / "plane.npy", kind="labels").kind == "labels"
    with pytest.raises(InvalidInputError, match="axes="):
        open_image(tmp_path / "planes.npy")


def test_a_read_takes_no_more_than_its_rows(tmp_path: Path, monkeypatch: Any) -> None:
    from microtome.sources._shared_file import SharedFile

    array = RNG.integers(0, 255, (4, 500, 300), dtype=np.uint8)
    np.save(tmp_path / "a.npy", array)
    image = open_image(tmp_path / "a.npy", axes="cyx")
    taken: list[int] = []
    whole = SharedFile.read

    def counted(self: SharedFile, start: int, size: int) -> bytes:
        taken.append(size)
        return whole(self, start, size)

    monkeypatch.setattr(SharedFile, "read", counted)
    image.read(0, (10, 20), (0, 300), channels=[2])
    assert taken == [10 * 300]
    taken.clear()
    image.read(0, (10, 20), (5, 25), channels=[2])
    assert taken == [20] * 10


@pytest.mark.parametrize("array", [np.array([{}]), np.array(["a"]), np.zeros(3, complex)])
def test_what_is_no_picture(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(FormatError, match="an image holds numbers"):
        open_image(tmp_path / "a.npy", axes="x")


def test_a_header_is_read_whatever_other_threads_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Python 3.11 now and then stumbles over the literals of several threads."""
    np.save(tmp_path / "a.npy", np.arange(12).reshape(3, 4))
    real = np.lib.format.read_magic
    left = [3]

    def read_magic(file: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            file.read(5)
            raise SystemError
        return real(file)

    monkeypatch.setattr(np.lib.format, "read_magic", read_magic)
    image = open_image(tmp_path / "a.npy")
    np.testing.assert_array_equal(image.level(0)[...], np.arange(12).reshape(3, 4))
    left[0] = 9
    with pytest.raises(FormatError, match=r"a\.npy is a damaged"):
        open_image(tmp_path / "a.npy")


def test_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "sprung"), "w"))

    head = io.BytesIO()
    write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": (1, 1)})
    (tmp_path / "a.npy").write_bytes(head.getvalue() + pickle.dumps([Trap()]))
    with pytest.raises(FormatError):
        open_image(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()


def test_a_claim_of_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    head = io.BytesIO()
    shape = (2**20, 2**20, 2**10)
    write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": shape})
    (tmp_path / "a.npy").write_bytes(head.getvalue() + b"\0" * 100)
    with pytest.raises(FormatError, match="cut short"):
        open_image(tmp_path / "a.npy", axes="cyx")


SAVED = io.BytesIO()
np.save(SAVED, RNG.integers(0, 255, (6, 5), dtype=np.uint16))


@pytest.mark.filterwarnings("ignore::UserWarning")  # numpy's, of headers as Python 2 wrote them
@given(
    at=st.integers(0, len(SAVED.getvalue()) - 1), value=st.integers(0, 255), cut=st.integers(0, 80)
)
def test_damage_is_ours_to_tell(
    tmp_path_factory: pytest.TempPathFactory, read_or_refused: Any, at: int, value: int, cut: int
) -> None:
    data = bytearray(SAVED.getvalue())
    data[at] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    path.write_bytes(data[: len(data) - cut])
    refusal = read_or_refused(path, format="npy")
    assert not refusal or str(path) in refusal or "axes=" in refusal
