"""Arrays on disk: what goes in comes out, for every codec, type and size, and for other readers."""

from __future__ import annotations

import itertools
import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import (
    ExistsError,
    FormatError,
    InvalidInputError,
    ModeError,
    NotFoundError,
)
from microtome.storage import (
    CODECS,
    Layout,
    StoredArray,
    array_metadata,
    create_array,
    open_array,
    write_group,
)

DTYPES = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
]
SHARDED = Layout((1, 4, 4), (2, 8, 12))


def noise(shape, dtype, seed=0) -> np.ndarray:
    """All bit patterns that the type can show, NaN and infinities included."""
    bits = np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    if np.dtype(dtype) == np.bool_:
        return (np.frombuffer(bits, np.uint8) % 2).astype(bool).reshape(shape)
    return np.frombuffer(bits, dtype).reshape(shape).copy()


def whole(shape) -> tuple[tuple[int, int], ...]:
    return tuple((0, size) for size in shape)


def slices(box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)


@pytest.fixture
def stored(tmp_path):
    """A small sharded array with something in it, and what is in it."""
    values = noise((3, 10, 17), "uint16")
    array = create_array(
        tmp_path / "a", shape=values.shape, dtype=values.dtype, layout=SHARDED, axes="cyx"
    )
    array.write(whole(values.shape), values)
    return array, values


# ------------------------------------------------------------------ round trips


@pytest.mark.interop
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shard", [None, (2, 8, 12)], ids=["chunks", "shards"])
def test_what_goes_in_comes_out(tmp_path, dtype, codec, shard):
    import zarr

    values = noise((3, 10, 17), dtype)
    layout = Layout((1, 4, 4), shard, codec)
    array = create_array(tmp_path / "a", shape=values.shape, dtype=dtype, layout=layout, axes="cyx")
    array.write(whole(values.shape), values)

    again = open_array(tmp_path / "a")
    assert (again.shape, again.dtype) == (values.shape, np.dtype(dtype))
    assert again.chunks == (1, 4, 4)
    assert again.shards == (None if shard is None else (2, 8, 12))
    assert again.write_unit == (shard or (1, 4, 4))
    # Bytes, because NaN is equal to nothing.
    assert again.read(whole(values.shape)).tobytes() == values.tobytes()

    theirs = zarr.open_array(tmp_path / "a", mode="r")
    assert (theirs.shape, theirs.dtype, theirs.chunks) == (again.shape, again.dtype, (1, 4, 4))
    assert theirs.metadata.dimension_names == ("c", "y", "x")
    assert np.asarray(theirs[:]).tobytes() == values.tobytes()


@settings(max_examples=30)
@given(data=st.data())
def test_any_size_any_layout_any_box(tmp_path_factory, data):
    rank = data.draw(st.integers(1, 4))
    shape = tuple(data.draw(st.integers(1, 13)) for _ in range(rank))
    chunk = tuple(data.draw(st.integers(1, 6)) for _ in range(rank))
    times = tuple(data.draw(st.integers(1, 3)) for _ in range(rank))
    shard = tuple(c * n for c, n in zip(chunk, times, strict=True))
    layout = Layout(
        chunk, data.draw(st.sampled_from([None, shard])), data.draw(st.sampled_from(CODECS))
    )
    path = tmp_path_factory.mktemp("any") / "a"
    array = create_array(path, shape=shape, dtype="int32", layout=layout, axes="abcd"[:rank])

    # Several writes of boxes that do not keep to chunks, mirrored in memory.
    mirror = np.zeros(shape, np.int32)
    for seed in range(3):
        box = tuple(sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in shape)
        values = noise([stop - start for start, stop in box], np.int32, seed)
        array.write(box, values)
        mirror[slices(box)] = values
    box = tuple(tuple(sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))) for n in shape)

    np.testing.assert_array_equal(open_array(path).read(whole(shape)), mirror)
    np.testing.assert_array_equal(array.read(box), mirror[slices(box)])
    # A buffer that is neither contiguous nor in order, and whose rest must stay untouched.
    buffer = np.full([2 * (stop - start) for start, stop in box], -1, np.int32)
    every_other = tuple(slice(None, None, -2) for _ in shape)
    array.read_into(box, buffer[every_other]).result()
    expected = np.full_like(buffer, -1)
    expected[every_other] = mirror[slices(box)]
    np.testing.assert_array_equal(buffer, expected)


