"""`validate`: one defect planted, one finding told, and nothing of a cohort without any."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tifffile

from microtome.cohort import (
    CohortLayout,
    add_cell_masks,
    add_cells,
    add_metadata,
    ingest,
    mask,
    set_alignment,
    stats,
    tile,
    validate,
)
from microtome.coordinates import Mpp, Resolution
from microtome.errors import FormatError, InvalidInputError, NotFoundError
from microtome.image import MultiscaleImage, begin_image
from microtome.jobs import process_pool

Tree = Callable[[Path], dict[str, str]]
Edit = Callable[[pa.Table], pa.Table]

TISSUES = "metadata/tissues.parquet"
CELLS = "metadata/cells.parquet"
PANEL = "imc/channels.parquet"
MEASURED = "imc/channels_per_tissue.parquet"
MASKS = "segmentations/1_0mpp/tissue_masks"
INSTANCES = "segmentations/1_0mpp/cell_masks/instances"
TASK = "segmentations/1_0mpp/cell_masks/cell_type"
TILES = "tiling/1_0mpp/grid/32_tile_coordinates.parquet"
TILE_STATS = "tiling/1_0mpp/grid/32_tile_stats.parquet"
STATS = "imc/1_0mpp/standardization/quantile_clipping/uq_0.99_image"
UPPER = f"{STATS}/image_level_upper_quantiles.parquet"
SIZES = {"a": (90, 110), "b": (70, 130), "c": (100, 100)}
CHANNELS = {"a": ["DNA", "CD3", "CD8"], "b": ["DNA", "CD8"], "c": ["DNA", "CD3", "CD8"]}


def cells_of(size: tuple[int, int]) -> np.ndarray:
    """A regular field of square cells, numbered from 1."""
    labels = np.zeros(size, np.int32)
    number = 0
    for y in range(5, size[0] - 10, 20):
        for x in range(5, size[1] - 10, 20):
            number += 1
            labels[y : y + 10, x : x + 10] = number
    return labels


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tissues, H&E and IMC, with all that a cohort can have."""
    place = tmp_path_factory.mktemp("validate")
    root = place / "cohort"
    rng = np.random.default_rng(8)
    for number, (tissue, size) in enumerate(SIZES.items()):
        slide = rng.integers(238, 250, (*size, 3), dtype=np.uint8)
        slide[10:-10, 10:-10] = rng.integers(60, 170, 3)
        counts = rng.gamma(0.7, 60, (len(CHANNELS[tissue]), *size)).astype(np.uint16)
        for modality, pixels in (("he", slide), ("imc", counts)):
            source = place / f"{tissue}_{modality}.tif"
            tifffile.imwrite(
                source, pixels, photometric="rgb" if modality == "he" else "minisblack"
            )
            ingest(
                source,
                cohort=root,
                tissue_id=tissue,
                modality=modality,
                mpp=1.0,
                channel_names=CHANNELS[tissue] if modality == "imc" else None,
                patient_id=f"p{number}",
                split="test" if tissue == "c" else "train",
            )
        labels = cells_of(size)
        add_cell_masks(root, tissue, labels)
        names = {1: "tumour", 2: "stroma"}
        add_cell_masks(root, tissue, np.sign(labels) + (labels > 5), kind="cell_type", labels=names)
        ids = np.arange(1, labels.max() + 1)
        centres = [np.argwhere(labels == i).mean(axis=0) + 0.5 for i in ids]
        add_cells(
            root,
            {
                "tissue_id": [tissue] * ids.size,
                "cell_id": ids,
                "centroid_y": [c[0] for c in centres],
                "centroid_x": [c[1] for c in centres],
                "type": ["tumour"] * ids.size,
            },
        )
    add_metadata(root, {"tissue_id": list(SIZES), "stage": ["I", "II", "III"]})
    mask(root)
    tile(root, tile_size=32, method="grid")
    stats(root)
    return root


@pytest.fixture
def cohort(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "cohort")
    return tmp_path / "cohort"


def test_nothing_is_wrong(cohort: Path, tree: Tree) -> None:
    before = tree(cohort)
    seen: list[tuple[str, int, int]] = []
    found = validate(cohort, checksums=True, cells=True, progress=lambda *step: seen.append(step))
    assert found == []
    assert tree(cohort) == before, "a look never writes"
    assert seen[5] == ("validate", 6, 6)
    assert seen[-1] == ("checksums", 6, 6)


# ------------------------------------------------------------------ how defects are planted


def edit(root: Path, name: str, change: Edit) -> None:
    path = root / name
    pq.write_table(change(pq.read_table(path)), path)


