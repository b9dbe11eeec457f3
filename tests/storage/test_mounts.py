"""Which files are mapped into memory: those of this machine."""

import os

import numpy as np
import pytest

from microtome.storage import BoxBatch, Layout, _mounts, create_array, open_array


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Says as which file system the temporary directory is mounted."""

    def mount(kind):
        device = tmp_path.stat().st_dev
        table = tmp_path / f"mounts-{kind}"
        table.write_text(
            "21 1 0:1 / /proc rw - proc proc rw\n\n"
            f"36 35 {os.major(device)}:{os.minor(device)} / /data rw,noatime shared:1 - {kind} a:/b rw\n"
        )
        monkeypatch.setattr(_mounts, "_MOUNTS", table)

    return mount


@pytest.mark.parametrize(
    ("kind", "mapped"),
    [("ext4", True), ("xfs", True), ("overlay", True), ("tmpfs", True), ("fuseblk", True),
     ("nfs", False), ("nfs4", False), ("cifs", False), ("lustre", False), ("fuse.sshfs", False),
     ("fuse", False), ("virtiofs", False), ("vboxsf", False)],
)  # fmt: skip
def test_files_of_other_machines_are_not_mapped(tmp_path, mounted, kind, mapped):
    mounted(kind)
    assert _mounts.is_mappable(str(tmp_path)) is mapped


def test_where_the_system_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(_mounts, "_MOUNTS", tmp_path / "absent")
    assert _mounts.is_mappable(str(tmp_path))
    assert _mounts.is_mappable(str(tmp_path / "nothing"))


@pytest.mark.parametrize("kind", ["ext4", "nfs4"])
def test_pixels_are_read_either_way(tmp_path, mounted, kind):
    mounted(kind)
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20)
    stored = create_array(
        tmp_path / "a", shape=(20, 20), dtype="uint16", layout=Layout((5, 5), (10, 10)), axes="yx"
    )
    stored.write(((0, 20), (0, 20)), pixels)
    out = np.zeros((1, 8, 8), np.uint16)
    low, high = np.array([[3, 4]]), np.array([[11, 12]])
    batch = BoxBatch(low, high, out, np.zeros(1, np.int64), out.strides[1:])
    array = open_array(tmp_path / "a")
    assert array.read_boxes(batch) is (kind == "ext4")
    np.testing.assert_array_equal(array.read(((3, 11), (4, 12))), pixels[3:11, 4:12])
