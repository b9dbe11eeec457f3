"""The one read path, against numpy.pad on the whole image."""

from __future__ import annotations

import itertools
import re
import shutil
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    OutOfRangeError,
    UnknownNameError,
)
from microtome.image import Level, MultiscaleImage
from microtome.regions import Windows, read_regions

FAR = 40


def noise(shape, dtype="uint16", seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(1, 2 if dtype == "bool" else 250, shape).astype(dtype)


def padded(pixels: np.ndarray, rank: int, padding) -> np.ndarray:
    """The whole image with a frame of FAR pixels, by numpy."""
    widths = [(0, 0)] * (pixels.ndim - rank) + [(FAR, FAR)] * rank
    if not isinstance(padding, str):
        return np.pad(pixels, widths, constant_values=padding)
    if padding == "edge":
        return np.pad(pixels, widths, mode="edge")
    # An axis of one pixel is its own mirror image, which numpy agrees to; axis by axis, the same.
    return np.pad(pixels, widths, mode="reflect")


def cut(frame: np.ndarray, start, size) -> np.ndarray:
    window = tuple(slice(s + FAR, s + FAR + n) for s, n in zip(start, size, strict=True))
    return frame[(..., *window)]


# ------------------------------------------------------------------ windows anywhere

PADDINGS = st.sampled_from([0, 7, "edge", "reflect"])


@settings(max_examples=150)
@given(data=st.data(), padding=PADDINGS)
def test_windows_are_those_of_the_padded_whole(in_memory, data, padding):
    height, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    pixels = noise((3, height, width))
    size = (data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20)))
    corner = st.tuples(
        *(st.integers(-FAR, n + FAR - s) for n, s in zip((height, width), size, strict=True))
    )
    starts = data.draw(st.lists(corner, min_size=1, max_size=6))
    batch = read_regions([in_memory(pixels)], Windows.of(0, starts, size), padding=padding)
    assert batch.dtype == np.uint16
    frame = padded(pixels, 2, padding)
    np.testing.assert_array_equal(batch, [cut(frame, start, size) for start in starts])


@settings(max_examples=60)
@given(data=st.data(), padding=PADDINGS)
def test_windows_with_depth(in_memory, data, padding):
    shape = [data.draw(st.integers(1, 9)) for _ in range(3)]
    pixels = noise((2, *shape))
    size = [data.draw(st.integers(1, 8)) for _ in range(3)]
    starts = data.draw(st.lists(st.tuples(*[st.integers(-20, 20)] * 3), min_size=1, max_size=4))
    batch = read_regions([in_memory(pixels, "czyx")], Windows.of(0, starts, size), padding=padding)
    frame = padded(pixels, 3, padding)
    np.testing.assert_array_equal(batch, [cut(frame, start, size) for start in starts])


