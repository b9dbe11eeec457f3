"""A cohort whose pixels are known, served, and a browser that looks at it."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from microtome.cohort import CohortLayout, StainsModality, add_cells, ingest, tile
from microtome.coordinates import Mpp, Resolution
from microtome.image import begin_image

RESOLUTION = Resolution.parse(0.5)
BLOCK = 100  # px; flat inside, so that neither JPEG nor smoothing changes the middle
SHAPE = (700, 900)
# Where the upper left corner of the stains' picture lies, in micrometres, (y, x); H&E begins at 0.
STAINS_EDGE = (40.0, 25.0)
STAINS_SHAPE = (500, 640)
# Nothing on its way for six frames and 300 ms, and the address says what is shown: what a change draws may put
# off the link once more, so no fixed time is long enough for it.
CALM = """async () => {
    const busy = () => document.querySelector(".pane:not([hidden]) .stage[aria-busy=true], html[data-link=pending]");
    const end = performance.now() + 60000;
    for (let calm = 0; calm < 6; calm = busy() ? 0 : calm + 1) {
        if (performance.now() > end) throw new Error("the page is still busy after a minute");
        // A frame, too: what was just asked for shows only with the next one.
        await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 50)));
    }
}"""
LONG_NAME = "mean_Cytokeratin_651((3356))Pr141_of_the_membrane"
CHANNELS = ["DAPI", "CD3", "a:b,c&d=%"]


@dataclass(frozen=True)
class Site:
    """What is served, and the arrays it was made from."""

    url: str
    he: NDArray[np.uint8]
    stains: NDArray[np.uint16]
    mask: NDArray[np.bool_]
    cells: NDArray[np.uint32]
    density: NDArray[np.float32]
    layout: CohortLayout


def blocks(shape: tuple[int, int], depth: int, seed: int, low: int, high: int) -> NDArray[Any]:
    """Flat squares of BLOCK px, each of another value."""
    rows, columns = (-(-n // BLOCK) for n in shape)
    values = np.random.default_rng(seed).integers(low, high, (rows, columns, depth))
    return values.repeat(BLOCK, 0).repeat(BLOCK, 1)[: shape[0], : shape[1]]


def store(path: Path, pixels: NDArray[Any], mpp: float, edge: tuple[float, float], **options: Any):
    """Write an image whose upper left corner lies at `edge`, in micrometres from that of H&E.

    NGFF speaks of centres: that of H&E's first pixel is 0, and its corner half a pixel before.
    """
    with begin_image(
        path,
        dtype=pixels.dtype,
        shape=pixels.shape,
        axes="cyx",
        mpp=Mpp.from_user(mpp),
        translation=(edge[0] + (mpp - 0.5) / 2, edge[1] + (mpp - 0.5) / 2),
        **options,
    ) as image:
        image.level(0)[...] = pixels
        image.build_levels()


def make_cohort(root: Path) -> dict[str, Any]:
    """Three tissues; of the first everything there is to show."""
    he = blocks(SHAPE, 3, 1, 30, 226).astype(np.uint8)
    stains = np.moveaxis(blocks(STAINS_SHAPE, 3, 2, 0, 1000), -1, 0).astype(np.uint16)
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    mask = (y - 350) ** 2 + (x - 450) ** 2 < 280**2
    cells = np.zeros(SHAPE, np.uint32)
    for number, (top, left) in enumerate([(220, 320), (420, 520)], start=7):
        cells[top : top + 60, left : left + 60] = number
    density = (np.arange(SHAPE[1] // 4) / 224).astype(np.float32)[None].repeat(SHAPE[0] // 4, 0)
    common: dict[str, Any] = {"cohort": root, "mpp": 0.5, "resolution": 0.5}
    for name, organ in (("core_one", "colon"), ("core_2", "lung"), ("core_3", "lung")):
        shown = he if name == "core_one" else he[::-1]
        ingest(shown, axes="yxc", tissue_id=name, modality="he", patient_id=organ, **common)
    ingest(
        stains,
        axes="cyx",
        channel_names=CHANNELS,
        tissue_id="core_one",
        modality="stains",
        **common,
    )
    layout = CohortLayout.open(root)
    moved = layout.image(StainsModality(), RESOLUTION, "core_one")
    shutil.rmtree(moved)
    store(moved, stains, 0.5, STAINS_EDGE, channel_names=CHANNELS)
    folder = layout.tissue_mask(RESOLUTION, "core_one").parent
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "core_one.npz", mask=mask)
    for other in ("core_2", "core_3"):
        np.savez_compressed(folder / f"{other}.npz", mask=mask[::-1])
    instances = folder.parent / "cell_masks" / "instances"
    instances.mkdir(parents=True)
    np.savez_compressed(instances / "core_one.npz", mask=cells)
    tile(root, tile_size=64)
    row = {"tissue_id": "core_one", "cell_id": 8, "type": "T <b>cell</b>", "CD3": 3.25}
    # A name that leaves little room for its value, and what this tissue never measured.
    row |= {LONG_NAME: 0.6720612, "CD8": None}
    add_cells(root, pa.Table.from_pylist([row]))
    store(
        layout.predictions(RESOLUTION, "model") / "core_one.ome.zarr",
        np.stack([density, 1 - density]),
        2.0,
        (0.0, 0.0),
        channel_names=["density", "rest"],
        metadata={"microtome": {"prediction": {"source": "he"}}},
    )
    return {
        "he": he,
        "stains": stains,
        "mask": mask,
        "cells": cells,
        "density": density,
        "layout": layout,
    }


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Iterator[Site]:
    """Serve the cohort on this machine as long as the tests run."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra `view` is not installed")
    from microtome.viewer import viewer_app

    root = tmp_path_factory.mktemp("page") / "study <one> & two"
    made = make_cohort(root)
    app = viewer_app(root, token="token")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Site(url=f"http://127.0.0.1:{port}/token/", **made)
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive(), "the server did not stop"


