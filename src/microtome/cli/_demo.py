"""`microtome demo`: the main job, each step a public function that anyone can call."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from microtome.coordinates import Mpp
from microtome.progress import Progress

__all__ = ["run_demo"]

_log = logging.getLogger("microtome")

_RESOLUTION = 0.5
_EPOCH_BATCH = 16

# The picture in scikit-image states no pixel size; its nuclei of about 14 px are 7 um wide.
_IHC_MPP = 0.5


@dataclass(frozen=True, slots=True)
class _Step:
    """Tells what is being done, and how long it took."""

    title: str
    began: float

    @classmethod
    def begin(cls, title: str) -> _Step:
        _log.info("%s", title)
        return cls(title, time.perf_counter())

    def end(self, result: str) -> None:
        _log.info("    %s (%.1f s)", result, time.perf_counter() - self.began)


def run_demo(
    slide: Path | None,
    *,
    mpp: float | tuple[float, float] | Mpp | None,
    output: Path,
    tile_size: int,
    progress: Progress,
) -> Path:
    """Do the main job and return the report.

    Parameters
    ----------
    slide
        A slide of the user's, or None for the two public images.
    mpp
        Micrometres per pixel where the slide states none.
    output
        Directory for everything that is made.
    tile_size
        Side of a tile in pixels.
    progress
        Passed on to every step.
    """
    from microtome.cohort import HEImagingDataset, ingest, mask, stats, tile
    from microtome.loading import TileLoader
    from microtome.prediction import load_model, predict_cohort
    from microtome.view import report

    cohort = output / "cohort"
    step = _Step.begin("1. ingest: the slide becomes a multiscale image in a cohort")
    if slide is None:
        from ._demo_data import fetch_slide

        source, tissue_id = fetch_slide(output / "data"), "cmu_small_region"
    else:
        source, tissue_id = slide, _tissue_id(slide)
    image = ingest(
        source,
        cohort=cohort,
        tissue_id=tissue_id,
        modality="he",
        mpp=mpp,
        resolution=_RESOLUTION,
        progress=progress,
    )
    if slide is None:
        _ingest_ihc(cohort, progress)
    step.end(f"{image.uri}: {image.level_shape(0)}, {image.mpp}, {image.level_count} levels")

    step = _Step.begin("2. mask: where the tissue is")
    shares = mask(cohort, progress=progress)
    step.end(", ".join(f"{name} {share:.0%}" for name, share in shares.items()))

    step = _Step.begin(f"3. tile: {tile_size} px tiles that cover it")
    tiles = tile(cohort, tile_size=tile_size, overwrite=True, progress=progress)
    step.end(f"{len(tiles)} tiles")

    step = _Step.begin("4. stats: standardization of the multiplex channels")
    written = stats(cohort, overwrite=True, progress=progress)
    step.end(f"{len(written)} tables" if written else "brightfield alone needs none")

    step = _Step.begin("5. load: shuffled batches of standardized H&E tiles")
    dataset = HEImagingDataset("cohort", path=cohort, resolution=_RESOLUTION, tile_size=tile_size)
    loader = TileLoader(dataset, batch_size=_EPOCH_BATCH, order="random", seed=0)
    shape: tuple[int, ...] = ()
    kind = ""
    count = 0
    began = time.perf_counter()
    for batch in loader:
        shape, kind = tuple(batch.data.shape), type(batch.data).__name__
        count += len(batch.data)
    rate = count / (time.perf_counter() - began)
    step.end(f"{count} tiles, last batch {shape} {kind}, {rate:.0f} tiles/s")

    step = _Step.begin("6. predict: stain densities and nuclei, stitched back onto the slide")
    made = predict_cohort(
        load_model("demo"), cohort, name="demo", overwrite=True, progress=progress
    )
    step.end(", ".join(path.name for path in made))

    step = _Step.begin("7. report: look at it")
    page = report(cohort, output / "report.html", progress=progress)
    step.end(str(page))
    return page


def _ingest_ihc(cohort: Path, progress: Progress) -> None:
    """Add the IHC image of scikit-image, and its two stains as a co-registered modality."""
    from skimage.data import immunohistochemistry

    from microtome.cohort import ingest

    from ._demo_data import stain_channels

    rgb = immunohistochemistry()
    ingest(
        rgb,
        axes="yxc",
        cohort=cohort,
        tissue_id="colon_ihc",
        modality="ihc_FHL2",
        mpp=_IHC_MPP,
        resolution=_RESOLUTION,
        progress=progress,
    )
    ingest(
        stain_channels(rgb),
        axes="cyx",
        channel_names=["hematoxylin", "DAB"],
        cohort=cohort,
        tissue_id="colon_ihc",
        modality="stains",
        mpp=_IHC_MPP,
        resolution=_RESOLUTION,
        progress=progress,
    )


def _tissue_id(slide: Path) -> str:
    """Make a tissue id of a file name, keeping what may stay."""
    stem = slide.name.split(".")[0]
    kept = "".join(c if (c.isalnum() and c.isascii()) or c in "_-" else "_" for c in stem)
    return kept.lstrip("-") or "slide"
