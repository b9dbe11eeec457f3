"""Pictures of slides, tiles, predictions and numbers, as matplotlib axes.

Each function draws on the axes that it is given, or on a new figure of its own (`ax.figure`) that
pyplot knows nothing of, and returns the axes. Slides are drawn in micrometres, a thumbnail's pixel
on a pixel of the figure where the axes are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from microtome.errors import DependencyError, InvalidInputError
from microtome.image import MultiscaleImage
from microtome.tiling import TileTable

from ._embeddings import EmbeddingMap
from ._heat import HEAT_COLOURS, Heat, heat_on
from ._histograms import ChannelHistogram
from ._thumbnails import Frame, Thumbnail, sample, thumbnail

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "DPI",
    "MASK_COLOUR",
    "OTHER_COLOUR",
    "POINT_COLOURS",
    "TILE_COLOUR",
    "new_figure",
    "plot_embeddings",
    "plot_heatmap",
    "plot_histograms",
    "plot_overview",
    "scale_bar_length",
]

TILE_COLOUR = "#00a86b"
MASK_COLOUR = "#ffe14d"
# Okabe and Ito's, without black and yellow, which drown on dark and on white.
POINT_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
OTHER_COLOUR = "#8a8f98"
_RGB_COLOURS = ("#d62f2f", "#2c9c3e", "#2f62d6")
_BAR_COLOUR = "#3d6f9e"
DPI = 100


def plot_overview(
    image: MultiscaleImage | Thumbnail,
    *,
    tiles: TileTable | None = None,
    mask: MultiscaleImage | None = None,
    legend: bool = True,
    size: int = 1000,
    ax: Axes | None = None,
) -> Axes:
    """Draw a slide with its tiles and the outline of its tissue mask.

    Parameters
    ----------
    image
        The slide, or a `thumbnail` of it (for other channels than the first).
    tiles
        Tiles of this slide alone (`TileTable.for_tissue`), in pixels of its finest level.
    mask
        Labels above 0 on tissue, placed by their own pixel size and translation.
    legend
        Whether to name the colours of channels, mask and tiles.
    size
        Most pixels of the thumbnail along the longer side; a new figure has about as many.
    ax
        Axes to draw on; by default those of a new figure.

    Raises
    ------
    DependencyError
        If matplotlib is not installed.
    InvalidInputError
        If `tiles` holds several tissues, or the image cannot be shown.
    NoResolutionError
        If an image does not state its pixel size.
    """
    slide = _slide(image, size)
    ax = _slide_axes(ax, slide, size)
    _show(ax, slide.pixels, slide.frame)
    if mask is not None:
        _outline(ax, sample(mask, slide.frame) > 0, slide.frame)
    if tiles is not None:
        _boxes(ax, tiles, slide)
    _scale_bar(ax, slide.frame)
    if legend:
        _legend(ax, slide, tiles=tiles is not None, mask=mask is not None)
    return ax


def plot_heatmap(
    image: MultiscaleImage | Thumbnail,
    prediction: MultiscaleImage | Heat,
    channel: int | str = -1,
    *,
    blend: bool = True,
    colorbar: bool = True,
    size: int = 1000,
    ax: Axes | None = None,
) -> Axes:
    """Draw a channel of a prediction at its place on a slide.

    Parameters
    ----------
    image
        The slide, or a `thumbnail` of it.
    prediction
        The prediction, or `heat_on` of it (for other limits).
    channel
        Which channel; the last by default.
    blend
        Draw over the slide, in grey; otherwise the values alone.
    colorbar
        Whether to add a colour bar.
    size
        Most pixels of the thumbnail along the longer side; a new figure has about as many.
    ax
        Axes to draw on; by default those of a new figure.

    Raises
    ------
    DependencyError
        If matplotlib is not installed.
    NoResolutionError
        If an image does not state its pixel size.
    UnknownNameError, OutOfRangeError
        If there is no such channel.
    """
    slide = _slide(image, size)
    heat = (
        prediction
        if isinstance(prediction, Heat)
        else heat_on(slide, prediction, channel, blend=blend)
    )
    ax = _slide_axes(ax, slide, size)
    if blend:
        _show(ax, _grey(slide), slide.frame)
    _show(ax, heat.rgba, heat.frame)
    if colorbar:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        scale = ScalarMappable(Normalize(heat.low, heat.high), HEAT_COLOURS)
        _figure(ax).colorbar(scale, ax=ax, fraction=0.04, pad=0.02, extend="max")
    _scale_bar(ax, slide.frame)
    return ax


def plot_histograms(
    histograms: Sequence[ChannelHistogram],
    *,
    stage: Literal["stored", "standardized"] = "stored",
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw histograms of channels on one pair of axes.

    Parameters
    ----------
    histograms
        One or more channels; three are drawn in red, green and blue.
    stage
        Before or after standardization; a channel that has none after is left out.
    log
        Whether shares are on a logarithmic scale.
    ax
        Axes to draw on; by default those of a new figure.

    Raises
    ------
    DependencyError
        If matplotlib is not installed.
    """
    if ax is None:
        ax = new_figure(420, 240).add_subplot()
    shown = [getattr(channel, stage) for channel in histograms]
    colours = _RGB_COLOURS if len(histograms) == len(_RGB_COLOURS) else (_BAR_COLOUR,)
    for index, histogram in enumerate(shown):
        if histogram is None:
            continue
        colour = colours[index % len(colours)]
        ax.stairs(histogram.share * 100, histogram.edges, fill=True, color=colour, alpha=0.25)
        ax.stairs(histogram.share * 100, histogram.edges, color=colour, linewidth=1.2)
    if log:
        from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(numticks=5))
        ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("intensity" if stage == "stored" else "standardized")
    ax.set_ylabel("% of pixels")
    return ax


