"""What the server answers with, apart from HTTP: open pictures and tiles that were drawn, kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from ._blending import parse_lamps, picture_tile
from ._catalogue import Catalogue
from ._encoding import Encoded
from ._keeping import Kept
from ._overlays import overlay_tile
from ._slide import Slide

__all__ = ["Studio"]

_MOST_SLIDES = 64
_OVERHEAD = 512  # bytes of a tile that is kept besides its data


class Studio:
    """Opens pictures and draws tiles; every method blocks, and may be called by many threads.

    Parameters
    ----------
    catalogue
        What there is.
    cache_bytes
        How many bytes of tiles are kept in memory.
    """

    def __init__(self, catalogue: Catalogue, cache_bytes: int) -> None:
        self.catalogue = catalogue
        self._slides: Kept[Slide] = Kept(_MOST_SLIDES)
        self._tiles: Kept[Encoded] = Kept(cache_bytes, lambda tile: len(tile[1]) + _OVERHEAD)

    def slide(self, tissue: str, modality: str) -> Slide:
        """Return a picture, opened now or before."""
        return self._slides.get((tissue, modality), lambda: self.catalogue.open(tissue, modality))

    def picture_tile(
        self,
        slide: Slide,
        place: tuple[int, int, int],
        ending: Literal["png", "jpeg"],
        channels: str | None,
    ) -> Encoded:
        """Return a tile of a picture; `channels` as `parse_lamps` reads them."""

        def draw() -> Encoded:
            lamps = None
            if channels is not None and not slide.rgb:
                lamps = parse_lamps(channels, slide.image.nchannels)
            return picture_tile(slide, *place, lamps=lamps, ending=ending)

        asked = None if slide.rgb else channels
        return self._kept(slide, ("picture", place, ending, asked), draw)

    def overlay_tile(
        self,
        slide: Slide,
        kind: str,
        layer_id: str,
        place: tuple[int, int, int],
        options: Mapping[str, str],
    ) -> Encoded:
        """Return a tile of a layer."""
        key = (kind, layer_id, place, tuple(sorted(options.items())))
        return self._kept(slide, key, lambda: overlay_tile(slide, kind, layer_id, place, options))

    def _kept(self, slide: Slide, key: tuple[object, ...], draw: Callable[[], Encoded]) -> Encoded:
        return self._tiles.get((id(slide), slide.placed.identity, *key), draw)
