"""What a notebook shows of an object: a small card, whatever the object's state."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ._image import MultiscaleImage

__all__ = ["CardPicture", "html_card", "html_of", "image_html", "short_list"]

_log = logging.getLogger(__name__)
# Bytes that may be decoded for a picture: looking at an object must not take longer than its name.
_BUDGET = 1 << 22
_SIDE = 192
_MOST_TEXT = 300
_MOST_NAMES = 12
_RGB = 3
# Notebooks are light or dark: colours are theirs, lines are grey on both.
_CELL = "text-align:left;vertical-align:top;padding:2px 10px 2px 0;background:none"
_CARD = "display:inline-block;border:1px solid rgba(128,128,128,.5);border-radius:6px;padding:8px 14px;max-width:100%"
_TITLE = "font-weight:bold;padding-bottom:4px"
_PICTURE = (
    "display:block;margin-top:8px;border:1px solid rgba(128,128,128,.5);image-rendering:pixelated"
)


@dataclass(frozen=True, slots=True)
class CardPicture:
    """A picture on a card."""

    source: str
    """`data:` URI."""
    alt: str
    width: int
    height: int


def html_card(
    title: str,
    facts: Mapping[str, object],
    *,
    rows: Sequence[Mapping[str, Any]] = (),
    picture: CardPicture | None = None,
) -> str:
    """Return a card as HTML: no script, nothing from elsewhere, all text escaped.

    Parameters
    ----------
    title
        What it is.
    facts
        Lines, a name and a value each; None is left out.
    rows
        Rows of a table below, which all have the same columns.
    picture
        A picture below.
    """
    lines = "".join(
        f'<tr><th scope="row" style="{_CELL}">{_text(name)}</th><td style="{_CELL}">{_text(value)}</td></tr>'
        for name, value in facts.items()
        if value is not None
    )
    parts = [
        f'<div role="group" aria-label="{_text(title)}" style="{_CARD}">',
        f'<div style="{_TITLE}">{_text(title)}</div>',
        f"<table><tbody>{lines}</tbody></table>",
    ]
    if rows:
        head = "".join(f'<th scope="col" style="{_CELL}">{_text(name)}</th>' for name in rows[0])
        body = "".join(
            "<tr>"
            + "".join(f'<td style="{_CELL}">{_text(value)}</td>' for value in row.values())
            + "</tr>"
            for row in rows
        )
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if picture is not None:
        parts.append(
            f'<img src="{picture.source}" alt="{_text(picture.alt)}" width="{picture.width}" '
            f'height="{picture.height}" style="{_PICTURE}">'
        )
    return "".join([*parts, "</div>"])


def html_of(value: object, card: Callable[[], str]) -> str:
    """Return a card, or, where it cannot be made, what `repr` says; a notebook never sees an error.

    Parameters
    ----------
    value
        What is shown.
    card
        Makes the card.
    """
    try:
        return card()
    except Exception as error:  # noqa: BLE001 - an error here would hide what was computed
        _log.debug("no card of %s: %s", type(value).__name__, error)
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - as above
        text = type(value).__name__
    return f"<pre>{_text(text)}</pre>"


def short_list(names: Sequence[object], most: int = _MOST_NAMES) -> str:
    """Return names one after the other, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def image_html(image: MultiscaleImage) -> str:
    """Return a card of an image.

    Metadata, and of an image whose coarsest level decodes to at most 4 MiB a picture of that level.
    Of images that are reached through a network there is no picture.
    """
    return html_of(image, lambda: _image_card(image))


def _image_card(image: MultiscaleImage) -> str:
    first, last = image.level(0), image.level(image.level_count - 1)
    mpp = image.mpp
    size = None
    if mpp is not None:
        height, width = first.height * mpp.y, first.width * mpp.x
        size = f"{width:.6g} x {height:.6g} µm"
    names = image.channel_names
    levels = f"{image.level_count}, the coarsest {last.width} x {last.height}"
    facts = {
        "Place": _place(image.uri),
        "Kind": f"{image.kind}, axes {image.axes}, {image.dtype}",
        "Pixels": f"{first.width} x {first.height}",
        "Pixel size": "not stated"
        if mpp is None
        else f"{mpp.x:g} x {mpp.y:g} µm (from {mpp.source})",
        "Size": size,
        "Levels": levels,
        "Channels": None if names is None else f"{len(names)}: {short_list(names)}",
        "State": "closed" if image.closed else None,
    }
    return html_card("MultiscaleImage", facts, picture=_picture(image))


def _picture(image: MultiscaleImage) -> CardPicture | None:
    """Return a picture of the coarsest level; None where it is too large, or cannot be read."""
    remote = "://" in image.uri and not image.uri.startswith("memory://")
    if image.axes not in {"cyx", "yx"} or image.closed or remote:
        return None
    level = image.level(image.level_count - 1)
    colour = (
        image.kind == "intensity"
        and image.axes == "cyx"
        and image.nchannels == _RGB
        and image.dtype == np.uint8
    )
    box = [_RGB if colour else 1, level.height, level.width][-len(image.axes) :]
    # A chunk is decoded whole, however little of it is wanted.
    extents = [
        -(-size // chunk) * chunk for size, chunk in zip(box, level.array.chunks, strict=True)
    ]
    if int(np.prod(extents, dtype=object)) * level.dtype.itemsize > _BUDGET:
        return None
    try:
        pixels = _look(image, level.height, level.width, colour=colour)
    except Exception as error:  # noqa: BLE001 - the rest can still be told
        _log.debug("no picture of %s: %s", image.uri, error)
        return None
    what = "its colours" if colour else "its labels"
    if image.kind == "intensity" and not colour:
        what = f"channel {image.channel_names[0]}" if image.channel_names else "its intensities"
    height, width = pixels.shape[:2]
    zoom = max(1, _SIDE // max(height, width))
    alt = f"The coarsest level, {level.width} x {level.height} pixels: {what}."
    return CardPicture(_jpeg(pixels), alt, width * zoom, height * zoom)


def _look(image: MultiscaleImage, height: int, width: int, *, colour: bool) -> NDArray[np.uint8]:
    """Read the coarsest level as a picture of at most 192 pixels a side, (height, width[, 3])."""
    channels = None if colour or image.axes == "yx" else [0]
    found = image.read(image.level_count - 1, (0, height), (0, width), channels=channels)
    step = -(-max(height, width) // _SIDE)
    small = np.asarray(found)[..., ::step, ::step]
    if colour:
        return np.ascontiguousarray(np.moveaxis(small, 0, -1))
    plane = small.reshape(small.shape[-2:])
    if image.kind == "labels":
        # Neighbouring numbers get colours far apart; nothing is black.
        hues = (plane.astype(np.uint64)[..., None] * np.array([67, 131, 199], np.uint64)) % 192
        return np.where(plane[..., None] > 0, hues + 64, 0).astype(np.uint8)
    values = plane.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.01, 0.995]) if finite.size else (0.0, 1.0)
    with np.errstate(all="ignore"):  # Values may be as far apart as numbers go.
        scaled = np.nan_to_num((values - low) / max(high - low, 1e-12), posinf=1, neginf=0)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    import imagecodecs

    data = bytes(imagecodecs.jpeg_encode(np.ascontiguousarray(pixels), level=85))
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"


def _place(uri: str) -> str:
    """Return an address without what opens it: notebooks are passed on."""
    return re.sub(r"//[^/@]*@", "//", uri.split("?", 1)[0] if "://" in uri else uri)


def _text(value: object) -> str:
    text = str(value)
    return escape(text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…")
