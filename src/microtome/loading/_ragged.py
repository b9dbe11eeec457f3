"""Tiles that differ in their channels, sizes or modalities as one batch, with what is there told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.panels import ChannelAlignment, ChannelState
from microtome.regions import ImageRegionData, collate_regions

from ._channels import TileChannels
from ._tensors import Convert

__all__ = ["MultimodalBatch", "PanelBatch", "PanelCollate"]


@dataclass(frozen=True, slots=True)
class PanelBatch:
    """Tiles of one modality with channels of their own, as one array."""

    region: ImageRegionData[Any]
    """The tiles, collated: data (n, K, (Z), Y, X), 0 where there is nothing."""
    present: Any
    """Which planes there are, booleans (n, K)."""
    states: Any
    """What the tissue knows of each channel, uint8 (n, K): see `ChannelState`. A channel that was
    measured but not asked for has a state and no plane."""
    sizes: NDArray[np.int64]
    """(height, width) of each tile, (n, 2); what lies beyond it is padding."""
    channel_names: tuple[str, ...] | None
    """Names of the K places; None where every tile has its planes in its own order, whose names
    are in its metadata."""
    index: NDArray[np.int64]
    """Which tiles of the batch these are, (n,)."""

    def __len__(self) -> int:
        return len(self.index)

    def converted(self, convert: Convert) -> PanelBatch:
        """Return the same with its arrays turned into what a loader hands out."""
        return replace(
            self,
            region=self.region._replace(data=convert(self.region.data)),
            present=convert(self.present),
            states=convert(self.states),
        )


@dataclass(frozen=True, slots=True)
class MultimodalBatch:
    """Tiles in every modality in which their tissues were imaged."""

    samples: list[dict[str, Any]]
    """Of each tile: `tissue_id`, and where they are known `dataset_name` and `tile_id`."""
    modalities: dict[str, PanelBatch]
    """By the name of the modality, the tiles that have it; `index` says which those are."""

    def __len__(self) -> int:
        return len(self.samples)

    def converted(self, convert: Convert) -> MultimodalBatch:
        """Return the same with its arrays turned into what a loader hands out."""
        return replace(
            self,
            modalities={name: part.converted(convert) for name, part in self.modalities.items()},
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """One tile in one modality."""

    index: int
    cohort: str | None
    region: ImageRegionData[Any]
    names: Sequence[str] | None


class PanelCollate:
    """Puts tiles that differ in their channels into one array; the `collate` of a `TileLoader`.

    Parameters
    ----------
    source
        The dataset that the samples come from: of one modality, composed, or of several cohorts.
    kind
        ``"panel"``: every channel of the panel has its place. ``"pad"``: as many places as the tile
        with the most channels needs, each tile's channels in its own order.
    alignment
        For ``"panel"``, the order of channels of several cohorts, as `align_channels` gives it; by
        the name of the modality where there are several. By default the panel of the dataset,
        which all cohorts must share.

    Returns
    -------
    A `PanelBatch` of samples of one modality, else a `MultimodalBatch`.

    Raises
    ------
    InvalidInputError
        If cohorts have panels of their own and no alignment is given.
    """

    def __init__(
        self,
        source: Any,
        kind: Literal["panel", "pad"] = "panel",
        *,
        alignment: ChannelAlignment | Mapping[str, ChannelAlignment] | None = None,
    ) -> None:
        if kind not in {"panel", "pad"}:
            msg = f"kind must be 'panel' or 'pad', got {kind!r}"
            raise InvalidInputError(msg)
        if kind == "pad" and alignment is not None:
            msg = "an alignment gives channels their places, and kind='pad' leaves them as they are"
            raise InvalidInputError(msg)
        self._kind = kind
        self._channels = TileChannels(source, alignment)

    def __call__(self, samples: Sequence[Any]) -> PanelBatch | MultimodalBatch:
        """Return samples as one batch."""
        if isinstance(samples[0], ImageRegionData):
            regions = cast("Sequence[ImageRegionData[Any]]", samples)
            return self._one("", [_Part(i, None, r, None) for i, r in enumerate(regions)])
        told: list[dict[str, Any]] = []
        parts: dict[str, list[_Part]] = {}
        for number, sample in enumerate(samples):
            facts, results = _told(sample)
            told.append(facts)
            for name, result in results.items():
                names = getattr(result, "channel_names", None)
                part = _Part(number, facts.get("dataset_name"), result.region, names)
                parts.setdefault(name, []).append(part)
        return MultimodalBatch(told, {name: self._one(name, own) for name, own in parts.items()})

    def _one(self, modality: str, parts: Sequence[_Part]) -> PanelBatch:
        known = [
            self._channels.of(part.cohort, modality, part.region, part.names) for part in parts
        ]
        regions = [
            part.region._replace(
                additional_metadata={**dict(_metadata(part.region)), "channel_names": own.names}
            )
            for part, own in zip(parts, known, strict=True)
        ]
        if self._kind == "pad":
            count = max(len(own.states) for own in known)
            sources = [np.arange(len(own.states)) for own in known]
            states = [own.states for own in known]
            names = None
        else:
            names = self._channels.places(modality, [part.cohort for part in parts])
            count = len(names)
            found = [
                self._channels.placed(modality, part.cohort, own)
                for part, own in zip(parts, known, strict=True)
            ]
            sources, states = [f[0] for f in found], [f[1] for f in found]
        index = np.asarray([part.index for part in parts], np.int64)
        return _filled(regions, count, sources, states, names, index)


def _told(sample: Any) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return what is known of a sample, and its results by modality."""
    if isinstance(sample, dict) and "modalities" in sample:
        facts = dict(cast("dict[str, Any]", sample))
        return facts, facts.pop("modalities")
    if not hasattr(sample, "modalities"):
        msg = (
            f"samples are regions or tiles of several modalities, got {type(sample).__name__}; give "
            "collate a function of your own"
        )
        raise InvalidInputError(msg)
    composed = cast("Any", sample)
    facts = {"tissue_id": composed.tissue_id}
    for result in composed.modalities.values():
        tile = _metadata(result.region).get("tile_id")
        if tile is not None:
            facts["tile_id"] = tile
    return facts, composed.modalities


