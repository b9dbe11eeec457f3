"""One way of tiling masks, as a value: how it was asked for travels to whoever does it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from numpy.typing import ArrayLike

from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage

from ._cover import cover, grid_of
from ._fewest import get_fewest_tiles
from ._mask import MaskBands, open_mask
from ._rule import TileRule
from ._stats import TileStats
from ._strips import get_strip_tiles
from ._tile import TileSelection

__all__ = ["MaskTiling", "MaskTilingMethod"]

MaskTilingMethod = Literal["cover", "grid", "strips", "fewest"]
_METHODS = ("cover", "grid", "strips", "fewest")


@dataclass(frozen=True, slots=True)
class MaskTiling:
    """How tiles are chosen on masks: a method with its parameters.

    Parameters
    ----------
    method
        ``"cover"``: `best_mask_tiling_try_to_stop`. ``"grid"``: `get_grid_tile`. ``"strips"``:
        `get_strip_tiles`. ``"fewest"``: `get_fewest_tiles`.
    tile_size
        (height, width) in pixels.
    stride
        (down, across) in pixels; None for half the tile (cover), the tile (grid), or the default
        of the function.
    tolerance, coverage_goal, min_gain_ratio
        As of the functions; the last two say nothing to a grid.
    align
        (height, width) of the image's chunks: tiles then begin where a chunk does, or, where they
        are smaller than a chunk, each lie inside one. Those of cover and grid may hang over the
        far edge; strips and fewest take tiles of whole chunks only, and move those at the edge
        inside. Excludes a stride.

    Examples
    --------
    >>> import numpy as np
    >>> tiles, stats = MaskTiling("fewest", (16, 16)).choose(np.ones((40, 40), bool))
    >>> len(tiles), stats["tiling_method"]
    (9, 'fewest')
    """

    method: MaskTilingMethod
    tile_size: tuple[int, int]
    stride: tuple[int, int] | None = None
    tolerance: float = 0.85
    coverage_goal: float = 1.0
    min_gain_ratio: float = 0.05
    align: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            known = ", ".join(map(repr, _METHODS))
            raise InvalidInputError(f"method must be one of {known}, got {self.method!r}")
        TileRule.read(self.tile_size, self.stride, self.tolerance)
        if self.align is None:
            return
        if min(self.align) < 1:
            raise InvalidInputError(f"align must be at least 1 pixel, got {self.align}")
        if self.stride is not None:
            raise InvalidInputError(
                f"the stride of aligned tiles is that of the chunks, {self.align}; leave out the "
                f"stride, {self.stride}"
            )
        if self.method in {"strips", "fewest"} and any(
            side % chunk for chunk, side in zip(self.align, self.tile_size, strict=True)
        ):
            raise InvalidInputError(
                f"tiles of {self.tile_size} pixels are no whole number of chunks, {self.align}: "
                f"with method {self.method!r} they would leave gaps, take 'cover' or 'grid'"
            )

    def aligned_to(self, chunk: tuple[int, int]) -> MaskTiling:
        """Return the same for an image of these chunks."""
        return replace(self, align=chunk)

    def choose(
        self, mask: ArrayLike | MultiscaleImage | MaskBands
    ) -> tuple[TileSelection, TileStats]:
        """Choose tiles on a mask, of which no more than a band is held.

        Raises
        ------
        InvalidInputError
            If a parameter is outside its range, or the mask is none.
        """
        tissue = open_mask(mask)
        size, goals = self.tile_size, (self.coverage_goal, self.min_gain_ratio)
        if self.method in {"strips", "fewest"}:
            planner = get_strip_tiles if self.method == "strips" else get_fewest_tiles
            return planner(tissue, size, self.align or self.stride, self.tolerance, *goals)
        if self.method == "grid":
            rule = TileRule.read(size, self.stride, self.tolerance)
            return grid_of(tissue, rule, align=self.align)
        half = (max(1, size[0] // 2), max(1, size[1] // 2))
        rule = TileRule.read(size, self.stride or self.align or half, self.tolerance)
        return cover(tissue, rule, *goals, align=self.align)
