"""Colours: of channels, of labels by their number, of values through a colour map."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import UnknownNameError

__all__ = ["CHANNEL_COLOURS", "COLOUR_MAPS", "MASK_COLOUR", "colour_of_labels", "coloured"]

CHANNEL_COLOURS = ("#4a7dff", "#ffb000", "#ff3fb4", "#35d461", "#23d5e8", "#ff5a45")
"""Told apart with any colour vision when added up on black; the first is for nuclei."""
MASK_COLOUR = (74, 168, 255)
"""Told apart from the first colours of tiles, which `overlays.js` has, with any colour vision."""

# The maps of matplotlib (CC0), in seventeen stops.
_STOPS = {
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725",
    "magma": "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c fc8961 fea772 fec488 fde2a3 fcfdbf",
    "inferno": "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4",
    "plasma": "0d0887 310597 4c02a1 6600a7 7e03a8 9511a1 aa2395 bc3587 cc4778 da5a6a e66c5c f0804e f89540 fdac33 fdc527 f8df25 f0f921",
    "cividis": "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838",
    "gray": "000000 ffffff",
}
COLOUR_MAPS = tuple(_STOPS)

# From this part of the colours on nothing is seen through: 1 / 1.6.
_FADE = 1.6
_HUES = 128
# Neighbouring numbers get colours far apart: multiplication by the golden ratio scatters them
# (Knuth, The Art of Computer Programming 3, 6.4).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _scale(name: str) -> NDArray[np.uint8]:
    """Return the 256 colours of a map, (256, 3)."""
    stops = np.array([list(bytes.fromhex(stop)) for stop in _STOPS[name].split()], np.float64)
    at = np.linspace(0, len(stops) - 1, 256)
    along = [np.interp(at, np.arange(len(stops)), stops[:, i]) for i in range(3)]
    return np.rint(np.stack(along, -1)).astype(np.uint8)


_MAPS = {name: _scale(name) for name in _STOPS}
_WHEEL = np.rint(
    [
        [255 * v for v in colorsys.hls_to_rgb(i / _HUES, 0.5 + 0.12 * (i % 3 - 1), 0.95)]
        for i in range(_HUES)
    ]
).astype(np.uint8)


def coloured(
    values: NDArray[np.floating[Any]], low: float, high: float, name: str, *, clear: bool = False
) -> NDArray[np.uint8]:
    """Turn values into colours.

    Parameters
    ----------
    values
        (H, W); what is not finite becomes transparent.
    low, high
        Values of the first and the last colour; `low` < `high`.
    name
        One of `COLOUR_MAPS`.
    clear
        Whether the low end lets through what is below, as in the report.

    Returns
    -------
    (H, W, 4).

    Raises
    ------
    UnknownNameError
        If there is no such map.
    """
    if name not in _MAPS:
        msg = f"there is no colour map {name!r}, only {', '.join(COLOUR_MAPS)}"
        raise UnknownNameError(msg)
    known = np.isfinite(values)
    share = np.clip((np.where(known, values, low) - low) / (high - low), 0, 1)
    out = np.zeros((*values.shape, 4), np.uint8)
    out[..., :3] = _MAPS[name][np.rint(share * 255).astype(np.intp)]
    solid = np.rint(np.minimum(share * _FADE, 1) * 255) if clear else 255
    out[..., 3] = np.where(known, solid, 0)
    out[~known] = 0
    return out


def colour_of_labels(labels: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Give each label its colour, the same wherever it is drawn; 0 becomes transparent.

    Parameters
    ----------
    labels
        (H, W).

    Returns
    -------
    (H, W, 4).
    """
    scattered = labels.astype(np.uint64) * _GOLDEN
    out = np.zeros((*labels.shape, 4), np.uint8)
    out[..., :3] = _WHEEL[(scattered >> np.uint64(57)).astype(np.intp)]
    out[..., 3] = 255
    out[labels == 0] = 0
    return out
