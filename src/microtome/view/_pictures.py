"""Figures and pixels as text that a page can hold."""

from __future__ import annotations

import base64
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

__all__ = ["Picture", "chart_of", "drawn", "own_style", "photograph_of", "picture_of_pixels"]

# Fine lines over a photograph: the usual halving of colour would fray them. Not `optimize`: for
# that Pillow reserves a byte a pixel, which a noisy picture exceeds, and gives up.
_JPEG = {"quality": 88, "subsampling": 0}
_JPEG_SMALL = {"quality": 85}
_SHARP = 2
_EFFORT = 6


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a page."""

    source: str
    """`data:` URI of a PNG or JPEG."""
    alt: str
    """What is to be seen, for those who do not see it."""
    width: int
    height: int
    """Size in pixels of the page."""
    kind: Literal["chart", "photograph"] = "photograph"


@contextmanager
def own_style() -> Generator[None]:
    """Draw with matplotlib's defaults, whatever the user's settings are, and smaller letters."""
    from matplotlib import rc_context, style

    with rc_context():
        style.use("default")
        style.use({"font.size": 8.5, "axes.linewidth": 0.7, "axes.labelcolor": "#333333"})
        yield


def photograph_of(ax: Axes, alt: str) -> Picture:
    """Turn the figure of a slide's axes into a JPEG of its own pixels; the figure is emptied."""
    from matplotlib.image import imsave

    pixels = drawn(cast("Figure", ax.figure))
    height, width = pixels.shape[:2]
    buffer = BytesIO()
    imsave(buffer, pixels, format="jpg", pil_kwargs=_JPEG)
    return Picture(_uri("jpeg", buffer), alt, width, height)


def chart_of(figure: Figure, alt: str) -> Picture:
    """Turn a chart into a PNG, twice as fine as it is shown; the figure is emptied."""
    import imagecodecs

    width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
    figure.set_dpi(figure.dpi * _SHARP)
    buffer = BytesIO(imagecodecs.png_encode(drawn(figure), level=_EFFORT))
    return Picture(_uri("png", buffer), alt, width, height, "chart")


def drawn(figure: Figure) -> NDArray[np.uint8]:
    """Return a figure's pixels, (height, width, 3); the figure is emptied.

    `Figure.savefig` draws twice, once without ink, for layouts that none of ours has.
    """
    canvas = cast("FigureCanvasAgg", figure.canvas)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    # Not `clear`, which makes every axis anew.
    for ax in figure.axes:
        ax.remove()
    return pixels


def picture_of_pixels(pixels: NDArray[np.float32], alt: str) -> Picture:
    """Turn (height, width, 4) pixels from 0 to 1 into a JPEG over white."""
    from matplotlib.image import imsave

    alpha = pixels[..., 3:]
    buffer = BytesIO()
    imsave(buffer, pixels[..., :3] * alpha + 1 - alpha, format="jpg", pil_kwargs=_JPEG_SMALL)
    return Picture(_uri("jpeg", buffer), alt, pixels.shape[1], pixels.shape[0])


def _uri(kind: str, buffer: BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
