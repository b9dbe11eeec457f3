"""Which images of a cohort, or which image, a bench reads."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from microtome.cohort import CohortLayout, parse_modality
from microtome.errors import FormatError, InvalidInputError, NotFoundError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.sources import open_image
from microtome.storage import StorageOptions, is_address

__all__ = ["bench_images"]

_IMAGES = 32  # of a modality: more would tell the same


def _is_cohort(path: str | os.PathLike[str]) -> bool:
    """Whether a path of this machine is that of a cohort."""
    return Path(path).is_dir() and (Path(path) / "metadata").is_dir()


def bench_images(
    path: str | os.PathLike[str],
    tile_size: int,
    *,
    image: str | int | None,
    modality: str | None,
    storage_options: StorageOptions | None,
) -> tuple[list[MultiscaleImage], list[str], bool]:
    """Return images that one batch may mix, in words which others there are, and whether it is a cohort.

    Parameters
    ----------
    path, tile_size, image, modality, storage_options
        As of `bench`.

    Raises
    ------
    NotFoundError
        If there is no image.
    UnknownNameError
        If the cohort has no such modality.
    InvalidInputError
        If no image has room for a tile, or an option is of the other kind of path.
    """
    layout = _layout(path, storage_options)
    if layout is None:
        if modality is not None:
            msg = f"modality={modality!r} chooses among those of a cohort, and {path} is one image; leave it out"
            raise InvalidInputError(msg)
        one = open_image(path, image=image, storage_options=storage_options)
        if min(one.level_shape(0)[-2:]) < tile_size:
            msg = _no_room(str(path), tile_size, {"": [one]})
            raise InvalidInputError(msg)
        return [one], [], False
    if image is not None:
        msg = f"image={image!r} names an image inside a file, and {path} is a cohort; choose by modality="
        raise InvalidInputError(msg)
    return (*_of_cohort(layout, tile_size, modality, storage_options), True)


def _layout(
    path: str | os.PathLike[str], storage_options: StorageOptions | None
) -> CohortLayout | None:
    """Return the cohort at a path or an address, None where there is none."""
    if not is_address(path):
        return CohortLayout.open(path, reading=True) if _is_cohort(path) else None
    try:
        return CohortLayout.open(path, reading=True, storage_options=storage_options)
    except FormatError:
        return None  # it is an image, or nothing: `open_image` says which


def _of_cohort(
    layout: CohortLayout,
    tile_size: int,
    modality: str | None,
    storage_options: StorageOptions | None,
) -> tuple[list[MultiscaleImage], list[str]]:
    there = layout.modalities()
    names = [one.name for one in there]
    if modality is not None and parse_modality(modality).name not in names:
        msg = (
            f"the cohort {layout.root} has no images of {modality!r}; there are {', '.join(names)}"
        )
        raise UnknownNameError(msg)
    images: dict[str, list[MultiscaleImage]] = {}
    unseen = 0
    for one in there:
        if modality is not None and one.name != parse_modality(modality).name:
            continue
        found = sorted(
            (
                image
                for images_at in (layout.root / one.canonical_dir).glob("*mpp/images")
                for image in images_at.iterdir()
                if image.name.endswith(".ome.zarr") and not image.name.startswith(".")
            ),
            key=str,
        )
        images[one.name] = [
            open_image(str(at), storage_options=storage_options) for at in found[:_IMAGES]
        ]
        unseen += len(found[_IMAGES:])
    if not any(images.values()):
        msg = f"the cohort {layout.root} has no images; put some in with `microtome ingest`"
        raise NotFoundError(msg)
    chosen, name = _chosen(images, tile_size)
    if not chosen:
        raise InvalidInputError(_no_room(f"the cohort {layout.root}", tile_size, images))
    count = sum(map(len, images.values()))
    said: list[str] = []
    if len(chosen) < count:
        axes, channels, dtype = _kind(chosen[0])
        others = [other for other in names if other != name and modality is None]
        choose = f"; modality= (--modality) measures {', '.join(others)}" if others else ""
        said.append(
            f"measured {len(chosen)} of {count} images, those of {name} with axes {axes}, {channels} "
            f"channels and {dtype} that have room for a tile{choose}"
        )
    if unseen:
        said.append(f"looked at {count} of the cohort's {count + unseen} images")
    return chosen, said


def _chosen(
    images: dict[str, list[MultiscaleImage]], tile_size: int
) -> tuple[list[MultiscaleImage], str]:
    """Return those that a batch may mix, the most of them; of as many, those with the most pixels."""
    groups: dict[Any, list[MultiscaleImage]] = {}
    for name, own in images.items():
        for one in own:
            if min(one.level_shape(0)[-2:]) >= tile_size:
                groups.setdefault((name, *_kind(one)), []).append(one)
    if not groups:
        return [], ""
    key = max(groups, key=lambda k: (len(groups[k]), sum(map(_area, groups[k]))))
    return groups[key], str(key[0])


def _no_room(path: str, tile_size: int, images: dict[str, list[MultiscaleImage]]) -> str:
    told: list[str] = []
    for name, own in images.items():
        if own:
            largest = max(own, key=lambda one: min(one.level_shape(0)[-2:]))
            height, width = largest.level_shape(0)[-2:]
            told.append(f"{'that' if not name else f'the largest of {name}'} is {height} x {width}")
    return (
        f"no image of {path} has room for a tile of {tile_size} pixels: {', '.join(told)}; give a smaller "
        "tile_size (--size)"
    )


def _area(image: MultiscaleImage) -> int:
    return math.prod(image.level_shape(0))


def _kind(image: MultiscaleImage) -> tuple[str, int, str]:
    level = image.level(0)
    return "".join(level.axes), image.nchannels, str(level.dtype)
