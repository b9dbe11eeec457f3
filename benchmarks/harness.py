"""Measuring competitors beside each other: same items, in turns, in processor time.

A shared machine gives no two runs alike, so nothing is compared across runs: in every round each
competitor does the same fresh items, one after the other, and what is reported is the median over
the rounds of its ratio to one of them. Processor time counts, since wall time also measures who
else was at work; both are kept.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .machine import cpu_seconds

__all__ = ["Benchmark", "Items", "Measurement", "OwnOrder", "Read", "Table", "UnequalPixelsError"]

Items = NDArray[np.int64]
"""What one round asks for: an item a row."""
Read = Callable[[Items], Iterable[Any]]
"""Does some items and yields what came of them, in order, array by array; each is looked at and
dropped before the next is asked for."""
Setup = Callable[[], Generator[Read, None, None]]
"""Prepares, yields its `Read` once, and cleans up."""


@dataclass(frozen=True, slots=True)
class OwnOrder:
    """A `Read` that does the items of a round in an order of its own, as shuffling loaders do.

    Parameters
    ----------
    read
        What does them.
    order
        Tells for items the numbers of those that come first, second and so on.
    """

    read: Read
    order: Callable[[Items], NDArray[np.int64]]

    def __call__(self, items: Items) -> Iterable[Any]:
        """Do the items."""
        return self.read(items)

    def checked(self, items: Items) -> Iterable[Any]:
        """Do the items, and yield what came of them in the order of the items."""
        found = _together(self.read(items))
        asked = np.empty_like(found)
        asked[self.order(items)] = found
        yield asked


class UnequalPixelsError(Exception):
    """Two competitors do not read the same: there is nothing to compare."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One competitor's figures, an entry a round."""

    name: str
    cpu: list[float]
    """Processor seconds an item."""
    wall: list[float]
    """Seconds an item."""
    peak: list[int] = field(default_factory=list)
    """The most memory held, in bytes, where each round has a process of its own."""

    def cpu_times(self, base: Measurement) -> list[float]:
        """Return how many times the processor time of another this one needs, round by round."""
        return [own / other for own, other in zip(self.cpu, base.cpu, strict=True)]


@dataclass(frozen=True, slots=True)
class Table:
    """What one benchmark found."""

    title: str
    item: str
    items: int
    base: str
    measurements: list[Measurement]
    notes: list[str]
    how: str = ""
    """How it was measured, where that is not as `Benchmark` does it."""
    facts: dict[str, float] = field(default_factory=dict)
    """What else is known, such as bytes on disk."""

    @property
    def base_measurement(self) -> Measurement:
        """The competitor that the others are compared with."""
        return next(m for m in self.measurements if m.name == self.base)

    def cpu_ratio(self, name: str) -> float:
        """Return the median ratio of a competitor's processor time to the base's."""
        found = next(m for m in self.measurements if m.name == name)
        return statistics.median(found.cpu_times(self.base_measurement))


