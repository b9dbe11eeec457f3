"""Tiles of a slide as a torch dataset over OpenSlide, as tutorials write it. Worker processes import this."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["SlideTiles"]


class SlideTiles(torch.utils.data.Dataset[torch.Tensor]):
    """Float32 tiles of a slide's finest level by their first pixel.

    Parameters
    ----------
    path
        The slide.
    side
        Side of a tile.
    """

    def __init__(self, path: str, side: int) -> None:
        self.path, self.side = path, side
        self.slide: Any = None

    def __getitem__(self, place: tuple[int, int]) -> torch.Tensor:
        if self.slide is None:
            # Opened where it is used, which may be a worker process.
            import openslide

            self.slide = openslide.OpenSlide(self.path)
        row, col = place
        region = self.slide.read_region((col, row), 0, (self.side, self.side))
        colours = np.asarray(region)[..., :3].transpose(2, 0, 1)
        return torch.from_numpy(colours.astype(np.float32))
