"""Directories of MCMICRO: registered images, markers.csv, and the masks of its segmentations."""

from __future__ import annotations

from pathlib import Path

from microtome.coordinates import Mpp
from microtome.errors import FormatError
from microtome.image import MultiscaleImage

from ._choice import chosen
from ._listing import Rows, named_by_stem, rows_of, tiffs_in
from ._restated import restated
from ._tiff import open_tiff

__all__ = ["mcmicro_images", "open_mcmicro"]

_MARKERS, _NAME = "markers.csv", "marker_name"

# Where MCMICRO puts images, in the order of its steps; a core is cut out of a registered array.
_STEPS = ("registration", "background", "dearray")


def mcmicro_images(path: Path) -> tuple[str, ...]:
    """Return the names of the images, ``registration/NAME``, then of the masks, ``segmentation/...``."""
    return tuple(_files(path))


def open_mcmicro(path: Path, *, mpp: Mpp | None, image: str | int | None) -> MultiscaleImage:
    """Open an image with the names of its markers, or a mask as labels.

    Parameters
    ----------
    path
        The directory.
    mpp
        Pixel size instead of what the files state.
    image
        Name of the image: ``registration/NAME``, ``segmentation/METHOD/NAME``.

    Raises
    ------
    FormatError
        If a file is damaged, or markers.csv does not name as many channels as an image has.
    """
    files = _files(path)
    names = list(files)
    if image is None:
        names = [name for name in files if name.startswith(_STEPS[0])]
        names = names or [name for name in files if name.startswith(_STEPS)]
    name = names[chosen(names, image, where=path)]
    opened = open_tiff(files[name], mpp=mpp)
    if not name.startswith(_STEPS):
        return restated(opened, kind="labels", name=name)
    rows = _markers(rows_of(path / _MARKERS), opened.nchannels, files[name])
    return restated(
        opened,
        channel_names=[row[_NAME] for row in rows],
        name=name,
        metadata={"channels": [dict(row) for row in rows]},
    )


def _markers(table: Rows, count: int, file: Path) -> list[dict[str, str]]:
    """Return a marker for each channel of an image, in their order."""
    table.require((_NAME,))
    markers = list(zip(table.lines, table.records, strict=True))
    # A step that takes backgrounds away leaves their channels out.
    kept = [(line, row) for line, row in markers if row.get("remove", "").upper() != "TRUE"]
    mine = markers if len(markers) == count else kept
    if len(mine) != count:
        some = f", {len(kept)} of them not removed" if len(kept) < len(markers) else ""
        msg = (
            f"{table.path} names {len(markers)} markers in its column {_NAME}{some}, "
            f"{file} has {count} channels"
        )
        raise FormatError(msg)
    for line, row in mine:
        if not row[_NAME]:
            msg = f"{table.path}, line {line}: a channel of {file} has no {_NAME}"
            raise FormatError(msg)
    rows = [row for _, row in mine]
    numbers = [int(n) for row in rows if (n := row.get("channel_number", "")).isdecimal()]
    # Numbers that begin again with each cycle say nothing of an order in the image.
    if len(set(numbers)) == len(rows) and numbers != sorted(numbers):
        msg = (
            f"{table.path}: channel_number is not in the order of the rows ({numbers}), so it is "
            "unknown which row is which channel; sort the rows as the image's channels are"
        )
        raise FormatError(msg)
    return rows


def _files(path: Path) -> dict[str, Path]:
    folders = [path / step for step in _STEPS]
    # Each method of segmentation has a folder for each image.
    masks = path / "segmentation"
    folders += [*sorted((path / "dearray").glob("masks")), masks, *sorted(masks.glob("*"))]
    found: dict[str, Path] = {}
    for folder in folders:
        for name, file in named_by_stem(tiffs_in(folder)).items():
            found[f"{folder.relative_to(path).as_posix()}/{name}"] = file
    return found
