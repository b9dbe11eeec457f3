"""Turning a batch's pixels into a torch tensor, where torch is there and wanted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import DependencyError, InvalidInputError

if TYPE_CHECKING:
    import torch

__all__ = ["Convert", "converter"]

Convert = Callable[[NDArray[Any]], Any]
"""Turns the pixels of a batch into what the loader yields."""


def converter(as_torch: bool | None, device: str | torch.device | None) -> Convert:  # noqa: FBT001 - an option of the loader, handed on
    """Return what turns the pixels of a batch into what the loader yields.

    Parameters
    ----------
    as_torch
        Whether to make tensors; None for tensors where torch is installed.
    device
        Where the tensors go; None leaves them in memory.

    Raises
    ------
    DependencyError
        If tensors are asked for and torch is not installed.
    InvalidInputError
        If a device is given for numpy arrays, or is not there.
    """
    if device is not None and as_torch is False:
        msg = f"device={device!r} is for tensors, and as_torch=False asks for numpy arrays; leave one out"
        raise InvalidInputError(msg)
    there = find_spec("torch") is not None
    if (as_torch or device is not None) and not there:
        msg = "torch is not installed: install the extra microtome[torch], or leave as_torch and device out"
        raise DependencyError(msg)
    if as_torch is False or not there:
        return _unchanged

    # Imported now, not by the first batch: a second of importing would count as reading.
    import torch

    if device is None:
        return partial(_tensor, None)
    try:
        place = torch.device(device)
    except RuntimeError as error:
        msg = f"device={device!r} is no device of torch: {str(error).splitlines()[0]}"
        raise InvalidInputError(msg) from error
    # torch itself fails in the middle of the first batch, with an AssertionError.
    count = torch.cuda.device_count() if place.type == "cuda" else None
    if count is not None and (place.index or 0) >= count:
        msg = (
            f"device={device!r} is not there: torch {torch.__version__} sees {count} CUDA devices; use "
            "device='cpu', or leave device out"
        )
        raise InvalidInputError(msg)
    return partial(_tensor, place)


def _tensor(place: torch.device | None, data: NDArray[Any]) -> Any:
    import torch

    # A tensor needs memory that may be written to; a source over a memory map has none.
    tensor = torch.from_numpy(np.require(data, requirements=["C", "W"]))
    return tensor if place is None else tensor.to(place)


def _unchanged(data: NDArray[Any]) -> Any:
    return data
