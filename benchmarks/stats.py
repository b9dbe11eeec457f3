"""Statistics of a cohort: what counting pixels costs beside merely reading the same pixels."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import microtome as mt
from microtome.cohort import CohortLayout, IMCModality
from microtome.cohort.statistics._inside import TissuePixels
from microtome.coordinates import Resolution
from microtome.image import blocks_of
from microtome.standardize import Moments, QuantileSketch, StandardizationSpec

from .harness import Benchmark, Items, Measurement, Read, Table
from .options import Options

__all__ = ["tables", "tables_of"]

BASE = "reading alone (MultiscaleImage.read)"
CHUNKS = "reading alone, as stats does: chunks that the mask has"
COUNT = "one pass that counts (QuantileSketch)"
MOMENTS = "one pass of moments (exact=True)"
ALL = "microtome.stats, all of it"
AGAIN = "microtome.stats again, another quantile"

_RESOLUTION = Resolution.parse(1.0)
_SPEC = "quantile_clipping/uq_0.99_image"
_NOTE = (
    "Every competitor goes over all tissues, masks included. Reading alone reads the whole of each, "
    "2048 px square or 16 MiB at a time, and drops it; statistics need no picture, and read chunk by "
    "chunk into memory that is used again, without those that have no pixel inside the mask. "
    "microtome.stats counts with nothing kept of an earlier run, keeps what it counted, and "
    "writes the tables of image-level quantiles and global means and deviations; again, it reads "
    "what was kept and no pixel."
)


def tables(options: Options) -> list[Table]:
    """Measure a cohort of 16-bit fluorescence and one of mass cytometry."""
    found: list[Table] = []
    for name, tissues in (("fluorescence", fluorescence), ("mass-cytometry", mass_cytometry)):
        root = options.work / name
        fill_cohort(root, tissues())
        found.append(tables_of(root, options))
    return found


def fluorescence(
    count: int = 2, channels: int = 8, size: int = 2500
) -> Iterator[NDArray[np.uint16]]:
    """Yield uint16 tissues: a field that varies slowly, and photon noise."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    for _ in range(count):
        fields = rng.gamma(1, 120, (channels, 40, 40)).astype(np.float32)
        expected = ndimage.zoom(fields, (1, size / 40, size / 40), order=1)[:, :size, :size]
        yield rng.poisson(expected.clip(0) + 30).astype(np.uint16)


def mass_cytometry(
    count: int = 8, channels: int = 30, size: int = 600
) -> Iterator[NDArray[np.float32]]:
    """Yield float32 tissues: few ions, most pixels zero, spilled over to the next channel.

    Spillover compensation makes them no whole numbers, which would be easier to compress and count.
    """
    from scipy import ndimage

    rng = np.random.default_rng(1)
    for _ in range(count):
        fields = rng.gamma(0.15, 8, (channels, 75, 75)).astype(np.float32)
        expected = ndimage.zoom(fields, (1, size / 75, size / 75), order=1)[:, :size, :size]
        ions = rng.poisson(expected.clip(0)).astype(np.float32)
        yield ions * np.float32(0.983) + np.roll(ions, 1, axis=0) * np.float32(0.017)


def fill_cohort(root: Path, tissues: Iterable[NDArray[np.generic]]) -> None:
    """Make a cohort of these tissues, each with a mask that has about two thirds of it."""
    from scipy import ndimage

    rng = np.random.default_rng(2)
    for number, pixels in enumerate(tissues):
        tissue_id = f"t{number}"
        mt.ingest(
            pixels,
            cohort=root,
            tissue_id=tissue_id,
            modality="imc",
            axes="cyx",
            mpp=1.0,
            channel_names=[f"m{channel}" for channel in range(len(pixels))],
        )
        coarse = ndimage.gaussian_filter(rng.standard_normal((60, 60)), 6)
        height, width = pixels.shape[-2:]
        field = ndimage.zoom(coarse, (height / 60, width / 60), order=1)[:height, :width]
        with mt.MultiscaleImage.create(
            CohortLayout.open(root).tissue_mask(_RESOLUTION, tissue_id),
            type=np.uint8,
            level_shape=(height, width),
            has_channel_axis=False,
            mpp=1.0,
            kind="labels",
        ) as mask:
            mask["level0"][...] = (field > np.quantile(field, 1 / 3)).astype(np.uint8)


