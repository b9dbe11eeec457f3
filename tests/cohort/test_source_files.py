"""What a source is, is what its own files hold: what comes to lie beside them makes no other one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import microtome as mt
from microtome.cohort import validate
from microtome.cohort._fingerprint import fingerprint
from microtome.errors import ExistsError
from microtome.sources import image_files, open_image

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 900, (3, 50, 60)).astype(np.uint16)
NAMES = ["DNA", "CD3", "CD8"]


def steinbock(root: Path) -> Path:
    (root / "img").mkdir(parents=True)
    for number, name in enumerate("ab"):
        tifffile.imwrite(root / f"img/{name}.tiff", PIXELS + number, photometric="minisblack")
    rows = [f"M{number},{name},1" for number, name in enumerate(NAMES)]
    (root / "panel.csv").write_text("\n".join(["channel,name,keep", *rows]))
    return root


def mcmicro(root: Path) -> Path:
    (root / "registration").mkdir(parents=True)
    for number, name in enumerate("ab"):
        tifffile.imwrite(
            root / f"registration/{name}.tif", PIXELS + number, photometric="minisblack"
        )
    rows = [f"{number},1,{name}" for number, name in enumerate(NAMES, start=1)]
    (root / "markers.csv").write_text("\n".join(["channel_number,cycle_number,marker_name", *rows]))
    return root


def folder(root: Path) -> Path:
    root.mkdir()
    for name, plane in zip(NAMES, PIXELS, strict=True):
        tifffile.imwrite(root / f"{name}.tiff", plane)
    return root


def zarr(root: Path) -> Path:
    with mt.MultiscaleImage.create(
        root, type="uint16", level_shape=PIXELS.shape, mpp=1.0, channel_names=NAMES
    ) as image:
        image["level0"][...] = PIXELS
    return root


def several(root: Path) -> Path:
    root.mkdir()
    uuids = [f"urn:uuid:{number:08d}-0000-0000-0000-000000000000" for number in range(3)]
    parts = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{c}.ome.tif">{u}</UUID></TiffData>'
        for c, u in enumerate(uuids)
    )
    channels = "".join(f'<Channel ID="Channel:0:{c}" Name="{n}"/>' for c, n in enumerate(NAMES))
    for number, uuid in enumerate(uuids):
        text = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{uuid}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            f'Type="uint16" SizeX="60" SizeY="50" SizeC="3" SizeZ="1" SizeT="1">{channels}{parts}'
            "</Pixels></Image></OME>"
        )
        tifffile.imwrite(
            root / f"{number}.ome.tif",
            PIXELS[number],
            description=text,
            metadata=None,
            photometric="minisblack",
        )
    return root / "0.ome.tif"


# A source, the image in it, its own files from the source's directory, and one of them.
CASES: dict[str, tuple[Any, str | None, list[str]]] = {
    "steinbock": (steinbock, "a", ["img/a.tiff"]),
    "MCMICRO": (mcmicro, "registration/a", ["registration/a.tif"]),
    "folder": (folder, None, ["CD3.tiff", "CD8.tiff", "DNA.tiff"]),
    "OME-Zarr": (zarr, None, ["0/c/0/0/0", "0/zarr.json", "zarr.json"]),
    "OME-TIFF": (several, None, ["0.ome.tif", "1.ome.tif", "2.ome.tif"]),
}


def put(source: Path, name: str | None, root: Path) -> mt.MultiscaleImage:
    return mt.ingest(
        source,
        image=name,
        cohort=root / "cohort",
        tissue_id="t",
        modality="codex",
        mpp=1.0,
    )


def states(image: mt.MultiscaleImage) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in Path(image.uri).rglob("*") if p.is_file()}


@pytest.mark.parametrize("case", CASES)
def test_what_lies_beside_it_is_not_the_source(tmp_path: Path, case: str) -> None:
    make, name, own = CASES[case]
    source = make(tmp_path / "source")
    root = source if source.is_dir() else source.parent
    opened = open_image(source, image=name)
    assert [file.relative_to(root).as_posix() for file in image_files(opened)] == own
    before = put(source, name, tmp_path)
    np.testing.assert_array_equal(before.level(0)[...][[0, 1, 2]], opened.level(0)[...])
    written = states(before)
    # What steinbock, an annotator or an operating system leaves later.
    for place in ("masks", "labels/cells", "img"):
        (root / place).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(root / place / "later.tiff", np.zeros((5, 5), np.uint16))
    (root / "notes.txt").write_text("a note")
    assert states(put(source, name, tmp_path)) == written
    # An open image of it is the same source.
    again = mt.ingest(
        open_image(source, image=name, mpp=1.0),
        cohort=tmp_path / "cohort",
        tissue_id="u",
        modality="codex",
    )
    assert noted(again)["sha256"] == noted(before)["sha256"]
    assert validate(tmp_path / "cohort", checksums=True) == []


@pytest.mark.parametrize("case", CASES)
def test_each_of_its_own_files_is(tmp_path: Path, case: str) -> None:
    make, name, own = CASES[case]
    source = make(tmp_path / "source")
    root = source if source.is_dir() else source.parent
    put(source, name, tmp_path)
    for file in own:
        if file.endswith("json"):
            changed = (root / file).read_bytes()
            (root / file).write_bytes(changed + b"\n")
        elif "/c/" in file:
            changed = (root / file).read_bytes()
            (root / file).unlink()
        else:
            changed = (root / file).read_bytes()
            (root / file).write_bytes(changed[:-1] + bytes([changed[-1] ^ 1]))
        with pytest.raises(ExistsError, match="another source"):
            put(source, name, tmp_path)
        (found,) = validate(tmp_path / "cohort", checksums=True)
        assert found.kind == "source-changed"
        (root / file).write_bytes(changed)
    assert validate(tmp_path / "cohort", checksums=True) == []


def test_other_names_of_channels_are_told_though_their_table_is_no_file_of_it(
    tmp_path: Path,
) -> None:
    source = steinbock(tmp_path / "source")
    put(source, "a", tmp_path)
    panel = source / "panel.csv"
    text = panel.read_text()
    panel.write_text(text + "\n")  # says the same
    put(source, "a", tmp_path)
    panel.write_text(text.replace("CD3", "CD4"))
    with pytest.raises(ExistsError, match="other settings"):
        put(source, "a", tmp_path)


def test_what_was_ingested_when_all_of_a_directory_was_the_source_stays(tmp_path: Path) -> None:
    source = steinbock(tmp_path / "source")
    made = put(source, "a", tmp_path)
    document = Path(made.uri) / "zarr.json"
    stored = json.loads(document.read_text())
    record = stored["attributes"]["microtome"]["ingest"]
    assert record["sha256"] == fingerprint(source / "img/a.tiff") != fingerprint(source)
    record["sha256"] = fingerprint(source)
    document.write_text(json.dumps(stored))
    before = states(made)
    assert states(put(source, "a", tmp_path)) == before
    tifffile.imwrite(source / "img/a.tiff", PIXELS + 7, photometric="minisblack")
    with pytest.raises(ExistsError, match="another source"):
        put(source, "a", tmp_path)


def test_a_directory_of_files_has_the_fingerprint_that_it_had(tmp_path: Path) -> None:
    for make in (folder, zarr):
        source = make(tmp_path / make.__name__)
        assert fingerprint(source, image_files(open_image(source))) == fingerprint(source)
        moved = shutil.move(source, tmp_path / f"{make.__name__}2")
        assert fingerprint(moved, image_files(open_image(moved))) == fingerprint(moved)


def test_where_a_file_lies_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = several(tmp_path / "a")
    first = fingerprint(source, image_files(open_image(source)))
    shutil.copytree(tmp_path / "a", tmp_path / "b/c")
    monkeypatch.chdir(tmp_path / "b")
    there = Path("c/0.ome.tif")
    assert fingerprint(there, image_files(open_image(there))) == first


def test_what_has_no_files(tmp_path: Path) -> None:
    assert image_files(open_image(PIXELS, axes="cyx", mpp=1.0)) == ()
    np.save(tmp_path / "a.npy", PIXELS[0])
    assert image_files(open_image(tmp_path / "a.npy")) == (tmp_path / "a.npy",)


def noted(image: mt.MultiscaleImage) -> dict[str, Any]:
    return image.metadata["microtome"]["ingest"]
