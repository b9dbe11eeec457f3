"""Files of a cohort changed at random: an error of ours, or a value, in no time and no memory.

`python -m benchmarks.reliability mutations` does the same ten thousand times.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.cohort import CohortLayout, read_tissue_mask, read_tissues
from microtome.cohort._modality import parse_modality
from microtome.cohort._panels import panel
from microtome.cohort._tables import read_parquet
from microtome.errors import FormatError
from microtome.sources import open_image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="processes are watched as on POSIX"),
]

NEEDED = {"CZI file": "pylibCZIrw", "SCN file": "openslide"}
REPOSITORY = Path(__file__).parents[2]
MUTATIONS = int(os.environ.get("MICROTOME_MUTATIONS", "40"))
TARGETS = (
    "document of an image",
    "document of an array",
    "file of pixels",
    "cohort.json",
    "table of tissues",
    "table of tiles",
    "table of statistics",
    "table of channels",
    "archive of a tissue mask",
    "archive of a cell mask",
    "MCD file",
    "CZI file",
    "TIFF file",
    "SCN file",
)


@pytest.fixture(scope="module")
def mutations() -> Any:
    """The module of the benchmarks, which are in the repository but in no package that installs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY)
        # The process that reads finds it as this one does.
        patch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
        yield importlib.import_module("benchmarks.reliability.mutations")


@pytest.fixture(scope="module")
def cohort(mutations: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mutated") / "cohort"
    mutations.write_cohort(root)
    return root


@pytest.mark.parametrize("name", TARGETS)
def test_changed_at_random(mutations: ModuleType, cohort: Path, name: str) -> None:
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    target = mutations.TARGETS[name]
    whole = (cohort / target.path).read_bytes()
    found = mutations.mutate_at_random(cohort, target, MUTATIONS, seed=1)
    assert not found.broken, "\n".join(found.broken)
    assert found.mutations == MUTATIONS
    assert found.refused >= MUTATIONS / 4, "hardly anything was hit"
    assert (cohort / target.path).read_bytes() == whole


def test_all_kinds_are_changed(mutations: ModuleType) -> None:
    assert set(TARGETS) == set(mutations.TARGETS)


@pytest.mark.parametrize("error", [OSError("a disk"), MemoryError("a lot"), SystemExit(3)])
def test_what_is_wrong_is_seen(
    mutations: ModuleType, cohort: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above look for is found where it is: here, in one process."""
    seen: list[Any] = []

    class Pipe:
        send = staticmethod(seen.append)

    def read(root: Path) -> None:
        if (root / "cohort.json").read_bytes() != whole:
            raise error

    whole = (cohort / "cohort.json").read_bytes()
    target = mutations.Target("t", "cohort.json", lambda rng, data: data + b" ", read)
    monkeypatch.setitem(mutations.TARGETS, "t", target)
    try:
        if isinstance(error, SystemExit):
            with pytest.raises(SystemExit):
                mutations._work("t", cohort, whole, (0, 1), 0, Pipe)
            assert seen == [True]  # it says no more: who watches takes that for an end
        else:
            mutations._work("t", cohort, whole, (0, 1), 0, Pipe)
            assert type(error).__name__ in seen[1][3]
    finally:
        (cohort / "cohort.json").write_bytes(whole)


# -- what the long search found


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1 << 40), (1 << 63, (1 << 63) + 500), (0, 1 << 63)]
)
def test_a_picture_that_ends_far_behind_its_file(
    mutations: ModuleType, cohort: Path, tmp_path: Path, start: int, stop: int
) -> None:
    data = (cohort / "sources" / "a.mcd").read_bytes()
    for name, number in {"ImageStartOffset": start, "ImageEndOffset": stop}.items():
        begin, end = (f"<{mark}{name}>".encode("utf-16-le") for mark in ("", "/"))
        head, _, rest = data.rpartition(begin)
        data = head + begin + str(number).encode("utf-16-le") + end + rest.partition(end)[2]
    (tmp_path / "a.mcd").write_bytes(data)
    with pytest.raises(
        FormatError, match=r"a\.mcd is cut short: \d+ bytes at \d+ are not all there"
    ):
        open_image(tmp_path / "a.mcd", image="panorama p")


def test_a_directory_of_tiles_that_have_too_many_dimensions(cohort: Path, tmp_path: Path) -> None:
    """Zeiss's library ends the process."""
    pytest.importorskip("pylibCZIrw")
    data = bytearray((cohort / "sources" / "a.czi").read_bytes())
    entry = data.find(b"ZISRAWDIRECTORY") + 32 + 128
    assert data[entry : entry + 2] == b"DV"
    # The second of them, behind the first and its dimensions.
    second = entry + 32 + 20 * data[entry + 28]
    assert data[second : second + 2] == b"DV"
    data[second + 28] = 46
    (tmp_path / "a.czi").write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.czi is damaged or .* ended its process"):
        open_image(tmp_path / "a.czi", image=0)


def test_a_mask_that_claims_more_than_it_holds(cohort: Path, tmp_path: Path) -> None:
    path = CohortLayout.open(cohort).root / "segmentations/1_0mpp/tissue_masks/claims.npz"
    header = "{'descr': '|b1', 'fortran_order': False, 'shape': (1099511627776, 1099511627776), }"
    text = header.ljust(117).encode() + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(100)
        archive.writestr("mask.npy", array)
    layout = CohortLayout.open(cohort)
    try:
        with pytest.raises(FormatError, match=r"claims\.npz: the mask states .* holds \d+ bytes"):
            read_tissue_mask(layout, layout.resolution(None), "claims", (10, 10))
        np.savez(path, mask=np.zeros((0, 0), bool))
        with pytest.raises(FormatError, match=r"a mask is \(height, width\)"):
            read_tissue_mask(layout, layout.resolution(None), "claims", (10, 10))
        np.savez(path, mask=np.array([[{}]], object))
        with pytest.raises(FormatError, match="allow_pickle=False"):
            read_tissue_mask(layout, layout.resolution(None), "claims", (1, 1))
    finally:
        path.unlink()


def test_columns_that_nobody_can_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, path)
    with pytest.raises(FormatError, match=r"has the columns \['a'\] more than once"):
        read_parquet(path, [])
    pq.write_table(pa.table({"a": [[1]]}), path)
    with pytest.raises(FormatError, match="column 'a' must hold a value in each row, got list"):
        read_parquet(path, ["a"])
    wrong = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    out = io.BytesIO()
    pq.write_table(pa.table({"a": wrong}), out)
    path.write_bytes(out.getvalue())
    with pytest.raises(FormatError, match="is not a parquet file that can be read"):
        read_parquet(path, ["a"])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"tissue_id": ["a", "b"], "modality": ["he", None]}, "row 2 has no modality"),
        ({"tissue_id": [None, "b"], "modality": ["he", "he"]}, "row 1 has no tissue_id"),
        ({"tissue_id": ["a"], "modality": [3]}, "'modality' must hold text, got int64"),
    ],
)
def test_tissues_without_names(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    (tmp_path / "metadata").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "metadata" / "tissues.parquet")
    with pytest.raises(FormatError, match=words):
        read_tissues(CohortLayout(tmp_path))


