"""Formats that other distributions bring, through entry points."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from microtome.errors import FormatError, InvalidInputError, UnknownNameError
from microtome.sources import SourceFormat, image_names, open_image, source_formats
from microtome.sources._plugins import plugged_in

CODE = """
from pathlib import Path
import numpy as np
from microtome.sources import SourceFormat, image_from_array

FORMAT = SourceFormat(
    "pages", lambda path, head: head.startswith(b"PAGES"), "pages_of_the_test:opened", (".pages",),
    images="pages_of_the_test:names",
)
NO_FORMAT = "a string"

def names(path):
    return [f"page {i}" for i in range(path.stat().st_size - 5)]

def opened(path, *, mpp, image):
    number = int(str(image or 0).removeprefix("page "))
    value = path.read_bytes()[5 + number]
    return image_from_array(np.full((4, 3), value, np.uint8), axes="yx", mpp=mpp, name=path.stem)
"""


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a distribution of three entry points: one is good, one no format, one not there."""
    info = tmp_path / "site/pages-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pages\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[microtome.sources]\n"
        "a-gone = nothing_of_that_name:FORMAT\n"
        "b-none = pages_of_the_test:NO_FORMAT\n"
        "pages = pages_of_the_test:FORMAT\n"
    )
    (tmp_path / "site/pages_of_the_test.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    plugged_in.cache_clear()
    yield tmp_path
    plugged_in.cache_clear()


def test_an_installed_format_is_found(distribution: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = distribution / "a.pages"
    path.write_bytes(b"PAGES\x07\x08")
    with caplog.at_level(logging.WARNING, "microtome"):
        assert image_names(path) == ("page 0", "page 1")
    assert "'a-gone'" in caplog.text
    assert "'b-none' of pages_of_the_test:NO_FORMAT is no SourceFormat" in caplog.text
    np.testing.assert_array_equal(open_image(path).level(0)[...], np.full((4, 3), 7))
    found = open_image(path, image="page 1", mpp=0.5)
    np.testing.assert_array_equal(found.level(0)[...], np.full((4, 3), 8))
    assert found.require_mpp().y == 0.5
    assert source_formats()[-1].name == "pages"


def test_ours_are_asked_first(distribution: Path) -> None:
    with (distribution / "a.pages").open("wb") as file:
        np.save(file, np.ones((5, 4), np.uint8))
    assert open_image(distribution / "a.pages").level_shape(0) == (5, 4)


def test_without_it_the_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.pages").write_bytes(b"PAGES\x07\x08")
    with pytest.raises(FormatError, match="no format that can be read"):
        open_image(tmp_path / "a.pages")


def test_a_format_by_its_name(distribution: Path) -> None:
    path = distribution / "a.bin"
    path.write_bytes(b"pages\x07")
    with pytest.raises(FormatError):
        open_image(path)
    assert open_image(path, format="pages").level(0)[0, 0] == 7
    with pytest.raises(UnknownNameError, match=r"no format 'page'; there are .*TIFF.*pages"):
        open_image(path, format="page")


def test_what_a_format_has_no_use_for(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 4), np.uint8))
    assert image_names(tmp_path / "a.npy") == ("a",)
    with pytest.raises(InvalidInputError, match="npy, which holds one image: there is no 'b'"):
        open_image(tmp_path / "a.npy", image="b")
    with pytest.raises(InvalidInputError, match="are for paths, got a ndarray"):
        open_image(np.ones((5, 4)), format="npy")


def test_labels_are_said_to_be(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 4), np.uint16))
    np.save(tmp_path / "b.npy", np.ones((5, 4), np.float32))
    assert open_image(tmp_path / "a.npy").kind == "intensity"
    assert open_image(tmp_path / "a.npy", kind="labels").kind == "labels"
    assert open_image(np.ones((5, 4), np.uint16), kind="labels").kind == "labels"
    with pytest.raises(InvalidInputError, match="labels are whole numbers, its pixels are float32"):
        open_image(tmp_path / "b.npy", kind="labels")
    with pytest.raises(InvalidInputError, match="'intensity' or 'labels', got 'mask'"):
        open_image(tmp_path / "a.npy", kind="mask")  # type: ignore[arg-type]


def test_a_format_is_a_value() -> None:
    made = SourceFormat("a", lambda _path, _head: False, "module:function", (".a",))
    assert (made.images, made.states_axes) == ("", True)
