"""What the layout of images costs their tiles, and why somebody waits for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from microtome.regions import ImageRegionData

from ._ragged import MultimodalBatch, PanelBatch

__all__ = ["amplification", "cause_of_waiting", "regions_of"]

# So many pixels decoded for each that is used are worth a word: chunks of 256 for tiles of 224
# cost 4.6, those of 512 cost 11.
_MUCH = 6.0
_REMOTE = ("s3://", "gs://", "gcs://", "http://", "https://", "az://")


def regions_of(batch: Any) -> Iterator[ImageRegionData[Any]]:
    """Yield the collated regions that a batch is made of, as far as it is of a known kind."""
    if isinstance(batch, ImageRegionData):
        yield cast("ImageRegionData[Any]", batch)
    elif isinstance(batch, PanelBatch):
        yield batch.region
    elif isinstance(batch, MultimodalBatch):
        for part in batch.modalities.values():
            yield part.region
    elif isinstance(batch, tuple):
        for part in cast("tuple[Any, ...]", batch):
            yield from regions_of(part)


def amplification(region: ImageRegionData[Any]) -> float | None:
    """Return how many pixels of chunks a tile at any place touches for each of its own.

    Parameters
    ----------
    region
        A collated batch; its first tile speaks for it.

    Returns
    -------
    The mean over all places of a tile: a chunk of c pixels and a tile of t touch (t + c - 1) / t a
    tile along each axis. None where the batch does not tell of chunks.
    """
    facts = _facts(region)
    chunks = facts.get("chunks")
    sizes = _sizes(region)
    if chunks is None or sizes is None or not len(sizes):
        return None
    tile = [int(size) for size in sizes[0]]
    chunk = [int(size) for size in chunks][-len(tile) :]
    return math.prod((t + c - 1) / t for t, c in zip(tile, chunk, strict=True))


def cause_of_waiting(
    batch: Any, *, threads: int, prefetch: int, order: str, converting: bool
) -> str:
    """Return in a sentence why batches are probably late, and what to do.

    Parameters
    ----------
    batch
        One of them.
    threads, prefetch, order
        Of the loader.
    converting
        Whether converting takes longer than reading.
    """
    for region in regions_of(batch):
        facts = _facts(region)
        source = str(region.source[0]) if len(region.source) else ""
        if source.startswith(_REMOTE):
            return f"{source} is remote; copy it to a disk nearby, or give it a cache"
        factor = amplification(region)
        if factor is not None and factor > _MUCH:
            tile = " x ".join(str(int(s)) for s in _sizes(region)[0])
            way = "" if order == "blocked" else "use order='blocked', which decodes each once, or "
            return (
                f"chunks of {facts['chunks']} for tiles of {tile}: about {factor:.0f} pixels are decoded "
                f"for each that is used; {way}rewrite the images with smaller chunks (microtome.pack)"
            )
    if converting:
        return (
            "collating and copying take longer than reading; use a smaller batch, or more threads"
        )
    if not prefetch:
        return "nothing is read ahead; use prefetch=2 or more"
    return f"reading is as fast as {threads} threads are; use more threads, on more processors"


def _sizes(region: ImageRegionData[Any]) -> Any:
    return cast("Mapping[str, Any]", region.region_spec).get("patch_size")


def _facts(region: ImageRegionData[Any]) -> Mapping[str, Any]:
    metadata = cast("Sequence[Mapping[str, Any]]", region.additional_metadata)
    return metadata[0] if len(metadata) else {}
