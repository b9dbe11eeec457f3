"""Numbers of channels: of one tissue, and of all that a table holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.errors import InvalidInputError, UnknownNameError

from ._spec import Level

__all__ = ["ChannelStatistics", "StatisticsTable"]

_Row = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelStatistics:
    """Statistics of some channels, for one tissue; NaN where a channel was not measured."""

    channel_names: tuple[str, ...]
    upper: _Row | None = None
    """(C,) upper quantile of the pixels."""
    lower: _Row | None = None
    """(C,) lower quantile; None stands for 0."""
    mean: _Row | None = None
    """(C,) mean of the transformed pixels."""
    std: _Row | None = None
    """(C,) standard deviation of the transformed pixels."""

    def __post_init__(self) -> None:
        for name in ("upper", "lower", "mean", "std"):
            values = getattr(self, name)
            if values is None:
                continue
            row = np.asarray(values, np.float32)
            if row.shape != (len(self.channel_names),):
                raise InvalidInputError(
                    f"{name} must have one number per channel ({len(self.channel_names)}), got "
                    f"shape {row.shape}"
                )
            object.__setattr__(self, name, row)

    def select(self, channels: ArrayLike) -> ChannelStatistics:
        """Return the statistics of some channels, by mask or by index."""
        chosen = np.arange(len(self.channel_names))[np.asarray(channels)]
        rows = (self.upper, self.lower, self.mean, self.std)
        return ChannelStatistics(
            tuple(self.channel_names[index] for index in chosen),
            *(None if row is None else row[chosen] for row in rows),
        )


@dataclass(frozen=True, slots=True, eq=False)
class StatisticsTable:
    """One number per channel, for every tissue or for all of them together.

    Raises
    ------
    InvalidInputError
        If there is not one row per tissue and one column per channel, or a name comes twice.
    """

    channel_names: tuple[str, ...]
    values: NDArray[np.float32]
    """(tissues, C), or (1, C) for all together; NaN where a channel was not measured."""
    tissue_ids: tuple[str, ...] | None = None
    """None for all together."""
    _columns: dict[str, int] = field(init=False, repr=False)
    _rows: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float32)
        tissues = self.tissue_ids
        shape = (1 if tissues is None else len(tissues), len(self.channel_names))
        if values.shape != shape:
            raise InvalidInputError(f"values must have shape {shape}, got {values.shape}")
        columns = {name: place for place, name in enumerate(self.channel_names)}
        rows = {name: place for place, name in enumerate(tissues or ())}
        for what, names, places in (
            ("channel", self.channel_names, columns),
            ("tissue", tissues or (), rows),
        ):
            if len(places) < len(names):
                again = next(name for place, name in enumerate(names) if places[name] != place)
                raise InvalidInputError(f"{what} {again!r} comes more than once")
        for name, value in (("values", values), ("_columns", columns), ("_rows", rows)):
            object.__setattr__(self, name, value)

    @property
    def level(self) -> Level:
        """`image` with a row per tissue, `global` with one for all."""
        return "global" if self.tissue_ids is None else "image"

    def row(self, tissue_id: str | None, channel_names: Sequence[str]) -> _Row:
        """(C,) numbers of some channels of one tissue.

        Raises
        ------
        UnknownNameError
            If the tissue or a channel is not in the table.
        """
        try:
            columns = [self._columns[name] for name in channel_names]
        except KeyError as error:
            raise UnknownNameError(
                f"no statistics of channel {error.args[0]!r}; there are those of "
                f"{', '.join(self.channel_names)}"
            ) from None
        if self.tissue_ids is None:
            return self.values[0, columns]
        if tissue_id not in self._rows:
            raise UnknownNameError(
                f"no statistics of tissue {tissue_id!r} among those of {len(self._rows)}; "
                "compute them again with it, or use global statistics"
            )
        return self.values[self._rows[tissue_id], columns]
