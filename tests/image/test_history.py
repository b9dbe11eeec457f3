"""Images that remember: every commit opens again, whole, and plain images say that they have none."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from microtome.errors import (
    ConflictError,
    ExistsError,
    InvalidInputError,
    ModeError,
    NotFoundError,
    UnknownNameError,
)
from microtome.image import MultiscaleImage
from microtome.storage import Layout, is_versioned

SHAPE = (3, 61, 45)
LAYOUT = Layout((1, 8, 8), (3, 16, 16))
PIXELS = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16)


def create(path: Path, **options) -> MultiscaleImage:
    return MultiscaleImage.create(
        path, type="uint16", level_shape=SHAPE, mpp=0.5, layout=LAYOUT, versioned=True, **options
    )


@pytest.fixture
def path(tmp_path) -> Path:
    """An image with its levels, committed."""
    with create(tmp_path / "image", channel_names=["DAPI", "CD3", "CD8"]) as image:
        image["level0"][...] = PIXELS
        image.build_levels()
        image.metadata["stain"] = "mIF"
    return tmp_path / "image"


def messages(image: MultiscaleImage) -> list[str]:
    return [snapshot.message for snapshot in image.history()]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# ------------------------------------------------------------------ the life of an image


def test_a_versioned_image_is_an_image_like_any_other(path, tmp_path):
    with MultiscaleImage.create(
        tmp_path / "plain",
        type="uint16",
        level_shape=SHAPE,
        mpp=0.5,
        layout=LAYOUT,
        channel_names=["DAPI", "CD3", "CD8"],
    ) as plain:
        plain["level0"][...] = PIXELS
        plain.build_levels()
    plain, ours = MultiscaleImage.open(tmp_path / "plain"), MultiscaleImage.open(path)
    assert is_versioned(path)
    assert list(ours) == list(plain)
    assert (ours.axes, ours.channel_names, ours.mpp) == (plain.axes, plain.channel_names, plain.mpp)
    for key in plain:
        assert ours[key].dtype == plain[key].dtype
        np.testing.assert_array_equal(ours[key][...], plain[key][...])
    box = (3, 5, 30, 40)
    for level in range(len(plain)):
        np.testing.assert_array_equal(
            ours.read_spatial_region(level, box).data, plain.read_spatial_region(level, box).data
        )
    assert MultiscaleImage.exists(path)


def test_nothing_is_there_before_the_first_commit(tmp_path):
    image = create(tmp_path / "image")
    image["level0"][...] = PIXELS
    image.build_levels()
    assert not (tmp_path / "image").exists()
    assert not MultiscaleImage.exists(tmp_path / "image")
    assert image.history() == []
    image.commit("as acquired")
    other = MultiscaleImage.open(tmp_path / "image")
    np.testing.assert_array_equal(other["level0"][...], PIXELS)
    assert messages(other) == ["as acquired"]
    image["level0"][0, 0, 0] = 1
    assert other["level0"][0, 0, 0] == PIXELS[0, 0, 0]
    image.close()
    assert MultiscaleImage.open(tmp_path / "image")["level0"][0, 0, 0] == 1


def test_an_exception_drops_what_was_not_committed(path):
    """The peer's session keeps what was written before the exception."""

    def change_and_fail():
        with MultiscaleImage.open(path, "w") as image:
            image["level0"][...] = 1
            image.commit("all ones")
            image["level0"][...] = 2
            image.metadata["stain"] = "none"
            del image["level1"]
            _ = 1 // 0

    with pytest.raises(ZeroDivisionError):
        change_and_fail()
    after = MultiscaleImage.open(path)
    assert messages(after)[0] == "all ones"
    assert (after["level0"][...] == 1).all()
    assert after.metadata["stain"] == "mIF"
    assert "level1" in after


def test_an_exception_leaves_nothing_of_a_new_image(tmp_path):
    with pytest.raises(ZeroDivisionError), create(tmp_path / "image") as image:
        image["level0"][...] = 1 // 0
    assert names(tmp_path) == []


