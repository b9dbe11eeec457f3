"""Workers of a cluster run the code that runs here, or nothing of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import microtome
from microtome.errors import WorkerError
from microtome.jobs import code_digest, run_each


def changes() -> dict[str, Callable[[], None]]:
    """What makes a worker one of another version; functions within one travel whole."""

    def edited() -> None:
        from microtome import jobs

        jobs.code_digest = lambda: "0" * 64

    def older() -> None:
        from microtome import jobs

        del jobs.code_digest

    return {"edited": edited, "older": older}


@pytest.mark.parametrize("change", ["edited", "older"])
def test_a_worker_of_another_version_is_refused_before_any_work(
    dask_client: Any, change: str
) -> None:
    first, second = dask_client.scheduler_info()["workers"]
    with dask_client.get_executor() as executor:
        assert list(run_each(abs, [-1, 2, -3], executor)) == [1, 2, 3]
    from distributed import Client

    dask_client.run(changes()[change], workers=[second])
    with Client(dask_client.scheduler.address) as late, late.get_executor() as executor:
        with pytest.raises(
            WorkerError, match=r"1 of 2 dask workers .* another microtome"
        ) as caught:
            list(run_each(abs, [-1, 2, -3], executor))
        assert second in str(caught.value)
        assert first not in str(caught.value)
        with pytest.raises(WorkerError, match="another microtome"):  # and is so the next time
            list(run_each(abs, [-1], executor))


def test_workers_are_asked_once_a_client(dask_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    ask = dask_client.run
    monkeypatch.setattr(dask_client, "run", lambda *a, **k: asked.append(a) or ask(*a, **k))
    for _ in range(3):
        with dask_client.get_executor() as executor:
            assert list(run_each(abs, [-1], executor)) == [1]
    assert len(asked) == 1


def test_any_edit_of_any_file_is_another_code(tmp_path: Path) -> None:
    copy = tmp_path / "microtome"
    shutil.copytree(
        Path(microtome.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__")
    )

    def digest() -> str:
        command = [sys.executable, "-c", "from microtome.jobs import code_digest as d; print(d())"]
        found = subprocess.run(
            command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return found.stdout.strip()

    before = digest()
    assert before == digest() != ""
    edited = copy / "cohort/_fingerprint.py"
    edited.write_text(edited.read_text() + "\n# as after a pull\n")
    assert digest() != before
    assert code_digest() == code_digest()
