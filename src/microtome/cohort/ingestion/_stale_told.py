"""What ingest says of tissues that it replaced: what was made of the old images has become stale."""

from __future__ import annotations

import logging

from microtome.cohort._layout import CohortLayout
from microtome.cohort.validation import find_stale

__all__ = ["tell_stale"]

_log = logging.getLogger(__name__)


def tell_stale(layout: CohortLayout, tissues: set[str]) -> None:
    """Warn of whatever was made of other images of these tissues than there are now.

    Parameters
    ----------
    layout
        The cohort.
    tissues
        Those of which an image was written; the others are not looked at.
    """
    for found in find_stale(layout, tissues=tissues) if tissues else ():
        place = found.place.relative_to(layout.root)
        _log.warning("%s: %s; %s", place, found.what, found.advice)