def test_an_error_after_the_first_commit_leaves_the_commit(tmp_path):

    def commit_and_fail():
        with create(tmp_path / "image") as image:
            image["level0"][...] = PIXELS
            image.commit("as acquired")
            image["level0"][...] = 1 // 0

    with pytest.raises(ZeroDivisionError):
        commit_and_fail()
    after = MultiscaleImage.open(tmp_path / "image")
    assert messages(after) == ["as acquired"]
    np.testing.assert_array_equal(after["level0"][...], PIXELS)


# ------------------------------------------------------------------ looking back


def test_levels_pixels_and_metadata_travel_together(tmp_path):
    """As the peer's time stamps promise: one level, then two, then other pixels and metadata."""
    image = create(tmp_path / "image")
    image["level0"][...] = 1
    image.metadata["note"] = "v1"
    ids = [image.commit("one level")]
    image.add_new_level("half", shape=(3, 31, 23))
    image["half"][...] = 7
    image.metadata["note"] = "v2"
    ids.append(image.commit("two levels"))
    image["level0"][...] = 2
    image.metadata["note"] = "v3"
    del image["half"]
    ids.append(image.commit("other pixels"))
    image.tag("last")
    image.close()

    def seen(at) -> tuple[list[str], int, str]:
        found = MultiscaleImage.open(tmp_path / "image", at=at)
        return list(found), int(found["level0"][...].max()), found.metadata["note"]

    expected = [(["level0"], 1, "v1"), (["level0", "half"], 1, "v2"), (["level0"], 2, "v3")]
    assert [seen(at) for at in ids] == expected
    assert seen("last") == expected[-1]
    history = [
        s for s in reversed(MultiscaleImage.open(tmp_path / "image").history()) if s.id in ids
    ]
    assert [s.id for s in history] == ids
    assert [s.message for s in history] == ["one level", "two levels", "other pixels"]
    assert [seen(s.written_at) for s in history] == expected
    second = MultiscaleImage.open(tmp_path / "image", at=ids[1])
    assert (second["half"][...] == 7).all()


def test_a_snapshot_stays_while_others_write(path):
    first = MultiscaleImage.open(path)
    at = first.history()[0]
    time.sleep(0.002)
    readers = [first]
    for value in range(3):
        with MultiscaleImage.open(path, "w") as image:
            image["level0"][...] = value
            image.metadata["value"] = value
        readers.extend(MultiscaleImage.open(path, at=when) for when in (at.id, at.written_at))
    for reader in readers:
        np.testing.assert_array_equal(reader["level0"][...], PIXELS)
        assert "value" not in reader.metadata
    first.reopen()
    assert (first["level0"][...] == 2).all()
    first.reopen(at=at.id)
    np.testing.assert_array_equal(first["level0"][...], PIXELS)


def test_reopening_shows_what_others_committed(path):
    reader = MultiscaleImage.open(path)
    with MultiscaleImage.open(path, "w") as writer:
        writer["level0"][...] = 5
    np.testing.assert_array_equal(reader["level0"][...], PIXELS)
    reader.reopen("w")
    assert (reader["level0"][...] == 5).all()
    reader["level0"][...] = 6
    reader.reopen()
    assert messages(reader)[:2] == ["closed", "closed"]
    assert (reader["level0"][...] == 6).all()


@pytest.mark.parametrize(
    ("at", "error", "match"),
    [
        ("no such tag", UnknownNameError, "no tag or snapshot"),
        (0, NotFoundError, "was not there at 0; its first snapshot, 'closed'"),
        (datetime(2026, 1, 1), InvalidInputError, "time zone"),  # noqa: DTZ001 - the point
    ],
)
def test_a_past_that_is_not_there_is_an_error(path, at, error, match):
    with pytest.raises(error, match=match):
        MultiscaleImage.open(path, at=at)
    assert not MultiscaleImage.exists(path, at=at)


def test_the_past_is_not_written(path):
    at = MultiscaleImage.open(path).history()[0].id
    with pytest.raises(InvalidInputError, match="the past"):
        MultiscaleImage.open(path, "w", at=at)


