"""A draft is nowhere until it is published, whoever is killed and whoever else writes."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from microtome.errors import ExistsError, NotFoundError, StorageError
from microtome.storage import Draft, Layout, create_array, is_group, open_array, read_group
from microtome.storage import _publish as publishing_module

BOX = ((0, 8), (0, 8))


def fill(draft: Draft, value: int) -> Draft:
    array = create_array(
        draft.path / "0", shape=(8, 8), dtype="u1", layout=Layout((4, 4), (4, 4)), axes="yx"
    )
    array.write(BOX, np.full((8, 8), value, np.uint8))
    draft.write_root({"value": value})
    return draft


def publish(target: Path, value: int, **options) -> None:
    fill(Draft(target, **options), value).publish()


def opens_as(target: Path) -> int | None:
    """The value of a whole image at a path, None where nothing opens; a half one is an error."""
    try:
        value = read_group(target)["value"]
    except NotFoundError:
        return None
    read = open_array(target / "0").read(BOX)
    assert (read == value).all(), f"{target} opens as {value} but holds {np.unique(read)}"
    return value


def everything_that_opens(folder: Path) -> list[str]:
    """Every directory below, hidden ones included, that our reader takes for a group."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if is_group(p))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------ one writer


@pytest.mark.interop
def test_nothing_opens_before_it_is_published(tmp_path):
    import zarr

    target = tmp_path / "sub" / "a.zarr"
    draft = fill(Draft(target), 1)
    assert not target.exists()
    assert everything_that_opens(tmp_path) == []
    for path in (target, draft.path):
        with pytest.raises(NotFoundError):
            read_group(path)
        with pytest.raises(FileNotFoundError):
            zarr.open_group(path, mode="r")
    draft.publish()
    assert opens_as(target) == 1
    assert zarr.open_group(target, mode="r").attrs["value"] == 1
    assert names(tmp_path / "sub") == ["a.zarr"]
    assert names(target) == ["0", "zarr.json"]


def test_a_discarded_draft_leaves_nothing(tmp_path):
    draft = fill(Draft(tmp_path / "a.zarr"), 1)
    draft.discard()
    assert names(tmp_path) == []
    draft.discard()  # as often as one likes
    publish(tmp_path / "a.zarr", 2)
    draft.discard()
    assert opens_as(tmp_path / "a.zarr") == 2


def test_a_published_draft_cannot_be_discarded(tmp_path):
    draft = fill(Draft(tmp_path / "a.zarr"), 1)
    draft.publish()
    draft.discard()
    assert opens_as(tmp_path / "a.zarr") == 1


def test_what_is_there_is_not_replaced_unasked(tmp_path):
    publish(tmp_path / "a.zarr", 1)
    with pytest.raises(ExistsError, match="exists already"):
        Draft(tmp_path / "a.zarr")
    assert names(tmp_path) == ["a.zarr"]
    assert opens_as(tmp_path / "a.zarr") == 1


def test_the_old_one_stays_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "a.zarr"
    publish(target, 1)
    (target / "extra").write_text("")
    draft = fill(Draft(target, overwrite=True), 2)
    assert opens_as(target) == 1
    draft.publish()
    assert opens_as(target) == 2
    assert names(tmp_path) == ["a.zarr"]
    assert names(target) == ["0", "zarr.json"]
    fill(Draft(target, overwrite=True), 3).discard()
    assert opens_as(target) == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_image_is_never_replaced(tmp_path, overwrite):
    folder, file, link = tmp_path / "thesis", tmp_path / "notes.txt", tmp_path / "link"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    file.write_text("notes")
    link.symlink_to(folder)
    for target in (folder, file, link, tmp_path / "sub" / "..", tmp_path / "dangling"):
        if target.name == "dangling":
            target.symlink_to("nowhere")
        with pytest.raises(ExistsError, match="no image"):
            Draft(target, overwrite=overwrite)
    # Nor when it appears while the draft is being written.
    draft = fill(Draft(tmp_path / "late", overwrite=overwrite), 1)
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "chapter.tex").write_text("years of work")
    with pytest.raises(ExistsError, match="no image"):
        draft.publish()
    assert (folder / "chapter.tex").read_text() == "years of work"
    assert (tmp_path / "late" / "chapter.tex").read_text() == "years of work"
    assert names(tmp_path / "late") == ["chapter.tex"]
    assert names(tmp_path) == ["dangling", "late", "link", "notes.txt", "sub", "thesis"]