def put(table: pa.Table, name: str, values: Any) -> pa.Table:
    if name not in table.column_names:
        return table.append_column(name, values)
    return table.set_column(table.column_names.index(name), name, values)


def setting(name: str, place: int, value: Any) -> Edit:
    """Put a value into one cell."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[place] = value
        return put(table, name, pa.array(values, table[name].type))

    return change


def typed(name: str, kind: pa.DataType) -> Edit:
    return lambda table: put(table, name, table[name].cast(kind))


def repeated(place: int) -> Edit:
    return lambda table: pa.concat_tables([table, table.slice(place, 1)])


def dropped(name: str) -> Edit:
    return lambda table: table.drop_columns([name])


def without(place: int) -> Edit:
    return lambda table: pa.concat_tables([table.slice(0, place), table.slice(place + 1)])


def broken(path: Path) -> None:
    path.write_bytes(b"PAR1 no more")


def labels(path: Path, pixels: np.ndarray) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with begin_image(
        path,
        dtype=pixels.dtype,
        shape=pixels.shape,
        axes="yx",
        channel_names=None,
        mpp=Mpp(1.0, 1.0, "metadata"),
        kind="labels" if pixels.dtype.kind in "iu" else "intensity",
    ) as made:
        made.level(0)[...] = pixels


def image(
    root: Path,
    tissue: str,
    *,
    modality: str = "imc",
    size: Any = None,
    mpp: Any = 1.0,
    **options: Any,
) -> None:
    """Replace an image by another."""
    path = root / modality / "1_0mpp/images" / f"{tissue}.ome.zarr"
    shutil.rmtree(path)
    names = options.pop("names", CHANNELS[tissue])
    shape = (options.pop("planes", len(names)), *(size or SIZES[tissue]))
    with begin_image(
        path,
        dtype=options.pop("dtype", np.uint16),
        shape=shape,
        axes="cyx",
        channel_names=names if len(names) == shape[0] else None,
        mpp=None if mpp is None else Mpp(mpp, mpp, "metadata"),
    ) as made:
        made.level(0)[...] = np.ones(shape, made.level(0).dtype)


def archive(root: Path, **arrays: Any) -> None:
    """Put an `.npz` in the place of a tissue mask."""
    shutil.rmtree(root / MASKS / "a.ome.zarr")
    np.savez(root / MASKS / "a.npz", **arrays)


def unknown_modality(root: Path) -> None:
    shutil.copytree(root / "he", root / "maldi")


def tissue_added(root: Path, **values: Any) -> None:
    def change(table: pa.Table) -> pa.Table:
        row = {**table.slice(0, 1).to_pylist()[0], **values}
        return pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])

    edit(root, TISSUES, change)


def statistics(root: Path, change: Edit, name: str = "image_level_upper_quantiles") -> None:
    path = root / STATS / f"{name}.parquet"
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def statistics_of_another_run(root: Path) -> None:
    path = root / STATS / "global_level_means.parquet"
    table = pq.read_table(path)
    note = {**json.loads(table.schema.metadata[b"microtome"]), "quantiles": "of another run"}
    kept = {**table.schema.metadata, b"microtome": json.dumps(note).encode()}
    pq.write_table(table.replace_schema_metadata(kept), path)


def moved_to_pixels(root: Path) -> None:
    edit(root, CELLS, setting("centroid_y", 3, 500.0))


def coarse_name(root: Path) -> None:
    (root / "he/1_0mpp").rename(root / "he/1mpp")
    shutil.copytree(root / "he/1mpp", root / "he/1_0mpp")


@dataclass(frozen=True)
class Plant:
    """A defect, and what is to be told of it."""

    plant: Callable[[Path], Any]
    kind: str
    place: str
    words: str
    severity: str = "error"
    options: str = ""


PLANTS: dict[str, Plant] = {
    # The tables of tissues and cells.
    "cohort.json damaged": Plant(
        lambda r: (r / "cohort.json").write_text("{"),
        "manifest-damaged",
        "cohort.json",
        "is damaged",
    ),
    "cells damaged": Plant(
        lambda r: broken(r / CELLS), "table-damaged", CELLS, "is not a parquet file"
    ),
    "no cell ids": Plant(
        lambda r: edit(r, CELLS, dropped("cell_id")), "column-missing", CELLS, "['cell_id']"
    ),
    "cell ids as text": Plant(
        lambda r: edit(r, CELLS, typed("cell_id", pa.string())),
        "column-type",
        CELLS,
        "column 'cell_id' must hold integer, got string",
    ),
    "centres as text": Plant(
        lambda r: edit(r, CELLS, typed("centroid_x", pa.string())),
        "column-type",
        CELLS,
        "column 'centroid_x' must hold number",
    ),
    "specimens as numbers": Plant(
        lambda r: edit(r, TISSUES, lambda t: put(t, "specimen_id", pa.array(range(6)))),
        "column-type",
        TISSUES,
        "column 'specimen_id' must hold text",
    ),
    "no modality": Plant(
        lambda r: tissue_added(r, modality=None),
        "missing-value",
        TISSUES,
        "column 'modality' has no value in 1 rows (row 7)",
    ),
    "an id that is a path": Plant(
        lambda r: tissue_added(r, tissue_id="../a"),
        "tissue-id",
        TISSUES,
        "tissue id '../a' becomes part of a path",
    ),
    "a row twice": Plant(
        lambda r: edit(r, TISSUES, repeated(0)),
        "duplicate-row",
        TISSUES,
        "a he has more than one row",
    ),
    "unknown modality": Plant(
        lambda r: tissue_added(r, modality="xray"), "unknown-modality", TISSUES, "modality 'xray'"
    ),
    "unknown directory": Plant(unknown_modality, "unknown-modality", "maldi", "modality 'maldi'"),
    "splits of a tissue": Plant(
        lambda r: edit(r, TISSUES, setting("split", 0, "test")),
        "split-of-tissue",
        TISSUES,
        "tissue 'a' is in several splits: 'test' as he, 'train' as imc",
    ),
    "splits spelled in two ways": Plant(
        lambda r: edit(
            r, TISSUES, lambda t: setting("split", 5, "Train")(setting("split", 4, "Train")(t))
        ),
        "split-spelling",
        TISSUES,
        "capital letters or spaces only: ",
        "warning",
    ),
    "patients of a tissue": Plant(
        lambda r: edit(r, TISSUES, setting("patient_id", 1, "p7")),
        "patient-of-tissue",
        TISSUES,
        "tissue 'a' is of several patients: p0, p7",
    ),
    "patient in splits": Plant(
        lambda r: edit(
            r, TISSUES, lambda t: setting("patient_id", 5, "p0")(setting("patient_id", 4, "p0")(t))
        ),
        "patient-in-splits",
        TISSUES,
        "patient 'p0' is in several splits: 'train' (a), 'test' (c)",
    ),
    "a label is missing": Plant(
        lambda r: edit(r, TISSUES, setting("stage", 2, None)),
        "missing-labels",
        TISSUES,
        "column 'stage' has no value in 1 of 6 rows (row 3)",
        "warning",
    ),
    "a split is missing": Plant(
        lambda r: edit(r, TISSUES, setting("split", 5, None)),
        "missing-labels",
        TISSUES,
        "column 'split' has no value",
        "warning",
    ),
    "a cell without type": Plant(
        lambda r: edit(r, CELLS, setting("type", 1, None)),
        "missing-labels",
        CELLS,
        "column 'type' has no value",
        "warning",
    ),
    "a cell twice": Plant(
        lambda r: edit(r, CELLS, repeated(4)),
        "duplicate-cell",
        CELLS,
        "1 cells have more than one row: a 5",
    ),
    "cell 0": Plant(
        lambda r: edit(r, CELLS, setting("cell_id", 0, 0)),
        "cell-id",
        CELLS,
        "1 cells have an id below 1",
    ),
    "cells of no tissue": Plant(
        lambda r: edit(r, CELLS, setting("tissue_id", 0, "z")),
        "unknown-tissue",
        CELLS,
        "1 tissues without a row in the table of tissues: z",
        "warning",
    ),
    "a centre outside": Plant(
        moved_to_pixels, "cell-outside", CELLS, "1 cells have their centre outside the image"
    ),
    # Panels.
    "no panel": Plant(
        lambda r: (r / PANEL).unlink(), "panel-missing", PANEL, "tissues imaged as imc"
    ),
    "panel damaged": Plant(
        lambda r: broken(r / PANEL), "table-damaged", PANEL, "not a parquet file"
    ),
    "panel without names": Plant(
        lambda r: edit(r, PANEL, dropped("channel_name")),
        "column-missing",
        PANEL,
        "['channel_name']",
    ),
    "no accession": Plant(
        lambda r: edit(r, PANEL, setting("uniprot_id", 1, "P13647;bar")),
        "uniprot-id",
        PANEL,
        "'P13647;bar', which is no accession",
        "warning",
    ),
    "channel twice": Plant(
        lambda r: edit(r, PANEL, repeated(1)), "duplicate-channel", PANEL, "more than once: CD3"
    ),
    "channel spelled twice": Plant(
        lambda r: edit(r, PANEL, setting("channel_name", 2, "cd-3")),
        "channel-spelling",
        PANEL,
        "underscores only: CD3, cd-3",
        "warning",
    ),
    "panel index": Plant(
        lambda r: edit(r, PANEL, setting("index", 0, 2)), "panel-index", PANEL, "is 2, 1, 2"
    ),
    "qc as text": Plant(
        lambda r: edit(r, PANEL, typed("qc_pass", pa.string())),
        "column-type",
        PANEL,
        "column 'qc_pass' must hold boolean",
    ),
    "qc not known": Plant(
        lambda r: edit(r, PANEL, setting("qc_pass", 1, None)),
        "missing-value",
        PANEL,
        "column 'qc_pass' has no value in 1 rows (row 2)",
    ),
    "accessions as numbers": Plant(
        lambda r: edit(r, PANEL, lambda t: put(t, "uniprot_id", pa.array([1, 2, 3]))),
        "column-type",
        PANEL,
        "column 'uniprot_id' must hold text",
    ),
    "measured damaged": Plant(
        lambda r: broken(r / MEASURED), "table-damaged", MEASURED, "is not a parquet file"
    ),
    "measured lacks a channel": Plant(
        lambda r: edit(r, MEASURED, dropped("CD8")), "column-missing", MEASURED, "['CD8']"
    ),
    "measured is text": Plant(
        lambda r: edit(r, MEASURED, typed("CD8", pa.string())),
        "column-type",
        MEASURED,
        "column 'CD8' must hold boolean",
    ),
    "measured is not said": Plant(
        lambda r: edit(r, MEASURED, setting("CD8", 2, None)),
        "missing-value",
        MEASURED,
        "column 'CD8' has no value in 1 rows (row 3)",
    ),
    "measured in another order": Plant(
        lambda r: edit(r, MEASURED, lambda t: t.select(["tissue_id", "CD8", "CD3", "DNA"])),
        "panel-order",
        MEASURED,
        "its columns are CD8, CD3, DNA",
        "warning",
    ),
    "measured of no channel": Plant(
        lambda r: edit(r, MEASURED, lambda t: put(t, "CD99", t["CD3"])),
        "panel-order",
        MEASURED,
        "channels that the panel does not have: CD99",
        "warning",
    ),
    "measured twice": Plant(
        lambda r: edit(r, MEASURED, repeated(0)), "duplicate-row", MEASURED, "tissue 'a' has more"
    ),
    "measured not told": Plant(
        lambda r: edit(r, MEASURED, without(1)), "measured-missing", MEASURED, "1 tissues: b"
    ),
    "measured of no tissue": Plant(
        lambda r: edit(
            r,
            MEASURED,
            lambda t: pa.concat_tables([t, setting("tissue_id", 0, "z")(t.slice(0, 1))]),
        ),
        "unknown-tissue",
        MEASURED,
        "rows of 1 tissues that are not imaged as imc: z",
        "warning",
    ),
    # Images.
    "no image": Plant(
        lambda r: tissue_added(r, modality="ihc_CD3", tissue_id="a"),
        "image-missing",
        "ihc/ihc_CD3",
        "tissue 'a' has a row as ihc_CD3, but no image",
    ),
    "image of no row": Plant(
        lambda r: (r / "he/1_0mpp/images/b.ome.zarr").rename(r / "he/1_0mpp/images/z.ome.zarr"),
        "orphan",
        "he/1_0mpp/images/z.ome.zarr",
        "no row for it as he",
        "warning",
    ),
    "a file among images": Plant(
        lambda r: (r / "he/1_0mpp/images/notes.txt").write_text("x"),
        "orphan",
        "he/1_0mpp/images/notes.txt",
        "no row",
        "warning",
    ),
    "image without root": Plant(
        lambda r: (r / "he/1_0mpp/images/a.ome.zarr/zarr.json").unlink(),
        "image-damaged",
        "he/1_0mpp/images/a.ome.zarr",
        "is unfinished",
    ),
    "image root damaged": Plant(
        lambda r: (r / "he/1_0mpp/images/a.ome.zarr/zarr.json").write_text("{}"),
        "image-damaged",
        "he/1_0mpp/images/a.ome.zarr",
        "",
    ),
    "pixels lost": Plant(
        lambda r: next(
            p for p in (r / "he/1_0mpp/images/a.ome.zarr").rglob("c/**/*") if p.is_file()
        ).unlink(),
        "image-damaged",
        "he/1_0mpp/images/a.ome.zarr",
        "has lost",
    ),
    "pixels damaged": Plant(
        lambda r: [
            p.write_bytes(b"\1" * 64)
            for p in (r / "he/1_0mpp/images/a.ome.zarr").rglob("c/**/*")
            if p.is_file()
        ],
        "image-damaged",
        "he/1_0mpp/images/a.ome.zarr",
        "",
    ),
    "image mpp": Plant(
        lambda r: image(r, "a", mpp=2.0),
        "image-mpp",
        "imc/1_0mpp/images/a.ome.zarr",
        "states 2 um/px (from metadata), its directory says 1 um",
    ),
    "image without mpp": Plant(
        lambda r: image(r, "a", mpp=None),
        "image-mpp",
        "imc/1_0mpp/images/a.ome.zarr",
        "does not state its pixel size",
    ),
    "a plane too many": Plant(
        lambda r: image(r, "b", planes=3),
        "image-channels",
        "imc/1_0mpp/images/b.ome.zarr",
        "has 3 planes, and 2 channels were measured (DNA, CD8)",
    ),
    "planes in another order": Plant(
        lambda r: image(r, "b", names=["CD8", "DNA"]),
        "image-channels",
        "imc/1_0mpp/images/b.ome.zarr",
        "its planes are CD8, DNA, by the panel they are DNA, CD8",
    ),
    "colours of 16 bits": Plant(
        lambda r: image(r, "a", modality="he"),
        "image-channels",
        "he/1_0mpp/images/a.ome.zarr",
        "has 3 channels of uint16; he is red, green and blue of 8 bits",
    ),
    "another extent": Plant(
        lambda r: image(r, "a", size=(90, 112)),
        "image-extent",
        TISSUES,
        "'a' do not cover the same ground: he of 90 x 110 pixels at 1 um and imc of 90 x 112 pixels",
    ),
    "directory name": Plant(coarse_name, "resolution-name", "he/1mpp", "looked for in 1_0mpp"),
    "draft left over": Plant(
        lambda r: (r / "he/1_0mpp/images/.b.ome.zarr.partial-0123456789ab").mkdir(),
        "leftover",
        "he/1_0mpp/images/.b.ome.zarr.partial-0123456789ab",
        "left by a writer that was killed",
        "warning",
    ),
    "table left over": Plant(
        lambda r: (r / "metadata/.tissues.parquet.0123456789ab.partial").write_text(""),
        "leftover",
        "metadata/.tissues.parquet.0123456789ab.partial",
        "left by a writer that was killed",
        "warning",
    ),
    # Masks.
    "mask of another shape": Plant(
        lambda r: labels(r / MASKS / "a.ome.zarr", np.ones((90, 109), np.uint8)),
        "mask-shape",
        f"{MASKS}/a.ome.zarr",
        "has (90, 109) pixels, the image of tissue 'a' has (90, 110)",
    ),
    "no mask of one": Plant(
        lambda r: shutil.rmtree(r / MASKS / "b.ome.zarr"),
        "mask-missing",
        MASKS,
        "1 of 3 tissues have no mask: b",
        "warning",
    ),
    "mask of no tissue": Plant(
        lambda r: labels(r / MASKS / "z.ome.zarr", np.ones((9, 9), np.uint8)),
        "orphan",
        f"{MASKS}/z.ome.zarr",
        "no row for it",
        "warning",
    ),
    "mask damaged": Plant(
        lambda r: (r / MASKS / "a.ome.zarr/zarr.json").write_text("["),
        "mask-damaged",
        f"{MASKS}/a.ome.zarr",
        "",
    ),
    "mask with pickles": Plant(
        lambda r: archive(r, mask=np.array([[{}]], object)),
        "mask-damaged",
        f"{MASKS}/a.npz",
        "allow_pickle=False",
    ),
    "npz without mask": Plant(
        lambda r: archive(r, other=np.ones((90, 110))),
        "mask-damaged",
        f"{MASKS}/a.npz",
        "is not a mask archive with an array 'mask'",
    ),
    "cell mask of another shape": Plant(
        lambda r: labels(r / INSTANCES / "a.ome.zarr", np.ones((91, 110), np.uint16)),
        "mask-shape",
        f"{INSTANCES}/a.ome.zarr",
        "has (91, 110) pixels",
    ),
    "cell mask of fractions": Plant(
        lambda r: labels(r / INSTANCES / "a.ome.zarr", np.ones((90, 110), np.float32)),
        "mask-damaged",
        f"{INSTANCES}/a.ome.zarr",
        "holds float32, which are no labels",
    ),
    "cell mask of no tissue": Plant(
        lambda r: np.savez(r / INSTANCES / "z.npz", mask=np.ones((3, 3), int)),
        "orphan",
        f"{INSTANCES}/z.npz",
        "no row for it",
        "warning",
    ),
    "no names of classes": Plant(
        lambda r: (r / TASK / "label_encoder.parquet").unlink(),
        "encoder-missing",
        f"{TASK}/label_encoder.parquet",
        "the classes of 'cell_type' have numbers and no names",
        "warning",
    ),
    "classes without numbers": Plant(
        lambda r: edit(r, f"{TASK}/label_encoder.parquet", dropped("id")),
        "column-missing",
        f"{TASK}/label_encoder.parquet",
        "['id']",
    ),
    "a class twice": Plant(
        lambda r: edit(r, f"{TASK}/label_encoder.parquet", setting("id", 1, 1)),
        "encoder-duplicate",
        f"{TASK}/label_encoder.parquet",
        "id is there more than once: 1",
    ),
    "a class without a name": Plant(
        lambda r: edit(r, f"{TASK}/label_encoder.parquet", without(1)),
        "class-unnamed",
        f"{TASK}/a.ome.zarr",
        "classes without a name in label_encoder.parquet: 2",
        options="cells, of all three",
    ),
    "a cell that is not in the mask": Plant(
        lambda r: edit(r, CELLS, setting("cell_id", 2, 999)),
        "cell-not-in-mask",
        f"{INSTANCES}/a.ome.zarr",
        "1 of 20 cells of tissue 'a' in metadata/cells.parquet are not in it: 999",
        options="cells",
    ),
    # Tiles.
    "tiles damaged": Plant(
        lambda r: broken(r / TILES), "table-damaged", TILES, "not a parquet file"
    ),
    "tiles without rows": Plant(
        lambda r: edit(r, TILES, dropped("row")), "column-missing", TILES, "['row']"
    ),
    "tiles at fractions": Plant(
        lambda r: edit(r, TILES, typed("col", pa.float64())),
        "column-type",
        TILES,
        "column 'col' must hold integer",
    ),
    "tile id twice": Plant(
        lambda r: edit(r, TILES, setting("tile_id", 1, 0)),
        "duplicate-tile",
        TILES,
        "1 tile ids are there more than once: a 0",
    ),
    "tile outside": Plant(
        lambda r: edit(r, TILES, setting("row", 0, 90)),
        "tile-outside",
        TILES,
        "1 tiles lie outside the image of their tissue: a 0 at (90, 0) of (90, 110)",
    ),
    "tile above": Plant(
        lambda r: edit(r, TILES, setting("row", 0, -32)),
        "tile-outside",
        TILES,
        "a 0 at (-32, 0)",
    ),
    "tile size": Plant(
        lambda r: (r / TILES).rename((r / TILES).with_name("large_tile_coordinates.parquet")),
        "tiling-name",
        "tiling/1_0mpp/grid/large_tile_coordinates.parquet",
        "not named after the size",
    ),
    "tile fraction as text": Plant(
        lambda r: edit(r, TILES, typed("tissue_frac", pa.string())),
        "tiles-damaged",
        TILES,
        "tissue_frac",
    ),
    "tile statistics": Plant(
        lambda r: edit(r, TILE_STATS, setting("num_tiles", 0, 3)),
        "tile-counts",
        TILE_STATS,
        "of the tiles of 1 tissues: a 3 (there are",
    ),
    # Statistics.
    "statistics damaged": Plant(
        lambda r: broken(r / UPPER), "statistics-damaged", UPPER, "Parquet"
    ),
    "statistics of another panel": Plant(
        lambda r: statistics(r, lambda t: t.rename_columns({"CD3": "CD4"})),
        "statistics-panel",
        UPPER,
        "they lack the panel's CD3 and have CD4, which it does not",
    ),
    "statistics without a tissue": Plant(
        lambda r: statistics(r, without(1)),
        "statistics-tissues",
        UPPER,
        "they say nothing of b",
    ),
    "statistics of no tissue": Plant(
        lambda r: statistics(
            r, lambda t: pa.concat_tables([t, setting("tissue_id", 0, "z")(t.slice(0, 1))])
        ),
        "statistics-tissues",
        UPPER,
        "they speak of z, which the cohort does not have",
    ),
    "NaN quantiles": Plant(
        lambda r: statistics(r, setting("CD8", 1, float("nan"))),
        "statistics-nan",
        UPPER,
        "1 numbers of channels that were measured are NaN or infinite: CD8 of b",
    ),
    "endless mean": Plant(
        lambda r: statistics(r, setting("DNA", 0, float("inf")), "global_level_means"),
        "statistics-nan",
        f"{STATS}/global_level_means.parquet",
        "infinite: DNA",
    ),
    "statistics of two runs": Plant(
        statistics_of_another_run, "statistics-damaged", STATS, "files of different runs"
    ),
    "statistics of text": Plant(
        lambda r: statistics(r, typed("CD3", pa.string())),
        "statistics-damaged",
        UPPER,
        "channel 'CD3' must hold numbers",
    ),
}


# What a defect takes along: an orphan leaves a row without an image, and so on.
ALONGSIDE: dict[str, set[str]] = {
    # Of a channel that the other tables do not know.
    "channel spelled twice": {"column-missing", "statistics-panel"},
    "image of no row": {"image-missing"},
    # Whatever stands there now, the tiles were not made of it.
    "mask with pickles": {"stale"},
    "npz without mask": {"stale"},
}
# Told once a file: of each tissue, or of each table.
SEVERAL = {"a class without a name": 3}


@pytest.mark.parametrize("name", PLANTS)
def test_a_defect_is_told(cohort: Path, tree: Tree, name: str) -> None:
    planted = PLANTS[name]
    planted.plant(cohort)
    before = tree(cohort)
    found = validate(cohort, cells=bool(planted.options))
    assert tree(cohort) == before
    mine = [f for f in found if f.kind == planted.kind]
    others = {f.kind for f in found} - {planted.kind}
    assert others == ALONGSIDE.get(name, set()), [str(f) for f in found]
    assert len(mine) == SEVERAL.get(name, 1), [str(f) for f in found]
    finding = mine[0]
    assert finding.severity == planted.severity
    assert finding.place == planted.place
    assert planted.words in finding.what
    assert finding.advice
    assert str(finding).startswith(f"{planted.severity:<7}  {planted.place}: ")
    assert "\n" not in str(finding)
    assert set(finding.as_dict()) == {"severity", "kind", "place", "what", "advice"}


def test_statistics_are_fitted_on_the_split_they_name(cohort: Path) -> None:
    for place in (2, 3):
        edit(cohort, TISSUES, setting("split", place, "test"))
    found = validate(cohort)
    assert {f.kind for f in found} == {"statistics-split"}
    assert {f.place for f in found} == {
        # Quantiles of each image by itself depend on no split.
        p.relative_to(cohort).as_posix()
        for p in (cohort / STATS).glob("global_*.parquet")
    }
    assert "were fitted on split 'train', where b no longer are" in found[0].what


@pytest.mark.parametrize("method", ["zscore", "minmax", "arcsinh"])
def test_statistics_of_every_method(cohort: Path, method: str) -> None:
    (directory,) = stats(cohort, method=method)
    assert validate(cohort) == []
    path = min(directory.glob("*_level_*.parquet"))
    table = pq.read_table(path)
    pq.write_table(setting("DNA", 0, float("nan"))(table), path)
    (found,) = validate(cohort)
    assert (found.kind, found.place) == ("statistics-nan", path.relative_to(cohort).as_posix())


def test_tiles_of_no_tissue(cohort: Path) -> None:
    edit(cohort, TILES, setting("tissue_id", 0, "z"))
    found = {f.kind: f for f in validate(cohort)}
    assert set(found) == {"unknown-tissue", "tile-counts"}
    assert (
        "tiles of 1 tissues without a row in the table of tissues: z"
        in found["unknown-tissue"].what
    )


def test_where_nothing_says_what_was_measured(cohort: Path) -> None:
    """spora_io then takes all channels as measured, and the image that has fewer is told."""
    (cohort / MEASURED).unlink()
    found = {f.kind: f for f in validate(cohort)}
    assert found["measured-missing"].severity == "warning"
    assert found["image-channels"].place == "imc/1_0mpp/images/b.ome.zarr"
    assert "has 2 planes, and 3 channels were measured" in found["image-channels"].what
    assert "statistics-nan" in found


def test_an_image_that_is_aligned_may_cover_other_ground(cohort: Path) -> None:
    image(cohort, "a", size=(60, 60))
    set_alignment(cohort, "a", "imc", [[1, 0, 3], [0, 1, 4]])
    assert "image-extent" not in {f.kind for f in validate(cohort)}
    path = cohort / "metadata/alignments.parquet"
    edit(cohort, path.relative_to(cohort).as_posix(), lambda t: put(t, "x_x", pa.array([0.0])))
    told = [f for f in validate(cohort) if f.kind == "table-damaged"]
    assert [f.place for f in told] == [path.relative_to(cohort).as_posix()]


def test_a_pixel_more_at_the_edge_is_the_same_ground(cohort: Path) -> None:
    image(cohort, "a", size=(90, 111))
    assert "image-extent" not in {f.kind for f in validate(cohort)}


def test_sources_that_changed(template: Path, tmp_path: Path) -> None:
    shutil.copytree(template.parent, tmp_path / "all")
    root = tmp_path / "all/cohort"

    def here(table: pa.Table) -> pa.Table:
        moved = [str(tmp_path / "all" / Path(s).name) for s in table["source"].to_pylist()]
        return put(table, "source", pa.array(moved))

    edit(root, TISSUES, here)
    changed = tmp_path / "all/a_imc.tif"
    changed.write_bytes(changed.read_bytes() + b" ")
    (tmp_path / "all/b_imc.tif").unlink()  # gone is not wrong
    assert validate(root) == []
    (found,) = validate(root, checksums=True)
    assert (found.severity, found.kind, found.place) == ("error", "source-changed", str(changed))
    assert "is not what tissue 'a' (imc) was ingested from" in found.what


def test_everything_is_damaged_and_everything_is_told(cohort: Path) -> None:
    for path in cohort.rglob("*.parquet"):
        broken(path)
    (cohort / "cohort.json").write_bytes(b"\xff\xfe")
    for path in cohort.rglob("zarr.json"):
        path.write_bytes(b"")
    found = validate(cohort, checksums=True, cells=True)
    assert {"manifest-damaged", "table-damaged"} <= {f.kind for f in found}
    assert TISSUES in {f.place for f in found}
    assert all(str(f) for f in found)


def test_many_defects_are_told_at_once(cohort: Path) -> None:
    edit(cohort, PANEL, setting("index", 0, 2))
    edit(cohort, CELLS, repeated(4))
    edit(cohort, TILES, setting("row", 0, 900))
    image(cohort, "a", mpp=2.0)
    assert [f.kind for f in validate(cohort)] == [
        "panel-index",
        "image-mpp",
        "duplicate-cell",
        "tile-outside",
    ]


def test_workers_tell_the_same(cohort: Path) -> None:
    image(cohort, "a", mpp=2.0)
    image(cohort, "b", planes=3)
    (cohort / "he/1_0mpp/images/c.ome.zarr/zarr.json").write_text("{}")
    here = validate(cohort, checksums=True)
    assert [f.kind for f in here] == ["image-damaged", "image-mpp", "image-channels"]
    with process_pool(2) as pool:
        assert validate(cohort, checksums=True, executor=pool) == here


def test_one_resolution_only(cohort: Path) -> None:
    image(cohort, "a", mpp=2.0)
    assert [f.kind for f in validate(cohort, resolution=1)] == ["image-mpp"]
    assert validate(cohort, resolution=2.0) == []
    with pytest.raises(InvalidInputError, match="is not a resolution"):
        validate(cohort, resolution="fine")


def test_what_is_no_cohort(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no cohort"):
        validate(tmp_path / "none")
    with pytest.raises(FormatError, match="is a directory but no cohort"):
        validate(tmp_path)


def test_a_cohort_at_its_beginning(tmp_path: Path) -> None:
    CohortLayout.open_or_create(tmp_path / "cohort")
    assert validate(tmp_path / "cohort") == []


def test_a_real_cohort(shared_data: Path, tmp_path: Path) -> None:
    """Nine regions of three slides, of which one measured a channel more and one has no tissue."""
    root = tmp_path / "imc"
    names = {  # of steinbock's images, in their order
        line.split(",")[0]: line.split(",")[1]
        for line in (shared_data / "imc/steinbock_panel.csv").read_text().splitlines()[1:]
    }
    resolution = Resolution.parse(1)
    for source in sorted((shared_data / "imc/img").glob("*.tiff")):
        pixels = tifffile.imread(source)
        channels = list(names.values())[: len(pixels)]
        tissue = source.stem
        ingest(
            source,
            cohort=root,
            tissue_id=tissue,
            modality="imc",
            mpp=1.0,
            channel_names=channels,
            patient_id=tissue.rsplit("_", 1)[0],
        )
        cells = shared_data / "imc/masks" / source.name
        add_cell_masks(root, tissue, cells)
        ids = np.setdiff1d(np.unique(tifffile.imread(cells)), [0]).astype(np.int64)
        add_cells(root, {"tissue_id": [tissue] * ids.size, "cell_id": ids})
        labels(
            CohortLayout.open(root).tissue_mask(resolution, tissue),
            np.ones(pixels.shape[-2:], np.uint8),
        )
    assert len(set(pq.read_table(root / TISSUES)["tissue_id"].to_pylist())) == 9
    tile(root, tile_size=32, method="grid")
    assert validate(root, checksums=True, cells=True) == []


def test_a_real_slide(shared_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "wsi"
    slide = shared_data / "wsi/cmu-1-small-region.svs"
    ingest(slide, cohort=root, tissue_id="cmu", modality="he", resolution=2.0)
    mask(root)
    tile(root, tile_size=224)
    assert validate(root, checksums=True) == []
    assert pc.sum(pq.read_table(root / "tiling/2_0mpp/default/224_tile_stats.parquet")["num_tiles"])
    assert MultiscaleImage.open(root / "he/2_0mpp/images/cmu.ome.zarr").level_count > 1