def test_what_was_never_written_is_zero(tmp_path):
    for dtype in ("bool", "int16", "float32"):
        array = create_array(
            tmp_path / dtype, shape=(5, 6), dtype=dtype, layout=Layout((2, 2), None), axes="yx"
        )
        read = array.read(whole((5, 6)))
        assert read.dtype == dtype
        assert not read.any()


def test_reads_that_are_under_way_together(stored):
    array, values = stored
    boxes = [
        ((c, c + 1), (y, y + 3), (x, x + 5)) for c in range(3) for y in (0, 7) for x in (1, 12)
    ]
    outs = [np.empty((1, 3, 5), np.uint16) for _ in boxes]
    reads = [array.read_into(box, out) for box, out in zip(boxes, outs, strict=True)]
    for read in reads:
        read.result()
    for box, out in zip(boxes, outs, strict=True):
        np.testing.assert_array_equal(out, values[slices(box)])


def test_sizes_may_be_numpy_integers(tmp_path):
    shape = np.array([4, 6])
    array = create_array(
        tmp_path / "a", shape=shape, dtype="uint8", layout=Layout((2, 2), (4, 4)), axes="yx"
    )
    assert array.shape == (4, 6)
    box = ((np.int64(1), np.int64(3)), (np.int64(0), np.int64(6)))
    array.write(box, np.ones((2, 6), np.uint8))
    assert array.read(box).sum() == 12


# ------------------------------------------------------------------ arrays that others wrote


@pytest.mark.interop
@pytest.mark.parametrize("dtype", ["<u2", ">u2", ">f4", "|b1", "<i8", "|u1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("separator", [".", "/"])
def test_zarr_v2(tmp_path, dtype, order, separator):
    import zarr

    values = noise((3, 10, 17), dtype)
    theirs = zarr.create_array(
        tmp_path / "a",
        shape=values.shape,
        chunks=(2, 4, 5),
        dtype=dtype,
        zarr_format=2,
        order=order,
        chunk_key_encoding={"name": "v2", "separator": separator},
    )
    theirs[:] = values
    array = open_array(tmp_path / "a")
    assert array.shape == values.shape
    assert array.dtype == values.dtype.newbyteorder("=")
    assert array.dtype.isnative
    assert (array.chunks, array.shards) == ((2, 4, 5), None)
    box = ((1, 3), (3, 10), (0, 17))
    native = values[slices(box)].astype(array.dtype)
    assert array.read(box).tobytes() == native.tobytes()
    out = np.empty(native.shape, array.dtype)
    array.read_into(box, out).result()
    assert out.tobytes() == native.tobytes()
    assert array_metadata(tmp_path / "a")["zarr_format"] == 2


@pytest.mark.interop
@pytest.mark.parametrize("name", ["zstd", "gzip"])
def test_zarr_v3_of_another_writer(tmp_path, name):
    import zarr

    values = noise((10, 17), "uint16")
    theirs = zarr.create_array(
        tmp_path / "a",
        shape=values.shape,
        chunks=(4, 4),
        shards=(8, 8),
        dtype="uint16",
        compressors=[{"name": name, "configuration": {"level": 1, "checksum": False}}]
        if name == "zstd"
        else [{"name": name, "configuration": {"level": 1}}],
    )
    theirs[:] = values
    np.testing.assert_array_equal(open_array(tmp_path / "a").read(whole((10, 17))), values)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "box",
    [
        ((0, 1), (0, 1)),
        ((0, 1), (0, 1), (0, 1), (0, 1)),
        ((-1, 1), (0, 1), (0, 1)),
        ((0, 4), (0, 1), (0, 1)),
        ((0, 1), (0, 11), (0, 1)),
        ((0, 1), (5, 4), (0, 1)),
        ((0, 1), (0, 1), (17, 18)),
    ],
)
def test_a_box_outside_is_refused(stored, box):
    array, values = stored
    shape = tuple(max(stop - start, 0) for start, stop in box)
    with pytest.raises(InvalidInputError, match=r"does not lie inside \(3, 10, 17\)"):
        array.read(box)
    with pytest.raises(InvalidInputError, match="does not lie inside"):
        array.read_into(box, np.empty(shape, np.uint16))
    with pytest.raises(InvalidInputError, match="does not lie inside"):
        array.write(box, np.empty(shape, np.uint16))
    np.testing.assert_array_equal(array.read(whole(values.shape)), values)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "uint32", "float32", "bool", ">u2"])
