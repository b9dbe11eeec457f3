"""Channels of several cohorts in one order, and a report of what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, UnknownNameError

from ._scatter import scatter_planes

if TYPE_CHECKING:
    import torch

__all__ = ["AlignmentRow", "AlignmentStatus", "ChannelAlignment"]

AlignmentStatus = Literal["matched", "alone", "missing", "left out", "ambiguous"]
"""`matched`: with a channel of another cohort, or of the reference. `alone`: has a place that no
other cohort fills. `missing`: a place that the cohort has no channel for. `left out`: has no place.
`ambiguous`: could be one of several, and nobody said which."""


@dataclass(frozen=True, slots=True)
class AlignmentRow:
    """What became of a channel of a cohort.

    Parameters
    ----------
    cohort
        Name of the cohort.
    channel
        The channel's name in the cohort's panel; None for a place that it has no channel for.
    aligned
        Name of its place in the alignment; None where it has none.
    status
        In one word.
    why
        In a sentence.
    """

    cohort: str
    channel: str | None
    aligned: str | None
    status: AlignmentStatus
    why: str

    def __str__(self) -> str:
        sides = f"{self.channel or '-'} -> {self.aligned or '-'}"
        return f"{self.cohort}: {sides}: {self.status}, {self.why}"


@dataclass(frozen=True, slots=True, eq=False)
class ChannelAlignment:
    """One order of channels for several cohorts; what `align_channels` returns.

    Parameters
    ----------
    names
        Names of the aligned channels, each once, K of them.
    uniprot_ids
        Their UniProt accessions, with ``;`` between several; None where there is none.
    index
        For each cohort the position of each aligned channel in the cohort's panel, -1 where it has
        none, int64 of shape (K,).
    panels
        For each cohort the names of its panel's channels, in order.
    report
        What became of every channel of every cohort, and which places stay empty.
    """

    names: tuple[str, ...]
    uniprot_ids: tuple[str | None, ...]
    index: Mapping[str, NDArray[np.int64]]
    panels: Mapping[str, tuple[str, ...]]
    report: tuple[AlignmentRow, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ambiguous(self) -> tuple[AlignmentRow, ...]:
        """Rows of the report that nobody decided."""
        return tuple(row for row in self.report if row.status == "ambiguous")

    def present(self, cohort: str) -> NDArray[np.bool_]:
        """Return which aligned channels a cohort's panel has, (K,).

        Raises
        ------
        UnknownNameError
            If there is no such cohort.
        """
        return self._index(cohort) >= 0

    @overload
    def scatter(
        self,
        cohort: str,
        planes: NDArray[Any],
        *,
        channels: Sequence[str] | None = None,
        fill: float = 0,
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]: ...
    @overload
    def scatter(
        self,
        cohort: str,
        planes: torch.Tensor,
        *,
        channels: Sequence[str] | None = None,
        fill: float = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...
    def scatter(
        self,
        cohort: str,
        planes: Any,
        *,
        channels: Sequence[str] | None = None,
        fill: float = 0,
    ) -> Any:
        """Put the planes of a cohort's images in their places.

        Parameters
        ----------
        cohort
            Whose planes they are.
        planes
            Array or torch tensor of shape (n, C, Y, X) or (C, Y, X).
        channels
            Names of the C planes in order, where they are not the whole panel: tissues measured a
            part of it (`MultiplexTissue.channel_names`).
        fill
            Value of the places without a plane. NaN is refused in whole numbers.

        Returns
        -------
        The planes, (n, K, Y, X), and a boolean mask (n, K) of the places that have one; without n
        for a single image. Planes without a place are left out, as the report says. Both are tensors
        on the same device for a tensor, and gradients pass.

        Raises
        ------
        UnknownNameError
            If there is no such cohort, or its panel no such channel.
        InvalidInputError
            If the number of planes is another, a channel is named twice, or `fill` does not fit.
        """
        panel = self._panel(cohort)
        named = panel if channels is None else tuple(channels)
        unknown = [name for name in named if name not in panel]
        if unknown:
            msg = f"channels {unknown} are not in the panel of {cohort!r}: {list(panel)}"
            raise UnknownNameError(msg)
        if len(set(named)) != len(named):
            msg = f"channels must name each plane once, got {list(named)}"
            raise InvalidInputError(msg)
        if planes.ndim < 3 or planes.shape[-3] != len(named):
            msg = (
                f"planes must be (n, {len(named)}, Y, X) for the channels {list(named)} of {cohort!r}, "
                f"got {tuple(planes.shape)}; name the planes with channels= where they are a part of "
                "the panel"
            )
            raise InvalidInputError(msg)
        # From places in the panel to places among the planes; the last entry is for -1.
        plane_of = np.full(len(panel) + 1, -1, np.int64)
        plane_of[[panel.index(name) for name in named]] = np.arange(len(named))
        return scatter_planes(planes, plane_of[self._index(cohort)], fill)

    def table(self) -> pa.Table:
        """Return the report as a table: cohort, channel, aligned, status, why."""
        columns = ("cohort", "channel", "aligned", "status", "why")
        return pa.table(
            {
                name: pa.array([getattr(row, name) for row in self.report], pa.string())
                for name in columns
            }
        )

    def __str__(self) -> str:
        """Say how many channels were matched, which cohort has which, and what was not matched."""
        rows = [
            (
                name,
                self.uniprot_ids[place] or "-",
                *(f"{cohort}: {self._name(cohort, place)}" for cohort in self.index),
            )
            for place, name in enumerate(self.names)
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{len(self)} aligned channels of {len(self.index)} cohorts"]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(f"  {'  '.join(cells)}".rstrip())
        for status in ("ambiguous", "left out"):
            told = [row for row in self.report if row.status == status]
            if told:
                lines.append(f"{status}:")
                lines += [f"  {row.cohort}: {row.channel}: {row.why}" for row in told]
        return "\n".join(lines)

    def _name(self, cohort: str, place: int) -> str:
        at = int(self.index[cohort][place])
        return self.panels[cohort][at] if at >= 0 else "-"

    def _index(self, cohort: str) -> NDArray[np.int64]:
        self._panel(cohort)
        return self.index[cohort]

    def _panel(self, cohort: str) -> tuple[str, ...]:
        if cohort not in self.panels:
            msg = f"the alignment has no cohort {cohort!r}, only {list(self.panels)}"
            raise UnknownNameError(msg)
        return self.panels[cohort]
