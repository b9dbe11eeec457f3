"""Directories of steinbock: images, a panel, masks, and a table of the acquisitions."""

from __future__ import annotations

from pathlib import Path

from microtome.coordinates import Mpp
from microtome.errors import FormatError
from microtome.image import MultiscaleImage

from ._choice import chosen
from ._listing import rows_of, stem_of, tiffs_in
from ._restated import restated
from ._tiff import open_tiff

__all__ = ["open_steinbock", "steinbock_images"]

_IMAGES, _PANEL, _TABLE = "img", "panel.csv", "images.csv"


def steinbock_images(path: Path) -> tuple[str, ...]:
    """Return the names of the images, then those of the masks: ``masks/NAME``, for each folder of them."""
    return tuple(_files(path))


def open_steinbock(path: Path, *, mpp: Mpp | None, image: str | int | None) -> MultiscaleImage:
    """Open an image, or a mask as labels.

    Parameters
    ----------
    path
        The directory.
    mpp
        Pixel size; steinbock writes none.
    image
        Name of the image without its ending, or ``masks/NAME``.

    Raises
    ------
    FormatError
        If a file is damaged, or the panel does not name as many channels as an image has.
    """
    files = _files(path)
    names = [name for name in files if "/" not in name] if image is None else list(files)
    name = names[chosen(names, image, where=path)]
    opened = open_tiff(files[name], mpp=mpp)
    if "/" in name:
        return restated(opened, kind="labels", name=name)
    panel = [row for row in rows_of(path / _PANEL) if row.get("keep", "1") not in {"0", "False"}]
    if opened.has_channel_axis and len(panel) != opened.nchannels:
        msg = (
            f"{path / _PANEL} keeps {len(panel)} channels, {files[name]} has {opened.nchannels}: "
            "they are not of one run"
        )
        raise FormatError(msg)
    facts = {Path(row.get("image", "")).name: row for row in rows_of(path / _TABLE)}
    return restated(
        opened,
        channel_names=[row.get("name") or row.get("channel") or "" for row in panel],
        name=name,
        metadata={
            "channels": [
                {"name": row.get("name", ""), "metal": row.get("channel", "")} for row in panel
            ],
            "acquisition": dict(facts.get(files[name].name, {})),
        },
    )


def _files(path: Path) -> dict[str, Path]:
    found = {stem_of(file): file for file in tiffs_in(path / _IMAGES)}
    for folder in sorted(path.glob("masks*")):
        found |= {f"{folder.name}/{stem_of(file)}": file for file in tiffs_in(folder)}
    return found
