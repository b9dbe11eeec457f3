"""Whether files may be mapped into memory: not those that another machine may cut meanwhile."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

__all__ = ["is_mappable"]

_MOUNTS = Path("/proc/self/mountinfo")

# Where a file that is gone or cut on its server ends whoever has it mapped (SIGBUS), without a word.
_REMOTE = frozenset(
    (  # noqa: SIM905
        "9p afs beegfs ceph cifs fuse gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs "
        "panfs prl_fs pvfs2 smb3 smbfs vboxsf virtiofs wekafs"
    ).split()
)


def is_mappable(path: str) -> bool:
    """Whether a file or directory lies on this machine's own disks, as far as the system tells."""
    try:
        device = os.stat(path).st_dev  # noqa: PTH116 - a path as it is in messages
    except OSError:
        return True  # opening it tells
    return _kind_of(os.major(device), os.minor(device), str(_MOUNTS)) not in _REMOTE


@cache
def _kind_of(major: int, minor: int, mounts: str) -> str:
    """Return the type of a file system (proc_pid_mountinfo(5)); what runs in user space is nfs."""
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) > 2 and kinds and fields[2] == f"{major}:{minor}":
            return "nfs" if kinds[0].startswith("fuse.") else kinds[0]
    return ""
