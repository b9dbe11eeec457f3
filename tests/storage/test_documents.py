"""Groups and the JSON they are made of."""

from __future__ import annotations

import json

import pytest

from microtome.errors import FormatError, NotFoundError
from microtome.storage import Layout, create_array, is_group, read_group, write_group


@pytest.mark.interop
def test_a_group_comes_back(tmp_path):
    import zarr

    attributes = {"ome": {"version": "0.5"}, "list": [1, 2.5, None, True], "text": "µ√"}
    write_group(tmp_path / "a" / "b", attributes)
    assert read_group(tmp_path / "a" / "b") == attributes
    assert is_group(tmp_path / "a" / "b")
    assert zarr.open_group(tmp_path / "a" / "b", mode="r").attrs.asdict() == attributes
    write_group(tmp_path / "a" / "b", {"new": 1})
    assert read_group(str(tmp_path / "a" / "b")) == {"new": 1}
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["zarr.json"]


@pytest.mark.interop
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("attributes", [{}, {"multiscales": [1]}])
def test_a_group_of_another_writer(tmp_path, zarr_format, attributes):
    import zarr

    zarr.open_group(tmp_path / "g", mode="w", zarr_format=zarr_format, attributes=attributes)
    assert is_group(tmp_path / "g")
    assert read_group(tmp_path / "g") == attributes


def test_an_old_group_without_attributes(tmp_path):
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    assert read_group(tmp_path) == {}


def test_an_array_is_no_group(tmp_path):
    create_array(tmp_path / "a", shape=(2,), dtype="u1", layout=Layout((2,), None), axes="x")
    assert not is_group(tmp_path / "a")
    with pytest.raises(FormatError, match="is a Zarr array, not a group"):
        read_group(tmp_path / "a")


def test_nothing_there(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.zarr").write_text("hello")
    for name, reason in [
        ("gone", "does not exist"),
        ("empty", "neither"),
        ("file.zarr", "neither"),
    ]:
        assert not is_group(tmp_path / name)
        with pytest.raises(NotFoundError, match=reason):
            read_group(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[]", "must hold a JSON object, got list"),
        (b"null", "must hold a JSON object, got NoneType"),
        (b'{"node_type": "group", "attributes": []}', "attributes must be an object, got list"),
        (b'{"attributes": {}}', "is a Zarr None, not a group"),
    ],
    ids=range(9),
)
def test_damaged_metadata_names_the_file(tmp_path, text, reason):
    (tmp_path / "zarr.json").write_bytes(text)
    assert is_group(tmp_path)  # so that whoever looks for one is led to the damage
    with pytest.raises(FormatError, match=reason) as caught:
        read_group(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_damaged_attributes_of_an_old_group(tmp_path):
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / ".zattrs").write_text("[1]")
    with pytest.raises(FormatError, match=r"\.zattrs must hold a JSON object"):
        read_group(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1, 2}, b"bytes"], ids=repr)
def test_what_json_does_not_know_is_not_written_and_the_old_group_stays(tmp_path, bad):
    write_group(tmp_path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_group(tmp_path, {"new": bad})
    assert read_group(tmp_path) == {"old": 1}
    assert json.loads((tmp_path / "zarr.json").read_text())["zarr_format"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["zarr.json"]
