"""Take the pictures of the report and of the viewer, from the cohort that the tutorial makes.

    (cd EMPTY_FOLDER && .../python .../docs/snippets/tutorial.py)
    .venv/bin/python docs/scripts/take_screenshots.py EMPTY_FOLDER/study docs/images

Needs Chromium (Debian: `apt-get install chromium`) and playwright, which brings no browser of its own
here. The viewer is served on this machine while its pictures are taken.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from microtome.storage import replace_file
from microtome.view import report
from microtome.viewer import viewer_app

SIZE = {"width": 1280, "height": 800}
PLACE = "#tissue=colon&modality=ihc_FHL2&x=512&y=512"
OVERLAYS = "&zoom=1.05&layers=masks:tissue:0.15,tilings:default-128:1"
LINKED = (
    "&zoom=0.7&modality2=stains"
    "&layers2=predictions:demo:0.6:channel=nuclear_density:map=inferno:ends=clear"
)
CALM = """async () => {
    const busy = () => document.querySelector(".pane:not([hidden]) .stage[aria-busy=true]");
    for (let calm = 0; calm < 20; calm = busy() ? 0 : calm + 1) {
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
}"""


@contextmanager
def served(cohort: Path) -> Iterator[str]:
    """Serve a cohort on this machine; gives the address of the page."""
    app = viewer_app(cohort, token="pictures")  # noqa: S106 - of a server that lives for seconds
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/pictures/"
    server.should_exit = True
    thread.join()


def keep(page: Page, target: Path) -> None:
    """Write what a page shows; 256 colours look the same and are a third of the bytes."""
    taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    with replace_file(target) as beside:
        taken.quantize(256, dither=Image.Dither.NONE).save(
            beside, format="PNG", optimize=True
        )
    print(target)


def take_viewer(browser: Browser, url: str, folder: Path) -> None:
    """One picture with overlays, one of two linked views in the dark."""
    for scheme, link, name in (
        ("light", PLACE + OVERLAYS, "viewer.png"),
        ("dark", PLACE + LINKED, "viewer_linked.png"),
    ):
        page = browser.new_page(viewport=SIZE, color_scheme=scheme)
        page.goto(url + link)
        page.wait_for_selector(".tissue[aria-current]")
        page.evaluate(CALM)
        if scheme == "light":
            page.keyboard.press("Enter")  # Select the tile in the middle.
        else:
            page.get_by_role("radio", name="stains").check()
        box = page.locator(".stage").first.bounding_box()
        assert box is not None
        page.mouse.move(
            box["x"] + 0.62 * box["width"], box["y"] + 0.4 * box["height"]
        )
        page.evaluate(CALM)
        keep(page, folder / name)
        page.close()


def take_report(browser: Browser, cohort: Path, folder: Path) -> None:
    """The top of the report, and its first slide."""
    with tempfile.TemporaryDirectory() as made:
        written = Path(made) / "report.html"
        report(cohort, written)
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(written.as_uri())
        # Where it lay on the machine that took the picture is nobody's business.
        page.add_style_tag(content=".path { display: none }")
        keep(page, folder / "report.png")
        page.locator("section.tissue").first.evaluate("(e) => e.scrollIntoView()")
        keep(page, folder / "report_slide.png")


def main() -> None:
    """Take all of them into a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("there is no chromium on this machine")
    with sync_playwright() as started, served(given.cohort) as url:
        browser = started.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        take_viewer(browser, url, given.folder)
        take_report(browser, given.cohort, given.folder)
        browser.close()


if __name__ == "__main__":
    main()
