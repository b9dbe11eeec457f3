"""Names that are one to a reader and two to a program: of splits, and of channels."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable

__all__ = ["channels_spelled_twice", "spelled_twice"]

# Between digits a separator tells two numbers apart: DAPI_1_1 is not DAPI_11.
_SEPARATORS = re.compile(r"(?<!\d)[\s_\-]+|[\s_\-]+(?!\d)")


def spelled_twice(splits: Iterable[str | None]) -> list[list[str]]:
    """Return splits that differ in capital letters or spaces only: of Train nobody would train.

    >>> spelled_twice(["train", "test", "Train", None, "train"])
    [['train', 'Train']]
    """
    return _alike(splits, lambda split: split.strip().casefold())


def channels_spelled_twice(names: Iterable[str]) -> list[list[str]]:
    """Return channels that differ in capital letters, spaces, hyphens or underscores only.

    >>> channels_spelled_twice(["CD3", "DAPI_1_1", "Cd3", "DAPI_11", "Ki-67", "Ki67"])
    [['CD3', 'Cd3'], ['Ki-67', 'Ki67']]
    """
    return _alike(names, _channel_key)


def _channel_key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold().strip()
    return _SEPARATORS.sub("", folded) or folded


def _alike(names: Iterable[str | None], key: Callable[[str], str]) -> list[list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        if name is not None:
            found[key(name)].append(name)
    return [spellings for spellings in found.values() if len(spellings) > 1]
