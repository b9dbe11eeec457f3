"""Turning a batch's pixels into a torch tensor, where torch is there and wanted."""

from __future__ import annotations

from collections.abc import Callable
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
        If a device is given for numpy arrays.
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

    place = None if device is None else torch.device(device)

    def convert(data: NDArray[Any]) -> Any:
        # A tensor needs memory that may be written to; a source over a memory map has none.
        tensor = torch.from_numpy(np.require(data, requirements=["C", "W"]))
        return tensor if place is None else tensor.to(place)

    return convert


def _unchanged(data: NDArray[Any]) -> Any:
    return data
