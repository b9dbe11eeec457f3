"""A cohort on an object store: what is read of it is what the same cohort here says."""

from __future__ import annotations

import hashlib
import http.server
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtome as mt
from microtome.cohort import (
    ComposedImagingDataset,
    HEImagingDataset,
    MultiplexImagingDataset,
    SporaDataset,
    info,
    validate,
    write_file_list,
)
from microtome.errors import InvalidInputError, ModeError, NotFoundError, StorageError
from microtome.loading import TileLoader
from microtome.prediction import predict_cohort
from microtome.regions import ImageRegionData
from microtome.storage import StorageOptions, StorePath, path_to_read, place_of, walked

ADDRESS = "s3://cohorts/all/study"
CLIPPING = "quantile_clipping/uq_0.99_image"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of three tissues, of two modalities, with masks, tiles and statistics."""
    root = tmp_path_factory.mktemp("cohorts") / "study"
    rng = np.random.default_rng(0)
    for number in range(3):
        y, x = np.mgrid[:300, :260]
        glass = rng.integers(238, 250, (300, 260, 3), dtype=np.uint8)
        inside = (y - 150) ** 2 + (x - 130) ** 2 < 110**2
        glass[inside] = np.asarray([150, 60, 140]) + rng.integers(-40, 40, (int(inside.sum()), 3))
        tissue = f"t{number}"
        counts = rng.gamma(0.7, 60, (2, 300, 260)).astype(np.uint16)
        given: dict[str, Any] = {"cohort": root, "tissue_id": tissue, "mpp": 1.0, "resolution": 1.0}
        mt.ingest(glass, modality="he", axes="yxc", **given)
        mt.ingest(counts, modality="imc", axes="cyx", channel_names=["DNA", "CD3"], **given)
    mt.mask(root)
    mt.tile(root, tile_size=64)
    mt.stats(
        root, modality="imc", method="quantile_clipping", quantile=0.99, quantile_level="image"
    )
    return root


@pytest.fixture(scope="module")
def moto(here: Path, s3_holding: Any) -> Iterator[str]:
    """The address of a server that holds a copy of the cohort."""
    with s3_holding(here, "cohorts", "all/study") as address:
        yield address


@pytest.fixture
def options(trouble: Any) -> StorageOptions:
    """How the cohort is reached, through a proxy that counts and stumbles."""
    return StorageOptions(
        endpoint=trouble.endpoint, region="us-east-1", longest_pause=0.2, cache_bytes=2**26
    )


def _epoch(dataset: Any) -> list[Any]:
    loader = TileLoader(dataset, batch_size=4, order="random", seed=3)
    return [np.asarray(batch.data).copy() for batch in loader]


def _pixels(item: Any) -> Any:
    """Every array of pixels in what a dataset gives."""
    if isinstance(item, dict):
        return {key: _pixels(value) for key, value in item.items()}
    if isinstance(item, ImageRegionData):
        return np.asarray(item.data)
    if hasattr(item, "regions"):
        return _pixels(item.regions)
    return item if isinstance(item, str | int) else None


def _files(directory: Path) -> dict[str, str]:
    return {
        file.relative_to(directory).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.rglob("*")
        if file.is_file() and file.name != "zarr.json"
    }


def model(batch: Any) -> Any:
    return batch[:, :1].astype(np.float32) / 255


MADE: dict[str, Callable[..., Any]] = {
    "he": lambda **at: HEImagingDataset("study", resolution=1.0, tile_size=64, **at),
    "multiplex": lambda **at: MultiplexImagingDataset(
        "study", modality="imc", standardization=CLIPPING, resolution=1.0, tile_size=64, **at
    ),
}


@pytest.mark.parametrize("fault", ["none", "error", "throttled", "cut"])
@pytest.mark.parametrize("kind", MADE)
def test_an_epoch_is_that_of_the_cohort_here(
    here: Path, options: StorageOptions, trouble: Any, kind: str, fault: str
) -> None:
    trouble.fault, trouble.every = fault, 0 if fault == "none" else 3
    found = _epoch(MADE[kind](path=ADDRESS, storage_options=options))
    wanted = _epoch(MADE[kind](path=here))
    assert len(found) == len(wanted) > 3
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert trouble.stumbled >= (0 if fault == "none" else 3)


def test_several_modalities_and_several_cohorts(here: Path, options: StorageOptions) -> None:
    at: dict[str, Any] = {"path": ADDRESS, "storage_options": options}
    for a, b in (
        (
            ComposedImagingDataset("study", ["he", "imc"], resolution=1.0, tile_size=64, **at),
            ComposedImagingDataset("study", ["he", "imc"], resolution=1.0, tile_size=64, path=here),
        ),
        (
            SporaDataset(
                ["study"],
                datasets_dir="s3://cohorts/all",
                storage_options=options,
                tile_size=64,
                seed=1,
            ),
            SporaDataset(["study"], datasets_dir=here.parent, tile_size=64, seed=1),
        ),
    ):
        assert len(a) == len(b) > 0
        np.testing.assert_equal(_pixels(a[1]), _pixels(b[1]))


@pytest.mark.parametrize("fault", ["none", "error", "throttled", "cut"])
def test_validate_and_info_say_the_same(
    here: Path, options: StorageOptions, trouble: Any, fault: str
) -> None:
    trouble.fault, trouble.every = fault, 0 if fault == "none" else 3
    assert validate(ADDRESS, storage_options=options) == validate(here)
    found, wanted = info(ADDRESS, storage_options=options), info(here)
    assert str(found).replace(ADDRESS, str(here)) == str(wanted)


@pytest.mark.parametrize("fault", ["none", "error", "throttled", "cut"])
def test_predictions_have_the_same_bytes(
    here: Path, options: StorageOptions, trouble: Any, tmp_path: Path, fault: str
) -> None:
    trouble.fault, trouble.every = fault, 0 if fault == "none" else 2
    given: dict[str, Any] = {"name": "m", "modality": "he", "tile_size": 128, "overlap": 16}
    made = predict_cohort(model, ADDRESS, out=tmp_path / "a", storage_options=options, **given)
    assert [path.parent for path in made] == [tmp_path / "a"] * 3
    predict_cohort(model, here, out=tmp_path / "b", **given)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    assert len(_files(tmp_path / "a")) >= 3


def test_opening_asks_for_little(options: StorageOptions, trouble: Any) -> None:
    dataset = MADE["multiplex"](path=ADDRESS, storage_options=options)
    opened = len(trouble.asked)
    # A listing of up to a thousand files; then manifest, tissues, panel, who measured what, tiles
    # and four tables of statistics, each once.
    assert opened <= 12
    assert len(set(trouble.asked)) == opened
    dataset.read_batch(np.arange(4))
    first = len(trouble.asked) - opened
    dataset.read_batch(np.arange(4))
    assert len(trouble.asked) - opened == first, "what was read is asked for again"


def test_the_number_of_tissues_does_not_count(
    options: StorageOptions, trouble: Any, moto: str
) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://{moto}", region_name="us-east-1")
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = [f"t{i}" for i in range(100)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"tissue_id": ids, "modality": ["he"] * 100}), sink)
    put = {"metadata/tissues.parquet": sink.getvalue()}
    put |= {f"he/1_0mpp/images/{t}.ome.zarr/zarr.json": b"{}" for t in ids}
    put |= {f"he/1_0mpp/images/{t}.ome.zarr/0/c/0/{n}": b"" for t in ids for n in range(3)}
    for key, body in put.items():
        client.put_object(Bucket="cohorts", Key=f"many/{key}", Body=body)
    client.close()
    dataset = HEImagingDataset(
        "many", path="s3://cohorts/many", resolution=1.0, storage_options=options
    )
    assert len(dataset) == 100
    assert len(trouble.asked) <= 4


@pytest.mark.parametrize("fault", ["error", "cut"])
def test_an_image_that_cannot_be_had_is_named_and_nothing_is_left(
    options: StorageOptions, trouble: Any, tmp_path: Path, fault: str
) -> None:
    trouble.fault, trouble.every, trouble.only = fault, 1, "/t1.ome.zarr"
    with pytest.raises(StorageError, match=r"t1\.ome\.zarr"):
        _epoch(MADE["he"](path=ADDRESS, storage_options=options))
    with pytest.raises(StorageError, match=r"t1\.ome\.zarr"):
        predict_cohort(
            model, ADDRESS, out=tmp_path / "a", storage_options=options, name="m", modality="he"
        )
    assert sorted(p.name for p in (tmp_path / "a").glob("*.ome.zarr")) == [
        "t0.ome.zarr",
        "t2.ome.zarr",
    ]
    told = [f for f in validate(ADDRESS, storage_options=options) if f.severity == "error"]
    assert told
    assert all("t1.ome.zarr" in f.place for f in told)


def test_a_file_that_the_store_lost_is_told(
    options: StorageOptions, moto: str, here: Path, tmp_path: Path
) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://{moto}", region_name="us-east-1")
    for file in here.rglob("*"):
        if file.is_file():
            key = f"lossy/{file.relative_to(here).as_posix()}"
            client.put_object(Bucket="cohorts", Key=key, Body=file.read_bytes())
    lost = "he/1_0mpp/images/t1.ome.zarr/0/c/0/0/0"
    assert (here / lost).is_file()
    client.delete_object(Bucket="cohorts", Key=f"lossy/{lost}")
    client.close()
    address = "s3://cohorts/lossy"
    with pytest.raises(NotFoundError, match=r"t1\.ome\.zarr.*is gone"):
        _epoch(MADE["he"](path=address, storage_options=options))
    cached = replace(options, disk_cache=mt.DiskCache(tmp_path / "kept", 1 << 26))
    with pytest.raises(NotFoundError, match=r"t1\.ome\.zarr.*is gone"):
        _epoch(MADE["he"](path=address, storage_options=cached))
    told = [f for f in validate(address, storage_options=options) if f.severity == "error"]
    assert [f.kind for f in told] == ["image-damaged"]
    assert "t1.ome.zarr" in told[0].place


def test_what_would_change_it_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: StorageOptions
) -> None:
    monkeypatch.chdir(tmp_path)
    for verb in (
        lambda: mt.mask(ADDRESS),
        lambda: mt.tile(ADDRESS, tile_size=64),
        lambda: mt.stats(ADDRESS, modality="imc"),
        lambda: mt.ingest(
            np.zeros((3, 9, 9), np.uint8),
            cohort=ADDRESS,
            tissue_id="t",
            modality="he",
            axes="cyx",
            mpp=1.0,
        ),
    ):
        with pytest.raises(InvalidInputError, match="copy the cohort here"):
            verb()
    path: Any = path_to_read(ADDRESS, options)
    for change in ((path / "a").mkdir, lambda: (path / "a").open("w"), path.unlink):
        with pytest.raises(ModeError, match="copy the cohort here"):
            change()
    assert not list(tmp_path.iterdir())


def test_there_is_no_cohort(options: StorageOptions) -> None:
    with pytest.raises(NotFoundError, match="s3://cohorts/nowhere"):
        HEImagingDataset("x", path="s3://cohorts/nowhere", storage_options=options)
    with pytest.raises(NotFoundError, match="s3://cohorts/nowhere"):
        validate("s3://cohorts/nowhere", storage_options=options)


def test_paths_of_a_store_are_those_of_a_directory(here: Path, options: StorageOptions) -> None:
    there: Any = path_to_read(ADDRESS, options)
    files = {"zarr.json", ".zgroup"}

    def seen(root: Any, found: Any) -> list[str]:
        return sorted(
            p.relative_to(root).as_posix()
            for p in found
            if p.suffix == ".parquet" or p.name in files or p.is_dir()
        )

    for pattern in (
        "*",
        "*/*mpp/images",
        "*/*mpp/images/*/zarr.json",
        "*/*mpp/standardization/**/*_level_*.parquet",
        "tiling/*/*/*.parquet",
        "nothing/*",
        "**/*.parquet",
    ):
        wanted = seen(here, here.glob(pattern))
        if pattern != "*":
            assert seen(there, there.glob(pattern)) == wanted
        assert set(seen(there, there.glob(pattern))) <= set(wanted)
    assert {str(p) for p in there.rglob("*.parquet")} == {
        f"{ADDRESS}/{p.relative_to(here).as_posix()}" for p in here.rglob("*.parquet")
    }
    table = there / "metadata" / "tissues.parquet"
    assert table.read_bytes() == (here / "metadata" / "tissues.parquet").read_bytes()
    assert (table.name, table.stem, table.suffix) == ("tissues.parquet", "tissues", ".parquet")
    assert table.parent == there / "metadata"
    assert table.parents == (there / "metadata", there)
    assert table.with_suffix(".arrow").name == "tissues.arrow"
    assert not table.with_suffix(".arrow").exists()
    assert table.is_relative_to(there)
    assert sorted([table, there]) == [there, table]
    assert pickle.loads(pickle.dumps(table)) == table
    assert {str(p) for p, _, _ in walked(there)} >= {str(there), str(there / "metadata")}
    with pytest.raises(InvalidInputError, match="no path inside"):
        _ = there / ".." / "b"
    with pytest.raises(NotFoundError, match="does not exist"):
        (there / "metadata" / "no.parquet").read_bytes()
    with pytest.raises(NotFoundError, match="no directory"):
        list((there / "nothing").iterdir())
    assert isinstance(there, StorePath)
    with pytest.raises(TypeError):
        Path(there)


def test_workers_open_it_by_themselves(here: Path, options: StorageOptions) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        found = validate(ADDRESS, storage_options=options, executor=executor)
    assert found == validate(here)


def test_the_environment_names_the_server(
    options: StorageOptions, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", options.endpoint or "")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    dataset = HEImagingDataset("study", path=ADDRESS, resolution=1.0, tile_size=64)
    assert len(dataset) == len(HEImagingDataset("study", path=here, resolution=1.0, tile_size=64))
    # As the command line has it, and whoever makes a path of an address.
    assert validate(Path(ADDRESS)) == validate(here)
    assert info(Path(ADDRESS)) == info(ADDRESS)
    drawn = SporaDataset(["study"], datasets_dir=Path("s3://cohorts/all"), tile_size=64)
    assert len(drawn) == len(dataset)
    assert place_of("s3://a/b").spec["endpoint"] == options.endpoint
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://other")
    assert place_of("s3://a/b").spec["endpoint"] == "http://other"
    assert place_of("gs://a/b/c").spec == {"driver": "gcs", "bucket": "a", "path": "b/c/"}


def test_a_web_server_serves_a_cohort_that_lists_its_files(here: Path, tmp_path: Path) -> None:
    root = tmp_path / "study"
    shutil.copytree(here, root)

    class Quiet(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            file = tmp_path / self.path.lstrip("/")
            data = file.read_bytes() if file.is_file() else b""
            asked = self.headers.get("Range", "").removeprefix("bytes=")
            self.send_response(404 if not file.is_file() else 206 if asked else 200)
            if asked and data:
                first, _, last = asked.partition("-")
                size = len(data)
                start = int(first) if first else size - int(last)
                stop = min(size, int(last) + 1 if first and last else size)
                data = data[start:stop]
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        running.daemon_threads = True
        running.block_on_close = False
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{running.server_address[1]}/study"
        with pytest.raises(NotFoundError, match="write_file_list"):
            MADE["he"](path=address)
        assert write_file_list(root) == root / "metadata" / "files.parquet"
        before = (root / "metadata" / "files.parquet").read_bytes()
        write_file_list(root)
        assert (root / "metadata" / "files.parquet").read_bytes() == before
        found, wanted = _epoch(MADE["he"](path=address)), _epoch(MADE["he"](path=here))
        assert str(info(address)).replace(address, str(here)) == str(info(here))
        assert validate(address) == validate(here)
        running.shutdown()
        thread.join()
    assert len(found) == len(wanted) > 3
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
