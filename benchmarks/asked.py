"""What is asked of the loader, beside what was measured: ``python -m benchmarks.asked``.

Every figure is taken from the JSON files that `python -m benchmarks` wrote; what is in none of them is
said to be missing. A ratio is that of two competitors of one table, round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import batches, cold, packed, peers, slide_batches, startup, threads

__all__ = ["BENCHMARKS", "ROWS", "Found", "Row", "measured", "summary"]

Kind = Literal["times", "clock", "seconds", "memory", "fact"]
"""How many times less processor time, or time of the clock, than another; seconds of the clock;
bytes that were held; a fact of a table."""

BENCHMARKS = ("batches", "peers", "packed", "slide_batches", "startup", "cold", "threads")
"""Those that the rows are taken from."""

_ZARR, _THEIRS = "zarr-python, torch DataLoader", "peers' layout"
_CAREAMICS = ("CAREamics, 0 workers", "CAREamics, 2 workers")
_OPENSLIDE = (slide_batches.BASE, f"{slide_batches.BASE}, 2 workers")
_BATCH = 1 << 30


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that is asked.

    Parameters
    ----------
    what
        In words.
    source, table
        Name of a benchmark, and title of its table.
    ours
        Competitor, or name of a fact.
    others
        Who it is compared with: the fastest of these in each round.
    limit
        At least so many times, at most so many seconds, bytes, or share; None where nothing is asked.
    kind
        What is compared.
    """

    what: str
    source: str
    table: str
    ours: str
    others: tuple[str, ...] = ()
    limit: float | None = None
    kind: Kind = "times"

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self.kind in ("times", "clock")


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured for a row.

    Parameters
    ----------
    values
        One a round.
    own, other
        Median seconds an item, of what is asked for and of who it is compared with.
    """

    values: list[float]
    own: float | None = None
    other: float | None = None

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.values)


def _limits() -> list[Row]:
    rows: list[Row] = []
    for name in ("Multiplex", "Panel of 40", "RGB"):
        raw, floats = batches.raw_title(name), batches.float_title(name)
        base = (batches.BASE,)
        rows.append(
            Row(
                f"{name}: random tiles as stored, default layout",
                "batches",
                raw,
                "microtome, default layout",
                base,
                0.35,
            )
        )
        if name != "Panel of 40":
            rows.append(
                Row(
                    f"{name}: the same, uncompressed",
                    "batches",
                    raw,
                    "microtome, uncompressed",
                    base,
                    0.9,
                )
            )
        rows += [
            Row(f"{name}: float32 batches, random", "batches", floats,
                batches.OURS, base, 1.0),
            Row(f"{name}: float32 batches, blocked", "batches", floats, batches.BLOCKED, base, 1.4),
        ]  # fmt: skip
    crops = batches.crops_title("Multiplex")
    rows.append(
        Row("64 px crops around cells, blocked", "batches", crops, batches.BLOCKED,
            (batches.BASE,), 1.8)
    )  # fmt: skip
    return rows


def _peers() -> list[Row]:
    rows: list[Row] = []
    for name, others, least in (
        ("spatialdata's ImageTilesDataset", ("spatialdata ImageTilesDataset",), 30),
        ("CAREamics", _CAREAMICS, 20),
        ("tiledbsoma, tuned", ("tiledbsoma, tuned",), 12),
        ("tiledbsoma at its defaults", ("tiledbsoma, its defaults",), 50),
        (f"a zarr-python DataLoader on the {_THEIRS}", (f"{_ZARR}, {_THEIRS}",), 25),
        ("a zarr-python DataLoader on our layout", (_ZARR,), 7),
        ("zarr 3.4's fused pipeline on our layout", ("zarr 3.4, fused pipeline",), 4),
        ("zarrs with 2 workers on our layout", ("zarrs, torch DataLoader, 2 workers",), 6),
        ("tensorstore by hand", ("tensorstore by hand",), 2),
    ):
        rows += [
            Row(f"random: {name}", "peers", peers.RANDOM, peers.OURS, others, least),
            Row(f"blocked: {name}", "peers", peers.RANDOM, peers.BLOCKED, others, 2 * least),
        ]
    rows.append(Row("blocked: random order", "peers", peers.RANDOM, peers.BLOCKED, (peers.OURS,)))
    rows += [
        Row(f"blocked, 64 px crops: a zarr-python DataLoader on {where}", "peers", peers.CROPS,
            peers.BLOCKED, (other,), 200)
        for where, other in ((f"the {_THEIRS}", f"{_ZARR}, {_THEIRS}"), ("our layout", _ZARR))
    ]  # fmt: skip
    rows += [
        Row(f"{order}, JPEG slide in place: an OpenSlide loader", "slide_batches",
            slide_batches.BATCHES, ours, _OPENSLIDE, least)
        for order, ours, least in (
            ("random", batches.OURS, 3), ("blocked", batches.BLOCKED, 6)
        )
    ]  # fmt: skip
    return rows


def _pack() -> list[Row]:
    ours = "microtome"
    rows = [
        Row("pack, a chunk a tile: its tiles in random order, as fast as memmap", "packed", packed.GRID,
            ours, (packed.BASE,), 0.75),
        Row("... of the bytes", "packed", packed.GRID, "share of bytes", (), 0.6, "fact"),
        Row("pack for tiles anywhere: random tiles, as fast as memmap", "packed", packed.ANYWHERE,
            ours, (packed.BASE,), 0.75),
        Row("... of the bytes", "packed", packed.ANYWHERE, "share of bytes", (), 0.6, "fact"),
    ]  # fmt: skip
    stream = peers.OURS.replace("random", "in order")
    return rows + [
        Row(
            f"pack, in order: as fast as {who} streams",
            "peers",
            peers.STREAMED,
            stream,
            (who,),
            1.0,
        )
        for who in ("webdataset", "LitData")
    ]


def _beginning() -> list[Row]:
    rows = [
        Row(f"first batch, {order}, {table}, seconds", "startup", startup.FIRST, f"{order}, {table}",
            (), most, "seconds")
        for table, most in ((startup.SMALL, 0.1), (startup.LARGE, 0.3))
        for order in startup.ORDERS
    ]  # fmt: skip
    rows.append(
        Row("cold: as fast as tensorstore, by the clock", "cold", cold.COLD, cold.OURS, (cold.BASE,),
            1.0, "clock")
    )  # fmt: skip
    rows += [
        Row(
            f"memory of a loader, {order}, MiB",
            "startup",
            startup.MEMORY,
            order,
            (),
            _BATCH,
            "memory",
        )
        for order in startup.ORDERS
    ]
    for order, table in (("random", threads.RANDOM), ("blocked", threads.BLOCKED)):
        pair = threads.TWO, (threads.ONE,)
        rows += [
            Row(f"2 threads, {order}: times as fast as one, by the clock", "threads", table, *pair,
                None, "clock"),
            Row("... processor time", "threads", table, *pair, None, "times"),
        ]  # fmt: skip
    return rows


SECTIONS = {
    "Times as fast as numpy.memmap": _limits(),
    "Times as fast as peers": _peers(),
    "Packed": _pack(),
    "Beginning, cold, memory, threads": _beginning(),
}
ROWS = [row for rows in SECTIONS.values() for row in rows]
_MISSING = "16 threads beside a GPU, with copies overlapped and a consumer that waits: on no machine without one."


def measured(row: Row, results: Mapping[str, Any]) -> Found | None:
    """Return what a row's benchmark found; None where it, its table or a competitor is missing.

    Parameters
    ----------
    row
        The row.
    results
        What the benchmarks wrote, by name.
    """
    tables: Sequence[Any] = results.get(row.source, {}).get("tables", [])
    table = next((one for one in tables if one["title"] == row.table), None)
    if table is None:
        return None
    if row.kind == "fact":
        fact = table.get("facts", {}).get(row.ours)
        return None if fact is None else Found([fact])
    everyone = {one["name"]: one for one in table["competitors"]}
    own = everyone.get(row.ours)
    others = [everyone[name] for name in row.others if name in everyone]
    if own is None or (row.others and not others):
        return None
    if row.kind == "memory":
        return Found(own["peak_bytes"])
    key = "cpu_seconds" if row.kind == "times" else "wall_seconds"
    if row.kind == "seconds":
        return Found(own[key], statistics.median(own[key]))
    best = [min(each) for each in zip(*(one[key] for one in others), strict=True)]
    values = [other / mine for other, mine in zip(best, own[key], strict=True)]
    return Found(values, statistics.median(own[key]), statistics.median(best))


def summary(results: Mapping[str, Any]) -> str:
    """Return the page: every row with what is asked and what was measured."""
    parts = [
        "# asked",
        "What is asked of the loader, beside what was measured; made by `python -m benchmarks.asked` of the "
        "results of "
        + ", ".join(f"`{name}`" for name in BENCHMARKS)
        + ", whose pages say how. Measured is "
        "the median of the rounds, in brackets the least and the most; of several settings of a peer the "
        "fastest in each round counts. Microseconds are a tile's, of processor time where not the clock is "
        "compared: ours, theirs.",
    ]
    for name in BENCHMARKS:
        machine = results.get(name, {}).get("machine")
        if machine:
            parts.append(
                f"`{name}`: {machine['processor']}, {machine['processors']} processors, load "
                f"{machine.get('load_before', '?')} before and {machine.get('load_at_end', '?')} at the end."
            )
    counts = {"yes": 0, "no": 0, "not measured": 0}
    for title, rows in SECTIONS.items():
        lines = ["| | asked | measured | met | us a tile |", "|---|---:|---:|---|---:|"]
        for row in rows:
            cells, met = _cells(row, measured(row, results))
            lines.append(f"| {row.what} | {' | '.join(cells)} |")
            counts[met] = counts.get(met, 0) + (row.limit is not None)
        parts += [f"## {title}", "\n".join(lines)]
    asked = sum(row.limit is not None for row in ROWS)
    parts.insert(
        2,
        f"**{counts['yes']} of {asked} met**, {counts['no']} not, {counts['not measured']} not measured here. "
        f"Not among them: {_MISSING}",
    )
    return "\n\n".join(parts) + "\n"


def _cells(row: Row, found: Found | None) -> tuple[list[str], str]:
    scale = 1 / (1 << 20) if row.kind == "memory" else 1.0
    sign = "&ge; " if row.at_least else "&le; "
    asked = "" if row.limit is None else f"{sign}{_short(row.limit * scale)}"
    if found is None:
        return [asked, "", "not measured", ""], "not measured"
    low, high = (_short(value * scale) for value in (min(found.values), max(found.values)))
    spread = "" if len(found.values) == 1 else f" ({low} to {high})"
    met = ""
    if row.limit is not None:
        enough = found.median >= row.limit if row.at_least else found.median <= row.limit
        met = "yes" if enough else "no"
    times = [
        f"{value * 1e6:.0f}"
        for value in (found.own, found.other)
        if value and row.kind != "seconds"
    ]
    return [asked, f"{_short(found.median * scale)}{spread}", met, ", ".join(times)], met


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def load(directory: Path) -> dict[str, Any]:
    """Return what the benchmarks wrote, by name; those that wrote nothing are left out."""
    files = {name: directory / f"{name}.json" for name in BENCHMARKS}
    return {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name, file in files.items()
        if file.is_file()
    }


def write(directory: Path) -> str:
    """Write ``asked.md`` beside the results it is made of, and return it."""
    text = summary(load(directory))
    (directory / "asked.md").write_text(text, encoding="utf-8")
    return text


def main() -> None:
    """Write and print the page."""
    parser = argparse.ArgumentParser(prog="benchmarks.asked", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    print(write(parser.parse_args().results))


if __name__ == "__main__":
    main()
