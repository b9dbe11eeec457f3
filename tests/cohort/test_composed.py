"""Composed tiles: one physical square in every modality, against resampling by hand."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from microtome.cohort import (
    CohortLayout,
    ComposedImagingDataset,
    ingest,
    read_alignments,
    set_alignment,
    tile,
)
from microtome.coordinates import AffineTransform
from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    OutOfRangeError,
    UnknownNameError,
)
from microtome.loading import TileLoader
from microtome.tiling import TileTable

Pixels = dict[str, NDArray[Any]]
HEIGHT, WIDTH = 130, 170  # micrometres
MARKERS = ("CD3", "DNA")


@pytest.fixture
def paired(tmp_path: Path, write: Callable[..., None]) -> tuple[Path, Pixels]:
    """Tissue t as H&E at 0.5 um, IHC and IMC at 1 um; tissue u as IMC alone; and their pixels."""
    root = tmp_path / "cohort"
    rng = np.random.default_rng(4)
    pixels: Pixels = {
        "he": rng.integers(0, 255, (3, 2 * HEIGHT, 2 * WIDTH), dtype=np.uint8),
        "ihc_CD8": rng.integers(0, 255, (3, HEIGHT, WIDTH), dtype=np.uint8),
        "imc": rng.gamma(1, 20, (2, HEIGHT, WIDTH)).astype(np.float32),
        "u": rng.integers(0, 900, (2, 90, 80)).astype(np.float32),
    }
    for tissue, name, key in (
        ("t", "he", "he"),
        ("t", "ihc_CD8", "ihc_CD8"),
        ("t", "imc", "imc"),
        ("u", "imc", "u"),
    ):
        ingest(
            pixels[key],
            axes="cyx",
            cohort=root,
            tissue_id=tissue,
            modality=name,
            mpp=0.5 if name == "he" else 1.0,
            resolution=0.5 if name == "he" else 1.0,
            channel_names=MARKERS if name == "imc" else None,
            split="train" if tissue == "t" else "test",
            patient_id=f"p-{tissue}",
        )
    write(root, "t", np.ones((HEIGHT, WIDTH), bool))
    write(root, "u", np.ones((90, 80), bool))
    tile(root, tile_size=64, method="grid", strategy="default", tolerance=0.9, resolution=1.0)
    return root, pixels


RAW = {"he": {"mean_std_type": "raw"}, "ihc": {"mean_std_type": "raw"}}


def composed(root: Path, modalities: Any = None, **options: Any) -> ComposedImagingDataset:
    kwargs = {"imc": {"standardization": "identity"}, **RAW, **options.pop("modality_kwargs", {})}
    chosen: dict[str, Any] = {
        "resolution": 1.0,
        "tile_size": 64,
        "modality_kwargs": kwargs,
        **options,
    }
    return ComposedImagingDataset("c", modalities, path=root, **chosen)


def crop(pixels: NDArray[Any], row: int, col: int, size: int) -> NDArray[np.float32]:
    out = np.zeros((len(pixels), size, size), np.float32)
    part = pixels[:, row : row + size, col : col + size]
    out[:, : part.shape[1], : part.shape[2]] = part
    return out


def halved(pixels: NDArray[Any]) -> NDArray[Any]:
    means = pixels.reshape(3, HEIGHT, 2, WIDTH, 2).astype(float).mean((2, 4))
    return np.floor(means + 0.5)


def test_one_square_in_every_modality(paired: Any) -> None:
    root, pixels = paired
    data = composed(root)
    assert data.get_available_modalities() == ["he", "ihc_CD8", "imc"]
    assert data.get_tissue_ids().tolist() == ["t", "u"]
    assert data.get_tissue_ids("he").tolist() == ["t"]
    assert data.get_modalities_of_tissue("u") == ["imc"]
    rows = pq.read_table(root / "tiling/1_0mpp/default/64_tile_coordinates.parquet").to_pylist()
    assert len(data) == len(rows) > 8
    together = data.__getitems__(range(len(rows)))
    for number, row in enumerate(rows):
        found = data.get_composed_tile(row["tissue_id"], row["tile_id"])
        where = row["row"], row["col"], 64
        expected = (
            {"imc": crop(pixels["u"], *where)}
            if row["tissue_id"] == "u"
            else {
                "he": crop(halved(pixels["he"]), *where),
                "ihc_CD8": crop(pixels["ihc_CD8"], *where),
                "imc": crop(pixels["imc"], *where),
            }
        )
        assert list(found.modalities) == list(expected)
        assert all(found.regions[n] is found.modalities[n].region for n in expected)
        for name, value in expected.items():
            np.testing.assert_allclose(np.asarray(found.modalities[name].image), value, atol=1e-4)
            for other in (data[number], together[number]):
                shown = other.modalities[name]
                np.testing.assert_array_equal(shown.image, found.modalities[name].image)
                told: Any = shown.region.additional_metadata
                assert (told["tissue_id"], told["tile_id"]) == (row["tissue_id"], row["tile_id"])
            alone = data.get_unimodal_tile(name, row["tissue_id"], row["tile_id"])
            np.testing.assert_array_equal(alone.image, found.modalities[name].image)


def test_each_modality_at_its_own_pixel_size(paired: Any) -> None:
    root, pixels = paired
    data = composed(root, modality_kwargs={"he": {"resolution": 0.5, "mean_std_type": "raw"}})
    found = data.get_composed_tile_by_coordinates("t", 30, 41)
    np.testing.assert_allclose(
        np.asarray(found.modalities["he"].image), crop(pixels["he"], 60, 82, 128), atol=1e-4
    )
    np.testing.assert_allclose(
        np.asarray(found.modalities["imc"].image), crop(pixels["imc"], 30, 41, 64), atol=1e-4
    )
    assert data.get_unimodal_tissue_size("he", "t") == (2 * HEIGHT, 2 * WIDTH)
    assert data.get_unimodal_tissue_size("imc", "t") == (HEIGHT, WIDTH)


def test_a_square_off_the_pixel_grid_is_resampled(paired: Any) -> None:
    """At 0.65 um a tile that begins at 30 um begins inside a pixel."""
    root, pixels = paired
    data = composed(
        root, ["imc"], modality_kwargs={"imc": {"standardization": "identity", "resolution": 1.3}}
    )
    found = data.get_composed_tile_by_coordinates("t", 30, 41).modalities["imc"]
    assert tuple(found.image.shape) == (2, 49, 49)  # 64 um of 1.3 um each, rounded
    step = 64 / 49
    fine = np.repeat(np.repeat(pixels["imc"].astype(float), 49, axis=1), 49, axis=2)
    for i, j in [(0, 0), (7, 30), (48, 48)]:
        # In 49ths of a micrometre every edge is a whole number.
        y, x = round((30 + i * step) * 49), round((41 + j * step) * 49)
        mean = fine[:, y : y + 64, x : x + 64].mean((1, 2))
        np.testing.assert_allclose(np.asarray(found.image)[:, i, j], mean, rtol=1e-5)


# -- alignments


def rotation(degrees: float, shift: tuple[float, float], scale: float = 1.0) -> AffineTransform:
    angle = np.deg2rad(degrees)
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    matrix[:2, 2] = shift
    return AffineTransform(("x", "y"), ("x", "y"), matrix)


def test_a_whole_shift_is_a_shifted_crop(paired: Any) -> None:
    root, pixels = paired
    set_alignment(root, "t", "imc", [[1, 0, 7], [0, 1, -11]])
    found = composed(root).get_composed_tile_by_coordinates("t", 20, 30)
    np.testing.assert_allclose(
        np.asarray(found.modalities["imc"].image), crop(pixels["imc"], 31, 23, 64), atol=1e-4
    )
    np.testing.assert_allclose(
        np.asarray(found.modalities["ihc_CD8"].image),
        crop(pixels["ihc_CD8"], 20, 30, 64),
        atol=1e-4,
    )


@pytest.mark.parametrize("degrees", [0.0, 12.0, 90.0, -60.0])
def test_a_rotated_image_lies_where_its_transform_says(paired: Any, degrees: float) -> None:
    root, pixels = paired
    transform = rotation(degrees, (60.0, 35.0))
    set_alignment(root, "t", "imc", transform, method="rigid")
    found = composed(root).get_composed_tile_by_coordinates("t", 25, 40).modalities["imc"]
    # scipy samples between centres, which lie half a pixel in; rows come first there.
    inverse = np.linalg.inv(transform.augmented_matrix)
    flip = np.array([[0, 1], [1, 0]])
    linear = flip @ inverse[:2, :2] @ flip
    offset = flip @ inverse[:2, 2] + linear @ (np.array([25, 40]) + 0.5) - 0.5
    expected = np.stack(
        [
            ndimage.affine_transform(
                plane.astype(float), linear, offset, (64, 64), order=1, mode="nearest"
            )
            for plane in pixels["imc"]
        ]
    )
    rows, columns = np.mgrid[:64, :64]
    centres = np.stack([columns + 40.5, rows + 25.5, np.ones((64, 64))])
    x, y, _ = np.einsum("ij,jhw->ihw", inverse, centres)
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    assert 0.1 < inside.mean() <= 1
    np.testing.assert_allclose(
        np.asarray(found.image), np.where(inside, expected, 0), rtol=1e-4, atol=1e-3
    )
    told: Any = found.region.additional_metadata
    np.testing.assert_allclose(told["to_frame"], transform.augmented_matrix[:2])
    assert told["frame_box"] == (25, 40, 89, 104)


def test_a_coarser_square_of_an_aligned_slide_is_a_mean(paired: Any) -> None:
    root, pixels = paired
    set_alignment(root, "t", "he", rotation(180.0, (WIDTH, HEIGHT)))
    found = composed(root).get_composed_tile_by_coordinates("t", 10, 20).modalities["he"]
    turned = halved(pixels["he"])[:, ::-1, ::-1]
    np.testing.assert_allclose(np.asarray(found.image), crop(turned, 10, 20, 64), atol=1.001)
    assert np.abs(np.asarray(found.image) - crop(turned, 10, 20, 64)).mean() < 0.01


def test_outside_an_aligned_image_is_zero_after_standardization(paired: Any) -> None:
    root, _ = paired
    set_alignment(root, "t", "he", [[1, 0, 30], [0, 1, 0]])
    data = composed(root, modality_kwargs={"he": {"mean_std_type": "imagenet"}})
    found = np.asarray(data.get_composed_tile_by_coordinates("t", 0, 0).modalities["he"].image)
    assert not found[..., :30].any()
    assert (found[..., 31:] != 0).all()


def test_filters_of_an_aligned_image_see_past_the_tile(paired: Any) -> None:
    root, pixels = paired
    set_alignment(root, "t", "imc", [[1, 0, 5], [0, 1, 9]])
    kwargs = {"imc": {"standardization": "identity", "filter_list": ["gaussian_blur"]}}
    data = composed(root, ["imc"], modality_kwargs=kwargs)
    found = np.asarray(data.get_composed_tile_by_coordinates("t", 30, 40).modalities["imc"].image)
    weights = np.exp(-0.5 * np.array([-1.0, 0, 1]) ** 2)
    weights /= weights.sum()
    kernel = np.outer(weights, weights)
    expected = np.stack([ndimage.convolve(p.astype(float), kernel) for p in pixels["imc"]])
    np.testing.assert_allclose(found, crop(expected, 21, 35, 64), rtol=1e-4)


def test_alignments_are_kept_replaced_and_removed(paired: Any) -> None:
    root, _ = paired
    layout = CohortLayout.open(root)
    assert read_alignments(layout) == {}
    one, two = rotation(3, (1, 2)), rotation(4, (5, 6), 1.1)
    set_alignment(root, "t", "he", one)
    set_alignment(root, "t", "imc", two.augmented_matrix)
    assert read_alignments(layout) == {("t", "he"): one, ("t", "imc"): two}
    set_alignment(root, "t", "he", two)
    set_alignment(root, "t", "imc", None)
    assert read_alignments(layout) == {("t", "he"): two}


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ([[1, 0, 0], [1, 0, 0]], "cannot be inverted"),
        ([[1, 0], [0, 1]], r"matrix \(2, 3\)"),
        ([[1, 0, 0], [0, 1, 0], [0, 1, 1]], "last row 0 0 1"),
        ([[1, 0, np.nan], [0, 1, 0]], "finite"),
        (AffineTransform(("y", "x"), ("x", "y"), np.eye(3)), "from (x, y)"),
        ("x", r"matrix \(2, 3\) of numbers, got 'x'"),
        ([[1, 0], [0, 1, 0]], r"of numbers, got \[\[1, 0\], \[0, 1, 0\]\]"),
    ],
    ids=["singular", "shape", "projective", "nan", "axes", "text", "ragged"],
)
def test_what_is_no_alignment(paired: Any, transform: Any, message: str) -> None:
    root, _ = paired
    with pytest.raises(InvalidInputError, match=message.replace("from (x, y)", "from .x, y.")):
        set_alignment(root, "t", "imc", transform)
    assert read_alignments(CohortLayout.open(root)) == {}


def test_an_alignment_in_another_unit_is_refused(paired: Any) -> None:
    root, _ = paired
    with pytest.raises(InvalidInputError, match=r"170 x 130 um, would lie at x 5000 to 5170"):
        set_alignment(root, "t", "imc", [[1, 0, 5000], [0, 1, 0]])
    set_alignment(root, "t", "imc", [[1, 0, 169], [0, 1, 0]])  # by a pixel, but they meet


def test_an_alignment_is_of_an_image_that_is_there(paired: Any) -> None:
    with pytest.raises(UnknownNameError, match="'u' imaged as he"):
        set_alignment(paired[0], "u", "he", np.eye(3))


def test_a_damaged_table_of_alignments_is_refused(paired: Any) -> None:
    root, _ = paired
    set_alignment(root, "t", "imc", np.eye(3))
    path = root / "metadata/alignments.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(2, "x_x", pa.array([0.0])), path)
    with pytest.raises(FormatError, match=r"alignments\.parquet: tissue 't' imaged as imc"):
        composed(root)
    pq.write_table(pa.concat_tables([table, table]), path)
    with pytest.raises(FormatError, match="there twice"):
        composed(root)


# -- shared grids


def test_images_that_share_no_grid_are_refused(paired: Any) -> None:
    root, pixels = paired
    ingest(
        pixels["imc"][:, :100],
        axes="cyx",
        cohort=root,
        tissue_id="t",
        modality="codex",
        mpp=1.0,
        channel_names=MARKERS,
    )
    data = composed(root, ["he", "codex"])
    with pytest.raises(FormatError, match=r"'t' have no common.*codex 100 x 170 um.*set_alignment"):
        data.get_composed_tile_by_coordinates("t", 0, 0)
    set_alignment(root, "t", "codex", np.eye(3))
    assert composed(root, ["he", "codex"]).get_composed_tile_by_coordinates("t", 0, 0)


# -- tissues, patients, splits, options


def test_whole_tissues_on_their_own_grids(paired: Any) -> None:
    root, pixels = paired
    data = composed(root, tile_size=None)
    assert len(data) == 2
    found = data.get_composed_tissue("t")
    np.testing.assert_allclose(np.asarray(found.modalities["imc"].image), pixels["imc"])
    np.testing.assert_allclose(np.asarray(found.modalities["he"].image), halved(pixels["he"]))
    assert [list(data[i].modalities) for i in (0, 1)] == [["he", "ihc_CD8", "imc"], ["imc"]]
    assert [t.tissue_id for t in data.get_composed_tissue_by_patient("p-u")] == ["u"]
    assert data.patients == {"t": "p-t", "u": "p-u"}
    np.testing.assert_array_equal(data.get_unimodal_tissue("imc", "u").image, pixels["u"])
    assert data.get_unimodal_tissue_mask("imc", "u").mask.all()


def test_ihc_stands_for_every_marker(paired: Any) -> None:
    assert composed(paired[0], ["ihc", "imc"]).get_available_modalities() == ["ihc_CD8", "imc"]


def test_a_split_without_a_modality_does_without_it(paired: Any) -> None:
    root, _ = paired
    data = composed(root, split="test")
    assert data.get_available_modalities() == ["imc"]
    assert data.get_tissue_ids().tolist() == ["u"]
    assert {t.tissue_id for t in data.__getitems__(range(len(data)))} == {"u"}


def test_a_multiplex_modality_without_standardization_is_told(paired: Any, caplog: Any) -> None:
    root, pixels = paired
    with caplog.at_level(logging.WARNING):
        data = ComposedImagingDataset("c", ["imc"], path=root, resolution=1)
    assert "imc has no standardization" in caplog.text
    np.testing.assert_array_equal(
        data.get_composed_tissue("u").modalities["imc"].image, pixels["u"]
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"modalities": ["codex"]}, InvalidInputError, "no images of codex; it has he, ihc_CD8"),
        ({"modalities": ["xray"]}, UnknownNameError, "xray"),
        ({"modalities": "he"}, InvalidInputError, "list of names"),
        ({"modalities": []}, InvalidInputError, "no images"),
        ({"modality_kwargs": {"xray": {}}}, UnknownNameError, "xray"),
        ({"modality_kwargs": {"he": {"split": "a"}}}, InvalidInputError, r"cannot set \['split'\]"),
        (
            {"modality_kwargs": {"he": {"colour": "a"}}},
            InvalidInputError,
            r"modality_kwargs\['he'\] has no option 'colour'; there are mean_std_type, resolution, ",
        ),
        ({"modality_kwargs": {"he": 0.5}}, InvalidInputError, r"\['he'\] are options by name.*0.5"),
        (
            {"modality_kwargs": {"he": {"mean_std_type": "a"}}},
            InvalidInputError,
            r"\['he'\]: mean_std_type must be one of",
        ),
        ({"split": "val"}, InvalidInputError, "'val'"),
        ({"tile_size": None, "tile_strategy": "default"}, InvalidInputError, "needs a tile_size"),
        ({"tile_size": 65}, InvalidInputError, "no tiles default 65"),
        ({"resolution": 0.1}, InvalidInputError, "0_5mpp"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_wrong_options(paired: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        composed(paired[0], **options)


def test_what_is_not_there_is_named(paired: Any) -> None:
    root, _ = paired
    data = composed(root)
    with pytest.raises(UnknownNameError, match="'x'"):
        data.get_composed_tile("x", 0)
    with pytest.raises(UnknownNameError, match="no tile 999"):
        data.get_composed_tile("t", 999)
    with pytest.raises(UnknownNameError, match="'u' imaged as he"):
        data.get_unimodal_tile("he", "u", 0)
    with pytest.raises(UnknownNameError, match="not of 'mibi'"):
        data.get_dataset("mibi")
    with pytest.raises(UnknownNameError, match="patient 'q'"):
        data.get_composed_tissue_by_patient("q")
    with pytest.raises(OutOfRangeError, match="outside the"):
        _ = data[len(data)]
    with pytest.raises(NotFoundError, match="no cohort"):
        composed(root / "nowhere")
    assert data[-1].tissue_id == data[len(data) - 1].tissue_id
    with pytest.raises(InvalidInputError, match="tile_size"):
        composed(root, tile_size=None).get_composed_tile("t", 0)


def test_tiles_of_ones_own_choice(paired: Any) -> None:
    root, pixels = paired
    own = TileTable.from_columns(
        {
            "tissue_id": ["u", "t", "t"],
            "row": [3, 5, 60],
            "col": [4, -8, 140],
            "tile_id": [9, 8, 7],
        },
        tile_size=40,
        strategy="own",
    )
    data = composed(root, tile_size=None, tiles=own)
    assert len(data) == 3
    np.testing.assert_array_equal(data[0].modalities["imc"].image, crop(pixels["u"], 3, 4, 40))
    found = np.asarray(data.get_composed_tile("t", 8).modalities["imc"].image)
    assert not found[..., :8].any()
    np.testing.assert_array_equal(found[..., 8:], pixels["imc"][:, 5:45, :32])
    alone = composed(root, split="test", tile_size=None, tiles=own)
    assert [item.tissue_id for item in alone.__getitems__(range(len(alone)))] == ["u"]
    elsewhere = TileTable(own.table, (40, 40), "own", "0_5mpp")
    with pytest.raises(InvalidInputError, match="lie at 0_5mpp"):
        composed(root, tile_size=None, tiles=elsewhere)
    with pytest.raises(InvalidInputError, match="not both"):
        composed(root, tiles=own)


def test_it_goes_to_another_process(paired: Any) -> None:
    data = composed(paired[0])
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again[0].modalities["imc"].image, data[0].modalities["imc"].image)


OTHERWISE: dict[str, dict[str, Any]] = {
    "standardization": {
        "modality_kwargs": {
            "imc": {"standardization": "arcsinh/cofactor_2.0", "use_mean_std": False}
        }
    },
    "preset": {"modality_kwargs": {"he": {"mean_std_type": "hibou"}}},
    "channels": {"modality_kwargs": {"imc": {"standardization": "identity", "channels": ["DNA"]}}},
    "filters": {"modality_kwargs": {"ihc": {"filter_list": ["median_filter"]}}},
    "resolution": {"modality_kwargs": {"he": {"resolution": 0.5}}},
    "modalities": {"modalities": ["he", "imc"]},
}


@pytest.mark.parametrize("kind", OTHERWISE)
def test_a_loader_does_not_go_on_with_other_pixels(paired: Any, kind: str) -> None:
    root, _ = paired

    def loader(**options: Any) -> TileLoader:
        return TileLoader(composed(root, **options), 4, order="sequential")

    first = loader()
    next(iter(first))
    state = first.state_dict()
    loader().load_state_dict(state)
    same = {"imc": {"standardization": "identity", "kind": "complete", "use_mean_std": True}}
    loader(modality_kwargs=same, modalities=["imc", "he", "ihc"]).load_state_dict(state)
    with pytest.raises(InvalidInputError, match="of pixels standardized by he by raw at 1 um; ihc"):
        loader(**OTHERWISE[kind]).load_state_dict(state)


def test_a_loader_does_not_go_on_with_other_composed_tiles(paired: Any) -> None:
    root, _ = paired
    there = TileTable.read(root / "tiling/1_0mpp/default/64_tile_coordinates.parquet")
    moved = there.table.set_column(
        there.table.column_names.index("col"), "col", pc.add(there.table["col"], 1)
    )
    other = replace(there, table=moved)
    first = TileLoader(composed(root), 4, order="sequential")
    next(iter(first))
    state = first.state_dict()
    TileLoader(composed(root, tile_size=None, tiles=there), 4, order="sequential").load_state_dict(
        state
    )
    with pytest.raises(InvalidInputError, match="over other tiles"):
        TileLoader(
            composed(root, tile_size=None, tiles=other), 4, order="sequential"
        ).load_state_dict(state)
    whole = composed(root, tile_size=None)
    assert whole.rows_fingerprint == composed(root, ["imc"], tile_size=None).rows_fingerprint
    assert whole.rows_fingerprint != composed(root, ["he"], tile_size=None).rows_fingerprint


def test_a_square_of_a_tissue_that_is_not_there_is_refused_by_name(
    paired: tuple[Path, Pixels],
) -> None:
    root, _ = paired
    tile(root, tile_size=32, method="grid", resolution=1.0)
    dataset = ComposedImagingDataset(
        "cohort", path=root, resolution=1.0, tile_size=32, tile_strategy="grid"
    )
    with pytest.raises(UnknownNameError, match="no tissue 'nobody'"):
        dataset.get_composed_tile_by_coordinates("nobody", 0, 0)
