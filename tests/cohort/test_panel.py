"""Which channels a cohort knows, which of them a tissue measured, and in what order they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cohort import (
    CohortLayout,
    IMCModality,
    ingest,
    measured_channels,
    panel,
    validate,
)
from microtome.cohort.ingestion import _ingest
from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    UnknownNameError,
)
from microtome.image import MultiscaleImage

IMC = IMCModality()


def pixels(channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 999, (channels, 40, 30)).astype(np.uint16)


def add(root: Path, tissue_id: str, names: list[str], seed: int = 0, **options: Any) -> np.ndarray:
    source = pixels(len(names), seed)
    ingest(
        source,
        axes="cyx",
        mpp=1.0,
        cohort=root,
        tissue_id=tissue_id,
        modality="imc",
        channel_names=names,
        **options,
    )
    return source


def stored(root: Path, tissue_id: str) -> MultiscaleImage:
    return MultiscaleImage.open(root / "imc/1_0mpp/images" / f"{tissue_id}.ome.zarr")


def test_a_panel_grows_at_its_end(tmp_path: Path) -> None:
    add(tmp_path, "a", ["CD3", "DNA"])
    add(tmp_path, "b", ["Ki67", "CD3", "CD8"])
    layout = CohortLayout.open(tmp_path)
    table = panel(layout, IMC)
    assert {f.name: f.type for f in table.schema} == {
        "channel_name": pa.string(),
        "index": pa.int64(),
        "uniprot_id": pa.string(),
        "qc_pass": pa.bool_(),
        "is_nuclear_marker": pa.bool_(),
    }
    assert table["channel_name"].to_pylist() == ["CD3", "DNA", "Ki67", "CD8"]
    assert table["index"].to_pylist() == [0, 1, 2, 3]
    assert measured_channels(layout, IMC, "a") == ["CD3", "DNA"]
    assert measured_channels(layout, IMC, "b") == ["CD3", "Ki67", "CD8"]


def test_planes_are_stored_in_the_order_of_the_panel(tmp_path: Path) -> None:
    first = add(tmp_path, "a", ["CD3", "DNA", "Ki67"])
    second = add(tmp_path, "b", ["Ki67", "CD3", "DNA"], seed=1)
    np.testing.assert_array_equal(stored(tmp_path, "a").level(0)[...], first)
    image = stored(tmp_path, "b")
    assert image.channel_names == ("CD3", "DNA", "Ki67")
    np.testing.assert_array_equal(image.level(0)[...], second[[1, 2, 0]])


def test_tissues_in_pandas_index(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    add(tmp_path, "a", ["CD3", "DNA"])
    add(tmp_path, "b", ["Ki67", "CD3"])
    frame = pandas.read_parquet(tmp_path / "imc/channels_per_tissue.parquet")
    assert frame.index.name == "tissue_id"
    assert list(frame.index) == ["a", "b"]
    assert list(frame.columns) == ["CD3", "DNA", "Ki67"]
    assert {str(dtype) for dtype in frame.dtypes} == {"bool"}
    assert frame.to_numpy().tolist() == [[True, True, False], [True, False, True]]
    panel_frame = pandas.read_parquet(tmp_path / "imc/channels.parquet")
    assert list(panel_frame["channel_name"]) == list(frame.columns)


def test_tables_that_pandas_wrote_are_grown(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    add(tmp_path, "a", ["CD3", "DNA"])
    for name in ("channels", "channels_per_tissue"):
        path = tmp_path / f"imc/{name}.parquet"
        frame = pandas.read_parquet(path)
        if name == "channels":
            frame["description"] = ["T cells", "Nuclei"]
            frame["uniprot_id"] = ["P07766", None]
        else:
            frame["batch"] = [3]
            frame["site"] = ["Zurich"]
            frame.index.name = None  # as spora_io's tables have it
        frame.to_parquet(path)
    add(tmp_path, "b", ["CD8", "DNA"])
    layout = CohortLayout.open(tmp_path)
    assert measured_channels(layout, IMC, "a") == ["CD3", "DNA"]
    assert measured_channels(layout, IMC, "b") == ["DNA", "CD8"]
    frame = pandas.read_parquet(layout.channels(IMC))
    assert list(frame["channel_name"]) == ["CD3", "DNA", "CD8"]
    assert list(frame["description"])[:2] == ["T cells", "Nuclei"]
    assert frame["uniprot_id"][0] == "P07766"
    frame = pandas.read_parquet(layout.channels_per_tissue(IMC))
    assert list(frame.index) == ["a", "b"]
    assert list(frame.columns) == ["CD3", "DNA", "CD8", "batch", "site"]
    assert frame.loc["a", "batch"] == 3
    assert frame.loc["a", "site"] == "Zurich"


def test_a_tissue_measured_again_with_other_channels(tmp_path: Path) -> None:
    add(tmp_path, "a", ["CD3", "DNA"])
    source = add(tmp_path, "a", ["CD8", "CD3"], seed=5, overwrite=True)
    layout = CohortLayout.open(tmp_path)
    assert measured_channels(layout, IMC, "a") == ["CD3", "CD8"]
    assert pq.read_table(layout.channels_per_tissue(IMC)).num_rows == 1
    image = stored(tmp_path, "a")
    assert image.channel_names == ("CD3", "CD8")
    np.testing.assert_array_equal(image.level(0)[...], source[[1, 0]])


def test_a_panel_that_was_put_in_another_order_reorders_the_image(tmp_path: Path) -> None:
    source = add(tmp_path, "a", ["CD3", "DNA"])
    layout = CohortLayout.open(tmp_path)
    table = panel(layout, IMC)
    pq.write_table(table.take([1, 0]), layout.channels(IMC))
    add(tmp_path, "a", ["CD3", "DNA"])
    image = stored(tmp_path, "a")
    assert image.channel_names == ("DNA", "CD3")
    np.testing.assert_array_equal(image.level(0)[...], source[[1, 0]])


def test_a_panel_that_grows_while_an_image_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another process brings the same new channels in another order before this one notes its own.
    write = _ingest._write
    interrupted: list[str] = []

    def write_then_lose_the_race(*args: Any) -> None:
        write(*args)
        if not interrupted:
            interrupted.append("b")
            add(tmp_path, "b", ["Y", "X"], seed=2)

    monkeypatch.setattr(_ingest, "_write", write_then_lose_the_race)
    source = add(tmp_path, "a", ["X", "Y"], seed=1)
    layout = CohortLayout.open(tmp_path)
    order = panel(layout, IMC)["channel_name"].to_pylist()
    assert sorted(order) == ["X", "Y"]
    for tissue_id, found in (("a", source), ("b", pixels(2, 2))):
        names = stored(tmp_path, tissue_id).channel_names
        assert list(names or ()) == order == measured_channels(layout, IMC, tissue_id)
        given = ["X", "Y"] if tissue_id == "a" else ["Y", "X"]
        expected = found[[given.index(name) for name in order]]
        np.testing.assert_array_equal(stored(tmp_path, tissue_id).level(0)[...], expected)


def test_nothing_is_noted_of_an_image_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Any
) -> None:
    add(tmp_path, "a", ["CD3"])
    before = tree(tmp_path)

    def fail(*args: Any) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(_ingest, "_write", fail)
    with pytest.raises(StorageError, match="no space"):
        add(tmp_path, "b", ["CD8", "DNA"])
    assert tree(tmp_path) == before


# -- what is missing is an error, never made up


def test_a_tissue_that_the_table_does_not_speak_of(tmp_path: Path) -> None:
    add(tmp_path, "a", ["CD3"])
    with pytest.raises(UnknownNameError, match="0 rows for tissue 'b'"):
        measured_channels(CohortLayout.open(tmp_path), IMC, "b")


def test_without_the_table_nobody_says_that_all_were_measured(tmp_path: Path) -> None:
    add(tmp_path, "a", ["CD3"])
    layout = CohortLayout.open(tmp_path)
    layout.channels_per_tissue(IMC).unlink()
    with pytest.raises(NotFoundError, match="channels_per_tissue"):
        measured_channels(layout, IMC, "a")


def test_a_panel_channel_without_a_column(tmp_path: Path) -> None:
    add(tmp_path, "a", ["CD3", "DNA"])
    layout = CohortLayout.open(tmp_path)
    path = layout.channels_per_tissue(IMC)
    pq.write_table(pq.read_table(path).drop_columns(["DNA"]), path)
    with pytest.raises(FormatError, match="DNA"):
        measured_channels(layout, IMC, "a")


def test_a_table_without_tissues(tmp_path: Path) -> None:
    add(tmp_path, "a", ["CD3"])
    layout = CohortLayout.open(tmp_path)
    path = layout.channels_per_tissue(IMC)
    pq.write_table(pq.read_table(path).drop_columns(["tissue_id"]), path)
    with pytest.raises(FormatError, match="tissue_id"):
        measured_channels(layout, IMC, "a")
    with pytest.raises(FormatError, match="tissue_id"):
        add(tmp_path, "b", ["CD3"])


def test_no_panel(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"channels\.parquet"):
        panel(CohortLayout.open_or_create(tmp_path), IMC)


@pytest.mark.parametrize("names", [None, ["channel 0", "channel 1"]])
def test_channels_without_names_join_no_panel(tmp_path: Path, names: list[str] | None) -> None:
    with pytest.raises(InvalidInputError, match="--channel"):
        ingest(
            pixels(2),
            axes="cyx",
            mpp=1.0,
            cohort=tmp_path / "c",
            tissue_id="a",
            modality="imc",
            channel_names=names,
        )
    assert not (tmp_path / "c").exists()


def test_one_name_twice(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"\['CD3'\] occur more than once"):
        add(tmp_path / "c", "a", ["CD3", "CD3"])
    assert not (tmp_path / "c").exists()


def test_a_single_plane_has_one_channel_of_the_given_name(tmp_path: Path) -> None:
    plane = pixels(1)[0]
    ingest(
        plane,
        mpp=1.0,
        cohort=tmp_path,
        tissue_id="a",
        modality="mibi",
        channel_names=["HH3"],
    )
    image = MultiscaleImage.open(tmp_path / "mibi/1_0mpp/images/a.ome.zarr")
    assert image.channel_names == ("HH3",)
    np.testing.assert_array_equal(image.level(0)[...], plane[None])


@pytest.mark.parametrize("axes", ["zyx", "tyx", "czyx"])
def test_stacks_are_refused(tmp_path: Path, axes: str) -> None:
    with pytest.raises(InvalidInputError, match="single planes"):
        ingest(
            np.zeros((2,) * (len(axes) - 2) + (30, 30), np.uint16),
            axes=axes,
            mpp=1.0,
            cohort=tmp_path / "c",
            tissue_id="a",
            modality="imc",
            channel_names=["a", "b"],
        )
    assert not (tmp_path / "c").exists()


def test_a_channel_that_is_spelled_in_two_ways_is_told_with_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.arange(2 * 40 * 40, dtype=np.uint16).reshape(2, 40, 40)
    told = []
    for tissue, names in (
        ("a", ["Ki-67", "DAPI_1_1"]),
        ("b", ["KI67", "DAPI_11"]),
        ("c", ["Ki-67", "CD8"]),
    ):
        caplog.clear()
        ingest(
            pixels,
            axes="cyx",
            cohort=tmp_path / "c",
            tissue_id=tissue,
            modality="imc",
            mpp=1.0,
            channel_names=names,
        )
        told.append([r.getMessage() for r in caplog.records if "spelled alike" in r.getMessage()])
    first, second, third = told
    assert (first, third) == ([], [])
    (message,) = second
    assert "has 'Ki-67' and 'KI67' as channels of their own" in message
    found = [f for f in validate(tmp_path / "c") if f.kind == "channel-spelling"]
    assert [f.what.partition(": ")[2] for f in found] == ["Ki-67, KI67"]
