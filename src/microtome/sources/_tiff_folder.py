"""A folder of TIFFs of one channel each, as MIBI and many pipelines write them: one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.coordinates import Mpp
from microtome.errors import FormatError
from microtome.image import MultiscaleImage, PixelArray
from microtome.storage import READ, Box, Pending

from ._array import image_from_levels
from ._listing import named_by_stem, tiffs_in
from ._tiff import open_tiff

__all__ = ["open_tiff_folder"]

# Sizes that differ by less were rounded by whoever wrote them.
_SAME_SIZE = 1e-3


def open_tiff_folder(path: Path, *, mpp: Mpp | None) -> MultiscaleImage:
    """Open a folder of planes as one image; its channels are called like the files, in their order.

    Parameters
    ----------
    path
        The folder.
    mpp
        Pixel size instead of what the files state.

    Raises
    ------
    FormatError
        If a file is damaged, has several channels, or differs from the first in shape, type or
        pixel size.
    """
    files = tiffs_in(path)
    planes = [open_tiff(file, mpp=mpp) for file in files]
    first = planes[0]
    for file, plane in zip(files, planes, strict=True):
        if plane.axes.replace("c", "") != "yx" or plane.nchannels != 1:
            msg = (
                f"{file} has {plane.nchannels} channels and axes {plane.axes!r}: a folder is one "
                "image only where each file is one channel; open the files one by one"
            )
            raise FormatError(msg)
        if (plane.level_shape(0)[-2:], plane.dtype) != (first.level_shape(0)[-2:], first.dtype):
            msg = (
                f"{path} is no one image: {file.name} is {plane.level_shape(0)[-2:]} {plane.dtype}, "
                f"{files[0].name} {first.level_shape(0)[-2:]} {first.dtype}"
            )
            raise FormatError(msg)
        if not _same(plane.mpp, first.mpp):
            msg = f"{path}: {file.name} states {plane.mpp}, {files[0].name} {first.mpp}; give mpp="
            raise FormatError(msg)
    shapes = {tuple(p.level_shape(i)[-2:] for i in range(p.level_count)) for p in planes}
    count = first.level_count if len(shapes) == 1 else 1
    return image_from_levels(
        [_Planes([plane.level(index).array for plane in planes]) for index in range(count)],
        "cyx",
        mpp=first.mpp,
        channel_names=list(named_by_stem(files)),
        uri=str(path),
        name=path.name,
        metadata={"files": [file.name for file in files]},
    )


def _same(one: Mpp | None, other: Mpp | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one.y / other.y - 1) < _SAME_SIZE and abs(one.x / other.x - 1) < _SAME_SIZE


class _Planes:
    """Arrays of one channel each as one `PixelArray`."""

    def __init__(self, planes: Sequence[PixelArray]) -> None:
        self._planes = planes
        self._leads = [len(plane.shape) - 2 for plane in planes]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._planes), *self._planes[0].shape[-2:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._planes[0].dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return (1, *self._planes[0].chunks[-2:])

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(file for plane in self._planes for file in getattr(plane, "files", ()))

    def read(self, box: Box) -> NDArray[Any]:
        out = np.empty([stop - start for start, stop in box], self.dtype)
        self.read_into(box, out)
        return out

    def read_into(self, box: Box, out: NDArray[Any]) -> Pending:
        (first, last), *place = box
        for target, number in zip(out, range(first, last), strict=True):
            lead = self._leads[number]
            inner = ((0, 1),) * lead + tuple(place)
            self._planes[number].read_into(inner, target[(None,) * lead]).result()
        return READ
