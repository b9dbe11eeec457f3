"""A history that is kept: snapshots that never change, commits that are whole, nothing lost."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from microtome.errors import (
    BusyError,
    ConflictError,
    DependencyError,
    ExistsError,
    FormatError,
    InvalidInputError,
    ModeError,
    NotFoundError,
    UnknownNameError,
)
from microtome.storage import (
    Draft,
    DraftStore,
    Layout,
    Snapshot,
    VersionedStore,
    create_array,
    is_versioned,
    open_store,
)
from microtome.storage._publish import publishing

LAYOUT = Layout((1, 8, 8), (1, 16, 16))
WHOLE = ((0, 2), (0, 40), (0, 40))
PIXELS = np.random.default_rng(0).integers(0, 4000, (2, 40, 40)).astype(np.uint16)


def begun(path: Path, **options) -> VersionedStore:
    """A new image with one array, which is not committed."""
    store = VersionedStore.create(path, **options)
    array = store.create_array("0", shape=(2, 40, 40), dtype="u2", layout=LAYOUT, axes="cyx")
    array.write(WHOLE, PIXELS)
    with store.changing(adding=["0"]) as attributes:
        attributes["levels"] = ["0"]
    return store


@pytest.fixture
def path(tmp_path) -> Path:
    """An image with one commit."""
    store = begun(tmp_path / "image")
    store.commit("as acquired")
    store.close()
    return tmp_path / "image"


def pixels(store: VersionedStore) -> np.ndarray:
    return store.open_array("0").read(WHOLE)


def set_pixel(store: VersionedStore, value: int, row: int = 0, column: int = 0) -> None:
    box = ((0, 1), (row, row + 1), (column, column + 1))
    store.open_array("0").write(box, np.full((1, 1, 1), value, np.uint16))


def committed(path: Path, value: int, message: str) -> str:
    store = VersionedStore.open(path, writable=True)
    set_pixel(store, value)
    with store.changing() as attributes:
        attributes["value"] = value
    snapshot = store.commit(message)
    store.close()
    return snapshot


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def files(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file()
        else "directory"
        for p in sorted(folder.rglob("*"))
    }


# ------------------------------------------------------------------ beginning


def test_nothing_is_there_before_the_first_commit(tmp_path):
    target = tmp_path / "image"
    store = begun(target)
    assert not target.exists()
    assert not is_versioned(target)
    assert store.history() == []
    assert store.uri == str(target)
    snapshot = store.commit("as acquired")
    assert is_versioned(target)
    assert names(tmp_path) == ["image"]
    np.testing.assert_array_equal(pixels(VersionedStore.open(target)), PIXELS)
    # The store goes on, and so does the array that was handed out before.
    set_pixel(store, 7)
    assert store.commit("one pixel") != snapshot
    assert [s.message for s in store.history()] == ["one pixel", "as acquired"]
    store.close()
    assert pixels(VersionedStore.open(target))[0, 0, 0] == 7


def test_closing_makes_a_new_image_appear(tmp_path):
    store = begun(tmp_path / "image")
    store.close()
    assert [s.message for s in VersionedStore.open(tmp_path / "image").history()] == ["closed"]
    assert names(tmp_path) == ["image"]


def test_discarding_a_new_image_leaves_nothing(tmp_path):
    begun(tmp_path / "image").discard()
    assert names(tmp_path) == []


def test_an_existing_image_is_replaced_only_when_asked_and_at_once(path):
    with pytest.raises(ExistsError, match="exists already"):
        VersionedStore.create(path)
    store = begun(path, overwrite=True)
    set_pixel(store, 9)
    assert pixels(VersionedStore.open(path))[0, 0, 0] == PIXELS[0, 0, 0]
    store.commit("another image")
    assert [s.message for s in VersionedStore.open(path).history()] == ["another image"]
    assert names(path.parent) == ["image"]


def test_what_is_no_image_is_never_replaced(tmp_path):
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "thesis.txt").write_text("years")
    with pytest.raises(ExistsError, match="no image"):
        VersionedStore.create(tmp_path / "image", overwrite=True)
    assert (tmp_path / "image" / "thesis.txt").read_text() == "years"


def test_plain_and_versioned_images_replace_each_other(path):
    plain = DraftStore(path, overwrite=True)
    with plain.changing() as attributes:
        attributes["plain"] = True
    plain.close()
    assert not is_versioned(path)
    assert open_store(path).attributes()["plain"] is True
    begun(path, overwrite=True).close()
    assert is_versioned(path)
    assert not (path / "zarr.json").exists()


def test_of_two_who_create_one_the_second_is_told(tmp_path):
    first, second = begun(tmp_path / "image"), begun(tmp_path / "image")
    first.commit("first")
    with pytest.raises(ExistsError, match="exists already"):
        second.commit("second")
    assert names(tmp_path) == ["image"]
    with pytest.raises(ModeError, match="closed"):
        second.commit("again")
    second.close()
    second.discard()
    assert [s.message for s in VersionedStore.open(tmp_path / "image").history()] == ["first"]


def test_only_repositories_are_versioned(tmp_path, path):
    assert is_versioned(path)
    assert not is_versioned(tmp_path)
    assert not is_versioned(tmp_path / "nowhere")
    assert not is_versioned(path / "refs" / "branch.main" / "ref.json")
    create_array(
        tmp_path / "plain", shape=(8, 8), dtype="u1", layout=Layout((4, 4), None), axes="yx"
    )
    assert not is_versioned(tmp_path / "plain")


def test_looking_for_what_is_not_there_makes_nothing(tmp_path):
    with pytest.raises(NotFoundError, match="no image with a history"):
        VersionedStore.open(tmp_path / "nowhere")
    assert names(tmp_path) == []


# ------------------------------------------------------------------ snapshots


def test_reading_writes_nothing(path):
    before = files(path.parent)
    store = VersionedStore.open(path, at=VersionedStore.open(path).history()[0].id)
    pixels(store)
    assert store.tags() == {}
    store.close()
    writer = VersionedStore.open(path, writable=True)
    writer.close()
    assert files(path.parent) == before


def test_a_reader_stays_at_its_snapshot(path):
    reader = VersionedStore.open(path)
    committed(path, 1, "one")
    committed(path, 2, "two")
    np.testing.assert_array_equal(pixels(reader), PIXELS)
    assert "value" not in reader.attributes()
    assert [s.message for s in reader.history()] == ["as acquired"]
    assert VersionedStore.open(path).attributes()["value"] == 2


def test_the_same_snapshot_is_the_same_whoever_writes_meanwhile(path):
    """The peer's reads at one time stamp gave 1, then 2, after an older session had written."""
    old = VersionedStore.open(path, writable=True)
    set_pixel(old, 5, row=30)
    middle = committed(path, 1, "one")
    when = VersionedStore.open(path).history()[0].written_at
    seen = [VersionedStore.open(path, at=at) for at in (middle, when)]
    committed(path, 2, "two")
    old.commit("of a session that was opened before")
    seen += [VersionedStore.open(path, at=at) for at in (middle, when)]
    expected = PIXELS.copy()
    expected[0, 0, 0] = 1
    for store in seen:
        np.testing.assert_array_equal(pixels(store), expected)
        assert store.attributes()["value"] == 1


