"""metadata/tissues.parquet: one row an image, others' columns kept, no row lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cohort import (
    CohortLayout,
    HEModality,
    IMCModality,
    ingest,
    read_tissues,
    tissue_row,
)
from microtome.errors import FormatError, InvalidInputError

RGB = np.random.default_rng(4).integers(0, 256, (60, 50, 3), dtype=np.uint8)

COLUMNS = {
    "tissue_id": pa.string(),
    "dataset": pa.string(),
    "patient_id": pa.string(),
    "specimen_id": pa.string(),
    "modality": pa.string(),
    "split": pa.string(),
    "mpp": pa.float64(),
    "mpp_source": pa.string(),
    "width": pa.int64(),
    "height": pa.int64(),
    "source": pa.string(),
    "sha256": pa.string(),
}


def add(root: Path, tissue_id: str, **options: Any) -> None:
    options = {"modality": "he", "mpp": 1.0, "axes": "yxc", **options}
    ingest(options.pop("pixels", RGB), cohort=root, tissue_id=tissue_id, **options)


def rows(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "metadata/tissues.parquet").to_pylist()


def test_columns_and_their_types(tmp_path: Path) -> None:
    add(tmp_path / "lung", "t", mpp=(0.5, 0.8), patient_id="p", specimen_id="s", split="train")
    table = pq.read_table(tmp_path / "lung/metadata/tissues.parquet")
    assert {field.name: field.type for field in table.schema} == COLUMNS
    (row,) = table.to_pylist()
    assert len(row.pop("sha256")) == 64
    assert row.pop("mpp") == pytest.approx((0.5 * 0.8) ** 0.5)
    assert row == {
        "tissue_id": "t",
        "dataset": "lung",
        "patient_id": "p",
        "specimen_id": "s",
        "modality": "he",
        "split": "train",
        "mpp_source": "user",
        "width": 50,
        "height": 60,
        "source": "array",
    }


def test_the_source_is_named_with_its_hash(tmp_path: Path) -> None:
    import hashlib

    import tifffile

    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", resolution=(10000, 10000), resolutionunit=3)
    ingest(path, cohort=tmp_path / "c", tissue_id="t", modality="he")
    (row,) = rows(tmp_path / "c")
    assert row["source"] == str(path)
    assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (row["mpp"], row["mpp_source"]) == (1.0, "tag")


def test_again_replaces_the_row_and_keeps_what_is_not_said(tmp_path: Path) -> None:
    add(tmp_path / "c", "t", patient_id="p", split="train")
    add(tmp_path / "c", "u")
    add(tmp_path / "c", "t", split="test")
    found = {row["tissue_id"]: row for row in rows(tmp_path / "c")}
    assert len(rows(tmp_path / "c")) == 2
    assert (found["t"]["patient_id"], found["t"]["split"]) == ("p", "test")
    assert (found["u"]["patient_id"], found["u"]["split"]) == (None, None)


def test_a_tissue_has_a_row_for_every_modality(tmp_path: Path) -> None:
    add(tmp_path / "c", "t", split="train")
    marker = {"axes": "cyx", "pixels": np.zeros((1, 60, 50), np.uint16), "channel_names": ["DNA"]}
    add(tmp_path / "c", "t", modality="imc", **marker)
    layout = CohortLayout.open(tmp_path / "c")
    assert len(rows(tmp_path / "c")) == 2
    he, imc = (tissue_row(layout, "t", kind) for kind in (HEModality(), IMCModality()))
    assert he is not None
    assert imc is not None
    assert (he["split"], imc["split"]) == ("train", None)
    assert tissue_row(layout, "u", HEModality()) is None


def replace_table(root: Path, table: pa.Table) -> None:
    pq.write_table(table, root / "metadata/tissues.parquet")


def test_clinical_columns_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "c"
    add(root, "t")
    table = pq.read_table(root / "metadata/tissues.parquet")
    table = table.append_column("Age", pa.array([61.5]))
    table = table.append_column("relapse", pa.array([True]))
    table = table.append_column("grade", pa.array(["G2"]).dictionary_encode())
    replace_table(root, table)
    add(root, "u")
    add(root, "t", split="test")
    found = {row["tissue_id"]: row for row in rows(root)}
    assert [found["t"][name] for name in ("Age", "relapse", "grade", "split")] == [
        61.5,
        True,
        "G2",
        "test",
    ]
    assert [found["u"][name] for name in ("Age", "relapse", "grade")] == [None, None, None]
    kinds = {f.name: f.type for f in pq.read_schema(root / "metadata/tissues.parquet")}
    assert kinds["Age"] == pa.float64()
    assert kinds["relapse"] == pa.bool_()


def test_a_table_that_pandas_wrote(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    root = tmp_path / "c"
    add(root, "t")
    path = root / "metadata/tissues.parquet"
    frame = pandas.read_parquet(path)
    frame["stage"] = pandas.Categorical(["II"])
    frame["patient_id"] = [7]  # a number where we write text
    frame.to_parquet(path)
    add(root, "u", patient_id="8")
    found = pandas.read_parquet(path).set_index("tissue_id")
    assert list(found["patient_id"]) == [7, 8]
    assert found["stage"].astype(object).to_numpy()[0] == "II"


def test_a_value_that_a_column_cannot_hold_is_named(tmp_path: Path) -> None:
    root = tmp_path / "c"
    add(root, "t")
    table = pq.read_table(root / "metadata/tissues.parquet")
    at = table.column_names.index("patient_id")
    replace_table(root, table.set_column(at, "patient_id", pa.array([7])))
    before = rows(root)
    with pytest.raises(InvalidInputError, match=r"patient_id.*int64.*'p-8'"):
        add(root, "u", patient_id="p-8")
    assert rows(root) == before


def test_a_tissue_twice_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "c"
    add(root, "t")
    table = pq.read_table(root / "metadata/tissues.parquet")
    replace_table(root, pa.concat_tables([table, table]))
    with pytest.raises(FormatError, match="'t' has 2 rows for modality 'he'"):
        read_tissues(CohortLayout.open(root))


@pytest.mark.parametrize("column", ["tissue_id", "modality"])
def test_a_table_without_its_key_is_an_error(tmp_path: Path, column: str) -> None:
    root = tmp_path / "c"
    add(root, "t")
    table = pq.read_table(root / "metadata/tissues.parquet")
    replace_table(root, table.drop_columns([column]))
    with pytest.raises(FormatError, match=column):
        read_tissues(CohortLayout.open(root))


def test_a_damaged_table_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "c"
    add(root, "t")
    path = root / "metadata/tissues.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match=r"tissues\.parquet"):
        read_tissues(CohortLayout.open(root))
    with pytest.raises(FormatError, match=r"tissues\.parquet"):
        add(root, "u")


def test_a_reader_beside_a_writer_always_sees_a_whole_table(tmp_path: Path) -> None:
    """Footer and pages are of one file, even where the path is another's a moment later."""
    layout = CohortLayout(tmp_path)
    layout.tissues.parent.mkdir(parents=True)
    beside = []
    for count in (3, 300, 30):
        beside.append(tmp_path / f"{count}.parquet")
        rows = [f"t{count}-{row}" for row in range(count)]
        pq.write_table(pa.table({"tissue_id": rows, "modality": ["he"] * count}), beside[-1])
    shutil.copy(beside[0], layout.tissues)

    def replace_it(turn: int) -> None:
        copy = tmp_path / f".{turn}"
        shutil.copy(beside[turn % len(beside)], copy)
        copy.replace(layout.tissues)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.map(replace_it, range(1000))
        lengths = {read_tissues(layout).num_rows for _ in range(500)}
        assert list(writing) == [None] * 1000
    assert lengths <= {3, 30, 300}


