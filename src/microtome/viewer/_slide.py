"""One picture of a tissue, open: its pixels, where they lie, and what can be laid over it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from microtome.errors import InvalidInputError, OutOfRangeError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.tiling import TileTable
from microtome.view import nuclear_channels

from ._colours import CHANNEL_COLOURS, MASK_COLOUR, colour_of_labels
from ._contrast import Contrast, contrasts
from ._plane import Plane
from ._zoom import TILE_SIZE, Window, max_zoom

__all__ = [
    "LAYER_KINDS",
    "CellSource",
    "ChannelFacts",
    "Layer",
    "LayerKind",
    "Placed",
    "Slide",
    "TilingLayer",
    "identity_of",
]

LayerKind = Literal["masks", "cells", "predictions"]
LAYER_KINDS: tuple[LayerKind, ...] = ("masks", "cells", "predictions")
# Channels that are shown at first: more colours are not told apart.
_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Placed:
    """An image, and where its pixels lie."""

    image: MultiscaleImage
    to_um: Plane
    """From pixels (x, y) of level 0."""
    identity: str = ""
    """Changes when the image is replaced."""

    @cached_property
    def contrast(self) -> dict[int, Contrast]:
        """What was worked out so far, by channel."""
        return {}

    def contrast_of(self, channel: int) -> Contrast:
        """Return what becomes the first and the last colour."""
        if channel not in self.contrast:
            self.contrast[channel] = contrasts(self.image, [channel])[0]
        return self.contrast[channel]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Something that is drawn over pictures; opened when it is first asked for."""

    id: str
    name: str
    open: Callable[[], Placed]
    names: Mapping[int, str] = field(default_factory=dict[int, str])
    """Names of labels."""


@dataclass(frozen=True, slots=True, eq=False)
class TilingLayer:
    """Tiles of a tissue, in the order of their table."""

    id: str
    name: str
    table: TileTable
    """Of all tissues."""
    tissue_id: str
    to_um: Plane
    """From pixels (x, y) of the grid that tiles are counted on."""
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class CellSource:
    """Where the cells of a tissue are numbered and told of."""

    layer: str
    """The mask whose labels are the cells' numbers."""
    row: Callable[[int], Mapping[str, Any] | None]
    """What the table says of a cell; None where it says nothing."""
    table: bool
    """Whether there is a table."""


@dataclass(frozen=True, slots=True)
class ChannelFacts:
    """What is known of a channel besides its pixels."""

    name: str
    measured: bool = True
    qc_pass: bool = True
    nuclear: bool = False