def test_a_commit_is_whole_over_arrays_and_attributes(path):
    writer = VersionedStore.open(path, writable=True)
    second = writer.create_array("1", shape=(2, 20, 20), dtype="u2", layout=LAYOUT, axes="cyx")
    second.write(((0, 2), (0, 20), (0, 20)), PIXELS[:, ::2, ::2])
    set_pixel(writer, 3)
    with writer.changing(adding=["1"]) as attributes:
        attributes["levels"] = ["0", "1"]
    before = VersionedStore.open(path)
    assert before.attributes() == {"levels": ["0"]}
    assert not before.holds("1")
    assert pixels(before)[0, 0, 0] == PIXELS[0, 0, 0]
    assert writer.attributes() == {"levels": ["0", "1"]}
    assert pixels(writer)[0, 0, 0] == 3
    writer.commit("a level, a pixel and attributes")
    after = VersionedStore.open(path)
    assert after.attributes() == {"levels": ["0", "1"]}
    assert pixels(after)[0, 0, 0] == 3
    np.testing.assert_array_equal(
        after.open_array("1").read(((0, 2), (0, 20), (0, 20))), PIXELS[:, ::2, ::2]
    )


def test_the_last_write_wins_always(path):
    """The peer gave either of two values that one session wrote to the same pixel."""
    for trial in range(1, 11):
        writer = VersionedStore.open(path, writable=True)
        set_pixel(writer, 2 * trial)
        set_pixel(writer, 2 * trial + 1)
        writer.close()
        assert pixels(VersionedStore.open(path))[0, 0, 0] == 2 * trial + 1