def test_accessions_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "codex").mkdir()
    path = tmp_path / "codex" / "channels.parquet"
    pq.write_table(pa.table({"channel_name": ["A"], "uniprot_id": [2.5]}), path)
    with pytest.raises(FormatError, match="'uniprot_id' must hold text, got double"):
        panel(CohortLayout(tmp_path), parse_modality("codex"))


def test_a_manifest_nested_too_deep(tmp_path: Path) -> None:
    (tmp_path / "cohort.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match=r"cohort\.json is damaged"):
        CohortLayout(tmp_path).read_manifest()


def test_an_array_that_states_other_chunks_than_it_did(tmp_path: Path) -> None:
    """The file of pixels is what it was, and known from before: it is read anew, and refused."""
    from microtome.image import MultiscaleImage

    path = tmp_path / "a.ome.zarr"
    with MultiscaleImage.create(path, type="uint16", level_shape=(2, 100, 100), mpp=1.0) as image:
        image.level(0)[...] = 7
    with MultiscaleImage.open(path) as image:
        assert (image.read(0, (0, 9), (0, 9)) == 7).all()
        document = Path(image.level_uri(0)) / "zarr.json"
    stated = json.loads(document.read_text())
    rows = stated["chunk_grid"]["configuration"]["chunk_shape"]
    rows[1] *= 1000
    document.write_text(json.dumps(stated))
    with pytest.raises(FormatError, match=r"a\.ome\.zarr"):
        MultiscaleImage.open(path).read(0, (0, 9), (0, 9))
