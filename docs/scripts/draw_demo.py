"""Draw the pictures of real output: the demo's slide for the README, the tutorial's for its page.

    make demo
    .venv/bin/python docs/scripts/draw_demo.py microtome-demo/cohort cmu_small_region he docs/images/demo.png
    (cd EMPTY_FOLDER && .../python .../docs/snippets/tutorial.py)
    .venv/bin/python docs/scripts/draw_demo.py EMPTY_FOLDER/study colon ihc_FHL2 docs/images/tutorial.png

On the left the slide with the tissue's outline and its tiles, on the right the density of nuclei over
it, both at their own place in micrometres.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from microtome.cohort import (
    CohortLayout,
    open_tiles,
    open_tissue_mask,
    parse_modality,
)
from microtome.image import MultiscaleImage
from microtome.view import plot_heatmap, plot_overview

LONG_SIDE, GAP, HEAD, DPI = 560, 8, 24, 100  # pixels


def draw(cohort: Path, tissue_id: str, modality: str) -> Figure:
    """Draw a tissue of a cohort that has a mask, tiles and a prediction."""
    layout = CohortLayout.open(cohort)
    resolution = layout.resolution(None)
    slide = MultiscaleImage.open(
        layout.image(parse_modality(modality), resolution, tissue_id)
    )
    prediction = MultiscaleImage.open(
        layout.predictions(resolution, "demo") / f"{tissue_id}.ome.zarr"
    )
    mask = open_tissue_mask(layout, resolution, tissue_id)
    (strategy, size), *_ = layout.tilings(resolution)
    tiles = open_tiles(layout, resolution, strategy, int(size)).for_tissue(
        tissue_id
    )

    height, width = (
        round(n * LONG_SIDE / max(slide.level_shape(0)[-2:]))
        for n in slide.level_shape(0)[-2:]
    )
    whole = 2 * width + 3 * GAP, height + 2 * GAP + HEAD
    figure = Figure(figsize=(whole[0] / DPI, whole[1] / DPI), dpi=DPI)
    left, right = (
        figure.add_axes(
            (x / whole[0], GAP / whole[1], width / whole[0], height / whole[1])
        )
        for x in (GAP, 2 * GAP + width)
    )
    plot_overview(
        slide, tiles=tiles, mask=mask, legend=False, size=LONG_SIDE, ax=left
    )
    left.set_title(
        f"the tissue, and {len(tiles)} tiles of {size} px on it", fontsize=11
    )
    plot_heatmap(
        slide,
        prediction,
        "nuclear_density",
        colorbar=False,
        size=LONG_SIDE,
        ax=right,
    )
    right.set_title("density of nuclei, low (purple) to high (yellow)", fontsize=11)
    return figure


def main() -> None:
    """Draw one picture into a PNG file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("tissue_id")
    parser.add_argument("modality")
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    drawn = BytesIO()
    draw(given.cohort, given.tissue_id, given.modality).savefig(drawn)
    # 256 colours look the same at this size and are a third of the bytes.
    Image.open(drawn).convert("RGB").quantize(256).save(given.output, optimize=True)


if __name__ == "__main__":
    main()