def test_pixels_are_never_cast(stored, dtype):
    array, values = stored
    box = ((0, 1), (0, 4), (0, 4))
    given_values = np.full((1, 4, 4), 1, dtype)
    with pytest.raises(InvalidInputError, match="convert it explicitly"):
        array.write(box, given_values)
    with pytest.raises(InvalidInputError, match="cannot be read into"):
        array.read_into(box, given_values)
    assert (given_values == np.full((1, 4, 4), 1, dtype)).all()
    np.testing.assert_array_equal(array.read(whole(values.shape)), values)


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (1, 1, 4, 4), (1, 4, 1), (1, 3, 4), ()])
def test_pixels_are_never_repeated(stored, shape):
    array, values = stored
    box = ((0, 1), (0, 4), (0, 4))
    with pytest.raises(InvalidInputError, match="convert it explicitly"):
        array.write(box, np.zeros(shape, np.uint16))
    with pytest.raises(InvalidInputError, match="cannot be read into"):
        array.read_into(box, np.zeros(shape, np.uint16))
    np.testing.assert_array_equal(array.read(whole(values.shape)), values)


def test_a_buffer_that_may_not_be_written_is_refused(stored):
    array, _ = stored
    out = np.zeros((3, 10, 17), np.uint16)
    out.flags.writeable = False
    with pytest.raises(InvalidInputError, match="read-only"):
        array.read_into(whole(out.shape), out)


def test_an_array_open_for_reading_is_not_written(stored):
    array, values = stored
    reader = open_array(array.path)
    with pytest.raises(ModeError, match="open for reading"):
        reader.write(whole(values.shape), values)


def test_a_closed_array_is_neither_read_nor_written_but_known(stored):
    array, values = stored
    array.close()
    for attempt in (
        lambda: array.read(whole(values.shape)),
        lambda: array.write(whole(values.shape), values),
        lambda: array.read_into(whole(values.shape), np.empty_like(values)),
    ):
        with pytest.raises(ModeError, match="is closed"):
            attempt()
    assert (array.shape, array.dtype) == (values.shape, values.dtype)


@pytest.mark.parametrize(
    ("shape", "axes", "chunk"),
    [
        ((0, 5), "yx", (2, 2)),
        ((-1, 5), "yx", (2, 2)),
        ((5,), "yx", (2, 2)),
        ((5, 5), "yx", (2,)),
        ((5, 5), "x", (2, 2)),
        ((), "", (1,)),
    ],
)
def test_an_array_that_cannot_be_is_not_created(tmp_path, shape, axes, chunk):
    with pytest.raises(InvalidInputError, match="cannot create an array"):
        create_array(tmp_path / "a", shape=shape, dtype="u1", layout=Layout(chunk, None), axes=axes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "dtype", ["complex64", "U3", "S3", "datetime64[s]", "object", "g", "colour"]
)
def test_a_type_that_is_no_pixel_is_refused(tmp_path, dtype):
    with pytest.raises(InvalidInputError, match="pixel"):
        create_array(
            tmp_path / "a", shape=(4, 4), dtype=dtype, layout=Layout((2, 2), None), axes="yx"
        )
    assert list(tmp_path.iterdir()) == []


def test_an_array_is_not_created_over_another(stored):
    array, values = stored
    with pytest.raises(ExistsError, match="exists already"):
        create_array(array.path, shape=(3, 3), dtype="u1", layout=Layout((2, 2), None), axes="yx")
    np.testing.assert_array_equal(open_array(array.path).read(whole(values.shape)), values)


def test_an_array_that_is_not_there(tmp_path):
    array = open_array(tmp_path / "nothing")  # opened when first touched
    for touch in (lambda: array.shape, lambda: array.read(((0, 1),)), lambda: array.chunks):
        with pytest.raises(NotFoundError, match="nothing holds no Zarr array"):
            touch()
    with pytest.raises(NotFoundError):
        array_metadata(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"zarr_format": 3}', '{"node_type": "array"}'])
def test_damaged_metadata(tmp_path, text):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "zarr.json").write_text(text)
    with pytest.raises(FormatError, match=str(tmp_path / "a")):
        open_array(tmp_path / "a").shape  # noqa: B018


def test_a_group_is_no_array(tmp_path):
    write_group(tmp_path / "g", {})
    with pytest.raises(FormatError, match="group"):
        open_array(tmp_path / "g").shape  # noqa: B018


