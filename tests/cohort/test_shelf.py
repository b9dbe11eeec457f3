"""Images of a dataset, opened when first needed, by any number of threads."""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from microtome.cohort.datasets._shelf import ImageShelf
from microtome.errors import StorageError
from microtome.sources import open_image

THREADS = 8


class Opener:
    """Opens images slowly, and counts."""

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()
        self.at_once = 0
        self.most = 0
        self.guard = threading.Lock()
        self.wait = threading.Event()
        self.failing = 0

    def __call__(self, tissue_id: str) -> Any:
        with self.guard:
            self.opened[tissue_id] += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            fails, self.failing = self.failing > 0, self.failing - 1
        self.wait.wait(0.05)
        with self.guard:
            self.at_once -= 1
        if fails:
            msg = "the store stumbled"
            raise StorageError(msg)
        return open_image(np.zeros((4, 4), np.uint8))


def test_threads_open_an_image_once_and_others_meanwhile() -> None:
    opener = Opener()
    shelf = ImageShelf(opener, ["a", "b", "c"])
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda n: shelf[n % 3], range(6 * THREADS)))
    assert opener.opened == {"a": 1, "b": 1, "c": 1}
    assert opener.most > 1, "one after the other"
    assert len({id(image) for image in found}) == 3
    assert all(image is found[n % 3] for n, image in enumerate(found))


def test_an_image_that_failed_to_open_is_tried_again() -> None:
    opener = Opener()
    opener.failing = 1
    shelf = ImageShelf(opener, ["a"])
    with pytest.raises(StorageError, match="stumbled"):
        shelf[0]
    assert shelf[0] is shelf[0]
    assert opener.opened == {"a": 2}


def test_places_travel_and_open_images_do_not() -> None:
    shelf = ImageShelf(open_image, ["a", "b"])
    assert len(pickle.loads(pickle.dumps(shelf))) == 2
