"""Small images and cohorts that the tests of the report draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from microtome.cohort import CohortLayout, HEModality, StainsModality, ingest, stats, tile
from microtome.coordinates import Mpp, Resolution
from microtome.image import MultiscaleImage, begin_image

RESOLUTION = Resolution.parse(0.5)
NASTY = "<script>alert(1)</script>"
FORMULA = "$\\frac{x$"


def store(
    path: Path, pixels: NDArray[Any], mpp: float | tuple[float, float], **options: Any
) -> Any:
    """Write an array as an image; `edge` is its top-left corner in micrometres, (y, x)."""
    size = Mpp.from_user(mpp)
    top, left = options.pop("edge", (-size.y / 2, -size.x / 2))
    with begin_image(
        path,
        dtype=pixels.dtype,
        shape=pixels.shape,
        axes="cyx" if pixels.ndim == 3 else "yx",
        channel_names=options.pop("channel_names", None),
        mpp=size,
        translation=(top + size.y / 2, left + size.x / 2),
        **options,
    ) as image:
        image.level(0)[...] = pixels
        image.build_levels()
    return MultiscaleImage.open(path)


@pytest.fixture
def new_image(tmp_path) -> Callable[..., MultiscaleImage]:
    """Write an array as an image, each to a place of its own."""
    count = 0

    def write(pixels, mpp=0.5, **options):
        nonlocal count
        count += 1
        return store(tmp_path / f"image{count}.ome.zarr", np.asarray(pixels), mpp, **options)

    return write


def tissue_of(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the tissue of the small cohort is: an ellipse off the middle."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return ((y - 0.45 * shape[0]) / (0.4 * shape[0])) ** 2 + (
        (x - 0.55 * shape[1]) / (0.35 * shape[1])
    ) ** 2 < 1


def make_cohort(root: Path) -> CohortLayout:
    """Make two tissues: one of H&E with a prediction, one of IHC and of three channels by name."""
    rng = np.random.default_rng(7)
    shape = (301, 420)
    tissue = tissue_of(shape)
    he = np.full((*shape, 3), 245, np.uint8)
    he[tissue] = rng.integers(90, 200, (int(tissue.sum()), 3), np.uint8)
    planes = rng.poisson(4, (3, *shape)).astype(np.uint16)
    planes[2] = 0
    ingest(he, axes="yxc", cohort=root, tissue_id="one", modality="he", mpp=0.5, resolution=0.5)
    for source, modality, axes, names in (
        (he[::-1], "ihc_CD3", "yxc", None),
        (planes, "stains", "cyx", [NASTY, FORMULA, "empty"]),
    ):
        ingest(
            source,
            axes=axes,
            channel_names=names,
            cohort=root,
            tissue_id="two",
            modality=modality,
            mpp=0.5,
            resolution=0.5,
            patient_id="<img src=x onerror=alert(2)>",
        )
    layout = CohortLayout.open(root)
    folder = layout.tissue_mask(RESOLUTION, "one").parent
    folder.mkdir(parents=True)
    for name, mask in (("one", tissue), ("two", tissue[::-1])):
        np.savez_compressed(folder / f"{name}.npz", mask=mask)
    tile(root, tile_size=64)
    tile(root, tile_size=96, method="grid")
    stats(root)
    add_clinical_columns(layout)
    add_prediction(layout, tissue)
    add_embeddings(layout)
    return layout


def add_clinical_columns(layout: CohortLayout) -> None:
    table = pq.read_table(layout.tissues)
    rows = table.num_rows
    table = table.append_column("grade <b>", pa.array(["<i>G3</i>"] * rows))
    table = table.append_column("age", pa.array([61.5, *[None] * (rows - 1)], pa.float64()))
    pq.write_table(table, layout.tissues)


def add_prediction(layout: CohortLayout, tissue: NDArray[np.bool_]) -> None:
    source = layout.image(HEModality(), RESOLUTION, "one")
    coarse = tissue[:300:4, :420:4].astype(np.float32)
    store(
        layout.predictions(RESOLUTION, "model") / "one.ome.zarr",
        np.stack([coarse * 0.25, np.zeros_like(coarse), coarse]),
        2.0,
        # The corner where the cohort's images begin, not that of a 2 um pixel at 0.
        edge=(-0.25, -0.25),
        channel_names=["quarter", "nothing", "<b>tissue</b>"],
        metadata={"microtome": {"prediction": {"source": str(source)}}},
    )
    store(
        layout.predictions(RESOLUTION, "model") / "two.ome.zarr",
        coarse,
        2.0,
        metadata={
            "microtome": {
                "prediction": {"source": str(layout.image(StainsModality(), RESOLUTION, "two"))}
            }
        },
    )


def add_embeddings(layout: CohortLayout) -> None:
    vectors = np.random.default_rng(3).normal(size=(9, 5)).astype(np.float32)
    table = pa.table(
        {
            "tissue_id": ["one"] * 6 + ["two"] * 3,
            "tile_id": [*range(6), *range(3)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 5),
        }
    )
    pq.write_table(table, layout.predictions(RESOLUTION, "model") / "64_tile_embeddings.parquet")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> CohortLayout:
    """Give the small cohort, with everything there is to show; nobody writes to it."""
    return make_cohort(tmp_path_factory.mktemp("view") / "study & <co>")