@dataclass(slots=True)
class Benchmark:
    """Competitors for one task.

    Parameters
    ----------
    title
        The task.
    item
        What is counted, in the singular.
    draw
        Makes a number of items from a generator.
    items
        Items a round.
    base
        Name of the competitor that the others are compared with.
    notes
        What a reader of the table should know.
    least_seconds
        A competitor does the items of a round again and again until this time has passed: what
        takes a tenth of a second is measured no better than a tenth of a second allows.
    tolerance
        How much of a value competitors may differ by, and of 1 where it is small: more than 0
        where the same formula is computed in another order.
    """

    title: str
    item: str
    draw: Callable[[np.random.Generator, int], Items]
    items: int
    base: str
    notes: list[str] = field(default_factory=list)
    least_seconds: float = 0.5
    tolerance: float = 0.0
    before: Callable[[], None] | None = None
    """Called before each is measured, while no clock runs."""
    checked: int | None = None
    """Items that all are checked to do alike, where a round has more than memory holds several times."""
    facts: dict[str, float] = field(default_factory=dict)
    """Goes into the table."""
    _setups: dict[str, Setup] = field(default_factory=dict)
    _most: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, setup: Setup, *, items: int | None = None) -> None:
        """Register a competitor.

        Parameters
        ----------
        name
            What it is called.
        setup
            Prepares, yields its `Read`, and cleans up.
        items
            How many of the items of a round it does, the first of them: a slow one needs no more to
            be measured well. None for all.
        """
        self._setups[name] = setup
        if items is not None:
            self._most[name] = items

    def run(self, rounds: int, *, seed: int = 0, tell: Callable[[str], None]) -> Table:
        """Check that all competitors give equal arrays, then measure them in turns.

        Parameters
        ----------
        rounds
            How many times each is measured; the check, which also warms up, comes on top.
        seed
            Chooses the items.
        tell
            Called with a line after every round.

        Raises
        ------
        UnequalPixelsError
            If two do not give the same.
        """
        with ExitStack() as stack:
            reads = {
                name: stack.enter_context(contextmanager(setup)())
                for name, setup in self._setups.items()
            }
            self._check(reads, self._draw(seed, 0, min(self.items, self.checked or self.items)))
            if self.checked is not None and self.checked < self.items:
                # What comes once comes now: code that is loaded, memory that is touched.
                items = self._draw(seed, 0, self.items)
                for name, read in reads.items():
                    for _ in read(items[: self._most.get(name)]):
                        pass
            found = {name: Measurement(name, [], []) for name in reads}
            for number in range(1, rounds + 1):
                items = self._draw(seed, number, self.items)
                for name, read in reads.items():
                    if self.before is not None:
                        self.before()
                    cpu, wall = _timed(read, items[: self._most.get(name)], self.least_seconds)
                    found[name].cpu.append(cpu)
                    found[name].wall.append(wall)
                tell(f"{self.title}: round {number} of {rounds}")
        return Table(
            self.title,
            self.item,
            self.items,
            self.base,
            list(found.values()),
            self.notes,
            facts=self.facts,
        )

    def _draw(self, seed: int, number: int, count: int) -> Items:
        return self.draw(np.random.default_rng((seed, number)), count)

    def _check(self, reads: dict[str, Read], items: Items) -> None:
        everything = _together(_checked(reads[self.base])(items))
        for name, read in reads.items():
            most = self._most.get(name)
            given, expected = _together(_checked(read)(items[:most])), everything[:most]
            if given.dtype != expected.dtype or not self._same(given, expected):
                wrong = (
                    np.flatnonzero((given != expected).reshape(len(given), -1).any(1))[:5].tolist()
                    if given.shape == expected.shape
                    else "all"
                )
                msg = (
                    f"{self.title}: {name} gives {given.shape} {given.dtype}, {self.base} gives "
                    f"{expected.shape} {expected.dtype}; different: {self.item} {wrong}"
                )
                raise UnequalPixelsError(msg)

    def _same(self, given: NDArray[Any], expected: NDArray[Any]) -> bool:
        if not self.tolerance:
            return np.array_equal(given, expected)
        return given.shape == expected.shape and np.allclose(
            given, expected, rtol=self.tolerance, atol=self.tolerance
        )


def _checked(read: Read) -> Read:
    """Return what gives everything in the order of the items."""
    return getattr(read, "checked", read)


def _timed(read: Read, items: Items, least_seconds: float) -> tuple[float, float]:
    """Return processor and wall seconds an item."""
    gc.collect()
    done = 0
    began, cpu = time.perf_counter(), cpu_seconds()
    while not done or time.perf_counter() - began < least_seconds:
        for _ in read(items):
            pass
        done += len(items)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - began
    return cpu / done, wall / done


def _together(arrays: Iterable[Any]) -> NDArray[Any]:
    # Copied one by one: a competitor may fill the same buffer again.
    return np.concatenate([np.asarray(array).copy() for array in arrays])
