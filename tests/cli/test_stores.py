"""How stores are reached, said on the command line: for every verb, for that run only."""

from __future__ import annotations

import os

import numpy as np
import pytest

from microtome.cli._stores import StoreOptions, stores_reached
from microtome.cohort import ingest, mask, tile
from microtome.storage import place_of

NAMES = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_NO_SIGN_REQUEST",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MICROTOME_DISK_CACHE",
    "MICROTOME_DISK_CACHE_LIMIT",
)


@pytest.fixture
def bare(monkeypatch):
    """No environment that says how stores are reached."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("stores") / "study"
    rng = np.random.default_rng(0)
    for number in range(2):
        ingest(
            rng.integers(0, 900, (2, 128, 128), dtype=np.uint16),
            axes="cyx",
            cohort=root,
            tissue_id=f"t{number}",
            modality="imc",
            mpp=1.0,
            channel_names=["CD3", "DNA"],
        )
    mask(root, method="whole")
    tile(root, tile_size=32, method="grid", strategy="default")
    return root


def test_verbs_read_from_the_server_that_is_named(run, bare, cohort, s3_holding, tmp_path):
    kept = tmp_path / "kept"
    with s3_holding(cohort, "stores-of-verbs", "all/study") as address:
        where = ["--endpoint-url", f"http://{address}"]
        study = "s3://stores-of-verbs/all/study"
        image = f"{study}/imc/1_0mpp/images/t1.ome.zarr"
        told = run("info", study, *where)
        assert told.code == 0, told.err
        assert "t1" in told.out
        # Before the verb or after it.
        assert run(*where, "info", image, "--json").out == run("info", image, "--json", *where).out
        checked = run("cohort", "validate", study, *where)
        assert checked.code == 0, checked.err
        short = ["--size", "32", "--batch-size", "4", "--seconds", "0.2"]
        measured = run("bench", study, *short, *where)
        assert measured.code == 0, measured.err
        assert f"{study}: 2 images" in measured.out
        assert "--disk-cache DIRECTORY" in measured.out
        again = run(
            "bench", image, *short, *where, "--disk-cache", str(kept), "--disk-cache-limit", "20MB"
        )
        assert again.code == 0, again.err
        assert "a first epoch waits for the store" in again.out
        assert (
            sum(file.stat().st_size for file in kept.rglob("*") if file.is_file()) > 4 * 128 * 128
        )
    assert not {*NAMES} & {*os.environ}


def test_options_are_of_one_run_and_go_before_the_environment(bare, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of somebody else")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://elsewhere")
    before = dict(os.environ)
    asked = StoreOptions("http://here:9", "lab", disk_cache="cache", disk_cache_limit="1GiB")
    with stores_reached(asked):
        assert os.environ["AWS_ENDPOINT_URL_S3"] == "http://here:9"
        assert os.environ["AWS_PROFILE"] == "lab"
        # Keys in the environment would go before the profile.
        assert "AWS_ACCESS_KEY_ID" not in os.environ
        assert os.environ["MICROTOME_DISK_CACHE"] == "cache"
        assert os.environ["MICROTOME_DISK_CACHE_LIMIT"] == "1GiB"
    assert dict(os.environ) == before
    with stores_reached(StoreOptions(anonymous=True)):
        assert os.environ["AWS_NO_SIGN_REQUEST"] == "YES"
        spec = place_of("s3://public/slides").spec
        assert spec["aws_credentials"] == {"type": "anonymous"}
    assert "aws_credentials" not in place_of("s3://public/slides").spec
    with stores_reached(None):
        assert dict(os.environ) == before
    with pytest.raises(ZeroDivisionError), stores_reached(asked):
        raise ZeroDivisionError
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ["--endpoint-url", "localhost:9000"],
            "--endpoint-url is the address of a server, such as",
        ),
        (["--anonymous", "--profile", "lab"], "leave one out"),
        (["--disk-cache-limit", "1GiB"], "say where it is with --disk-cache DIRECTORY"),
        (["--disk-cache", "here", "--disk-cache-limit", "much"], "a size is a number and a unit"),
    ],
    ids=["endpoint", "anonymous", "limit alone", "limit"],
)
def test_what_is_no_option_is_told(run, bare, options, named):
    found = run("info", "s3://nothing/there", *options)
    assert found.code == 2
    assert named in found.err
    assert "Traceback" not in found.err