def plot_embeddings(
    embeddings: EmbeddingMap, *, groups: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw tiles as points along the first two principal components, coloured by tissue.

    Parameters
    ----------
    embeddings
        The points.
    groups
        Tissues that get a colour of their own; by default the first six. All others are grey.
    ax
        Axes to draw on; by default those of a new figure.

    Raises
    ------
    DependencyError
        If matplotlib is not installed.
    """
    if ax is None:
        ax = new_figure(640, 460).add_subplot()
    chosen = list(dict.fromkeys(embeddings.tissue_ids) if groups is None else groups)
    colour_of = dict(zip(chosen, POINT_COLOURS, strict=False))
    colours = [colour_of.get(name, OTHER_COLOUR) for name in embeddings.tissue_ids]
    side = 26 if len(colours) < 400 else 10
    ax.scatter(*embeddings.points.T, s=side, c=colours, alpha=0.8, linewidths=0)
    for axis, share, label in zip("xy", embeddings.explained, ("first", "second"), strict=True):
        getattr(ax, f"set_{axis}label")(f"{label} principal component ({share:.0%} of variance)")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def new_figure(width: int, height: int) -> Figure:
    """Return a figure of so many pixels that pyplot knows nothing of.

    Raises
    ------
    DependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "pictures need matplotlib; install microtome[report]"
        raise DependencyError(msg) from error
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def scale_bar_length(frame: Frame) -> float:
    """Return the micrometres of a scale bar: 1, 2 or 5 times a power of ten, to a fifth of the width."""
    most = frame.width * frame.step_x / 5
    power = 10.0 ** np.floor(np.log10(most))
    return float(next(step * power for step in (5.0, 2.0, 1.0) if step * power <= most))


def _slide(image: MultiscaleImage | Thumbnail, size: int) -> Thumbnail:
    return image if isinstance(image, Thumbnail) else thumbnail(image, size=size)


def _slide_axes(ax: Axes | None, slide: Thumbnail, size: int = 1000) -> Axes:
    frame, own = slide.frame, ax is None
    if ax is None:
        # A tiny image is enlarged by whole pixels; otherwise lines and text would hide it.
        zoom = max(1, round(size / max(frame.height, frame.width)))
        figure = new_figure(frame.width * zoom, frame.height * zoom)
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    left, right, bottom, top = frame.extent
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="auto" if own else "equal")
    ax.set_axis_off()
    return ax


