"""Where the credentials of S3 come from: the environment, or the files of Amazon's tools."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microtome.storage import Place, StorageOptions, place_of
from microtome.storage._credentials import stated_credentials

_READ = """
import sys
from microtome.storage import StorageOptions, place_of
options = StorageOptions(endpoint=sys.argv[1], region="us-east-1", retries=1, longest_pause=0.1)
for _ in range(2):
    print(place_of("s3://credentials/a", options).read("b.txt"))
"""


@pytest.fixture(scope="module")
def server(s3_holding: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("bucket")
    (folder / "b.txt").write_text("there")
    with s3_holding(folder, "credentials", "a") as address:
        yield f"http://{address}"


def read(server: str, home: Path, **environment: str) -> tuple[str, str]:
    """What a process of its own prints, without any credentials but these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-c", _READ, server],
        env={**kept, "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout, done.stderr


def test_nothing_is_said_of_files_that_are_not_needed(server: str, tmp_path: Path) -> None:
    out, told = read(server, tmp_path, AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing")
    assert out.split() == ["b'there'"] * 2
    assert told == ""


KEYS = "aws_access_key_id = testing\naws_secret_access_key = testing\n"


@pytest.mark.parametrize(
    ("files", "environment"),
    [
        ({"credentials": f"[default]\n{KEYS}"}, {}),
        ({"credentials": f"[default]\n{KEYS}", "config": "[default]\nregion = us-east-1\n"}, {}),
        ({"credentials": f"[default]\n[mine]\n{KEYS}"}, {"AWS_PROFILE": "mine"}),
        ({"credentials": f"[mine]\n{KEYS}"}, {"AWS_PROFILE": "mine", "AWS_ACCESS_KEY_ID": ""}),
        ({"config": f"[profile mine]\n{KEYS}"}, {"AWS_DEFAULT_PROFILE": "mine"}),
        ({"config": f"[default]\n{KEYS}"}, {}),
    ],
    ids=["credentials", "both", "profile", "empty key", "config's profile", "config"],
)
def test_files_of_profiles_are_read_where_the_environment_says_nothing(
    server: str, tmp_path: Path, files: dict[str, str], environment: dict[str, str]
) -> None:
    (tmp_path / ".aws").mkdir()
    for name, text in files.items():
        (tmp_path / ".aws" / name).write_text(text)
    out, told = read(server, tmp_path, **environment)
    assert out.split() == ["b'there'"] * 2, told
    if "credentials" in files:
        assert told == ""


def test_files_may_lie_elsewhere(server: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"[default]\n{KEYS}")
    out, told = read(server, tmp_path, AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "keys"))
    assert out.split() == ["b'there'"] * 2, told
    assert told == ""


def test_the_environment_is_asked_only_if_it_has_both_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def credentials(**options: Any) -> Any:
        place = place_of("s3://bucket/key", StorageOptions(**options))
        assert isinstance(place, Place)
        return place.spec.get("aws_credentials")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    assert credentials() is None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    assert credentials() is None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    assert credentials() == {"type": "environment"}
    assert credentials(credentials="anonymous") == {"type": "anonymous"}
    # What is sent to another process says nothing of it: that one may have others.
    place = place_of("s3://bucket/key")
    assert isinstance(place, Place)
    assert "environment" not in (place / "a").store


@pytest.mark.parametrize("text", ["", "no section", "[default]\naws_access_key_id = a\n", "\udcff"])
def test_a_file_without_keys_is_left_to_the_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "keys"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    assert stated_credentials() == {"type": "default", "profile": "default"}
