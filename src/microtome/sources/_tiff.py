"""TIFF and its relatives (SVS, OME-TIFF, QPTIFF, ImageJ, MIBItiff) in place."""

from __future__ import annotations

import errno
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import tifffile

from microtome.coordinates import Mpp
from microtome.errors import (
    FormatError,
    MicrotomeError,
    NoResolutionError,
    StorageError,
)
from microtome.image import MultiscaleImage

from ._array import image_from_levels
from ._choice import chosen, distinct
from ._tiff_array import CHANNEL_LETTERS, TiffArray
from ._tiff_facts import acquisition
from ._tiff_log import tifffile_heard
from ._tiff_metadata import channel_names, noted_by_us, pixel_size, verify_description, z_step
from ._tiff_pages import verify_pages

__all__ = ["TiffArray", "open_tiff", "tiff_images"]


def tiff_images(path: Path) -> tuple[str, ...]:
    """Return the names of the images of a TIFF: the main picture, then label, macro and others.

    Raises
    ------
    FormatError
        If the file is damaged or cut short.
    """
    with _opened(path) as tiff:
        return _names(tiff)


def open_tiff(path: Path, *, mpp: Mpp | None, image: str | int | None = None) -> MultiscaleImage:
    """Open a picture of a TIFF with all its resolutions.

    Parameters
    ----------
    path
        The file.
    mpp
        Pixel size instead of what the file states.
    image
        Name or number of the picture; the first, which is the main one, by default.

    Raises
    ------
    FormatError
        If the file is damaged, cut short, or of a shape that cannot be read.
    UnknownNameError
        If there is no such picture.
    """
    with _opened(path) as tiff:
        names = _names(tiff)
        number = chosen(names, 0 if image is None else image, where=path)
        series = tiff.series[number]
        one = _names_one_channel(tiff, number)
        arrays = [TiffArray(path, level, one_channel=one) for level in series.levels]
        base = arrays[0]
        count = base.shape[base.axes.index("c")] if "c" in base.axes else 1
        place, record = noted_by_us(tiff, number)
        size = mpp or _stated_size(path, tiff, number)
        opened = image_from_levels(
            arrays,
            base.axes,
            mpp=size,
            z_spacing=z_step(tiff, number),
            channel_names=None
            if "S" in series.axes
            else channel_names(tiff, number, _channel_pages(series, base), count),
            uri=str(path),
            name=path.name.split(".")[0] + (f" {names[number]}" if number else ""),
            metadata={
                "description": series.keyframe.description,
                "acquisition": acquisition(tiff, number),
                "associated_images": list(names[1:]) if number == 0 else [],
                **({"microtome": record} if record else {}),
            },
        )
        # Another pixel size than the file's leaves its place in the file's micrometres.
        return opened if size is None or not place else _placed(opened, place)


def _placed(image: MultiscaleImage, place: Mapping[str, float]) -> MultiscaleImage:
    """Return an image moved to where it lies, micrometres by axis."""
    levels = [
        replace(
            level,
            translation=tuple(
                at + place.get(axis, 0.0)
                for axis, at in zip(level.axes, level.translation, strict=True)
            ),
        )
        for level in map(image.level, range(image.level_count))
    ]
    return MultiscaleImage(
        levels,
        uri=image.uri,
        channel_names=image.channel_names,
        mpp=image.mpp,
        kind=image.kind,
        name=image.name,
        metadata=dict(image.metadata),
    )


def _names(tiff: Any) -> tuple[str, ...]:
    return distinct([str(series.name) for series in tiff.series])


def _names_one_channel(tiff: Any, number: int) -> bool:
    """Whether OME-XML has a name for the only channel: then it is one, and can be asked for."""
    series = tiff.series[number]
    if not tiff.is_ome or set(series.axes) & CHANNEL_LETTERS:
        return False
    return channel_names(tiff, number, list(series.pages)[:1], 1) is not None


def _channel_pages(series: Any, base: TiffArray) -> list[Any]:
    """Return a page of each channel: the first of those that differ in time and depth only."""
    pages = list(series.pages)
    if "c" not in base.axes:
        return pages[:1]
    stride = base.step_along("c")
    return pages[: base.shape[base.axes.index("c")] * stride : stride]


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    """Open a TIFF whose pages are all there; whatever tifffile stumbles over is an error of ours."""
    with tifffile_heard() as heard:
        try:
            with tifffile.TiffFile(path) as tiff:
                verify_description(tiff)
                verify_pages(path, tiff)
                if not tiff.series:
                    msg = f"{path} holds no image"
                    raise FormatError(msg)
                if tiff.is_imagej and tiff.series[0].kind != "imagej":
                    # tifffile takes what the description does not fit for a picture of fewer planes.
                    msg = f"{path} is cut short: it does not hold what its ImageJ description promises"
                    raise FormatError(msg)
                yield tiff
        except MicrotomeError:
            raise
        except Exception as error:
            # A damaged tag can be of any type and size, and so is what tifffile stumbles over then.
            if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
                msg = f"{path} cannot be read: {error.strerror}"
                raise StorageError(msg) from error
            msg = f"{path} is a damaged TIFF: {_stumbled(error, heard)}"
            raise FormatError(msg) from error


def _stumbled(error: Exception, heard: Sequence[str]) -> str:
    """Say what is wrong with a file in whose reading an error was raised."""
    if isinstance(error, ValueError | OSError) and str(error):
        return str(error)
    # An index, a key or a division by zero of tifffile says nothing to who has the file.
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{heard[-1]} ({told})" if heard else f"its tags cannot be ({told})"


def _stated_size(path: Path, tiff: Any, number: int) -> Mpp | None:
    try:
        return pixel_size(tiff, number)
    except NoResolutionError as error:
        msg = f"{path}: {error}"
        raise NoResolutionError(msg) from error
