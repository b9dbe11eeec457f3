"""What needs torch; imported only where a torch object is at hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

__all__ = ["module_on", "running_module", "tensor_to_numpy"]


def tensor_to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Copy a tensor to numpy; bfloat16, which numpy lacks, as float32."""
    held = tensor.detach().cpu()
    return (held.float() if held.dtype == torch.bfloat16 else held).numpy()


@contextmanager
def running_module(
    module: torch.nn.Module, function: Callable[[Any], Any], *, raw: bool
) -> Generator[Callable[[Any], Any]]:
    """Give a function that runs a module as it is meant to be used after training.

    Parameters
    ----------
    module
        Put in evaluation mode for as long as the block lasts; its parts are put back after it.
    function
        The module or one of its methods.
    raw
        Whether what comes in has the type that it should have; otherwise it becomes float32.
    """
    modes = {part: part.training for part in module.modules()}
    device = _device_of(module)
    module.eval()

    def run(batch: Any) -> Any:
        tensor = batch if isinstance(batch, torch.Tensor) else torch.from_numpy(_plain(batch, raw))
        # Bytes travel to the device as bytes and become numbers there.
        tensor = tensor.to(device)
        # Around each call only: what the caller does between calls is the caller's.
        with torch.inference_mode():
            return function(tensor if raw else tensor.float())

    try:
        yield run
    finally:
        for part, training in modes.items():
            part.training = training


def module_on(module: torch.nn.Module, device: Any) -> torch.nn.Module:
    """Return a copy of a module on a device; see `copy_on`."""
    try:
        return copy.deepcopy(module).to(torch.device(device))
    # A build without CUDA says AssertionError, a number too high RuntimeError, no name TypeError.
    except (AssertionError, RuntimeError, TypeError) as error:
        msg = f"{type(module).__name__} cannot be copied to the device {device!r}: {error}"
        raise InvalidInputError(msg) from error


def _plain(batch: Any, raw: bool) -> NDArray[Any]:  # noqa: FBT001 - ours
    array: NDArray[Any] = np.ascontiguousarray(batch)
    # torch knows uint16 to uint64 only in part.
    return array if raw or array.dtype == np.uint8 else array.astype(np.float32, copy=False)


def _device_of(module: torch.nn.Module) -> torch.device:
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")