def test_a_snapshot_is_found_by_time(path):
    start = VersionedStore.open(path).history()[0]
    time.sleep(0.01)
    second = committed(path, 1, "one")
    newest = VersionedStore.open(path).history()[0]
    micro = timedelta(microseconds=1)
    assert newest.id == second

    def value_at(at) -> int | None:
        return VersionedStore.open(path, at=at).attributes().get("value")

    assert value_at(newest.written_at) == 1
    assert value_at(newest.written_at - micro) is None
    assert value_at(start.written_at) is None
    assert value_at(newest.written_at + timedelta(days=1)) == 1
    assert value_at(datetime.max.replace(tzinfo=UTC)) == 1
    assert value_at(newest.written_at.astimezone(timezone(timedelta(hours=-7)))) == 1
    # Milliseconds, rounded down as everybody does: the snapshot of that millisecond.
    assert value_at(int(newest.written_at.timestamp() * 1000)) == 1
    assert value_at(int(newest.written_at.timestamp() * 1000) - 1) is None
    assert value_at(np.int64(newest.written_at.timestamp() * 1000)) == 1
    with pytest.raises(NotFoundError, match=r"was not there at .* first snapshot, 'as acquired'"):
        value_at(start.written_at - micro)
    with pytest.raises(NotFoundError, match="was not there at 0"):
        value_at(0)


@pytest.mark.parametrize(
    ("at", "error", "match"),
    [
        (datetime(2026, 1, 1), InvalidInputError, "without a time zone"),  # noqa: DTZ001 - the point
        (True, InvalidInputError, "whole milliseconds"),
        (1.5, InvalidInputError, "whole milliseconds"),
        (10**30, InvalidInputError, "whole milliseconds"),
        ("nothing", UnknownNameError, "no tag or snapshot 'nothing'; its tags: raw"),
        ("0" * 20, UnknownNameError, "no tag or snapshot"),
        ("1CECHNKREP0F1RSTCMT0", UnknownNameError, "no tag or snapshot"),
        ("", UnknownNameError, "no tag or snapshot"),
    ],
)
def test_what_names_no_snapshot_is_refused(path, at, error, match):
    writer = VersionedStore.open(path, writable=True)
    writer.tag("raw")
    with pytest.raises(error, match=match):
        VersionedStore.open(path, at=at)


def test_the_past_is_not_written(path):
    snapshot = VersionedStore.open(path).history()[0].id
    with pytest.raises(InvalidInputError, match="the past"):
        VersionedStore.open(path, writable=True, at=snapshot)


# ------------------------------------------------------------------ history and tags


def test_history_says_what_was_done_when_and_under_which_names(path):
    start = datetime.now(UTC)
    snapshot = committed(path, 1, "one")
    store = VersionedStore.open(path, writable=True)
    store.tag("b")
    store.tag("a")
    store.tag("raw", store.history()[1].id)
    newest, oldest = store.history()
    assert newest == Snapshot(snapshot, "one", newest.written_at, ("a", "b"))
    assert oldest.message == "as acquired"
    assert oldest.tags == ("raw",)
    assert oldest.written_at < start <= newest.written_at <= datetime.now(UTC)
    assert newest.written_at.utcoffset() == timedelta(0)
    assert store.tags() == {"a": snapshot, "b": snapshot, "raw": oldest.id}
    assert VersionedStore.open(path, at="raw").attributes() == {"levels": ["0"]}
    assert [s.message for s in VersionedStore.open(path, at="raw").history()] == ["as acquired"]


def test_a_tag_is_given_once(path):
    store = VersionedStore.open(path, writable=True)
    store.tag("raw")
    committed(path, 1, "one")
    with pytest.raises(ExistsError, match="a tag 'raw'"):
        VersionedStore.open(path, writable=True).tag("raw")
    assert store.tags() == {"raw": store.history()[0].id}


@pytest.mark.parametrize("name", ["", ".", "a/b", "-a", "a b", "é", "A" * 20, "a" * 101, None, 3])
def test_what_can_be_no_tag_is_refused(path, name):
    before = files(path)
    with pytest.raises(InvalidInputError, match="a tag is made of"):
        VersionedStore.open(path, writable=True).tag(name)
    assert files(path) == before


def test_a_tag_needs_a_snapshot_and_a_writer(path, tmp_path):
    store = VersionedStore.open(path, writable=True)
    with pytest.raises(UnknownNameError, match="no tag or snapshot 'x'"):
        store.tag("raw", "x")
    set_pixel(store, 1)
    with pytest.raises(InvalidInputError, match="commit before tagging"):
        store.tag("raw")
    store.tag("raw", store.history()[0].id)
    with pytest.raises(ModeError, match="open for reading"):
        VersionedStore.open(path).tag("other")
    with pytest.raises(InvalidInputError, match="commit before tagging"):
        begun(tmp_path / "new").tag("raw")


# ------------------------------------------------------------------ committing


@pytest.mark.parametrize("message", ["", "  \n", None])
def test_a_commit_has_a_message(path, message):
    store = VersionedStore.open(path, writable=True)
    set_pixel(store, 1)
    with pytest.raises(InvalidInputError, match="needs a message"):
        store.commit(message)
    assert store.commit("one")


