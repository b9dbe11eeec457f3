"""Checks that a packed cohort is of what its origin is now, where that can be reached."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

from microtome.cohort._layout import CohortLayout
from microtome.cohort._merge import listed
from microtome.cohort._packed_from import PackedFrom, packing_inputs

from ._survey import DAMAGE, Survey

__all__ = ["check_packed"]

# What is made of the origin since is nothing that a packed cohort lacks.
_MADE_OF_IT = "predictions/"


def check_packed(survey: Survey) -> None:
    """Report that images, masks, tables or statistics of the origin are others than were packed.

    Nothing is said of an origin that is not there any more, or elsewhere.
    """
    root = survey.layout.root
    found = PackedFrom.read(root)
    if found is None:
        return
    changed: list[str] = []
    with suppress(*DAMAGE):  # what is damaged is a finding of the origin's own
        origin = Path(found.origin)
        if origin.is_dir() and CohortLayout(origin).has_begun:
            told = found.changed_since(*packing_inputs(origin, found.images))
            changed = [each for each in told if not each.startswith(_MADE_OF_IT)]
    if not changed:
        return
    what = f"the cohort was packed from {found.origin} as it was then: there {listed(changed)}"
    advice = (
        f"pack it again, to another place (microtome pack {shlex.quote(found.origin)} ...), if it "
        "shall be of what there is now"
    )
    survey.report("warning", "stale", root / "packed.json", what, advice)
