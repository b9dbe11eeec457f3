"""Turning a batch's pixels into a torch tensor, where torch is there and wanted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import DependencyError, InvalidInputError
from microtome.regions import lock_memory

if TYPE_CHECKING:
    import torch

__all__ = ["Convert", "converter"]

Convert = Callable[[NDArray[Any]], Any]
"""Turns the pixels of a batch into what the loader yields."""


def converter(
    as_torch: bool | None,  # noqa: FBT001 - an option of the loader, handed on
    device: str | torch.device | None,
    *,
    pin: bool | None = None,
) -> Convert:
    """Return what turns the pixels of a batch into what the loader yields.

    Parameters
    ----------
    as_torch
        Whether to make tensors; None for tensors where torch is installed.
    device
        Where the tensors go; None leaves them in memory.
    pin
        Whether memory is locked into place, from where a CUDA device copies faster and while it
        works; None where the device is one.

    Raises
    ------
    DependencyError
        If tensors are asked for and torch is not installed.
    InvalidInputError
        If a device is given for numpy arrays, or is not there, or memory is to be locked without
        one.
    """
    if device is not None and as_torch is False:
        msg = f"device={device!r} is for tensors, and as_torch=False asks for numpy arrays; leave one out"
        raise InvalidInputError(msg)
    if pin and as_torch is False:
        msg = "pin_memory=True is for tensors, and as_torch=False asks for numpy arrays; leave one out"
        raise InvalidInputError(msg)
    there = find_spec("torch") is not None
    if (as_torch or device is not None or pin) and not there:
        msg = "torch is not installed: install the extra microtome[torch], or leave as_torch, device and pin_memory out"
        raise DependencyError(msg)
    if as_torch is False or not there:
        return _unchanged

    # Imported now, not by the first batch: a second of importing would count as reading.
    import torch

    if pin and not torch.cuda.is_available():
        msg = f"pin_memory=True is for CUDA devices, and torch {torch.__version__} sees none; leave it out"
        raise InvalidInputError(msg)
    if device is None:
        return _pinned if pin else partial(_tensor, None)
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
    if place.type == "cuda" and pin is not False:
        return partial(_moved, place)
    return partial(_tensor, place)


def _tensor(place: torch.device | None, data: NDArray[Any]) -> Any:
    import torch

    # A tensor needs memory that may be written to; a source over a memory map has none.
    tensor = torch.from_numpy(np.require(data, requirements=["C", "W"]))
    return tensor if place is None else tensor.to(place)


def _pinned(data: NDArray[Any]) -> Any:
    # Torch's own locked memory, not that of batches: whoever copies from it without waiting may drop
    # the tensor before the copy is made, and torch then waits before it uses the memory again.
    return _tensor(None, data).pin_memory()


def _moved(place: torch.device, data: NDArray[Any]) -> Any:
    # The copy is waited for here, in a thread of the loader: then the memory is free for a batch.
    lock_memory(data, _lock)
    return _tensor(place, data)


def _lock(address: int, size: int) -> Callable[[int], object] | None:
    import torch

    runtime: Any = torch.cuda.cudart()
    # Where the system allows no more of it, the copy is slower and nothing else.
    done = int(runtime.cudaHostRegister(address, size, 0)) == 0
    # The call itself: nothing can be imported any more when a process ends.
    return runtime.cudaHostUnregister if done else None


def _unchanged(data: NDArray[Any]) -> Any:
    return data