def _metadata(region: ImageRegionData[Any]) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", region.additional_metadata)


def _filled(
    regions: Sequence[ImageRegionData[Any]],
    count: int,
    sources: Sequence[NDArray[np.int64]],
    states: Sequence[NDArray[np.uint8]],
    names: tuple[str, ...] | None,
    index: NDArray[np.int64],
) -> PanelBatch:
    """Write the planes of tiles into one array.

    Parameters
    ----------
    regions
        The tiles, n of them.
    count
        Places, K.
    sources
        For each tile the plane that goes to each of its places, -1 for none.
    states
        For each tile the states of its places, as many as of `sources`.
    names, index
        Of the batch.
    """
    planes = [np.asarray(region.data) for region in regions]
    spatial = np.max([pixels.shape[1:] for pixels in planes], axis=0)
    dtype = np.result_type(*{pixels.dtype for pixels in planes})
    data = np.zeros((len(planes), count, *spatial.tolist()), dtype)
    present = np.zeros((len(planes), count), np.bool_)
    known = np.full((len(planes), count), ChannelState.NOT_MEASURED, np.uint8)
    for number, (pixels, source, state) in enumerate(zip(planes, sources, states, strict=True)):
        inside = tuple(slice(0, size) for size in pixels.shape[1:])
        if np.array_equal(source, np.arange(len(pixels))):
            data[(number, slice(0, len(source)), *inside)] = pixels
        else:
            # Plane by plane: an index list would make a copy of the planes first.
            for place in np.flatnonzero(source >= 0).tolist():
                data[(number, place, *inside)] = pixels[source[place]]
        present[number, : len(source)] = source >= 0
        known[number, : len(state)] = state
    blank = np.empty(0, dtype)
    region = collate_regions([one._replace(data=blank) for one in regions])._replace(data=data)
    sizes = np.asarray([pixels.shape[-2:] for pixels in planes], np.int64)
    return PanelBatch(region, present, known, sizes, names, index)
