"""A model on several devices: a copy of it on each, and batches in turn over the copies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from microtome.errors import InvalidInputError

from ._model import Preprocess, copy_on, running

__all__ = ["checked_devices", "copies_of", "in_turn", "running_on"]

_T = TypeVar("_T")
_R = TypeVar("_R")

# One that is worked on, and one that waits for the device, so that it never does.
_AHEAD = 2


def checked_devices(devices: Sequence[Any] | None) -> list[Any] | None:
    """Return the devices that copies of a model go to, None for the model as it is.

    Raises
    ------
    InvalidInputError
        If there is none, or one name stands for a list.
    """
    if devices is None:
        return None
    if isinstance(devices, str) or not isinstance(devices, Sequence) or not devices:  # pyright: ignore[reportUnnecessaryIsInstance] - what a user gives
        msg = (
            f'devices must be a list of torch devices such as ["cuda:0", "cuda:1"], got {devices!r}'
        )
        raise InvalidInputError(msg)
    return list(devices)


def copies_of(model: Any, devices: Sequence[Any]) -> list[Any]:
    """Return a copy of a model on each device.

    Raises
    ------
    InvalidInputError
        If the model is no torch module, or torch refuses a device.
    """
    return [copy_on(model, device) for device in devices]


@contextmanager
def running_on(
    model: Any, preprocess: Preprocess | None, devices: Sequence[Any] | None
) -> Generator[list[Callable[[Any], Any]]]:
    """Give functions from a stored batch to the model's output, one a device; see `running`."""
    models = [model] if devices is None else copies_of(model, devices)
    with ExitStack() as stack:
        yield [stack.enter_context(running(one, preprocess)) for one in models]


def in_turn(functions: Sequence[Callable[[_T], _R]], items: Iterable[_T]) -> Generator[_R]:
    """Call functions on items in turn, each in a thread of its own, and yield the results in order.

    One function is called here. Of several, each has at most two items at a time. Closing the
    generator waits for what is under way.

    Parameters
    ----------
    functions
        One a device.
    items
        What they are called with, asked for in this thread.
    """
    if len(functions) == 1:
        # Neither an item nor a result is held while the caller works on the latter.
        yield from map(functions[0], items)
        return
    under_way: deque[Future[_R]] = deque()
    with ExitStack() as stack:
        threads = [
            stack.enter_context(
                ThreadPoolExecutor(1, thread_name_prefix=f"microtome-device-{turn}")
            )
            for turn in range(len(functions))
        ]
        try:
            for number, item in enumerate(items):
                turn = number % len(functions)
                under_way.append(threads[turn].submit(functions[turn], item))
                if len(under_way) == _AHEAD * len(functions):
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