@pytest.mark.parametrize("padding", [0, 3, "edge", "reflect"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_windows_from_disk(tmp_path, on_disk, padding, dtype):
    pixels = noise((3, 29, 41), dtype)
    image = on_disk(tmp_path / "a", pixels)
    starts = list(itertools.product([-FAR, -5, 0, 7, 20, 28, FAR], [-FAR, -1, 0, 16, 30, 40, 50]))
    starts = [(y, x) for y, x in starts if y + 12 <= 29 + FAR and x + 19 <= 41 + FAR]
    for k in range(image.level_count):
        batch = read_regions([image], Windows.of(0, starts, (12, 19), level=k), padding=padding)
        frame = padded(image.level(k)[...], 2, padding)
        for start, window in zip(starts, batch, strict=True):
            if (
                start[0] + 12 <= image.level_shape(k)[1] + FAR
                and start[1] + 19 <= image.level_shape(k)[2] + FAR
            ):
                np.testing.assert_array_equal(window, cut(frame, start, (12, 19)))


@pytest.mark.parametrize("padding", ["edge", "reflect"])
def test_a_place_outside_is_the_same_in_every_window(in_memory, padding):
    # However little of the image a window shows: a narrow strip has no mirror of its own.
    image = in_memory(noise((1, 9, 9)))
    whole = read_regions([image], Windows.of(0, [[-30, -30]], 70), padding=padding)[0]
    starts = list(itertools.product(range(-30, 36, 3), range(-30, 36, 3)))
    small = read_regions([image], Windows.of(0, starts, 4), padding=padding)
    for (y, x), window in zip(starts, small, strict=True):
        np.testing.assert_array_equal(window, whole[:, y + 30 : y + 34, x + 30 : x + 34])


def test_one_pixel_is_its_own_mirror_image_and_the_other_axis_has_its_own(in_memory):
    image = in_memory(np.array([[[1, 2, 3]]], np.uint8))
    batch = read_regions([image], Windows.of(0, [[-1, -2]], (3, 7)), padding="reflect")
    assert batch.tolist() == [[[[3, 2, 1, 2, 3, 2, 1]] * 3]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.5, 3, True, np.float64(0.1)])
def test_floats_are_padded_with_any_number(in_memory, value):
    image = in_memory(noise((1, 4, 4), "float32"))
    batch = read_regions([image], Windows.of(0, [[3, 3]], 2), padding=value)
    np.testing.assert_array_equal(batch[0, 0, 1], np.full(2, value, np.float32))


@pytest.mark.parametrize(
    ("dtype", "padding"),
    [
        ("uint8", -1), ("uint8", 256), ("uint8", 0.5), ("uint8", np.nan), ("uint8", np.inf),
        ("uint8", 1e30), ("uint8", 2**70), ("int16", 40000), ("bool", 2), ("uint8", None),
        ("uint8", [0, 0, 0]), ("uint8", "constant"), ("float32", "mirror"), ("float32", ""),
    ],
)  # fmt: skip
def test_a_padding_that_is_no_pixel_is_refused(in_memory, dtype, padding):
    image = in_memory(noise((1, 4, 4), dtype))
    # Also where every window lies inside: it is the same call with other tiles.
    for start in ([0, 0], [3, 3]):
        with pytest.raises(InvalidInputError, match="padding"):
            read_regions([image], Windows.of(0, [start], 2), padding=padding)


@pytest.mark.parametrize(
    ("dtype", "padding"), [("uint8", 255), ("uint8", 7.0), ("bool", 1), ("int8", -128)]
)
def test_a_padding_that_is_one_is_taken(in_memory, dtype, padding):
    batch = read_regions(
        [in_memory(noise((1, 4, 4), dtype))], Windows.of(0, [[9, 9]], 2), padding=padding
    )
    np.testing.assert_array_equal(batch, np.full((1, 1, 2, 2), padding, dtype))


# ------------------------------------------------------------------ channels and axes


@pytest.mark.parametrize(
    ("channels", "indices"),
    [
        (None, [0, 1, 2, 3, 4]),
        (2, [2]),
        ("C3", [3]),
        (-1, [4]),
        ([4, 0], [4, 0]),
        ([1, 2, 3], [1, 2, 3]),
        ([3, 3, 4, 0, 1, 1], [3, 3, 4, 0, 1, 1]),
        (["C2", "C0"], [2, 0]),
        (slice(None, None, -2), [4, 2, 0]),
        (np.array([2, 3]), [2, 3]),
        ([], []),
    ],
    ids=repr,
)
@pytest.mark.parametrize("padding", [0, 9, "reflect"])
def test_channels_in_any_order_and_number(tmp_path, on_disk, channels, indices, padding):
    pixels = noise((5, 20, 20))
    names = [f"C{i}" for i in range(5)]
    image = on_disk(tmp_path / "a", pixels, channel_names=names)
    starts = [[3, 4], [-5, 15], [30, 30]]
    batch = read_regions([image], Windows.of(0, starts, 8), channels=channels, padding=padding)
    frame = padded(pixels, 2, padding)[indices]
    expected = np.reshape([cut(frame, start, (8, 8)) for start in starts], (3, len(indices), 8, 8))
    np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize(
    ("axes", "shape", "rank"),
    [
        ("yx", (9, 11), 2),
        ("cyx", (3, 9, 11), 2),
        ("zyx", (4, 9, 11), 3),
        ("zyx", (1, 9, 11), 2),
        ("czyx", (3, 4, 9, 11), 3),
        ("czyx", (3, 1, 9, 11), 2),
        ("czyx", (3, 1, 9, 11), 3),
        ("tyx", (1, 9, 11), 2),
        ("tcyx", (1, 3, 9, 11), 2),
        ("tczyx", (1, 3, 1, 9, 11), 2),
        ("tczyx", (1, 3, 4, 9, 11), 3),
        ("tczyx", (1, 1, 1, 9, 11), 2),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("padding", [0, "edge"])
def test_every_order_of_axes(tmp_path, in_memory, on_disk, axes, shape, rank, stored, padding):
    # The five axes that Bio-Formats writes, single time points and planes included.
    pixels = noise(shape)
    image = on_disk(tmp_path / "a", pixels, axes) if stored else in_memory(pixels, axes)
    starts = [[0] * rank, [-2] * rank, [*[0] * (rank - 2), 5, 7], [20] * rank]
    size = (3, 5, 6)[-rank:]
    batch = read_regions([image], Windows.of(0, starts, size), padding=padding)
    channels = shape[axes.index("c")] if "c" in axes else 1
    frame = padded(pixels.reshape(channels, *shape[-rank:]), rank, padding)
    np.testing.assert_array_equal(batch, [cut(frame, start, size) for start in starts])


@pytest.mark.parametrize("channels", [0, [0], [0, 0, -1], []])
def test_an_image_without_channels_is_its_only_one(in_memory, channels):
    pixels = noise((9, 9))
    batch = read_regions(
        [in_memory(pixels, "yx")], Windows.of(0, [[2, 3], [7, 7]], 4), channels=channels
    )
    frame = padded(pixels[None], 2, 0)
    count = 1 if channels == 0 else len(channels)
    expected = [np.repeat(cut(frame, start, (4, 4)), count, axis=0) for start in ([2, 3], [7, 7])]
    np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize(
    ("axes", "shape", "rank", "complaint"),
    [
        ("cyx", (3, 9, 9), 3, "windows need two sizes"),  # channels are no planes
        ("yx", (9, 9), 3, "windows need two sizes"),
        ("zyx", (4, 9, 9), 2, "4 planes: windows need three sizes"),
        ("czyx", (3, 4, 9, 9), 2, "4 planes: windows need three sizes"),
        ("tyx", (2, 9, 9), 2, "2 time points"),
        ("tczyx", (2, 1, 1, 9, 9), 2, "2 time points"),
    ],
)
def test_windows_of_other_axes_are_refused(in_memory, axes, shape, rank, complaint):
    image = in_memory(noise(shape), axes, uri="slide 7")
    for start in (0, 100):  # also where nothing would be read
        with pytest.raises(InvalidInputError, match=f"slide 7 has .*{complaint}"):
            read_regions([image], Windows.of(0, [[start] * rank], 4))


# ------------------------------------------------------------------ several images


def test_windows_over_several_images(tmp_path, in_memory, on_disk):
    pixels = [noise((2, 20 + i, 30 - i), seed=i) for i in range(4)]
    images = [
        on_disk(tmp_path / str(i), p) if i % 2 else in_memory(p) for i, p in enumerate(pixels)
    ]
    generator = np.random.default_rng(5)
    which = generator.integers(0, 4, 50)
    starts = generator.integers(-15, 35, (50, 2))
    batch = read_regions(images, Windows.of(which, starts, (7, 9)), padding="reflect")
    frames = [padded(p, 2, "reflect") for p in pixels]
    expected = [cut(frames[i], start, (7, 9)) for i, start in zip(which, starts, strict=True)]
    np.testing.assert_array_equal(batch, expected)


def test_each_image_has_its_own_panel(in_memory):
    pixels = noise((4, 9, 9))

    def panel(*order):
        image = in_memory(pixels[list(order)])
        return MultiscaleImage(
            [image.level(0)], uri="panel", channel_names=[f"M{i}" for i in order], mpp=None
        )

    images = [panel(0, 1, 2, 3), panel(3, 0), panel(2, 3, 1, 0)]
    windows = Windows.of([2, 0, 1], [[1, 1], [2, 2], [3, 3]], 4)
    batch = read_regions(images, windows, channels=["M3", "M0"])
    expected = [pixels[[3, 0], i : i + 4, i : i + 4] for i in (1, 2, 3)]
    np.testing.assert_array_equal(batch, expected)
    batch = read_regions(images, windows, channels={0: ["M3", "M0"], 1: slice(None), 2: [1, -1]})
    np.testing.assert_array_equal(batch, expected)
    with pytest.raises(UnknownNameError, match=r"panel: channel 'M1' is not there"):
        read_regions(images, windows, channels=["M1"])


def test_images_that_do_not_fit_one_batch_are_refused(in_memory):
    images = [
        in_memory(noise((2, 9, 9))),
        in_memory(noise((3, 9, 9))),
        in_memory(noise((2, 9, 9), "uint8")),
    ]
    for other in (1, 2):
        with pytest.raises(
            InvalidInputError, match="one batch holds one number of channels and one dtype"
        ):
            read_regions(images, Windows.of([0, other], [[0, 0], [0, 0]], 4))
    # An image that no window speaks of may be what it likes.
    assert read_regions(images, Windows.of([0], [[0, 0]], 4)).shape == (1, 2, 4, 4)
    assert read_regions(images, Windows.of([0, 1], [[0, 0], [0, 0]], 4), channels=[1]).shape == (
        2,
        1,
        4,
        4,
    )


@pytest.mark.parametrize("number", [-1, 1])
def test_an_image_that_is_not_there(in_memory, number):
    with pytest.raises(OutOfRangeError, match="there are 1"):
        read_regions([in_memory(noise((1, 9, 9)))], Windows.of([0, number], [[0, 0], [0, 0]], 4))


def test_a_level_that_is_not_there(in_memory):
    image = in_memory([noise((1, 9, 9)), noise((1, 5, 5))])
    assert read_regions([image], Windows.of(0, [[0, 0]], 4, level=-1)).shape == (1, 1, 4, 4)
    with pytest.raises(OutOfRangeError, match="has 2 levels, no level 2"):
        read_regions([image], Windows.of(0, [[0, 0]], 4, level=2))


def test_no_windows_at_all(in_memory):
    image = in_memory(noise((3, 9, 9), "int16"))
    batch = read_regions([image], Windows.of([], [], (4, 5)))
    assert (batch.shape, batch.dtype) == ((0, 3, 4, 5), np.int16)
    assert read_regions([], Windows.of([], [], (4, 5))).shape[2:] == (4, 5)
    out = np.empty((0, 3, 4, 5), np.int16)
    assert read_regions([image], Windows.of([], [], (4, 5)), out=out) is out


# ------------------------------------------------------------------ the buffer


@pytest.mark.parametrize("padding", [0, 5, "edge", "reflect"])
def test_a_buffer_is_filled_and_returned(tmp_path, on_disk, padding):
    pixels = noise((2, 20, 20))
    image = on_disk(tmp_path / "a", pixels)
    frame = padded(pixels, 2, padding)
    out = np.full((3, 2, 6, 6), 60000, np.uint16)
    for starts in ([[0, 0], [-3, -3], [30, 30]], [[18, 18], [5, 5], [-20, 5]]):
        assert read_regions([image], Windows.of(0, starts, 6), out=out, padding=padding) is out
        np.testing.assert_array_equal(out, [cut(frame, start, (6, 6)) for start in starts])


def test_a_buffer_may_be_any_part_of_another(tmp_path, on_disk):
    pixels = noise((2, 20, 20))
    image = on_disk(tmp_path / "a", pixels)
    whole = np.zeros((6, 2, 12, 12), np.uint16)
    out = whole[::2, ::-1, 3:9, ::2]
    starts = [[0, 0], [-3, -3], [18, 18]]
    read_regions([image], Windows.of(0, starts, 6), out=out)
    frame = padded(pixels, 2, 0)
    expected = np.zeros_like(whole)
    expected[::2, ::-1, 3:9, ::2] = [cut(frame, start, (6, 6)) for start in starts]
    np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 2, 6, 6), "uint16"), ((3, 2, 6, 6), "uint16"), ((2, 3, 6, 6), "uint16"), ((2, 2, 6, 7), "uint16"),
        ((2, 2, 36), "uint16"), ((2, 2, 6, 6), "float32"), ((2, 2, 6, 6), "int16"), ((2, 2, 6, 6), ">u2"),
    ],
)  # fmt: skip
def test_a_buffer_that_does_not_fit_is_refused(in_memory, shape, dtype):
    windows = Windows.of(0, [[0, 0], [1, 1]], 6)
    with pytest.raises(InvalidInputError, match=r"out must be \(2, 2, 6, 6\) uint16"):
        read_regions([in_memory(noise((2, 9, 9)))], windows, out=np.zeros(shape, dtype))


