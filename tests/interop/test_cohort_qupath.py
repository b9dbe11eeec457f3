"""Tiles and cells on each image of a tissue, where an alignment says that they lie; shapely says where."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely import affinity
from shapely.geometry import shape

import microtome as mt
from microtome.cohort import CohortLayout, read_alignments
from microtome.errors import ExistsError, InvalidInputError
from microtome.interop import (
    CohortTiles,
    TissueImages,
    add_tiles,
    export_clam,
    export_qupath_cells,
    export_qupath_tiles,
    export_trident,
)

# The slide of H&E has 0.5 and that of IHC 0.25 um per pixel; the cohort 1.
HE, IHC = 0.5, 0.25
TILE = 32
TURNED = np.array([[0.0, -1.0, 190.0], [1.0, 0.0, 8.5]])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A tissue of two images, whose mask has two cells, one of them with a hole; another of H&E alone."""
    folder = tmp_path_factory.mktemp("aligned")
    root = folder / "study"
    rng = np.random.default_rng(0)
    for tissue, modality, mpp in (("t", "he", HE), ("t", "ihc_CD3", IHC), ("u", "he", HE)):
        side = int(200 / mpp)
        pixels = rng.integers(100, 200, (side, side, 3)).astype(np.uint8)
        mt.ingest(
            pixels,
            axes="yxc",
            mpp=mpp,
            cohort=root,
            tissue_id=tissue,
            modality=modality,
            resolution=1.0,
        )
    labels = np.zeros((200, 200), np.uint16)
    labels[20:60, 30:70] = 1
    labels[30:40, 40:50] = 0
    labels[100:110, 150:180] = 2
    for tissue in "tu":
        mt.add_cell_masks(root, tissue, labels)
    mt.mask(root, method="whole", modality="he")
    mt.tile(root, tile_size=TILE, method="grid")
    return root


@pytest.fixture
def aligned(study):
    mt.set_alignment(study, "t", "ihc_CD3", TURNED)
    yield study
    mt.set_alignment(study, "t", "ihc_CD3", None)


def shapes(path):
    return [shape(each["geometry"]) for each in json.loads(path.read_text())["features"]]


def on_slide(geometry, matrix, mpp):
    """What shapely makes of a shape in micrometres of the frame on an image of some pixels."""
    (a, b, x), (d, e, y) = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    moved = affinity.affine_transform(geometry, [a, b, d, e, x, y])
    return affinity.scale(moved, 1 / mpp, 1 / mpp, origin=(0, 0))


