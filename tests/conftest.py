"""What every test may use: the folder of real images, and how hypothesis searches."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).parents[1]

# No deadline: the machines that run this are shared, and a slow example is not a wrong one.
hypothesis.settings.register_profile("local", deadline=None)
# In CI the same examples every time, so that a red run is about the change and can be repeated.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real acquisitions beside the repository; absent in most clones."""
    folder = (REPOSITORY / ".." / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"the real images are not here: {folder} is no folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard():
    """Hear SIGINT even where a shell started the suite in the background, which ignores it.

    Programs that the tests start and interrupt inherit this.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
