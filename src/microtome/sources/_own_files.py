"""Which files an image is read from: its own, and not what lies beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from microtome.image import MultiscaleImage
from microtome.storage import is_versioned

__all__ = ["image_files"]

# Of a group of Zarr what it says of itself; what it says of its labels stands with them.
_DOCUMENTS = ("zarr.json", ".zattrs", ".zgroup")


def image_files(image: MultiscaleImage) -> tuple[Path, ...]:
    """Return the local files that the pixels of an image are read from, sorted.

    Tables that name the channels of an image in a directory, and other images beside it, its masks
    and labels among them, are none of them.

    Parameters
    ----------
    image
        The image.

    Returns
    -------
    () where it has none: an array, or an image at an address.
    """
    levels = [image.level(index) for index in range(image.level_count)]
    told = {file for level in levels for file in getattr(level.array, "files", ())}
    if told:
        return tuple(sorted(told))
    path = Path(image.uri)
    if "://" in image.uri or not path.exists():
        return ()
    if not path.is_dir():
        return (path,)
    places = [path / level.path for level in levels]
    if is_versioned(path) or not all(place.is_dir() for place in places):
        return tuple(sorted(_within(path)))
    documents = [path / name for name in _DOCUMENTS if (path / name).is_file()]
    return tuple(sorted({*documents, *(file for place in places for file in _within(place))}))


def _within(folder: Path) -> Iterable[Path]:
    return (file for file in folder.rglob("*") if file.is_file())