def _figure(ax: Axes) -> Figure:
    figure: Any = ax.figure
    return figure


def _show(ax: Axes, pixels: NDArray[Any], frame: Frame) -> None:
    ax.imshow(pixels, extent=frame.extent, interpolation="nearest", aspect=ax.get_aspect())


def _grey(slide: Thumbnail) -> NDArray[np.uint8]:
    luma = slide.pixels @ np.asarray([0.299, 0.587, 0.114])
    # Paler on white, so that colours stand out; a composite on black is as it is.
    if not slide.channels:
        luma = 255 - (255 - luma) * 0.75
    return np.repeat(luma[..., None], 3, axis=2).astype(np.uint8)


def _outline(ax: Axes, inside: NDArray[np.bool_], frame: Frame) -> None:
    if not inside.any():
        return
    # A rim of background closes the outline where tissue reaches the edge of the slide.
    rimmed = np.pad(inside, 1).astype(np.float32)
    x = frame.left + (np.arange(frame.width + 2) - 0.5) * frame.step_x
    y = frame.top + (np.arange(frame.height + 2) - 0.5) * frame.step_y
    for colour, width in (("#000000", 2.6), (MASK_COLOUR, 1.3)):
        ax.contour(x, y, rimmed, levels=[0.5], colors=[colour], linewidths=width)


def _boxes(ax: Axes, tiles: TileTable, slide: Thumbnail) -> None:
    from matplotlib.collections import PolyCollection

    if len(tiles.tissue_ids) > 1:
        msg = f"tiles of one tissue can be drawn on a slide, got {len(tiles.tissue_ids)} tissues; use tiles.for_tissue(tissue_id)"
        raise InvalidInputError(msg)
    rows, base = tiles.rows(), slide.base
    height, width = tiles.tile_size
    top, left = base.top + rows.row * base.step_y, base.left + rows.col * base.step_x
    bottom, right = top + height * base.step_y, left + width * base.step_x
    corners = np.stack(
        [
            np.stack([x, y], -1)
            for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))
        ],
        1,
    )
    pixels = width * base.step_x / slide.frame.step_x
    line = float(np.clip(pixels / 40, 0.3, 1.4))
    ax.add_collection(
        PolyCollection(
            list(corners),
            facecolors=(*_rgb(TILE_COLOUR), 0.07),
            edgecolors=TILE_COLOUR,
            linewidths=line,
        )
    )


def _scale_bar(ax: Axes, frame: Frame) -> None:
    from matplotlib.patheffects import withStroke

    length = scale_bar_length(frame)
    left, right, bottom, top = frame.extent
    x, y = left + 0.03 * (right - left), bottom - 0.03 * (right - left)
    if y < top:
        return
    # In proportion to the picture: it is shown smaller or larger than it was drawn.
    points = ax.get_window_extent().width * 72 / _figure(ax).dpi
    size = float(np.clip(0.021 * points, 5, 24))
    line = 0.3 * size
    halo = [withStroke(linewidth=2 * line, foreground="white")]
    ax.plot(
        [x, x + length],
        [y, y],
        color="black",
        linewidth=line,
        solid_capstyle="butt",
        path_effects=halo,
    )
    ax.annotate(
        f"{length:g} µm",
        (x + length / 2, y),
        (0, 0.5 * size),
        textcoords="offset points",
        ha="center",
        fontsize=size,
        color="black",
        path_effects=[withStroke(linewidth=line, foreground="white")],
    )


def _legend(ax: Axes, slide: Thumbnail, *, tiles: bool, mask: bool) -> None:
    from matplotlib.patches import Patch

    entries = [Patch(color=channel.colour, label=channel.name) for channel in slide.channels]
    if mask:
        entries.append(Patch(fill=False, edgecolor=MASK_COLOUR, label="tissue mask"))
    if tiles:
        entries.append(Patch(fill=False, edgecolor=TILE_COLOUR, label="tiles"))
    if not entries:
        return
    drawn = ax.legend(handles=entries, loc="upper right", framealpha=0.85)
    for text in drawn.get_texts():
        # A name is not a formula, whatever dollar signs it has.
        text.set_parse_math(False)


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue
