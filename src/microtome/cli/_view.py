"""The verb that shows slides in a browser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ._console import answer
from ._options import parse_mpp

__all__ = ["view"]


def view(
    path: Path,
    *,
    port: int = 0,
    browser: Annotated[bool, Parameter(negative="--no-browser")] = True,
    image: str | None = None,
    mpp: str | None = None,
) -> None:
    """Look at a cohort or an image in the browser, until interrupted (Ctrl-C).

    Prints the address, which holds a random token: whoever has it, on this machine, may look.

    Parameters
    ----------
    path
        A cohort directory, or an image in any format that can be read.
    port
        Port on 127.0.0.1; 0 for one that is free.
    browser
        Open the system's browser.
    image
        Name of one of the images in a file, where it holds several.
    mpp
        Micrometres per pixel of an image that states none.
    """
    from microtome.viewer import view as do

    def ready(url: str) -> None:
        # At once, also into a pipe: the verb goes on until it is interrupted.
        answer(url)
        sys.stdout.flush()

    do(path, port=port, open_browser=browser, mpp=parse_mpp(mpp), image=image, ready=ready)
