"""docs/architecture.md shows the house that test_architecture.py guards: the same rooms, the same floors."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ROW = re.compile(r"^\| `(?P<room>\w+)` \| (?P<floor>\d+) \| (?P<words>.+) \|$", re.MULTILINE)


def floors_of_the_test() -> dict[str, int]:
    # By path: test folders are no packages, and this one is not on the import path.
    return runpy.run_path(str(REPOSITORY / "tests" / "test_architecture.py"))["FLOORS"]


def test_the_page_has_every_room_on_its_floor():
    page = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8")
    rows = [(row["room"], int(row["floor"])) for row in ROW.finditer(page)]
    assert len(rows) == len(dict(rows)), "a room has two rows"
    assert dict(rows) == floors_of_the_test()


def test_the_page_names_the_rooms_from_the_ground_up():
    page = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8")
    floors = [int(row["floor"]) for row in ROW.finditer(page)]
    assert floors == sorted(floors)