def test_a_buffer_that_may_not_be_written_is_refused(in_memory):
    out = np.zeros((1, 1, 6, 6), np.uint16)
    out.flags.writeable = False
    with pytest.raises(InvalidInputError, match="read-only"):
        read_regions([in_memory(noise((1, 9, 9)))], Windows.of(0, [[0, 0]], 6), out=out)


# ------------------------------------------------------------------ damage


@pytest.fixture
def damaged(tmp_path, on_disk):
    """Two images; in the second, the shard of rows and columns 16 to 31 is cut short."""
    pixels = noise((2, 40, 40))
    images = [on_disk(tmp_path / name, pixels) for name in ("good", "bad")]
    file = tmp_path / "bad" / "0" / "c" / "0" / "1" / "1"
    file.write_bytes(file.read_bytes()[:-30])
    return images, pixels


@pytest.mark.parametrize("padding", [0, "reflect"])
def test_a_damaged_chunk_names_the_image_and_the_window(damaged, padding):
    images, _ = damaged
    windows = Windows.of([0, 1, 1], [[16, 16], [0, 0], [30, 21]], 12)
    with pytest.raises(FormatError) as caught:
        read_regions(images, windows, padding=padding)
    message = str(caught.value)
    assert f"image {images[1].uri}, level 0, window at [30, 21] of size [12, 12]" in message
    assert "damaged" in message


