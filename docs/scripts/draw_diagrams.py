"""Draw the diagrams of the documentation as SVG.

What can be computed is computed: the floors come from the table in architecture.md, the tiles from the
planners. Run it after changing either; `tests/test_docs_pages.py` compares.

    .venv/bin/python docs/scripts/draw_diagrams.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[1]

INK, GREY, LINE, CARD = "#1f2430", "#5d6677", "#c5cad6", "#ffffff"
BLUE, PINK, AMBER, PALE = "#4b4a9c", "#c2407f", "#b9770e", "#eef0f8"


def card(width: int, height: int, title: str, parts: Iterator[str]) -> str:
    """Put shapes on a light card, so that the picture reads on dark pages as well."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="system-ui, sans-serif" font-size="14">'
    )
    ground = f'<rect width="{width}" height="{height}" rx="8" fill="{CARD}"/>'
    return "\n".join(
        [head, f"<title>{escape(title)}</title>", ground, *parts, "</svg>", ""]
    )


def box(
    x: float,
    y: float,
    w: float,
    h: float,
    fill: str = PALE,
    line: str = BLUE,
    **more: str,
) -> str:
    extra = "".join(
        f' {key.replace("_", "-")}="{value}"' for key, value in more.items()
    )
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="3" fill="{fill}" '
        f'stroke="{line}"{extra}/>'
    )


def text(x: float, y: float, words: str, *, at: str = "middle", **more: str) -> str:
    style = {"fill": INK} | more
    extra = "".join(
        f' {key.replace("_", "-")}="{value}"' for key, value in style.items()
    )
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{at}"{extra}>{escape(words)}</text>'


def arrow(x0: float, y0: float, x1: float, y1: float, colour: str = GREY) -> str:
    dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
    head = f"{x1},{y1} {x1 - 8 * dx - 4 * dy},{y1 - 8 * dy - 4 * dx} {x1 - 8 * dx + 4 * dy},{y1 - 8 * dy + 4 * dx}"
    line = f'<line x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}" stroke="{colour}" stroke-width="1.5"/>'
    return f'{line}<polygon points="{head}" fill="{colour}"/>'


# ------------------------------------------------------------------ the pictures


def road() -> str:
    """The way of pixels, and of the model's answer."""

    def parts() -> Iterator[str]:
        stops = [
            ("a file", "SVS, TIFF, array"),
            ("MultiscaleImage", "levels, and where"),
            ("windows", "read_regions"),
            ("ImageRegionData", "batches"),
            ("model", "yours"),
        ]
        left, step, width = 12, 178, 156
        middle = [left + step * place + width / 2 for place in range(len(stops))]
        for place, (name, below) in enumerate(stops):
            x, value = left + step * place, name[0].isupper()
            fill, line = (PALE, BLUE) if value else (CARD, LINE)
            yield box(x, 24, width, 56, fill=fill, line=line)
            yield text(
                middle[place], 48, name, font_weight="600" if value else "400"
            )
            yield text(middle[place], 67, below, fill=GREY, font_size="12")
            if place:
                yield arrow(x - 20, 52, x - 2, 52)
        yield box(left + 2 * step, 128, width, 56)
        yield text(middle[2], 152, "TileTable", font_weight="600")
        yield text(
            middle[2], 171, "which, in what order", fill=GREY, font_size="12"
        )
        yield arrow(middle[2], 126, middle[2], 83)
        back = f"M {middle[4]:g} 82 V 216 H {middle[1]:g} V 92"
        yield f'<path d="{back}" fill="none" stroke="{PINK}" stroke-width="1.5"/>'
        yield arrow(middle[1], 100, middle[1], 83, PINK)
        yield text(560, 208, "the answer, stitched onto the tissue", fill=PINK)

    return card(
        890,
        236,
        "The road: file, image, windows, batches, model, and back to an image",
        parts(),
    )


def table_of_floors() -> dict[str, int]:
    """Return the rooms and floors that architecture.md states."""
    page = (DOCS / "architecture.md").read_text("utf-8")
    return {
        room: int(floor)
        for room, floor in re.findall(
            r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE
        )
    }


