"""The pages of a TIFF: that all are there, and where their segments lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from microtome.errors import FormatError

__all__ = ["segment_tables", "verify_pages"]


def verify_pages(path: Path, tiff: Any) -> None:
    """Refuse a file in which the chain of pages breaks off: tifffile reads those before the break."""
    count = len(tiff.pages)
    handle, position = tiff.filehandle, tiff.pages.next_page_offset
    if position is None:
        return
    handle.seek(position)
    link = int.from_bytes(
        handle.read(tiff.tiff.offsetsize), "big" if tiff.byteorder == ">" else "little"
    )
    if link not in {0, *(page.offset for page in tiff.pages)}:
        msg = f"{path} is cut short or damaged: page {count + 1} should begin at byte {link}"
        raise FormatError(msg)


def segment_tables(
    path: Path, series: Any, planes: int
) -> tuple[list[tuple[Sequence[int], Sequence[int]]], list[bytes | None]]:
    """Return where the segments of each plane lie (offsets, sizes), and its JPEG tables."""
    pages = list(series.pages)
    lost = max(pages.count(None), planes - len(pages))
    if series.is_multifile:
        msg = f"{path} is one of several files that make up an image together; join them into one"
        raise FormatError(msg)
    kind = series.keyframe.hash
    other = [i for i, page in enumerate(pages) if page is not None and page.keyframe.hash != kind]
    if other:
        msg = f"{path}: planes {other[:5]} are of another size, type or compression than the first"
        raise FormatError(msg)
    if lost == 0:
        tables = [getattr(page, "jpegtables", None) for page in pages]
        return [(page.dataoffsets, page.databytecounts) for page in pages], tables
    if len(pages) > 1 or series.dataoffset is None:
        msg = f"{path}: {lost} of {planes} planes are missing"
        raise FormatError(msg)
    # ImageJ describes only the first plane of a stack past 4 GB; the others follow it.
    page, size = pages[0], int(pages[0].nbytes)
    counts = page.databytecounts
    if series.dataoffset + planes * size > path.stat().st_size:
        # Before a list is made of planes that somebody may only claim.
        msg = f"{path} is cut short: {planes} planes of {size} bytes do not fit into it"
        raise FormatError(msg)
    return [
        ([offset + plane * size for offset in page.dataoffsets], counts) for plane in range(planes)
    ], [None] * planes