def test_an_empty_directory_is_filled(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    publish(tmp_path / "a.zarr", 1)
    assert opens_as(tmp_path / "a.zarr") == 1
    assert names(tmp_path) == ["a.zarr"]


def test_an_old_zarr_is_replaced_when_asked(tmp_path):
    target = tmp_path / "a.zarr"
    target.mkdir()
    (target / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(ExistsError, match="exists already"):
        Draft(target)
    publish(target, 1, overwrite=True)
    assert names(target) == ["0", "zarr.json"]


def test_a_link_to_an_image_is_replaced_not_what_it_leads_to(tmp_path):
    publish(tmp_path / "there.zarr", 1)
    (tmp_path / "here.zarr").symlink_to("there.zarr")
    publish(tmp_path / "here.zarr", 2, overwrite=True)
    assert opens_as(tmp_path / "here.zarr") == 2
    assert opens_as(tmp_path / "there.zarr") == 1
    assert names(tmp_path) == ["here.zarr", "there.zarr"]


def test_a_draft_without_a_root_is_a_plain_directory(tmp_path):
    draft = Draft(tmp_path / "a")
    (draft.path / "file").write_text("x")
    draft.publish()
    assert names(tmp_path / "a") == ["file"]
    assert names(tmp_path) == ["a"]


def test_a_relative_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    publish("a.zarr", 1)
    assert opens_as(tmp_path / "a.zarr") == 1


def test_one_thread_may_begin_and_another_publish(tmp_path):
    draft = fill(Draft(tmp_path / "a.zarr"), 1)
    thread = threading.Thread(target=draft.publish)
    thread.start()
    thread.join()
    assert names(tmp_path) == ["a.zarr"]
    assert opens_as(tmp_path / "a.zarr") == 1


# ------------------------------------------------------------------ several writers


def test_the_second_of_two_writers_is_told_and_leaves_nothing(tmp_path):
    target = tmp_path / "a.zarr"
    first, second = fill(Draft(target), 1), fill(Draft(target), 2)
    first.publish()
    with pytest.raises(ExistsError, match="exists already"):
        second.publish()
    assert opens_as(target) == 1
    assert names(tmp_path) == ["a.zarr"]


def test_the_last_of_two_that_may_overwrite_stays(tmp_path):
    target = tmp_path / "a.zarr"
    publish(target, 0)
    first, second = (fill(Draft(target, overwrite=True), value) for value in (1, 2))
    second.publish()
    first.publish()
    assert opens_as(target) == 1
    assert names(tmp_path) == ["a.zarr"]


def test_a_draft_of_a_living_writer_is_left_alone(tmp_path):
    target = tmp_path / "a.zarr"
    first = fill(Draft(target), 1)
    fill(Draft(target), 2).discard()
    assert first.path.is_dir()
    first.publish()
    assert opens_as(target) == 1


def test_a_directory_is_listed_once_however_many_images_are_written(tmp_path, monkeypatch):
    listed = []
    own = os.listdir

    def counting(path="."):
        if Path(path) == tmp_path:
            listed.append(path)
        return own(path)

    monkeypatch.setattr(os, "listdir", counting)
    for number in range(20):
        publish(tmp_path / f"{number}.zarr", number)
        publish(tmp_path / f"{number}.zarr", number, overwrite=True)
    assert len(listed) == 1
    assert names(tmp_path) == sorted(f"{number}.zarr" for number in range(20))


def test_writers_at_once_have_names_of_their_own_and_the_dead_of_all_are_cleared(tmp_path):
    target = tmp_path / "a.zarr"
    # More than there are names that are asked for.
    alive = [fill(Draft(target), number) for number in range(11)]
    assert len({draft.path for draft in alive}) == 11
    # All but one die: the locks go, what they wrote stays.
    for draft in alive[1:]:
        draft._lock.release()
        draft._lock = publishing_module.FileLock(tmp_path / "another.lock")
        Path(f"{draft.path}.lock").touch()
    # What has a random name is found by a process that has not looked yet, as the next one has not.
    publishing_module._LOOKED.clear()
    fill(Draft(target), 20).discard()
    assert names(tmp_path) == sorted([alive[0].path.name, f"{alive[0].path.name}.lock"])
    # Without a look, the names of the dead that are not random.
    alive[0].publish()
    again = [Draft(target, overwrite=True) for _ in range(3)]
    for draft in again[:2]:
        draft.discard()
    again[2]._lock.release()
    Path(f"{again[2].path}.lock").touch()
    Draft(target, overwrite=True).discard()
    assert names(tmp_path) == ["a.zarr"]
    assert opens_as(target) == 0


@pytest.mark.parametrize("name", ["a[1].zarr", "*.zarr", "?", "a.zarr"])
def test_the_drafts_of_other_targets_are_left_alone(tmp_path, name):
    # What a dead writer of another target left behind, both before and after its first rename.
    others = ["a1.zarr", "b.zarr", "xx.zarr", "a.zarr2", "x", ".a.zarr"]
    for other in others:
        (tmp_path / f".{other}.replaced-123456789abc").mkdir()
        (tmp_path / f".{other}.partial-123456789abc").mkdir()
    before = names(tmp_path)
    publish(tmp_path / name, 1)
    assert names(tmp_path) == sorted([*before, name])


def test_many_threads_that_may_overwrite_always_show_a_whole_image(tmp_path):
    target = tmp_path / "a.zarr"
    errors: list[BaseException] = []

    def write(value):
        try:
            for step in range(4):
                publish(target, value + step, overwrite=True)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=write, args=(10 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert opens_as(target) in range(40)
    assert names(tmp_path) == ["a.zarr"]


def test_a_writer_that_looks_while_another_renames_looks_again(tmp_path, monkeypatch):
    target = tmp_path / "a.zarr"
    publish(target, 1)
    looked, look = [], publishing_module.is_left_over

    def look_and_lose(place):
        answer = look(place)
        if not looked:  # between the two questions, what was there is moved aside
            looked.append(place)
            other = publishing_module.publishing(target)
            other.__enter__()
            (target / "zarr.json").rename(target / "zarr.json.pending")

            def finish():
                (target / "zarr.json.pending").rename(target / "zarr.json")
                other.__exit__(None, None, None)

            threading.Timer(0.3, finish).start()
        return answer

    monkeypatch.setattr(publishing_module, "is_left_over", look_and_lose)
    publish(target, 2, overwrite=True)
    assert looked
    assert opens_as(target) == 2


def test_of_many_threads_that_may_not_overwrite_one_wins(tmp_path):
    target = tmp_path / "a.zarr"
    drafts = [fill(Draft(target), value) for value in range(6)]
    barrier, won, lost = threading.Barrier(6), [], []

    def race(value):
        barrier.wait()
        try:
            drafts[value].publish()
            won.append(value)
        except ExistsError:
            lost.append(value)

    threads = [threading.Thread(target=race, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 5)
    assert opens_as(target) == won[0]
    assert names(tmp_path) == ["a.zarr"]


# ------------------------------------------------------------------ a failing disk


@pytest.mark.parametrize("put_back_fails", [False, True])
def test_a_publication_that_fails_does_not_cost_the_old_one(tmp_path, monkeypatch, put_back_fails):
    target = tmp_path / "a.zarr"
    publish(target, 1)
    draft = fill(Draft(target, overwrite=True), 2)
    real = os.rename

    def rename(source, goal, **options):
        if Path(goal) == target and (Path(source) == draft.path or put_back_fails):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, goal, **options)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(StorageError, match=r"cannot write .*a\.zarr"):
        draft.publish()
    monkeypatch.undo()
    if put_back_fails:
        assert not target.exists()
        with pytest.raises(ExistsError, match="exists already"):
            Draft(target)  # the next writer finds it, and puts it back
    assert opens_as(target) == 1
    assert names(tmp_path) == ["a.zarr"]


# ------------------------------------------------------------------ sudden death

# The writer counts what it changes in the file system and kills itself before change number N:
# every state that a death can leave is visited, not only those that chance finds.
DYING = textwrap.dedent("""
    import os, signal, sys
    import numpy as np
    from microtome.storage import Draft, Layout, create_array

    target, overwrite, last = sys.argv[1], sys.argv[2] == "True", int(sys.argv[3])
    count = 0

    def dying(function):
        def change(*arguments, **options):
            global count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return change

    opened = os.open
    def open_dying(path, flags, *rest, **options):
        return (dying(opened) if flags & os.O_CREAT else opened)(path, flags, *rest, **options)

    for name in ("mkdir", "rename", "replace", "rmdir", "unlink", "fsync"):
        setattr(os, name, dying(getattr(os, name)))
    os.open = open_dying
    # The array first, so that what the engine writes lies between counted changes.
    draft = Draft(target, overwrite=overwrite)
    array = create_array(
        draft.path / "0", shape=(8, 8), dtype="u1", layout=Layout((4, 4), (4, 4)), axes="yx"
    )
    array.write(((0, 8), (0, 8)), np.full((8, 8), 2, np.uint8))
    draft.write_root({"value": 2})
    draft.publish()
""")


def die(target: Path, overwrite: bool, last: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DYING, str(target), str(overwrite), str(last)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_death_at_any_step(tmp_path, overwrite):
    seen = set()
    for last in itertools.count(1):
        folder = tmp_path / str(last)
        target = folder / "a.zarr"
        folder.mkdir()
        if overwrite:
            publish(target, 1)
        ran = die(target, overwrite, last)
        died = ran.returncode == -signal.SIGKILL
        assert died or ran.returncode == 0, ran.stderr

        value = opens_as(target)  # which fails for half an image
        seen.add((died, value))
        aside = [p for p in everything_that_opens(folder) if p.split("/")[0] != "a.zarr"]
        # Only the old one, moved aside whole, may open elsewhere; and it waits to be put back.
        kept = [p for p in aside if ".replaced-" in p and "partial" not in p and "/" not in p]
        assert sorted({p.split("/")[0] for p in aside}) == kept
        assert all(opens_as(folder / p) == 1 for p in kept)
        if not died:
            assert value == 2

        # Whoever writes next clears up, and finds either version whole; nothing else is left.
        Draft(target, overwrite=True).discard()
        after = opens_as(target)
        assert after in ({1, 2} if overwrite else {None, 2})
        assert value is None or after == value
        assert set(names(folder)) <= {"a.zarr"}
        publish(target, 3, overwrite=True)
        assert opens_as(target) == 3
        assert names(folder) == ["a.zarr"]
        assert names(target) == ["0", "zarr.json"]
        if not died:
            break
    assert last > 8  # lock, directory, metadata, renames, clearing up
    # The kills did reach the stages that matter.
    assert {(True, 1 if overwrite else None), (True, 2), (False, 2)} <= seen


REPEATING = textwrap.dedent("""
    import sys
    import numpy as np
    from microtome.storage import Draft, Layout, create_array

    values = np.full((256, 256), 2, np.uint8)
    print("ready", flush=True)
    while True:
        draft = Draft(sys.argv[1], overwrite=True)
        array = create_array(
            draft.path / "0", shape=(256, 256), dtype="u1", layout=Layout((32, 32), None), axes="yx"
        )
        for row in range(0, 256, 32):
            array.write(((row, row + 32), (0, 256)), values[row : row + 32])
        draft.write_root({"value": 2})
        draft.publish()
""")


@pytest.mark.slow
def test_death_at_twenty_random_moments(tmp_path):
    target = tmp_path / "a.zarr"
    moments = random.Random(5)
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", REPEATING, str(target)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.wait()
        process.stdout.close()
        if is_group(target):
            assert read_group(target) == {"value": 2}
            assert (open_array(target / "0").read(((0, 256), (0, 256))) == 2).all()
        assert [p for p in everything_that_opens(tmp_path) if ".partial-" in p] == []
        Draft(target, overwrite=True).discard()
        assert set(names(tmp_path)) <= {"a.zarr"}
