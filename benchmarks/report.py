"""Tables of figures, as Markdown for people and as JSON for whoever draws them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from .harness import Table

__all__ = ["markdown", "write_results"]

_HOW = (
    "Processor time is user and system time of the process with all its threads and children; it "
    "counts, since wall time also measures who else is at work on the machine. Competitors take "
    "turns: in each round all of them do the same fresh items, the fast ones several times over, "
    "after a round in which they were checked to give equal pixels. Figures are medians over the rounds; a ratio is the median of "
    "the ratios within a round, in brackets the least and the most. Less is better."
)


def write_results(
    name: str, tables: Sequence[Table], machine: Mapping[str, str | int], directory: Path
) -> str:
    """Write ``<name>.md`` and ``<name>.json``, and return the Markdown.

    Parameters
    ----------
    name
        Name of the benchmark.
    tables
        What it found.
    machine
        What it was measured on.
    directory
        Where the files go; made where it is missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    text = markdown(name, tables, machine)
    (directory / f"{name}.md").write_text(text, encoding="utf-8")
    found = {
        "benchmark": name,
        "machine": dict(machine),
        "tables": [
            {
                "title": table.title,
                "item": table.item,
                "items": table.items,
                "base": table.base,
                "notes": table.notes,
                "facts": table.facts,
                "competitors": [
                    {
                        "name": m.name,
                        "cpu_seconds": m.cpu,
                        "wall_seconds": m.wall,
                        "cpu_times_base": table.cpu_ratio(m.name),
                    }
                    | ({"peak_bytes": m.peak} if m.peak else {})
                    for m in table.measurements
                ],
            }
            for table in tables
        ],
    }
    (directory / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return text


def markdown(name: str, tables: Sequence[Table], machine: Mapping[str, str | int]) -> str:
    """Return a page with one section a table."""
    facts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items())
    how = next((table.how for table in tables if table.how), _HOW)
    parts = [f"# {name}", f"Measured on: {facts}.", how]
    for table in tables:
        rounds = len(table.base_measurement.cpu)
        each = f" of {table.items} {table.item}s" if table.items > 1 else ""
        parts += [
            f"## {table.title}",
            " ".join([*table.notes, f"{rounds} rounds{each}."]),
            _rows(table),
        ]
    return "\n\n".join(parts) + "\n"


def _rows(table: Table) -> str:
    # Of what fills a round alone, seconds are told.
    unit, scale, digits = ("s", 1, 2) if table.items == 1 else ("us", 1e6, 0)
    memory = all(m.peak for m in table.measurements)
    lines = [
        f"| | processor {unit} a {table.item} | times {table.base} | wall {unit} a {table.item} |"
        + (" peak memory MiB |" if memory else ""),
        "|---|---:|---:|---:|" + ("---:|" if memory else ""),
    ]
    for m in table.measurements:
        ratios = m.cpu_times(table.base_measurement)
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        cpu, wall = (statistics.median(values) * scale for values in (m.cpu, m.wall))
        line = f"| {m.name} | {cpu:.{digits}f} | {spread} | {wall:.{digits}f} |"
        lines.append(line + (f" {statistics.median(m.peak) / (1 << 20):.0f} |" if memory else ""))
    return "\n".join(lines)
