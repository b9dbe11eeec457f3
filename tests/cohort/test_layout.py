"""Names that become paths, modalities, resolutions, and what is a cohort."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.cohort import (
    CODEXModality,
    CohortLayout,
    CycIFModality,
    HEModality,
    IHCModality,
    IMCModality,
    MIBIModality,
    Modality,
    StainsModality,
    _modality,
    check_tissue_id,
    ingest,
    modality_names,
    parse_modality,
    register_modality,
)
from microtome.coordinates import Resolution
from microtome.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    UnknownNameError,
)

ONE = Resolution.parse(1.0)


@pytest.mark.parametrize(
    "name", ["a", "A1", "_hidden", "slide-1.v2", "x" * 200, "0", "a..b", "TCGA-AA-3518-01Z.1"]
)
def test_tissue_ids(name: str) -> None:
    assert check_tissue_id(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-v",
        "a/b",
        "../a",
        "/etc/passwd",
        "a\\b",
        "a b",
        "a\n",
        "a\0",
        "tissü",
        "組織",
        "a*",
        "a?",
        "[a]",
        "~",
        "$HOME",
        "x" * 201,
        "a:b",
    ],
)
def test_what_is_no_tissue_id(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="becomes part of a path"):
        check_tissue_id(name)
    with pytest.raises(InvalidInputError, match="becomes part of a path"):
        ingest(
            np.zeros((9, 9, 3), np.uint8),
            axes="yxc",
            mpp=1.0,
            cohort=tmp_path / "cohort",
            tissue_id=name,
            modality="he",
        )
    assert list(tmp_path.iterdir()) == []


@given(name=st.text(max_size=30))
def test_no_tissue_id_leaves_its_directory(name: str) -> None:
    layout = CohortLayout(Path("/cohort"))
    try:
        path = layout.image(HEModality(), ONE, name)
    except InvalidInputError:
        return
    assert path.parent == Path("/cohort/he/1_0mpp/images")
    assert path.name == f"{name}.ome.zarr"
    assert path.resolve() == path
    assert not name.startswith((".", "-"))


@pytest.mark.parametrize("name", ["a\n", "../x", "", "a/b", "x" * 201])
def test_strategies_and_models_are_plain_names_too(name: str) -> None:
    layout = CohortLayout(Path("/cohort"))
    with pytest.raises(InvalidInputError, match="strategy"):
        layout.tile_coordinates(ONE, name, "224")
    with pytest.raises(InvalidInputError, match="model"):
        layout.predictions(ONE, name)


def test_paths_are_those_of_the_seed() -> None:
    layout = CohortLayout(Path("/c"))
    ihc = parse_modality("ihc_CD3")
    imc = parse_modality("imc")
    fine = Resolution.parse(0.65)
    found = [
        layout.tissues,
        layout.channels(imc),
        layout.channels_per_tissue(imc),
        layout.image(HEModality(), ONE, "t"),
        layout.image(ihc, fine, "t"),
        layout.standardization(imc, ONE),
        layout.tissue_mask(ONE, "t"),
        layout.tile_coordinates(ONE, "default", "224"),
        layout.tile_stats(ONE, "grid", "224x112"),
    ]
    assert [path.as_posix() for path in found] == [
        "/c/metadata/tissues.parquet",
        "/c/imc/channels.parquet",
        "/c/imc/channels_per_tissue.parquet",
        "/c/he/1_0mpp/images/t.ome.zarr",
        "/c/ihc/ihc_CD3/0_65mpp/images/t.ome.zarr",
        "/c/imc/1_0mpp/standardization",
        "/c/segmentations/1_0mpp/tissue_masks/t.ome.zarr",
        "/c/tiling/1_0mpp/default/224_tile_coordinates.parquet",
        "/c/tiling/1_0mpp/grid/224x112_tile_stats.parquet",
    ]


# -- modalities


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("he", HEModality()),
        ("HE", HEModality()),
        ("H&E", HEModality()),
        ("imc", IMCModality()),
        ("codex", CODEXModality()),
        ("PhenoCycler", CODEXModality()),
        ("cycif", CycIFModality()),
        ("mibi", MIBIModality()),
        ("stains", StainsModality()),
        ("ihc_CD3", IHCModality("CD3")),
        ("ihc_PD-L1", IHCModality("ihc_PD-L1")),
    ],
)
def test_names_of_modalities(name: str, expected: Modality) -> None:
    parsed = parse_modality(name)
    assert parsed == expected
    assert hash(parsed) == hash(expected)
    assert parse_modality(parsed) is parsed
    assert parse_modality(str(parsed)) == parsed


def test_one_marker_is_one_directory() -> None:
    assert IHCModality("CD3").canonical_dir == IHCModality("ihc_CD3").canonical_dir == "ihc/ihc_CD3"
    assert IHCModality("CD3") != IHCModality("cd3")
    assert IHCModality("CD3").kind == "brightfield"


@pytest.mark.parametrize("name", ["", "xenium", "ihc", "mif", "he ", "../he"])
def test_unknown_modalities_are_told_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"known are he, imc.*ihc_<marker>"):
        parse_modality(name)


@pytest.mark.parametrize(
    "name", ["ihc_", "ihc_../x", "ihc_a/b", "ihc_a\n", "ihc_.x", "ihc_" + "x" * 101]
)
def test_markers_are_plain_names(name: str) -> None:
    with pytest.raises(InvalidInputError, match="IHC marker"):
        parse_modality(name)


def test_a_modality_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_modality, "_REGISTRY", dict(_modality._REGISTRY))
    register_modality(Modality("orion", "orion", "multiplex"))
    assert "orion" in modality_names()
    ingest(
        np.zeros((2, 40, 40), np.uint16),
        axes="cyx",
        channel_names=["a", "b"],
        mpp=1.0,
        cohort=tmp_path / "c",
        tissue_id="t",
        modality="orion",
    )
    assert CohortLayout.open(tmp_path / "c").modalities() == [
        Modality("orion", "orion", "multiplex")
    ]
    for taken in (
        Modality("he", "other", "brightfield"),
        Modality("other", "imc", "multiplex"),
        Modality("ihc_x", "other", "brightfield"),
        Modality("other", "metadata", "multiplex"),
        Modality("other", "ihc", "multiplex"),
        Modality("a/b", "other", "multiplex"),
        Modality("other", "../x", "multiplex"),
        Modality("other\n", "x", "multiplex"),
    ):
        with pytest.raises(InvalidInputError, match="cannot be registered"):
            register_modality(taken)


# -- resolutions


@pytest.mark.parametrize(
    "form",
    [0.5, "0.5", "0.50", "0_5mpp", (0.5, 0.5), Resolution.parse("0.5"), np.float64(0.5)],
    ids=repr,
)
def test_every_form_of_a_resolution_finds_the_same_images(he: Any, form: Any) -> None:
    layout = CohortLayout.open(he[0])
    assert layout.resolution(form).directory == "0_5mpp"
    assert layout.resolution(None).directory == "0_5mpp"


@pytest.mark.parametrize("form", [0.25, "0.25", "0_25mpp", (0.5, 0.25), (0.25, 1), 0.49], ids=repr)
def test_a_resolution_finer_than_all_images_names_those_that_are_there(he: Any, form: Any) -> None:
    with pytest.raises(InvalidInputError, match="0_5mpp"):
        CohortLayout.open(he[0]).resolution(form)


@pytest.mark.parametrize("form", [1, 1.0, "1", "1.0", "1_0mpp", (1.0, 1)], ids=repr)
def test_a_coarser_resolution_is_one_value_too(he: Any, form: Any) -> None:
    assert CohortLayout.open(he[0]).resolution(form).directory == "1_0mpp"


@pytest.mark.parametrize("form", ["", "x", 0, -1, float("nan"), "0_5", (1, 2, 3)], ids=repr)
def test_what_is_no_resolution(he: Any, form: Any) -> None:
    with pytest.raises(InvalidInputError):
        CohortLayout.open(he[0]).resolution(form)


def test_several_resolutions_have_to_be_chosen_from(he: Any) -> None:
    root, pixels = he
    ingest(
        np.moveaxis(pixels["t1"], 0, -1),
        axes="yxc",
        cohort=root,
        tissue_id="t1",
        modality="he",
        mpp=0.5,
        resolution=2,
    )
    layout = CohortLayout.open(root)
    assert [r.directory for r in layout.resolutions()] == ["0_5mpp", "2_0mpp"]
    with pytest.raises(InvalidInputError, match="--resolution"):
        layout.resolution(None)
    assert layout.resolution("2").mpp == (2.0, 2.0)


def test_directories_without_an_image_are_no_modality(he: Any) -> None:
    root, _ = he
    (root / "imc" / "3_0mpp" / "images" / ".t.ome.zarr.partial-0123").mkdir(parents=True)
    (root / "he" / "4_0mpp" / "images").mkdir(parents=True)
    layout = CohortLayout.open(root)
    assert layout.modalities() == [HEModality()]
    assert layout.resolution(None).directory == "0_5mpp"


# -- what is a cohort


def test_nothing_is_no_cohort(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="microtome ingest"):
        CohortLayout.open(tmp_path / "missing")


@pytest.mark.parametrize("name", ["notes.txt", ".git", "src/main.py"])
def test_a_directory_of_something_else_is_left_alone(tmp_path: Path, name: str, tree: Any) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x")
    before = tree(tmp_path)
    with pytest.raises(FormatError, match=r"neither cohort\.json nor"):
        CohortLayout.open(tmp_path)
    with pytest.raises(FormatError, match=r"neither cohort\.json nor"):
        CohortLayout.open_or_create(tmp_path)
    assert tree(tmp_path) == before


def test_a_file_is_no_cohort(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("x")
    for path in (tmp_path / "c", tmp_path / "c" / "d"):
        with pytest.raises((FormatError, NotFoundError, OSError)):
            CohortLayout.open_or_create(path)
    assert (tmp_path / "c").read_text() == "x"
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(FormatError):
        CohortLayout.open_or_create(tmp_path / "link")


def test_an_empty_directory_becomes_a_cohort(tmp_path: Path) -> None:
    layout = CohortLayout.open_or_create(tmp_path)
    assert json.loads(layout.manifest.read_text())["format"] == "microtome-cohort"
    before = layout.manifest.stat().st_mtime_ns
    assert CohortLayout.open_or_create(tmp_path) == layout
    assert layout.manifest.stat().st_mtime_ns == before


def test_a_beginning_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    # The lock and a manifest under its temporary name: all that a killed beginning can leave.
    (tmp_path / ".cohort.lock").touch()
    (tmp_path / ".cohort.json.0123456789ab.partial").write_text('{"for')
    layout = CohortLayout.open_or_create(tmp_path)
    assert layout.read_manifest()["version"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".cohort.lock", "cohort.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "not a microtome cohort"),
        (b'{"format": "other"}', "not a microtome cohort"),
        (b'{"format": "microtome-cohort", "version": 2}', "reads up to 1"),
        (b'{"format": "microtome-cohort"}', "version None"),
        (b'{"format": "microtome-cohort", "version": "1"}', "version '1'"),
    ],
)
def test_manifests_that_are_not_ours(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "cohort.json").write_bytes(content)
    with pytest.raises(FormatError, match=words):
        CohortLayout.open(tmp_path)
    with pytest.raises(FormatError, match=words):
        CohortLayout.open_or_create(tmp_path)
    assert (tmp_path / "cohort.json").read_bytes() == content


@pytest.mark.parametrize("wanted", [None, 0.5])
def test_a_cohort_without_images_is_told_as_one(tmp_path: Path, wanted: float | None) -> None:
    layout = CohortLayout.open_or_create(tmp_path / "empty")
    with pytest.raises(
        InvalidInputError, match="has no image yet; add one with `microtome ingest`"
    ):
        layout.resolution(wanted)