def test_cells_are_outlined_on_each_image_in_its_own_pixels(aligned, tmp_path):
    images = TissueImages.of_each_modality(aligned)
    assert [(each.modality.name, tuple(each)) for each in images] == [
        ("he", ("t", "u")),
        ("ihc_CD3", ("t",)),
    ]
    files = export_qupath_cells(images, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == [
        "he/t.geojson",
        "he/u.geojson",
        "ihc_CD3/t.geojson",
    ]
    stained = shapes(files[0])
    assert [each.bounds for each in stained] == [(60, 40, 140, 120), (300, 200, 360, 220)]
    for ours, plain in zip(shapes(files[2]), stained, strict=True):
        in_frame = affinity.scale(plain, HE, HE, origin=(0, 0))
        expected = on_slide(in_frame, TURNED, IHC)
        assert ours.symmetric_difference(expected).area < 1e-6
        assert ours.area == pytest.approx(plain.area * (HE / IHC) ** 2)
    with pytest.raises(ExistsError, match=r"ihc_CD3/t\.geojson"):
        export_qupath_cells(images[1:] + images[:1], tmp_path / "out")
    with pytest.raises(InvalidInputError, match="these are he, ihc_CD3; say which"):
        export_qupath_cells(images, tmp_path / "other", source_mpp=0.5)
    with pytest.raises(InvalidInputError, match="no images"):
        export_qupath_cells([], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_image_without_an_alignment_has_its_own_pixel_size(study, tmp_path):
    (only,) = TissueImages.of_each_modality(study, modality="ihc_CD3")
    (path,) = export_qupath_cells(only, tmp_path)
    assert path == tmp_path / "t.geojson"
    assert [each.bounds for each in shapes(path)] == [(120, 80, 280, 240), (600, 400, 720, 440)]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    turn=st.floats(-180, 180),
    shift=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    # Larger than the tissue, so that it shows something of every tile.
    grown=st.floats(1.1, 1.25),
    mirrored=st.booleans(),
)
def test_tiles_on_an_aligned_image_come_back_as_they_were(
    study, tmp_path_factory, turn, shift, grown, mirrored
):
    angle = np.deg2rad(turn)
    linear = grown * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        linear = linear @ np.diag([-1, 1])
    # About the middle, so that the image stays on its tissue.
    offset = 100 - linear @ [100, 100] + shift
    matrix = np.column_stack([linear, offset])
    mt.set_alignment(study, "t", "ihc_CD3", matrix)
    folder = tmp_path_factory.mktemp("tiles")
    tiles = CohortTiles.open(
        study, modality="ihc_CD3", tissues=["t"], tile_size=TILE, tile_strategy="grid"
    )
    (path,) = export_qupath_tiles(tiles, folder)
    rows = tiles.tiles.rows()
    for drawn, row, col in zip(shapes(path), rows.row, rows.col, strict=True):
        square = shape(
            {
                "type": "Polygon",
                "coordinates": [
                    [
                        (col, row),
                        (col + TILE, row),
                        (col + TILE, row + TILE),
                        (col, row + TILE),
                        (col, row),
                    ]
                ],
            }
        )
        assert drawn.symmetric_difference(on_slide(square, matrix, IHC)).area < 1e-4
    back = add_tiles(
        study, path, tissue_id="t", modality="ihc_CD3", strategy="back", overwrite=True
    )
    found = back.rows()
    np.testing.assert_array_equal(found.row, rows.row)
    np.testing.assert_array_equal(found.col, rows.col)
    np.testing.assert_array_equal(found.tile_id, rows.tile_id)
    mt.set_alignment(study, "t", "ihc_CD3", None)


def test_files_that_cannot_be_turned_refuse_an_aligned_image(aligned, tmp_path):
    assert ("t", "ihc_CD3") in read_alignments(CohortLayout.open(aligned))
    tiles = CohortTiles.open(aligned, modality="ihc_CD3", tile_size=TILE, tile_strategy="grid")
    with pytest.raises(InvalidInputError, match="the images of t as ihc_CD3 lie in their tissues"):
        export_trident(tiles, tmp_path / "job", magnification=20)
    with pytest.raises(InvalidInputError, match="patches of CLAM are counted"):
        export_clam(tiles, tmp_path / "job")
    (tmp_path / "t.h5").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="TRIDENT and CLAM are counted"):
        add_tiles(aligned, tmp_path / "t.h5", tissue_id="t", modality="ihc_CD3")
    assert not (tmp_path / "job").exists()


def test_tiles_that_are_read_as_if_an_aligned_image_were_not_are_told(aligned, caplog):
    how = {"path": aligned, "tile_size": TILE, "tile_strategy": "grid", "resolution": 1.0}
    said = "study: images of t as ihc_CD3 lie in their tissues by an alignment"
    mt.HEImagingDataset("study", **how)
    mt.ComposedImagingDataset("study", ["ihc_CD3"], **how)
    tiles = CohortTiles.open(aligned, modality="ihc_CD3", tile_size=TILE, tile_strategy="grid")
    assert not any("alignment" in record.getMessage() for record in caplog.records)
    mt.SingleIHCImagingDataset("study", "ihc_CD3", **how)
    tiles.read_batch([0])
    told = [m for record in caplog.records if said in (m := record.getMessage())]
    assert len(told) == 2
    assert "ComposedImagingDataset(..., ['ihc_CD3']) reads them where they lie" in told[0]
    tiles.read_batch([1])
    assert sum(said in record.getMessage() for record in caplog.records) == 2
