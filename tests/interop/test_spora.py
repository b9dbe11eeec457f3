"""Cohorts between spora_io and us: one as spora_io's tools write it opens, and our tables are theirs.

spora_io itself is not published, so its side is played by what it is built on: zarr-python for
images, `numpy.savez` for masks and pandas for tables, with the layout, dtypes and indices of its
published example data.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import microtome as mt

pytestmark = pytest.mark.interop

pd = pytest.importorskip("pandas", reason="pandas comes with the interop extra")
zarr = pytest.importorskip("zarr", reason="needs the interop extra")

PANEL = ["CD3", "CD8", "DNA1", "PanCK"]
MEASURED = {"t1": [True, True, True, True], "t2": [True, False, True, True]}
SHAPES = {"t1": (300, 260), "t2": (257, 301)}
TILES = {"t1": [(0, 0), (150, 100), (236, 196)], "t2": [(64, 64), (-8, 250)]}


def pixels_of(tissue):
    """Return the stored planes of a tissue, those of the measured channels in panel order."""
    rng = np.random.default_rng(len(tissue) + ord(tissue[-1]))
    count = sum(MEASURED[tissue])
    return rng.gamma(0.7, 9, (count, *SHAPES[tissue])).astype(np.float32)


def mask_of(tissue):
    rows, columns = np.indices(SHAPES[tissue])
    return np.hypot(rows - 140, columns - 130) < 120


def names_of(tissue):
    return [name for name, there in zip(PANEL, MEASURED[tissue], strict=True) if there]


def write_image(path, pixels, names):
    """Write one level as in spora_io's example data: all channels in one inner chunk, bit-shuffled."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [
                    {"name": "c", "type": "channel"},
                    {"name": "y", "type": "space", "unit": "micrometer"},
                    {"name": "x", "type": "space", "unit": "micrometer"},
                ],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}],
                    }
                ],
            }
        ],
        "omero": {"channels": [{"label": name} for name in names]},
    }
    array = group.create_array(
        "0",
        shape=pixels.shape,
        dtype=pixels.dtype,
        shards=(len(pixels), 1024, 1024),
        chunks=(len(pixels), 256, 256),
        compressors=zarr.codecs.BloscCodec(cname="lz4", clevel=3, shuffle="bitshuffle"),
        dimension_names=["c", "y", "x"],
    )
    array[...] = pixels


@pytest.fixture
def foreign(tmp_path):
    """A cohort without cohort.json, every file written by zarr-python, numpy or pandas."""
    root = tmp_path / "study"
    imc, metadata = root / "imc", root / "metadata"
    masks = root / "segmentations" / "1_0mpp" / "tissue_masks"
    tiling = root / "tiling" / "1_0mpp" / "default"
    for folder in (imc / "1_0mpp" / "images", metadata, masks, tiling):
        folder.mkdir(parents=True)
    tissues = pd.DataFrame(
        {
            "tissue_id": ["t1", "t2"],
            "dataset": "study",
            "patient_id": ["p1", "p2"],
            "specimen_id": ["s1", "s2"],
            "modality": "imc",
            "alignment": [None, None],
            "split": ["train", "test"],
            "Age": [61.0, np.nan],
            "cancer_type": ["LUAD", None],
        }
    )
    tissues.to_parquet(metadata / "tissues.parquet")
    panel = pd.DataFrame(
        {
            "channel_name": PANEL,
            "qc_pass": [True, True, True, False],
            "uniprot_id": ["P07766", "P01732", None, "A0A024R161"],
            "is_nuclear_marker": [False, False, True, False],
        }
    )
    panel.to_parquet(imc / "channels.parquet")
    measured = pd.DataFrame(MEASURED, index=PANEL).T.rename_axis("tissue_id")
    measured.to_parquet(imc / "channels_per_tissue.parquet")
    for tissue in MEASURED:
        path = imc / "1_0mpp" / "images" / f"{tissue}.ome.zarr"
        write_image(path, pixels_of(tissue), names_of(tissue))
        np.savez_compressed(masks / f"{tissue}.npz", mask=mask_of(tissue))
    tiles = [(t, i, row, col) for t in TILES for i, (row, col) in enumerate(TILES[t])]
    frame = pd.DataFrame(tiles, columns=["tissue_id", "tile_id", "row", "col"])
    frame.to_parquet(tiling / "64_tile_coordinates.parquet")
    return root