@dataclass(frozen=True, eq=False)
class Slide:
    """One picture of a tissue.

    Parameters
    ----------
    placed
        Its pixels, and where they lie.
    rgb
        Whether they are red, green and blue of 8 bits.
    channels
        Of the image, in its order, then those of its panel that were not measured.
    layers
        What can be laid over it, by kind.
    tilings
        Its tiles.
    cells
        Where its cells are numbered; None where they are not.

    Raises
    ------
    InvalidInputError
        If the image has other axes than c, y, x or y, x.
    """

    placed: Placed
    rgb: bool
    channels: tuple[ChannelFacts, ...]
    layers: Mapping[LayerKind, tuple[Layer, ...]]
    tilings: tuple[TilingLayer, ...]
    cells: CellSource | None = None

    def __post_init__(self) -> None:
        image = self.placed.image
        if image.axes not in {"cyx", "yx"}:
            msg = f"{image.uri}: a picture can be shown of c, y, x or y, x; this image has {image.axes!r}"
            raise InvalidInputError(msg)

    @property
    def image(self) -> MultiscaleImage:
        """The pixels."""
        return self.placed.image

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of level 0."""
        base = self.image.level(0)
        return base.height, base.width

    def window_at(self, x: int, y: int) -> Window:
        """Return the window of a level-0 pixel.

        Raises
        ------
        OutOfRangeError
            If it lies outside the picture.
        """
        height, width = self.size
        if not (0 <= x < width and 0 <= y < height):
            msg = f"x {x}, y {y} lies outside the picture of {width} x {height} pixels"
            raise OutOfRangeError(msg)
        return Window(max_zoom(height, width), 1, (y, y + 1), (x, x + 1))

    def layer(self, kind: str, layer_id: str) -> Layer:
        """Return a layer.

        Raises
        ------
        UnknownNameError
            If there is none.
        """
        for layer in self.layers.get(cast("LayerKind", kind), ()):
            if layer.id == layer_id:
                return layer
        msg = f"there are no {kind!r} {layer_id!r} over this picture"
        raise UnknownNameError(msg)

    def tiling(self, tiling_id: str) -> TilingLayer:
        """Return a tiling.

        Raises
        ------
        UnknownNameError
            If there is none.
        """
        for tiling in self.tilings:
            if tiling.id == tiling_id:
                return tiling
        msg = f"there are no tiles {tiling_id!r} of this tissue"
        raise UnknownNameError(msg)

    @cached_property
    def first_channels(self) -> list[dict[str, Any]]:
        """Channels as they are shown at first: nuclei, then, of too many, those of most signal."""
        known = contrasts(self.image)
        measured = [i for i, channel in enumerate(self.channels) if channel.measured]
        many = len(measured) > _SHOWN
        marked = [channel.nuclear for channel in self.channels]
        nuclear = nuclear_channels([channel.name for channel in self.channels], marked)

        def rank(i: int) -> tuple[bool, bool, float]:
            facts = self.channels[i]
            # As in the report: there and here the same channels are the picture.
            return not nuclear[i], not facts.qc_pass, -known[i].spread if many else 0.0

        chosen = sorted(measured, key=rank)[:_SHOWN]
        # Nuclei first, for they are blue; the others in the order in which the panel has them.
        shown = sorted(chosen, key=lambda i: (rank(i)[:2], i))
        order = [*shown, *(i for i in measured if i not in shown)]
        lamps = CHANNEL_COLOURS
        if order and not nuclear[order[0]]:
            lamps = (*lamps[1:], lamps[0])
        colours = {i: lamps[n % len(lamps)] for n, i in enumerate(order)}
        if len(order) == 1:
            colours[order[0]] = "#ffffff"
        found: list[dict[str, Any]] = []
        for i, channel in enumerate(self.channels):
            own = known[i] if i < len(known) else Contrast(0.0, 1.0, 0.0, 1.0)
            found.append(
                {
                    "name": channel.name,
                    "color": colours.get(i, "#808080"),
                    "low": own.low,
                    "high": own.high,
                    "min": own.least,
                    "max": own.most,
                    "visible": i in shown,
                    "measured": channel.measured,
                    "qc_pass": channel.qc_pass,
                }
            )
        return found

    def facts(self) -> dict[str, Any]:
        """Return what a page must know, as JSON has it."""
        image, own = self.image, self.image.require_mpp()
        base = image.level(0)
        levels = [image.level(i) for i in range(image.level_count)]
        return {
            "width": base.width,
            "height": base.height,
            "mpp": [own.y, own.x],
            "levels": [
                {
                    "width": level.width,
                    "height": level.height,
                    "scale": [
                        level.scale[-2] / base.scale[-2],
                        level.scale[-1] / base.scale[-1],
                    ],
                }
                for level in levels
            ],
            "tile_size": TILE_SIZE,
            "max_zoom": max_zoom(base.height, base.width),
            "kind": "rgb" if self.rgb else "channels",
            "channels": [] if self.rgb else self.first_channels,
            "dtype": str(image.dtype),
            "cells": None if self.cells is None else self.cells.layer,
            "to_um": self.placed.to_um[:2].tolist(),
            "layers": {
                "masks": [
                    {"id": v.id, "name": v.name, "color": _hex(MASK_COLOUR)}
                    for v in self.layers.get("masks", ())
                ],
                "cells": [_labelled(v) for v in self.layers.get("cells", ())],
                "tilings": [
                    {
                        "id": v.id,
                        "name": v.name,
                        "size": _size(v.table.tile_size),
                        "count": v.count,
                    }
                    for v in self.tilings
                ],
                "predictions": [_predicted(v) for v in self.layers.get("predictions", ())],
            },
        }


def _size(tile_size: tuple[int, int]) -> int | str:
    height, width = tile_size
    return height if height == width else f"{height} x {width}"


def _labelled(layer: Layer) -> dict[str, Any]:
    numbers = np.array([list(layer.names)], np.int64).reshape(1, -1)
    colours = colour_of_labels(numbers)[0, :, :3].tolist()
    named = zip(layer.names.values(), colours, strict=True)
    return {
        "id": layer.id,
        "name": layer.name,
        "names": [{"name": name, "color": _hex(colour)} for name, colour in named],
    }


def _hex(colour: Sequence[int]) -> str:
    return f"#{bytes(colour).hex()}"


def _predicted(layer: Layer) -> dict[str, Any]:
    image = layer.open().image
    said: dict[str, Any] = {"id": layer.id, "name": layer.name}
    if image.kind == "labels":
        return said | {"kind": "labels", "channels": []}
    return said | {"kind": "dense", "channels": list(image.channel_names or [layer.name])}


def identity_of(image: MultiscaleImage) -> str:
    """Return a text that changes when an image is replaced: of its place, and the time of its root."""
    path = Path(image.uri)
    root = next((p for p in (path / "zarr.json", path / ".zattrs", path) if p.exists()), None)
    stat = root.stat() if root is not None else None
    told = (image.uri, None if stat is None else (stat.st_mtime_ns, stat.st_size))
    shapes = [image.level_shape(i) for i in range(image.level_count)]
    text = repr((told, shapes, str(np.dtype(image.dtype)), image.mpp))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
