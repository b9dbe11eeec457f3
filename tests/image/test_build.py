"""Building the pyramid: right for every layout, each pixel read once, nothing left at work."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from itertools import pairwise, product
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.errors import StorageError
from microtome.image import Level, MultiscaleImage, halve_labels, halve_mean, pyramid_shapes
from microtome.image._build import fill_levels
from microtome.progress import silent
from microtome.storage import Layout

INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
FLOATS = ["float16", "float32", "float64"]


# ------------------------------------------------------------------ what is right


def halved(pixels, *, labels=False):
    """The next level by the rule, in Python's numbers, which neither overflow nor round."""
    height, width = pixels.shape[-2:]
    shape = (*pixels.shape[:-2], -(-height // 2), -(-width // 2))
    out = np.empty(shape, pixels.dtype)
    for *lead, row, col in np.ndindex(shape):
        block = pixels[(*lead, slice(2 * row, 2 * row + 2), slice(2 * col, 2 * col + 2))]
        values = block.ravel().tolist()
        out[(*lead, row, col)] = (most_frequent if labels else mean)(values)
    return out


def mean(values):
    if isinstance(values[0], float):
        return sum(value / len(values) for value in values)
    if isinstance(values[0], bool):
        return 2 * sum(values) >= len(values)
    return (2 * sum(values) + len(values)) // (2 * len(values))


def most_frequent(values):
    counts = Counter(values)
    tied = [value for value, count in counts.items() if count == max(counts.values())]
    return min((value for value in tied if value), default=0)


def assert_right(levels, *, labels):
    for fine, coarse in pairwise(levels):
        expected = halved(fine, labels=labels)
        assert coarse.dtype == expected.dtype
        if coarse.dtype.kind == "f":
            # The order of a sum of four may show in its last place.
            eps = float(np.finfo(coarse.dtype).eps)
            np.testing.assert_allclose(coarse, expected, rtol=eps, atol=eps * 1e-3)
        else:
            np.testing.assert_array_equal(coarse, expected)


# ------------------------------------------------------------------ arrays that keep count


class Counted:
    """An array in memory that knows how often each pixel was read and written, and who is at work."""

    def __init__(self, pixels, chunks, unit, *, filled=False, fail=None):
        self.pixels, self.chunks, self.write_unit = pixels, tuple(chunks), tuple(unit)
        self.shape, self.dtype = pixels.shape, pixels.dtype
        self.seen = np.zeros(pixels.shape, int)
        self.written = np.full(pixels.shape, int(filled))
        self.boxes = []
        self.at_work = 0
        self.calls = 0
        self._fail, self._lock = fail, threading.Lock()

    def read(self, box):
        return self._do(box, self.seen, self._get)

    def read_into(self, box, out):
        assert out.dtype == self.dtype
        out[...] = self.read(box)
        return mock.Mock(result=lambda timeout=None: None)

    def write(self, box, values):
        for (start, stop), unit, size in zip(box, self.write_unit, self.shape, strict=True):
            assert start % unit == 0
            assert stop == min(start + unit, size)
        self._do(box, self.written, lambda at: self._set(at, values))

    def _get(self, at):
        assert (self.written[at] == 1).all()
        return self.pixels[at].copy()

    def _set(self, at, values):
        assert values.dtype == self.dtype
        self.pixels[at] = values

    def _do(self, box, count, work):
        with self._lock:
            self.at_work += 1
            self.calls += 1
            number = self.calls
        try:
            if self._fail is not None:
                time.sleep(0.002)
                if number == self._fail:
                    msg = f"call {number} fails"
                    raise StorageError(msg)
            at = tuple(slice(start, stop) for start, stop in box)
            with self._lock:
                count[at] += 1
                self.boxes.append(box)
                return work(at)
        finally:
            with self._lock:
                self.at_work -= 1


def level(key, array):
    axes = "tczyx"[-len(array.shape) :]
    return Level(key, key, array, axes, (1.0,) * len(axes), (0.0,) * len(axes))


def arrays_of(pixels, chunks, units, *, fail_read=None, fail_write=None):
    """The finest array, filled, and an empty one for each unit."""
    shapes = pyramid_shapes(pixels.shape, 1)[1 : len(units) + 1]
    base = Counted(pixels, chunks, chunks, filled=True, fail=fail_read)
    return base, [
        Counted(np.zeros(shape, pixels.dtype), unit, unit, fail=fail_write)
        for shape, unit in zip(shapes, units, strict=True)
    ]


def fill(base, targets, *, labels=False, progress=silent, threads=None):
    fill_levels(
        level("0", base),
        [level(str(index), array) for index, array in enumerate(targets, 1)],
        labels=labels,
        progress=progress,
        threads=threads,
    )


def noise(shape, dtype="uint16", seed=0, *, labels=False):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if labels:
        # Few, so that majorities and ties of every kind come up.
        return rng.choice(np.array([0, 1, 2, 3, np.iinfo(dtype).max], dtype), shape)
    if dtype.kind == "f":
        pixels = rng.normal(0, 100, shape).astype(dtype)
        strange = rng.random(shape)
        for index, value in enumerate((np.nan, np.inf, -np.inf, np.finfo(dtype).max)):
            pixels[(strange > index / 50) & (strange < (index + 1) / 50)] = value
        return pixels
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)


# ------------------------------------------------------------------ every layout


@st.composite
def layouts(draw):
    """A shape, the chunks of the finest level, and the write unit of each of the others."""
    lead = draw(st.lists(st.integers(1, 3), max_size=3))
    shape = (*lead, draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    count = draw(st.integers(1, len(pyramid_shapes(shape, 1)) - 1)) if max(shape[-2:]) > 1 else 0

    def unit():
        return (
            *(draw(st.integers(1, 3)) for _ in lead),
            draw(st.integers(1, 17)),
            draw(st.integers(1, 17)),
        )

    chunks = unit()
    # One layout for all, as we write it, or one a level, as it may come.
    units = [unit()] * count if draw(st.booleans()) else [unit() for _ in range(count)]
    return shape, chunks, units


@pytest.mark.parametrize("labels", [False, True], ids=["mean", "labels"])
@settings(max_examples=150, deadline=None)
@given(
    layout=layouts(),
    dtype=st.sampled_from([*INTEGERS, *FLOATS]),
    threads=st.sampled_from([None, 1, 2, 4]),
    strip=st.sampled_from([1, 300, 8 << 20]),
    behind=st.sampled_from([0, 128 << 20]),
    seed=st.integers(0, 100),
)
def test_every_level_is_right_whatever_the_layout(
    labels, layout, dtype, threads, strip, behind, seed
):
    shape, chunks, units = layout
    if labels and dtype in FLOATS:
        dtype = "uint32"
    base, targets = arrays_of(noise(shape, dtype, seed, labels=labels), chunks, units)
    told = []
    with (
        mock.patch("microtome.image._cascade._STRIP_BYTES", strip),
        mock.patch("microtome.image._workers._WRITE_BYTES", behind),
    ):
        fill(base, targets, labels=labels, threads=threads, progress=lambda *how: told.append(how))
    assert_right([base.pixels, *(array.pixels for array in targets)], labels=labels)
    # Each pixel of the finest level is read once, each file of the others written once.
    assert (base.seen == bool(targets)).all()
    assert all((array.written == 1).all() for array in targets)
    files = sum(len(array.boxes) - reads(array) for array in targets)
    assert told == [("pyramid", number, files) for number in range(1, files + 1)]


def reads(array):
    """How many of its boxes were read: what was written, was once."""
    boxes = Counter(array.boxes)
    written = 0
    for corner in product(
        *(range(0, n, unit) for n, unit in zip(array.shape, array.write_unit, strict=True))
    ):
        box = tuple(
            (at, min(at + unit, n))
            for at, unit, n in zip(corner, array.write_unit, array.shape, strict=True)
        )
        assert boxes[box] >= 1
        written += 1
    return len(array.boxes) - written


@settings(max_examples=60, deadline=None)
@given(
    chunk=st.sampled_from([2, 4, 8]),
    factor=st.sampled_from([1, 2, 4]),
    size=st.tuples(st.integers(17, 80), st.integers(17, 80)),
    threads=st.sampled_from([1, 3]),
    strip=st.sampled_from([1, 500, 8 << 20]),
)
def test_where_files_and_chunks_meet_no_chunk_is_decoded_twice(chunk, factor, size, threads, strip):
    shape, unit = (2, *size), (2, factor * chunk, factor * chunk)
    units = [unit] * (len(pyramid_shapes(shape, chunk)) - 1)
    base, targets = arrays_of(noise(shape), (1, chunk, chunk), units)
    with mock.patch("microtome.image._cascade._STRIP_BYTES", strip):
        fill(base, targets, threads=threads)
    decoded = Counter(
        corner
        for (_, rows, cols) in base.boxes
        for corner in product(*(range(a // chunk, -(-b // chunk)) for a, b in (rows, cols)))
    )
    assert set(decoded.values()) == {1}
    # All levels are one cascade: what was written is not read again.
    assert not any(array.seen.any() for array in targets)


@pytest.mark.parametrize(
    "units",
    [
        [(3, 5), (3, 5), (3, 5)],  # odd files cannot be halved one by one
        [(4, 4), (6, 6), (4, 4)],  # files that do not lie in each other
        [(4, 40), (8, 10), (40, 4)],
        [(64, 64), (7, 7), (64, 64)],
    ],
)
def test_levels_that_cannot_be_made_in_memory_are_read_again(units):
    base, targets = arrays_of(noise((45, 37)), (8, 8), units)
    fill(base, targets)
    assert_right([base.pixels, *(array.pixels for array in targets)], labels=False)
    assert (base.seen == 1).all()


@pytest.mark.parametrize("labels", [False, True], ids=["mean", "labels"])
def test_any_number_of_threads_gives_the_same_on_disk(tmp_path, labels):
    pixels = noise((2, 135, 217), "uint16", labels=labels)
    layout = Layout((1, 16, 16), (2, 64, 64))
    found = []
    for threads in (1, 2, 4):
        path = tmp_path / f"{threads}.ome.zarr"
        with MultiscaleImage.create(
            path,
            type="uint16",
            level_shape=pixels.shape,
            mpp=1,
            layout=layout,
            kind="labels" if labels else "intensity",
        ) as image:
            image["level0"][...] = pixels
            image.build_levels(threads=threads)
        with MultiscaleImage.open(path) as image:
            found.append([image.level(k)[...] for k in range(image.level_count)])
    assert_right(found[0], labels=labels)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("threads", [1, 4])
def test_memory_that_is_used_again_is_no_longer_being_written(threads):
    # A disk so slow that the next files are computed long before one is taken over.
    base, targets = arrays_of(noise((2, 90, 70)), (1, 4, 4), [(2, 8, 8)] * 5, fail_write=10**9)
    fill(base, targets, threads=threads)
    assert_right([base.pixels, *(array.pixels for array in targets)], labels=False)


def test_there_may_be_nothing_to_build():
    base, _ = arrays_of(noise((3, 4)), (2, 2), [])
    fill(base, [])
    assert not base.boxes


# ------------------------------------------------------------------ what goes wrong


def at_work():
    return [t.name for t in threading.enumerate() if t.name.startswith("microtome-pyramid")]


def assert_at_rest(*arrays):
    assert not at_work()
    assert not any(array.at_work for array in arrays)
    calls = [array.calls for array in arrays]
    time.sleep(0.02)
    assert calls == [array.calls for array in arrays]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("number", [1, 5, 12])
@pytest.mark.parametrize("what", ["read", "write"])
def test_what_fails_in_the_middle_is_raised_and_nobody_goes_on(what, number, threads):
    failing = {f"fail_{what}": number}
    base, targets = arrays_of(noise((2, 64, 64)), (1, 4, 4), [(2, 8, 8)] * 3, **failing)
    with (
        mock.patch("microtome.image._cascade._STRIP_BYTES", 1),
        pytest.raises(StorageError, match=f"call {number} fails"),
    ):
        fill(base, targets, threads=threads)
    assert_at_rest(base, *targets)
    written = sum(array.calls for array in targets)
    assert written < 16 + 4 + 1  # it did not go on to the end


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_who_is_told_of_progress_may_stop_it(error):
    base, targets = arrays_of(noise((64, 64)), (4, 4), [(8, 8)] * 3, fail_read=10**9)

    def stop(job, done, total):
        if done == 3:
            raise error

    with pytest.raises(error):
        fill(base, targets, progress=stop, threads=2)
    assert_at_rest(base, *targets)


def test_a_failed_build_leaves_an_image_without_levels(tmp_path):
    path = tmp_path / "a.ome.zarr"

    def stop(job, done, total):
        raise KeyboardInterrupt

    with MultiscaleImage.create(path, type="uint8", level_shape=(1, 600, 600), mpp=1) as image:
        image["level0"][...] = 7
        with pytest.raises(KeyboardInterrupt):
            image.build_levels(progress=stop)
        assert image.level_count == 1
        image.build_levels()
        assert image.level_count > 1
    assert not at_work()


INTERRUPTED = """
    import contextlib, os, signal, threading, time
    import numpy as np
    from microtome.image import Level, MemoryArray
    from microtome.image._build import fill_levels
    from microtome.progress import silent

    done = []

    class Slow(MemoryArray):
        write_unit = chunks = (64, 64)

        def write(self, box, values):
            time.sleep(1)
            done.append(time.monotonic())

    def level(array):
        return Level("a", "a", array, "yx", (1.0, 1.0), (0.0, 0.0))

    def impatient():
        for _ in range(3):
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)

    fine = level(MemoryArray(np.zeros((512, 512), "u1")))
    coarse = level(Slow(np.zeros((256, 256), "u1")))
    threading.Thread(target=impatient, daemon=True).start()
    try:
        fill_levels(fine, [coarse], labels=False, progress=silent)
    except KeyboardInterrupt:
        raised = time.monotonic()
    for _ in range(4):
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(0.7)
    assert done and max(done) <= raised, [time - raised for time in done]
"""


@pytest.mark.slow
def test_nothing_is_written_after_it_was_interrupted_however_often():
    # Who joins a thread and is interrupted takes it, on Python 3.11, for ended.
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(INTERRUPTED)], check=False)
    assert run.returncode == 0


# ------------------------------------------------------------------ the kernels

VIEWS = {
    "contiguous": lambda a: a,
    "columns first": np.asfortranarray,
    "every second": lambda a: np.repeat(np.repeat(a, 2, -1), 2, -2)[..., ::2, ::2],
    "backwards": lambda a: a[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
    "part of more": lambda a: np.pad(a, [(0, 0)] * (a.ndim - 2) + [(1, 2), (3, 1)])[
        ..., 1:-2, 3:-1
    ],
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "channels last": lambda a: np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0),
    "one row many times": lambda a: np.broadcast_to(a[..., :1, :], a.shape),
}


def ends(shape, dtype, seed):
    """Values of the whole range, its ends more often than chance would have them."""
    pixels = noise(shape, dtype, seed).copy()
    chosen = np.random.default_rng(seed).integers(0, 5, shape)
    info = np.iinfo(dtype)
    for number, value in enumerate((info.min, info.max, info.max - 1)):
        pixels[chosen == number] = value
    return pixels


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", INTEGERS)
@settings(max_examples=8, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 1000),
)
def test_integers_are_halved_however_they_lie_in_memory(dtype, view, order, shape, seed):
    given_type = np.dtype(dtype).newbyteorder(order)
    for labels, halve, pixels in (
        (False, halve_mean, ends(shape, dtype, seed)),
        (True, halve_labels, noise(shape, dtype, seed, labels=True)),
    ):
        lying = VIEWS[view](pixels.astype(given_type))
        before = lying.copy()
        expected = halved(lying, labels=labels)
        found = halve(lying)
        assert found.dtype == given_type
        np.testing.assert_array_equal(found, expected)
        # Into a part of another array, as each strip of a file is.
        around = np.zeros(
            (expected.shape[0], expected.shape[1] + 2, expected.shape[2] + 1), given_type
        )
        halve(lying, around[:, 1:-1, 1:])
        np.testing.assert_array_equal(around[:, 1:-1, 1:], expected)
        assert not around[:, [0, -1]].any()
        assert not around[:, :, 0].any()
        np.testing.assert_array_equal(lying, before)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
@pytest.mark.parametrize("work", [1, 64, 1000])
def test_rows_are_worked_on_in_groups_of_any_size(dtype, work):
    pixels = ends((2, 37, 51), dtype, 3)
    labels = noise((2, 37, 51), dtype, 3, labels=True)
    with mock.patch("microtome.image._pyramid._WORK_BYTES", work):
        np.testing.assert_array_equal(halve_mean(pixels), halved(pixels))
        np.testing.assert_array_equal(halve_labels(labels), halved(labels, labels=True))


# ------------------------------------------------------------------ memory

MEMORY = textwrap.dedent("""
    import sys
    from pathlib import Path
    import numpy as np
    from microtome.image import Level, pyramid_shapes
    from microtome.image._build import fill_levels
    from microtome.progress import silent
    from microtome.storage import create_array, default_layout

    path, dtype, labels, *shape = sys.argv[1:]
    shape = tuple(map(int, shape))
    axes = "cyx"
    noise = np.random.default_rng(0).integers(0, 250, 1 << 20).astype(dtype)

    class Done:
        def result(self, timeout=None):
            return None

    class Made:
        chunks = (1, 128, 128)
        dtype = noise.dtype
        shape = shape
        def read_into(self, box, out):
            width = out.shape[-1]
            for row in range(out.shape[-2]):
                out[..., row, :] = noise[row * 97 : row * 97 + width]
            return Done()

    steps = (1.0,) * 3
    targets = [
        Level(str(k), str(k), create_array(
            Path(path) / str(k), shape=s, dtype=dtype,
            layout=default_layout("labels" if labels == "labels" else "intensity", axes, s), axes=axes,
        ), axes, steps, steps)
        for k, s in enumerate(pyramid_shapes(shape, 128)[1:], 1)
    ]
    fill_levels(Level("0", "0", Made(), axes, steps, steps), targets,
                labels=labels == "labels", progress=silent)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            print(int(line.split()[1]) >> 10)
""")


def peak_mib(folder, dtype, shape, kind="intensity"):
    """The most memory that a process held which built the pyramid of such an image."""
    command = [sys.executable, "-c", MEMORY, str(folder), dtype, kind, *map(str, shape)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout)


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only /proc tells a process's own peak"
)


@needs_proc
@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(tmp_path):
    small, large = (
        peak_mib(tmp_path / str(size), "uint16", (5, size, size)) for size in (8192, 16_384)
    )
    assert large < 1024
    # There is one more level, with one file (40 MiB) that is not complete.
    assert large < small + 40 + 100


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "shape", "kind"),
    [
        ("uint16", (40, 8192, 8192), "intensity"),
        ("uint8", (3, 32_768, 32_768), "intensity"),
        ("uint32", (1, 16_384, 16_384), "labels"),
    ],
    ids=["40 channels", "slide", "labels"],
)
def test_memory_is_bounded(tmp_path, dtype, shape, kind):
    assert peak_mib(tmp_path, dtype, shape, kind) < 1024
