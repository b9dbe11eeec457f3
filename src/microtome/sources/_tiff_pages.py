"""The pages of a TIFF: that all are there, and where their segments lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from microtome.errors import FormatError

from ._tiff_metadata import absent_files

__all__ = ["Plane", "planes_of", "verify_pages"]


class Plane(NamedTuple):
    """A page, or as much of one as is a plane of the picture."""

    file: Path
    offsets: Sequence[int]
    counts: Sequence[int]
    jpeg_tables: bytes | None


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


def planes_of(path: Path, series: Any, count: int) -> list[Plane]:
    """Return where the planes of a picture lie.

    Parameters
    ----------
    path
        The file.
    series
        The `tifffile.TiffPageSeries`; of an OME-TIFF its pages may lie in other files.
    count
        How many planes there should be.

    Raises
    ------
    FormatError
        If there are fewer, or they differ in size, type or compression.
    """
    pages = list(series.pages)
    lost = max(pages.count(None), count - len(pages))
    kind = series.keyframe.hash
    other = [i for i, page in enumerate(pages) if page is not None and page.keyframe.hash != kind]
    if other:
        msg = f"{path}: planes {other[:5]} are of another size, type or compression than the first"
        raise FormatError(msg)
    if lost == 0:
        return [
            Plane(
                Path(page.parent.filehandle.path) if series.is_multifile else path,
                page.dataoffsets,
                page.databytecounts,
                getattr(page, "jpegtables", None),
            )
            for page in pages
        ]
    if len(pages) > 1 or series.dataoffset is None:
        msg = f"{path}: {lost} of {count} planes are missing"
        absent = absent_files(series.keyframe.parent)
        if absent:
            more = f" and {len(absent) - 3} more" if absent[3:] else ""
            msg += f"; they are in {', '.join(absent[:3])}{more}, to be put beside it"
        raise FormatError(msg)
    # ImageJ describes only the first plane of a stack past 4 GB; the others follow it.
    page, size = pages[0], int(pages[0].nbytes)
    if series.dataoffset + count * size > path.stat().st_size:
        # Before a list is made of planes that somebody may only claim.
        msg = f"{path} is cut short: {count} planes of {size} bytes do not fit into it"
        raise FormatError(msg)
    return [
        Plane(
            path,
            [offset + plane * size for offset in page.dataoffsets],
            page.databytecounts,
            None,
        )
        for plane in range(count)
    ]
