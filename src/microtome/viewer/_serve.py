"""Serving the viewer on this machine until someone ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import webbrowser
from collections.abc import Callable

from microtome.coordinates import Mpp
from microtome.errors import DependencyError, InvalidInputError, StorageError

from ._app import NEEDS, viewer_app
from ._gate import new_token

__all__ = ["view"]

_log = logging.getLogger(__name__)

_ADDRESS = "127.0.0.1"
_BACKLOG = 128
_LAST_WORDS = 2  # seconds for tiles that are under way when the server ends


def view(
    path: str | os.PathLike[str],
    *,
    port: int = 0,
    open_browser: bool = True,
    mpp: float | tuple[float, float] | Mpp | None = None,
    image: str | int | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Show a cohort or an image in the browser; returns when it is interrupted (Ctrl-C).

    The server listens on 127.0.0.1 only and answers whoever knows its address, which holds a new
    random token each time. It reads and never writes.

    Parameters
    ----------
    path
        Directory of a cohort, or an image in any format that can be read.
    port
        Port to listen on; 0 for one that is free.
    open_browser
        Whether the system's browser is opened.
    mpp, image
        Of an image: as for `microtome.open_image`.
    ready
        Called with the address as soon as the server listens.

    Raises
    ------
    NotFoundError, FormatError, NoResolutionError
        If there is nothing to look at, nothing that can be read, or an image without a pixel size.
    InvalidInputError
        If the port is none.
    StorageError
        If the port is taken.
    DependencyError
        If the extra `view` is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise DependencyError(NEEDS) from error
    if not 0 <= port < 1 << 16:
        msg = f"a port is a number from 0 to {(1 << 16) - 1}, got {port}"
        raise InvalidInputError(msg)
    token = new_token()
    app = viewer_app(path, token=token, mpp=mpp, image=image)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_ADDRESS, port))
            # From here on a browser that comes waits until it is answered.
            listener.listen(_BACKLOG)
        except OSError as error:
            msg = f"cannot listen on {_ADDRESS}:{port}: {error}; choose another port, or 0 for any"
            raise StorageError(msg) from error
        url = f"http://{_ADDRESS}:{listener.getsockname()[1]}/{token}/"
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # addresses hold the token
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=_LAST_WORDS,
        )
        if ready is not None:
            ready(url)
        if open_browser:
            threading.Thread(target=_open, args=(url,), daemon=True).start()
        # The server ends in order at the first signal, and hands it on when it has.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _open(url: str) -> None:
    try:
        opened = webbrowser.open(url)
    except webbrowser.Error:
        opened = False
    if not opened:
        _log.info("no browser was found to open; go to the address yourself")
