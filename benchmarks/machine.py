"""What a figure was measured on, and how much processor time a process tree has used."""

from __future__ import annotations

import os
import platform
import resource
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["cpu_seconds", "describe_machine", "load"]

_PACKAGES = (
    "microtome",
    "numpy",
    "tensorstore",
    "zarr",
    "numcodecs",
    "torch",
    "dask",
    "ngff-zarr",
    "ngio",
    "ome-zarr",
    "tiledbsoma",
    "careamics",
    "spatialdata",
    "imagecodecs",
    "numba",
    "openslide-bin",
    "tifffile",
)


def cpu_seconds() -> float:
    """Return user and system time of this process, its threads, and its children, ended or not.

    The workers of a loader live on between rounds. The system counts a child only once it has
    ended; until then /proc tells, in hundredths of a second, where there is one.
    """
    used = sum(_of(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return used + sum(_of_living(pid) for pid in _descendants(os.getpid()))


def describe_machine() -> dict[str, str | int]:
    """Return the processor, how many of it, and the versions that matter."""
    facts: dict[str, str | int] = {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            facts[package] = version(package)
    return facts


def load() -> str:
    """Return how many processes wanted a processor in the last minute, this one included."""
    return f"{os.getloadavg()[0]:.1f}"


def _of(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += [int(child) for child in tasks.read_text().split()]
    return children + [far for child in children for far in _descendants(child)]


def _of_living(pid: int) -> float:
    try:
        # The name of the program, in brackets, may itself hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
