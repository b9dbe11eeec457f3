"""`stats` reads no tissue twice, and what it keeps never stands for another image or mask."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.cohort import CohortLayout, ingest, read_tissue_mask, stats
from microtome.cohort.statistics._inside import TissuePixels
from microtome.coordinates import Resolution
from microtome.errors import FormatError, InvalidInputError
from microtome.image import MultiscaleImage
from microtome.jobs import process_pool
from microtome.standardize import StatisticsTables

CHANNELS = ["CD3", "DNA", "Ki67"]
ONE = Resolution.parse(1.0)
KEPT = "imc/1_0mpp/standardization/.counted"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tissues whose pixels are read."""
    found: list[str] = []
    blocks = TissuePixels.blocks

    def noted(self: TissuePixels) -> Any:
        found.append(self.tissue_id)
        return blocks(self)

    monkeypatch.setattr(TissuePixels, "blocks", noted)
    return found


def add(root: Path, write: Any, tissue_id: str, pixels: np.ndarray, **options: Any) -> None:
    ingest(
        pixels,
        axes="cyx",
        mpp=1.0,
        cohort=root,
        tissue_id=tissue_id,
        modality="imc",
        **({"channel_names": CHANNELS[: len(pixels)], "split": "train"} | options),
    )
    write(root, tissue_id, np.ones(pixels.shape[-2:], bool))


def tables_only(tree: dict[str, str]) -> dict[str, str]:
    return {name: found for name, found in tree.items() if ".counted" not in name}


def test_what_a_killed_writer_left_is_removed(imc: Any, tree: Any) -> None:
    root, _ = imc
    stats(root)
    before = tree(root)
    for tissue in ("a", "gone"):
        (root / KEPT / f".{tissue}.parquet.0123456789ab.partial").write_bytes(b"PAR1")
    stats(root, overwrite=True)
    assert tree(root) == before


def test_only_what_is_new_is_read(imc: Any, write: Any, seen: list[str], tree: Any) -> None:
    root, _ = imc
    stats(root)
    assert seen == ["a", "b", "c"]
    seen.clear()
    for options in (
        {"quantile": 0.5, "lower_quantile": 0.1},
        {"quantile_level": "global", "stats_level": "image"},
        {"quantile_level": "global", "overwrite": True},
        {"method": "quantile_clipping_log1p"},
        {"method": "arcsinh"},
        {"method": "minmax"},
        {"method": "zscore", "split": "test"},
        {"overwrite": True},
    ):
        stats(root, **options)
    assert seen == []
    pixels = np.random.default_rng(3).integers(0, 900, (3, 50, 60)).astype(np.uint16)
    add(root, write, "d", pixels)
    stats(root, overwrite=True)
    assert seen == ["d"]
    # The same tables, to the byte, as when nothing had been kept.
    before = tree(root)
    shutil.rmtree(root / KEPT)
    stats(root, overwrite=True)
    assert seen == ["d", "a", "b", "c", "d"]
    assert tables_only(tree(root)) == tables_only(before)


def test_a_tissue_is_read_again_when_it_changed(imc: Any, write: Any, seen: list[str]) -> None:
    root, sources = imc
    stats(root)
    seen.clear()
    write(root, "b", np.ones(sources["b"].shape[-2:], bool))
    (directory,) = stats(root, overwrite=True)
    assert seen == ["b"]
    expected = np.quantile(sources["b"].reshape(3, -1), 0.99, axis=1).astype(np.float32)
    assert (StatisticsTables.read(directory).upper.row("b", CHANNELS) == expected).all()  # type: ignore[union-attr]
    seen.clear()
    path = CohortLayout.open(root).image(_imc(), ONE, "a")
    with MultiscaleImage.open(path, "w") as image:
        image.level(0)[...] = sources["a"] // 2
    stats(root, overwrite=True)
    assert seen == ["a"]


def _imc() -> Any:
    from microtome.cohort import IMCModality

    return IMCModality()


