"""The formats that are read, in the order in which they are asked, and what each begins with."""

from __future__ import annotations

from pathlib import Path

from microtome.storage import is_versioned

from ._format import SourceFormat
from ._listing import is_dicom_file, tiffs_in

__all__ = ["FORMATS", "OME_ZARR"]

_HERE = "microtome.sources"
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SCANNERS = (".mrxs", ".ndpi", ".scn", ".bif", ".vms", ".vmu", ".svslide")
_TIFF_SUFFIXES = (".tif", ".tiff", ".svs", ".qptiff", ".btf", ".ome.tif")


def _is_zarr(path: Path, head: bytes) -> bool:
    roots = ("zarr.json", ".zgroup", ".zattrs")
    return not head and (any((path / name).is_file() for name in roots) or is_versioned(path))


def _is_steinbock(path: Path, head: bytes) -> bool:
    return not head and (path / "img").is_dir() and (path / "panel.csv").is_file()


def _is_mcmicro(path: Path, head: bytes) -> bool:
    steps = ("registration", "background", "dearray")
    return (
        not head
        and (path / "markers.csv").is_file()
        and any((path / step).is_dir() for step in steps)
    )


def _is_tiff_folder(path: Path, head: bytes) -> bool:
    return not head and bool(tiffs_in(path))


def _is_dicom(path: Path, head: bytes) -> bool:
    return is_dicom_file(path) if head else any(map(is_dicom_file, path.glob("*.dcm")))


def _is_scanners(path: Path, head: bytes) -> bool:
    # Most begin like a TIFF or a JPEG; only the name tells which of OpenSlide's they are.
    return bool(head) and path.name.lower().endswith(_SCANNERS)


OME_ZARR = SourceFormat(
    "OME-Zarr",
    _is_zarr,
    f"{_HERE}._zarr:open_zarr",
    (".zarr",),
    images=f"{_HERE}._zarr_stores:zarr_images",
)

FORMATS: tuple[SourceFormat, ...] = (
    OME_ZARR,
    SourceFormat(
        "OpenSlide",
        _is_scanners,
        f"{_HERE}._openslide:open_openslide",
        _SCANNERS,
        images=f"{_HERE}._openslide:openslide_images",
    ),
    SourceFormat(
        "TIFF",
        lambda _, head: head[:4] in _TIFF_HEADS,
        f"{_HERE}._tiff:open_tiff",
        _TIFF_SUFFIXES,
        images=f"{_HERE}._tiff:tiff_images",
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
    SourceFormat(
        "CZI",
        lambda _, head: head.startswith(b"ZISRAWFILE"),
        f"{_HERE}._czi:open_czi",
        (".czi",),
        images=f"{_HERE}._czi:czi_images",
    ),
    SourceFormat(
        "DICOM",
        _is_dicom,
        f"{_HERE}._dicom:open_dicom",
        (".dcm",),
        images=f"{_HERE}._dicom:dicom_images",
    ),
    SourceFormat(
        "steinbock",
        _is_steinbock,
        f"{_HERE}._steinbock:open_steinbock",
        (),
        images=f"{_HERE}._steinbock:steinbock_images",
    ),
    SourceFormat(
        "MCMICRO",
        _is_mcmicro,
        f"{_HERE}._mcmicro:open_mcmicro",
        (),
        images=f"{_HERE}._mcmicro:mcmicro_images",
    ),
    SourceFormat("folder of TIFFs", _is_tiff_folder, f"{_HERE}._tiff_folder:open_tiff_folder", ()),
)