def floors() -> str:
    """The rooms, stacked by floor."""
    rooms = table_of_floors()
    levels = sorted(set(rooms.values()), reverse=True)

    def parts() -> Iterator[str]:
        for row, floor in enumerate(levels):
            y, names = (
                12 + 40 * row,
                [room for room, on in rooms.items() if on == floor],
            )
            yield text(20, y + 21, str(floor), fill=GREY)
            width = 600 / len(names)
            for place, name in enumerate(names):
                yield box(40 + width * place, y, width - 6, 32)
                yield text(40 + width * place + (width - 6) / 2, y + 21, name)
        yield arrow(664, 16, 664, 4 + 40 * len(levels))
        yield text(
            680,
            20 * len(levels),
            "imports",
            at="middle",
            fill=GREY,
            transform=f"rotate(90 680 {20 * len(levels)})",
        )

    return card(
        700,
        16 + 40 * len(levels),
        "The rooms by floor; imports go down only",
        parts(),
    )


def levels() -> str:
    """Pixels of three levels over the same stretch of tissue."""

    def parts() -> Iterator[str]:
        left, pixel, count = 130, 46, 12
        for level in range(3):
            y, size = 46 + 66 * level, pixel * 2**level
            shift = (2**level - 1) / 2 * 0.5
            yield text(16, y + 15, f"level {level}", at="start", font_weight="600")
            yield text(
                16,
                y + 32,
                f"{0.5 * 2**level:g} um pixels",
                at="start",
                fill=GREY,
                font_size="12",
            )
            for j in range(count // 2**level):
                chosen = j == 7 >> level
                yield box(
                    left + size * j,
                    y,
                    size,
                    36,
                    fill="#f6d9e7" if chosen else PALE,
                    line=PINK if chosen else BLUE,
                )
                yield text(left + size * (j + 0.5), y + 16, str(j), font_size="12")
            yield f'<circle cx="{left + size / 2:g}" cy="{y + 27}" r="3" fill="{AMBER}"/>'
            yield text(
                left + size / 2 + 7,
                y + 31,
                f"{shift:g}",
                at="start",
                fill=AMBER,
                font_size="12",
            )
        yield f'<line x1="{left}" y1="30" x2="{left}" y2="222" stroke="{INK}" stroke-width="2"/>'
        for j in (0, 2, 4, 6, 8, 10, 12):
            yield text(
                left + pixel * j,
                24,
                f"{0.5 * j:g} um",
                fill=GREY,
                font_size="12",
            )
        yield text(
            left,
            240,
            "edge 0, the same at every level",
            at="start",
            fill=GREY,
            font_size="12",
        )
        yield f'<circle cx="{left + 270}" cy="236" r="3" fill="{AMBER}"/>'
        yield text(
            left + 278,
            240,
            "middle of pixel 0: its OME-NGFF translation, in um",
            at="start",
            fill=AMBER,
            font_size="12",
        )

    return card(
        740,
        254,
        "Pixels of three levels above each other, all from the same left edge",
        parts(),
    )


def tilings() -> str:
    """The cover and the grid of the example on the page about tiles."""
    import numpy as np

    import microtome as mt

    rows, columns = np.ogrid[0:1000, 0:1200]
    tissue = (rows - 450) ** 2 + (columns - 500) ** 2 < 300**2
    cover, stats, _ = mt.best_mask_tiling_try_to_stop(
        tissue, 224, 112, tolerance=0.85, coverage_goal=1.0, min_gain_ratio=0.05
    )
    grid, grid_stats = mt.get_grid_tile(tissue, 224, tolerance=0.85)
    shown = (("cover", cover, stats), ("grid", grid, grid_stats))

    def parts() -> Iterator[str]:
        scale = 0.27
        for place, (name, tiles, facts) in enumerate(shown):
            x, y = 20 + 350 * place, 40
            words = f"{name}: {len(tiles)} tiles, {facts['coverage_ratio']:.1%} of the tissue"
            yield text(x, 26, words, at="start", font_weight="600")
            yield box(x, y, 1200 * scale, 1000 * scale, fill="#fafafc", line=LINE)
            yield f'<circle cx="{x + 500 * scale:g}" cy="{y + 450 * scale:g}" r="{300 * scale:g}" fill="#f3cfe0"/>'
            for number, tile in enumerate(tiles):
                corner = x + tile.col * scale, y + tile.row * scale
                yield box(
                    *corner,
                    224 * scale,
                    224 * scale,
                    fill="none",
                    stroke_width="1.5",
                )
                yield text(
                    corner[0] + 5,
                    corner[1] + 14,
                    str(number),
                    at="start",
                    fill=BLUE,
                    font_size="11",
                )

    return card(
        700, 326, "The same tissue covered by tiles, and cut by a grid", parts()
    )


def crop_rule() -> str:
    """The tiles along one row of the example on the page about prediction, and what each keeps."""
    from microtome.tiling import plan_tiles

    plan = plan_tiles((128, 467), tile_size=128, overlap=32)

    def parts() -> Iterator[str]:
        left, scale, foot = 24, 1.4, 50 + 34 * len(plan)
        yield text(
            left,
            24,
            "tiles of 128 that share 32, and what each keeps",
            at="start",
            fill=GREY,
        )
        for number, (start, keep, size) in enumerate(
            zip(
                plan.coords[:, 1],
                plan.stitch[:, 1],
                plan.crop_size[:, 1],
                strict=True,
            )
        ):
            y = 38 + 34 * number
            yield box(
                left + start * scale, y, 128 * scale, 24, fill=CARD, line=LINE
            )
            yield box(
                left + keep * scale,
                y,
                size * scale,
                24,
                fill="#f6d9e7",
                line=PINK,
            )
            yield text(
                left + (keep + size / 2) * scale,
                y + 17,
                f"{keep} to {keep + size}",
                font_size="12",
            )
            yield f'<line x1="{left + keep * scale:g}" y1="{y}" x2="{left + keep * scale:g}" y2="{foot}" stroke="{PINK}" stroke-dasharray="2 3"/>'
        yield box(left, foot, 467 * scale, 24, fill="#f6d9e7", line=PINK)
        yield text(
            left + 467 * scale / 2,
            foot + 17,
            "the image, 0 to 467: every pixel once",
            font_size="12",
        )

    return card(
        704,
        92 + 34 * len(plan),
        "Overlapping tiles, and the part that each keeps",
        parts(),
    )


def draft() -> str:
    """How an image appears."""
    steps = [
        ("1", ".t1.ome.zarr.partial-3f", ["0/  1/  2/"], "being filled"),
        (
            "2",
            ".t1.ome.zarr.partial-3f",
            ["0/  1/  2/", "zarr.json.pending"],
            "complete",
        ),
        ("3", "t1.ome.zarr", ["0/  1/  2/", "zarr.json.pending"], "renamed"),
        ("4", "t1.ome.zarr", ["0/  1/  2/", "zarr.json"], "an image"),
    ]

    def parts() -> Iterator[str]:
        for place, (number, name, inside, state) in enumerate(steps):
            x, last = 16 + 214 * place, place == len(steps) - 1
            yield text(
                x,
                28,
                f"{number}  {state}",
                at="start",
                font_weight="600",
                fill=PINK if last else INK,
            )
            yield box(
                x,
                40,
                186,
                90,
                fill="#f6d9e7" if last else PALE,
                line=PINK if last else BLUE,
            )
            for row, line in enumerate([name, *inside]):
                weight = "600" if row == 0 else "400"
                yield text(
                    x + 10,
                    62 + 24 * row,
                    line,
                    at="start",
                    font_size="12",
                    font_weight=weight,
                    font_family="ui-monospace, monospace",
                )
            if place:
                yield arrow(x - 25, 85, x - 3, 85)
        yield text(
            16,
            154,
            "nothing that any reader opens",
            at="start",
            fill=GREY,
            font_size="12",
        )
        yield text(
            16 + 214 * 3, 154, "opens", at="start", fill=PINK, font_size="12"
        )

    return card(
        862,
        172,
        "How an image appears: filled, complete, renamed, visible",
        parts(),
    )


DIAGRAMS = {
    "crop_rule": crop_rule,
    "draft": draft,
    "floors": floors,
    "levels": levels,
    "road": road,
    "tilings": tilings,
}


def main() -> None:
    """Write every diagram into docs/images."""
    for name, draw in DIAGRAMS.items():
        path = DOCS / "images" / f"{name}.svg"
        path.write_text(draw(), "utf-8")
        sys.stderr.write(f"{path.relative_to(DOCS)}\n")


if __name__ == "__main__":
    main()