def write_statistics(root):
    """Write standardization tables as published: quantiles of each image, moments of all."""
    folder = root / "imc" / "1_0mpp" / "standardization" / "quantile_clipping" / "uq_0.99_image"
    folder.mkdir(parents=True)
    upper = pd.DataFrame(np.float32(np.nan), index=list(MEASURED), columns=PANEL)
    upper = upper.astype(np.float32).rename_axis("tissue_id")
    for tissue in MEASURED:
        inside = pixels_of(tissue)[:, mask_of(tissue)]
        upper.loc[tissue, names_of(tissue)] = np.quantile(inside, 0.99, axis=1).astype(np.float32)
    means = pd.DataFrame([[0.21, 0.22, 0.23, 0.24]], columns=PANEL, dtype=np.float32)
    stds = pd.DataFrame([[0.11, 0.12, 0.13, 0.14]], columns=PANEL, dtype=np.float32)
    upper.to_parquet(folder / "image_level_upper_quantiles.parquet")
    means.to_parquet(folder / "global_level_means.parquet")
    stds.to_parquet(folder / "global_level_stds.parquet")
    return upper, means.iloc[0], stds.iloc[0]


# ---------------------------------------------------------------- theirs, opened by us


@pytest.mark.parametrize("tissue", list(MEASURED))
def test_an_image_of_theirs_opens(foreign, digest, tissue):
    before = digest(foreign)
    image = mt.open_image(foreign / "imc" / "1_0mpp" / "images" / f"{tissue}.ome.zarr")
    assert image.level_count == 1
    assert image.axes == "cyx"
    assert image.channel_names == tuple(names_of(tissue))
    assert (image.mpp.y, image.mpp.x, image.mpp.source) == (1.0, 1.0, "metadata")
    np.testing.assert_array_equal(image.level(0)[...], pixels_of(tissue))
    assert digest(foreign) == before


def test_tiles_of_their_cohort_are_standardized_by_their_tables(foreign, digest):
    pytest.importorskip("torch", reason="tiles are tensors")
    upper, means, stds = write_statistics(foreign)
    before = digest(foreign)
    dataset = mt.MultiplexImagingDataset(
        "study",
        "imc",
        standardization="quantile_clipping/uq_0.99_image",
        path=foreign,
        tile_size=64,
    )
    assert dataset.get_tissue_ids().tolist() == ["t1", "t2"]
    assert len(dataset) == 5
    for tissue, corners in TILES.items():
        names = names_of(tissue)
        assert dataset.get_channel_names(tissue, "complete").tolist() == names
        np.testing.assert_array_equal(dataset.get_tissue_mask(tissue).mask, mask_of(tissue))
        u = upper.loc[tissue, names].to_numpy()[:, None, None].astype(np.float64)
        m, s = (v[names].to_numpy()[:, None, None].astype(np.float64) for v in (means, stds))
        whole = (np.clip(pixels_of(tissue), 0, u) / (u + 1e-8) - m) / (s + 1e-8)
        padded = np.pad(whole, [(0, 0), (64, 64), (64, 64)])
        for tile, (row, col) in enumerate(corners):
            found = dataset.get_tile(tissue, tile, "complete")
            expected = padded[:, row + 64 : row + 128, col + 64 : col + 128]
            np.testing.assert_allclose(found.image.numpy(), expected, rtol=2e-5, atol=2e-5)
            assert found.measured_mask.tolist() == MEASURED[tissue]
    assert digest(foreign) == before


def test_their_splits_and_channel_kinds(foreign):
    dataset = mt.MultiplexImagingDataset(
        "study", "imc", standardization="identity", path=foreign, split="test"
    )
    assert dataset.get_tissue_ids().tolist() == ["t2"]
    assert dataset.tissue_modality_metadata.column("patient_id").to_pylist() == ["p2"]
    assert dataset.get_channel_names("t2", "qc_filtered").tolist() == ["CD3", "DNA1"]
    assert dataset.get_channel_names("t2", "uniprot_filtered").tolist() == ["CD3"]


# ---------------------------------------------------------------- ours, read by pandas