def test_what_is_not_damaged_is_read(damaged):
    images, pixels = damaged
    batch = read_regions(images, Windows.of([1, 1, 0], [[0, 0], [32, 32], [16, 16]], 8))
    for window, at in zip(batch, (0, 32, 16), strict=True):
        np.testing.assert_array_equal(window, pixels[:, at : at + 8, at : at + 8])


def test_after_an_error_nothing_is_written_any_more(in_memory):
    # A read that fails first, and one that ends later: the caller may use the buffer at once.
    class Slow:
        shape, dtype, chunks = (1, 9, 9), np.dtype(np.uint16), (1, 9, 9)

        def __init__(self):
            self.go, self.threads = threading.Event(), []

        def read(self, box):
            raise NotImplementedError

        def read_into(self, box, out):
            if box[1][0] == 0:
                return self._pending(lambda: (_ for _ in ()).throw(FormatError("broken")))
            writer = threading.Thread(target=lambda: (self.go.wait(5), out.fill(7)))
            writer.start()
            self.threads.append(writer)

            def wait():
                self.go.set()
                writer.join()

            return self._pending(wait)

        @staticmethod
        def _pending(function):
            class Pending:
                def result(self, timeout=None):
                    return function()

            return Pending()

    array = Slow()
    level = Level("level0", "level0", array, "cyx", (1.0,) * 3, (0.0,) * 3)
    image = MultiscaleImage([level], uri="slow", channel_names=["a"], mpp=None)
    out = np.zeros((2, 1, 4, 4), np.uint16)
    with pytest.raises(FormatError, match="broken"):
        read_regions([image], Windows.of(0, [[0, 0], [4, 4]], 4), out=out)
    assert not any(thread.is_alive() for thread in array.threads)
    out[...] = 1
    assert (out == 1).all()


def test_an_image_that_went_away_is_told_and_named(tmp_path, on_disk):
    images = [on_disk(tmp_path / name, noise((2, 60, 60))) for name in ("a", "b", "c")]
    windows = Windows.of([0, 1, 2, 2], [[0, 0], [5, 5], [9, 9], [30, 30]], 13)
    read_regions(images, windows)
    shutil.rmtree(images[1].uri)
    with pytest.raises(NotFoundError, match=re.escape(images[1].uri)):
        read_regions(images, windows)


def test_threads_read_the_same(tmp_path, on_disk):
    pixels = noise((2, 60, 60))
    image = on_disk(tmp_path / "a", pixels)
    frame = padded(pixels, 2, 0)
    results = {}

    def work(seed):
        starts = np.random.default_rng(seed).integers(-10, 60, (30, 2))
        batch = read_regions([image], Windows.of(0, starts, 13))
        results[seed] = all(
            np.array_equal(window, cut(frame, start, (13, 13)))
            for window, start in zip(batch, starts, strict=True)
        )

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(6), True)
