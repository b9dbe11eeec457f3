"""Killed, out of space, not allowed: nothing half-written opens, and running again completes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from microtome.cohort import CohortLayout, HEImagingDataset, ingest, mask, read_tissues
from microtome.coordinates import Resolution
from microtome.errors import MicrotomeError, StorageError
from microtome.image import MultiscaleImage

Tree = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide that takes long enough to ingest for a kill to hit every stage."""
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (2300, 2200, 3), dtype=np.uint8)
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        tile=(256, 256),
        resolution=(20000, 20000),
        resolutionunit=3,
    )
    return path


def command(slide: Path, root: Path) -> list[str]:
    options = ["--tissue", "t", "--modality", "he", "--resolution", "0.5"]
    return [
        sys.executable,
        "-m",
        "microtome",
        "ingest",
        str(slide),
        "--cohort",
        str(root),
        *options,
    ]


def start(slide: Path, root: Path, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(slide, root), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def finish(slide: Path, root: Path) -> None:
    done = subprocess.run(command(slide, root), capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr.decode()


def opens(directory: Path) -> bool:
    """Whether anybody would take a directory for an image."""
    try:
        MultiscaleImage.open(directory)
    except MicrotomeError:
        pass
    else:
        return True
    # Another reader looks for a group with attributes under the names of either Zarr version.
    if any((directory / name).exists() for name in (".zgroup", ".zattrs")):
        return True
    root = directory / "zarr.json"
    return root.exists() and json.loads(root.read_text())["node_type"] != "array"


@pytest.mark.slow
def test_a_killed_ingest_leaves_nothing_that_opens(tmp_path: Path, slide: Path, tree: Tree) -> None:
    finish(slide, tmp_path / "whole" / "cohort")
    whole = tree(tmp_path / "whole" / "cohort")
    root = tmp_path / "killed" / "cohort"
    target = root / "he/0_5mpp/images/t.ome.zarr"
    began = time.monotonic()
    process = start(slide, tmp_path / "timed" / "cohort")
    while process.poll() is None and not (tmp_path / "timed/cohort").exists():
        time.sleep(0.001)
    at_work = time.monotonic()
    process.communicate(timeout=100)
    duration = time.monotonic() - at_work
    assert at_work > began
    rng = np.random.default_rng(7)
    kills = halfway = 0
    while kills < 20:
        process = start(slide, root)
        while process.poll() is None and not (root / "cohort.json").exists():
            time.sleep(0.001)
        # Some at the very beginning, most anywhere on the way.
        time.sleep(float(rng.random() ** 1.5 * duration))
        running = process.poll() is None
        process.kill()
        process.communicate(timeout=100)
        kills += running
        for directory in [d for d in root.rglob("*") if d.is_dir()]:
            if directory != target:
                assert not opens(directory), directory
        if target.exists() and opens(target):
            # Complete: the kill came too late to matter, but for the table of tissues.
            prefix = target.relative_to(root).as_posix()
            assert {k: v for k, v in tree(root).items() if k.startswith(prefix)} == {
                k: v for k, v in whole.items() if k.startswith(prefix)
            }
            finish(slide, root)
            assert tree(root) == whole
            for path in sorted(root.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            root.rmdir()
        elif running:
            halfway += 1
            if root.exists() and (root / "cohort.json").exists():
                assert read_tissues(CohortLayout.open(root)).num_rows == 0
                with pytest.raises(MicrotomeError):
                    HEImagingDataset("c", path=root, resolution=0.5)
    assert halfway >= 5, "too few kills hit the writing; is the slide too small?"
    finish(slide, root)
    assert tree(root) == whole


LEFT = """
import os, sys, numpy as np
from microtome.cohort import ingest
import microtome.{module} as module
def die(*args, **kwargs):
    os._exit(9)
module.{name} = die
ingest(np.full((300, 300, 3), 7, np.uint8), axes="yxc", mpp=0.5, resolution=0.5,
       cohort=sys.argv[1], tissue_id="t", modality="he")
"""


def died(script: str, root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", script, str(root)], timeout=100, check=False)
    assert done.returncode == 9


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("cohort._cohort_json", "replace_file"),  # before the manifest
        ("cohort.ingestion._ingest", "begin_image"),  # before the image
        ("cohort.ingestion._ingest", "add_tissue"),  # between the image and the table
    ],
)
def test_death_between_two_steps(tmp_path: Path, tree: Tree, module: str, name: str) -> None:
    options: dict[str, Any] = {"axes": "yxc", "mpp": 0.5, "resolution": 0.5, "modality": "he"}
    pixels = np.full((300, 300, 3), 7, np.uint8)
    ingest(pixels, cohort=tmp_path / "whole/cohort", tissue_id="t", **options)
    died(LEFT.format(module=module, name=name), tmp_path / "cohort")
    ingest(pixels, cohort=tmp_path / "cohort", tissue_id="t", **options)
    assert tree(tmp_path / "cohort") == tree(tmp_path / "whole/cohort")


def test_death_in_the_middle_of_a_table(tmp_path: Path, tree: Tree) -> None:
    script = """
import os, sys, numpy as np, pyarrow.parquet as pq
from microtome.cohort import ingest
write = pq.write_table
def die(table, path, **kwargs):
    if "tissues" in str(path):
        path.write_bytes(b"PAR1 half a table")
        os._exit(9)
    write(table, path, **kwargs)
pq.write_table = die
ingest(np.full((300, 300, 3), 7, np.uint8), axes="yxc", mpp=0.5, resolution=0.5,
       cohort=sys.argv[1], tissue_id="t", modality="he")
"""
    options: dict[str, Any] = {"axes": "yxc", "mpp": 0.5, "resolution": 0.5, "modality": "he"}
    pixels = np.full((300, 300, 3), 7, np.uint8)
    ingest(pixels, cohort=tmp_path / "whole/cohort", tissue_id="t", **options)
    died(script, tmp_path / "cohort")
    assert [p.name for p in (tmp_path / "cohort/metadata").iterdir()] != ["tissues.parquet"]
    assert read_tissues(CohortLayout.open(tmp_path / "cohort")).num_rows == 0
    ingest(pixels, cohort=tmp_path / "cohort", tissue_id="t", **options)
    # What the dead process left under a temporary name is gone as well.
    assert tree(tmp_path / "cohort") == tree(tmp_path / "whole/cohort")


def test_a_mask_that_lacks_its_last_step_is_made_again(tmp_path: Path, tree: Tree) -> None:
    pixels = np.random.default_rng(0).integers(230, 255, (300, 300, 3)).astype(np.uint8)
    pixels[60:220, 80:250] = (140, 60, 150)
    ingest(
        pixels, axes="yxc", mpp=1.0, resolution=1.0, cohort=tmp_path, tissue_id="t", modality="he"
    )
    mask(tmp_path)
    path = CohortLayout.open(tmp_path).tissue_mask(Resolution.parse(1.0), "t")
    before = tree(tmp_path)
    # Killed between the rename of the directory and that of its root.
    (path / "zarr.json").rename(path / "zarr.json.pending")
    mask(tmp_path)
    assert tree(tmp_path) == before


def test_an_image_that_lacks_its_last_step_is_made_again(tmp_path: Path, tree: Tree) -> None:
    options: dict[str, Any] = {"axes": "yxc", "mpp": 1.0, "tissue_id": "t", "modality": "he"}
    pixels = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    ingest(pixels, cohort=tmp_path, **options)
    path = tmp_path / "he/1_0mpp/images/t.ome.zarr"
    before = tree(tmp_path)
    (path / "zarr.json").rename(path / "zarr.json.pending")
    with pytest.raises(MicrotomeError, match="missing"):
        HEImagingDataset("c", path=tmp_path)
    ingest(pixels, cohort=tmp_path, **options)
    assert tree(tmp_path) == before


def test_interrupted_by_the_user(tmp_path: Path, slide: Path, tree: Tree) -> None:
    root = tmp_path / "cohort"
    process = start(slide, root)
    images = root / "he/0_5mpp/images"
    deadline = time.monotonic() + 60
    while not (images.is_dir() and any(images.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    if process.returncode == 0:  # pragma: no cover - it was faster than the signal
        pytest.skip("the ingest was done before the interrupt arrived")
    assert process.returncode == 130
    assert b"interrupted" in said
    assert b"Traceback" not in said
    assert not any(opens(directory) for directory in root.rglob("*") if directory.is_dir())
    finish(slide, root)
    finish(slide, tmp_path / "whole" / "cohort")
    assert tree(root) == tree(tmp_path / "whole" / "cohort")


# -- a disk that refuses


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk(small_disk: Path, slide: Path) -> None:
    done = subprocess.run(
        command(slide, small_disk / "cohort"), capture_output=True, timeout=100, check=False
    )
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert "space" in said
    assert str(small_disk / "cohort") in said
    assert "Traceback" not in said
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_later(small_disk: Path, slide: Path, tree: Tree) -> None:
    root = small_disk / "cohort"
    options: dict[str, Any] = {"axes": "yxc", "mpp": 0.5, "resolution": 0.5, "modality": "he"}
    ingest(np.zeros((200, 200, 3), np.uint8), cohort=root, tissue_id="small", **options)
    before = {k: v for k, v in tree(root).items() if v != "directory"}
    with pytest.raises(StorageError, match="space"):
        ingest(slide, cohort=root, tissue_id="t", resolution=0.5, modality="he")
    assert {k: v for k, v in tree(root).items() if v != "directory"} == before
    assert list(HEImagingDataset("c", path=root, resolution=0.5).get_tissue_ids()) == ["small"]


@pytest.mark.parametrize("limit", [20, 50_000, 1_000_000])
def test_a_limit_on_the_size_of_files(tmp_path: Path, slide: Path, limit: int) -> None:
    # The way to a full disk that needs no rights: 20 bytes refuse the manifest, the others an image.
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(slide, tmp_path / "cohort", preexec_fn=limited)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 1, said.decode()
    assert str(tmp_path / "cohort") in said.decode()
    assert b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A directory that nothing can be written to, for root either."""
    place = tmp_path / "locked"
    place.mkdir()
    if os.getuid() == 0:
        mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(place)]
        mounted = subprocess.run(mount, capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip(f"root may write anywhere here: {mounted.stderr.decode().strip()}")
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)
    else:
        place.chmod(0o555)
        yield place
        place.chmod(0o755)


def test_a_directory_that_may_not_be_written(read_only: Path, slide: Path) -> None:
    for root in (read_only / "cohort", read_only):
        done = subprocess.run(command(slide, root), capture_output=True, timeout=100, check=False)
        said = done.stderr.decode()
        assert done.returncode == 1, said
        assert "not allowed" in said
        assert str(read_only) in said
        assert "Traceback" not in said


def test_a_cohort_that_may_only_be_read_is_read(tmp_path: Path, tree: Tree) -> None:
    options: dict[str, Any] = {"axes": "yxc", "mpp": 1.0, "tissue_id": "t", "modality": "he"}
    pixels = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    root = tmp_path / "cohort"
    ingest(pixels, cohort=root, **options)
    before = tree(root)
    bound = os.getuid() == 0
    if bound:
        for step in (["--bind", str(root), str(root)], ["-o", "remount,bind,ro", str(root)]):
            if subprocess.run(["mount", *step], capture_output=True, check=False).returncode:
                pytest.skip("nothing can be mounted here, and root may write anywhere")
    else:
        for path in [root, *root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        dataset = HEImagingDataset("c", path=root)
        np.testing.assert_array_equal(dataset.image("t").level(0)[...], np.moveaxis(pixels, -1, 0))
        assert dataset.get_tissue("t").image.shape == (3, 200, 200)
        with pytest.raises(StorageError, match="not allowed"):
            ingest(pixels, cohort=root, **{**options, "tissue_id": "u"})
    finally:
        if bound:
            subprocess.run(["umount", "-l", str(root)], check=True)
        else:
            for path in [root, *root.rglob("*")]:
                path.chmod(0o755)
    assert tree(root) == before
