"""A disk that is full, and a folder that may not be written: one clear error, nothing left behind.

Each test runs in a process of its own, because what it takes away (space, rights) is taken from a
whole process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from microtome.storage import write_group

PRELUDE = textwrap.dedent("""
    import os, resource, sys
    from pathlib import Path
    import numpy as np
    from microtome.errors import MicrotomeError
    from microtome.storage import (
        Draft, Layout, create_array, open_array, read_group, replace_file, write_group
    )

    folder = Path(sys.argv[1])
    pixels = np.random.default_rng(0).integers(0, 60000, (1024, 1024)).astype(np.uint16)

    def image(name):
        draft = Draft(folder / name)
        try:
            array = create_array(
                draft.path / "0", shape=pixels.shape, dtype="u2",
                layout=Layout((128, 128), (512, 512)), axes="yx",
            )
            array.write(((0, 1024), (0, 1024)), pixels)
            draft.write_root({})
            draft.publish()
        except BaseException:
            draft.discard()
            raise

    def file(name):
        with replace_file(folder / name) as temporary:
            temporary.write_bytes(pixels.tobytes())

    def root(name):
        draft = Draft(folder / name)
        try:
            draft.write_root({"long": "x" * 3_000_000})
        finally:
            draft.discard()

    def group(name):
        write_group(folder / name, {"long": "x" * 3_000_000})

    def attempt(job, name):
        try:
            job(name)
        except MicrotomeError as error:
            print(f"{type(error).__name__}: {error}")
        else:
            print("done")
""")

ATTEMPTS = """
for job in (image, file, root, group):
    attempt(job, job.__name__)
print(sorted(str(p.relative_to(folder)) for p in folder.rglob("*")))
"""


def run(script: str, folder: Path, before: tuple[str, ...] = ()) -> list[str]:
    ran = subprocess.run(
        [*before, sys.executable, "-c", PRELUDE + script, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def check(lines: list[str], folder: Path, words: tuple[str, ...], left: str = "[]") -> None:
    *attempts, rest = lines
    assert len(attempts) == 4
    for name, line in zip(("image", "file", "root", "group"), attempts, strict=True):
        assert line.startswith("StorageError: "), line
        assert str(folder) in line
        assert name in line
        assert any(word in line for word in words), line
    assert rest == left


def test_a_full_disk(tmp_path):
    # In a mount namespace: the small disk goes away with the process, however it ends.
    before = ("unshare", "--mount")
    probe = "mount -t tmpfs -o size=100k tmpfs ."
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*before, "sh", "-c", probe], cwd=tmp_path, capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a small file system can be mounted by root only, on Linux")
    mount = """
import subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
"""
    lines = run(mount + ATTEMPTS, tmp_path, before)
    check(lines, tmp_path, ("No space left on device",), "['group']")


def test_files_that_may_not_grow(tmp_path):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    lines = run(limit + ATTEMPTS, tmp_path)
    check(lines, tmp_path, ("File too large",), "['group']")


@pytest.fixture
def open_folder():
    """A folder that a user without rights can walk to, where there is one; root has all rights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        if os.geteuid() == 0 and not all(p.stat().st_mode & 0o001 for p in folder.parents):
            pytest.skip(f"nobody but root can reach {folder}")
        yield folder


DROP = "if os.geteuid() == 0:\n    os.setgid(65534); os.setuid(65534)\n"


def test_a_folder_that_may_not_be_written(open_folder):
    open_folder.chmod(0o555)
    lines = run(DROP + ATTEMPTS, open_folder)
    check(lines, open_folder, ("not allowed", "Permission denied"))


def test_metadata_that_may_not_be_read(open_folder):
    write_group(open_folder / "a", {})
    (open_folder / "a" / "zarr.json").chmod(0)
    lines = run(
        DROP
        + """
attempt(lambda name: read_group(folder / name), "a")
attempt(lambda name: open_array(folder / name).shape, "a")
""",
        open_folder,
    )
    assert [line.split(":")[0] for line in lines] == ["StorageError"] * 2
    assert all(str(open_folder / "a") in line for line in lines)
