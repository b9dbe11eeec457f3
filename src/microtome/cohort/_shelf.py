"""The images of a dataset, opened when first needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from microtome.image import MultiscaleImage

__all__ = ["ImageShelf"]


class ImageShelf(Sequence[MultiscaleImage]):
    """Images by number, each opened at its first use and kept.

    Sent to another process it takes along the paths only, and opens them there.

    Parameters
    ----------
    paths
        Where the images are.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._open: dict[int, MultiscaleImage] = {}

    @overload
    def __getitem__(self, index: int) -> MultiscaleImage: ...
    @overload
    def __getitem__(self, index: slice) -> ImageShelf: ...
    def __getitem__(self, index: int | slice) -> MultiscaleImage | ImageShelf:
        if isinstance(index, slice):
            return ImageShelf(self._paths[index])
        image = self._open.get(index)
        if image is None:
            image = self._open[index] = MultiscaleImage.open(self._paths[index])
        return image

    def __len__(self) -> int:
        return len(self._paths)

    def __reduce__(self) -> tuple[type[ImageShelf], tuple[list[Path]]]:
        return ImageShelf, (self._paths,)
