"""What the layout of images costs their tiles, and why somebody waits for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from microtome.regions import ImageRegionData

from ._ragged import MultimodalBatch, PanelBatch

__all__ = ["amplification", "cause_of_waiting", "regions_of", "touched"]

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


def touched(region: ImageRegionData[Any]) -> tuple[int, int] | None:
    """Return how many pixels the chunks that tiles touch have, and how many the tiles have.

    Parameters
    ----------
    region
        A collated batch. Chunks that several tiles touch count for each; of a chunk that ends beyond
        its image all counts, for it is decoded whole.

    Returns
    -------
    Sums over the batch, in pixels of one channel; None where it does not tell of chunks.
    """
    spec = cast("Mapping[str, Any]", region.region_spec)
    metadata = cast("Sequence[Mapping[str, Any]]", region.additional_metadata)
    told: list[tuple[int, ...]] = [known["chunks"] for known in metadata if known.get("chunks")]
    if "coords" not in spec or "patch_size" not in spec or not told or len(told) < len(metadata):
        return None
    start, size = np.asarray(spec["coords"]), np.asarray(spec["patch_size"])
    axes = size.shape[-1]
    shape = np.asarray(region.data_shape[-axes:]).T
    # Tissues of a cohort mostly have one layout.
    one = len(set(map(tuple, told))) == 1
    chunk = np.asarray([told[0]] if one else told)[:, -axes:]
    if start.shape != size.shape or shape.shape != size.shape or chunk.shape[-1] != axes:
        return None
    low, high = np.clip(start, 0, shape), np.clip(start + size, 0, shape)
    count = np.where(high > low, (high - 1) // chunk - low // chunk + 1, 0)
    return int((count * chunk).prod(axis=1).sum()), int(size.prod(axis=1).sum())


def amplification(region: ImageRegionData[Any]) -> float | None:
    """Return how many pixels of chunks the tiles of a batch touch for each of their own."""
    found = touched(region)
    return None if found is None or not found[1] else found[0] / found[1]


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
