"""An identity model over a slide, written as an image, beside the same in memory and CAREamics."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import microtome as mt

from .harness import Measurement, Table
from .images import fluorescence_image
from .options import Options
from .prediction_ways import BATCH, OVERLAP, PEER, TILE, WAYS

__all__ = ["tables"]

CHANNELS, SIDE = 5, 16384
BASE = "microtome, crop"
_ROUNDS = 3  # at most
_PEER_TILES = 16

_HOW = (
    "Processor time is user and system time of the process with all its threads; it counts, since "
    "wall time also measures who else is at work on the machine. Every run has a process of its own, "
    "whose imports and compiling are not counted as time but are as memory. Competitors take turns. "
    "Figures are medians over the rounds; a ratio is the median of the ratios within a round."
)
_NOTES = [
    (
        f"Tiles of {TILE} pixels that share {OVERLAP}, {BATCH} a batch; the model returns its input. "
        "microtome reads an OME-Zarr of its default layout and writes another one, coarser levels "
        "included, synced to disk. In memory: the same tiles, blend and coarser levels with numpy, the "
        "image loaded before and the result never written."
    ),
    (
        f"CAREamics reads chunks of 512 pixels and writes tiles into a Zarr without coarser levels; the "
        f"first {_PEER_TILES} tiles are measured, since all of them take minutes."
    ),
]


def tables(options: Options) -> list[Table]:
    """Measure on a multiplex image, or on the image that is given."""
    path = options.image
    if path is None:
        path = options.work / "slide.ome.zarr"
        fluorescence_image(path, CHANNELS, SIDE).close()
    with mt.MultiscaleImage.open(path) as image:
        shape, dtype = image.level_shape(0), image.dtype
    names = [name for name in WAYS if "CAREamics" not in name or find_spec("careamics")]
    if len(names) == len(WAYS):
        _for_the_peer(path)
    found = {name: Measurement(name, [], [], []) for name in names}
    for number in range(1, min(options.rounds, _ROUNDS) + 1):
        for name, measured in found.items():
            figures = _measured(name, path, options.work / "made")
            measured.cpu.append(figures["cpu"])
            measured.wall.append(figures["wall"])
            measured.peak.append(int(figures["peak"]))
            options.tell(f"{name}: {1e3 * figures['cpu']:.1f} ms a tile, round {number}")
    title = f"An identity model over {' x '.join(map(str, shape))} {dtype}"
    return [Table(title, "tile", 1, BASE, list(found.values()), _NOTES, _HOW)]


def _for_the_peer(image: Path) -> None:
    """Write the pixels as CAREamics reads them best."""
    import zarr

    place = image.parent / PEER
    if place.exists():
        return
    with mt.MultiscaleImage.open(image) as source:
        group = zarr.open_group(place, mode="w", zarr_format=3)
        shape, dtype = source.level_shape(0), source.dtype
        array = group.create_array("im", shape=shape, dtype=dtype, chunks=(1, 512, 512))
        for row in range(0, shape[-2], 512):
            array[:, row : row + 512] = source["level0"][:, row : row + 512]


def _measured(name: str, image: Path, work: Path) -> dict[str, float]:
    work.mkdir()
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.prediction_ways", name]
    try:
        ended = subprocess.run(
            [*command, str(image), str(work), str(_PEER_TILES)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
    finally:
        shutil.rmtree(work)
    return json.loads(ended.stdout.splitlines()[-1])