def test_a_cohort_that_has_just_begun_has_no_tissues(tmp_path: Path) -> None:
    table = read_tissues(CohortLayout.open_or_create(tmp_path))
    assert table.num_rows == 0
    assert set(table.column_names) == set(COLUMNS)


ONE_OF_MANY = """
import sys, numpy as np
from microtome.cohort import ingest
root, worker = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(worker)
for number in range(5):
    ingest(rng.integers(0, 256, (2, 30, 30)).astype(np.uint16), axes="cyx", mpp=1.0, cohort=root,
           tissue_id=f"t{worker}-{number}", modality="imc",
           channel_names=["shared", f"own{worker}"] if worker % 2 else [f"own{worker}", "shared"])
"""


def test_processes_that_ingest_at_once_lose_nothing(tmp_path: Path) -> None:
    # They begin the cohort together as well, and each brings a channel of its own.
    root = tmp_path / "c"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_MANY, str(root), str(worker)],
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for worker in range(4)
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=100)
        assert worker.returncode == 0, said.decode()
    assert {row["tissue_id"] for row in rows(root)} == {
        f"t{w}-{n}" for w in range(4) for n in range(5)
    }
    measured = pq.read_table(root / "imc/channels_per_tissue.parquet").to_pylist()
    assert len(measured) == 20
    panel = pq.read_table(root / "imc/channels.parquet").to_pylist()
    assert sorted(row["channel_name"] for row in panel) == [
        "own0",
        "own1",
        "own2",
        "own3",
        "shared",
    ]
    assert [row["index"] for row in panel] == list(range(5))
    order = [row["channel_name"] for row in panel]
    from microtome.image import MultiscaleImage

    for row in measured:
        names = [name for name in order if row[name]]
        stored = MultiscaleImage.open(
            root / "imc/1_0mpp/images" / f"{row['tissue_id']}.ome.zarr"
        ).channel_names
        assert names == list(stored or ())
        assert sorted(names) == sorted(["shared", f"own{row['tissue_id'][1]}"])
    leftovers = [path for path in root.rglob("*") if "partial" in path.name]
    assert leftovers == []
