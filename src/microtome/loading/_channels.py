"""Which channels the planes of a tile are, what its tissue knows of them, and where they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError, UnknownNameError
from microtome.panels import ChannelAlignment, ChannelState
from microtome.regions import ImageRegionData

__all__ = ["PlaneChannels", "TileChannels"]


@dataclass(frozen=True, slots=True)
class PlaneChannels:
    """The channels of a tile's planes."""

    names: tuple[str, ...] | None
    """Of the planes, (C,); None where nothing tells."""
    states: NDArray[np.uint8]
    """`ChannelState` of the planes, (C,)."""
    known: Mapping[str, int]
    """State of every channel of the tissue's panel by name."""


class TileChannels:
    """Looks up channels in the datasets that tiles come from.

    Parameters
    ----------
    source
        A dataset of one modality, composed of several, or of several cohorts.
    alignment
        The order of channels, by modality or for the only one; None for the datasets' own panel.
    """

    def __init__(
        self, source: Any, alignment: ChannelAlignment | Mapping[str, ChannelAlignment] | None
    ) -> None:
        self._source = source
        self._alignment = alignment
        self._states: dict[tuple[str | None, str, str], Mapping[str, int]] = {}

    def of(
        self,
        cohort: str | None,
        modality: str,
        region: ImageRegionData[Any],
        names: Sequence[str] | None,
    ) -> PlaneChannels:
        """Return the channels of a tile's planes.

        Parameters
        ----------
        cohort, modality
            Where it is from; None and ``""`` where the source is of one cohort or modality.
        region
            The tile.
        names
            Of its planes, where they are known better than from its metadata.

        Raises
        ------
        InvalidInputError
            If the planes cannot be told from the panel.
        """
        metadata = cast("Mapping[str, Any]", region.additional_metadata)
        count = len(region.data)
        dataset = self._dataset(cohort, modality)
        panel = _panel(dataset)
        own = metadata.get("channel_names") if names is None else names
        own = None if own is None else tuple(map(str, own))
        if panel is None:  # brightfield, or an image of its own: what is there was measured
            measured = np.full(count, ChannelState.MEASURED, np.uint8)
            return PlaneChannels(own, measured, {})
        tissue = str(metadata.get("tissue_id"))
        known = self._known(cohort, modality, tissue, dataset, panel)
        if own is None or any(name not in known for name in own):
            own = tuple(name for name in panel if known[name] != ChannelState.NOT_MEASURED)
        if len(own) != count:
            msg = f"tissue {tissue!r} has {count} planes, and nothing says which channels of the panel {list(panel)} they are"
            raise InvalidInputError(msg)
        return PlaneChannels(own, np.asarray([known[n] for n in own], np.uint8), known)

    def places(self, modality: str, cohorts: Sequence[str | None]) -> tuple[str, ...]:
        """Return the names of the places that a panel has.

        Raises
        ------
        InvalidInputError
            If the modality has no panel, or several and no alignment.
        """
        alignment = self._of_modality(modality)
        if alignment is not None:
            return alignment.names
        panels = {cohort: _panel(self._dataset(cohort, modality)) for cohort in cohorts}
        found = set(panels.values())
        if found == {None}:
            return ("R", "G", "B")
        if len(found) > 1 or None in found:
            shown = ", ".join(str(cohort) for cohort in panels)
            msg = (
                f"cohorts {shown} have panels of their own for {modality}; align them and give "
                "collate=PanelCollate(dataset, alignment=align_channels(...))"
            )
            raise InvalidInputError(msg)
        return cast("tuple[str, ...]", found.pop())

    def placed(
        self, modality: str, cohort: str | None, own: PlaneChannels
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return the plane of each place, -1 for none, and the state of each place, both (K,)."""
        dataset = self._dataset(cohort, modality)
        panel = _panel(dataset)
        if panel is None:
            return np.arange(len(own.states)), own.states
        alignment = self._of_modality(modality)
        wanted: Sequence[str | None] = panel
        if alignment is not None:
            name = cohort if cohort is not None else str(getattr(dataset, "name", ""))
            if name not in alignment.panels:
                msg = f"the alignment has no cohort {name!r}, only {list(alignment.panels)}"
                raise UnknownNameError(msg)
            names = alignment.panels[name]
            wanted = [names[i] if i >= 0 else None for i in alignment.index[name].tolist()]
        planes = {name: i for i, name in enumerate(own.names or ())}
        source = [planes.get(name, -1) if name is not None else -1 for name in wanted]
        states = [own.known.get(name, 0) if name is not None else 0 for name in wanted]
        return np.asarray(source, np.int64), np.asarray(states, np.uint8)

    def _of_modality(self, modality: str) -> ChannelAlignment | None:
        if isinstance(self._alignment, Mapping):
            return self._alignment.get(modality)
        if self._alignment is None or modality == "":
            return self._alignment
        # One alignment is of what has a panel, not of the slides beside it.
        brightfield = modality == "he" or modality.startswith("ihc_")
        return None if brightfield else self._alignment

    def _dataset(self, cohort: str | None, modality: str) -> Any:
        found = self._source
        for name in (cohort, modality or None):
            if name is not None:
                found = found.get_dataset(name)
        return found

    def _known(
        self, cohort: str | None, modality: str, tissue: str, dataset: Any, panel: tuple[str, ...]
    ) -> Mapping[str, int]:
        key = (cohort, modality, tissue)
        if key not in self._states:
            states = dataset.get_channel_states(tissue).tolist()
            self._states[key] = dict(zip(panel, states, strict=True))
        return self._states[key]


def _panel(dataset: Any) -> tuple[str, ...] | None:
    names = getattr(dataset, "channel_list", None)
    return None if names is None else tuple(names)
