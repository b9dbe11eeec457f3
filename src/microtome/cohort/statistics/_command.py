"""The command that makes tables anew, whole: what is told to do can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

from microtome.cohort._modality import Modality
from microtome.coordinates import Resolution

__all__ = ["stats_command"]


def stats_command(
    root: Path,
    modality: Modality,
    resolution: Resolution,
    spec: str,
    *,
    stats_level: str | None = None,
    split: str | None = None,
) -> str:
    """Return the command that replaces tables.

    Parameters
    ----------
    root
        Directory of the cohort.
    modality, resolution, spec
        Which tables.
    stats_level, split
        Level of the means, and what is fitted on; None leaves them out.
    """
    words = ["microtome", "stats", str(root), "--modality", modality.name, "--method", spec]
    words += ["--stats-level", stats_level] if stats_level else []
    words += ["--split", split] if split else []
    return shlex.join([*words, "--resolution", resolution.directory, "--overwrite"])