def test_a_compressor_that_nobody_has(tmp_path):
    (tmp_path / "a").mkdir()
    document = {
        "zarr_format": 2, "shape": [4], "chunks": [2], "dtype": "<u2", "order": "C",
        "compressor": {"id": "middle-out"}, "fill_value": 0, "filters": None,
    }  # fmt: skip
    (tmp_path / "a" / ".zarray").write_text(json.dumps(document))
    with pytest.raises(FormatError, match="middle-out"):
        open_array(tmp_path / "a").shape  # noqa: B018


def test_metadata_that_is_no_json(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "zarr.json").write_bytes(b"\xff{")
    with pytest.raises(FormatError, match="is not JSON"):
        array_metadata(tmp_path / "a")


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize("codec", ["fast", "train", "panel", "small", "labels"])
@pytest.mark.parametrize("sharded", [True, False])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_chunk_is_named_and_the_others_are_read(tmp_path, codec, sharded, damage):
    values = noise((16, 16), "uint16")
    layout = Layout((4, 4), (8, 8) if sharded else None, codec)
    path = tmp_path / "image one"
    create_array(path, shape=(16, 16), dtype="u2", layout=layout, axes="yx").write(
        whole((16, 16)), values
    )
    file = path / "c" / "0" / "1"
    raw = file.read_bytes()
    broken = {"cut": raw[: len(raw) // 2], "noise": bytes(len(raw)), "empty": b""}[damage]
    file.write_bytes(broken)

    array = open_array(path)
    size = 8 if sharded else 4
    bad = ((0, size), (size, 2 * size))
    with pytest.raises(FormatError, match="image one is damaged"):
        array.read(bad)
    with pytest.raises(FormatError, match="image one is damaged"):
        array.read_into(bad, np.empty((size, size), np.uint16)).result()
    good = 0
    for y, x in itertools.product(range(0, 16, size), range(0, 16, size)):
        box = ((y, y + size), (x, x + size))
        if box != bad:
            np.testing.assert_array_equal(array.read(box), values[slices(box)])
            good += 1
    assert good == (3 if sharded else 15)


def test_one_damaged_chunk_of_a_shard_leaves_the_others(tmp_path):
    values = noise((8, 8), "uint16")
    path = tmp_path / "a"
    create_array(
        path, shape=(8, 8), dtype="u2", layout=Layout((4, 4), (8, 8), "labels"), axes="yx"
    ).write(whole((8, 8)), values)
    file = path / "c" / "0" / "0"
    raw = bytearray(file.read_bytes())
    raw[:4] = b"\0\0\0\0"  # the magic number of whichever chunk lies first
    file.write_bytes(raw)
    array, results = open_array(path), []
    for y, x in itertools.product((0, 4), (0, 4)):
        box = ((y, y + 4), (x, x + 4))
        try:
            results.append(np.array_equal(array.read(box), values[slices(box)]))
        except FormatError:
            results.append(None)
    assert sorted(results, key=str) == [None, True, True, True]


# ------------------------------------------------------------------ where it is


@pytest.mark.parametrize("name", ["a b", "50%25", "x#y?z", "ü√", "[1]", "a:b", "-", "~"])
def test_names_that_need_no_escaping_here(tmp_path, name):
    values = noise((5, 6), "uint8")
    array = create_array(
        tmp_path / name / "0", shape=(5, 6), dtype="u1", layout=Layout((2, 2), (4, 4)), axes="yx"
    )
    array.write(whole((5, 6)), values)
    assert (tmp_path / name / "0" / "zarr.json").is_file()
    np.testing.assert_array_equal(open_array(tmp_path / name / "0").read(whole((5, 6))), values)


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    create_array("a", shape=(4, 4), dtype="u1", layout=Layout((2, 2), None), axes="yx").write(
        whole((4, 4)), np.ones((4, 4), np.uint8)
    )
    assert open_array(tmp_path / "a").read(whole((4, 4))).sum() == 16


def test_a_pickled_array_is_its_path_and_mode(stored):
    array, values = stored
    copy = pickle.loads(pickle.dumps(array))
    assert isinstance(copy, StoredArray)
    assert (copy.path, repr(copy)) == (array.path, f"StoredArray({os.fspath(array.path)!r})")
    np.testing.assert_array_equal(copy.read(whole(values.shape)), values)
    copy.write(whole(values.shape), values + np.uint16(1))
    reader = pickle.loads(pickle.dumps(open_array(array.path)))
    np.testing.assert_array_equal(reader.read(whole(values.shape)), values + np.uint16(1))
    with pytest.raises(ModeError):
        reader.write(whole(values.shape), values)