def ingest(root, tissue, pixels_from, names, **columns):
    mt.ingest(
        pixels_of(pixels_from),
        cohort=root,
        tissue_id=tissue,
        modality="imc",
        mpp=1.0,
        axes="cyx",
        channel_names=names,
        **columns,
    )


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A cohort of two tissues with different panels, written by our verbs only."""
    root = tmp_path_factory.mktemp("ours") / "study"
    masks = root / "segmentations" / "1_0mpp" / "tissue_masks"
    for tissue, split in (("t1", "train"), ("t2", "test")):
        ingest(root, tissue, tissue, names_of(tissue), patient_id=f"p{tissue[-1]}", split=split)
        masks.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(masks / f"{tissue}.npz", mask=mask_of(tissue))
    mt.tile(root, tile_size=64)
    mt.tile(root, tile_size=(32, 48), method="grid")
    mt.stats(root, quantile=0.99, quantile_level="image", stats_level="global", exact=True)
    mt.stats(root, quantile=0.95, quantile_level="global", stats_level="image", exact=True)
    return root


def is_text(column):
    return pd.api.types.is_string_dtype(column) and not isinstance(
        column.dtype, pd.CategoricalDtype
    )


def is_default(index):
    return isinstance(index, pd.RangeIndex) and index.name is None


def test_tissues(ours):
    frame = pd.read_parquet(ours / "metadata" / "tissues.parquet")
    assert is_default(frame.index)
    text = ("tissue_id", "dataset", "patient_id", "modality", "split", "mpp_source", "sha256")
    assert all(is_text(frame[name]) for name in text)
    assert frame["tissue_id"].tolist() == ["t1", "t2"]
    assert frame["modality"].tolist() == ["imc", "imc"]
    assert frame["patient_id"].tolist() == ["p1", "p2"]
    assert frame["split"].tolist() == ["train", "test"]
    assert frame["dataset"].tolist() == ["study", "study"]
    assert frame["specimen_id"].isna().all()
    assert frame["mpp"].dtype == np.float64
    assert frame[["height", "width"]].dtypes.tolist() == [np.int64, np.int64]
    assert [tuple(row) for row in frame[["height", "width"]].to_numpy()] == list(SHAPES.values())


def test_tables_that_were_edited_with_pandas_take_more_rows(ours, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(ours, root)
    tissues, panel = root / "metadata" / "tissues.parquet", root / "imc" / "channels.parquet"
    measured = root / "imc" / "channels_per_tissue.parquet"
    frame = pd.read_parquet(tissues)
    frame.assign(Age=[61.0, 48.0], cancer_type=["LUAD", None]).to_parquet(tissues)
    frame = pd.read_parquet(panel)
    accessions = ["P07766", "P01732", None, "P05787"]
    frame.assign(uniprot_id=accessions, qc_pass=[True, True, True, False]).to_parquet(panel)
    pd.read_parquet(measured).to_parquet(measured)
    ingest(root, "t3", "t2", ["Ki67", *names_of("t2")[1:]])

    frame = pd.read_parquet(tissues)
    assert frame["tissue_id"].tolist() == ["t1", "t2", "t3"]
    assert frame["Age"].tolist()[:2] == [61.0, 48.0]
    assert frame["cancer_type"].tolist()[0] == "LUAD"
    assert frame.loc[2, ["Age", "cancer_type"]].isna().all()
    frame = pd.read_parquet(panel)
    assert is_default(frame.index)
    assert frame["channel_name"].tolist() == [*PANEL, "Ki67"]
    assert frame["qc_pass"].tolist() == [True, True, True, False, True]
    assert [None if pd.isna(a) else a for a in frame["uniprot_id"]] == [*accessions, None]
    frame = pd.read_parquet(measured)
    assert frame.index.tolist() == ["t1", "t2", "t3"]
    assert frame.columns.tolist() == [*PANEL, "Ki67"]
    assert frame.loc["t3"].tolist() == [False, False, True, True, True]
    assert not frame.loc[["t1", "t2"], "Ki67"].any()
    assert set(frame.dtypes) == {np.dtype(bool)}


def test_a_tissue_can_be_added_to_their_cohort(foreign):
    before = {path: pd.read_parquet(path) for path in foreign.rglob("*.parquet")}
    # Given in another order than the panel's, in which its planes must be stored.
    ingest(foreign, "t3", "t2", ["PanCK", "DNA1", "CD3"])
    for path, old in before.items():
        new = pd.read_parquet(path)
        kept = new.loc[old.index, old.columns]
        pd.testing.assert_frame_equal(kept, old, check_dtype=False)
    image = mt.open_image(foreign / "imc" / "1_0mpp" / "images" / "t3.ome.zarr")
    assert image.channel_names == ("CD3", "DNA1", "PanCK")
    np.testing.assert_array_equal(image.level(0)[...], pixels_of("t2")[::-1])
    measured = pd.read_parquet(foreign / "imc" / "channels_per_tissue.parquet")
    assert measured.loc["t3"].tolist() == [True, False, True, True]


def test_channels(ours):
    frame = pd.read_parquet(ours / "imc" / "channels.parquet")
    assert is_default(frame.index)
    assert frame["channel_name"].tolist() == PANEL
    assert is_text(frame["channel_name"])
    assert frame["index"].tolist() == [0, 1, 2, 3]
    assert frame[["qc_pass", "is_nuclear_marker"]].dtypes.tolist() == [np.dtype(bool)] * 2
    assert frame["qc_pass"].all()
    assert frame["uniprot_id"].isna().all()


def test_channels_per_tissue(ours):
    frame = pd.read_parquet(ours / "imc" / "channels_per_tissue.parquet")
    assert frame.index.name == "tissue_id"
    # spora_io takes its columns for the rows of the panel, in order.
    assert frame.columns.tolist() == PANEL
    assert set(frame.dtypes) == {np.dtype(bool)}
    for tissue, measured in MEASURED.items():
        assert frame.loc[tissue].tolist() == measured


@pytest.mark.parametrize(
    ("place", "size"), [("default/64", (64, 64)), ("grid/32x48", (32, 48))], ids=["cover", "grid"]
)
def test_tile_coordinates(ours, place, size):
    frame = pd.read_parquet(ours / "tiling" / "1_0mpp" / f"{place}_tile_coordinates.parquet")
    assert is_default(frame.index)
    assert frame.columns.tolist()[:4] == ["tissue_id", "tile_id", "row", "col"]
    assert is_text(frame["tissue_id"])
    assert frame[["tile_id", "row", "col"]].dtypes.tolist() == [np.int64] * 3
    for tissue, tiles in frame.groupby("tissue_id"):
        assert tiles["tile_id"].tolist() == list(range(len(tiles)))
        mask = np.pad(mask_of(tissue), [(0, size[0]), (0, size[1])])
        for row, col in tiles[["row", "col"]].itertuples(index=False):
            # The tolerance of both methods: at most 85 % of a tile is background.
            window = mask[row : row + size[0], col : col + size[1]]
            assert window.mean() >= 0.15 - 1e-12
    assert set(frame["tissue_id"]) == {"t1", "t2"}


TILE_STATS = {
    "mask_height": np.int64,
    "mask_width": np.int64,
    "tissue_mask_frac": np.float64,
    "num_tiles": np.int64,
    "coverage_ratio": np.float64,
    "covered_valid_pixels": np.int64,
    "total_valid_pixels": np.int64,
    "candidate_count": np.int64,
    "tile_size": np.int64,
    "stride": np.int64,
    "tolerance": np.float64,
    "coverage_goal": np.float64,
    "min_gain_ratio": np.float64,
}


def test_tile_stats(ours):
    folder = ours / "tiling" / "1_0mpp" / "default"
    frame = pd.read_parquet(folder / "64_tile_stats.parquet")
    tiles = pd.read_parquet(folder / "64_tile_coordinates.parquet")
    assert frame.index.name == "tissue_id"
    assert frame.index.tolist() == ["t1", "t2"]
    assert {name: frame[name].dtype for name in TILE_STATS} == TILE_STATS
    assert is_text(frame["stop_reason"])
    assert is_text(frame["tiling_method"])
    for tissue in MEASURED:
        mask, row = mask_of(tissue), frame.loc[tissue]
        covered = np.zeros_like(np.pad(mask, 64))
        for top, left in tiles.loc[tiles["tissue_id"] == tissue, ["row", "col"]].to_numpy():
            covered[top + 64 : top + 128, left + 64 : left + 128] = True
        covered = covered[64:-64, 64:-64] & mask
        assert (row["mask_height"], row["mask_width"]) == mask.shape
        assert row["num_tiles"] == (tiles["tissue_id"] == tissue).sum()
        assert row["total_valid_pixels"] == mask.sum()
        assert row["covered_valid_pixels"] == covered.sum()
        assert row["coverage_ratio"] == pytest.approx(covered.sum() / mask.sum(), rel=1e-12)
        assert row["tissue_mask_frac"] == pytest.approx(mask.mean(), rel=1e-12)


def test_tile_stats_of_a_grid(ours):
    frame = pd.read_parquet(ours / "tiling" / "1_0mpp" / "grid" / "32x48_tile_stats.parquet")
    assert frame.index.tolist() == ["t1", "t2"]
    extra = ["grid_candidate_count", "padded_height", "padded_width"]
    assert frame[extra].dtypes.tolist() == [np.int64] * 3
    assert frame["stop_reason"].tolist() == ["fixed_grid_complete"] * 2


def clipped(tissue, upper):
    """Return the transformed pixels inside the mask, (C, n)."""
    inside = pixels_of(tissue)[:, mask_of(tissue)].astype(np.float64)
    u = np.asarray(upper, np.float64)[:, None]
    return np.clip(inside, 0, u) / (u + 1e-8)


def test_standardization_with_quantiles_of_each_image(ours):
    folder = ours / "imc" / "1_0mpp" / "standardization" / "quantile_clipping" / "uq_0.99_image"
    upper = pd.read_parquet(folder / "image_level_upper_quantiles.parquet")
    assert upper.index.name == "tissue_id"
    assert upper.index.tolist() == ["t1", "t2"]
    assert upper.columns.tolist() == PANEL
    assert set(upper.dtypes) == {np.dtype(np.float32)}
    for tissue in MEASURED:
        inside = pixels_of(tissue)[:, mask_of(tissue)]
        expected = np.quantile(inside.astype(np.float64), 0.99, axis=1)
        np.testing.assert_allclose(upper.loc[tissue, names_of(tissue)], expected, rtol=1e-6)
    assert np.isnan(upper.loc["t2", "CD8"])
    # Over the training split, which is t1 alone.
    values = clipped("t1", upper.loc["t1"])
    for name, expected in (("means", values.mean(axis=1)), ("stds", values.std(axis=1))):
        frame = pd.read_parquet(folder / f"global_level_{name}.parquet")
        assert is_default(frame.index)
        assert frame.shape == (1, 4)
        assert frame.columns.tolist() == PANEL
        assert set(frame.dtypes) == {np.dtype(np.float32)}
        np.testing.assert_allclose(frame.iloc[0], expected, rtol=1e-5)


def test_standardization_with_quantiles_of_all(ours):
    folder = ours / "imc" / "1_0mpp" / "standardization" / "quantile_clipping" / "uq_0.95_global"
    upper = pd.read_parquet(folder / "global_level_upper_quantiles.parquet")
    assert is_default(upper.index)
    assert upper.columns.tolist() == PANEL
    inside = pixels_of("t1")[:, mask_of("t1")].astype(np.float64)
    np.testing.assert_allclose(upper.iloc[0], np.quantile(inside, 0.95, axis=1), rtol=1e-6)
    for name in ("means", "stds"):
        frame = pd.read_parquet(folder / f"image_level_{name}.parquet")
        assert frame.index.name == "tissue_id"
        assert frame.index.tolist() == ["t1", "t2"]
        for tissue in MEASURED:
            names = names_of(tissue)
            values = clipped(tissue, upper.iloc[0][names])
            expected = values.mean(axis=1) if name == "means" else values.std(axis=1)
            np.testing.assert_allclose(frame.loc[tissue, names], expected, rtol=1e-5)
        assert np.isnan(frame.loc["t2", "CD8"])


def test_an_image_of_ours_reads_as_spora_io_reads_it(ours):
    """By path "0" and without looking at any metadata; planes are the measured channels."""
    measured = pd.read_parquet(ours / "imc" / "channels_per_tissue.parquet")
    for tissue in MEASURED:
        path = ours / "imc" / "1_0mpp" / "images" / f"{tissue}.ome.zarr"
        array = zarr.open(path, mode="r")["0"]
        assert array.shape[0] == measured.loc[tissue].sum()
        np.testing.assert_array_equal(array[...], pixels_of(tissue))
