"""Directories of steinbock: images, a panel, masks, and a table of the acquisitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from microtome.coordinates import Mpp
from microtome.errors import FormatError
from microtome.image import MultiscaleImage

from ._choice import chosen
from ._listing import Rows, named_by_stem, rows_of, tiffs_in
from ._restated import restated
from ._tiff import open_tiff

__all__ = ["open_steinbock", "steinbock_images"]

_IMAGES, _PANEL, _TABLE = "img", "panel.csv", "images.csv"
# As steinbock, pandas and R write it; pandas makes numbers with a point of a column with gaps.
_KEEP: dict[str, bool] = {
    **dict.fromkeys(("1", "1.0", "true"), True),
    **dict.fromkeys(("0", "0.0", "false"), False),
}


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
        If a file is damaged, or the panel has no names, or not as many as an image has channels.
    """
    files = _files(path)
    names = [name for name in files if "/" not in name] if image is None else list(files)
    name = names[chosen(names, image, where=path)]
    opened = open_tiff(files[name], mpp=mpp)
    if "/" in name:
        return restated(opened, kind="labels", name=name)
    facts = {Path(row.get("image", "")).name: row for row in rows_of(path / _TABLE).records}
    metadata: dict[str, Any] = {"acquisition": dict(facts.get(files[name].name, {}))}
    if not opened.has_channel_axis:
        return restated(opened, name=name, metadata=metadata)
    panel = _kept(rows_of(path / _PANEL))
    if len(panel) != opened.nchannels:
        msg = (
            f"{path / _PANEL} keeps {len(panel)} channels, {files[name]} has {opened.nchannels}: "
            "they are not of one run"
        )
        raise FormatError(msg)
    return restated(
        opened,
        channel_names=[row.get("name") or row["channel"] for row in panel],
        name=name,
        metadata={
            "channels": [
                {"name": row.get("name", ""), "metal": row.get("channel", "")} for row in panel
            ],
            **metadata,
        },
    )


def _kept(rows: Rows) -> list[dict[str, str]]:
    """Return the rows of a panel whose channels are in the images; each has a name, or a channel."""
    rows.require(("name", "channel"))
    kept: list[dict[str, str]] = []
    for line, row in zip(rows.lines, rows.records, strict=True):
        keep = _KEEP.get(row.get("keep", "1").lower())
        if keep is None:
            msg = f"{rows.path}, line {line}: keep must be 1 or 0, got {row['keep']!r}"
            raise FormatError(msg)
        if keep and not (row.get("name") or row.get("channel")):
            msg = f"{rows.path}, line {line}: a channel that is kept has no name, and no channel"
            raise FormatError(msg)
        kept += [row] if keep else []
    return kept


def _files(path: Path) -> dict[str, Path]:
    found = named_by_stem(tiffs_in(path / _IMAGES))
    for folder in sorted(path.glob("masks*")):
        masks = named_by_stem(tiffs_in(folder))
        found |= {f"{folder.name}/{name}": file for name, file in masks.items()}
    return found