def test_there_is_something_to_commit(path):
    store = VersionedStore.open(path, writable=True)
    with pytest.raises(InvalidInputError, match="nothing was changed"):
        store.commit("nothing")
    with store.changing() as attributes:
        attributes["levels"] = ["0"]  # as they are
    with pytest.raises(InvalidInputError, match="nothing was changed"):
        store.commit("nothing")
    store.close()
    assert len(VersionedStore.open(path).history()) == 1


def test_arrays_that_are_no_levels_yet_are_not_committed(path):
    store = VersionedStore.open(path, writable=True)
    store.create_array("1", shape=(2, 20, 20), dtype="u2", layout=LAYOUT, axes="cyx")
    with pytest.raises(InvalidInputError, match=r"\['1'\] are being written"):
        store.commit("half a level")
    store.forget("1")
    store.forget("1")
    assert not store.holds("1")
    store.create_array("2", shape=(2, 20, 20), dtype="u2", layout=LAYOUT, axes="cyx")
    store.close()
    assert not VersionedStore.open(path).holds("2")


def test_what_is_discarded_was_never_there(path):
    store = VersionedStore.open(path, writable=True)
    array = store.open_array("0")
    set_pixel(store, 1)
    with store.changing() as attributes:
        attributes["value"] = 1
    store.discard()
    after = VersionedStore.open(path)
    assert after.attributes() == {"levels": ["0"]}
    np.testing.assert_array_equal(pixels(after), PIXELS)
    assert len(after.history()) == 1
    for refused in (
        lambda: store.commit("late"),
        lambda: set_pixel(store, 2),
        lambda: array.read(WHOLE),
        lambda: store.changing().__enter__(),
        lambda: store.create_array("3", shape=(1, 8, 8), dtype="u2", layout=LAYOUT, axes="cyx"),
        lambda: store.tag("late"),
    ):
        with pytest.raises(ModeError, match="closed"):
            refused()
    assert array.shape == (2, 40, 40)


def test_what_a_thread_writes_is_in_a_commit_whole_or_not_at_all(path):
    store = VersionedStore.open(path, writable=True)
    array, stop, failed = store.open_array("0"), threading.Event(), []

    def write():
        try:
            for value in itertools.cycle(range(1, 60000)):
                array.write(WHOLE, np.full((2, 40, 40), value, np.uint16))
                if stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            failed.append(error)

    array.write(WHOLE, np.ones((2, 40, 40), np.uint16))
    writer = threading.Thread(target=write)
    writer.start()
    ids = []
    while len(ids) < 30 and not failed:
        with contextlib.suppress(InvalidInputError):  # nothing was written since the last
            ids.append(store.commit(f"commit {len(ids)}"))
    stop.set()
    writer.join()
    assert failed == []
    for snapshot in ids:
        seen = pixels(VersionedStore.open(path, at=snapshot))
        assert (seen == seen[0, 0, 0]).all()
    store.close()


def test_an_error_inside_a_change_drops_it(path):
    store = VersionedStore.open(path, writable=True)
    with pytest.raises(ZeroDivisionError), store.changing() as attributes:
        attributes["value"] = 1 // 0
    assert store.attributes() == {"levels": ["0"]}


def test_readers_change_nothing(path):
    store = VersionedStore.open(path)
    assert not store.writable
    with pytest.raises(ModeError, match="open for reading"), store.changing():
        pass
    with pytest.raises(ModeError, match="open for reading"):
        set_pixel(store, 1)
    with pytest.raises(ModeError, match="open for reading"):
        store.create_array("1", shape=(2, 8, 8), dtype="u2", layout=LAYOUT, axes="cyx")
    with pytest.raises(ModeError, match="open for reading"):
        store.commit("reading")


# ------------------------------------------------------------------ two writers


def test_changes_of_different_things_go_one_upon_the_other(path):
    first, second = (VersionedStore.open(path, writable=True) for _ in range(2))
    set_pixel(first, 1)
    set_pixel(second, 2, row=20, column=20)  # of another shard
    third = VersionedStore.open(path, writable=True)
    with third.changing() as attributes:
        attributes["note"] = "three"
    first.commit("one")
    second.commit("two")
    third.close()
    store = VersionedStore.open(path)
    assert (pixels(store)[0, 0, 0], pixels(store)[0, 20, 20]) == (1, 2)
    assert store.attributes()["note"] == "three"
    assert [s.message for s in store.history()] == ["closed", "two", "one", "as acquired"]
    # What was committed by others is there for the second writer, too, from then on.
    assert pixels(second)[0, 0, 0] == 1


