"""Directories of MCMICRO: registered images, markers.csv, and the masks of its segmentations."""

from __future__ import annotations

from pathlib import Path

from microtome.coordinates import Mpp
from microtome.errors import FormatError
from microtome.image import MultiscaleImage

from ._choice import chosen
from ._listing import rows_of, stem_of, tiffs_in
from ._restated import restated
from ._tiff import open_tiff

__all__ = ["mcmicro_images", "open_mcmicro"]

_MARKERS = "markers.csv"

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
    markers = rows_of(path / _MARKERS)
    # A step that takes backgrounds away leaves their channels out.
    kept = [row for row in markers if row.get("remove", "").strip().upper() != "TRUE"]
    rows = markers if len(markers) == opened.nchannels else kept
    if len(rows) != opened.nchannels or not all(row.get("marker_name") for row in rows):
        msg = (
            f"{path / _MARKERS} names {len(markers)} markers in its column marker_name, "
            f"{files[name]} has {opened.nchannels} channels"
        )
        raise FormatError(msg)
    return restated(
        opened,
        channel_names=[row["marker_name"] for row in rows],
        name=name,
        metadata={"channels": [dict(row) for row in rows]},
    )


def _files(path: Path) -> dict[str, Path]:
    folders = [path / step for step in _STEPS]
    # Each method of segmentation has a folder for each image.
    masks = path / "segmentation"
    folders += [*sorted((path / "dearray").glob("masks")), masks, *sorted(masks.glob("*"))]
    found: dict[str, Path] = {}
    for folder in folders:
        for file in tiffs_in(folder):
            found[f"{folder.relative_to(path).as_posix()}/{stem_of(file)}"] = file
    return found
