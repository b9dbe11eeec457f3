"""The tables of a cohort told of many images at once: what a row costs does not grow with their number."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from microtome.cohort._layout import CohortLayout
from microtome.cohort._modality import Modality
from microtome.cohort._panels import add_all_to_panel
from microtome.cohort._tables import add_tissues

from ._row import Failure, Stored, ingest_row

__all__ = ["Notes"]

# A table is written whole, so writing it takes longer the more there is: of the time between two
# writings it may take this part, and for a second at least there is none.
_PART = 0.05
_LEAST_SECONDS = 1.0


@dataclass(slots=True)
class Notes:
    """Images that are stored, until the tables are told.

    Who dies before that loses nothing: an image that is there is not written again, and noted by
    the next run. Rows come in the order in which they are given.

    Parameters
    ----------
    layout
        The cohort.
    """

    layout: CohortLayout
    _waiting: list[Stored] = field(default_factory=list)
    _next: float = 0.0

    def add(self, stored: Stored) -> list[Failure]:
        """Note an image, now or with others later; returns what failed on the way."""
        self._waiting.append(stored)
        return self.flush() if time.perf_counter() >= self._next else []

    def flush(self) -> list[Failure]:
        """Tell the tables of all that wait; returns what failed on the way."""
        began = time.perf_counter()
        waiting, self._waiting = self._waiting, []
        failed = self._tell(waiting) if waiting else []
        ended = time.perf_counter()
        self._next = ended + max(_LEAST_SECONDS, (ended - began) / _PART)
        return failed

    def _tell(self, waiting: Sequence[Stored]) -> list[Failure]:
        by_modality: dict[Modality, dict[str, Stored]] = defaultdict(dict)
        for stored in waiting:
            if stored.done.modality.kind == "multiplex":
                by_modality[stored.done.modality][stored.task.row.tissue_id] = stored
        failed: list[Failure] = []
        for modality, each in by_modality.items():
            measured = {tissue: stored.done.channels for tissue, stored in each.items()}
            for tissue, order in add_all_to_panel(self.layout, modality, measured).items():
                if order != measured[tissue]:
                    # Somebody reordered the panel since this image was begun.
                    again = ingest_row(each[tissue].task, note=True)
                    failed += [again] if isinstance(again, Failure) else []
        without = {failure.row.number for failure in failed}
        add_tissues(
            self.layout,
            [stored.done.row for stored in waiting if stored.task.row.number not in without],
        )
        return failed
