"""Names of splits: those that somebody spelled in two ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

__all__ = ["spelled_twice"]


def spelled_twice(splits: Iterable[str | None]) -> list[list[str]]:
    """Return splits that differ in capital letters or spaces only: of Train nobody would train.

    >>> spelled_twice(["train", "test", "Train", None, "train"])
    [['train', 'Train']]
    """
    found: dict[str, list[str]] = defaultdict(list)
    for split in dict.fromkeys(splits):
        if split is not None:
            found[split.strip().casefold()].append(split)
    return [spellings for spellings in found.values() if len(spellings) > 1]
