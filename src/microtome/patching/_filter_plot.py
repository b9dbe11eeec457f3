"""`plot_filter_map`: what a filter says, as a picture to choose its threshold by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from microtome.errors import DependencyError, InvalidInputError

from ._filter_map import FilterMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_filter_map"]


def plot_filter_map(
    found: FilterMap,
    image: int = 0,
    sample: int = 0,
    *,
    statistic: str | None = None,
    plane: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a statistic of every cell of a sample, and cross out what is background.

    Parameters
    ----------
    found
        What `filter_map` returned, of patches that lie in a grid.
    image, sample
        Which sample of which image.
    statistic
        Which statistic; the first by default.
    plane
        Of a volume, which of the grid's planes; the middle one by default.
    ax
        Axes to draw on; those of a new figure by default.

    Returns
    -------
    The axes. Places are pixels of the level that patches are counted in.

    Raises
    ------
    DependencyError
        If matplotlib is not installed (the extra `report`).
    InvalidInputError
        If the patches lie in no grid, or there is no such sample or plane.
    UnknownNameError
        If there is no such statistic.
    """
    grid = found.grid(image, sample, statistic=statistic)
    rows = np.flatnonzero((found.image == image) & (found.sample == sample))
    kept = found.kept[rows].reshape(grid.shape)
    start = found.start[rows].reshape(*grid.shape, -1)
    stop = found.stop[rows].reshape(*grid.shape, -1)
    if grid.ndim == 3:
        at = len(grid) // 2 if plane is None else plane
        if not 0 <= at < len(grid):
            msg = f"the grid has {len(grid)} planes, no plane {plane}"
            raise InvalidInputError(msg)
        grid, kept, start, stop = grid[at], kept[at], start[at], stop[at]
    middle = (start[..., -2:] + stop[..., -2:]) / 2
    first, last = start[0, 0, -2:], stop[-1, -1, -2:]
    if ax is None:
        ax = _new_axes()
    # From the middle of one cell to that of the next: cells overlap, and each is drawn once.
    ys = np.r_[first[0], (middle[1:, 0, 0] + middle[:-1, 0, 0]) / 2, last[0]]
    xs = np.r_[first[1], (middle[0, 1:, 1] + middle[0, :-1, 1]) / 2, last[1]]
    drawn = ax.pcolormesh(xs, ys, np.ma.masked_invalid(grid), shading="flat")
    name = found.names[0] if statistic is None else statistic
    ax.figure.colorbar(drawn, ax=ax, label=name)
    crossed = middle[~kept]
    if len(crossed):
        ax.plot(crossed[:, 1], crossed[:, 0], "x", color="white", markersize=4, gid="background")
    ax.set_title(f"{int(kept.sum())} of {kept.size} kept")
    ax.set_aspect("equal")
    ax.set_xlim(float(first[1]), float(last[1]))
    ax.set_ylim(float(last[0]), float(first[0]))
    ax.set_xlabel("x (px)")
    ax.set_ylabel("y (px)")
    return ax


def _new_axes() -> Axes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "a picture needs matplotlib; install microtome[report]"
        raise DependencyError(msg) from error
    # Not pyplot: no window, and no global list of figures that grows.
    return Figure(figsize=(6, 5), layout="constrained").add_subplot()