# Not of the session: as long as playwright runs, no other test on this thread may start a loop of asyncio.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start the system's Chromium without a window; skip where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if path is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Viewer:
    """A page of the viewer, and all that went wrong on it."""

    page: Any
    url: str
    problems: list[str] = field(default_factory=list)
    # Parts of the problems that a test makes on purpose: the browser tells of them when it likes.
    meant: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        page = self.page
        page.on(
            "console", lambda m: m.type == "error" and self.problems.append(f"console: {m.text}")
        )
        page.on("pageerror", lambda error: self.problems.append(f"page: {error}"))
        page.on(
            "response", lambda r: r.status >= 400 and self.problems.append(f"{r.status} {r.url}")
        )
        page.on("requestfailed", self._failed)

    def _failed(self, request: Any) -> None:
        # What the page itself no longer wants (the pixel before last) is no failure.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"{request.failure}: {request.url}")

    def open(self, link: str = "") -> Viewer:
        """Open a link, and wait until all of it is there."""
        self.page.goto("about:blank")
        self.page.goto(self.url + link)
        self.page.wait_for_selector(".tissue[aria-current]", state="attached")
        return self.settle()

    def settle(self) -> Viewer:
        """Wait until what was asked for is drawn."""
        self.page.evaluate(CALM)
        return self

    def pixels(self, view: int = 0) -> NDArray[np.int64]:
        """What a view shows, (height, width, 3)."""
        from PIL import Image

        taken = self.page.locator(".stage").nth(view).screenshot()
        return np.asarray(Image.open(io.BytesIO(taken)).convert("RGB")).astype(np.int64)

    def hash(self) -> dict[str, str]:
        """The parts of the link."""
        text = self.page.evaluate("location.hash").removeprefix("#")
        return dict(part.split("=", 1) for part in text.split("&"))


@pytest.fixture
def viewer(site, chromium) -> Iterator[Viewer]:
    """A fresh page; at the end nothing may have gone wrong on it."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    made = Viewer(context.new_page(), site.url)
    yield made
    context.close()
    assert [p for p in made.problems if not any(part in p for part in made.meant)] == []


@pytest.fixture
def at() -> Callable[..., tuple[int, int]]:
    """Where a level-0 pixel's middle is on a screenshot: (row, column), worked out from the link alone."""

    def place(pixels, link: dict[str, str], row: float, column: float) -> tuple[int, int]:
        height, width = pixels.shape[:2]
        x, y, zoom = (float(link[key]) for key in ("x", "y", "zoom"))
        return (
            int(np.floor(height / 2 + (row + 0.5 - y) * zoom)),
            int(np.floor(width / 2 + (column + 0.5 - x) * zoom)),
        )

    return place