def tables_of(root: Path, options: Options) -> Table:
    """Measure on a cohort whose multiplex modality is imaging mass cytometry."""
    layout = CohortLayout.open(root)
    names = sorted(path.name.removesuffix(".ome.zarr") for path in _images(layout))
    channels = tuple(mt.open_image(_images(layout)[0]).channel_names or ())
    sources = [
        TissuePixels(layout, IMCModality(), _RESOLUTION, name, channels, measured=channels)
        for name in names
    ]
    image = mt.open_image(_images(layout)[0])
    level = image.level(0)
    shape = " x ".join(map(str, level.shape))
    bench = Benchmark(
        f"Statistics of {len(sources)} tissues: {root.name}",
        "tissue",
        lambda _, __: np.arange(len(sources)),
        len(sources),
        BASE,
        [f"Tissues: {shape} {level.dtype}, chunks {level.array.chunks}.", _NOTE],
    )
    for name, work in (
        (BASE, _read_alone),
        (CHUNKS, _read_chunks),
        (COUNT, _count),
        (MOMENTS, _moments),
        (ALL, partial(_stats, root)),
        (AGAIN, partial(_stats_again, root)),
    ):
        bench.add(name, partial(_setup, sources, work))
    table = bench.run(options.rounds, tell=options.tell)
    table.notes.append(_told(table))
    return table


_Work = Callable[[list[TissuePixels]], list[int]]
"""Goes over tissues; gives the pixels inside the mask of each."""


def _setup(sources: list[TissuePixels], work: _Work) -> Generator[Read]:
    def read(items: Items) -> Iterator[NDArray[np.int64]]:
        yield np.array(work([sources[item] for item in items]))

    yield read


def _read_alone(sources: list[TissuePixels]) -> list[int]:
    found: list[int] = []
    for source in sources:
        layout, resolution = source.layout, source.resolution
        image = mt.open_image(layout.image(source.modality, resolution, source.tissue_id))
        mask = mt.open_image(layout.tissue_mask(resolution, source.tissue_id))
        inside = 0
        bytes_each = image.dtype.itemsize * image.nchannels
        height = min(2048, max(128, (16 << 20) // (bytes_each * 2048) // 128 * 128))
        for y, x in blocks_of(image.level_shape(0)[-2:], (height, 2048)):
            image.read(0, y, x)
            inside += int(np.count_nonzero(mask.read(0, y, x)))
        found.append(inside)
    return found


def _read_chunks(sources: list[TissuePixels]) -> list[int]:
    return [
        sum(int(np.count_nonzero(b.inside)) for b in s.blocks() if not b.planes.start)
        for s in sources
    ]


def _count(sources: list[TissuePixels]) -> list[int]:
    found: list[int] = []
    for source in sources:
        sketch = QuantileSketch(source.dtype(), len(source.channels))
        for block in source.blocks():
            sketch.update(
                block.pixels,
                channels=source.places()[block.planes],
                mask=block.inside,
                runs=block.runs,
            )
        sketch.quantiles([0.99])
        found.append(int(sketch.count.max()))
    return found


def _moments(sources: list[TissuePixels]) -> list[int]:
    spec = StandardizationSpec.parse(_SPEC)
    low, high = np.zeros(1), np.full(1, 50.0)
    found: list[int] = []
    for source in sources:
        moments = Moments(len(source.channels))
        for block in source.blocks():
            moments.update_transformed(
                block.pixels,
                lambda values, _: spec.transform(values, low, high),
                channels=source.places()[block.planes],
                mask=block.inside,
            )
        found.append(int(moments.count.max()))
    return found


def _stats(root: Path, sources: list[TissuePixels]) -> list[int]:
    layout = CohortLayout.open(root)
    for kept in (layout.standardization(IMCModality(), _RESOLUTION) / ".counted").glob("*"):
        kept.unlink()
    return _tables_of(root, 0.99, sources)


def _stats_again(root: Path, sources: list[TissuePixels]) -> list[int]:
    return _tables_of(root, 0.995, sources)


def _tables_of(root: Path, quantile: float, sources: list[TissuePixels]) -> list[int]:
    import json

    (directory,) = mt.stats(root, quantile=quantile, overwrite=True)
    tissues = json.loads((directory / "manifest.json").read_text())["tissues"]
    return [tissues[source.tissue_id]["pixels"] for source in sources]


def _images(layout: CohortLayout) -> list[Path]:
    return sorted(layout.images(IMCModality(), _RESOLUTION).glob("*.ome.zarr"))


def _told(table: Table) -> str:
    base = table.base_measurement

    def rate(own: Measurement, times: Callable[[Measurement], list[float]]) -> float:
        return statistics.median(b / o for b, o in zip(times(base), times(own), strict=True))

    parts = [
        f"{own.name} {rate(own, lambda m: m.wall):.2f} ({rate(own, lambda m: m.cpu):.2f})"
        for own in table.measurements
        if own is not base
    ]
    return (
        "Rate as a share of that of reading alone, by the clock and in brackets by processor time: "
        f"{'; '.join(parts)}."
    )
