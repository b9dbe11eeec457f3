"""Where the work of a verb is done: here, in processes on this machine, or on a dask cluster."""

from __future__ import annotations

import socket
from collections.abc import Generator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from microtome.errors import DependencyError, InvalidInputError, StorageError
from microtome.jobs import process_pool

__all__ = ["DaskOption", "WorkersOption", "executor_of"]

# Every verb that goes over tissues has these two; the words for them stand in its docstring as
#     workers
#         Processes on this machine that share the tissues; 1 does them here, one after the other.
#     dask
#         Address of a dask scheduler whose workers share the tissues, for example tcp://host:8786.
WorkersOption = Annotated[int, Parameter(name="--workers")]
DaskOption = Annotated[str | None, Parameter(name="--dask")]

# Seconds in which a scheduler must take a connection.
_PATIENCE = 10.0


@contextmanager
def executor_of(workers: int = 1, dask: str | None = None) -> Generator[Executor | None]:
    """Give the executor that the options name while the block runs; None for this process.

    Parameters
    ----------
    workers
        Processes on this machine; 1 for none but this one.
    dask
        Address of a dask scheduler.

    Raises
    ------
    InvalidInputError
        If the number is below 1, or both options are given.
    DependencyError
        If dask.distributed is not installed.
    StorageError
        If nobody answers at the address.
    """
    if workers < 1:
        msg = f"--workers must be at least 1, got {workers}"
        raise InvalidInputError(msg)
    if dask is not None:
        if workers != 1:
            msg = f"--workers {workers} and --dask {dask} exclude each other; the cluster has its own workers"
            raise InvalidInputError(msg)
        with _cluster(dask) as executor:
            yield executor
    elif workers == 1:
        yield None
    else:
        with process_pool(workers) as pool:
            yield pool


@contextmanager
def _cluster(address: str) -> Generator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        msg = "--dask needs dask.distributed, which is not installed: pip install 'microtome[dask]'"
        raise DependencyError(msg) from error
    _verify_answers(address)
    with Client(address) as client, client.get_executor() as executor:
        yield executor


def _verify_answers(address: str) -> None:
    """Knock before a client is made: one that cannot connect complains again when it is collected."""
    place = urlsplit(address if "://" in address else f"tcp://{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError:  # a port that is no number
        host = port = None
    if host is None or port is None or place.scheme not in {"tcp", "tls"}:
        msg = f"--dask {address!r} is no address of a scheduler; give one such as tcp://host:8786"
        raise InvalidInputError(msg)
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
    except OSError as error:
        msg = f"no dask scheduler answers at {address}: {error}; is it running?"
        raise StorageError(msg) from error
