"""Which tiles of a cohort an export writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ._options import Tissues

if TYPE_CHECKING:
    from microtome.interop import CohortTiles

__all__ = ["ALL_TILES", "Tiling"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Which tiles of a cohort.

    Parameters
    ----------
    modality
        Which images; by default the one that all tissues with tiles have first, H&E before IHC
        before multiplex.
    size
        Side of the tiles in pixels; may be left out where only one tiling fits.
    strategy
        Name of the tiling; may be left out where only one fits. Of several of one size it is default.
    resolution
        Which resolution, where the cohort has several.
    tissue
        Only this tissue; may be given several times.
    split
        Only tissues of this split.
    """

    modality: str | None = None
    size: Annotated[int | None, Parameter(name=["--size", "--tile-size"])] = None
    strategy: str | None = None
    resolution: str | None = None
    tissue: Tissues = None
    split: str | None = None

    def of(self, cohort: Path) -> CohortTiles:
        """Open them."""
        from microtome.interop import CohortTiles

        return CohortTiles.open(
            cohort,
            modality=self.modality,
            tile_size=self.size,
            tile_strategy=self.strategy,
            resolution=self.resolution,
            tissues=self.tissue,
            split=self.split,
        )


ALL_TILES = Tiling()
