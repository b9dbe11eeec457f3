"""Planners of tiles: how many tiles each needs to cover 99 % of a tissue, and in what time.

Beside them stands the fewest that a mixed-integer programme (HiGHS) proves for tiles on the lattices
of half and of quarter tiles, which may overlap as they like, and the area bound, which no tiling
reaches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.tiling import (
    best_mask_tiling_try_to_stop,
    get_fewest_tiles,
    get_grid_tile,
    get_strip_tiles,
)

from .harness import Measurement, Table
from .options import Options

__all__ = ["tables"]

GOAL = 0.99
BASE = "strips"
_ROUNDS = 5
_FINEST = 14
_SOLVER_SECONDS = 300
_REAL = Path(__file__).parents[2] / "shared" / "data"

_HOW = (
    "Processor time of the whole call, the median over the rounds, in which the planners take turns. "
    "`stands above` is how many tiles a planner needs beyond the "
    "area bound (tissue to cover by a tile's area), as a share of what greedy needs beyond it. "
    "`proved` is the fewest that a mixed-integer programme proves for tiles on the lattices of half "
    "and of quarter tiles; planners may place theirs between. Any tile lies in a window that is one "
    "place of the lattice longer, so that as many of these as are needed are needed of tiles "
    "wherever they lie. All may use tiles with next to no "
    "tissue (tolerance 0.9999)."
)

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Answer:
    tiles: int
    coverage: float


def _greedy(mask: Mask, size: int) -> _Answer:
    _, stats, _ = best_mask_tiling_try_to_stop(mask, size, size // 2, 0.9999, GOAL, 0.0)
    return _Answer(stats["num_tiles"], stats["coverage_ratio"])


def _grid(mask: Mask, size: int) -> _Answer:
    tiles, stats = get_grid_tile(mask, size, None, 0.9999)
    # Only as many as are needed, the fullest first: else it covers more than the others.
    gains = np.cumsum(np.sort(tiles.gain)[::-1])
    needed = int(np.searchsorted(gains, ceil(GOAL * stats["total_valid_pixels"]))) + 1
    return _Answer(needed, float(gains[needed - 1] / stats["total_valid_pixels"]))


def _strips(mask: Mask, size: int) -> _Answer:
    _, stats = get_strip_tiles(mask, size, None, 0.9999, GOAL)
    return _Answer(stats["num_tiles"], stats["coverage_ratio"])


def _fewest(mask: Mask, size: int) -> _Answer:
    _, stats = get_fewest_tiles(mask, size, None, 0.9999, GOAL)
    return _Answer(stats["num_tiles"], stats["coverage_ratio"])


PLANNERS: Mapping[str, Callable[[Mask, int], _Answer]] = {
    "greedy (SPORA's rule), half tiles": _greedy,
    "grid, fullest tiles first": _grid,
    BASE: _strips,
    "fewest": _fewest,
}


def tables(options: Options) -> list[Table]:
    """Measure masks of several kinds, a large one, and real ones where there are some."""
    return list(_tables(options))


def _tables(options: Options) -> Generator[Table]:
    rounds = min(options.rounds, _ROUNDS)
    for kind in ("resection", "tma", "biopsy"):
        mask = tissue(kind, 2016, seed=1)
        # Of the few that stand more than half as high as greedy, so that more is proved.
        parts = (2, 4, 7, 14) if kind == "resection" else (2, 4)
        yield _table(f"Small {kind}, 2016 px, tiles of 224", mask, 224, rounds, options, parts)
    for kind in ("resection", "tma", "biopsy"):
        mask = tissue(kind, 4032, seed=2)
        yield _table(f"{kind.capitalize()}, 4032 px, tiles of 224", mask, 224, rounds, options)
    for name, mask, size in _real_masks():
        yield _table(f"Real: {name}, tiles of {size}", mask, size, rounds, options, parts=(2, 4))
    large = np.kron(tissue("resection", 4000, seed=3), np.ones((4, 4), np.bool_))
    yield _table(
        "Resection, 16,000 px, tiles of 224", large, 224, min(rounds, 3), options, parts=()
    )


def _table(
    title: str,
    mask: Mask,
    size: int,
    rounds: int,
    options: Options,
    parts: tuple[int, ...] = (2,),
) -> Table:
    found = {name: Measurement(name, [], []) for name in PLANNERS}
    answers: dict[str, _Answer] = {}
    for number in range(1, rounds + 1):
        for name, plan in PLANNERS.items():
            began, cpu = time.perf_counter(), time.process_time()
            answers[name] = plan(mask, size)
            found[name].cpu.append(time.process_time() - cpu)
            found[name].wall.append(time.perf_counter() - began)
        options.tell(f"{title}: round {number} of {rounds}")
    total = int(np.count_nonzero(mask))
    area = GOAL * total / size**2
    over = answers["greedy (SPORA's rule), half tiles"].tiles - area
    measured = [
        Measurement(
            f"{name}: {answers[name].tiles} tiles, {answers[name].coverage:.2%}, "
            f"stands above {(answers[name].tiles - area) / over:.2f}",
            m.cpu,
            m.wall,
        )
        for name, m in found.items()
    ]
    base = next(m.name for m in measured if m.name.startswith(BASE))
    _, stats = get_fewest_tiles(mask, size, None, 0.9999, GOAL, moves=0)
    notes = [
        f"Tissue {mask.mean():.0%} of {mask.shape[0]} x {mask.shape[1]} px.",
        f"Area bound {ceil(area)}, `tile_bound` {stats['tile_bound']}.",
        *(_proved(mask, size, part) for part in parts),
        *(_proved(mask, size, part, longer=1) for part in parts if part == _FINEST),
    ]
    return Table(title, "mask", 1, base, measured, notes, _HOW)


def _real_masks() -> Generator[tuple[str, Mask, int]]:
    """Yield tissue of the small real acquisitions beside the repository, where they are."""
    if not _REAL.is_dir():
        return
    import microtome as mt
    from microtome.segmentation import detect_tissue

    for path, mpp, kind, size in (
        (_REAL / "wsi" / "cmu-1-small-region.svs", 1.0, "brightfield", 112),
        (_REAL / "ihc_mif" / "Lung1.png", 0.5, "brightfield", 64),
    ):
        if path.is_file():
            image = mt.open_image(path, mpp=None if path.suffix == ".svs" else mpp)
            pixels = image.read_at(mpp=mpp)
            yield path.name, detect_tissue(pixels, mpp=(mpp, mpp), kind=kind), size


# ------------------------------------------------------------------ masks


def tissue(kind: str, side: int, seed: int) -> Mask:
    """Draw tissue as it lies on slides: smooth noise cut at a height, at an eighth of the size.

    Parameters
    ----------
    kind
        ``"resection"``: pieces with holes. ``"tma"``: one round core. ``"biopsy"``: thin threads.
    side
        Pixels; the mask is square.
    seed
        Of the noise.
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    coarse = -(-side // 8)

    def noise(smooth: float) -> NDArray[np.float64]:
        field = gaussian_filter(rng.normal(size=(coarse, coarse)), smooth)
        return (field - field.mean()) / field.std()

    y, x = np.mgrid[:coarse, :coarse] / coarse - 0.5
    holes = noise(coarse / 70) > 2
    if kind == "tma":
        drawn = (np.hypot(y, x) + 0.015 * noise(coarse / 60) < 0.42) & ~holes
    elif kind == "resection":
        drawn = (noise(coarse / 12) + 0.4 * noise(coarse / 30) - 6 * (y**2 + x**2) > -0.1) & ~holes
    elif kind == "biopsy":
        drawn = np.zeros((coarse, coarse), np.bool_)
        for number, middle in enumerate((-0.3, 0.0, 0.3)):
            bend = 0.06 * np.sin(2 * np.pi * (1.3 * x + 0.3 * number))
            width = 0.03 + 0.006 * noise(coarse / 60)
            drawn |= (abs(y - middle - bend) < width) & (abs(x) < 0.45)
    else:
        msg = f"no mask of kind {kind!r}"
        raise ValueError(msg)
    return np.kron(drawn, np.ones((8, 8), np.bool_))[:side, :side]


# ------------------------------------------------------------------ what a solver proves


def _proved(mask: Mask, size: int, part: int, longer: int = 0) -> str:
    """Tell the fewest tiles on a lattice of parts of a tile, or what is known of it in time.

    Where they are `longer` by a place, no tiling at all has fewer.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array, eye_array, hstack

    step = size // part
    side = part + longer
    cells = _cell_counts(mask, step, margin=side)
    number = np.full(cells.shape, -1)
    number[cells > 0] = np.arange(np.count_nonzero(cells))
    windows = np.lib.stride_tricks.sliding_window_view(number, (side, side)).reshape(-1, side**2)
    windows = windows[(windows >= 0).any(axis=1)]
    tile, place = np.nonzero(windows >= 0)
    tiles, used = len(windows), int(np.count_nonzero(cells))
    holds = coo_array((np.ones(tile.size), (windows[tile, place], tile)), shape=(used, tiles))
    count = np.concatenate([np.ones(tiles), np.zeros(used)])
    weights = np.concatenate([np.zeros(tiles), cells[cells > 0]])
    began = time.perf_counter()
    found = milp(
        count,
        integrality=count,
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(hstack([-holds, eye_array(used)]).tocsr(), ub=0),
            LinearConstraint(weights, lb=GOAL * cells.sum() - 1e-6),
        ],
        options={"time_limit": _SOLVER_SECONDS},
    )
    seconds = time.perf_counter() - began
    if longer and found.status == 0:
        return f"Wherever tiles lie, {round(found.fun)} are needed ({seconds:.0f} s)."
    name = {2: "half", 4: "quarter", 7: "seventh", 14: "fourteenth"}[part]
    if found.status == 0:
        return f"On the lattice of {name} tiles {round(found.fun)} are proved ({seconds:.0f} s)."
    best = "no tiling" if found.x is None else f"{round(found.fun)}"
    return (
        f"On the lattice of {name} tiles {best} found and at least "
        f"{ceil(found.mip_dual_bound - 1e-6)} proved in {seconds:.0f} s."
    )


def _cell_counts(mask: Mask, step: int, margin: int) -> Counts:
    height, width = (-(-length // step) for length in mask.shape)
    padded = np.zeros((height * step, width * step), np.bool_)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    cells = padded.reshape(height, step, width, step).sum(axis=(1, 3), dtype=np.int64)
    return np.pad(cells, margin)