def test_changes_of_the_same_chunk_are_told_to_the_second(path):
    first, second = (VersionedStore.open(path, writable=True) for _ in range(2))
    set_pixel(first, 1)
    set_pixel(second, 2, column=1)
    first.commit("one")
    with pytest.raises(ConflictError, match=r"'one', committed 20.* UTC") as caught:
        second.commit("two")
    assert "chunks (0, 0, 0) of array '0'" in str(caught.value)
    assert "make the changes again" in str(caught.value)
    assert isinstance(caught.value, RuntimeError)
    # Nothing was committed, and nothing is lost: it is still in the session.
    assert pixels(second)[0, 0, 1] == 2
    assert pixels(VersionedStore.open(path))[0, 0, :2].tolist() == [1, PIXELS[0, 0, 1]]
    assert [s.message for s in VersionedStore.open(path).history()] == ["one", "as acquired"]
    with pytest.raises(ConflictError, match="'one'"):
        second.close()
    second.discard()
    assert pixels(VersionedStore.open(path))[0, 0, 0] == 1


def test_changes_of_the_same_attributes_are_told_to_the_second(path):
    first, second = (VersionedStore.open(path, writable=True) for _ in range(2))
    for store, value in ((first, 1), (second, 2)):
        with store.changing() as attributes:
            attributes["value"] = value
    first.commit("one")
    with pytest.raises(ConflictError, match="changed the same: metadata"):
        second.commit("two")
    assert second.attributes()["value"] == 2
    assert VersionedStore.open(path).attributes()["value"] == 1


def test_who_writes_into_a_removed_array_is_told(path):
    first, second = (VersionedStore.open(path, writable=True) for _ in range(2))
    with first.changing(removing=["0"]) as attributes:
        attributes["levels"] = []
    set_pixel(second, 2)
    first.commit("removed")
    with pytest.raises(ConflictError, match=r"'removed'.*array '0'"):
        second.commit("two")


def test_who_writes_into_an_image_that_was_replaced_is_told(path):
    writer, reader = VersionedStore.open(path, writable=True), VersionedStore.open(path)
    set_pixel(writer, 1)
    begun(path, overwrite=True).close()
    with pytest.raises(ConflictError, match="replaced since it was opened"):
        writer.commit("into the old one")
    with pytest.raises(NotFoundError, match="replaced since it was opened"):
        pixels(reader)
    assert [s.message for s in VersionedStore.open(path).history()] == ["closed"]


@pytest.mark.parametrize("action", ["commit", "tag"])
def test_one_lock_whatever_link_leads_to_the_image(path, tmp_path, monkeypatch, action):
    """A lock by the link's name let two writers in at once: 97 of 100 commits were kept."""
    monkeypatch.setattr("microtome.storage._publish._PUBLISH_SECONDS", 0.1)
    (tmp_path / "latest").symlink_to(path)
    writer = VersionedStore.open(tmp_path / "latest", writable=True)
    if action == "commit":
        set_pixel(writer, 1)
    with publishing(path), pytest.raises(BusyError, match="image"):
        getattr(writer, action)("one")
    getattr(writer, action)("one")
    assert (tmp_path / "latest").is_symlink()
    assert writer.uri == str(tmp_path / "latest")


def test_a_link_that_is_set_anew_moves_nobody_who_has_the_image_open(path, tmp_path):
    begun(tmp_path / "other").close()
    link = tmp_path / "latest"
    link.symlink_to(path)
    reader, writer = VersionedStore.open(link), VersionedStore.open(link, writable=True)
    link.unlink()
    link.symlink_to(tmp_path / "other")
    set_pixel(writer, 1)
    writer.commit("one")
    np.testing.assert_array_equal(pixels(reader), PIXELS)
    assert [s.message for s in VersionedStore.open(path).history()] == ["one", "as acquired"]
    assert [s.message for s in VersionedStore.open(link).history()] == ["closed"]