def test_reading_leaves_no_trace(path, fingerprint):
    before = fingerprint(path.parent)
    image = MultiscaleImage.open(path, at=MultiscaleImage.open(path).history()[0].id)
    image.read_spatial_region(1)
    assert image.tags() == {}
    image.close()
    assert fingerprint(path.parent) == before


def test_tags_name_snapshots(path):
    image = MultiscaleImage.open(path, "w")
    image.tag("raw")
    raw = image.history()[0].id
    image["level0"][...] = 1
    with pytest.raises(InvalidInputError, match="commit before tagging"):
        image.tag("ones")
    ones = image.commit("ones")
    image.tag("ones")
    with pytest.raises(ExistsError, match="'raw'"):
        image.tag("raw")
    assert image.tags() == {"ones": ones, "raw": raw}
    assert [s.tags for s in image.history()] == [("ones",), ("raw",)]
    with pytest.raises(ModeError, match="reading"):
        MultiscaleImage.open(path).tag("other")
    image.close()


# ------------------------------------------------------------------ changing


def test_building_again_is_one_commit(tmp_path):
    path = tmp_path / "image"
    with MultiscaleImage.create(
        path, type="uint8", level_shape=(1, 300, 260), versioned=True
    ) as image:
        image.build_levels()
    image = MultiscaleImage.open(path, "w")
    image["level0"][...] = 9
    image.build_levels(overwrite=True)
    before = MultiscaleImage.open(path)
    assert (before["level1"][...] != 9).any()
    image.commit("all nines")
    after = MultiscaleImage.open(path)
    assert list(after) == list(before)
    assert all((after[key][...] == 9).all() for key in after)
    assert (before["level1"][...] != 9).any()
    image.close()
    assert messages(MultiscaleImage.open(path)) == ["all nines", "closed"]


def test_levels_are_set_popped_and_cleared(path):
    with MultiscaleImage.open(path, "w") as image:
        image.clear()
        image["quarter"] = np.full((3, 16, 12), 4, np.uint16)
        image["quarter"] = np.full((3, 16, 12), 5, np.uint16)
        image.commit("a level of mine")
        assert (image["quarter"][...] == 5).all()
        image.pop("quarter")
    newest, mine, oldest = (
        MultiscaleImage.open(path, at=s.id) for s in MultiscaleImage.open(path).history()
    )
    assert list(newest) == ["level0"]
    assert list(mine) == ["level0", "quarter"]
    assert (mine["quarter"][...] == 5).all()
    assert "level1" in oldest


def test_a_level_that_does_not_fit_changes_nothing(path):
    with MultiscaleImage.open(path, "w") as image:
        with pytest.raises(InvalidInputError):
            image.add_new_level("large", shape=(3, 100, 100))
        with pytest.raises(ExistsError):
            image.add_new_level("level1", shape=(3, 31, 23))
    assert messages(MultiscaleImage.open(path)) == ["closed"]


def test_two_writers_of_different_things_both_succeed(path):
    first, second = (MultiscaleImage.open(path, "w") for _ in range(2))
    first["level0"][0, 0, 0] = 1
    second["level0"][0, 60, 44] = 2
    first.metadata["first"] = True
    first.commit("one")
    second.commit("two")
    after = MultiscaleImage.open(path)
    assert (after["level0"][0, 0, 0], after["level0"][0, 60, 44]) == (1, 2)
    assert after.metadata["first"] is True
    assert messages(after) == ["two", "one", "closed"]


def test_two_writers_of_the_same_are_told(path):
    first, second = (MultiscaleImage.open(path, "w") for _ in range(2))
    first["level0"][0, 0, 0] = 1
    second["level0"][0, 0, 1] = 2
    first.commit("one")
    with pytest.raises(ConflictError, match="'one'"):
        second.commit("two")
    second.discard()
    second.reopen("w")
    assert second["level0"][0, 0, 0] == 1
    second["level0"][0, 0, 1] = 2
    second.commit("two, upon one")
    assert MultiscaleImage.open(path)["level0"][0, 0, :2].tolist() == [1, 2]