@pytest.mark.parametrize("damage", ["cut", "other", "count"])
def test_what_is_kept_and_damaged_is_counted_anew(
    imc: Any, seen: list[str], tree: Any, damage: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root, _ = imc
    stats(root)
    before = tree(root)
    seen.clear()
    path = root / KEPT / "b.parquet"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "other":
        shutil.copyfile(root / KEPT / "a.parquet", path)
    else:
        table = pq.read_table(path)
        wrong = pa.array(np.zeros(len(table), np.int64))
        changed = table.set_column(table.column_names.index("count"), "count", wrong)
        pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    stats(root, overwrite=True)
    assert seen == ["b"]
    assert tree(root) == before


def test_a_channel_that_is_new_in_the_panel_reads_nothing_again(
    imc: Any, write: Any, seen: list[str]
) -> None:
    root, _ = imc
    stats(root)
    seen.clear()
    pixels = np.full((2, 30, 30), 7, np.uint16)
    add(root, write, "d", pixels, channel_names=["CD8", "DNA"])
    (directory,) = stats(root, overwrite=True)
    assert seen == ["d"]
    tables = StatisticsTables.read(directory)
    assert tables.upper is not None
    np.testing.assert_array_equal(tables.upper.row("d", [*CHANNELS, "CD8"]), [np.nan, 7, np.nan, 7])
    assert not np.isnan(tables.upper.row("a", CHANNELS)).any()


def test_a_tissue_that_left_leaves_nothing_behind(imc: Any) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    root, _ = imc
    stats(root)
    path = root / "metadata/tissues.parquet"
    table = pq.read_table(path)
    pq.write_table(table.filter(pc.not_equal(table["tissue_id"], "c")), path)
    stats(root, overwrite=True)
    assert sorted(entry.name for entry in (root / KEPT).iterdir()) == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize("level", ["image", "global"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("exact", [False, True])
def test_any_executor_makes_the_same_tables(
    tmp_path: Path, write: Any, tree: Any, level: Any, dtype: Any, exact: bool
) -> None:
    rng = np.random.default_rng(5)
    for name in "abcde":
        size = rng.integers(20, 60, 2)
        add(tmp_path, write, name, (rng.gamma(0.6, 90, (3, *size)) * 1.37).astype(dtype))
    options: dict[str, Any] = {
        "lower_quantile": 0.02,
        "quantile_level": level,
        "exact": exact,
        "overwrite": True,
    }
    stats(tmp_path, **options)
    before = tree(tmp_path)
    shutil.rmtree(tmp_path / KEPT, ignore_errors=True)
    with ThreadPoolExecutor(3) as executor:
        stats(tmp_path, executor=executor, **options)
    assert tree(tmp_path) == before


def test_processes_make_the_same_tables(imc: Any, tree: Any) -> None:
    root, _ = imc
    stats(root, quantile_level="global")
    before = tree(root)
    shutil.rmtree(root / KEPT)
    with process_pool(2) as executor:
        stats(root, quantile_level="global", overwrite=True, executor=executor)
    assert tree(root) == before


def test_the_manifest_says_what_was_fitted_on(imc: Any, tmp_path: Path) -> None:
    root, sources = imc
    (directory,) = stats(root, lower_quantile=0.01)
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["standardization"] == "quantile_clipping/uq_0.99_lq_0.01_image"
    assert (manifest["split"], manifest["fitted_on"]) == ("train", ["a", "b"])
    assert (manifest["quantile_level"], manifest["stats_level"]) == ("image", "global")
    assert (manifest["pixel_type"], manifest["relative_error"]) == ("uint16", 0.0)
    assert manifest["channels"] == CHANNELS
    layout = CohortLayout.open(root)
    for name, pixels in sources.items():
        said = manifest["tissues"][name]
        mask = read_tissue_mask(layout, ONE, name, pixels.shape[-2:])
        assert (said["pixels"], said["fitted"]) == (mask.sum(), name != "c")
    # The digest is of the pixels, not of the files: a copy elsewhere has the same.
    shutil.copytree(root, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere" / KEPT)
    (again,) = stats(tmp_path / "elsewhere", lower_quantile=0.01, overwrite=True)
    assert json.loads((again / "manifest.json").read_text()) == manifest
    digests = {said["counted"] for said in manifest["tissues"].values()}
    assert len(digests) == 3


def test_a_failing_tissue_fails_all_and_what_was_counted_stays(
    tmp_path: Path, write: Any, seen: list[str]
) -> None:
    good = np.random.default_rng(6).random((3, 40, 40), np.float32)
    bad = good.copy()
    bad[1, 5, 6] = np.nan
    add(tmp_path, write, "a", good)
    add(tmp_path, write, "b", bad)
    for _ in range(2):
        with pytest.raises(FormatError, match=r"tissue 'b'.*channel 1 is nan"):
            stats(tmp_path)
        assert not list(tmp_path.glob("imc/1_0mpp/standardization/*/*/*"))
    assert seen == ["a", "b", "b"]
    mask = np.ones((40, 40), bool)
    mask[5, 6] = False
    write(tmp_path, "b", mask)
    stats(tmp_path)


def test_nothing_to_fit_on_is_an_error(imc: Any, write: Any) -> None:
    root, sources = imc
    for name in "ab":
        write(root, name, np.zeros(sources[name].shape[-2:], bool))
    for level in ("image", "global"):
        for exact in (False, True):
            with pytest.raises(InvalidInputError, match=r"no pixel .*inside a mask \(a, b\)"):
                stats(root, quantile_level=level, exact=exact)  # type: ignore[arg-type]
