"""The formats that are read, in the order in which they are asked, and what each begins with."""

from __future__ import annotations

from pathlib import Path

from microtome.storage import is_versioned

from ._format import SourceFormat

__all__ = ["FORMATS", "OME_ZARR"]

_HERE = "microtome.sources"
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_SUFFIXES = (".tif", ".tiff", ".svs", ".qptiff", ".btf", ".ome.tif")


def _is_zarr(path: Path, head: bytes) -> bool:
    roots = ("zarr.json", ".zgroup", ".zattrs")
    return not head and (any((path / name).is_file() for name in roots) or is_versioned(path))


OME_ZARR = SourceFormat("OME-Zarr", _is_zarr, f"{_HERE}._zarr:open_zarr", (".zarr",))

FORMATS: tuple[SourceFormat, ...] = (
    OME_ZARR,
    SourceFormat(
        "TIFF",
        lambda _, head: head[:4] in _TIFF_HEADS,
        f"{_HERE}._tiff:open_tiff",
        _TIFF_SUFFIXES,
    ),
    SourceFormat(
        "PNG or JPEG",
        lambda _, head: head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")),
        f"{_HERE}._raster:open_raster",
        (".png", ".jpg", ".jpeg"),
    ),
    SourceFormat(
        "npy",
        lambda _, head: head.startswith(b"\x93NUMPY"),
        f"{_HERE}._npy:open_npy",
        (".npy",),
        states_axes=False,
    ),
    SourceFormat(
        "IMC MCD",
        # The file begins with data of any kind; what it is stands at its end.
        lambda path, head: bool(head) and path.name.lower().endswith(".mcd"),
        f"{_HERE}._mcd:open_mcd",
        (".mcd",),
        images=f"{_HERE}._mcd:mcd_images",
    ),
    SourceFormat(
        "IMC text",
        lambda _, head: head.startswith(b"Start_push\t"),
        f"{_HERE}._imc_text:open_imc_text",
        (".txt",),
    ),
)