def test_an_image_that_is_begun_over_a_link_replaces_the_link(path, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(path)
    store = begun(link, overwrite=True)
    store.commit("in its own place")
    set_pixel(store, 1)
    store.close()
    assert not link.is_symlink()
    assert [s.message for s in VersionedStore.open(path).history()] == ["as acquired"]
    assert len(VersionedStore.open(link).history()) == 2


# ------------------------------------------------------------------ arrays


@pytest.mark.parametrize("layout", [LAYOUT, Layout((1, 16, 16), None, "raw")])
def test_any_box_is_read_and_written_as_in_numpy(tmp_path, layout):
    store = VersionedStore.create(tmp_path / "image")
    array = store.create_array("a/b", shape=(2, 40, 40), dtype="i2", layout=layout, axes="cyx")
    assert (array.shape, array.dtype, array.chunks) == ((2, 40, 40), np.int16, layout.chunk)
    assert array.write_unit == layout.write_unit
    assert array.shards == layout.shard
    expected = np.zeros((2, 40, 40), np.int16)
    rng = np.random.default_rng(1)
    for value in range(1, 20):
        box = tuple(tuple(sorted(rng.integers(0, n + 1, 2).tolist())) for n in (2, 40, 40))
        place = tuple(slice(*pair) for pair in box)
        array.write(box, np.full(expected[place].shape, -value, np.int16))
        expected[place] = -value
        np.testing.assert_array_equal(array.read(box), expected[place])
        out = np.empty((4, *expected[place].shape), np.int16)[::2][0]
        array.read_into(box, out).result()
        np.testing.assert_array_equal(out, expected[place])
    np.testing.assert_array_equal(array.read(WHOLE), expected)
    with store.changing(adding=["a/b"]):
        pass
    store.close()
    again = VersionedStore.open(tmp_path / "image").open_array("a/b")
    np.testing.assert_array_equal(again.read(WHOLE), expected)
    assert again.dtype == np.int16


def test_the_metadata_are_those_of_plain_arrays(tmp_path, path):
    import zarr

    create_array(tmp_path / "plain", shape=(2, 40, 40), dtype="u2", layout=LAYOUT, axes="cyx")
    plain = zarr.open_array(tmp_path / "plain", mode="r")
    ours = zarr.open_array(VersionedStore.open(path)._workspace.store, path="0", mode="r")
    assert ours.metadata.to_dict() == plain.metadata.to_dict()
    assert ours.metadata.dimension_names == ("c", "y", "x")


@pytest.mark.parametrize(
    ("box", "values", "match"),
    [
        (WHOLE, np.zeros((2, 40, 39), np.uint16), "convert it explicitly"),
        (WHOLE, np.zeros((2, 40, 40), np.int16), "convert it explicitly"),
        (((0, 2), (0, 40), (0, 41)), np.zeros((2, 40, 41), np.uint16), "does not lie inside"),
        (((0, 2), (5, 2), (0, 40)), np.zeros((2, 0, 40), np.uint16), "does not lie inside"),
        (((0, 2), (0, 40)), np.zeros((2, 40), np.uint16), "does not lie inside"),
    ],
)
def test_what_does_not_fit_is_not_written(path, box, values, match):
    store = VersionedStore.open(path, writable=True)
    with pytest.raises(InvalidInputError, match=match):
        store.open_array("0").write(box, values)
    store.close()
    assert len(VersionedStore.open(path).history()) == 1


def test_what_does_not_fit_is_not_read(path):
    array = VersionedStore.open(path).open_array("0")
    frozen = np.zeros((2, 40, 40), np.uint16)
    frozen.flags.writeable = False
    for out in (np.zeros((2, 40, 39), np.uint16), np.zeros((2, 40, 40), np.uint8), frozen):
        with pytest.raises(InvalidInputError, match="cannot be read into"):
            array.read_into(WHOLE, out)
    with pytest.raises(InvalidInputError, match="does not lie inside"):
        array.read(((0, 3), (0, 40), (0, 40)))
    with pytest.raises(NotFoundError, match=r"image/7 holds no Zarr array"):
        VersionedStore.open(path).open_array("7")


def test_an_array_takes_no_place_that_is_taken(path):
    store = VersionedStore.open(path, writable=True)
    for taken in ("0", "0/1"):
        with pytest.raises(ExistsError, match="'0'"):
            store.create_array(taken, shape=(2, 8, 8), dtype="u2", layout=LAYOUT, axes="cyx")
    with pytest.raises(InvalidInputError, match="cannot create"):
        store.create_array("1", shape=(2, 8), dtype="u2", layout=LAYOUT, axes="cyx")
    assert not store.holds("1")


def test_a_removed_array_is_in_older_snapshots_still_and_its_place_is_free(path):
    store = VersionedStore.open(path, writable=True)
    array = store.open_array("0")
    with store.changing(removing=["0"]) as attributes:
        attributes["levels"] = []
    with pytest.raises(ModeError, match="closed"):
        array.read(WHOLE)
    assert array.shape == (2, 40, 40)
    other = store.create_array("0", shape=(2, 16, 16), dtype="u1", layout=LAYOUT, axes="cyx")
    np.testing.assert_array_equal(other.read(((0, 2), (0, 16), (0, 16))), 0)
    with store.changing(adding=["0"]) as attributes:
        attributes["levels"] = ["0"]
    store.commit("smaller")
    newest, oldest = store.history()
    assert VersionedStore.open(path, at=newest.id).open_array("0").shape == (2, 16, 16)
    np.testing.assert_array_equal(pixels(VersionedStore.open(path, at=oldest.id)), PIXELS)


@pytest.mark.parametrize("harm", ["cut short", "scrambled", "missing"])
def test_a_damaged_chunk_is_an_error_that_names_the_array(tmp_path, harm):
    noise = np.random.default_rng(0).integers(0, 2**16, (1, 256, 256)).astype(np.uint16)
    store = VersionedStore.create(tmp_path / "image")
    whole, layout = ((0, 1), (0, 256), (0, 256)), Layout((1, 64, 64), (1, 128, 128))
    for name in "01":
        array = store.create_array(name, shape=noise.shape, dtype="u2", layout=layout, axes="cyx")
        with store.changing(adding=[name]):
            array.write(whole, noise)
        store.commit(f"array {name}")
        if name == "0":
            good = set((tmp_path / "image" / "chunks").iterdir())
    store.close()
    bad = min(set((tmp_path / "image" / "chunks").iterdir()) - good)
    if harm == "missing":
        bad.unlink()
    else:
        data = bad.read_bytes()
        bad.write_bytes(data[:100] if harm == "cut short" else data[::-1])
    reader = VersionedStore.open(tmp_path / "image")
    with pytest.raises(FormatError, match="image/1 is damaged or cannot be read"):
        reader.open_array("1").read(whole)
    np.testing.assert_array_equal(reader.open_array("0").read(whole), noise)


def test_a_half_deleted_repository_is_an_error(path):
    for snapshot in (path / "snapshots").iterdir():
        snapshot.unlink()
    with pytest.raises((FormatError, NotFoundError), match="image"):
        VersionedStore.open(path).attributes()
    (path / "refs" / "branch.main" / "ref.json").write_text("{")
    with pytest.raises(FormatError, match="image is damaged"):
        VersionedStore.open(path)


# ------------------------------------------------------------------ processes


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process of its own; it has what the tests are run with, and nothing that was opened."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


def printed(process: subprocess.Popen[str]) -> list[str]:
    """The lines that a process that ended well has printed."""
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return output.splitlines()


def test_workers_read_the_snapshot_that_was_open_here(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    reader = VersionedStore.open(Path("image"))
    committed(path, 1, "one")
    monkeypatch.undo()
    (path.parent / "pickled").write_bytes(pickle.dumps((reader.open_array("0"), reader)))
    code = """
        import pickle, sys
        from pathlib import Path
        array, store = pickle.loads(Path(sys.argv[1]).read_bytes())
        print(int(array.read(((0, 2), (0, 40), (0, 40))).sum()), store.attributes(), store.uri)
    """
    seen = printed(python(code, path.parent / "pickled"))
    assert seen == [f"{PIXELS.sum()} {{'levels': ['0']}} image"]
    writer = VersionedStore.open(path, writable=True)
    for unfit in (writer, writer.open_array("0")):
        with pytest.raises(ModeError, match="cannot be handed to another process"):
            pickle.dumps(unfit)


def test_a_forked_child_is_told_instead_of_hanging(path):
    code = """
        import os, sys
        from pathlib import Path
        from microtome.errors import ModeError
        from microtome.storage import VersionedStore
        store = VersionedStore.open(Path(sys.argv[1]))
        array = store.open_array("0")
        if os.fork() == 0:
            for action in (
                lambda: array.read(((0, 1), (0, 1), (0, 1))),
                store.attributes,
                store.history,
                lambda: VersionedStore.open(Path(sys.argv[1])),
            ):
                try:
                    action()
                except ModeError as error:
                    print("forked" in str(error) and "spawn" in str(error), flush=True)
            os._exit(0)
        os.wait()
        print(int(array.read(((0, 1), (0, 1), (0, 1)))[0, 0, 0]))
    """
    assert printed(python(code, path)) == ["True"] * 4 + [str(PIXELS[0, 0, 0])]


def test_nothing_is_printed_and_other_warnings_are_left_alone(tmp_path, capfd):
    import icechunk

    store = begun(tmp_path / "image")
    store.commit("as acquired")
    other = VersionedStore.open(tmp_path / "image", writable=True)
    set_pixel(store, 1)
    set_pixel(other, 2)
    store.close()
    with pytest.raises(ConflictError):
        other.commit("two")
    assert capfd.readouterr() == ("", "")
    icechunk.local_filesystem_storage(str(tmp_path / "image"))
    assert "not safe for concurrent commits" in capfd.readouterr().out


def test_without_icechunk_the_extra_is_named(tmp_path, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "icechunk", None)
    for action in (
        lambda: VersionedStore.create(tmp_path / "new"),
        lambda: VersionedStore.open(path),
    ):
        with pytest.raises(DependencyError, match=r"microtome\[versioned\]"):
            action()
    assert names(tmp_path) == ["image"]


def test_icechunk_and_zarr_are_not_loaded_before_they_are_needed(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from microtome.storage import is_versioned
        import microtome
        is_versioned(Path(sys.argv[1]))
        print({"icechunk", "zarr"} & set(sys.modules))
    """
    assert printed(python(code, tmp_path)) == ["set()"]


@pytest.mark.slow
def test_no_commit_of_four_processes_is_lost(path):
    """Icechunk alone kept 82 of 100 commits that four processes made to a local directory."""
    code = """
        import random, sys, time
        from pathlib import Path
        import numpy as np
        from microtome.errors import ConflictError
        from microtome.storage import VersionedStore
        path, worker, conflicts = Path(sys.argv[1]), int(sys.argv[2]), 0

        def add(number):
            store = VersionedStore.open(path, writable=True)
            with store.changing() as attributes:  # a list that all of them append to
                attributes.setdefault("done", []).append([worker, number])
            box = ((0, 1), (worker, worker + 1), (number % 40, number % 40 + 1))
            store.open_array("0").write(box, np.full((1, 1, 1), number + 1, np.uint16))
            try:
                store.commit(f"{worker}: {number}")
            except ConflictError:
                store.discard()
                return False
            return True

        for number in range(50):
            while not add(number):
                conflicts += 1
                time.sleep(random.random() * 0.02)
        print(conflicts)
    """
    writers = [python(code, path, worker) for worker in range(4)]
    # They do meet: what is held here is not that they came one after the other.
    assert sum(int(printed(writer)[0]) for writer in writers) > 0
    store = VersionedStore.open(path)
    expected = [[worker, number] for worker in range(4) for number in range(50)]
    assert sorted(store.attributes()["done"]) == expected
    # Each worker's own are in order, and the history has the same, in the same order.
    messages = [s.message for s in reversed(store.history())]
    assert messages == ["as acquired", *(f"{w}: {n}" for w, n in store.attributes()["done"])]
    row = [*range(41, 51), *range(11, 41)]
    np.testing.assert_array_equal(pixels(store)[0, :4], [row] * 4)
    assert names(path.parent) == ["image"]


@pytest.mark.slow
def test_a_killed_writer_leaves_the_last_commit_and_no_lock(path):
    code = """
        import sys
        from pathlib import Path
        import numpy as np
        from microtome.storage import VersionedStore
        store = VersionedStore.open(Path(sys.argv[1]), writable=True)
        for value in range(store.attributes().get("value", 0) + 1, 10**6):
            store.open_array("0").write(
                ((0, 2), (0, 40), (0, 40)), np.full((2, 40, 40), value, np.uint16)
            )
            with store.changing() as attributes:
                attributes["value"] = value
            store.commit(f"value {value}")
            print(value, flush=True)
    """
    rng = random.Random(0)
    last = 0
    for _ in range(8):
        writer = python(code, path)
        assert writer.stdout is not None
        told = [int(writer.stdout.readline())]
        time.sleep(rng.random() * 0.2)
        os.kill(writer.pid, signal.SIGKILL)
        told += [int(line) for line in writer.communicate()[0].splitlines()]
        store = VersionedStore.open(path)
        value = store.attributes()["value"]
        # What it told is there; the commit that it was at may be, whole.
        assert value in (told[-1], told[-1] + 1)
        assert (pixels(store) == value).all()
        expected = [f"value {n}" for n in range(value, 0, -1)]
        assert [s.message for s in store.history()] == [*expected, "as acquired"]
        assert value > last
        last = value
    start = time.monotonic()
    committed(path, 60000, "after all of them")
    assert time.monotonic() - start < 10
    assert names(path.parent) == ["image"]


@pytest.mark.slow
def test_a_writer_killed_before_the_first_commit_leaves_nothing_that_opens(tmp_path):
    code = """
        import sys, time
        from pathlib import Path
        from microtome.storage import VersionedStore
        store = VersionedStore.create(Path(sys.argv[1]))
        print("begun", flush=True)
        time.sleep(60)
    """
    writer = python(code, tmp_path / "image")
    assert writer.stdout is not None
    assert writer.stdout.readline() == "begun\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    assert not (tmp_path / "image").exists()
    begun(tmp_path / "image").close()
    assert names(tmp_path) == ["image"]
    assert re.fullmatch(r"[0-9A-Z]{20}", VersionedStore.open(tmp_path / "image").history()[0].id)


def test_a_draft_of_a_directory_knows_repositories(path):
    with pytest.raises(ExistsError, match="exists already"):
        Draft(path)
    Draft(path, overwrite=True).discard()
    assert is_versioned(path)
