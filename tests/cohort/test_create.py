"""`create_cohort`: a cohort is begun once, keeps its words, and nothing else is touched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtome.cohort import CohortInfo, create_cohort, info, ingest, read_tissues
from microtome.errors import ExistsError, FormatError, InvalidInputError

Tree = Callable[[Path], dict[str, str]]
RGB = np.random.default_rng(4).integers(0, 256, (60, 50, 3), dtype=np.uint8)


def manifest(root: Path) -> dict[str, Any]:
    return json.loads((root / "cohort.json").read_text())


def test_a_cohort_is_begun(tmp_path: Path) -> None:
    layout = create_cohort(tmp_path / "deep" / "lung", name="Lung", description="Resections, 2019")
    assert layout.root == tmp_path / "deep" / "lung"
    found = manifest(layout.root)
    assert (found["format"], found["version"]) == ("microtome-cohort", 1)
    assert (found["name"], found["description"]) == ("Lung", "Resections, 2019")
    assert read_tissues(layout).num_rows == 0
    assert isinstance(info(layout.root), CohortInfo)


def test_again_changes_nothing(tmp_path: Path, tree: Tree) -> None:
    root = create_cohort(tmp_path / "c", name="Lung").root
    before = tree(root)
    create_cohort(root)
    create_cohort(root, name="Lung")
    assert tree(root) == before


def test_words_come_later_and_stay(tmp_path: Path) -> None:
    root = tmp_path / "c"
    ingest(RGB, axes="yxc", cohort=root, tissue_id="t", modality="he", mpp=1.0)
    create_cohort(root, name="Lung")
    create_cohort(root, description="Biopsies")
    assert manifest(root)["name"] == "Lung"
    assert manifest(root)["description"] == "Biopsies"
    assert manifest(root)["format"] == "microtome-cohort"
    with pytest.raises(ExistsError, match=r"is a cohort with name 'Lung'; to change it, edit"):
        create_cohort(root, name="Liver", description="Biopsies")
    assert manifest(root)["name"] == "Lung"
    ingest(RGB, axes="yxc", cohort=root, tissue_id="u", modality="he", mpp=1.0)
    assert manifest(root)["name"] == "Lung", "ingest leaves it"


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    assert manifest(create_cohort(tmp_path / "c").root)["version"] == 1


def test_what_is_no_cohort_is_left_as_it_is(tmp_path: Path, tree: Tree) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    before = tree(tmp_path)
    with pytest.raises(FormatError, match="is a directory but no cohort"):
        create_cohort(other, name="Lung")
    with pytest.raises(FormatError, match="is a file, not a cohort directory"):
        create_cohort(other / "thesis.tex")
    assert tree(tmp_path) == before


def test_a_foreign_cohort_has_no_place_for_words(tmp_path: Path, tree: Tree) -> None:
    root = tmp_path / "c"
    ingest(RGB, axes="yxc", cohort=root, tissue_id="t", modality="he", mpp=1.0)
    (root / "cohort.json").unlink()
    before = tree(root)
    create_cohort(root)
    with pytest.raises(InvalidInputError, match=r"is a SPORA dataset without cohort\.json"):
        create_cohort(root, name="Lung")
    assert tree(root) == before
    shutil.rmtree(root)


@pytest.mark.parametrize("word", ["name", "description"])
def test_an_empty_word_is_refused_before_anything_is_made(tmp_path: Path, word: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the {word} of a cohort must not be empty"):
        create_cohort(tmp_path / "c", **{word: " "})
    assert not (tmp_path / "c").exists()