def test_who_closes_with_a_conflict_is_told(path):
    first, second = (MultiscaleImage.open(path, "w") for _ in range(2))
    first.metadata["a"] = 1
    second.metadata["b"] = 2
    first.close()
    with pytest.raises(ConflictError, match="changed the same: metadata"):
        second.close()
    assert MultiscaleImage.open(path).metadata.get("b") is None
    # Nothing is lost without a word: it is open, with what it wrote.
    assert not second.closed
    assert second.metadata["b"] == 2
    second.discard()
    assert second.closed


# ------------------------------------------------------------------ plain copies


def test_a_frozen_copy_is_plain_and_has_all(path, tmp_path):
    with MultiscaleImage.open(path, "w") as image:
        image.tag("raw")
        image["level0"][...] = 1
    image = MultiscaleImage.open(path)
    told: list[tuple[str, int, int]] = []
    image.freeze("raw", tmp_path / "raw.ome.zarr", progress=lambda *news: told.append(news))
    assert told[-1][1] == told[-1][2] == len(told)
    frozen, raw = (
        MultiscaleImage.open(tmp_path / "raw.ome.zarr"),
        MultiscaleImage.open(path, at="raw"),
    )
    assert not is_versioned(tmp_path / "raw.ome.zarr")
    assert list(frozen) == list(raw)
    for key in raw:
        np.testing.assert_array_equal(frozen[key][...], raw[key][...])
    np.testing.assert_array_equal(frozen["level0"][...], PIXELS)
    assert (frozen.channel_names, frozen.mpp) == (raw.channel_names, raw.mpp)
    assert frozen.metadata["stain"] == "mIF"
    with pytest.raises(InvalidInputError, match="has no history"):
        frozen.history()
    with pytest.raises(ExistsError):
        image.freeze("raw", tmp_path / "raw.ome.zarr")
    with pytest.raises(UnknownNameError):
        image.freeze("cooked", tmp_path / "cooked.ome.zarr")
    assert names(tmp_path) == ["image", "raw.ome.zarr"]


def test_plain_images_have_no_history_and_say_so(written):
    path, _ = written
    with MultiscaleImage.open(path, "w") as image:
        for asked in (
            image.history,
            image.tags,
            lambda: image.commit("x"),
            lambda: image.tag("x"),
            lambda: image.freeze("x", path.parent / "y"),
        ):
            with pytest.raises(InvalidInputError, match=r"no history.*versioned=True"):
                asked()
    with pytest.raises(InvalidInputError, match=r"no history.*versioned=True"):
        MultiscaleImage.open(path, at="x")


def test_history_is_kept_in_local_directories_only():
    with pytest.raises(InvalidInputError, match="local directories only"):
        create("memory://history/image")


# ------------------------------------------------------------------ other processes


def test_a_worker_reads_what_was_open_here(path):
    """A loader's workers are started anew and open the image at the snapshot that it had here."""
    import pickle

    image = MultiscaleImage.open(path)
    with MultiscaleImage.open(path, "w") as writer:
        writer["level0"][...] = 1
    levels = list(image.values())
    (path.parent / "pickled").write_bytes(pickle.dumps(levels))
    code = """
        import pickle, sys
        from pathlib import Path
        levels = pickle.loads(Path(sys.argv[1]).read_bytes())
        print(*(int(level[...].sum()) for level in levels))
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), path.parent / "pickled"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert [int(n) for n in run.stdout.split()] == [int(level[...].sum()) for level in levels]
    assert int(run.stdout.split()[0]) == PIXELS.sum()


def test_a_copy_does_not_take_the_place_of_its_origin(path):
    with MultiscaleImage.open(path, "w") as image:
        image.tag("raw")
        with pytest.raises(InvalidInputError, match="would drop its history"):
            image.freeze("raw", path, overwrite=True)
    assert MultiscaleImage.open(path).tags()
