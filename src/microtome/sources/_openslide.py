"""Slides through OpenSlide: Hamamatsu, Leica, 3DHISTECH, Ventana, and what else it knows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.image import MultiscaleImage
from microtome.storage import Box

from ._array import image_from_array, image_from_levels
from ._choice import chosen
from ._fetched import FetchedArray
from ._foreign import foreign_errors, imported

__all__ = ["open_openslide", "openslide_images"]

_SLIDE = "slide"
_OPAQUE = 255

# Where a format has no tiles, or does not say how large they are.
_TILE = 256


def openslide_images(path: Path) -> tuple[str, ...]:
    """Return ``slide``, and the names of the associated images: label, macro, thumbnail."""
    with foreign_errors(path, "OpenSlide"):
        return (_SLIDE, *_opened(path).associated_images)


def open_openslide(path: Path, *, mpp: Mpp | None, image: str | int | None) -> MultiscaleImage:
    """Open a slide, or one of its associated images.

    Where a scanner left out what is no tissue, pixels have the background colour that the file
    states, and are white where it states none.

    Parameters
    ----------
    path
        The file.
    mpp
        Pixel size instead of what the file states.
    image
        Name or number of an associated image; the slide by default.

    Raises
    ------
    DependencyError
        If OpenSlide is not installed.
    FormatError
        If it does not know the file.
    """
    with foreign_errors(path, "OpenSlide"):
        slide = _opened(path)
        names = (_SLIDE, *slide.associated_images)
        number = chosen(names, 0 if image is None else image, where=path)
        name = path.name.split(".")[0]
        if number:
            pixels = _over(np.asarray(slide.associated_images[names[number]]), None)
            return image_from_array(
                pixels, axes="yxc", mpp=mpp, uri=str(path), name=f"{name} {names[number]}"
            )
        facts = {str(key): str(value) for key, value in slide.properties.items()}
        return image_from_levels(
            [_level(path, slide, level, facts) for level in range(slide.level_count)],
            "cyx",
            mpp=mpp or _pixel_size(facts),
            channel_names=None,
            uri=str(path),
            name=name,
            metadata={"acquisition": facts, "associated_images": list(names[1:])},
        )


def _opened(path: Path) -> Any:
    return imported("openslide", path, "wsi").OpenSlide(path)


def _level(path: Path, slide: Any, level: int, facts: dict[str, str]) -> FetchedArray:
    width, height = slide.level_dimensions[level]
    down = slide.level_downsamples[level]
    background = facts.get("openslide.background-color")

    def fetch(box: Box) -> NDArray[Any]:
        channels, (y0, y1), (x0, x1) = box
        with foreign_errors(path, "OpenSlide"):
            # Places are in pixels of the finest level, whatever the level.
            corner = (round(x0 * down), round(y0 * down))
            region = np.asarray(slide.read_region(corner, level, (x1 - x0, y1 - y0)))
        return _over(region, background)[..., slice(*channels)].transpose(2, 0, 1)

    tile = [facts.get(f"openslide.level[{level}].tile-{side}") for side in ("height", "width")]
    sides = [int(side) if side and side.isdecimal() and int(side) else _TILE for side in tile]
    return FetchedArray((3, height, width), np.uint8, (3, *sides), fetch, _files(path))


def _files(path: Path) -> list[Path]:
    """Return the files of a slide, where it has others than the one that is opened."""
    kind = path.suffix.lower()
    if kind == ".mrxs":
        return sorted([path, *(p for p in path.with_suffix("").rglob("*") if p.is_file())])
    if kind not in {".vms", ".vmu"}:
        return []
    # Lines of `ImageFile(0,0)=name.jpg`.
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    named = {Path(line.partition("=")[2].strip()).name for line in lines}
    return sorted({path, *(p for p in path.parent.iterdir() if p.name in named)})


def _over(rgba: NDArray[np.uint8], background: str | None) -> NDArray[np.uint8]:
    """Lay pixels over a background, ``"RRGGBB"``, white by default."""
    alpha = rgba[..., 3:]
    if (alpha == _OPAQUE).all():
        return rgba[..., :3]
    shown = background if background and re.fullmatch("[0-9a-fA-F]{6}", background) else "FFFFFF"
    behind = np.frombuffer(bytes.fromhex(shown), np.uint8).astype(np.uint16)
    part = alpha.astype(np.uint16)
    mixed = rgba[..., :3] * part + behind * (_OPAQUE - part)
    return ((mixed + _OPAQUE // 2) // _OPAQUE).astype(np.uint8)


def _pixel_size(facts: dict[str, str]) -> Mpp | None:
    try:
        y, x = (float(facts[f"openslide.mpp-{axis}"]) for axis in "yx")
    except (KeyError, ValueError):
        return None
    return Mpp(y, x, "metadata") if min(y, x) > 0 else None
